//! The session state machine, without I/O (RFC 4271 §8).
//!
//! Events and the time go in, actions come out; [`Session::next_deadline`] says when to come back. One file per state.
//! Differences from the RFC's text, all on the side of calm: a failed attempt goes to Idle and waits there with an
//! exponential, jittered delay (the RFC's DampPeerOscillations), and only a session that stayed up clears that delay.
mod active;
mod connect;
mod established;
mod idle;
mod open_confirm;
mod open_sent;
mod session;

pub use session::Session;

use std::{
    fmt,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    family::{Families, Family},
    wire::{Capability, DecodeError, GracefulRestart, Message, Notification, Role},
};

/// Hold time while the peer's OPEN is awaited. Source: RFC 4271 §8.2.2 ("large").
pub const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);
/// Shortest time between two answers to ROUTE-REFRESH for one family: a peer that asks in a loop costs one full table per so
/// many seconds.
pub const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Session state. Source: RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No attempt is running; perhaps one is waiting for its time.
    #[default]
    Idle,
    /// The TCP connection is being set up.
    Connect,
    /// Waiting for the peer to dial (passive side).
    Active,
    /// OPEN sent, the peer's awaited.
    OpenSent,
    /// OPENs agree, the peer's KEEPALIVE is awaited.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Who opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We dial.
    Active,
    /// We are dialled, again and again.
    Listening,
    /// We are dialled; an ended session is not tried again.
    Passive,
}

/// Which AS the peer may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAs {
    /// This one.
    Exactly(u32),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
    /// Any.
    Any,
}

impl PeerAs {
    fn allows(self, theirs: u32, ours: u32) -> bool {
        match self {
            Self::Exactly(asn) => theirs == asn,
            Self::Internal => theirs == ours,
            Self::External => theirs != ours,
            Self::Any => true,
        }
    }
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Wait after the first failure; doubles with each.
    pub delay_min: Duration,
    /// Upper bound of the wait, before jitter.
    pub delay_max: Duration,
    /// A session that was Established for so long makes the next wait the shortest again. Merely to become Established does
    /// not: a peer that accepts and then drops us would be dialled in a tight loop.
    pub stable_after: Duration,
    /// Longest wait for TCP to connect.
    pub connect_timeout: Duration,
}

