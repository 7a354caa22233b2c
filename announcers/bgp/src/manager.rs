//! Keeps one session actor per peer.
use std::{collections::BTreeMap, sync::Arc};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, Child, RestartPolicy, Supervisor},
    announce::Shutdown,
    config::{Peer, PeerEndpoint},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    announcer::PeerSet,
    discovery::index_of,
    listen::{Caller, Door, Doors, Listener, on_interface},
    session::{Plan, Session, Shared},
};

/// What the announcer wants of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Follow the peers.
    Run,
    /// Close every session, like this, and end.
    ShutDown(Shutdown),
}

/// Starts, changes and ends the sessions as the peers come, change and go.
pub(crate) struct Manager {
    shared: Shared,
    peers: watch::Receiver<Arc<PeerSet>>,
    command: watch::Receiver<Command>,
    supervisor: Option<Supervisor>,
    running: BTreeMap<Arc<str>, Running>,
    /// Told to end; a peer of the same name waits for it, so that no router sees two connections of ours.
    closing: BTreeMap<Arc<str>, Child>,
    /// Tells each listener who may call. By VRF; `None`: outside of all.
    listeners: BTreeMap<Option<Arc<str>>, watch::Sender<Arc<Doors>>>,
}

struct Running {
    plan: watch::Sender<Plan>,
    inbox: mpsc::Sender<TcpStream>,
    child: Child,
}

/// Connections that wait for a session: it takes each at once.
const INBOX_LEN_MAX: usize = 1;

impl Manager {
    pub(crate) fn new(shared: Shared, peers: watch::Receiver<Arc<PeerSet>>, command: watch::Receiver<Command>) -> Self {
        Self {
            shared,
            peers,
            command,
            supervisor: None,
            running: BTreeMap::new(),
            closing: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// Makes the sessions agree with `set`; those whose peer is unchanged are not touched.
    fn reconcile(&mut self, set: &PeerSet, stop: &CancellationToken) {
        if !set.peers.is_empty() {
            self.shared.began.get_or_init(Instant::now);
        }
        self.closing.retain(|_, child| !child.is_stopped());
        let gone: Vec<_> = self.running.keys().filter(|name| !set.peers.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(running) = self.running.remove(&name) {
                running.plan.send_replace(Plan::Deconfigured);
                self.closing.insert(name, running.child);
            }
        }
        let supervisor = self.supervisor.get_or_insert_with(|| Supervisor::new(stop.clone()));
        for (name, peer) in &set.peers {
            if let Some(running) = self.running.get(name) {
                running.plan.send_if_modified(|plan| {
                    let new = !matches!(plan, Plan::Run(now) if now == peer);
                    if new {
                        *plan = Plan::Run(peer.clone());
                    }
                    new
                });
            } else if !self.closing.contains_key(name) {
                let plan = watch::Sender::new(Plan::Run(peer.clone()));
                let (inbox, calls) = mpsc::channel(INBOX_LEN_MAX);
                let session = Session::new(name.clone(), plan.subscribe(), calls, self.shared.clone());
                let child = supervisor.spawn(session, RestartPolicy::EXPENDABLE);
                self.running.insert(name.clone(), Running { plan, inbox, child });
            }
        }
        self.open_doors(set);
    }

    /// Listens in every VRF that a passive peer is in. There the others may call too: both sides may dial at once.
    fn open_doors(&mut self, set: &PeerSet) {
        let mut wanted: BTreeMap<Option<Arc<str>>, Doors> = set
            .peers
            .values()
            .filter(|peer| peer.session.passive)
            .map(|peer| (peer.vrf.clone(), Doors::new()))
            .collect();
        for (name, peer) in &set.peers {
            if let (Some(doors), Some(running)) = (wanted.get_mut(&peer.vrf), self.running.get(name))
                && let Some(caller) = expected(peer)
            {
                let (password, ao_keys) = (peer.password.clone(), peer.session.tcp_ao.clone());
                doors.insert(caller, Door { password, ao_keys, inbox: running.inbox.clone() });
            }
        }
        for device in wanted.keys().filter(|device| !self.listeners.contains_key(*device)).cloned().collect::<Vec<_>>()
        {
            let doors = watch::Sender::new(Arc::<Doors>::default());
            let errors = self.shared.listen_errors.clone();
            let listener = Listener::new(self.shared.tuning.listen_port, device.clone(), doors.subscribe(), errors);
            if let Some(supervisor) = &mut self.supervisor {
                supervisor.spawn(listener, RestartPolicy::EXPENDABLE);
                self.listeners.insert(device, doors);
            }
        }
        for (device, doors) in &self.listeners {
            doors.send_replace(Arc::new(wanted.remove(device).unwrap_or_default()));
        }
    }

    /// Waits until one of the closing sessions has ended; never, if there is none.
    async fn one_closed(closing: &BTreeMap<Arc<str>, Child>) {
        let mut ends: FuturesUnordered<_> = closing.values().map(Child::stopped).collect();
        if ends.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Tells every session to end, and waits: they bound their own time.
    async fn shut_down(&mut self, how: Shutdown) {
        for running in self.running.values() {
            running.plan.send_replace(Plan::ShutDown(how));
        }
        for child in self.running.values().map(|r| &r.child).chain(self.closing.values()) {
            child.stopped().await;
        }
    }
}

/// From where a peer would call; `None`: it cannot be told yet.
fn expected(peer: &Peer) -> Option<Caller> {
    match &peer.endpoint {
        PeerEndpoint::Address(address) => Some((*address, 0)),
        PeerEndpoint::Interface(interface) => index_of(interface).ok().map(on_interface),
    }
}

impl Actor for Manager {
    const NAME: &'static str = "bgp-manager";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        // A new incarnation's sessions hang on its own stop token; those of the last one ended with it.
        self.supervisor = None;
        self.running.clear();
        self.closing.clear();
        self.listeners.clear();
        self.peers.mark_changed();
        let mut peers_open = true;
        loop {
            let command = *self.command.borrow();
            if let Command::ShutDown(how) = command {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.shut_down(how) => {}
                }
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.peers.changed(), if peers_open => peers_open = changed.is_ok(),
                changed = self.command.changed() => changed.map_err(|_| ActorError::Upstream("bgp announcer"))?,
                () = Self::one_closed(&self.closing) => {}
            }
            let set = self.peers.borrow_and_update().clone();
            self.reconcile(&set, &stop);
        }
        // The sessions have the same token; each says goodbye by itself.
        if let Some(mut supervisor) = self.supervisor.take()
            && let Err(escalation) = supervisor.join().await
        {
            tracing::error!(%escalation, "a session gave up");
        }
        Ok(())
    }
}
