//! The actor that decides what one node announces and hands it, through the pacer, to the announcers.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    announce::{Announcer, Configuration, Desired, Entry},
    config::{BGP, Config},
    decide::{Context, Decision, DesiredBuilder, Party, Reason, Sharers, decide_among},
    model::{Node, ServiceKey},
    pacer::{Pacer, Wanted},
    view::{ClusterView, Source},
};
use imbl::{OrdMap, ordmap::DiffItem};
use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

use crate::{
    cluster::metallb::{Living, must_wait},
    records::Record,
    state::Saved,
};

/// How long a speaker waits for its first decision before it announces again what it did before its restart.
pub const RESTORE_AFTER: Duration = Duration::from_secs(1);
/// What a speaker's view is made of.
pub const SPEAKER_SOURCES: &[Source] = &[Source::Services, Source::Endpoints, Source::Nodes, Source::Config];

/// The decisions for one announcer on every Service that has anything to announce or could have.
#[derive(Clone, Debug, Default)]
pub struct Decided {
    /// By Service; only those of type LoadBalancer and of our class.
    pub by_service: OrdMap<ServiceKey, Arc<Decision>>,
    /// Since when, and what before.
    pub records: OrdMap<ServiceKey, Arc<Record>>,
    /// What the announcer was handed last: what follows from the decisions, as far as the pacer lets it through.
    pub desired: Desired,
}

/// The decisions for every announcer, for readers outside.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// Those for the announcer of BGPPeers and BGPAdvertisements.
    pub bgp: Decided,
    /// Those for the announcers that AnnouncerClasses name.
    pub others: BTreeMap<Arc<str>, Decided>,
    /// Pods of MetalLB's speaker on this node, for whose end the sessions wait.
    pub waits_for: Living,
}

impl Decisions {
    /// Those for the announcer of this name.
    #[must_use]
    pub fn of(&self, announcer: &str) -> Option<&Decided> {
        if announcer == BGP { Some(&self.bgp) } else { self.others.get(announcer) }
    }

    /// Every announcer's, BGP's first.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Decided)> {
        std::iter::once((BGP, &self.bgp)).chain(self.others.iter().map(|(name, decided)| (&**name, decided)))
    }

    fn of_mut(&mut self, announcer: &Arc<str>) -> &mut Decided {
        if **announcer == *BGP { &mut self.bgp } else { self.others.entry(announcer.clone()).or_default() }
    }
}

/// The announcers that there are, by name.
pub type Announcers = BTreeMap<Arc<str>, Arc<dyn Announcer>>;

/// Decides for one node.
pub struct Decider {
    view: watch::Receiver<ClusterView>,
    node: Arc<str>,
    class: Option<Arc<str>>,
    ignore_exclude_label: bool,
    drain_time: Duration,
    drained: watch::Receiver<bool>,
    saved: Option<Saved>,
    metallb: watch::Receiver<Living>,
    /// The old speaker was gone once: whatever comes later, our sessions stay.
    took_over: bool,
    configure: Configure,
    announcers: watch::Receiver<Arc<Announcers>>,
    decisions: watch::Sender<Decisions>,
}

/// What the announcer of a name has to know of the configuration and the node, besides the prefixes. The flag: the old speaker of
/// this node is gone.
pub type Configure = Box<dyn Fn(&str, &Config, &Node, bool) -> BTreeMap<Arc<str>, Entry> + Send + Sync>;

/// What one announcer is told, and why.
#[derive(Default)]
struct Lane {
    builder: DesiredBuilder,
    /// Goes on counting where the last incarnation stopped.
    pacer: Option<Pacer>,
    by_service: OrdMap<ServiceKey, Arc<Decision>>,
    records: OrdMap<ServiceKey, Arc<Record>>,
    /// What the announcer's configuration was made of last.
    configured: Option<(Arc<Config>, Arc<Node>, bool)>,
    /// Who was handed which generation last.
    handed_over: Option<(Weak<dyn Announcer>, u64)>,
}

