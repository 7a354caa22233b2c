//! Fuzzing of a session: any sequence of packets, ticks and commands. [`bfd`] is a plain function of octets, which the
//! tests here drive over the corpus and a fixed number of generated inputs.
#![expect(clippy::disallowed_methods, reason = "tests own the clock")]
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use ferrocast_bfd::{
    Diagnostic, State,
    machine::{Echo, Effects, Machine, Settings},
    packet::{PACKET_LEN, Packet},
};
use proptest::prelude::*;

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
fn bfd(data: &[u8]) {
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

#[test]
fn corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/bfd");
    let seeds: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() >= 24, "the corpus is in {}", corpus.display());
    for seed in seeds {
        println!("{}", seed.display()); // shown for the one that fails
        bfd(&fs::read(&seed).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn generated_inputs_hold(data in prop::collection::vec(any::<u8>(), 0..512)) {
        bfd(&data);
    }
}
