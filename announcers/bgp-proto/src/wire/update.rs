//! UPDATE, packed: as many prefixes of one attribute set into one message as it holds (RFC 4271 §4.3, RFC 4760).
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use ipnet::IpNet;

use super::{
    AttributeBlock, Kind, MESSAGE_LEN_MAX, UPDATE_LEN_MIN,
    attributes::{codes, flags},
    begin, finish, prefix, wire_len,
};
use crate::family::Family;

/// Collects prefixes that share one attribute set and writes a full UPDATE whenever the next one would not fit.
///
/// Holds at most one message; nothing is allocated per prefix.
#[derive(Debug)]
pub struct ReachPacker {
    block: Arc<AttributeBlock>,
    nlri: Vec<u8>,
}

impl ReachPacker {
    /// An empty one for `block`.
    #[must_use]
    pub fn new(block: Arc<AttributeBlock>) -> Self {
        Self { nlri: Vec::with_capacity(block.room().min(NLRI_LEN_START)), block }
    }

    /// Adds a prefix of the block's family; writes the message before it to `out` if that is full, and says so.
    pub fn push(&mut self, prefix: &IpNet, out: &mut BytesMut) -> bool {
        debug_assert_eq!(Family::of_prefix(prefix), self.block.family(), "{prefix} of another family");
        let wrote = self.nlri.len() + prefix::len(prefix) > self.block.room() && self.flush(out);
        prefix::encode(prefix, &mut self.nlri);
        wrote
    }

    /// Writes what was collected, if anything; was there something?
    pub fn flush(&mut self, out: &mut BytesMut) -> bool {
        if self.nlri.is_empty() {
            return false;
        }
        let start = begin(out, Kind::Update);
        self.block.encode_body(&self.nlri, out);
        finish(out, start);
        self.nlri.clear();
        true
    }
}

/// First capacity of a packer, octets: most changes are of one Service.
const NLRI_LEN_START: usize = 64;

/// Collects prefixes of one family that are withdrawn and writes a full UPDATE whenever the next one would not fit.
///
/// Holds at most one message; nothing is allocated per prefix.
#[derive(Debug)]
pub struct WithdrawPacker {
    family: Family,
    /// In MP_UNREACH_NLRI, not in the UPDATE's own field.
    multi_protocol: bool,
    nlri: Vec<u8>,
}

/// Octets of MP_UNREACH_NLRI before its prefixes: flags, type, two octets of length, AFI, SAFI. Source: RFC 4760 §4.
const MP_UNREACH_FRAMING: usize = 7;

impl WithdrawPacker {
    /// An empty one. IPv4 prefixes go into the UPDATE's own field, IPv6 prefixes into MP_UNREACH_NLRI.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self { family, multi_protocol: family != Family::Ipv4Unicast, nlri: Vec::new() }
    }

    /// An empty one whose prefixes go into MP_UNREACH_NLRI, IPv4 too: for sessions on which those are announced in
    /// MP_REACH_NLRI, with IPv6 next hops (RFC 8950).
    #[must_use]
    pub fn multi_protocol(family: Family) -> Self {
        Self { family, multi_protocol: true, nlri: Vec::new() }
    }

    fn room(&self) -> usize {
        MESSAGE_LEN_MAX - UPDATE_LEN_MIN - if self.multi_protocol { MP_UNREACH_FRAMING } else { 0 }
    }

    /// Adds a prefix of the family; writes the message before it to `out` if that is full, and says so.
    pub fn push(&mut self, prefix: &IpNet, out: &mut BytesMut) -> bool {
        debug_assert_eq!(Family::of_prefix(prefix), self.family, "{prefix} of another family");
        let wrote = self.nlri.len() + prefix::len(prefix) > self.room() && self.flush(out);
        prefix::encode(prefix, &mut self.nlri);
        wrote
    }

    /// Writes what was collected, if anything; was there something?
    pub fn flush(&mut self, out: &mut BytesMut) -> bool {
        if self.nlri.is_empty() {
            return false;
        }
        if self.multi_protocol {
            write_mp_unreach(self.family, &self.nlri, out);
        } else {
            write_withdrawn(&self.nlri, out);
        }
        self.nlri.clear();
        true
    }
}

fn write_withdrawn(nlri: &[u8], out: &mut BytesMut) {
    let start = begin(out, Kind::Update);
    out.put_u16(wire_len(nlri.len()));
    out.extend_from_slice(nlri);
    out.put_u16(0); // no attributes
    finish(out, start);
}

