//! An announcer that speaks to a plugin outside of this process.
//!
//! The plugin listens on `DIR/NAME.sock`; [`RemoteAnnouncer`] dials, says what is wanted, and reports what the plugin tells.
//! Whatever the plugin does (it is missing, hangs, floods, lies) costs itself and nobody else, and is seen in [`PluginInfo`].
mod codec;
mod connection;
mod dialogue;
mod filter;
mod info;
mod link;
mod place;
#[cfg(test)]
mod tests;

pub use info::{PluginInfo, PluginState};
pub use place::{DirError, check_dir, own_uid};

use std::{
    collections::BTreeSet,
    num::NonZeroU64,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ferrocast_core::{
    actor::{Child, RestartPolicy, Supervisor},
    announce::{AnnounceError, Announcer, Capabilities, Desired, Observed, Shutdown},
};
use ferrocast_plugin_proto::{CONFIGURATION_LEN_MAX, configuration_fits};
use tokio::{sync::watch, time::Instant};

use link::Link;

/// How plugins are found, and what they are told about this speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Where the sockets are.
    pub dir: PathBuf,
    /// Users that may run plugins; see [`default_uids`].
    pub uids: BTreeSet<u32>,
    /// The Node that the speaker runs on.
    pub node: Arc<str>,
    /// Random, one per process.
    pub epoch: NonZeroU64,
    /// How long a plugin should keep what it announces when this process is lost, seconds.
    pub orphan_hold_s: u32,
    /// Version of this program, for people.
    pub host_version: &'static str,
    /// The protocol numbers that the plugin's class allows, lowest and highest; `None`: all.
    pub protocol: Option<(u32, u32)>,
}

/// Root, and this process's own user.
#[must_use]
pub fn default_uids() -> BTreeSet<u32> {
    [0, own_uid()].into()
}

/// One plugin, as an announcer.
#[derive(Debug)]
pub struct RemoteAnnouncer {
    name: Arc<str>,
    desired: watch::Sender<Arc<Desired>>,
    observed: watch::Sender<Arc<Observed>>,
    info: watch::Sender<Arc<PluginInfo>>,
    command: watch::Sender<Option<(Shutdown, Instant)>>,
    link: Child,
    stopped: AtomicBool,
}

impl RemoteAnnouncer {
    /// Starts the actor that dials the plugin of this name, and dials it again, for as long as it lives.
    pub fn start(supervisor: &mut Supervisor, name: Arc<str>, settings: RemoteSettings) -> Arc<Self> {
        let desired = watch::Sender::new(Arc::<Desired>::default());
        let observed = watch::Sender::new(Arc::<Observed>::default());
        let info = watch::Sender::new(Arc::<PluginInfo>::default());
        let command = watch::Sender::new(None);
        let link = Link::new(
            name.clone(),
            Arc::new(settings),
            desired.subscribe(),
            command.subscribe(),
            observed.clone(),
            info.clone(),
        );
        let link = supervisor.spawn(link, RestartPolicy::EXPENDABLE);
        Arc::new(Self { name, desired, observed, info, command, link, stopped: AtomicBool::new(false) })
    }

    /// What is known of the plugin.
    #[must_use]
    pub fn info(&self) -> watch::Receiver<Arc<PluginInfo>> {
        self.info.subscribe()
    }
}

#[async_trait]
impl Announcer for RemoteAnnouncer {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.info.borrow().capabilities
    }

    async fn apply(&self, desired: Arc<Desired>) -> Result<(), AnnounceError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(AnnounceError::Stopped);
        }
        if !configuration_fits(&desired.configuration) {
            let longest = desired.configuration.entries.iter().max_by_key(|(_, entry)| entry.value.len());
            let entry = longest.map(|(name, _)| name.to_string()).unwrap_or_default();
            let reason = format!("the configuration is longer than {CONFIGURATION_LEN_MAX} octets");
            return Err(AnnounceError::Configuration { entry, reason });
        }
        self.desired.send_if_modified(|now| {
            let new = !Arc::ptr_eq(now, &desired) && **now != *desired;
            if new {
                *now = desired;
            }
            new
        });
        Ok(())
    }

    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.subscribe()
    }

    /// Tells the plugin, if it is connected, and waits for its good-bye; one that shall withdraw is dialled once more if it is not.
    /// One that cannot be told keeps what it announces for its orphan hold, and withdraws then.
    async fn shutdown(&self, how: Shutdown, deadline: Duration) {
        self.stopped.store(true, Ordering::Release);
        self.command.send_replace(Some((how, Instant::now() + deadline)));
        if tokio::time::timeout(deadline, self.link.stopped()).await.is_err() {
            tracing::warn!(announcer = %self.name, ?deadline, "the plugin has not said good-bye in time");
        }
        self.link.stop();
    }
}
