//! The announcer port: what every way of telling the network about an address must offer.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::ServiceKey;

/// A BGP community as configured: standard (RFC 1997) or large (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Community {
    /// Two 16-bit halves, written `a:b`.
    Standard(u16, u16),
    /// Three 32-bit parts, written `large:a:b:c`.
    Large(u32, u32, u32),
}

/// An extended community, as its eight octets stand on the wire. Source: RFC 4360.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// Where an announcement stands in its life.
///
/// "Stop attracting new traffic, keep what you have" (`Draining`) and "withdraw" are different states of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AnnouncementState {
    /// Attract traffic.
    #[default]
    Active,
    /// Still reachable here, but tell the network to prefer others (for BGP: RFC 8326 graceful shutdown).
    Draining,
    /// Not announced any more. A prefix absent from [`Desired`] means the same; this state exists to carry a reason.
    Withdrawn,
}

/// How one advertisement wants a prefix announced; several may apply to one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Terms {
    /// Name of the BGPAdvertisement, for what a target's own configuration says about it.
    pub advertisement: Arc<str>,
    /// Targets (BGPPeer names) it goes to; `None` = all.
    pub targets: Option<BTreeSet<Arc<str>>>,
    /// BGP LOCAL_PREF for internal peers (RFC 4271 §5.1.5); `None` = the announcer's default.
    pub local_pref: Option<u32>,
    /// Communities to attach.
    pub communities: BTreeSet<Community>,
}

/// One prefix that this node should announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Active, draining or withdrawn.
    pub state: AnnouncementState,
    /// The advertisements that apply, in order of their names, duplicates removed. Shared between announcements with equal
    /// terms, so that comparing by pointer first is worth while. A target receives the prefix if any of them names it; its
    /// communities are the union over those, its local preference is the first that is set.
    pub terms: Arc<[Terms]>,
    /// Services on whose behalf it is announced; never empty.
    pub services: Arc<BTreeSet<ServiceKey>>,
    /// This node's share of the traffic in relation to other nodes', rounded so that few values are in use: the ready endpoints
    /// here of Services with `externalTrafficPolicy: Local`. `None`: every node is worth the same, or nobody weighs.
    pub weight: Option<NonZeroU32>,
}

/// The complete set of prefixes that this node should announce: an immutable snapshot with structural sharing, so that
/// cloning is O(1) and `older.announcements.diff(&newer.announcements)` costs what changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Grows by one per change; lets an observer say how far it got. Zero: nothing decided yet.
    pub generation: u64,
    /// What was announced before a restart, in force until the first decision: the network must not take it for complete (for
    /// BGP: no End-of-RIB, RFC 4724 §4.1).
    pub provisional: bool,
    /// By prefix, masked to its length.
    pub announcements: OrdMap<IpNet, Arc<Announcement>>,
}

/// How far one target (for BGP: a peer) has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetObserved {
    /// The target can take announcements now (for BGP: Established).
    pub up: bool,
    /// Highest generation wholly handed over to it; zero: none on this connection.
    pub generation: u64,
    /// Announcements it has now.
    pub announced: usize,
    /// Announcements it cannot be given, with a reason code (e.g. `noNextHop`).
    pub refused: BTreeMap<IpNet, &'static str>,
    /// State and last error, in words.
    pub reason: String,
}

/// What an announcer has reached, per target by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The targets it knows.
    pub targets: BTreeMap<Arc<str>, TargetObserved>,
}

/// What an announcer can do; whoever decides asks before relying on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Announces IPv4 prefixes.
    pub ipv4: bool,
    /// Announces IPv6 prefixes.
    pub ipv6: bool,
    /// Announces prefixes shorter than a host route.
    pub aggregation: bool,
    /// Honours [`AnnouncementState::Draining`]; without it a draining prefix stays active until it is withdrawn.
    pub drain: bool,
}

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Withdraw everything, tell the targets why, close.
    Withdraw,
    /// Close without withdrawing where the network can keep the routes for a restart (for BGP: RFC 4724).
    Keep,
}

/// Why a desired set was not accepted. The previous one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// Try the same set again after this long.
    #[error("announcer not ready, retry after {after:?}")]
    NotReady {
        /// Suggested wait.
        after: Duration,
    },
    /// This set can never be accepted.
    #[error("prefix {prefix} cannot be announced: {reason}")]
    Rejected {
        /// The offending prefix.
        prefix: IpNet,
        /// For humans.
        reason: String,
    },
    /// The announcer has stopped.
    #[error("announcer has stopped")]
    Stopped,
}

/// Makes a node's desired announcements true on the network.
#[async_trait]
pub trait Announcer: Send + Sync + 'static {
    /// Stable name, e.g. `bgp`; metric label and status field.
    fn name(&self) -> &'static str;

    /// What it can do. Constant for the life of the announcer.
    fn capabilities(&self) -> Capabilities;

    /// Replaces the announced set with `desired`.
    ///
    /// Level-triggered: always the whole set, so a repeat is a no-op and a lost call is healed by the next. Returns once
    /// the set is accepted, which takes no I/O; convergence is reported through [`Announcer::observe`]. A slow or dead
    /// target delays neither this call nor any other target.
    ///
    /// # Errors
    /// See [`AnnounceError`]; on error the previous set stays announced.
    async fn apply(&self, desired: Arc<Desired>) -> Result<(), AnnounceError>;

    /// Latest progress; never blocks, never queues.
    fn observe(&self) -> watch::Receiver<Arc<Observed>>;

    /// Ends all announcing in order, within `deadline`. After it returns, [`Announcer::apply`] answers
    /// [`AnnounceError::Stopped`].
    async fn shutdown(&self, how: Shutdown, deadline: Duration);
}

/// Whether `ip` could ever be announced: unicast, not loopback, not link-local, not unspecified.
#[must_use]
pub fn is_announceable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcer_is_object_safe() {
        fn takes(_: Option<Arc<dyn Announcer>>) {}
        takes(None);
    }
}
