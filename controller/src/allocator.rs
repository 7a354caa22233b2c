//! The actor that runs the core's allocator over the cluster view while this process leads.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, sleep_until},
    alloc::{self, Change, Considered, Memory, Outcome, PoolUsage},
    model::{Service, ServiceKey},
    view::{ClusterView, Source},
};
use imbl::{OrdMap, ordmap::DiffItem};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::cluster::lease::Leadership;

/// What a controller's view is made of.
pub const CONTROLLER_SOURCES: &[Source] = &[Source::Services, Source::Namespaces, Source::Nodes, Source::Config];

/// Questions that wait for the allocator; who asks more waits at the door.
const ASKS_MAX: usize = 16;

/// A question to the allocator.
enum Ask {
    /// Every pool that was considered for a Service.
    Considered { service: ServiceKey, reply: oneshot::Sender<Vec<Considered>> },
}

/// Asks the allocator.
#[derive(Clone)]
pub struct AllocatorHandle {
    asks: mpsc::Sender<Ask>,
}

impl AllocatorHandle {
    /// Every pool that was considered for a Service, in the order in which they are tried; none if it does not lead.
    ///
    /// # Errors
    /// In words, if the allocator is about to end.
    pub async fn considered(&self, service: ServiceKey) -> Result<Vec<Considered>, String> {
        let (reply, answer) = oneshot::channel();
        let ending = || "the allocator is ending".to_owned();
        self.asks.send(Ask::Considered { service, reply }).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }
}

/// One Service as the allocator saw it, and what should become of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The Service the outcome was computed from; a patch is made against its resource version.
    pub service: Arc<Service>,
    /// What its status should hold; `None`: it was ours and is not any more.
    pub outcome: Option<Arc<Outcome>>,
}

/// What should be written, for every Service that is or was ours in this term.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The term of leadership it was made in; zero: none, and nothing may be written.
    pub term: u64,
    /// By Service.
    pub entries: OrdMap<ServiceKey, Entry>,
    /// What the statuses of PoolPolicies and AddressReservations should remember.
    pub memory: Arc<Memory>,
    /// How much of each pool is used.
    pub usage: Arc<BTreeMap<Arc<str>, PoolUsage>>,
    /// Held addresses by pool, those of former pools included; pools without any are left out.
    pub held: Arc<BTreeMap<Arc<str>, u64>>,
}

/// Turns views into plans.
pub struct AllocatorActor {
    view: watch::Receiver<ClusterView>,
    leadership: watch::Receiver<Leadership>,
    plan: watch::Sender<Plan>,
    class: Option<Arc<str>>,
    mailbox: mpsc::Receiver<Ask>,
    handle: AllocatorHandle,
}

/// The state of one term.
struct Term {
    number: u64,
    allocator: alloc::Allocator,
    seen: ClusterView,
    entries: OrdMap<ServiceKey, Entry>,
    /// As of the generation beside it.
    memory: (u64, Arc<Memory>),
    held: Arc<BTreeMap<Arc<str>, u64>>,
}

/// Seconds since the Unix epoch; a clock before it counts as at it.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl AllocatorActor {
    /// An allocator for Services of `class`, and its plans.
    #[must_use]
    pub fn new(
        view: watch::Receiver<ClusterView>,
        leadership: watch::Receiver<Leadership>,
        class: Option<Arc<str>>,
    ) -> (Self, watch::Receiver<Plan>) {
        let (plan, plans) = watch::channel(Plan::default());
        let (asks, mailbox) = mpsc::channel(ASKS_MAX);
        (Self { view, leadership, plan, class, mailbox, handle: AllocatorHandle { asks } }, plans)
    }

    /// For those who ask it.
    #[must_use]
    pub fn handle(&self) -> AllocatorHandle {
        self.handle.clone()
    }

    /// Brings the term in step with the newest view; publishes if anything changed.
    fn step(&mut self, term: &mut Option<Term>, now_s: i64) {
        let leading = self.leadership.borrow_and_update().term;
        let view = self.view.borrow_and_update().clone();
        let Some(number) = leading else {
            if term.take().is_some() {
                self.plan.send_replace(Plan::default());
            }
            return;
        };
        if term.as_ref().is_none_or(|t| t.number != number) {
            // Only lists made in this term count: what an older leader wrote last must be in them.
            if view.epoch_of(CONTROLLER_SOURCES) < number {
                return;
            }
            *term = Some(Term::new(number, self.class.clone()));
        }
        let Some(term) = term else { return };
        let services = term.seen.services.len();
        if term.advance(view, now_s) {
            tracing::debug!(term = number, services, ours = term.entries.len(), "allocated");
            self.plan.send_replace(term.plan());
        }
    }
}

