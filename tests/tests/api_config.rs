//! Configuration objects that are in another place than expected, that ask for what is not there yet, or that need a Secret;
//! and who may ask a role what.

mod api;

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use api::{HOST, Site, World, end, wait_for_log};
use ferrocast_tests::ferrocast::{Ferrocast, binary};
use ferrocast_tests::lab::CONVERGENCE_TIME_MAX;
use ferrocast_tests::objects::{SYSTEM_NAMESPACE, advertisement, config};
use ferrocast_tests::process::{Process, command, free_port, run, sh};
use ferrocast_tests::wait::eventually;
use ferrocast_tests::{cases, runner};
use serde_json::{Value, json};

/// The highest port a BGPPeer may name.
const PEER_PORT_MAX: u16 = 16_384;

fn main() -> ExitCode {
    let cases = cases![
        configuration_in_another_namespace_is_warned_about_by_its_name,
        a_peer_without_its_bfd_profile_is_told_about_until_there_is_one,
        a_missing_secret_is_told_once_and_the_peer_dialled_when_it_comes,
        a_deleted_secret_leaves_its_password_in_use,
        metrics_and_health_are_for_everybody_and_details_for_loopback_only,
    ];
    runner::main::<World>("api_config", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// Waits until this many objects of these kinds are logged as read.
async fn wait_for_counts(role: &Ferrocast, counts: &[&str]) -> Result<()> {
    let words: Vec<&str> = ["configuration read"].into_iter().chain(counts.iter().copied()).collect();
    wait_for_log(role, &words).await.map(drop)
}

/// Runs first: nobody else has configuration yet.
async fn configuration_in_another_namespace_is_warned_about_by_its_name(world: &mut World) -> Result<()> {
    let (right, wrong) = (world.site("right-place").await?, world.site("wrong-place").await?);
    right.give_pool("one", &["192.0.2.0/28"]).await?;
    right.give_pool("two", &["192.0.2.16/28"]).await?;
    world.cluster.apply(&advertisement(&right.name, "all")).await?;
    let (controller, speaker) = (world.controller(&wrong, "0").await?, world.speaker(&wrong, 1).await?);
    for role in [&controller, &speaker] {
        wait_for_counts(role, &["0 IPAddressPool", "0 BGPPeer", "0 BGPAdvertisement", "0 Community"]).await?;
        for kind in ["IPAddressPool", "BGPAdvertisement"] {
            let words = ["WARN", kind, "another namespace", "wrong-place", "right-place"];
            wait_for_log(role, &words).await?;
        }
    }
    end([controller, speaker]).await?;
    let (controller, speaker) = (world.controller(&right, "0").await?, world.speaker(&right, 1).await?);
    for role in [&controller, &speaker] {
        wait_for_counts(role, &["2 IPAddressPool", "0 BGPPeer", "1 BGPAdvertisement", "0 Community"]).await?;
        ensure!(!role.log()?.contains("another namespace"), "warned although all is in place");
    }
    end([controller, speaker]).await
}

/// A listening socket of the test, and a peer there.
fn listening_peer(site: &Site, name: &str, extra: Value) -> Result<(TcpListener, Value)> {
    let listener = (1_791..=PEER_PORT_MAX).find_map(|port| TcpListener::bind((HOST, port)).ok());
    let listener = listener.context("every port is taken")?;
    listener.set_nonblocking(true)?;
    let mut spec = json!({
        "myASN": 64_512, "peerASN": 64_513, "peerAddress": HOST, "peerPort": listener.local_addr()?.port(),
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    Ok((listener, config(&site.name, "BGPPeer", name, spec)))
}

async fn wait_until_dialled(name: &str, listener: &TcpListener) -> Result<()> {
    eventually(&format!("{name} is dialled"), CONVERGENCE_TIME_MAX, async || {
        listener.accept().map(drop).context("nobody connects")
    })
    .await
}

async fn a_peer_without_its_bfd_profile_is_told_about_until_there_is_one(world: &mut World) -> Result<()> {
    let site = world.site("profiles").await?;
    let (listener, peer) = listening_peer(&site, "watched", json!({"bfdProfile": "fast"}))?;
    world.cluster.apply(&peer).await?;
    let (controller, speaker) = (world.controller(&site, "0").await?, world.speaker(&site, 1).await?);
    let words = ["Warning ConfigurationError", "spec.bfdProfile", "non existing bfd profile fast", "not dialled"];
    site.wait_for_event("watched", &words).await?;
    world.cluster.apply(&config(&site.name, "BFDProfile", "fast", json!({"transmitInterval": 500}))).await?;
    wait_for_log(&speaker, &["configuration problem is gone", "non existing bfd profile fast"]).await?;
    wait_until_dialled("watched", &listener).await?;
    end([controller, speaker]).await
}

/// Waits until a speaker's session with a peer is like this.
async fn wait_for_session(speaker: &Ferrocast, peer: &str, fits: &dyn Fn(&Value) -> bool) -> Result<()> {
    eventually(&format!("the session with {peer} is as wanted"), CONVERGENCE_TIME_MAX, async || {
        let document: Value = serde_json::from_str(&speaker.get("/v1/bgp")?)?;
        let peers = document["peers"].as_array().cloned().unwrap_or_default();
        let found = peers.iter().find(|found| found["peer"] == peer).context("not listed")?;
        ensure!(fits(found), "it is {found}");
        Ok(())
    })
    .await
}

fn last_error(session: &Value) -> &str {
    session["lastError"].as_str().unwrap_or_default()
}

fn secret(site: &Site, kind: &str) -> Value {
    let metadata = json!({"namespace": site.name, "name": "bgp"});
    let data = json!({"username": "", "password": "tell-nobody"});
    json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "stringData": data})
}

/// Connections to a listening socket that wait for an answer: a listener that knows no password gives none to who has one.
fn attempts(listener: &TcpListener) -> Result<usize> {
    let port = listener.local_addr()?.port();
    Ok(sh(&format!("ss -tnH state syn-sent dst {HOST} dport = :{port}"))?.lines().count())
}

async fn wait_for_attempts(listener: &TcpListener, count: usize) -> Result<()> {
    eventually(&format!("{count} speakers dial with a password"), CONVERGENCE_TIME_MAX, async || {
        let found = attempts(listener)?;
        ensure!(found == count, "{found} do");
        Ok(())
    })
    .await
}

async fn a_missing_secret_is_told_once_and_the_peer_dialled_when_it_comes(world: &mut World) -> Result<()> {
    let site = world.site("secret").await?;
    let (listener, peer) = listening_peer(&site, "guarded", json!({"passwordSecret": {"name": "bgp"}}))?;
    world.cluster.apply(&peer).await?;
    let (controller, one) = (world.controller(&site, "0").await?, world.speaker(&site, 1).await?);
    let other = world.speaker(&site, 2).await?;
    let missing = ["ConfigurationError", "passwordSecret", "\"bgp\"", "not dialled until there is a password"];
    site.wait_for_event("guarded", &missing).await?;
    for speaker in [&one, &other] {
        wait_for_log(speaker, &["ERROR", "guarded", "passwordSecret", "\"bgp\""]).await?;
        wait_for_session(speaker, "guarded", &|session| last_error(session).contains("does not exist")).await?;
    }
    // A Secret of another type does not do; the Event says of which type it has to be.
    world.cluster.apply(&secret(&site, "Opaque")).await?;
    let told = site.events("guarded", &["passwordSecret"]).await?;
    ensure!(told.len() == 1 && told[0].contains("kubernetes.io/basic-auth"), "told {told:#?}");
    ensure!(attempts(&listener)? == 0, "dialled");

    world.cluster.delete(&secret(&site, "Opaque")).await?;
    world.cluster.apply(&secret(&site, "kubernetes.io/basic-auth")).await?;
    for speaker in [&one, &other] {
        wait_for_session(speaker, "guarded", &|session| !last_error(session).contains("Secret")).await?;
    }
    wait_for_attempts(&listener, 2).await?;
    let told = site.events("guarded", &[]).await?;
    ensure!(told.len() == 1, "told {told:#?}");
    for role in [&controller, &one, &other] {
        ensure!(!role.log()?.contains("tell-nobody"), "a password is logged");
        ensure!(!role.get("/metrics")?.contains("tell-nobody"), "a password is in the metrics");
    }
    end([controller, one, other]).await
}

async fn a_deleted_secret_leaves_its_password_in_use(world: &mut World) -> Result<()> {
    let site = world.site("deleted-secret").await?;
    let (listener, peer) = listening_peer(&site, "guarded", json!({"passwordSecret": {"name": "bgp"}}))?;
    let basic = secret(&site, "kubernetes.io/basic-auth");
    world.cluster.apply_all(&[basic.clone(), peer]).await?;
    let speaker = world.speaker(&site, 1).await?;
    wait_for_attempts(&listener, 1).await?;
    world.cluster.delete(&basic).await?;
    site.wait_for_event("guarded", &["ConfigurationError", "\"bgp\"", "the last password read stays in use"]).await?;
    wait_for_session(&speaker, "guarded", &|session| !last_error(session).contains("Secret")).await?;
    wait_for_attempts(&listener, 1).await?;
    end([speaker]).await
}

/// The HTTP status of a GET from `source` to `target`.
fn status(source: &str, target: &str, port: u16, path: &str) -> Result<String> {
    let url = format!("http://{target}:{port}{path}");
    let format = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", "--globoff", "--interface", source];
    run(command(None, Path::new("curl")).args(format).arg(&url))
}

async fn metrics_and_health_are_for_everybody_and_details_for_loopback_only(world: &mut World) -> Result<()> {
    let site = world.site("http").await?;
    let (_, peer) = listening_peer(&site, "peer", json!({}))?;
    world.cluster.apply(&peer).await?;
    for (account, arguments, details) in [
        ("ferrocast-controller", &["controller", "--lease-namespace", SYSTEM_NAMESPACE][..], &["/v1/allocations"][..]),
        ("ferrocast-speaker", &["speaker", "--node-name", "http-n1"][..], &["/v1/decisions", "/v1/bgp"][..]),
    ] {
        // Not by the harness, which listens on loopback only.
        let kubeconfig = world.plane.token_kubeconfig(SYSTEM_NAMESPACE, account).await?;
        let port = free_port()?;
        let mut role = command(None, &binary()?);
        role.args(arguments).args(["--namespace", &site.name, "--load-balancer-class", &site.class]);
        role.args(["--http", &format!("[::]:{port}")]).arg("--kubeconfig").arg(kubeconfig);
        let mut role = Process::start(&format!("http-{account}"), &world.dir, &mut role)?;
        eventually("it answers", CONVERGENCE_TIME_MAX, async || {
            role.ensure_running()?;
            status(HOST, HOST, port, "/healthz").map(drop)
        })
        .await?;
        let everywhere = [(HOST, HOST), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")];
        for (source, target) in everywhere {
            for path in ["/healthz", "/metrics"] {
                let found = status(source, target, port, path)?;
                ensure!(found == "200", "{account} answers {source} about {path} with {found}");
            }
            for path in details {
                let wanted = if source == HOST { "403" } else { "200" };
                let found = status(source, target, port, path)?;
                ensure!(found == wanted, "{account} answers {source} about {path} with {found}");
            }
        }
        role.terminate().await?;
    }
    Ok(())
}
