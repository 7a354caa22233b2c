//! What a speaker that imports nothing does with an UPDATE: checks its frame, counts it, forgets it (RFC 7606).
use std::net::Ipv4Addr;

use super::{
    DecodeError,
    attributes::{codes, flags, segment},
    prefix,
};
use crate::family::Family;

/// What RFC 7606 makes of an UPDATE that does not end the session; the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disposition {
    /// Nothing wrong with it.
    Valid,
    /// An attribute would be dropped and the rest used.
    AttributeDiscard,
    /// The routes would be treated as withdrawn.
    TreatAsWithdraw,
}

impl Disposition {
    /// As metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::AttributeDiscard => "attribute_discard",
            Self::TreatAsWithdraw => "treat_as_withdraw",
        }
    }
}

/// What of the session an UPDATE's check depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// AS numbers are four octets long: both sides sent that capability (RFC 6793).
    pub as4: bool,
    /// The peer is in our AS.
    pub internal: bool,
}

impl Default for Context {
    /// An external peer with four-octet AS numbers.
    fn default() -> Self {
        Self { as4: true, internal: false }
    }
}

/// The three sections of an UPDATE.
pub(crate) struct Sections<'a> {
    pub(crate) withdrawn: &'a [u8],
    pub(crate) attributes: &'a [u8],
    pub(crate) nlri: &'a [u8],
}

impl<'a> Sections<'a> {
    /// Splits what follows the header of an UPDATE. Source: RFC 4271 §6.3.
    pub(crate) fn split(body: &'a [u8]) -> Result<Self, DecodeError> {
        let (withdrawn, rest) = section(body).ok_or(DecodeError::UpdateMalformed("withdrawn routes length"))?;
        let (attributes, nlri) = section(rest).ok_or(DecodeError::UpdateMalformed("total path attribute length"))?;
        Ok(Self { withdrawn, attributes, nlri })
    }
}

fn section(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

/// One attribute.
pub(crate) struct Attribute<'a> {
    pub(crate) flags: u8,
    pub(crate) code: u8,
    pub(crate) value: &'a [u8],
}

/// Takes one attribute off the front; `None`: it does not fit what is left.
pub(crate) fn next_attribute(octets: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (&[flags, code], rest) = octets.split_first_chunk::<2>()?;
    let (len, rest) = if flags & flags::EXTENDED_LENGTH == 0 {
        let (len, rest) = rest.split_first()?;
        (u16::from(*len), rest)
    } else {
        let (len, rest) = rest.split_first_chunk::<2>()?;
        (u16::from_be_bytes(*len), rest)
    };
    let (value, rest) = rest.split_at_checked(len.into())?;
    Some((Attribute { flags, code, value }, rest))
}

