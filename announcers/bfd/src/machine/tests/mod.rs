//! The machine, rule by rule; `link` joins two of them.
#![expect(clippy::disallowed_methods, reason = "tests own the clock")]
mod link;

use super::*;

const MS: Duration = Duration::from_millis(1);
const US: fn(u32) -> Duration = |ms| Duration::from_millis(ms.into());

fn settings() -> Settings {
    Settings {
        desired_min_tx: 100 * MS,
        required_min_rx: 100 * MS,
        detect_multiplier: 3,
        echo_tx: None,
        echo_rx: None,
        passive: false,
    }
}

fn from_peer(state: State) -> Packet {
    Packet {
        state,
        detect_multiplier: 3,
        my_discriminator: 9,
        your_discriminator: 7,
        desired_min_tx_us: 100_000,
        required_min_rx_us: 100_000,
        ..Packet::default()
    }
}

/// A machine brought to `state`, and the time.
fn machine_in(state: State, settings: Settings) -> (Machine, Instant) {
    let now = Instant::now();
    let mut machine = Machine::new(settings, 7, 1, now);
    let heard: &[State] = match state {
        State::AdminDown => {
            drop(machine.disable(now, 0));
            &[]
        }
        State::Down => &[],
        State::Init => &[State::Down],
        State::Up => &[State::Down, State::Init],
    };
    for state in heard {
        let effects = machine.receive(&from_peer(*state), now, 0);
        assert!(effects.packet.is_some(), "a change is told at once");
    }
    assert_eq!(machine.status().state, state);
    (machine, now)
}

/// An Up machine whose first poll is answered.
fn up(settings: Settings) -> (Machine, Instant) {
    let (mut machine, now) = machine_in(State::Up, settings);
    let answered = machine.receive(&Packet { last: true, ..from_peer(State::Up) }, now, 0);
    assert_eq!(answered.packet, None);
    (machine, now)
}

#[test]
fn states_follow_the_peers_as_in_the_rfc() {
    use Diagnostic as D;
    use State::{AdminDown, Down, Init, Up};
    for (state, received, expected, diagnostic) in [
        (Down, AdminDown, Down, D::None),
        (Down, Down, Init, D::None),
        (Down, Init, Up, D::None),
        (Down, Up, Down, D::None),
        (Init, AdminDown, Down, D::NeighborDown),
        (Init, Down, Init, D::None),
        (Init, Init, Up, D::None),
        (Init, Up, Up, D::None),
        (Up, AdminDown, Down, D::NeighborDown),
        (Up, Down, Down, D::NeighborDown),
        (Up, Init, Up, D::None),
        (Up, Up, Up, D::None),
        (AdminDown, Down, AdminDown, D::AdministrativelyDown),
        (AdminDown, Up, AdminDown, D::AdministrativelyDown),
    ] {
        let (mut machine, now) = machine_in(state, settings());
        let effects = machine.receive(&from_peer(received), now, 0);
        let status = machine.status();
        assert_eq!((status.state, status.diagnostic), (expected, diagnostic), "{state} hears {received}");
        assert_eq!(effects.packet.is_some(), state != expected, "{state} hears {received}: told at once");
        assert_eq!(status.remote_state, received);
        assert_eq!(status.admin_down_by_peer, received == AdminDown, "{state} hears {received}");
    }
}

#[test]
fn packets_are_slow_until_up() {
    let now = Instant::now();
    let mut machine = Machine::new(settings(), 7, 1, now);
    assert_eq!(machine.deadline(), Some(now), "the first one is due at once");
    let packet = machine.tick(now, 0).packet.unwrap();
    assert_eq!((packet.desired_min_tx_us, packet.required_min_rx_us), (1_000_000, 100_000));
    assert_eq!((packet.your_discriminator, packet.poll, packet.control_plane_independent), (0, false, false));
    for (random, expected) in [(0, US(750)), (u64::MAX, US(1_000))] {
        let mut machine = machine.clone();
        let at = machine.deadline().unwrap();
        drop(machine.tick(at, random));
        assert_eq!(machine.deadline(), Some(at + expected));
    }
}

#[test]
fn up_asks_for_the_fast_interval_by_a_poll() {
    let (mut machine, now) = machine_in(State::Up, settings());
    let status = machine.status();
    assert_eq!((status.transmit_interval, status.detection_time), (US(100), US(300)), "faster is at once");
    let later = machine.deadline().unwrap();
    assert_eq!(later, now + US(75));
    let packet = machine.tick(later, 0).packet.unwrap();
    assert!(packet.poll && packet.desired_min_tx_us == 100_000, "{packet:?}");
    drop(machine.receive(&Packet { last: true, ..from_peer(State::Up) }, later, 0));
    let packet = machine.tick(later + US(75), 0).packet.unwrap();
    assert!(!packet.poll, "answered");
}

