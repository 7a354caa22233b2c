//! The path to a peer, watched by BFD (RFC 5880, RFC 5882).
use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use ferrocast_bfd::{Bfd, SessionConfig, SessionInfo, State};
use ferrocast_bgp_proto::{fsm::Event, wire::Notification};
use ferrocast_core::config::PeerEndpoint;
use tokio::sync::watch;

use super::{live::Live, report::label};
use crate::next_hop::{Position, interface_addresses};

/// BFD of this node, started when the first peer wants it; or why it cannot be, in words.
#[derive(Clone, Default)]
pub(crate) struct BfdThread(Arc<OnceLock<Result<Bfd, String>>>);

impl BfdThread {
    /// Waits until every peer has been told that BFD ends here on purpose: the sessions are closed by now.
    pub(crate) async fn close(&self) {
        if let Some(Ok(bfd)) = self.0.get() {
            bfd.clone().close().await;
        }
    }

    fn get(&self) -> &Result<Bfd, String> {
        self.0.get_or_init(|| Bfd::start().map_err(|error| format!("cannot run BFD: {error}")))
    }
}

/// One path that is watched.
pub(super) struct Path {
    session: ferrocast_bfd::Session,
    state: watch::Receiver<SessionInfo>,
    config: SessionConfig,
    /// Up since the last loss: only then is "Down" news.
    was_up: bool,
}

impl Path {
    /// BFD has something to say; never, if it does not run.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn changed(path: &mut Option<Self>) {
        let alive = match path {
            Some(path) => path.state.changed().await.is_ok(),
            None => false,
        };
        if !alive {
            std::future::pending::<()>().await;
        }
    }
}

impl Live<'_> {
    /// Watches the path of the present connection as configured; keeps what runs already.
    pub(super) fn watch_path(&mut self) {
        let (Some(profile), Some(local)) = (self.peer.bfd.clone(), self.info.local_address) else {
            if self.peer.bfd.is_none() {
                self.path = None;
                self.info.bfd = None;
            }
            return;
        };
        let config = SessionConfig {
            label: label(&self.peer),
            peer: self.remote.ip(),
            local: Some(local),
            interface: match &self.peer.endpoint {
                PeerEndpoint::Interface(name) => Some(name.to_string()),
                PeerEndpoint::Address(_) => self.peer.vrf.as_ref().map(ToString::to_string),
            },
            multihop: self.is_multihop(local),
            minimum_ttl: profile.minimum_ttl,
            desired_min_tx: profile.transmit_interval,
            required_min_rx: profile.receive_interval,
            detect_multiplier: profile.detect_multiplier,
            echo_interval: profile.echo_interval,
            passive: profile.passive,
        };
        let same_path = |path: &&mut Path| (path.config.peer, path.config.local) == (config.peer, config.local);
        if let Some(path) = self.path.as_mut().filter(same_path) {
            if path.config != config {
                path.session.update(config.clone());
                path.config = config;
            }
            return;
        }
        match self.session.shared.bfd.get() {
            Ok(bfd) => {
                let session = bfd.open(config.clone());
                let state = session.watch();
                self.info.bfd = Some(state.borrow().clone());
                self.path = Some(Path { session, state, config, was_up: false });
            }
            Err(error) => tracing::error!(peer = %self.session.name, error, "the peer is spoken with without BFD"),
        }
    }

    /// As routers choose: external peers are next to us unless configured otherwise, internal ones if they are on the link.
    fn is_multihop(&self, local: IpAddr) -> bool {
        let internal = self.info.negotiated.as_ref().is_some_and(|negotiated| negotiated.internal);
        let position = Position {
            local,
            remote: self.remote.ip(),
            extended: false,
            interfaces: &interface_addresses(),
            internal_ips: &[],
            policy: &self.peer.session,
        };
        self.peer.ebgp_multi_hop || (internal && !position.is_on_link())
    }

    /// A path that was up and is not any more ends the session at once. Source: RFC 5882 §4.2, RFC 9384 §3.
    pub(super) fn path_changed(&mut self) {
        let Some(path) = &mut self.path else { return };
        let info = path.state.borrow_and_update().clone();
        let before = self.info.bfd.as_ref();
        if let Some(error) = info.error.as_ref().filter(|now| before.and_then(|b| b.error.as_ref()) != Some(now)) {
            tracing::warn!(peer = %self.session.name, error, "BFD does not run");
        }
        if let Some(warning) = info.warning.as_ref().filter(|now| before.and_then(|b| b.warning.as_ref()) != Some(now))
        {
            tracing::warn!(peer = %self.session.name, warning, "BFD");
        }
        let lost = path.was_up && info.path_failed();
        if info.state == State::Up {
            path.was_up = true;
        } else if info.state == State::Down {
            path.was_up = false;
        }
        self.info.bfd = Some(info);
        if lost {
            tracing::warn!(peer = %self.session.name, address = %self.remote, "BFD: the path is down");
            self.feed(Event::Fault(Notification::bfd_down()));
        }
        self.publish();
    }
}
