//! The thread: one loop over commands, packets and deadlines of all sessions of the node.
mod echo;
mod peer;
mod ports;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    io,
    os::{fd::AsFd as _, unix::net::UnixDatagram},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};
use tracing::{debug, error, info};

use crate::{
    SessionConfig, SessionInfo,
    count::{Counts, NodeCounts, Shared},
    handle::Command,
    packet::{Packet, State},
    sys,
};
use echo::Catchers;
use peer::{Peer, check, same_session};
use ports::{Kind, Link, Listeners};

/// Sessions of a node: each look at the deadlines passes over all of them.
const SESSIONS_MAX: usize = 512;
/// Packets read from one socket before deadlines are looked at again.
const PACKETS_PER_PASS_MAX: usize = 256;
/// Pause after a pass that left packets unread, so that a flood takes a part of one processor only.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// Longer than any packet that we understand, octets; the rest of a longer one is cut off.
const BUFFER_LEN: usize = 128;

/// Starts the thread.
pub(crate) fn spawn(inbox: Receiver<Command>, woken: UnixDatagram, counts: Arc<NodeCounts>) -> io::Result<()> {
    let driver = Driver {
        inbox,
        woken,
        counts,
        peers: BTreeMap::new(),
        listeners: Listeners::default(),
        catchers: Catchers::default(),
        random: RandomState::new(),
        drawn: 0,
        next_own_id: u64::MAX,
        stopping: false,
    };
    thread::Builder::new().name("bfd".to_owned()).spawn(move || driver.run()).map(drop)
}

struct Driver {
    inbox: Receiver<Command>,
    woken: UnixDatagram,
    counts: Arc<NodeCounts>,
    peers: BTreeMap<u64, Peer>,
    listeners: Listeners,
    catchers: Catchers,
    random: RandomState,
    drawn: u64,
    /// Names of sessions that nobody holds any more, downwards; those of the handles go upwards.
    next_own_id: u64,
    stopping: bool,
}

#[expect(clippy::disallowed_methods, reason = "the one place where the driver reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

