//! The host that the checks play: it remembers what it sent, and what it was told.
use std::{path::PathBuf, time::Duration};

use ferrocast_core::announce::Shutdown;
use ferrocast_plugin_proto::{
    ORPHAN_HOLD_S, PROTOCOL_MAX, PROTOCOL_MIN,
    v1alpha1::{self as proto, HostHello, PluginHello, Status, Version, host_message, plugin_message, shutdown::How},
};
use tokio::time::Instant;

use crate::{
    Entries, InProcess, Options, Subject,
    direct::{Applied, Life},
    notes::{Notes, Sent, show},
    report::Finding,
    set::{self, Set},
    wire::{Call, CallError},
};

/// How long a plugin may take to answer a hello or a small update: it stores, it does not wait for its network.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a plugin may take to listen again after a restart, and a call to be taken.
pub(crate) const CONNECT_RETRY: Duration = Duration::from_millis(50);
/// What the host calls its node.
const NODE_NAME: &str = "conformance";

/// Why a check ends before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Finding),
    NotApplicable(String),
}

pub(crate) type Result<T = ()> = std::result::Result<T, Stop>;

/// The demand was not met.
pub(crate) fn failed(expected: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Stop {
    Stop::Failed(Finding { expected: expected.into(), seen: seen.into(), advice: advice.into() })
}

/// The conversation broke off.
pub(crate) fn broken(during: &str, error: &CallError) -> Stop {
    failed(
        format!("the plugin goes on with the conversation ({during})"),
        error.to_string(),
        "look into the plugin's log at this moment: it crashed, hangs, or ended the call on purpose; no message of the host may do that",
    )
}

/// What an update is the difference from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    /// Nothing: a snapshot.
    Snapshot,
    /// What was accepted last.
    Accepted,
    /// This, whether the plugin has it or not.
    Claimed(Version),
}

/// An update as a check wants it.
#[derive(Clone, Debug)]
pub(crate) struct Update<'s> {
    pub(crate) set: &'s Set,
    pub(crate) base: Base,
    pub(crate) provisional: bool,
    pub(crate) configuration: Option<Entries>,
    /// How many more announcements its end claims than the set has.
    pub(crate) excess: u64,
    /// Send it with fields that no version of the protocol has yet.
    pub(crate) unknown_fields: bool,
}

impl<'s> Update<'s> {
    pub(crate) fn new(set: &'s Set, base: Base) -> Self {
        Self { set, base, provisional: false, configuration: None, excess: 0, unknown_fields: false }
    }
}

/// What a plugin answers to an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Accepted,
    NeedSnapshot(String),
    Rejected(String),
}

/// Everything but an answer that a plugin may say, once it was taken note of.
pub(crate) enum Said {
    Answer(Answer, Option<Version>),
    Status,
    Goodbye,
}

enum Link {
    Wire(Box<Call>),
    Direct(Life),
}

/// The host, and the subject that it talks to.
pub(crate) struct Lab<'a> {
    subject: &'a mut Subject,
    pub(crate) options: &'a Options,
    pub(crate) notes: Notes,
    pub(crate) sent: Sent,
    link: Option<Link>,
    /// What the plugin said last about itself.
    pub(crate) hello: PluginHello,
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    configuration_generation: u64,
    /// The set that was accepted last, with its version.
    pub(crate) accepted: Option<(Version, Set)>,
    pub(crate) status: Option<Status>,
    /// Something was believed without a look at the network.
    pub(crate) believed: bool,
}

impl<'a> Lab<'a> {
    pub(crate) fn new(subject: &'a mut Subject, options: &'a Options) -> Self {
        Self {
            subject,
            options,
            notes: Notes::default(),
            sent: Sent::default(),
            link: None,
            hello: PluginHello::default(),
            epoch: 0,
            // Any but one will do: a plugin must not take small numbers for the beginning.
            generation: 100,
            configuration_generation: 0,
            accepted: None,
            status: None,
            believed: false,
        }
    }

    /// `numbers` of the prefixes that fit the subject.
    pub(crate) fn set(&self, numbers: impl IntoIterator<Item = u32>) -> Set {
        Set::of(&self.capabilities(), numbers, &self.options.parameters)
    }

    pub(crate) fn capabilities(&self) -> proto::Capabilities {
        self.hello.capabilities.unwrap_or_default()
    }

    /// The socket, if the subject is behind one.
    pub(crate) fn socket(&self) -> Result<PathBuf> {
        match &self.subject {
            Subject::Socket(path) => Ok(path.clone()),
            Subject::InProcess(_) => Err(Stop::NotApplicable("the announcer is in this process".into())),
        }
    }

    pub(crate) fn in_process(&mut self) -> Option<&mut Box<dyn InProcess>> {
        match self.subject {
            Subject::Socket(_) => None,
            Subject::InProcess(subject) => Some(subject),
        }
    }

