//! `BGPPeerPolicy` (`ferrocast.io`).
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::LabelSelector;

/// What MetalLB's BGPPeers and BGPAdvertisements cannot say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ferrocast.io",
    version = "v1alpha1",
    kind = "BGPPeerPolicy",
    plural = "bgppeerpolicies",
    namespaced,
    derive = "PartialEq",
    doc = "BGPPeerPolicy says of BGPPeers and BGPAdvertisements what MetalLB's resources cannot say: settings of the sessions, attributes of the routes. Where two policies set one value of one peer differently, the older stays.",
    printcolumn(name = "Peers", type_ = "string", json_path = ".spec.peers"),
    printcolumn(name = "Peer Selectors", type_ = "string", json_path = ".spec.peerSelectors", priority = "10"),
    printcolumn(name = "Advertisements", type_ = "string", json_path = ".spec.advertisements"),
    printcolumn(name = "MED", type_ = "integer", json_path = ".spec.routes.med"),
    printcolumn(name = "Weight", type_ = "string", json_path = ".spec.routes.linkBandwidth.weight"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("!has(self.session) || ((!has(self.advertisements) || size(self.advertisements) == 0) && (!has(self.advertisementSelectors) || size(self.advertisementSelectors) == 0))").message("a session carries every advertisement: put session and routes of single advertisements into two policies"))]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerPolicySpec {
    /// Names of the BGPPeers that the policy is for. With neither this nor peerSelectors: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub peers: Option<Vec<String>>,
    /// Selectors for the labels (metadata.labels) of the BGPPeers that the policy is for; any may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub peer_selectors: Option<Vec<LabelSelector>>,
    /// Names of the BGPAdvertisements that routes is about. With neither this nor advertisementSelectors: all. Not
    /// together with session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub advertisements: Option<Vec<String>>,
    /// Selectors for the labels (metadata.labels) of the BGPAdvertisements that routes is about; any may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub advertisement_selectors: Option<Vec<LabelSelector>>,
    /// Settings of the BGP session. A change of them resets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPolicy>,
    /// Attributes of the routes sent. A change of them resets nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RoutesPolicy>,
}

/// Settings of a BGP session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicy {
    /// Wait for the peer to dial, on TCP port 179, instead of dialling it. The speakers need the capability
    /// NET_BIND_SERVICE for that. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// Address families offered on the session: IPv4, IPv6 or both. Absent: as the BGPPeer says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), inner(regex(pattern = "^IPv[46]$")))]
    pub families: Option<Vec<String>>,
    /// Next hop of IPv4 routes, instead of the node's own address: an IPv4 address, or an IPv6 address if the peer takes
    /// those (RFC 8950). The same for every node that holds the session.
    #[serde(default, rename = "nextHopIPv4", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub next_hop_v4: Option<String>,
    /// Next hop of IPv6 routes, instead of the node's own address. The same for every node that holds the session.
    #[serde(default, rename = "nextHopIPv6", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub next_hop_v6: Option<String>,
    /// How long the peer may read nothing while something waits for it, as a duration (8m): whole seconds, 1 to 65535; then the
    /// session is closed (RFC 9687). Absent: twice the hold time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub send_hold_time: Option<String>,
    /// What we are to the peer, told to it when the session opens (RFC 9234): Customer, Provider, Peer, RouteServer or
    /// RouteServerClient. A peer that takes itself for something that does not fit refuses the session. Absent: not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Customer", "Provider", "Peer", "RouteServer", "RouteServerClient"]))]
    pub role: Option<String>,
    /// Drop packets of peers that are more than so many hops away (GTSM, RFC 5082). The peer must send with a TTL of 255.
    /// Not together with ebgpMultiHop of the BGPPeer. Absent: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security_hops: Option<i64>,
    /// Experimental: authenticate the connection by TCP-AO (RFC 5925) instead of the BGPPeer's password. The nodes' kernel
    /// must have it (Linux 6.7, CONFIG_TCP_AO).
    #[serde(default, rename = "tcpAO", skip_serializing_if = "Option::is_none")]
    pub tcp_ao: Option<TcpAo>,
}

/// TCP-AO keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct TcpAo {
    /// The keys. The first is sent with until the peer asks for another.
    #[schemars(length(min = 1, max = 16))]
    pub keys: Vec<TcpAoKey>,
}

/// One TCP-AO master key tuple.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct TcpAoKey {
    /// KeyID in what we send; each key has another.
    #[serde(rename = "sendID")]
    #[schemars(range(min = 0, max = 255))]
    pub send_id: i64,
    /// KeyID in what the peer sends; each key has another.
    #[serde(rename = "receiveID")]
    #[schemars(range(min = 0, max = 255))]
    pub receive_id: i64,
    /// How messages are signed (RFC 5926): HMAC-SHA-1-96 or AES-128-CMAC-96. Absent: HMAC-SHA-1-96.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["HMAC-SHA-1-96", "AES-128-CMAC-96"]))]
    pub algorithm: Option<String>,
    /// Secret of type kubernetes.io/basic-auth, in the same namespace, whose key password holds the key: at most 80
    /// octets.
    pub secret: KeySecret,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct KeySecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Attributes of routes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutesPolicy {
    /// MULTI_EXIT_DISC: among routes of one neighbouring AS, routers prefer the lowest. Absent: not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub med: Option<i64>,
    /// Our AS number so many times more in front of the AS path: routers prefer shorter paths. Peers of our own AS get an
    /// empty path all the same. 0 or absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub as_path_prepend: Option<i64>,
    /// Extended communities to attach: route targets (rt:64512:100, rt:192.0.2.1:100), route origins (soo:64512:100), or
    /// any other as 0x and 16 hexadecimal digits. Those of several policies add up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub extended_communities: Option<Vec<String>>,
    /// Tell routers how much of the traffic this node is to get (link bandwidth, RFC 10005), for those that spread traffic
    /// by weight. Absent: not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_bandwidth: Option<LinkBandwidth>,
}

/// The link bandwidth that a node's routes carry: weight times unit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("(has(self.weight) && self.weight == 'Fixed') == has(self.value)").message("value goes with weight: Fixed, and with that only"))]
pub struct LinkBandwidth {
    /// Bandwidth that one unit of weight counts as: a whole number and bps, kbps, Mbps, Gbps or Tbps (bits per second,
    /// powers of 1000), at most 1000Tbps. Only the ratio between nodes matters to most routers. Absent: 100Mbps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{1,15}[kMGT]?bps$"))]
    pub unit: Option<String>,
    /// What is counted. Endpoints: the node's serving endpoints of Services with externalTrafficPolicy: Local, rounded to
    /// powers of the square root of two (1, 2, 3, 4, 6, 8, 11, 16 …); routes of other Services carry none. Fixed: always
    /// value. Absent: Endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Endpoints", "Fixed"]))]
    pub weight: Option<String>,
    /// The weight, where weight is Fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub value: Option<i64>,
    /// Send the transitive form, which reaches beyond the neighbouring AS, instead of the usual one, which many external
    /// peers drop. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transitive: Option<bool>,
    /// A route's weight changes at most once in this time, a duration from 1s to 1h; the shortest of all policies counts. Absent: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub interval: Option<String>,
}
