//! The octets of BGP-4: messages out of a stream and into one (RFC 4271 §4).
mod attributes;
mod error;
mod inspect;
mod notification;
mod open;
pub(crate) mod prefix;
mod update;

pub use attributes::{
    AttributeBlock, ExtendedCommunity, LargeCommunity, LinkBandwidth, NextHop, Origin, PathAttributes, TooLarge,
};
pub use error::DecodeError;
pub use inspect::{Context, Disposition, inspect};
pub use notification::{Notification, SHUTDOWN_TEXT_LEN_MAX};
pub use open::{AS_TRANS, Capability, GracefulRestart, Open, RESTART_TIME_MAX_S, Role, VERSION};
pub use update::{ReachPacker, WithdrawPacker, end_of_rib};

pub(crate) use attributes::codes;
pub(crate) use inspect::{Sections, next_attribute, path_fits};

use bytes::{BufMut as _, BytesMut};

/// Octets of the header. Source: RFC 4271 §4.1.
pub const HEADER_LEN: usize = 19;
/// Largest message, octets. Source: RFC 4271 §4.1 (extended messages, RFC 8654, are not negotiated).
pub const MESSAGE_LEN_MAX: usize = 4096;
/// Smallest OPEN, octets. Source: RFC 4271 §4.2.
pub const OPEN_LEN_MIN: usize = 29;
/// Smallest UPDATE, octets. Source: RFC 4271 §4.3.
pub const UPDATE_LEN_MIN: usize = 23;
/// Smallest NOTIFICATION, octets. Source: RFC 4271 §4.5.
pub const NOTIFICATION_LEN_MIN: usize = 21;
/// Smallest ROUTE-REFRESH, octets; longer ones carry filters that we ignore. Source: RFC 2918 §3, RFC 5291 §4.
pub const ROUTE_REFRESH_LEN_MIN: usize = 23;
/// All ones. Source: RFC 4271 §4.1.
const MARKER: [u8; 16] = [0xff; 16];

/// What kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Type 1.
    Open,
    /// Type 2.
    Update,
    /// Type 3.
    Notification,
    /// Type 4.
    Keepalive,
    /// Type 5 (RFC 2918).
    RouteRefresh,
}

impl Kind {
    /// Every kind, in the order of their type numbers.
    pub const ALL: [Self; 5] = [Self::Open, Self::Update, Self::Notification, Self::Keepalive, Self::RouteRefresh];

    /// Position in [`Kind::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    fn wire(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    fn from_wire(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.wire() == octet)
    }

    /// May a message of this kind be `len` octets long? Source: RFC 4271 §6.1.
    fn allows_len(self, len: usize) -> bool {
        match self {
            Self::Open => len >= OPEN_LEN_MIN,
            Self::Update => len >= UPDATE_LEN_MIN,
            Self::Notification => len >= NOTIFICATION_LEN_MIN,
            Self::Keepalive => len == HEADER_LEN,
            Self::RouteRefresh => len >= ROUTE_REFRESH_LEN_MIN,
        }
    }
}

/// A request to send everything of a family again, or a mark around the answer. Source: RFC 2918 §3, RFC 7313 §3.2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// Address family number.
    pub afi: u16,
    /// 0: a request; [`RouteRefresh::BEGIN`], [`RouteRefresh::END`].
    pub subtype: u8,
    /// Subsequent address family number.
    pub safi: u8,
    /// What follows, usually nothing: filters (RFC 5291), which we ignore.
    pub rest: Vec<u8>,
}

impl RouteRefresh {
    /// Subtype BoRR: everything of the family follows. Source: RFC 7313 §3.2.
    pub const BEGIN: u8 = 1;
    /// Subtype EoRR: that was everything.
    pub const END: u8 = 2;

    /// One of a family.
    #[must_use]
    pub fn new(family: crate::Family, subtype: u8) -> Self {
        let (afi, safi) = family.wire();
        Self { afi, subtype, safi, rest: Vec::new() }
    }
}

