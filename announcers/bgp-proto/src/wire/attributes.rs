//! Path attributes: what is said about a route, encoded once for many prefixes (RFC 4271 §4.3, §5).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AS_TRANS, MESSAGE_LEN_MAX, UPDATE_LEN_MIN, prefix, wire_len};
use crate::family::Family;

/// Attribute type codes.
pub(crate) mod codes {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    /// RFC 5701.
    pub(crate) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
    /// RFC 9234.
    pub(crate) const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Types of an AS_PATH segment. Source: RFC 4271 §4.3, RFC 5065 §3.
pub(super) mod segment {
    pub(in crate::wire) const AS_SET: u8 = 1;
    pub(in crate::wire) const AS_SEQUENCE: u8 = 2;
    pub(in crate::wire) const AS_CONFED_SEQUENCE: u8 = 3;
    pub(in crate::wire) const AS_CONFED_SET: u8 = 4;
}

/// Attribute flags. Source: RFC 4271 §4.3.
pub(super) mod flags {
    pub(in crate::wire) const OPTIONAL: u8 = 0x80;
    pub(in crate::wire) const TRANSITIVE: u8 = 0x40;
    pub(in crate::wire) const EXTENDED_LENGTH: u8 = 0x10;
}

/// Where the route came from. Source: RFC 4271 §5.1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// From inside the AS: what we originate.
    #[default]
    Igp,
    /// From EGP.
    Egp,
    /// By other means.
    Incomplete,
}

/// A large community. Source: RFC 8092 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Who defines it: an AS number.
    pub global: u32,
    /// First part of the meaning.
    pub local1: u32,
    /// Second part of the meaning.
    pub local2: u32,
}

/// Where routes lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// In NEXT_HOP; for IPv4 routes only.
    V4(Ipv4Addr),
    /// In MP_REACH_NLRI; for IPv4 routes too, where both sides sent the extended next hop capability (RFC 8950).
    V6 {
        /// The global address, or the link-local one if there is no other.
        address: Ipv6Addr,
        /// The link-local one beside a global one, if the peer is on the same link. Source: RFC 2545 §3.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address that a receiver looks up: the global one.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match *self {
            Self::V4(ip) => ip.into(),
            Self::V6 { address, .. } => address.into(),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(address) => Self::V6 { address, link_local: None },
        }
    }
}

/// An extended community, as its eight octets stand on the wire. Source: RFC 4360.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// Type of the communities that name a two-octet AS. Source: RFC 4360 §3.1.
const TWO_OCTET_AS: u8 = 0x00;
/// In the type: the community stays inside the AS that receives it. Source: RFC 4360 §2.
const NON_TRANSITIVE: u8 = 0x40;
/// Sub-type of the link bandwidth. Source: RFC 10005.
const LINK_BANDWIDTH: u8 = 0x04;

/// What a link bandwidth community says. Source: RFC 10005.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkBandwidth {
    /// The AS that set it, or [`AS_TRANS`].
    pub asn: u16,
    /// Octets per second; receivers share traffic in the ratio of these.
    pub octets_per_s: f32,
    /// It is passed on to other ASes.
    pub transitive: bool,
}

impl ExtendedCommunity {
    /// A link bandwidth set by `asn`. A rate that is negative or no number is sent as 0, and infinity as the largest number,
    /// since a receiver can do nothing with either. Source: RFC 10005.
    #[must_use]
    pub fn link_bandwidth(asn: u32, octets_per_s: f32, transitive: bool) -> Self {
        let kind = if transitive { TWO_OCTET_AS } else { TWO_OCTET_AS | NON_TRANSITIVE };
        let [high, low] = u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes();
        let sane = if octets_per_s > 0.0 { octets_per_s.min(f32::MAX) } else { 0.0 };
        let [a, b, c, d] = sane.to_be_bytes();
        Self([kind, LINK_BANDWIDTH, high, low, a, b, c, d])
    }

    /// The link bandwidth, if that is what the community says.
    #[must_use]
    pub fn as_link_bandwidth(&self) -> Option<LinkBandwidth> {
        let [kind, LINK_BANDWIDTH, high, low, a, b, c, d] = self.0 else { return None };
        (kind & !NON_TRANSITIVE == TWO_OCTET_AS).then(|| LinkBandwidth {
            asn: u16::from_be_bytes([high, low]),
            octets_per_s: f32::from_be_bytes([a, b, c, d]),
            transitive: kind & NON_TRANSITIVE == 0,
        })
    }
}

