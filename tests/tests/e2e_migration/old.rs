//! MetalLB as it stands before the migration: its Pods in the API, and GoBGP on each node in the role of its speaker.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use ferrocast_tests::cluster::Cluster;
use ferrocast_tests::kube::ControlPlane;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, NODES, SPEAKER_ASN, host_route};
use ferrocast_tests::objects::CONFIG_NAMESPACE;
use ferrocast_tests::process::{Process, command, run};
use ferrocast_tests::router::{BIRD_ASN, FRR_ASN, FRR_PASSWORD};
use ferrocast_tests::wait::eventually;
use serde_json::{Value, json};

/// How long the old speakers ask the routers to keep their routes, s: what MetalLB's FRR asks for.
const RESTART_TIME_S: u32 = 120;

/// A Pod of MetalLB, labelled as its manifests do.
fn pod(component: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": CONFIG_NAMESPACE, "name": format!("{component}-{node}"),
            "labels": {"app": "metallb", "component": component},
        },
        "spec": {"nodeName": node, "containers": [{"name": component, "image": "metallb"}]},
    })
}

/// What keeps the Pods: nothing in the lab acts on it, but the command changes it.
pub(crate) fn workloads() -> [Value; 2] {
    let workload = |kind: &str, component: &str, more: Value| {
        let labels = json!({"app": "metallb", "component": component});
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"namespace": CONFIG_NAMESPACE, "name": component},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": component, "image": "metallb"}]},
                },
            },
        });
        if let (Some(spec), Value::Object(more)) = (object["spec"].as_object_mut(), more) {
            spec.extend(more);
        }
        object
    };
    [workload("Deployment", "controller", json!({"replicas": 1})), workload("DaemonSet", "speaker", json!({}))]
}

/// Registers a Pod that runs.
pub(crate) async fn start_pod(cluster: &Cluster, component: &str, node: &str) -> Result<()> {
    let pod = pod(component, node);
    cluster.apply(&pod).await?;
    cluster.merge_status(&pod, &json!({"phase": "Running"})).await
}

/// Takes a Pod out of the API, as a kubelet does when its containers have ended.
pub(crate) fn remove_pod(plane: &ControlPlane, component: &str, node: &str) -> Result<()> {
    let pod = format!("{component}-{node}");
    let words = ["delete", "pod", &pod, "-n", CONFIG_NAMESPACE, "--force", "--grace-period=0", "--wait=false"];
    plane.kubectl(&words, None).map(drop)
}

/// The old speaker's configuration: both routers, from the node's own address.
fn configuration(number: usize, graceful_restart: bool) -> String {
    let own = format!("10.99.0.{number}");
    let mut text = format!("[global.config]\n  as = {SPEAKER_ASN}\n  router-id = \"{own}\"\n  port = -1\n");
    let (keeps, keeps_family) = match graceful_restart {
        false => (String::new(), ""),
        true => (
            format!("  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = {RESTART_TIME_S}\n"),
            "    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n",
        ),
    };
    for (address, asn, password) in [("10.99.0.11", BIRD_ASN, ""), ("10.99.0.12", FRR_ASN, FRR_PASSWORD)] {
        text.push_str(&format!(
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{address}\"\n    peer-as = {asn}\n    \
             auth-password = \"{password}\"\n  [neighbors.transport.config]\n    local-address = \"{own}\"\n  \
             [neighbors.timers.config]\n    connect-retry = 1\n    hold-time = 9\n    keepalive-interval = 3\n\
             {keeps}  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      \
             afi-safi-name = \"ipv4-unicast\"\n{keeps_family}"
        ));
    }
    text
}

/// Starts GoBGP on a node, and lets it announce these addresses with the node as next hop.
pub(crate) async fn start_speaker(
    dir: &Path,
    index: usize,
    addresses: &[String],
    graceful_restart: bool,
) -> Result<Process> {
    let node = NODES[index];
    let file = dir.join(format!("gobgpd-{node}.conf"));
    fs::write(&file, configuration(101 + index, graceful_restart))?;
    let mut gobgpd = command(Some(node), Path::new("gobgpd"));
    gobgpd.args(["--api-hosts", "127.0.0.1:50051", "-f"]).arg(&file);
    let speaker = Process::start(&format!("gobgpd-{node}"), dir, &mut gobgpd)?;
    for address in addresses {
        let route = host_route(address);
        let hop = format!("10.99.0.{}", 101 + index);
        eventually("GoBGP takes a route", CONVERGENCE_TIME_MAX, async || {
            let mut gobgp = command(Some(node), Path::new("gobgp"));
            run(gobgp.args(["global", "rib", "add", &route, "nexthop", &hop, "origin", "igp", "-a", "ipv4"])).map(drop)
        })
        .await
        .with_context(|| speaker.tail())?;
    }
    Ok(speaker)
}
