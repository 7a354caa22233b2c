//! Connections that the peer opens, and which one stays if there are two (RFC 4271 §6.8).
use std::net::Ipv4Addr;

use bytes::{Buf as _, BytesMut};
use ferrocast_bgp_proto::{
    fsm::{self, Action, Config, Event, Mode, Negotiated, State},
    wire::{Message, Notification},
};
use futures::FutureExt as _;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use super::{
    live::{Live, moment},
    plan::{config, local_as},
};
use crate::{
    dial::{Control, Link},
    link::{Progress, Wire},
};

/// A second connection with the same peer, with a state machine of its own until one of both is closed.
pub(super) struct Rival {
    wire: Wire,
    control: Option<Control>,
    local: std::net::IpAddr,
    fsm: fsm::Session,
}

impl Rival {
    fn new(link: Link, config: Config, id: Ipv4Addr) -> Self {
        let fsm = fsm::Session::new(Config { mode: Mode::Passive, ..config });
        let mut rival = Self { wire: Wire::new(link.stream), control: link.control, local: link.local, fsm };
        rival.feed(Event::Start);
        rival.feed(Event::Accepted { id });
        rival
    }

    /// Octets moved on the second connection; never, if there is none.
    pub(super) async fn progress(rival: &mut Option<Self>) -> Progress {
        match rival {
            Some(rival) => rival.wire.progress().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.fsm.next_deadline().map(Instant::from_std)
    }

    /// Is it still of any use?
    fn feed(&mut self, event: Event<'_>) -> bool {
        let mut actions = vec![];
        self.fsm.handle(event, moment(), &mut actions);
        for action in actions {
            match action {
                Action::Send(message) => self.wire.queue(&message),
                Action::Dial | Action::Close | Action::Abort | Action::Up(_) | Action::Down(_) | Action::Resend(_) => {}
            }
        }
        self.fsm.state() != State::Idle
    }

    /// Handles what has come, as far as the peer's OPEN: then it is time to compare.
    fn take_messages(&mut self) -> bool {
        while self.fsm.state() == State::OpenSent {
            let inbox = self.wire.inbox.split();
            let (event, rest) = match Message::decode(&inbox) {
                Ok(None) => {
                    self.wire.inbox = inbox;
                    return true;
                }
                Ok(Some((message, len))) => (Event::Received(message), len),
                Err(error) => (Event::Malformed(error), inbox.len()),
            };
            let useful = self.feed(event);
            let mut inbox = inbox;
            inbox.advance(rest);
            self.wire.inbox = inbox;
            if !useful {
                return false;
            }
        }
        true
    }
}

/// Says why, if that takes no waiting, and closes.
fn turn_away(mut link: Link, why: Notification) {
    let mut octets = BytesMut::new();
    Message::Notification(why).encode(&mut octets);
    if link.stream.write_all(&octets).now_or_never().is_none() {
        tracing::trace!("connection closed without a word");
    }
}

impl Live<'_> {
    /// The peer has opened a connection.
    pub(super) async fn called(&mut self, stream: TcpStream) {
        let link = match self.dial_to().accepted(stream) {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(peer = %self.session.name, %error, "connection of the peer cannot be used");
                return;
            }
        };
        match self.fsm.state() {
            // It has restarted: what it opens now is worth more than what it has forgotten. Source: RFC 4724 §4.2.
            State::Established if self.fsm.negotiated().is_some_and(Negotiated::keeps_routes) => {
                self.feed(Event::Closed);
                self.begin_with(link).await;
            }
            State::OpenSent | State::OpenConfirm if self.dialed => {
                let config = config(&self.peer, self.remote.ip(), self.session);
                let id = self.identifier(&link);
                self.rival = Some(Rival::new(link, config, id));
            }
            // both are the peer's: it has given up the older one
            State::OpenSent | State::OpenConfirm => {
                self.feed(Event::Stop(Notification::collision()));
                self.begin_with(link).await;
            }
            State::Connect | State::Active => self.connected(link, false),
            State::Established => turn_away(link, Notification::collision()),
            State::Idle => turn_away(link, Notification::new(6, 5)),
        }
    }

    async fn begin_with(&mut self, link: Link) {
        self.perform().await;
        self.feed(Event::Start);
        self.perform().await;
        self.connected(link, false);
    }

    /// The second connection has moved.
    pub(super) async fn rival_moved(&mut self, progress: Progress) {
        self.counters.moved(&progress);
        let Some(rival) = &mut self.rival else { return };
        let useful = !matches!(progress, Progress::Ended(_)) && rival.take_messages();
        if !useful {
            self.rival = None;
            return;
        }
        self.compare_rival().await;
    }

    /// As soon as one of both has brought the peer's identifier: the connection of the side with the higher one stays.
    pub(super) async fn compare_rival(&mut self) {
        let Some(rival) = &self.rival else { return };
        let Some(theirs) = self.fsm.negotiated().or(rival.fsm.negotiated()) else { return };
        let ours = (theirs.local_id, local_as(&self.peer));
        let keep_ours = ours > (theirs.peer_id, theirs.peer_as);
        let Some(mut rival) = self.rival.take() else { return };
        if keep_ours {
            rival.feed(Event::Stop(Notification::collision()));
            rival.wire.close().await;
            return;
        }
        tracing::debug!(peer = %self.session.name, "two connections: the peer's stays");
        let old = self.wire.replace(rival.wire);
        (self.control, self.dialed) = (rival.control, false);
        self.info.local_address = Some(rival.local);
        self.fsm.take_over(rival.fsm);
        if let Some(mut old) = old {
            old.queue(&Message::Notification(Notification::collision()));
            old.close().await;
        }
    }
}
