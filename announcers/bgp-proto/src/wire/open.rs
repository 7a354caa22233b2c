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
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
}

/// Longest restart time that the capability holds, seconds: twelve bits. Source: RFC 4724 §3.
pub const RESTART_TIME_MAX_S: u16 = 0x0fff;
/// Restart state bit (R). Source: RFC 4724 §3.
const RESTART_STATE: u16 = 0x8000;
/// NOTIFICATION support bit (N). Source: RFC 8538 §2.
const NOTIFICATION_SUPPORT: u16 = 0x4000;
/// Forwarding state bit (F) of one family. Source: RFC 4724 §3.
const FORWARDING_STATE: u8 = 0x80;

/// The graceful restart capability. Source: RFC 4724 §3, RFC 8538 §2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// R: the sender has restarted and does not wait for our End-of-RIB before it announces.
    pub restarting: bool,
    /// N: a NOTIFICATION other than a hard reset does not end the routes either.
    pub notification: bool,
    /// How long the sender's routes should be kept after its session is gone, seconds; at most [`RESTART_TIME_MAX_S`].
    pub restart_time_s: u16,
    /// AFI, SAFI, and F: the sender still forwards for the family. Empty: it only helps others to restart.
    pub families: Vec<(u16, u8, bool)>,
}

impl GracefulRestart {
    /// `None`: not the capability's format.
    fn decode(value: &[u8]) -> Option<Self> {
        let (head, families) = value.split_first_chunk::<2>()?;
        let (families, rest) = families.as_chunks::<4>();
        let head = u16::from_be_bytes(*head);
        rest.is_empty().then(|| Self {
            restarting: head & RESTART_STATE != 0,
            notification: head & NOTIFICATION_SUPPORT != 0,
            restart_time_s: head & RESTART_TIME_MAX_S,
            families: families
                .iter()
                .map(|&[a, b, safi, flags]| (u16::from_be_bytes([a, b]), safi, flags & FORWARDING_STATE != 0))
                .collect(),
        })
    }

    fn value(&self) -> Vec<u8> {
        let mut head = self.restart_time_s.min(RESTART_TIME_MAX_S);
        head |= if self.restarting { RESTART_STATE } else { 0 };
        head |= if self.notification { NOTIFICATION_SUPPORT } else { 0 };
        let mut value = head.to_be_bytes().to_vec();
        for (afi, safi, forwarding) in &self.families {
            value.extend_from_slice(&afi.to_be_bytes());
            value.extend_from_slice(&[*safi, if *forwarding { FORWARDING_STATE } else { 0 }]);
        }
        value
    }
}

/// Our role, or the peer's. Source: RFC 9234 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The other side is a customer.
    Provider,
    /// A route server.
    RouteServer,
    /// The other side is a route server.
    RouteServerClient,
    /// The other side is a provider.
    Customer,
    /// Neither.
    Peer,
}

impl Role {
    /// In the order of their values on the wire.
    const ALL: [Self; 5] = [Self::Provider, Self::RouteServer, Self::RouteServerClient, Self::Customer, Self::Peer];

    fn from_wire(octet: u8) -> Option<Self> {
        Self::ALL.get(usize::from(octet)).copied()
    }

