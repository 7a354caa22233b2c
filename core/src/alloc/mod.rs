//! Address allocation as a pure state machine: changes in, outcomes out.
mod by_ip;
mod choose;
mod claims;
mod entries;
mod explain;
mod few;
mod hash;
mod hold;
mod holdings;
mod intervals;
mod keep;
mod ledger;
mod line;
mod pick;
mod remember;
mod request;
mod space;
mod step;
mod take_in;
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
use claims::Claims;
use entries::{Entries, Id};
use few::Few;
use holdings::Holdings;
use ledger::Ledger;
use remember::Remembered;
use space::Space;
use waiting::{Interest, Waiting};

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
    /// Addresses, IPv4 before IPv6; with code `addressNotOurs` as they are in the status. The status should hold exactly these.
    pub ips: Vec<IpAddr>,
    /// The pool of the first, for the annotation `metallb.io/ip-allocated-from-pool`; `None`: the annotation should be absent.
    pub pool: Option<Arc<str>>,
    /// The pool of each address, in the order of `ips`: that which contains it, or of a held address the former one; empty
    /// text where nobody knows (an unreadable pool object, or an address that is not ours).
    pub pools: Vec<Arc<str>>,
    /// Those of `ips` that are held: an edit took away the right to them.
    pub held: Vec<IpAddr>,
    /// Why, as a stable code: `allocated`, `waiting` …
    pub code: &'static str,
    /// The code in words, with what mattered; for a refusal what `AllocationFailed` says after "Failed to allocate IP for …: ".
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

/// What [`Allocator::apply`] does before it reports, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Takes changes in: who is new, who is gone, who is to be judged.
    TakeIn,
    /// Judges whether Services keep what they have, and finds those who lack an address.
    Judge,
    /// Chooses addresses for those and holds them.
    Give,
}

/// A Service's outcome that differs from the last one reported. `None`: it is not ours any more (or gone): nothing should be
/// written, except that an annotation of ours is to be removed while the object exists.
pub type Effect = (ServiceKey, Option<Arc<Outcome>>);

/// One pool, or one reservation in it, as it looked to one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The pool.
    pub pool: Arc<str>,
    /// The AddressReservation that is for the Service; `None`: the pool as it is for everybody.
    pub reservation: Option<Arc<str>>,
    /// `allocated` or `held` for the one that gave the address, else why it did not: `poolNotForService`, `poolExhausted` …;
    /// `notNeeded`: it could, but another came first.
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
    /// By AddressReservation: those who hold, by Service; then those gone, the newest last, at most [`RELEASES_MAX`] addresses.
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
    /// IPv4 addresses that are free but reserved, or kept for who had them: available is total − used − reserved − withheld.
    pub reserved_v4: u64,
    /// The same of IPv6.
    pub reserved_v6: u64,
    /// IPv4 addresses that nobody has and nobody gets (`noNewAddresses`).
    pub withheld_v4: u64,
    /// The same of IPv6.
    pub withheld_v6: u64,
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
    /// No batch has been decided yet: statuses are all that is known of who had what.
    starting: bool,
    namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    /// The Services that are ours.
    entries: Entries,
    /// Services that are not ours and carry an annotation of ours whose removal has been asked for.
    disowned: BTreeSet<ServiceKey>,
    space: Space,
    holdings: Holdings,
    claims: Claims,
    ledger: Ledger,
    remembered: Remembered,
    waiting: Waiting,
    /// Services seen so far.
    arrivals: u64,
    /// Addresses whose holder may give them up before the batch ends: until then nobody joins him.
    undecided: BTreeSet<IpAddr>,
    /// Held addresses in the outcomes, by pool or former pool.
    held: BTreeMap<Arc<str>, u64>,
}

/// A Service that is ours. Small, for there are many: what few have is in a box.
#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    /// Its number in the order of arrival.
    arrival: u64,
    /// What it holds, IPv4 first.
    ips: Few<IpAddr>,
    /// The pools of these.
    pools: Few<Option<Arc<str>>>,
    code: &'static str,
    /// It lacks an address, and [`Rare::interest`] would help.
    lacks: bool,
    /// Its outcome may have changed in this batch.
    changed: bool,
    rare: Option<Box<Rare>>,
    /// What was reported last.
    outcome: Option<Arc<Outcome>>,
    /// Its place among the Services of its namespace.
    at: usize,
    /// Another Service whose name has the same hash.
    twin: Option<Id>,
}

