//! `ferrocast speaker`.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferrocast_bgp::{BgpAnnouncer, PeerSet, Tuning};
use ferrocast_bgp_proto::wire::Kind;
use ferrocast_core::{
    actor::{RestartPolicy, Supervisor},
    announce::{Announcer, Shutdown},
    view::{ClusterView, ViewWriter},
};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::parts::{Elsewhere, stop_signal, watch_configuration};
use crate::{
    cli::SpeakerArgs,
    cluster::{
        client,
        configurator::{Configurator, Reporter},
        events::EventWriter,
        feeds::{EndpointsFeed, NodeFeed, ServiceFeed},
        watch::Watcher,
    },
    decider::{Decider, DeciderSettings, Decisions, SPEAKER_SOURCES},
    http::{Admin, Pages, install_metrics},
};

/// How long the announcers may take to say good-bye; below the usual grace period of a pod.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Runs the speaker until a signal, or until an actor without which nothing works gives up.
///
/// # Errors
/// No API server to talk to, or the escalation.
pub async fn run(args: SpeakerArgs) -> anyhow::Result<()> {
    let metrics = install_metrics()?;
    let client = client::connect(args.cluster.kubeconfig.as_deref()).await?;
    let node = args.node_name.clone();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %node, namespace = args.cluster.namespace, "speaker starts");

    let mut announcing = Supervisor::default();
    let (peers, peers_reader) = watch::channel(Arc::new(PeerSet::default()));
    let bgp = BgpAnnouncer::start(&mut announcing, peers_reader, Tuning::default());
    let announcers: Vec<Arc<dyn Announcer>> = vec![bgp.clone()];

    let mut workers = Supervisor::default();
    let (view, reader) = watch(&mut workers, &client, &args);
    let settings = DeciderSettings {
        node: node.clone(),
        class: args.cluster.load_balancer_class.clone(),
        ignore_exclude_label: args.ignore_exclude_lb,
    };
    let (decider, decisions) = Decider::new(settings, reader, peers, announcers.clone());
    workers.spawn(decider, RestartPolicy::VITAL);
    let pages = pages(metrics, node, view, decisions, &bgp);
    announcing.spawn(Admin::new(args.http, pages), RestartPolicy::EXPENDABLE);

    let outcome = tokio::select! {
        signal = stop_signal() => signal.map(|signal| tracing::info!(signal, "stopping")),
        ended = workers.join() => ended.map_err(Into::into),
        ended = announcing.join() => ended.map_err(Into::into),
    };
    // In order: stop deciding, then end the sessions, then everything else.
    workers.stop_token().cancel();
    let workers_ended = workers.join().await;
    for announcer in &announcers {
        announcer.shutdown(Shutdown::Withdraw, SHUTDOWN_MAX).await;
    }
    announcing.stop_token().cancel();
    let announcing_ended = announcing.join().await;
    outcome.and(workers_ended.map_err(Into::into)).and(announcing_ended.map_err(Into::into))
}

/// Starts the watchers and what compiles the configuration.
fn watch(workers: &mut Supervisor, client: &Client, args: &SpeakerArgs) -> (ViewWriter, watch::Receiver<ClusterView>) {
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
    workers.spawn(Configurator::new(draft, view.clone(), Reporter::Speaker(queue)), vital);
    // A speaker has one epoch for ever; the sender is kept so that the watchers do not take its end for a reason to stop.
    workers.spawn(Keep(epoch_sender), vital);
    (view, reader)
}

/// Holds something until the end.
struct Keep<T>(T);

impl<T: Send + 'static> ferrocast_core::actor::Actor for Keep<T> {
    const NAME: &'static str = "keep";

    async fn run(
        &mut self,
        stop: ferrocast_core::actor::CancellationToken,
    ) -> Result<(), ferrocast_core::actor::ActorError> {
        let _kept = &self.0;
        stop.cancelled().await;
        Ok(())
    }
}

