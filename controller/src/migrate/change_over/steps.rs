//! The steps of the change-over at the API server. Each can be repeated.
use std::{
    fmt::Debug,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use ferrocast_api::{SpeakerPeer, SpeakerStatus, SpeakerStatusStatus};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    core::v1::{Node, Pod, PodTemplateSpec},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::MIGRATED_LABEL;
use crate::{
    cluster::metallb::{Part, WAITS_FOR_SPEAKER},
    migrate::check::{
        pods::{self, OldPod},
        ways::Way,
    },
};

/// Pause between two looks: a speaker's status is written at most every few seconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The same for a command that ends a speaker: the routes of a node without graceful restart are away until its Pod is deleted.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// Where the steps are done.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// Of the configuration and of MetalLB.
    pub(super) namespace: String,
    /// How long one step may take.
    pub(super) timeout: Duration,
}

impl Cluster {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Looks until `look` returns something; its last word is the error's.
    async fn eventually<T>(
        &self,
        mut look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            match look().await? {
                Ok(found) => return Ok(found),
                Err(why) if began.elapsed() >= self.timeout => bail!("after {:?}: {why}", self.timeout),
                Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    async fn status(&self, node: &str) -> anyhow::Result<Option<SpeakerStatusStatus>> {
        let found = self.api::<SpeakerStatus>().get_opt(node).await.context("reading a SpeakerStatus")?;
        Ok(found.and_then(|object| object.status))
    }

    /// Ferrocast's speaker runs on the node and waits for the old one, or has its sessions beside it.
    pub(super) async fn ensure_stands_by(&self, node: &str, way: Way) -> anyhow::Result<()> {
        self.eventually(async || {
            let Some(status) = self.status(node).await? else {
                return Ok(Err(format!("{node} has no SpeakerStatus: Ferrocast's speaker does not run there")));
            };
            let stands_by = match way {
                Way::Beside => !status.peers.is_empty() && status.peers.iter().all(|peer| peer.state == "Established"),
                Way::TakeOver | Way::Gap => waits(&status),
            };
            let problem = status.problem.unwrap_or_else(|| "it has no problem to tell".to_owned());
            Ok(if stands_by {
                Ok(())
            } else {
                Err(format!("Ferrocast's speaker on {node} does not stand by: {problem}"))
            })
        })
        .await
    }

    /// Scales the Deployments of MetalLB's controller to 0 and waits until no Pod of it runs.
    pub(super) async fn stop_controllers(&self) -> anyhow::Result<()> {
        for deployment in of_part::<Deployment>(&self.api(), Part::Controller, |d| &d.spec.template).await? {
            self.merge(&self.api::<Deployment>(), &deployment.name_any(), &json!({"spec": {"replicas": 0}})).await?;
        }
        self.eventually(async || {
            let pods = pods::list(&self.client, &self.namespace).await?;
            let left = pods.iter().find(|pod| pod.part == Part::Controller);
            Ok(left.map_or(Ok(()), |pod| Err(format!("Pod {} still runs", pod.name))))
        })
        .await
    }

    /// Waits until a controller of ours holds the Lease.
    pub(super) async fn wait_for_leader(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        self.eventually(async || {
            let lease = leases.get_opt(name).await.context("reading Ferrocast's Lease")?;
            let holder = lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity);
            let held = holder.is_some_and(|holder| !holder.is_empty());
            Ok(if held {
                Ok(())
            } else {
                Err(format!("nobody holds the Lease {namespace}/{name}: does Ferrocast's controller run?"))
            })
        })
        .await
    }

    /// Keeps the old speakers' DaemonSets away from migrated nodes. They replace no Pod by that.
    pub(super) async fn confine_speakers(&self) -> anyhow::Result<()> {
        let sets: Vec<DaemonSet> = of_part(&self.api(), Part::Speaker, |d: &DaemonSet| &d.spec.template).await?;
        if sets.is_empty() {
            bail!(
                "{} has no DaemonSet of MetalLB's speakers: whatever runs them would bring them back",
                self.namespace
            );
        }
        for set in sets {
            let pod = set.spec.template.spec.as_ref();
            let affinity = serde_json::to_value(pod.and_then(|pod| pod.affinity.as_ref()))?;
            let patch = json!({"spec": {
                "updateStrategy": {"type": "OnDelete", "rollingUpdate": null},
                "template": {"spec": {"affinity": confined(affinity)}},
            }});
            self.merge(&self.api::<DaemonSet>(), &set.name_any(), &patch).await?;
        }
        Ok(())
    }

    async fn merge<K>(&self, api: &Api<K>, name: &str, patch: &Value) -> anyhow::Result<()>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("changing {name}"))?;
        Ok(())
    }

    /// Marks a node as migrated.
    pub(super) async fn label_node(&self, node: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        self.merge(&nodes, node, &json!({"metadata": {"labels": {MIGRATED_LABEL: "true"}}})).await
    }

    /// Deletes a Pod, which then no longer counts as alive.
    pub(super) async fn delete_pod(&self, pod: &str) -> anyhow::Result<()> {
        match self.api::<Pod>().delete(pod, &DeleteParams::default()).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            answer => answer.map(drop).with_context(|| format!("deleting Pod {pod}")),
        }
    }

    /// Runs the command that ends an old speaker's BGP process.
    pub(super) async fn kill(&self, kill: &str, pod: &OldPod) -> anyhow::Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-c", kill]).stdin(Stdio::null());
        shell.envs([("NODE", &pod.node), ("POD", &pod.name), ("NAMESPACE", &self.namespace)]);
        let mut child = shell.spawn().with_context(|| format!("cannot run: {kill}"))?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().with_context(|| format!("waiting for: {kill}"))? {
                break status;
            }
            if began.elapsed() >= self.timeout {
                child.kill().with_context(|| format!("ending: {kill}"))?;
            }
            tokio::time::sleep(KILL_INTERVAL).await;
        };
        if !status.success() {
            bail!("{status}: {kill}");
        }
        Ok(())
    }

    /// Waits until every session of a node is Ferrocast's; returns their number.
    pub(super) async fn wait_for_sessions(&self, node: &str) -> anyhow::Result<usize> {
        self.eventually(async || {
            let Some(status) = self.status(node).await? else {
                return Ok(Err(format!("{node} has no SpeakerStatus")));
            };
            let up = status.peers.iter().filter(|peer| peer.state == "Established").count();
            let told = |peer: &SpeakerPeer| peer.announced.as_ref().is_some_and(|n| n.ipv4 + n.ipv6 > 0);
            if up == status.peers.len() && !waits(&status) && (status.announced == 0 || status.peers.iter().any(told)) {
                return Ok(Ok(up));
            }
            let problem = status.problem.unwrap_or_else(|| "it has no problem to tell".to_owned());
            Ok(Err(format!("{up} of {} sessions are established and told their routes: {problem}", status.peers.len())))
        })
        .await
    }
}

