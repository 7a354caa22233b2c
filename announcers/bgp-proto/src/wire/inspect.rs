//! What a speaker that imports nothing does with an UPDATE: checks its frame, counts it, forgets it (RFC 7606).
use super::{
    DecodeError,
    attributes::{codes, flags},
    prefix,
};
use crate::family::Family;

/// What RFC 7606 makes of an UPDATE that does not end the session.
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
/// The sections or the prefixes cannot be told apart: the session must be reset. Source: RFC 7606 §3, §5.3.
pub fn inspect(body: &[u8]) -> Result<Disposition, DecodeError> {
    let sections = Sections::split(body)?;
    prefix::decode_all(Family::Ipv4Unicast, sections.withdrawn, |_| {})?;
    prefix::decode_all(Family::Ipv4Unicast, sections.nlri, |_| {})?;
    let mut worst = Disposition::Valid;
    let mut seen = [false; 256];
    let mut octets = sections.attributes;
    while !octets.is_empty() {
        let Some((attribute, rest)) = next_attribute(octets) else {
            return Ok(Disposition::TreatAsWithdraw); // RFC 7606 §4
        };
        let repeated = std::mem::replace(&mut seen[usize::from(attribute.code)], true);
        worst = worst.max(check(&attribute, repeated)?);
        octets = rest;
    }
    let announces = !sections.nlri.is_empty() || seen[usize::from(codes::MP_REACH)];
    let complete = seen[usize::from(codes::ORIGIN)]
        && seen[usize::from(codes::AS_PATH)]
        && (sections.nlri.is_empty() || seen[usize::from(codes::NEXT_HOP)]);
    Ok(if announces && !complete { Disposition::TreatAsWithdraw } else { worst }) // RFC 7606 §3 d
}

/// One attribute by itself. Source: RFC 7606 §3, §5, §7.
fn check(attribute: &Attribute<'_>, repeated: bool) -> Result<Disposition, DecodeError> {
    let value = attribute.value;
    match attribute.code {
        codes::MP_REACH | codes::MP_UNREACH if repeated => {
            Err(DecodeError::UpdateMalformed("multiprotocol attribute twice"))
        }
        codes::MP_REACH => {
            let malformed = || DecodeError::UpdateMalformed("MP_REACH_NLRI");
            let (&[a, b, safi, next_hop_len], rest) = value.split_first_chunk::<4>().ok_or_else(malformed)?;
            let nlri = rest.get(usize::from(next_hop_len) + 1..).ok_or_else(malformed)?;
            check_multi_protocol(u16::from_be_bytes([a, b]), safi, nlri)
        }
        codes::MP_UNREACH => {
            let malformed = || DecodeError::UpdateMalformed("MP_UNREACH_NLRI");
            let (&[a, b, safi], nlri) = value.split_first_chunk::<3>().ok_or_else(malformed)?;
            check_multi_protocol(u16::from_be_bytes([a, b]), safi, nlri)
        }
        _ if repeated => Ok(Disposition::AttributeDiscard),
        _ => {
            let well_formed = match attribute.code {
                codes::ORIGIN => matches!(value, [0..=2]),
                codes::NEXT_HOP | codes::MED | codes::LOCAL_PREF => value.len() == 4,
                codes::COMMUNITIES => !value.is_empty() && value.len().is_multiple_of(4),
                codes::LARGE_COMMUNITIES => !value.is_empty() && value.len().is_multiple_of(12),
                _ => true,
            };
            Ok(if well_formed && flags_fit(attribute) { Disposition::Valid } else { Disposition::TreatAsWithdraw })
        }
    }
}

/// Do the optional and transitive flags agree with the attribute's kind, where we know it? Source: RFC 7606 §3 c.
fn flags_fit(attribute: &Attribute<'_>) -> bool {
    let kind = attribute.flags & (flags::OPTIONAL | flags::TRANSITIVE);
    match attribute.code {
        codes::ORIGIN | codes::AS_PATH | codes::NEXT_HOP | codes::LOCAL_PREF => kind == flags::TRANSITIVE,
        codes::MED => kind == flags::OPTIONAL,
        codes::COMMUNITIES | codes::LARGE_COMMUNITIES => kind == flags::OPTIONAL | flags::TRANSITIVE,
        _ => true,
    }
}

/// Prefixes of families that we do not know are not looked at: they were not negotiated. Source: RFC 4760 §7.
fn check_multi_protocol(afi: u16, safi: u8, nlri: &[u8]) -> Result<Disposition, DecodeError> {
    if let Some(family) = Family::from_wire(afi, safi) {
        prefix::decode_all(family, nlri, |_| {})?;
    }
    Ok(Disposition::Valid)
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
    const UNREACH: &[u8] = &[0x80, 15, 3, 0, 2, 1];

    #[test]
    fn updates_get_the_disposition_of_rfc_7606() {
        use Disposition as D;
        let good = [ORIGIN, AS_PATH, NEXT_HOP];
        for (name, body, want) in [
            ("empty", body(&[], &[], &[]), Ok(D::Valid)),
            ("announcement", body(&[], &good, &[8, 10]), Ok(D::Valid)),
            ("withdrawal", body(&[8, 10], &[], &[]), Ok(D::Valid)),
            ("no next hop", body(&[], &[ORIGIN, AS_PATH], &[8, 10]), Ok(D::TreatAsWithdraw)),
            ("origin of two octets", body(&[], &[&[0x40, 1, 2, 0, 0]], &[]), Ok(D::TreatAsWithdraw)),
            ("origin 3", body(&[], &[&[0x40, 1, 1, 3]], &[]), Ok(D::TreatAsWithdraw)),
            ("optional origin", body(&[], &[&[0xc0, 1, 1, 0]], &[]), Ok(D::TreatAsWithdraw)),
            ("origin twice", body(&[], &[ORIGIN, ORIGIN], &[]), Ok(D::AttributeDiscard)),
            ("attribute overruns", body(&[], &[&[0x40, 1, 9, 0]], &[]), Ok(D::TreatAsWithdraw)),
            ("communities of 5 octets", body(&[], &[&[0xc0, 8, 5, 0, 0, 0, 0, 0]], &[]), Ok(D::TreatAsWithdraw)),
            ("unknown attribute", body(&[], &[&[0xc0, 200, 1, 0]], &[]), Ok(D::Valid)),
            ("MP_UNREACH twice", body(&[], &[UNREACH, UNREACH], &[]), Err((3, 1))),
            ("MP_REACH cut short", body(&[], &[&[0x80, 14, 5, 0, 2, 1, 16, 0]], &[]), Err((3, 1))),
            ("IPv6 prefix of 129 bits", body(&[], &[&[0x80, 15, 4, 0, 2, 1, 129]], &[]), Err((3, 10))),
            ("unknown family is not read", body(&[], &[&[0x80, 15, 4, 0, 99, 1, 129]], &[]), Ok(D::Valid)),
            ("prefix of 33 bits", body(&[], &good, &[33, 1, 2, 3, 4, 5]), Err((3, 10))),
            ("withdrawn prefix cut short", body(&[24, 1], &[], &[]), Err((3, 10))),
            ("withdrawn length overruns", vec![0, 9, 0, 0], Err((3, 1))),
            ("attribute length overruns", vec![0, 0, 0, 9], Err((3, 1))),
            ("no lengths", vec![0], Err((3, 1))),
        ] {
            let got = inspect(&body).map_err(|e| (e.notification().code, e.notification().subcode));
            assert_eq!(got, want, "{name}");
        }
    }
}
