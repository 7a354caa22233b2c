//! Connect: TCP is being set up.
use super::{Action, Down, Event, Moment, Session, session::due};

pub(super) fn handle(session: &mut Session, event: &Event<'_>, at: Moment, out: &mut Vec<Action>) {
    match event {
        Event::Connected { id } | Event::Accepted { id } => session.open(*id, at, out),
        Event::ConnectFailed | Event::Closed => session.lose(Down::ConnectFailed, at, out),
        Event::Tick if due(session.timers.connect, at) => session.lose(Down::ConnectTimeout, at, out),
        _ => {}
    }
}
