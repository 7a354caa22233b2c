//! The actor of one plugin: dials, lets the two sides talk, and dials again.
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, sleep_until},
    announce::{Desired, Observed, Shutdown},
};
use ferrocast_plugin_proto::{MESSAGE_LEN_MAX, TEXT_LEN_MAX, text::clean, v1alpha1::HostMessage};
use futures::stream;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tonic::{Code, Request, Status, client::Grpc};

use crate::{
    RemoteSettings,
    codec::Octets,
    connection::{self, Requests},
    dialogue::{Dialogue, HELLO_MAX},
    info::{Fault, PluginInfo, PluginState},
    place::{Identity, check_socket, look},
};

/// How often the socket's file is looked at while nothing is connected: a plugin that starts is dialled at once.
const LOOK: Duration = Duration::from_millis(500);
/// Before the first retry.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Before later ones, whatever happens.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A conversation this long counts as good: what comes after begins with the shortest wait.
const STABLE: Duration = Duration::from_secs(10);
/// Messages that wait to be written: a small update (begin, one chunk, end) goes out in one piece.
const MESSAGES_MAX: usize = 3;
/// The one method.
const METHOD: &str = "/ferrocast.announcer.v1alpha1.Announcer/Sync";
/// What gRPC programs call the host of a Unix socket.
const ORIGIN: &str = "http://localhost";

/// Owns the conversation; everything else sees watches.
pub(crate) struct Link {
    name: Arc<str>,
    settings: Arc<RemoteSettings>,
    path: PathBuf,
    desired: watch::Receiver<Arc<Desired>>,
    command: watch::Receiver<Option<(Shutdown, Instant)>>,
    observed: watch::Sender<Arc<Observed>>,
    info: watch::Sender<Arc<PluginInfo>>,
    dialogue: Dialogue,
    fault: Option<Fault>,
    failures: u32,
}

impl Link {
    pub(crate) fn new(
        name: Arc<str>,
        settings: Arc<RemoteSettings>,
        desired: watch::Receiver<Arc<Desired>>,
        command: watch::Receiver<Option<(Shutdown, Instant)>>,
        observed: watch::Sender<Arc<Observed>>,
        info: watch::Sender<Arc<PluginInfo>>,
    ) -> Self {
        let path = settings.dir.join(format!("{name}.sock"));
        let dialogue = Dialogue::new(name.clone(), settings.clone(), Instant::now());
        Self { name, settings, path, desired, command, observed, info, dialogue, fault: None, failures: 0 }
    }

    /// One connection from dial to end.
    async fn attempt(&mut self) -> Result<(), Fault> {
        self.dialogue.protocols()?;
        let found = check_socket(&self.settings.dir, &self.path)?;
        let stream = connection::dial(&self.path, found.uid, &self.settings.uids).await?;
        let (requests, drive) = connection::open(stream).await?;
        self.dialogue.connected(Instant::now());
        let result = tokio::select! {
            biased;
            ended = self.converse(requests) => ended,
            fault = drive => Err(fault),
        };
        self.dialogue.disconnected(result.as_ref().err().map_or("the speaker has ended", |fault| &fault.words));
        result
    }

