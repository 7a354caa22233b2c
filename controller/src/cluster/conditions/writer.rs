//! Writes the conditions.
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    decide::Sharers,
    model::{Endpoints, ServiceCondition, ServiceKey},
    view::{ClusterView, Source},
};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use imbl::ordmap::DiffItem;
use k8s_openapi::{api::core::v1::Service as KubeService, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    Speakers,
    summary::{Circumstances, Other, Subject, conditions},
};
use crate::{allocator::Plan, cluster::lease::Leadership};

/// A change is looked at so long after it came, and a Service's conditions are written no more often than that.
const SETTLE: Duration = Duration::from_secs(1);
/// Patches under way at once; addresses come first, these can wait.
const IN_FLIGHT_MAX: usize = 4;
/// Longest wait for an answer.
const PATCH_MAX: Duration = Duration::from_secs(4);
/// Wait before a failed patch is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Services looked at before other actors get their turn.
const BATCH_MAX: usize = 64;

/// Writes conditions while leading.
pub struct ConditionWriter {
    client: Client,
    class: Option<Arc<str>>,
    view: watch::Receiver<ClusterView>,
    plan: watch::Receiver<Plan>,
    speakers: watch::Receiver<Speakers>,
    leadership: watch::Receiver<Leadership>,
}

type Done = (ServiceKey, Result<(), String>);

/// What one incarnation knows.
#[derive(Default)]
struct Work {
    term: u64,
    view: ClusterView,
    plan: Plan,
    speakers: Speakers,
    sharers: Sharers,
    /// Services to look at, and when.
    due: BTreeSet<(Instant, ServiceKey)>,
    due_at: HashMap<ServiceKey, Instant>,
    /// No patch before then.
    rests: HashMap<ServiceKey, Instant>,
    in_flight: BTreeSet<ServiceKey>,
    patches: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What was written last and is not in the view yet.
    written: HashMap<ServiceKey, Vec<ServiceCondition>>,
    failing: bool,
}

impl Work {
    /// Notes that a Service is to be looked at, unless it is already.
    fn mark(&mut self, key: &ServiceKey, now: Instant) {
        if self.due_at.contains_key(key) {
            return;
        }
        let at = self.rests.get(key).copied().unwrap_or(now).max(now) + SETTLE;
        self.due_at.insert(key.clone(), at);
        self.due.insert((at, key.clone()));
    }

    /// The next Service whose time has come.
    fn next(&mut self, now: Instant) -> Option<ServiceKey> {
        let (at, key) = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.due.remove(&(at, key.clone()));
        self.due_at.remove(&key);
        Some(key)
    }

    fn others(&self, key: &ServiceKey) -> Vec<Other> {
        let found = self.sharers.of(key).into_iter().filter_map(|other| {
            let service = self.view.services.get(&other)?.clone();
            Some((service, self.anywhere(&other), self.view.endpoint_nodes.get(&other).cloned().unwrap_or_default()))
        });
        found.collect()
    }

    fn anywhere(&self, key: &ServiceKey) -> u32 {
        self.view.endpoints.get(key).copied().unwrap_or(Endpoints::default()).anywhere
    }

    /// The conditions that the Service should have; `None`: it is not to be looked at.
    fn wanted(&self, key: &ServiceKey, around: &Circumstances) -> Option<Vec<ServiceCondition>> {
        let service = self.view.services.get(key)?;
        let Some(outcome) = self.plan.entries.get(key).and_then(|e| e.outcome.as_ref()) else {
            // Not ours (any more): what we wrote goes, if it is of our class or no load balancer.
            let foreign = service.is_load_balancer && !service.is_ours(around.class.as_deref());
            return (!foreign && !service.is_load_balancer).then(Vec::new);
        };
        if !outcome.ips.is_empty() && service.ingress.is_empty() {
            return None; // its address is under way, and what there is to say with it
        }
        let others = self.others(key);
        let nodes = self.view.endpoint_nodes.get(key).cloned().unwrap_or_default();
        let endpoints = (self.anywhere(key), &*nodes);
        Some(conditions(&Subject { service, outcome, endpoints, others: &others }, around))
    }
}

