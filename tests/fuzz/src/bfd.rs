//! A BFD session: any sequence of packets, ticks and commands.
//!
//! The input is a small program: a configuration, then one step after the other (`Input`).
use std::time::{Duration, Instant};

use ferrocast_bfd::{
    Diagnostic, State,
    machine::{Echo, Effects, Machine, Settings},
    packet::{PACKET_LEN, Packet},
};

/// Our name for the session.
const LOCAL: u32 = 7;
const COOKIE: u64 = 11;
/// Ticks that one moment may need: control packet, echo and expiry, each at most twice.
const TICKS_AT_ONCE_MAX: usize = 6;
/// Steps of one input: what a longer one could show, a shorter one does too.
const STEPS_MAX: usize = 4_096;

/// Octets taken from the front, zeroes once they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn octet(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn pair(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// A duration of up to a minute, most of them short.
    fn span(&mut self) -> Duration {
        let (scale, count) = (self.octet() % 3, self.octet());
        Duration::from_millis([1, 10, 250][usize::from(scale)] * u64::from(count))
    }

    fn settings(&mut self) -> Settings {
        let (flags, detect_multiplier) = (self.octet(), self.octet());
        let (desired_min_tx, required_min_rx, echo) = (self.span(), self.span(), self.span());
        let echo = |on: bool| on.then_some(echo);
        Settings {
            desired_min_tx,
            required_min_rx,
            detect_multiplier,
            echo_tx: echo(flags & 1 != 0),
            echo_rx: echo(flags & 2 != 0),
            passive: flags & 4 != 0,
        }
    }

    /// A packet that has at least a chance to be accepted.
    fn likely_packet(&mut self) -> Packet {
        let (what, detect_multiplier) = (self.octet(), self.octet().max(1));
        let state = [State::AdminDown, State::Down, State::Init, State::Up][usize::from(what & 3)];
        let us = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        Packet {
            state,
            poll: what & 4 != 0,
            last: what & 8 != 0,
            demand: what & 16 != 0,
            detect_multiplier,
            my_discriminator: 9,
            your_discriminator: if what & 32 != 0 && state == State::Down { 0 } else { LOCAL },
            desired_min_tx_us: us(self.span()),
            required_min_rx_us: us(self.span()),
            required_min_echo_rx_us: if what & 64 != 0 { us(self.span()) } else { 0 },
            ..Packet::default()
        }
    }
}

/// A machine, and what a reader of the RFC knows about it.
struct Watched {
    machine: Machine,
    settings: Settings,
    now: Instant,
    heard_at: Option<Instant>,
    last_echo: Option<Echo>,
}

impl Watched {
    /// Every packet that leaves is one that the RFC lets leave.
    fn check(&mut self, effects: &Effects) {
        let status = self.machine.status();
        self.last_echo = effects.echo.or(self.last_echo);
        assert!(effects.echo.is_none() || status.state == State::Up, "echoes while {}", status.state);
        let Some(packet) = &effects.packet else { return };
        assert_eq!(Packet::decode(&packet.encode()), Ok(*packet));
        assert!(!(packet.poll && packet.last), "poll and final");
        assert_eq!(packet.state, status.state);
        assert!(packet.state == State::Up || packet.desired_min_tx_us >= 1_000_000, "fast while {}", packet.state);
        assert!(!self.settings.passive || self.heard_at.is_some(), "a passive side speaks first");
    }

    fn receive(&mut self, octets: &[u8], random: u64) {
        let Ok(packet) = Packet::decode(octets) else { return };
        if ![0, LOCAL].contains(&packet.your_discriminator) {
            return; // the driver knows no such session
        }
        let before = self.machine.status().state;
        self.heard_at = Some(self.now);
        let effects = self.machine.receive(&packet, self.now, random);
        let after = self.machine.status();
        if before == State::Up && after.state != State::Up {
            assert!(matches!(packet.state, State::Down | State::AdminDown), "{packet:?} took the session down");
            assert_eq!((after.state, after.diagnostic), (State::Down, Diagnostic::NeighborDown));
        }
        assert_eq!(before == State::AdminDown, after.state == State::AdminDown);
        assert!(!packet.poll || before == State::AdminDown || effects.packet.is_some_and(|answer| answer.last));
        self.check(&effects);
    }

    /// Lets time pass, with a tick at every deadline and one at the end.
    fn pass(&mut self, span: Duration, random: u64) {
        let end = self.now + span;
        for step in 0..STEPS_MAX {
            let due = self.machine.deadline().filter(|at| *at <= end);
            self.now = due.unwrap_or(end).max(self.now);
            for _ in 0..TICKS_AT_ONCE_MAX {
                self.tick(random);
            }
            let next = self.machine.deadline();
            assert!(next.is_none_or(|at| at > self.now), "step {step}: it is never done");
            if due.is_none() {
                return;
            }
        }
    }

