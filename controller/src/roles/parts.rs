//! Pieces that controller and speaker share.
use std::sync::Arc;

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, RestartPolicy, Supervisor, chain},
    config::Resources,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, api::ListParams, core::DynamicObject};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::cli::ClusterArgs;
use crate::cluster::{
    metallb::{Living, NOT_ENDED, Part, PodFeed},
    resources::{Kind, ResourceFeed, ResourcesDraft, SECRETS, SecretFeed},
    watch::Watcher,
};
use crate::in_force::{
    self,
    store::{PartFeed, Stored},
};

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// If the handlers cannot be installed.
pub(super) async fn stop_signal() -> anyhow::Result<&'static str> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}

/// Starts a watcher per kind of configuration object (and of Secrets, if asked), and returns what they feed.
pub(super) fn watch_configuration(
    supervisor: &mut Supervisor,
    client: &Client,
    namespace: &str,
    epoch: &watch::Receiver<u64>,
    secrets: bool,
) -> watch::Receiver<ResourcesDraft> {
    let resources = Resources { namespace: namespace.into(), ..Resources::default() };
    let (draft, reader) = watch::channel(ResourcesDraft { resources, ..ResourcesDraft::default() });
    let draft = Arc::new(draft);
    for kind in Kind::ALL {
        let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.api_resource());
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let feed = ResourceFeed { kind, draft: draft.clone() };
        let watcher = Watcher::new(kind.name(), objects, feed, epoch.clone());
        let watcher = watcher.crd(crds, format!("{}.{}", kind.plural(), kind.group()));
        let watcher = if kind.is_own() { watcher.optional() } else { watcher };
        supervisor.spawn(watcher, RestartPolicy::VITAL);
    }
    if secrets {
        let feed = SecretFeed { draft: draft.clone() };
        let watcher = Watcher::new("Secret", Api::namespaced(client.clone(), namespace), feed, epoch.clone());
        supervisor.spawn(watcher.fields("type=kubernetes.io/basic-auth"), RestartPolicy::VITAL);
    } else {
        draft.send_modify(|draft| draft.epochs[SECRETS] = u64::MAX);
    }
    reader
}

/// Starts the watcher of the record of the configuration in force, and returns what it sees.
pub(super) fn watch_record(
    supervisor: &mut Supervisor,
    client: &Client,
    cluster: &ClusterArgs,
    epoch: &watch::Receiver<u64>,
) -> watch::Receiver<Stored> {
    let base = in_force::parts::base_name(cluster.load_balancer_class.as_deref());
    let selector = format!("{}={base}", in_force::store::LABEL);
    let (feed, stored) = PartFeed::new(base);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &cluster.namespace);
    let watcher = Watcher::new("ConfigMap", maps, feed, epoch.clone()).labels(&selector);
    supervisor.spawn(watcher, RestartPolicy::VITAL);
    stored
}

/// Starts the watcher of the Pods of a part of MetalLB (on one node, or anywhere), and returns which of them live.
pub(super) fn watch_metallb(
    supervisor: &mut Supervisor,
    client: &Client,
    cluster: &ClusterArgs,
    (part, node): (Part, Option<&str>),
    epoch: &watch::Receiver<u64>,
) -> watch::Receiver<Living> {
    if cluster.ignore_metallb {
        // A closed channel keeps its last value: nobody to wait for.
        return watch::channel(Some(Arc::default())).1;
    }
    let (feed, living) = PodFeed::new(part);
    let fields = node.map_or_else(|| NOT_ENDED.to_owned(), |node| format!("{NOT_ENDED},spec.nodeName={node}"));
    let pods = Api::namespaced(client.clone(), &cluster.namespace);
    let watcher = Watcher::new("Pod", pods, feed, epoch.clone()).fields(&fields).forbidden_is_empty();
    supervisor.spawn(watcher, RestartPolicy::VITAL);
    living
}

/// Looks once for configuration in other namespaces if there is none in ours, and warns.
pub(super) struct Elsewhere {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) draft: watch::Receiver<ResourcesDraft>,
}

impl Elsewhere {
    async fn look(&self, kind: Kind) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind.api_resource());
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) => {
                if let Some(found) = list.items.first() {
                    tracing::warn!(
                        kind = kind.name(),
                        namespace = self.namespace,
                        elsewhere = found.metadata.namespace,
                        "no object of this kind here, but some in another namespace: is --namespace right?"
                    );
                }
            }
            Err(error) => tracing::debug!(kind = kind.name(), error = %chain(&error), "cannot look elsewhere"),
        }
    }
}

impl Actor for Elsewhere {
    const NAME: &'static str = "elsewhere";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut draft = self.draft.clone();
        let resources = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            whole = draft.wait_for(|d| d.epoch() > 0) => {
                whole.map_err(|_| ActorError::Upstream("configuration objects"))?.resources.clone()
            }
        };
        for kind in [Kind::Pool, Kind::Peer, Kind::BgpAdvertisement] {
            if resources.objects.keys().all(|k| k.kind != kind.name()) {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = self.look(kind) => {}
                }
            }
        }
        Ok(())
    }
}
