//! OSPF and RIP between network namespaces: what the plugin hands to the BIRD of a node is in the kernel's table of a router, and
//! leads to another node while it drains.
//!
//! Everything is in namespaces of the test's own, which vanish with it; bird.conf is the example's, with other timers.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]
mod bench;

use std::{
    fs,
    process::{Command, Stdio},
};

use bench::{Bench, Running, Speaker, eventually, program, run};
use ferrocast_core::announce::{
    AnnouncementState::{self, Active, Draining},
    Announcer as _, SHUTDOWN_MAX, Shutdown,
};

/// Set in the process that is in the namespaces.
const INSIDE: &str = "FERROCAST_BIRD_TEST_INSIDE";
/// The prefixes that are announced.
const V4: &str = "198.51.100.1/32";
const V6: &str = "2001:db8:1::1/128";
/// Where the routes of the router lead to this node, and to the other one.
const HERE: &str = "dev near";
const OTHER: &str = "dev other";

/// The BIRD of a router: what it learns goes to its kernel.
const ROUTER: &str = r#"
log stderr all;
router id 192.0.2.2;
protocol device { }
protocol kernel kernel4 { ipv4 { export all; }; }
protocol kernel kernel6 { ipv6 { export all; }; }
protocol ospf v2 ospf4 { ipv4 { }; area 0 { interface "near", "other" { FAST }; }; }
protocol ospf v3 ospf6 { ipv6 { }; area 0 { interface "near", "other" { FAST }; }; }
protocol rip rip4 { ipv4 { }; interface "near" { }; }
protocol rip ng rip6 { ipv6 { }; interface "near" { }; }
"#;
/// The BIRD of another node, which has the same prefixes and always will.
const OTHER_NODE: &str = r#"
log stderr all;
router id 203.0.113.3;
protocol device { }
protocol static static4 { ipv4 { }; route 198.51.100.1/32 blackhole; }
protocol static static6 { ipv6 { }; route 2001:db8:1::1/128 blackhole; }
filter from_here { if source != RTS_STATIC then reject; ospf_metric2 = 500; accept; }
protocol ospf v2 ospf4 { ipv4 { export filter from_here; }; area 0 { interface "eth0" { FAST }; }; }
protocol ospf v3 ospf6 { ipv6 { export filter from_here; }; area 0 { interface "eth0" { FAST }; }; }
"#;
/// Timers at which nobody waits for long.
const FAST: &str = "type ptp; hello 1; dead 4; retransmit 2;";

fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    // The whole of it dies with this process: unshare with its parent, the process namespace with its first process.
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
    command.arg("--mount-proc");
    command
}

/// Runs the test of this name again, in namespaces of its own: `true` if this is not the process that is in them.
fn is_outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    if program("bird").is_none() || program("birdc").is_none() {
        println!("skipped: needs bird2");
        return true;
    }
    let tried = unshare().arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("skipped: needs root, to make network namespaces");
        return true;
    }
    let mut again = unshare();
    again.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = again.output().unwrap();
    let words = [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
    assert!(output.status.success() && words[0].contains("1 passed"), "{}", words.join("\n"));
    true
}

fn ip(line: &str) -> String {
    run("ip", &line.split_whitespace().collect::<Vec<_>>()).unwrap()
}

/// Another network namespace.
struct Namespace(Running);