    fn tick(&mut self, random: u64) {
        let before = self.machine.status();
        let effects = self.machine.tick(self.now, random);
        let after = self.machine.status();
        if before.state != after.state {
            assert!(matches!(before.state, State::Init | State::Up) && after.state == State::Down);
            let silent = self.heard_at.is_some_and(|at| self.now >= at + before.detection_time);
            match after.diagnostic {
                Diagnostic::DetectionTimeExpired => assert!(silent, "a false alarm"),
                Diagnostic::EchoFailed => assert!(before.echo, "without echoes"),
                other => panic!("down for {other}"),
            }
        }
        self.check(&effects);
        if before.remote_discriminator != 0 && after.remote_discriminator == 0 {
            self.heard_at = None;
        }
    }
}

/// No input makes a session panic, run in circles, say what the RFC forbids, or go down but for the RFC's reasons.
#[expect(clippy::disallowed_methods, reason = "any time will do to start from; it moves by the input alone")]
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let settings = input.settings();
    let now = Instant::now();
    let machine = Machine::new(settings, LOCAL, COOKIE, now);
    let mut watched = Watched { machine, settings, now, heard_at: None, last_echo: None };
    for step in 0..STEPS_MAX {
        if input.0.is_empty() {
            return;
        }
        let random = u64::from(input.pair()).wrapping_mul(0x0001_0001_0001_0001) ^ u64::try_from(step).unwrap_or(0);
        match input.octet() % 8 {
            0 => {
                let octets: Vec<u8> = (0..PACKET_LEN).map(|_| input.octet()).collect();
                watched.receive(&octets, random);
            }
            1..=3 => {
                let packet = input.likely_packet();
                watched.receive(&packet.encode(), random);
            }
            4 | 5 => watched.pass(input.span(), random),
            6 => {
                let before = watched.machine.status().state;
                watched.settings = input.settings();
                let effects = watched.machine.update(watched.settings, watched.now, random);
                assert_eq!(watched.machine.status().state, before, "a change of timers flaps nothing");
                watched.check(&effects);
            }
            _ if input.octet() % 16 == 0 => {
                let effects = watched.machine.disable(watched.now, random);
                assert_eq!(watched.machine.status().state, State::AdminDown);
                watched.check(&effects);
            }
            _ => {
                let echo = watched.last_echo.map_or(Echo { discriminator: 1, sequence: 0, cookie: 0 }, |echo| echo);
                let counted = watched.machine.echo_returned(&echo, watched.now);
                assert!(!counted || watched.last_echo.is_some(), "an echo that was never sent");
            }
        }
    }
}

/// A span as [`Input::span`] reads it: of up to 255 ms, or a multiple of 250 ms.
fn span(ms: u16) -> [u8; 2] {
    match u8::try_from(ms) {
        Ok(count) => [0, count],
        Err(_) => [2, u8::try_from(ms / 250).unwrap_or(u8::MAX)],
    }
}

/// A configuration as [`Input::settings`] reads it.
fn settings(flags: u8, interval_ms: u16, detect_multiplier: u8) -> Vec<u8> {
    [&[flags, detect_multiplier][..], &span(interval_ms), &span(interval_ms), &span(50)].concat()
}

/// One step: two octets of chance, what to do, with what.
fn step(what: u8, with: &[u8]) -> Vec<u8> {
    [&[0x40, 0, what], with].concat()
}

fn wait(ms: u16) -> Vec<u8> {
    step(4, &span(ms))
}

fn update(flags: u8, interval_ms: u16) -> Vec<u8> {
    step(6, &settings(flags, interval_ms, 3))
}

/// A packet as [`Input::likely_packet`] reads it.
fn packet(what: u8, detect_multiplier: u8, interval_ms: u16) -> Vec<u8> {
    let echo = if what & ECHO != 0 { span(50).to_vec() } else { vec![] };
    step(1, &[&[what, detect_multiplier][..], &span(interval_ms), &span(interval_ms), &echo].concat())
}

fn heard(what: u8) -> Vec<u8> {
    packet(what, 3, 100)
}

/// Octets of a packet that nothing is wrong with, but for one.
fn raw(at: usize, octet: u8) -> Vec<u8> {
    let mut octets = Packet { state: State::Up, detect_multiplier: 3, ..Packet::default() };
    octets.my_discriminator = 9;
    octets.your_discriminator = LOCAL;
    let mut octets = octets.encode();
    octets[at] = octet;
    step(0, &octets)
}

const ADMIN_DOWN: u8 = 0;
const DOWN: u8 = 1;
const INIT: u8 = 2;
const UP: u8 = 3;
const POLL: u8 = 4;
const FINAL: u8 = 8;
const DEMAND: u8 = 16;
const UNKNOWN: u8 = 32;
const ECHO: u8 = 64;
const GOODBYE: &[u8] = &[0x40, 0, 7, 0];
const ECHO_RETURNS: &[u8] = &[0x40, 0, 7, 1];