/// Does Ferrocast's speaker wait for the old one?
fn waits(status: &SpeakerStatusStatus) -> bool {
    status.problems.iter().any(|problem| problem.contains(WAITS_FOR_SPEAKER))
}

/// The objects whose Pods are a part of MetalLB.
async fn of_part<K>(api: &Api<K>, part: Part, template: impl Fn(&K) -> &PodTemplateSpec) -> anyhow::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut found = api.list(&ListParams::default()).await.context("listing what runs MetalLB's Pods")?.items;
    found.retain(|object| {
        let labels = template(object).metadata.as_ref().and_then(|meta| meta.labels.as_ref());
        labels.is_some_and(|labels| part.has(labels))
    });
    Ok(found)
}

/// A Pod's affinity that also keeps it away from migrated nodes: a condition in each of the alternatives, of which there is one.
fn confined(affinity: Value) -> Value {
    let mut affinity = if affinity.is_object() { affinity } else { json!({}) };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = affinity["nodeAffinity"][required]["nodeSelectorTerms"].as_array().cloned().unwrap_or_default();
    let mut terms = if terms.is_empty() { vec![json!({})] } else { terms };
    let condition = json!({"key": MIGRATED_LABEL, "operator": "DoesNotExist"});
    for term in &mut terms {
        let mut conditions = term["matchExpressions"].as_array().cloned().unwrap_or_default();
        if !conditions.contains(&condition) {
            conditions.push(condition.clone());
        }
        term["matchExpressions"] = Value::Array(conditions);
    }
    affinity["nodeAffinity"][required]["nodeSelectorTerms"] = Value::Array(terms);
    affinity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confined_affinity_adds_the_condition_once_to_every_alternative() {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let ours = json!({"key": MIGRATED_LABEL, "operator": "DoesNotExist"});
        let of = |terms: Value| json!({"nodeAffinity": {required: {"nodeSelectorTerms": terms}}});
        let other = json!({"key": "rack", "operator": "In", "values": ["1"]});
        for (before, after) in [
            (Value::Null, of(json!([{"matchExpressions": [ours]}]))),
            (
                of(json!([{"matchExpressions": [other]}, {"matchFields": []}])),
                of(json!([{"matchExpressions": [other, ours]}, {"matchFields": [], "matchExpressions": [ours]}])),
            ),
        ] {
            assert_eq!(confined(before), after);
            assert_eq!(confined(after.clone()), after);
        }
    }
}
