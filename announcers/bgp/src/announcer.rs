//! The [`Announcer`] itself: hands snapshots on, owns nothing that can block.
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ferrocast_bgp_proto::fsm::Retry;
use ferrocast_core::{
    actor::{Child, RestartPolicy, Supervisor},
    announce::{
        AnnounceError, Announcer, Capabilities, Configuration, Desired, Election, Entry, Observed, Preview, Shutdown,
    },
    config::Peer,
    registry::Registry,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use crate::{
    dial::{Dial, TcpDial},
    info::SessionInfo,
    manager::{Command, Manager},
    session::{BfdThread, Shared},
};

/// The peers of this node, and what of the node its sessions need.
///
/// It reaches the announcer as the entries [`PeerSet::NODE`] and [`PeerSet::PEERS`] of its [`Configuration`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSet {
    /// The node's name.
    pub node_name: Arc<str>,
    /// The Node's addresses of type InternalIP, in their order.
    pub internal_ips: Vec<IpAddr>,
    /// By name; only those that select this node.
    pub peers: BTreeMap<Arc<str>, Arc<Peer>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeEntry {
    name: Arc<str>,
    internal_ips: Vec<IpAddr>,
}

impl PeerSet {
    /// The entry about the node: `{"name", "internalIps": [...]}`.
    pub const NODE: &'static str = "node";
    /// The entry with the peers, a list: secret, because passwords are in it.
    pub const PEERS: &'static str = "peers";

    /// As entries of a configuration.
    ///
    /// # Panics
    /// Never: names, addresses and numbers can be written as JSON.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<Arc<str>, Entry> {
        let node = NodeEntry { name: self.node_name.clone(), internal_ips: self.internal_ips.clone() };
        let node = serde_json::to_string(&node).expect("names and addresses are JSON");
        let peers: Vec<&Peer> = self.peers.values().map(|peer| &**peer).collect();
        let peers = serde_json::to_string(&peers).expect("a peer has no map with keys that are not text");
        let entry = |value: String, secret| Entry { value: value.into(), secret };
        [(Self::NODE.into(), entry(node, false)), (Self::PEERS.into(), entry(peers, true))].into()
    }

    /// What a configuration says; entries that it lacks say nothing.
    ///
    /// # Errors
    /// [`AnnounceError::Configuration`] names the entry that cannot be read.
    pub fn read(configuration: &Configuration) -> Result<Self, AnnounceError> {
        let node: Option<NodeEntry> = read_entry(configuration, Self::NODE)?;
        let peers: Vec<Peer> = read_entry(configuration, Self::PEERS)?.unwrap_or_default();
        let (node_name, internal_ips) = node.map(|node| (node.name, node.internal_ips)).unwrap_or_default();
        let peers = peers.into_iter().map(|peer| (peer.name.clone(), Arc::new(peer))).collect();
        Ok(Self { node_name, internal_ips, peers })
    }
}

fn read_entry<T: DeserializeOwned>(configuration: &Configuration, name: &str) -> Result<Option<T>, AnnounceError> {
    let Some(entry) = configuration.entries.get(name) else { return Ok(None) };
    // What serde says about a value that it does not like may quote it.
    let reason = |error: serde_json::Error| match entry.secret {
        true => format!("line {}, column {}: not what is expected there", error.line(), error.column()),
        false => error.to_string(),
    };
    let read = serde_json::from_str(&entry.value);
    read.map(Some).map_err(|error| AnnounceError::Configuration { entry: name.into(), reason: reason(error) })
}

/// What no peer's configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// When to dial again.
    pub retry: Retry,
    /// Where passive peers are expected.
    pub listen_port: u16,
    /// How long peers with graceful restart should keep our routes when a session ends, whole seconds up to
    /// [`RESTART_TIME_MAX_S`](ferrocast_bgp_proto::wire::RESTART_TIME_MAX_S).
    pub restart_time_s: u16,
}

/// The well-known BGP port.
const LISTEN_PORT: u16 = 179;
/// Long enough for an image to be pulled and a pod to start; what routers take as their default, too.
pub const RESTART_TIME_S: u16 = 120;

impl Default for Tuning {
    fn default() -> Self {
        Self { retry: Retry::default(), listen_port: LISTEN_PORT, restart_time_s: RESTART_TIME_S }
    }
}

/// Speaks BGP with every peer of this node.
pub struct BgpAnnouncer {
    desired: watch::Sender<Arc<Desired>>,
    peers: watch::Sender<Arc<PeerSet>>,
    observed: watch::Sender<Arc<Observed>>,
    sessions: Registry<Arc<str>, SessionInfo>,
    command: watch::Sender<Command>,
    manager: Child,
    bfd: BfdThread,
    stopped: AtomicBool,
}

