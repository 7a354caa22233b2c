//! A decoder of whole UPDATEs, for tools that receive: the sandbox's router, tests, benches. The speaker never calls it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{
    family::Family,
    wire::{
        DecodeError, ExtendedCommunity, LargeCommunity, NextHop, Origin, PathAttributes, Sections, codes,
        next_attribute, prefix,
    },
};

/// What one UPDATE says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes of either family that are withdrawn.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes of either family that are announced.
    pub reach: Vec<IpNet>,
    /// Next hops of the prefixes, by [`Family::ALL`].
    pub next_hops: [Option<NextHop>; Family::ALL.len()],
    /// What is said about the announced prefixes.
    pub attributes: PathAttributes,
    /// This is the End-of-RIB marker of that family. Source: RFC 4724 §2.
    pub end_of_rib: Option<Family>,
}

impl Update {
    /// Reads what follows the header of an UPDATE. `as4`: AS numbers are four octets long (RFC 6793).
    ///
    /// # Errors
    /// Anything at all is malformed. (A speaker would be more lenient: see [`crate::wire::inspect`].)
    pub fn decode(body: &[u8], as4: bool) -> Result<Self, DecodeError> {
        let sections = Sections::split(body)?;
        let mut update = Self::default();
        prefix::decode_all(Family::Ipv4Unicast, sections.withdrawn, |p| update.withdrawn.push(p))?;
        let mut as4_path = None;
        let mut unreach_family = None;
        let mut octets = sections.attributes;
        let mut attributes = 0_usize;
        while !octets.is_empty() {
            let (attribute, rest) = next_attribute(octets).ok_or(DecodeError::UpdateMalformed("attribute length"))?;
            attributes += 1;
            match attribute.code {
                codes::AS4_PATH => as4_path = Some(as_path(attribute.value, true)?),
                codes::AS_PATH => update.attributes.as_path = as_path(attribute.value, as4)?,
                codes::MP_UNREACH => unreach_family = update.unreach(attribute.value)?,
                code => update.attribute(code, attribute.value)?,
            }
            octets = rest;
        }
        prefix::decode_all(Family::Ipv4Unicast, sections.nlri, |p| update.reach.push(p))?;
        if let (false, Some(as4_path)) = (as4, as4_path) {
            update.attributes.as_path = merge(&update.attributes.as_path, &as4_path);
        }
        if update.withdrawn.is_empty() && update.reach.is_empty() {
            update.end_of_rib = match (attributes, unreach_family) {
                (0, _) => Some(Family::Ipv4Unicast),
                (1, family) => family,
                _ => None,
            };
        }
        Ok(update)
    }

    /// The next hop of `prefix`, if this UPDATE announced it.
    #[must_use]
    pub fn next_hop(&self, prefix: &IpNet) -> Option<IpAddr> {
        self.next_hops[Family::of_prefix(prefix).index()].map(|next_hop| next_hop.address())
    }

