//! `ferrocast speaker`.
use std::{
    num::NonZeroU64,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use ferrocast_bgp::{BgpAnnouncer, Kernel, PeerSet, Tuning};
use ferrocast_core::{
    actor::{RestartPolicy, Supervisor, chain},
    announce::{Announcer, SHUTDOWN_MAX, Shutdown},
    config::BGP,
    view::{ClusterView, ViewWriter},
};
use ferrocast_plugin_remote::{RemoteSettings, check_dir};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;

use super::{
    documents::{announced_lines, changes_document, decisions_document},
    ending::{self, Whose},
    parts::{Elsewhere, stop_signal, watch_configuration, watch_metallb, watch_record},
    sessions::{routes_document, sessions_document},
};
use crate::{
    announcers::{self, OwnAnnouncers},
    cli::SpeakerArgs,
    cluster::{
        client,
        configuration_state::{Component, StateWriter},
        configurator::{Configurator, Reporter},
        events::{EventQueue, EventWriter},
        feeds::{EndpointsFeed, NodeFeed, ServiceFeed},
        metallb::Part,
        service_status::ServiceStatusWriter,
        speaker::{ReporterInputs, SpeakerReporter},
        watch::Watcher,
    },
    decider::{Announcers, Decider, DeciderSettings, Decisions, SPEAKER_SOURCES, apply},
    explain::{
        of_speaker::SpeakerExplainer,
        serve::{
            ExplainServer, SERVER_SECRET,
            gate::{ApiReviews, Gate},
            reader,
            relay::Relay,
        },
    },
    http::{Admin, Pages, install_metrics},
    plugins::{HostInputs, PluginHost, plugin_uids},
    state::{self, LoadError, Saved, StateKeeper},
    tls::{keeper::ServedFeed, listener::Serving},
};

/// Runs the speaker until a signal, or until an actor without which nothing works gives up.
///
/// # Errors
/// No API server to talk to, or the escalation.
pub async fn run(args: SpeakerArgs, more: OwnAnnouncers) -> anyhow::Result<()> {
    let metrics = install_metrics()?;
    let client = client::connect(args.cluster.kubeconfig.as_deref()).await?;
    let node = args.node_name.clone();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %node, namespace = args.cluster.namespace, "speaker starts");

    for missing in Kernel::here().missing() {
        tracing::info!(missing, "the kernel of this node lacks something that a peer may need");
    }
    let tuning = Tuning { listen_port: args.bgp_listen_port, ..Tuning::default() };

    let mut announcing = Supervisor::default();
    let (peers, peers_reader) = watch::channel(Arc::new(PeerSet::default()));
    let bgp = BgpAnnouncer::start(&mut announcing, peers, tuning);
    let mut own: Announcers = [(BGP.into(), bgp.clone() as Arc<dyn Announcer>)].into();
    own.extend(more.make(&mut announcing)?);

    let mut workers = Supervisor::default();
    // A speaker has one epoch for ever; a watcher takes the end of its sender for a reason to stop.
    let (view, reader, epoch, events) = watch(&mut workers, &client, &args);
    let host = HostInputs {
        view: reader.clone(),
        own,
        remote: remote_settings(&args)?,
        events: Some((events, args.cluster.namespace.as_str().into())),
    };
    let (host, announcers, standings) = PluginHost::new(host);
    announcing.spawn(host, RestartPolicy::EXPENDABLE);
    let drained = Arc::new(watch::Sender::new(false));
    let on_node = (Part::Speaker, Some(&*node));
    let metallb = watch_metallb(&mut workers, &client, &args.cluster, on_node, &epoch.subscribe());
    let settings = DeciderSettings {
        node: node.clone(),
        class: args.cluster.load_balancer_class.clone(),
        ignore_exclude_label: args.ignore_exclude_lb,
        drain_time: args.drain_time,
        drained: drained.subscribe(),
        saved: args.state_dir.as_deref().and_then(|dir| load_state(dir, &node)),
        metallb,
    };
    let (decider, decisions) = Decider::new(settings, reader.clone(), announcers::configure(), announcers.clone());
    workers.spawn(decider, RestartPolicy::VITAL);
    if let Some(dir) = &args.state_dir {
        let keeper = StateKeeper::new(dir.clone(), decisions.clone(), peers_reader.clone());
        workers.spawn(keeper, RestartPolicy::EXPENDABLE);
    }
    let explainer = SpeakerExplainer {
        node: node.clone(),
        class: args.cluster.load_balancer_class.clone(),
        ignore_exclude_label: args.ignore_exclude_lb,
        bgp: bgp.clone(),
        view: reader.clone(),
        decisions: decisions.clone(),
        drained: drained.subscribe(),
        standings: standings.clone(),
        announcers: announcers.clone(),
    };
    serve_explain(&mut workers, &client, &args, explainer, &epoch.subscribe());
    let peers_of_status = peers_reader.clone();
    let reporter = SpeakerReporter::new(ReporterInputs {
        client: client.clone(),
        namespace: args.cluster.namespace.clone(),
        bgp: bgp.clone(),
        view: reader,
        peers: peers_reader,
        decisions: decisions.clone(),
        drained: drained.subscribe(),
        standings,
        node: node.clone(),
        explain: args.explain,
    });
    workers.spawn(reporter, RestartPolicy::EXPENDABLE);
    if args.service_bgp_status {
        let (namespace, peers) = (args.cluster.namespace.clone(), peers_of_status);
        let statuses = ServiceStatusWriter::new(client.clone(), namespace, node.clone(), decisions.clone(), peers);
        workers.spawn(statuses, RestartPolicy::EXPENDABLE);
    }
    let pages = pages(metrics, node, view, decisions.clone(), &bgp, drained.clone());
    announcing.spawn(Admin::new(args.http, pages), RestartPolicy::EXPENDABLE);

    let outcome = tokio::select! {
        signal = stop_signal() => signal.map(|signal| tracing::info!(signal, "stopping")),
        ended = workers.join() => ended.map_err(Into::into),
        ended = announcing.join() => ended.map_err(Into::into),
    };
    // In order: stop deciding, then end the sessions, then everything else.
    workers.stop_token().cancel();
    let workers_ended = workers.join().await;
    let how = if outcome.is_ok() && workers_ended.is_ok() {
        how_to_end(&client, &args, *drained.borrow()).await
    } else {
        Shutdown::Keep // it is restarted
    };
    let announced = decisions.borrow().clone();
    say_good_bye(&announcers.borrow().clone(), how, &announced, args.drain_time).await;
    if let (Shutdown::Withdraw, Some(dir)) = (how, &args.state_dir) {
        state::forget(dir);
    }
    announcing.stop_token().cancel();
    let announcing_ended = announcing.join().await;
    outcome.and(workers_ended.map_err(Into::into)).and(announcing_ended.map_err(Into::into))
}

