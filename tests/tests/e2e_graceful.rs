//! Graceful restart with traffic on it: what a restart, an upgrade and an outage of the API server do to connections and to
//! the routers' kernels (nothing), and what the end of a node does (all its routes go, in order).

#[path = "e2e_graceful/bed.rs"]
mod bed;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use bed::{Bed, state_dir};
use ferrocast_tests::ferrocast::Ferrocast;
use ferrocast_tests::lab::{
    CONVERGENCE_TIME_MAX, NODES, base_configuration, host_route, register_nodes, with_graceful_restart,
};
use ferrocast_tests::objects::Service;
use ferrocast_tests::wait::{Stopwatch, ensure_that, eventually, pause, throughout};
use ferrocast_tests::{cases, runner};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let cases = cases![
        speakers_are_upgraded_and_killed_under_traffic,
        speakers_restart_under_traffic_while_the_api_server_is_away,
        a_node_that_goes_is_drained_and_then_forgotten_by_both_routers,
        what_was_saved_elsewhere_or_long_ago_is_not_announced,
    ];
    runner::main::<Bed>("e2e_graceful", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// How long a speaker is away at least: about what a new container takes to start.
const AWAY: Duration = Duration::from_secs(2);

/// How a speaker is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Terminated,
    Killed,
}

/// What BIRD says of a path that is about to go away. Source: RFC 8326 §4.
const GRACEFUL_SHUTDOWN: &str = "(65535,0)";
/// Keeps a node out of load balancing.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// How long what is saved counts, as the speakers have it.
const RESTART_TIME: Duration = Duration::from_secs(120);
/// With what each session of a node that goes is closed: Administrative Shutdown. (Neither router, as configured here, sets the
/// N bit, which asks for a hard reset.)
const LAST_WORDS: [(&str, &str); 3] = [("bird4", "6/2"), ("bird6", "6/2"), ("frr", "6/2")];
/// A speaker that could announce what it has saved has done so by then: it waits a second.
const SILENCE: Duration = Duration::from_secs(4);

impl Bed {
    async fn stop(&mut self, index: usize, how: Stop, words: &[&str]) -> Result<()> {
        match how {
            Stop::Terminated => self.terminate(index, words).await.map(drop),
            Stop::Killed => self.lab.speakers[index].process().kill(),
        }
    }

    /// Stops a speaker, sees both routers keep its routes, and starts it again; returns the seconds until every peer has
    /// its routes again.
    async fn restart(&mut self, index: usize, how: Stop, words: &[&str], complete: bool) -> Result<f32> {
        self.stop(index, how, words).await?;
        self.wait_until_helped(1).await?;
        self.start(index, complete).await
    }

    /// Starts a speaker that has been away for a while; returns the seconds until every peer has its routes again.
    async fn start(&mut self, index: usize, complete: bool) -> Result<f32> {
        pause(AWAY).await;
        self.lab.speakers[index].restart()?;
        let began = Stopwatch::start();
        self.wait_for_peers(index, complete).await?;
        Ok(began.seconds())
    }

    /// Ends the first node's speaker for good, in these words: the routers learn that its routes are about to go away, then
    /// lose them, though they would keep them over a restart.
    async fn goes(&mut self, words: &[&str]) -> Result<()> {
        let from = self.lab.speakers[0].log()?.len();
        let began = Stopwatch::start();
        self.lab.speakers[0].process().signal("TERM")?;
        self.wait_until_drained_and_gone(began).await?;
        self.lab.speakers[0].process().ended().await?;
        let log = self.log_since(0, from)?;
        let said = log.lines().find(|line| line.contains("ending: ")).context("no line says how it ends")?;
        ensure!(words.iter().all(|word| said.contains(word)), "{words:?} expected: {said}");
        println!("     {words:?}");
        for (peer, notification) in LAST_WORDS {
            let closed = log.lines().find(|line| line.contains("session closed") && line.contains(peer));
            ensure!(closed.is_some_and(|line| line.contains(notification)), "{peer}, {notification}: {log}");
        }
        let state = state_dir(&self.dir, "n1").join("announced.json");
        ensure!(!state.exists(), "what was withdrawn is still on disk");
        self.wait_until_helped(0).await
    }

    /// The first node's routes, all of them, are first announced as about to go away, then gone at both routers.
    async fn wait_until_drained_and_gone(&self, began: Stopwatch) -> Result<()> {
        let routes: Vec<String> = self.addresses.iter().map(|address| host_route(address)).collect();
        let bird = &self.lab.bird;
        eventually("every path of the node drains", CONVERGENCE_TIME_MAX, async || {
            for route in &routes {
                let shown = bird.show(&format!("show route for {route} all"))?;
                let (draining, all) = (shown.matches(GRACEFUL_SHUTDOWN).count(), shown.matches("BGP.as_path").count());
                ensure!((draining, all) == (1, NODES.len()), "{route}: {draining} of {all} drain");
            }
            Ok(())
        })
        .await?;
        let drained = began.seconds();
        for route in &routes {
            self.lab.wait_for_hops(route, &["n2", "n3"]).await?;
        }
        println!("     draining at BIRD after {drained:.1} s, gone at both after {:.1} s", began.seconds());
        Ok(())
    }

