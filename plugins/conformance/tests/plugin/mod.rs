//! A small plugin on the protocol alone, with a place for one planted fault.
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrocast_conformance::Network;
use ferrocast_plugin_proto::v1alpha1::{
    self as proto, HostMessage, PluginMessage, State, Version, announcer_server, host_message::Message as FromHost,
    plugin_message::Message as FromPlugin, shutdown::How,
};
use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::{Request, Response, Status, Streaming};

/// What the plugin does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    AcceptsBeforeStoring,
    AppliesHalfUpdates,
    ClaimsVersionsNeverSent,
    CrashesAtTenThousand,
    CrashesAtWrongParameters,
    FloodsStatuses,
    FlapsOnRepeat,
    ForgetsWithdrawals,
    HoldsLongerThanProposed,
    IgnoresBaseMismatch,
    IgnoresCount,
    IgnoresDrain,
    IgnoresEmptySnapshots,
    IgnoresShutdownWithdraw,
    InventsPrefixes,
    KeepsStale,
    KeepsForEver,
    LiesAboutReached,
    NeverReaches,
    OldEpochAsBase,
    OversizedReasons,
    ReachesBeforeAccepting,
    ServesTwoCalls,
    SpeaksAnyProtocol,
    TakesAnyPrefix,
    TakesProvisionalForComplete,
    WithdrawsAtKeep,
    WithdrawsOnHostLoss,
}

/// Whether each prefix drains.
type Held = BTreeMap<String, bool>;

#[derive(Default)]
struct Inner {
    accepted: Option<Version>,
    set: Held,
    network: Held,
}

/// The plugin. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Plugin {
    fault: Fault,
    inner: Arc<Mutex<Inner>>,
    calls: watch::Sender<u64>,
}

type Outbox = mpsc::Sender<Result<PluginMessage, Status>>;

struct Update {
    begin: proto::Begin,
    set: Held,
    parameters: String,
    wrong: Option<String>,
}

fn say(message: FromPlugin) -> Result<PluginMessage, Status> {
    Ok(PluginMessage { message: Some(message) })
}

