//! `ferrocast sandbox`: controller, speakers and a router on loopback over a directory of manifests.
mod cluster;
mod example;
mod show;
mod table;

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use ferrocast_bgp::{
    BgpAnnouncer, Tuning,
    router::{Router, RouterConfig},
};
use ferrocast_core::{
    actor::{RestartPolicy, Supervisor},
    announce::{Announcer, Shutdown},
    config::BGP,
    view::ViewWriter,
};
use tokio::sync::watch;

use crate::{
    allocator::{AllocatorActor, CONTROLLER_SOURCES},
    announcers::configure,
    cli::SandboxArgs,
    cluster::lease::Leadership,
    decider::{Announcers, Decider, DeciderSettings, SPEAKER_SOURCES},
    manifests,
};
use cluster::{Cluster, ExtraPeer, NodeViews, Told};
use show::{Show, Speaker};

/// First port tried for the router.
const ROUTER_PORT_FIRST: u16 = 1790;
/// Last port tried: the highest that a BGPPeer may name.
const ROUTER_PORT_LAST: u16 = 16_384;
/// Speakers at most: each has an address of its own in 127.0.0.0/24.
const NODES_MAX: usize = 200;
/// How long the speakers may take to say good-bye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// Starts the router on the first free port.
async fn start_router(supervisor: &mut Supervisor) -> anyhow::Result<Router> {
    for port in ROUTER_PORT_FIRST..=ROUTER_PORT_LAST {
        let listen = (Ipv4Addr::LOCALHOST, port).into();
        if let Ok(router) = Router::start(supervisor, RouterConfig::new(listen, cluster::ROUTER_AS)).await {
            return Ok(router);
        }
    }
    anyhow::bail!("no free port from {ROUTER_PORT_FIRST} to {ROUTER_PORT_LAST} on 127.0.0.1 for the router")
}

/// The directory to follow; without one given, a new example.
fn directory(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = given {
        std::fs::read_dir(&dir).with_context(|| format!("cannot read the directory {}", dir.display()))?;
        return Ok(dir);
    }
    let dir = std::env::temp_dir().join(format!("ferrocast-sandbox-{:08x}", fastrand::u32(..)));
    std::fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    example::write(&dir).with_context(|| format!("cannot write the example into {}", dir.display()))?;
    eprintln!("Wrote an example to {}: edit its files and watch what happens.", dir.display());
    Ok(dir)
}

/// Speakers without `--nodes` and without Node objects.
const NODES_DEFAULT: usize = 3;

/// The nodes: those of the directory's Node objects, then `node1`, `node2` …; as many as asked for, else as there are.
fn node_names(dir: &std::path::Path, wanted: Option<u8>) -> anyhow::Result<Vec<Arc<str>>> {
    let mut names: Vec<Arc<str>> = manifests::read(&manifests::files(dir)?).nodes.into_iter().map(|n| n.name).collect();
    let wanted = wanted.map_or(if names.is_empty() { NODES_DEFAULT } else { names.len() }, usize::from);
    names.truncate(wanted.min(NODES_MAX));
    let made_up: Vec<Arc<str>> = (1..=wanted).map(|i| format!("node{i}").into()).collect();
    names.extend(made_up.into_iter().skip(names.len()));
    Ok(names)
}

/// Runs the sandbox until a signal, or once.
///
/// # Errors
/// Wrong arguments, an unreadable directory, no free port, or an actor that gave up.
pub async fn run(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    let extra: Vec<ExtraPeer> =
        args.peer.iter().map(|p| p.parse()).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let dir = directory(args.dir.clone())?;
    let mut supervisor = Supervisor::default();
    let router = start_router(&mut supervisor).await?;

    let (controller, controller_view) = ViewWriter::new(CONTROLLER_SOURCES);
    let leading = Leadership { term: Some(1), until: None };
    let (_leadership, leadership) = watch::channel(leading);
    let (allocator, plan) = AllocatorActor::new(controller_view, leadership, args.load_balancer_class.clone());
    supervisor.spawn(allocator, RestartPolicy::VITAL);

    let mut views = Vec::new();
    let mut speakers = Vec::new();
    for name in node_names(&dir, args.nodes)? {
        let (view, speaker) = start_speaker(&mut supervisor, &name, &args);
        views.push(NodeViews { name, view });
        speakers.push(speaker);
    }
    let (told, told_reader) = watch::channel(Told::default());
    let cluster = Cluster {
        dir,
        class: args.load_balancer_class.clone(),
        endpoints: args.endpoints,
        router: router.address(),
        extra,
        controller,
        speakers: views,
        plan: plan.clone(),
        told,
        memory: cluster::Memory::default(),
    };
    supervisor.spawn(cluster, RestartPolicy::VITAL);
    let announcers: Vec<Arc<BgpAnnouncer>> = speakers.iter().map(|s| s.announcer.clone()).collect();
    let show = Show::new(router.address(), plan, speakers, router.rib(), told_reader, args.output);
    let result = follow(show, &mut supervisor, args.once).await;
    futures::future::join_all(announcers.iter().map(|a| a.shutdown(Shutdown::Withdraw, SHUTDOWN_MAX))).await;
    supervisor.stop_token().cancel();
    supervisor.join().await?;
    result
}

/// Shows until a signal, until an actor gives up, or once.
async fn follow(mut show: Show, supervisor: &mut Supervisor, once: bool) -> anyhow::Result<ExitCode> {
    tokio::select! {
        signal = tokio::signal::ctrl_c() => {
            signal?;
            Ok(ExitCode::SUCCESS)
        }
        ended = supervisor.join() => ended.map(|()| ExitCode::FAILURE).map_err(Into::into),
        complete = show.run(once) => Ok(if complete? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}

/// One node's decider and announcer.
fn start_speaker(supervisor: &mut Supervisor, name: &Arc<str>, args: &SandboxArgs) -> (ViewWriter, Speaker) {
    let (view, reader) = ViewWriter::new(SPEAKER_SOURCES);
    let announcer = BgpAnnouncer::start(supervisor, watch::Sender::default(), Tuning::default());
    let settings = DeciderSettings {
        node: name.clone(),
        class: args.load_balancer_class.clone(),
        ignore_exclude_label: false,
        drain_time: std::time::Duration::ZERO,
        drained: watch::channel(false).1,
        saved: None,
        metallb: watch::channel(Some(Arc::default())).1,
    };
    let own: Announcers = [(BGP.into(), announcer.clone() as Arc<dyn Announcer>)].into();
    let announcers = watch::channel(Arc::new(own)).1;
    let (decider, decisions) = Decider::new(settings, reader, configure(), announcers);
    supervisor.spawn(decider, RestartPolicy::VITAL);
    (view, Speaker { name: name.clone(), decisions, announcer })
}
