//! What `ferrocast.io` resources say of pools, as it is in force.
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use super::IpRange;
use crate::model::{IpFamily, LabelSelector, Labels, ServiceKey};

/// Which free address of a pool is given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The lowest.
    #[default]
    First,
    /// One that nobody has had (the lowest of them), else the one given back longest ago.
    LeastRecentlyUsed,
    /// The one that the Service's name hashes to, else the next usable one upward, wrapping: the first 16 octets of
    /// SHA-256(`namespace/name`), big-endian, modulo the number of addresses of the family, counted through the pool's ranges
    /// in the order written.
    HashedByName,
}

/// How many addresses the namespaces that a selector matches may hold together, per pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Over namespace labels.
    pub namespaces: LabelSelector,
    /// Addresses of both families together, an address shared within these namespaces counted once.
    pub addresses_max: u64,
}

/// Which Services may share an address, beyond MetalLB's own rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharingRules {
    /// Only Services of one namespace (`namespaces: Same`).
    pub same_namespace: bool,
    /// Whatever their traffic policies and selectors (`trafficPolicies: Mixed`).
    pub mixed: bool,
}

/// A PoolPolicy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPolicy {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Which free address is given out.
    pub strategy: Strategy,
    /// A Service must fit into every quota whose selector matches its namespace.
    pub quotas: Vec<Quota>,
    /// Ranges whose addresses are kept by those who have them and given to nobody else, also not on request.
    pub no_new_addresses: Vec<IpRange>,
    /// How many addresses of one family a Service may have (1).
    pub addresses_per_family_max: u32,
    /// The pool that may give the family that this one lacks (or has used up).
    pub pair_with: Option<Arc<str>>,
    /// Who may share.
    pub sharing: SharingRules,
    /// Releases that its status remembers, the newest last.
    pub releases: Arc<[super::Release]>,
}

/// For whom addresses are reserved: a Service matches if it is named, or if its namespace is named, or if the selector matches
/// its labels; with `namespaces` and the selector both given, it must match both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservedFor {
    /// Services by name.
    pub services: BTreeSet<ServiceKey>,
    /// Namespaces.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Over Service labels.
    pub service_selector: Option<LabelSelector>,
}

impl ReservedFor {
    /// Is it for this Service?
    #[must_use]
    pub fn matches(&self, service: &ServiceKey, labels: &Labels) -> bool {
        if self.services.contains(service) {
            return true;
        }
        let namespace = || self.namespaces.contains(service.namespace());
        match &self.service_selector {
            Some(selector) => selector.matches(labels) && (self.namespaces.is_empty() || namespace()),
            None => namespace(),
        }
    }
}

/// What is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// These addresses, as ranges within the pool.
    Addresses(Vec<IpRange>),
    /// So many addresses of the family, whichever.
    Count(u64, IpFamily),
}

/// An AddressReservation in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The pool.
    pub pool: Arc<str>,
    /// What.
    pub reserved: Reserved,
    /// For whom.
    pub for_whom: ReservedFor,
    /// For so long after a Service has given an address back, only that Service (by namespace and name) gets it.
    pub release_after: Option<Duration>,
    /// Releases that its status remembers, the newest last.
    pub releases: Arc<[super::Release]>,
}

/// What stays known of a pool that does not contain a held address any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerPool {
    /// Its name, for `ipAddressPools` of advertisements.
    pub name: Arc<str>,
    /// Its labels when it last contained the address, for `ipAddressPoolSelectors`.
    pub labels: Labels,
}

/// What happens to living addresses that an edit of the configuration takes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAddressLoss {
    /// The webhook denies the edit; if it comes all the same, as [`OnAddressLoss::Hold`].
    #[default]
    Deny,
    /// They stay with those who have them.
    Hold,
    /// Those who have them get others: what MetalLB does.
    Move,
}

impl PoolPolicy {
    /// Is the address withheld from everybody who does not have it (`noNewAddresses`)?
    #[must_use]
    pub fn withholds(&self, ip: IpAddr) -> bool {
        self.no_new_addresses.iter().any(|range| range.contains(ip))
    }
}