/// Checks the body of a received UPDATE and says what RFC 7606 makes of it. Stores nothing, allocates nothing.
///
/// # Errors
/// The session must be reset: the sections or the prefixes cannot be told apart, a multiprotocol attribute is not what it
/// must be or stands there twice, or an attribute is broken where no announced prefix shows that the rest was read aright.
/// Source: RFC 7606 §3 b, g, i and j, §5.2, §5.3, §7.11.
pub fn inspect(body: &[u8], context: &Context) -> Result<Disposition, DecodeError> {
    let sections = Sections::split(body)?;
    prefix::check_all(Family::Ipv4Unicast, sections.withdrawn)?;
    prefix::check_all(Family::Ipv4Unicast, sections.nlri)?;
    let mut worst = Disposition::Valid;
    let mut seen = [false; 256];
    let mut reach = !sections.nlri.is_empty();
    let mut octets = sections.attributes;
    // an attribute other than MP_UNREACH_NLRI, or what may have been meant as one
    let mut others = false;
    while !octets.is_empty() {
        let Some((attribute, rest)) = next_attribute(octets) else {
            if matches!(octets, [_, codes::MP_REACH | codes::MP_UNREACH, ..]) {
                return Err(DecodeError::MultiProtocol("it overruns the attributes")); // its prefixes are lost: §3 j
            }
            (worst, others) = (Disposition::TreatAsWithdraw, true); // RFC 7606 §4
            break;
        };
        octets = rest;
        let repeated = std::mem::replace(&mut seen[usize::from(attribute.code)], true);
        match attribute.code {
            codes::MP_REACH | codes::MP_UNREACH if repeated => {
                return Err(DecodeError::UpdateMalformed("multiprotocol attribute twice"));
            }
            codes::MP_REACH => {
                others = true;
                reach |= check_mp_reach(&attribute)?;
            }
            codes::MP_UNREACH => check_mp_unreach(&attribute)?,
            _ => {
                others = true;
                // RFC 7606 §3 g: the first one counts
                let fault = if repeated { Disposition::AttributeDiscard } else { check(&attribute, context) };
                worst = worst.max(fault);
            }
        }
    }
    let complete = seen[usize::from(codes::ORIGIN)]
        && seen[usize::from(codes::AS_PATH)]
        && (sections.nlri.is_empty() || seen[usize::from(codes::NEXT_HOP)]);
    if reach && !complete {
        worst = Disposition::TreatAsWithdraw; // RFC 7606 §3 d
    }
    if worst == Disposition::TreatAsWithdraw && others && !reach {
        return Err(DecodeError::UpdateMalformed("broken attribute without announced prefixes")); // RFC 7606 §5.2
    }
    Ok(worst)
}

/// One attribute by itself, apart from the multiprotocol ones.
fn check(attribute: &Attribute<'_>, context: &Context) -> Disposition {
    let known = known(attribute.code);
    if known.is_some_and(|known| known.internal_only) && !context.internal {
        return Disposition::AttributeDiscard; // whatever its value. Source: RFC 7606 §7.5, §7.9, §7.10
    }
    // Of the well-known attributes RFC 4271 §6.3 resets for the mandatory ones alone, and those we do know.
    let kind = attribute.flags & (flags::OPTIONAL | flags::TRANSITIVE);
    if known.map_or(kind & flags::OPTIONAL == 0, |known| known.kind != kind) {
        Disposition::TreatAsWithdraw // whatever the attribute. Source: RFC 7606 §3 c
    } else if value_fits(attribute.code, attribute.value, context) {
        Disposition::Valid
    } else {
        known.map_or(Disposition::TreatAsWithdraw, |known| known.fault)
    }
}

/// What is required of an attribute beside its value.
#[derive(Clone, Copy)]
struct Known {
    /// Its optional and transitive flags. Source: RFC 7606 §3 c.
    kind: u8,
    /// What a fault in its value makes of the UPDATE.
    fault: Disposition,
    /// From an external peer it is dropped.
    internal_only: bool,
}

/// Optional and transitive flags of the four kinds of attribute. Source: RFC 4271 §5.
const WELL_KNOWN: u8 = flags::TRANSITIVE;
const OPTIONAL_TRANSITIVE: u8 = flags::OPTIONAL | flags::TRANSITIVE;
const OPTIONAL: u8 = flags::OPTIONAL;

/// Source: RFC 7606 §3 e and f, §7; RFC 6793 §6; RFC 8092 §6; RFC 9234 §5.
fn known(code: u8) -> Option<Known> {
    use Disposition::{AttributeDiscard, TreatAsWithdraw};
    let (kind, fault, internal_only) = match code {
        codes::ORIGIN | codes::AS_PATH | codes::NEXT_HOP => (WELL_KNOWN, TreatAsWithdraw, false),
        codes::LOCAL_PREF => (WELL_KNOWN, TreatAsWithdraw, true),
        codes::ATOMIC_AGGREGATE => (WELL_KNOWN, AttributeDiscard, false),
        codes::MED => (OPTIONAL, TreatAsWithdraw, false),
        codes::ORIGINATOR_ID | codes::CLUSTER_LIST => (OPTIONAL, TreatAsWithdraw, true),
        codes::AGGREGATOR | codes::AS4_PATH | codes::AS4_AGGREGATOR => (OPTIONAL_TRANSITIVE, AttributeDiscard, false),
        codes::COMMUNITIES
        | codes::EXTENDED_COMMUNITIES
        | codes::IPV6_EXTENDED_COMMUNITIES
        | codes::LARGE_COMMUNITIES
        | codes::ONLY_TO_CUSTOMER => (OPTIONAL_TRANSITIVE, TreatAsWithdraw, false),
        _ => return None,
    };
    Some(Known { kind, fault, internal_only })
}

