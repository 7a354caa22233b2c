//! Writes MetalLB's `ServiceBGPStatus`: to which peers this node announces each Service. Off unless asked for: it is one object
//! per Service and node.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ferrocast_api::{ServiceBGPStatus, ServiceBGPStatusSpec, ServiceBGPStatusStatus};
use ferrocast_bgp::PeerSet;
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    decide::{Decision, Reason},
    model::ServiceKey,
};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, time::Instant};

use crate::decider::Decisions;

/// Shortest time between two rounds of writes.
const WRITE_PERIOD: Duration = Duration::from_secs(5);
/// The first change after a time of rest is written so long after it was seen, with what follows from it.
const SETTLE: Duration = Duration::from_secs(1);
/// Writes of one round: a node with thousands of Services must not flood the API server; the rest follows in the next.
const WRITES_MAX: usize = 200;
/// Label: the node.
const NODE_LABEL: &str = "metallb.io/node";
/// Label: name of the Service.
const SERVICE_LABEL: &str = "metallb.io/service-name";
/// Label: namespace of the Service.
const NAMESPACE_LABEL: &str = "metallb.io/service-namespace";

/// Peers by Service.
type Announced = BTreeMap<ServiceKey, BTreeSet<Arc<str>>>;

/// Writes the statuses.
pub struct ServiceStatusWriter {
    client: Client,
    namespace: String,
    node: Arc<str>,
    decisions: watch::Receiver<Decisions>,
    peers: watch::Receiver<Arc<PeerSet>>,
}

/// The peers that a decision announces to, of those of this node.
fn peers_of(decision: &Decision, peers: &PeerSet) -> BTreeSet<Arc<str>> {
    let announced = decision.addresses.iter().filter(|address| address.reason == Reason::Announced);
    let advertisements = announced.flat_map(|address| &address.advertisements);
    let named = advertisements.flat_map(|advertisement| {
        peers.peers.keys().filter(|name| advertisement.peers.is_empty() || advertisement.peers.contains(*name))
    });
    named.cloned().collect()
}

/// The object's name: the same for the same node and Service, so that a restart finds it.
fn object_name(node: &str, service: &ServiceKey) -> String {
    let digest = Sha256::digest(format!("{node} {service}"));
    let hex: String = digest.iter().take(8).map(|octet| format!("{octet:02x}")).collect();
    format!("bgp-{hex}")
}

impl ServiceStatusWriter {
    /// A writer for `node`, into `namespace`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: String,
        node: Arc<str>,
        decisions: watch::Receiver<Decisions>,
        peers: watch::Receiver<Arc<PeerSet>>,
    ) -> Self {
        Self { client, namespace, node, decisions, peers }
    }

    fn wanted(&mut self) -> Announced {
        let decisions = self.decisions.borrow_and_update().clone();
        let peers = self.peers.borrow_and_update().clone();
        let of = |(key, decision): (&ServiceKey, &Arc<Decision>)| (key.clone(), peers_of(decision, &peers));
        decisions.bgp.by_service.iter().map(of).filter(|(_, peers)| !peers.is_empty()).collect()
    }

    /// What is written already.
    async fn read(&self, api: &Api<ServiceBGPStatus>) -> Result<Announced, kube::Error> {
        let params = ListParams::default().labels(&format!("{NODE_LABEL}={}", self.node));
        let objects = api.list(&params).await?.items;
        let mut known = Announced::new();
        for object in objects {
            let status = object.status.unwrap_or_default();
            let (Some(namespace), Some(name)) = (status.service_namespace, status.service_name) else { continue };
            let key = ServiceKey::new(&namespace, &name);
            if object.metadata.name.as_deref() == Some(&object_name(&self.node, &key)) {
                let peers = status.peers.unwrap_or_default();
                known.insert(key, peers.iter().map(|peer| Arc::from(peer.as_str())).collect());
            }
        }
        Ok(known)
    }

    async fn create(&self, api: &Api<ServiceBGPStatus>, key: &ServiceKey) -> Result<(), kube::Error> {
        let owner = Api::<Node>::all(self.client.clone()).get_opt(&self.node).await?;
        let owner = owner.map(|node| OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.node.to_string(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        });
        let labels = [(NODE_LABEL, &*self.node), (SERVICE_LABEL, key.name()), (NAMESPACE_LABEL, key.namespace())];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
        let mut object = ServiceBGPStatus::new(&object_name(&self.node, key), ServiceBGPStatusSpec {});
        object.metadata =
            ObjectMeta { labels: Some(labels), owner_references: owner.map(|o| vec![o]), ..object.metadata };
        match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Writes what differs; true if nothing is left to write.
    async fn write(&self, wanted: &Announced, written: &mut Option<Announced>) -> Result<bool, kube::Error> {
        let api: Api<ServiceBGPStatus> = Api::namespaced(self.client.clone(), &self.namespace);
        if written.is_none() {
            *written = Some(self.read(&api).await?);
        }
        let Some(known) = written else { return Ok(true) };
        let gone: Vec<ServiceKey> = known.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        let changed: Vec<_> = wanted.iter().filter(|(key, peers)| known.get(*key) != Some(*peers)).collect();
        let all = gone.len() + changed.len();
        for key in gone.into_iter().take(WRITES_MAX) {
            match api.delete(&object_name(&self.node, &key), &DeleteParams::default()).await {
                Err(kube::Error::Api(answer)) if answer.code == 404 => {}
                answer => drop(answer?),
            }
            known.remove(&key);
        }
        for (key, peers) in changed.into_iter().take(WRITES_MAX) {
            if !known.contains_key(key) {
                self.create(&api, key).await?;
            }
            let status = ServiceBGPStatusStatus {
                node: Some(self.node.to_string()),
                service_name: Some(key.name().to_owned()),
                service_namespace: Some(key.namespace().to_owned()),
                peers: Some(peers.iter().map(ToString::to_string).collect()),
            };
            let patch = Patch::Merge(json!({ "status": status }));
            api.patch_status(&object_name(&self.node, key), &PatchParams::default(), &patch).await?;
            known.insert(key.clone(), peers.clone());
        }
        Ok(all <= WRITES_MAX)
    }
}

impl Actor for ServiceStatusWriter {
    const NAME: &'static str = "service-status";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut written: Option<Announced> = None;
        let mut failing = false;
        let mut pending = true;
        loop {
            if !pending {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    changed = self.decisions.changed() => changed.map_err(|_| ActorError::Upstream("decisions"))?,
                    changed = self.peers.changed() => changed.map_err(|_| ActorError::Upstream("peers"))?,
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(Some(Instant::now() + SETTLE)) => {}
            }
            if self.decisions.borrow().bgp.desired.generation == 0 {
                pending = false; // nothing has been decided: what is written is of before a restart
                continue;
            }
            let wanted = self.wanted();
            pending = match self.write(&wanted, &mut written).await {
                Ok(done) => {
                    failing = false;
                    !done
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %chain(&error), "ServiceBGPStatus not written, trying again");
                    }
                    written = None;
                    true
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(Some(Instant::now() + WRITE_PERIOD)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_same_after_a_restart_and_another_for_another_node() {
        let key = ServiceKey::new("d", "web");
        assert_eq!(object_name("n1", &key), object_name("n1", &key));
        assert_ne!(object_name("n1", &key), object_name("n2", &key));
        assert_eq!(object_name("n1", &key).len(), 20);
    }
}
