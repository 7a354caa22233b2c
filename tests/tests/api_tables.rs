//! A sample of the tables that `plan` is tested with, on a real API server with the webhook in its way: what `plan` makes of the
//! manifests is what the controller and the speakers make of the objects, and what is invalid never gets in.

mod api;
#[path = "../../controller/tests/cases/mod.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use api::{HOST, World};
use cases::{Case, table};
use ferrocast_tests::document::{rows, texts, word};
use ferrocast_tests::ferrocast::{Ferrocast, Role, Settings, binary};
use ferrocast_tests::lab::CONVERGENCE_TIME_MAX;
use ferrocast_tests::objects::{CONFIG_NAMESPACE, config};
use ferrocast_tests::process::free_port;
use ferrocast_tests::runner;
use ferrocast_tests::wait::{ensure_that, eventually};
use serde_json::{Value, json};

/// One in so many of the cases that an API server can hold is tried.
const SAMPLE: usize = 3;
/// Cases that there must be at least, so that the sample stays one.
const CASES_MIN: usize = 30;
/// The nodes that have a speaker here; what `plan` says of others is not compared.
const SPEAKERS: [&str; 2] = ["n1", "n2"];
/// What is wrong only until another object comes: the webhook lets it pass, as MetalLB's does.
const PASSING: [&str; 3] = ["secretUnusable", "bfdProfileMissing", "communityUnknown"];
/// How an API server words a refusal by a webhook.
const DENIED: &str = "denied the request";

fn main() -> ExitCode {
    let cases = ferrocast_tests::cases![what_plan_makes_of_a_table_is_what_the_cluster_does];
    runner::main::<World>("api_tables", env!("CARGO_TARGET_TMPDIR"), cases)
}

fn is_config(object: &Value) -> bool {
    object["apiVersion"]
        .as_str()
        .is_some_and(|version| version.contains("metallb.io") || version.contains("ferrocast.io"))
}

/// Why an API server cannot be brought into the state that the case begins with.
fn obstacle(case: &Case) -> Option<&'static str> {
    if case.options.nodes.is_some() || case.options.assume_endpoints || case.options.ignore_exclude_lb {
        return Some("its command line assumes something");
    }
    if case.options.class.is_some() {
        return Some("it is about a class");
    }
    for object in &case.objects {
        let dated = !object["metadata"]["creationTimestamp"].is_null();
        if dated || object["kind"] != "Node" && !object["status"].is_null() {
            return Some("it has a past");
        }
        if is_config(object) && object["metadata"]["namespace"] != CONFIG_NAMESPACE {
            return Some("it has configuration elsewhere");
        }
        if object["kind"] == "Secret" || object["metadata"]["name"].as_str().is_some_and(|name| name.contains('_')) {
            return Some("an API server would not hold it");
        }
    }
    None
}

/// What `ferrocast plan` says of manifests.
fn plan(world: &World, case: &Case) -> Result<Value> {
    let file = world.dir.join("case.yaml");
    std::fs::write(&file, case.manifests())?;
    let output = Command::new(binary()?).args(["plan", "-o", "json"]).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// By Service: addresses, pool and code. By Service, address and node: the code.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    services: BTreeMap<String, (BTreeSet<String>, String, String)>,
    decisions: BTreeMap<(String, String, String), String>,
}

impl Facts {
    /// As `plan` has them. Without an advertisement nothing is announced, and `plan` has no decisions.
    fn planned(plan: &Value) -> Self {
        let mut facts = Self::default();
        for row in rows(plan, "services") {
            let name = format!("{}/{}", word(row, "namespace"), word(row, "name"));
            let (addresses, pool) = (texts(&row["addresses"]), word(row, "pool"));
            facts.services.insert(name, (addresses, pool, word(&row["reason"], "code")));
        }
        for row in rows(plan, "decisions").iter().filter(|row| SPEAKERS.contains(&&*word(row, "node"))) {
            let name = format!("{}/{}", word(row, "namespace"), word(row, "name"));
            facts.decisions.insert((name, word(row, "address"), word(row, "node")), word(row, "code"));
        }
        facts
    }

    /// As the controller and the speakers have them; of the decisions those that were planned for.
    fn found(controller: &Ferrocast, speakers: &[Ferrocast], planned: &Self) -> Result<Self> {
        let mut facts = Self::default();
        let document: Value = serde_json::from_str(&controller.get("/v1/allocations")?)?;
        for row in rows(&document, "services") {
            let (addresses, pool) = (texts(&row["ips"]), word(row, "pool"));
            facts.services.insert(word(row, "service"), (addresses, pool, word(row, "code")));
        }
        for (speaker, node) in speakers.iter().zip(SPEAKERS) {
            let document: Value = serde_json::from_str(&speaker.get("/v1/decisions")?)?;
            for row in rows(&document, "decisions") {
                let key = (word(row, "service"), word(row, "ip"), node.to_owned());
                if planned.decisions.contains_key(&key) {
                    facts.decisions.insert(key, word(row, "reason"));
                }
            }
        }
        Ok(facts)
    }
}