    async fn converse(&mut self, requests: Requests) -> Result<(), Fault> {
        let (out, mut messages) = mpsc::channel::<HostMessage>(MESSAGES_MAX);
        let request = Request::new(stream::poll_fn(move |context| messages.poll_recv(context)));
        let mut grpc = Grpc::with_origin(requests, http::Uri::from_static(ORIGIN))
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX);
        if let Some(hello) = self.dialogue.next(Instant::now()) {
            out.try_send(hello).map_err(|_| Fault::new(PluginState::Lost, "it has closed the connection"))?;
        }
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let call = async {
            grpc.ready().await.map_err(|error| connection::ended(&error))?;
            grpc.streaming(request, path, Octets).await.map_err(|status| refused(&status))
        };
        let stalled = |_| Fault::new(PluginState::Stalled, "it does not answer the call");
        let mut incoming = tokio::time::timeout(HELLO_MAX, call).await.map_err(stalled)??.into_inner();
        loop {
            let now = Instant::now();
            self.dialogue.want(self.desired.borrow_and_update().clone());
            if let Some((how, until)) = *self.command.borrow_and_update() {
                self.dialogue.shut_down(how, until);
            }
            self.dialogue.tick(now)?;
            if self.dialogue.is_talking() {
                self.fault = None;
            }
            self.publish();
            if self.dialogue.is_over() {
                return Ok(());
            }
            tokio::select! {
                message = incoming.message(), if self.dialogue.may_read() => match message {
                    Ok(Some(octets)) => self.dialogue.receive(octets)?,
                    Ok(None) => return Err(Fault::new(PluginState::Lost, "it has ended the call")),
                    Err(status) => return Err(refused(&status)),
                },
                permit = out.reserve(), if self.dialogue.has_output(now) => {
                    let permit = permit.map_err(|_| Fault::new(PluginState::Lost, "it does not read any more"))?;
                    if let Some(message) = self.dialogue.next(Instant::now()) {
                        permit.send(message);
                    }
                }
                Ok(()) = self.desired.changed() => {}
                Ok(()) = self.command.changed() => {}
                () = sleep_until(self.dialogue.deadline()) => {}
            }
        }
    }

    /// Tells everybody how it stands.
    fn publish(&mut self) {
        let (state, problem) = match &self.fault {
            Some(fault) => (fault.state, format!("the plugin {}: {}", fault.state.words(), fault.words)),
            None if self.dialogue.is_talking() => (PluginState::Connected, self.dialogue.problem()),
            None if self.dialogue.is_over() => (PluginState::Stopped, String::new()),
            None => (self.info.borrow().state, self.info.borrow().problem.clone()),
        };
        let observed = self.dialogue.observed(problem.clone());
        let reached = observed.reached();
        let dropped = self.dialogue.dropped.by_kind().into_iter().filter(|(_, count)| *count > 0);
        let was = self.info.borrow().clone();
        let info = PluginInfo {
            state,
            since: if was.state == state { was.since } else { SystemTime::now() },
            problem,
            protocol: self.dialogue.protocol,
            plugin_version: self.dialogue.plugin_version.clone(),
            capabilities: self.dialogue.capabilities,
            generation: self.dialogue.generation(),
            sent: self.dialogue.sent,
            accepted: observed.accepted,
            reached,
            dropped: dropped.collect(),
            excess: self.dialogue.excess.clone(),
            sessions: self.dialogue.sessions,
            differences: self.dialogue.differences,
            snapshots: self.dialogue.snapshots,
        };
        if *was != info {
            self.measure(&info, observed.targets.values().map(|target| target.announced).max());
            self.info.send_replace(Arc::new(info));
        }
        self.observed.send_if_modified(|now| {
            let new = **now != observed;
            if new {
                *now = Arc::new(observed);
            }
            new
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    fn measure(&self, info: &PluginInfo, announced: Option<usize>) {
        let name = || self.name.to_string();
        let up = f64::from(u8::from(info.state == PluginState::Connected));
        metrics::gauge!("ferrocast_plugin_up", "announcer" => name()).set(up);
        metrics::gauge!("ferrocast_plugin_wanted_generation", "announcer" => name()).set(info.generation as f64);
        metrics::gauge!("ferrocast_plugin_accepted_generation", "announcer" => name()).set(info.accepted as f64);
        metrics::gauge!("ferrocast_plugin_reached_generation", "announcer" => name()).set(info.reached as f64);
        metrics::gauge!("ferrocast_plugin_announcements", "announcer" => name()).set(announced.unwrap_or(0) as f64);
        metrics::counter!("ferrocast_plugin_connections_total", "announcer" => name()).absolute(info.sessions);
        let updates = info.snapshots + info.differences;
        metrics::counter!("ferrocast_plugin_updates_total", "announcer" => name()).absolute(updates);
        for (kind, count) in &info.dropped {
            metrics::counter!("ferrocast_plugin_dropped_total", "announcer" => name(), "kind" => *kind)
                .absolute(*count);
        }
    }

    /// Waits until it is worth while to dial again: for a while, or until another socket stands there.
    async fn pause(&mut self, tried: Option<Identity>) {
        let doubled = RETRY_MIN.saturating_mul(2_u32.saturating_pow(self.failures.saturating_sub(1)));
        // Shortened by up to a quarter, so that a crowd does not dial in step.
        let until = Instant::now() + doubled.min(RETRY_MAX).mul_f64(1.0 - fastrand::f64() / 4.0);
        while Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + LOOK)) => {}
                Ok(()) = self.desired.changed() => {
                    self.dialogue.want(self.desired.borrow_and_update().clone());
                    self.publish();
                }
                Ok(()) = self.command.changed() => return,
            }
            let found = look(&self.path);
            if found.is_some() && found != tried {
                self.failures = 0;
                return;
            }
        }
    }

    async fn work(&mut self) {
        loop {
            let ends = *self.command.borrow();
            if let Some((how, until)) = ends {
                // One that was away may be back, and its network has what nobody wants any more.
                let told = how == Shutdown::Withdraw && matches!(timeout_at(until, self.attempt()).await, Ok(Ok(())));
                if !told {
                    self.fault = Some(Fault::new(PluginState::Stopped, "the speaker ends"));
                }
                return self.publish();
            }
            let (tried, began) = (look(&self.path), Instant::now());
            let Err(fault) = self.attempt().await else {
                return self.publish();
            };
            if began.elapsed() >= STABLE {
                self.failures = 0;
            }
            self.failures = self.failures.saturating_add(1);
            if self.fault.as_ref() != Some(&fault) {
                tracing::warn!(announcer = %self.name, state = fault.state.code(), reason = fault.words, "no plugin");
            }
            self.dialogue.want(self.desired.borrow_and_update().clone());
            self.fault = Some(fault);
            self.publish();
            self.pause(tried).await;
        }
    }
}

/// Why a call has ended.
fn refused(status: &Status) -> Fault {
    let (message, _) = clean(status.message(), TEXT_LEN_MAX);
    match status.code() {
        Code::Unimplemented => Fault::new(PluginState::Refused, format!("it does not serve {METHOD}: {message}")),
        Code::OutOfRange => Fault::new(PluginState::Faulty, format!("a message of it is too long: {message}")),
        _ => match std::error::Error::source(status) {
            Some(source) => connection::ended(source),
            None => Fault::new(PluginState::Lost, format!("it has ended the call: {message}")),
        },
    }
}

impl Actor for Link {
    const NAME: &'static str = "plugin";

    fn instance(&self) -> String {
        self.name.to_string()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        self.dialogue.disconnected("the connection has to be made again"); // after a restart
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
        Ok(())
    }
}
