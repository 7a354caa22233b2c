//! The host's side of the conversation, without I/O: what to send next, and what to make of what comes.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ferrocast_core::announce::{Capabilities, Desired, Election, Observed, Shutdown, TargetObserved};
use ferrocast_plugin_proto::{
    MESSAGE_LEN_MAX, PROTOCOL_MAX, PROTOCOL_MIN, STATUSES_PER_S_MAX, TEXT_LEN_MAX, Update, VERSION_LEN_MAX,
    status::{Dropped, is_status, read_message, told},
    text::clean,
    v1alpha1::{self as wire, HostMessage, Version, host_message, plugin_message::Message},
};
use tokio::time::Instant;

use crate::{
    RemoteSettings,
    filter::Filter,
    info::{Fault, PluginState},
};

/// For the hello: it costs a plugin nothing.
pub(crate) const HELLO_MAX: Duration = Duration::from_secs(5);
/// For the answer to an update, from the last part that it took: storing is all that it has to do.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Snapshots in a row that may be answered with "need snapshot"; more would go on for ever.
const SNAPSHOTS_MAX: u32 = 3;
/// Between two statuses that are read; of those that come sooner the newest is.
const STATUS_PAUSE: Duration = Duration::from_millis(1000 / STATUSES_PER_S_MAX as u64);
/// What is taken from the socket in a second: more waits there, so that a flood costs its sender and nobody else.
const MESSAGES_PER_S_MAX: u32 = 100;
/// The same in octets: two of the longest messages.
const OCTETS_PER_S_MAX: usize = 2 * MESSAGE_LEN_MAX;
/// So many messages in a second are no accident of timing.
const FLOOD_PER_S: u32 = 2 * STATUSES_PER_S_MAX;
/// Over which that is counted.
const SECOND: Duration = Duration::from_secs(1);

/// The kind of what is sent too often.
const FLOOD: &str = "status";

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    /// Hello to be sent, or answered.
    Hello {
        sent: bool,
    },
    Talking,
    /// Good-bye is waited for.
    Farewell,
    Over,
}

/// An update that is not answered.
struct Flight {
    set: Arc<Desired>,
    snapshot: bool,
    rest: Option<Update>,
    until: Instant,
}

/// What is taken from the socket in the second that began then.
struct Taken {
    since: Instant,
    messages: u32,
    octets: usize,
}

/// Outlives connections: what the plugin is known to have is the base of the next difference.
pub(crate) struct Dialogue {
    name: Arc<str>,
    settings: Arc<RemoteSettings>,
    stage: Stage,
    until: Option<Instant>,
    wanted: Arc<Desired>,
    filter: Filter,
    /// What it may have, as sent, newest last: what it accepted, and what it did not answer.
    known: Vec<Arc<Desired>>,
    /// What it has, on this connection.
    base: Option<Arc<Desired>>,
    /// What was answered last on this connection, accepted or not.
    answered: Option<Arc<Desired>>,
    flight: Option<Flight>,
    need_snapshot: u32,
    held: Option<Bytes>,
    status_from: Instant,
    taken: Taken,
    shutdown: Option<(Shutdown, Instant)>,
    targets: BTreeMap<Arc<str>, TargetObserved>,
    told_problem: String,
    rejected: String,
    pub(crate) protocol: Option<u32>,
    pub(crate) plugin_version: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) sent: u64,
    pub(crate) sessions: u64,
    pub(crate) snapshots: u64,
    pub(crate) differences: u64,
    pub(crate) dropped: Dropped,
    /// Of what it sends too much or too long on this connection, by kind.
    pub(crate) excess: BTreeSet<&'static str>,
}

impl Dialogue {
    pub(crate) fn new(name: Arc<str>, settings: Arc<RemoteSettings>, now: Instant) -> Self {
        Self {
            name,
            settings,
            stage: Stage::Closed,
            until: None,
            wanted: Arc::default(),
            filter: Filter::default(),
            known: Vec::new(),
            base: None,
            answered: None,
            flight: None,
            need_snapshot: 0,
            held: None,
            status_from: now,
            taken: Taken { since: now, messages: 0, octets: 0 },
            shutdown: None,
            targets: BTreeMap::new(),
            told_problem: String::new(),
            rejected: String::new(),
            protocol: None,
            plugin_version: String::new(),
            capabilities: Capabilities::default(),
            sent: 0,
            sessions: 0,
            snapshots: 0,
            differences: 0,
            dropped: Dropped::default(),
            excess: BTreeSet::new(),
        }
    }

