//! What one node announces: pure decisions with reasons, and the set of prefixes that follows from them.
mod desired;
mod sharing;
#[cfg(test)]
mod tests;
mod weight;
mod words;

pub use desired::{DesiredBuilder, prefix_of};
pub use sharing::{Party, Sharers};
pub use words::message;

use std::{net::IpAddr, sync::Arc};

use crate::{
    announce::is_announceable,
    config::{Advertisement, Config, any_selector_matches},
    model::{Endpoints, IpFamily, Labels, Node, Service, ServiceKey, TrafficPolicy},
};

/// Why an address is or is not announced from this node. The first that applies wins, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not of type LoadBalancer, or of another class.
    NotLoadBalancer,
    /// No address in the status.
    NoIpAllocated,
    /// The status holds something that is not an address we could announce.
    InvalidIp,
    /// The address is in no pool, and is not held by the right of a former one.
    IpNotAllowed,
    /// No advertisement of the address's pool selects this node.
    NotOwner,
    /// Those that do have service selectors, and none matches.
    NoMatchingAdvertisement,
    /// The advertisements that match contradict each other.
    ConflictingAdvertisements,
    /// Condition NetworkUnavailable of the Node.
    NodeNetworkUnavailable,
    /// The Node carries the exclude label.
    NodeLabeledExcludeBalancers,
    /// externalTrafficPolicy is Local and no endpoint serves here.
    NoLocalEndpoints,
    /// No endpoint serves anywhere.
    NoEndpoints,
    /// The address is shared under different traffic policies, no node may announce it for every sharer, and the oldest sharer,
    /// which decides then, is another one.
    SharedNoCommonNode,
    /// Announced.
    Announced,
}

impl Reason {
    /// The stable code, e.g. `noLocalEndpoints`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotLoadBalancer => "notLoadBalancer",
            Self::NoIpAllocated => "noIPAllocated",
            Self::InvalidIp => "invalidIP",
            Self::IpNotAllowed => "ipNotAllowed",
            Self::NotOwner => "notOwner",
            Self::NoMatchingAdvertisement => "noMatchingAdvertisement",
            Self::ConflictingAdvertisements => "conflictingAdvertisements",
            Self::NodeNetworkUnavailable => "nodeNetworkUnavailable",
            Self::NodeLabeledExcludeBalancers => "nodeLabeledExcludeBalancers",
            Self::NoLocalEndpoints => "noLocalEndpoints",
            Self::NoEndpoints => "noEndpoints",
            Self::SharedNoCommonNode => "sharedNoCommonNode",
            Self::Announced => "announced",
        }
    }
}

/// The decision on one address of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressDecision {
    /// The address; `None` if the Service has none.
    pub ip: Option<IpAddr>,
    /// Yes is [`Reason::Announced`]; everything else is no.
    pub reason: Reason,
    /// The advertisements under which it is announced, in name order; empty unless announced.
    pub advertisements: Vec<Arc<Advertisement>>,
    /// Of an address shared under different traffic policies, the other Service on whose account it is not announced here.
    pub because_of: Option<ServiceKey>,
}

/// The decision on one Service, one entry per address (a single one without address if it has none).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Per address, in the status's order.
    pub addresses: Vec<AddressDecision>,
    /// What this node is worth for the Service's addresses: its serving endpoints, of a Service with
    /// `externalTrafficPolicy: Local`. `None`: as much as any other, or nobody weighs.
    pub weight: Option<u32>,
}

/// What the decision depends on besides the Service and its endpoints.
#[derive(Clone, Debug)]
pub struct Context {
    /// Class served (`None`: Services without a class).
    pub class: Option<Arc<str>>,
    /// The announcer that the decision is about: only its advertisements count.
    pub announcer: Arc<str>,
    /// This node.
    pub node: Arc<Node>,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// `--ignore-exclude-lb`: do not read the exclude label.
    pub ignore_exclude_label: bool,
}

/// Does this node announce the Service's addresses? Takes it for the only one that has them: see [`decide_among`].
///
/// Source: `metallb-reference.md` §5.1, in its order of reasons.
#[must_use]
pub fn decide(service: &Service, endpoints: Endpoints, context: &Context) -> Decision {
    decide_among(Party { service, endpoints, nodes: &[] }, &[], context)
}

/// Does this node announce the Service's addresses, where `others` have some of them too?
///
/// Others matter only for addresses of pools whose policy lets Services of different traffic policies share
/// ([`SharingRules::mixed`](crate::config::SharingRules)); then the node announces the address only if it may for every one of
/// them that has a serving endpoint anywhere (the module `sharing` has the rule). Elsewhere sharers have the same traffic policy and
/// endpoints by MetalLB's rules, and each is decided for itself.
#[must_use]
pub fn decide_among(own: Party<'_>, others: &[Party<'_>], context: &Context) -> Decision {
    let service = own.service;
    if !service.is_ours(context.class.as_deref()) {
        return without_address(Reason::NotLoadBalancer);
    }
    let decided = |ip: &IpAddr| {
        let refused =
            |(reason, because_of)| AddressDecision { ip: Some(*ip), reason, advertisements: Vec::new(), because_of };
        let own_right = advertisements(*ip, service, own.endpoints, context).map_err(|reason| (reason, None));
        let common = own_right.and_then(|found| sharing::common(*ip, own, others, context).map(|()| found));
        common.map_or_else(refused, |found| AddressDecision {
            ip: Some(*ip),
            reason: Reason::Announced,
            advertisements: found.into_iter().cloned().collect(),
            because_of: None,
        })
    };
    let mut addresses: Vec<AddressDecision> = service.ingress.iter().map(decided).collect();
    if service.ingress_foreign {
        addresses.extend(without_address(Reason::InvalidIp).addresses);
    }
    if addresses.is_empty() {
        return without_address(Reason::NoIpAllocated);
    }
    let weighs = context.config.weight_interval.is_some() && service.traffic_policy == TrafficPolicy::Local;
    Decision { addresses, weight: weighs.then_some(own.endpoints.here) }
}

