//! Kubernetes Events, through a bounded queue of their own that yields to status patches.
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain},
    alloc::NoteType,
    config::Meta,
    model::{Service, ServiceKey},
};
use futures::future::join_all;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::{mpsc, watch};

use super::resources::Kind;

/// Events waiting at most. One is about 300 octets; a burst of ten thousand Services fits, a flood does not.
const QUEUE_MAX: usize = 16_384;
/// Events in flight at once: they must not crowd out status patches on the API server.
const IN_FLIGHT_MAX: usize = 4;
/// Longest text of an Event, octets (the API server's limit for `note`).
const NOTE_LEN_MAX: usize = 1024;
/// Longest wait for status patches to finish before Events go out all the same, so that they are late but not lost.
const YIELD_MAX: Duration = Duration::from_secs(30);
/// So long must no status patch have been under way: what follows from one at the speakers (a watch event, a route) then has
/// the API server's attention before the Event that tells of it.
const LULL: Duration = Duration::from_millis(10);
/// Attempts per Event; then it is dropped and counted.
const ATTEMPTS_MAX: u32 = 4;
/// Wait before the second attempt; doubles.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest name of an object the Event is named after, so that the suffix still fits the limit of 253.
const NAME_LEN_MAX: usize = 220;

/// What an Event is about.
#[derive(Clone, Debug)]
pub struct Regarding {
    api_version: Arc<str>,
    kind: &'static str,
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
}

impl Regarding {
    /// About a Service.
    #[must_use]
    pub fn service(key: &ServiceKey, service: &Service) -> Self {
        let (namespace, name) = (key.namespace().into(), key.name().into());
        Self { api_version: "v1".into(), kind: "Service", namespace, name, uid: service.uid.clone() }
    }

    /// About the AnnouncerClass of this name. Which object of that name is not said: a speaker does not keep that.
    #[must_use]
    pub fn announcer_class(namespace: &Arc<str>, name: &Arc<str>) -> Self {
        let kind = Kind::AnnouncerClass;
        let (namespace, name, uid) = (namespace.clone(), name.clone(), "".into());
        Self { api_version: kind.api_version().into(), kind: kind.name(), namespace, name, uid }
    }

    /// About a configuration object.
    #[must_use]
    pub fn resource(meta: &Meta, namespace: &Arc<str>) -> Self {
        let api_version = Kind::named(meta.key.kind).map_or_else(String::new, Kind::api_version);
        let (kind, name, uid) = (meta.key.kind, meta.key.name.clone(), meta.uid.clone());
        Self { api_version: api_version.into(), kind, namespace: namespace.clone(), name, uid }
    }
}

/// What becomes of an Event when the API server has one of the same content already (it keeps them for an hour).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It happened again: it is written again.
    Always,
    /// It tells a condition that may have stood before this process looked, or that others tell too: once is enough.
    Never,
    /// It tells a condition that was different before, as this process has seen: it is written again.
    Changed,
}

/// One Event to be written.
#[derive(Clone, Debug)]
pub struct Record {
    /// About what.
    pub regarding: Regarding,
    /// Normal or Warning.
    pub kind: NoteType,
    /// E.g. `IPAllocated`.
    pub reason: &'static str,
    /// What was done, e.g. `Allocate`.
    pub action: &'static str,
    /// For a human.
    pub message: String,
    /// Whether it is written again.
    pub repeat: Repeat,
}

/// Where Events are put.
#[derive(Clone, Debug)]
pub struct EventQueue(mpsc::Sender<Record>);

impl EventQueue {
    /// Queues an Event; drops and counts it if the queue is full.
    pub fn publish(&self, record: Record) {
        if self.0.try_send(record).is_err() {
            metrics::counter!("ferrocast_events_dropped_total", "why" => "queue full").increment(1);
        }
    }
}

/// Writes queued Events.
pub struct EventWriter {
    client: Client,
    queue: mpsc::Receiver<Record>,
    /// Status patches under way or waiting.
    busy: watch::Receiver<usize>,
    component: &'static str,
    instance: String,
}

