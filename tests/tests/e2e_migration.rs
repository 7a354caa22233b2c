//! From MetalLB to Ferrocast under traffic, with GoBGP in the role of MetalLB's speakers: beside them, in their place where the
//! routers know graceful restart, and in their place where they do not. The suite plays the kubelet.

#[path = "e2e_migration/old.rs"]
mod old;
#[path = "e2e_migration/watch.rs"]
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::ferrocast::{Ferrocast, binary};
use ferrocast_tests::held::Held;
use ferrocast_tests::lab::{
    CONVERGENCE_TIME_MAX, Lab, NODES, base_configuration, hops, host_route, with_graceful_restart,
};
use ferrocast_tests::objects::{CONFIG_NAMESPACE, Service};
use ferrocast_tests::process::{Process, command, run, sh};
use ferrocast_tests::runner::Context;
use ferrocast_tests::wait::{ensure_that, eventually, throughout};
use ferrocast_tests::{audit, cases, runner};
use serde_json::{Value, json};
use watch::{Seen, Watching};

fn main() -> ExitCode {
    let cases = cases![
        a_controller_only_reads_while_metallbs_controller_lives,
        speakers_join_the_old_ones_from_a_second_address,
        speakers_take_over_node_by_node_without_graceful_restart,
        speakers_take_over_with_graceful_restart,
        the_command_changes_over_step_by_step,
    ];
    runner::main::<Bed>("e2e_migration", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// Connections of the client through each router.
const HELD_PER_ROUTER: usize = 50;
/// How long a controller is watched that must not write: it allocates within a second.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the whole change-over may take: each step waits for statuses that are written every few seconds.
const CHANGE_OVER_TIME_MAX: Duration = Duration::from_secs(120);
/// The BGPPeers.
const PEERS: [&str; 2] = ["bird4", "frr"];

struct Bed {
    lab: Lab,
    dir: PathBuf,
    /// Addresses of the standing Services, as MetalLB wrote them.
    addresses: Vec<String>,
    old: Vec<Process>,
}

/// The lab's configuration with IPv4 sessions only.
fn configuration(graceful: bool) -> Vec<Value> {
    let mut objects = base_configuration();
    objects.retain(|object| object["metadata"]["name"] != "bird6");
    for peer in objects.iter_mut().filter(|object| object["metadata"]["name"] == "frr" && object["kind"] == "BGPPeer") {
        peer["spec"]["dualStackAddressFamily"] = json!(false);
    }
    if graceful { with_graceful_restart(objects) } else { objects }
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let lab = Lab::start(dir).await?;
        lab.cluster.apply_all(&configuration(false)).await?;
        lab.route_client_by_source()?;
        let mut bed = Self { lab, dir: dir.to_owned(), addresses: vec![], old: vec![] };
        // Not in the order in which a controller would give them out.
        for (service, address) in
            [(Service::named("cluster"), "10.50.0.9"), (Service::named("local").local(), "10.50.0.7")]
        {
            let service = service.annotated("metallb.io/ip-allocated-from-pool", "lab");
            bed.lab.apply_service(&service, &NODES).await?;
            let status = json!({"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}});
            bed.lab.cluster.merge_status(&service.object(), &status).await?;
            bed.addresses.push(address.to_owned());
        }
        old::start_pod(&bed.lab.cluster, "controller", "n1").await?;
        bed.start_old_speakers(false).await?;
        bed.lab.start_ferrocast(1).await?;
        Ok(bed)
    }

    fn diagnose(&self) -> String {
        let old: String = self.old.iter().map(Process::tail).collect();
        format!("{}{old}", self.lab.diagnose())
    }
}

impl Bed {
    /// MetalLB's speakers on all nodes, their routes at both routers.
    async fn start_old_speakers(&mut self, graceful: bool) -> Result<()> {
        self.old.clear();
        for (index, name) in NODES.iter().enumerate() {
            old::start_pod(&self.lab.cluster, "speaker", name).await?;
            self.old.push(old::start_speaker(&self.dir, index, &self.addresses, graceful).await?);
        }
        for address in &self.addresses {
            self.lab.wait_for_hops(&host_route(address), &NODES).await?;
            self.lab.wait_for_backends(address, &NODES).await?;
        }
        Ok(())
    }

    /// Back to MetalLB's speakers, with Ferrocast's waiting beside them.
    async fn begin(&mut self, graceful: bool) -> Result<()> {
        let mut peers = configuration(graceful);
        peers.retain(|object| object["kind"] == "BGPPeer");
        // Routers keep no routes of a peer that leaves the configuration; graceful restart cannot be changed in a BGPPeer.
        self.lab.cluster.delete_all(&peers).await?;
        for address in &self.addresses {
            self.lab.wait_for_hops(&host_route(address), &[]).await?;
        }
        self.lab.speakers.iter_mut().try_for_each(|speaker| speaker.process().kill())?;
        self.lab.cluster.apply_all(&configuration(graceful)).await?;
        self.start_old_speakers(graceful).await?;
        self.lab.speakers.iter_mut().try_for_each(Ferrocast::restart)?;
        for speaker in &mut self.lab.speakers {
            speaker.wait_until_ready().await?;
        }
        for index in 0..NODES.len() {
            self.wait_until_it_waits(index).await?;
        }
        Ok(())
    }

    /// A node's speaker has no session, and its status says for whom it waits.
    async fn wait_until_it_waits(&self, index: usize) -> Result<()> {
        eventually("a speaker waits for the old one", CONVERGENCE_TIME_MAX, async || {
            ensure!(self.lab.speakers[index].sessions()?.is_empty(), "it has sessions");
            let statuses = self.lab.cluster.speaker_statuses().await?;
            let own = statuses.iter().find(|status| status.metadata.name.as_deref() == Some(NODES[index]));
            let problem = own.and_then(|status| status.data["status"]["problem"].as_str()).unwrap_or_default();
            ensure_that(problem.contains(&format!("speaker-{}", NODES[index])), || format!("it says {problem:?}"))
        })
        .await
        .with_context(|| self.lab.speakers[index].tail())
    }

    /// A node's speaker has a session with each router and has told it all routes.
    async fn wait_for_sessions(&self, index: usize) -> Result<()> {
        let speaker = &self.lab.speakers[index];
        eventually("a speaker's sessions are up", CONVERGENCE_TIME_MAX, async || {
            let sessions = speaker.sessions()?;
            ensure!(sessions.len() == PEERS.len(), "{} sessions", sessions.len());
            let complete = |session: &Value| session["announced"] == 2 && !session["endOfRIBSentAt"].is_null();
            ensure_that(sessions.iter().all(complete), || format!("{sessions:?}"))
        })
        .await
        .with_context(|| speaker.tail())
    }

    /// The first standing Service's route at both routers, from now on.
    fn watch(&self) -> Vec<Watching> {
        let route = host_route(&self.addresses[0]);
        self.lab.routers().map(|router| Watching::start(router.netns, route.clone())).into()
    }

    /// The routers' kernels have every node as next hop, and have never lost a prefix. Returns what was seen.
    fn ensure_prefixes_stayed(&self, watching: Vec<Watching>) -> Result<Vec<Seen>> {
        let seen: Vec<Seen> = watching.into_iter().map(Watching::end).collect::<Result<_>>()?;
        for (router, seen) in self.lab.routers().into_iter().zip(&seen) {
            ensure!(!seen.ever_empty(), "{} lost the prefix", router.netns);
            for route in self.addresses.iter().map(|address| host_route(address)) {
                ensure!(router.next_hops(&route)? == hops(&NODES, &route), "{} to {route}", router.netns);
            }
        }
        Ok(seen)
    }

    /// No kernel changed anything about a standing Service's route since the recording began.
    fn ensure_routes_untouched(&self) -> Result<()> {
        for router in self.lab.routers() {
            for route in self.addresses.iter().map(|address| host_route(address)) {
                let changes = router.route_changes(&route)?;
                ensure!(changes.is_empty(), "{} changed {route}: {changes:#?}", router.netns);
            }
        }
        Ok(())
    }

    /// Ends a node's old speaker as `kill -9` does, and its Pod, whose end lets Ferrocast dial.
    fn end_old_speaker(&mut self, index: usize) -> Result<()> {
        self.old[index].kill()?;
        old::remove_pod(&self.lab.plane, "speaker", NODES[index])
    }
}

async fn a_controller_only_reads_while_metallbs_controller_lives(bed: &mut Bed) -> Result<()> {
    let waiting = Service::named("waiting");
    bed.lab.apply_service(&waiting, &NODES).await?;
    let writes = |lab: &Lab| -> Result<Vec<audit::Request>> {
        let mut requests = audit::requests(&lab.plane)?;
        requests.retain(|request| request.account == "ferrocast-controller" && request.is_write());
        Ok(requests)
    };
    throughout("the controller only reads", SILENCE, async || {
        let written = writes(&bed.lab)?;
        ensure_that(written.is_empty(), || format!("{written:#?}"))
    })
    .await?;
    let allocations: Value = serde_json::from_str(&bed.lab.controllers[0].get("/v1/allocations")?)?;
    ensure!(allocations["waitsFor"] == json!(["controller-n1"]), "{allocations}");
    for index in 0..NODES.len() {
        bed.wait_until_it_waits(index).await?;
    }

    old::remove_pod(&bed.lab.plane, "controller", "n1")?;
    bed.lab.cluster.wait_for_addresses("default", "waiting", 1).await?;
    for (name, address) in ["cluster", "local"].iter().zip(&bed.addresses) {
        ensure!(bed.lab.cluster.addresses("default", name).await? == [address.clone()], "{name} moved");
    }
    bed.lab.cluster.delete(&waiting.object()).await?;

    // It comes back: no write any more, the Lease is given up.
    old::start_pod(&bed.lab.cluster, "controller", "n1").await?;
    eventually("the controller gives way", CONVERGENCE_TIME_MAX, async || {
        let allocations: Value = serde_json::from_str(&bed.lab.controllers[0].get("/v1/allocations")?)?;
        ensure_that(allocations["leading"] == false, || allocations.to_string())
    })
    .await?;
    old::remove_pod(&bed.lab.plane, "controller", "n1")?;
    eventually("the controller leads again", CONVERGENCE_TIME_MAX, async || {
        let allocations: Value = serde_json::from_str(&bed.lab.controllers[0].get("/v1/allocations")?)?;
        ensure_that(allocations["leading"] == true, || allocations.to_string())
    })
    .await
}

async fn speakers_join_the_old_ones_from_a_second_address(bed: &mut Bed) -> Result<()> {
    let mut held = Held::open(&bed.lab, "beside", &bed.addresses, HELD_PER_ROUTER).await?;
    bed.lab.record_route_changes().await?;
    let watching = bed.watch();
    for (index, name) in NODES.iter().enumerate() {
        let second = format!("10.99.0.{}", 201 + index);
        sh(&format!("ip -n {name} addr add {second}/24 dev eth0"))?;
        let annotation = json!({"metadata": {"annotations": {"ferrocast.io/bgp-source-addresses": second}}});
        bed.lab.cluster.merge(&node(name), &annotation).await?;
        bed.wait_for_sessions(index).await?;
        for session in bed.lab.speakers[index].sessions()? {
            ensure!(session["localAddress"] == second, "{session}");
        }
    }
    for index in 0..NODES.len() {
        bed.end_old_speaker(index)?;
    }
    eventually("BIRD has forgotten the old speakers", CONVERGENCE_TIME_MAX, async || {
        let route = host_route(&bed.addresses[0]);
        let paths = bed.lab.bird.show(&format!("show route for {route} all"))?.matches("BGP.as_path").count();
        ensure_that(paths == NODES.len(), || format!("{paths} paths"))
    })
    .await?;
    held.ensure_unbroken().await?;
    for (router, seen) in bed.lab.routers().into_iter().zip(bed.ensure_prefixes_stayed(watching)?) {
        println!("     {}: the set of next hops changed {} times", router.netns, seen.changes());
        ensure!(seen.changes() == 0, "{} changed its next hops", router.netns);
    }
    bed.ensure_routes_untouched()?;
    drop(held);
    for (index, name) in NODES.iter().enumerate() {
        let annotation = json!({"metadata": {"annotations": {"ferrocast.io/bgp-source-addresses": null}}});
        bed.lab.cluster.merge(&node(name), &annotation).await?;
        sh(&format!("ip -n {name} addr del 10.99.0.{}/24 dev eth0", 201 + index))?;
    }
    Ok(())
}

async fn speakers_take_over_node_by_node_without_graceful_restart(bed: &mut Bed) -> Result<()> {
    bed.begin(false).await?;
    bed.lab.record_route_changes().await?;
    for (index, name) in NODES.iter().enumerate() {
        let watching = bed.watch();
        bed.end_old_speaker(index)?;
        bed.wait_for_sessions(index).await?;
        for address in &bed.addresses {
            bed.lab.wait_for_hops(&host_route(address), &NODES).await?;
        }
        let own = format!("10.99.0.{}", 101 + index);
        for (router, seen) in bed.lab.routers().into_iter().zip(bed.ensure_prefixes_stayed(watching)?) {
            println!("     {name} at {}: absent for {:.2} s", router.netns, seen.longest_absence(&own));
        }
    }
    Ok(())
}

async fn speakers_take_over_with_graceful_restart(bed: &mut Bed) -> Result<()> {
    bed.begin(true).await?;
    let mut held = Held::open(&bed.lab, "take-over", &bed.addresses, HELD_PER_ROUTER).await?;
    bed.lab.record_route_changes().await?;
    let watching = bed.watch();
    for index in 0..NODES.len() {
        bed.end_old_speaker(index)?;
        bed.wait_for_sessions(index).await?;
        bed.ensure_routes_untouched()?;
    }
    // What BIRD read in the OPENs: R, and F of the family.
    let told = bed.lab.bird.show("show protocols all")?;
    for words in ["Restart recovery", "AF preserved: ipv4"] {
        ensure!(told.matches(words).count() == NODES.len(), "{words:?} expected of every node: {told}");
    }
    eventually("the routers help nobody any more", CONVERGENCE_TIME_MAX, async || {
        for router in bed.lab.routers() {
            ensure!(router.helped()? == 0, "{} does", router.netns);
        }
        Ok(())
    })
    .await?;
    held.ensure_unbroken().await?;
    for (router, seen) in bed.lab.routers().into_iter().zip(bed.ensure_prefixes_stayed(watching)?) {
        ensure!(seen.changes() == 0, "{} changed its next hops", router.netns);
    }
    bed.ensure_routes_untouched()
}

impl Bed {
    /// `ferrocast migrate` with these arguments, as the administrator.
    fn migrate(&self, arguments: &[&str]) -> Result<std::process::Command> {
        let mut migrate = command(None, &binary()?);
        migrate.arg("migrate").args(arguments).arg("--kubeconfig").arg(self.lab.plane.admin_kubeconfig());
        Ok(migrate)
    }

    /// What controllers and kubelets do: no Pod of a Deployment without replicas, none that is told to end.
    async fn play_kubelet(&mut self) -> Result<()> {
        let plane = &self.lab.plane;
        let replicas = plane.kubectl(
            &["get", "deployment", "controller", "-n", CONFIG_NAMESPACE, "-o", "jsonpath={.spec.replicas}"],
            None,
        )?;
        for pod in self.lab.cluster.list("v1", "Pod", CONFIG_NAMESPACE).await? {
            let name = pod.metadata.name.context("a Pod without a name")?;
            let (component, node) = name.split_once('-').context("not a Pod of the suite")?;
            if component == "controller" && replicas == "0" {
                old::remove_pod(plane, component, node)?;
            } else if component == "speaker" && pod.metadata.deletion_timestamp.is_some() {
                let index = NODES.iter().position(|name| *name == node).context("no such node")?;
                ensure!(!self.old[index].is_running()?, "the old speaker of {node} would have said good-bye");
                old::remove_pod(plane, component, node)?;
            }
        }
        Ok(())
    }
}

async fn the_command_changes_over_step_by_step(bed: &mut Bed) -> Result<()> {
    bed.begin(true).await?;
    old::start_pod(&bed.lab.cluster, "controller", "n1").await?;
    bed.lab.cluster.apply_all(&old::workloads()).await?;
    for (node, process) in NODES.iter().zip(&bed.old) {
        std::fs::write(bed.dir.join(format!("{node}.pid")), process.pid().to_string())?;
    }
    eventually("the controller gives way", CONVERGENCE_TIME_MAX, async || {
        let allocations: Value = serde_json::from_str(&bed.lab.controllers[0].get("/v1/allocations")?)?;
        ensure_that(allocations["leading"] == false, || allocations.to_string())
    })
    .await?;
    let checked: Value = serde_json::from_str(&run(&mut bed.migrate(&["check", "-o", "json"])?)?)?;
    let rows = |field: &str| checked[field].as_array().cloned().unwrap_or_default();
    ensure!(rows("metallb").len() == 1 + NODES.len() && rows("objects").is_empty(), "{checked:#}");
    ensure!(
        rows("addresses").len() == 2 && rows("addresses").iter().all(|row| row["change"] == "keeps"),
        "{checked:#}"
    );
    ensure!(rows("sessions").len() == 6 && rows("sessions").iter().all(|row| row["way"] == "b"), "{checked:#}");
    let steps = run(&mut bed.migrate(&["run"])?)?;
    ensure!(
        steps.contains("Nothing has been changed") && steps.contains("n3: MetalLB's Pod speaker-n3 ends, (b)"),
        "{steps}"
    );

    let mut held = Held::open(&bed.lab, "run", &bed.addresses, HELD_PER_ROUTER).await?;
    bed.lab.record_route_changes().await?;
    let watching = bed.watch();
    let kill = format!("kill -9 $(cat {}/$NODE.pid)", bed.dir.display());
    let mut migrate = bed.migrate(&["run", "--yes", "--kill-command", &kill])?;
    let mut migrating = Process::start("migrate", &bed.dir, &mut migrate)?;
    eventually("the change-over is done", CHANGE_OVER_TIME_MAX, async || {
        bed.play_kubelet().await?;
        ensure_that(!migrating.is_running()?, || "it still runs".to_owned())
    })
    .await
    .with_context(|| migrating.tail())?;
    ensure!(migrating.log()?.contains("Done."), "{}", migrating.tail());
    for line in migrating.log()?.lines() {
        println!("     {line}");
    }
    for index in 0..NODES.len() {
        bed.wait_for_sessions(index).await?;
    }
    held.ensure_unbroken().await?;
    bed.ensure_prefixes_stayed(watching)?;
    bed.ensure_routes_untouched()
}
