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
#[derive(Debug)]
pub struct WithdrawPacker {
    family: Family,
    nlri: Vec<u8>,
}

impl WithdrawPacker {
    /// An empty one.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self { family, nlri: Vec::new() }
    }

    fn room(&self) -> usize {
        let framing = match self.family {
            Family::Ipv4Unicast => 0,
            Family::Ipv6Unicast => 7, // flags, type, two octets of length, AFI, SAFI
        };
        MESSAGE_LEN_MAX - UPDATE_LEN_MIN - framing
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
        write_withdrawn(self.family, &self.nlri, out);
        self.nlri.clear();
        true
    }
}

fn write_withdrawn(family: Family, nlri: &[u8], out: &mut BytesMut) {
    let start = begin(out, Kind::Update);
    match family {
        Family::Ipv4Unicast => {
            out.put_u16(wire_len(nlri.len()));
            out.extend_from_slice(nlri);
            out.put_u16(0); // no attributes
        }
        Family::Ipv6Unicast => {
            let (afi, safi) = family.wire();
            let mp_len = 3 + nlri.len();
            // End-of-RIB is written as everybody writes it: with a length of one octet
            let extended = mp_len > usize::from(u8::MAX);
            out.put_u16(0); // no withdrawn IPv4 routes
            out.put_u16(wire_len(mp_len + if extended { 4 } else { 3 }));
            if extended {
                out.extend_from_slice(&[flags::OPTIONAL | flags::EXTENDED_LENGTH, codes::MP_UNREACH]);
                out.put_u16(wire_len(mp_len));
            } else {
                out.extend_from_slice(&[flags::OPTIONAL, codes::MP_UNREACH]);
                out.put_u8(u8::try_from(mp_len).unwrap_or(u8::MAX));
            }
            out.put_u16(afi);
            out.put_u8(safi);
            out.extend_from_slice(nlri);
        }
    }
    finish(out, start);
}

/// Appends the End-of-RIB marker of `family`: an UPDATE that withdraws nothing. Source: RFC 4724 §2.
pub fn end_of_rib(family: Family, out: &mut BytesMut) {
    write_withdrawn(family, &[], out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        tools,
        wire::{Message, PathAttributes},
    };
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    type Prefix = fn(u32) -> IpNet;

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

    fn announce(count: u32, next_hop: IpAddr, prefix: fn(u32) -> IpNet) -> BytesMut {
        let attributes =
            PathAttributes { as_path: vec![64_512], communities: vec![64_512 << 16 | 100], ..Default::default() };
        let mut packer = ReachPacker::new(Arc::new(
            AttributeBlock::new(Family::of(next_hop), &attributes, next_hop.into(), true).unwrap(),
        ));
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
            let out = announce(count, Ipv4Addr::LOCALHOST.into(), v4);
            let (lens, updates) = read(&out);
            assert_eq!(lens.len(), messages, "{count}");
            assert!(out.len() <= octets_max, "{count}: {} octets", out.len());
            let prefixes: Vec<_> = updates.iter().flat_map(|u| &u.reach).copied().collect();
            assert_eq!(prefixes, (0..count).map(v4).collect::<Vec<_>>());
            assert!(updates.iter().all(|u| u.attributes.communities == [64_512 << 16 | 100]));
        }
    }

    #[test]
    fn ipv6_goes_into_mp_reach() {
        let out = announce(10_000, Ipv6Addr::LOCALHOST.into(), v6);
        let (lens, updates) = read(&out);
        assert_eq!(lens.len(), 43);
        assert!(
            updates.iter().all(|u| u.next_hop(&v6(0)) == Some(Ipv6Addr::LOCALHOST.into()) && u.next_hops[0].is_none())
        );
        assert_eq!(updates.iter().map(|u| u.reach.len()).sum::<usize>(), 10_000);
    }

    #[test]
    fn withdrawals_are_split_at_the_limit() {
        let cases: [(u32, Prefix, &[usize]); 9] = [
            (0, v4, &[]),
            (813, v4, &[4_088]),
            (814, v4, &[4_093]),
            (815, v4, &[4_093, 28]),
            (10_000, v4, &[4_093; 13]),
            (14, v6, &[23 + 6 + 14 * 17]),
            (238, v6, &[23 + 7 + 238 * 17]),
            (239, v6, &[23 + 7 + 239 * 17]),
            (240, v6, &[23 + 7 + 239 * 17, 23 + 6 + 17]),
        ];
        for (count, prefix, want) in cases {
            let mut packer = WithdrawPacker::new(Family::of_prefix(&prefix(0)));
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
