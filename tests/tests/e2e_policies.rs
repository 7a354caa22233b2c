//! Policies, drains, the speakers' statuses, and how a speaker ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ferrocast_tests::audit;
use ferrocast_tests::cases;
use ferrocast_tests::kube::in_repository;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, Lab, NODES, host_route, register_nodes};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Service};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually, pause};
use serde_json::{Value, json};

/// Shortest time between two writes of a status.
const WRITE_PERIOD: Duration = Duration::from_secs(5);
/// How much later than that a write may be seen, on a busy machine.
const MARGIN: Duration = Duration::from_secs(2);
/// Periods in which what happened before rest may still be told: the change itself, and what follows from it.
const LAST_WRITES_MAX: u32 = 4;
/// How long rest is observed: twice the shortest time between two writes of a status.
const REST: Duration = Duration::from_secs(10);
/// GRACEFUL_SHUTDOWN as BIRD prints it. Source: RFC 8326 §4.
const GRACEFUL_SHUTDOWN: &str = "(65535,0)";

fn main() -> ExitCode {
    let cases = cases![
        policies_are_refused_by_the_schema_or_told_about,
        statuses_say_what_is_announced_and_are_silent_at_rest,
        a_drained_node_says_so_to_the_routers_and_in_its_status,
        a_speaker_ends_as_node_and_daemon_set_say,
        routes_are_announced_again_while_the_api_server_is_away,
        a_cluster_without_our_own_types_is_served,
    ];
    runner::main::<Bed>("e2e_policies", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed {
    lab: Lab,
    dir: PathBuf,
    /// The standing Service's address.
    address: String,
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let lab = Lab::with_ferrocast_only(dir, 1).await?;
        lab.apply_service(&Service::named("standing"), &NODES).await?;
        let address = lab.cluster.wait_for_addresses("default", "standing", 1).await?.remove(0);
        lab.wait_for_hops(&host_route(&address), &NODES).await?;
        Ok(Self { lab, dir: dir.to_owned(), address })
    }

    fn diagnose(&self) -> String {
        self.lab.diagnose()
    }
}

fn policy(name: &str, spec: Value) -> Value {
    objects::config(CONFIG_NAMESPACE, "BGPPeerPolicy", name, spec)
}

impl Bed {
    /// The statuses by node.
    async fn statuses(&self) -> Result<BTreeMap<String, Value>> {
        let list = self.lab.cluster.speaker_statuses().await?;
        Ok(list.into_iter().filter_map(|s| Some((s.metadata.name.clone()?, s.data["status"].clone()))).collect())
    }

    /// Waits until a node's status is as `holds` wants it.
    async fn wait_for_status(&self, node: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        eventually(&format!("the status of {node}: {what}"), CONVERGENCE_TIME_MAX, async || {
            let statuses = self.statuses().await?;
            let status = statuses.get(node).context("there is none")?;
            ensure_that(holds(status), || status.to_string())
        })
        .await
    }

    /// BIRD's paths to an address that carry GRACEFUL_SHUTDOWN, and all of them.
    fn paths(&self, address: &str) -> Result<(usize, usize)> {
        let shown = self.lab.bird.show(&format!("show route for {} all", host_route(address)))?;
        Ok((shown.matches(GRACEFUL_SHUTDOWN).count(), shown.matches("BGP.as_path").count()))
    }

    async fn wait_for_paths(&self, address: &str, wanted: (usize, usize)) -> Result<()> {
        eventually(&format!("{wanted:?} paths to {address} drain"), CONVERGENCE_TIME_MAX, async || {
            let paths = self.paths(address)?;
            ensure_that(paths == wanted, || format!("{paths:?}"))
        })
        .await
    }

    /// Ends the first node's speaker, which must say this and then start again.
    async fn end(&mut self, words: &[&str]) -> Result<()> {
        let speaker = &mut self.lab.speakers[0];
        let from = speaker.log()?.len();
        let status = speaker.process().terminate().await?;
        ensure!(status.success(), "it ended with {status}");
        let log = speaker.log()?;
        let said = log[from..].lines().find(|line| line.contains("ending: ")).context("no line says how it ends")?;
        ensure!(words.iter().all(|word| said.contains(word)), "{words:?} expected: {said}");
        Ok(())
    }

    async fn start_again(&mut self) -> Result<()> {
        self.lab.speakers[0].restart()?;
        self.lab.speakers[0].wait_until_ready().await?;
        self.lab.wait_for_hops(&host_route(&self.address), &NODES).await
    }
}

async fn policies_are_refused_by_the_schema_or_told_about(bed: &mut Bed) -> Result<()> {
    let cluster = &bed.lab.cluster;
    for (spec, words) in [
        (json!({"advertisements": ["lab"], "session": {"passive": true}}), "two policies"),
        (json!({"session": {"families": []}}), "families"),
        (json!({"session": {"ttlSecurityHops": 0}}), "ttlSecurityHops"),
        (json!({"session": {"role": "Uncle"}}), "role"),
        (json!({"routes": {"asPathPrepend": 17}}), "asPathPrepend"),
        (json!({"routes": {"linkBandwidth": {"unit": "fast"}}}), "unit"),
        (json!({"routes": {"linkBandwidth": {"value": 3}}}), "weight: Fixed"),
    ] {
        match cluster.create(&policy("refused", spec.clone())).await {
            Ok(_) => bail!("{spec} was taken"),
            Err(error) => ensure!(error.to_string().contains(words), "{spec}: {error}"),
        }
    }
    let older = policy("b-older", json!({"peers": ["bird4"], "routes": {"med": 7}}));
    let younger = policy("a-younger", json!({"peerSelectors": [{}], "routes": {"med": 8}}));
    cluster.apply(&older).await?;
    pause(Duration::from_secs(1)).await; // creation times have whole seconds
    cluster.apply(&younger).await?;
    let told = ["Warning ConfigurationError", "spec.routes.med", "\"b-older\"", "\"bird4\""];
    cluster.wait_for_event(CONFIG_NAMESPACE, "a-younger", &told).await?;
    cluster
        .apply(&policy("nobody", json!({"peerSelectors": [{"matchLabels": {"no": "body"}}], "routes": {"med": 1}})))
        .await?;
    cluster.wait_for_event(CONFIG_NAMESPACE, "nobody", &["Warning ConfigurationWarning", "selects no BGPPeer"]).await?;
    // Speakers alone read Secrets.
    let key = json!({"sendID": 1, "receiveID": 1, "secret": {"name": "no-key"}});
    let spec = json!({"peers": ["ghost"], "session": {"tcpAO": {"keys": [key]}}});
    cluster.apply(&policy("keyless", spec)).await?;
    cluster
        .wait_for_event(CONFIG_NAMESPACE, "keyless", &["Warning", "secret.name", "no-key", "does not exist"])
        .await?;
    let explained = bed.lab.plane.kubectl(&["explain", "bgppeerpolicy.spec.routes.linkBandwidth.unit"], None)?;
    ensure!(explained.contains("100Mbps"), "{explained}");
    for name in ["a-younger", "b-older", "nobody", "keyless"] {
        cluster.delete(&policy(name, json!({}))).await?;
    }
    Ok(())
}

async fn statuses_say_what_is_announced_and_are_silent_at_rest(bed: &mut Bed) -> Result<()> {
    for node in NODES {
        bed.wait_for_status(node, "all is well", |s| {
            s["peersUp"] == "3/3" && s["announced"] == 1 && s["problem"].is_null() && s["drained"] == false
        })
        .await?;
    }
    let status = bed.statuses().await?.remove("n1").context("no status")?;
    let peer = status["peers"].as_array().and_then(|peers| peers.iter().find(|p| p["name"] == "bird4"));
    let peer = peer.context("no bird4")?;
    ensure!(peer["state"] == "Established" && peer["asn"] == 64_500 && peer["announced"]["IPv4"] == 1, "{peer}");
    let list = bed.lab.cluster.speaker_statuses().await?;
    for status in &list {
        let owner = status.metadata.owner_references.as_ref().and_then(|o| o.first()).context("no owner")?;
        ensure!(owner.kind == "Node" && Some(&owner.name) == status.metadata.name.as_ref(), "{owner:?}");
    }
    let shown = bed.lab.plane.kubectl(&["get", "speakerstatuses", "-n", CONFIG_NAMESPACE], None)?;
    ensure!(shown.starts_with("NAME") && shown.contains("PEERS") && shown.contains("3/3"), "{shown}");

    let writes = |bed: &Bed| -> Result<usize> {
        let requests = audit::requests(&bed.lab.plane)?;
        Ok(requests.iter().filter(|r| r.is_write() && r.resource.starts_with("speakerstatuses")).count())
    };
    // The policies of the case before are still being told, one write a period: rest begins after the last.
    let mut before = writes(bed)?;
    for _ in 0..LAST_WRITES_MAX {
        pause(WRITE_PERIOD + MARGIN).await;
        let now = writes(bed)?;
        if now == std::mem::replace(&mut before, now) {
            break;
        }
    }
    pause(REST).await;
    ensure!(writes(bed)? == before, "{} writes at rest", writes(bed)? - before);

    let second = Service::named("second");
    bed.lab.apply_service(&second, &NODES).await?;
    for node in NODES {
        bed.wait_for_status(node, "two are announced", |s| s["announced"] == 2).await?;
    }
    ensure!(writes(bed)? - before <= 2 * NODES.len(), "{} writes for one Service", writes(bed)? - before);
    bed.lab.cluster.delete(&second.object()).await
}

async fn a_drained_node_says_so_to_the_routers_and_in_its_status(bed: &mut Bed) -> Result<()> {
    let address = bed.address.clone();
    bed.wait_for_paths(&address, (0, NODES.len())).await?;
    let answer = bed.lab.speakers[0].send("POST", "/v1/drain")?;
    ensure!(answer == r#"{"drained":true}"#, "{answer}");
    bed.wait_for_paths(&address, (1, NODES.len())).await?;
    bed.wait_for_status("n1", "it is drained", |s| s["drained"] == true).await?;
    let late = Service::named("late");
    bed.lab.apply_service(&late, &NODES).await?;
    let late_address = bed.lab.cluster.wait_for_addresses("default", "late", 1).await?.remove(0);
    bed.wait_for_paths(&late_address, (1, NODES.len())).await?;
    bed.lab.speakers[0].send("DELETE", "/v1/drain")?;
    ensure!(bed.lab.speakers[0].get("/v1/drain")? == r#"{"drained":false}"#);
    bed.wait_for_paths(&address, (0, NODES.len())).await?;
    bed.wait_for_paths(&late_address, (0, NODES.len())).await?;
    bed.lab.cluster.delete(&late.object()).await
}

async fn a_speaker_ends_as_node_and_daemon_set_say(bed: &mut Bed) -> Result<()> {
    bed.lab.speakers[0].set_arguments(&["--drain-time", "1s"]);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    bed.end(&["may be kept", "a restart"]).await?;
    bed.start_again().await?;

    bed.lab.speakers[0].send("POST", "/v1/drain")?;
    bed.end(&["withdrawn", "drained by command"]).await?;
    bed.start_again().await?;

    let not_ready = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "x", "message": "x"}]});
    bed.lab.cluster.merge_status(&node, &not_ready).await?;
    bed.end(&["withdrawn", "is not ready"]).await?;
    bed.lab.cluster.merge_status(&node, &json!({"conditions": null})).await?;
    bed.start_again().await?;

    let label = |value: Value| json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": value}}});
    bed.lab.cluster.merge(&node, &label(json!(""))).await?;
    bed.end(&["withdrawn", "excluded"]).await?;
    bed.lab.cluster.merge(&node, &label(Value::Null)).await?;
    bed.start_again().await?;

    bed.lab.cluster.delete(&node).await?;
    bed.end(&["withdrawn", "Node does not exist"]).await?;
    register_nodes(&bed.lab.cluster).await?;
    bed.start_again().await?;

    let set = ["delete", "daemonset", "ferrocast-speaker", "-n", "ferrocast-system"];
    bed.lab.plane.kubectl(&set, None)?;
    bed.end(&["withdrawn", "DaemonSet does not exist"]).await?;
    bed.lab.plane.install_ferrocast()?;
    bed.start_again().await
}