/// The state of one incarnation.
#[derive(Default)]
struct State {
    seen: Option<ClusterView>,
    /// By announcer: BGP, and those of the AnnouncerClasses in force.
    lanes: BTreeMap<Arc<str>, Lane>,
    /// Who shares addresses with whom under different traffic policies.
    sharers: Sharers,
    /// From when on the Node's exclude label counts; `None`: it has none.
    excluded_from: Option<Instant>,
    /// It has one that does not count yet: everything is announced as about to go away.
    leaving: bool,
}

/// What a [`Decider`] needs besides its view.
pub struct DeciderSettings {
    /// This node's name.
    pub node: Arc<str>,
    /// Class served.
    pub class: Option<Arc<str>>,
    /// `--ignore-exclude-lb`.
    pub ignore_exclude_label: bool,
    /// `--drain-time`: how long a Node's exclude label is announced to the routers before it takes effect.
    pub drain_time: Duration,
    /// Drained by command: everything is announced as about to go away.
    pub drained: watch::Receiver<bool>,
    /// What was announced before a restart: announced again if there is no decision within [`RESTORE_AFTER`].
    pub saved: Option<Saved>,
    /// MetalLB's speaker on this node: while it lives, no peer is dialled from the address that it has its sessions from.
    pub metallb: watch::Receiver<Living>,
}

impl Decider {
    /// A decider; each announcer gets the desired set, with what `configure` makes of the configuration beside it.
    #[must_use]
    pub fn new(
        settings: DeciderSettings,
        view: watch::Receiver<ClusterView>,
        configure: Configure,
        announcers: watch::Receiver<Arc<Announcers>>,
    ) -> (Self, watch::Receiver<Decisions>) {
        let (decisions, readers) = watch::channel(Decisions::default());
        let DeciderSettings { node, class, ignore_exclude_label, drain_time, drained, saved, metallb } = settings;
        let decider = Self {
            view,
            node,
            class,
            ignore_exclude_label,
            drain_time,
            drained,
            saved,
            metallb,
            took_over: false,
            configure,
            announcers,
            decisions,
        };
        (decider, readers)
    }

    /// Takes in the newest view; true if there is anything to hand over.
    fn step(&mut self, state: &mut State) {
        let view = self.view.borrow_and_update().clone();
        let metallb = self.metallb.borrow_and_update().clone();
        if view.epoch_of(SPEAKER_SOURCES) == 0 || metallb.is_none() {
            return; // not seen yet is not deleted
        }
        self.heed_metallb(metallb);
        let node = view.nodes.get(&self.node).cloned();
        let node = node.unwrap_or_else(|| Arc::new(Node { name: self.node.clone(), ..Node::default() }));
        state.keep_lanes(&view.config);
        self.configure(state, &view, &node);
        let excluded = node.is_excluded() && !self.ignore_exclude_label;
        let recast = state.heed_exclusion(excluded, self.drain_time, Instant::now());
        let mut context = Context {
            class: self.class.clone(),
            announcer: BGP.into(),
            node,
            config: view.config.clone(),
            ignore_exclude_label: self.ignore_exclude_label || state.leaving,
        };
        let began = state.seen.take();
        match began {
            Some(old)
                if !recast
                    && Arc::ptr_eq(&old.config, &view.config)
                    && old.nodes.get(&self.node) == view.nodes.get(&self.node) =>
            {
                let mut touched = touched(&old, &view);
                if !state.sharers.is_empty() {
                    touched.extend(old.endpoint_nodes.diff(&view.endpoint_nodes).map(key_of));
                }
                touched.extend(state.note_sharers(touched.clone(), &view, &context));
                state.look_at(touched.iter(), &view, &mut context);
            }
            _ => {
                state.forget_gone(&view);
                state.note_sharers(view.services.keys().cloned().collect(), &view, &context);
                state.look_at(view.services.keys(), &view, &mut context);
            }
        }
        state.seen = Some(view);
    }

