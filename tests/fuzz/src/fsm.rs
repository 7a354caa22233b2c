//! The state machine of a session: any sequence of events and messages, at any time.
//!
//! The input is a small program: three octets of configuration, then one event after the other. Events come
//! whether they fit the state or not, as the driver's would if it were wrong.
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use ferrocast_bgp_proto::{
    Families, Family,
    fsm::{Action, Config, Down, Event, Mode, Moment, PeerAs, Session, State},
    wire::{
        Capability, DecodeError, GracefulRestart, HEADER_LEN, Kind, Message, Notification, Open, Role, RouteRefresh,
    },
};

/// Our AS, and the peer's.
const LOCAL_AS: u32 = 64_512;
const PEER_AS: u32 = 64_513;
/// Most actions that one event may ask for: a KEEPALIVE and one answer per family, or NOTIFICATION, close and down.
const ACTIONS_MAX: usize = 3;
/// Most events of one input: enough for several sessions.
const EVENTS_MAX: usize = 500;

/// Runs the target.
pub fn run(octets: &[u8]) {
    let mut input = Input(octets);
    let (first, second, random) = (input.octet(), input.octet(), input.octet());
    let mut world = World::new(config(first, second), random);
    for _ in 0..EVENTS_MAX {
        if input.0.is_empty() {
            return;
        }
        world.step(&mut input);
    }
}

fn config(first: u8, second: u8) -> Config {
    let mode = match first & 3 {
        0 => Mode::Passive,
        1 => Mode::Listening,
        _ => Mode::Active,
    };
    let peer_as = match first >> 2 & 3 {
        0 => PeerAs::Exactly(PEER_AS),
        1 => PeerAs::Internal,
        2 => PeerAs::External,
        _ => PeerAs::Any,
    };
    let hold_time = Duration::from_secs([0, 3, 90, 65_535][usize::from(first >> 4 & 3)]);
    Config {
        hold_time,
        keepalive_time: hold_time / 3,
        families: if second & 1 == 0 { Families::ALL } else { Families::only(Family::Ipv6Unicast) },
        extended_next_hop: second & 2 != 0,
        restart_time_s: (second & 4 != 0).then_some(120),
        restarting: second & 8 != 0,
        role: (second & 16 != 0).then_some(Role::Customer),
        ..Config::new(mode, LOCAL_AS, peer_as)
    }
}

/// What is left of the program; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn octets(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The session and what a driver knows of it.
struct World {
    session: Session,
    at: Moment,
    dialling: bool,
    /// TCP is up.
    connected: bool,
    /// OPEN was sent on this connection.
    opened: bool,
    up: bool,
    /// Nobody wants the session.
    stopped: bool,
    mode: Mode,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any time will do to start from; it moves by the input alone")]
    fn new(config: Config, random: u8) -> Self {
        Self {
            session: Session::new(config),
            at: Moment { now: Instant::now(), random: u32::from(random) << 24 },
            dialling: false,
            connected: false,
            opened: false,
            up: false,
            stopped: true,
            mode: config.mode,
        }
    }

    /// One event, and then the time that it has become.
    fn step(&mut self, input: &mut Input<'_>) {
        let id = Ipv4Addr::new(192, 0, 2, 1);
        match input.octet() % 18 {
            0 => self.feed(Event::Start),
            1 => self.feed(Event::Stop(Notification::deconfigured())),
            2 => self.feed(Event::Leave),
            3 => self.feed(Event::Connected { id }),
            4 => self.feed(Event::Accepted { id }),
            5 => self.feed(Event::ConnectFailed),
            6 => self.feed(Event::Closed),
            7 => self.feed(Event::SendHoldExpired),
            8 => self.feed(Event::Malformed(DecodeError::NotSynchronized)),
            9 => self.wait(Duration::from_millis(u64::from(input.octet()) * 20)),
            10 => self.wait(Duration::from_secs(u64::from(input.octet()) * 2)),
            11 => self.wait_for_deadline(),
            12 | 13 => {
                let open = open(input.octet());
                self.feed(Event::Received(Message::Open(open)));
            }
            14 | 15 => self.feed(Event::Received(Message::Keepalive)),
            16 => {
                let kind = input.octet();
                let refresh = RouteRefresh {
                    rest: vec![0; usize::from(kind >> 6)],
                    ..RouteRefresh::new(Family::ALL[usize::from(kind & 1)], kind >> 1 & 3)
                };
                self.feed(Event::Received(Message::RouteRefresh(refresh)));
            }
            _ => self.raw(input),
        }
        self.feed(Event::Tick);
        let deadline = self.session.next_deadline();
        assert!(deadline.is_none_or(|deadline| deadline > self.at.now), "a deadline in the past");
    }

    fn wait(&mut self, duration: Duration) {
        self.at.now += duration;
    }

