//! The actor that decides what one node announces and hands it, through the pacer, to the announcers.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ferrocast_bgp::PeerSet;
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    announce::{Announcer, Desired},
    decide::{Context, Decision, DesiredBuilder, Party, Reason, Sharers, decide_among},
    model::{Node, ServiceKey},
    pacer::{Pacer, Wanted},
    view::{ClusterView, Source},
};
use imbl::{OrdMap, ordmap::DiffItem};
use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

use crate::{
    cluster::metallb::{Living, must_wait, peers_of},
    records::Record,
    state::Saved,
};

/// How long a speaker waits for its first decision before it announces again what it did before its restart.
pub const RESTORE_AFTER: Duration = Duration::from_secs(1);
/// What a speaker's view is made of.
pub const SPEAKER_SOURCES: &[Source] = &[Source::Services, Source::Endpoints, Source::Nodes, Source::Config];

/// The decisions on every Service that has anything to announce or could have, for readers outside.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// By Service; only those of type LoadBalancer and of our class.
    pub by_service: OrdMap<ServiceKey, Arc<Decision>>,
    /// Since when, and what before.
    pub records: OrdMap<ServiceKey, Arc<Record>>,
    /// What the announcers were handed last: what follows from the decisions, as far as the pacer lets it through.
    pub desired: Desired,
    /// Pods of MetalLB's speaker on this node, for whose end the sessions wait.
    pub waits_for: Living,
}

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
    peers: watch::Sender<Arc<PeerSet>>,
    announcers: Vec<Arc<dyn Announcer>>,
    decisions: watch::Sender<Decisions>,
}

/// The state of one incarnation.
#[derive(Default)]
struct State {
    seen: Option<ClusterView>,
    builder: DesiredBuilder,
    /// Goes on counting where the last incarnation stopped.
    pacer: Option<Pacer>,
    by_service: OrdMap<ServiceKey, Arc<Decision>>,
    records: OrdMap<ServiceKey, Arc<Record>>,
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
    /// A decider; `peers` gets the peers of this node, each announcer gets the desired set.
    #[must_use]
    pub fn new(
        settings: DeciderSettings,
        view: watch::Receiver<ClusterView>,
        peers: watch::Sender<Arc<PeerSet>>,
        announcers: Vec<Arc<dyn Announcer>>,
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
            peers,
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
        self.publish_peers(&view, &node);
        let excluded = node.is_excluded() && !self.ignore_exclude_label;
        let recast = state.heed_exclusion(excluded, self.drain_time, Instant::now());
        let context = Context {
            class: self.class.clone(),
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
                for key in touched {
                    state.look_at(&key, &view, &context);
                }
            }
            _ => {
                state.builder.retain(|key| view.services.contains_key(key));
                state.sharers = Sharers::default();
                state.note_sharers(view.services.keys().cloned().collect(), &view, &context);
                let gone: Vec<ServiceKey> =
                    state.by_service.keys().filter(|k| !view.services.contains_key(*k)).cloned().collect();
                for key in gone {
                    state.by_service.remove(&key);
                    state.records.remove(&key);
                }
                for key in view.services.keys() {
                    state.look_at(key, &view, &context);
                }
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
        let Some(Saved { peers, desired }) = self.saved.take() else { return };
        let routes = desired.announcements.len();
        tracing::warn!(
            peers = peers.peers.len(),
            routes,
            "nothing is decided yet: announcing what was before the restart"
        );
        self.took_over = true;
        self.peers.send_replace(Arc::new(peers));
        apply(&self.announcers, desired.clone()).await;
        self.decisions.send_modify(|published| published.desired = desired);
    }

    /// Publishes the peers that this node talks to.
    fn publish_peers(&self, view: &ClusterView, node: &Arc<Node>) {
        let set = PeerSet {
            node_name: self.node.clone(),
            internal_ips: node.internal_ips.clone(),
            peers: peers_of(&view.config, node, !self.took_over),
        };
        self.peers.send_if_modified(|now| {
            let changed = **now != set;
            if changed {
                *now = Arc::new(set);
            }
            changed
        });
    }

    /// Hands the desired set, as far as the pacer lets it, to every announcer.
    async fn hand_over(&mut self, state: &mut State) -> Option<std::time::Instant> {
        let config = state.seen.as_ref()?.config.clone();
        let handed_over = self.decisions.borrow().desired.generation;
        let desired = state.builder.desired();
        let drained = *self.drained.borrow_and_update() || state.leaving;
        let wanted = Wanted { desired: &desired, weight_interval: config.weight_interval, drained };
        let pacer = state.pacer.get_or_insert_with(|| Pacer::after(handed_over));
        let paced = pacer.pace(wanted, Instant::now().into_std());
        if paced.now.generation != handed_over {
            apply(&self.announcers, paced.now.clone()).await;
        }
        self.decisions.send_if_modified(|published| {
            let changed =
                published.desired.generation != paced.now.generation || !published.by_service.ptr_eq(&state.by_service);
            if changed {
                *published = Decisions {
                    by_service: state.by_service.clone(),
                    records: state.records.clone(),
                    desired: paced.now,
                    waits_for: published.waits_for.clone(),
                };
            }
            changed
        });
        let leave_at = state.excluded_from.filter(|_| state.leaving).map(Instant::into_std);
        [paced.again_at, leave_at].into_iter().flatten().min()
    }
}

/// Hands a set to every announcer.
pub async fn apply(announcers: &[Arc<dyn Announcer>], desired: Desired) {
    let desired = Arc::new(desired);
    for announcer in announcers {
        if let Err(error) = announcer.apply(desired.clone()).await {
            tracing::warn!(announcer = announcer.name(), error = %chain(&error), "desired set not accepted");
        }
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

    fn look_at(&mut self, key: &ServiceKey, view: &ClusterView, context: &Context) {
        let own = party(key, view).filter(|own| own.service.is_ours(context.class.as_deref()));
        let Some(own) = own else {
            self.builder.set(key, None);
            self.records.remove(key);
            if self.by_service.remove(key).is_some() {
                tracing::info!(service = %key, reason = Reason::NotLoadBalancer.code(), "not announced");
            }
            return;
        };
        let sharers = self.sharers.of(key);
        let others: Vec<Party<'_>> = sharers.iter().filter_map(|other| party(other, view)).collect();
        let decision = decide_among(own, &others, context);
        let before = self.by_service.get(key);
        if before.is_some_and(|d| **d == decision) {
            return;
        }
        for address in &decision.addresses {
            let same =
                before.is_some_and(|d| d.addresses.iter().any(|a| (a.ip, a.reason) == (address.ip, address.reason)));
            // A start decides on every Service at once; only what changes later is worth a line each.
            if before.is_some() && !same {
                tracing::info!(service = %key, ip = ?address.ip, reason = address.reason.code(), "decided");
            } else if !same {
                tracing::debug!(service = %key, ip = ?address.ip, reason = address.reason.code(), "decided");
            }
        }
        self.builder.set(key, Some(&decision));
        let record = Record::after(self.records.get(key), &decision, Timestamp::now().as_second());
        self.records.insert(key.clone(), record);
        self.by_service.insert(key.clone(), Arc::new(decision));
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
