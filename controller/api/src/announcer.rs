//! Announcers besides BGP: `AnnouncerClass` and `Advertisement` (`ferrocast.io`).
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{EmptyStatus, LabelSelector};

/// An announcer that is not BGP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ferrocast.io",
    version = "v1alpha1",
    kind = "AnnouncerClass",
    plural = "announcerclasses",
    namespaced,
    status = "EmptyStatus",
    derive = "PartialEq",
    doc = "AnnouncerClass names an announcer besides BGP: a plugin that listens on NAME.sock in the speaker's --plugin-dir, or one that a custom binary brings. bgp, layer2 and steering are reserved.",
    printcolumn(name = "Protocol Min", type_ = "integer", json_path = ".spec.protocol.min"),
    printcolumn(name = "Protocol Max", type_ = "integer", json_path = ".spec.protocol.max"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncerClassSpec {
    /// OpenAPI v3 structural schema of parameters in Advertisements for this announcer: of type object. Absent: they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub parameters_schema: Option<Value>,
    /// What the announcer can do. Absent: what it says itself; nothing is checked before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<AnnouncerCapabilities>,
    /// Numbers of the plugin protocol that the plugin speaks. Absent: whatever it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolRange>,
    /// Whatever the announcer as a whole must be told. No secrets: a plugin mounts its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub configuration: Option<Value>,
}

/// What an announcer can do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncerCapabilities {
    /// It announces IPv4 prefixes.
    #[serde(default)]
    pub ipv4: bool,
    /// It announces IPv6 prefixes.
    #[serde(default)]
    pub ipv6: bool,
    /// It announces prefixes shorter than a host route.
    #[serde(default)]
    pub aggregation: bool,
    /// It honours the attributes of routes that BGP has: local preference, communities.
    #[serde(default)]
    pub attributes: bool,
    /// It honours the share of the traffic that a node should get.
    #[serde(default)]
    pub weights: bool,
    /// It can announce a prefix as about to go away.
    #[serde(default)]
    pub drain: bool,
    /// Whom it needs elected: none (every node announces), perAddress, perCluster. Only none is served yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["none", "perAddress", "perCluster"]))]
    pub election: Option<String>,
}

/// Numbers of the plugin protocol.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct ProtocolRange {
    /// The lowest.
    #[schemars(range(min = 1, max = 65535))]
    pub min: i64,
    /// The highest.
    #[schemars(range(min = 1, max = 65535))]
    pub max: i64,
}

/// How addresses of pools are announced by an announcer that is not BGP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ferrocast.io",
    version = "v1alpha1",
    kind = "Advertisement",
    namespaced,
    status = "EmptyStatus",
    derive = "PartialEq",
    doc = "Advertisement says how the addresses of pools are announced by the announcer of an AnnouncerClass, as a BGPAdvertisement says it for BGP.",
    printcolumn(name = "Announcer", type_ = "string", json_path = ".spec.announcer"),
    printcolumn(name = "IPAddressPools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Targets", type_ = "string", json_path = ".spec.targets"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("!has(self.serviceSelectors) || size(self.serviceSelectors) == 0 || ((!has(self.aggregationLength) || self.aggregationLength == 32) && (!has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128))").message("serviceSelectors cannot be used together with aggregationLength other than 32 or aggregationLengthV6 other than 128"))]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementSpec {
    /// Name of the AnnouncerClass.
    #[schemars(length(min = 1, max = 63))]
    pub announcer: String,
    /// Prefix length that IPv4 addresses are announced with. Absent: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub aggregation_length: Option<i64>,
    /// Prefix length that IPv6 addresses are announced with. Absent: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub aggregation_length_v6: Option<i64>,
    /// Names of the IPAddressPools announced. With neither this nor ipAddressPoolSelectors: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub ip_address_pools: Option<Vec<String>>,
    /// Selectors for the labels of the IPAddressPools announced; any may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    /// Nodes that announce: any selector may match. Absent or empty: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// Services announced: any selector may match the Service's labels. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub service_selectors: Option<Vec<LabelSelector>>,
    /// Names of the targets announced to, as the announcer knows them. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub targets: Option<Vec<String>>,
    /// What else the announcer is to be told about these addresses, by the schema of the AnnouncerClass. No secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub parameters: Option<Value>,
}

/// An object of whatever shape.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}