impl Driver {
    fn run(mut self) {
        let priority = sys::raise_priority();
        info!(priority, "BFD thread runs");
        let mut wanted = None;
        loop {
            let now = clock();
            if let Some(late) = wanted.and_then(|at| now.checked_duration_since(at)) {
                self.counts.late(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
            }
            self.take_commands(now);
            // Packets before deadlines: what has arrived while the thread was kept from running counts as heard.
            let flooded = self.receive_all(now);
            self.tick_all(now);
            if self.stopping && self.peers.is_empty() {
                return;
            }
            wanted = self.wait(flooded);
        }
    }

    /// Sleeps until something happens; returns the deadline that it slept for.
    fn wait(&self, flooded: bool) -> Option<Instant> {
        if flooded {
            sys::wait(&[self.woken.as_fd()], Some(FLOOD_PAUSE));
            return None;
        }
        let deadline = self.peers.values().filter_map(Peer::deadline).min();
        let timeout = deadline.map(|at| at.saturating_duration_since(clock()));
        let sockets: Vec<_> =
            self.listeners.descriptors().chain(self.catchers.descriptors()).chain([self.woken.as_fd()]).collect();
        sys::wait(&sockets, timeout);
        deadline
    }

    fn take_commands(&mut self, now: Instant) {
        // Wake-ups carry nothing; an error says that there is none left.
        while self.woken.recv(&mut [0]).is_ok() {}
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Open { id, config, info, counts } => self.open(id, config, info, counts, now),
                Command::Update { id, config } => self.update(id, config, now),
                Command::Close { id } => self.with(id, now, Peer::close),
                Command::Stop { told } => self.stop(told, now),
            }
        }
    }

    fn random(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.random.hash_one(self.drawn)
    }

    /// Runs `act` on a session; a panic costs that session only.
    fn with(&mut self, id: u64, now: Instant, act: impl FnOnce(&mut Peer, Instant, u64)) {
        let random = self.random();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if catch_unwind(AssertUnwindSafe(|| act(peer, now, random))).is_err() {
            error!(peer = %peer.config.peer, "BFD session panicked");
            peer.fail("internal error, see the log", now);
        }
    }

    fn open(
        &mut self,
        id: u64,
        config: SessionConfig,
        info: watch::Sender<SessionInfo>,
        counts: Arc<Shared>,
        now: Instant,
    ) {
        if self.stopping {
            return;
        }
        let counts = Counts::new(counts, &config.label);
        self.peers.insert(id, Peer::new(config, info, counts));
        self.link(id, now);
    }

    /// Opens a session's sockets, or says in its info why that cannot be.
    fn link(&mut self, id: u64, now: Instant) {
        let Some(config) = self.peers.get(&id).map(|peer| peer.config.clone()) else { return };
        // One that only says goodbye makes room for its successor.
        self.peers.retain(|_, peer| !(peer.is_closing() && peer.rivals(&config)));
        let random = self.random();
        let link = self.admit(id, &config).and_then(|()| {
            self.listeners.ensure(Kind::of(&config))?;
            Link::open(&config, u16::try_from(random & 0xffff).unwrap_or(0))
        });
        let names = (self.free_discriminator(), self.random());
        let echo = config.echo_interval.filter(|_| link.is_ok()).map(|_| self.catchers.prepare(&config));
        self.with(id, now, |peer, now, _| {
            peer.set_echo(echo);
            peer.linked(link, names, now);
        });
    }

    fn admit(&self, id: u64, config: &SessionConfig) -> Result<(), String> {
        check(config)?;
        if self.peers.len() > SESSIONS_MAX {
            return Err(format!("there are {SESSIONS_MAX} sessions already"));
        }
        let rival = self.peers.iter().any(|(other, peer)| {
            *other != id && peer.discriminator().is_some() && !peer.is_closing() && peer.rivals(config)
        });
        if rival { Err("another session with this peer is open already".to_owned()) } else { Ok(()) }
    }

    /// Not 0, and of no other session. Source: RFC 5880 §6.8.1.
    fn free_discriminator(&mut self) -> u32 {
        loop {
            let candidate = u32::try_from(self.random() >> 32).unwrap_or(0);
            if candidate != 0 && self.peers.values().all(|peer| peer.discriminator() != Some(candidate)) {
                return candidate;
            }
        }
    }

    fn update(&mut self, id: u64, config: SessionConfig, now: Instant) {
        let Some(peer) = self.peers.get(&id) else { return };
        if same_session(&peer.config, &config) {
            let echo = config.echo_interval.map(|_| self.catchers.prepare(&config));
            return self.with(id, now, |peer, now, random| {
                peer.set_echo(echo);
                peer.update(config, now, random);
            });
        }
        let Some(old) = self.peers.remove(&id) else { return };
        let (old, info, counts) = old.replaced();
        self.peers.insert(self.next_own_id, old);
        self.with(self.next_own_id, now, Peer::close);
        self.next_own_id -= 1;
        self.peers.insert(id, Peer::new(config, info, counts));
        self.link(id, now);
    }

    fn stop(&mut self, told: Option<oneshot::Sender<()>>, now: Instant) {
        self.stopping = true;
        let ids: Vec<u64> = self.peers.keys().copied().collect();
        for id in ids {
            self.with(id, now, Peer::close);
        }
        if let Some(Err(())) = told.map(|told| told.send(())) {
            debug!("nobody waits any more for BFD's end");
        }
    }

    /// Whether a socket may have more to read.
    fn receive_all(&mut self, now: Instant) -> bool {
        let mut flooded = false;
        for kind in Kind::ALL {
            flooded |= self.receive(kind, now);
        }
        for ipv4 in [true, false] {
            flooded |= self.catch(ipv4, now);
        }
        flooded
    }

    fn receive(&mut self, kind: Kind, now: Instant) -> bool {
        let mut buffer = [0; BUFFER_LEN];
        for _ in 0..PACKETS_PER_PASS_MAX {
            let Some(socket) = self.listeners.get(kind) else { return false };
            let Ok(received) = sys::receive(socket, &mut buffer) else { return false };
            match self.packet(kind, &received, &buffer[..received.len.min(BUFFER_LEN)]) {
                Ok((id, packet)) => self.with(id, now, |peer, now, random| peer.receive(&packet, now, random)),
                Err(reason) => self.counts.discard(reason),
            }
        }
        true
    }

    fn catch(&mut self, ipv4: bool, now: Instant) -> bool {
        for _ in 0..PACKETS_PER_PASS_MAX {
            let Some(echo) = self.catchers.next(ipv4) else { return false };
            // Those of others pass here too: the peers' that the kernel returns.
            if let Some(echo) = echo {
                self.peers.values_mut().any(|peer| peer.echo_returned(&echo, now));
            }
        }
        true
    }

    /// The session that a datagram is for, or why it is for none. Source: RFC 5880 §6.3, §6.8.6.
    fn packet(&self, kind: Kind, received: &sys::Received, octets: &[u8]) -> Result<(u64, Packet), &'static str> {
        let packet = Packet::decode(octets).map_err(crate::packet::DecodeError::reason)?;
        let named = packet.your_discriminator;
        let find = |fits: &dyn Fn(&Peer) -> bool| {
            self.peers.iter().find(|(_, peer)| peer.accepts(kind, received) && fits(peer))
        };
        let found = find(&|peer| named == 0 || peer.discriminator() == Some(named));
        // Beyond the RFC: after our AdminDown, FRR 8.4 goes on naming our last discriminator until it hears another one,
        // which it never would from a passive side. In state Down it asks for no more than with discriminator 0.
        let found = found.or_else(|| find(&|peer| packet.state == State::Down && peer.awaits_first_packet()));
        let (id, peer) = found.ok_or("no_session")?;
        if peer.accepts_ttl(received.ttl) { Ok((*id, packet)) } else { Err("ttl") }
    }

    fn tick_all(&mut self, now: Instant) {
        let due = |peer: &Peer| peer.deadline().is_some_and(|at| at <= now);
        let ids: Vec<u64> = self.peers.iter().filter(|(_, peer)| due(peer)).map(|(id, _)| *id).collect();
        for id in ids {
            self.with(id, now, Peer::tick);
            if self.peers.get(&id).is_some_and(|peer| peer.wants_link(now)) {
                self.link(id, now);
            }
        }
        let before = self.peers.len();
        self.peers.retain(|_, peer| !peer.is_over(now));
        if self.peers.len() != before {
            self.close_unused();
        }
    }

    fn close_unused(&mut self) {
        for kind in Kind::ALL {
            if !self.peers.values().any(|peer| Kind::of(&peer.config) == kind) {
                self.listeners.close(kind);
            }
        }
        for ipv4 in [true, false] {
            let echoes = |peer: &Peer| peer.config.echo_interval.is_some() && peer.config.peer.is_ipv4() == ipv4;
            if !self.peers.values().any(echoes) {
                self.catchers.close(ipv4);
            }
        }
    }
}
