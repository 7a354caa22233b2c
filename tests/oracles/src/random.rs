//! Messages at random: the same ones for the same seed.
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use bytes::BytesMut;
use ferrocast_bgp_proto::{
    Families, Family,
    wire::{
        AttributeBlock, Capability, ExtendedCommunity, GracefulRestart, LargeCommunity, Message, NextHop, Notification,
        Open, Origin, PathAttributes, RESTART_TIME_MAX_S, ReachPacker, Role, RouteRefresh, WithdrawPacker, end_of_rib,
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::meaning::Session;

/// A generator of random numbers (SplitMix64): small, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.u64() % end as u64).unwrap_or(0)
    }

    /// Half of the time.
    pub fn flip(&mut self) -> bool {
        self.u64() & 1 == 1
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn u16(&mut self) -> u16 {
        self.u64() as u16
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn u8(&mut self) -> u8 {
        self.u64() as u8
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.u8()).collect()
    }
}

/// Families that every decoder knows by name.
const FAMILIES: [(u16, u8); 5] = [(1, 1), (2, 1), (1, 2), (1, 128), (2, 128)];

/// Any capability that Ferrocast can send.
pub fn capability(random: &mut Random) -> Capability {
    match random.below(8) {
        0 => Capability::RouteRefresh,
        1 => Capability::EnhancedRouteRefresh,
        2 => Capability::FourOctetAs(random.u32().max(1)),
        3 => Capability::ipv4_over_ipv6(),
        4 => Capability::Role(random.one(&[
            Role::Provider,
            Role::RouteServer,
            Role::RouteServerClient,
            Role::Customer,
            Role::Peer,
        ])),
        5 => Capability::GracefulRestart(GracefulRestart {
            restarting: random.flip(),
            notification: random.flip(),
            restart_time_s: random.u16() & RESTART_TIME_MAX_S,
            families: (0..random.below(4))
                .map(|_| (random.one(&FAMILIES), random.flip()))
                .map(|((afi, safi), forwarding)| (afi, safi, forwarding))
                .collect(),
        }),
        6 => {
            // For experiments (RFC 8810): nobody gives them a meaning.
            let len = random.below(60);
            Capability::Unknown { code: 239 + u8::try_from(random.below(16)).unwrap_or(0), value: random.octets(len) }
        }
        _ => {
            let (afi, safi) = random.one(&FAMILIES);
            Capability::MultiProtocol(afi, safi)
        }
    }
}

fn open(random: &mut Random) -> Open {
    let hold_time_s = random.one(&[0, 3, 9, 90, 180, u16::MAX]);
    // A unicast address: one decoder still asks for that, although RFC 6286 takes any number but zero.
    let id = unicast(random);
    if random.flip() {
        // As it is sent by default.
        return Open::new(random.u32().max(1), hold_time_s, id, Families::ALL);
    }
    let mut capabilities: Vec<_> = (0..random.below(12)).map(|_| capability(random)).collect();
    if random.below(4) == 0 {
        // More than 255 octets: the extended format (RFC 9072).
        let len = 128 + random.below(127);
        capabilities.resize(capabilities.len() + 2, Capability::Unknown { code: 240, value: random.octets(len) });
    }
    Open { as2: random.u16().max(1), hold_time_s, id, capabilities }
}

fn notification(random: &mut Random) -> Notification {
    let len = random.below(30);
    match random.below(10) {
        0 => Notification::hold_timer_expired(),
        1 => Notification::fsm_error(random.one(&[1, 2, 3])),
        2 => Notification::bad_peer_as(),
        3 => Notification::bad_bgp_identifier(),
        4 => Notification::send_hold_timer_expired(),
        5 => Notification::shutdown("node worker-3 is drained"),
        6 => Notification::reset("ein neuer Schlüssel"),
        7 => Notification::collision(),
        8 => Notification { code: 3, subcode: random.one(&[1, 2, 3, 4, 5, 6, 8, 9, 10, 11]), data: random.octets(len) },
        _ => Notification { code: 1, subcode: random.one(&[1, 2, 3]), data: random.octets(len) },
    }
}

fn refresh(random: &mut Random) -> RouteRefresh {
    RouteRefresh::new(random.one(&Family::ALL), random.one(&[0, RouteRefresh::BEGIN, RouteRefresh::END]))
}

fn unicast(random: &mut Random) -> Ipv4Addr {
    let first = u32::try_from(1 + random.below(222)).unwrap_or(1);
    Ipv4Addr::from_bits(first << 24 | random.u32() >> 8)
}

/// A unicast prefix of any length.
pub fn prefix(family: Family, random: &mut Random) -> IpNet {
    match family {
        Family::Ipv4Unicast => {
            let address = unicast(random);
            let bits = if random.flip() { 32 } else { 1 + random.u8() % 32 };
            Ipv4Net::new_assert(address, bits).trunc().into()
        }
        Family::Ipv6Unicast => {
            let address =
                Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(random.u64()) << 32 | u128::from(random.u64()));
            let bits = if random.flip() { 128 } else { 4 + random.u8() % 125 };
            Ipv6Net::new_assert(address, bits).trunc().into()
        }
    }
}

