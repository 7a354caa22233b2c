//! The configuration, `metallb.io` and `ferrocast.io`: what users wrote ([`Resources`]), and what of it is in force ([`Config`]).
//!
//! [`build`] is one pure function over the whole configuration. The unit is one object: an invalid object leaves every other
//! one in force, and an object that became invalid keeps its last valid version for as long as this process knows it.

mod advert;
mod advertisement;
mod allows;
mod announcer;
mod bfd;
mod build;
mod check;
mod community;
mod duration;
mod in_force;
mod json;
mod loss;
mod past;
mod peer;
mod peer_policy;
mod policy;
mod pool;
mod pool_policy;
mod problem;
mod ranges;
mod reservation;
mod rules;
mod schema;
mod spec;
mod surroundings;
mod terms;
#[cfg(test)]
mod tests;

pub use allows::{namespace_by_name, pool_allows};
pub use build::{Builder, build};
pub use duration::parse as parse_duration;
pub use in_force::{IN_FORCE_VERSION, InForce, KeptObject};
pub use loss::{DIGEST_LEN, Living, Loss, LossReason, Losses, Past, Wish, carry_over, losses};
pub use policy::{BfdProfile, LinkBandwidth, Role, RoutePolicy, SessionPolicy, TcpAoAlgorithm, TcpAoKey, Weight};
pub use problem::{Problem, Severity};
pub use rules::RULES;
pub use spec::{
    AdvertisementSpec, AnnouncerClassSpec, BfdProfileSpec, BgpAdvertisementSpec, BgpPeerPolicySpec, BgpPeerSpec,
    CommunitySpec, L2AdvertisementSpec, LinkBandwidthSpec, Meta, PoolPolicySpec, PoolSpec, RawSelector, Release,
    ReservationSpec, Resource, Resources, RoutesSpec, SecretRef, ServiceAllocationSpec, SessionSpec, Spec,
    TcpAoKeySpec,
};
pub use surroundings::{Networks, Surroundings, check_surroundings};
pub use terms::{
    FormerPool, OnAddressLoss, PoolPolicy, Quota, Reservation, Reserved, ReservedFor, SharingRules, Strategy,
};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    announce::{Capabilities, Community},
    model::{IpFamily, LabelSelector, Labels, ServiceKey},
};

/// An inclusive range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family, not below `first`.
    pub last: IpAddr,
}

/// Who may use a pool (`spec.serviceAllocation`). A selector that matches nothing allows nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// Lower wins; `None` (unset or 0) comes last.
    pub priority: Option<i64>,
    /// Namespace names.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Selectors over namespace labels. With `namespaces` empty and this empty, every namespace matches; otherwise a
    /// namespace matches if it is named or any selector matches it.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Selectors over Service labels; empty: every Service, else any must match.
    pub service_selectors: Vec<LabelSelector>,
}