/// What the corpus is made of.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let plain = settings(0, 100, 3);
    let up = [heard(DOWN | UNKNOWN), heard(INIT), heard(UP | FINAL)].concat();
    let started = [plain.clone(), up.clone()].concat();
    let then = |steps: &[Vec<u8>]| [started.clone(), steps.concat()].concat();
    let alone =
        |flags: u8, multiplier: u8, steps: &[Vec<u8>]| [settings(flags, 100, multiplier), steps.concat()].concat();
    let mut seeds = vec![
        ("empty", vec![]),
        ("settings-only", plain.clone()),
        ("up-and-silent", then(&[wait(200), wait(100), wait(2_500)])),
        ("up-kept", then(&[[wait(90), heard(UP)].concat().repeat(20)])),
        ("up-three-way", alone(0, 3, &[heard(DOWN | UNKNOWN), wait(10), heard(UP), wait(90), heard(UP)])),
        ("up-while-down", alone(0, 3, &[heard(UP), wait(3_000)])),
        ("peer-down", then(&[heard(DOWN), wait(1_000), heard(INIT)])),
        ("peer-admin-down", then(&[heard(ADMIN_DOWN), wait(5_000), up.clone()])),
        ("peer-restarts", then(&[heard(DOWN | UNKNOWN), heard(INIT), heard(UP | FINAL)])),
        ("flapping", then(&[heard(DOWN), up.clone(), heard(DOWN), up.clone(), heard(DOWN)])),
        ("polls", then(&[heard(UP | POLL), heard(UP | POLL), heard(UP | POLL), wait(90)])),
        ("poll-and-final", then(&[heard(UP | POLL | FINAL), heard(UP | POLL | FINAL)])),
        (
            "finals-unasked",
            alone(0, 3, &[heard(DOWN | FINAL), heard(INIT | FINAL), heard(UP | FINAL), heard(UP | FINAL)]),
        ),
        ("update-slower", then(&[update(0, 500), wait(90), heard(UP | FINAL), wait(250)])),
        ("update-faster", then(&[update(0, 10), heard(UP | FINAL), wait(50)])),
        ("update-twice", then(&[update(0, 200), update(0, 250), heard(UP | FINAL), wait(90), heard(UP | FINAL)])),
        ("update-while-down", alone(0, 3, &[update(4, 250), wait(2_500), update(0, 100), wait(2_500)])),
        ("demand", then(&[heard(UP | DEMAND), wait(250), heard(UP | DEMAND | POLL), update(0, 200), wait(100)])),
        ("no-packets-wanted", then(&[packet(UP, 3, 0), wait(250), packet(UP | POLL, 3, 0), wait(2_500)])),
        ("passive", alone(4, 3, &[wait(5_000), up.clone(), wait(2_500), wait(5_000)])),
        ("passive-goodbye", alone(4, 3, &[GOODBYE.to_vec(), wait(2_500)])),
        ("goodbye", then(&[GOODBYE.to_vec(), wait(100), heard(UP), wait(2_500), heard(DOWN | POLL)])),
        ("goodbye-early", alone(0, 3, &[GOODBYE.to_vec(), GOODBYE.to_vec(), wait(2_500), up.clone()])),
        (
            "echo-lost",
            alone(3, 3, &[up.clone(), heard(UP | ECHO), wait(90), heard(UP | ECHO), wait(90), heard(UP | ECHO)]),
        ),
        ("echo-withdrawn", alone(3, 3, &[up.clone(), heard(UP | ECHO), wait(50), heard(UP), wait(90)])),
        ("multiplier-0", alone(0, 0, &[up.clone(), wait(90), GOODBYE.to_vec(), wait(1_000)])),
        ("multiplier-1", alone(0, 1, &[up.clone(), wait(90), packet(UP, 1, 100), wait(90), packet(UP, 1, 100)])),
        ("multiplier-255", alone(0, 255, &[packet(DOWN, 255, 50_000), packet(INIT, 255, 50_000), wait(60_000)])),
        ("raw-good", then(&[raw(3, 24), wait(90)])),
        ("raw-other-session", then(&[raw(11, 8), wait(250)])),
        ("raw-version", then(&[raw(0, 0x40)])),
        ("raw-authenticated", then(&[raw(1, 0xc4)])),
        ("raw-multipoint", then(&[raw(1, 0xc1)])),
        ("raw-length", then(&[raw(3, 25), raw(3, 23)])),
        ("raw-extreme", then(&[raw(12, 0xff), raw(16, 0xff), raw(20, 0xff), wait(60_000)])),
    ];
    let echoes = [wait(40), ECHO_RETURNS.to_vec(), heard(UP | ECHO)].concat().repeat(10);
    seeds.push(("echo", alone(3, 3, &[up.clone(), heard(UP | ECHO), echoes])));
    seeds.push(("raw-diagnostics", then(&(0..32).map(|diagnostic| raw(0, 0x20 | diagnostic)).collect::<Vec<_>>())));
    seeds.into_iter().map(|(name, octets)| (name.to_owned(), octets)).collect()
}
