//! Turns configuration objects into the configuration in force, and tells what is wrong with them.
//!
//! The leader decides what is in force: it remembers each object's last valid version and the addresses that an edit would take
//! away, and records both (see [`crate::in_force`]). A speaker follows the record, so that all nodes agree; only where there is none
//! (no controller has run yet) it goes by the objects themselves.
use std::{collections::BTreeSet, sync::Arc};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken},
    alloc::NoteType,
    config::{
        Builder, Config, InForce, Living, Networks, OnAddressLoss, Past, Problem, Resource, Resources, Severity, Spec,
        Surroundings, carry_over, check_surroundings,
    },
    model::{Labels, ObjectKey},
    view::{ClusterView, Source, ViewWriter},
};
use imbl::OrdMap;
use tokio::sync::watch;

use super::{
    configuration_state::Found,
    events::{EventQueue, Record, Regarding, Repeat},
    lease::Leadership,
    resources::{Kind, ResourcesDraft},
};
use crate::in_force::store::{Stored, Wanted};

/// What a controller's configurator has besides its objects.
pub struct Leading {
    /// Where Events go.
    pub events: EventQueue,
    /// Events and the record are written only while this process leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Services, Namespaces and Nodes: whose addresses live, and what surely is a mistake.
    pub around: watch::Receiver<ClusterView>,
    /// The record that is to be written.
    pub record: watch::Sender<Wanted>,
    /// The same, for the webhook.
    pub in_force: watch::Sender<Option<Arc<InForce>>>,
    /// Class served.
    pub class: Option<Arc<str>>,
    /// `--on-address-loss`.
    pub on_address_loss: OnAddressLoss,
}

/// Which process reports.
pub enum Reporter {
    /// The controller: every problem but those of Secrets, which it does not read; Events only while it leads.
    Controller(Box<Leading>),
    /// A speaker: every problem in its log, but Events only for what the controller cannot see: Secrets.
    Speaker(EventQueue),
    /// No API server to write Events to.
    Log,
}

/// What was in force until now.
struct Before {
    /// The term of leadership it belongs to.
    term: Option<u64>,
    config: Config,
    resources: Resources,
    namespaces: OrdMap<Arc<str>, Arc<Labels>>,
}

/// Compiles the configuration whenever an object changes.
pub struct Configurator {
    draft: watch::Receiver<ResourcesDraft>,
    stored: watch::Receiver<Stored>,
    view: ViewWriter,
    found: watch::Sender<Found>,
    reporter: Reporter,
    builder: Builder,
    before: Option<Before>,
    reported: BTreeSet<Problem>,
    sent: BTreeSet<Problem>,
    told: bool,
    counted: bool,
}

/// Is it a problem with what a Secret holds? Only speakers read Secrets.
fn is_of_secret(problem: &Problem) -> bool {
    problem.field.contains("passwordSecret") || problem.field.ends_with(".secret.name")
}

/// Reads a record; one that cannot be read counts as none.
fn read(stored: &Stored) -> Option<InForce> {
    let record = stored.record.as_ref()?;
    match serde_json::from_slice(record) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(%error, "the record of the configuration in force cannot be read: going on without");
            None
        }
    }
}

impl Configurator {
    /// From `draft` and the record into `view`; `found` gets what is wrong.
    #[must_use]
    pub fn new(
        draft: watch::Receiver<ResourcesDraft>,
        stored: watch::Receiver<Stored>,
        view: ViewWriter,
        found: watch::Sender<Found>,
        reporter: Reporter,
    ) -> Self {
        let (builder, reported, sent) = (Builder::default(), BTreeSet::new(), BTreeSet::new());
        Self {
            draft,
            stored,
            view,
            found,
            reporter,
            builder,
            before: None,
            reported,
            sent,
            told: false,
            counted: false,
        }
    }

    fn rebuild(&mut self) {
        let draft = self.draft.borrow_and_update().clone();
        let stored = self.stored.borrow_and_update().clone();
        let epoch = draft.epoch().min(stored.epoch);
        if epoch == 0 {
            return;
        }
        let mut config = match &mut self.reporter {
            Reporter::Controller(leading) => {
                let (builder, before) = (&mut self.builder, &mut self.before);
                let Some(config) = decide(leading, builder, before, &draft.resources, &stored, epoch) else { return };
                config
            }
            Reporter::Speaker(_) | Reporter::Log => self.follow(&draft.resources, &stored),
        };
        for (object, message) in unsupported(&config) {
            config.problems.push(Problem {
                object,
                field: String::new(),
                value: String::new(),
                rule: "unsupported",
                message,
                suggestion: String::new(),
                severity: Severity::Warning,
            });
        }
        if matches!(self.reporter, Reporter::Controller(..)) {
            config.problems.retain(|p| !is_of_secret(p));
        }
        config.problems.sort();
        config.stale = config.problems.iter().any(|p| p.severity == Severity::Error);
        self.count(&draft.resources);
        self.log(&config);
        self.send(&draft.resources, &config);
        self.found.send_if_modified(|found| {
            let changed = found.as_ref() != Some(&config.problems);
            if changed {
                *found = Some(config.problems.clone());
            }
            changed
        });
        metrics::gauge!("metallb_k8s_client_config_loaded_bool").set(1.0);
        metrics::gauge!("metallb_k8s_client_config_stale_bool").set(if config.stale { 1.0 } else { 0.0 });
        self.view.edit(|view| {
            let changed = *view.config != config;
            if changed {
                view.config = Arc::new(config);
            }
            changed
        });
        self.view.listed(Source::Config, epoch);
    }