/// Is the value one that the attribute may have? Those that we do not know may have any. Source: RFC 7606 §7, RFC 7607 §2.
fn value_fits(code: u8, value: &[u8], context: &Context) -> bool {
    let filled_with = |size: usize| !value.is_empty() && value.len().is_multiple_of(size);
    match code {
        codes::ORIGIN => matches!(value, [0..=2]),
        codes::AS_PATH => path_fits(value, context.as4, context.internal),
        codes::NEXT_HOP => next_hop_fits(value),
        codes::MED | codes::LOCAL_PREF | codes::ORIGINATOR_ID | codes::ONLY_TO_CUSTOMER => value.len() == 4,
        codes::ATOMIC_AGGREGATE => value.is_empty(),
        codes::AGGREGATOR => aggregator_fits(value, context.as4),
        codes::AS4_AGGREGATOR => !context.as4 && aggregator_fits(value, true),
        codes::COMMUNITIES | codes::CLUSTER_LIST => filled_with(4),
        codes::EXTENDED_COMMUNITIES => filled_with(8),
        codes::IPV6_EXTENDED_COMMUNITIES => filled_with(20),
        codes::LARGE_COMMUNITIES => filled_with(12),
        // RFC 6793 §4.1 and §6: never between speakers of four-octet numbers, never empty, never of confederations
        codes::AS4_PATH => !context.as4 && !value.is_empty() && path_fits(value, true, false),
        _ => true,
    }
}

/// Can it be the address of a host? Source: RFC 4271 §6.3, RFC 7606 §3 e and §7.3.
fn next_hop_fits(value: &[u8]) -> bool {
    <[u8; 4]>::try_from(value)
        .map(Ipv4Addr::from)
        .is_ok_and(|ip| !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()))
}

/// AS number and address; AS 0 is no AS.
fn aggregator_fits(value: &[u8], as4: bool) -> bool {
    let asn_len = if as4 { 4 } else { 2 };
    value.len() == asn_len + 4 && value[..asn_len].iter().any(|octet| *octet != 0)
}

/// Segments of known types, none empty, none cut short, none with AS 0. Segments of a confederation come from inside it
/// only (RFC 5065 §5). AS_SET is read, although RFC 9774 retires it: nothing is aggregated or chosen here.
pub(crate) fn path_fits(mut value: &[u8], as4: bool, confederation: bool) -> bool {
    let size = if as4 { 4 } else { 2 };
    while let Some((&[kind, count], rest)) = value.split_first_chunk::<2>() {
        let known = match kind {
            segment::AS_SET | segment::AS_SEQUENCE => true,
            segment::AS_CONFED_SEQUENCE | segment::AS_CONFED_SET => confederation,
            _ => false,
        };
        let Some((asns, rest)) = rest.split_at_checked(usize::from(count) * size) else { return false };
        if !known || asns.is_empty() || asns.chunks_exact(size).any(|asn| asn.iter().all(|octet| *octet == 0)) {
            return false;
        }
        value = rest;
    }
    value.is_empty()
}

/// Fewest octets of MP_REACH_NLRI and MP_UNREACH_NLRI. Source: RFC 7606 §5.3.
const MP_REACH_LEN_MIN: usize = 5;
const MP_UNREACH_LEN_MIN: usize = 3;