#[test]
fn a_poll_is_answered_at_once_in_every_state_but_admin_down() {
    for state in [State::Down, State::Init, State::Up] {
        let (mut machine, now) = machine_in(state, settings());
        let due = machine.next;
        let answer = machine.receive(&Packet { poll: true, ..from_peer(State::Up) }, now, 0).packet.unwrap();
        assert!(answer.last && !answer.poll, "{state}");
        assert!(state != State::Up || machine.next == due, "the timer is left alone");
    }
    let (mut machine, now) = machine_in(State::AdminDown, settings());
    assert_eq!(machine.receive(&Packet { poll: true, ..from_peer(State::Up) }, now, 0), Effects::default());
}

#[test]
fn slower_sending_waits_for_the_polls_end() {
    let (mut machine, now) = up(settings());
    let packet = machine.update(Settings { desired_min_tx: US(400), ..settings() }, now, 0).packet.unwrap();
    assert!(packet.poll && packet.desired_min_tx_us == 400_000);
    assert_eq!(machine.status().transmit_interval, US(100), "until the peer knows");
    drop(machine.receive(&Packet { last: true, ..from_peer(State::Up) }, now, 0));
    assert_eq!(machine.status().transmit_interval, US(400));
    assert_eq!(machine.status().down_events, 0);
}

#[test]
fn faster_detection_waits_for_the_polls_end() {
    let (mut machine, now) = up(Settings { required_min_rx: US(400), ..settings() });
    assert_eq!(machine.status().detection_time, US(1_200));
    let packet = machine.update(settings(), now, 0).packet.unwrap();
    assert!(packet.poll && packet.required_min_rx_us == 100_000);
    assert_eq!(machine.status().detection_time, US(1_200), "until the peer knows");
    drop(machine.receive(&Packet { last: true, ..from_peer(State::Up) }, now, 0));
    assert_eq!(machine.status().detection_time, US(300));
}

#[test]
fn a_change_during_a_poll_needs_an_answer_of_its_own() {
    let (mut machine, now) = up(settings());
    drop(machine.update(Settings { desired_min_tx: US(400), ..settings() }, now, 0));
    drop(machine.update(Settings { desired_min_tx: US(800), ..settings() }, now, 0));
    let last = Packet { last: true, ..from_peer(State::Up) };
    drop(machine.receive(&last, now, 0));
    assert_eq!(machine.status().transmit_interval, US(100), "that may have been the answer to 400 ms");
    drop(machine.receive(&last, now, 0));
    assert_eq!(machine.status().transmit_interval, US(800));
}

#[test]
fn intervals_follow_the_slower_side() {
    for (tx_us, rx_us, multiplier, interval, detection) in [
        (100_000, 100_000, 3, US(100), US(300)),
        (500_000, 100_000, 3, US(100), US(1_500)),
        (10_000, 700_000, 5, US(700), US(500)),
        (10_000, 0, 1, Duration::ZERO, US(100)),
    ] {
        let (mut machine, now) = up(settings());
        let packet = Packet {
            desired_min_tx_us: tx_us,
            required_min_rx_us: rx_us,
            detect_multiplier: multiplier,
            ..from_peer(State::Up)
        };
        drop(machine.receive(&packet, now, 0));
        let status = machine.status();
        assert_eq!((status.transmit_interval, status.detection_time), (interval, detection), "{packet:?}");
    }
}

#[test]
fn a_peer_that_wants_no_packets_gets_none_but_answers() {
    let (mut machine, now) = up(settings());
    drop(machine.receive(&Packet { required_min_rx_us: 0, ..from_peer(State::Up) }, now, 0));
    assert_eq!(machine.deadline(), Some(now + US(300)), "only its silence matters");
    let polled = Packet { required_min_rx_us: 0, poll: true, ..from_peer(State::Up) };
    assert!(machine.receive(&polled, now, 0).packet.is_some());
    assert_eq!(machine.next, None);
}

#[test]
fn demand_mode_of_the_peer_stops_packets_but_polls() {
    let (mut machine, now) = up(settings());
    let demand = Packet { demand: true, ..from_peer(State::Up) };
    drop(machine.receive(&demand, now, 0));
    assert_eq!(machine.next, None);
    drop(machine.update(Settings { required_min_rx: US(200), ..settings() }, now, 0));
    assert!(machine.next.is_some(), "a poll is sent over and over until answered");
    drop(machine.receive(&Packet { last: true, ..demand }, now, 0));
    assert_eq!(machine.next, None);
    drop(machine.receive(&Packet { demand: true, ..from_peer(State::Init) }, now, 0));
    assert!(machine.next.is_some(), "demand mode needs both sides Up");
}

