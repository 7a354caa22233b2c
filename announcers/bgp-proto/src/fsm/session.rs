//! What the states share: timers, and the ways into and out of them.
use std::{net::Ipv4Addr, time::Instant};

use super::{
    Action, Config, Down, Event, Mode, Moment, Negotiated, OPEN_HOLD_TIME, State, active, connect, established, idle,
    open_confirm, open_sent,
};
use crate::{
    family::Families,
    wire::{Message, Notification},
};

/// Deadlines; `None`: not running.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Idle: try again.
    pub(super) retry: Option<Instant>,
    /// Connect: give up.
    pub(super) connect: Option<Instant>,
    /// OpenSent and later: the peer has been silent for too long.
    pub(super) hold: Option<Instant>,
    /// OpenConfirm and later: say something.
    pub(super) keepalive: Option<Instant>,
    /// Established: answer a ROUTE-REFRESH that came too early, by family.
    pub(super) refresh: [Option<Instant>; 2],
}

/// One session with one peer.
#[derive(Debug)]
pub struct Session {
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) timers: Timers,
    /// Failures since the last stable session.
    failures: u32,
    /// Our identifier on this connection.
    pub(super) id: Ipv4Addr,
    /// From OpenConfirm on.
    pub(super) negotiated: Option<Negotiated>,
    /// Since when Established.
    up_since: Option<Instant>,
    /// Earliest next answer to a ROUTE-REFRESH, by family.
    pub(super) refresh_allowed: [Option<Instant>; 2],
}

