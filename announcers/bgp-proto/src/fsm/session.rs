//! What the states share: timers, and the ways into and out of them.
use std::{net::Ipv4Addr, time::Instant};

use super::{
    Action, Config, Down, Event, Mode, Moment, Negotiated, OPEN_HOLD_TIME, State, active, connect, established, idle,
    open_confirm, open_sent,
};
use crate::{
    family::{Families, Family},
    wire::{Capability, GracefulRestart, Message, Notification, Open},
};

/// How much an OPEN of ours offers: less, after the peer refused more. Source: RFC 5492 §3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Candour {
    /// Everything configured.
    #[default]
    Everything,
    /// Families and four-octet AS numbers only.
    Essentials,
    /// No optional parameter at all: IPv4 unicast, as in 1995.
    Nothing,
}

/// What our OPEN offers.
pub(super) struct Offer {
    pub(super) families: Families,
    /// The capabilities without which little works: MP, four-octet AS.
    pub(super) essentials: bool,
    /// All others.
    pub(super) options: bool,
}

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
    candour: Candour,
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
            candour: Candour::Everything,
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

    /// Would [`Event::Accepted`] be heeded now? In Idle not: whoever dials us there does so faster than we want to try.
    #[must_use]
    pub fn accepts(&self) -> bool {
        matches!(self.state, State::Connect | State::Active)
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
            Event::Stop(notification) => self.stop(Some(notification), out),
            Event::Leave => self.stop(None, out),
            Event::Fault(notification) if self.state >= State::OpenSent => self.fail(notification, at, out),
            Event::Fault(_) => {}
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

    /// Goes on with the connection of `other`, which was opened for the same peer at the same time (RFC 4271 §6.8).
    pub fn take_over(&mut self, other: Self) {
        (self.state, self.timers, self.id, self.negotiated) = (other.state, other.timers, other.id, other.negotiated);
    }

    /// TCP is up: says OPEN. From Connect and Active.
    pub(super) fn open(&mut self, id: Ipv4Addr, at: Moment, out: &mut Vec<Action>) {
        self.enter(State::OpenSent);
        self.id = id;
        self.timers.hold = Some(at.now + OPEN_HOLD_TIME);
        let hold_time_s = u16::try_from(self.config.hold_time.as_secs()).unwrap_or(u16::MAX);
        let open = Open::with(self.config.local_as, hold_time_s, id, self.capabilities());
        out.push(Action::Send(Message::Open(open)));
    }

    /// What the OPEN of this attempt offers.
    pub(super) fn offer(&self) -> Offer {
        let essentials = self.candour != Candour::Nothing;
        let families = if essentials {
            self.config.families
        } else {
            self.config.families.intersection(Families::only(Family::Ipv4Unicast))
        };
        Offer { families, essentials, options: self.candour == Candour::Everything }
    }

    /// The capabilities of this attempt's OPEN, in the order of their codes.
    fn capabilities(&self) -> Vec<Capability> {
        let (offer, config) = (self.offer(), &self.config);
        if !offer.essentials {
            return vec![];
        }
        let mut all: Vec<_> = offer.families.iter().map(Capability::family).collect();
        if offer.options {
            all.push(Capability::RouteRefresh);
            if config.extended_next_hop {
                all.push(Capability::ipv4_over_ipv6());
            }
            all.extend(config.role.map(Capability::Role));
            all.extend(config.restart_time_s.map(|restart_time_s| {
                let forwarding = |family: Family| {
                    let (afi, safi) = family.wire();
                    (afi, safi, true) // the kernel forwards whatever becomes of this process
                };
                Capability::GracefulRestart(GracefulRestart {
                    restarting: config.restarting,
                    notification: true,
                    restart_time_s,
                    families: offer.families.iter().map(forwarding).collect(),
                })
            }));
        }
        all.push(Capability::FourOctetAs(config.local_as));
        if offer.options {
            all.push(Capability::EnhancedRouteRefresh);
        }
        all
    }

    /// The peer's KEEPALIVE has come: routes may flow.
    pub(super) fn establish(&mut self, at: Moment, out: &mut Vec<Action>) {
        let negotiated = self.negotiated.clone().expect("set on the way into OpenConfirm");
        let keepalive = self.timers.keepalive;
        self.enter(State::Established);
        self.up_since = Some(at.now);
        self.config.restarting = false;
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
            Event::Received(Message::Notification(n)) => {
                self.be_less_candid(&n);
                self.lose(Down::Received(n), at, out);
            }
            Event::Received(_) => self.fail(Notification::fsm_error(unexpected), at, out),
            Event::Malformed(error) => self.fail(error.notification(), at, out),
            Event::SendHoldExpired => {
                out.push(Action::Abort);
                self.end(Down::Sent(Notification::send_hold_timer_expired()), at, out);
            }
            Event::Start
            | Event::Stop(_)
            | Event::Leave
            | Event::Fault(_)
            | Event::Connected { .. }
            | Event::Accepted { .. }
            | Event::Tick => {}
        }
    }

    /// The next OPEN does without what the peer has refused.
    fn be_less_candid(&mut self, refusal: &Notification) {
        if self.up_since.is_some() || !refusal.refuses_capabilities() {
            return;
        }
        self.candour = match (self.candour, refusal.subcode) {
            (Candour::Everything, 7) => Candour::Essentials,
            _ => Candour::Nothing,
        };
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

    /// The operator's end, with or without a word: no next attempt.
    fn stop(&mut self, notification: Option<Notification>, out: &mut Vec<Action>) {
        if matches!(self.state, State::OpenSent | State::OpenConfirm | State::Established) {
            out.extend(notification.clone().map(|n| Action::Send(Message::Notification(n))));
        }
        if !matches!(self.state, State::Idle | State::Active) {
            out.push(Action::Close);
            out.push(Action::Down(notification.map_or(Down::Left, Down::Stopped)));
        }
        self.failures = 0;
        self.up_since = None;
        self.enter(State::Idle);
    }

    /// To Idle, with the next attempt in view.
    fn end(&mut self, down: Down, at: Moment, out: &mut Vec<Action>) {
        let retry = self.config.retry;
        if let Some(since) = self.up_since.take() {
            self.candour = Candour::Everything; // the peer may have learned since
            if at.now.saturating_duration_since(since) >= retry.stable_after {
                self.failures = 0;
            }
        }
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.enter(State::Idle);
        if self.config.mode != Mode::Passive {
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
