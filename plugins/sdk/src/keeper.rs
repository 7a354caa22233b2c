//! The one who knows: what was accepted, from whom, and what to do when the host is lost.
use std::{sync::Arc, time::Duration};

use ferrocast_core::{
    actor::{CancellationToken, sleep_until},
    announce::{AnnounceError, Announcement, Announcer, Desired, Observed},
};
use ferrocast_plugin_proto::{
    STATUSES_PER_S_MAX, TEXT_LEN_MAX, UpdateError, Updates, VERSION_LEN_MAX, emptied, status,
    text::cut,
    v1alpha1::{
        Accepted, End, Goodbye, HostHello, HostMessage, NeedSnapshot, PluginHello, PluginMessage, Rejected, Shutdown,
        Version, host_message, plugin_message::Message, shutdown::How,
    },
};
use imbl::OrdMap;
use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Status, Streaming};

use crate::{Options, local::Local, serve::UNREAD_MAX};

/// Between two statuses.
const STATUS_PAUSE: Duration = Duration::from_millis(1000 / STATUSES_PER_S_MAX as u64);
/// Answers that always have room beside statuses: there is one at a time, and a good-bye.
const ANSWERS_MAX: usize = 4;
/// How soon the announcer is asked again to withdraw when it was not ready to.
const WITHDRAW_RETRY: Duration = Duration::from_secs(1);

/// A host has called.
pub(crate) struct Call {
    pub(crate) incoming: Streaming<HostMessage>,
    pub(crate) out: mpsc::Sender<Result<PluginMessage, Status>>,
}

/// The call that is served.
struct Talk {
    call: Call,
    /// The host's, once it has said hello.
    epoch: Option<u64>,
    /// What to wait for before saying good-bye: a generation of the announcer, and until when.
    farewell: Option<(u64, Instant)>,
}

/// Serves one call at a time; owns everything that outlives a call.
pub(crate) struct Keeper {
    announcer: Arc<dyn Announcer>,
    options: Options,
    mailbox: mpsc::Receiver<Call>,
    observed: watch::Receiver<Arc<Observed>>,
    talk: Option<Talk>,
    updates: Updates,
    local: Local,
    accepted: Option<(Version, Desired)>,
    /// What the announcer was given last.
    standing: OrdMap<IpNet, Arc<Announcement>>,
    hold: Duration,
    orphaned_at: Option<Instant>,
    status_due: bool,
    status_from: Instant,
}