fn without_address(reason: Reason) -> Decision {
    let addresses = vec![AddressDecision { ip: None, reason, advertisements: Vec::new(), because_of: None }];
    Decision { addresses, weight: None }
}

/// The advertisements under which `ip` is announced here as far as this Service is concerned, or why it is not.
fn advertisements<'a>(
    ip: IpAddr,
    service: &Service,
    endpoints: Endpoints,
    context: &'a Context,
) -> Result<Vec<&'a Arc<Advertisement>>, Reason> {
    let matching = eligible(ip, service, context)?;
    served(service.traffic_policy, endpoints).map(|()| matching)
}

/// The advertisements under which `ip` would be announced here if there were endpoints, or why it would not.
fn eligible<'a>(ip: IpAddr, service: &Service, context: &'a Context) -> Result<Vec<&'a Arc<Advertisement>>, Reason> {
    if !is_announceable(ip) {
        return Err(Reason::InvalidIp);
    }
    let pool = pool_of(ip, service, &context.config).ok_or(Reason::IpNotAllowed)?;
    let selects = |a: &&Arc<Advertisement>| {
        a.selects_pool(pool.name, pool.labels) && any_selector_matches(&a.node_selectors, &context.node.labels)
    };
    let all = context.config.advertisements_of(&context.announcer).into_iter().flat_map(|all| all.values());
    let mut matching: Vec<&Arc<Advertisement>> = all.filter(selects).collect();
    if matching.is_empty() {
        return Err(Reason::NotOwner);
    }
    matching.retain(|a| any_selector_matches(&a.service_selectors, &service.labels));
    if matching.is_empty() {
        return Err(Reason::NoMatchingAdvertisement);
    }
    if contradiction(&matching, ip).is_some() {
        return Err(Reason::ConflictingAdvertisements);
    }
    if context.node.network_unavailable {
        return Err(Reason::NodeNetworkUnavailable);
    }
    if context.node.is_excluded() && !context.ignore_exclude_label {
        return Err(Reason::NodeLabeledExcludeBalancers);
    }
    Ok(matching)
}

/// Are there the endpoints that the traffic policy asks for?
///
/// # Errors
/// Why not: [`Reason::NoLocalEndpoints`] or [`Reason::NoEndpoints`].
pub fn served(policy: TrafficPolicy, endpoints: Endpoints) -> Result<(), Reason> {
    match policy {
        TrafficPolicy::Local if endpoints.here == 0 => Err(Reason::NoLocalEndpoints),
        TrafficPolicy::Cluster if endpoints.anywhere == 0 => Err(Reason::NoEndpoints),
        _ => Ok(()),
    }
}

/// The pool by whose right an address is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRight<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// It contains the address no more: the address is held.
    pub former: bool,
}

/// The pool of `ip`, or of a held address the former one. While a pool object has no version that we understand, the Service's
/// annotation may name it as the pool of an address that no other pool contains.
#[must_use]
pub fn pool_of<'a>(ip: IpAddr, service: &Service, config: &'a Config) -> Option<PoolRight<'a>> {
    if let Some(pool) = config.pool_of(ip) {
        return Some(PoolRight { name: &pool.name, labels: &pool.labels, former: false });
    }
    if let Some(pool) = config.former.get(&ip) {
        return Some(PoolRight { name: &pool.name, labels: &pool.labels, former: true });
    }
    let named = service.annotations.allocated_from_pool.as_ref()?;
    let (name, labels) = config.pools_unknown.get_key_value(&*named.value)?;
    Some(PoolRight { name, labels, former: false })
}

/// Two of these adverts that ask the same peer for different local preferences for the same prefix. Only where service selectors
/// are in play: between other adverts the validation has already looked.
fn contradiction<'a>(matching: &[&'a Arc<Advertisement>], ip: IpAddr) -> Option<[&'a Arc<Advertisement>; 2]> {
    matching.iter().enumerate().find_map(|(i, a)| {
        let other = matching[..i].iter().find(|b| {
            a.local_pref != b.local_pref
                && (!a.service_selectors.is_empty() || !b.service_selectors.is_empty())
                && a.aggregation_length(IpFamily::of(ip)) == b.aggregation_length(IpFamily::of(ip))
                && a.shares_peer_with(b)
        });
        other.map(|b| [*b, *a])
    })
}