    /// What the record says, with the passwords that it does not hold; the objects' own problems beside it.
    fn follow(&mut self, resources: &Resources, stored: &Stored) -> Config {
        let Some(record) = read(stored) else { return self.builder.build(resources) };
        let mut followed = record.resources(&resources.namespace);
        followed.passwords = resources.passwords.clone();
        for (key, object) in followed.objects.clone() {
            let Some(own) = resources.objects.get(&key).filter(|own| own.meta.uid == object.meta.uid) else { continue };
            if let Some(object) = with_password(&object, own) {
                followed.objects.insert(key, Arc::new(object));
            }
        }
        self.builder.restore(&record);
        let mut config = self.builder.build(&followed);
        let past = record.config(&resources.namespace);
        (config.former, config.moved) = (past.former, past.moved);
        // What is wrong is wrong with the objects as written, which this speaker does not go by.
        let mut written = Builder::default();
        written.restore(&record);
        let written = written.build(resources);
        config.problems.extend(written.problems);
        config.problems.sort();
        config.problems.dedup();
        config
    }

    /// Says once how much configuration there is.
    fn count(&mut self, resources: &Resources) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        let count = |kind: Kind| resources.objects.keys().filter(|k| k.kind == kind.name()).count();
        let counts: Vec<String> = Kind::ALL.iter().map(|k| format!("{} {}", count(*k), k.name())).collect();
        tracing::info!(namespace = %resources.namespace, objects = counts.join(", "), "configuration read");
    }

    fn log(&mut self, config: &Config) {
        let now: BTreeSet<Problem> = config.problems.iter().cloned().collect();
        for problem in now.difference(&self.reported) {
            match problem.severity {
                Severity::Error => tracing::error!(%problem, "configuration object is not in force as written"),
                Severity::Warning => tracing::warn!(%problem, "configuration object looks mistaken"),
            }
        }
        for problem in self.reported.difference(&now) {
            tracing::info!(%problem, "configuration problem is gone");
        }
        self.reported = now;
    }

    fn send(&mut self, resources: &Resources, config: &Config) {
        let (queue, secrets_only) = match &self.reporter {
            Reporter::Controller(leading) if leading.leadership.borrow().term.is_some() => (&leading.events, false),
            Reporter::Speaker(queue) => (queue, true),
            Reporter::Controller(..) | Reporter::Log => return,
        };
        // What stood at the first look may have been told by others; a missing Secret every speaker tells.
        let first = !std::mem::replace(&mut self.told, true);
        let now: BTreeSet<Problem> = config.problems.iter().cloned().collect();
        for problem in now.difference(&self.sent).filter(|p| !secrets_only || is_of_secret(p)) {
            let Some(object) = resources.objects.get(&problem.object) else { continue };
            queue.publish(Record {
                regarding: Regarding::resource(&object.meta, &resources.namespace),
                kind: NoteType::Warning,
                reason: if problem.severity == Severity::Error { "ConfigurationError" } else { "ConfigurationWarning" },
                action: "Validate",
                message: text(problem),
                repeat: if first || secrets_only { Repeat::Never } else { Repeat::Changed },
            });
        }
        self.sent = now;
    }
}

/// The controller's decision: what of the objects is in force, and what becomes of addresses that lose their pool. `None`: this
/// term has not seen everything yet.
fn decide(
    leading: &Leading,
    builder: &mut Builder,
    before: &mut Option<Before>,
    resources: &Resources,
    stored: &Stored,
    epoch: u64,
) -> Option<Config> {
    let term = leading.leadership.borrow().term;
    let around = leading.around.borrow().clone();
    if around.epoch_of(&[Source::Services, Source::Namespaces, Source::Nodes]) == 0 || term.is_some_and(|t| epoch < t) {
        return None;
    }
    // A new leader goes on from the record, not from what it thought as a standby.
    if before.as_ref().is_none_or(|before| before.term != term) {
        let record = read(stored);
        *builder = Builder::default();
        let (mut config, mut past) = (Config::default(), Resources::default());
        if let Some(record) = &record {
            builder.restore(record);
            (config, past) = (record.config(&resources.namespace), record.resources(&resources.namespace));
        }
        *before = Some(Before { term, config, resources: past, namespaces: around.namespaces.clone() });
    }
    let last = before.as_mut()?;
    let mut config = builder.build(resources);
    let living = Living { services: &around.services, namespaces: &around.namespaces, class: leading.class.as_deref() };
    let past = Past { config: &last.config, resources: &last.resources, namespaces: &last.namespaces };
    let lost = carry_over(&past, &mut config, resources, &living, leading.on_address_loss);
    for loss in &lost.0 {
        let moved = config.moved.contains(&(loss.service.clone(), loss.ip));
        let what = if moved { "moved" } else { "held" };
        tracing::warn!(service = %loss.service, ip = %loss.ip, pool = %loss.pool, "an edit took an address: {what}");
    }
    let surroundings = Surroundings {
        nodes: &around.nodes,
        namespaces: &around.namespaces,
        services: &around.services,
        networks: Networks::default(),
    };
    let seen = check_surroundings(resources, &config, &surroundings);
    config.problems.extend(seen);
    config.problems.sort();
    config.problems.dedup();
    let record = Arc::new(builder.in_force(&config));
    publish(leading, term, record);
    *last = Before { term, config: config.clone(), resources: resources.clone(), namespaces: around.namespaces };
    Some(config)
}

