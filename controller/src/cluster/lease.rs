//! Leader election by a Lease, timed as client-go does it: by when *this* process saw the record change, never by comparing
//! clocks of two machines.
//!
//! Source: <https://pkg.go.dev/k8s.io/client-go/tools/leaderelection>
use std::time::Duration;

use ferrocast_core::actor::{Actor, ActorError, CancellationToken, chain};
use futures::StreamExt as _;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher,
};
use tokio::{sync::watch, time::Instant};

use super::metallb::{Living, must_wait};

/// How long others wait after the last renewal they saw.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long the leader goes on without a successful renewal. The gap to [`LEASE_DURATION`] is what its last write may take.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between attempts to renew or to acquire.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Longest wait for an answer to one request; below [`RENEW_DEADLINE`], so that there is a second try.
const REQUEST_MAX: Duration = Duration::from_secs(4);

/// Whether this process leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Number of the term, counted from 1 in this process; `None`: not leading.
    pub term: Option<u64>,
    /// No write may start after this; moves on with each renewal.
    pub until: Option<Instant>,
}

impl Leadership {
    /// May a write of `term` start at `now`?
    #[must_use]
    pub fn allows(&self, term: u64, now: Instant) -> bool {
        self.term == Some(term) && self.until.is_none_or(|until| now < until)
    }
}

/// The record as last seen, and when it was first seen so.
struct Seen {
    resource_version: String,
    spec: LeaseSpec,
    at: Instant,
}

/// Acquires, renews and releases the Lease.
pub struct Leader {
    api: Api<Lease>,
    name: String,
    identity: String,
    leadership: watch::Sender<Leadership>,
    /// The epoch the watchers list in: 1 for the standby's caches, then one more per term.
    epoch: watch::Sender<u64>,
    terms: u64,
    seen: Option<Seen>,
    /// The last attempt failed, and that was logged.
    failing: bool,
    /// MetalLB's controller: while it lives, nobody leads.
    metallb: Option<watch::Receiver<Living>>,
}

impl Leader {
    /// A candidate called `identity` for the Lease `name`, and what it publishes: leadership and the watchers' epoch.
    #[must_use]
    pub fn new(
        api: Api<Lease>,
        name: String,
        identity: String,
    ) -> (Self, watch::Receiver<Leadership>, watch::Receiver<u64>) {
        let (leadership, leadership_rx) = watch::channel(Leadership::default());
        let (epoch, epoch_rx) = watch::channel(1);
        let leader =
            Self { api, name, identity, leadership, epoch, terms: 1, seen: None, failing: false, metallb: None };
        (leader, leadership_rx, epoch_rx)
    }

    /// Stands only while none of these Pods lives, and gives the Lease up when one comes to life.
    #[must_use]
    pub fn after(mut self, metallb: watch::Receiver<Living>) -> Self {
        self.metallb = Some(metallb);
        self
    }

    /// Returns once none of the Pods to wait for lives.
    async fn wait_for_metallb(&mut self) -> Result<(), ActorError> {
        let Some(metallb) = &mut self.metallb else { return Ok(()) };
        let living = metallb.borrow_and_update().clone();
        if !must_wait(&living) {
            return Ok(());
        }
        if let Some(pods) = living {
            tracing::warn!(?pods, "MetalLB's controller is alive: reading only, until it is gone");
            metrics::gauge!("ferrocast_waiting_for_metallb").set(1.0);
        }
        let gone = metallb.wait_for(|living| !must_wait(living)).await;
        gone.map_err(|_| ActorError::Upstream("MetalLB's Pods"))?;
        metrics::gauge!("ferrocast_waiting_for_metallb").set(0.0);
        Ok(())
    }

    fn observe(&mut self, lease: Lease, now: Instant) {
        let resource_version = lease.metadata.resource_version.unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let unchanged = self.seen.as_ref().is_some_and(|s| s.spec == spec);
        let at = if unchanged { self.seen.as_ref().map_or(now, |s| s.at) } else { now };
        self.seen = Some(Seen { resource_version, spec, at });
    }

