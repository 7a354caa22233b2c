//! `BGPAdvertisement` and `L2Advertisement`.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{EmptyStatus, LabelSelector};

/// How the addresses of pools are announced over BGP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPAdvertisement",
    namespaced,
    status = "EmptyStatus",
    derive = "PartialEq",
    doc = "BGPAdvertisement says how the addresses of pools are announced over BGP.",
    printcolumn(name = "IPAddressPools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "IPAddressPool Selectors", type_ = "string", json_path = ".spec.ipAddressPoolSelectors"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".spec.peers"),
    printcolumn(name = "Node Selectors", type_ = "string", json_path = ".spec.nodeSelectors", priority = "10")
)]
#[x_kube(validation = Rule::new("!has(self.serviceSelectors) || size(self.serviceSelectors) == 0 || ((!has(self.aggregationLength) || self.aggregationLength == 32) && (!has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128))").message("serviceSelectors cannot be used together with aggregationLength other than 32 or aggregationLengthV6 other than 128"))]
#[serde(rename_all = "camelCase")]
pub struct BGPAdvertisementSpec {
    /// Prefix length that IPv4 addresses are announced with.
    #[serde(default = "host_v4", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub aggregation_length: Option<i64>,
    /// Prefix length that IPv6 addresses are announced with.
    #[serde(default = "host_v6", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub aggregation_length_v6: Option<i64>,
    /// BGP LOCAL_PREF, sent to peers of our own AS only. 0 or absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub local_pref: Option<i64>,
    /// Communities to attach: 64512:1, large:64512:1:2, or the name of an alias from a Community object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
    /// Names of the IPAddressPools announced. With neither this nor ipAddressPoolSelectors: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_pools: Option<Vec<String>>,
    /// Selectors for the labels of the IPAddressPools announced; any may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    /// Nodes that announce: any selector may match. Absent or empty: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// Names of the BGPPeers announced to. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<String>>,
    /// Services announced: any selector may match the Service's labels. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub service_selectors: Option<Vec<LabelSelector>>,
}

fn host_v4() -> Option<i64> {
    Some(32)
}

fn host_v6() -> Option<i64> {
    Some(128)
}

/// How the addresses of pools are announced on the local network (ARP and NDP).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    namespaced,
    status = "EmptyStatus",
    derive = "PartialEq",
    doc = "L2Advertisement says how the addresses of pools are announced on the local network.",
    printcolumn(name = "IPAddressPools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "IPAddressPool Selectors", type_ = "string", json_path = ".spec.ipAddressPoolSelectors"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
    printcolumn(name = "Node Selectors", type_ = "string", json_path = ".spec.nodeSelectors", priority = "10")
)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// Names of the IPAddressPools announced. With neither this nor ipAddressPoolSelectors: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_pools: Option<Vec<String>>,
    /// Selectors for the labels of the IPAddressPools announced; any may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    /// Nodes that may announce: any selector may match. Absent or empty: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// Services announced: any selector may match the Service's labels. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
    /// Host interfaces to announce on. Absent or empty: all usable ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,
    /// Nodes to prefer among those that may announce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_node_selectors: Option<Vec<PreferredNodeSelector>>,
}

/// A preference for some nodes; weights add up.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct PreferredNodeSelector {
    /// How much the preference counts.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Selector for the labels of the preferred nodes.
    pub preference: LabelSelector,
}
