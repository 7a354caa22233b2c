//! `metallb.io` and `ferrocast.io` objects as written: plain fields, nothing checked yet. Field names and meanings are those of the CRDs.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::{
    announce::Capabilities,
    model::{Labels, ObjectKey, ServiceKey},
};

/// A label selector as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawSelector {
    /// `matchLabels`.
    pub match_labels: BTreeMap<String, String>,
    /// `matchExpressions`: key, operator, values.
    pub match_expressions: Vec<(String, String, Vec<String>)>,
}

/// `metadata`, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Kind and name.
    pub key: ObjectKey,
    /// `metadata.uid`, for Events.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`, for Events and logs.
    pub resource_version: Arc<str>,
    /// `metadata.creationTimestamp`, seconds since the Unix epoch: the older of two that conflict stays.
    pub created_s: i64,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The annotation `ferrocast.io/on-address-loss`, as written: `hold` or `move-<digest>`.
    pub on_address_loss: Option<Arc<str>>,
}

/// `IPAddressPool.spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSpec {
    /// `addresses`: CIDRs or `start-end`.
    pub addresses: Vec<String>,
    /// `autoAssign`.
    pub auto_assign: Option<bool>,
    /// `avoidBuggyIPs`.
    pub avoid_buggy_ips: Option<bool>,
    /// `serviceAllocation`.
    pub service_allocation: Option<ServiceAllocationSpec>,
}

/// `IPAddressPool.spec.serviceAllocation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAllocationSpec {
    /// `priority`.
    pub priority: Option<i64>,
    /// `namespaces`.
    pub namespaces: Vec<String>,
    /// `namespaceSelectors`.
    pub namespace_selectors: Vec<RawSelector>,
    /// `serviceSelectors`.
    pub service_selectors: Vec<RawSelector>,
}

/// A reference to a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretRef {
    /// `name`.
    pub name: String,
    /// `namespace`; empty: the configuration namespace, the only one allowed.
    pub namespace: String,
}

/// `BGPPeer.spec` (v1beta2; v1beta1 has the same JSON shape for what it knows).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are MetalLB's, by name")]
pub struct BgpPeerSpec {
    pub my_asn: Option<i64>,
    pub local_asn: Option<i64>,
    pub peer_asn: Option<i64>,
    pub dynamic_asn: Option<String>,
    pub peer_address: Option<String>,
    pub interface: Option<String>,
    pub source_address: Option<String>,
    pub peer_port: Option<i64>,
    /// Go duration text, e.g. `90s`.
    pub hold_time: Option<String>,
    /// Go duration text.
    pub keepalive_time: Option<String>,
    /// Go duration text.
    pub connect_time: Option<String>,
    pub router_id: Option<String>,
    pub node_selectors: Vec<RawSelector>,
    /// Never written anywhere: [`super::InForce`] goes into a ConfigMap.
    #[serde(skip)]
    pub password: Option<String>,
    pub password_secret: Option<SecretRef>,
    pub bfd_profile: Option<String>,
    pub enable_graceful_restart: Option<bool>,
    pub ebgp_multi_hop: Option<bool>,
    pub vrf: Option<String>,
    pub disable_mp: Option<bool>,
    pub dual_stack_address_family: Option<bool>,
}

/// `BGPAdvertisement.spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are MetalLB's, by name")]
pub struct BgpAdvertisementSpec {
    pub aggregation_length: Option<i64>,
    pub aggregation_length_v6: Option<i64>,
    pub local_pref: Option<i64>,
    pub communities: Vec<String>,
    pub ip_address_pools: Vec<String>,
    pub ip_address_pool_selectors: Vec<RawSelector>,
    pub node_selectors: Vec<RawSelector>,
    pub peers: Vec<String>,
    pub service_selectors: Vec<RawSelector>,
}

/// `L2Advertisement.spec`; checked and otherwise unused until there is a layer 2 announcer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are MetalLB's, by name")]
pub struct L2AdvertisementSpec {
    pub ip_address_pools: Vec<String>,
    pub ip_address_pool_selectors: Vec<RawSelector>,
    pub node_selectors: Vec<RawSelector>,
    pub service_selectors: Vec<RawSelector>,
    pub interfaces: Vec<String>,
    /// `preferredNodeSelectors[]`: `weight` and `preference`.
    pub preferred_node_selectors: Vec<(i64, RawSelector)>,
}

