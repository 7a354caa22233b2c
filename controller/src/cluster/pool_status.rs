//! Writes the counts into the statuses of IPAddressPools: on change, each at most every few seconds.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrocast_api::{IPAddressPool, IPAddressPoolStatus};
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken},
    alloc::PoolUsage,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{
    lease::Leadership,
    rounds::{Rounds, rounds},
};
use crate::allocator::Plan;

/// Writes the statuses while leading.
pub struct PoolStatusWriter {
    client: Client,
    namespace: String,
    plan: watch::Receiver<Plan>,
    leadership: watch::Receiver<Leadership>,
}

/// What one term knows of the statuses as they are.
type Written = BTreeMap<Arc<str>, IPAddressPoolStatus>;

/// The status of a pool that is used so much.
fn status(usage: &PoolUsage) -> IPAddressPoolStatus {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    // What is reserved and free, or given to nobody, is not available.
    let available = |total: u64, taken: [u64; 3]| number(taken.into_iter().fold(total, u64::saturating_sub));
    IPAddressPoolStatus {
        assigned_ipv4: number(usage.used_v4),
        assigned_ipv6: number(usage.used_v6),
        available_ipv4: available(usage.total_v4, [usage.used_v4, usage.reserved_v4, usage.withheld_v4]),
        available_ipv6: available(usage.total_v6, [usage.used_v6, usage.reserved_v6, usage.withheld_v6]),
    }
}

impl PoolStatusWriter {
    /// A writer into the pools of `namespace`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: String,
        plan: watch::Receiver<Plan>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self { client, namespace, plan, leadership }
    }

    /// The statuses as they are.
    async fn read(&self, api: &Api<IPAddressPool>) -> Result<Written, kube::Error> {
        let _ = self;
        let pools = api.list(&ListParams::default()).await?;
        let status = |pool: IPAddressPool| Some((pool.metadata.name?.into(), pool.status?));
        Ok(pools.items.into_iter().filter_map(status).collect())
    }
}

impl Rounds for PoolStatusWriter {
    type Known = Option<Written>;
    const WHAT: &'static str = "counts of IPAddressPools";
    const SETTLE: Duration = Duration::from_secs(2);

    /// Writes what differs; the pools whose status was not written for an error of their own are told.
    async fn write(&self, plan: &Plan, written: &mut Self::Known) -> Result<(), kube::Error> {
        let api: Api<IPAddressPool> = Api::namespaced(self.client.clone(), &self.namespace);
        if written.is_none() {
            *written = Some(self.read(&api).await?);
        }
        let Some(written) = written else { return Ok(()) };
        written.retain(|name, _| plan.usage.contains_key(name));
        for (name, used) in &*plan.usage {
            let status = status(used);
            if written.get(name) == Some(&status) {
                continue;
            }
            let leadership = *self.leadership.borrow();
            if !leadership.allows(plan.term, Instant::now()) {
                return Ok(());
            }
            let patch = Patch::Merge(json!({ "status": status }));
            match api.patch_status(name, &PatchParams::default(), &patch).await {
                Ok(_) => drop(written.insert(name.clone(), status)),
                Err(kube::Error::Api(answer)) if answer.code == 404 => {} // its deletion is under way to us
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Actor for PoolStatusWriter {
    const NAME: &'static str = "pool-status";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        rounds(self, self.plan.clone(), stop).await
    }
}