    /// Is the Lease free, ours, or expired as far as we have seen?
    fn may_take(&self, now: Instant) -> bool {
        let Some(seen) = &self.seen else { return true };
        let holder = seen.spec.holder_identity.as_deref().unwrap_or_default();
        let held_s = seen.spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let held = held_s.map_or(LEASE_DURATION, Duration::from_secs);
        holder.is_empty() || holder == self.identity || seen.at + held <= now
    }

    /// One attempt to acquire or renew. True: the Lease is ours as of the moment the request was sent.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let now = Instant::now();
        if self.seen.is_none() {
            match self.api.get_opt(&self.name).await? {
                Some(lease) => self.observe(lease, now),
                None => return self.create(now).await,
            }
        }
        if !self.may_take(now) {
            return Ok(false);
        }
        let Some(seen) = &self.seen else { return Ok(false) };
        let ours = seen.spec.holder_identity.as_deref() == Some(&self.identity);
        let time = MicroTime(Timestamp::now());
        let transitions = seen.spec.lease_transitions.unwrap_or(0) + i32::from(!ours);
        let mut spec = serde_json::json!({
            "holderIdentity": self.identity, "renewTime": time, "leaseTransitions": transitions,
            "leaseDurationSeconds": LEASE_DURATION.as_secs(),
        });
        if !ours {
            spec["acquireTime"] = serde_json::json!(time);
        }
        self.patch(spec).await
    }

    async fn create(&mut self, now: Instant) -> Result<bool, kube::Error> {
        let time = MicroTime(Timestamp::now());
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                acquire_time: Some(time.clone()),
                renew_time: Some(time),
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        };
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(lease) => {
                self.observe(lease, now);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the Lease if it is still as we saw it; forgets what we saw if not.
    async fn patch(&mut self, spec: serde_json::Value) -> Result<bool, kube::Error> {
        let Some(seen) = &self.seen else { return Ok(false) };
        let body = serde_json::json!({"metadata": {"resourceVersion": seen.resource_version}, "spec": spec});
        match self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(body)).await {
            Ok(lease) => {
                self.observe(lease, Instant::now());
                Ok(true)
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                // Somebody else wrote it: look again, but keep the clock running if the holder turns out the same.
                match self.api.get_opt(&self.name).await? {
                    Some(lease) => self.observe(lease, Instant::now()),
                    None => self.seen = None,
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn attempt_in_time(&mut self) -> bool {
        let error = match tokio::time::timeout(REQUEST_MAX, self.attempt()).await {
            Ok(Ok(taken)) => {
                self.failing = false;
                return taken;
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no answer within {REQUEST_MAX:?}"),
        };
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(error, "still no word about the Lease");
        } else {
            tracing::warn!(error, "cannot read or write the Lease, trying again");
        }
        false
    }

    /// Leads until a renewal has failed for [`RENEW_DEADLINE`], or `stop`.
    async fn lead(&mut self, began: Instant, stop: &CancellationToken) {
        self.terms += 1;
        let term = self.terms;
        tracing::info!(identity = self.identity, term, "leading");
        metrics::gauge!("ferrocast_leader").set(1.0);
        self.leadership.send_replace(Leadership { term: Some(term), until: Some(began + RENEW_DEADLINE) });
        self.epoch.send_replace(term);
        let mut until = began + RENEW_DEADLINE;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = comes_to_life(self.metallb.as_mut()) => {
                    tracing::warn!(term, "MetalLB's controller has come to life: no write until it is gone");
                    break;
                }
                () = tokio::time::sleep(RETRY_PERIOD) => {}
            }
            let asked = Instant::now();
            let renewed = tokio::select! {
                () = tokio::time::sleep_until(until) => false,
                renewed = self.attempt_in_time() => renewed,
            };
            if renewed {
                until = asked + RENEW_DEADLINE;
                self.leadership.send_replace(Leadership { term: Some(term), until: Some(until) });
            } else if Instant::now() >= until || self.lost_to_another() {
                tracing::warn!(term, "leadership lost: no write until it is won again");
                break;
            }
        }
        self.leadership.send_replace(Leadership::default());
        metrics::gauge!("ferrocast_leader").set(0.0);
    }

    fn lost_to_another(&self) -> bool {
        let holder = self.seen.as_ref().and_then(|s| s.spec.holder_identity.as_deref()).unwrap_or_default();
        !holder.is_empty() && holder != self.identity
    }

    /// Gives the Lease up, so that a standby takes over at once.
    async fn release(&mut self) {
        let spec = serde_json::json!({"holderIdentity": "", "leaseDurationSeconds": 1});
        match tokio::time::timeout(REQUEST_MAX, self.patch(spec)).await {
            Ok(Ok(_)) => tracing::info!("lease released"),
            Ok(Err(error)) => tracing::warn!(error = %chain(&error), "lease not released: it expires by itself"),
            Err(_) => tracing::warn!("lease not released: it expires by itself"),
        }
    }
}

/// Returns when one of the Pods to wait for lives.
async fn comes_to_life(metallb: Option<&mut watch::Receiver<Living>>) {
    let lives = match metallb {
        Some(metallb) => metallb.wait_for(must_wait).await.is_ok(),
        None => false,
    };
    if !lives {
        std::future::pending::<()>().await; // the watcher has ended, and with it soon the process
    }
}

impl Actor for Leader {
    const NAME: &'static str = "leader";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        self.leadership.send_replace(Leadership::default());
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut changes = Box::pin(watcher::watcher(self.api.clone(), only));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                gone = self.wait_for_metallb() => gone?,
            }
            let began = Instant::now();
            if self.attempt_in_time().await {
                self.lead(began, &stop).await;
                let yields = self.metallb.as_ref().is_some_and(|metallb| must_wait(&metallb.borrow()));
                if stop.is_cancelled() || yields {
                    self.release().await;
                }
                if stop.is_cancelled() {
                    return Ok(());
                }
            }
            // A released Lease is noticed at once through the watch; a silent leader by the clock.
            let jittered = RETRY_PERIOD.mul_f64(1.0 + fastrand::f64() / 5.0);
            let deadline = Instant::now() + jittered;
            let mut quiet = false; // after a watch error the clock alone paces the next look
            while Instant::now() < deadline {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep_until(deadline) => {}
                    event = changes.next(), if !quiet => match event {
                        Some(Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease))) => {
                            self.observe(lease, Instant::now());
                            if self.may_take(Instant::now()) { break; }
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => quiet = true,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate() -> Leader {
        let client = kube::Client::try_from(kube::Config::new("http://localhost:1".parse().unwrap())).unwrap();
        Leader::new(Api::namespaced(client, "x"), "lease".into(), "me".into()).0
    }

    fn lease(holder: &str, renewed_s: i64, version: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed_s).unwrap())),
            ..LeaseSpec::default()
        };
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() },
            spec: Some(spec),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lease_of_another_is_taken_only_after_it_was_seen_unchanged_for_its_duration() {
        let mut me = candidate();
        let t0 = Instant::now();
        me.observe(lease("other", 1, "1"), t0); // its clock says 1970: that does not matter
        assert!(!me.may_take(t0 + Duration::from_secs(14)));
        me.observe(lease("other", 2, "2"), t0 + Duration::from_secs(10));
        assert!(!me.may_take(t0 + Duration::from_secs(24)));
        me.observe(lease("other", 2, "2"), t0 + Duration::from_secs(24));
        assert!(me.may_take(t0 + Duration::from_secs(25)));
        me.observe(lease("", 3, "3"), t0 + Duration::from_secs(26));
        assert!(me.may_take(t0 + Duration::from_secs(26)));
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_allows_no_write_after_its_deadline_or_of_another_term() {
        let now = Instant::now();
        let leading = Leadership { term: Some(3), until: Some(now + Duration::from_secs(1)) };
        assert!(leading.allows(3, now));
        assert!(!leading.allows(2, now));
        assert!(!leading.allows(3, now + Duration::from_secs(1)));
        assert!(!Leadership::default().allows(3, now));
    }
}
