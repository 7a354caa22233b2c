//! Address allocation as a pure state machine: changes in, outcomes out.
mod choose;
mod holdings;
mod intervals;
mod keep;
mod request;
mod space;
mod step;
#[cfg(test)]
mod tests;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    config::Config,
    model::{Labels, Service, ServiceKey},
};
use holdings::Holdings;
use space::Space;
use waiting::{Interest, Place, Waiting};

/// Severity of a Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteType {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// Something the Service's owner should be told, as an Event with MetalLB's reason and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Normal or Warning.
    pub kind: NoteType,
    /// Event reason, e.g. `AllocationFailed`.
    pub reason: &'static str,
    /// Event text.
    pub message: String,
}

/// What one Service should have in its status, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Addresses, IPv4 before IPv6. The status should hold exactly these.
    pub ips: Vec<IpAddr>,
    /// The pool they come from, for the annotation `metallb.io/ip-allocated-from-pool`; `None`: the annotation should be absent.
    pub pool: Option<Arc<str>>,
    /// Why, as a stable code: `allocated`, `waiting` …
    pub code: &'static str,
    /// Standing messages: each is sent once when it appears or its text changes (`AllocationFailed`, `ClearAssignment` …).
    /// `IPAllocated` is not among them: it follows from the change of `ips`, once that has been written.
    pub notes: Vec<Note>,
}

/// One change of what the allocator looks at.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service as it is now; `None`: it is gone.
    Service(ServiceKey, Option<Arc<Service>>),
    /// The configuration in force.
    Config(Arc<Config>),
    /// A Namespace's labels; `None`: it is gone.
    Namespace(Arc<str>, Option<Arc<Labels>>),
}

/// A Service's outcome that differs from the last one reported. `None`: it is not ours any more (or gone): nothing should be
/// written, except that an annotation of ours is to be removed while the object exists.
pub type Effect = (ServiceKey, Option<Arc<Outcome>>);

/// How much of a pool is used. An address that several Services share counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// IPv4 addresses that the pool can give out; stops at the highest number there is.
    pub total_v4: u64,
    /// IPv6 addresses that the pool can give out; stops at the highest number there is.
    pub total_v6: u64,
    /// IPv4 addresses in use.
    pub used_v4: u64,
    /// IPv6 addresses in use.
    pub used_v6: u64,
}

/// Who holds which address.
///
/// Until the first [`Change::Config`] has come, Services are only remembered: a configuration not seen yet must not look
/// like one without pools.
#[derive(Debug)]
pub struct Allocator {
    class: Option<Arc<str>>,
    config: Arc<Config>,
    configured: bool,
    namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    /// The Services that are ours.
    entries: BTreeMap<ServiceKey, Entry>,
    /// Services that are not ours and carry an annotation of ours whose removal has been asked for.
    disowned: BTreeSet<ServiceKey>,
    space: Space,
    holdings: Holdings,
    waiting: Waiting,
    /// Services seen so far.
    arrivals: u64,
}

/// A Service that is ours.
#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    /// Its number in the order of arrival.
    arrival: u64,
    /// What it holds, IPv4 first.
    ips: Vec<IpAddr>,
    pool: Option<Arc<str>>,
    code: &'static str,
    /// What is wrong now.
    failure: Option<Note>,
    /// Why its former address was taken away; stands until its addresses change again.
    cleared: Option<Note>,
    /// `cleared` is of this batch.
    cleared_now: bool,
    /// An address it had to give up, whose pool is tried first.
    near: Option<IpAddr>,
    /// It lacks an address, and this would help.
    interest: Option<Interest>,
    /// What was reported last.
    outcome: Option<Arc<Outcome>>,
}

impl Entry {
    fn place(&self) -> Place {
        (self.arrival, self.service.key.clone())
    }
}

impl Allocator {
    /// An allocator that serves Services of `class` (`None`: those without a class).
    #[must_use]
    pub fn new(class: Option<Arc<str>>) -> Self {
        Self {
            class,
            config: Arc::default(),
            configured: false,
            namespaces: BTreeMap::new(),
            entries: BTreeMap::new(),
            disowned: BTreeSet::new(),
            space: Space::default(),
            holdings: Holdings::default(),
            waiting: Waiting::default(),
            arrivals: 0,
        }
    }

    /// Takes in a batch of changes and returns what follows, each Service at most once, in key order.
    ///
    /// Within a batch, Services that hold an address keep it before any other Service is given one, whatever the order; so
    /// the first batch after a start may hold everything. Costs what changed, not what exists, except for
    /// [`Change::Config`], which looks at every Service.
    #[must_use]
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Effect> {
        step::apply(self, changes)
    }

    /// Who holds `ip`, in key order; several only if they share it.
    #[must_use]
    pub fn holders(&self, ip: IpAddr) -> Vec<ServiceKey> {
        self.holdings.holders(ip).to_vec()
    }

    /// How much of each pool in force is used.
    #[must_use]
    pub fn usage(&self) -> BTreeMap<Arc<str>, PoolUsage> {
        self.space.usage()
    }

    /// The outcome last reported for a Service.
    #[must_use]
    pub fn outcome(&self, service: &ServiceKey) -> Option<Arc<Outcome>> {
        self.entries.get(service)?.outcome.clone()
    }
}
