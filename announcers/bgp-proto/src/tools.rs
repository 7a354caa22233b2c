//! A decoder of whole UPDATEs, for tools that receive: the sandbox's router, tests, benches. The speaker never calls it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{
    family::Family,
    wire::{
        Context, DecodeError, Disposition, ExtendedCommunity, LargeCommunity, NextHop, Origin, PathAttributes,
        Sections, codes, inspect, next_attribute, path_fits, prefix,
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
    /// What [`inspect`] refuses, and what it would treat as withdrawn. What it discards is not read here either.
    pub fn decode(body: &[u8], as4: bool) -> Result<Self, DecodeError> {
        if inspect(body, &Context { as4, internal: true })? == Disposition::TreatAsWithdraw {
            return Err(DecodeError::UpdateMalformed("path attribute"));
        }
        let sections = Sections::split(body)?;
        let mut update = Self::default();
        prefix::decode_all(Family::Ipv4Unicast, sections.withdrawn, |p| update.withdrawn.push(p))?;
        let mut as4_path = None;
        let mut unreach_family = None;
        let mut octets = sections.attributes;
        let mut attributes = 0_usize;
        let mut seen = [false; 256];
        while !octets.is_empty() {
            let (attribute, rest) = next_attribute(octets).ok_or(DecodeError::UpdateMalformed("attribute length"))?;
            octets = rest;
            attributes += 1;
            if std::mem::replace(&mut seen[usize::from(attribute.code)], true) {
                continue; // the first one counts. Source: RFC 7606 §3 g
            }
            match attribute.code {
                codes::AS4_PATH if as4 || !path_fits(attribute.value, true, false) => {} // RFC 6793 §6
                codes::AS4_PATH => as4_path = Some(as_path(attribute.value, true)?),
                codes::AS_PATH => update.attributes.as_path = as_path(attribute.value, as4)?,
                codes::MP_UNREACH => unreach_family = update.unreach(attribute.value)?,
                code => update.attribute(code, attribute.value)?,
            }
        }
        prefix::decode_all(Family::Ipv4Unicast, sections.nlri, |p| update.reach.push(p))?;
        if let Some(as4_path) = as4_path {
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
    fn what_is_discarded_is_not_read() {
        let decode = |attributes: &[u8], as4| {
            let good = [0x40, 1, 1, 0, 0x40, 3, 4, 1, 2, 3, 4];
            let len = u16::try_from(good.len() + attributes.len()).unwrap().to_be_bytes();
            Update::decode(&[&[0, 0][..], &len, &good, attributes, &[8, 10]].concat(), as4).unwrap().attributes
        };
        let old_path = [0x40, 2, 4, 2, 1, 0x5b, 0xa0];
        let new_path = [0x40, 2, 6, 2, 1, 0, 0, 0x5b, 0xa0];
        let as4_path = [0xc0, 17, 6, 2, 1, 0, 1, 0, 0];
        let broken = [0xc0, 17, 6, 9, 1, 0, 1, 0, 0];
        assert_eq!(decode(&[&old_path[..], &as4_path].concat(), false).as_path, [65_536]);
        assert_eq!(decode(&[&old_path[..], &broken].concat(), false).as_path, [23_456], "malformed");
        assert_eq!(decode(&[&new_path[..], &as4_path].concat(), true).as_path, [23_456], "not from a new speaker");
        let communities = [0xc0, 8, 4, 0, 0, 0, 1, 0xc0, 8, 4, 0, 0, 0, 2];
        assert_eq!(decode(&[&new_path[..], &communities].concat(), true).communities, [1], "the second one");
    }

    #[test]
    fn next_hops_of_both_families_are_read() {
        let (global, link): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap());
        let two = NextHop::V6 { address: global, link_local: Some(link) };
        for (name, family, next_hop, want) in [
            ("RFC 2545", Family::Ipv6Unicast, [global.octets(), link.octets()].concat(), two),
            ("RFC 8950", Family::Ipv4Unicast, [global.octets(), link.octets()].concat(), two),
            ("one", Family::Ipv4Unicast, global.octets().to_vec(), NextHop::V6 { address: global, link_local: None }),
            ("RFC 4760", Family::Ipv4Unicast, vec![192, 0, 2, 1], NextHop::V4(Ipv4Addr::new(192, 0, 2, 1))),
        ] {
            let (afi, safi) = family.wire();
            let len = u8::try_from(next_hop.len()).unwrap();
            let value = [&afi.to_be_bytes()[..], &[safi, len], &next_hop, &[0, 8, 10]].concat();
            let attributes =
                [&[0x80, 14, u8::try_from(value.len()).unwrap()][..], &value, &[0x40, 1, 1, 0, 0x40, 2, 0]].concat();
            let len = u16::try_from(attributes.len()).unwrap().to_be_bytes();
            let update = Update::decode(&[&[0, 0][..], &len, &attributes].concat(), true).unwrap();
            assert_eq!(update.next_hops[family.index()], Some(want), "{name}");
        }
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