    /// Starts the first node's speaker again.
    async fn comes(&mut self) -> Result<()> {
        self.lab.speakers[0].restart()?;
        self.wait_for_peers(0, true).await?;
        for address in &self.addresses {
            self.lab.wait_for_hops(&host_route(address), &NODES).await?;
        }
        Ok(())
    }
}

async fn speakers_are_upgraded_and_killed_under_traffic(bed: &mut Bed) -> Result<()> {
    let mut held = bed.hold("upgrade").await?;
    bed.lab.record_route_changes().await?;
    let upgrades = (0..NODES.len()).map(|index| (index, Stop::Terminated));
    for (index, how) in upgrades.chain([(1, Stop::Killed)]) {
        let seconds = bed.restart(index, how, &["may be kept", "a restart"], true).await?;
        bed.wait_until_helped(0).await?;
        println!("     {} {how:?}: all peers refreshed and told so {seconds:.1} s after its start", NODES[index]);
        bed.ensure_routes_untouched()?;
    }
    held.ensure_unbroken().await?;
    bed.ensure_nothing_flapped()?;
    bed.ensure_routes_untouched()
}

async fn speakers_restart_under_traffic_while_the_api_server_is_away(bed: &mut Bed) -> Result<()> {
    // One Service more, deleted while the first speaker is down: nobody tells that one before the API server is back.
    let deleted = Service::named("deleted");
    bed.lab.apply_service(&deleted, &NODES).await?;
    let address = bed.lab.cluster.wait_for_addresses("default", deleted.name, 1).await?.remove(0);
    let deleted_route = host_route(&address);
    bed.lab.wait_for_hops(&deleted_route, &NODES).await?;
    bed.addresses.push(address);
    for node in NODES {
        bed.wait_until_saved(node).await?;
    }
    bed.addresses.pop();
    let mut held = bed.hold("outage").await?;
    bed.lab.record_route_changes().await?;

    bed.terminate(0, &["may be kept", "a restart"]).await?;
    bed.lab.cluster.delete(&deleted.object()).await?;
    bed.lab.wait_for_hops(&deleted_route, &["n1"]).await?;
    bed.wait_until_saved_without("n2", &deleted_route).await?;
    bed.lab.plane.stop_api()?;
    bed.lab.speakers[0].restart()?;
    bed.wait_for_peers(0, false).await?;
    for (index, how) in [(1, Stop::Terminated), (2, Stop::Killed), (0, Stop::Terminated)] {
        let from = bed.lab.speakers[index].log()?.len();
        bed.stop(index, how, &["may be kept", "did not answer"]).await?;
        let seconds = bed.start(index, false).await?;
        println!("     {} {how:?}: all peers have the saved routes {seconds:.1} s after its start", NODES[index]);
        ensure!(bed.log_since(index, from)?.contains("announcing what was before the restart"), "it does not say so");
    }
    held.ensure_unbroken().await?;
    bed.ensure_routes_untouched()?;
    bed.lab.wait_for_hops(&deleted_route, &["n1"]).await?;

    for index in 0..NODES.len() {
        bed.wait_for_peers(index, false).await?;
    }
    let began = Stopwatch::start();
    bed.lab.plane.start_api().await?;
    println!("     the API server was ready {:.1} s after its start", began.seconds());
    for (index, node) in NODES.iter().enumerate() {
        bed.wait_for_peers(index, true).await?;
        println!("     {node}: End-of-RIB at most {:.1} s after that start", began.seconds());
    }
    bed.wait_until_helped(0).await?;
    bed.lab.wait_for_hops(&deleted_route, &[]).await?;
    bed.ensure_nothing_flapped()?;
    held.ensure_unbroken().await?;
    bed.ensure_routes_untouched()
}

