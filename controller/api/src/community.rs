//! `Community` and `BFDProfile`.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::EmptyStatus;

/// Names for BGP communities, to be used in BGPAdvertisements.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "Community",
    plural = "communities",
    namespaced,
    status = "EmptyStatus",
    derive = "PartialEq",
    doc = "Community gives names to BGP communities, to be used in BGPAdvertisements."
)]
pub struct CommunitySpec {
    /// The names and what they stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<CommunityAlias>>,
}

/// One name for one community.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct CommunityAlias {
    /// The name, unique over all Community objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The community: 64512:1 or large:64512:1:2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Settings of a BFD session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BFDProfile",
    namespaced,
    status = "EmptyStatus",
    derive = "PartialEq",
    doc = "BFDProfile holds the settings of BFD sessions, named by BGPPeers.",
    printcolumn(name = "Passive Mode", type_ = "boolean", json_path = ".spec.passiveMode"),
    printcolumn(name = "Transmit Interval", type_ = "integer", json_path = ".spec.transmitInterval"),
    printcolumn(name = "Receive Interval", type_ = "integer", json_path = ".spec.receiveInterval"),
    printcolumn(name = "Multiplier", type_ = "integer", json_path = ".spec.detectMultiplier")
)]
#[serde(rename_all = "camelCase")]
pub struct BFDProfileSpec {
    /// Shortest interval, in milliseconds, at which we can receive control packets. Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub receive_interval: Option<i32>,
    /// Shortest interval, in milliseconds, at which we want to send control packets. Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub transmit_interval: Option<i32>,
    /// Packets in a row that must be missing before the session is down. Absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<i32>,
    /// Interval, in milliseconds, of our echo packets, and the shortest at which we can take the peer's. Absent: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub echo_interval: Option<i32>,
    /// Use echo packets, which the peer sends back; single hop only. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo_mode: Option<bool>,
    /// Wait for the peer's first packet before sending any. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive_mode: Option<bool>,
    /// Lowest TTL accepted on a multihop session. Absent: 254.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<i32>,
}
