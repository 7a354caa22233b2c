//! The state machine with a connection: what happens to it, and when.
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Buf as _;
use ferrocast_bgp_proto::{
    Family,
    fsm::{self, Action, Event, Moment, State},
    wire::{Context, Message, inspect},
};
use ferrocast_core::{
    actor::{CancellationToken, sleep_until},
    announce::{Desired, TargetObserved},
    config::Peer,
};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::{net::TcpStream, sync::watch, time::Instant};

use super::{
    Session,
    bfd::Path,
    collision::Rival,
    plan::config,
    report::{blank, label, vrf},
    sync::{Adj, Work},
};
use crate::{
    announcer::PeerSet,
    dial::{Control, Link},
    discovery::Discovery,
    info::{Counters, Routes, SessionInfo},
    link::{Progress, Wire},
    listen::ListenErrors,
};

/// Nothing could be written for so many hold times: the peer is dropped. Source: RFC 9687 §3 (twice the hold time).
const SEND_HOLD_FACTOR: u32 = 2;
/// The same without a hold time. Source: RFC 9687 §3 (8 minutes).
const SEND_HOLD_DEFAULT: Duration = Duration::from_secs(8 * 60);

/// Whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Go,
    /// Something else is planned, or the actor must stop.
    Quit,
}

/// One peer as configured, spoken with again and again until something else is planned.
pub(super) struct Live<'a> {
    pub(super) session: &'a mut Session,
    pub(super) peer: Arc<Peer>,
    pub(super) remote: SocketAddr,
    /// Of an unnumbered peer.
    pub(super) discovery: Option<Discovery>,
    pub(super) fsm: fsm::Session,
    pub(super) actions: Vec<Action>,
    pub(super) dialing: Option<BoxFuture<'static, io::Result<Link>>>,
    pub(super) wire: Option<Wire>,
    /// Options of the connection.
    pub(super) control: Option<Control>,
    /// The connection was opened by us.
    pub(super) dialed: bool,
    /// A second connection, opened by the peer while ours was on its way to Established.
    pub(super) rival: Option<Rival>,
    pub(super) path: Option<Path>,
    pub(super) desired: watch::Receiver<Arc<Desired>>,
    pub(super) node: watch::Receiver<Arc<PeerSet>>,
    node_open: bool,
    listen_errors: watch::Receiver<Arc<ListenErrors>>,
    pub(super) counters: Arc<Counters>,
    /// What the peer has from us; `None` unless Established.
    pub(super) adj: Option<Adj>,
    /// Grows with every session, so that work which spans a wait can tell that its session is over.
    pub(super) epoch: u64,
    pub(super) info: SessionInfo,
    pub(super) io_error: Option<io::Error>,
    /// Failure that was logged last: a repeat is not worth a line.
    pub(super) logged: Option<String>,
}

/// What one wait brought.
enum Woken {
    Quit,
    Plan,
    Desired,
    Node(bool),
    Time,
    Dialed(io::Result<Link>),
    Progress(Progress),
    Called(TcpStream),
    Rival(Progress),
    Path,
    Neighbour,
    Listening,
}

impl<'a> Live<'a> {
    pub(super) fn new(
        session: &'a mut Session,
        peer: &Arc<Peer>,
        remote: SocketAddr,
        discovery: Option<Discovery>,
    ) -> Self {
        let counters = Arc::new(Counters::new(&label(peer), vrf(peer)));
        let config = config(peer, remote.ip(), session);
        let info = SessionInfo { address: Some(remote.ip()), ..blank(peer, counters.clone(), SystemTime::now()) };
        Self {
            desired: session.shared.desired.subscribe(),
            node: session.shared.node.clone(),
            node_open: true,
            listen_errors: session.shared.listen_errors.subscribe(),
            session,
            peer: peer.clone(),
            remote,
            discovery,
            fsm: fsm::Session::new(config),
            actions: vec![],
            dialing: None,
            wire: None,
            control: None,
            dialed: false,
            rival: None,
            path: None,
            counters,
            adj: None,
            epoch: 0,
            info,
            io_error: None,
            logged: None,
        }
    }