impl Plugin {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, inner: Arc::default(), calls: watch::Sender::new(0) }
    }

    pub(crate) fn network(&self) -> Network {
        let inner = self.inner.lock().unwrap();
        inner.network.iter().map(|(prefix, draining)| (prefix.parse().unwrap(), *draining)).collect()
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn hello(&self, host: &proto::HostHello) -> proto::PluginHello {
        let fits = host.protocol_min <= 1 || self.has(Fault::SpeaksAnyProtocol);
        proto::PluginHello {
            protocol: u32::from(fits),
            protocol_min: 1,
            protocol_max: 1,
            name: "right".into(),
            plugin_version: "1".into(),
            capabilities: Some(proto::Capabilities { ipv4: true, ipv6: true, drain: true, ..Default::default() }),
            orphan_hold_s: host.orphan_hold_s + u32::from(self.has(Fault::HoldsLongerThanProposed)),
            accepted: self.inner.lock().unwrap().accepted,
        }
    }

    fn begin(&self, begin: proto::Begin) -> Update {
        let set = if begin.base.is_some() { self.inner.lock().unwrap().set.clone() } else { Held::new() };
        Update { begin, set, parameters: String::new(), wrong: None }
    }

    fn chunk(&self, update: &mut Update, chunk: proto::Chunk) {
        for terms in chunk.terms.iter().flat_map(|list| &list.terms) {
            update.parameters.clone_from(&terms.parameters_json);
        }
        for announcement in chunk.announcements {
            if announcement.prefix.parse::<IpNet>().is_err() {
                if !self.has(Fault::TakesAnyPrefix) {
                    update.wrong = Some(announcement.prefix);
                    continue;
                }
                update.set.insert("192.0.2.1/32".into(), false);
                continue;
            }
            let draining = announcement.state() == State::Draining && !self.has(Fault::IgnoresDrain);
            update.set.insert(announcement.prefix, draining);
        }
        for withdrawal in chunk.withdrawals {
            update.set.remove(&withdrawal.prefix);
        }
    }

    /// Puts an update in force, or says why not.
    async fn end(&self, update: Update, end: proto::End, outbox: &Outbox) -> Result<Option<FromPlugin>, Status> {
        let version = update.begin.version;
        let accepted = self.inner.lock().unwrap().accepted;
        let mut same_base = update.begin.base.is_none() || update.begin.base == accepted;
        same_base |=
            self.has(Fault::IgnoresBaseMismatch) && update.begin.base.map(|v| v.epoch) == accepted.map(|v| v.epoch);
        same_base |= self.has(Fault::OldEpochAsBase)
            && update.begin.base.map(|v| v.generation) == accepted.map(|v| v.generation);
        let same_count = end.announcements == update.set.len() as u64 || self.has(Fault::IgnoresCount);
        if let Some(prefix) = update.wrong {
            let reason = format!("{prefix:?} is not a prefix");
            return Ok(Some(FromPlugin::Rejected(proto::Rejected { version, prefix, reason })));
        }
        if !same_base || !same_count {
            let reason = if same_base { "another count" } else { "another base" };
            return Ok(Some(FromPlugin::NeedSnapshot(proto::NeedSnapshot { version, reason: reason.into() })));
        }
        if self.has(Fault::CrashesAtTenThousand) && update.set.len() >= 10_000
            || self.has(Fault::CrashesAtWrongParameters) && update.parameters == "{"
        {
            return Err(Status::unknown("crashed"));
        }
        if self.has(Fault::ReachesBeforeAccepting) {
            drop(outbox.send(say(FromPlugin::Status(self.status(version)))).await);
        }
        if self.has(Fault::AcceptsBeforeStoring) && update.begin.base.is_some() {
            // It is lost when the call ends before that.
            drop(outbox.send(say(FromPlugin::Accepted(proto::Accepted { version }))).await);
            sleep(Duration::from_millis(150)).await;
            self.store(update, version).await;
            self.report(outbox).await;
            return Ok(None);
        }
        self.store(update, version).await;
        Ok(Some(FromPlugin::Accepted(proto::Accepted { version })))
    }

    async fn store(&self, update: Update, version: Option<Version>) {
        let repeated = self.inner.lock().unwrap().set == update.set;
        if self.has(Fault::FlapsOnRepeat) && repeated && update.begin.base.is_none() {
            let network = std::mem::take(&mut self.inner.lock().unwrap().network);
            sleep(Duration::from_millis(120)).await;
            self.inner.lock().unwrap().network = network;
        }
        let mut inner = self.inner.lock().unwrap();
        let another_host = inner.accepted.map(|v| v.epoch) != version.map(|v| v.epoch);
        let mut network = update.set.clone();
        let keeps = update.begin.provisional && !self.has(Fault::TakesProvisionalForComplete)
            || self.has(Fault::ForgetsWithdrawals) && update.begin.base.is_some() && update.set.len() == 6
            || self.has(Fault::KeepsStale) && another_host && update.set.len() == 5
            || self.has(Fault::IgnoresEmptySnapshots) && update.set.is_empty();
        if keeps {
            let old = inner.network.clone();
            network.extend(old.into_iter().filter(|(prefix, _)| !update.set.contains_key(prefix)));
        }
        if self.has(Fault::LiesAboutReached) {
            network.pop_first();
        }
        inner.accepted = version;
        inner.set = update.set;
        inner.network = network;
    }

    fn status(&self, version: Option<Version>) -> proto::Status {
        let inner = self.inner.lock().unwrap();
        let mut target = proto::TargetStatus {
            name: "network".into(),
            up: true,
            reached: version,
            announced: inner.set.len() as u64,
            ..Default::default()
        };
        match self.fault {
            Fault::NeverReaches => target.reached = None,
            Fault::OversizedReasons => target.reason = "x".repeat(1_025),
            Fault::InventsPrefixes if target.announced > 0 => {
                let failure = proto::Failure { prefix: "203.0.113.1/32".into(), reason: "no".into() };
                (target.failures, target.failures_total) = (vec![failure], 1);
                target.announced -= 1;
            }
            _ => {}
        }
        proto::Status { targets: vec![target], problem: String::new() }
    }

    async fn report(&self, outbox: &Outbox) {
        let version = self.inner.lock().unwrap().accepted;
        if self.has(Fault::ClaimsVersionsNeverSent) {
            let far = version.map(|v| Version { generation: v.generation + 9, ..v });
            drop(outbox.send(say(FromPlugin::Status(self.status(far)))).await);
        }
        let times = if self.has(Fault::FloodsStatuses) { 30 } else { 1 };
        for _ in 0..times {
            drop(outbox.send(say(FromPlugin::Status(self.status(version)))).await);
        }
    }

    /// The conversation. Whether it ended in order.
    async fn converse(
        &self,
        inbox: &mut Streaming<HostMessage>,
        outbox: &Outbox,
        hold: &mut Duration,
    ) -> Result<bool, Status> {
        let mut update: Option<Update> = None;
        loop {
            let next = inbox.message().await;
            let Ok(Some(HostMessage { message: Some(message) })) = next else {
                if let Some(half) = update.filter(|_| self.has(Fault::AppliesHalfUpdates)) {
                    self.inner.lock().unwrap().network = half.set;
                }
                return next.map(|_| false);
            };
            let answer = match message {
                FromHost::Hello(hello) => {
                    *hold = Duration::from_secs(hello.orphan_hold_s.into());
                    FromPlugin::Hello(self.hello(&hello))
                }
                FromHost::Begin(begin) => {
                    update = Some(self.begin(begin));
                    continue;
                }
                FromHost::Chunk(chunk) => {
                    update.iter_mut().for_each(|update| self.chunk(update, chunk.clone()));
                    continue;
                }
                FromHost::End(end) => match update.take() {
                    Some(update) => match self.end(update, end, outbox).await? {
                        Some(answer) => answer,
                        None => continue,
                    },
                    None => return Err(Status::invalid_argument("an end without a beginning")),
                },
                FromHost::Shutdown(shutdown) => {
                    let gone = match shutdown.how() {
                        How::Withdraw => !self.has(Fault::IgnoresShutdownWithdraw),
                        _ => self.has(Fault::WithdrawsAtKeep),
                    };
                    if gone {
                        *self.inner.lock().unwrap() = Inner::default();
                    }
                    FromPlugin::Goodbye(proto::Goodbye {})
                }
            };
            let (accepted, ended) =
                (matches!(answer, FromPlugin::Accepted(_)), matches!(answer, FromPlugin::Goodbye(_)));
            drop(outbox.send(say(answer)).await);
            if accepted {
                self.report(outbox).await;
            }
            if ended {
                return Ok(true);
            }
        }
    }

    /// Withdraws everything if the host is not back in time.
    async fn orphaned(&self, call: u64, hold: Duration) {
        if self.has(Fault::KeepsForEver) {
            return;
        }
        let mut calls = self.calls.subscribe();
        if tokio::time::timeout(hold, calls.wait_for(|newest| *newest != call)).await.is_err() {
            *self.inner.lock().unwrap() = Inner::default();
        }
    }
}

