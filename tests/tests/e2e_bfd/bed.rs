//! BIRD and FRR with BFD alone, one namespace each; the suite's own namespace is the node.
//!
//! ```text
//!          ┌ to-bird  10.1.0.0/24 fd01::/64 (100 ms) ┐
//!   node ──┼ fast     10.4.0.0/24            (50 ms) ┼─ bird ─┐ 10.3.0.0/24
//!          └ to-frr   10.2.0.0/24 fd02::/64 ─────────── frr ──┘ fd03::/64
//! ```
//! A multihop session with one router goes through the other. Host parts: node 1 (and 11 to 15), BIRD 2, FRR 3.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ferrocast_bfd::{Bfd, Session, SessionConfig, SessionInfo, State};
use ferrocast_tests::process::{Process, command, run, sh};
use ferrocast_tests::runner::Context;
use ferrocast_tests::wait::{bounded, eventually};
use serde_json::Value;

/// How long a daemon may take to answer after its start.
const READY_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a daemon may take to notice anything.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(10);
/// Local host parts of the sessions of the load test, with each router.
pub(crate) const MANY: std::ops::Range<u32> = 11..16;

/// A routing daemon with BFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Router {
    Bird,
    Frr,
}

impl Router {
    pub(crate) const BOTH: [Self; 2] = [Self::Bird, Self::Frr];

    pub(crate) const fn netns(self) -> &'static str {
        match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
        }
    }

    pub(crate) fn show(self, question: &str) -> Result<String> {
        match self {
            Self::Bird => {
                let mut client = command(Some("bird"), Path::new("birdc"));
                run(client.args(["-s", "/run/bird/ctl"]).args(question.split_whitespace()))
            }
            Self::Frr => {
                let mut client = command(Some("frr"), Path::new("vtysh"));
                client.args(["-d", "bfdd"]);
                for line in question.split(" / ") {
                    client.args(["-c", line]);
                }
                run(&mut client)
            }
        }
    }

    /// What the daemon says about its session with `peer` of ours: Up or another word.
    pub(crate) fn state(self, peer: &str) -> Result<String> {
        match self {
            Self::Bird => {
                let shown = self.show("show bfd sessions")?;
                let line = shown.lines().find(|line| line.split_whitespace().next() == Some(peer));
                let state = line.and_then(|line| line.split_whitespace().nth(2));
                Ok(state.with_context(|| format!("BIRD has no session with {peer}:\n{shown}"))?.to_lowercase())
            }
            Self::Frr => Ok(self.details(peer)?["status"].as_str().unwrap_or("absent").to_owned()),
        }
    }

    /// FRR's description of its session with `peer`.
    pub(crate) fn details(self, peer: &str) -> Result<Value> {
        let peers: Vec<Value> = serde_json::from_str(&self.show("show bfd peers json")?)?;
        let found = peers.into_iter().find(|found| found["peer"] == peer);
        found.with_context(|| format!("FRR has no session with {peer}"))
    }
}

/// The bed.
pub(crate) struct Bed {
    pub(crate) bfd: Bfd,
    daemons: Vec<Process>,
    /// bfdd's log, which tells of changes of states at once; asking takes longer than the bound leaves.
    frr_log: PathBuf,
}