    /// Do these two roles belong together? Source: RFC 9234 §4.2.
    #[must_use]
    pub fn fits(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Provider, Self::Customer)
                | (Self::Customer, Self::Provider)
                | (Self::RouteServer, Self::RouteServerClient)
                | (Self::RouteServerClient, Self::RouteServer)
                | (Self::Peer, Self::Peer)
        )
    }
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// A family (RFC 4760 §8), by AFI and SAFI, known to us or not.
    MultiProtocol(u16, u8),
    /// Understands ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// Takes next hops of another family (RFC 8950 §4): AFI and SAFI of the routes, AFI of the next hop.
    ExtendedNextHop(Vec<(u16, u16, u16)>),
    /// Has this role (RFC 9234 §4.1).
    Role(Role),
    /// Restarts gracefully, or helps others to (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Four-octet AS numbers, with the sender's own (RFC 6793).
    FourOctetAs(u32),
    /// Marks begin and end of a refresh (RFC 7313).
    EnhancedRouteRefresh,
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
            Self::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Self::Role(_) => code::ROLE,
            Self::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Self::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Self::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// MP for a family.
    #[must_use]
    pub fn family(family: Family) -> Self {
        let (afi, safi) = family.wire();
        Self::MultiProtocol(afi, safi)
    }

    /// IPv4 unicast with IPv6 next hops: the only use of [`Capability::ExtendedNextHop`] that we have.
    #[must_use]
    pub fn ipv4_over_ipv6() -> Self {
        let ((v4, safi), (v6, _)) = (Family::Ipv4Unicast.wire(), Family::Ipv6Unicast.wire());
        Self::ExtendedNextHop(vec![(v4, safi.into(), v6)])
    }

    fn decode(code: u8, value: &[u8]) -> Self {
        match (code, value) {
            (code::MULTI_PROTOCOL, &[a, b, _reserved, safi]) => Self::MultiProtocol(u16::from_be_bytes([a, b]), safi),
            (code::ROUTE_REFRESH, []) => Self::RouteRefresh,
            (code::FOUR_OCTET_AS, &[a, b, c, d]) => Self::FourOctetAs(u32::from_be_bytes([a, b, c, d])),
            (code::ENHANCED_ROUTE_REFRESH, []) => Self::EnhancedRouteRefresh,
            (code, value) => {
                Self::decode_more(code, value).unwrap_or_else(|| Self::Unknown { code, value: value.to_vec() })
            }
        }
    }

    fn decode_more(code: u8, value: &[u8]) -> Option<Self> {
        match (code, value) {
            (code::EXTENDED_NEXT_HOP, value) => {
                let (entries, rest) = value.as_chunks::<6>();
                let number = |a, b| u16::from_be_bytes([a, b]);
                let entries = entries.iter().map(|&[a, b, c, d, e, f]| (number(a, b), number(c, d), number(e, f)));
                rest.is_empty().then(|| Self::ExtendedNextHop(entries.collect()))
            }
            (code::ROLE, &[role]) => Role::from_wire(role).map(Self::Role),
            (code::GRACEFUL_RESTART, value) => GracefulRestart::decode(value).map(Self::GracefulRestart),
            _ => None,
        }
    }

    fn value(&self) -> Vec<u8> {
        match self {
            Self::MultiProtocol(afi, safi) => {
                let [high, low] = afi.to_be_bytes();
                vec![high, low, 0, *safi]
            }
            Self::RouteRefresh | Self::EnhancedRouteRefresh => vec![],
            Self::ExtendedNextHop(entries) => entries
                .iter()
                .flat_map(|&(afi, safi, next_hop)| [afi, safi, next_hop])
                .flat_map(u16::to_be_bytes)
                .collect(),
            Self::Role(role) => vec![*role as u8],
            Self::GracefulRestart(restart) => restart.value(),
            Self::FourOctetAs(asn) => asn.to_be_bytes().to_vec(),
            Self::Unknown { value, .. } => value.clone(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        let value = self.value();
        let len = u8::try_from(value.len()).unwrap_or(u8::MAX); // longer than a capability can be: cut
        out.extend_from_slice(&[self.code(), len]);
        out.extend_from_slice(&value[..usize::from(len)]);
    }
}

/// The name of the registry of capability codes, and its code if the capability is not one of ours.
impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MultiProtocol(afi, safi) => match Family::from_wire(*afi, *safi) {
                Some(family) => write!(f, "multiprotocol {family}"),
                None => write!(f, "multiprotocol {afi}/{safi}"),
            },
            Self::RouteRefresh => f.write_str("route refresh"),
            Self::ExtendedNextHop(_) => f.write_str("extended next hop encoding"),
            Self::Role(role) => write!(f, "BGP role {role:?}"),
            Self::GracefulRestart(_) => f.write_str("graceful restart"),
            Self::FourOctetAs(asn) => write!(f, "four-octet AS number {asn}"),
            Self::EnhancedRouteRefresh => f.write_str("enhanced route refresh"),
            Self::Unknown { code, .. } => write!(f, "capability {code}"),
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
        let mut capabilities: Vec<_> = families.iter().map(Capability::family).collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::FourOctetAs(asn));
        Self::with(asn, hold_time_s, id, capabilities)
    }

    /// An OPEN with these capabilities.
    #[must_use]
    pub fn with(asn: u32, hold_time_s: u16, id: Ipv4Addr, capabilities: Vec<Capability>) -> Self {
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

    /// Does the sender mark begin and end of a refresh?
    #[must_use]
    pub fn enhanced_route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::EnhancedRouteRefresh)
    }

    /// Does the sender take IPv4 routes with IPv6 next hops? Source: RFC 8950 §4.
    #[must_use]
    pub fn ipv4_over_ipv6(&self) -> bool {
        let Capability::ExtendedNextHop(wanted) = Capability::ipv4_over_ipv6() else { return false };
        let takes =
            |c: &Capability| matches!(c, Capability::ExtendedNextHop(all) if wanted.iter().all(|w| all.contains(w)));
        self.capabilities.iter().any(takes)
    }

    /// The sender's role.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.capabilities.iter().find_map(|c| if let Capability::Role(role) = c { Some(*role) } else { None })
    }

    /// The graceful restart capability: the last one, if it is repeated. Source: RFC 4724 §3.
    #[must_use]
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        let restart = |c: &'_ Capability| matches!(c, Capability::GracefulRestart(_));
        let last = self.capabilities.iter().rev().find(|c| restart(c))?;
        if let Capability::GracefulRestart(restart) = last { Some(restart) } else { None }
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
    fn every_capability_survives_the_wire() {
        let restart = GracefulRestart {
            restarting: true,
            notification: true,
            restart_time_s: 120,
            families: vec![(1, 1, true), (2, 1, false)],
        };
        let capabilities = vec![
            Capability::family(Family::Ipv6Unicast),
            Capability::RouteRefresh,
            Capability::ipv4_over_ipv6(),
            Capability::Role(Role::Customer),
            Capability::GracefulRestart(restart.clone()),
            Capability::FourOctetAs(70_000),
            Capability::EnhancedRouteRefresh,
        ];
        let open = Open::with(70_000, 90, Ipv4Addr::LOCALHOST, capabilities);
        let mut octets = BytesMut::new();
        Message::Open(open.clone()).encode(&mut octets);
        let Ok(Some((Message::Open(got), _))) = Message::decode(&octets) else { panic!("{octets:?}") };
        assert_eq!(got, open);
        assert_eq!((got.graceful_restart(), got.role()), (Some(&restart), Some(Role::Customer)));
        assert!(got.ipv4_over_ipv6() && got.enhanced_route_refresh() && got.route_refresh());
        #[rustfmt::skip]
        let on_the_wire = [64, 10, 0xc0, 120, 0, 1, 1, 0x80, 0, 2, 1, 0];
        assert!(octets.windows(on_the_wire.len()).any(|w| w == on_the_wire), "{octets:?}");
    }

    #[test]
    fn capabilities_of_the_wrong_length_are_unknown_ones() {
        for value in
            [&[64, 1, 0][..], &[64, 3, 0, 1, 2], &[5, 5, 0, 1, 0, 1, 0], &[9, 2, 0, 0], &[9, 1, 5], &[70, 1, 0]]
        {
            let params = [&[2, u8::try_from(value.len()).unwrap()][..], value].concat();
            let open = Open::decode_body(&body(7, 3, [1; 4], &params)).unwrap();
            assert!(matches!(open.capabilities[..], [Capability::Unknown { .. }]), "{value:?}: {open:?}");
        }
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