impl Session {
    /// A session at rest; [`Event::Start`] sets it going.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Idle,
            timers: Timers::default(),
            failures: 0,
            id: Ipv4Addr::UNSPECIFIED,
            negotiated: None,
            up_since: None,
            refresh_allowed: [None; 2],
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What was agreed upon with the peer, from OpenConfirm on.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// When [`Event::Tick`] is next of use; `None`: only something from outside changes anything.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let timers = &self.timers;
        [timers.retry, timers.connect, timers.hold, timers.keepalive].into_iter().chain(timers.refresh).flatten().min()
    }

    /// Feeds one event and appends what to do about it to `out`.
    pub fn handle(&mut self, event: Event<'_>, at: Moment, out: &mut Vec<Action>) {
        match event {
            Event::Stop(notification) => self.stop(notification, out),
            event => match self.state {
                State::Idle => idle::handle(self, &event, at, out),
                State::Connect => connect::handle(self, &event, at, out),
                State::Active => active::handle(self, &event, at, out),
                State::OpenSent => open_sent::handle(self, event, at, out),
                State::OpenConfirm => open_confirm::handle(self, event, at, out),
                State::Established => established::handle(self, event, at, out),
            },
        }
    }

    /// TCP is up: says OPEN. From Connect and Active.
    pub(super) fn open(&mut self, id: Ipv4Addr, at: Moment, out: &mut Vec<Action>) {
        self.enter(State::OpenSent);
        self.id = id;
        self.timers.hold = Some(at.now + OPEN_HOLD_TIME);
        let hold_time_s = u16::try_from(self.config.hold_time.as_secs()).unwrap_or(u16::MAX);
        let families: Families = self.config.families;
        let open = crate::wire::Open::new(self.config.local_as, hold_time_s, id, families);
        out.push(Action::Send(Message::Open(open)));
    }

    /// The peer's KEEPALIVE has come: routes may flow.
    pub(super) fn establish(&mut self, at: Moment, out: &mut Vec<Action>) {
        let negotiated = self.negotiated.clone().expect("set on the way into OpenConfirm");
        let keepalive = self.timers.keepalive;
        self.enter(State::Established);
        self.up_since = Some(at.now);
        self.refresh_allowed = [None; 2];
        self.timers.keepalive = keepalive;
        self.restart_hold(at);
        out.push(Action::Up(Box::new(negotiated)));
    }

    /// The peer was heard. Source: RFC 4271 §8.2.2 (restarts its HoldTimer).
    pub(super) fn restart_hold(&mut self, at: Moment) {
        self.timers.hold = self.negotiated.as_ref().filter(|n| !n.hold_time.is_zero()).map(|n| at.now + n.hold_time);
    }

    /// We were heard, or are about to be.
    pub(super) fn restart_keepalive(&mut self, at: Moment) {
        self.timers.keepalive =
            self.negotiated.as_ref().filter(|n| !n.hold_time.is_zero()).map(|n| at.now + at.jittered(n.keepalive_time));
    }

    /// What OpenConfirm and Established do alike when time passes.
    pub(super) fn tick_open(&mut self, at: Moment, out: &mut Vec<Action>) {
        if due(self.timers.hold, at) {
            self.fail(Notification::hold_timer_expired(), at, out);
        } else if due(self.timers.keepalive, at) {
            self.restart_keepalive(at);
            out.push(Action::Send(Message::Keepalive));
        }
    }

    /// What every state with a connection does alike: its end, and what is not a message. `unexpected` is the subcode of a
    /// message that has no place in this state. Source: RFC 6608.
    pub(super) fn handle_connection(&mut self, event: Event<'_>, unexpected: u8, at: Moment, out: &mut Vec<Action>) {
        match event {
            Event::Closed | Event::ConnectFailed => self.lose(Down::Closed, at, out),
            Event::Received(Message::Notification(n)) => self.lose(Down::Received(n), at, out),
            Event::Received(_) => self.fail(Notification::fsm_error(unexpected), at, out),
            Event::Malformed(error) => self.fail(error.notification(), at, out),
            Event::SendHoldExpired => {
                out.push(Action::Abort);
                self.end(Down::Sent(Notification::send_hold_timer_expired()), at, out);
            }
            Event::Start | Event::Stop(_) | Event::Connected { .. } | Event::Tick => {}
        }
    }

    /// Ends with a NOTIFICATION of ours.
    pub(super) fn fail(&mut self, notification: Notification, at: Moment, out: &mut Vec<Action>) {
        out.push(Action::Send(Message::Notification(notification.clone())));
        out.push(Action::Close);
        self.end(Down::Sent(notification), at, out);
    }

    /// Ends without a word of ours.
    pub(super) fn lose(&mut self, down: Down, at: Moment, out: &mut Vec<Action>) {
        out.push(Action::Close);
        self.end(down, at, out);
    }

    /// The operator's end: no next attempt.
    fn stop(&mut self, notification: Notification, out: &mut Vec<Action>) {
        if matches!(self.state, State::OpenSent | State::OpenConfirm | State::Established) {
            out.push(Action::Send(Message::Notification(notification.clone())));
        }
        if !matches!(self.state, State::Idle | State::Active) {
            out.push(Action::Close);
            out.push(Action::Down(Down::Stopped(notification)));
        }
        self.failures = 0;
        self.up_since = None;
        self.enter(State::Idle);
    }

    /// To Idle, with the next attempt in view.
    fn end(&mut self, down: Down, at: Moment, out: &mut Vec<Action>) {
        let retry = self.config.retry;
        if self.up_since.take().is_some_and(|since| at.now.saturating_duration_since(since) >= retry.stable_after) {
            self.failures = 0;
        }
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.enter(State::Idle);
        if self.config.mode == Mode::Active {
            let delay = retry.delay_min.saturating_mul(factor).min(retry.delay_max);
            self.timers.retry = Some(at.now + at.jittered(delay));
        }
        out.push(Action::Down(down));
    }

    /// Changes the state and stops every timer.
    pub(super) fn enter(&mut self, state: State) {
        self.state = state;
        self.timers = Timers::default();
        if matches!(state, State::Idle | State::Connect | State::Active | State::OpenSent) {
            self.negotiated = None;
        }
    }
}

/// Has a running timer reached its time?
pub(super) fn due(deadline: Option<Instant>, at: Moment) -> bool {
    deadline.is_some_and(|deadline| deadline <= at.now)
}
