//! Idle: no attempt is running.
use super::{Action, Event, Mode, Moment, Session, State, session::due};

pub(super) fn handle(session: &mut Session, event: &Event<'_>, at: Moment, out: &mut Vec<Action>) {
    match event {
        Event::Start if session.config.mode == Mode::Passive => session.enter(State::Active),
        Event::Start => dial(session, at, out),
        Event::Tick if due(session.timers.retry, at) => dial(session, at, out),
        _ => {}
    }
}

fn dial(session: &mut Session, at: Moment, out: &mut Vec<Action>) {
    session.enter(State::Connect);
    session.timers.connect = Some(at.now + session.config.retry.connect_timeout);
    out.push(Action::Dial);
}