/// One message. The body of an UPDATE stays where it was received: [`inspect`] checks it, [`crate::tools`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// OPEN.
    Open(Open),
    /// UPDATE: what follows the header.
    Update(&'a [u8]),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

impl<'a> Message<'a> {
    /// What kind of message it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Update(_) => Kind::Update,
            Self::Notification(_) => Kind::Notification,
            Self::Keepalive => Kind::Keepalive,
            Self::RouteRefresh(_) => Kind::RouteRefresh,
        }
    }

    /// Takes one message off the front of `input`; also says how many octets that was. `None`: more octets are needed.
    ///
    /// # Errors
    /// The peer must be sent [`DecodeError::notification`] and dropped.
    pub fn decode(input: &'a [u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let Some((kind, len)) = decode_header(input)? else { return Ok(None) };
        let Some(body) = input.get(HEADER_LEN..len) else { return Ok(None) };
        let message = match (kind, body) {
            (Kind::Open, body) => Self::Open(Open::decode_body(body)?),
            (Kind::Update, body) => Self::Update(body),
            (Kind::Notification, body) => Self::Notification(Notification::decode_body(body)),
            (Kind::Keepalive, _) => Self::Keepalive,
            (Kind::RouteRefresh, body) => match body {
                [afi_high, afi_low, subtype, safi, rest @ ..] => Self::RouteRefresh(RouteRefresh {
                    afi: u16::from_be_bytes([*afi_high, *afi_low]),
                    subtype: *subtype,
                    safi: *safi,
                    rest: rest.to_vec(),
                }),
                _ => return Err(DecodeError::BadLength(wire_len(len))),
            },
        };
        Ok(Some((message, len)))
    }

    /// Appends the message's octets to `out`.
    ///
    /// # Panics
    /// If the message is longer than [`MESSAGE_LEN_MAX`]: an UPDATE body that no packer here made, or more capabilities than
    /// an OPEN holds.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = begin(out, self.kind());
        match self {
            Self::Open(open) => open.encode_body(out),
            Self::Update(body) => out.extend_from_slice(body),
            Self::Notification(notification) => notification.encode_body(out),
            Self::Keepalive => {}
            Self::RouteRefresh(refresh) => {
                out.put_u16(refresh.afi);
                out.put_u8(refresh.subtype);
                out.put_u8(refresh.safi);
                out.extend_from_slice(&refresh.rest);
            }
        }
        finish(out, start);
    }
}

/// Checks the header as far as it has arrived, so that garbage is refused at once. Source: RFC 4271 §6.1.
fn decode_header(input: &[u8]) -> Result<Option<(Kind, usize)>, DecodeError> {
    if input.iter().zip(&MARKER).any(|(got, want)| got != want) {
        return Err(DecodeError::NotSynchronized);
    }
    let Some(&[.., high, low, kind]) = input.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let len = u16::from_be_bytes([high, low]);
    if !(HEADER_LEN..=MESSAGE_LEN_MAX).contains(&usize::from(len)) {
        return Err(DecodeError::BadLength(len));
    }
    let kind = Kind::from_wire(kind).ok_or(DecodeError::BadType(kind))?;
    if !kind.allows_len(usize::from(len)) {
        return Err(DecodeError::BadLength(len));
    }
    Ok(Some((kind, usize::from(len))))
}

/// Writes a header whose length [`finish`] fills in; returns where the message starts.
fn begin(out: &mut BytesMut, kind: Kind) -> usize {
    let start = out.len();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0, 0, kind.wire()]);
    start
}

/// Fills in the length of the message that starts at `start`.
fn finish(out: &mut BytesMut, start: usize) {
    let len = out.len() - start;
    assert!(len <= MESSAGE_LEN_MAX, "message of {len} octets");
    out[start + MARKER.len()..start + MARKER.len() + 2].copy_from_slice(&wire_len(len).to_be_bytes());
}

/// A length that is known to fit 16 bits because no message is longer than [`MESSAGE_LEN_MAX`].
pub(crate) fn wire_len(len: usize) -> u16 {
    u16::try_from(len).expect("no part of a message is longer than MESSAGE_LEN_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: u16, kind: u8) -> Vec<u8> {
        let mut octets = vec![0xff; 16];
        octets.extend(len.to_be_bytes());
        octets.push(kind);
        octets
    }

    #[test]
    fn header_errors_carry_the_data_that_the_rfc_asks_for() {
        for (name, octets, code, data) in [
            ("marker", vec![0; 19], (1, 1), vec![]),
            ("marker, first octet only", vec![0], (1, 1), vec![]),
            ("too short", header(18, 4), (1, 2), vec![0, 18]),
            ("too long", header(4097, 2), (1, 2), vec![0x10, 1]),
            ("short OPEN", header(28, 1), (1, 2), vec![0, 28]),
            ("short UPDATE", header(22, 2), (1, 2), vec![0, 22]),
            ("short NOTIFICATION", header(20, 3), (1, 2), vec![0, 20]),
            ("KEEPALIVE with a body", header(20, 4), (1, 2), vec![0, 20]),
            ("short ROUTE-REFRESH", header(22, 5), (1, 2), vec![0, 22]),
            ("type 0", header(19, 0), (1, 3), vec![0]),
            ("type 6", header(19, 6), (1, 3), vec![6]),
        ] {
            let notification = Message::decode(&octets).unwrap_err().notification();
            assert_eq!((notification.code, notification.subcode), code, "{name}");
            assert_eq!(notification.data, data, "{name}");
        }
    }

    #[test]
    fn decode_asks_for_more_when_a_message_is_not_complete() {
        let mut octets = BytesMut::new();
        Message::RouteRefresh(RouteRefresh::new(crate::Family::Ipv6Unicast, 0)).encode(&mut octets);
        for len in 0..octets.len() {
            assert_eq!(Message::decode(&octets[..len]), Ok(None), "{len}");
        }
        assert!(matches!(Message::decode(&octets), Ok(Some((Message::RouteRefresh(_), 23)))));
    }
}