/// Starts what answers `ferrocast explain`, with the certificate that the controller hands out.
fn serve_explain(
    workers: &mut Supervisor,
    client: &Client,
    args: &SpeakerArgs,
    explainer: SpeakerExplainer,
    epoch: &watch::Receiver<u64>,
) {
    let (Some(addr), Some(namespace)) = (args.explain, &args.pod_namespace) else { return };
    let serving = Serving::default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let watcher = Watcher::new("Secret", secrets, ServedFeed { serving: serving.clone() }, epoch.clone());
    workers.spawn(watcher.fields(&format!("metadata.name={SERVER_SECRET}")), RestartPolicy::EXPENDABLE);
    let gate = Gate::new(Box::new(ApiReviews(client.clone())), reader(namespace));
    let relay = Relay { client: client.clone(), namespace: namespace.clone() };
    let server = ExplainServer::new(addr, serving, gate, Box::new(explainer), Some(relay));
    workers.spawn(server, RestartPolicy::EXPENDABLE);
}

/// How plugins are reached; `None`: they are not.
fn remote_settings(args: &SpeakerArgs) -> anyhow::Result<Option<RemoteSettings>> {
    let Some(dir) = &args.plugin_dir else { return Ok(None) };
    check_dir(dir).with_context(|| format!("--plugin-dir {}", dir.display()))?;
    Ok(Some(RemoteSettings {
        dir: dir.clone(),
        uids: plugin_uids(&args.plugin_uids),
        node: args.node_name.clone(),
        epoch: NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN),
        orphan_hold_s: u32::try_from(args.plugin_orphan_hold.as_secs()).unwrap_or(u32::MAX),
        host_version: env!("CARGO_PKG_VERSION"),
        protocol: None,
    }))
}

/// What was announced before a restart, if it is to be had.
fn load_state(dir: &Path, node: &str) -> Option<Saved> {
    match state::load(dir, node, SystemTime::now()) {
        Ok(saved) => {
            tracing::info!(dir = %dir.display(), routes = saved.desired.announcements.len(), "found what was announced before");
            Some(saved)
        }
        Err(LoadError::Absent) => None,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), error = %chain(&error), "ignoring what was announced before");
            None
        }
    }
}

/// Whether this is an end for good or for a restart; says which and why.
async fn how_to_end(client: &Client, args: &SpeakerArgs, drained: bool) -> Shutdown {
    let whose = Whose {
        node: &args.node_name,
        daemon_set: args.pod_namespace.as_deref().zip(args.daemonset.as_deref()),
        ignore_exclude_label: args.ignore_exclude_lb,
    };
    let why = ending::decide(ending::read(client, &whose, drained).await);
    match why.how() {
        Shutdown::Keep => tracing::info!(reason = %why, "ending: routes may be kept for the restart"),
        Shutdown::Withdraw => tracing::info!(reason = %why, "ending: routes are withdrawn"),
    }
    why.how()
}