    /// Takes note of MetalLB's speaker on this node.
    fn heed_metallb(&mut self, living: Living) {
        if self.took_over {
            return;
        }
        let before = self.decisions.borrow().waits_for.clone();
        self.took_over = !must_wait(&living);
        let waits_for = living.filter(|_| !self.took_over);
        match &waits_for {
            Some(pods) if before.is_none() => {
                tracing::info!(?pods, "MetalLB's speaker runs on this node: waiting for its end before dialling");
            }
            None if before.is_some() => tracing::info!("MetalLB's speaker has ended: dialling"),
            _ => {}
        }
        if waits_for != before {
            self.decisions.send_modify(|published| published.waits_for = waits_for);
        }
    }

    /// Announces again what was announced before a restart.
    async fn restore(&mut self) {
        let Some(Saved { peers, mut desired }) = self.saved.take() else { return };
        let routes = desired.announcements.len();
        tracing::warn!(
            peers = peers.peers.len(),
            routes,
            "nothing is decided yet: announcing what was before the restart"
        );
        self.took_over = true;
        desired.configuration = Arc::new(Configuration { generation: 1, entries: peers.entries() });
        let announcers = self.announcers.borrow().clone();
        if let Some(bgp) = announcers.get(BGP) {
            apply(bgp, desired.clone()).await;
        }
        self.decisions.send_modify(|published| published.bgp.desired = desired);
    }

    /// Works out what the announcers have to know, unless nothing that it is made of has changed.
    fn configure(&self, state: &mut State, view: &ClusterView, node: &Arc<Node>) {
        let from = (view.config.clone(), node.clone(), self.took_over);
        for (name, lane) in &mut state.lanes {
            let same = lane.configured.as_ref().is_some_and(|(config, node, took_over)| {
                Arc::ptr_eq(config, &from.0) && (node, *took_over) == (&from.1, from.2)
            });
            if !same {
                lane.builder.configure((self.configure)(name, &from.0, node, from.2));
                lane.configured = Some(from.clone());
            }
        }
    }

    /// Hands each announcer its desired set, as far as the pacer lets it; returns when to ask the pacers again.
    async fn hand_over(&mut self, state: &mut State) -> Option<std::time::Instant> {
        let config = state.seen.as_ref()?.config.clone();
        let drained = *self.drained.borrow_and_update() || state.leaving;
        let announcers = self.announcers.borrow_and_update().clone();
        let mut again_at = state.excluded_from.filter(|_| state.leaving).map(Instant::into_std);
        for (name, lane) in &mut state.lanes {
            let published = self.decisions.borrow().of(name).map_or(0, |decided| decided.desired.generation);
            let desired = lane.builder.desired();
            let wanted = Wanted { desired: &desired, weight_interval: config.weight_interval, drained };
            let pacer = lane.pacer.get_or_insert_with(|| Pacer::after(published));
            let paced = pacer.pace(wanted, Instant::now().into_std());
            if let Some(announcer) = announcers.get(name).filter(|announcer| lane.is_news(announcer, &paced.now)) {
                lane.handed_over = Some((Arc::downgrade(announcer), paced.now.generation));
                apply(announcer, paced.now.clone()).await;
            }
            again_at = [again_at, paced.again_at].into_iter().flatten().min();
            self.publish(name, lane, paced.now);
        }
        let gone = |published: &Decisions| published.others.keys().any(|name| !state.lanes.contains_key(name));
        if gone(&self.decisions.borrow()) {
            self.decisions.send_modify(|published| published.others.retain(|name, _| state.lanes.contains_key(name)));
        }
        again_at
    }

    /// Tells readers what was decided for one announcer, and what it was handed.
    fn publish(&self, name: &Arc<str>, lane: &Lane, desired: Desired) {
        self.decisions.send_if_modified(|published| {
            let now = published.of_mut(name);
            let changed = now.desired.generation != desired.generation || !now.by_service.ptr_eq(&lane.by_service);
            if changed {
                *now = Decided { by_service: lane.by_service.clone(), records: lane.records.clone(), desired };
            }
            changed
        });
    }
}