    fn wait_for_deadline(&mut self) {
        self.at.now = self.session.next_deadline().unwrap_or(self.at.now);
    }

    /// A message of any kind with the next octets as its body.
    fn raw(&mut self, input: &mut Input<'_>) {
        let kind = input.octet() % 7;
        let len = usize::from(input.octet());
        let body = input.octets(len);
        let mut octets = vec![0xff; 16];
        octets.extend(u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX).to_be_bytes());
        octets.push(kind);
        octets.extend_from_slice(body);
        match Message::decode(&octets) {
            Ok(Some((message, _))) => self.feed(Event::Received(message)),
            Ok(None) => panic!("a whole message was there"),
            Err(error) => self.feed(Event::Malformed(error)),
        }
    }

    fn feed(&mut self, event: Event<'_>) {
        let before = self.session.state();
        let enhanced = self.session.negotiated().is_some_and(|n| n.enhanced_route_refresh);
        match event {
            Event::Start => self.stopped = false,
            Event::Stop(_) | Event::Leave => self.stopped = true,
            Event::Connected { .. } | Event::Accepted { .. } if self.session.accepts() => {
                (self.dialling, self.connected, self.opened) = (false, true, false);
            }
            _ => {}
        }
        let mut actions = vec![];
        self.session.handle(event.clone(), self.at, &mut actions);
        assert!(actions.len() <= ACTIONS_MAX, "{} actions: {actions:?}", actions.len());
        for (position, action) in actions.iter().enumerate() {
            self.follow(action, &actions[position + 1..]);
            if let Action::Send(Message::Notification(sent)) = action {
                assert!(may_send(sent, &event, before, enhanced), "{before} {event:?}: {sent}");
            }
        }
        self.check();
    }

    /// What a driver does, and what it relies on.
    fn follow(&mut self, action: &Action, next: &[Action]) {
        match action {
            Action::Dial => {
                assert!(!self.dialling && !self.connected, "one connection at a time");
                self.dialling = true;
            }
            Action::Send(message) => {
                assert!(self.connected, "{message:?} without a connection");
                let open = message.kind() == Kind::Open;
                assert_ne!(open, self.opened, "OPEN is sent first, and once: {message:?}");
                self.opened = true;
                assert!(!matches!(message.kind(), Kind::Update | Kind::RouteRefresh), "{message:?} is the driver's");
                if message.kind() == Kind::Notification {
                    assert!(matches!(next, [Action::Close, Action::Down(_)]), "NOTIFICATION is the last: {next:?}");
                }
                let mut octets = BytesMut::new();
                message.encode(&mut octets);
            }
            Action::Close | Action::Abort => {
                assert!(self.dialling || self.connected, "nothing to close");
                assert!(matches!(next, [Action::Down(_)]), "closed, but not down: {next:?}");
            }
            Action::Up(agreed) => {
                assert!(self.connected && self.opened && !self.up, "up twice, or without a connection");
                assert_eq!(agreed.hold_time.is_zero(), agreed.keepalive_time.is_zero());
                self.up = true;
            }
            Action::Down(down) => {
                assert!(self.dialling || self.connected, "down, but never tried: {down}");
                assert!(!matches!(down, Down::ConnectFailed | Down::ConnectTimeout) || !self.connected);
                (self.dialling, self.connected, self.opened, self.up) = (false, false, false, false);
            }
            Action::Resend(family) => {
                assert!(self.up, "routes outside Established");
                assert!(self.session.negotiated().is_some_and(|n| n.families.contains(*family)));
            }
        }
    }

    /// State, and what is known of it, agree.
    fn check(&self) {
        let state = self.session.state();
        assert_eq!(self.up, state == State::Established);
        let connected = matches!(state, State::OpenSent | State::OpenConfirm | State::Established);
        assert_eq!(self.connected, connected, "{state}");
        assert_eq!(self.dialling, state == State::Connect);
        let agreed = matches!(state, State::OpenConfirm | State::Established);
        assert_eq!(self.session.negotiated().is_some(), agreed, "{state}");
        if self.stopped {
            assert_eq!((state, self.session.next_deadline()), (State::Idle, None), "nobody wants it");
        } else if self.mode == Mode::Active {
            let waits = self.session.next_deadline().is_some();
            let silent = self.session.negotiated().is_some_and(|n| n.hold_time.is_zero());
            assert!(waits || silent, "{state}: nothing will ever happen");
        }
    }
}

