//! Carries out what the state machine asks for.
use std::{sync::Arc, time::SystemTime};

use ferrocast_bgp_proto::fsm::{Action, Down, Event, Negotiated};

use super::{
    live::Live,
    plan::{families, local_as},
    sync::Adj,
};
use crate::{
    dial::Link,
    link::Wire,
    next_hop::{Position, interface_addresses, router_id},
    resolve::{Resolver, Terrain},
};

impl Live<'_> {
    /// A connection is there: ours, or one that the peer has opened.
    pub(super) fn connected(&mut self, link: Link, dialed: bool) {
        let id = self.identifier(&link);
        self.info.local_address = Some(link.local);
        self.dialing = None;
        self.wire = Some(Wire::new(link.stream));
        self.control = link.control;
        self.dialed = dialed;
        self.feed(if dialed { Event::Connected { id } } else { Event::Accepted { id } });
    }

    /// Our BGP identifier on a connection.
    pub(super) fn identifier(&self, link: &Link) -> std::net::Ipv4Addr {
        let node = self.node.borrow().clone();
        router_id(self.peer.router_id, link.local, &node.internal_ips, &node.node_name)
    }

    /// Carries out what the state machine asked for.
    pub(super) async fn perform(&mut self) {
        let mut closing = None;
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Dial => {
                    let to = self.dial_to();
                    self.dialing = Some(self.session.shared.dial.dial(to));
                }
                Action::Send(message) => {
                    if let Some(wire) = &mut self.wire {
                        self.counters.sent(message.kind(), 1);
                        wire.queue(&message);
                    }
                }
                Action::Close => {
                    self.dialing = None;
                    self.control = None;
                    closing = self.wire.take();
                }
                Action::Abort => (self.dialing, self.control, self.wire) = (None, None, None),
                Action::Up(negotiated) => self.went_up(*negotiated),
                Action::Down(down) => self.went_down(&down),
                Action::Resend(family) => {
                    if let Some(adj) = &mut self.adj {
                        adj.refresh.insert(family);
                    }
                }
            }
        }
        if self.info.state != self.fsm.state() {
            self.publish();
        }
        if let Some(wire) = closing {
            wire.close().await; // takes a while if the peer does not read
        }
    }

    /// What the routes of this session depend on, as things are now.
    fn terrain(&mut self, negotiated: &Negotiated) -> Terrain {
        let node = self.node.borrow_and_update().clone();
        let position = Position {
            local: self.info.local_address.unwrap_or(self.remote.ip()),
            remote: self.remote.ip(),
            extended: negotiated.extended_next_hop,
            interfaces: &interface_addresses(),
            internal_ips: &node.internal_ips,
            policy: &self.peer.session,
        };
        Terrain {
            peer: self.session.name.clone(),
            local_as: local_as(&self.peer),
            internal: negotiated.internal,
            as4: negotiated.as4,
            offered: families(&self.peer, self.remote.ip()),
            shared: negotiated.families,
            next_hops: position.next_hops(),
            policies: self.peer.routes.clone(),
        }
    }

    /// The node's addresses or the peer's policies may have changed: routes to which that matters are said again.
    pub(super) fn chart(&mut self) {
        let Some(negotiated) = self.info.negotiated.clone() else { return };
        let terrain = self.terrain(&negotiated);
        if let Some(adj) = &mut self.adj {
            adj.chart(terrain);
        }
    }

    fn went_up(&mut self, negotiated: Negotiated) {
        let negotiated = Arc::new(negotiated);
        self.rival = None; // a collision is settled by whoever is first
        let terrain = Arc::new(self.terrain(&negotiated));
        self.epoch += 1;
        self.adj = Some(Adj::new(Resolver::new(terrain), &negotiated));
        self.session.known = true;
        self.counters.up();
        self.logged = None;
        tracing::info!(
            peer = %self.session.name, address = %self.remote, peer_as = negotiated.peer_as, peer_id = %negotiated.peer_id,
            hold_time_s = negotiated.hold_time.as_secs(), graceful_restart = negotiated.keeps_routes(),
            "session established",
        );
        self.info.negotiated = Some(negotiated);
        self.watch_path();
    }

    fn went_down(&mut self, down: &Down) {
        let was_up = self.adj.take().is_some();
        let on_purpose = matches!(down, Down::Stopped(_) | Down::Left);
        self.epoch += 1;
        self.counters.down();
        if was_up && !on_purpose {
            self.counters.lost();
        }
        let text = match (down, self.io_error.take()) {
            (Down::ConnectFailed | Down::Closed, Some(error)) => format!("{down}: {error}"),
            _ => down.to_string(),
        };
        let (peer, address) = (&self.session.name, self.remote);
        if on_purpose {
            tracing::info!(%peer, %address, reason = text, "session closed");
        } else if was_up {
            tracing::warn!(%peer, %address, error = text, "session ended");
        } else if self.logged.as_ref() != Some(&text) {
            tracing::warn!(%peer, %address, error = text, "no session; trying again");
        } else {
            tracing::debug!(%peer, %address, error = text, "still no session");
        }
        self.logged = Some(text.clone());
        (self.info.local_address, self.info.negotiated) = (None, None);
        self.info.last_error = Some(text);
        self.info.last_error_at = Some(SystemTime::now());
    }
}