/// Hands the record on, to be written while leading.
fn publish(leading: &Leading, term: Option<u64>, record: Arc<InForce>) {
    if let Some(term) = term {
        match serde_json::to_vec(&*record) {
            Ok(octets) => {
                let wanted = Wanted { term, record: Some(octets.into()) };
                leading.record.send_if_modified(|now| {
                    *now != wanted && {
                        *now = wanted;
                        true
                    }
                });
            }
            Err(error) => tracing::error!(%error, "the configuration in force cannot be recorded"),
        }
    }
    leading.in_force.send_if_modified(|now| {
        let changed = now.as_ref() != Some(&record);
        if changed {
            *now = Some(record);
        }
        changed
    });
}

/// A BGPPeer of the record with the password that stands in the object; `None` if there is none.
fn with_password(recorded: &Resource, own: &Resource) -> Option<Resource> {
    let (Some(Spec::Peer(spec)), Some(Spec::Peer(written))) = (&recorded.spec, &own.spec) else { return None };
    let password = written.password.clone()?;
    let mut spec = spec.clone();
    spec.password = Some(password);
    Some(Resource { spec: Some(Spec::Peer(spec)), ..recorded.clone() })
}

/// A problem's text without its object, which the Event is attached to.
fn text(problem: &Problem) -> String {
    let full = problem.to_string();
    full.strip_prefix(&format!("{}: ", problem.object)).unwrap_or(&full).to_owned()
}

/// What valid peers ask for that cannot be done.
pub(crate) fn unsupported(config: &Config) -> Vec<(ObjectKey, String)> {
    let mut found = Vec::new();
    for peer in config.peers.values() {
        // A missing password or BFDProfile is reported as such.
        if let (Err(why), None, None) = (ferrocast_bgp::support(peer), &peer.password_missing, &peer.bfd_missing) {
            let object = ObjectKey { kind: Kind::Peer.name(), name: peer.name.clone() };
            found.push((object, format!("not dialled: {why}")));
        }
    }
    found
}

impl Actor for Configurator {
    const NAME: &'static str = "configurator";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut lists = self.view.lists();
        loop {
            lists.mark_unchanged();
            self.rebuild();
            let whole = self.view.is_whole();
            let (mut leadership, mut around) = match &self.reporter {
                Reporter::Controller(leading) => (Some(leading.leadership.clone()), Some(leading.around.clone())),
                _ => (None, None),
            };
            let term = leadership.as_ref().and_then(|l| l.borrow().term);
            let term_changes = async {
                match &mut leadership {
                    Some(leadership) => leadership.wait_for(|l| l.term != term).await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            // Services come and go without a new configuration; Namespaces and Nodes are part of what it means.
            let seen = around.as_ref().map(|view| Around::of(&view.borrow()));
            let around_changes = async {
                match &mut around {
                    Some(view) => view.wait_for(|view| Some(Around::of(view)) != seen).await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.draft.changed() => changed.map_err(|_| ActorError::Upstream("configuration objects"))?,
                changed = self.stored.changed() => changed.map_err(|_| ActorError::Upstream("record"))?,
                alive = term_changes => if !alive { return Err(ActorError::Upstream("leadership")) },
                // What the view is made of is not told before it is whole, for which this actor is needed.
                changed = lists.changed(), if !whole => changed.map_err(|_| ActorError::Upstream("cluster view"))?,
                alive = around_changes => if !alive { return Err(ActorError::Upstream("cluster view")) },
            }
        }
    }
}

/// What the configuration depends on besides its objects, to see whether that has changed.
struct Around {
    whole: bool,
    namespaces: OrdMap<Arc<str>, Arc<Labels>>,
    nodes: OrdMap<Arc<str>, Arc<ferrocast_core::model::Node>>,
}

impl Around {
    fn of(view: &ClusterView) -> Self {
        let whole = view.epoch_of(&[Source::Services, Source::Namespaces, Source::Nodes]) > 0;
        Self { whole, namespaces: view.namespaces.clone(), nodes: view.nodes.clone() }
    }
}

impl PartialEq for Around {
    fn eq(&self, other: &Self) -> bool {
        self.whole == other.whole && self.namespaces.ptr_eq(&other.namespaces) && self.nodes.ptr_eq(&other.nodes)
    }
}