impl Namespace {
    async fn new(bench: &Bench) -> Self {
        let mut holder = Command::new("unshare");
        let holder = Running::start(holder.args(["--net", "sleep", "infinity"]), &bench.path("namespaces.log"));
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        eventually("the namespace is there", || match fs::read_link(format!("/proc/{}/ns/net", holder.pid())) {
            Ok(theirs) if theirs != own => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let namespace = Self(holder);
        namespace.ip("link set lo up");
        namespace
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn ip(&self, line: &str) -> String {
        let namespace = format!("--net=/proc/{}/ns/net", self.pid());
        let arguments = [namespace.as_str(), "ip"].into_iter().chain(line.split_whitespace());
        run("nsenter", &arguments.collect::<Vec<_>>()).unwrap()
    }

    /// What its kernel has for the two prefixes.
    fn routes(&self) -> [String; 2] {
        [self.ip(&format!("-4 route show {V4}")), self.ip(&format!("-6 route show {V6}"))]
    }

    /// Waits until its kernel leads both prefixes there.
    async fn leads(&self, device: &str) {
        eventually(&format!("the router's kernel has both prefixes {device}"), || {
            let routes = self.routes();
            let right = routes.iter().all(|route| route.lines().count() == 1 && route.contains(device));
            if right { Ok(()) } else { Err(format!("{routes:?}")) }
        })
        .await;
    }
}

/// A router, joined to this namespace (`eth0` here, `near` there) and to that of another node (`eth0` there, `other` here).
async fn router_and_other_node(bench: &Bench) -> (Namespace, Namespace) {
    let (router, other) = (Namespace::new(bench).await, Namespace::new(bench).await);
    ip("link set lo up");
    ip(&format!("link add eth0 type veth peer name near netns {}", router.pid()));
    ip("address add 192.0.2.1/24 dev eth0");
    ip("link set eth0 up");
    router.ip("address add 192.0.2.2/24 dev near");
    router.ip("link set near up");
    router.ip(&format!("link add other type veth peer name eth0 netns {}", other.pid()));
    router.ip("address add 203.0.113.2/24 dev other");
    router.ip("link set other up");
    other.ip("address add 203.0.113.3/24 dev eth0");
    other.ip("link set eth0 up");
    (router, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_kernel_has_the_prefixes_leads_elsewhere_while_they_drain_and_loses_them_when_withdrawn() {
    if is_outside("routers_kernel_has_the_prefixes_leads_elsewhere_while_they_drain_and_loses_them_when_withdrawn") {
        return;
    }
    let mut bench = Bench::new();
    let (router, other) = router_and_other_node(&bench).await;
    let configuration = include_str!("../bird.conf")
        .replace("/var/lib/ferrocast-bird/routes.conf", bench.include().to_str().unwrap())
        .replacen(r#"interface "eth0" { }; };"#, &format!(r#"interface "eth0" {{ {FAST} }}; }};"#), 2);
    assert_eq!(configuration.matches(FAST).count(), 2, "both OSPF protocols of the example have the test's timers");
    let _plugin = bench.plugin("node").await;
    let _node = bench.bird("node", &configuration, None).await;
    let _router = bench.bird("router", &ROUTER.replace("FAST", FAST), Some(router.pid())).await;
    let mut speaker = bench.speaker();
    let want = async |speaker: &mut Speaker, state: AnnouncementState, parameters: &str| {
        speaker.want(&[V4, V6], state, parameters).await;
        speaker.reached().await;
    };
    let learns = async |protocol: &str, prefix: &str, words: &str| {
        eventually(&format!("the router has {words} by {protocol}"), || {
            let learned = bench.ask("router", &format!("show route for {prefix} protocol {protocol} all"))?;
            if learned.contains(words) { Ok(()) } else { Err(learned) }
        })
        .await;
    };
    want(&mut speaker, Active, "{}").await;
    router.leads(HERE).await;
    learns("ospf4", V4, "OSPF.metric2: 1000").await;
    learns("rip6", V6, "RIP.metric: 2").await;
    let other_node = bench.bird("other", &OTHER_NODE.replace("FAST", FAST), Some(other.pid())).await;
    router.leads(OTHER).await;
    want(&mut speaker, Active, r#"{"metric": 20, "tag": 7}"#).await;
    router.leads(HERE).await;
    learns("ospf4", V4, "OSPF.tag: 0x00000007").await;
    want(&mut speaker, Draining, r#"{"metric": 20}"#).await;
    router.leads(OTHER).await;
    drop(other_node);
    router.leads(HERE).await; // draining, and yet reachable
    learns("ospf6", V6, "OSPF.metric2: 16777214").await;
    learns("rip4", V4, "RIP.metric: 9").await;
    let own = [ip(&format!("-4 route show {V4}")), ip(&format!("-6 route show {V6}"))];
    assert_eq!(own, ["", ""], "the node's own kernel has none of them");
    speaker.remote.shutdown(Shutdown::Withdraw, SHUTDOWN_MAX).await;
    eventually("the router's kernel has none of them", || match router.routes() {
        routes if routes.iter().all(String::is_empty) => Ok(()),
        routes => Err(format!("{routes:?}")),
    })
    .await;
}