/// What is said about a route, apart from its next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH as one AS_SEQUENCE; empty to internal peers.
    pub as_path: Vec<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; to internal peers only.
    pub local_pref: Option<u32>,
    /// Communities (RFC 1997), both halves in one number; sent sorted, each once.
    pub communities: Vec<u32>,
    /// Extended communities (RFC 4360); sent sorted, each once.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Large communities (RFC 8092); sent sorted, each once.
    pub large_communities: Vec<LargeCommunity>,
}

/// The attributes leave no room for a prefix in a message of [`MESSAGE_LEN_MAX`] octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path attributes of {len} octets leave no room for a prefix in a message")]
pub struct TooLarge {
    /// Octets of the attributes.
    pub len: usize,
}

/// One attribute set with its next hop, in octets: encoded once, then put before any number of prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttributeBlock {
    family: Family,
    /// MP_REACH_NLRI as far as its NLRI, without flags, type and length. `None`: the prefixes stand at the UPDATE's end.
    multi_protocol: Option<Vec<u8>>,
    /// The other attributes. RFC 7606 §5.1 wants MP_REACH_NLRI before them.
    attributes: Vec<u8>,
}

/// Octets of MP_REACH_NLRI before its value: flags, type, two octets of length.
const MULTI_PROTOCOL_FRAMING: usize = 4;

impl AttributeBlock {
    /// Encodes `attributes` for routes of `family`. `as4`: the peer understands four-octet AS numbers (RFC 6793).
    ///
    /// # Errors
    /// [`TooLarge`] if no prefix would fit beside them.
    ///
    /// # Panics
    /// IPv6 routes with an IPv4 next hop: BGP cannot say that.
    pub fn new(family: Family, attributes: &PathAttributes, next_hop: NextHop, as4: bool) -> Result<Self, TooLarge> {
        let mut common = Vec::with_capacity(64);
        put(&mut common, flags::TRANSITIVE, codes::ORIGIN, &[attributes.origin as u8]);
        put_as_path(&mut common, &attributes.as_path, as4);
        let multi_protocol = match next_hop {
            NextHop::V4(ip) => {
                assert_eq!(family, Family::Ipv4Unicast, "an IPv6 route with the next hop {ip}");
                put(&mut common, flags::TRANSITIVE, codes::NEXT_HOP, &ip.octets());
                None
            }
            NextHop::V6 { address, link_local } => Some(mp_reach_head(family, address, link_local)),
        };
        if let Some(med) = attributes.med {
            put(&mut common, flags::OPTIONAL, codes::MED, &med.to_be_bytes());
        }
        if let Some(local_pref) = attributes.local_pref {
            put(&mut common, flags::TRANSITIVE, codes::LOCAL_PREF, &local_pref.to_be_bytes());
        }
        put_sets(&mut common, attributes, as4);
        let block = Self { family, multi_protocol, attributes: common };
        if block.room() < prefix::len_max(family) { Err(TooLarge { len: block.len() }) } else { Ok(block) }
    }

    /// The family of the routes that it can describe.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Octets of all attributes, without the prefixes.
    fn len(&self) -> usize {
        self.attributes.len() + self.multi_protocol.as_ref().map_or(0, |head| MULTI_PROTOCOL_FRAMING + head.len())
    }

    /// Octets of NLRI that fit into one message beside the attributes.
    #[must_use]
    pub fn room(&self) -> usize {
        MESSAGE_LEN_MAX.saturating_sub(UPDATE_LEN_MIN + self.len())
    }

    /// Appends the body of an UPDATE that announces `nlri`, which is at most [`AttributeBlock::room`] octets.
    pub(super) fn encode_body(&self, nlri: &[u8], out: &mut bytes::BytesMut) {
        out.extend_from_slice(&[0, 0]); // no withdrawn routes
        match &self.multi_protocol {
            None => {
                out.extend_from_slice(&wire_len(self.len()).to_be_bytes());
                out.extend_from_slice(&self.attributes);
                out.extend_from_slice(nlri);
            }
            Some(head) => {
                out.extend_from_slice(&wire_len(self.len() + nlri.len()).to_be_bytes());
                out.extend_from_slice(&[flags::OPTIONAL | flags::EXTENDED_LENGTH, codes::MP_REACH]);
                out.extend_from_slice(&wire_len(head.len() + nlri.len()).to_be_bytes());
                out.extend_from_slice(head);
                out.extend_from_slice(nlri);
                out.extend_from_slice(&self.attributes);
            }
        }
    }
}

/// MP_REACH_NLRI as far as its NLRI. Source: RFC 4760 §3, RFC 2545 §3, RFC 8950 §3.
fn mp_reach_head(family: Family, address: Ipv6Addr, link_local: Option<Ipv6Addr>) -> Vec<u8> {
    let (afi, safi) = family.wire();
    let mut head = Vec::with_capacity(37);
    head.extend_from_slice(&afi.to_be_bytes());
    head.extend_from_slice(&[safi, if link_local.is_some() { 32 } else { 16 }]);
    head.extend_from_slice(&address.octets());
    if let Some(link_local) = link_local {
        head.extend_from_slice(&link_local.octets());
    }
    head.push(0); // reserved
    head
}