    /// The range of protocol numbers that both this program and the class allow.
    pub(crate) fn protocols(&self) -> Result<(u32, u32), Fault> {
        let (low, high) = self.settings.protocol.unwrap_or((PROTOCOL_MIN, PROTOCOL_MAX));
        let (min, max) = (low.max(PROTOCOL_MIN), high.min(PROTOCOL_MAX));
        if min <= max {
            return Ok((min, max));
        }
        let words =
            format!("the class asks for protocol {low} to {high}, this speaker has {PROTOCOL_MIN} to {PROTOCOL_MAX}");
        Err(Fault::new(PluginState::Refused, words))
    }

    pub(crate) fn connected(&mut self, now: Instant) {
        self.stage = Stage::Hello { sent: false };
        self.until = Some(now + HELLO_MAX);
        self.taken = Taken { since: now, messages: 0, octets: 0 };
        (self.need_snapshot, self.answered) = (0, None);
        self.excess.clear();
    }

    /// The connection is gone: what it had told is not true any more.
    pub(crate) fn disconnected(&mut self, why: &str) {
        if let Some(flight) = self.flight.take() {
            self.known.push(flight.set); // it may have taken it
        }
        self.stage = if self.is_over() { Stage::Over } else { Stage::Closed };
        (self.until, self.held) = (None, None);
        self.told_problem.clear();
        self.rejected.clear();
        for target in self.targets.values_mut() {
            *target = TargetObserved { reason: why.to_owned(), ..TargetObserved::default() };
        }
    }

    pub(crate) fn want(&mut self, wanted: Arc<Desired>) {
        self.wanted = wanted;
    }

    pub(crate) fn shut_down(&mut self, how: Shutdown, until: Instant) {
        self.shutdown = Some((how, until));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    pub(crate) fn is_talking(&self) -> bool {
        self.stage == Stage::Talking
    }

    pub(crate) fn generation(&self) -> u64 {
        self.wanted.generation
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.generation)
    }

    pub(crate) fn problem(&self) -> String {
        if self.rejected.is_empty() { self.told_problem.clone() } else { self.rejected.clone() }
    }

    /// As the trait tells it: what is not asked of the plugin stands among what each target refuses; before any target is known,
    /// among what the network does.
    pub(crate) fn observed(&self, problem: String) -> Observed {
        let mut targets = self.targets.clone();
        if targets.is_empty() && !self.filter.refused.is_empty() {
            let reason = "the plugin has told of no target yet".to_owned();
            targets.insert(Observed::NETWORK.into(), TargetObserved { reason, ..TargetObserved::default() });
        }
        for target in targets.values_mut() {
            target.refused.extend(self.filter.refused.iter().map(|(prefix, why)| (*prefix, (*why).into())));
        }
        Observed { accepted: self.accepted(), problem, targets }
    }

