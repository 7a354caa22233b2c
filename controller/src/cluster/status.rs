//! Writes what the plan says into the Services' statuses: one JSON merge patch per change, fenced by leadership.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    alloc::{Note, NoteType},
    model::ServiceKey,
};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use imbl::ordmap::DiffItem;
use k8s_openapi::api::core::v1::Service as KubeService;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    convert::ALLOCATED_FROM_POOL,
    events::{EventQueue, Record, Regarding, Repeat},
    lease::Leadership,
};
use crate::allocator::{Entry, Plan};

/// Patches under way at once: enough to fill the API server's latency, few enough not to flood it.
const IN_FLIGHT_MAX: usize = 16;
/// Longest wait for an answer. With the last moment a write may start (the lease's renew deadline, 10 s) it ends before the
/// lease can have expired (15 s).
const PATCH_MAX: Duration = Duration::from_secs(4);
/// First wait after a failed patch; doubles per failure of the same Service up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest wait before a failed patch is tried again.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What came of one patch.
enum Patched {
    Written,
    /// The Service has changed meanwhile: its watch brings the newer version, and with it a new plan.
    Conflict,
    Gone,
    Failed(String),
}

type Done = (ServiceKey, Entry, Patched);

/// Writes statuses while leading.
pub struct StatusWriter {
    client: Client,
    plan: watch::Receiver<Plan>,
    leadership: watch::Receiver<Leadership>,
    events: EventQueue,
    busy: watch::Sender<usize>,
}

/// What one incarnation knows.
#[derive(Default)]
struct Work {
    done_with: Plan,
    waiting: BTreeSet<ServiceKey>,
    in_flight: BTreeSet<ServiceKey>,
    patches: FuturesUnordered<BoxFuture<'static, Done>>,
    retries: BTreeMap<(Instant, ServiceKey), ()>,
    failures: HashMap<ServiceKey, u32>,
    said: HashMap<ServiceKey, Vec<Note>>,
}

/// The patch that makes the status as planned; `None` if it is.
fn patch_for(entry: &Entry) -> Option<Value> {
    let service = &entry.service;
    let annotated = service.annotations.allocated_from_pool.as_ref().filter(|a| !a.deprecated).map(|a| &*a.value);
    let mut patch = json!({"metadata": {"resourceVersion": &*service.resource_version}});
    let (ips, pool) = match &entry.outcome {
        None if annotated.is_none() => return None,
        None => (None, None),
        Some(outcome) => {
            let rewrite_foreign = service.ingress_foreign && !outcome.ips.is_empty();
            let same = service.ingress == outcome.ips && !rewrite_foreign;
            if same && annotated == outcome.pool.as_deref() {
                return None;
            }
            (Some(&outcome.ips).filter(|_| !same), outcome.pool.as_deref())
        }
    };
    if annotated != pool {
        patch["metadata"]["annotations"] = json!({ ALLOCATED_FROM_POOL: pool });
    }
    if let Some(ips) = ips {
        let ingress: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let ingress = if ingress.is_empty() { Value::Null } else { Value::Array(ingress) };
        patch["status"] = json!({"loadBalancer": {"ingress": ingress}});
    }
    Some(patch)
}

async fn send(client: Client, key: ServiceKey, entry: Entry, patch: Value) -> Done {
    let api: Api<KubeService> = Api::namespaced(client, key.namespace());
    let params = PatchParams::default();
    let patch = Patch::Merge(patch);
    let request = api.patch_status(key.name(), &params, &patch);
    let result = match tokio::time::timeout(PATCH_MAX, request).await {
        Ok(Ok(_)) => Patched::Written,
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Patched::Conflict,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Patched::Gone,
        Ok(Err(error)) => Patched::Failed(chain(&error)),
        Err(_) => Patched::Failed(format!("no answer within {PATCH_MAX:?}")),
    };
    (key, entry, result)
}

/// Addresses as MetalLB prints them: `["192.0.2.1" "2001:db8::1"]`.
fn quoted(ips: &[IpAddr]) -> String {
    let ips: Vec<String> = ips.iter().map(|ip| format!("{:?}", ip.to_string())).collect();
    format!("[{}]", ips.join(" "))
}

impl StatusWriter {
    /// A writer, and how many patches it has to do: for what should yield to them.
    #[must_use]
    pub fn new(
        client: Client,
        plan: watch::Receiver<Plan>,
        leadership: watch::Receiver<Leadership>,
        events: EventQueue,
        busy: watch::Sender<usize>,
    ) -> Self {
        Self { client, plan, leadership, events, busy }
    }