/// The patch from what a Service has to what it should have; `None` if that is the same. By type, so that conditions of others
/// stay as they are.
fn patch_for(has: &[ServiceCondition], wanted: &[ServiceCondition], now: Timestamp) -> Option<Value> {
    let mut changes: Vec<Value> = Vec::new();
    for condition in wanted.iter().filter(|condition| !has.contains(condition)) {
        let mut change = json!({
            "type": condition.kind, "status": condition.status, "reason": condition.reason, "message": condition.message,
        });
        let same_status = has.iter().any(|old| old.kind == condition.kind && old.status == condition.status);
        if !same_status {
            change["lastTransitionTime"] = json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        changes.push(change);
    }
    for old in has.iter().filter(|old| !wanted.iter().any(|condition| condition.kind == old.kind)) {
        changes.push(json!({"$patch": "delete", "type": old.kind}));
    }
    (!changes.is_empty()).then(|| json!({"status": {"conditions": changes}}))
}

async fn send(client: Client, key: ServiceKey, patch: Value) -> Done {
    let api: Api<KubeService> = Api::namespaced(client, key.namespace());
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    let answer = tokio::time::timeout(PATCH_MAX, api.patch_status(key.name(), &params, &patch)).await;
    let result = match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {PATCH_MAX:?}")),
    };
    (key, result)
}

impl ConditionWriter {
    /// A writer of the conditions of Services of `class`.
    #[must_use]
    pub fn new(
        client: Client,
        class: Option<Arc<str>>,
        view: watch::Receiver<ClusterView>,
        plan: watch::Receiver<Plan>,
        speakers: watch::Receiver<Speakers>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self { client, class, view, plan, speakers, leadership }
    }

    /// Takes in what is new, and marks whom it may concern.
    fn take_in(&mut self, work: &mut Work, now: Instant) {
        let (view, plan) = (self.view.borrow_and_update().clone(), self.plan.borrow_and_update().clone());
        let speakers = self.speakers.borrow_and_update().clone();
        if plan.term != work.term {
            let patches = std::mem::take(&mut work.patches);
            *work = Work { term: plan.term, patches, ..Work::default() };
        }
        if plan.term == 0 || view.epoch(Source::Endpoints) == 0 || speakers.epoch == 0 {
            return; // not seen yet is not absent
        }
        let everything = !Arc::ptr_eq(&view.config, &work.view.config)
            || !view.nodes.ptr_eq(&work.view.nodes)
            || !speakers.by_node.ptr_eq(&work.speakers.by_node);
        let mut concerned: BTreeSet<ServiceKey> = BTreeSet::new();
        let config = view.config.clone();
        for item in work.view.services.diff(&view.services) {
            let (key, service) = match item {
                DiffItem::Add(key, service) | DiffItem::Update { new: (key, service), .. } => (key, Some(service)),
                DiffItem::Remove(key, _) => (key, None),
            };
            let ips = service.map_or(&[][..], |s| &s.ingress);
            concerned.extend(work.sharers.set(key, ips, &config));
            match service {
                Some(service) => {
                    if work.written.get(key).is_some_and(|w| **w == *service.conditions) {
                        work.written.remove(key);
                    }
                    concerned.insert(key.clone());
                }
                None => {
                    work.written.remove(key);
                    work.rests.remove(key);
                }
            }
        }
        for item in work.view.endpoints.diff(&view.endpoints) {
            concerned.insert(key_of(&item));
        }
        for item in work.view.endpoint_nodes.diff(&view.endpoint_nodes) {
            concerned.insert(key_of(&item));
        }
        for item in work.plan.entries.diff(&plan.entries) {
            concerned.insert(key_of(&item));
        }
        if everything {
            if !Arc::ptr_eq(&view.config, &work.view.config) {
                work.sharers = Sharers::default();
                for (key, service) in &view.services {
                    drop(work.sharers.set(key, &service.ingress, &config));
                }
            }
            concerned.extend(plan.entries.keys().cloned());
        }
        (work.view, work.plan, work.speakers) = (view, plan, speakers);
        for key in concerned {
            if work.plan.entries.contains_key(&key)
                || work.view.services.get(&key).is_some_and(|s| !s.conditions.is_empty())
            {
                work.mark(&key, now);
            }
        }
    }

    /// Looks at Services whose time has come, and starts patches.
    fn start(&self, work: &mut Work, now: Instant) -> bool {
        let leadership = *self.leadership.borrow();
        if work.term == 0 || !leadership.allows(work.term, now) {
            return false;
        }
        let around = Circumstances {
            class: self.class.clone(),
            config: work.view.config.clone(),
            nodes: work.view.nodes.clone(),
            speakers: (!work.speakers.by_node.is_empty()).then(|| work.speakers.by_node.clone()),
        };
        for _ in 0..BATCH_MAX {
            if work.patches.len() >= IN_FLIGHT_MAX {
                return false;
            }
            let Some(key) = work.next(now) else { return false };
            if work.in_flight.contains(&key) {
                work.mark(&key, now);
                continue;
            }
            let Some(wanted) = work.wanted(&key, &around) else { continue };
            let in_view = work.view.services.get(&key).map(|s| s.conditions.to_vec()).unwrap_or_default();
            let has = work.written.get(&key).unwrap_or(&in_view);
            let Some(patch) = patch_for(has, &wanted, Timestamp::now()) else { continue };
            work.written.insert(key.clone(), wanted);
            work.rests.insert(key.clone(), now);
            work.in_flight.insert(key.clone());
            work.patches.push(Box::pin(send(self.client.clone(), key, patch)));
        }
        true
    }

