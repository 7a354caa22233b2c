//! Native BGP keeps the contract like any other announcer: in this process through the trait, and as a plugin, a process of its own.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]
use std::{
    collections::BTreeMap,
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use clap::Parser;
use ferrocast_bgp::{
    BgpAnnouncer, PeerSet, Tuning,
    router::{Rib, RibRoute, Router, RouterConfig},
};
use ferrocast_bgp_proto::fsm::Retry;
use ferrocast_conformance::{InProcess, Network, Options, Probe, Subject, run};
use ferrocast_core::{actor::Supervisor, announce::Announcer, config::Peer};
use tokio::{sync::watch, time::timeout};

/// Our AS.
const AS: u32 = 64_512;
/// The router's AS.
const ROUTER_AS: u32 = 64_500;
/// Makes this program the plugin, with its socket there.
const PLUGIN_SOCKET: &str = "FERROCAST_TEST_PLUGIN_SOCKET";
/// The test that is the plugin then.
const OUT_OF_PROCESS: &str = "native_bgp_passes_out_of_process";
/// GRACEFUL_SHUTDOWN. Source: RFC 8326.
const GRACEFUL_SHUTDOWN: [u8; 4] = [0xff, 0xff, 0, 0];
/// How long the router may take to see that a speaker is gone.
const PATIENCE: Duration = Duration::from_secs(30);

fn drains(route: &RibRoute) -> bool {
    let communities = route.attributes.communities.iter();
    communities.copied().any(|community| community.to_be_bytes() == GRACEFUL_SHUTDOWN)
}

fn network(rib: &Rib) -> Network {
    rib.routes.iter().map(|(prefix, paths)| (*prefix, paths.iter().all(|(_, route)| drains(route)))).collect()
}

/// A router, and what an announcer has to know of it.
async fn router(supervisor: &mut Supervisor) -> (Router, Options) {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let router = Router::start(supervisor, RouterConfig::new(listen, ROUTER_AS)).await.unwrap();
    let peer = Peer { dual_stack: true, ..Peer::new("router", AS, ROUTER_AS, router.address()) };
    let peers = PeerSet {
        node_name: "conformance".into(),
        internal_ips: vec!["192.0.2.11".parse().unwrap(), "2001:db8::11".parse().unwrap()],
        peers: BTreeMap::from([(peer.name.clone(), Arc::new(peer))]),
    };
    let entry = |(name, entry): (Arc<str>, ferrocast_core::announce::Entry)| {
        (name.to_string(), (entry.value.to_string(), entry.secret))
    };
    let rib = router.rib();
    let options = Options {
        probe: Some(Probe::Function(Arc::new(move || network(&rib.borrow())))),
        configuration: peers.entries().into_iter().map(entry).collect(),
        ..Options::default()
    };
    (router, options)
}

fn start(supervisor: &mut Supervisor) -> Arc<dyn Announcer> {
    let (delay_min, delay_max) = (Duration::from_millis(20), Duration::from_millis(100));
    let retry = Retry { delay_min, delay_max, ..Retry::default() };
    BgpAnnouncer::start(supervisor, watch::Sender::default(), Tuning { retry, ..Tuning::default() })
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    plugin: ferrocast_plugin_sdk::PluginArgs,
}

/// Lives of an announcer, one after another.
struct Lives {
    rib: watch::Receiver<Arc<Rib>>,
    now: Option<Supervisor>,
}

#[async_trait]
impl InProcess for Lives {
    async fn start(&mut self) -> Result<Arc<dyn Announcer>, Box<dyn Error + Send + Sync>> {
        if let Some(mut before) = self.now.take() {
            before.stop_token().cancel();
            before.join().await?;
            // As when its process had ended: the router sees its connection end.
            timeout(PATIENCE, self.rib.wait_for(|rib| rib.peers.is_empty())).await??;
        }
        Ok(start(self.now.insert(Supervisor::default())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_bgp_passes_through_the_trait() {
    let mut supervisor = Supervisor::default();
    let (router, options) = router(&mut supervisor).await;
    let report = run(Subject::InProcess(Box::new(Lives { rib: router.rib(), now: None })), &options).await;
    assert!(report.is_good(), "{report}");
}

/// The plugin as a process: this program once more, which the variable makes the plugin.
struct Process {
    command: String,
    pid: PathBuf,
}

impl Process {
    fn new(socket: &Path) -> Self {
        let (exe, socket, pid) = (std::env::current_exe().unwrap(), socket.display(), socket.with_extension("pid"));
        let file = pid.display();
        let command = format!(
            "if [ -e {file} ]; then kill -KILL $(cat {file}); fi; \
             {PLUGIN_SOCKET}={socket} {} --exact {OUT_OF_PROCESS} >/dev/null 2>&1 & echo $! >{file}",
            exe.display()
        );
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        Self { command, pid }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let kill = format!("kill -KILL $(cat {})", self.pid.display());
        drop(Command::new("sh").args(["-c", &kill]).status());
    }
}

#[test]
fn native_bgp_passes_out_of_process() {
    if let Some(socket) = std::env::var_os(PLUGIN_SOCKET) {
        let args = ["plugin".into(), "--socket".into(), socket];
        let status = ferrocast_plugin_sdk::run_with(Args::parse_from(args).plugin, None, start);
        assert_eq!(status, ExitCode::SUCCESS);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bgp.sock");
    let process = Process::new(&socket);
    let report = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut supervisor = Supervisor::default();
        let (_router, options) = router(&mut supervisor).await;
        let options = Options { restart: Some(process.command.clone()), ..options };
        run(Subject::Socket(socket), &options).await
    });
    assert!(report.is_good(), "{report}");
}