#[tonic::async_trait]
impl announcer_server::Announcer for Plugin {
    type SyncStream = Pin<Box<dyn futures::Stream<Item = Result<PluginMessage, Status>> + Send>>;

    async fn sync(&self, request: Request<Streaming<HostMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        self.calls.send_modify(|call| *call += 1);
        let (call, mut calls) = (*self.calls.borrow(), self.calls.subscribe());
        let (outbox, queue) = mpsc::channel(64);
        let (plugin, mut inbox) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut hold = Duration::from_secs(300);
            let replaced = calls.wait_for(|newest| *newest != call && !plugin.has(Fault::ServesTwoCalls));
            let ended = tokio::select! {
                ended = plugin.converse(&mut inbox, &outbox, &mut hold) => ended,
                _ = replaced => Err(Status::aborted("another host is here")),
            };
            let lost = !matches!(ended, Ok(true));
            if let Err(status) = ended {
                drop(outbox.send(Err(status)).await);
            }
            drop((outbox, inbox));
            if lost && plugin.has(Fault::WithdrawsOnHostLoss) && *plugin.calls.borrow() == call {
                let mut inner = plugin.inner.lock().unwrap();
                inner.network.clear();
                return;
            }
            plugin.orphaned(call, hold).await;
        });
        let answers =
            futures::stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|next| (next, queue)) });
        Ok(Response::new(Box::pin(answers)))
    }
}
