//! What matters about a Service and its endpoints.
use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Labels, ServiceKey};

/// Address family of Kubernetes' `ipFamilies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One address.
    SingleStack,
    /// One of each family if to be had.
    PreferDualStack,
    /// One of each family or nothing.
    RequireDualStack,
}

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any node may take the traffic and pass it on.
    #[default]
    Cluster,
    /// Only nodes with a serving endpoint take traffic.
    Local,
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// One Service port as the outside sees it; displayed as `tcp/80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port number.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.to_string().to_lowercase(), self.number)
    }
}

/// An annotation's value and under which of its two names it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationText {
    /// The value as written.
    pub value: Box<str>,
    /// It was written under the deprecated `metallb.universe.tf/` name.
    pub deprecated: bool,
}

/// The annotations that steer allocation (`metallb.io/…`, or the deprecated `metallb.universe.tf/…`; the new name wins).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAnnotations {
    /// `address-pool`: the pool the address must come from.
    pub address_pool: Option<AnnotationText>,
    /// `loadBalancerIPs`: comma-separated addresses.
    pub load_balancer_ips: Option<AnnotationText>,
    /// `allow-shared-ip`: the sharing key.
    pub allow_shared_ip: Option<AnnotationText>,
    /// `ferrocast.io/addresses-per-family`: how many addresses of each family the Service wants.
    pub addresses_per_family: Option<AnnotationText>,
    /// `ip-allocated-from-pool`, which Ferrocast writes: the pool of the address in the status.
    pub allocated_from_pool: Option<AnnotationText>,
}

/// A condition of ours in a Service's status (`status.conditions[]`, types that begin with `ferrocast.io/`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceCondition {
    /// `type`, e.g. `ferrocast.io/Announced`.
    pub kind: Box<str>,
    /// `status`: True, False or Unknown.
    pub status: Box<str>,
    /// `reason`.
    pub reason: Box<str>,
    /// `message`.
    pub message: Box<str>,
}

/// The part of a Service that decisions read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`; empty in a speaker, which never writes Services.
    pub resource_version: Arc<str>,
    /// `metadata.creationTimestamp`, seconds since the Unix epoch.
    pub created_s: i64,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.type` is `LoadBalancer`.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<Arc<str>>,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `spec.clusterIPs` that are addresses (a headless Service has none).
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: Option<FamilyPolicy>,
    /// `spec.ipFamilies`, the primary first.
    pub families: Vec<IpFamily>,
    /// `spec.ports`, sorted.
    pub ports: Vec<Port>,
    /// `spec.selector` in canonical form (`a=b,c=d`, keys sorted); empty without one.
    pub selector: Box<str>,
    /// `spec.loadBalancerIP` as written; empty if unset.
    pub load_balancer_ip: Box<str>,
    /// The annotations that steer allocation.
    pub annotations: ServiceAnnotations,
    /// `status.loadBalancer.ingress[].ip` that parse, in their order.
    pub ingress: Vec<IpAddr>,
    /// Some `status.loadBalancer.ingress[]` has an `ip` that is no address, or a hostname.
    pub ingress_foreign: bool,
    /// Our conditions in the status; empty in a speaker, which never writes Services.
    pub conditions: Box<[ServiceCondition]>,
}

impl Service {
    /// A Service of type LoadBalancer with nothing else set: for tests and for builders that fill in what they know.
    #[must_use]
    pub fn load_balancer(namespace: &str, name: &str) -> Self {
        Self {
            key: ServiceKey::new(namespace, name),
            uid: "".into(),
            resource_version: "".into(),
            created_s: 0,
            labels: Labels::default(),
            is_load_balancer: true,
            class: None,
            traffic_policy: TrafficPolicy::Cluster,
            cluster_ips: Vec::new(),
            family_policy: None,
            families: Vec::new(),
            ports: Vec::new(),
            selector: "".into(),
            load_balancer_ip: "".into(),
            annotations: ServiceAnnotations::default(),
            ingress: Vec::new(),
            ingress_foreign: false,
            conditions: Box::default(),
        }
    }

    /// Is this Service ours to serve: of type LoadBalancer, and of the class `class` (`None`: the default class, that is none)?
    #[must_use]
    pub fn is_ours(&self, class: Option<&str>) -> bool {
        self.is_load_balancer && self.class.as_deref() == class
    }
}

/// Serving endpoints of one Service, counted as one node sees them.
///
/// An endpoint serves if its condition `ready` is true or absent, or `serving` is true (so one that terminates gracefully
/// still counts). An address that several EndpointSlices name serves only if none of them says otherwise.
/// Source: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Serving endpoints on this node.
    pub here: u32,
    /// Serving endpoints on any node, this one included.
    pub anywhere: u32,
}
