//! What is known of a plugin, for status, metrics and people.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use ferrocast_core::announce::Capabilities;

/// Where the connection to a plugin stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PluginState {
    /// Nothing is known yet.
    #[default]
    Connecting,
    /// Its socket does not exist.
    Missing,
    /// It is not spoken to: folder, socket, user or hello are not as they must be.
    Refused,
    /// It has said hello, and all is well.
    Connected,
    /// It does not answer in time.
    Stalled,
    /// It does not listen, or has ended the call.
    Lost,
    /// It does not keep to the protocol.
    Faulty,
    /// The speaker has said good-bye to it.
    Stopped,
}

impl PluginState {
    /// For machines; never changes.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Connected => "connected",
            Self::Stalled => "stalled",
            Self::Lost => "lost",
            Self::Faulty => "faulty",
            Self::Stopped => "stopped",
        }
    }

    /// For people: follows "the plugin".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Connecting => "has not been reached yet",
            Self::Missing => "is missing",
            Self::Refused => "is refused",
            Self::Connected => "is connected",
            Self::Stalled => "does not answer",
            Self::Lost => "is not there any more",
            Self::Faulty => "does not keep to the protocol",
            Self::Stopped => "has been told to stop",
        }
    }
}

/// What is known of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// Where the connection stands.
    pub state: PluginState,
    /// Since when.
    pub since: SystemTime,
    /// What is wrong, in words; empty: nothing.
    pub problem: String,
    /// The protocol number agreed upon, on the newest connection.
    pub protocol: Option<u32>,
    /// Version of its program, for people.
    pub plugin_version: String,
    /// What it can do, as last heard.
    pub capabilities: Capabilities,
    /// The newest generation wanted.
    pub generation: u64,
    /// The newest that was wholly sent.
    pub sent: u64,
    /// The newest that it has accepted.
    pub accepted: u64,
    /// The newest that each of its targets has reached.
    pub reached: u64,
    /// What was dropped of what it sent, by kind.
    pub dropped: BTreeMap<&'static str, u64>,
    /// The kinds of which it sends too much, or too long, since it is connected.
    pub excess: BTreeSet<&'static str>,
    /// Connections on which it has said hello.
    pub sessions: u64,
    /// Updates sent that were differences.
    pub differences: u64,
    /// Updates sent that were snapshots.
    pub snapshots: u64,
}

impl Default for PluginInfo {
    fn default() -> Self {
        Self {
            state: PluginState::default(),
            since: SystemTime::now(),
            problem: String::new(),
            protocol: None,
            plugin_version: String::new(),
            capabilities: Capabilities::default(),
            generation: 0,
            sent: 0,
            accepted: 0,
            reached: 0,
            dropped: BTreeMap::new(),
            excess: BTreeSet::new(),
            sessions: 0,
            differences: 0,
            snapshots: 0,
        }
    }
}

/// Why a connection ends, or is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) state: PluginState,
    pub(crate) words: String,
}

impl Fault {
    pub(crate) fn new(state: PluginState, words: impl Into<String>) -> Self {
        Self { state, words: words.into() }
    }

    pub(crate) fn faulty<T>(words: impl Into<String>) -> Result<T, Self> {
        Err(Self::new(PluginState::Faulty, words))
    }
}
