//! `ferrocast controller`.
use std::sync::Arc;

use ferrocast_api::{OWN_GROUP, SpeakerStatus};
use ferrocast_core::{
    actor::{RestartPolicy, Supervisor},
    view::{ClusterView, ViewWriter},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use super::parts::{Elsewhere, stop_signal, watch_configuration};
use crate::{
    allocator::{AllocatorActor, CONTROLLER_SOURCES, Plan},
    cli::ControllerArgs,
    cluster::{
        client,
        conditions::{ConditionWriter, SpeakerFeed, Speakers},
        configurator::{Configurator, Reporter},
        events::EventWriter,
        feeds::{EndpointsFeed, NamespaceFeed, NodeFeed, ServiceFeed},
        lease::{Leader, Leadership},
        pool_status::{PoolStatusWriter, Usage},
        status::StatusWriter,
        watch::Watcher,
    },
    http::{Admin, Pages, install_metrics},
};

/// The replica's name in the Lease: the pod's name, or the host's, and a suffix that no other process has.
fn identity(pod_name: Option<&str>) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = pod_name.unwrap_or(host.trim());
    format!("{name}_{:016x}", fastrand::u64(..))
}

/// Runs the controller until a signal, or until an actor without which nothing works gives up.
///
/// # Errors
/// No API server to talk to, or the escalation.
pub async fn run(args: ControllerArgs) -> anyhow::Result<()> {
    let metrics = install_metrics()?;
    let client = client::connect(args.cluster.kubeconfig.as_deref()).await?;
    let identity = identity(args.pod_name.as_deref());
    let lease_namespace = args.lease_namespace.as_deref().unwrap_or(&args.cluster.namespace);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity,
        namespace = args.cluster.namespace,
        "controller starts"
    );

    let leases: Api<Lease> = Api::namespaced(client.clone(), lease_namespace);
    let (leader, leadership, epoch) = Leader::new(leases, args.lease_name.clone(), identity.clone());
    let mut leaders = Supervisor::default();
    let mut workers = Supervisor::default();
    let (view, plan) = start(&mut workers, &client, &args, &identity, &leadership, &epoch);
    leaders.spawn(leader, RestartPolicy::VITAL);
    let pages = pages(metrics, view, leadership, plan);
    leaders.spawn(Admin::new(args.http, pages), RestartPolicy::EXPENDABLE);

    let outcome = tokio::select! {
        signal = stop_signal() => signal.map(|signal| tracing::info!(signal, "stopping")),
        ended = workers.join() => ended.map_err(Into::into),
        ended = leaders.join() => ended.map_err(Into::into),
    };
    // In order: nothing writes any more when the Lease is given up.
    workers.stop_token().cancel();
    let workers_ended = workers.join().await;
    leaders.stop_token().cancel();
    let leaders_ended = leaders.join().await;
    outcome.and(workers_ended.map_err(Into::into)).and(leaders_ended.map_err(Into::into))
}

/// Starts everything that works on the view; returns the view and the plans for readers.
fn start(
    workers: &mut Supervisor,
    client: &Client,
    args: &ControllerArgs,
    identity: &str,
    leadership: &watch::Receiver<Leadership>,
    epoch: &watch::Receiver<u64>,
) -> (ViewWriter, watch::Receiver<Plan>) {
    let (view, readers) = ViewWriter::new(CONTROLLER_SOURCES);
    let vital = RestartPolicy::VITAL;
    let services = ServiceFeed { view: view.clone(), writes: true };
    workers.spawn(Watcher::new("Service", Api::all(client.clone()), services, epoch.clone()), vital);
    let endpoints = EndpointsFeed::new(view.clone(), "".into()); // for conditions only: allocation does not wait for it
    workers.spawn(Watcher::new("EndpointSlice", Api::all(client.clone()), endpoints, epoch.clone()), vital);
    let namespaces = NamespaceFeed { view: view.clone() };
    workers.spawn(Watcher::new("Namespace", Api::all(client.clone()), namespaces, epoch.clone()), vital);
    let nodes = NodeFeed { view: view.clone() };
    workers.spawn(Watcher::new("Node", Api::all(client.clone()), nodes, epoch.clone()), vital);
    let draft = watch_configuration(workers, client, &args.cluster.namespace, epoch, false);
    let elsewhere =
        Elsewhere { client: client.clone(), namespace: args.cluster.namespace.clone(), draft: draft.clone() };
    workers.spawn(elsewhere, RestartPolicy::EXPENDABLE);

    let (busy, busy_reader) = watch::channel(0);
    let (events, queue) = EventWriter::new(client.clone(), "controller", identity.to_owned(), busy_reader);
    workers.spawn(events, RestartPolicy::EXPENDABLE);
    let reporter = Reporter::Controller(queue.clone(), leadership.clone());
    workers.spawn(Configurator::new(draft, view.clone(), reporter), vital);
    let class = args.cluster.load_balancer_class.clone();
    let (allocator, plan, usage) = AllocatorActor::new(readers.clone(), leadership.clone(), class);
    workers.spawn(allocator, vital);
    let writer = StatusWriter::new(client.clone(), plan.clone(), leadership.clone(), queue, busy);
    workers.spawn(writer, vital);
    report(workers, client, args, Told { view: readers, plan: plan.clone(), usage }, leadership, epoch);
    (view, plan)
}

/// What the reports are made of.
struct Told {
    view: watch::Receiver<ClusterView>,
    plan: watch::Receiver<Plan>,
    usage: watch::Receiver<Usage>,
}

/// Starts what writes conditions and statuses that nobody waits for.
fn report(
    workers: &mut Supervisor,
    client: &Client,
    args: &ControllerArgs,
    told: Told,
    leadership: &watch::Receiver<Leadership>,
    epoch: &watch::Receiver<u64>,
) {
    let (expendable, namespace) = (RestartPolicy::EXPENDABLE, &args.cluster.namespace);
    let (speakers, speakers_reader) = watch::channel(Speakers::default());
    let api: Api<SpeakerStatus> = Api::namespaced(client.clone(), namespace);
    let watcher = Watcher::new("SpeakerStatus", api, SpeakerFeed { speakers }, epoch.clone());
    let crd = format!("speakerstatuses.{OWN_GROUP}");
    workers.spawn(watcher.crd(Api::all(client.clone()), crd).optional(), expendable);
    let class = args.cluster.load_balancer_class.clone();
    let conditions =
        ConditionWriter::new(client.clone(), class, told.view, told.plan, speakers_reader, leadership.clone());
    workers.spawn(conditions, expendable);
    let pools = PoolStatusWriter::new(client.clone(), namespace.clone(), told.usage, leadership.clone());
    workers.spawn(pools, expendable);
}

fn pages(
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    view: ViewWriter,
    leadership: watch::Receiver<Leadership>,
    plan: watch::Receiver<Plan>,
) -> Pages {
    let allocations = move || {
        let plan = plan.borrow().clone();
        let services: Vec<_> = plan
            .entries
            .iter()
            .filter_map(|(key, entry)| {
                let outcome = entry.outcome.as_ref()?;
                Some(json!({"service": key.as_str(), "ips": outcome.ips, "pool": outcome.pool, "code": outcome.code}))
            })
            .collect();
        json!({"leading": leadership.borrow().term.is_some(), "services": services})
    };
    Pages {
        metrics,
        lines: Arc::new(String::new),
        ready: Arc::new(move || if view.is_whole() { Ok(()) } else { Err("caches are not synced yet".into()) }),
        documents: vec![("/v1/allocations", Arc::new(allocations))],
        drained: None,
    }
}