impl Default for Retry {
    /// One second, doubled up to 30 s (a router that comes back is found within that time), stable after 30 s; 5 s to connect
    /// (a neighbour answers in milliseconds or is not there).
    fn default() -> Self {
        Self {
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_secs(30),
            stable_after: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Local settings of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who dials.
    pub mode: Mode,
    /// Our AS.
    pub local_as: u32,
    /// The peer's AS.
    pub peer_as: PeerAs,
    /// Offered hold time: 0 or 3..=65535 whole seconds.
    pub hold_time: Duration,
    /// Wanted time between KEEPALIVEs; never more than a third of the hold time agreed upon.
    pub keepalive_time: Duration,
    /// Families that we offer.
    pub families: Families,
    /// Offer to announce IPv4 routes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// How long the peer should keep our routes over a restart, whole seconds (RFC 4724); `None`: graceful restart is not
    /// offered.
    pub restart_time_s: Option<u16>,
    /// The peer may have routes of an earlier process of ours: the first OPENs say so, until a session is Established.
    pub restarting: bool,
    /// Our role (RFC 9234); `None`: not said.
    pub role: Option<Role>,
    /// When to try again.
    pub retry: Retry,
}

impl Config {
    /// Everything else as RFC 4271 suggests: both families, 90 s, no option on.
    #[must_use]
    pub fn new(mode: Mode, local_as: u32, peer_as: PeerAs) -> Self {
        Self {
            mode,
            local_as,
            peer_as,
            hold_time: Duration::from_secs(90),
            keepalive_time: Duration::from_secs(30),
            families: Families::ALL,
            extended_next_hop: false,
            restart_time_s: None,
            restarting: false,
            role: None,
            retry: Retry::default(),
        }
    }
}

/// The present, as the state machine needs it: the time, and a number at random for jitter. A test passes what it likes.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now; never earlier than in the call before.
    pub now: Instant,
    /// Uniformly distributed.
    pub random: u32,
}

impl Moment {
    /// `duration` shortened by up to a quarter at random. Source: RFC 4271 §10.
    #[must_use]
    pub fn jittered(&self, duration: Duration) -> Duration {
        duration.mul_f64(1.0 - f64::from(self.random) / f64::from(u32::MAX) / 4.0)
    }
}

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The session is wanted.
    Start,
    /// The session is not wanted any more; the peer is told this.
    Stop(Notification),
    /// The session is not wanted any more; the peer is told nothing, so that it keeps our routes (RFC 4724).
    Leave,
    /// Something outside (BFD, say) shows that the session is of no use; the peer is told this, and tried again.
    Fault(Notification),
    /// TCP is up; the identifier may depend on the connection's address.
    Connected {
        /// Our BGP identifier, not zero.
        id: Ipv4Addr,
    },
    /// The peer has dialled. Heeded in Connect (dialling is given up) and Active; see [`Session::accepts`].
    Accepted {
        /// Our BGP identifier, not zero.
        id: Ipv4Addr,
    },
    /// TCP could not be set up.
    ConnectFailed,
    /// TCP has ended.
    Closed,
    /// A message was decoded.
    Received(Message<'a>),
    /// What came is not a message.
    Malformed(DecodeError),
    /// Nothing could be written for the send-hold time (RFC 9687).
    SendHoldExpired,
    /// Time has passed.
    Tick,
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the TCP connection.
    Dial,
    /// Queue this message; never an UPDATE.
    Send(Message<'static>),
    /// Send what is queued, then close TCP (or give up dialling).
    Close,
    /// Close TCP at once: the peer does not read.
    Abort,
    /// The session is Established: UPDATEs may be sent from here on.
    Up(Box<Negotiated>),
    /// The attempt or session has ended: no UPDATE may be sent from here on.
    Down(Down),
    /// The peer asks for every route of this family again.
    Resend(Family),
}

/// Why an attempt or a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// TCP could not be set up.
    ConnectFailed,
    /// TCP could not be set up in time.
    ConnectTimeout,
    /// TCP ended without a word.
    Closed,
    /// We sent this.
    Sent(Notification),
    /// The peer sent this.
    Received(Notification),
    /// The session is not wanted any more.
    Stopped(Notification),
    /// Closed from our side without a word.
    Left,
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailed => f.write_str("could not connect"),
            Self::ConnectTimeout => f.write_str("could not connect in time"),
            Self::Closed => f.write_str("the peer closed the connection"),
            Self::Sent(n) => write!(f, "sent NOTIFICATION {n}"),
            Self::Received(n) => write!(f, "received NOTIFICATION {n}"),
            Self::Stopped(n) => write!(f, "stopped: {n}"),
            Self::Left => f.write_str("closed without NOTIFICATION, so that the peer keeps the routes"),
        }
    }
}

/// What the two OPENs agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS.
    pub peer_as: u32,
    /// The peer's BGP identifier.
    pub peer_id: Ipv4Addr,
    /// Our BGP identifier.
    pub local_id: Ipv4Addr,
    /// Both in one AS.
    pub internal: bool,
    /// Lower of the two offers; zero: no keepalives, no hold timer.
    pub hold_time: Duration,
    /// Time between our KEEPALIVEs, before jitter.
    pub keepalive_time: Duration,
    /// Families that both sides sent.
    pub families: Families,
    /// The peer understands four-octet AS numbers.
    pub as4: bool,
    /// The peer understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Both sides mark begin and end of a refresh (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// The peer takes IPv4 routes with IPv6 next hops, and we offered them (RFC 8950).
    pub extended_next_hop: bool,
    /// What the peer says of graceful restart, if we offered it too.
    pub graceful_restart: Option<GracefulRestart>,
    /// The peer's role.
    pub role: Option<Role>,
    /// All that the peer sent.
    pub capabilities: Vec<Capability>,
}

impl Negotiated {
    /// Does the peer keep our routes of the families agreed upon when TCP just ends? Source: RFC 4724 §4.2.
    #[must_use]
    pub fn keeps_routes(&self) -> bool {
        self.graceful_restart.is_some()
    }

    /// Does it keep them after a NOTIFICATION too, unless that is a hard reset? Source: RFC 8538 §4.
    #[must_use]
    pub fn keeps_routes_after_notification(&self) -> bool {
        self.graceful_restart.as_ref().is_some_and(|restart| restart.notification)
    }
}

#[cfg(test)]
mod tests;