impl Keeper {
    pub(crate) fn new(announcer: Arc<dyn Announcer>, options: Options, mailbox: mpsc::Receiver<Call>) -> Self {
        let hold = Duration::from_secs(options.orphan_hold_max_s.into());
        Self {
            observed: announcer.observe(),
            announcer,
            options,
            mailbox,
            talk: None,
            updates: Updates::default(),
            local: Local::default(),
            accepted: None,
            standing: OrdMap::new(),
            hold,
            // The network may still have what a life before this one announced, and nobody vouches for that.
            orphaned_at: Some(Instant::now() + hold),
            status_due: false,
            status_from: Instant::now(),
        }
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut observing = true;
        loop {
            let next = self.next_deadline();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(call) = self.mailbox.recv() => self.take_over(call),
                message = receive(&mut self.talk) => self.received(message).await,
                changed = self.observed.changed(), if observing => {
                    observing = changed.is_ok();
                    self.observed.mark_unchanged();
                    self.status_due = true;
                }
                () = sleep_until(next) => {}
            }
            self.tick(Instant::now()).await;
        }
        self.end_call(Some(Status::unavailable("the plugin ends")));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let talk = self.talk.as_ref();
        let status = talk.filter(|talk| self.status_due && talk.epoch.is_some()).map(|_| self.status_from);
        let farewell = talk.and_then(|talk| talk.farewell).map(|(_, until)| until);
        [self.orphaned_at, status, farewell].into_iter().flatten().min()
    }

    fn take_over(&mut self, call: Call) {
        self.end_call(Some(Status::aborted("another call has taken over")));
        self.talk = Some(Talk { call, epoch: None, farewell: None });
    }

    /// Ends the call; what was accepted is kept for a while.
    fn end_call(&mut self, why: Option<Status>) {
        let Some(talk) = self.talk.take() else { return };
        if let Some(why) = why {
            tracing::info!(reason = why.message(), "call ended");
            if talk.call.out.try_send(Err(why)).is_err() {
                tracing::debug!("the host does not listen any more");
            }
        }
        self.updates.abort();
        if talk.epoch.is_some() {
            tracing::info!(hold = ?self.hold, "without a host: what is announced is kept for a while");
            self.orphaned_at = Some(Instant::now() + self.hold);
        }
    }

    fn send(&mut self, message: Message) {
        let Some(talk) = &self.talk else { return };
        if talk.call.out.try_send(Ok(PluginMessage { message: Some(message) })).is_err() {
            self.end_call(Some(Status::resource_exhausted("the host does not read what it is sent")));
        }
    }

    async fn received(&mut self, message: Result<Option<HostMessage>, Status>) {
        use host_message::Message as M;
        let message = match message {
            Ok(Some(HostMessage { message: Some(message) })) => message,
            Ok(Some(_)) => return, // of a newer host
            Ok(None) => return self.end_call(None),
            Err(status) => {
                tracing::info!(reason = status.message(), "call broken");
                return self.end_call(None);
            }
        };
        let epoch = self.talk.as_ref().and_then(|talk| talk.epoch);
        let ended = self.talk.as_ref().is_some_and(|talk| talk.farewell.is_some());
        let accepted = self.accepted.as_ref().map(|(version, set)| (*version, set));
        let taken = match (message, epoch) {
            _ if ended => Err(UpdateError::Violation("a message after the shutdown".to_owned())),
            (M::Hello(hello), None) => self.hello(&hello),
            (M::Begin(begin), Some(epoch)) => self.updates.begin(begin, epoch, accepted),
            (M::Chunk(chunk), Some(_)) => self.updates.chunk(chunk),
            (M::End(end), Some(_)) => self.end(end).await,
            (M::Shutdown(shutdown), Some(_)) => {
                self.shut_down(shutdown).await;
                Ok(())
            }
            (M::Hello(_), Some(_)) => Err(UpdateError::Violation("a second hello".to_owned())),
            (_, None) => Err(UpdateError::Violation("no hello".to_owned())),
        };
        if let Err(error) = taken {
            self.end_call(Some(Status::invalid_argument(error.to_string())));
        }
    }

    fn hello(&mut self, hello: &HostHello) -> Result<(), UpdateError> {
        if hello.epoch == 0 {
            return Err(UpdateError::Violation("an epoch of zero".to_owned()));
        }
        let (min, max) = self.options.protocol;
        let highest = max.min(hello.protocol_max);
        let protocol = if highest >= min.max(hello.protocol_min) { highest } else { 0 };
        let orphan_hold_s = self.options.orphan_hold_max_s.min(hello.orphan_hold_s);
        tracing::info!(node = hello.node_name, host = hello.host_version, protocol, "a host says hello");
        let answer = PluginHello {
            protocol,
            protocol_min: min,
            protocol_max: max,
            name: self.options.name.clone(),
            plugin_version: cut(self.options.version.clone(), VERSION_LEN_MAX),
            capabilities: Some(self.announcer.capabilities().into()),
            orphan_hold_s,
            accepted: self.accepted.as_ref().map(|(version, _)| *version),
        };
        self.send(Message::Hello(answer));
        if protocol == 0 {
            self.end_call(None);
        } else if let Some(talk) = &mut self.talk {
            talk.epoch = Some(hello.epoch);
            self.hold = Duration::from_secs(orphan_hold_s.into());
            self.orphaned_at = None;
            self.status_due = true;
        }
        Ok(())
    }

    async fn end(&mut self, end: End) -> Result<(), UpdateError> {
        let open = self.updates.open();
        let (version, set) = match self.updates.end(end) {
            Ok(done) => done,
            Err(UpdateError::NeedSnapshot(reason)) => {
                tracing::info!(reason, "a snapshot is needed");
                self.send(Message::NeedSnapshot(NeedSnapshot { version: open, reason: cut(reason, TEXT_LEN_MAX) }));
                return Ok(());
            }
            Err(violation) => return Err(violation),
        };
        match self.apply(&set, Some(version)).await {
            Ok(_) => {
                self.accepted = Some((version, set));
                self.send(Message::Accepted(Accepted { version: Some(version) }));
            }
            Err(error @ (AnnounceError::NotReady { .. } | AnnounceError::Stopped)) => {
                self.end_call(Some(Status::unavailable(error.to_string())));
            }
            Err(error) => {
                let (prefix, reason) = match error {
                    AnnounceError::Rejected { prefix, reason } => (prefix.to_string(), reason),
                    other => (String::new(), other.to_string()),
                };
                let reason = cut(reason, TEXT_LEN_MAX);
                self.send(Message::Rejected(Rejected { version: Some(version), prefix, reason }));
            }
        }
        Ok(())
    }

    /// Gives the announcer a set, under the next generation of its own.
    async fn apply(&mut self, set: &Desired, version: Option<Version>) -> Result<u64, AnnounceError> {
        let mut next = self.local.next(set);
        if set.provisional {
            // What is missing in it is not to go; an announcer that has no restart to care for need not know.
            next.announcements = next.announcements.union(self.standing.clone());
        }
        let next = Arc::new(next);
        self.announcer.apply(next.clone()).await?;
        self.local.took(&next, version);
        self.standing = next.announcements.clone();
        Ok(next.generation)
    }

    async fn shut_down(&mut self, shutdown: Shutdown) {
        let keep = shutdown.how() != How::Withdraw;
        tracing::info!(keep, "the host says good-bye");
        let withdrawn = match keep {
            true => None,
            false => self.withdraw().await,
        };
        // Before the host loses patience.
        let until = Instant::now() + Duration::from_millis(shutdown.deadline_ms.into()).mul_f64(0.9);
        if let Some(talk) = &mut self.talk {
            talk.farewell = Some((withdrawn.unwrap_or(0), until));
        }
    }

    /// Has everything withdrawn: the generation to wait for.
    async fn withdraw(&mut self) -> Option<u64> {
        let empty = self.accepted.as_ref().map_or_else(Desired::default, |(_, set)| emptied(set, 0));
        match self.apply(&empty, None).await {
            Ok(generation) => {
                self.accepted = None;
                Some(generation)
            }
            Err(error) => {
                tracing::warn!(%error, "what is announced is not withdrawn yet");
                self.orphaned_at = Some(Instant::now() + WITHDRAW_RETRY);
                None
            }
        }
    }

    async fn tick(&mut self, now: Instant) {
        if self.orphaned_at.is_some_and(|at| at <= now) {
            tracing::warn!("no host has come back: what is announced is withdrawn");
            self.orphaned_at = None;
            self.withdraw().await;
        }
        if let Some((generation, until)) = self.talk.as_ref().and_then(|talk| talk.farewell) {
            let observed = self.observed.borrow().clone();
            let reached = observed.targets.values().all(|target| target.generation >= generation);
            if now >= until || (reached && observed.accepted >= generation) || generation == 0 {
                self.send(Message::Goodbye(Goodbye {}));
                self.end_call(None);
            }
        }
        self.tell(now);
    }

    /// Sends the status if there is something new, it is time, and the host reads.
    fn tell(&mut self, now: Instant) {
        let Some(talk) = &self.talk else { return };
        if !self.status_due || talk.epoch.is_none() || talk.farewell.is_some() || now < self.status_from {
            return;
        }
        self.status_from = now + STATUS_PAUSE;
        if talk.call.out.capacity() <= ANSWERS_MAX.min(UNREAD_MAX - 1) {
            return; // the newest, when there is room
        }
        self.status_due = false;
        let observed = self.observed.borrow_and_update().clone();
        self.local.forget_before(observed.reached());
        let status = status::status(&observed, |generation| self.local.version(generation));
        self.send(Message::Status(status));
    }
}

/// The next message of the call; without one, none.
async fn receive(talk: &mut Option<Talk>) -> Result<Option<HostMessage>, Status> {
    match talk {
        Some(talk) => talk.call.incoming.message().await,
        None => std::future::pending().await,
    }
}
