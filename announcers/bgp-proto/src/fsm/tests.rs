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
    Config::new(Mode::Active, 64_512, PeerAs::Exactly(64_513))
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
    let capabilities = vec![
        Capability::family(Family::Ipv4Unicast),
        Capability::family(Family::Ipv6Unicast),
        Capability::RouteRefresh,
        Capability::FourOctetAs(64_512),
        Capability::EnhancedRouteRefresh,
    ];
    let ours = Open::with(64_512, 90, ID, capabilities);
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
    let ask = || Event::Received(Message::RouteRefresh(RouteRefresh::new(Family::Ipv4Unicast, 0)));
    assert_eq!(bench.feed(ask()), [Action::Resend(Family::Ipv4Unicast)]);
    for _ in 0..100 {
        assert_eq!(bench.feed(ask()), []);
    }
    assert_eq!(bench.tick(), (REFRESH_INTERVAL_MIN, vec![Action::Resend(Family::Ipv4Unicast)]));
    let unknown = RouteRefresh { afi: 25, subtype: 0, safi: 70, rest: vec![] };
    assert_eq!(bench.feed(Event::Received(Message::RouteRefresh(unknown))), []);
}

#[test]
fn send_hold_aborts_without_waiting_for_the_peer_to_read() {
    let mut bench = Bench::new(config()).to(State::Established);
    let actions = bench.feed(Event::SendHoldExpired);
    assert!(matches!(actions[..], [Action::Abort, Action::Down(Down::Sent(_))]), "{actions:?}");
}

/// The capabilities of the OPEN in `actions`.
fn offered(actions: &[Action]) -> Vec<Capability> {
    let open = actions.iter().find_map(|a| if let Action::Send(Message::Open(open)) = a { Some(open) } else { None });
    open.expect("an OPEN").capabilities.clone()
}

/// Lets the attempt fail with `notification` in OpenSent; what does the next OPEN offer?
fn offered_after(bench: &mut Bench, notification: Notification) -> Vec<u8> {
    bench.feed(Event::Received(Message::Notification(notification)));
    bench.tick();
    offered(&bench.feed(Event::Connected { id: ID })).iter().map(Capability::code).collect()
}

#[test]
fn refused_capabilities_are_left_out_of_the_next_open() {
    let full = Config { restart_time_s: Some(120), extended_next_hop: true, role: Some(Role::Customer), ..config() };
    let mut bench = Bench::new(full).to(State::OpenSent);
    let other = Notification::new(6, 5);
    assert_eq!(offered_after(&mut bench, other.clone()), [1, 1, 2, 5, 9, 64, 65, 70]);
    assert_eq!(offered_after(&mut bench, Notification::new(2, 7)), [1, 1, 65]);
    assert_eq!(offered_after(&mut bench, other), [1, 1, 65], "another refusal brings nothing back");
    assert_eq!(offered_after(&mut bench, Notification::new(2, 7)), [0; 0]);
    let up = [bench.feed(Event::Received(Message::Open(open(90)))), bench.feed(Event::Received(Message::Keepalive))]
        .concat();
    let Some(Action::Up(negotiated)) = up.last() else { panic!("{up:?}") };
    assert_eq!((negotiated.as4, negotiated.families), (false, Families::only(Family::Ipv4Unicast)));
    assert!(!negotiated.keeps_routes() && !negotiated.route_refresh);
    let unknown = offered_after(&mut bench, Notification::new(2, 4));
    assert_eq!(unknown, [1, 1, 2, 5, 9, 64, 65, 70], "a session that was up starts afresh");
    assert_eq!(offered_after(&mut bench, Notification::new(2, 4)), [0; 0]);
}