/// Ends all announcing. Before routes are withdrawn, they are announced for a while as about to go away, so that traffic has
/// moved by then (RFC 8326); a second signal cuts that short.
async fn say_good_bye(announcers: &Announcers, how: Shutdown, announced: &Decisions, drain_time: Duration) {
    let is_up = |a: &Arc<dyn Announcer>| a.observe().borrow().targets.values().any(|t| t.up);
    let drains = announced.all().filter_map(|(name, decided)| {
        let announcer = announcers.get(name).filter(|announcer| is_up(announcer))?;
        (!decided.desired.announcements.is_empty()).then_some((announcer, &decided.desired))
    });
    let drains: Vec<_> = drains.collect();
    if how == Shutdown::Withdraw && !drains.is_empty() && !drain_time.is_zero() {
        for (announcer, desired) in drains {
            apply(announcer, ending::draining(desired)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(drain_time) => {}
            _ = stop_signal() => {}
        }
    }
    futures::future::join_all(announcers.values().map(|announcer| announcer.shutdown(how, SHUTDOWN_MAX))).await;
}

/// Starts the watchers and what compiles the configuration; returns the view, its reader, what numbers the lists, and where Events
/// go.
fn watch(
    workers: &mut Supervisor,
    client: &Client,
    args: &SpeakerArgs,
) -> (ViewWriter, watch::Receiver<ClusterView>, watch::Sender<u64>, EventQueue) {
    let (view, reader) = ViewWriter::new(SPEAKER_SOURCES);
    let (epoch_sender, epoch) = watch::channel(1);
    let vital = RestartPolicy::VITAL;
    let services = ServiceFeed { view: view.clone(), writes: false };
    workers.spawn(Watcher::new("Service", Api::all(client.clone()), services, epoch.clone()), vital);
    let slices = EndpointsFeed::new(view.clone(), args.node_name.clone());
    workers.spawn(Watcher::new("EndpointSlice", Api::all(client.clone()), slices, epoch.clone()), vital);
    let nodes = Watcher::new("Node", Api::all(client.clone()), NodeFeed { view: view.clone() }, epoch.clone());
    workers.spawn(nodes.fields(&format!("metadata.name={}", args.node_name)), vital);
    let draft = watch_configuration(workers, client, &args.cluster.namespace, &epoch, true);
    let elsewhere =
        Elsewhere { client: client.clone(), namespace: args.cluster.namespace.clone(), draft: draft.clone() };
    workers.spawn(elsewhere, RestartPolicy::EXPENDABLE);
    let (_, idle) = watch::channel(0);
    let (events, queue) = EventWriter::new(client.clone(), "speaker", args.node_name.to_string(), idle);
    workers.spawn(events, RestartPolicy::EXPENDABLE);
    let stored = watch_record(workers, client, &args.cluster, &epoch);
    let (found, found_reader) = watch::channel(None);
    let reporter = Reporter::Speaker(queue.clone());
    workers.spawn(Configurator::new(draft, stored, view.clone(), found, reporter), vital);
    let component = Component::Speaker(args.node_name.to_string());
    let state = StateWriter::new(client.clone(), args.cluster.namespace.clone(), component, found_reader);
    workers.spawn(state, RestartPolicy::EXPENDABLE);
    (view, reader, epoch_sender, queue)
}

fn pages(
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    node: Arc<str>,
    view: ViewWriter,
    decisions: watch::Receiver<Decisions>,
    bgp: &Arc<BgpAnnouncer>,
    drained: Arc<watch::Sender<bool>>,
) -> Pages {
    let (lines_node, lines_decisions) = (node.clone(), decisions.clone());
    let bgp = bgp.clone();
    let for_routes = bgp.clone();
    let sessions = move || sessions_document(&bgp);
    let routes = move || routes_document(&for_routes);
    Pages {
        metrics,
        lines: Arc::new(move || {
            let snapshot = lines_decisions.borrow().clone();
            announced_lines(&lines_node, &snapshot)
        }),
        ready: Arc::new(move || if view.is_whole() { Ok(()) } else { Err("caches are not synced yet".into()) }),
        documents: vec![
            ("/v1/changes", {
                let (node, decisions) = (node.clone(), decisions.clone());
                Arc::new(move || {
                    let snapshot = decisions.borrow().clone();
                    changes_document(&node, &snapshot)
                })
            }),
            ("/v1/decisions", {
                Arc::new(move || {
                    let snapshot = decisions.borrow().clone();
                    decisions_document(&node, &snapshot)
                })
            }),
            ("/v1/bgp", Arc::new(sessions)),
            ("/v1/bgp/routes", Arc::new(routes)),
        ],
        drained: Some(drained),
    }
}
