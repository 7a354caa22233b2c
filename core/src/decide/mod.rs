//! What one node announces: pure decisions with reasons, and the set of prefixes that follows from them.
mod desired;
#[cfg(test)]
mod tests;
mod weight;

pub use desired::DesiredBuilder;

use std::{net::IpAddr, sync::Arc};

use crate::{
    announce::is_announceable,
    config::{BgpAdvertisement, Config, any_selector_matches},
    model::{Endpoints, IpFamily, Labels, Node, Service, TrafficPolicy},
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
    /// The address is in no pool.
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
    pub advertisements: Vec<Arc<BgpAdvertisement>>,
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
    /// This node.
    pub node: Arc<Node>,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// `--ignore-exclude-lb`: do not read the exclude label.
    pub ignore_exclude_label: bool,
}

/// Does this node announce the Service's addresses?
///
/// Source: `metallb-reference.md` §5.1, in its order of reasons.
#[must_use]
pub fn decide(service: &Service, endpoints: Endpoints, context: &Context) -> Decision {
    if !service.is_ours(context.class.as_deref()) {
        return without_address(Reason::NotLoadBalancer);
    }
    let mut addresses: Vec<AddressDecision> = service
        .ingress
        .iter()
        .map(|ip| match advertisements(*ip, service, endpoints, context) {
            Ok(advertisements) => AddressDecision { ip: Some(*ip), reason: Reason::Announced, advertisements },
            Err(reason) => AddressDecision { ip: Some(*ip), reason, advertisements: Vec::new() },
        })
        .collect();
    if service.ingress_foreign {
        addresses.extend(without_address(Reason::InvalidIp).addresses);
    }
    if addresses.is_empty() {
        return without_address(Reason::NoIpAllocated);
    }
    let weighs = context.config.weight_interval.is_some() && service.traffic_policy == TrafficPolicy::Local;
    Decision { addresses, weight: weighs.then_some(endpoints.here) }
}

fn without_address(reason: Reason) -> Decision {
    let addresses = vec![AddressDecision { ip: None, reason, advertisements: Vec::new() }];
    Decision { addresses, weight: None }
}

/// The advertisements under which `ip` is announced here, or why it is not.
fn advertisements(
    ip: IpAddr,
    service: &Service,
    endpoints: Endpoints,
    context: &Context,
) -> Result<Vec<Arc<BgpAdvertisement>>, Reason> {
    if !is_announceable(ip) {
        return Err(Reason::InvalidIp);
    }
    let (pool, labels) = pool_of(ip, service, &context.config).ok_or(Reason::IpNotAllowed)?;
    let mut matching: Vec<&Arc<BgpAdvertisement>> = context
        .config
        .advertisements
        .values()
        .filter(|a| a.selects_pool(pool, labels) && any_selector_matches(&a.node_selectors, &context.node.labels))
        .collect();
    if matching.is_empty() {
        return Err(Reason::NotOwner);
    }
    matching.retain(|a| any_selector_matches(&a.service_selectors, &service.labels));
    if matching.is_empty() {
        return Err(Reason::NoMatchingAdvertisement);
    }
    if contradict(&matching, ip) {
        return Err(Reason::ConflictingAdvertisements);
    }
    if context.node.network_unavailable {
        return Err(Reason::NodeNetworkUnavailable);
    }
    if context.node.is_excluded() && !context.ignore_exclude_label {
        return Err(Reason::NodeLabeledExcludeBalancers);
    }
    match service.traffic_policy {
        TrafficPolicy::Local if endpoints.here == 0 => Err(Reason::NoLocalEndpoints),
        TrafficPolicy::Cluster if endpoints.anywhere == 0 => Err(Reason::NoEndpoints),
        _ => Ok(matching.into_iter().cloned().collect()),
    }
}

/// Name and labels of the pool of `ip`. While a pool object has no version that we understand, the Service's annotation
/// may name it as the pool of an address that no other pool contains.
fn pool_of<'a>(ip: IpAddr, service: &Service, config: &'a Config) -> Option<(&'a str, &'a Labels)> {
    if let Some(pool) = config.pool_of(ip) {
        return Some((&pool.name, &pool.labels));
    }
    let named = service.annotations.allocated_from_pool.as_ref()?;
    let (name, labels) = config.pools_unknown.get_key_value(&*named.value)?;
    Some((name, labels))
}

/// Do two of these adverts ask the same peer for different local preferences for the same prefix? Only where service
/// selectors are in play: between other adverts the validation has already looked.
fn contradict(matching: &[&Arc<BgpAdvertisement>], ip: IpAddr) -> bool {
    matching.iter().enumerate().any(|(i, a)| {
        matching[..i].iter().any(|b| {
            a.local_pref != b.local_pref
                && (!a.service_selectors.is_empty() || !b.service_selectors.is_empty())
                && a.aggregation_length(IpFamily::of(ip)) == b.aggregation_length(IpFamily::of(ip))
                && a.shares_peer_with(b)
        })
    })
}
