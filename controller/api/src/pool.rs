//! `IPAddressPool`.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::LabelSelector;

/// Addresses that LoadBalancer Services may be given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    namespaced,
    status = "IPAddressPoolStatus",
    derive = "PartialEq",
    doc = "IPAddressPool is a pool of IP addresses that can be given to LoadBalancer Services.",
    printcolumn(name = "Auto Assign", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Avoid Buggy IPs", type_ = "boolean", json_path = ".spec.avoidBuggyIPs"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses")
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// The addresses of this pool: CIDRs (192.0.2.0/24, 2001:db8::/64) or ranges (192.0.2.10-192.0.2.20), at least one.
    pub addresses: Vec<String>,
    /// Give out addresses without being asked for this pool (default). False: only to Services that name the pool or the address.
    #[serde(default = "yes", skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
    /// Never give out IPv4 addresses that end in .0 or .255, which some routers drop as smurf attacks.
    #[serde(default = "no", rename = "avoidBuggyIPs", skip_serializing_if = "Option::is_none")]
    pub avoid_buggy_ips: Option<bool>,
    /// Which Services may use this pool, and how early it is tried. Absent: every Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}

fn yes() -> Option<bool> {
    Some(true)
}

fn no() -> Option<bool> {
    Some(false)
}

/// Which Services may use a pool. Namespaces and namespaceSelectors are ORed, the result is ANDed with serviceSelectors.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Lower numbers are tried first; 0 or absent comes last. Among equals the pool's name decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Names of the namespaces whose Services may use this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Selectors for the labels of namespaces whose Services may use this pool; any may match. A selector that matches nothing allows nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selectors: Option<Vec<LabelSelector>>,
    /// Selectors for the labels of Services that may use this pool; any may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
}

/// How much of the pool is used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct IPAddressPoolStatus {
    /// IPv4 addresses in use.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// IPv6 addresses in use.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// IPv4 addresses still free.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// IPv6 addresses still free.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
}
