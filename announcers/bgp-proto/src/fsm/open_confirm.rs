//! OpenConfirm: the OPENs agree, the peer's KEEPALIVE is awaited.
use super::{Action, Event, Moment, Session};
use crate::wire::Message;

/// Subcode of an unexpected message in this state. Source: RFC 6608 §3.
const UNEXPECTED: u8 = 2;

pub(super) fn handle(session: &mut Session, event: Event<'_>, at: Moment, out: &mut Vec<Action>) {
    match event {
        Event::Received(Message::Keepalive) => session.establish(at, out),
        Event::Tick => session.tick_open(at, out),
        event => session.handle_connection(event, UNEXPECTED, at, out),
    }
}
