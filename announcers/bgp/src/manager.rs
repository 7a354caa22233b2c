//! Keeps one session actor per peer.
use std::{collections::BTreeMap, sync::Arc};

use ferrocast_core::actor::{Actor, ActorError, CancellationToken, Child, RestartPolicy, Supervisor};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::watch;

use crate::{
    announcer::PeerSet,
    session::{Plan, Session, Shared},
};

/// What the announcer wants of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Follow the peers.
    Run,
    /// Close every session and end.
    ShutDown,
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
}

struct Running {
    plan: watch::Sender<Plan>,
    child: Child,
}

impl Manager {
    pub(crate) fn new(shared: Shared, peers: watch::Receiver<Arc<PeerSet>>, command: watch::Receiver<Command>) -> Self {
        Self { shared, peers, command, supervisor: None, running: BTreeMap::new(), closing: BTreeMap::new() }
    }

    /// Makes the sessions agree with `set`; those whose peer is unchanged are not touched.
    fn reconcile(&mut self, set: &PeerSet, stop: &CancellationToken) {
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
                let session = Session::new(name.clone(), plan.subscribe(), self.shared.clone());
                let child = supervisor.spawn(session, RestartPolicy::EXPENDABLE);
                self.running.insert(name.clone(), Running { plan, child });
            }
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
    async fn shut_down(&mut self) {
        for running in self.running.values() {
            running.plan.send_replace(Plan::ShutDown);
        }
        for child in self.running.values().map(|r| &r.child).chain(self.closing.values()) {
            child.stopped().await;
        }
    }
}

impl Actor for Manager {
    const NAME: &'static str = "bgp-manager";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        // A new incarnation's sessions hang on its own stop token; those of the last one ended with it.
        self.supervisor = None;
        self.running.clear();
        self.closing.clear();
        self.peers.mark_changed();
        let mut peers_open = true;
        loop {
            if *self.command.borrow() == Command::ShutDown {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.shut_down() => {}
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