/// `Community.spec.communities[]`: alias and value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommunitySpec {
    /// (`name`, `value`) pairs.
    pub communities: Vec<(String, String)>,
}

/// `BFDProfile.spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are MetalLB's, by name")]
pub struct BfdProfileSpec {
    pub receive_interval: Option<i64>,
    pub transmit_interval: Option<i64>,
    pub detect_multiplier: Option<i64>,
    pub echo_interval: Option<i64>,
    pub echo_mode: Option<bool>,
    pub passive_mode: Option<bool>,
    pub minimum_ttl: Option<i64>,
}

/// `BGPPeerPolicy.spec` (`ferrocast.io/v1alpha1`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct BgpPeerPolicySpec {
    pub peers: Vec<String>,
    pub peer_selectors: Vec<RawSelector>,
    pub advertisements: Vec<String>,
    pub advertisement_selectors: Vec<RawSelector>,
    pub session: Option<SessionSpec>,
    pub routes: Option<RoutesSpec>,
}

/// `BGPPeerPolicy.spec.session`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct SessionSpec {
    pub passive: Option<bool>,
    pub families: Option<Vec<String>>,
    pub next_hop_v4: Option<String>,
    pub next_hop_v6: Option<String>,
    /// Go duration text.
    pub send_hold_time: Option<String>,
    pub role: Option<String>,
    pub ttl_security_hops: Option<i64>,
    pub tcp_ao_keys: Option<Vec<TcpAoKeySpec>>,
}

/// `BGPPeerPolicy.spec.session.tcpAO.keys[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct TcpAoKeySpec {
    pub send_id: i64,
    pub receive_id: i64,
    pub algorithm: Option<String>,
    /// Name of the Secret.
    pub secret: String,
}

/// `BGPPeerPolicy.spec.routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct RoutesSpec {
    pub med: Option<i64>,
    pub as_path_prepend: Option<i64>,
    pub extended_communities: Vec<String>,
    pub link_bandwidth: Option<LinkBandwidthSpec>,
}

/// `BGPPeerPolicy.spec.routes.linkBandwidth`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct LinkBandwidthSpec {
    pub unit: Option<String>,
    pub weight: Option<String>,
    pub value: Option<i64>,
    pub transitive: Option<bool>,
    /// Go duration text.
    pub interval: Option<String>,
}

/// `PoolPolicy.spec` (`ferrocast.io/v1alpha1`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct PoolPolicySpec {
    pub ip_address_pools: Vec<String>,
    pub ip_address_pool_selectors: Vec<RawSelector>,
    /// `First`, `LeastRecentlyUsed` or `HashedByName`.
    pub strategy: Option<String>,
    /// `quotas[]`: `namespaceSelector` and `addressesMax`.
    pub quotas: Vec<(RawSelector, i64)>,
    /// CIDRs or `start-end` ranges.
    pub no_new_addresses: Vec<String>,
    pub addresses_per_family_max: Option<i64>,
    pub pair_with: Option<String>,
    /// `sharing.namespaces`: `Any` or `Same`.
    pub sharing_namespaces: Option<String>,
    /// `sharing.trafficPolicies`: `Same` or `Mixed`.
    pub sharing_traffic_policies: Option<String>,
}

/// `AddressReservation.spec` (`ferrocast.io/v1alpha1`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct ReservationSpec {
    pub pool: String,
    /// Addresses, CIDRs or ranges of the pool. Not together with `count`.
    pub addresses: Vec<String>,
    pub count: Option<i64>,
    /// `IPv4` or `IPv6`; with `count`.
    pub family: Option<String>,
    /// `for.services[]`: namespace and name.
    pub services: Vec<(String, String)>,
    /// `for.namespaces[]`.
    pub namespaces: Vec<String>,
    /// `for.serviceSelector`.
    pub service_selector: Option<RawSelector>,
    /// Go duration text.
    pub release_after: Option<String>,
}