    fn attribute(&mut self, code: u8, value: &[u8]) -> Result<(), DecodeError> {
        match (code, value) {
            (codes::ORIGIN, [0]) => self.attributes.origin = Origin::Igp,
            (codes::ORIGIN, [1]) => self.attributes.origin = Origin::Egp,
            (codes::ORIGIN, [2]) => self.attributes.origin = Origin::Incomplete,
            (codes::NEXT_HOP, &[a, b, c, d]) => self.next_hops[0] = Some(NextHop::V4(Ipv4Addr::new(a, b, c, d))),
            (codes::MED, &[a, b, c, d]) => self.attributes.med = Some(u32::from_be_bytes([a, b, c, d])),
            (codes::LOCAL_PREF, &[a, b, c, d]) => self.attributes.local_pref = Some(u32::from_be_bytes([a, b, c, d])),
            (codes::COMMUNITIES, value) => self.attributes.communities = numbers(value)?,
            (codes::EXTENDED_COMMUNITIES, value) => {
                let (chunks, rest) = value.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(DecodeError::UpdateMalformed("extended communities"));
                }
                self.attributes.extended_communities = chunks.iter().map(|c| ExtendedCommunity(*c)).collect();
            }
            (codes::LARGE_COMMUNITIES, value) => {
                let numbers = numbers(value)?;
                if !numbers.len().is_multiple_of(3) {
                    return Err(DecodeError::UpdateMalformed("large communities"));
                }
                self.attributes.large_communities = numbers
                    .chunks_exact(3)
                    .map(|c| LargeCommunity { global: c[0], local1: c[1], local2: c[2] })
                    .collect();
            }
            (codes::MP_REACH, value) => self.reach(value)?,
            (codes::ORIGIN | codes::NEXT_HOP | codes::MED | codes::LOCAL_PREF, _) => {
                return Err(DecodeError::UpdateMalformed("attribute value"));
            }
            _ => {} // of no interest here
        }
        Ok(())
    }

    /// MP_REACH_NLRI; a 32-octet next hop has a link-local address behind the global one (RFC 2545 §3).
    fn reach(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let malformed = DecodeError::UpdateMalformed("MP_REACH_NLRI");
        let (&[a, b, safi, next_hop_len], rest) = value.split_first_chunk::<4>().ok_or(malformed)?;
        let Some(family) = Family::from_wire(u16::from_be_bytes([a, b]), safi) else { return Ok(()) };
        let (next_hop, rest) = rest.split_at_checked(next_hop_len.into()).ok_or(malformed)?;
        let (_reserved, nlri) = rest.split_first().ok_or(malformed)?;
        let address = |octets: &[u8]| octets.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
        self.next_hops[family.index()] = match (next_hop, next_hop.len()) {
            (&[a, b, c, d], _) if family == Family::Ipv4Unicast => Some(NextHop::V4(Ipv4Addr::new(a, b, c, d))),
            (octets, 16) => address(octets).map(|address| NextHop::V6 { address, link_local: None }),
            (octets, 32) => {
                address(octets).map(|first| NextHop::V6 { address: first, link_local: address(&octets[16..]) })
            }
            _ => return Err(malformed),
        };
        prefix::decode_all(family, nlri, |p| self.reach.push(p))
    }

    fn unreach(&mut self, value: &[u8]) -> Result<Option<Family>, DecodeError> {
        let malformed = DecodeError::UpdateMalformed("MP_UNREACH_NLRI");
        let (&[a, b, safi], nlri) = value.split_first_chunk::<3>().ok_or(malformed)?;
        let Some(family) = Family::from_wire(u16::from_be_bytes([a, b]), safi) else { return Ok(None) };
        prefix::decode_all(family, nlri, |p| self.withdrawn.push(p))?;
        Ok(Some(family))
    }
}

fn numbers(value: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let (chunks, rest) = value.as_chunks::<4>();
    if rest.is_empty() {
        Ok(chunks.iter().map(|c| u32::from_be_bytes(*c)).collect())
    } else {
        Err(DecodeError::UpdateMalformed("communities"))
    }
}

/// The AS numbers of all segments in their order (sets are not told apart from sequences: a tool shows them alike).
fn as_path(mut value: &[u8], as4: bool) -> Result<Vec<u32>, DecodeError> {
    let malformed = DecodeError::UpdateMalformed("AS_PATH");
    let mut path = vec![];
    while let Some((&[_kind, count], rest)) = value.split_first_chunk::<2>() {
        let size = if as4 { 4 } else { 2 };
        let (octets, rest) = rest.split_at_checked(usize::from(count) * size).ok_or(malformed)?;
        path.extend(octets.chunks_exact(size).map(|asn| asn.iter().fold(0, |n, octet| n << 8 | u32::from(*octet))));
        value = rest;
    }
    if value.is_empty() { Ok(path) } else { Err(malformed) }
}

/// The true path of a 2-octet session: what AS4_PATH says, behind those that were prepended since. Source: RFC 6793 §4.2.3.
fn merge(path: &[u32], as4_path: &[u32]) -> Vec<u32> {
    match path.len().checked_sub(as4_path.len()) {
        Some(prepended) => [&path[..prepended], as4_path].concat(),
        None => path.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as4_path_is_merged_behind_what_was_prepended() {
        assert_eq!(merge(&[1, 23_456], &[70_000]), [1, 70_000]);
        assert_eq!(merge(&[1], &[70_000, 70_001]), [1], "an AS4_PATH that is longer is ignored");
    }

    #[test]
    fn malformed_updates_are_refused() {
        for body in [
            &[0, 0, 0, 3, 0x40, 1, 9][..],
            &[0, 0, 0, 5, 0x40, 1, 2, 0, 0],
            &[0, 0, 0, 5, 0x40, 2, 2, 2, 1],
            &[0, 0, 0, 4, 0xc0, 8, 1, 0],
            &[0, 0, 0, 6, 0x80, 14, 3, 0, 2, 1],
        ] {
            assert!(Update::decode(body, true).is_err(), "{body:?}");
        }
    }
}