#[test]
fn silence_is_detected_on_time_and_told() {
    let (mut machine, now) = up(settings());
    let at = now + US(300);
    assert_eq!(machine.expires(), Some(at));
    drop(machine.tick(at - MS, 0));
    assert_eq!(machine.status().state, State::Up);
    let packet = machine.tick(at, 0).packet.unwrap();
    assert_eq!((packet.state, packet.diagnostic), (State::Down, Diagnostic::DetectionTimeExpired));
    assert_eq!(packet.your_discriminator, 9, "the last one still says whom it means");
    assert_eq!(packet.desired_min_tx_us, 1_000_000);
    let status = machine.status();
    assert_eq!((status.remote_discriminator, status.remote_state, status.down_events), (0, State::Down, 1));
    assert!(status.was_up && !status.admin_down_by_peer);
    let next = machine.tick(machine.deadline().unwrap(), 0).packet.unwrap();
    assert_eq!(next.your_discriminator, 0);
}

#[test]
fn passive_waits_for_the_peer_and_again_after_silence() {
    let passive = Settings { passive: true, ..settings() };
    let now = Instant::now();
    let mut machine = Machine::new(passive, 7, 1, now);
    assert_eq!(machine.deadline(), None);
    assert_eq!(machine.tick(now + US(5_000), 0), Effects::default());
    assert!(machine.receive(&from_peer(State::Down), now, 0).packet.is_some());
    drop(machine.receive(&from_peer(State::Init), now, 0));
    assert!(machine.tick(now + US(300), 0).packet.is_some_and(|packet| packet.state == State::Down));
    assert_eq!(machine.deadline(), None);
}

#[test]
fn admin_down_is_told_at_the_pace_that_the_peer_knows() {
    let (mut machine, now) = up(settings());
    let packet = machine.disable(now, 0).packet.unwrap();
    assert_eq!((packet.state, packet.diagnostic), (State::AdminDown, Diagnostic::AdministrativelyDown));
    let mut sent = 1;
    while let Some(at) = machine.deadline() {
        assert!(!machine.is_over() && at <= now + US(300), "within its detection time");
        sent += usize::from(machine.tick(at, u64::MAX).packet.is_some());
    }
    assert_eq!(sent, 3);
    assert!(machine.is_over());
    assert_eq!(machine.disable(now, 0), Effects::default());
    let mut silent = Machine::new(Settings { passive: true, ..settings() }, 7, 1, now);
    assert_eq!(silent.disable(now, 0), Effects::default(), "a passive side says nothing to a peer it never heard");
    assert!(silent.is_over());
}

#[test]
fn echo_runs_while_up_and_its_loss_takes_the_session_down() {
    let echoing = Settings { echo_tx: Some(US(50)), echo_rx: Some(US(50)), ..settings() };
    let loops = Packet { required_min_echo_rx_us: 60_000, ..from_peer(State::Up) };
    let (mut machine, now) = up(echoing);
    assert!(!machine.status().echo, "the peer loops nothing back");
    drop(machine.receive(&loops, now, 0));
    assert!(machine.status().echo);
    let first = machine.tick(now, u64::MAX).echo.unwrap();
    assert_eq!(Echo::decode(&first.encode()), Some(first));
    assert_eq!(machine.echo.unwrap().deadline(), now + US(60), "the slower of both");
    assert!(machine.echo_returned(&first, now + US(20)));
    assert!(!machine.echo_returned(&Echo { cookie: 2, ..first }, now), "somebody else's");
    assert!(!machine.echo_returned(&Echo { sequence: 99, ..first }, now), "never sent");
    let mut at = now;
    while machine.status().state == State::Up {
        at = machine.deadline().unwrap();
        drop(machine.tick(at, u64::MAX));
        drop(machine.receive(&loops, at, 0));
    }
    assert_eq!(at, now + US(200), "three intervals after the last return");
    assert_eq!(machine.status().diagnostic, Diagnostic::EchoFailed);
    let (mut machine, now) = up(echoing);
    drop(machine.receive(&loops, now, 0));
    drop(machine.receive(&from_peer(State::Up), now, 0));
    assert!(!machine.status().echo, "the peer ceased to loop back");
}

#[test]
fn extreme_values_do_not_panic() {
    for (tx, rx, multiplier, echo) in [(u32::MAX, u32::MAX, 255, u32::MAX), (0, 1, 255, 1), (1, 0, 1, 0)] {
        let (mut machine, now) = up(Settings { echo_tx: Some(MS), detect_multiplier: 0, ..settings() });
        let packet = Packet {
            desired_min_tx_us: tx,
            required_min_rx_us: rx,
            detect_multiplier: multiplier,
            required_min_echo_rx_us: echo,
            ..from_peer(State::Up)
        };
        drop(machine.receive(&packet, now, u64::MAX));
        drop(machine.tick(now + Duration::from_secs(1_000_000), u64::MAX));
    }
}