    /// Takes in the newest plan: what differs from the last one is looked at.
    fn take_plan(&mut self, work: &mut Work) {
        let plan = self.plan.borrow_and_update().clone();
        if plan.term != work.done_with.term {
            let patches = std::mem::take(&mut work.patches); // let them finish; their answers still count
            let in_flight = std::mem::take(&mut work.in_flight);
            *work = Work { patches, in_flight, ..Work::default() };
        }
        for item in work.done_with.entries.diff(&plan.entries) {
            let known = matches!(item, DiffItem::Update { .. });
            match item {
                DiffItem::Add(key, entry) | DiffItem::Update { new: (key, entry), .. } => {
                    if patch_for(entry).is_some() {
                        work.waiting.insert(key.clone());
                    } else {
                        work.waiting.remove(key);
                        work.failures.remove(key);
                    }
                    Self::say(&self.events, &mut work.said, key, entry, known);
                }
                DiffItem::Remove(key, _) => {
                    work.waiting.remove(key);
                    work.failures.remove(key);
                    work.said.remove(key);
                }
            }
        }
        work.done_with = plan;
    }

    /// Events for the notes that are new. `known`: the Service was looked at before in this term, so what is new to this
    /// process is new.
    fn say(
        events: &EventQueue,
        said: &mut HashMap<ServiceKey, Vec<Note>>,
        key: &ServiceKey,
        entry: &Entry,
        known: bool,
    ) {
        let notes = entry.outcome.as_ref().map_or(&[][..], |o| &o.notes);
        let before = said.get(key).map_or(&[][..], Vec::as_slice);
        for note in notes.iter().filter(|n| !before.contains(n)) {
            events.publish(Record {
                regarding: Regarding::service(key, &entry.service),
                kind: note.kind,
                reason: note.reason,
                action: "Allocate",
                message: note.message.clone(),
                repeat: match note.kind {
                    NoteType::Normal => Repeat::Always,
                    NoteType::Warning if known => Repeat::Changed,
                    NoteType::Warning => Repeat::Never,
                },
            });
        }
        if notes.is_empty() {
            said.remove(key);
        } else {
            said.insert(key.clone(), notes.to_vec());
        }
    }

    /// Starts as many patches as may be under way.
    fn start(&self, work: &mut Work) {
        let leadership = *self.leadership.borrow();
        while work.patches.len() < IN_FLIGHT_MAX {
            let Some(key) = work.waiting.iter().find(|k| !work.in_flight.contains(*k)).cloned() else { return };
            if !leadership.allows(work.done_with.term, Instant::now()) {
                return;
            }
            work.waiting.remove(&key);
            let Some(entry) = work.done_with.entries.get(&key).cloned() else { continue };
            let Some(patch) = patch_for(&entry) else { continue };
            work.in_flight.insert(key.clone());
            work.patches.push(Box::pin(send(self.client.clone(), key, entry, patch)));
        }
    }

    fn finish(&self, work: &mut Work, (key, entry, patched): Done) {
        work.in_flight.remove(&key);
        let result = match &patched {
            Patched::Written => "written",
            Patched::Conflict => "conflict",
            Patched::Gone => "gone",
            Patched::Failed(_) => "failed",
        };
        metrics::counter!("ferrocast_status_patches_total", "result" => result).increment(1);
        match patched {
            Patched::Written => {
                work.failures.remove(&key);
                self.tell_assigned(&key, &entry);
            }
            Patched::Conflict | Patched::Gone => {
                // A newer version may have arrived while the patch was under way.
                let newer = work.done_with.entries.get(&key);
                if newer.is_some_and(|e| e.service.resource_version != entry.service.resource_version) {
                    work.waiting.insert(key);
                }
            }
            Patched::Failed(error) => {
                let failures = work.failures.entry(key.clone()).or_default();
                *failures += 1;
                if *failures == 1 {
                    tracing::warn!(service = %key, error, "status not written, trying again");
                }
                let wait = RETRY_MIN.saturating_mul(2_u32.saturating_pow(*failures - 1)).min(RETRY_MAX);
                work.retries.insert((Instant::now() + wait, key), ());
            }
        }
    }

