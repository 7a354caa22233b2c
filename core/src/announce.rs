//! The announcer port: what every way of telling the network about an address must offer.
use std::{
    borrow::Cow,
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
    /// What else the advertisement says to the announcer alone: a JSON object with sorted keys, checked against the schema of
    /// its AnnouncerClass; opaque to everybody between. `None`: nothing. Never a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Arc<str>>,
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

/// One entry of a [`Configuration`].
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// A JSON document; its shape is the announcer's own.
    pub value: Arc<str>,
    /// It contains a secret: never logged, never shown.
    pub secret: bool,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.secret { "<hidden>" } else { &self.value })
    }
}

/// What an announcer has to know besides the prefixes (for BGP: node and peers): opaque to everybody between, and versioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Grows by one per change. Zero: there is none.
    pub generation: u64,
    /// By a name that the announcer knows.
    pub entries: BTreeMap<Arc<str>, Entry>,
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
    /// What the announcer must know to announce them. In force from the same moment on; a change of it alone is a change of
    /// the set, too, and has a generation of its own.
    pub configuration: Arc<Configuration>,
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
    /// Announcements it cannot be given, with a reason: a code (for BGP: `noNextHop` …), or the words of a plugin.
    pub refused: BTreeMap<IpNet, Cow<'static, str>>,
    /// State and last error, in words.
    pub reason: String,
}

/// What an announcer has reached, per target by name.
///
/// A generation is *accepted* when the announcer has stored it, and *reached* by a target when each of its announcements is
/// announced to it, withdrawn from it, or refused with a reason. An announcer without targets of its own (there is but one
/// network) has the one target [`Observed::NETWORK`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Highest generation accepted; zero: none.
    pub accepted: u64,
    /// What keeps the announcer as a whole from working, in words (for a plugin: that it is missing, that it does not answer);
    /// empty: nothing.
    pub problem: String,
    /// The targets it knows.
    pub targets: BTreeMap<Arc<str>, TargetObserved>,
}

impl Observed {
    /// Name of the only target of an announcer that has none of its own.
    pub const NETWORK: &'static str = "network";

    /// The generation that every target has reached; zero: one has reached none, or there is no target.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.targets.values().map(|target| target.generation).min().unwrap_or(0)
    }
}

/// Whom an announcer needs elected among the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Election {
    /// Every node that may announce does.
    #[default]
    None,
    /// One node per address.
    PerAddress,
    /// One node for everything.
    PerCluster,
}

/// What an announcer can do; whoever decides asks before relying on it. What it cannot do is not asked of it: a prefix of a
/// family that it lacks, or shorter than a host route without `aggregation`, is not in its set, and the reason is told; the
/// rest is left for it to ignore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Announces IPv4 prefixes.
    pub ipv4: bool,
    /// Announces IPv6 prefixes.
    pub ipv6: bool,
    /// Announces prefixes shorter than a host route.
    pub aggregation: bool,
    /// Honours `local_pref` and `communities` of [`Terms`].
    pub attributes: bool,
    /// Honours [`Announcement::weight`].
    pub weights: bool,
    /// Honours [`AnnouncementState::Draining`]; without it a draining prefix stays active until it is withdrawn.
    pub drain: bool,
    /// Whom it needs elected. Only [`Election::None`] is served yet.
    pub election: Election,
}

impl Capabilities {
    /// Can it announce this prefix?
    ///
    /// # Errors
    /// Why not, in words.
    pub fn can_announce(&self, prefix: &IpNet) -> Result<(), &'static str> {
        match prefix {
            IpNet::V4(_) if !self.ipv4 => Err("the announcer does not announce IPv4"),
            IpNet::V6(_) if !self.ipv6 => Err("the announcer does not announce IPv6"),
            _ if prefix.prefix_len() < prefix.max_prefix_len() && !self.aggregation => {
                Err("the announcer does not announce prefixes shorter than a host route")
            }
            _ => Ok(()),
        }
    }
}

/// One route that a target would be given, for those who plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewRoute {
    /// Where the traffic is led; `None`: only the connection will tell.
    pub next_hop: Option<IpAddr>,
    /// What the target is told besides, by a name of the announcer's own, in words.
    pub attributes: BTreeMap<&'static str, String>,
}

/// By target, then prefix.
pub type Preview = BTreeMap<Arc<str>, BTreeMap<IpNet, PreviewRoute>>;

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
    /// What travels beside the set cannot be understood.
    #[error("entry {entry:?} of the configuration is not understood: {reason}")]
    Configuration {
        /// The entry.
        entry: String,
        /// For humans; quotes no secret.
        reason: String,
    },
    /// The announcer has stopped.
    #[error("announcer has stopped")]
    Stopped,
}

/// How long [`Announcer::apply`] may take. It stores a pointer; whoever does more there delays every other announcer.
pub const APPLY_MAX: Duration = Duration::from_millis(100);
/// How long an announcer may take to say good-bye; below the usual grace period of a Pod (30 s) with the drain before it.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// The lowest number of the plugin protocol that this version speaks; the crate of the protocol has the same.
pub const PROTOCOL_MIN: u32 = 1;
/// The highest.
pub const PROTOCOL_MAX: u32 = 1;

/// Makes a node's desired announcements true on the network.
///
/// The contract, beside what each method says:
///
/// - **Restart of the process.** An announcer begins with nothing desired (generation zero), and takes nothing away from the network
///   before the first [`Announcer::apply`]: that set is the whole truth, and what the network still has from before and is not
///   in it must then go. While a set is [`Desired::provisional`], nothing that the network still has is taken away for not being in it.
/// - **Loss of its network** (a session, a link, a daemon). It goes on trying for as long as it lives, with a backoff of its
///   own, tells so in [`Announcer::observe`], and brings the newest set when the network is back. No call fails for it.
/// - **Drain.** [`AnnouncementState::Draining`] means reachable, but no longer attractive; it may last for ever and be undone.
/// - **Time.** [`Announcer::apply`] returns within [`APPLY_MAX`], [`Announcer::shutdown`] within its deadline.
#[async_trait]
pub trait Announcer: Send + Sync + 'static {
    /// Stable name, e.g. `bgp`; metric label and status field. At most 63 characters, a DNS label (RFC 1123).
    fn name(&self) -> &str;

    /// What it can do. Constant for the life of the announcer, but for one that is not in this process: until it has been
    /// heard of, it can do nothing.
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

    /// The routes that each target would be given if it were up: pure, no network needed, nothing remembered. `None`: this
    /// announcer does not foretell.
    fn preview(&self, desired: &Desired, configuration: &Configuration) -> Option<Preview> {
        let _ = (desired, configuration);
        None
    }

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
