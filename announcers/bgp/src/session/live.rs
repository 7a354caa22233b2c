//! The state machine with a socket: the only code that touches a peer's connection.
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Buf as _;
use ferrocast_bgp_proto::{
    Families, Family,
    fsm::{self, Action, Config, Down, Event, Mode, Moment, Negotiated, State},
    wire::{Context, Message, Notification, inspect},
};
use ferrocast_core::{
    actor::CancellationToken,
    announce::{Desired, TargetObserved},
    config::{Peer, PeerAs},
};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::{sync::watch, time::Instant};

use super::{
    Session,
    report::blank,
    sync::{Adj, Work},
};
use crate::{
    announcer::PeerSet,
    dial::{DialTo, Link},
    info::{Counters, SessionInfo},
    link::{Progress, Wire},
    next_hop::{interface_addresses, next_hops, router_id},
    resolve::{Resolver, Terrain},
};

/// TTL towards an external peer that is one hop away, as routers do it.
const TTL_SINGLE_HOP: u8 = 1;
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

/// One peer as configured, dialled again and again until something else is planned.
pub(super) struct Live<'a> {
    session: &'a mut Session,
    peer: Arc<Peer>,
    remote: SocketAddr,
    fsm: fsm::Session,
    actions: Vec<Action>,
    dialing: Option<BoxFuture<'static, io::Result<Link>>>,
    pub(super) wire: Option<Wire>,
    pub(super) desired: watch::Receiver<Arc<Desired>>,
    node: watch::Receiver<Arc<PeerSet>>,
    node_open: bool,
    pub(super) counters: Arc<Counters>,
    /// What the peer has from us; `None` unless Established.
    pub(super) adj: Option<Adj>,
    /// Grows with every session, so that work which spans a wait can tell that its session is over.
    pub(super) epoch: u64,
    info: SessionInfo,
    io_error: Option<io::Error>,
    /// Failure that was logged last: a repeat is not worth a line.
    logged: Option<String>,
}

/// What one wait brought.
enum Woken {
    Quit,
    Desired,
    Node(bool),
    Time,
    Dialed(io::Result<Link>),
    Progress(Progress),
}

impl<'a> Live<'a> {
    pub(super) fn new(session: &'a mut Session, peer: &Arc<Peer>, address: IpAddr, warnings: Vec<String>) -> Self {
        let remote = SocketAddr::new(address, peer.port);
        let counters = Arc::new(Counters::new(&remote.to_string()));
        let config = config(peer, address, session.shared.tuning.retry);
        let info = SessionInfo { warnings, ..blank(peer, counters.clone(), SystemTime::now()) };
        Self {
            desired: session.shared.desired.subscribe(),
            node: session.shared.node.clone(),
            node_open: true,
            session,
            peer: peer.clone(),
            remote,
            fsm: fsm::Session::new(config),
            actions: vec![],
            dialing: None,
            wire: None,
            counters,
            adj: None,
            epoch: 0,
            info,
            io_error: None,
            logged: None,
        }
    }