/// MetalLB's `metallb_speaker_announced`, from the decisions when asked for: it costs no memory at rest.
fn announced_lines(node: &str, decisions: &Decisions) -> String {
    let mut text = String::from("# TYPE metallb_speaker_announced gauge\n");
    for (key, decision) in &decisions.by_service {
        for ip in decision.addresses.iter().filter(|a| !a.advertisements.is_empty()).filter_map(|a| a.ip) {
            text.push_str(&format!(
                "metallb_speaker_announced{{service=\"{key}\",protocol=\"bgp\",node=\"{node}\",ip=\"{ip}\"}} 1\n"
            ));
        }
    }
    text
}

/// The decisions as JSON.
fn decisions_document(node: &str, decisions: &Decisions) -> Value {
    let mut rows = Vec::new();
    for (key, decision) in &decisions.by_service {
        for address in &decision.addresses {
            let by: Vec<&str> = address.advertisements.iter().map(|a| &*a.name).collect();
            rows.push(json!({"service": key.as_str(), "ip": address.ip, "reason": address.reason.code(), "advertisements": by}));
        }
    }
    json!({"node": node, "generation": decisions.desired.generation, "decisions": rows})
}

/// Every session with what is known of it, and what its peer could not be given.
fn sessions_document(bgp: &BgpAnnouncer) -> Value {
    let observed = bgp.observe().borrow().clone();
    let since = |at: SystemTime| jiff::Timestamp::try_from(at).map(|t| t.to_string()).ok();
    let peers: Vec<Value> = bgp
        .sessions()
        .iter()
        .map(|info| {
            let target = observed.targets.get(&info.peer);
            let refused: BTreeMap<String, &str> =
                target.iter().flat_map(|t| &t.refused).map(|(prefix, why)| (prefix.to_string(), *why)).collect();
            let counts = info.counts();
            let by_kind = |counts: &[u64]| -> BTreeMap<String, u64> {
                Kind::ALL.iter().zip(counts).map(|(kind, n)| (format!("{kind:?}"), *n)).collect()
            };
            json!({
                "peer": &*info.peer, "address": info.address, "port": info.port, "peerAS": info.peer_as,
                "state": info.state.to_string(), "since": since(info.since),
                "lastError": info.last_error, "lastErrorAt": info.last_error_at.and_then(since),
                "localAddress": info.local_address, "localID": info.local_id, "peerID": info.peer_id,
                "holdTimeS": info.hold_time.map(|t| t.as_secs()), "keepaliveTimeS": info.keepalive_time.map(|t| t.as_secs()),
                "families": info.families.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>(),
                "announced": info.announced.iter().sum::<usize>(), "generation": target.map(|t| t.generation), "reason": target.map(|t| t.reason.as_str()),
                "refused": refused, "received": by_kind(&counts.received), "sent": by_kind(&counts.sent),
                "flaps": counts.flaps, "warnings": info.warnings,
            })
        })
        .collect();
    json!({ "peers": peers })
}

fn pages(
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    node: Arc<str>,
    view: ViewWriter,
    decisions: watch::Receiver<Decisions>,
    bgp: &Arc<BgpAnnouncer>,
) -> Pages {
    let (lines_node, lines_decisions) = (node.clone(), decisions.clone());
    let bgp = bgp.clone();
    let sessions = move || sessions_document(&bgp);
    Pages {
        metrics,
        lines: Arc::new(move || {
            let snapshot = lines_decisions.borrow().clone();
            announced_lines(&lines_node, &snapshot)
        }),
        ready: Arc::new(move || if view.is_whole() { Ok(()) } else { Err("caches are not synced yet".into()) }),
        documents: vec![
            ("/v1/decisions", {
                Arc::new(move || {
                    let snapshot = decisions.borrow().clone();
                    decisions_document(&node, &snapshot)
                })
            }),
            ("/v1/bgp", Arc::new(sessions)),
        ],
    }
}
