//! Drives an announcer through its contract, and says where it is wrong.
//!
//! [`run`] plays the speaker of a node: for a plugin behind its socket, with right messages and with wrong ones, through the ends of
//! either side; for an announcer of this process through the [`Announcer`] trait, as far as the checks make sense there.
mod checks;
mod direct;
mod lab;
mod look;
mod notes;
mod probe;
mod report;
mod set;
mod wire;

use std::{collections::BTreeMap, error::Error, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use ferrocast_core::announce::Announcer;

pub use checks::{names, run};
pub use probe::{Network, Probe};
pub use report::{Checked, Finding, Outcome, Report};

/// An announcer of this process, which can be started again and again.
#[async_trait]
pub trait InProcess: Send {
    /// A new one, as after a restart of its process. The one before it is gone, without having been shut down.
    ///
    /// # Errors
    /// Why it cannot start.
    async fn start(&mut self) -> Result<Arc<dyn Announcer>, Box<dyn Error + Send + Sync>>;
}

/// What is driven.
pub enum Subject {
    /// A plugin that listens on this socket.
    Socket(PathBuf),
    /// An announcer of this process.
    InProcess(Box<dyn InProcess>),
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => f.debug_tuple("Socket").field(path).finish(),
            Self::InProcess(_) => f.write_str("InProcess"),
        }
    }
}

/// How long a target may take to reach a version, unless told otherwise: what a daemon needs to read its files again, with room.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How long the network may lag behind what a plugin says, and how long a thing is watched that must not happen.
const SETTLE: Duration = Duration::from_secs(1);

/// The entries of a configuration: JSON documents by name, and whether each is a secret.
pub type Entries = BTreeMap<String, (String, bool)>;

/// How to drive it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A look at the network; without one, what the announcer says is believed.
    pub probe: Option<Probe>,
    /// A command of the shell that restarts the plugin.
    pub restart: Option<String>,
    /// The entries of its configuration.
    pub configuration: Entries,
    /// The parameters of every announcement, a JSON object; empty: none.
    pub parameters: String,
    /// How long a target may take to reach a version.
    pub time_limit: Duration,
    /// How long the network may lag behind what the announcer says, and how long a thing is watched that must not happen.
    pub settle: Duration,
    /// Only the checks of these names (and what they build upon is taken for granted); empty: all.
    pub only: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            probe: None,
            restart: None,
            configuration: BTreeMap::new(),
            parameters: String::new(),
            time_limit: TIME_LIMIT,
            settle: SETTLE,
            only: vec![],
        }
    }
}
