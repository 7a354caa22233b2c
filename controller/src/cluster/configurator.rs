//! Turns configuration objects into the configuration in force, and tells what is wrong with them.
use std::{collections::BTreeSet, sync::Arc};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken},
    alloc::NoteType,
    config::{Builder, Config, Problem, Resources, Severity},
    model::ObjectKey,
    view::{Source, ViewWriter},
};
use tokio::sync::watch;

use super::{
    events::{EventQueue, Record, Regarding, Repeat},
    lease::Leadership,
    resources::{Kind, ResourcesDraft},
};

/// Which process reports.
pub enum Reporter {
    /// The controller: every problem but those of Secrets, which it does not read; Events only while it leads.
    Controller(EventQueue, watch::Receiver<Leadership>),
    /// A speaker: every problem in its log, but Events only for what the controller cannot see: Secrets.
    Speaker(EventQueue),
    /// No API server to write Events to.
    Log,
}

/// Compiles the configuration whenever an object changes.
pub struct Configurator {
    draft: watch::Receiver<ResourcesDraft>,
    view: ViewWriter,
    reporter: Reporter,
    builder: Builder,
    reported: BTreeSet<Problem>,
    sent: BTreeSet<Problem>,
    told: bool,
    counted: bool,
}

/// Is it a problem with what a Secret holds? Only speakers read Secrets.
fn is_of_secret(problem: &Problem) -> bool {
    problem.field.contains("passwordSecret") || problem.field.ends_with(".secret.name")
}

impl Configurator {
    /// From `draft` into `view`.
    #[must_use]
    pub fn new(draft: watch::Receiver<ResourcesDraft>, view: ViewWriter, reporter: Reporter) -> Self {
        let (builder, reported, sent) = (Builder::default(), BTreeSet::new(), BTreeSet::new());
        Self { draft, view, reporter, builder, reported, sent, told: false, counted: false }
    }

    fn rebuild(&mut self) {
        let draft = self.draft.borrow_and_update().clone();
        let epoch = draft.epoch();
        if epoch == 0 {
            return;
        }
        let mut config = self.builder.build(&draft.resources);
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
            Reporter::Controller(queue, leadership) if leadership.borrow().term.is_some() => (queue, false),
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
        loop {
            self.rebuild();
            let mut leadership = match &self.reporter {
                Reporter::Controller(_, leadership) => Some(leadership.clone()),
                _ => None,
            };
            let term = leadership.as_ref().and_then(|l| l.borrow().term);
            let term_changes = async {
                match &mut leadership {
                    Some(leadership) => leadership.wait_for(|l| l.term != term).await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.draft.changed() => changed.map_err(|_| ActorError::Upstream("configuration objects"))?,
                alive = term_changes => if !alive { return Err(ActorError::Upstream("leadership")) },
            }
        }
    }
}