/// Applies the objects of a case in their order. What `plan` calls invalid must be refused, everything else be taken.
async fn apply(world: &World, case: &Case, plan: &Value) -> Result<usize> {
    let mut refused = 0;
    for object in &case.objects {
        let (kind, name) = (word(object, "kind"), word(&object["metadata"], "name"));
        if let Some(namespace) = object["metadata"]["namespace"].as_str() {
            world.cluster.ensure_namespace(namespace).await?;
        }
        let mut object = object.clone();
        if object["kind"] == "Service" && object["metadata"]["namespace"].is_null()
            || object["kind"] == "EndpointSlice" && object["metadata"]["namespace"].is_null()
        {
            object["metadata"]["namespace"] = json!("default");
        }
        let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
        let verdict = rows(plan, "configuration").iter().find(|row| row["kind"] == kind && row["name"] == name);
        let applied = world.cluster.apply(&object).await;
        let lasting = |row: &&Value| {
            let mut errors = rows(row, "problems").iter().filter(|problem| problem["severity"] == "error");
            errors.any(|problem| !PASSING.contains(&&*word(problem, "rule")))
        };
        match verdict.filter(lasting) {
            None => applied?,
            Some(row) => {
                let Err(error) = applied else { anyhow::bail!("{kind} {name} is invalid, but was stored: {row}") };
                let error = format!("{error:#}");
                let words = rows(row, "problems").iter().filter(|problem| problem["severity"] == "error");
                let told = words.map(|problem| word(problem, "message")).any(|message| error.contains(&message));
                // Some mistakes are seen by the type's own schema before any webhook is asked.
                ensure!(told || !error.contains(DENIED), "{kind} {name}: {error} has not the words of {row}");
                refused += 1;
            }
        }
        if let Some(status) = status {
            world.cluster.merge_status(&object, &status).await?;
        }
    }
    Ok(refused)
}

/// Takes away what a case has made: who has addresses first, or the webhook says no.
async fn clean(world: &World, case: &Case) -> Result<()> {
    let rank = |object: &&Value| match object["kind"].as_str() {
        Some("Service") => 0,
        Some("EndpointSlice") => 1,
        Some("Node") => 3,
        _ => 2,
    };
    let mut objects: Vec<&Value> = case.objects.iter().filter(|object| object["kind"] != "Namespace").collect();
    objects.sort_by_key(rank);
    for object in objects {
        let mut object = object.clone();
        if object["kind"] != "Node" && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        // What refers to it may go after it: then nothing is lost any more.
        world.cluster.delete(&object).await?;
    }
    for object in case.objects.iter().filter(|object| object["kind"] == "Namespace") {
        let name = &object["metadata"]["name"];
        world.cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
    }
    Ok(())
}

async fn what_plan_makes_of_a_table_is_what_the_cluster_does(world: &mut World) -> Result<()> {
    let port = free_port()?;
    world.plane.use_webhook(&format!("https://{HOST}:{port}/validate"))?;
    let role = Role::Controller { name: "tables-0".to_owned(), port: free_port()? };
    let more = vec![format!("--webhook={HOST}:{port}"), "--webhook-host".to_owned(), HOST.to_owned()];
    let settings = Settings { more, ..Settings::default() };
    let mut controller = Ferrocast::start(&world.plane, &world.dir, role, settings).await?;
    controller.wait_until_ready().await?;
    eventually("the webhook answers", CONVERGENCE_TIME_MAX, async || {
        let spec = json!({"communities": [{"name": "probe", "value": "1:2"}]});
        let probe = config(CONFIG_NAMESPACE, "Community", "probe", spec);
        world.cluster.apply(&probe).await?;
        world.cluster.delete(&probe).await
    })
    .await?;
    let mut speakers = Vec::new();
    for node in SPEAKERS {
        let role = Role::LooseSpeaker { node: node.to_owned(), port: free_port()? };
        let mut speaker = Ferrocast::start(&world.plane, &world.dir, role, Settings::default()).await?;
        speaker.wait_until_ready().await?;
        speakers.push(speaker);
    }
    let files = ["plan/allocation.yaml", "plan/announcement.yaml", "plan/routes.yaml", "plan/later.yaml"];
    let all: Vec<Case> = files.into_iter().flat_map(table).filter(|case| obstacle(case).is_none()).collect();
    let (mut tried, mut refused, mut compared) = (0, 0, 0);
    for case in all.iter().step_by(SAMPLE) {
        let plan = plan(world, case)?;
        let planned = Facts::planned(&plan);
        let context = || format!("case {:?}", case.name);
        refused += apply(world, case, &plan).await.with_context(context)?;
        eventually("the cluster does what was planned", CONVERGENCE_TIME_MAX, async || {
            let found = Facts::found(&controller, &speakers, &planned)?;
            ensure_that(found == planned, || format!("planned {planned:#?}, found {found:#?}"))
        })
        .await
        .with_context(context)?;
        compared += planned.services.len() + planned.decisions.len();
        clean(world, case).await.with_context(context)?;
        tried += 1;
    }
    ensure!(tried >= CASES_MIN, "only {tried} cases");
    println!("     {tried} cases, {compared} facts, {refused} objects refused");
    world.plane.kubectl(&["delete", "validatingwebhookconfiguration", "ferrocast-webhook"], None)?;
    for role in [controller].iter_mut().chain(&mut speakers) {
        role.process().terminate().await?;
    }
    Ok(())
}
