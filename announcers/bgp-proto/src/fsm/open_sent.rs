//! OpenSent: our OPEN is out, the peer's is awaited.
use std::time::Duration;

use super::{Action, Event, Moment, Negotiated, Session, State, session::due};
use crate::wire::{Message, Notification, Open};

/// Subcode of an unexpected message in this state. Source: RFC 6608 §3.
const UNEXPECTED: u8 = 1;

pub(super) fn handle(session: &mut Session, event: Event<'_>, at: Moment, out: &mut Vec<Action>) {
    match event {
        Event::Received(Message::Open(open)) => match negotiate(session, open) {
            Ok(negotiated) => {
                session.enter(State::OpenConfirm);
                session.negotiated = Some(negotiated);
                session.restart_hold(at);
                session.restart_keepalive(at);
                out.push(Action::Send(Message::Keepalive));
            }
            Err(notification) => session.fail(notification, at, out),
        },
        Event::Tick if due(session.timers.hold, at) => session.fail(Notification::hold_timer_expired(), at, out),
        event => session.handle_connection(event, UNEXPECTED, at, out),
    }
}

/// What both OPENs have in common. Source: RFC 4271 §6.2, RFC 6286 §2.2, RFC 9234 §4.2.
fn negotiate(session: &Session, open: Open) -> Result<Negotiated, Notification> {
    let config = &session.config;
    let peer_as = open.asn();
    if !config.peer_as.allows(peer_as, config.local_as) {
        return Err(Notification::bad_peer_as());
    }
    let internal = peer_as == config.local_as;
    if internal && open.id == session.id {
        return Err(Notification::bad_bgp_identifier());
    }
    let offer = session.offer();
    let role = open.role();
    if let (Some(ours), Some(theirs), false) = (config.role, role, internal)
        && offer.options
        && !ours.fits(theirs)
    {
        return Err(Notification::role_mismatch());
    }
    let hold_time = config.hold_time.min(Duration::from_secs(open.hold_time_s.into()));
    Ok(Negotiated {
        peer_as,
        peer_id: open.id,
        local_id: session.id,
        internal,
        hold_time,
        keepalive_time: config.keepalive_time.min(hold_time / 3),
        families: offer.families.intersection(open.families()),
        as4: offer.essentials && open.four_octet_as().is_some(),
        route_refresh: offer.options && open.route_refresh(),
        enhanced_route_refresh: offer.options && open.enhanced_route_refresh(),
        extended_next_hop: offer.options && config.extended_next_hop && open.ipv4_over_ipv6(),
        graceful_restart: config.restart_time_s.filter(|_| offer.options).and(open.graceful_restart().cloned()),
        role,
        capabilities: open.capabilities,
    })
}
