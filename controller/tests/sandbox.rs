//! `ferrocast sandbox` as a user runs it: the real binary, over its real TCP sessions on loopback.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests own the clock")]
#[path = "cases/dice.rs"]
mod dice;
#[path = "sandbox/history.rs"]
mod history;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use ferrocast_bgp::router::{Router, RouterConfig};
use ferrocast_core::actor::Supervisor;
use serde_json::Value;

/// Longest wait for a picture, so that a sandbox that hangs fails the test.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn sandbox(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrocast"));
    command.arg("sandbox").args(args).stderr(Stdio::inherit());
    command
}

/// The row of `service` whose address is of the given family.
fn row<'a>(picture: &'a Value, service: &str, v6: bool) -> Option<&'a Value> {
    let rows = picture["services"].as_array().unwrap().iter();
    rows.filter(|r| r["service"] == service).find(|r| r["address"].as_str().is_some_and(|a| a.contains(':') == v6))
}

fn hops(picture: &Value, service: &str) -> usize {
    row(picture, service, false).map_or(0, |r| r["nextHops"].as_array().unwrap().len())
}

#[test]
fn sandbox_once_on_the_example_gives_every_service_address_and_route() {
    let output = sandbox(&["--once", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let picture: Value = serde_json::from_slice(&output.stdout).unwrap();
    let web4 = row(&picture, "default/web", false).unwrap();
    assert_eq!(web4["address"], "192.0.2.10");
    assert_eq!(web4["pool"], "public");
    assert_eq!(web4["nextHops"], serde_json::json!(["127.0.0.11", "127.0.0.12", "127.0.0.13"]));
    assert_eq!(row(&picture, "default/web", true).unwrap()["nextHops"].as_array().unwrap().len(), 3);
    let api = row(&picture, "default/api", false).unwrap();
    assert_eq!(api["announcedFrom"], serde_json::json!(["node1", "node2"]));
    assert_eq!(api["reason"], "announced; noLocalEndpoints (node3)");
}

#[test]
fn sandbox_once_fails_when_a_service_has_no_route() {
    let dir = tempfile::tempdir().unwrap();
    let service = "kind: Service\nmetadata: {name: lonely}\nspec: {type: LoadBalancer}\n";
    fs::write(dir.path().join("service.yaml"), service).unwrap();
    let output = sandbox(&[dir.path().to_str().unwrap(), "--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("noPools"), "{output:?}");
}

/// A sandbox that runs, and the pictures it prints.
struct Live {
    child: Child,
    pictures: mpsc::Receiver<Value>,
}

impl Live {
    fn start(dir: &Path, more: &[&str]) -> Self {
        let args = [&[dir.to_str().unwrap(), "-o", "json"], more].concat();
        let mut child = sandbox(&args).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, pictures) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, pictures }
    }

    /// Waits for a picture of which `is` holds.
    fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + WAIT_MAX;
        let mut last = Value::Null;
        loop {
            match self.pictures.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(picture) if is(&picture) => return picture,
                Ok(picture) => last = picture,
                Err(error) => panic!("{what}: {error}; last picture: {last:#}"),
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const POOL: &str =
    "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: p, namespace: metallb-system}\n";
const ADVERTISEMENT: &str =
    "apiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\nmetadata: {name: a, namespace: metallb-system}\n";

fn service(name: &str, policy: &str) -> String {
    let spec = format!(
        "{{type: LoadBalancer, externalTrafficPolicy: {policy}, selector: {{app: {name}}}, ports: [{{port: 80}}]}}"
    );
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn slice(nodes: &[&str]) -> String {
    let mut text = String::from(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: one-1, labels: {kubernetes.io/service-name: one}}\nendpoints:\n",
    );
    for (i, node) in nodes.iter().enumerate() {
        text.push_str(&format!("- {{addresses: [10.244.{i}.1], nodeName: {node}}}\n"));
    }
    text
}

#[test]
fn sandbox_follows_edits_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("pool.yaml", &format!("{POOL}spec: {{addresses: [192.0.2.8/30]}}\n"));
    write("advertisement.yaml", ADVERTISEMENT);
    write("one.yaml", &service("one", "Local"));
    write("slice.yaml", &slice(&["node1", "node2"]));
    let live = Live::start(dir.path(), &[]);
    live.wait("first picture", |p| hops(p, "default/one") == 2);

    // An endpoint goes: its node's route goes.
    write("slice.yaml", &slice(&["node2"]));
    let picture = live.wait("endpoint removed", |p| hops(p, "default/one") == 1);
    assert_eq!(row(&picture, "default/one", false).unwrap()["announcedFrom"], serde_json::json!(["node2"]));

    // A Service comes: it gets the next address; the first one keeps its own.
    write("two.yaml", &service("two", "Cluster"));
    let picture = live.wait("service added", |p| hops(p, "default/two") == 3);
    assert_eq!(row(&picture, "default/one", false).unwrap()["address"], "192.0.2.8");
    assert_eq!(row(&picture, "default/two", false).unwrap()["address"], "192.0.2.9");

    // The pool breaks: it is said, and nothing is taken away.
    write("pool.yaml", &format!("{POOL}spec: {{addresses: [192.0.2.11-192.0.2.8]}}\n"));
    let picture = live.wait("pool broken", |p| !p["problems"].as_array().unwrap().is_empty());
    assert!(picture["problems"][0].as_str().unwrap().contains("spec.addresses[0]"), "{picture:#}");
    assert_eq!((hops(&picture, "default/one"), hops(&picture, "default/two")), (1, 3));

    // A Service goes: so does its route, and only its.
    fs::remove_file(dir.path().join("two.yaml")).unwrap();
    let picture = live.wait("service removed", |p| row(p, "default/two", false).is_none());
    assert_eq!(hops(&picture, "default/one"), 1);
}

#[test]
fn sandbox_runs_a_speaker_per_node_object() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("pool.yaml", &format!("{POOL}spec: {{addresses: [192.0.2.8/30]}}\n"));
    write(
        "advertisement.yaml",
        &format!("{ADVERTISEMENT}spec: {{nodeSelectors: [{{matchLabels: {{edge: 'yes'}}}}]}}\n"),
    );
    write("one.yaml", &service("one", "Cluster"));
    let node =
        |name: &str, edge: &str| format!("kind: Node\nmetadata: {{name: {name}, labels: {{edge: '{edge}'}}}}\n---\n");
    write("nodes.yaml", &(node("worker-a", "yes") + &node("worker-b", "no")));
    let output = sandbox(&[dir.path().to_str().unwrap(), "--once", "-o", "json"]).output().unwrap();
    let picture: Value = serde_json::from_slice(&output.stdout).unwrap();
    let one = row(&picture, "default/one", false).unwrap();
    assert_eq!(one["announcedFrom"], serde_json::json!(["worker-a"]));
    assert_eq!(one["reason"], "announced; notOwner (worker-b)");
}

#[test]
fn sandbox_counts_only_endpoints_in_files_when_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("pool.yaml", &format!("{POOL}spec: {{addresses: [192.0.2.8/30]}}\n"));
    write("advertisement.yaml", ADVERTISEMENT);
    write("one.yaml", &service("one", "Cluster"));
    let args = [dir.path().to_str().unwrap(), "--once", "-o", "json"];
    let picture = |args: &[&str]| -> (Option<i32>, Value) {
        let output = sandbox(args).output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    };
    let (code, assumed) = picture(&args);
    assert_eq!(
        (code, &row(&assumed, "default/one", false).unwrap()["endpointsAssumed"]),
        (Some(0), &Value::Bool(true))
    );
    let (code, files) = picture(&[&args[..], &["--endpoints", "files"]].concat());
    let one = row(&files, "default/one", false).unwrap();
    assert_eq!((code, one["reason"].as_str()), (Some(1), Some("noEndpoints")));
}

#[test]
fn sandbox_takes_a_status_in_a_manifest_for_held() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("pool.yaml", &format!("{POOL}spec: {{addresses: [192.0.2.8/30]}}\n"));
    write("advertisement.yaml", ADVERTISEMENT);
    write("a.yaml", &service("a", "Cluster"));
    write(
        "b.yaml",
        &format!("{}status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.8}}]}}}}\n", service("b", "Cluster")),
    );
    let output = sandbox(&[dir.path().to_str().unwrap(), "--once", "-o", "json"]).output().unwrap();
    let picture: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(row(&picture, "default/b", false).unwrap()["address"], "192.0.2.8");
    assert_eq!(row(&picture, "default/a", false).unwrap()["address"], "192.0.2.9");
}