/// An IPAddressPool in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`, for `ipAddressPoolSelectors`.
    pub labels: Labels,
    /// What it gives out: the ranges in the order written, less what an older pool has.
    pub ranges: Vec<IpRange>,
    /// `spec.addresses` as ranges in the order written, one per entry that is a range, one per CIDR (for aggregation rules).
    pub written: Vec<IpRange>,
    /// `spec.autoAssign` (default true).
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs` (default false): never hand out `.0` and `.255`.
    pub avoid_buggy_ips: bool,
    /// `spec.serviceAllocation`, if present.
    pub allocation: Option<ServiceAllocation>,
    /// The PoolPolicy in force for it; `None`: all of MetalLB's defaults.
    pub policy: Option<Arc<PoolPolicy>>,
}

impl Pool {
    /// Does it give out every address of `range`?
    #[must_use]
    pub fn covers(&self, range: IpRange) -> bool {
        let mut parts: Vec<IpRange> = self.ranges.iter().filter_map(|r| r.intersection(range)).collect();
        parts.sort_unstable();
        let mut next = Some(range.first);
        for part in parts {
            match next {
                Some(first) if part.first == first => next = ranges::successor(part.last),
                _ => return false,
            }
        }
        next != Some(range.first) && next.is_none_or(|next| next > range.last)
    }
}

/// AS number rule for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAs {
    /// `peerASN`.
    Number(u32),
    /// `dynamicASN: internal`.
    Internal,
    /// `dynamicASN: external`.
    External,
}

/// Where to find a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerEndpoint {
    /// `peerAddress`.
    Address(IpAddr),
    /// `interface`: unnumbered.
    Interface(Arc<str>),
}

/// A password of TCP-MD5 or TCP-AO that never shows in logs; serialized, it is there to be read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password(pub Arc<str>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// A BGPPeer in force (`metallb.io/v1beta2`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `myASN`.
    pub my_asn: u32,
    /// `localASN`: the AS shown to this peer instead of `my_asn`.
    pub local_asn: Option<u32>,
    /// `peerASN` or `dynamicASN`.
    pub peer_asn: PeerAs,
    /// `peerAddress` or `interface`.
    pub endpoint: PeerEndpoint,
    /// `sourceAddress`.
    pub source_address: Option<IpAddr>,
    /// `peerPort` (179).
    pub port: u16,
    /// `holdTime`, whole seconds: 0 or ≥ 3 s. Unset: 90 s, or 3 × keepalive.
    pub hold_time: Duration,
    /// `keepaliveTime` ≤ hold time. Unset: a third of the hold time.
    pub keepalive_time: Duration,
    /// `connectTime`: wait between attempts to connect.
    pub connect_time: Option<Duration>,
    /// `routerID`.
    pub router_id: Option<Ipv4Addr>,
    /// `nodeSelectors`: empty = every node, else any must match.
    #[serde(skip)]
    pub node_selectors: Vec<LabelSelector>,
    /// `password`, or what `passwordSecret` resolved to.
    pub password: Option<Password>,
    /// `passwordSecret` is set but could not be resolved: the peer must not be dialled; the text says why.
    pub password_missing: Option<String>,
    /// The BFDProfile that `bfdProfile` names; a change of it resets nothing.
    pub bfd: Option<Arc<BfdProfile>>,
    /// `bfdProfile` names no valid BFDProfile, and none is remembered: the peer must not be dialled; the text says why.
    pub bfd_missing: Option<String>,
    /// `enableGracefulRestart`.
    pub graceful_restart: bool,
    /// `ebgpMultiHop`.
    pub ebgp_multi_hop: bool,
    /// `vrf`.
    pub vrf: Option<Arc<str>>,
    /// `dualStackAddressFamily`: both families on this session.
    pub dual_stack: bool,
    /// What the BGPPeerPolicies say of the session; a change of it resets the session.
    pub session: SessionPolicy,
    /// What they say of the routes, in the order in which they apply: of each single value the first that is set wins,
    /// communities add up. A change of it resets nothing.
    pub routes: Arc<[RoutePolicy]>,
}

impl Peer {
    /// Hold time of a peer that names none.
    pub const HOLD_TIME: Duration = Duration::from_secs(90);

    /// A peer with nothing set but who it is: everything else as if its field were absent.
    #[must_use]
    pub fn new(name: &str, my_asn: u32, peer_asn: u32, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            my_asn,
            local_asn: None,
            peer_asn: PeerAs::Number(peer_asn),
            endpoint: PeerEndpoint::Address(address.ip()),
            source_address: None,
            port: address.port(),
            hold_time: Self::HOLD_TIME,
            keepalive_time: Self::HOLD_TIME / 3,
            connect_time: None,
            router_id: None,
            node_selectors: Vec::new(),
            password: None,
            password_missing: None,
            bfd: None,
            bfd_missing: None,
            graceful_restart: false,
            ebgp_multi_hop: false,
            vrf: None,
            dual_stack: false,
            session: SessionPolicy::default(),
            routes: Arc::default(),
        }
    }
}

/// A BGPAdvertisement or an Advertisement in force: which addresses one announcer announces, from where, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `aggregationLength` (32).
    pub aggregation_length_v4: u8,
    /// `aggregationLengthV6` (128).
    pub aggregation_length_v6: u8,
    /// `localPref`; `None` if unset or 0.
    pub local_pref: Option<u32>,
    /// `communities`, aliases resolved.
    pub communities: BTreeSet<Community>,
    /// `ipAddressPools`.
    pub pools: BTreeSet<Arc<str>>,
    /// `ipAddressPoolSelectors`. With both empty, all pools.
    pub pool_selectors: Vec<LabelSelector>,
    /// `nodeSelectors`: empty = every node.
    pub node_selectors: Vec<LabelSelector>,
    /// `peers`, or `targets` of an Advertisement: empty = all.
    pub peers: BTreeSet<Arc<str>>,
    /// `serviceSelectors`: empty = every Service.
    pub service_selectors: Vec<LabelSelector>,
    /// `parameters` of an Advertisement: a JSON object with sorted keys, valid by the schema of the AnnouncerClass. `None`: none.
    pub parameters: Option<Arc<str>>,
}

/// The announcer that BGPPeers and BGPAdvertisements are for.
pub const BGP: &str = "bgp";
/// Names that no AnnouncerClass may have: those of Ferrocast's own announcers.
pub const RESERVED_ANNOUNCERS: [&str; 3] = [BGP, "layer2", "steering"];

/// An AnnouncerClass in force, with the Advertisements for it (`ferrocast.io/v1alpha1`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnouncerClass {
    /// `metadata.name`: the announcer's name.
    pub name: Arc<str>,
    /// `capabilities`: what its plugin is known to be able to do. `None`: not said, nothing is checked against it.
    pub capabilities: Option<Capabilities>,
    /// `protocol`: the lowest and the highest number that its plugin speaks. `None`: not said.
    pub protocol: Option<(u32, u32)>,
    /// `configuration`: a JSON object with sorted keys, for the announcer as a whole. `None`: none.
    pub configuration: Option<Arc<str>>,
    /// `parametersSchema`: an OpenAPI v3 structural schema as JSON. `None`: Advertisements for it have no parameters.
    pub parameters_schema: Option<Arc<str>>,
    /// The Advertisements for it, by name.
    pub advertisements: BTreeMap<Arc<str>, Arc<Advertisement>>,
}

impl Advertisement {
    /// Does it select a pool of this name and these labels?
    #[must_use]
    pub fn selects_pool(&self, name: &str, labels: &Labels) -> bool {
        (self.pools.is_empty() && self.pool_selectors.is_empty())
            || self.pools.contains(name)
            || self.pool_selectors.iter().any(|s| s.matches(labels))
    }

    /// Prefix length that addresses of `family` are aggregated to.
    #[must_use]
    pub fn aggregation_length(&self, family: IpFamily) -> u8 {
        match family {
            IpFamily::V4 => self.aggregation_length_v4,
            IpFamily::V6 => self.aggregation_length_v6,
        }
    }

    /// Is there a peer that could get both this advertisement and `other`?
    #[must_use]
    pub fn shares_peer_with(&self, other: &Self) -> bool {
        any_common(&self.peers, &other.peers)
    }
}

/// Are there names in both sets, taking an empty set for every name?
fn any_common(a: &BTreeSet<Arc<str>>, b: &BTreeSet<Arc<str>>) -> bool {
    a.is_empty() || b.is_empty() || !a.is_disjoint(b)
}

/// Does any selector match, with none at all matching everything?
#[must_use]
pub fn any_selector_matches(selectors: &[LabelSelector], labels: &Labels) -> bool {
    selectors.is_empty() || selectors.iter().any(|s| s.matches(labels))
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Pools by name.
    pub pools: BTreeMap<Arc<str>, Arc<Pool>>,
    /// Pool objects that exist but have no valid version that this process knows, with their labels. While there is one, no
    /// address is released for lack of a pool.
    pub pools_unknown: BTreeMap<Arc<str>, Labels>,
    /// Peers by name.
    pub peers: BTreeMap<Arc<str>, Arc<Peer>>,
    /// Address reservations by name.
    pub reservations: BTreeMap<Arc<str>, Arc<Reservation>>,
    /// The pool that gave out an address which an edit took out of every pool while a Service had it: the address is held, and
    /// advertisements that selected that pool go on applying to it. Only addresses that are in no pool in force.
    pub former: BTreeMap<IpAddr, Arc<FormerPool>>,
    /// Addresses that an edit took from Services and that these are to give up for others: what `move` means.
    pub moved: BTreeSet<(ServiceKey, IpAddr)>,
    /// BGPAdvertisements by name.
    pub advertisements: BTreeMap<Arc<str>, Arc<Advertisement>>,
    /// AnnouncerClasses by name, with their Advertisements; none of them is BGP's.
    pub announcers: BTreeMap<Arc<str>, Arc<AnnouncerClass>>,
    /// What is wrong with the objects as written, in order of object and field; also warnings.
    pub problems: Vec<Problem>,
    /// An object has an error (not merely a warning): part of what is written is not in force.
    pub stale: bool,
    /// A BGPPeerPolicy weighs routes by endpoints: no weight of a prefix changes more often than this. `None`: none does, and
    /// announcements carry no weight.
    pub weight_interval: Option<Duration>,
    /// Index for [`Config::pool_of`]: first address of each range of each pool → last address and pool. [`build`] fills
    /// it in; whoever makes a `Config` by hand calls [`Config::index`] or leaves it empty.
    pub pool_ranges: BTreeMap<IpAddr, (IpAddr, Arc<Pool>)>,
}

impl Config {
    /// The advertisements for the announcer of this name.
    #[must_use]
    pub fn advertisements_of(&self, announcer: &str) -> Option<&BTreeMap<Arc<str>, Arc<Advertisement>>> {
        match announcer {
            BGP => Some(&self.advertisements),
            other => self.announcers.get(other).map(|class| &class.advertisements),
        }
    }

    /// The pool that gives out `ip`.
    #[must_use]
    pub fn pool_of(&self, ip: IpAddr) -> Option<&Arc<Pool>> {
        if self.pool_ranges.is_empty() {
            return self.pools.values().find(|p| p.ranges.iter().any(|r| r.contains(ip)));
        }
        let (first, (last, pool)) = self.pool_ranges.range(..=ip).next_back()?;
        IpRange { first: *first, last: *last }.contains(ip).then_some(pool)
    }

    /// Builds the index for [`Config::pool_of`] from `pools`.
    pub fn index(&mut self) {
        let ranges = self.pools.values().flat_map(|p| p.ranges.iter().map(move |r| (r.first, (r.last, p.clone()))));
        self.pool_ranges = ranges.collect();
    }
}

impl IpRange {
    /// Is `ip` in the range (and of its family)?
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && self.first <= ip && ip <= self.last
    }

    /// Have the two an address in common?
    #[must_use]
    pub fn overlaps(&self, other: Self) -> bool {
        self.intersection(other).is_some()
    }

    /// The addresses in both.
    #[must_use]
    pub fn intersection(&self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (self.first.is_ipv4() == other.first.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// How many addresses it has; stops at the highest number there is.
    #[must_use]
    pub fn size(&self) -> u128 {
        let steps = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits().saturating_sub(first.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().saturating_sub(first.to_bits()),
            _ => 0,
        };
        steps.saturating_add(1)
    }
}

impl std::fmt::Display for IpRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
