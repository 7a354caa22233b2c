//! Why octets are not a message.
use super::{Notification, VERSION};

/// Why octets are not a message; each variant is one NOTIFICATION. Source: RFC 4271 §6.1–6.3, RFC 7606.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The marker is not all ones.
    #[error("connection not synchronized: the marker is not all ones")]
    NotSynchronized,
    /// A length outside 19..=4096, or wrong for the type.
    #[error("bad message length {0}")]
    BadLength(u16),
    /// A type that does not exist.
    #[error("bad message type {0}")]
    BadType(u8),
    /// OPEN of another BGP version.
    #[error("unsupported BGP version {0}")]
    Version(u8),
    /// OPEN from AS 0 (RFC 7607).
    #[error("AS number 0 in OPEN")]
    AsZero,
    /// OPEN with identifier 0.0.0.0 (RFC 6286).
    #[error("BGP identifier 0.0.0.0 in OPEN")]
    IdentifierZero,
    /// OPEN with an optional parameter other than capabilities.
    #[error("unsupported optional parameter {0} in OPEN")]
    OptionalParameter(u8),
    /// OPEN whose optional parameters do not fit together.
    #[error("malformed optional parameters in OPEN")]
    OpenMalformed,
    /// OPEN with a hold time of one or two seconds.
    #[error("unacceptable hold time of {0} s in OPEN")]
    HoldTime(u16),
    /// UPDATE whose sections or attributes do not fit together.
    #[error("malformed UPDATE: {0}")]
    UpdateMalformed(&'static str),
    /// UPDATE whose MP_REACH_NLRI or MP_UNREACH_NLRI cannot be read (RFC 4760 §7).
    #[error("malformed multiprotocol attribute in UPDATE: {0}")]
    MultiProtocol(&'static str),
    /// UPDATE with a prefix that is longer than its family allows, or cut short.
    #[error("invalid network field in UPDATE")]
    NetworkInvalid,
}

impl DecodeError {
    /// The NOTIFICATION to send before closing.
    #[must_use]
    pub fn notification(self) -> Notification {
        let (code, subcode, data) = match self {
            Self::NotSynchronized => (1, 1, vec![]),
            Self::BadLength(len) => (1, 2, len.to_be_bytes().to_vec()),
            Self::BadType(kind) => (1, 3, vec![kind]),
            Self::Version(_) => (2, 1, u16::from(VERSION).to_be_bytes().to_vec()),
            Self::AsZero => return Notification::bad_peer_as(),
            Self::IdentifierZero => return Notification::bad_bgp_identifier(),
            Self::OptionalParameter(_) => (2, 4, vec![]),
            Self::OpenMalformed => (2, 0, vec![]),
            Self::HoldTime(_) => (2, 6, vec![]),
            Self::UpdateMalformed(_) => (3, 1, vec![]),
            Self::MultiProtocol(_) => (3, 9, vec![]),
            Self::NetworkInvalid => (3, 10, vec![]),
        };
        Notification { code, subcode, data }
    }
}