impl Term {
    fn new(number: u64, class: Option<Arc<str>>) -> Self {
        Self {
            number,
            allocator: alloc::Allocator::new(class),
            seen: ClusterView::default(),
            entries: OrdMap::new(),
            memory: (0, Arc::default()),
            held: Arc::default(),
        }
    }

    /// What follows from what has been fed.
    fn plan(&mut self) -> Plan {
        let generation = self.allocator.memory_generation();
        if self.memory.0 != generation {
            self.memory = (generation, Arc::new(self.allocator.memory()));
        }
        let usage = Arc::new(self.allocator.usage());
        let before = std::mem::replace(&mut self.held, Arc::new(self.allocator.held().clone()));
        publish_usage(&usage);
        publish_held(&before, &self.held);
        let (entries, memory, held) = (self.entries.clone(), self.memory.1.clone(), self.held.clone());
        Plan { term: self.number, entries, memory, usage, held }
    }

    /// Feeds what changed; true if the plan changed.
    fn advance(&mut self, view: ClusterView, now_s: i64) -> bool {
        let changes = changes(&self.seen, &view);
        let due = self.allocator.due_s().is_some_and(|at| at <= now_s);
        if changes.is_empty() && !due {
            self.seen = view;
            return false;
        }
        // A cool-down that ends changes what is free, whether somebody gets it or not.
        let mut changed = due;
        for change in &changes {
            let Change::Service(key, service) = change else { continue };
            match service {
                None => changed |= self.entries.remove(key).is_some(),
                Some(service) => {
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.service = service.clone();
                        changed = true;
                    }
                }
            }
        }
        for (key, outcome) in self.allocator.apply(changes, now_s) {
            changed = true;
            match (view.services.get(&key), outcome) {
                (Some(service), Some(outcome)) => {
                    let entry = Entry { service: service.clone(), outcome: Some(outcome) };
                    self.entries.insert(key, entry);
                }
                // Its annotation is to go: it was ours, or became no load balancer while nobody was looking. One of another
                // class that never was ours is not touched.
                (Some(service), None) => match self.entries.get_mut(&key) {
                    Some(entry) => entry.outcome = None,
                    None if service.is_load_balancer => {}
                    None => drop(self.entries.insert(key, Entry { service: service.clone(), outcome: None })),
                },
                (None, _) => drop(self.entries.remove(&key)),
            }
        }
        self.seen = view;
        changed || self.allocator.memory_generation() != self.memory.0
    }
}

/// What changed between two views, for the allocator.
fn changes(old: &ClusterView, new: &ClusterView) -> Vec<Change> {
    let mut changes = Vec::new();
    if !Arc::ptr_eq(&old.config, &new.config) {
        changes.push(Change::Config(new.config.clone()));
    }
    for item in old.namespaces.diff(&new.namespaces) {
        changes.push(match item {
            DiffItem::Add(name, labels) | DiffItem::Update { new: (name, labels), .. } => {
                Change::Namespace(name.clone(), Some(labels.clone()))
            }
            DiffItem::Remove(name, _) => Change::Namespace(name.clone(), None),
        });
    }
    for item in old.services.diff(&new.services) {
        changes.push(match item {
            DiffItem::Add(key, service) | DiffItem::Update { new: (key, service), .. } => {
                Change::Service(key.clone(), Some(service.clone()))
            }
            DiffItem::Remove(key, _) => Change::Service(key.clone(), None),
        });
    }
    changes
}

/// MetalLB's allocator metrics, and how much is kept back.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts above 2^53 need not be exact")]
fn publish_usage(usage: &BTreeMap<Arc<str>, PoolUsage>) {
    for (pool, usage) in usage {
        let gauge = |name: &'static str, value: u64| {
            metrics::gauge!(name, "pool" => pool.to_string()).set(value as f64);
        };
        gauge("metallb_allocator_addresses_total", usage.total_v4.saturating_add(usage.total_v6));
        gauge("metallb_allocator_ipv4_addresses_total", usage.total_v4);
        gauge("metallb_allocator_ipv6_addresses_total", usage.total_v6);
        gauge("metallb_allocator_addresses_in_use_total", usage.used_v4.saturating_add(usage.used_v6));
        gauge("metallb_allocator_ipv4_addresses_in_use_total", usage.used_v4);
        gauge("metallb_allocator_ipv6_addresses_in_use_total", usage.used_v6);
        gauge("ferrocast_allocator_addresses_reserved", usage.reserved_v4.saturating_add(usage.reserved_v6));
        gauge("ferrocast_allocator_addresses_withheld", usage.withheld_v4.saturating_add(usage.withheld_v6));
    }
}

