use ferrocast_core::{actor::Supervisor, announce::*};
use std::{
    collections::BTreeSet,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    pub dir: PathBuf,
    pub uids: BTreeSet<u32>,
    pub node: Arc<str>,
    pub epoch: NonZeroU64,
    pub orphan_hold_s: u32,
    pub host_version: &'static str,
    pub protocol: Option<(u32, u32)>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginState {
    Connected,
}
impl PluginState {
    pub fn code(&self) -> &'static str {
        ""
    }
}
pub struct PluginInfo {
    pub state: PluginState,
    pub since: SystemTime,
    pub problem: String,
    pub protocol: Option<u32>,
    pub plugin_version: String,
}
pub struct RemoteAnnouncer;
impl RemoteAnnouncer {
    pub fn start(_: &mut Supervisor, _: Arc<str>, _: RemoteSettings) -> Arc<Self> {
        Arc::new(Self)
    }
    pub fn info(&self) -> watch::Receiver<Arc<PluginInfo>> {
        todo!()
    }
}
#[async_trait::async_trait]
impl Announcer for RemoteAnnouncer {
    fn name(&self) -> &str {
        ""
    }
    fn capabilities(&self) -> Capabilities {
        todo!()
    }
    async fn apply(&self, _: Arc<Desired>) -> Result<(), AnnounceError> {
        todo!()
    }
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        todo!()
    }
    async fn shutdown(&self, _: Shutdown, _: Duration) {}
}
pub fn check_dir(_: &Path) -> Result<(), std::io::Error> {
    Ok(())
}
