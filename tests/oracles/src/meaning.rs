//! What a message says, whoever read it.
use ferrocast_bgp_proto::{
    Family,
    tools::Update,
    wire::{Message, Notification, Open, RouteRefresh},
};

/// What of the session a decoder must know.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// AS numbers are four octets long (RFC 6793).
    pub as4: bool,
}

/// What one message says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a few at a time")]
pub enum Meaning {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

/// What is made of one whole message.
type Reading<T> = fn(&[u8], Session) -> Result<Option<T>, String>;

/// A decoder, and the encoder that goes with it.
pub struct Oracle {
    /// Name of the crate.
    pub name: &'static str,
    /// What one whole message says; `None`: it knows no such thing.
    pub decode: Reading<Meaning>,
    /// The same message written by its own encoder; `None`: it cannot write that.
    pub encode: Reading<Vec<u8>>,
    /// Takes from a meaning what it has no words for.
    pub blind: fn(&mut Meaning),
}

/// Every decoder that can be linked.
pub const ORACLES: [Oracle; 3] = [crate::rustbgpd::ORACLE, crate::netgauze::ORACLE, crate::bgpkit::ORACLE];

/// What Ferrocast's decoder makes of one whole message.
///
/// # Errors
/// It is refused, or is not exactly one message.
pub fn ours(octets: &[u8], session: Session) -> Result<Meaning, String> {
    let Some((message, len)) = Message::decode(octets).map_err(|e| e.to_string())? else {
        return Err("incomplete".to_owned());
    };
    if len != octets.len() {
        return Err(format!("{} octets behind the message", octets.len() - len));
    }
    Ok(match message {
        Message::Open(open) => Meaning::Open(open),
        Message::Update(body) => Meaning::Update(Update::decode(body, session.as4).map_err(|e| e.to_string())?),
        Message::Notification(notification) => Meaning::Notification(notification),
        Message::Keepalive => Meaning::Keepalive,
        Message::RouteRefresh(refresh) => Meaning::RouteRefresh(refresh),
    })
}

/// The End-of-RIB marker's family: the UPDATE says nothing, or has an empty MP_UNREACH_NLRI alone. Source: RFC 4724 §2.
pub fn mark_end_of_rib(update: &mut Update, attributes: usize, unreach: Option<Family>) {
    if update.withdrawn.is_empty() && update.reach.is_empty() {
        update.end_of_rib = match (attributes, unreach) {
            (0, _) => Some(Family::Ipv4Unicast),
            (1, family) => family,
            _ => None,
        };
    }
}
