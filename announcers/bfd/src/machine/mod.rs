//! One session without I/O: packets, time and random numbers go in; packets and deadlines come out.
//!
//! Asynchronous mode of RFC 5880, for single hop (RFC 5881) and multihop (RFC 5883) alike. Names of variables are the
//! RFC's (§6.8.1) where it has one. Authentication is not supported, and we never ask the peer for demand mode; a peer
//! may ask us for it.
#![forbid(unsafe_code)]
mod echo;
mod timers;

use std::time::{Duration, Instant};

pub use echo::{ECHO_LEN, Echo};

use crate::packet::{Diagnostic, Packet, State};
use timers::{SLOW_INTERVAL_US, duration, jittered, micros};

/// What a session is configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Shortest interval at which we send once Up.
    pub desired_min_tx: Duration,
    /// Shortest interval at which we receive.
    pub required_min_rx: Duration,
    /// Packets of ours that the peer may miss in a row; 0 counts as 1.
    pub detect_multiplier: u8,
    /// Shortest interval of our echoes; `None`: we send none.
    pub echo_tx: Option<Duration>,
    /// Shortest interval of the peer's echoes that we loop back; `None`: none.
    pub echo_rx: Option<Duration>,
    /// Wait for the peer's first packet. Source: RFC 5880 §6.1.
    pub passive: bool,
}

/// What the peer's last packet said.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    demand: bool,
    detect_multiplier: u8,
    desired_min_tx_us: u32,
    min_rx_us: u32,
    min_echo_rx_us: u32,
}

impl Remote {
    /// Before the first packet, and after silence. Source: RFC 5880 §6.8.1.
    const UNKNOWN: Self = Self {
        discriminator: 0,
        state: State::Down,
        diagnostic: Diagnostic::None,
        demand: false,
        detect_multiplier: 0,
        desired_min_tx_us: 0,
        min_rx_us: 1,
        min_echo_rx_us: 0,
    };
}

/// Whether we wait for a packet with the Final bit. Source: RFC 5880 §6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    Asking,
    /// Values changed while asking: the next Final may answer a question with the old ones.
    AskingAgain,
}

/// What is to be sent now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// A control packet.
    pub packet: Option<Packet>,
    /// An echo packet.
    pub echo: Option<Echo>,
}

/// What a session is at, for those who watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Our state.
    pub state: State,
    /// The peer's state, as far as known.
    pub remote_state: State,
    /// Why our state last changed.
    pub diagnostic: Diagnostic,
    /// Why the peer's state last changed.
    pub remote_diagnostic: Diagnostic,
    /// Our name for the session.
    pub local_discriminator: u32,
    /// The peer's name for the session; 0: not heard.
    pub remote_discriminator: u32,
    /// Longest interval between our packets; zero: none are due.
    pub transmit_interval: Duration,
    /// Silence of the peer after which the session is Down; zero: nothing heard yet.
    pub detection_time: Duration,
    /// It was Up at least once.
    pub was_up: bool,
    /// The peer's administrator took it down, and it has not been Up since: says nothing about the path.
    pub admin_down_by_peer: bool,
    /// Echoes are being sent.
    pub echo: bool,
    /// How often it came Up.
    pub up_events: u64,
    /// How often it ceased to be Up.
    pub down_events: u64,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    local_discriminator: u32,
    cookie: u64,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// The last values that we told, (desired min TX, required min RX): a change asks for a poll.
    told: (u32, u32),
    /// Desired min TX that our interval is made of: follows `told`, upwards only after a poll. Source: RFC 5880 §6.8.3.
    tx_in_use_us: u32,
    /// Required min RX that the detection time is made of: follows `told`, downwards only after a poll.
    rx_in_use_us: u32,
    poll: Poll,
    /// The interval that `next` was made of.
    interval: Option<Duration>,
    sent_at: Option<Instant>,
    next: Option<Instant>,
    heard_at: Option<Instant>,
    echo: Option<echo::Running>,
    /// AdminDown packets still to be sent, at which interval.
    farewells: (u8, Duration),
    was_up: bool,
    admin_down_by_peer: bool,
    up_events: u64,
    down_events: u64,
}

