//! `ferrocast controller`.
use std::{net::SocketAddr, sync::Arc};

use ferrocast_api::{OWN_GROUP, SpeakerStatus};
use ferrocast_core::{
    actor::{RestartPolicy, Supervisor},
    config::InForce,
    view::{ClusterView, ViewWriter},
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Secret};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use super::parts::{Elsewhere, stop_signal, watch_configuration, watch_metallb, watch_record};
use crate::{
    allocator::{AllocatorActor, CONTROLLER_SOURCES, Plan},
    cli::ControllerArgs,
    cluster::{
        client,
        conditions::{ConditionWriter, SpeakerFeed, Speakers},
        configuration_state::{Component, StateWriter},
        configurator::{Configurator, Leading, Reporter},
        events::{EventQueue, EventWriter},
        feeds::{EndpointsFeed, NamespaceFeed, NodeFeed, ServiceFeed},
        lease::{Leader, Leadership},
        memory_status::MemoryWriter,
        metallb::{Living, Part},
        pool_status::PoolStatusWriter,
        resources::ResourcesDraft,
        status::StatusWriter,
        watch::Watcher,
    },
    explain::{
        of_controller::ControllerExplainer,
        serve::{
            AUTHORITY_MAP, AUTHORITY_SECRET, CONTROLLER_KEY, ExplainServer, SERVER_SECRET,
            gate::{ApiReviews, Gate},
            reader, server_name,
        },
    },
    http::{Admin, Pages, install_metrics},
    in_force::{
        parts::base_name,
        store::{RecordWriter, Wanted},
    },
    tls::{
        keeper::{ChainFeed, Keeper, Kept, Publish},
        listener::Serving,
    },
    webhook::{
        review::{ReviewSettings, Reviewer},
        server::WebhookServer,
    },
};

/// The Service in front of the webhooks, as `deploy/` has it.
const WEBHOOK_SERVICE: &str = "ferrocast-webhook";
/// The Secret with the webhook's certificate and its authority.
const WEBHOOK_SECRET: &str = "ferrocast-webhook-cert";

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
    let metallb = watch_metallb(&mut workers, &client, &args.cluster, (Part::Controller, None), &epoch);
    leaders.spawn(leader.after(metallb.clone()), RestartPolicy::VITAL);
    let pages = pages(metrics, view, leadership, plan, metallb);
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
    let leading = configure(
        workers,
        client,
        args,
        Inputs { draft, view: &view, around: &readers, events: &queue },
        leadership,
        epoch,
    );
    if args.webhook.is_some() {
        serve_webhook(workers, client, args, leading, &readers, leadership, epoch);
    }
    let class = args.cluster.load_balancer_class.clone();
    let (allocator, plan) = AllocatorActor::new(readers.clone(), leadership.clone(), class.clone());
    let explainer =
        ControllerExplainer { class, view: readers.clone(), plan: plan.clone(), allocator: allocator.handle() };
    serve_explain(workers, client, args, explainer, leadership, epoch);
    workers.spawn(allocator, vital);
    let writer = StatusWriter::new(client.clone(), plan.clone(), leadership.clone(), queue, busy);
    workers.spawn(writer, vital);
    report(workers, client, args, Told { view: readers, plan: plan.clone() }, leadership, epoch);
    (view, plan)
}

/// What the configuration in force is made of.
struct Inputs<'a> {
    draft: watch::Receiver<ResourcesDraft>,
    view: &'a ViewWriter,
    around: &'a watch::Receiver<ClusterView>,
    events: &'a EventQueue,
}

/// What the webhook judges by.
struct Judged {
    draft: watch::Receiver<ResourcesDraft>,
    in_force: watch::Receiver<Option<Arc<InForce>>>,
}

/// Starts what decides on, records and reports the configuration in force.
fn configure(
    workers: &mut Supervisor,
    client: &Client,
    args: &ControllerArgs,
    inputs: Inputs<'_>,
    leadership: &watch::Receiver<Leadership>,
    epoch: &watch::Receiver<u64>,
) -> Judged {
    let (vital, expendable, namespace) = (RestartPolicy::VITAL, RestartPolicy::EXPENDABLE, &args.cluster.namespace);
    let stored = watch_record(workers, client, &args.cluster, epoch);
    let (record, wanted) = watch::channel(Wanted::default());
    let (in_force, in_force_reader) = watch::channel(None);
    let (found, found_reader) = watch::channel(None);
    let class = args.cluster.load_balancer_class.clone();
    let base = base_name(class.as_deref());
    let leading = Leading {
        events: inputs.events.clone(),
        leadership: leadership.clone(),
        around: inputs.around.clone(),
        record,
        in_force,
        class,
        on_address_loss: args.on_address_loss.into(),
    };
    let reporter = Reporter::Controller(Box::new(leading));
    let configurator = Configurator::new(inputs.draft.clone(), stored.clone(), inputs.view.clone(), found, reporter);
    workers.spawn(configurator, vital);
    let writer = RecordWriter::new(client.clone(), namespace.clone(), base, wanted, stored, leadership.clone());
    workers.spawn(writer, vital);
    let component = Component::Controller(leadership.clone());
    workers.spawn(StateWriter::new(client.clone(), namespace.clone(), component, found_reader), expendable);
    Judged { draft: inputs.draft, in_force: in_force_reader }
}

