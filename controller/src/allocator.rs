//! The actor that runs the core's allocator over the cluster view while this process leads.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, sleep_until},
    alloc::{self, Change, Outcome, PoolUsage},
    model::{Service, ServiceKey},
    view::{ClusterView, Source},
};
use imbl::{OrdMap, ordmap::DiffItem};
use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

use crate::cluster::{lease::Leadership, memory_status::Remembered, pool_status::Usage};

/// What a controller's view is made of.
pub const CONTROLLER_SOURCES: &[Source] = &[Source::Services, Source::Namespaces, Source::Nodes, Source::Config];

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
}

/// What follows from the allocations, for readers.
pub struct Allocated {
    /// What should be written.
    pub plan: watch::Receiver<Plan>,
    /// How much of each pool is used.
    pub usage: watch::Receiver<Usage>,
    /// What must survive a restart and stands in no Service's status.
    pub remembered: watch::Receiver<Remembered>,
}

/// Turns views into plans.
pub struct AllocatorActor {
    view: watch::Receiver<ClusterView>,
    leadership: watch::Receiver<Leadership>,
    plan: watch::Sender<Plan>,
    usage: watch::Sender<Usage>,
    remembered: watch::Sender<Remembered>,
    class: Option<Arc<str>>,
}

/// The state of one term.
struct Term {
    number: u64,
    allocator: alloc::Allocator,
    seen: ClusterView,
    entries: OrdMap<ServiceKey, Entry>,
    /// The generation of the memory published last.
    remembered: u64,
}

impl AllocatorActor {
    /// An allocator for Services of `class`, and its plans.
    #[must_use]
    pub fn new(
        view: watch::Receiver<ClusterView>,
        leadership: watch::Receiver<Leadership>,
        class: Option<Arc<str>>,
    ) -> (Self, Allocated) {
        let (plan, plans) = watch::channel(Plan::default());
        let (usage, usages) = watch::channel(Usage::default());
        let (remembered, memories) = watch::channel(Remembered::default());
        let allocated = Allocated { plan: plans, usage: usages, remembered: memories };
        (Self { view, leadership, plan, usage, remembered, class }, allocated)
    }

    /// Brings the term in step with the newest view; publishes if anything changed.
    fn step(&mut self, term: &mut Option<Term>) {
        let leading = self.leadership.borrow_and_update().term;
        let view = self.view.borrow_and_update().clone();
        let Some(number) = leading else {
            if term.take().is_some() {
                self.plan.send_replace(Plan::default());
                self.usage.send_replace(Usage::default());
                self.remembered.send_replace(Remembered::default());
            }
            return;
        };
        if term.as_ref().is_none_or(|t| t.number != number) {
            // Only lists made in this term count: what an older leader wrote last must be in them.
            if view.epoch_of(CONTROLLER_SOURCES) < number {
                return;
            }
            let allocator = alloc::Allocator::new(self.class.clone());
            *term =
                Some(Term { number, allocator, seen: ClusterView::default(), entries: OrdMap::new(), remembered: 0 });
        }
        let Some(term) = term else { return };
        let services = term.seen.services.len();
        let changed = term.advance(view, Timestamp::now().as_second());
        if term.allocator.memory_generation() != term.remembered {
            term.remembered = term.allocator.memory_generation();
            let memory = Arc::new(term.allocator.memory());
            self.remembered.send_replace(Remembered { term: number, memory });
        }
        if changed {
            let pools = term.allocator.usage();
            publish_usage(&pools);
            let usage = Usage { term: number, pools };
            self.usage.send_if_modified(|now| {
                *now != usage && {
                    *now = usage;
                    true
                }
            });
            tracing::debug!(term = number, services, ours = term.entries.len(), "allocated");
            self.plan.send_replace(Plan { term: number, entries: term.entries.clone() });
        }
    }
}

impl Term {
    /// Feeds what changed; true if the entries changed.
    fn advance(&mut self, view: ClusterView, now_s: i64) -> bool {
        let changes = changes(&self.seen, &view);
        let due = self.allocator.due_s().is_some_and(|due| due <= now_s);
        if changes.is_empty() && !due {
            self.seen = view;
            return false;
        }
        let mut changed = false;
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
        changed
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

/// MetalLB's allocator metrics.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts above 2^53 need not be exact")]
fn publish_usage(pools: &BTreeMap<Arc<str>, PoolUsage>) {
    for (pool, usage) in pools {
        let gauge = |name: &'static str, value: u64| {
            metrics::gauge!(name, "pool" => pool.to_string()).set(value as f64);
        };
        gauge("metallb_allocator_addresses_total", usage.total_v4.saturating_add(usage.total_v6));
        gauge("metallb_allocator_ipv4_addresses_total", usage.total_v4);
        gauge("metallb_allocator_ipv6_addresses_total", usage.total_v6);
        gauge("metallb_allocator_addresses_in_use_total", usage.used_v4.saturating_add(usage.used_v6));
        gauge("metallb_allocator_ipv4_addresses_in_use_total", usage.used_v4);
        gauge("metallb_allocator_ipv6_addresses_in_use_total", usage.used_v6);
    }
}

impl Actor for AllocatorActor {
    const NAME: &'static str = "allocator";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut term = None;
        loop {
            self.step(&mut term);
            let due_s = term.as_ref().and_then(|term| term.allocator.due_s());
            let wait_s = due_s.map(|due| u64::try_from(due.saturating_sub(Timestamp::now().as_second())).unwrap_or(0));
            // At least a moment, should the clock stand still.
            let due_at = wait_s.map(|wait| Instant::now() + Duration::from_secs(wait.max(1)));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.view.changed() => changed.map_err(|_| ActorError::Upstream("cluster view"))?,
                changed = self.leadership.changed() => changed.map_err(|_| ActorError::Upstream("leadership"))?,
                () = sleep_until(due_at) => {}
            }
        }
    }
}
