//! Objects that nobody can mean: refused by the API server or reported by Ferrocast, and what worked goes on working.

#[path = "bad_objects/table.rs"]
mod table;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::Ferrocast;
use ferrocast_tests::kube::in_repository;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, Lab, NODES, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Service};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::eventually;
use serde_json::{Value, json};

use crate::table::{Bad, table};

/// A Secret's text must appear nowhere.
const PASSWORD: &str = "hidden-word";

fn main() -> ExitCode {
    let cases = cases![
        bad_objects_under_the_shipped_definitions_are_refused_or_reported,
        bad_objects_under_older_definitions_are_reported,
    ];
    runner::main::<Bed>("e2e_bad_objects", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed(Lab);

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let lab = Lab::with_ferrocast_only(dir, 1).await?;
        Ok(Self(lab))
    }

    fn diagnose(&self) -> String {
        self.0.diagnose()
    }
}

/// What became of one bad object.
enum Fate {
    Refused(String),
    Stored,
}

/// A message must name the field and the value.
fn names(message: &str, words: &[&str]) -> bool {
    words.iter().all(|word| message.contains(word))
}

fn create(lab: &Lab, bad: &Bad) -> Fate {
    let object = objects::config(CONFIG_NAMESPACE, bad.kind, bad.name, bad.spec.clone());
    match lab.plane.kubectl(&["create", "-f", "-"], Some(&object.to_string())) {
        Ok(_) => Fate::Stored,
        Err(refusal) => Fate::Refused(format!("{refusal:#}")),
    }
}

/// An Event about the object names field, value and what is allowed, and so does a line of the log since `from`.
async fn ensure_reported(lab: &Lab, bad: &Bad, from: &[usize]) -> Result<()> {
    let words: Vec<&str> = bad.words.iter().copied().chain([bad.advice]).collect();
    let event = lab.cluster.wait_for_event(CONFIG_NAMESPACE, bad.name, &words).await?;
    ensure!(event.starts_with("Warning"), "{event}");
    eventually(&format!("a log says {words:?} about {}", bad.name), CONVERGENCE_TIME_MAX, async || {
        for (role, from) in roles(lab).zip(from) {
            let log = role.log()?;
            let said = |line: &str| line.contains(bad.name) && names(&line.replace('\\', ""), &words);
            if log.get(*from..).is_some_and(|log| log.lines().any(said)) {
                return Ok(());
            }
        }
        bail!("no log does")
    })
    .await
}

fn roles(lab: &Lab) -> impl Iterator<Item = &Ferrocast> {
    lab.controllers.iter().chain(&lab.speakers)
}

fn log_lengths(lab: &Lab) -> Result<Vec<usize>> {
    roles(lab).map(|role| Ok(role.log()?.len())).collect()
}

/// The standing Service is as it was, a new one gets its address and routes, and goes again.
async fn ensure_all_works(lab: &Lab, address: &str) -> Result<()> {
    ensure!(lab.cluster.addresses("default", "steady").await? == [address.to_owned()], "the standing Service changed");
    lab.wait_for_hops(&host_route(address), &NODES).await?;
    let service = Service::named("new");
    lab.apply_service(&service, &NODES).await?;
    let new = lab.cluster.wait_for_addresses("default", "new", 1).await?.remove(0);
    lab.wait_for_hops(&host_route(&new), &NODES).await?;
    lab.cluster.delete(&service.object()).await
}