/// What few Services have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rare {
    /// What it was before its owner changed it, until it has been judged.
    changed_from: Option<Arc<Service>>,
    /// Addresses that are held, and why.
    held: Vec<(IpAddr, String)>,
    /// Its status, which holds an address that is not ours and stays as it is.
    foreign: Option<Foreign>,
    /// Why it has no address, or not all that it wants.
    message: String,
    /// What is wrong now.
    failure: Option<Note>,
    /// Why its former address was taken away; stands until its addresses change again.
    cleared: Option<Note>,
    /// `cleared` is of this batch.
    cleared_now: bool,
    /// Addresses that it had and may keep if the rest is to be had.
    near: Vec<IpAddr>,
    /// What would help, of one who lacks an address.
    interest: Interest,
}

/// What a status with an address that is not ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Foreign {
    /// What it says.
    seen: Vec<IpAddr>,
    /// What it should say: the same, less what is ours and the Service may not have.
    ips: Vec<IpAddr>,
    /// The annotation.
    pool: Option<Arc<str>>,
}

impl Foreign {
    /// Of a Service that has to give up some of it.
    fn of(service: &Service, given_up: &[IpAddr]) -> Self {
        let annotated = service.annotations.allocated_from_pool.as_ref().filter(|a| !a.deprecated);
        let seen = service.ingress.clone();
        let ips = seen.iter().filter(|ip| !given_up.contains(ip)).copied().collect();
        Self { seen, ips, pool: annotated.map(|a| Arc::from(&*a.value)) }
    }

    /// Does the status of the Service still say the same?
    fn is_of(&self, service: &Service) -> bool {
        let now = Self::of(service, &[]);
        self.seen == now.seen && self.pool == now.pool
    }

    fn has_given_up(&self, ip: IpAddr) -> bool {
        self.seen.contains(&ip) && !self.ips.contains(&ip)
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
            starting: true,
            namespaces: BTreeMap::new(),
            entries: Entries::default(),
            disowned: BTreeSet::new(),
            space: Space::default(),
            holdings: Holdings::default(),
            claims: Claims::default(),
            ledger: Ledger::default(),
            remembered: Remembered::default(),
            waiting: Waiting::default(),
            arrivals: 0,
            undecided: BTreeSet::new(),
            held: BTreeMap::new(),
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
        self.apply_in_phases(changes, now_s, &mut |_| {})
    }

    /// The same, and calls `done` at the end of each phase: for those who measure.
    #[must_use]
    pub fn apply_in_phases(&mut self, changes: Vec<Change>, now_s: i64, done: &mut dyn FnMut(Phase)) -> Vec<Effect> {
        step::apply(self, changes, now_s, done)
    }

    /// When [`Allocator::apply`] should be called without a change at the latest, because a cool-down ends (seconds since the
    /// Unix epoch).
    #[must_use]
    pub fn due_s(&self) -> Option<i64> {
        self.remembered.due_s()
    }

    /// What the statuses of PoolPolicies and AddressReservations should remember, by object. Costs what is remembered: call it
    /// when [`Allocator::memory_generation`] has changed.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.remembered.memory(&self.claims)
    }

    /// Changes whenever [`Allocator::memory`] may have changed.
    #[must_use]
    pub fn memory_generation(&self) -> u64 {
        self.remembered.generation
    }

    /// Every pool and reservation that was considered for the Service, in the order in which they are tried, and why it gave
    /// no address. Costs the number of pools. Empty for a Service that is not ours.
    #[must_use]
    pub fn considered(&self, service: &ServiceKey) -> Vec<Considered> {
        self.entries.of(service).map(|entry| explain::considered(self, entry)).unwrap_or_default()
    }

    /// Who holds `ip`, in key order; several only if they share it.
    #[must_use]
    pub fn holders(&self, ip: IpAddr) -> Vec<ServiceKey> {
        self.holdings.tenants(ip).iter().map(|tenant| tenant.key.clone()).collect()
    }

    /// How much of each pool in force is used.
    #[must_use]
    pub fn usage(&self) -> BTreeMap<Arc<str>, PoolUsage> {
        self.space.usage(&self.ledger)
    }

    /// How many addresses are held although an edit took away the right to them, by pool (in force or former); one that
    /// several Services share counts for each. Pools without any are left out.
    #[must_use]
    pub fn held(&self) -> &BTreeMap<Arc<str>, u64> {
        &self.held
    }

    /// The outcome last reported for a Service.
    #[must_use]
    pub fn outcome(&self, service: &ServiceKey) -> Option<Arc<Outcome>> {
        self.entries.of(service)?.outcome.clone()
    }
}