/// Held addresses by pool; a pool that has none any more says zero.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts above 2^53 need not be exact")]
fn publish_held(before: &BTreeMap<Arc<str>, u64>, now: &BTreeMap<Arc<str>, u64>) {
    let gone = before.keys().filter(|pool| !now.contains_key(*pool)).map(|pool| (pool, &0));
    for (pool, count) in now.iter().chain(gone) {
        metrics::gauge!("ferrocast_allocator_addresses_held", "pool" => pool.to_string()).set(*count as f64);
    }
}

/// When to look again although nothing has changed.
fn wake_at(due_s: Option<i64>, now_s: i64, now: Instant) -> Option<Instant> {
    let wait_s = u64::try_from(due_s?.saturating_sub(now_s)).unwrap_or(0);
    now.checked_add(Duration::from_secs(wait_s))
}

impl Actor for AllocatorActor {
    const NAME: &'static str = "allocator";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut term = None;
        loop {
            let now_s = now_s();
            self.step(&mut term, now_s);
            let wake_at = wake_at(term.as_ref().and_then(|t: &Term| t.allocator.due_s()), now_s, Instant::now());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.view.changed() => changed.map_err(|_| ActorError::Upstream("cluster view"))?,
                changed = self.leadership.changed() => changed.map_err(|_| ActorError::Upstream("leadership"))?,
                Some(ask) = self.mailbox.recv() => answer(ask, term.as_ref()),
                () = sleep_until(wake_at) => {}
            }
        }
    }
}

/// Answers; who does not wait any more is not told.
fn answer(ask: Ask, term: Option<&Term>) {
    let Ask::Considered { service, reply } = ask;
    let considered = term.map(|term| term.allocator.considered(&service)).unwrap_or_default();
    if reply.send(considered).is_err() {
        tracing::debug!(%service, "who asked is gone");
    }
}

#[cfg(test)]
mod tests {
    use ferrocast_core::{
        config::{Config, IpRange, Pool, Reservation, Reserved, ReservedFor},
        model::Labels,
    };

    use super::*;

    /// A pool of one address, which is reserved for the namespace and cools down for ten seconds.
    fn config() -> Config {
        let ip = "192.0.2.1".parse().unwrap();
        let all = vec![IpRange { first: ip, last: ip }];
        let pool = Pool {
            name: "p".into(),
            labels: Labels::default(),
            ranges: all.clone(),
            written: all.clone(),
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: None,
            policy: None,
        };
        let reservation = Reservation {
            name: "r".into(),
            pool: "p".into(),
            reserved: Reserved::Addresses(all),
            for_whom: ReservedFor { namespaces: ["d".into()].into(), ..ReservedFor::default() },
            release_after: Some(Duration::from_secs(10)),
            releases: Arc::default(),
        };
        let mut config = Config::default();
        config.pools.insert("p".into(), Arc::new(pool));
        config.reservations.insert("r".into(), Arc::new(reservation));
        config.index();
        config
    }

    fn view(config: &Arc<Config>, names: &[&str]) -> ClusterView {
        let mut view = ClusterView::default();
        view.config = config.clone();
        for name in names {
            let mut service = Service::load_balancer("d", name);
            service.cluster_ips = vec!["10.96.0.1".parse().unwrap()];
            view.services.insert(service.key.clone(), Arc::new(service));
        }
        view
    }

    #[test]
    fn address_whose_cool_down_ends_is_given_without_any_other_change() {
        let config = Arc::new(config());
        let mut term = Term::new(1, None);
        let ips = |term: &Term, name: &str| {
            let entry = &term.entries[&ServiceKey::new("d", name)];
            entry.outcome.as_ref().unwrap().ips.clone()
        };
        assert!(term.advance(view(&config, &["a"]), 100));
        let plan = term.plan();
        assert_eq!((ips(&term, "a").len(), plan.usage["p"].used_v4, plan.memory.holders["r"].len()), (1, 1, 1));
        assert!(term.advance(view(&config, &["b"]), 101));
        assert_eq!((ips(&term, "b").len(), term.plan().usage["p"].reserved_v4), (0, 1));
        assert!(!term.advance(view(&config, &["b"]), 110), "nothing is due yet");
        let due = term.allocator.due_s();
        let now = Instant::now();
        assert_eq!(wake_at(due, 110, now), Some(now + Duration::from_secs(1)));
        assert!(term.advance(view(&config, &["b"]), 111));
        assert_eq!(ips(&term, "b").len(), 1);
        assert_eq!(wake_at(term.allocator.due_s(), 111, now), None);
    }
}
