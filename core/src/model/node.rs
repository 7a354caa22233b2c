//! What matters about a Node.
use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::Labels;

/// A Node with this label (any value) takes no part in load balancing.
///
/// Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-exclude-from-external-load-balancers>
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Annotation of a Node: addresses of it, at most one of each family, comma-separated, that BGP sessions are dialled from
/// instead of the one that the kernel would choose. The routers know them as neighbours of their own, beside another speaker.
pub const BGP_SOURCES_ANNOTATION: &str = "ferrocast.io/bgp-source-addresses";

/// The part of a Node that announcement decisions read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `status.addresses[]` of type InternalIP, in their order.
    pub internal_ips: Vec<IpAddr>,
    /// `spec.podCIDRs` that are networks.
    pub pod_cidrs: Vec<IpNet>,
    /// What [`BGP_SOURCES_ANNOTATION`] names; what is no address is left out.
    pub bgp_sources: Vec<IpAddr>,
    /// Condition `NetworkUnavailable` is `True`.
    pub network_unavailable: bool,
}

impl Node {
    /// Does the Node carry [`EXCLUDE_LABEL`]?
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.labels.get(EXCLUDE_LABEL).is_some()
    }
}