/// Appends one attribute, with extended length where the value needs it.
fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    if let Ok(len) = u8::try_from(value.len()) {
        out.extend_from_slice(&[flags, code, len]);
    } else {
        // Longer than a message is refused by the caller, so that cutting the length here harms nobody.
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&[flags | flags::EXTENDED_LENGTH, code]);
        out.extend_from_slice(&len.to_be_bytes());
    }
    out.extend_from_slice(value);
}

/// Most AS numbers in one segment. Source: RFC 4271 §4.3 (its count is one octet).
const SEGMENT_LEN_MAX: usize = 255;

fn segments(path: &[u32], put_asn: impl Fn(&mut Vec<u8>, u32)) -> Vec<u8> {
    let mut value = Vec::with_capacity(2 + 4 * path.len());
    for chunk in path.chunks(SEGMENT_LEN_MAX) {
        value.extend_from_slice(&[segment::AS_SEQUENCE, u8::try_from(chunk.len()).unwrap_or(u8::MAX)]);
        chunk.iter().for_each(|asn| put_asn(&mut value, *asn));
    }
    value
}

fn segments_as4(path: &[u32]) -> Vec<u8> {
    segments(path, |value, asn| value.extend_from_slice(&asn.to_be_bytes()))
}

fn put_as_path(out: &mut Vec<u8>, path: &[u32], as4: bool) {
    let value = if as4 {
        segments_as4(path)
    } else {
        segments(path, |value, asn| {
            value.extend_from_slice(&u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes());
        })
    };
    put(out, flags::TRANSITIVE, codes::AS_PATH, &value);
}

