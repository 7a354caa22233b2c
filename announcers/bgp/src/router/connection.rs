//! One accepted connection.
use std::{net::IpAddr, sync::Arc};

use bytes::Buf as _;
use ferrocast_bgp_proto::{
    fsm::{self, Action, Config, Event, Mode, PeerAs},
    tools::Update,
    wire::{self, DecodeError, Notification, end_of_rib},
};
use ferrocast_core::actor::{Actor, ActorError, CancellationToken};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Arrival, RouterConfig,
    rib::{Message, What},
};
use crate::{
    link::{Progress, Wire},
    session::moment,
};

/// Octets that may wait for a peer that does not read; it is sent KEEPALIVEs alone.
const OUTBOX_LEN_MAX: usize = 64 * 1024;

/// Which connection it is, and whom it serves.
pub(super) struct Identity {
    pub(super) id: u64,
    pub(super) peer: IpAddr,
    pub(super) config: Arc<RouterConfig>,
    pub(super) messages: mpsc::Sender<Message>,
}

/// The passive side of one session.
pub(super) struct Connection {
    pub(super) identity: Identity,
    /// Taken by the first run: a connection does not survive a panic.
    pub(super) wire: Option<Wire>,
    /// Say this and close.
    pub(super) refusal: Option<Notification>,
}

/// The part of a connection that lives as long as one run.
struct Running<'a> {
    identity: &'a Identity,
    fsm: fsm::Session,
    wire: Wire,
    actions: Vec<Action>,
    /// Not yet taken by the RIB.
    news: Vec<What>,
    as4: bool,
    up: bool,
}

impl Running<'_> {
    fn feed(&mut self, event: Event<'_>) {
        self.fsm.handle(event, moment(), &mut self.actions);
    }

    /// Carries out what the state machine asked for; false: the connection is to be closed.
    fn perform(&mut self) -> bool {
        let mut open = true;
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(message) => self.wire.queue(&message),
                Action::Up(negotiated) => {
                    (self.as4, self.up) = (negotiated.as4, true);
                    negotiated.families.iter().for_each(|family| end_of_rib(family, &mut self.wire.outbox));
                    self.news.push(What::Up { asn: negotiated.peer_as, families: negotiated.families });
                }
                Action::Down(down) => {
                    tracing::debug!(peer = %self.identity.peer, %down, "router side: session ended");
                    if std::mem::take(&mut self.up) {
                        self.news.push(What::Down);
                    }
                    open = false;
                }
                Action::Close | Action::Abort => open = false,
                Action::Dial | Action::Resend(_) => {}
            }
        }
        open && self.wire.outbox.len() <= OUTBOX_LEN_MAX
    }

    /// Handles one whole message from the inbox, if there is one.
    fn take_message(&mut self) -> bool {
        let (message, len) = match wire::Message::decode(&self.wire.inbox) {
            Ok(None) => return false,
            Ok(Some(decoded)) => decoded,
            Err(error) => {
                self.fsm.handle(Event::Malformed(error), moment(), &mut self.actions);
                self.wire.inbox.clear();
                return true;
            }
        };
        let event = match message {
            wire::Message::Update(body) if self.up => match self.identity.learn(body, self.as4) {
                Ok(update) => {
                    self.news.push(What::Update(Box::new(update)));
                    Event::Received(message)
                }
                Err(error) => Event::Malformed(error),
            },
            message => Event::Received(message),
        };
        self.fsm.handle(event, moment(), &mut self.actions);
        self.wire.inbox.advance(len);
        true
    }

    async fn step(&mut self, stop: &CancellationToken) {
        let deadline = self.fsm.next_deadline().map(Instant::from_std);
        let event = tokio::select! {
            () = stop.cancelled() => Event::Stop(Notification::shutdown("the router is ending")),
            () = ferrocast_core::actor::sleep_until(deadline) => Event::Tick,
            progress = self.wire.progress() => match progress {
                Progress::Ended(_) => Event::Closed,
                Progress::Read(_) | Progress::Wrote(_) => return,
            },
        };
        self.feed(event);
    }
}

impl Identity {
    fn learn(&self, body: &[u8], as4: bool) -> Result<Update, DecodeError> {
        let update = Update::decode(body, as4)?;
        if let Some(hook) = &self.config.on_update {
            hook(&Arrival { peer: self.peer, at: Instant::now().into_std(), update: &update });
        }
        Ok(update)
    }

    /// Hands news to the RIB; waits while that is behind. False: nobody takes it any more.
    async fn tell(&self, news: &mut Vec<What>, stop: &CancellationToken) -> bool {
        for what in news.drain(..) {
            let message = Message { peer: self.peer, connection: self.id, what };
            let sent = tokio::select! {
                () = stop.cancelled() => false,
                sent = self.messages.send(message) => sent.is_ok(),
            };
            if !sent {
                return false;
            }
        }
        true
    }

    async fn converse(&self, wire: Wire, stop: &CancellationToken) {
        let config = Config {
            hold_time: self.config.hold_time,
            keepalive_time: self.config.hold_time / 3,
            extended_next_hop: true,
            ..Config::new(Mode::Passive, self.config.asn, PeerAs::Any)
        };
        let mut running = Running {
            identity: self,
            fsm: fsm::Session::new(config),
            wire,
            actions: vec![],
            news: vec![],
            as4: false,
            up: false,
        };
        running.feed(Event::Start);
        running.feed(Event::Connected { id: self.config.id });
        loop {
            let open = running.perform();
            let told = self.tell(&mut running.news, stop).await;
            if !open || (!told && !stop.is_cancelled()) {
                break;
            }
            if !running.take_message() {
                running.step(stop).await;
            }
        }
        running.wire.close().await;
    }
}

impl Actor for Connection {
    const NAME: &'static str = "bgp-router-connection";

    fn instance(&self) -> String {
        self.identity.peer.to_string()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let Some(mut wire) = self.wire.take() else { return Ok(()) };
        if let Some(refusal) = self.refusal.take() {
            wire.queue(&wire::Message::Notification(refusal));
            wire.close().await;
        } else {
            self.identity.converse(wire, &stop).await;
        }
        Ok(())
    }
}