async fn a_node_that_goes_is_drained_and_then_forgotten_by_both_routers(bed: &mut Bed) -> Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let state = state_dir(&bed.dir, "n1").display().to_string();
    bed.lab.speakers[0].set_arguments(&["--drain-time", "2s", "--state-dir", &state]);
    bed.restart(0, Stop::Terminated, &["may be kept", "a restart"], true).await?;

    let not_ready = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "x", "message": "x"}]});
    bed.lab.cluster.merge_status(&node, &not_ready).await?;
    bed.goes(&["withdrawn", "is not ready"]).await?;
    bed.lab.cluster.merge_status(&node, &json!({"conditions": null})).await?;
    bed.comes().await?;

    // The label alone, and the label while the speaker is told to end.
    let label = |value: Value| json!({"metadata": {"labels": {EXCLUDE_LABEL: value}}});
    let began = Stopwatch::start();
    bed.lab.cluster.merge(&node, &label(json!(""))).await?;
    bed.wait_until_drained_and_gone(began).await?;
    bed.lab.cluster.merge(&node, &label(Value::Null)).await?;
    for address in &bed.addresses {
        bed.lab.wait_for_hops(&host_route(address), &NODES).await?;
    }
    bed.lab.cluster.merge(&node, &label(json!(""))).await?;
    bed.goes(&["withdrawn", "excluded"]).await?;
    bed.lab.cluster.merge(&node, &label(Value::Null)).await?;
    bed.comes().await?;

    // Its finalizer keeps it in the state of being deleted, as a cloud's controller does.
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    bed.lab.cluster.merge(&node, &finalizers(json!(["tests.ferrocast.io/hold"]))).await?;
    bed.lab.plane.kubectl(&["delete", "node", "n1", "--wait=false"], None)?;
    bed.goes(&["withdrawn", "is being deleted"]).await?;
    bed.lab.cluster.merge(&node, &finalizers(Value::Null)).await?;
    register_nodes(&bed.lab.cluster).await?;
    bed.comes().await?;

    bed.lab.cluster.delete(&node).await?;
    bed.goes(&["withdrawn", "Node does not exist"]).await?;
    register_nodes(&bed.lab.cluster).await?;
    bed.comes().await?;

    // In the foreground it stays, being deleted, until its Pods are gone.
    let set = ["daemonset", "ferrocast-speaker", "-n", "ferrocast-system"];
    let delete = [&["delete"], &set[..], &["--cascade=foreground", "--wait=false"]].concat();
    bed.lab.plane.kubectl(&delete, None)?;
    bed.goes(&["withdrawn", "DaemonSet is being deleted"]).await?;
    let release = [&["patch"], &set[..], &["--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]].concat();
    bed.lab.plane.kubectl(&release, None)?;
    bed.comes().await?;
    bed.goes(&["withdrawn", "DaemonSet does not exist"]).await?;
    bed.lab.plane.install_ferrocast()?;
    bed.comes().await
}

async fn what_was_saved_elsewhere_or_long_ago_is_not_announced(bed: &mut Bed) -> Result<()> {
    // Without graceful restart, so that a route at a router is one that a speaker announces now.
    let graceful = with_graceful_restart(base_configuration());
    let peers: Vec<Value> = graceful.into_iter().filter(|object| object["kind"] == "BGPPeer").collect();
    bed.lab.cluster.delete_all(&peers).await?;
    bed.lab.cluster.apply_all(&base_configuration()).await?;
    for (index, node) in NODES.iter().enumerate() {
        bed.wait_until_not_graceful(index).await?;
        bed.wait_for_peers(index, true).await?;
        bed.wait_until_saved(node).await?;
    }

    bed.lab.plane.stop_api()?;
    bed.lab.speakers.iter_mut().try_for_each(|speaker| speaker.process().kill())?;
    for address in &bed.addresses {
        bed.lab.wait_for_hops(&host_route(address), &[]).await?;
    }
    // The first has nothing saved, the second what the third saved, the third what is too old.
    let [_, second, third] = NODES.map(|node| state_dir(&bed.dir, node).join("announced.json"));
    fs::copy(&third, &second)?;
    let old = SystemTime::now().checked_sub(RESTART_TIME + Duration::from_secs(1)).context("before 1970")?;
    fs::File::options().write(true).open(&third)?.set_modified(old)?;
    bed.lab.speakers[0].set_arguments(&[]);
    let from: Vec<usize> = bed.lab.speakers.iter().map(|s| Ok(s.log()?.len())).collect::<Result<_>>()?;
    bed.lab.speakers.iter_mut().try_for_each(Ferrocast::restart)?;
    let lab = &bed.lab;
    eventually("the speakers answer", CONVERGENCE_TIME_MAX, async || {
        lab.speakers.iter().try_for_each(|speaker| speaker.sessions().map(drop))
    })
    .await?;
    throughout("nothing is announced without the API server", SILENCE, async || {
        lab.speakers.iter().try_for_each(|s| ensure_that(s.sessions()?.is_empty(), || s.tail()))?;
        for router in lab.routers() {
            ensure!(router.prefixes()?.is_empty(), "{} has {:?}", router.netns, router.prefixes()?);
        }
        Ok(())
    })
    .await?;
    let said = |index: usize| bed.log_since(index, from[index]);
    for (index, why) in [(1, "it is of the node"), (2, "more than the restart time of 120 s")] {
        let log = said(index)?;
        let line = log.lines().find(|line| line.contains("ignoring what was announced before"));
        ensure!(line.is_some_and(|line| line.contains(why)), "{why:?} expected: {log}");
    }
    ensure!(!said(0)?.contains("announced before"), "{}", said(0)?);

    bed.lab.plane.start_api().await?;
    for index in 0..NODES.len() {
        bed.wait_for_peers(index, true).await?;
    }
    bed.wait_until_saved("n2").await?;
    for address in &bed.addresses {
        bed.lab.wait_for_hops(&host_route(address), &NODES).await?;
    }
    Ok(())
}