/// May this NOTIFICATION be the answer to that? Source: RFC 4271 §6, RFC 6608, RFC 7313 §5.
fn may_send(sent: &Notification, event: &Event<'_>, state: State, enhanced: bool) -> bool {
    let code = (sent.code, sent.subcode);
    match (state, event) {
        (_, Event::Stop(reason)) => sent == reason,
        (_, Event::Tick) => code == (4, 0),
        (_, Event::Malformed(error)) => *sent == error.notification(),
        (_, Event::Received(Message::Notification(_))) => false,
        (State::OpenSent, Event::Received(Message::Open(_))) => matches!(code, (2, 2 | 3 | 11)),
        (State::OpenSent, Event::Received(_)) => code == (5, 1),
        (State::OpenConfirm, Event::Received(Message::Keepalive)) => false,
        (State::OpenConfirm, Event::Received(_)) => code == (5, 2),
        (State::Established, Event::Received(Message::RouteRefresh(refresh))) => {
            enhanced && matches!(refresh.subtype, 1 | 2) && !refresh.rest.is_empty() && code == (7, 1)
        }
        (State::Established, Event::Received(Message::Open(_))) => code == (5, 3),
        _ => false,
    }
}

/// The peer's OPEN, good or less so.
fn open(kind: u8) -> Open {
    let asn = if kind & 1 == 0 { PEER_AS } else { LOCAL_AS };
    let id = if kind & 2 == 0 { Ipv4Addr::new(192, 0, 2, 2) } else { Ipv4Addr::new(192, 0, 2, 1) };
    let hold_time_s = [90, 0, 3, u16::MAX][usize::from(kind >> 2 & 3)];
    let mut open = Open::new(asn, hold_time_s, id, Families::ALL);
    if kind & 16 != 0 {
        let restart = GracefulRestart { restart_time_s: 9, families: vec![(1, 1, true)], ..GracefulRestart::default() };
        open.capabilities.extend([Capability::EnhancedRouteRefresh, Capability::GracefulRestart(restart)]);
    }
    if kind & 32 != 0 {
        open.capabilities.push(Capability::Role(if kind & 64 == 0 { Role::Provider } else { Role::Peer }));
    }
    if kind & 128 != 0 {
        open.capabilities.clear();
    }
    open
}

/// Sessions as they go, and as they go wrong.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    /// Active, the peer's AS known, 90 s; every option.
    const CONFIG: [u8; 3] = [0x22, 0x1e, 0x80];
    const UP: &[u8] = &[0, 3, 12, 0x30, 14];
    let cases: [(&str, [u8; 3], &[u8]); 20] = [
        ("up", CONFIG, &[]),
        ("up-stop", CONFIG, &[1]),
        ("up-leave-start", CONFIG, &[2, 0]),
        ("up-closed-retry", CONFIG, &[6, 11, 3, 12, 0x30, 14]),
        ("up-hold-expires", CONFIG, &[10, 100, 11]),
        ("up-keepalives", CONFIG, &[11, 14, 11, 14, 11, 14]),
        ("up-refreshes", CONFIG, &[16, 0, 16, 0, 16, 1, 9, 250, 11]),
        ("up-refresh-length", CONFIG, &[16, 0x42]),
        ("up-update", CONFIG, &[17, 2, 4, 0, 0, 0, 0]),
        ("up-second-open", CONFIG, &[12, 0x30]),
        ("up-notification", CONFIG, &[17, 3, 2, 6, 4]),
        ("up-malformed", CONFIG, &[8]),
        ("up-send-hold", CONFIG, &[7]),
        ("no-hold-time", [0x02, 0, 0], &[10, 255]),
        ("passive", [0x20, 0, 0], &[0, 4, 12, 0, 14, 6, 4]),
        ("listening", [0x21, 0, 0], &[0, 4, 12, 0, 14]),
        ("internal", [0x26, 0, 0], &[0, 3, 12, 1, 14]),
        ("internal-same-id", [0x26, 0, 0], &[0, 3, 12, 3]),
        ("role-mismatch", CONFIG, &[1, 0, 3, 12, 0x70]),
        ("refused-capabilities", CONFIG, &[1, 0, 3, 17, 3, 2, 2, 7, 11, 3, 17, 3, 2, 2, 4, 11, 3, 12, 0x80, 14]),
    ];
    let mut seeds: Vec<_> =
        cases.into_iter().map(|(name, config, rest)| (name.to_owned(), [&config[..], UP, rest].concat())).collect();
    for (name, program) in [
        ("connect-fails", &[0, 5, 11, 5, 11, 5, 11][..]),
        ("connect-timeout", &[0, 11, 11, 11]),
        ("open-sent-keepalive", &[0, 3, 14]),
        ("open-confirm-update", &[0, 3, 12, 0x30, 17, 2, 4, 0, 0, 0, 0]),
        ("open-sent-hold", &[0, 3, 11, 11]),
        ("wrong-as", &[0, 3, 12, 1]),
    ] {
        seeds.push((name.to_owned(), [&CONFIG[..], program].concat()));
    }
    seeds
}