    /// A hello as a host of this version says it.
    pub(crate) fn host_hello(&self) -> HostHello {
        HostHello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node_name: NODE_NAME.into(),
            host_version: env!("CARGO_PKG_VERSION").into(),
            epoch: self.epoch,
            orphan_hold_s: ORPHAN_HOLD_S,
        }
    }

    /// The host is another process from now on: a new epoch, and nothing that it knows.
    pub(crate) fn become_another(&mut self) {
        self.lose();
        self.epoch = fastrand::u64(1..);
    }

    /// The host is gone, without a word.
    pub(crate) fn lose(&mut self) {
        self.link = None;
        self.status = None;
    }

    /// A new host dials.
    pub(crate) async fn connect(&mut self) -> Result<()> {
        self.become_another();
        self.dial(self.host_hello()).await
    }

    /// The host dials with this hello. Tries for a while: a plugin that restarts is not there at once.
    pub(crate) async fn dial(&mut self, hello: HostHello) -> Result<()> {
        self.lose();
        self.notes.begin();
        self.sent.in_flight = None;
        let began = Instant::now();
        if let Subject::InProcess(subject) = self.subject {
            let announcer = subject.start().await.map_err(|error| {
                failed(
                    "the announcer starts",
                    error.to_string(),
                    "the announcer cannot be made: nothing else can be checked",
                )
            })?;
            self.hello = PluginHello {
                protocol: PROTOCOL_MAX,
                name: announcer.name().to_owned(),
                capabilities: Some(set::capabilities(&announcer.capabilities())),
                ..PluginHello::default()
            };
            self.link = Some(Link::Direct(Life::new(announcer)));
            return Ok(());
        }
        let socket = self.socket()?;
        let mut call = loop {
            match Call::open(&socket, hello.clone(), ANSWER_TIME_MAX).await {
                Ok(call) => break call,
                Err(CallError::NotThere(_)) if began.elapsed() < self.options.time_limit => {
                    tokio::time::sleep(CONNECT_RETRY).await;
                }
                Err(error) => return Err(broken("the hello", &error)),
            }
        };
        match call.next(ANSWER_TIME_MAX).await {
            Ok(plugin_message::Message::Hello(hello)) => self.hello = hello,
            Ok(other) => {
                let advice = "send PluginHello first; statuses come after it";
                return Err(failed("PluginHello is the first message of a plugin", format!("{other:?}"), advice));
            }
            Err(error) => return Err(broken("the hello", &error)),
        }
        self.link = Some(Link::Wire(Box::new(call)));
        Ok(())
    }

    pub(crate) fn call(&mut self) -> Result<&mut Call> {
        match &mut self.link {
            Some(Link::Wire(call)) => Ok(call),
            Some(Link::Direct(_)) => Err(Stop::NotApplicable("the announcer is in this process".into())),
            None => Err(failed("a call is open", "there is none", "the suite itself is wrong here: report it")),
        }
    }

    pub(crate) fn life(&mut self) -> Option<&mut Life> {
        match &mut self.link {
            Some(Link::Direct(life)) => Some(life),
            _ => None,
        }
    }

    /// The entries that go with an update, and their generation: a snapshot has all of them, a difference those that it changes.
    fn configuration(&mut self, update: &Update<'_>) -> Option<(u64, Entries)> {
        let standing = matches!(update.base, Base::Snapshot).then_some(&self.options.configuration);
        let entries = update.configuration.as_ref().or(standing)?.clone();
        self.configuration_generation += 1;
        Some((self.configuration_generation, entries))
    }

    /// Sends the beginning of an update, its version taken: begin and chunks, no end.
    pub(crate) async fn begin(&mut self, update: &Update<'_>) -> Result<Version> {
        self.generation += 1;
        let version = Version { epoch: self.epoch, generation: self.generation };
        self.sent.prefixes.extend(update.set.states.keys());
        let configuration = self.configuration(update).map(|(generation, entries)| {
            let entry = |(name, (json, secret))| (name, proto::ConfigurationEntry { json, secret });
            proto::Configuration { generation, entries: entries.into_iter().map(entry).collect() }
        });
        let (base, old) = match (&update.base, &self.accepted) {
            (Base::Snapshot, _) => (None, None),
            (Base::Accepted, accepted) => accepted.clone().unzip(),
            (Base::Claimed(version), accepted) => (Some(*version), accepted.as_ref().map(|(_, set)| set.clone())),
        };
        let begin = proto::Begin { version: Some(version), base, provisional: update.provisional, configuration };
        let mut messages = vec![host_message::Message::Begin(begin)];
        messages.extend(update.set.chunks(old.as_ref()).into_iter().map(host_message::Message::Chunk));
        for message in messages {
            self.send(message, update.unknown_fields).await?;
        }
        Ok(version)
    }

    async fn send(&mut self, message: host_message::Message, unknown_field: bool) -> Result {
        let call = self.call()?;
        let sent = match unknown_field {
            true => call.send_with_unknown_field(message).await,
            false => call.send(message).await,
        };
        sent.map_err(|error| broken("an update", &error))
    }

    /// Sends an update, and waits for its answer.
    pub(crate) async fn update(&mut self, update: &Update<'_>) -> Result<Answer> {
        let answer = match &self.link {
            Some(Link::Direct(_)) => self.apply(update).await?,
            _ => self.send_update(update).await?,
        };
        if answer == Answer::Accepted {
            let version = Version { epoch: self.epoch, generation: self.generation };
            self.sent.accepted.insert((version.epoch, version.generation));
            self.accepted = Some((version, update.set.clone()));
        }
        self.sent.in_flight = None;
        Ok(answer)
    }

    async fn send_update(&mut self, update: &Update<'_>) -> Result<Answer> {
        self.sent.in_flight = Some((self.epoch, self.generation + 1));
        let version = self.begin(update).await?;
        let announcements = update.set.states.len() as u64 + update.excess;
        let end = proto::End { version: Some(version), announcements };
        self.send(host_message::Message::End(end), update.unknown_fields).await?;
        let until = Instant::now() + ANSWER_TIME_MAX.max(self.options.time_limit);
        loop {
            match self.receive(until).await.map_err(|error| broken("the answer to an update", &error))? {
                Said::Status => {}
                Said::Answer(answer, named) if named == Some(version) => return Ok(answer),
                Said::Answer(answer, named) => {
                    return Err(failed(
                        format!("an answer about {}", show(version.epoch, version.generation)),
                        format!("{answer:?} about {named:?}"),
                        "answer each update once, with the version of its Begin",
                    ));
                }
                Said::Goodbye => {
                    return Err(failed("an answer", "Goodbye", "say Goodbye only after Shutdown"));
                }
            }
        }
    }

    /// The same through the trait, which knows whole sets only.
    async fn apply(&mut self, update: &Update<'_>) -> Result<Answer> {
        self.generation += 1;
        self.sent.prefixes.extend(update.set.states.keys());
        self.sent.in_flight = Some((self.epoch, self.generation));
        let generation = self.generation;
        let configuration = self.configuration(update);
        let Some(Link::Direct(life)) = &mut self.link else {
            return Err(failed("an announcer", "there is none", "the suite itself is wrong here: report it"));
        };
        if let Some((generation, entries)) = &configuration {
            life.configure(*generation, entries);
        }
        match life.apply(update.set, generation, update.provisional).await {
            Applied::Accepted => Ok(Answer::Accepted),
            Applied::Rejected(reason) => Ok(Answer::Rejected(reason)),
            Applied::Slow(took) => Err(failed(
                "apply stores the set and returns, without I/O",
                format!("it took {took:?}"),
                "leave the work to an actor of the announcer's own, and tell it of the new set",
            )),
        }
    }

    /// The next that the subject says.
    pub(crate) async fn receive(&mut self, until: Instant) -> std::result::Result<Said, CallError> {
        let time = until.saturating_duration_since(Instant::now());
        let message = match &mut self.link {
            Some(Link::Wire(call)) => call.next(time).await?,
            Some(Link::Direct(life)) => {
                let status = life.status(self.epoch, time).await.ok_or(CallError::Silent(time))?;
                plugin_message::Message::Status(status)
            }
            None => return Err(CallError::Ended("there is none".into())),
        };
        Ok(match message {
            plugin_message::Message::Status(status) => {
                self.notes.look(&status, &self.sent, Instant::now());
                self.status = Some(status);
                Said::Status
            }
            plugin_message::Message::Accepted(said) => Said::Answer(Answer::Accepted, said.version),
            plugin_message::Message::NeedSnapshot(said) => {
                Said::Answer(Answer::NeedSnapshot(said.reason), said.version)
            }
            plugin_message::Message::Rejected(said) => Said::Answer(Answer::Rejected(said.reason), said.version),
            plugin_message::Message::Goodbye(_) => Said::Goodbye,
            plugin_message::Message::Hello(_) => {
                return Err(CallError::Ended("the plugin sent a second PluginHello".into()));
            }
        })
    }

    /// Says that the host ends. Whether the subject was done in time.
    pub(crate) async fn shut_down(&mut self, how: Shutdown, deadline: Duration) -> Result<bool> {
        if let Some(life) = self.life() {
            return Ok(life.shut_down(how, deadline).await);
        }
        let how = match how {
            Shutdown::Keep => How::Keep,
            Shutdown::Withdraw => How::Withdraw,
        };
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        self.send(host_message::Message::Shutdown(proto::Shutdown { how: how.into(), deadline_ms }), false).await?;
        let until = Instant::now() + deadline;
        loop {
            match self.receive(until).await {
                Ok(Said::Goodbye) => return Ok(true),
                Ok(_) => {}
                Err(CallError::Silent(_)) => return Ok(false),
                Err(error) => return Err(broken("Shutdown", &error)),
            }
        }
    }
}
