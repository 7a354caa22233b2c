//! Idle: no attempt is running.
use super::{Action, Event, Mode, Moment, Session, State, session::due};

pub(super) fn handle(session: &mut Session, event: &Event<'_>, at: Moment, out: &mut Vec<Action>) {
    match event {
        Event::Start => begin(session, at, out),
        Event::Tick if due(session.timers.retry, at) => begin(session, at, out),
        _ => {}
    }
}

fn begin(session: &mut Session, at: Moment, out: &mut Vec<Action>) {
    if session.config.mode != Mode::Active {
        session.enter(State::Active);
        return;
    }
    session.enter(State::Connect);
    session.timers.connect = Some(at.now + session.config.retry.connect_timeout);
    out.push(Action::Dial);
}
