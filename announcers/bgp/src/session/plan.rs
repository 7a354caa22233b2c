//! From a peer's configuration to a session's, and what a change of it means to a live one.
use std::net::IpAddr;

use ferrocast_bgp_proto::{
    Families, Family,
    fsm::{self, Config, Event, Mode, Negotiated},
    wire::{Notification, Role},
};
use ferrocast_core::{
    announce::Shutdown,
    config::{self, Peer, PeerAs, PeerEndpoint},
    model::IpFamily,
};
use std::{sync::Arc, time::Duration};

use super::{Plan, Session, live::Live};
use crate::dial::DialTo;

/// TTL towards an external peer that is one hop away, as routers do it.
const TTL_SINGLE_HOP: u8 = 1;

/// The AS that the peer sees: `localASN` stands in for `myASN` wherever the peer looks (no-prepend, replace-as).
pub(crate) fn local_as(peer: &Peer) -> u32 {
    peer.local_asn.unwrap_or(peer.my_asn)
}

/// The families of a session: as configured, else both where they are asked for or nothing says which, else that of its
/// transport.
pub(crate) fn families(peer: &Peer, address: IpAddr) -> Families {
    let family = |family: &IpFamily| match family {
        IpFamily::V4 => Family::Ipv4Unicast,
        IpFamily::V6 => Family::Ipv6Unicast,
    };
    match (&peer.session.families, &peer.endpoint) {
        (Some(families), _) => families.iter().map(family).collect(),
        (None, PeerEndpoint::Interface(_)) => Families::ALL,
        (None, PeerEndpoint::Address(_)) if peer.dual_stack => Families::ALL,
        (None, PeerEndpoint::Address(_)) => Families::only(Family::of(address)),
    }
}

/// The state machine's settings.
pub(super) fn config(peer: &Peer, address: IpAddr, session: &Session) -> Config {
    let tuning = session.shared.tuning;
    let peer_as = match peer.peer_asn {
        PeerAs::Number(asn) => fsm::PeerAs::Exactly(asn),
        PeerAs::Internal => fsm::PeerAs::Internal,
        PeerAs::External => fsm::PeerAs::External,
    };
    let families = families(peer, address);
    let restart_time = Duration::from_secs(tuning.restart_time_s.into());
    Config {
        hold_time: peer.hold_time,
        keepalive_time: peer.keepalive_time,
        families,
        extended_next_hop: families.contains(Family::Ipv4Unicast) && address.is_ipv6()
            || peer.session.next_hop_v4.is_some_and(|ip| ip.is_ipv6()),
        restart_time_s: peer.graceful_restart.then_some(tuning.restart_time_s),
        restarting: !session.known && session.shared.began.get().is_some_and(|began| began.elapsed() < restart_time),
        role: peer.session.role.map(role),
        retry: retry(peer, tuning.retry),
        ..Config::new(if peer.session.passive { Mode::Listening } else { Mode::Active }, local_as(peer), peer_as)
    }
}

/// `connectTime` is the wait between attempts, always the same.
fn retry(peer: &Peer, usual: fsm::Retry) -> fsm::Retry {
    match peer.connect_time {
        Some(wait) => fsm::Retry { delay_min: wait, delay_max: wait, ..usual },
        None => usual,
    }
}

fn role(role: config::Role) -> Role {
    match role {
        config::Role::Provider => Role::Provider,
        config::Role::RouteServer => Role::RouteServer,
        config::Role::RouteServerClient => Role::RouteServerClient,
        config::Role::Customer => Role::Customer,
        config::Role::Peer => Role::Peer,
    }
}

/// `peer` with what can change while a session is up taken from `like`.
fn but_for_what_is_soft(peer: &Peer, like: &Peer) -> Peer {
    Peer {
        password: like.password.clone(),
        bfd: like.bfd.clone(),
        routes: like.routes.clone(),
        node_selectors: like.node_selectors.clone(),
        ..peer.clone()
    }
}

/// Can a live session not take in this change of its peer?
pub(crate) fn needs_new_session(old: &Peer, new: &Peer) -> bool {
    new.password.is_some() != old.password.is_some() || but_for_what_is_soft(new, old) != *old
}