fn extended_community(random: &mut Random) -> ExtendedCommunity {
    let [a, b, c, d] = random.u32().to_be_bytes();
    let [e, f] = random.u16().to_be_bytes();
    match random.below(6) {
        0 => ExtendedCommunity::link_bandwidth(random.u32(), f32::from(random.u16()) * 1e6, random.flip()),
        1 => ExtendedCommunity([0x00, 0x02, a, b, c, d, e, f]), // route target of a two-octet AS
        2 => ExtendedCommunity([0x01, 0x02, a, b, c, d, e, f]), // of an address
        3 => ExtendedCommunity([0x02, 0x02, a, b, c, d, e, f]), // of a four-octet AS
        4 => ExtendedCommunity([0x00, 0x03, a, b, c, d, e, f]), // site of origin
        _ => ExtendedCommunity([0x43, 0x7f, a, b, c, d, e, f]), // opaque, not transitive
    }
}

/// What may be said about a route.
pub fn attributes(random: &mut Random) -> PathAttributes {
    let prepends = if random.below(10) == 0 { 250 + random.below(20) } else { random.below(6) };
    let wide = random.flip();
    let number = |random: &mut Random| if wide { random.u32().max(1) } else { u32::from(random.u16().max(1)) };
    let many = if random.below(10) == 0 { 200 } else { 6 };
    PathAttributes {
        origin: random.one(&[Origin::Igp, Origin::Egp, Origin::Incomplete]),
        as_path: (0..prepends).map(|_| number(random)).collect(),
        med: random.flip().then(|| random.u32()),
        local_pref: random.flip().then(|| random.u32()),
        communities: (0..random.below(many)).map(|_| random.u32()).collect(),
        extended_communities: (0..random.below(6)).map(|_| extended_community(random)).collect(),
        large_communities: (0..random.below(6))
            .map(|_| LargeCommunity { global: random.u32(), local1: random.u32(), local2: random.u32() })
            .collect(),
    }
}

/// A next hop for routes of `family`.
pub fn next_hop(family: Family, random: &mut Random) -> NextHop {
    if family == Family::Ipv4Unicast && random.flip() {
        let last = u8::try_from(1 + random.below(254)).unwrap_or(1);
        return NextHop::V4(Ipv4Addr::new(192, 0, 2, last));
    }
    let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(random.u64()) << 1 | 1);
    let link_local = random.flip().then(|| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(random.u64() | 1)));
    NextHop::V6 { address, link_local }
}

/// UPDATEs that announce or withdraw some prefixes, or say that there are no more.
fn updates(random: &mut Random, session: Session, out: &mut BytesMut) {
    let family = random.one(&Family::ALL);
    let count = if random.below(10) == 0 { 1_000 } else { 1 + random.below(20) };
    let prefixes: Vec<_> = (0..count).map(|_| prefix(family, random)).collect();
    match random.below(6) {
        0 => end_of_rib(family, out),
        1 | 2 => {
            let mut packer =
                if random.flip() { WithdrawPacker::multi_protocol(family) } else { WithdrawPacker::new(family) };
            prefixes.iter().for_each(|prefix| _ = packer.push(prefix, out));
            packer.flush(out);
        }
        _ => {
            let (attributes, next_hop) = (attributes(random), next_hop(family, random));
            if let Ok(block) = AttributeBlock::new(family, &attributes, next_hop, session.as4) {
                let mut packer = ReachPacker::new(Arc::new(block));
                prefixes.iter().for_each(|prefix| _ = packer.push(prefix, out));
                packer.flush(out);
            }
        }
    }
}

/// One or more whole messages of Ferrocast's encoder, each by itself.
pub fn messages(random: &mut Random) -> (Session, Vec<Vec<u8>>) {
    let session = Session { as4: random.below(4) != 0 };
    let mut out = BytesMut::new();
    match random.below(8) {
        0 => Message::Open(open(random)).encode(&mut out),
        1 => Message::Notification(notification(random)).encode(&mut out),
        2 => Message::RouteRefresh(refresh(random)).encode(&mut out),
        3 if random.below(4) == 0 => Message::Keepalive.encode(&mut out),
        _ => updates(random, session, &mut out),
    }
    let mut messages = vec![];
    while !out.is_empty() {
        let len = usize::from(u16::from_be_bytes([out[16], out[17]]));
        messages.push(out.split_to(len).to_vec());
    }
    (session, messages)
}
