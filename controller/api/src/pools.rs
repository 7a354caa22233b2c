//! What MetalLB's pools cannot say: `PoolPolicy` and `AddressReservation` (`ferrocast.io`).
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::LabelSelector;

/// How the addresses of pools are given out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ferrocast.io",
    version = "v1alpha1",
    kind = "PoolPolicy",
    plural = "poolpolicies",
    namespaced,
    status = "PoolPolicyStatus",
    derive = "PartialEq",
    doc = "PoolPolicy says of IPAddressPools what MetalLB's resource cannot say: which free address is given out, how many a namespace may have, which are given to nobody any more, who may share one. A pool has one policy: of two that select it, the older stays and the younger is invalid.",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(
        name = "Pool Selectors",
        type_ = "string",
        json_path = ".spec.ipAddressPoolSelectors",
        priority = "10"
    ),
    printcolumn(name = "Strategy", type_ = "string", json_path = ".spec.strategy"),
    printcolumn(name = "Pair With", type_ = "string", json_path = ".spec.pairWith"),
    printcolumn(name = "Remembered", type_ = "integer", json_path = ".status.remembered"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PoolPolicySpec {
    /// Names of the IPAddressPools that the policy is for. With neither this nor ipAddressPoolSelectors: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(max = 253)))]
    pub ip_address_pools: Option<Vec<String>>,
    /// Selectors for the labels (metadata.labels) of the IPAddressPools that the policy is for; any may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    /// Which free address is given out. First: the lowest. LeastRecentlyUsed: the lowest that nobody has had, else the one
    /// given back longest ago. HashedByName: the one that the Service's namespace and name hash to, else the next free one
    /// upward; the same Service gets the same address again while it is free. Absent: First.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["First", "LeastRecentlyUsed", "HashedByName"]))]
    pub strategy: Option<String>,
    /// How many addresses namespaces may hold, per pool. A Service must fit into every quota whose selector matches the labels
    /// of its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub quotas: Option<Vec<PoolQuota>>,
    /// CIDRs (192.0.2.0/24) or ranges (192.0.2.10-192.0.2.20) whose addresses stay with the Services that have them and are
    /// given to no other, also not on request: for renumbering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(max = 100)))]
    pub no_new_addresses: Option<Vec<String>>,
    /// How many addresses of one family a Service may have, if it asks for more than one (annotation
    /// ferrocast.io/addresses-per-family). Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub addresses_per_family_max: Option<i64>,
    /// Name of the IPAddressPool that may give a Service the other family, where a pool of this policy has none, or none
    /// free. Absent: all addresses of a Service come from one pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pair_with: Option<String>,
    /// Which Services may share an address, beyond the rules of the annotation metallb.io/allow-shared-ip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<PoolSharing>,
}

/// How many addresses some namespaces may hold together.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolQuota {
    /// Selector for the labels of the namespaces that the quota counts together; an empty one: all namespaces.
    pub namespace_selector: LabelSelector,
    /// So many addresses of a pool they may hold together, of both families; one that they share counts once.
    #[schemars(range(min = 0))]
    pub addresses_max: i64,
}

/// Which Services may share an address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSharing {
    /// Any: Services of all namespaces. Same: only those of one namespace. Absent: Any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Any", "Same"]))]
    pub namespaces: Option<String>,
    /// Same: only Services with externalTrafficPolicy Cluster, or with Local and the same selector. Mixed: whatever their
    /// policies and selectors; a node announces the address only if it may for each of them. Absent: Same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Same", "Mixed"]))]
    pub traffic_policies: Option<String>,
}

/// What must be remembered of the addresses that were given out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolPolicyStatus {
    /// Number of entries in releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<i64>,
    /// Addresses that were given back, the newest last, at most 4096; written at most every 10 s. For LeastRecentlyUsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub releases: Option<Vec<AddressRelease>>,
}

/// An address that was given back.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressRelease {
    /// The address.
    pub address: String,
    /// Who had it: namespace/name of the Service.
    pub service: String,
    /// When it was given back (RFC 3339).
    pub released_at: String,
}

/// Addresses kept for some Services.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ferrocast.io",
    version = "v1alpha1",
    kind = "AddressReservation",
    plural = "addressreservations",
    namespaced,
    status = "AddressReservationStatus",
    derive = "PartialEq",
    doc = "AddressReservation keeps addresses of an IPAddressPool for some Services: these get them first, also after they were deleted and created again, and nobody else gets them, not even on request.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Count", type_ = "integer", json_path = ".spec.count"),
    printcolumn(name = "Family", type_ = "string", json_path = ".spec.family"),
    printcolumn(name = "In Use", type_ = "integer", json_path = ".status.inUse"),
    printcolumn(name = "Cooling Down", type_ = "integer", json_path = ".status.coolingDown"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("(has(self.addresses) && size(self.addresses) > 0) != has(self.count)").message("write either addresses or count"))]
#[x_kube(validation = Rule::new("has(self.count) == has(self.family)").message("family goes with count, and with that only"))]
#[serde(rename_all = "camelCase")]
pub struct AddressReservationSpec {
    /// Name of the IPAddressPool.
    #[schemars(length(min = 1, max = 253))]
    pub pool: String,
    /// What is reserved: addresses of the pool (192.0.2.7), CIDRs (192.0.2.0/28) or ranges (192.0.2.10-192.0.2.20). Either
    /// this or count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(max = 100)))]
    pub addresses: Option<Vec<String>>,
    /// How many addresses of the family are reserved, whichever. Either this or addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub count: Option<i64>,
    /// With count: IPv4 or IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["IPv4", "IPv6"]))]
    pub family: Option<String>,
    /// The Services that the addresses are for.
    #[serde(rename = "for")]
    pub for_whom: ReservedFor,
    /// For so long after a Service has given up or lost an address of the reservation, only that Service (by namespace and name)
    /// gets it; a duration (24h). Absent: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub release_after: Option<String>,
}

/// For whom addresses are reserved: Services by name; and those of the namespaces named, those that the selector matches, or,
/// with both given, those that are both. At least one of the three.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("(has(self.services) && size(self.services) > 0) || (has(self.namespaces) && size(self.namespaces) > 0) || has(self.serviceSelector)").message("name somebody: services, namespaces or serviceSelector"))]
#[serde(rename_all = "camelCase")]
pub struct ReservedFor {
    /// Services by name; they need not exist yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub services: Option<Vec<ServiceReference>>,
    /// Names of namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(max = 63)))]
    pub namespaces: Option<Vec<String>>,
    /// Selector for the labels of Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct ServiceReference {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Who has the reserved addresses, and who had them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressReservationStatus {
    /// Reserved addresses that Services have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<i64>,
    /// Reserved addresses that were given back less than releaseAfter ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling_down: Option<i64>,
    /// Who has the addresses, and, with releasedAt, who had them; at most 4096, written at most every 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub holders: Option<Vec<ReservationHolder>>,
}

/// A Service that has, or had, addresses of a reservation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationHolder {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Its addresses of the reservation.
    #[schemars(length(max = 32))]
    pub addresses: Vec<String>,
    /// When it gave them back (RFC 3339); absent while it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
}
