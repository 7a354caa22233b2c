//! The state machine rule by rule, in a time of its own.
#![expect(clippy::disallowed_methods, reason = "tests own the clock")]
use super::*;
use crate::wire::{Open, RouteRefresh};

const ID: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER_ID: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    session: Session,
    at: Moment,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self { session: Session::new(config), at: Moment { now: Instant::now(), random: 0 } }
    }

    fn feed(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut out = vec![];
        self.session.handle(event, self.at, &mut out);
        out
    }

    /// Jumps to the next deadline; how far was it?
    fn tick(&mut self) -> (Duration, Vec<Action>) {
        let deadline = self.session.next_deadline().unwrap();
        let waited = deadline - self.at.now;
        self.at.now = deadline;
        (waited, self.feed(Event::Tick))
    }

    fn to(mut self, state: State) -> Self {
        self.feed(Event::Start);
        for event in
            [Event::Connected { id: ID }, Event::Received(Message::Open(open(90))), Event::Received(Message::Keepalive)]
        {
            if self.session.state() == state {
                break;
            }
            self.feed(event);
        }
        assert_eq!(self.session.state(), state);
        self
    }
}

fn config() -> Config {
    Config {
        mode: Mode::Active,
        local_as: 64_512,
        peer_as: PeerAs::Exactly(64_513),
        hold_time: 90 * SECOND,
        keepalive_time: 30 * SECOND,
        families: Families::ALL,
        retry: Retry::default(),
    }
}

fn open(hold_time_s: u16) -> Open {
    Open::new(64_513, hold_time_s, PEER_ID, Families::ALL)
}

fn sent(actions: &[Action]) -> Option<(u8, u8)> {
    actions.iter().find_map(|a| match a {
        Action::Send(Message::Notification(n)) => Some((n.code, n.subcode)),
        _ => None,
    })
}

#[test]
fn session_is_established_only_after_the_peers_keepalive() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.feed(Event::Start), [Action::Dial]);
    let ours = Open::new(64_512, 90, ID, Families::ALL);
    assert_eq!(bench.feed(Event::Connected { id: ID }), [Action::Send(Message::Open(ours))]);
    assert_eq!(bench.feed(Event::Received(Message::Open(open(30)))), [Action::Send(Message::Keepalive)]);
    assert_eq!(bench.session.state(), State::OpenConfirm);
    let up = bench.feed(Event::Received(Message::Keepalive));
    let [Action::Up(negotiated)] = &up[..] else { panic!("{up:?}") };
    assert_eq!((negotiated.hold_time, negotiated.keepalive_time), (30 * SECOND, 10 * SECOND));
    assert_eq!((negotiated.families, negotiated.as4, negotiated.internal), (Families::ALL, true, false));
}

#[test]
fn opens_that_do_not_fit_are_refused() {
    for (name, mut config, open, want) in [
        ("another AS", config(), Open::new(1, 90, PEER_ID, Families::ALL), (2, 2)),
        ("not internal", config(), open(90), (2, 2)),
        ("not external", config(), Open::new(64_512, 90, PEER_ID, Families::ALL), (2, 2)),
        ("our own identifier, internal", config(), Open::new(64_512, 90, ID, Families::ALL), (2, 3)),
    ] {
        match name {
            "not internal" => config.peer_as = PeerAs::Internal,
            "not external" => config.peer_as = PeerAs::External,
            "our own identifier, internal" => config.peer_as = PeerAs::Any,
            _ => {}
        }
        let mut bench = Bench::new(config).to(State::OpenSent);
        assert_eq!(sent(&bench.feed(Event::Received(Message::Open(open)))), Some(want), "{name}");
        assert_eq!(bench.session.state(), State::Idle, "{name}");
    }
    let external = Config { peer_as: PeerAs::External, ..config() };
    let mut bench = Bench::new(external).to(State::OpenSent);
    let same_id = Open::new(64_513, 90, ID, Families::ALL);
    assert_eq!(sent(&bench.feed(Event::Received(Message::Open(same_id)))), None, "allowed by RFC 6286");
}

#[test]
fn unexpected_messages_end_the_session_with_the_states_own_subcode() {
    for (state, message, want) in [
        (State::OpenSent, Message::Keepalive, (5, 1)),
        (State::OpenSent, Message::Update(&[0; 4]), (5, 1)),
        (State::OpenConfirm, Message::Update(&[0; 4]), (5, 2)),
        (State::OpenConfirm, Message::Open(open(90)), (5, 2)),
        (State::Established, Message::Open(open(90)), (5, 3)),
    ] {
        let mut bench = Bench::new(config()).to(state);
        let actions = bench.feed(Event::Received(message));
        assert_eq!(sent(&actions), Some(want), "{state}");
        assert!(matches!(actions[1..], [Action::Close, Action::Down(Down::Sent(_))]), "{actions:?}");
    }
}