impl Lane {
    /// Has this announcer yet to be handed this set?
    fn is_news(&self, announcer: &Arc<dyn Announcer>, desired: &Desired) -> bool {
        self.handed_over.as_ref().is_none_or(|(last, generation)| {
            *generation != desired.generation || !std::ptr::addr_eq(last.as_ptr(), Arc::as_ptr(announcer))
        })
    }

    fn look_at(&mut self, own: Option<Party<'_>>, others: &[Party<'_>], key: &ServiceKey, context: &Context) {
        let Some(own) = own else {
            self.builder.set(key, None);
            self.records.remove(key);
            if self.by_service.remove(key).is_some() {
                let announcer = &*context.announcer;
                tracing::info!(service = %key, announcer, reason = Reason::NotLoadBalancer.code(), "not announced");
            }
            return;
        };
        let decision = decide_among(own, others, context);
        let before = self.by_service.get(key);
        if before.is_some_and(|d| **d == decision) {
            return;
        }
        for address in &decision.addresses {
            let same =
                before.is_some_and(|d| d.addresses.iter().any(|a| (a.ip, a.reason) == (address.ip, address.reason)));
            let (ip, reason, announcer) = (address.ip, address.reason.code(), &*context.announcer);
            // A start decides on every Service at once; only what changes later is worth a line each.
            if before.is_some() && !same {
                tracing::info!(service = %key, ?ip, announcer, reason, "decided");
            } else if !same {
                tracing::debug!(service = %key, ?ip, announcer, reason, "decided");
            }
        }
        self.builder.set(key, Some(&decision));
        let record = Record::after(self.records.get(key), &decision, Timestamp::now().as_second());
        self.records.insert(key.clone(), record);
        self.by_service.insert(key.clone(), Arc::new(decision));
    }
}

/// Hands a set to an announcer.
pub async fn apply(announcer: &Arc<dyn Announcer>, desired: Desired) {
    if let Err(error) = announcer.apply(Arc::new(desired)).await {
        tracing::warn!(announcer = announcer.name(), error = %chain(&error), "desired set not accepted");
    }
}

/// What a difference is about.
fn key_of<V>(item: DiffItem<'_, '_, ServiceKey, V>) -> ServiceKey {
    match item {
        DiffItem::Add(key, _) | DiffItem::Update { new: (key, _), .. } | DiffItem::Remove(key, _) => key.clone(),
    }
}

/// Services whose decision may differ between two views of the same configuration and node.
fn touched(old: &ClusterView, new: &ClusterView) -> BTreeSet<ServiceKey> {
    let services = old.services.diff(&new.services).map(key_of);
    services.chain(old.endpoints.diff(&new.endpoints).map(key_of)).collect()
}

/// A Service of the view as others see it with whom it shares an address.
pub(crate) fn party<'a>(key: &ServiceKey, view: &'a ClusterView) -> Option<Party<'a>> {
    let endpoints = view.endpoints.get(key).copied().unwrap_or_default();
    let nodes = view.endpoint_nodes.get(key).map(|nodes| &**nodes).unwrap_or_default();
    view.services.get(key).map(|service| Party { service, endpoints, nodes })
}

impl State {
    /// Takes note of the Node's exclude label. What is announced when it appears is first announced for `drain_time` as about
    /// to go away (RFC 8326), so that traffic has moved by then; a speaker that starts on such a Node announces nothing.
    /// True if every Service must be decided on again.
    fn heed_exclusion(&mut self, excluded: bool, drain_time: Duration, now: Instant) -> bool {
        let patience = if self.seen.is_some() { drain_time } else { Duration::ZERO };
        self.excluded_from = excluded.then(|| self.excluded_from.unwrap_or(now + patience));
        let leaving = self.excluded_from.is_some_and(|from| now < from);
        if leaving && !self.leaving {
            tracing::info!(?drain_time, "the Node is excluded from load balancing: its routes are about to go away");
        }
        std::mem::replace(&mut self.leaving, leaving) != leaving
    }