impl Bed {
    /// Waits until the router's session with `local` of ours is not Up, and says when it saw that.
    pub(crate) async fn notices(&self, router: Router, local: &'static str) -> Result<Instant> {
        let (log, heard) = (self.frr_log.clone(), fs::read(&self.frr_log)?.len());
        let began = Instant::now();
        let ask = move || -> Result<Instant> {
            loop {
                let noticed = match router {
                    Router::Bird => router.state(local)? != "up",
                    Router::Frr => {
                        let text = String::from_utf8_lossy(&fs::read(&log)?[heard..]).into_owned();
                        let peer = format!("peer:{local} ");
                        text.lines().any(|line| line.contains(&peer) && line.contains("up -> down"))
                    }
                };
                if noticed {
                    return Ok(Instant::now());
                }
                ensure!(began.elapsed() < NOTICE_TIME_MAX, "{router:?} notices nothing");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        tokio::task::spawn_blocking(ask).await?
    }
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        lay_network()?;
        fs::create_dir_all("/run/bird")?;
        fs::create_dir_all("/run/frr")?;
        sh("chown frr:frr /run/frr")?;
        let mut daemons = vec![start_bird(dir)?];
        daemons.extend(start_frr(dir).await?);
        // Routers have processors of their own; here they share ours, and must not be what is late under load.
        for daemon in &daemons {
            // Refused without CAP_SYS_NICE: then it must do without.
            drop(sh(&format!("chrt --all-tasks --rr --pid 1 {}", daemon.pid())));
        }
        for router in Router::BOTH {
            let question = if router == Router::Bird { "show status" } else { "show bfd peers" };
            eventually("the daemon answers", READY_TIME_MAX, async || router.show(question)).await?;
        }
        Ok(Self { bfd: Bfd::start()?, daemons, frr_log: dir.join("bfdd.log") })
    }

    fn diagnose(&self) -> String {
        let shown = |router: Router, question: &str| router.show(question).unwrap_or_else(|error| error.to_string());
        let sessions = [shown(Router::Bird, "show bfd sessions"), shown(Router::Frr, "show bfd peers brief")].concat();
        self.daemons.iter().map(Process::tail).chain([sessions]).collect()
    }
}

fn link(name: &str, netns: &str, net: u32, host: u32) -> Result<()> {
    sh(&format!("ip link add {name} type veth peer name {} netns {netns}", peer_name(name)))?;
    for (prefix, device, host) in [(String::new(), name, 1), (format!("-n {netns} "), peer_name(name), host)] {
        sh(&format!("ip {prefix}link set {device} up"))?;
        sh(&format!("ip {prefix}addr add 10.{net}.0.{host}/24 dev {device}"))?;
        sh(&format!("ip {prefix}addr add fd0{net}::{host}/64 dev {device} nodad"))?;
        sh(&format!("ip {prefix}addr add fe80::{host}/64 dev {device} nodad"))?;
    }
    Ok(())
}

fn peer_name(name: &str) -> &'static str {
    if name == "fast" { "fast" } else { "to-node" }
}

fn lay_network() -> Result<()> {
    for netns in ["bird", "frr"] {
        sh(&format!("ip netns add {netns}"))?;
        sh(&format!("ip -n {netns} link set lo up"))?;
        sh(&format!("ip netns exec {netns} sysctl -qw {FORWARDING}"))?;
    }
    sh(&format!("sysctl -qw {FORWARDING}"))?;
    link("to-bird", "bird", 1, 2)?;
    link("fast", "bird", 4, 2)?;
    link("to-frr", "frr", 2, 3)?;
    sh("ip -n bird link add to-frr type veth peer name to-bird netns frr")?;
    for (netns, device, host) in [("bird", "to-frr", 2), ("frr", "to-bird", 3)] {
        sh(&format!("ip -n {netns} link set {device} up"))?;
        sh(&format!("ip -n {netns} addr add 10.3.0.{host}/24 dev {device}"))?;
        sh(&format!("ip -n {netns} addr add fd03::{host}/64 dev {device} nodad"))?;
    }
    // Across: to FRR's far address through BIRD's namespace, and the other way round.
    sh("ip route add 10.3.0.3/32 via 10.1.0.2")?;
    sh("ip route add 10.3.0.2/32 via 10.2.0.3")?;
    sh("ip -6 route add fd03::3/128 via fd01::2")?;
    sh("ip -6 route add fd03::2/128 via fd02::3")?;
    sh("ip -n frr route add 10.1.0.0/24 via 10.3.0.2")?;
    sh("ip -n bird route add 10.2.0.0/24 via 10.3.0.3")?;
    sh("ip -n frr -6 route add fd01::/64 via fd03::2")?;
    sh("ip -n bird -6 route add fd02::/64 via fd03::3")?;
    for host in MANY {
        sh(&format!("ip addr add 10.4.0.{host}/24 dev fast"))?;
        sh(&format!("ip addr add 10.2.0.{host}/24 dev to-frr"))?;
    }
    Ok(())
}

const FORWARDING: &str = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 \
                          net.ipv4.conf.default.rp_filter=0";

fn start_bird(dir: &Path) -> Result<Process> {
    let many: String = MANY.map(|host| format!("  neighbor 10.4.0.{host} dev \"fast\" local 10.4.0.2;\n")).collect();
    let log = dir.join("bird-messages.log").display().to_string();
    fs::write("/run/bird.conf", BIRD_CONFIG.replace("LOG", &log).replace("MANY", &many))?;
    let mut bird = command(Some("bird"), Path::new("bird"));
    Process::start("bird", dir, bird.args(["-f", "-c", "/run/bird.conf", "-s", "/run/bird/ctl"]))
}