/// `Advertisement.spec` (`ferrocast.io/v1alpha1`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct AdvertisementSpec {
    /// Name of the AnnouncerClass.
    pub announcer: String,
    pub aggregation_length: Option<i64>,
    pub aggregation_length_v6: Option<i64>,
    pub ip_address_pools: Vec<String>,
    pub ip_address_pool_selectors: Vec<RawSelector>,
    pub node_selectors: Vec<RawSelector>,
    pub service_selectors: Vec<RawSelector>,
    /// Names that the announcer knows; empty: all.
    pub targets: Vec<String>,
    /// A JSON object.
    pub parameters: Option<serde_json::Value>,
}

/// `AnnouncerClass.spec` (`ferrocast.io/v1alpha1`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of the CRD, by name")]
pub struct AnnouncerClassSpec {
    /// An OpenAPI v3 structural schema.
    pub parameters_schema: Option<serde_json::Value>,
    pub capabilities: Option<Capabilities>,
    /// `protocol.min` and `protocol.max`.
    pub protocol: Option<(i64, i64)>,
    /// A JSON object.
    pub configuration: Option<serde_json::Value>,
}

/// An address that was given back, as the status of a PoolPolicy or an AddressReservation remembers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// When, seconds since the Unix epoch.
    pub at_s: i64,
    /// The address.
    pub ip: IpAddr,
    /// Who had it.
    pub service: ServiceKey,
}

/// The spec of one object, by kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spec {
    /// `IPAddressPool`.
    #[serde(rename = "IPAddressPool")]
    Pool(PoolSpec),
    /// `BGPPeer`.
    #[serde(rename = "BGPPeer")]
    Peer(BgpPeerSpec),
    /// `BGPAdvertisement`.
    #[serde(rename = "BGPAdvertisement")]
    BgpAdvertisement(BgpAdvertisementSpec),
    /// `L2Advertisement`.
    #[serde(rename = "L2Advertisement")]
    L2Advertisement(L2AdvertisementSpec),
    /// `Community`.
    #[serde(rename = "Community")]
    Community(CommunitySpec),
    /// `BFDProfile`.
    #[serde(rename = "BFDProfile")]
    BfdProfile(BfdProfileSpec),
    /// `BGPPeerPolicy`.
    #[serde(rename = "BGPPeerPolicy")]
    PeerPolicy(BgpPeerPolicySpec),
    /// `PoolPolicy`.
    #[serde(rename = "PoolPolicy")]
    PoolPolicy(PoolPolicySpec),
    /// `AddressReservation`.
    #[serde(rename = "AddressReservation")]
    Reservation(ReservationSpec),
    /// `Advertisement`.
    #[serde(rename = "Advertisement")]
    Advertisement(AdvertisementSpec),
    /// `AnnouncerClass`.
    #[serde(rename = "AnnouncerClass")]
    AnnouncerClass(AnnouncerClassSpec),
}

impl Spec {
    /// The kind, as users write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pool(_) => "IPAddressPool",
            Self::Peer(_) => "BGPPeer",
            Self::BgpAdvertisement(_) => "BGPAdvertisement",
            Self::L2Advertisement(_) => "L2Advertisement",
            Self::Community(_) => "Community",
            Self::BfdProfile(_) => "BFDProfile",
            Self::PeerPolicy(_) => "BGPPeerPolicy",
            Self::PoolPolicy(_) => "PoolPolicy",
            Self::Reservation(_) => "AddressReservation",
            Self::Advertisement(_) => "Advertisement",
            Self::AnnouncerClass(_) => "AnnouncerClass",
        }
    }
}

/// One object of the configuration namespace, as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Metadata.
    pub meta: Meta,
    /// The spec, or `None` if it does not even have the right shape (then `problems` says why).
    pub spec: Option<Spec>,
    /// What reading it found: wrong types (errors), unknown fields (warnings).
    pub problems: Vec<Problem>,
    /// Releases that its status remembers (`PoolPolicy.status.releases`, `AddressReservation.status.holders` that are gone).
    pub releases: Vec<Release>,
}

/// Everything [`super::build`] looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// The configuration namespace.
    pub namespace: Arc<str>,
    /// By kind and name.
    pub objects: imbl::OrdMap<ObjectKey, Arc<Resource>>,
    /// Passwords by Secret name: the `password` key of a Secret of type `kubernetes.io/basic-auth`, or in words why there
    /// is none. A Secret that is not in the map has not been seen: it does not exist.
    pub passwords: imbl::OrdMap<Arc<str>, Result<super::Password, String>>,
}