/// Creates the whole table, expects a report of each stored object, restarts everything and expects the same again.
async fn run_table(lab: &mut Lab, expect_stored_min: usize) -> Result<()> {
    let steady = Service::named("steady");
    lab.apply_service(&steady, &NODES).await?;
    let address = lab.cluster.wait_for_addresses("default", "steady", 1).await?.remove(0);
    lab.wait_for_hops(&host_route(&address), &NODES).await?;
    lab.record_route_changes().await?;

    let table = table();
    let mut wrong = vec![];
    let mut stored = vec![];
    let from = log_lengths(lab)?;
    for bad in &table {
        match create(lab, bad) {
            Fate::Stored => stored.push(bad),
            Fate::Refused(message) if names(&message, bad.words) => {}
            Fate::Refused(message) => wrong.push(format!("{}: refused without {:?}: {message}", bad.name, bad.words)),
        }
    }
    println!("     {} bad objects: {} refused, {} stored", table.len(), table.len() - stored.len(), stored.len());
    ensure!(stored.len() >= expect_stored_min, "only {} objects were stored", stored.len());
    wrong.extend(unreported(lab, &stored, &from).await);
    ensure_all_works(lab, &address).await?;
    for router in lab.routers() {
        let changes = router.route_changes(&host_route(&address))?;
        ensure!(changes.is_empty(), "{} changed the standing route: {changes:?}", router.netns);
    }

    restart_all(lab).await?;
    let from = from_restart(lab)?;
    wrong.extend(unreported(lab, &stored, &from).await.into_iter().map(|what| format!("after a restart: {what}")));
    ensure_all_works(lab, &address).await?;
    for bad in &stored {
        lab.cluster.delete(&objects::config(CONFIG_NAMESPACE, bad.kind, bad.name, json!({}))).await?;
    }
    lab.cluster.delete(&steady.object()).await?;
    for role in roles(lab) {
        ensure!(!role.log()?.contains(PASSWORD), "a password is in a log");
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    Ok(())
}

/// Those of which no report was found; once one is missing the others get less time.
async fn unreported(lab: &Lab, stored: &[&Bad], from: &[usize]) -> Vec<String> {
    let mut missing = vec![];
    let checks =
        stored.iter().map(async |bad| ensure_reported(lab, bad, from).await.map_err(|error| (bad.name, error)));
    for checked in futures::future::join_all(checks).await {
        if let Err((name, error)) = checked {
            missing.push(format!("{name}: {error:#}"));
        }
    }
    missing
}

async fn restart_all(lab: &mut Lab) -> Result<()> {
    for role in lab.controllers.iter_mut().chain(&mut lab.speakers) {
        role.process().terminate().await?;
        role.restart()?;
    }
    for role in lab.controllers.iter_mut().chain(&mut lab.speakers) {
        role.wait_until_ready().await?;
    }
    lab.wait_for_sessions().await
}

/// Where the last start of each role begins in its log.
fn from_restart(lab: &Lab) -> Result<Vec<usize>> {
    roles(lab).map(|role| role.log()?.rfind(" starts ").context("no start in the log")).collect()
}

async fn bad_objects_under_the_shipped_definitions_are_refused_or_reported(bed: &mut Bed) -> Result<()> {
    run_table(&mut bed.0, 1).await
}

async fn bad_objects_under_older_definitions_are_reported(bed: &mut Bed) -> Result<()> {
    let lab = &mut bed.0;
    let mut shipped = std::fs::read_to_string(in_repository("deploy/crds/metallb.io.yaml"))?;
    shipped += &std::fs::read_to_string(in_repository("deploy/crds/ferrocast.io.yaml"))?;
    for document in shipped.split("\n---").filter(|document| document.contains("kind:")) {
        let mut definition: Value = serde_saphyr::from_str(document)?;
        let versions = definition["spec"]["versions"].as_array_mut().context("no versions")?;
        for version in versions {
            version["schema"] =
                json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        }
        let applied = definition.to_string();
        lab.plane.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], Some(&applied))?;
    }
    // The API server takes a moment to serve the relaxed schema: until a number for a list is accepted.
    let probe = objects::config(CONFIG_NAMESPACE, "IPAddressPool", "probe", json!({"addresses": 1})).to_string();
    eventually("the relaxed definitions are served", CONVERGENCE_TIME_MAX, async || {
        lab.plane.kubectl(&["create", "--dry-run=server", "-f", "-"], Some(&probe)).map(drop)
    })
    .await?;
    let stored_min = table().len();
    run_table(lab, stored_min).await
}
