//! OPEN and its capabilities (RFC 4271 §4.2, RFC 5492, RFC 9072).
use std::net::Ipv4Addr;

use bytes::{BufMut as _, BytesMut};

use super::DecodeError;
use crate::family::{Families, Family};

/// The version of the protocol. Source: RFC 4271 §4.2.
pub const VERSION: u8 = 4;
/// Stands in a 2-octet field for an AS number that needs four. Source: RFC 6793 §9.
pub const AS_TRANS: u16 = 23_456;
/// Optional parameter that holds capabilities. Source: RFC 5492 §4.
const PARAMETER_CAPABILITIES: u8 = 2;
/// Optional parameter type that announces the extended format. Source: RFC 9072 §2.
const PARAMETER_EXTENDED: u8 = 255;

mod code {
    pub(super) const MULTI_PROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// A family (RFC 4760 §8), by AFI and SAFI, known to us or not.
    MultiProtocol(u16, u8),
    /// Understands ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// Four-octet AS numbers, with the sender's own (RFC 6793).
    FourOctetAs(u32),
    /// Anything else, or one of the above with a length that is not its own: kept to be listed, otherwise ignored.
    Unknown {
        /// Capability code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

impl Capability {
    /// The capability code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::MultiProtocol(..) => code::MULTI_PROTOCOL,
            Self::RouteRefresh => code::ROUTE_REFRESH,
            Self::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Self::Unknown { code, .. } => *code,
        }
    }

    fn decode(code: u8, value: &[u8]) -> Self {
        match (code, value) {
            (code::MULTI_PROTOCOL, &[a, b, _reserved, safi]) => Self::MultiProtocol(u16::from_be_bytes([a, b]), safi),
            (code::ROUTE_REFRESH, []) => Self::RouteRefresh,
            (code::FOUR_OCTET_AS, &[a, b, c, d]) => Self::FourOctetAs(u32::from_be_bytes([a, b, c, d])),
            (code, value) => Self::Unknown { code, value: value.to_vec() },
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.code());
        match self {
            Self::MultiProtocol(afi, safi) => {
                out.put_u8(4);
                out.put_u16(*afi);
                out.put_u8(0);
                out.put_u8(*safi);
            }
            Self::RouteRefresh => out.put_u8(0),
            Self::FourOctetAs(asn) => {
                out.put_u8(4);
                out.put_u32(*asn);
            }
            Self::Unknown { value, .. } => {
                let len = u8::try_from(value.len()).unwrap_or(u8::MAX);
                out.put_u8(len);
                out.extend_from_slice(&value[..usize::from(len)]);
            }
        }
    }
}

