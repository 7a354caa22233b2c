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
    config::{Config, Release},
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
    /// The pool of the first, for the annotation `metallb.io/ip-allocated-from-pool`; `None`: the annotation should be absent.
    pub pool: Option<Arc<str>>,
    /// The pool of each address, in the order of `ips`: that which contains it, or of a held address the former one.
    pub pools: Vec<Arc<str>>,
    /// Those of `ips` that are held: an edit took away the right to them.
    pub held: Vec<IpAddr>,
    /// Why, as a stable code: `allocated`, `waiting` …
    pub code: &'static str,
    /// The code in words, with what mattered.
    pub message: String,
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

/// One pool as it looked to one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The pool.
    pub pool: Arc<str>,
    /// `allocated` for the one that gave the address, else why it did not: `poolNotForService`, `poolExhausted` …
    pub code: &'static str,
    /// In words.
    pub message: String,
}

/// Who has an address of a reservation, or had it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The Service.
    pub service: ServiceKey,
    /// Its addresses of the reservation.
    pub ips: Vec<IpAddr>,
    /// When it gave them back, seconds since the Unix epoch; `None`: it has them.
    pub released_s: Option<i64>,
}

/// What must survive a restart and stands in no Service's status. Source: the statuses of `ferrocast.io` resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// By PoolPolicy: releases, the newest last, at most [`RELEASES_MAX`].
    pub releases: BTreeMap<Arc<str>, Vec<Release>>,
    /// By AddressReservation: holders by Service, those gone included, at most [`RELEASES_MAX`] of these.
    pub holders: BTreeMap<Arc<str>, Vec<Holder>>,
}

/// Releases remembered per object: what fits into an object's status (about 100 octets each) with room to spare.
pub const RELEASES_MAX: usize = 4096;

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
    /// `now_s`: seconds since the Unix epoch, for cool-downs and the order of releases.
    #[must_use]
    pub fn apply(&mut self, changes: Vec<Change>, now_s: i64) -> Vec<Effect> {
        let _ = now_s;
        step::apply(self, changes)
    }

    /// When [`Allocator::apply`] should be called without a change at the latest, because a cool-down ends (seconds since the
    /// Unix epoch).
    #[must_use]
    pub fn due_s(&self) -> Option<i64> {
        None
    }

    /// What the statuses of PoolPolicies and AddressReservations should remember, by object.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory::default()
    }

    /// Every pool that was considered for the Service, in the order in which they are tried, and why it gave no address.
    #[must_use]
    pub fn considered(&self, service: &ServiceKey) -> Vec<Considered> {
        let _ = service;
        Vec::new()
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