    /// Keeps a session until `stop` or until something else is planned; then closes in order.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        self.feed(Event::Start);
        self.heed_listening();
        self.publish();
        loop {
            let flow = match self.work() {
                Some(work) => self.sync(work, stop).await,
                None => self.advance(stop, true).await,
            };
            if flow == Flow::Quit {
                break;
            }
        }
        self.end(stop.is_cancelled());
        self.perform().await;
        self.counters.down();
    }

    /// Does what is due and then waits for one thing to happen. With `idle`, a new desired set is such a thing.
    pub(super) async fn advance(&mut self, stop: &CancellationToken, idle: bool) -> Flow {
        self.perform().await;
        if stop.is_cancelled() || (self.session.plan.has_changed().unwrap_or(true) && !self.absorb_plan()) {
            return Flow::Quit;
        }
        if self.rival.is_some() {
            self.compare_rival().await;
        }
        if self.take_message() || (idle && self.work().is_some()) {
            return Flow::Go;
        }
        match self.wait(stop, idle && self.adj.is_some()).await {
            Woken::Quit => return Flow::Quit,
            Woken::Plan | Woken::Desired | Woken::Neighbour => {}
            Woken::Node(open) => {
                self.node_open = open;
                self.chart();
            }
            Woken::Time => self.tick(),
            Woken::Progress(progress) => self.moved(progress),
            Woken::Dialed(Ok(link)) => self.connected(link, true),
            Woken::Dialed(Err(error)) => {
                self.io_error = Some(error);
                self.feed(Event::ConnectFailed);
            }
            Woken::Called(stream) => self.called(stream).await,
            Woken::Rival(progress) => self.rival_moved(progress).await,
            Woken::Path => self.path_changed(),
            Woken::Listening => {
                self.heed_listening();
                self.publish();
            }
        }
        Flow::Go
    }

    /// What the peer is to be sent next.
    fn work(&self) -> Option<Work> {
        self.adj.as_ref().and_then(|adj| adj.wants(&self.desired))
    }

    async fn wait(&mut self, stop: &CancellationToken, desired: bool) -> Woken {
        let deadline = self.deadline();
        tokio::select! {
            () = stop.cancelled() => Woken::Quit,
            changed = self.session.plan.changed() => {
                if changed.is_err() {
                    return Woken::Quit;
                }
                self.session.plan.mark_changed(); // only looked at
                Woken::Plan
            }
            // cannot fail: the session holds a sender
            _ = self.desired.changed(), if desired => {
                if self.desired.borrow().generation != 0 {
                    self.desired.mark_changed(); // only looked at; what syncs takes it
                }
                Woken::Desired
            }
            changed = self.node.changed(), if desired && self.node_open => Woken::Node(changed.is_ok()),
            () = sleep_until(deadline) => Woken::Time,
            woken = next_io(&mut self.dialing, &mut self.wire) => woken,
            Some(stream) = self.session.calls.recv() => Woken::Called(stream),
            progress = Rival::progress(&mut self.rival) => Woken::Rival(progress),
            () = Path::changed(&mut self.path) => Woken::Path,
            () = neighbour(&mut self.discovery) => Woken::Neighbour,
            _ = self.listen_errors.changed(), if self.peer.session.passive => Woken::Listening,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let rival = self.rival.as_ref().and_then(Rival::deadline);
        [self.fsm.next_deadline().map(Instant::from_std), self.send_hold(), rival].into_iter().flatten().min()
    }

    /// When the peer will not have read anything for too long.
    fn send_hold(&self) -> Option<Instant> {
        let limit = match (self.peer.session.send_hold_time, self.fsm.negotiated()) {
            (Some(limit), _) => limit,
            (None, Some(negotiated)) if !negotiated.hold_time.is_zero() => negotiated.hold_time * SEND_HOLD_FACTOR,
            _ => SEND_HOLD_DEFAULT,
        };
        self.wire.as_ref().and_then(|wire| wire.blocked_until(limit))
    }

    fn moved(&mut self, progress: Progress) {
        self.counters.moved(&progress);
        if let Progress::Ended(error) = progress {
            self.io_error = error;
            self.feed(Event::Closed);
        }
    }

    /// Time has passed. What the peer has said by now counts first: this task may be late, the peer was not.
    fn tick(&mut self) {
        for _ in 0..2 {
            // reading and writing take turns
            if let Some(progress) = self.wire.as_mut().and_then(|wire| wire.progress().now_or_never()) {
                self.moved(progress);
            }
        }
        while self.actions.is_empty() && self.take_message() {}
        if self.send_hold().is_some_and(|deadline| deadline <= Instant::now()) {
            self.feed(Event::SendHoldExpired);
        }
        if self.rival.as_ref().and_then(Rival::deadline).is_some_and(|deadline| deadline <= Instant::now()) {
            self.rival = None; // never got as far as to be compared
        }
        self.feed(Event::Tick);
    }

    pub(super) fn feed(&mut self, event: Event<'_>) {
        self.fsm.handle(event, moment(), &mut self.actions);
    }

    /// Handles one whole message from the inbox, if there is one.
    fn take_message(&mut self) -> bool {
        let Some(wire) = &mut self.wire else { return false };
        let agreed = self.fsm.negotiated();
        let context = agreed.map_or_else(Context::default, |n| Context { as4: n.as4, internal: n.internal });
        let (event, len) = match Message::decode(&wire.inbox) {
            Ok(None) => return false,
            Ok(Some((message, len))) => {
                self.counters.received(message.kind());
                let checked = match message {
                    Message::Update(body) => {
                        inspect(body, &context).map(|disposition| self.counters.disposed(disposition))
                    }
                    _ => Ok(()),
                };
                (checked.map_or_else(Event::Malformed, |()| Event::Received(message)), len)
            }
            Err(error) => (Event::Malformed(error), wire.inbox.len()),
        };
        self.fsm.handle(event, moment(), &mut self.actions);
        wire.inbox.advance(len);
        true
    }

    /// A passive peer is told about what keeps it from calling.
    fn heed_listening(&mut self) {
        let error = self.listen_errors.borrow_and_update().get(&self.peer.vrf).cloned();
        if let (true, State::Active, Some(error)) = (self.peer.session.passive, self.fsm.state(), error) {
            self.info.last_error = Some(error);
            self.info.last_error_at = Some(SystemTime::now());
        }
    }

    /// Says how things are.
    pub(super) fn publish(&mut self) {
        let state = self.fsm.state();
        if self.info.state != state {
            self.info.state = state;
            self.info.since = SystemTime::now();
        }
        self.info.announced = self.adj.as_ref().map_or([0; Family::ALL.len()], |adj| adj.announced);
        self.info.routes =
            self.adj.as_ref().map(|adj| Routes { sent: adj.sent.clone(), terrain: adj.terrain().clone() });
        let announced = self.info.announced.iter().sum();
        self.counters.announced(announced);
        // the states of one failing attempt after the other are not news to anybody: the error is
        let reason = match (state, &self.info.last_error) {
            (State::Established, _) | (_, None) => state.to_string(),
            (_, Some(error)) => format!("not established: {error}"),
        };
        let target = TargetObserved {
            up: self.adj.is_some(),
            generation: self.adj.as_ref().map_or(0, |adj| adj.generation),
            announced,
            refused: self.adj.as_ref().map(|adj| adj.refused.clone()).unwrap_or_default(),
            reason,
        };
        self.session.publish(self.info.clone(), target);
    }
}

pub(crate) fn moment() -> Moment {
    Moment { now: Instant::now().into_std(), random: fastrand::u32(..) }
}

/// The connection's next news. Cancel-safe: all progress is in the arguments.
async fn next_io(dialing: &mut Option<BoxFuture<'static, io::Result<Link>>>, wire: &mut Option<Wire>) -> Woken {
    if let Some(dial) = dialing {
        let dialed = dial.await;
        *dialing = None;
        return Woken::Dialed(dialed);
    }
    match wire {
        Some(wire) => Woken::Progress(wire.progress().await),
        None => std::future::pending().await,
    }
}

async fn neighbour(discovery: &mut Option<Discovery>) {
    match discovery {
        Some(discovery) => discovery.changed().await,
        None => std::future::pending().await,
    }
}