async fn routes_are_announced_again_while_the_api_server_is_away(bed: &mut Bed) -> Result<()> {
    let (route, state) = (host_route(&bed.address), bed.dir.join("state"));
    bed.lab.speakers[0].set_arguments(&["--state-dir", &state.display().to_string()]);
    bed.lab.speakers[0].process().kill()?;
    bed.start_again().await?;
    eventually("what is announced is saved", CONVERGENCE_TIME_MAX, async || {
        let saved = std::fs::read_to_string(state.join("announced.json"))?;
        ensure_that(saved.contains(&route), || "not yet".to_owned())
    })
    .await?;
    bed.lab.plane.stop_api()?;
    bed.lab.speakers[0].process().kill()?;
    bed.lab.wait_for_hops(&route, &["n2", "n3"]).await?;
    bed.lab.speakers[0].restart()?;
    let again = bed.lab.wait_for_hops(&route, &NODES).await;
    bed.end(&["may be kept", "did not answer"]).await?;
    bed.lab.plane.start_api().await?;
    again?;
    ensure!(bed.lab.speakers[0].log()?.contains("announcing what was before the restart"), "it does not say so");
    bed.start_again().await
}

async fn a_cluster_without_our_own_types_is_served(bed: &mut Bed) -> Result<()> {
    let crds = in_repository("deploy/crds/ferrocast.io.yaml").display().to_string();
    bed.lab.plane.kubectl(&["delete", "-f", &crds], None)?;
    let from = bed.lab.speakers[0].log()?.len();
    bed.lab.speakers[0].process().kill()?;
    bed.start_again().await?;
    let log = bed.lab.speakers[0].log()?;
    ensure!(log[from..].contains("lacks this resource type"), "it does not say so");
    bed.lab.plane.kubectl(&["apply", "--server-side", "-f", &crds], None).map(drop)
}