async fn start_frr(dir: &Path) -> Result<Vec<Process>> {
    let timers = |ms: u32| {
        format!("  receive-interval {ms}\n  transmit-interval {ms}\n  detect-multiplier 3\n  no shutdown\n !\n")
    };
    let peer = |words: &str, ms: u32| format!(" peer {words}\n{}", timers(ms));
    let mut peers = [
        peer("10.2.0.1 local-address 10.2.0.3 interface to-node", 100),
        peer("fd02::1 local-address fd02::3 interface to-node", 100),
        peer("10.1.0.1 multihop local-address 10.3.0.3", 100),
        peer("fd01::1 multihop local-address fd03::3", 100),
    ]
    .concat();
    peers.extend(MANY.map(|host| peer(&format!("10.2.0.{host} local-address 10.2.0.3 interface to-node"), 50)));
    let conf = PathBuf::from("/run/bfdd.conf");
    fs::write(&conf, format!("frr version 8.4\nhostname frr\nlog stdout debugging\ndebug bfd peer\nbfd\n{peers}!\n"))?;
    let start = |name: &str, arguments: &[&str]| {
        let mut daemon = command(Some("frr"), &Path::new("/usr/lib/frr").join(name));
        daemon.args(["-u", "frr", "-g", "frr", "-i", &format!("/run/frr/{name}.pid")]).args(arguments);
        Process::start(name, dir, &mut daemon)
    };
    let zebra = start("zebra", &[])?;
    // bfdd learns of interfaces from zebra, and asks again only after long when it is not there yet.
    eventually("zebra listens", READY_TIME_MAX, async || Ok(UnixStream::connect("/run/frr/zserv.api")?)).await?;
    Ok(vec![zebra, start("bfdd", &["-f", "/run/bfdd.conf"])?])
}

const BIRD_CONFIG: &str = r#"log "LOG" all;
router id 10.1.0.2;
timeformat log iso long ms;
protocol device { scan time 5; }
protocol bfd {
  debug all;
  interface "to-node" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; };
  interface "fast" { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; };
  multihop { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; };
  neighbor 10.1.0.1 dev "to-node" local 10.1.0.2;
  neighbor fd01::1 dev "to-node" local fd01::2;
  neighbor fe80::1 dev "to-node" local fe80::2;
  neighbor 10.2.0.1 local 10.3.0.2 multihop yes;
  neighbor fd02::1 local fd03::2 multihop yes;
MANY}
"#;

/// A session of 3 × `ms` from `local` to `peer`.
pub(crate) fn config(local: &str, peer: &str, ms: u64) -> SessionConfig {
    let interval = Duration::from_millis(ms);
    let mut config = SessionConfig::new(peer.parse().expect("an address"));
    config.local = Some(local.parse().expect("an address"));
    config.desired_min_tx = interval;
    config.required_min_rx = interval;
    config
}

/// Waits until a session is at what is asked for; returns it and how long that took.
pub(crate) async fn reach(
    session: &Session,
    within: Duration,
    what: &str,
    wanted: impl Fn(&SessionInfo) -> bool,
) -> Result<(SessionInfo, Duration)> {
    let began = Instant::now();
    let mut watch = session.watch();
    let reached = async { Ok(watch.wait_for(|info| wanted(info)).await?.clone()) };
    let info = bounded(what, within, reached).await;
    let info = info.with_context(|| format!("it is at {:?}", session.watch().borrow().clone()))?;
    Ok((info, began.elapsed()))
}

pub(crate) async fn up(session: &Session) -> Result<Duration> {
    let (info, took) = reach(session, Duration::from_secs(10), "Up", |info| info.state == State::Up).await?;
    ensure!(info.error.is_none() && info.was_up && !info.path_failed(), "{info:?}");
    Ok(took)
}

/// Waits until both sides are Up at the intervals that both want.
pub(crate) async fn up_at(session: &Session, ms: u64) -> Result<()> {
    let interval = Duration::from_millis(ms);
    let settled = |info: &SessionInfo| {
        info.state == State::Up
            && info.remote_state == State::Up
            && info.transmit_interval == interval
            && info.detection_time == interval * 3
    };
    reach(session, Duration::from_secs(10), &format!("Up with 3 × {ms} ms"), settled).await.map(drop)
}

/// Makes the node and a router deaf to BFD, without either's system noticing; undone by [`mend`].
pub(crate) async fn cut(router: Router) -> Result<()> {
    let rules = "add table inet cut; add chain inet cut deaf { type filter hook prerouting priority -300; }; \
                 add rule inet cut deaf udp dport { 3784, 3785, 4784 } drop";
    let nft = |netns: Option<&'static str>| {
        tokio::task::spawn_blocking(move || run(command(netns, Path::new("nft")).arg(rules)))
    };
    let (near, far) = (nft(None), nft(Some(router.netns())));
    near.await??;
    far.await??;
    Ok(())
}

pub(crate) fn mend(router: Router) -> Result<()> {
    sh("nft delete table inet cut")?;
    sh(&format!("ip netns exec {} nft delete table inet cut", router.netns())).map(drop)
}