/// Does it announce anything? Source: RFC 7606 §5.3 and §7.11.
fn check_mp_reach(attribute: &Attribute<'_>) -> Result<bool, DecodeError> {
    check_mp_flags(attribute)?;
    let malformed = || DecodeError::MultiProtocol("MP_REACH_NLRI is cut short");
    if attribute.value.len() < MP_REACH_LEN_MIN {
        return Err(malformed());
    }
    let (&[a, b, safi, next_hop_len], rest) = attribute.value.split_first_chunk::<4>().ok_or_else(malformed)?;
    let nlri = rest.get(usize::from(next_hop_len) + 1..).ok_or_else(malformed)?; // behind a reserved octet
    if let Some(family) = Family::from_wire(u16::from_be_bytes([a, b]), safi) {
        // RFC 4760 §3; RFC 2545 §3: one or two addresses; RFC 8950 §3: these for IPv4 routes too
        let expected = matches!((family, next_hop_len), (Family::Ipv4Unicast, 4) | (_, 16 | 32));
        if !expected {
            return Err(DecodeError::MultiProtocol("MP_REACH_NLRI has a next hop of another length"));
        }
        prefix::check_all(family, nlri)?;
    }
    Ok(!nlri.is_empty())
}

fn check_mp_unreach(attribute: &Attribute<'_>) -> Result<(), DecodeError> {
    check_mp_flags(attribute)?;
    let malformed = DecodeError::MultiProtocol("MP_UNREACH_NLRI is cut short");
    let (&[a, b, safi], nlri) = attribute.value.split_first_chunk::<MP_UNREACH_LEN_MIN>().ok_or(malformed)?;
    // Prefixes of families that we do not know are not looked at: they were not negotiated. Source: RFC 4760 §7.
    Family::from_wire(u16::from_be_bytes([a, b]), safi).map_or(Ok(()), |family| prefix::check_all(family, nlri))
}