    fn tell_assigned(&self, key: &ServiceKey, entry: &Entry) {
        let Some(outcome) = &entry.outcome else { return };
        let new: Vec<IpAddr> = outcome.ips.iter().filter(|ip| !entry.service.ingress.contains(ip)).copied().collect();
        tracing::info!(service = %key, ips = ?outcome.ips, pool = outcome.pool.as_deref(), "status written");
        if new.is_empty() {
            return;
        }
        let additional = outcome.ips.iter().any(|ip| entry.service.ingress.contains(ip));
        let what = if additional { "Assigned additional IP" } else { "Assigned IP" };
        self.events.publish(Record {
            regarding: Regarding::service(key, &entry.service),
            kind: NoteType::Normal,
            reason: "IPAllocated",
            action: "Allocate",
            message: format!("{what} {}", quoted(&new)),
            repeat: Repeat::Always,
        });
    }

    fn retry_due(work: &mut Work) {
        let now = Instant::now();
        while let Some(((at, _), ())) = work.retries.first_key_value()
            && *at <= now
        {
            let Some(((_, key), ())) = work.retries.pop_first() else { return };
            if work.done_with.entries.contains_key(&key) {
                work.waiting.insert(key);
            }
        }
    }
}

impl Actor for StatusWriter {
    const NAME: &'static str = "status-writer";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut work = Work::default();
        self.plan.mark_changed(); // replay the level after a restart
        loop {
            Self::retry_due(&mut work);
            self.start(&mut work);
            let busy = work.waiting.len() + work.patches.len();
            self.busy.send_if_modified(|b| std::mem::replace(b, busy) != busy);
            let retry_at = work.retries.first_key_value().map(|((at, _), ())| *at);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(done) = work.patches.next(), if !work.patches.is_empty() => self.finish(&mut work, done),
                changed = self.plan.changed() => {
                    changed.map_err(|_| ActorError::Upstream("plan"))?;
                    self.take_plan(&mut work);
                }
                changed = self.leadership.changed() => changed.map_err(|_| ActorError::Upstream("leadership"))?,
                () = sleep_until(retry_at) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocast_core::{
        alloc::Outcome,
        model::{AnnotationText, Service},
    };
    use std::sync::Arc;

    fn entry(ingress: &[&str], annotated: Option<&str>, want: Option<(&[&str], Option<&str>)>) -> Entry {
        let parse = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mut service = Service::load_balancer("a", "b");
        service.resource_version = "7".into();
        service.ingress = parse(ingress);
        service.annotations.allocated_from_pool =
            annotated.map(|a| AnnotationText { value: a.into(), deprecated: false });
        let outcome = want
            .map(|(ips, pool)| Arc::new(Outcome { ips: parse(ips), pool: pool.map(Into::into), ..Outcome::default() }));
        Entry { service: Arc::new(service), outcome }
    }

    #[test]
    fn patch_carries_exactly_what_differs() {
        let k = ALLOCATED_FROM_POOL;
        let cases = [
            (entry(&["192.0.2.1"], Some("p"), Some((&["192.0.2.1"], Some("p")))), None),
            (
                entry(&[], None, Some((&["192.0.2.1"], Some("p")))),
                Some(json!({"metadata": {"resourceVersion": "7", "annotations": {k: "p"}},
                    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})),
            ),
            (
                entry(&["192.0.2.1"], Some("old"), Some((&["192.0.2.1"], Some("new")))),
                Some(json!({"metadata": {"resourceVersion": "7", "annotations": {k: "new"}}})),
            ),
            (
                entry(&["192.0.2.1"], Some("p"), Some((&[], None))),
                Some(json!({"metadata": {"resourceVersion": "7", "annotations": {k: null}},
                    "status": {"loadBalancer": {"ingress": null}}})),
            ),
            // Not ours any more: only the annotation goes, whatever the ingress.
            (
                entry(&["192.0.2.1"], Some("p"), None),
                Some(json!({"metadata": {"resourceVersion": "7", "annotations": {k: null}}})),
            ),
            (entry(&["192.0.2.1"], None, None), None),
        ];
        for (entry, want) in cases {
            assert_eq!(patch_for(&entry), want, "{entry:?}");
        }
    }

    #[test]
    fn addresses_are_quoted_as_metallb_prints_them() {
        assert_eq!(
            quoted(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
            r#"["192.0.2.1" "2001:db8::1"]"#
        );
    }
}
