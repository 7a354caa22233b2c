//! `BGPPeer`, versions v1beta2 (stored) and v1beta1.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::LabelSelector;

/// A router that Ferrocast's speakers hold a BGP session with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta2",
    kind = "BGPPeer",
    namespaced,
    status = "EmptyStatus",
    derive = "PartialEq",
    doc = "BGPPeer is a router that the speakers hold a BGP session with.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.peerAddress"),
    printcolumn(name = "ASN", type_ = "string", json_path = ".spec.peerASN"),
    printcolumn(name = "BFD Profile", type_ = "string", json_path = ".spec.bfdProfile"),
    printcolumn(name = "Multi Hops", type_ = "string", json_path = ".spec.ebgpMultiHop")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerSpec {
    /// AS number of our end of the session.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub my_asn: i64,
    /// AS number shown to this peer instead of myASN (local-as no-prepend replace-as).
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub local_asn: Option<i64>,
    /// AS number of the peer. Either this or dynamicASN.
    #[serde(default, rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub peer_asn: Option<i64>,
    /// Accept any AS number that is ours (internal) or any that is not (external).
    #[serde(default, rename = "dynamicASN", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["internal", "external"]))]
    pub dynamic_asn: Option<String>,
    /// Address of the peer. Either this or interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// Network interface of the node at whose other end the peer is (unnumbered peering).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Address the session is opened from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// TCP port of the peer.
    #[serde(default = "bgp_port", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_384))]
    pub peer_port: Option<i64>,
    /// Hold time offered, as a duration (90s): 0, or at least 3 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<String>,
    /// Time between keepalives, as a duration (30s), not above the hold time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// Wait between two attempts to connect, as a duration: whole seconds, 1 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("duration(self).getSeconds() >= 1 && duration(self).getSeconds() <= 65535").message("connect time should be between 1 seconds to 65535"))]
    #[x_kube(validation = Rule::new("duration(self).getMilliseconds() % 1000 == 0").message("connect time should contain a whole number of seconds"))]
    pub connect_time: Option<String>,
    /// BGP router ID that we present, in the form of an IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Nodes that hold this session: any selector may match the node's labels. Absent or empty: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// TCP-MD5 password. Either this or passwordSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Secret of type kubernetes.io/basic-auth, in the same namespace, whose key password holds the TCP-MD5 password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,
    /// Name of the BFDProfile for a BFD session beside the BGP session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile: Option<String>,
    /// Ask the peer to keep our routes while the speaker restarts (RFC 4724). Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("EnableGracefulRestart cannot be changed after creation"))]
    pub enable_graceful_restart: Option<bool>,
    /// The peer, of another AS, is more than one hop away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multi_hop: Option<bool>,
    /// Linux VRF that the session belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Deprecated: has no effect.
    #[serde(default, rename = "disableMP", skip_serializing_if = "Option::is_none")]
    pub disable_mp: Option<bool>,
    /// Exchange IPv4 and IPv6 prefixes on this one session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dual_stack_address_family: Option<bool>,
}

fn bgp_port() -> Option<i64> {
    Some(179)
}

/// A reference to a Secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct SecretReference {
    /// Name of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the Secret: that of the BGPPeer, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Nothing is reported here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct EmptyStatus {}

/// The older version; its JSON shape agrees with v1beta2 for every field it has.
pub mod v1beta1 {
    use kube::{CustomResource, KubeSchema};
    use serde::{Deserialize, Serialize};

    use crate::LabelSelector;

    /// A router that Ferrocast's speakers hold a BGP session with.
    #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
    #[kube(
        group = "metallb.io",
        version = "v1beta1",
        kind = "BGPPeer",
        namespaced,
        status = "super::EmptyStatus",
        derive = "PartialEq",
        storage = false,
        deprecated = "v1beta1 is deprecated, please use v1beta2",
        doc = "BGPPeer is a router that the speakers hold a BGP session with.",
        printcolumn(name = "Address", type_ = "string", json_path = ".spec.peerAddress"),
        printcolumn(name = "ASN", type_ = "string", json_path = ".spec.peerASN"),
        printcolumn(name = "BFD Profile", type_ = "string", json_path = ".spec.bfdProfile"),
        printcolumn(name = "Multi Hops", type_ = "string", json_path = ".spec.ebgpMultiHop")
    )]
    #[serde(rename_all = "camelCase")]
    pub struct BGPPeerSpec {
        /// AS number of our end of the session.
        #[serde(rename = "myASN")]
        #[schemars(range(min = 0, max = 4_294_967_295_i64))]
        pub my_asn: i64,
        /// AS number of the peer.
        #[serde(rename = "peerASN")]
        #[schemars(range(min = 0, max = 4_294_967_295_i64))]
        pub peer_asn: i64,
        /// Address of the peer.
        pub peer_address: String,
        /// Address the session is opened from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub source_address: Option<String>,
        /// TCP port of the peer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0, max = 16_384))]
        pub peer_port: Option<i64>,
        /// Hold time offered, as a duration (90s): 0, or at least 3 seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub hold_time: Option<String>,
        /// Time between keepalives, as a duration (30s), not above the hold time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub keepalive_time: Option<String>,
        /// BGP router ID that we present, in the form of an IPv4 address.
        #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
        pub router_id: Option<String>,
        /// Nodes that hold this session: any selector may match the node's labels. Absent or empty: all nodes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub node_selectors: Option<Vec<LabelSelector>>,
        /// TCP-MD5 password.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub password: Option<String>,
        /// Name of the BFDProfile for a BFD session beside the BGP session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bfd_profile: Option<String>,
        /// The peer, of another AS, is more than one hop away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub ebgp_multi_hop: Option<bool>,
    }
}