fn check_mp_flags(attribute: &Attribute<'_>) -> Result<(), DecodeError> {
    if attribute.flags & (flags::OPTIONAL | flags::TRANSITIVE) == OPTIONAL {
        Ok(())
    } else {
        Err(DecodeError::MultiProtocol("its flags are not those of an optional non-transitive attribute"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An UPDATE body of these sections.
    fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
        let attributes = attributes.concat();
        let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
        body.extend(withdrawn);
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend(nlri);
        body
    }

    const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
    const AS_PATH: &[u8] = &[0x40, 2, 0];
    const NEXT_HOP: &[u8] = &[0x40, 3, 4, 1, 2, 3, 4];
    const GOOD: [&[u8]; 3] = [ORIGIN, AS_PATH, NEXT_HOP];
    const UNREACH: &[u8] = &[0x80, 15, 3, 0, 2, 1];
    /// One IPv4 prefix, so that a fault does not reset the session (RFC 7606 §5.2).
    const NLRI: &[u8] = &[8, 10];

    type Outcome = Result<Disposition, (u8, u8)>;

    fn outcome(body: &[u8], context: &Context) -> Outcome {
        inspect(body, context).map_err(|e| (e.notification().code, e.notification().subcode))
    }

    #[test]
    fn updates_get_the_disposition_of_rfc_7606() {
        use Disposition as D;
        let mp_reach = |value: &[u8]| [&[0x80, 14, u8::try_from(value.len()).unwrap()], value].concat();
        let reach_v6 = mp_reach(&[&[0, 2, 1, 16][..], &[1; 16], &[0, 8, 0xfd]].concat());
        let reach_nothing = mp_reach(&[&[0, 2, 1, 16][..], &[1; 16], &[0]].concat());
        let reach_link_local = mp_reach(&[&[0, 2, 1, 32][..], &[1; 32], &[0, 8, 0xfd]].concat());
        let reach_v4_over_v6 = mp_reach(&[&[0, 1, 1, 16][..], &[1; 16], &[0, 8, 10]].concat());
        let reach_v4 = mp_reach(&[0, 1, 1, 4, 1, 2, 3, 4, 0, 8, 10]);
        let reach_odd_next_hop = mp_reach(&[&[0, 2, 1, 4][..], &[1; 4], &[0, 8, 0xfd]].concat());
        let reach_bad_prefix = mp_reach(&[&[0, 1, 1, 16][..], &[1; 16], &[0, 33, 1, 2, 3, 4, 5]].concat());
        let reach_unknown = mp_reach(&[0, 99, 1, 0, 0, 129]);
        let mut reach_transitive = reach_v6.clone();
        reach_transitive[0] = 0xc0;
        for (name, body, want) in [
            ("empty", body(&[], &[], &[]), Ok(D::Valid)),
            ("announcement", body(&[], &GOOD, NLRI), Ok(D::Valid)),
            ("withdrawal", body(NLRI, &[], &[]), Ok(D::Valid)),
            ("End-of-RIB", body(&[], &[UNREACH], &[]), Ok(D::Valid)),
            ("no next hop", body(&[], &[ORIGIN, AS_PATH], NLRI), Ok(D::TreatAsWithdraw)),
            ("no origin", body(&[], &[AS_PATH, NEXT_HOP], NLRI), Ok(D::TreatAsWithdraw)),
            ("no path", body(&[], &[&reach_v6, ORIGIN], &[]), Ok(D::TreatAsWithdraw)),
            ("IPv6", body(&[], &[&reach_v6, ORIGIN, AS_PATH], &[]), Ok(D::Valid)),
            ("two IPv6 next hops", body(&[], &[&reach_link_local, ORIGIN, AS_PATH], &[]), Ok(D::Valid)),
            ("IPv4 over IPv6", body(&[], &[&reach_v4_over_v6, ORIGIN, AS_PATH], &[]), Ok(D::Valid)),
            ("IPv4 in MP_REACH", body(&[], &[&reach_v4, ORIGIN, AS_PATH], &[]), Ok(D::Valid)),
            ("MP_REACH without prefixes", body(&[], &[&reach_nothing], &[]), Ok(D::Valid)),
            ("unknown family is not read", body(&[], &[&reach_unknown, ORIGIN, AS_PATH], &[]), Ok(D::Valid)),
            ("IPv6 with a next hop of 4", body(&[], &[&reach_odd_next_hop, ORIGIN, AS_PATH], &[]), Err((3, 9))),
            ("transitive MP_REACH", body(&[], &[&reach_transitive, ORIGIN, AS_PATH], &[]), Err((3, 9))),
            ("MP_REACH of 4 octets", body(&[], &[&mp_reach(&[0, 2, 1, 0])], &[]), Err((3, 9))),
            ("MP_REACH cut short", body(&[], &[&mp_reach(&[0, 2, 1, 16, 0])], &[]), Err((3, 9))),
            ("MP_REACH twice", body(&[], &[&reach_v6, &reach_v6], &[]), Err((3, 1))),
            ("IPv4 prefix of 33 bits in MP_REACH", body(&[], &[&reach_bad_prefix], &[]), Err((3, 10))),
            ("MP_UNREACH twice", body(&[], &[UNREACH, UNREACH], &[]), Err((3, 1))),
            ("MP_UNREACH of 2 octets", body(&[], &[&[0x80, 15, 2, 0, 2]], &[]), Err((3, 9))),
            ("transitive MP_UNREACH", body(&[], &[&[0xc0, 15, 3, 0, 2, 1]], &[]), Err((3, 9))),
            ("IPv6 prefix of 129 bits", body(&[], &[&[0x80, 15, 4, 0, 2, 1, 129]], &[]), Err((3, 10))),
            ("unknown family is not read", body(&[], &[&[0x80, 15, 4, 0, 99, 1, 129]], &[]), Ok(D::Valid)),
            ("attribute overruns", body(&[], &[ORIGIN, &[0x40, 2, 9, 0]], NLRI), Ok(D::TreatAsWithdraw)),
            ("attribute of two octets", body(&[], &[ORIGIN, &[0x40, 2]], NLRI), Ok(D::TreatAsWithdraw)),
            ("MP_UNREACH of one octet", body(&[], &[ORIGIN, &[0x80, 15]], NLRI), Err((3, 9))),
            ("the same without prefixes", body(&[], &[ORIGIN, &[0x40, 2]], &[]), Err((3, 1))),
            ("fault in a withdrawal", body(NLRI, &[&[0x40, 1, 1, 3]], &[]), Err((3, 1))),
            ("fault beside MP_UNREACH", body(&[], &[UNREACH, &[0x40, 1, 1, 3]], &[]), Err((3, 1))),
            ("discard beside MP_UNREACH", body(&[], &[UNREACH, ORIGIN, ORIGIN], &[]), Ok(D::AttributeDiscard)),
            ("withdrawal beside an announcement", body(NLRI, &GOOD, NLRI), Ok(D::Valid)),
            ("prefix of 33 bits", body(&[], &GOOD, &[33, 1, 2, 3, 4, 5]), Err((3, 10))),
            ("prefix cut short", body(&[], &GOOD, &[24, 1]), Err((3, 10))),
            ("withdrawn prefix cut short", body(&[24, 1], &[], &[]), Err((3, 10))),
            ("withdrawn length overruns", vec![0, 9, 0, 0], Err((3, 1))),
            ("attribute length overruns", vec![0, 0, 0, 9], Err((3, 1))),
            ("no lengths", vec![0], Err((3, 1))),
        ] {
            assert_eq!(outcome(&body, &Context::default()), want, "{name}");
        }
    }

    const OLD: Context = Context { as4: false, internal: false };
    const NEW: Context = Context { as4: true, internal: false };
    const INTERNAL: Context = Context { as4: true, internal: true };

    /// What one more attribute makes of a good announcement; a mandatory one stands in for the good one.
    fn with(attribute: &[u8], context: &Context) -> Outcome {
        let mut attributes: Vec<&[u8]> = GOOD.into_iter().filter(|good| good[1] != attribute[1]).collect();
        attributes.push(attribute);
        outcome(&body(&[], &attributes, NLRI), context)
    }

    use Disposition::{AttributeDiscard as Discard, TreatAsWithdraw as Withdraw, Valid};

    /// One more attribute, and what it makes of a good announcement.
    #[rustfmt::skip]
    const ATTRIBUTES: &[(&str, Context, &[u8], Disposition)] = &[
        ("origin of two octets", NEW, &[0x40, 1, 2, 0, 0], Withdraw),
        ("empty origin", NEW, &[0x40, 1, 0], Withdraw),
        ("origin 3", NEW, &[0x40, 1, 1, 3], Withdraw),
        ("optional origin", NEW, &[0xc0, 1, 1, 0], Withdraw),
        ("partial origin", NEW, &[0x60, 1, 1, 0], Valid),
        ("extended length", NEW, &[0x50, 1, 0, 1, 0], Valid),
        ("path", NEW, &[0x40, 2, 6, 2, 1, 0, 0, 0, 1], Valid),
        ("path of two-octet numbers", OLD, &[0x40, 2, 4, 2, 1, 0, 1], Valid),
        ("path of the other length", OLD, &[0x40, 2, 6, 2, 1, 0, 0, 0, 1], Withdraw),
        ("path overruns", NEW, &[0x40, 2, 4, 2, 1, 0, 1], Withdraw),
        ("one octet behind the path", NEW, &[0x40, 2, 7, 2, 1, 0, 0, 0, 1, 2], Withdraw),
        ("empty segment", NEW, &[0x40, 2, 2, 2, 0], Withdraw),
        ("segment type 0", NEW, &[0x40, 2, 6, 0, 1, 0, 0, 0, 1], Withdraw),
        ("segment type 5", NEW, &[0x40, 2, 6, 5, 1, 0, 0, 0, 1], Withdraw),
        ("AS_SET", NEW, &[0x40, 2, 6, 1, 1, 0, 0, 0, 1], Valid),
        ("confederation outside", NEW, &[0x40, 2, 6, 3, 1, 0, 0, 0, 1], Withdraw),
        ("confederation inside", INTERNAL, &[0x40, 2, 6, 4, 1, 0, 0, 0, 1], Valid),
        ("AS 0 in the path", NEW, &[0x40, 2, 10, 2, 2, 0, 0, 0, 1, 0, 0, 0, 0], Withdraw),
        ("next hop of 5 octets", NEW, &[0x40, 3, 5, 1, 2, 3, 4, 5], Withdraw),
        ("next hop 0.0.0.0", NEW, &[0x40, 3, 4, 0, 0, 0, 0], Withdraw),
        ("next hop 224.0.0.1", NEW, &[0x40, 3, 4, 224, 0, 0, 1], Withdraw),
        ("optional next hop", NEW, &[0x80, 3, 4, 1, 2, 3, 4], Withdraw),
        ("MED", NEW, &[0x80, 4, 4, 0, 0, 0, 0], Valid),
        ("MED of 3 octets", NEW, &[0x80, 4, 3, 0, 0, 0], Withdraw),
        ("transitive MED", NEW, &[0xc0, 4, 4, 0, 0, 0, 0], Withdraw),
        ("LOCAL_PREF", INTERNAL, &[0x40, 5, 4, 0, 0, 0, 1], Valid),
        ("LOCAL_PREF of 3 octets", INTERNAL, &[0x40, 5, 3, 0, 0, 0], Withdraw),
        ("LOCAL_PREF from outside", NEW, &[0x40, 5, 4, 0, 0, 0, 1], Discard),
        ("broken LOCAL_PREF from outside", NEW, &[0x40, 5, 0], Discard),
        ("ATOMIC_AGGREGATE", NEW, &[0x40, 6, 0], Valid),
        ("ATOMIC_AGGREGATE of one octet", NEW, &[0x40, 6, 1, 0], Discard),
        ("optional ATOMIC_AGGREGATE", NEW, &[0xc0, 6, 0], Withdraw),
        ("AGGREGATOR", NEW, &[0xc0, 7, 8, 0, 0, 0, 1, 1, 2, 3, 4], Valid),
        ("AGGREGATOR of two-octet numbers", OLD, &[0xc0, 7, 6, 0, 1, 1, 2, 3, 4], Valid),
        ("AGGREGATOR of 6 octets", NEW, &[0xc0, 7, 6, 0, 1, 1, 2, 3, 4], Discard),
        ("AGGREGATOR of 8 octets", OLD, &[0xc0, 7, 8, 0, 0, 0, 1, 1, 2, 3, 4], Discard),
        ("AGGREGATOR that is not transitive", NEW, &[0x80, 7, 8, 0, 0, 0, 1, 1, 2, 3, 4], Withdraw),
        ("AGGREGATOR in AS 0", NEW, &[0xc0, 7, 8, 0, 0, 0, 0, 1, 2, 3, 4], Discard),
        ("communities", NEW, &[0xc0, 8, 4, 0, 0, 0, 0], Valid),
        ("communities of 5 octets", NEW, &[0xc0, 8, 5, 0, 0, 0, 0, 0], Withdraw),
        ("no communities", NEW, &[0xc0, 8, 0], Withdraw),
        ("communities that are not transitive", NEW, &[0x80, 8, 4, 0, 0, 0, 0], Withdraw),
        ("ORIGINATOR_ID", INTERNAL, &[0x80, 9, 4, 1, 1, 1, 1], Valid),
        ("ORIGINATOR_ID of 5 octets", INTERNAL, &[0x80, 9, 5, 1, 1, 1, 1, 1], Withdraw),
        ("ORIGINATOR_ID from outside", NEW, &[0x80, 9, 4, 1, 1, 1, 1], Discard),
        ("CLUSTER_LIST", INTERNAL, &[0x80, 10, 8, 1, 1, 1, 1, 2, 2, 2, 2], Valid),
        ("empty CLUSTER_LIST", INTERNAL, &[0x80, 10, 0], Withdraw),
        ("CLUSTER_LIST from outside", NEW, &[0x80, 10, 0], Discard),
        ("extended communities", NEW, &[0xc0, 16, 8, 99, 0, 0, 0, 0, 0, 0, 0], Valid),
        ("extended communities of 7 octets", NEW, &[0xc0, 16, 7, 0, 0, 0, 0, 0, 0, 0], Withdraw),
        ("AS4_PATH", OLD, &[0xc0, 17, 6, 2, 1, 0, 1, 0, 0], Valid),
        ("AS4_PATH cut short", OLD, &[0xc0, 17, 5, 2, 1, 0, 1, 0], Discard),
        ("empty AS4_PATH", OLD, &[0xc0, 17, 0], Discard),
        ("AS4_PATH of a confederation", OLD, &[0xc0, 17, 6, 3, 1, 0, 1, 0, 0], Discard),
        ("AS4_PATH with AS 0", OLD, &[0xc0, 17, 6, 2, 1, 0, 0, 0, 0], Discard),
        ("AS4_PATH where all numbers have four octets", NEW, &[0xc0, 17, 6, 2, 1, 0, 1, 0, 0], Discard),
        ("AS4_AGGREGATOR", OLD, &[0xc0, 18, 8, 0, 1, 0, 0, 1, 2, 3, 4], Valid),
        ("AS4_AGGREGATOR of 7 octets", OLD, &[0xc0, 18, 7, 0, 1, 0, 0, 1, 2, 3], Discard),
        ("AS4_AGGREGATOR likewise", NEW, &[0xc0, 18, 8, 0, 1, 0, 0, 1, 2, 3, 4], Discard),
        ("IPv6 extended communities of 8 octets", NEW, &[0xc0, 25, 8, 0, 0, 0, 0, 0, 0, 0, 0], Withdraw),
        ("large communities of 4 octets", NEW, &[0xc0, 32, 4, 0, 0, 0, 0], Withdraw),
        ("large community", NEW, &[0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], Valid),
        ("only to customer", NEW, &[0xc0, 35, 4, 0, 0, 0, 1], Valid),
        ("only to customer of 3 octets", NEW, &[0xc0, 35, 3, 0, 0, 0], Withdraw),
        ("unknown optional", NEW, &[0xc0, 200, 1, 0], Valid),
        ("unknown and not transitive", NEW, &[0x80, 200, 0], Valid),
        ("unknown well-known", NEW, &[0x40, 200, 1, 0], Withdraw),
    ];

    #[test]
    fn attributes_get_the_disposition_of_rfc_7606() {
        for (name, context, attribute, want) in ATTRIBUTES {
            assert_eq!(with(attribute, context), Ok(*want), "{name}");
        }
    }

    #[test]
    fn the_first_of_two_counts_and_the_strongest_fault_wins() {
        let broken: &[u8] = &[0x40, 1, 1, 3];
        let twice = |first, second| outcome(&body(&[], &[first, second, AS_PATH, NEXT_HOP], NLRI), &NEW);
        assert_eq!(twice(ORIGIN, broken), Ok(Disposition::AttributeDiscard));
        assert_eq!(twice(broken, ORIGIN), Ok(Disposition::TreatAsWithdraw));
        assert_eq!(outcome(&body(&[], &[broken, UNREACH, UNREACH], NLRI), &NEW), Err((3, 1)));
    }
}
