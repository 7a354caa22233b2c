//! A BGP router that only listens: for the sandbox, tests and benches.
//!
//! Accepts any peer of any AS in both families, keeps what it is told in a RIB and publishes that as a snapshot. It forwards
//! nothing and announces nothing. One actor owns the RIB; one supervised actor per connection feeds it through a bounded
//! queue, so that a peer that sends faster than the RIB grows is slowed down by TCP.
mod connection;
mod rib;

pub use rib::{Rib, RibPaths, RibPeer, RibRoute};

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ferrocast_bgp_proto::{tools::Update, wire::Notification};
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, Child, RestartPolicy, Supervisor},
    config::Password,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::{link::Wire, sockopt};
use connection::{Connection, Identity};
use rib::{Keeper, Message};

/// Connections at once; more are refused with Cease 6/8. A sandbox has some dozens of speakers.
pub const CONNECTIONS_MAX: usize = 1_024;
/// UPDATEs waiting for the RIB; beyond, the connections wait.
const QUEUE_LEN_MAX: usize = 1_024;
/// Wait after a failed accept (out of descriptors), so that it is not repeated in a tight loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// An UPDATE that has just arrived.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// From whom.
    pub peer: IpAddr,
    /// When it was taken off the socket.
    pub at: Instant,
    /// What it says.
    pub update: &'a Update,
}

/// Called for every UPDATE, on the connection's task: must be quick.
pub type ArrivalHook = Arc<dyn Fn(&Arrival<'_>) + Send + Sync>;

/// Settings of a router.
#[derive(Clone)]
pub struct RouterConfig {
    /// Where to listen; port 0: any free one.
    pub listen: SocketAddr,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub id: Ipv4Addr,
    /// Offered hold time.
    pub hold_time: Duration,
    /// TCP-MD5 keys by peer address; a peer without one is accepted unsigned.
    pub passwords: Vec<(IpAddr, Password)>,
    /// Told of every UPDATE.
    pub on_update: Option<ArrivalHook>,
    /// Keep a RIB; without, only counts (and the hook) remain.
    pub keep_rib: bool,
}

impl RouterConfig {
    /// A router of this AS on `listen`: 90 s hold time, no keys, with a RIB.
    #[must_use]
    pub fn new(listen: SocketAddr, asn: u32) -> Self {
        Self {
            listen,
            asn,
            id: Ipv4Addr::new(127, 255, 255, 254),
            hold_time: Duration::from_secs(90),
            passwords: vec![],
            on_update: None,
            keep_rib: true,
        }
    }
}

impl std::fmt::Debug for RouterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterConfig").field("listen", &self.listen).field("asn", &self.asn).finish_non_exhaustive()
    }
}

/// A running router.
#[derive(Debug)]
pub struct Router {
    address: SocketAddr,
    rib: watch::Receiver<Arc<Rib>>,
    listener: Child,
    keeper: Child,
}

impl Router {
    /// Listens and starts the router's actors under `supervisor`.
    ///
    /// # Errors
    /// The address cannot be listened on, or the kernel refuses a TCP-MD5 key.
    pub async fn start(supervisor: &mut Supervisor, config: RouterConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        for (peer, password) in &config.passwords {
            sockopt::set_md5_key(&listener, *peer, Some(password))?;
        }
        let address = listener.local_addr()?;
        let (messages, queue) = mpsc::channel(QUEUE_LEN_MAX);
        let published = watch::Sender::new(Arc::<Rib>::default());
        let rib = published.subscribe();
        let keeper = supervisor.spawn(Keeper::new(queue, published, config.keep_rib), RestartPolicy::EXPENDABLE);
        let actor = Listener { listener, config: Arc::new(config), messages, connections: None, next_id: 0 };
        let listener = supervisor.spawn(actor, RestartPolicy::EXPENDABLE);
        Ok(Self { address, rib, listener, keeper })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its RIB: always the newest, never a queue.
    #[must_use]
    pub fn rib(&self) -> watch::Receiver<Arc<Rib>> {
        self.rib.clone()
    }

    /// Closes every connection (Cease 6/2) and stops listening.
    pub async fn stop(&self) {
        self.listener.stop();
        self.listener.stopped().await;
        self.keeper.stop();
        self.keeper.stopped().await;
    }
}

struct Listener {
    listener: TcpListener,
    config: Arc<RouterConfig>,
    messages: mpsc::Sender<Message>,
    connections: Option<(Supervisor, Vec<Child>)>,
    next_id: u64,
}

impl Listener {
    fn accepted(&mut self, stream: TcpStream, peer: SocketAddr, stop: &CancellationToken) {
        let (supervisor, children) =
            self.connections.get_or_insert_with(|| (Supervisor::new(stop.child_token()), vec![]));
        children.retain(|child| !child.is_stopped());
        let refusal = (children.len() >= CONNECTIONS_MAX).then(Notification::out_of_resources);
        if children.len() >= 2 * CONNECTIONS_MAX {
            return; // even refusing takes a task
        }
        self.next_id += 1;
        let wire = Wire::new(Box::new(stream));
        let connection = Connection {
            identity: Identity {
                id: self.next_id,
                peer: peer.ip().to_canonical(),
                config: self.config.clone(),
                messages: self.messages.clone(),
            },
            wire: Some(wire),
            refusal,
        };
        children.push(supervisor.spawn(connection, RestartPolicy::EXPENDABLE));
    }
}

impl Actor for Listener {
    const NAME: &'static str = "bgp-router";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        self.connections = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.accepted(stream, peer, &stop),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::select! {
                            () = stop.cancelled() => break,
                            () = tokio::time::sleep(ACCEPT_RETRY) => {}
                        }
                    }
                },
            }
        }
        if let Some((mut supervisor, _)) = self.connections.take()
            && let Err(escalation) = supervisor.join().await
        {
            tracing::error!(%escalation, "a connection gave up");
        }
        Ok(())
    }
}
