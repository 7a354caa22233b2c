//! One peer's session: an actor that keeps a connection and, once Established, keeps the peer's routes as desired.
mod bfd;
mod collision;
mod live;
mod perform;
mod plan;
pub(crate) use live::moment;
pub(crate) use plan::{families, local_as, needs_new_session};
mod report;
mod sync;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken},
    announce::{Desired, Observed, Shutdown},
    config::{Peer, PeerEndpoint},
    registry::Registry,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    announcer::{PeerSet, Tuning},
    dial::Dial,
    discovery::Discovery,
    info::SessionInfo,
    kernel::Kernel,
    listen::ListenErrors,
    support::{lacking, support},
};
pub(crate) use bfd::BfdThread;
use live::Live;

/// Wait before an interface that could not be used is looked at again.
const INTERFACE_RETRY: Duration = Duration::from_secs(10);

/// What a session is to do.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Speak with this peer.
    Run(Arc<Peer>),
    /// The peer has left the configuration: close and end.
    Deconfigured,
    /// The speaker ends: close like this and end.
    ShutDown(Shutdown),
}

/// What every session has in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) desired: watch::Sender<Arc<Desired>>,
    pub(crate) observed: watch::Sender<Arc<Observed>>,
    pub(crate) sessions: Registry<Arc<str>, SessionInfo>,
    pub(crate) node: watch::Receiver<Arc<PeerSet>>,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) tuning: Tuning,
    /// When this process first had a peer; before that it may have waited for another speaker's end.
    pub(crate) began: Arc<OnceLock<Instant>>,
    pub(crate) bfd: BfdThread,
    pub(crate) listen_errors: watch::Sender<Arc<ListenErrors>>,
}

/// The actor of one peer.
pub(crate) struct Session {
    name: Arc<str>,
    plan: watch::Receiver<Plan>,
    /// Connections that the peer has opened.
    calls: mpsc::Receiver<TcpStream>,
    shared: Shared,
    /// State of the BFD session that was published last.
    path: Option<ferrocast_bfd::State>,
    /// It was Established once in this process: what the peer knows of us is from this process.
    known: bool,
}

impl Session {
    pub(crate) fn new(
        name: Arc<str>,
        plan: watch::Receiver<Plan>,
        calls: mpsc::Receiver<TcpStream>,
        shared: Shared,
    ) -> Self {
        Self { name, plan, calls, shared, path: None, known: false }
    }

    /// Waits, undialled, until something else is planned, or for so long.
    async fn park(&mut self, stop: &CancellationToken, longest: Option<Duration>) {
        let deadline = longest.map(|longest| Instant::now() + longest);
        tokio::select! {
            () = stop.cancelled() => {}
            changed = self.plan.changed() => if changed.is_err() { stop.cancelled().await },
            () = ferrocast_core::actor::sleep_until(deadline) => {}
        }
    }

    /// The router at the other end of an interface; `None`: something else is planned, or look again.
    async fn find(
        &mut self,
        peer: &Peer,
        interface: &Arc<str>,
        stop: &CancellationToken,
    ) -> Option<(SocketAddr, Discovery)> {
        let mut discovery = match Discovery::open(interface) {
            Ok(discovery) => discovery,
            Err(error) => {
                self.refuse(peer, &format!("interface {interface:?}: {error}"));
                self.park(stop, Some(INTERFACE_RETRY)).await;
                return None;
            }
        };
        self.report_refused(peer, &format!("no router advertisement heard on {interface} yet"));
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                _ = self.plan.changed() => { self.plan.mark_changed(); return None }
                () = discovery.changed() => {}
            }
            if let Some(remote) = discovery.neighbour(peer.port) {
                return Some((remote, discovery));
            }
        }
    }

    fn refuse(&mut self, peer: &Peer, reason: &str) {
        let known = self.shared.sessions.get(&self.name).and_then(|info| info.last_error);
        if known.as_deref() != Some(reason) {
            tracing::warn!(peer = %self.name, reason, "not dialled");
        }
        self.report_refused(peer, reason);
    }
}

impl Actor for Session {
    const NAME: &'static str = "bgp-session";

    fn instance(&self) -> String {
        self.name.to_string()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        // without a manager nobody would ever tell this session to end
        while !stop.is_cancelled() && self.plan.has_changed().is_ok() {
            let plan = self.plan.borrow_and_update().clone();
            let Plan::Run(peer) = plan else { break };
            if let Err(reason) = support(&peer).and_then(|()| lacking(&peer, Kernel::here())) {
                self.refuse(&peer, &reason);
                self.park(&stop, None).await;
                continue;
            }
            match &peer.endpoint {
                PeerEndpoint::Address(address) => {
                    let remote = SocketAddr::new(*address, peer.port);
                    Live::new(self, &peer, remote, None).run(&stop).await;
                }
                PeerEndpoint::Interface(interface) => {
                    if let Some((remote, discovery)) = self.find(&peer, interface, &stop).await {
                        Live::new(self, &peer, remote, Some(discovery)).run(&stop).await;
                    }
                }
            }
        }
        self.forget();
        Ok(())
    }
}