fn write_mp_unreach(family: Family, nlri: &[u8], out: &mut BytesMut) {
    let start = begin(out, Kind::Update);
    let (afi, safi) = family.wire();
    let mp_len = 3 + nlri.len();
    out.put_u16(0); // no withdrawn IPv4 routes
    // End-of-RIB is written as everybody writes it: with a length of one octet
    if let Ok(short) = u8::try_from(mp_len) {
        out.put_u16(wire_len(mp_len + 3));
        out.extend_from_slice(&[flags::OPTIONAL, codes::MP_UNREACH, short]);
    } else {
        out.put_u16(wire_len(mp_len + 4));
        out.extend_from_slice(&[flags::OPTIONAL | flags::EXTENDED_LENGTH, codes::MP_UNREACH]);
        out.put_u16(wire_len(mp_len));
    }
    out.put_u16(afi);
    out.put_u8(safi);
    out.extend_from_slice(nlri);
    finish(out, start);
}

/// Appends the End-of-RIB marker of `family`: an UPDATE that withdraws nothing. For IPv4 that is the empty UPDATE, wherever
/// its routes were announced. Source: RFC 4724 §2.
pub fn end_of_rib(family: Family, out: &mut BytesMut) {
    match family {
        Family::Ipv4Unicast => write_withdrawn(&[], out),
        Family::Ipv6Unicast => write_mp_unreach(family, &[], out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        tools,
        wire::{Message, NextHop, PathAttributes},
    };
    use std::net::{Ipv4Addr, Ipv6Addr};

    type Prefix = fn(u32) -> IpNet;
    type Next = fn(Family) -> WithdrawPacker;

    const V6_NEXT_HOP: NextHop = NextHop::V6 { address: Ipv6Addr::LOCALHOST, link_local: None };
    const V6_NEXT_HOPS: NextHop =
        NextHop::V6 { address: Ipv6Addr::LOCALHOST, link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)) };

    fn v4(i: u32) -> IpNet {
        IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + i).into(), 32).unwrap()
    }

    fn v6(i: u32) -> IpNet {
        IpNet::new(Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(i)).into(), 128).unwrap()
    }

    /// Lengths of the messages in `octets`, and what they say.
    fn read(mut octets: &[u8]) -> (Vec<usize>, Vec<tools::Update>) {
        let (mut lens, mut updates) = (vec![], vec![]);
        while let Some((message, len)) = Message::decode(octets).unwrap() {
            let Message::Update(body) = message else { panic!("{message:?}") };
            lens.push(len);
            updates.push(tools::Update::decode(body, true).unwrap());
            octets = &octets[len..];
        }
        assert!(octets.is_empty());
        (lens, updates)
    }

    fn attributes() -> PathAttributes {
        PathAttributes { as_path: vec![64_512], communities: vec![64_512 << 16 | 100], ..Default::default() }
    }

    fn announce(count: u32, next_hop: NextHop, prefix: Prefix) -> BytesMut {
        let family = Family::of_prefix(&prefix(0));
        let block = AttributeBlock::new(family, &attributes(), next_hop, true).unwrap();
        let mut packer = ReachPacker::new(Arc::new(block));
        let mut out = BytesMut::new();
        for i in 0..count {
            packer.push(&prefix(i), &mut out);
        }
        packer.flush(&mut out);
        out
    }

    #[test]
    fn announcements_are_packed_to_the_limit() {
        for (count, messages, octets_max) in [(1, 1, 55), (809, 1, 4_095), (810, 2, 4_150), (10_000, 13, 51_156)] {
            let out = announce(count, NextHop::V4(Ipv4Addr::LOCALHOST), v4);
            let (lens, updates) = read(&out);
            assert_eq!(lens.len(), messages, "{count}");
            assert!(out.len() <= octets_max, "{count}: {} octets", out.len());
            let prefixes: Vec<_> = updates.iter().flat_map(|u| &u.reach).copied().collect();
            assert_eq!(prefixes, (0..count).map(v4).collect::<Vec<_>>());
            assert!(updates.iter().all(|u| u.attributes.communities == [64_512 << 16 | 100]));
        }
    }

    #[test]
    fn announcements_are_split_at_the_limit() {
        // header and two section lengths, then ORIGIN 4, AS_PATH 9, NEXT_HOP 7, COMMUNITIES 7
        const V4: usize = 23 + 27;
        // MP_REACH_NLRI instead of NEXT_HOP: 4 of framing, AFI, SAFI, length, next hop, reserved
        const MP: usize = 23 + 20 + 4 + 3 + 1 + 16 + 1;
        const MP_TWO: usize = MP + 16;
        let v4_next_hop = NextHop::V4(Ipv4Addr::LOCALHOST);
        let cases: [(u32, NextHop, Prefix, &[usize]); 12] = [
            (808, v4_next_hop, v4, &[V4 + 808 * 5]),
            (809, v4_next_hop, v4, &[V4 + 809 * 5]),
            (810, v4_next_hop, v4, &[V4 + 809 * 5, V4 + 5]),
            (804, V6_NEXT_HOP, v4, &[MP + 804 * 5]),
            (805, V6_NEXT_HOP, v4, &[MP + 805 * 5]),
            (806, V6_NEXT_HOP, v4, &[MP + 805 * 5, MP + 5]),
            (802, V6_NEXT_HOPS, v4, &[MP_TWO + 802 * 5]),
            (803, V6_NEXT_HOPS, v4, &[MP_TWO + 802 * 5, MP_TWO + 5]),
            (236, V6_NEXT_HOP, v6, &[MP + 236 * 17]),
            (237, V6_NEXT_HOP, v6, &[MP + 236 * 17, MP + 17]),
            (236, V6_NEXT_HOPS, v6, &[MESSAGE_LEN_MAX]),
            (237, V6_NEXT_HOPS, v6, &[MESSAGE_LEN_MAX, MP_TWO + 17]),
        ];
        for (count, next_hop, prefix, want) in cases {
            let (lens, updates) = read(&announce(count, next_hop, prefix));
            assert_eq!(lens, want, "{count} over {next_hop:?}");
            let family = Family::of_prefix(&prefix(0));
            assert!(updates.iter().all(|u| u.next_hops[family.index()] == Some(next_hop)), "{count} over {next_hop:?}");
            let prefixes: Vec<_> = updates.iter().flat_map(|u| &u.reach).copied().collect();
            assert_eq!(prefixes, (0..count).map(prefix).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_message_is_filled_to_the_last_octet() {
        // a longer path leaves room for whole prefixes exactly: 4,096 - 23 - 27 - 4 n is a multiple of 5 at n = 4
        let attributes = PathAttributes { as_path: vec![64_512; 5], ..attributes() };
        let next_hop = NextHop::V4(Ipv4Addr::LOCALHOST);
        let block = Arc::new(AttributeBlock::new(Family::Ipv4Unicast, &attributes, next_hop, true).unwrap());
        assert_eq!(block.room(), 806 * 5);
        let mut packer = ReachPacker::new(block);
        let mut out = BytesMut::new();
        assert!((0..806).all(|i| !packer.push(&v4(i), &mut out)));
        assert!(packer.push(&v4(806), &mut out));
        assert_eq!(out.len(), MESSAGE_LEN_MAX);
    }

    #[test]
    fn ipv6_goes_into_mp_reach() {
        let out = announce(10_000, V6_NEXT_HOP, v6);
        let (lens, updates) = read(&out);
        assert_eq!(lens.len(), 43);
        assert!(
            updates.iter().all(|u| u.next_hop(&v6(0)) == Some(Ipv6Addr::LOCALHOST.into()) && u.next_hops[0].is_none())
        );
        assert_eq!(updates.iter().map(|u| u.reach.len()).sum::<usize>(), 10_000);
    }

    #[test]
    fn withdrawals_are_split_at_the_limit() {
        let (own, mp): (Next, Next) = (WithdrawPacker::new, WithdrawPacker::multi_protocol);
        let cases: [(u32, Next, Prefix, &[usize]); 13] = [
            (0, own, v4, &[]),
            (813, own, v4, &[4_088]),
            (814, own, v4, &[4_093]),
            (815, own, v4, &[4_093, 28]),
            (10_000, own, v4, &[4_093; 13]),
            (50, mp, v4, &[23 + 6 + 50 * 5]),
            (51, mp, v4, &[23 + 7 + 51 * 5]),
            (813, mp, v4, &[23 + 7 + 813 * 5]),
            (814, mp, v4, &[23 + 7 + 813 * 5, 23 + 6 + 5]),
            (14, own, v6, &[23 + 6 + 14 * 17]),
            (238, mp, v6, &[23 + 7 + 238 * 17]),
            (239, own, v6, &[23 + 7 + 239 * 17]),
            (240, own, v6, &[23 + 7 + 239 * 17, 23 + 6 + 17]),
        ];
        for (count, packer, prefix, want) in cases {
            let mut packer = packer(Family::of_prefix(&prefix(0)));
            let mut out = BytesMut::new();
            for i in 0..count {
                packer.push(&prefix(i), &mut out);
            }
            packer.flush(&mut out);
            let (lens, updates) = read(&out);
            if count == 10_000 {
                assert_eq!(lens.len(), want.len());
            } else {
                assert_eq!(lens, want, "{count}");
            }
            let withdrawn: Vec<_> = updates.iter().flat_map(|u| &u.withdrawn).copied().collect();
            assert_eq!(withdrawn, (0..count).map(prefix).collect::<Vec<_>>());
        }
    }

    #[test]
    fn end_of_rib_is_recognised() {
        for (family, len) in [(Family::Ipv4Unicast, 23), (Family::Ipv6Unicast, 29)] {
            let mut out = BytesMut::new();
            end_of_rib(family, &mut out);
            assert_eq!(out.len(), len);
            assert_eq!(read(&out).1[0].end_of_rib, Some(family));
        }
    }
}