#[test]
fn timers_run_as_agreed() {
    let mut bench = Bench::new(config()).to(State::OpenSent);
    let (waited, actions) = bench.tick();
    assert_eq!((waited, sent(&actions)), (OPEN_HOLD_TIME, Some((4, 0))));

    let mut bench = Bench::new(config()).to(State::Established);
    for _ in 0..2 {
        assert_eq!(bench.tick(), (30 * SECOND, vec![Action::Send(Message::Keepalive)]));
    }
    let (waited, actions) = bench.tick();
    assert_eq!((waited, sent(&actions)), (30 * SECOND, Some((4, 0))), "silence for 90 s");

    let mut bench = Bench::new(config()).to(State::Established);
    bench.at.random = u32::MAX;
    bench.tick();
    assert_eq!(bench.tick().0, (30 * SECOND).mul_f64(0.75), "the longest jitter");
}

#[test]
fn hold_time_zero_means_no_timers() {
    let mut bench = Bench::new(config()).to(State::OpenSent);
    bench.feed(Event::Received(Message::Open(open(0))));
    assert_eq!(bench.session.next_deadline(), None);
    bench.feed(Event::Received(Message::Keepalive));
    assert_eq!((bench.session.state(), bench.session.next_deadline()), (State::Established, None));
}

#[test]
fn backoff_grows_and_only_a_stable_session_clears_it() {
    let retry = config().retry;
    let mut bench = Bench::new(config());
    bench.feed(Event::Start);
    for want in [1, 2, 4, 8, 16, 30, 30] {
        bench.feed(Event::ConnectFailed);
        assert_eq!(bench.tick(), (want * SECOND, vec![Action::Dial]));
    }
    // Established, but not for long
    bench.feed(Event::Connected { id: ID });
    bench.feed(Event::Received(Message::Open(open(90))));
    bench.feed(Event::Received(Message::Keepalive));
    bench.feed(Event::Received(Message::Notification(Notification::bad_peer_as())));
    assert_eq!(bench.tick(), (30 * SECOND, vec![Action::Dial]));
    // Established and stable
    bench.feed(Event::Connected { id: ID });
    bench.feed(Event::Received(Message::Open(open(90))));
    bench.feed(Event::Received(Message::Keepalive));
    bench.at.now += retry.stable_after;
    bench.feed(Event::Closed);
    assert_eq!(bench.tick(), (SECOND, vec![Action::Dial]));
    // nobody answers
    let (waited, actions) = bench.tick();
    assert_eq!((waited, actions), (retry.connect_timeout, vec![Action::Close, Action::Down(Down::ConnectTimeout)]));
}

#[test]
fn stop_says_why_and_does_not_come_back() {
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        let mut bench = Bench::new(config()).to(state);
        let actions = bench.feed(Event::Stop(Notification::deconfigured()));
        assert_eq!(sent(&actions), Some((6, 3)), "{state}");
        assert_eq!((bench.session.state(), bench.session.next_deadline()), (State::Idle, None), "{state}");
    }
    let mut bench = Bench::new(config()).to(State::Connect);
    let actions = bench.feed(Event::Stop(Notification::deconfigured()));
    assert!(matches!(actions[..], [Action::Close, Action::Down(_)]), "nothing to say it to: {actions:?}");
}

#[test]
fn passive_side_waits_and_ends_without_a_next_attempt() {
    let mut bench = Bench::new(Config { mode: Mode::Passive, ..config() });
    assert_eq!(bench.feed(Event::Start), []);
    assert_eq!((bench.session.state(), bench.session.next_deadline()), (State::Active, None));
    let mut bench = bench.to(State::Established);
    bench.feed(Event::Closed);
    assert_eq!((bench.session.state(), bench.session.next_deadline()), (State::Idle, None));
}

#[test]
fn route_refresh_is_answered_but_not_in_a_loop() {
    let mut bench = Bench::new(config()).to(State::Established);
    let ask = || Event::Received(Message::RouteRefresh(RouteRefresh { afi: 1, subtype: 0, safi: 1 }));
    assert_eq!(bench.feed(ask()), [Action::Resend(Family::Ipv4Unicast)]);
    for _ in 0..100 {
        assert_eq!(bench.feed(ask()), []);
    }
    assert_eq!(bench.tick(), (REFRESH_INTERVAL_MIN, vec![Action::Resend(Family::Ipv4Unicast)]));
    let unknown = RouteRefresh { afi: 25, subtype: 0, safi: 70 };
    assert_eq!(bench.feed(Event::Received(Message::RouteRefresh(unknown))), []);
}

#[test]
fn send_hold_aborts_without_waiting_for_the_peer_to_read() {
    let mut bench = Bench::new(config()).to(State::Established);
    let actions = bench.feed(Event::SendHoldExpired);
    assert!(matches!(actions[..], [Action::Abort, Action::Down(Down::Sent(_))]), "{actions:?}");
}