impl EventWriter {
    /// A writer and its queue; `busy` counts the status patches to yield to.
    #[must_use]
    pub fn new(
        client: Client,
        component: &'static str,
        instance: String,
        busy: watch::Receiver<usize>,
    ) -> (Self, EventQueue) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        (Self { client, queue, busy, component, instance }, EventQueue(sender))
    }

    /// The Event, named after its content, so that the API server refuses it if it is there already; `unique`: or by a name
    /// that no other has.
    fn event(&self, record: &Record, unique: bool) -> Event {
        let mut note = record.message.clone();
        if note.len() > NOTE_LEN_MAX {
            note.truncate(note.floor_char_boundary(NOTE_LEN_MAX - 3));
            note.push_str("...");
        }
        let now = Timestamp::now();
        let mut hash = DefaultHasher::new();
        (&record.regarding.uid, record.reason, &note).hash(&mut hash);
        if unique {
            now.as_nanosecond().hash(&mut hash);
        }
        let mut prefix = record.regarding.name.to_string();
        prefix.truncate(prefix.floor_char_boundary(NAME_LEN_MAX));
        let regarding = &record.regarding;
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}.{:016x}", hash.finish())),
                namespace: Some(regarding.namespace.to_string()),
                ..ObjectMeta::default()
            },
            action: Some(record.action.into()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(record.reason.into()),
            type_: Some(if record.kind == NoteType::Normal { "Normal" } else { "Warning" }.into()),
            regarding: Some(ObjectReference {
                api_version: Some(regarding.api_version.to_string()),
                kind: Some(regarding.kind.into()),
                namespace: Some(regarding.namespace.to_string()),
                name: Some(regarding.name.to_string()),
                uid: Some(regarding.uid.to_string()).filter(|u| !u.is_empty()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(format!("ferrocast.io/{}", self.component)),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }

    async fn write(&self, record: &Record) {
        let mut event = self.event(record, record.repeat == Repeat::Always);
        let api: Api<Event> = Api::namespaced(self.client.clone(), &record.regarding.namespace);
        let mut wait = RETRY_MIN;
        for attempt in 1..=ATTEMPTS_MAX {
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => return metrics::counter!("ferrocast_events_total", "reason" => record.reason).increment(1),
                Err(kube::Error::Api(status)) if status.code == 409 => match record.repeat {
                    Repeat::Never => return,
                    Repeat::Always | Repeat::Changed => event = self.event(record, true),
                },
                // The namespace is going away, or we may not: trying again would not help.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 422) => {
                    tracing::debug!(reason = record.reason, error = %status, "Event refused");
                    break;
                }
                Err(error) if attempt == ATTEMPTS_MAX => {
                    tracing::warn!(reason = record.reason, error = %chain(&error), "Event could not be written");
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
        metrics::counter!("ferrocast_events_dropped_total", "why" => "not written").increment(1);
    }
}

/// Waits until no status patch has been under way for [`LULL`]; returns at once if none has been since the last call.
async fn lull(busy: &mut watch::Receiver<usize>) {
    if *busy.borrow() == 0 && !busy.has_changed().unwrap_or(false) {
        return;
    }
    let quiet = async {
        while busy.wait_for(|patches| *patches == 0).await.is_ok()
            && let Ok(Ok(())) = tokio::time::timeout(LULL, busy.changed()).await
        {}
    };
    drop(tokio::time::timeout(YIELD_MAX, quiet).await);
}

impl Actor for EventWriter {
    const NAME: &'static str = "event-writer";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut batch = Vec::with_capacity(IN_FLIGHT_MAX);
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                taken = self.queue.recv_many(&mut batch, IN_FLIGHT_MAX) => taken,
            };
            if taken == 0 {
                return Ok(()); // every sender is gone
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = lull(&mut self.busy) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = join_all(batch.iter().map(|record| self.write(record))) => batch.clear(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn event_waits_for_a_lull_after_the_last_patch() {
        let (patches, mut busy) = watch::channel(0);
        let waited = async |busy: &mut watch::Receiver<usize>| {
            let began = tokio::time::Instant::now();
            lull(busy).await;
            began.elapsed()
        };
        assert_eq!(waited(&mut busy).await, Duration::ZERO);
        patches.send_replace(1);
        patches.send_replace(0);
        assert!(waited(&mut busy).await >= LULL);
        assert_eq!(waited(&mut busy).await, Duration::ZERO, "no patch since");
        patches.send_replace(1);
        assert!(waited(&mut busy).await >= YIELD_MAX, "late, but not lost");
        drop(patches);
        assert!(waited(&mut busy).await < YIELD_MAX, "nobody patches any more");
    }

    #[tokio::test]
    async fn event_is_named_after_its_content_unless_it_is_to_be_unique() {
        let client = Client::try_from(kube::Config::new("http://localhost:1".parse().unwrap())).unwrap();
        let (writer, _) = EventWriter::new(client, "controller", "me".into(), watch::channel(0).1);
        let service = Service::load_balancer("a", "b");
        let record = |message: &str| Record {
            regarding: Regarding::service(&service.key, &service),
            kind: NoteType::Warning,
            reason: "AllocationFailed",
            action: "Allocate",
            message: message.into(),
            repeat: Repeat::Changed,
        };
        let name = |message: &str, unique| writer.event(&record(message), unique).metadata.name.unwrap();
        assert_eq!(name("full", false), name("full", false));
        assert_ne!(name("full", false), name("absent", false));
        assert_ne!(name("full", false), name("full", true));
        assert_ne!(name("full", true), name("full", true));
    }
}
