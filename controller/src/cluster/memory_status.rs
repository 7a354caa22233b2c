//! Writes what the allocator must remember over a restart into the statuses of PoolPolicies and AddressReservations.
use std::{collections::BTreeMap, time::Duration};

use ferrocast_api::{
    AddressRelease, AddressReservation, AddressReservationStatus, PoolPolicy, PoolPolicyStatus, ReservationHolder,
};
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken},
    alloc::Holder,
    config::Release,
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    lease::Leadership,
    rounds::{Rounds, rounds},
};
use crate::allocator::Plan;

/// Writes the statuses while leading.
pub struct MemoryWriter {
    client: Client,
    namespace: String,
    plan: watch::Receiver<Plan>,
    leadership: watch::Receiver<Leadership>,
}

fn time(at_s: i64) -> String {
    Timestamp::from_second(at_s).map_or_else(|_| Timestamp::UNIX_EPOCH.to_string(), |at| at.to_string())
}

fn count(n: usize) -> Option<i64> {
    i64::try_from(n).ok()
}

fn policy_status(releases: &[Release]) -> PoolPolicyStatus {
    let release = |release: &Release| AddressRelease {
        address: release.ip.to_string(),
        service: release.service.to_string(),
        released_at: time(release.at_s),
    };
    PoolPolicyStatus { remembered: count(releases.len()), releases: Some(releases.iter().map(release).collect()) }
}

fn reservation_status(holders: &[Holder]) -> AddressReservationStatus {
    let holder = |holder: &Holder| ReservationHolder {
        namespace: holder.service.namespace().to_owned(),
        name: holder.service.name().to_owned(),
        addresses: holder.ips.iter().map(ToString::to_string).collect(),
        released_at: holder.released_s.map(time),
    };
    let addresses = |gone: bool| {
        let chosen = holders.iter().filter(|holder| holder.released_s.is_some() == gone);
        count(chosen.map(|holder| holder.ips.len()).sum())
    };
    AddressReservationStatus {
        in_use: addresses(false),
        cooling_down: addresses(true),
        holders: Some(holders.iter().map(holder).collect()),
    }
}

impl MemoryWriter {
    /// A writer into the objects of `namespace`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: String,
        plan: watch::Receiver<Plan>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self { client, namespace, plan, leadership }
    }

    /// Writes a status if it differs from the one known.
    async fn put<K>(&self, name: &str, status: &impl Serialize, known: &mut Known) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Serialize,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let status = serde_json::to_value(status).unwrap_or_default();
        let key = (K::kind(&()).into_owned(), name.to_owned());
        if !known.contains_key(&key) {
            let found = api.get_opt(name).await?;
            let found = found.and_then(|object| serde_json::to_value(object).ok());
            let stored = found.and_then(|mut object| object.get_mut("status").map(Value::take)).unwrap_or_default();
            known.insert(key.clone(), stored);
        }
        if known.get(&key) == Some(&status) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {} // its deletion is under way to us
            answer => drop(answer?),
        }
        known.insert(key, status);
        Ok(())
    }
}

/// The statuses as they are, by kind and name.
type Known = BTreeMap<(String, String), Value>;

impl Rounds for MemoryWriter {
    type Known = Known;
    const WHAT: &'static str = "releases of addresses";
    const SETTLE: Duration = Duration::from_secs(1);

    async fn write(&self, plan: &Plan, known: &mut Known) -> Result<(), kube::Error> {
        let allowed = || {
            let leadership = *self.leadership.borrow();
            leadership.allows(plan.term, Instant::now())
        };
        for (name, releases) in plan.memory.releases.iter().filter(|_| allowed()) {
            self.put::<PoolPolicy>(name, &policy_status(releases), known).await?;
        }
        for (name, holders) in plan.memory.holders.iter().filter(|_| allowed()) {
            self.put::<AddressReservation>(name, &reservation_status(holders), known).await?;
        }
        Ok(())
    }
}

impl Actor for MemoryWriter {
    const NAME: &'static str = "memory-status";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        rounds(self, self.plan.clone(), stop).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocast_core::model::ServiceKey;

    #[test]
    fn statuses_say_who_has_and_who_had_addresses() {
        let ip = |text: &str| text.parse().unwrap();
        let holder = |name: &str, released_s| Holder {
            service: ServiceKey::new("d", name),
            ips: vec![ip("10.0.0.1"), ip("10.0.0.2")],
            released_s,
        };
        let status = reservation_status(&[holder("a", None), holder("b", Some(1))]);
        assert_eq!((status.in_use, status.cooling_down), (Some(2), Some(2)));
        assert_eq!(status.holders.unwrap()[1].released_at.as_deref(), Some("1970-01-01T00:00:01Z"));
        let release = Release { at_s: 2, ip: ip("10.0.0.3"), service: ServiceKey::new("d", "c") };
        let status = policy_status(&[release]);
        assert_eq!(status.releases.unwrap()[0].service, "d/c");
    }
}