#[test]
fn only_the_first_session_of_a_process_says_that_it_restarts() {
    let restart = |restarting| {
        let families = vec![(1, 1, true), (2, 1, true)];
        Capability::GracefulRestart(GracefulRestart { restarting, notification: true, restart_time_s: 120, families })
    };
    let mut bench = Bench::new(Config { restart_time_s: Some(120), restarting: true, ..config() });
    bench.feed(Event::Start);
    assert!(offered(&bench.feed(Event::Connected { id: ID })).contains(&restart(true)));
    bench.feed(Event::Closed);
    bench.tick();
    assert!(offered(&bench.feed(Event::Connected { id: ID })).contains(&restart(true)), "it has not been up yet");
    let helper = Capability::GracefulRestart(GracefulRestart { notification: true, ..GracefulRestart::default() });
    let mut theirs = open(90);
    theirs.capabilities.push(helper);
    bench.feed(Event::Received(Message::Open(theirs)));
    let up = bench.feed(Event::Received(Message::Keepalive));
    let [Action::Up(negotiated)] = &up[..] else { panic!("{up:?}") };
    assert!(negotiated.keeps_routes() && negotiated.keeps_routes_after_notification());
    bench.feed(Event::Closed);
    bench.tick();
    assert!(offered(&bench.feed(Event::Connected { id: ID })).contains(&restart(false)));
}

#[test]
fn leaving_says_nothing_and_does_not_come_back() {
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        let mut bench = Bench::new(config()).to(state);
        assert_eq!(bench.feed(Event::Leave), [Action::Close, Action::Down(Down::Left)], "{state}");
        assert_eq!((bench.session.state(), bench.session.next_deadline()), (State::Idle, None), "{state}");
    }
}

#[test]
fn listening_side_waits_again_after_a_pause_in_which_it_accepts_nobody() {
    let mut bench = Bench::new(Config { mode: Mode::Listening, ..config() });
    assert_eq!(bench.feed(Event::Start), []);
    assert!(bench.session.accepts());
    assert!(matches!(bench.feed(Event::Accepted { id: ID })[..], [Action::Send(Message::Open(_))]));
    assert!(!bench.session.accepts());
    bench.feed(Event::Closed);
    assert!(!bench.session.accepts());
    assert_eq!(bench.feed(Event::Accepted { id: ID }), [], "in the pause");
    assert_eq!(bench.tick(), (SECOND, vec![]));
    assert!(bench.session.accepts());
}

#[test]
fn roles_must_fit_where_both_sides_have_one() {
    for (ours, theirs, want) in [
        (Some(Role::Customer), Some(Role::Provider), None),
        (Some(Role::Customer), None, None),
        (None, Some(Role::Peer), None),
        (Some(Role::Customer), Some(Role::Peer), Some((2, 11))),
        (Some(Role::RouteServerClient), Some(Role::RouteServer), None),
        (Some(Role::Peer), Some(Role::Peer), None),
        (Some(Role::Provider), Some(Role::Provider), Some((2, 11))),
    ] {
        let mut bench = Bench::new(Config { role: ours, ..config() }).to(State::OpenSent);
        let mut open = open(90);
        open.capabilities.extend(theirs.map(Capability::Role));
        assert_eq!(sent(&bench.feed(Event::Received(Message::Open(open)))), want, "{ours:?} {theirs:?}");
    }
}

#[test]
fn marks_of_a_refresh_have_their_length_checked_where_they_were_agreed_upon() {
    for (enhanced, subtype, want) in [
        (true, RouteRefresh::BEGIN, Some((7, 1))),
        (true, RouteRefresh::END, Some((7, 1))),
        (true, 3, None),
        (false, RouteRefresh::BEGIN, None),
    ] {
        let mut bench = Bench::new(config()).to(State::OpenSent);
        let mut open = open(90);
        open.capabilities.extend(enhanced.then_some(Capability::EnhancedRouteRefresh));
        bench.feed(Event::Received(Message::Open(open)));
        bench.feed(Event::Received(Message::Keepalive));
        let mark = RouteRefresh { rest: vec![0], ..RouteRefresh::new(Family::Ipv4Unicast, subtype) };
        let actions = bench.feed(Event::Received(Message::RouteRefresh(mark)));
        assert_eq!(sent(&actions), want, "{enhanced} {subtype}");
        let data = actions
            .iter()
            .find_map(|a| if let Action::Send(Message::Notification(n)) = a { Some(n.data.len()) } else { None });
        assert_eq!(data, want.map(|_| 24), "the whole message");
    }
}