    /// Notes which addresses these Services have; returns those that share one with them.
    fn note_sharers(
        &mut self,
        keys: BTreeSet<ServiceKey>,
        view: &ClusterView,
        context: &Context,
    ) -> BTreeSet<ServiceKey> {
        let mut concerned = BTreeSet::new();
        for key in keys {
            let service = view.services.get(&key).filter(|s| s.is_ours(context.class.as_deref()));
            let ips = service.map(|s| &*s.ingress).unwrap_or_default();
            concerned.extend(self.sharers.set(&key, ips, &context.config));
        }
        concerned
    }

    /// One lane per announcer that the configuration names.
    fn keep_lanes(&mut self, config: &Config) {
        self.lanes.retain(|name, _| **name == *BGP || config.announcers.contains_key(name));
        for name in config.announcers.keys().cloned().chain([BGP.into()]) {
            self.lanes.entry(name).or_default();
        }
    }

    /// Before every Service is looked at again: forgets those that are gone.
    fn forget_gone(&mut self, view: &ClusterView) {
        self.sharers = Sharers::default();
        for lane in self.lanes.values_mut() {
            lane.builder.retain(|key| view.services.contains_key(key));
            let gone: Vec<ServiceKey> =
                lane.by_service.keys().filter(|k| !view.services.contains_key(*k)).cloned().collect();
            for key in gone {
                lane.by_service.remove(&key);
                lane.records.remove(&key);
            }
        }
    }

    /// Decides on these Services for every announcer.
    fn look_at<'a>(&mut self, keys: impl Iterator<Item = &'a ServiceKey>, view: &ClusterView, context: &mut Context) {
        for key in keys {
            let own = party(key, view).filter(|own| own.service.is_ours(context.class.as_deref()));
            let sharers = self.sharers.of(key);
            let others: Vec<Party<'_>> = sharers.iter().filter_map(|other| party(other, view)).collect();
            for (name, lane) in &mut self.lanes {
                if context.announcer != *name {
                    context.announcer.clone_from(name);
                }
                lane.look_at(own, &others, key, context);
            }
        }
    }
}

impl Actor for Decider {
    const NAME: &'static str = "decider";

    fn instance(&self) -> String {
        self.node.to_string()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut state = State::default();
        let restore_at = Instant::now() + RESTORE_AFTER;
        loop {
            self.step(&mut state);
            if state.seen.is_some() {
                self.saved = None;
            }
            let again_at = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                again_at = self.hand_over(&mut state) => again_at,
            };
            let mut restore = false;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.drained.changed() => {}
                Ok(()) = self.metallb.changed() => {}
                Ok(()) = self.announcers.changed() => {}
                changed = self.view.changed() => changed.map_err(|_| ActorError::Upstream("cluster view"))?,
                () = sleep_until(again_at.map(Instant::from_std)) => {}
                () = sleep_until(self.saved.as_ref().map(|_| restore_at)) => restore = true,
            }
            if restore {
                self.restore().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclude_label_counts_after_the_drain_unless_nothing_was_announced() {
        let (began, drain) = (Instant::now(), Duration::from_secs(5));
        let at = |s: u64| began + Duration::from_secs(s);
        let mut state = State { seen: Some(ClusterView::default()), ..State::default() };
        for (second, excluded, recast, leaving) in [
            (0, false, false, false),
            (1, true, true, true),
            (5, true, false, true),
            (6, true, true, false),
            (9, true, false, false),
            (10, false, false, false),
            (11, true, true, true),
            (12, false, true, false),
        ] {
            assert_eq!(state.heed_exclusion(excluded, drain, at(second)), recast, "second {second}");
            assert_eq!(state.leaving, leaving, "second {second}");
        }
        let mut new = State::default();
        assert!(!new.heed_exclusion(true, drain, began) && !new.leaving, "nothing is announced yet");
    }
}