    /// When [`Dialogue::tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let held = self.held.as_ref().map(|_| self.status_from);
        let flight = self.flight.as_ref().map(|flight| flight.until);
        let shutdown = self.shutdown.filter(|_| self.stage == Stage::Talking).map(|(_, until)| until);
        let paused = (!self.may_read()).then(|| self.taken.since + SECOND);
        [self.until, held, flight, shutdown, paused].into_iter().flatten().min()
    }

    /// May the next message be taken from the socket?
    pub(crate) fn may_read(&self) -> bool {
        self.taken.messages < MESSAGES_PER_S_MAX && self.taken.octets < OCTETS_PER_S_MAX
    }

    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Fault> {
        if now >= self.taken.since + SECOND {
            if self.taken.messages > FLOOD_PER_S {
                self.excess.insert(FLOOD);
            }
            self.taken = Taken { since: now, messages: 0, octets: 0 };
        }
        if self.held.is_some() && now >= self.status_from {
            self.status_from = now + STATUS_PAUSE;
            if let Some(octets) = self.held.take() {
                self.status(&octets)?;
            }
        }
        if self.until.is_some_and(|until| until <= now) {
            let words = match self.stage {
                Stage::Farewell => "it does not say good-bye",
                _ => "it does not answer the hello",
            };
            return Err(Fault::new(PluginState::Stalled, words));
        }
        if self.flight.as_ref().is_some_and(|flight| flight.until <= now) {
            return Err(Fault::new(PluginState::Stalled, format!("it does not answer an update for {ANSWER_MAX:?}")));
        }
        self.begin(now);
        Ok(())
    }

    /// Begins the next update, if there is one and the last is answered.
    fn begin(&mut self, now: Instant) {
        let same = self.answered.as_ref().is_some_and(|answered| Arc::ptr_eq(answered, &self.wanted));
        if self.stage != Stage::Talking || self.flight.is_some() || self.wanted.generation == 0 {
            return;
        }
        if same && self.need_snapshot == 0 {
            return;
        }
        self.filter.set(self.capabilities, &self.wanted.announcements);
        let set = Desired { announcements: self.filter.kept.clone(), ..(*self.wanted).clone() };
        let version = self.version(set.generation);
        let base = self.base.as_ref().filter(|_| self.need_snapshot == 0);
        let (update, snapshot) = match base {
            Some(base) => (Update::difference(self.version(base.generation), base, version, &set), false),
            None => (Update::snapshot(version, &set), true),
        };
        *(if snapshot { &mut self.snapshots } else { &mut self.differences }) += 1;
        self.answered = Some(self.wanted.clone());
        self.flight = Some(Flight { set: Arc::new(set), snapshot, rest: Some(update), until: now + ANSWER_MAX });
    }

    fn version(&self, generation: u64) -> Version {
        Version { epoch: self.settings.epoch.get(), generation }
    }

    /// Is there something to send?
    pub(crate) fn has_output(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Hello { sent: false })
            || self.flight.as_ref().is_some_and(|flight| flight.rest.is_some())
            || self.farewell_due(now)
    }

    /// Before good-bye the newest set is brought, for half of the time at most, unless it would be withdrawn at once.
    fn farewell_due(&self, now: Instant) -> bool {
        let Some((how, until)) = self.shutdown.filter(|_| self.stage == Stage::Talking) else { return false };
        how == Shutdown::Withdraw || self.flight.is_none() || until.saturating_duration_since(now) < ANSWER_MAX / 5
    }

    /// The next message.
    pub(crate) fn next(&mut self, now: Instant) -> Option<HostMessage> {
        use host_message::Message as M;
        let message = if let Stage::Hello { sent } = &mut self.stage {
            if std::mem::replace(sent, true) {
                return None;
            }
            M::Hello(self.hello())
        } else if let Some((how, until)) = self.shutdown.filter(|_| self.farewell_due(now)) {
            (self.stage, self.until, self.flight) = (Stage::Farewell, Some(until), None);
            let how = match how {
                Shutdown::Keep => wire::shutdown::How::Keep,
                Shutdown::Withdraw => wire::shutdown::How::Withdraw,
            };
            let left = until.saturating_duration_since(now).as_millis();
            M::Shutdown(wire::Shutdown { how: how.into(), deadline_ms: u32::try_from(left).unwrap_or(u32::MAX) })
        } else {
            let flight = self.flight.as_mut()?;
            flight.until = now + ANSWER_MAX;
            let message = flight.rest.as_mut()?.next()?;
            if matches!(message, M::End(_)) {
                flight.rest = None;
                self.sent = flight.set.generation;
            }
            message
        };
        Some(HostMessage { message: Some(message) })
    }

    fn hello(&self) -> wire::HostHello {
        let (protocol_min, protocol_max) = self.protocols().unwrap_or((PROTOCOL_MIN, PROTOCOL_MAX));
        wire::HostHello {
            protocol_min,
            protocol_max,
            node_name: self.settings.node.to_string(),
            host_version: self.settings.host_version.to_owned(),
            epoch: self.settings.epoch.get(),
            orphan_hold_s: self.settings.orphan_hold_s,
        }
    }

    /// Takes a message as it came from the socket.
    pub(crate) fn receive(&mut self, octets: Bytes) -> Result<(), Fault> {
        self.taken.messages += 1;
        self.taken.octets += octets.len();
        if is_status(&octets) {
            if matches!(self.stage, Stage::Hello { .. }) {
                return Fault::faulty("it sends a status before its hello");
            }
            // Read when it is time; copied, so that it does not keep alive what came with it.
            self.dropped.statuses += u64::from(self.held.replace(Bytes::copy_from_slice(&octets)).is_some());
            return Ok(());
        }
        let (message, _) = read_message(&octets).map_err(malformed)?;
        match (message.message, self.stage) {
            (None, _) => Ok(()), // of a newer plugin
            (Some(Message::Hello(hello)), Stage::Hello { sent: true }) => self.helloed(&hello),
            (Some(Message::Hello(_)), _) => Fault::faulty("it says hello twice"),
            (Some(_), Stage::Hello { .. }) => Fault::faulty("its first message is not a hello"),
            (Some(Message::Goodbye(_)), Stage::Farewell) => {
                self.stage = Stage::Over;
                Ok(())
            }
            (Some(Message::Goodbye(_)), _) => Fault::faulty("it says good-bye without being asked to"),
            (Some(_), Stage::Farewell) => Ok(()), // an answer that has crossed the shutdown
            (Some(answer), _) => self.answer(answer),
        }
    }

    fn helloed(&mut self, hello: &wire::PluginHello) -> Result<(), Fault> {
        let refuse = |words: String| Err(Fault::new(PluginState::Refused, words));
        let (min, max) = self.protocols()?;
        if hello.protocol == 0 {
            let (low, high) = (hello.protocol_min, hello.protocol_max);
            return refuse(format!("it speaks protocol {low} to {high}, this speaker {min} to {max}"));
        }
        if !(min..=max).contains(&hello.protocol) {
            return refuse(format!("it chose protocol {}, and was offered {min} to {max}", hello.protocol));
        }
        if hello.name != *self.name {
            let (name, _) = clean(&hello.name, VERSION_LEN_MAX);
            return refuse(format!("it calls itself {name:?}, and its socket {:?}", self.name));
        }
        let capabilities: Capabilities = hello.capabilities.unwrap_or_default().into();
        if capabilities.election != Election::None {
            return refuse("it needs one node to be elected, which is not served yet".to_owned());
        }
        let (version, cut) = clean(&hello.plugin_version, VERSION_LEN_MAX);
        self.drop_of_it(Dropped { texts: u64::from(cut), ..Dropped::default() });
        (self.protocol, self.plugin_version, self.capabilities) = (Some(hello.protocol), version, capabilities);
        let ours = hello.accepted.filter(|accepted| accepted.epoch == self.settings.epoch.get());
        self.base = ours
            .and_then(|accepted| self.known.iter().rev().find(|set| set.generation == accepted.generation).cloned());
        self.known = self.base.iter().cloned().collect();
        (self.stage, self.until) = (Stage::Talking, None);
        self.sessions += 1;
        Ok(())
    }

    fn answer(&mut self, answer: Message) -> Result<(), Fault> {
        let version = match &answer {
            Message::Accepted(answer) => answer.version,
            Message::NeedSnapshot(answer) => answer.version,
            Message::Rejected(answer) => answer.version,
            _ => None,
        };
        let expected = self.flight.as_ref().filter(|flight| flight.rest.is_none()).map(|flight| flight.set.generation);
        let expected = expected.map(|generation| self.version(generation));
        let Some(flight) = self.flight.take_if(|_| expected.is_some() && version == expected) else {
            let said = version.map_or("nothing".to_owned(), ferrocast_plugin_proto::words);
            return Fault::faulty(format!("it answers what was not asked: {said}"));
        };
        self.rejected.clear();
        match answer {
            Message::Accepted(_) => {
                self.known = vec![flight.set.clone()];
                self.base = Some(flight.set);
                self.need_snapshot = 0;
            }
            Message::NeedSnapshot(answer) => {
                self.need_snapshot += 1;
                if flight.snapshot && self.need_snapshot > SNAPSHOTS_MAX {
                    let (reason, _) = clean(&answer.reason, TEXT_LEN_MAX);
                    return Fault::faulty(format!("it answers every snapshot with \"need snapshot\": {reason}"));
                }
            }
            Message::Rejected(answer) => {
                let (prefix, _) = clean(&answer.prefix, VERSION_LEN_MAX);
                let (reason, cut) = clean(&answer.reason, TEXT_LEN_MAX);
                self.drop_of_it(Dropped { texts: u64::from(cut), ..Dropped::default() });
                let generation = flight.set.generation;
                self.need_snapshot = 0;
                self.rejected = format!("the plugin rejects generation {generation}: {prefix} {reason}");
            }
            _ => {}
        }
        Ok(())
    }

    fn status(&mut self, octets: &[u8]) -> Result<(), Fault> {
        let (message, dropped) = read_message(octets).map_err(malformed)?;
        let Some(Message::Status(status)) = message.message else { return Ok(()) };
        self.drop_of_it(dropped);
        let empty = Arc::<Desired>::default();
        let sent = self.base.as_ref().unwrap_or(&empty);
        let told = told(&status, self.settings.epoch.get(), sent.generation, &sent.announcements)
            .map_err(|words| Fault::new(PluginState::Faulty, clean(&words, TEXT_LEN_MAX).0))?;
        self.drop_of_it(told.dropped);
        (self.targets, self.told_problem) = (told.targets, told.problem);
        Ok(())
    }

    fn drop_of_it(&mut self, dropped: Dropped) {
        self.dropped.add(dropped);
        self.excess.extend(dropped.by_kind().into_iter().filter(|(_, count)| *count > 0).map(|(kind, _)| kind));
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn malformed(error: ferrocast_plugin_proto::status::Malformed) -> Fault {
    Fault::new(PluginState::Faulty, error.to_string())
}