/// The 64 random bits that each call gets, as two numbers that have nothing to do with each other.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
fn halves(random: u64) -> (u32, u32) {
    (random as u32, (random >> 32) as u32)
}

impl Machine {
    /// A session in state Down; its first packet is due at once (passive: after the peer's).
    ///
    /// `local_discriminator` is not 0 and unique on this node; `cookie` is hard to guess.
    #[must_use]
    pub fn new(settings: Settings, local_discriminator: u32, cookie: u64, now: Instant) -> Self {
        let mut machine = Self {
            settings,
            local_discriminator,
            cookie,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: Remote::UNKNOWN,
            told: (0, 0),
            tx_in_use_us: SLOW_INTERVAL_US,
            rx_in_use_us: micros(settings.required_min_rx),
            poll: Poll::Idle,
            interval: None,
            sent_at: None,
            next: None,
            heard_at: None,
            echo: None,
            farewells: (0, Duration::ZERO),
            was_up: false,
            admin_down_by_peer: false,
            up_events: 0,
            down_events: 0,
        };
        machine.told = machine.values();
        machine.settle(now, 0);
        machine
    }

    /// What there is to know.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            state: self.state,
            remote_state: self.remote.state,
            diagnostic: self.diagnostic,
            remote_diagnostic: self.remote.diagnostic,
            local_discriminator: self.local_discriminator,
            remote_discriminator: self.remote.discriminator,
            transmit_interval: self.interval.unwrap_or_default(),
            detection_time: self.detection_time(),
            was_up: self.was_up,
            admin_down_by_peer: self.admin_down_by_peer,
            echo: self.echo.is_some(),
            up_events: self.up_events,
            down_events: self.down_events,
        }
    }

    /// When [`Machine::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.next, self.expires(), self.echo.map(|echo| echo.deadline())].into_iter().flatten().min()
    }

    /// It said AdminDown often enough and can be forgotten.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::AdminDown && self.farewells.0 == 0
    }

    /// Takes a packet that the driver has found to be for this session. Source: RFC 5880 §6.8.6.
    #[must_use]
    pub fn receive(&mut self, packet: &Packet, now: Instant, random: u64) -> Effects {
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            detect_multiplier: packet.detect_multiplier,
            desired_min_tx_us: packet.desired_min_tx_us,
            min_rx_us: packet.required_min_rx_us,
            min_echo_rx_us: packet.required_min_echo_rx_us,
        };
        if self.state == State::AdminDown {
            return Effects::default();
        }
        self.heard_at = Some(now);
        if packet.last {
            self.end_poll();
        }
        let before = self.state;
        self.follow(packet.state);
        self.settle(now, random);
        if packet.poll {
            return self.send(true, now, random);
        }
        if self.state != before { self.send(false, now, random) } else { Effects::default() }
    }

    /// The state that the peer's state leads to. Source: RFC 5880 §6.2, §6.8.6.
    fn follow(&mut self, received: State) {
        if received == State::AdminDown {
            self.admin_down_by_peer = true;
            if self.state != State::Down {
                self.enter(State::Down, Diagnostic::NeighborDown);
            }
            return;
        }
        match (self.state, received) {
            (State::Down, State::Down) => self.enter(State::Init, Diagnostic::None),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, Diagnostic::None);
            }
            (State::Up, State::Down) => self.enter(State::Down, Diagnostic::NeighborDown),
            _ => {}
        }
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic) {
        if self.state == State::Up {
            self.down_events += 1;
        }
        // Init keeps the reason of the last failure, for the peer to see, until the session is Up again.
        if state != State::Init {
            self.diagnostic = diagnostic;
        }
        if state == State::Up {
            self.up_events += 1;
            self.was_up = true;
            self.admin_down_by_peer = false;
        }
        self.state = state;
    }

    /// An echo came back.
    pub fn echo_returned(&mut self, echo: &Echo, now: Instant) -> bool {
        let ours = echo.discriminator == self.local_discriminator && echo.cookie == self.cookie;
        ours && self.echo.as_mut().is_some_and(|running| running.returned(echo.sequence, now))
    }

    /// Does what is due.
    #[must_use]
    pub fn tick(&mut self, now: Instant, random: u64) -> Effects {
        if self.expires().is_some_and(|at| at <= now) {
            return self.expire(now, random);
        }
        if self.echo.is_some_and(|echo| echo.expires <= now) {
            self.enter(State::Down, Diagnostic::EchoFailed);
            self.settle(now, random);
            return self.send(false, now, random);
        }
        let mut effects = Effects::default();
        if self.next.is_some_and(|at| at <= now) {
            effects = self.send(false, now, random);
        }
        let sequence = self.echo.as_mut().and_then(|echo| echo.due(now, halves(random).1));
        effects.echo =
            sequence.map(|sequence| Echo { discriminator: self.local_discriminator, sequence, cookie: self.cookie });
        effects
    }

    /// The peer is silent. Source: RFC 5880 §6.8.4.
    fn expire(&mut self, now: Instant, random: u64) -> Effects {
        let mut effects = Effects::default();
        if matches!(self.state, State::Init | State::Up) {
            self.enter(State::Down, Diagnostic::DetectionTimeExpired);
            self.settle(now, random);
            // This one still names the peer's discriminator, so that a peer that hears us knows at once.
            effects = self.send(false, now, random);
        }
        self.remote = Remote::UNKNOWN;
        self.heard_at = None;
        self.poll = Poll::Idle;
        self.settle(now, random);
        effects
    }

    /// Changes the configuration; timers by a poll sequence, without leaving Up. Source: RFC 5880 §6.8.3.
    #[must_use]
    pub fn update(&mut self, settings: Settings, now: Instant, random: u64) -> Effects {
        let changed = settings != self.settings;
        self.settings = settings;
        if !changed || self.state == State::AdminDown {
            return Effects::default();
        }
        self.settle(now, random);
        if self.may_send() { self.send(false, now, random) } else { Effects::default() }
    }

    /// Takes the session down for good and tells the peer. Source: RFC 5880 §6.8.16.
    ///
    /// The peer must hear of it within its detection time, or would take our silence for a broken path: as many packets
    /// as it may miss are sent at the interval that it knows, not at that of a session that is not Up.
    #[must_use]
    pub fn disable(&mut self, now: Instant, random: u64) -> Effects {
        if self.state == State::AdminDown {
            return Effects::default();
        }
        let tells = self.may_send();
        let count = if self.state == State::Up { self.detect_multiplier() } else { 1 };
        let interval = self.interval.unwrap_or(duration(SLOW_INTERVAL_US));
        self.enter(State::AdminDown, Diagnostic::AdministrativelyDown);
        self.farewells = if tells { (count, interval) } else { (0, interval) };
        self.poll = Poll::Idle;
        self.settle(now, random);
        if tells { self.send(false, now, random) } else { Effects::default() }
    }

    fn detect_multiplier(&self) -> u8 {
        self.settings.detect_multiplier.max(1)
    }

    /// What we tell: desired min TX, slow unless Up, and required min RX. Source: RFC 5880 §6.8.3.
    fn values(&self) -> (u32, u32) {
        let tx = micros(self.settings.desired_min_tx);
        let tx = if self.state == State::Up { tx } else { tx.max(SLOW_INTERVAL_US) };
        (tx, micros(self.settings.required_min_rx))
    }

    /// Whether the rules let us send at all. Source: RFC 5880 §6.8.7.
    fn may_send(&self) -> bool {
        self.remote.discriminator != 0 || !self.settings.passive
    }

    /// The interval of periodic packets; `None`: none.
    fn periodic(&self) -> Option<Duration> {
        if self.state == State::AdminDown {
            return (self.farewells.0 > 0).then_some(self.farewells.1);
        }
        let both_up = self.state == State::Up && self.remote.state == State::Up;
        let demanded_silence = self.remote.demand && both_up && self.poll == Poll::Idle;
        let wanted = self.may_send() && self.remote.min_rx_us != 0 && !demanded_silence;
        wanted.then(|| duration(self.tx_in_use_us.max(self.remote.min_rx_us)))
    }

    /// Source: RFC 5880 §6.8.4.
    fn detection_time(&self) -> Duration {
        duration(self.rx_in_use_us.max(self.remote.desired_min_tx_us)) * self.remote.detect_multiplier.into()
    }

    fn expires(&self) -> Option<Instant> {
        self.heard_at.filter(|_| self.state != State::AdminDown).map(|at| at + self.detection_time())
    }

    fn end_poll(&mut self) {
        self.poll = match self.poll {
            Poll::Idle | Poll::Asking => Poll::Idle,
            Poll::AskingAgain => Poll::Asking,
        };
    }

    /// Brings every timer in line with the state and both sides' values.
    fn settle(&mut self, now: Instant, random: u64) {
        let values = self.values();
        if values != self.told {
            self.told = values;
            self.poll = match self.poll {
                _ if self.remote.discriminator == 0 || self.state == State::AdminDown => Poll::Idle,
                Poll::Idle => Poll::Asking,
                Poll::Asking | Poll::AskingAgain => Poll::AskingAgain,
            };
        }
        let free = self.state != State::Up || self.poll == Poll::Idle;
        if free || values.0 < self.tx_in_use_us {
            self.tx_in_use_us = values.0;
        }
        if free || values.1 > self.rx_in_use_us {
            self.rx_in_use_us = values.1;
        }
        let interval = self.periodic();
        if interval != self.interval || interval.is_some() != self.next.is_some() {
            self.interval = interval;
            self.schedule(now, random);
        }
        self.settle_echo(now);
    }

    /// The next periodic packet counts from the last one sent, also when the interval has just changed.
    fn schedule(&mut self, now: Instant, random: u64) {
        let multiplier = self.detect_multiplier();
        let after = |interval| match self.sent_at {
            Some(sent) => sent + jittered(interval, multiplier, halves(random).0),
            None => now,
        };
        self.next = self.interval.map(after);
    }

    fn settle_echo(&mut self, now: Instant) {
        let peer_loops = self.state == State::Up && self.remote.min_echo_rx_us != 0;
        let Some(interval) = self.settings.echo_tx.filter(|_| peer_loops) else {
            self.echo = None;
            return;
        };
        let interval_us = micros(interval).max(self.remote.min_echo_rx_us);
        let multiplier = self.detect_multiplier();
        match &mut self.echo {
            Some(running) => running.retime(interval_us, multiplier, now),
            None => self.echo = Some(echo::Running::start(interval_us, multiplier, now)),
        }
    }

    /// A packet as of now; an answer to a poll, or else a question if one is open. Source: RFC 5880 §6.8.7.
    fn send(&mut self, answer: bool, now: Instant, random: u64) -> Effects {
        if !answer && !self.may_send() {
            return Effects::default();
        }
        let (desired_min_tx_us, required_min_rx_us) = self.told;
        let packet = Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: !answer && self.poll != Poll::Idle,
            last: answer,
            control_plane_independent: false, // it dies with this process
            demand: false,
            detect_multiplier: self.detect_multiplier(),
            my_discriminator: self.local_discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx_us,
            required_min_rx_us,
            required_min_echo_rx_us: self.settings.echo_rx.map_or(0, micros),
        };
        if self.state == State::AdminDown {
            self.farewells.0 = self.farewells.0.saturating_sub(1);
            self.interval = self.periodic();
        }
        // An answer leaves the timer alone: a peer that polls without end keeps no packet of ours from its time.
        if !answer {
            self.sent_at = Some(now);
            self.schedule(now, random);
        }
        Effects { packet: Some(packet), echo: None }
    }
}

#[cfg(test)]
mod tests;
