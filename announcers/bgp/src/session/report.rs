//! What a session says about itself.
use std::{sync::Arc, time::SystemTime};

use ferrocast_bgp_proto::fsm::State;
use ferrocast_core::{
    announce::TargetObserved,
    config::{Peer, PeerAs, PeerEndpoint},
};

use super::Session;
use crate::info::{Counters, SessionInfo};

impl Session {
    /// Publishes what the announcer's observers see.
    pub(super) fn publish(&mut self, info: SessionInfo, target: TargetObserved) {
        let path = info.bfd.as_ref().map(|bfd| bfd.state);
        let path_changed = std::mem::replace(&mut self.path, path) != path; // worth a look although no target changes
        self.shared.sessions.set(self.name.clone(), info);
        self.shared.observed.send_if_modified(|observed| {
            let new = observed.targets.get(&self.name) != Some(&target);
            if new {
                Arc::make_mut(observed).targets.insert(self.name.clone(), target);
            }
            new || path_changed
        });
    }

    /// The peer is gone: so is what was said about it.
    pub(super) fn forget(&self) {
        self.shared.sessions.remove(&self.name);
        self.shared.observed.send_if_modified(|observed| {
            observed.targets.contains_key(&self.name) && Arc::make_mut(observed).targets.remove(&self.name).is_some()
        });
    }

    /// The peer is not dialled.
    pub(super) fn report_refused(&mut self, peer: &Peer, reason: &str) {
        let now = SystemTime::now();
        let info = SessionInfo {
            last_error: Some(reason.to_owned()),
            last_error_at: Some(now),
            ..blank(peer, Arc::new(Counters::new(&label(peer), vrf(peer))), now)
        };
        self.publish(info, TargetObserved { reason: format!("not dialled: {reason}"), ..TargetObserved::default() });
    }
}

/// The peer in metrics, as MetalLB writes it: `address:port`, or the interface.
pub(super) fn label(peer: &Peer) -> String {
    match &peer.endpoint {
        PeerEndpoint::Address(ip) => std::net::SocketAddr::new(*ip, peer.port).to_string(),
        PeerEndpoint::Interface(name) => name.to_string(),
    }
}

/// The VRF in metrics; empty: none.
pub(super) fn vrf(peer: &Peer) -> &str {
    peer.vrf.as_deref().unwrap_or_default()
}

/// An idle session about which nothing is known yet.
pub(super) fn blank(peer: &Peer, counters: Arc<Counters>, now: SystemTime) -> SessionInfo {
    SessionInfo {
        peer: peer.name.clone(),
        address: if let PeerEndpoint::Address(ip) = peer.endpoint { Some(ip) } else { None },
        interface: if let PeerEndpoint::Interface(name) = &peer.endpoint { Some(name.clone()) } else { None },
        port: peer.port,
        vrf: peer.vrf.clone(),
        peer_as: if let PeerAs::Number(asn) = peer.peer_asn { Some(asn) } else { None },
        passive: peer.session.passive,
        state: State::Idle,
        since: now,
        last_error: None,
        last_error_at: None,
        local_address: None,
        negotiated: None,
        announced: [0; 2],
        end_of_rib_at: None,
        bfd: None,
        routes: None,
        counters,
    }
}