    fn finish(work: &mut Work, (key, result): Done, now: Instant) {
        work.in_flight.remove(&key);
        let outcome = if result.is_ok() { "written" } else { "failed" };
        metrics::counter!("ferrocast_condition_patches_total", "result" => outcome).increment(1);
        match result {
            Ok(()) => work.failing = false,
            Err(error) => {
                if !std::mem::replace(&mut work.failing, true) {
                    tracing::warn!(service = %key, error, "condition not written, trying again");
                }
                work.written.remove(&key);
                work.rests.insert(key.clone(), now + RETRY);
                work.mark(&key, now);
            }
        }
    }
}

fn key_of<V>(item: &DiffItem<'_, '_, ServiceKey, V>) -> ServiceKey {
    match item {
        DiffItem::Add(key, _) | DiffItem::Update { new: (key, _), .. } | DiffItem::Remove(key, _) => (*key).clone(),
    }
}

impl Actor for ConditionWriter {
    const NAME: &'static str = "conditions";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut work = Work::default();
        self.plan.mark_changed();
        loop {
            let now = Instant::now();
            if self.start(&mut work, now) {
                tokio::task::yield_now().await;
                continue;
            }
            let full = work.patches.len() >= IN_FLIGHT_MAX;
            let may_write = self.leadership.borrow().allows(work.term, now);
            let next = work.due.first().map(|(at, _)| *at).filter(|_| may_write && !full);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(done) = work.patches.next(), if !work.patches.is_empty() => {
                    Self::finish(&mut work, done, Instant::now());
                }
                changed = self.plan.changed() => {
                    changed.map_err(|_| ActorError::Upstream("plan"))?;
                    self.take_in(&mut work, Instant::now());
                }
                changed = self.view.changed() => {
                    changed.map_err(|_| ActorError::Upstream("cluster view"))?;
                    self.take_in(&mut work, Instant::now());
                }
                changed = self.speakers.changed() => {
                    changed.map_err(|_| ActorError::Upstream("speakers"))?;
                    self.take_in(&mut work, Instant::now());
                }
                changed = self.leadership.changed() => changed.map_err(|_| ActorError::Upstream("leadership"))?,
                () = sleep_until(next) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, message: &str) -> ServiceCondition {
        ServiceCondition { kind: kind.into(), status: status.into(), reason: "r".into(), message: message.into() }
    }

    #[test]
    fn patch_names_only_what_differs_and_keeps_the_time_of_the_last_transition() {
        let (a, b) = (condition("a", "True", "x"), condition("b", "False", "y"));
        let has = std::slice::from_ref(&a);
        let now = Timestamp::from_second(1).unwrap();
        assert_eq!(patch_for(has, has, now), None);
        assert_eq!(
            patch_for(has, &[a.clone(), b], now).unwrap(),
            json!({"status": {"conditions": [{"type": "b", "status": "False", "reason": "r", "message": "y",
                "lastTransitionTime": "1970-01-01T00:00:01Z"}]}})
        );
        let other = condition("a", "True", "z");
        assert_eq!(
            patch_for(has, &[other], now).unwrap(),
            json!({"status": {"conditions": [{"type": "a", "status": "True", "reason": "r", "message": "z"}]}})
        );
        assert_eq!(
            patch_for(has, &[], now).unwrap(),
            json!({"status": {"conditions": [{"$patch": "delete", "type": "a"}]}})
        );
    }

    #[test]
    fn service_is_looked_at_once_however_often_it_is_marked() {
        let (mut work, now) = (Work::default(), Instant::now());
        let key = ServiceKey::new("d", "a");
        work.mark(&key, now);
        work.mark(&key, now + SETTLE / 2);
        assert_eq!(work.next(now), None);
        assert_eq!(work.next(now + SETTLE), Some(key.clone()));
        assert_eq!(work.next(now + SETTLE), None);
        work.rests.insert(key.clone(), now + SETTLE);
        work.mark(&key, now + SETTLE);
        assert_eq!(work.next(now + SETTLE + SETTLE / 2), None, "no more often than once a second");
        assert_eq!(work.next(now + SETTLE * 2), Some(key));
    }
}