impl Live<'_> {
    /// Takes in a new version of the peer that needs no new session; `false`: it needs one, or none at all.
    pub(super) fn absorb_plan(&mut self) -> bool {
        let plan = self.session.plan.borrow_and_update().clone();
        let new = match plan {
            Plan::Run(new) if !needs_new_session(&self.peer, &new) => new,
            _ => {
                self.session.plan.mark_changed();
                return false;
            }
        };
        let old = std::mem::replace(&mut self.peer, new);
        if old.password != self.peer.password {
            self.rekey();
        }
        if old.bfd != self.peer.bfd {
            self.watch_path();
        }
        self.chart();
        self.publish();
        true
    }

    /// Goes on with another password; the next connection has it anyway.
    fn rekey(&self) {
        let Some(control) = &self.control else { return };
        let (peer, address) = (&self.session.name, self.remote);
        match control.set_password(self.remote.ip(), self.peer.password.as_ref()) {
            Ok(()) => tracing::info!(%peer, %address, "password changed; the session goes on if the peer follows"),
            Err(error) => tracing::warn!(%peer, %address, %error, "password of the live session not changed"),
        }
    }

    /// How the peer is reached.
    pub(super) fn dial_to(&mut self) -> DialTo {
        if let Some(neighbour) = self.discovery.as_ref().and_then(|discovery| discovery.neighbour(self.peer.port)) {
            self.remote = neighbour;
            self.info.address = Some(neighbour.ip());
        }
        let peer = &self.peer;
        let internal = match peer.peer_asn {
            PeerAs::Number(asn) => asn == local_as(peer),
            PeerAs::Internal => true,
            PeerAs::External => false,
        };
        let interface = match &peer.endpoint {
            PeerEndpoint::Interface(name) => Some(name.clone()),
            PeerEndpoint::Address(_) => None,
        };
        DialTo {
            remote: self.remote,
            source: peer.source_address,
            device: interface.or_else(|| peer.vrf.clone()),
            password: peer.password.clone().filter(|_| peer.session.tcp_ao.is_empty()),
            ao_keys: peer.session.tcp_ao.clone(),
            ttl: (!internal && !peer.ebgp_multi_hop).then_some(TTL_SINGLE_HOP),
            ttl_security_hops: peer.session.ttl_security_hops,
            user_timeout: (!peer.hold_time.is_zero()).then_some(peer.hold_time),
        }
    }

    /// Ends what there is of a session, in the way that is planned.
    pub(super) fn end(&mut self, stopped: bool) {
        let plan = if stopped { Plan::ShutDown(Shutdown::Withdraw) } else { self.session.plan.borrow().clone() };
        let keeps = self.fsm.negotiated().is_some_and(Negotiated::keeps_routes);
        let (notification, withdraw) = match &plan {
            Plan::ShutDown(Shutdown::Keep) | Plan::Run(_) if keeps => return self.feed(Event::Leave),
            Plan::Run(_) => (Notification::reset("the peer's configuration has changed"), false),
            Plan::Deconfigured => (Notification::deconfigured(), true),
            Plan::ShutDown(_) => (Notification::shutdown(&self.farewell()), true),
        };
        if withdraw {
            self.withdraw_everything();
        }
        let hard = self.fsm.negotiated().is_some_and(Negotiated::keeps_routes_after_notification);
        self.feed(Event::Stop(if hard { notification.into_hard_reset() } else { notification }));
    }

    fn farewell(&self) -> String {
        let node: Arc<str> = self.node.borrow().node_name.clone();
        format!("the speaker on node {node} is ending")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::tests::peer;
    use ferrocast_core::config::{Password, RoutePolicy};

    #[test]
    fn password_bfd_and_routes_change_under_a_live_session() {
        let old = peer("a");
        let soft = Peer {
            password: Some(Password("x".into())),
            routes: Arc::new([RoutePolicy { med: Some(7), ..RoutePolicy::default() }]),
            ..peer("a")
        };
        assert_eq!(but_for_what_is_soft(&soft, &old), old);
        let hard = Peer { hold_time: Duration::from_secs(9), ..soft };
        assert_ne!(but_for_what_is_soft(&hard, &old), old);
    }

    #[test]
    fn connect_time_is_the_wait_between_attempts() {
        let usual = fsm::Retry::default();
        assert_eq!(retry(&peer("a"), usual), usual);
        let wait = Duration::from_secs(7);
        let asked = Peer { connect_time: Some(wait), ..peer("a") };
        assert_eq!(retry(&asked, usual), fsm::Retry { delay_min: wait, delay_max: wait, ..usual });
    }

    #[test]
    fn families_follow_from_transport_and_configuration() {
        let (v4, v6) = (Families::only(Family::Ipv4Unicast), Families::only(Family::Ipv6Unicast));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut plain = peer("a");
        assert_eq!(families(&plain, address("192.0.2.1")), v4);
        assert_eq!(families(&plain, address("fd00::1")), v6);
        plain.dual_stack = true;
        assert_eq!(families(&plain, address("fd00::1")), Families::ALL);
        plain.session.families = Some([IpFamily::V4].into());
        assert_eq!(families(&plain, address("fd00::1")), v4);
        let unnumbered = Peer { endpoint: PeerEndpoint::Interface("eth1".into()), ..peer("a") };
        assert_eq!(families(&unnumbered, address("fe80::1")), Families::ALL);
    }
}
