//! Established: routes flow.
use super::{Action, Event, Moment, REFRESH_INTERVAL_MIN, Session, State, session::due};
use crate::{
    family::Family,
    wire::{Message, Notification, RouteRefresh},
};

/// Subcode of an unexpected message in this state. Source: RFC 6608 §3.
const UNEXPECTED: u8 = 3;

pub(super) fn handle(session: &mut Session, event: Event<'_>, at: Moment, out: &mut Vec<Action>) {
    match event {
        Event::Received(Message::Keepalive | Message::Update(_)) => session.restart_hold(at),
        Event::Received(Message::RouteRefresh(request)) => refresh(session, request, at, out),
        Event::Tick => {
            session.tick_open(at, out);
            if session.state == State::Established {
                refresh_late(session, at, out);
            }
        }
        event => session.handle_connection(event, UNEXPECTED, at, out),
    }
}

/// Answers at once, or when the interval since the last answer is over. Families that are not shared are ignored.
/// Source: RFC 2918 §4, RFC 7313 §5.
fn refresh(session: &mut Session, request: RouteRefresh, at: Moment, out: &mut Vec<Action>) {
    if request.subtype != 0 {
        let enhanced = session.negotiated.as_ref().is_some_and(|n| n.enhanced_route_refresh);
        if enhanced && matches!(request.subtype, RouteRefresh::BEGIN | RouteRefresh::END) && !request.rest.is_empty() {
            let mut message = bytes::BytesMut::new();
            Message::RouteRefresh(request).encode(&mut message);
            session.fail(Notification::refresh_length(&message), at, out);
        }
        return; // begin and end of a refresh concern receivers of routes
    }
    let shared = session.negotiated.as_ref().map(|n| n.families).unwrap_or_default();
    let Some(family) = Family::from_wire(request.afi, request.safi).filter(|f| shared.contains(*f)) else { return };
    match session.refresh_allowed[family.index()] {
        Some(allowed) if allowed > at.now => session.timers.refresh[family.index()] = Some(allowed),
        _ => answer(session, family, at, out),
    }
}

fn refresh_late(session: &mut Session, at: Moment, out: &mut Vec<Action>) {
    for family in Family::ALL {
        if due(session.timers.refresh[family.index()], at) {
            session.timers.refresh[family.index()] = None;
            answer(session, family, at, out);
        }
    }
}

fn answer(session: &mut Session, family: Family, at: Moment, out: &mut Vec<Action>) {
    session.refresh_allowed[family.index()] = Some(at.now + REFRESH_INTERVAL_MIN);
    out.push(Action::Resend(family));
}