/// A router of the test's own, on a port that a BGPPeer may name.
async fn router(supervisor: &mut Supervisor, asn: u32) -> Router {
    for port in 10_000..16_384 {
        let config = RouterConfig::new((Ipv4Addr::LOCALHOST, port).into(), asn);
        if let Ok(router) = Router::start(supervisor, config).await {
            return router;
        }
    }
    panic!("no free port");
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_dials_the_peers_of_its_manifests_and_those_given() {
    let mut supervisor = Supervisor::default();
    let (of_manifest, given) = (router(&mut supervisor, 64_513).await, router(&mut supervisor, 64_514).await);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("pool.yaml", &format!("{POOL}spec: {{addresses: [192.0.2.8/30]}}\n"));
    write("advertisement.yaml", ADVERTISEMENT);
    write("one.yaml", &service("one", "Cluster"));
    let spec =
        format!("{{myASN: 64512, peerASN: 64513, peerAddress: 127.0.0.1, peerPort: {}}}", of_manifest.address().port());
    let meta = "{name: rack, namespace: metallb-system}";
    write("peer.yaml", &format!("apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {meta}\nspec: {spec}\n"));
    let peer = format!("{},64514", given.address());
    let live = Live::start(dir.path(), &["--peer", &peer, "--nodes", "1"]);
    let prefix: ipnet::IpNet = "192.0.2.8/32".parse().unwrap();
    for mut rib in [of_manifest.rib(), given.rib()] {
        let learned = rib.wait_for(|rib| rib.routes.contains_key(&prefix));
        let learned = tokio::time::timeout(WAIT_MAX, learned).await;
        assert!(matches!(learned, Ok(Ok(_))), "a router did not learn the route");
    }
    let established =
        |p: &Value| p["sessions"].as_array().unwrap().iter().all(|s| s.as_str().unwrap().contains("established, 1"));
    let picture = live.wait("both sessions", |p| p["sessions"].as_array().unwrap().len() == 2 && established(p));
    assert!(picture["sessions"].to_string().contains("peer rack (node1)"), "{picture:#}");
}
