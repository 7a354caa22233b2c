//! One peer's session: an actor that keeps dialling and, once Established, keeps the peer's routes as desired.
mod live;
pub(crate) use live::moment;
mod report;
mod sync;

use std::sync::Arc;

use ferrocast_bgp_proto::wire::Notification;
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken},
    announce::{Desired, Observed},
    config::{Peer, PeerEndpoint},
    registry::Registry,
};
use tokio::sync::watch;

use crate::{
    announcer::{PeerSet, Tuning},
    dial::Dial,
    info::SessionInfo,
    support::support,
};
use live::Live;

/// What a session is to do.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Speak with this peer.
    Run(Arc<Peer>),
    /// The peer has left the configuration: close and end.
    Deconfigured,
    /// The speaker ends: close and end.
    ShutDown,
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
}

/// The actor of one peer.
pub(crate) struct Session {
    name: Arc<str>,
    plan: watch::Receiver<Plan>,
    shared: Shared,
}

impl Session {
    pub(crate) fn new(name: Arc<str>, plan: watch::Receiver<Plan>, shared: Shared) -> Self {
        Self { name, plan, shared }
    }

    /// What the peer is told when a session ends because of what is now planned.
    fn farewell(&self) -> Notification {
        match &*self.plan.borrow() {
            Plan::Run(_) => Notification::reset("the peer's configuration has changed"),
            Plan::Deconfigured => Notification::deconfigured(),
            Plan::ShutDown => Notification::shutdown("the speaker on this node is ending"),
        }
    }

    /// Waits, undialled, until something else is planned.
    async fn park(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            changed = self.plan.changed() => if changed.is_err() { stop.cancelled().await },
        }
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
            let support = support(&peer);
            for warning in &support.warnings {
                tracing::warn!(peer = %self.name, "{warning}");
            }
            match (support.dial, &peer.endpoint) {
                (Ok(()), PeerEndpoint::Address(address)) => {
                    Live::new(self, &peer, *address, support.warnings).run(&stop).await;
                }
                (Ok(()), PeerEndpoint::Interface(_)) => {
                    self.report_refused(&peer, "unnumbered peering is not supported yet", support.warnings);
                    self.park(&stop).await;
                }
                (Err(reason), _) => {
                    tracing::warn!(peer = %self.name, reason, "not dialled");
                    self.report_refused(&peer, &reason, support.warnings);
                    self.park(&stop).await;
                }
            }
        }
        self.forget();
        Ok(())
    }
}
