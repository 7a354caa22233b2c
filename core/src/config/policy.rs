//! What MetalLB's peers and advertisements cannot say: `BGPPeerPolicy` and `BFDProfile`, as the announcer gets them.
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Password;
use crate::{announce::ExtendedCommunity, model::IpFamily};

/// A BFDProfile in force (`metallb.io/v1beta1`), with MetalLB's defaults. Source: RFC 5880, RFC 5881, RFC 5883.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdProfile {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `receiveInterval`: Required Min RX Interval (300 ms).
    pub receive_interval: Duration,
    /// `transmitInterval`: Desired Min TX Interval (300 ms).
    pub transmit_interval: Duration,
    /// `detectMultiplier` (3).
    pub detect_multiplier: u8,
    /// `echoInterval` where `echoMode` is set (50 ms): Required Min Echo RX Interval, and the interval of our own echoes.
    pub echo_interval: Option<Duration>,
    /// `passiveMode`: wait for the peer's first packet.
    pub passive: bool,
    /// `minimumTtl` (254): lowest TTL of a received packet, multihop only.
    pub minimum_ttl: u8,
}

impl BfdProfile {
    /// A profile of this name with every field absent.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            receive_interval: Duration::from_millis(300),
            transmit_interval: Duration::from_millis(300),
            detect_multiplier: 3,
            echo_interval: None,
            passive: false,
            minimum_ttl: 254,
        }
    }
}

/// Our role towards a peer. Source: RFC 9234 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The peer is our customer.
    Provider,
    /// We are a route server.
    RouteServer,
    /// The peer is a route server.
    RouteServerClient,
    /// The peer is our provider.
    Customer,
    /// Neither.
    Peer,
}

/// How a TCP-AO key signs. Source: RFC 5926.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcpAoAlgorithm {
    /// HMAC-SHA-1-96.
    HmacSha1,
    /// AES-128-CMAC-96.
    AesCmac,
}

/// A TCP-AO master key. Source: RFC 5925 §3.1. Experimental: no kernel that has it was there to test on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAoKey {
    /// KeyID that we send.
    pub send_id: u8,
    /// KeyID that the peer sends.
    pub receive_id: u8,
    /// The algorithm.
    pub algorithm: TcpAoAlgorithm,
    /// The key.
    pub secret: Password,
}

/// Settings of a session beyond MetalLB's, from the `session` part of the BGPPeerPolicies that select the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPolicy {
    /// Wait for the peer to dial instead of dialling it.
    pub passive: bool,
    /// Families offered, never empty; `None`: as the BGPPeer says.
    pub families: Option<BTreeSet<IpFamily>>,
    /// Next hop of IPv4 routes; an IPv6 address needs the peer's extended next hop capability (RFC 8950).
    pub next_hop_v4: Option<IpAddr>,
    /// Next hop of IPv6 routes.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Longest time that the peer may read nothing while something waits (RFC 9687); `None`: twice the hold time.
    pub send_hold_time: Option<Duration>,
    /// Our role (RFC 9234), sent as a capability; `None`: none.
    pub role: Option<Role>,
    /// GTSM (RFC 5082): the peer is at most so many hops away, at least 1; `None`: off.
    pub ttl_security_hops: Option<u8>,
    /// TCP-AO keys (RFC 5925), instead of TCP-MD5; empty: none.
    pub tcp_ao: Vec<TcpAoKey>,
    /// TCP-AO keys are asked for but could not be read: the peer must not be dialled; the text says why.
    pub tcp_ao_missing: Option<String>,
}

/// The weight that a link bandwidth community expresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weight {
    /// This node's ready endpoints: [`Announcement::weight`](crate::announce::Announcement::weight).
    Endpoints,
    /// Always this.
    Fixed(u32),
}

/// Link bandwidth as weight of a node's routes. Source: RFC 10005.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkBandwidth {
    /// Octets per second that one unit of weight counts as, above zero.
    pub unit_octets_s: u64,
    /// What is counted.
    pub weight: Weight,
    /// Send the transitive form (type 0x00) instead of the non-transitive one (0x40), which many external peers drop.
    pub transitive: bool,
}

/// What is said about routes beyond MetalLB's advertisement, from the `routes` part of one BGPPeerPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePolicy {
    /// Names of the BGPAdvertisements it applies to; `None`: all.
    pub advertisements: Option<BTreeSet<Arc<str>>>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Our AS number so many times more in front of the AS path.
    pub as_path_prepend: u8,
    /// Extended communities to attach.
    pub extended_communities: BTreeSet<ExtendedCommunity>,
    /// Link bandwidth to attach, to routes that have a weight.
    pub link_bandwidth: Option<LinkBandwidth>,
}
