//! MetalLB's Pods, as `migrate` sees them.
use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

use crate::cluster::metallb::{NOT_ENDED, Part};

/// A Pod of MetalLB that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldPod {
    /// What it does.
    pub part: Part,
    /// Its name.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// It has a container `frr`: its BGP is FRR's, so that it can have graceful restart.
    pub frr: bool,
}

/// Those that run, by part, node and name.
///
/// # Errors
/// When Pods cannot be listed.
pub async fn list(client: &Client, namespace: &str) -> anyhow::Result<Vec<OldPod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters = ListParams::default().fields(NOT_ENDED);
    let listed = api.list(&parameters).await.with_context(|| format!("cannot list the Pods of {namespace}"))?;
    let mut found: Vec<OldPod> = listed.items.into_iter().filter_map(old_pod).collect();
    found.sort_by(|a, b| (a.part == Part::Speaker, &a.node, &a.name).cmp(&(b.part == Part::Speaker, &b.node, &b.name)));
    Ok(found)
}

fn old_pod(pod: Pod) -> Option<OldPod> {
    let labels = pod.metadata.labels.as_ref()?;
    let part = [Part::Controller, Part::Speaker].into_iter().find(|part| part.has(labels))?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let spec = pod.spec.unwrap_or_default();
    let frr = spec.containers.iter().any(|container| container.name == "frr");
    Some(OldPod { part, name: pod.metadata.name?, node: spec.node_name.unwrap_or_default(), frr })
}
