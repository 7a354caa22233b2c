//! NOTIFICATION: why a session ends, in octets and in words.
use std::{borrow::Cow, fmt};

/// Longest shutdown communication, octets of UTF-8. Source: RFC 9003 §2.
pub const SHUTDOWN_TEXT_LEN_MAX: usize = 255;

/// A NOTIFICATION message (RFC 4271 §4.5). After it the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode; 0 = unspecific.
    pub subcode: u8,
    /// What the code says it is; for Cease 6/2 and 6/4 a length octet and UTF-8 text.
    pub data: Vec<u8>,
}

/// Error code of an administrative end. Source: RFC 4486.
const CEASE: u8 = 6;
/// Subcode of a Cease that ends the routes too. Source: RFC 8538 §3.1.
const HARD_RESET: u8 = 9;
/// Cease subcodes that may carry a text. Source: RFC 9003 §2.
const CEASE_WITH_TEXT: [u8; 2] = [2, 4];

impl Notification {
    /// One without data.
    #[must_use]
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    /// Nothing was heard for the hold time. Source: RFC 4271 §6.5.
    #[must_use]
    pub const fn hold_timer_expired() -> Self {
        Self::new(4, 0)
    }

    /// A message that has no place in the session's state. Source: RFC 6608.
    #[must_use]
    pub const fn fsm_error(subcode: u8) -> Self {
        Self::new(5, subcode)
    }

    /// The peer's AS is not the configured one. Source: RFC 4271 §6.2.
    #[must_use]
    pub const fn bad_peer_as() -> Self {
        Self::new(2, 2)
    }

    /// The peer's BGP identifier is zero or ours. Source: RFC 6286 §2.2.
    #[must_use]
    pub const fn bad_bgp_identifier() -> Self {
        Self::new(2, 3)
    }

    /// Nothing could be written for the send-hold time. Source: RFC 9687.
    #[must_use]
    pub const fn send_hold_timer_expired() -> Self {
        Self::new(8, 0)
    }

    /// Administrative shutdown, 6/2, with the reason. Source: RFC 9003.
    #[must_use]
    pub fn shutdown(reason: &str) -> Self {
        Self { code: CEASE, subcode: 2, data: shutdown_text(reason) }
    }

    /// The peer was removed from the configuration, 6/3. Source: RFC 4486 §4.
    #[must_use]
    pub const fn deconfigured() -> Self {
        Self::new(CEASE, 3)
    }

    /// Administrative reset, 6/4, with the reason: the session comes back. Source: RFC 9003.
    #[must_use]
    pub fn reset(reason: &str) -> Self {
        Self { code: CEASE, subcode: 4, data: shutdown_text(reason) }
    }

    /// Another connection of the same peer is kept instead, 6/7. Source: RFC 4271 §6.8.
    #[must_use]
    pub const fn collision() -> Self {
        Self::new(CEASE, 7)
    }

    /// No room for this connection, 6/8. Source: RFC 4486 §4.
    #[must_use]
    pub const fn out_of_resources() -> Self {
        Self::new(CEASE, 8)
    }

    /// BFD says that the path is down, 6/10. Source: RFC 9384 §3.
    #[must_use]
    pub const fn bfd_down() -> Self {
        Self::new(CEASE, 10)
    }

    /// The peer's role does not fit ours, 2/11. Source: RFC 9234 §4.2.
    #[must_use]
    pub const fn role_mismatch() -> Self {
        Self::new(2, 11)
    }

    /// A ROUTE-REFRESH of the wrong length, 7/1, with the whole message. Source: RFC 7313 §5.
    #[must_use]
    pub fn refresh_length(message: &[u8]) -> Self {
        Self { code: 7, subcode: 1, data: message.to_vec() }
    }