impl std::fmt::Debug for BgpAnnouncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BgpAnnouncer").field("sessions", &self.sessions.all().len()).finish_non_exhaustive()
    }
}

impl BgpAnnouncer {
    /// Starts the manager under `supervisor`; it keeps one session per peer of the newest `peers`, which are replaced by those
    /// of the configuration that travels with the desired set, if there is one.
    ///
    /// Nothing is announced, and no End-of-RIB sent, before the first [`Announcer::apply`] with a generation above zero.
    pub fn start(supervisor: &mut Supervisor, peers: watch::Sender<Arc<PeerSet>>, tuning: Tuning) -> Arc<Self> {
        Self::start_with(supervisor, peers, tuning, Arc::new(TcpDial))
    }

    /// [`BgpAnnouncer::start`] with another way to reach the peers.
    pub fn start_with(
        supervisor: &mut Supervisor,
        peers: watch::Sender<Arc<PeerSet>>,
        tuning: Tuning,
        dial: Arc<dyn Dial>,
    ) -> Arc<Self> {
        let desired = watch::Sender::new(Arc::<Desired>::default());
        let observed = watch::Sender::new(Arc::<Observed>::default());
        let sessions = Registry::default();
        let command = watch::Sender::new(Command::Run);
        let bfd = BfdThread::default();
        let shared = Shared {
            desired: desired.clone(),
            observed: observed.clone(),
            sessions: sessions.clone(),
            node: peers.subscribe(),
            dial,
            tuning,
            began: Arc::new(OnceLock::new()),
            bfd: bfd.clone(),
            listen_errors: watch::Sender::new(Arc::default()),
        };
        let manager = Manager::new(shared, peers.subscribe(), command.subscribe());
        let manager = supervisor.spawn(manager, RestartPolicy::VITAL);
        Arc::new(Self { desired, peers, observed, sessions, command, manager, bfd, stopped: AtomicBool::new(false) })
    }

    /// What is known about every session, by peer name. A clone: nothing is held.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.sessions.all().into_iter().map(|(_, info)| info).collect()
    }

    /// What is known about the session with the peer of this name.
    #[must_use]
    pub fn session(&self, peer: &Arc<str>) -> Option<SessionInfo> {
        self.sessions.get(peer)
    }
}

#[async_trait]
impl Announcer for BgpAnnouncer {
    fn name(&self) -> &str {
        "bgp"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            ipv4: true,
            ipv6: true,
            aggregation: true,
            attributes: true,
            weights: true,
            drain: true,
            election: Election::None,
        }
    }

    async fn apply(&self, desired: Arc<Desired>) -> Result<(), AnnounceError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(AnnounceError::Stopped);
        }
        if desired.configuration.generation > 0
            && !Arc::ptr_eq(&self.desired.borrow().configuration, &desired.configuration)
        {
            let set = PeerSet::read(&desired.configuration)?;
            self.peers.send_if_modified(|now| {
                let new = **now != set;
                if new {
                    *now = Arc::new(set);
                }
                new
            });
        }
        let accepted = desired.generation;
        self.desired.send_if_modified(|now| {
            let new = !Arc::ptr_eq(now, &desired) && **now != *desired;
            if new {
                *now = desired;
            }
            new
        });
        self.observed.send_if_modified(|observed| {
            let new = observed.accepted != accepted;
            if new {
                Arc::make_mut(observed).accepted = accepted;
            }
            new
        });
        Ok(())
    }

    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.subscribe()
    }

    fn preview(&self, desired: &Desired, configuration: &Configuration) -> Option<Preview> {
        let set = PeerSet::read(configuration).ok()?;
        Some(crate::preview::of_set(desired, &set))
    }

    /// Ends every session at once. [`Shutdown::Keep`]: peers with which graceful restart is agreed upon (RFC 4724) just see TCP
    /// end, and keep the routes. All others, and with [`Shutdown::Withdraw`] these too, are sent withdrawals and
    /// "administrative shutdown" (6/2), as a hard reset (6/9) where a NOTIFICATION alone would not end the routes (RFC 8538).
    async fn shutdown(&self, how: Shutdown, deadline: Duration) {
        self.stopped.store(true, Ordering::Release);
        tracing::info!(?how, "closing every session");
        self.command.send_replace(Command::ShutDown(how));
        let ended = async {
            self.manager.stopped().await;
            self.bfd.close().await;
        };
        if tokio::time::timeout(deadline, ended).await.is_err() {
            tracing::warn!(?deadline, "not every session closed in time");
        }
        self.manager.stop();
    }
}