/// Starts the webhook and what keeps its certificate.
fn serve_webhook(
    workers: &mut Supervisor,
    client: &Client,
    args: &ControllerArgs,
    judged: Judged,
    view: &watch::Receiver<ClusterView>,
    leadership: &watch::Receiver<Leadership>,
    epoch: &watch::Receiver<u64>,
) {
    let Some(addr) = args.webhook else { return };
    let namespace = certificate_namespace(args).to_owned();
    let mut names =
        vec![format!("{WEBHOOK_SERVICE}.{namespace}.svc"), format!("{WEBHOOK_SERVICE}.{namespace}.svc.cluster.local")];
    names.extend(args.webhook_host.iter().cloned());
    let kept = Kept {
        namespace,
        secret: WEBHOOK_SECRET.to_owned(),
        common_name: "Ferrocast webhook",
        names,
        publish: Publish::Webhook(args.webhook_configuration.clone()),
    };
    let serving = keep_certificate(workers, client, kept, leadership, epoch);
    let settings = ReviewSettings {
        namespace: args.cluster.namespace.clone(),
        class: args.cluster.load_balancer_class.clone(),
        on_address_loss: args.on_address_loss.into(),
    };
    let Judged { draft, in_force } = judged;
    let reviewer = Reviewer { client: client.clone(), settings, draft, in_force, view: view.clone() };
    workers.spawn(WebhookServer::new(addr, serving, reviewer), RestartPolicy::EXPENDABLE);
}

/// Starts what answers `ferrocast explain`, and what keeps the certificate for that, the speakers' included.
fn serve_explain(
    workers: &mut Supervisor,
    client: &Client,
    args: &ControllerArgs,
    explainer: ControllerExplainer,
    leadership: &watch::Receiver<Leadership>,
    epoch: &watch::Receiver<u64>,
) {
    let Some(addr) = args.explain else { return };
    let namespace = certificate_namespace(args);
    let host = Some(addr.ip()).filter(|ip| !ip.is_unspecified()).or(args.explain_host);
    if host.is_none() {
        tracing::warn!("--explain without an address, and no --explain-host: nobody is told where to ask");
    }
    let at = host.map(|ip| (CONTROLLER_KEY.to_owned(), SocketAddr::new(ip, addr.port()).to_string()));
    let kept = Kept {
        namespace: namespace.to_owned(),
        secret: AUTHORITY_SECRET.to_owned(),
        common_name: "Ferrocast explain",
        names: vec![server_name(namespace)],
        publish: Publish::Clients {
            config_map: AUTHORITY_MAP.to_owned(),
            more: at.into_iter().collect(),
            server_secret: SERVER_SECRET.to_owned(),
        },
    };
    let serving = keep_certificate(workers, client, kept, leadership, epoch);
    let gate = Gate::new(Box::new(ApiReviews(client.clone())), reader(namespace));
    let server = ExplainServer::new(addr, serving, gate, Box::new(explainer), None);
    workers.spawn(server, RestartPolicy::EXPENDABLE);
}

/// Where certificates live.
fn certificate_namespace(args: &ControllerArgs) -> &str {
    let given = args.certificate_namespace.as_deref().or(args.lease_namespace.as_deref());
    given.unwrap_or(&args.cluster.namespace)
}

/// Starts the watcher of a Secret with certificates, and what renews them; returns what is served with them.
fn keep_certificate(
    workers: &mut Supervisor,
    client: &Client,
    kept: Kept,
    leadership: &watch::Receiver<Leadership>,
    epoch: &watch::Receiver<u64>,
) -> Serving {
    let (seen, seen_reader) = watch::channel(None);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &kept.namespace);
    let watcher = Watcher::new("Secret", secrets, ChainFeed { seen }, epoch.clone());
    workers.spawn(watcher.fields(&format!("metadata.name={}", kept.secret)), RestartPolicy::EXPENDABLE);
    let serving = Serving::default();
    let keeper = Keeper::new(client.clone(), kept, seen_reader, leadership.clone(), serving.clone());
    workers.spawn(keeper, RestartPolicy::EXPENDABLE);
    serving
}

/// What the reports are made of.
struct Told {
    view: watch::Receiver<ClusterView>,
    plan: watch::Receiver<Plan>,
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
    let plan = told.plan;
    let conditions =
        ConditionWriter::new(client.clone(), class, told.view, plan.clone(), speakers_reader, leadership.clone());
    workers.spawn(conditions, expendable);
    let pools = PoolStatusWriter::new(client.clone(), namespace.clone(), plan.clone(), leadership.clone());
    workers.spawn(pools, expendable);
    let memory = MemoryWriter::new(client.clone(), namespace.clone(), plan, leadership.clone());
    workers.spawn(memory, expendable);
}

fn pages(
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    view: ViewWriter,
    leadership: watch::Receiver<Leadership>,
    plan: watch::Receiver<Plan>,
    metallb: watch::Receiver<Living>,
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
        let waits_for: Vec<String> = metallb.borrow().iter().flat_map(|pods| pods.iter().cloned()).collect();
        json!({"leading": leadership.borrow().term.is_some(), "waitsFor": waits_for, "services": services})
    };
    Pages {
        metrics,
        lines: Arc::new(String::new),
        ready: Arc::new(move || if view.is_whole() { Ok(()) } else { Err("caches are not synced yet".into()) }),
        documents: vec![("/v1/allocations", Arc::new(allocations))],
        drained: None,
    }
}
