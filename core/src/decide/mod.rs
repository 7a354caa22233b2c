//! What one node announces: pure decisions with reasons, and the set of prefixes that follows from them.
use std::{net::IpAddr, sync::Arc};

use crate::{
    config::{BgpAdvertisement, Config},
    model::{Endpoints, Node, Service},
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
#[must_use]
pub fn decide(service: &Service, endpoints: Endpoints, context: &Context) -> Decision {
    let _ = (service, endpoints, context);
    Decision::default()
}