    /// Dials and speaks until `stop` or until something else is planned; then closes in order.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        self.feed(Event::Start);
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
        let farewell = if stop.is_cancelled() {
            Notification::shutdown("the speaker on this node is ending")
        } else {
            self.session.farewell()
        };
        self.feed(Event::Stop(farewell));
        self.perform().await;
        self.counters.down();
    }

    /// Does what is due and then waits for one thing to happen. With `idle`, a new desired set is such a thing.
    pub(super) async fn advance(&mut self, stop: &CancellationToken, idle: bool) -> Flow {
        self.perform().await;
        if stop.is_cancelled() || self.session.plan.has_changed().unwrap_or(true) {
            return Flow::Quit;
        }
        if self.take_message() || (idle && self.work().is_some()) {
            return Flow::Go;
        }
        match self.wait(stop, idle && self.adj.is_some()).await {
            Woken::Quit => return Flow::Quit,
            Woken::Desired => {}
            Woken::Node(open) => {
                self.node_open = open;
                self.readdress();
            }
            Woken::Time => self.tick(),
            Woken::Progress(progress) => self.moved(progress),
            Woken::Dialed(Ok(link)) => self.connected(link),
            Woken::Dialed(Err(error)) => {
                self.io_error = Some(error);
                self.feed(Event::ConnectFailed);
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
            _ = self.session.plan.changed() => Woken::Quit, // its reader looks at the newest plan anyway
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
        }
    }

    fn deadline(&self) -> Option<Instant> {
        [self.fsm.next_deadline().map(Instant::from_std), self.send_hold()].into_iter().flatten().min()
    }

    /// When the peer will not have read anything for too long.
    fn send_hold(&self) -> Option<Instant> {
        let limit = match self.fsm.negotiated() {
            Some(negotiated) if !negotiated.hold_time.is_zero() => negotiated.hold_time * SEND_HOLD_FACTOR,
            _ => SEND_HOLD_DEFAULT,
        };
        self.wire.as_ref().and_then(|wire| wire.blocked_until(limit))
    }

    fn moved(&mut self, progress: Progress) {
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
        self.feed(Event::Tick);
    }

    fn feed(&mut self, event: Event<'_>) {
        self.fsm.handle(event, moment(), &mut self.actions);
    }

    fn connected(&mut self, link: Link) {
        let node = self.node.borrow().clone();
        let id = router_id(self.peer.router_id, link.local, &node.internal_ips, &node.node_name);
        self.info.local_address = Some(link.local);
        self.wire = Some(Wire::new(link.stream));
        self.feed(Event::Connected { id });
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

    /// Carries out what the state machine asked for.
    async fn perform(&mut self) {
        let mut closing = None;
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Dial => self.dialing = Some(self.session.shared.dial.dial(self.dial_to())),
                Action::Send(message) => {
                    if let Some(wire) = &mut self.wire {
                        self.counters.sent(message.kind(), 1);
                        wire.queue(&message);
                    }
                }
                Action::Close => {
                    self.dialing = None;
                    closing = self.wire.take();
                }
                Action::Abort => (self.dialing, self.wire) = (None, None),
                Action::Up(negotiated) => self.went_up(*negotiated),
                Action::Down(down) => self.went_down(&down),
                Action::Resend(family) => {
                    if let Some(adj) = &mut self.adj {
                        adj.refresh.insert(family);
                    }
                }
            }
        }
        if self.info.state != self.fsm.state() {
            self.publish();
        }
        if let Some(wire) = closing {
            wire.close().await; // takes a while if the peer does not read
        }
    }

    fn dial_to(&self) -> DialTo {
        let internal = self.peer.peer_asn == PeerAs::Number(self.peer.my_asn);
        DialTo {
            remote: self.remote,
            source: self.peer.source_address,
            password: self.peer.password.clone(),
            ttl: (!internal && !self.peer.ebgp_multi_hop).then_some(TTL_SINGLE_HOP),
            user_timeout: (!self.peer.hold_time.is_zero()).then_some(self.peer.hold_time),
        }
    }

    fn next_hops(&mut self) -> [Option<IpAddr>; Family::ALL.len()] {
        let local = self.info.local_address.unwrap_or(self.remote.ip());
        let node = self.node.borrow_and_update().clone();
        next_hops(local, &interface_addresses(), &node.internal_ips)
    }

    /// The node's addresses may have changed: routes whose next hop did are said again.
    fn readdress(&mut self) {
        let next_hops = self.next_hops();
        if let Some(adj) = &mut self.adj {
            adj.readdress(next_hops);
        }
    }

    fn went_up(&mut self, negotiated: Negotiated) {
        let terrain = Terrain {
            peer: self.session.name.clone(),
            local_as: self.peer.my_asn,
            internal: negotiated.internal,
            as4: negotiated.as4,
            offered: families(&self.peer, self.remote.ip()),
            shared: negotiated.families,
            next_hops: self.next_hops(),
        };
        self.epoch += 1;
        self.adj = Some(Adj::new(Resolver::new(terrain), negotiated.families));
        self.counters.up();
        self.logged = None;
        tracing::info!(
            peer = %self.session.name, address = %self.remote, peer_as = negotiated.peer_as, peer_id = %negotiated.peer_id,
            hold_time_s = negotiated.hold_time.as_secs(), "session established",
        );
        self.info.local_id = Some(negotiated.local_id);
        self.info.peer_id = Some(negotiated.peer_id);
        self.info.hold_time = Some(negotiated.hold_time);
        self.info.keepalive_time = Some(negotiated.keepalive_time);
        self.info.families = negotiated.families;
        self.info.peer_capabilities = negotiated.capabilities.iter().map(|c| c.code()).collect();
    }

    fn went_down(&mut self, down: &Down) {
        let was_up = self.adj.take().is_some();
        self.epoch += 1;
        self.counters.down();
        if was_up && !matches!(down, Down::Stopped(_)) {
            self.counters.lost();
        }
        let text = match (down, self.io_error.take()) {
            (Down::ConnectFailed | Down::Closed, Some(error)) => format!("{down}: {error}"),
            _ => down.to_string(),
        };
        let (peer, address) = (&self.session.name, self.remote);
        if matches!(down, Down::Stopped(_)) {
            tracing::info!(%peer, %address, reason = text, "session closed");
        } else if was_up {
            tracing::warn!(%peer, %address, error = text, "session ended");
        } else if self.logged.as_ref() != Some(&text) {
            tracing::warn!(%peer, %address, error = text, "no session; trying again");
        } else {
            tracing::debug!(%peer, %address, error = text, "still no session");
        }
        self.logged = Some(text.clone());
        (self.info.local_id, self.info.peer_id) = (None, None);
        (self.info.hold_time, self.info.keepalive_time) = (None, None);
        (self.info.local_address, self.info.families) = (None, Families::NONE);
        self.info.peer_capabilities.clear();
        self.info.last_error = Some(text);
        self.info.last_error_at = Some(SystemTime::now());
    }

    /// Says how things are.
    pub(super) fn publish(&mut self) {
        let state = self.fsm.state();
        if self.info.state != state {
            self.info.state = state;
            self.info.since = SystemTime::now();
        }
        self.info.announced = self.adj.as_ref().map_or([0; Family::ALL.len()], |adj| adj.announced);
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

/// The families of a session: that of its transport, or both.
fn families(peer: &Peer, address: IpAddr) -> Families {
    if peer.dual_stack { Families::ALL } else { Families::only(Family::of(address)) }
}

fn config(peer: &Peer, address: IpAddr, retry: fsm::Retry) -> Config {
    let peer_as = match peer.peer_asn {
        PeerAs::Number(asn) => fsm::PeerAs::Exactly(asn),
        PeerAs::Internal => fsm::PeerAs::Internal,
        PeerAs::External => fsm::PeerAs::External,
    };
    Config {
        hold_time: peer.hold_time,
        keepalive_time: peer.keepalive_time,
        families: families(peer, address),
        retry,
        ..Config::new(Mode::Active, peer.my_asn, peer_as)
    }
}

pub(crate) fn moment() -> Moment {
    Moment { now: Instant::now().into_std(), random: fastrand::u32(..) }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
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