/// The first message of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The 2-octet AS field: the sender's AS, or [`AS_TRANS`].
    pub as2: u16,
    /// Offered hold time, seconds: 0, or at least 3.
    pub hold_time_s: u16,
    /// BGP identifier, not zero.
    pub id: Ipv4Addr,
    /// In their order, repeated ones too.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// An OPEN of ours: MP for `families`, route refresh, four-octet AS.
    #[must_use]
    pub fn new(asn: u32, hold_time_s: u16, id: Ipv4Addr, families: Families) -> Self {
        let mut capabilities: Vec<_> = families
            .iter()
            .map(|family| {
                let (afi, safi) = family.wire();
                Capability::MultiProtocol(afi, safi)
            })
            .collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::FourOctetAs(asn));
        Self { as2: u16::try_from(asn).unwrap_or(AS_TRANS), hold_time_s, id, capabilities }
    }

    /// The sender's AS number, from the capability if there is one.
    #[must_use]
    pub fn asn(&self) -> u32 {
        self.four_octet_as().unwrap_or_else(|| self.as2.into())
    }

    /// The AS number of the four-octet capability.
    #[must_use]
    pub fn four_octet_as(&self) -> Option<u32> {
        self.capabilities.iter().find_map(|c| if let Capability::FourOctetAs(asn) = c { Some(*asn) } else { None })
    }

    /// Does the sender understand ROUTE-REFRESH?
    #[must_use]
    pub fn route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    /// The families that the sender speaks; without any MP capability that is IPv4 unicast alone. Source: RFC 4760 §8.
    #[must_use]
    pub fn families(&self) -> Families {
        let mut multi_protocol = false;
        let mut families = Families::NONE;
        for capability in &self.capabilities {
            if let Capability::MultiProtocol(afi, safi) = *capability {
                multi_protocol = true;
                if let Some(family) = Family::from_wire(afi, safi) {
                    families.insert(family);
                }
            }
        }
        if multi_protocol { families } else { Families::only(Family::Ipv4Unicast) }
    }

    pub(super) fn encode_body(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u16(self.as2);
        out.put_u16(self.hold_time_s);
        out.put_u32(self.id.to_bits());
        let mut capabilities = BytesMut::new();
        self.capabilities.iter().for_each(|c| c.encode(&mut capabilities));
        match u8::try_from(capabilities.len() + 2) {
            _ if capabilities.is_empty() => out.put_u8(0),
            // 255 itself would announce the extended format
            Ok(len) if len < u8::MAX => {
                out.extend_from_slice(&[len, PARAMETER_CAPABILITIES, len - 2]);
            }
            _ => {
                let len = capabilities.len();
                out.extend_from_slice(&[u8::MAX, PARAMETER_EXTENDED]);
                out.put_u16(super::wire_len(len + 3));
                out.put_u8(PARAMETER_CAPABILITIES);
                out.put_u16(super::wire_len(len));
            }
        }
        out.extend_from_slice(&capabilities);
    }

    /// Reads what follows the header of an OPEN. Source: RFC 4271 §6.2.
    pub(super) fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        let Some((&[version, as_high, as_low, hold_high, hold_low, a, b, c, d, params_len], params)) =
            body.split_first_chunk::<10>()
        else {
            return Err(DecodeError::OpenMalformed);
        };
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let mut open = Self {
            as2: u16::from_be_bytes([as_high, as_low]),
            hold_time_s: u16::from_be_bytes([hold_high, hold_low]),
            id: Ipv4Addr::new(a, b, c, d),
            capabilities: vec![],
        };
        open.decode_parameters(params_len, params)?;
        if open.as2 == 0 || open.asn() == 0 {
            return Err(DecodeError::AsZero);
        }
        if open.id.is_unspecified() {
            return Err(DecodeError::IdentifierZero);
        }
        if matches!(open.hold_time_s, 1 | 2) {
            return Err(DecodeError::HoldTime(open.hold_time_s));
        }
        Ok(open)
    }

    /// Both formats of the optional parameters. Source: RFC 4271 §4.2, RFC 9072 §2.
    fn decode_parameters(&mut self, len: u8, octets: &[u8]) -> Result<(), DecodeError> {
        let (extended, mut params) = match octets {
            [PARAMETER_EXTENDED, high, low, params @ ..] if len > 0 => {
                (params.len() == usize::from(u16::from_be_bytes([*high, *low]))).then_some((true, params))
            }
            params => (params.len() == usize::from(len)).then_some((false, params)),
        }
        .ok_or(DecodeError::OpenMalformed)?;
        while let Some((&kind, rest)) = params.split_first() {
            let (len, rest) = if extended {
                rest.split_first_chunk::<2>().map(|(len, rest)| (u16::from_be_bytes(*len), rest))
            } else {
                rest.split_first().map(|(len, rest)| (u16::from(*len), rest))
            }
            .ok_or(DecodeError::OpenMalformed)?;
            let (value, rest) = rest.split_at_checked(len.into()).ok_or(DecodeError::OpenMalformed)?;
            if kind != PARAMETER_CAPABILITIES {
                return Err(DecodeError::OptionalParameter(kind));
            }
            self.decode_capabilities(value)?;
            params = rest;
        }
        Ok(())
    }

    fn decode_capabilities(&mut self, mut octets: &[u8]) -> Result<(), DecodeError> {
        while let Some((&code, rest)) = octets.split_first() {
            let (&len, rest) = rest.split_first().ok_or(DecodeError::OpenMalformed)?;
            let (value, rest) = rest.split_at_checked(len.into()).ok_or(DecodeError::OpenMalformed)?;
            self.capabilities.push(Capability::decode(code, value));
            octets = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;

    fn body(as2: u16, hold: u16, id: [u8; 4], params: &[u8]) -> Vec<u8> {
        let mut body = vec![VERSION];
        body.extend(as2.to_be_bytes());
        body.extend(hold.to_be_bytes());
        body.extend(id);
        body.push(u8::try_from(params.len()).unwrap_or(u8::MAX));
        body.extend(params);
        body
    }

    #[test]
    fn open_refuses_what_the_rfc_refuses() {
        let mut version = body(1, 90, [1; 4], &[]);
        version[0] = 3;
        for (name, body, want) in [
            ("version", version, (2, 1, vec![0, 4])),
            ("AS 0", body(0, 90, [1; 4], &[]), (2, 2, vec![])),
            ("AS 0 in the capability", body(AS_TRANS, 90, [1; 4], &[2, 6, 65, 4, 0, 0, 0, 0]), (2, 2, vec![])),
            ("identifier", body(1, 90, [0; 4], &[]), (2, 3, vec![])),
            ("authentication parameter", body(1, 90, [1; 4], &[1, 1, 0]), (2, 4, vec![])),
            ("parameter cut short", body(1, 90, [1; 4], &[2, 9, 65, 4]), (2, 0, vec![])),
            ("capability cut short", body(1, 90, [1; 4], &[2, 2, 65, 4]), (2, 0, vec![])),
            ("hold time 1", body(1, 1, [1; 4], &[]), (2, 6, vec![])),
            ("hold time 2", body(1, 2, [1; 4], &[]), (2, 6, vec![])),
        ] {
            let n = Open::decode_body(&body).unwrap_err().notification();
            assert_eq!((n.code, n.subcode, n.data), want, "{name}");
        }
    }

    #[test]
    fn open_takes_capabilities_in_every_packaging() {
        let as4 = [65, 4, 0, 1, 0, 0];
        let refresh = [2, 0];
        let two = [&[2, 6][..], &as4, &[2, 2], &refresh].concat();
        let extended = [&[255, 0, 14, 2, 0, 6][..], &as4, &[2, 0, 2], &refresh].concat();
        for (name, params) in [("two parameters", two), ("extended", extended)] {
            let mut body = body(AS_TRANS, 0, [1; 4], &params);
            if name == "extended" {
                body[9] = 255;
            }
            let open = Open::decode_body(&body).unwrap();
            assert_eq!((open.asn(), open.route_refresh()), (65_536, true), "{name}");
            assert_eq!(open.families(), Families::only(Family::Ipv4Unicast), "{name}: no MP capability");
        }
    }

    #[test]
    fn unknown_capabilities_are_kept_and_ignored() {
        let open = Open::decode_body(&body(7, 3, [1; 4], &[2, 5, 73, 1, 9, 1, 0])).unwrap();
        assert_eq!(open.capabilities.iter().map(Capability::code).collect::<Vec<_>>(), [73, 1]);
        assert_eq!(open.asn(), 7);
    }

    #[test]
    fn open_with_more_than_255_octets_uses_the_extended_format() {
        for len in [240, 249, 250, 251, 252, 253, 255] {
            let mut open = Open::new(70_000, 90, Ipv4Addr::LOCALHOST, Families::ALL);
            open.capabilities = vec![Capability::Unknown { code: 200, value: vec![1; len] }];
            let mut octets = BytesMut::new();
            Message::Open(open.clone()).encode(&mut octets);
            assert_eq!(Message::decode(&octets), Ok(Some((Message::Open(open), octets.len()))), "{len}");
        }
    }
}