    /// The same end, but the routes end with the session although graceful restart is agreed upon, 6/9. Source: RFC 8538 §3.1.
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self { code: CEASE, subcode: HARD_RESET, data }
    }

    /// What a hard reset wraps. Source: RFC 8538 §3.1.
    #[must_use]
    pub fn wrapped(&self) -> Option<Self> {
        match (self.code, self.subcode, &self.data[..]) {
            (CEASE, HARD_RESET, [code, subcode, data @ ..]) => {
                Some(Self { code: *code, subcode: *subcode, data: data.to_vec() })
            }
            _ => None,
        }
    }

    /// Does it say that the peer has no use for a capability or an optional parameter, so that the next OPEN should do
    /// without? Source: RFC 5492 §3, §5.
    #[must_use]
    pub fn refuses_capabilities(&self) -> bool {
        matches!((self.code, self.subcode), (2, 4 | 7))
    }

    /// The text that came with a Cease 6/2 or 6/4. A length that does not fit or octets that are not UTF-8 are shown as well
    /// as can be, since they say nothing about the session's health. Source: RFC 9003 §3.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'_, str>> {
        if self.code != CEASE || !CEASE_WITH_TEXT.contains(&self.subcode) {
            return None;
        }
        let (&len, rest) = self.data.split_first()?;
        let text = &rest[..rest.len().min(usize::from(len))];
        (!text.is_empty()).then(|| String::from_utf8_lossy(text))
    }

    /// The RFC's name for code and subcode.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.code, self.subcode) {
            (1, 1) => "Connection Not Synchronized",
            (1, 2) => "Bad Message Length",
            (1, 3) => "Bad Message Type",
            (1, _) => "Message Header Error",
            (2, 1) => "Unsupported Version Number",
            (2, 2) => "Bad Peer AS",
            (2, 3) => "Bad BGP Identifier",
            (2, 4) => "Unsupported Optional Parameter",
            (2, 6) => "Unacceptable Hold Time",
            (2, 7) => "Unsupported Capability",
            (2, 11) => "Role Mismatch",
            (2, _) => "OPEN Message Error",
            (3, 1) => "Malformed Attribute List",
            (3, 2) => "Unrecognized Well-known Attribute",
            (3, 3) => "Missing Well-known Attribute",
            (3, 4) => "Attribute Flags Error",
            (3, 5) => "Attribute Length Error",
            (3, 6) => "Invalid ORIGIN Attribute",
            (3, 8) => "Invalid NEXT_HOP Attribute",
            (3, 9) => "Optional Attribute Error",
            (3, 10) => "Invalid Network Field",
            (3, 11) => "Malformed AS_PATH",
            (3, _) => "UPDATE Message Error",
            (4, _) => "Hold Timer Expired",
            (5, 1) => "Receive Unexpected Message in OpenSent State",
            (5, 2) => "Receive Unexpected Message in OpenConfirm State",
            (5, 3) => "Receive Unexpected Message in Established State",
            (5, _) => "Finite State Machine Error",
            (6, 1) => "Maximum Number of Prefixes Reached",
            (6, 2) => "Administrative Shutdown",
            (6, 3) => "Peer De-configured",
            (6, 4) => "Administrative Reset",
            (6, 5) => "Connection Rejected",
            (6, 6) => "Other Configuration Change",
            (6, 7) => "Connection Collision Resolution",
            (6, 8) => "Out of Resources",
            (6, 9) => "Hard Reset",
            (6, 10) => "BFD Down",
            (6, _) => "Cease",
            (7, 1) => "Invalid Message Length",
            (7, _) => "ROUTE-REFRESH Message Error",
            (8, _) => "Send Hold Timer Expired",
            _ => "unknown error code",
        }
    }

    pub(super) fn encode_body(&self, out: &mut bytes::BytesMut) {
        out.extend_from_slice(&[self.code, self.subcode]);
        let room = super::MESSAGE_LEN_MAX - super::NOTIFICATION_LEN_MIN;
        out.extend_from_slice(&self.data[..self.data.len().min(room)]);
    }

    pub(super) fn decode_body(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => Self { code: *code, subcode: *subcode, data: data.to_vec() },
            _ => Self::new(0, 0), // shorter ones fail the header's length check
        }
    }
}

/// Length octet and text, cut at a character so that it fits.
fn shutdown_text(reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(SHUTDOWN_TEXT_LEN_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut data = Vec::with_capacity(end + 1);
    data.push(u8::try_from(end).unwrap_or(u8::MAX));
    data.extend_from_slice(&reason.as_bytes()[..end]);
    data
}

/// Code, subcode, the RFC's name, and the peer's text if there is one: `6/2 Administrative Shutdown ("going down")`.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.code, self.subcode, self.name())?;
        if let Some(text) = self.text() {
            write!(f, " ({text:?})")?;
        }
        if let Some(wrapped) = self.wrapped().filter(|w| w.wrapped().is_none()) {
            write!(f, " of {wrapped}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notification_reads_as_words() {
        for (notification, want) in [
            (Notification::bad_peer_as(), "2/2 Bad Peer AS"),
            (Notification::hold_timer_expired(), "4/0 Hold Timer Expired"),
            (Notification::shutdown("node drained"), "6/2 Administrative Shutdown (\"node drained\")"),
            (Notification::shutdown(""), "6/2 Administrative Shutdown"),
            (Notification { code: 6, subcode: 4, data: vec![9, b'a'] }, "6/4 Administrative Reset (\"a\")"),
            (Notification { code: 6, subcode: 2, data: vec![1, 0xff] }, "6/2 Administrative Shutdown (\"\u{fffd}\")"),
            (Notification { code: 6, subcode: 3, data: vec![1, b'a'] }, "6/3 Peer De-configured"),
            (
                Notification::shutdown("drained").into_hard_reset(),
                "6/9 Hard Reset of 6/2 Administrative Shutdown (\"drained\")",
            ),
            (Notification::bfd_down().into_hard_reset().into_hard_reset(), "6/9 Hard Reset"),
            (Notification::new(99, 7), "99/7 unknown error code"),
        ] {
            assert_eq!(notification.to_string(), want);
        }
    }

    #[test]
    fn shutdown_text_is_cut_at_a_character() {
        let long = format!("{}é", "x".repeat(SHUTDOWN_TEXT_LEN_MAX - 1));
        let notification = Notification::shutdown(&long);
        assert_eq!(notification.data.len(), SHUTDOWN_TEXT_LEN_MAX);
        assert_eq!(notification.text().unwrap(), "x".repeat(SHUTDOWN_TEXT_LEN_MAX - 1));
    }
}
