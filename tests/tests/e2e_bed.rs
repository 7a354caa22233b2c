//! The bed itself: what every other suite stands on works without the product.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, Lab, NODES};
use ferrocast_tests::objects::Service;
use ferrocast_tests::process::sh;
use ferrocast_tests::wait::eventually;
use ferrocast_tests::{cases, runner};
use serde_json::json;

fn main() -> ExitCode {
    let cases = cases![
        kubectl_applies_and_reads_an_object,
        a_service_account_may_do_only_what_deploy_grants,
        routers_answer_and_have_no_routes,
        kube_proxy_forwards_a_service_address_to_backends_of_all_nodes,
        an_outage_of_the_api_server_keeps_its_data,
    ];
    runner::main::<Lab>("e2e_bed", env!("CARGO_TARGET_TMPDIR"), cases)
}

async fn kubectl_applies_and_reads_an_object(lab: &mut Lab) -> Result<()> {
    let manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: tried, namespace: default}, data: {key: value}}";
    lab.plane.kubectl(&["apply", "-f", "-"], Some(manifest))?;
    let read = lab.plane.kubectl(&["get", "configmap", "tried", "-o", "jsonpath={.data.key}"], None)?;
    ensure!(read == "value", "read {read:?}");
    Ok(())
}

async fn a_service_account_may_do_only_what_deploy_grants(lab: &mut Lab) -> Result<()> {
    let can = |verb: &str, what: &str, account: &str| {
        let who = format!("system:serviceaccount:ferrocast-system:{account}");
        let (resource, part) = what.split_once('/').unwrap_or((what, ""));
        let part = format!("--subresource={part}");
        // kubectl answers "no" with a failure.
        lab.plane.kubectl(&["auth", "can-i", verb, resource, &part, "--as", &who, "-n", "default"], None).is_ok()
    };
    for (verb, what, account, granted) in [
        ("watch", "services", "ferrocast-controller", true),
        ("patch", "services/status", "ferrocast-controller", true),
        ("patch", "services", "ferrocast-controller", false),
        ("update", "services/status", "ferrocast-controller", false),
        ("get", "secrets", "ferrocast-controller", false),
        ("watch", "endpointslices.discovery.k8s.io", "ferrocast-speaker", true),
        ("patch", "services/status", "ferrocast-speaker", false),
        ("list", "secrets", "ferrocast-speaker", false),
        ("create", "pods", "ferrocast-speaker", false),
    ] {
        ensure!(can(verb, what, account) == granted, "{account} {verb} {what}: expected {granted}");
    }
    Ok(())
}

async fn routers_answer_and_have_no_routes(lab: &mut Lab) -> Result<()> {
    for router in lab.routers() {
        ensure!(router.prefixes()?.is_empty(), "{} has {:?}", router.netns, router.prefixes()?);
    }
    ensure!(lab.bird.show("show protocols")?.contains("dyn6"), "BIRD lacks its configuration");
    ensure!(lab.frr.show("show running-config")?.contains("bgp listen limit 200"), "FRR lacks its configuration");
    Ok(())
}

/// The status and the routes are written by hand here, as the product would.
async fn kube_proxy_forwards_a_service_address_to_backends_of_all_nodes(lab: &mut Lab) -> Result<()> {
    let service = Service::named("by-hand").dual_stack();
    lab.apply_service(&service, &NODES).await?;
    let addresses = ["10.50.0.1", "fd50::1"];
    let ingress = addresses.map(|ip| json!({ "ip": ip }));
    lab.cluster.merge_status(&service.object(), &json!({"loadBalancer": {"ingress": ingress}})).await?;
    for router in ["bird", "frr"] {
        let hops = |base: &str| ["1", "2", "3"].map(|node| format!("nexthop via {base}{node}")).join(" ");
        sh(&format!("ip -n {router} route add 10.50.0.1/32 {}", hops("10.99.0.10")))?;
        sh(&format!("ip -n {router} route add fd50::1/128 {}", hops("fd99::10")))?;
    }
    for address in addresses {
        lab.wait_for_backends(address, &NODES).await?;
    }
    let mut held = lab.hold_connection("held-by-hand", addresses[0])?;
    eventually("the held connection exchanges messages", CONVERGENCE_TIME_MAX, async || {
        held.ensure_running()?;
        ensure!(held.log()?.lines().count() > 3, "too few");
        Ok(())
    })
    .await
}

async fn an_outage_of_the_api_server_keeps_its_data(lab: &mut Lab) -> Result<()> {
    lab.plane.stop_api()?;
    ensure!(lab.cluster.service("default", "by-hand").await.is_err(), "the API server still answers");
    lab.plane.start_api().await?;
    lab.cluster.service("default", "by-hand").await.map(drop)
}
