//! Active: the peer is expected to dial.
use super::{Action, Event, Moment, Session};

pub(super) fn handle(session: &mut Session, event: &Event<'_>, at: Moment, out: &mut Vec<Action>) {
    if let Event::Connected { id } | Event::Accepted { id } = event {
        session.open(*id, at, out);
    }
}