/// Communities, extended communities, AS4_PATH where a 2-octet peer needs it (RFC 6793 §4.2.2), large communities: in the
/// order of their codes.
fn put_sets(out: &mut Vec<u8>, attributes: &PathAttributes, as4: bool) {
    let mut communities = attributes.communities.clone();
    communities.sort_unstable();
    communities.dedup();
    if !communities.is_empty() {
        let value: Vec<u8> = communities.iter().flat_map(|c| c.to_be_bytes()).collect();
        put(out, flags::OPTIONAL | flags::TRANSITIVE, codes::COMMUNITIES, &value);
    }
    let mut extended = attributes.extended_communities.clone();
    extended.sort_unstable();
    extended.dedup();
    if !extended.is_empty() {
        let value: Vec<u8> = extended.iter().flat_map(|c| c.0).collect();
        put(out, flags::OPTIONAL | flags::TRANSITIVE, codes::EXTENDED_COMMUNITIES, &value);
    }
    if !as4 && attributes.as_path.iter().any(|asn| *asn > u16::MAX.into()) {
        put(out, flags::OPTIONAL | flags::TRANSITIVE, codes::AS4_PATH, &segments_as4(&attributes.as_path));
    }
    let mut large = attributes.large_communities.clone();
    large.sort_unstable();
    large.dedup();
    if !large.is_empty() {
        let value: Vec<u8> =
            large.iter().flat_map(|c| [c.global, c.local1, c.local2]).flat_map(u32::to_be_bytes).collect();
        put(out, flags::OPTIONAL | flags::TRANSITIVE, codes::LARGE_COMMUNITIES, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT_HOP: NextHop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    const V4: Family = Family::Ipv4Unicast;

    #[test]
    fn attributes_are_sorted_and_each_sent_once() {
        let attributes = PathAttributes { communities: vec![9, 1, 9], as_path: vec![64_512], ..Default::default() };
        let block = AttributeBlock::new(V4, &attributes, NEXT_HOP, true).unwrap();
        #[rustfmt::skip]
        let want = [
            0x40, 1, 1, 0,
            0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0,
            0x40, 3, 4, 192, 0, 2, 1,
            0xc0, 8, 8, 0, 0, 0, 1, 0, 0, 0, 9,
        ];
        assert_eq!(block.attributes, want);
    }

    #[test]
    fn old_peers_get_as_trans_and_as4_path() {
        let attributes = PathAttributes { as_path: vec![70_000], ..Default::default() };
        let block = AttributeBlock::new(V4, &attributes, NEXT_HOP, false).unwrap();
        #[rustfmt::skip]
        let want = [
            0x40, 1, 1, 0,
            0x40, 2, 4, 2, 1, 0x5b, 0xa0,
            0x40, 3, 4, 192, 0, 2, 1,
            0xc0, 17, 6, 2, 1, 0, 1, 0x11, 0x70,
        ];
        assert_eq!(block.attributes, want);
    }

    #[test]
    fn paths_longer_than_a_segment_are_split() {
        // 300 prepends to an old peer: 255 and 45 numbers, in AS_PATH and in AS4_PATH
        let attributes = PathAttributes { as_path: vec![70_000; 300], ..Default::default() };
        let old = AttributeBlock::new(V4, &attributes, NEXT_HOP, false).unwrap().attributes;
        let mut path = vec![0x50, 2, 0x02, 0x5c, 2, 255];
        path.extend([0x5b, 0xa0].repeat(255));
        path.extend([2, 45]);
        path.extend([0x5b, 0xa0].repeat(45));
        assert_eq!(old[4..4 + path.len()], path);
        let mut as4_path = vec![0xd0, 17, 0x04, 0xb4, 2, 255];
        as4_path.extend([0, 1, 0x11, 0x70].repeat(255));
        as4_path.extend([2, 45]);
        as4_path.extend([0, 1, 0x11, 0x70].repeat(45));
        assert_eq!(old[4 + path.len() + 7..], as4_path);
        let short = PathAttributes { as_path: vec![65_535, 64_512], ..Default::default() };
        let block = AttributeBlock::new(V4, &short, NEXT_HOP, false).unwrap();
        assert_eq!(block.attributes[4..], [0x40, 2, 6, 2, 2, 0xff, 0xff, 0xfc, 0, 0x40, 3, 4, 192, 0, 2, 1]);
    }

    #[test]
    fn link_bandwidth_is_read_back() {
        for (asn, rate, transitive, want) in [
            (64_512, 125_000_000.0, false, [0x40, 4, 0xfc, 0, 0x4c, 0xee, 0x6b, 0x28]),
            (64_512, 1.0, true, [0x00, 4, 0xfc, 0, 0x3f, 0x80, 0, 0]),
            (70_000, 0.0, true, [0x00, 4, 0x5b, 0xa0, 0, 0, 0, 0]),
            (1, -5.0, true, [0x00, 4, 0, 1, 0, 0, 0, 0]),
            (1, f32::NAN, true, [0x00, 4, 0, 1, 0, 0, 0, 0]),
            (1, f32::INFINITY, true, [0x00, 4, 0, 1, 0x7f, 0x7f, 0xff, 0xff]),
        ] {
            let community = ExtendedCommunity::link_bandwidth(asn, rate, transitive);
            assert_eq!(community.0, want, "{rate}");
            let back = community.as_link_bandwidth().unwrap();
            assert_eq!((back.asn, back.transitive), (u16::try_from(asn).unwrap_or(AS_TRANS), transitive));
            assert_eq!(back.octets_per_s.to_be_bytes(), want[4..]);
        }
        for other in [[0x01, 4, 0, 0, 0, 0, 0, 0], [0x00, 2, 0, 0, 0, 0, 0, 0], [0x80, 4, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(ExtendedCommunity(other).as_link_bandwidth(), None);
        }
    }

    #[test]
    fn attributes_take_all_but_one_prefix_of_a_message() {
        // 1,000 communities and then a path that fills up: 4,096 - 23 - ORIGIN 4 - NEXT_HOP 7 - COMMUNITIES 4,004 = 58
        let communities: Vec<u32> = (0..1_000).collect();
        for (family, next_hop, path, room) in [
            (V4, NEXT_HOP, 12, Some(5)),
            (V4, NEXT_HOP, 13, None),
            // 65 without NEXT_HOP, then MP_REACH_NLRI 25
            (Family::Ipv6Unicast, NextHop::from(IpAddr::V6(Ipv6Addr::LOCALHOST)), 4, Some(19)),
            (Family::Ipv6Unicast, NextHop::from(IpAddr::V6(Ipv6Addr::LOCALHOST)), 5, None),
        ] {
            let attributes =
                PathAttributes { communities: communities.clone(), as_path: vec![1; path], ..Default::default() };
            let got = AttributeBlock::new(family, &attributes, next_hop, true).map(|block| block.room());
            assert_eq!(got.ok(), room, "{family}, {path} hops");
        }
    }

    #[test]
    fn attributes_that_fill_a_message_are_refused() {
        let with = |count: u32| {
            let attributes = PathAttributes { communities: (0..count).collect(), ..Default::default() };
            AttributeBlock::new(V4, &attributes, NEXT_HOP, true)
        };
        assert!(with(500).is_ok(), "500 communities fit, with extended length");
        assert!(with(1_100).is_err());
        assert!(with(100_000).is_err());
    }
}
