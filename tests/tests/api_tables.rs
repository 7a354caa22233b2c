//! A sample of the tables that `plan` is tested with, on a real API server with the webhook in its way: what `plan` makes of the
//! manifests is what the controller and the speakers make of the objects, and what is invalid never gets in. The same of
//! `explain`: its codes are those that the manifests alone gave.

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
use ferrocast_tests::process::{free_port, run};
use ferrocast_tests::runner;
use ferrocast_tests::wait::{ensure_that, eventually};
use serde_json::{Value, json};

/// One in so many of the cases that an API server can hold is tried.
const SAMPLE: usize = 3;
/// The same of those of `explain`.
const EXPLAINED_SAMPLE: usize = 2;
/// Cases that there must be at least, so that the sample stays one.
const CASES_MIN: usize = 30;
/// The same of `explain`, of whose cases many are about mistakes that the webhook lets nobody make.
const EXPLAINED_MIN: usize = 10;
/// The nodes that have a speaker here; what `plan` says of others is not compared.
const SPEAKERS: [&str; 2] = ["n1", "n2"];
/// What the table of `explain` says that does not depend on sessions, which nobody answers here.
const SAID: [&str; 3] = ["facts", "services", "nodes"];
/// What is wrong only until another object comes: the webhook lets it pass, as MetalLB's does.
const PASSING: [&str; 3] = ["secretUnusable", "bfdProfileMissing", "communityUnknown"];
/// How an API server words a refusal by a webhook.
const DENIED: &str = "denied the request";

fn main() -> ExitCode {
    let cases = ferrocast_tests::cases![
        what_plan_makes_of_a_table_is_what_the_cluster_does,
        what_explain_makes_of_a_table_is_what_the_cluster_says,
    ];
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
        let spec = &object["spec"];
        if spec["clusterIP"] == "None" || spec["clusterIP"].is_null() && !spec["clusterIPs"].is_null() {
            return Some("an API server takes no such cluster IPs");
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

/// Does the webhook refuse an object of which `plan` says this?
fn is_refused(row: &Value) -> bool {
    let mut errors = rows(row, "problems").iter().filter(|problem| problem["severity"] == "error");
    errors.any(|problem| !PASSING.contains(&&*word(problem, "rule")))
}

/// What `plan` says of an object that the webhook refuses; `None`: it takes it.
fn refusal<'a>(plan: &'a Value, object: &Value) -> Option<&'a Value> {
    let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
    let verdict = rows(plan, "configuration").iter().find(|row| row["kind"] == *kind && row["name"] == *name);
    verdict.filter(|row| is_refused(row))
}

/// The case without what never gets in.
fn stored(case: &Case, plan: &Value) -> Case {
    let mut stored = case.clone();
    stored.objects.retain(|object| refusal(plan, object).is_none());
    stored
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
        let applied = world.cluster.apply(&object).await;
        match refusal(plan, &object) {
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

/// A controller with its webhook, and two speakers; all explain.
struct Running {
    controller: Ferrocast,
    speakers: Vec<Ferrocast>,
}

impl Running {
    async fn start(world: &World) -> Result<Self> {
        let port = free_port()?;
        world.plane.use_webhook(&format!("https://{HOST}:{port}/validate"))?;
        let explaining = || Ok::<_, anyhow::Error>(format!("--explain={HOST}:{}", free_port()?));
        let role = Role::Controller { name: "tables-0".to_owned(), port: free_port()? };
        let webhook = [format!("--webhook={HOST}:{port}"), format!("--webhook-host={HOST}"), explaining()?];
        let settings = Settings { more: webhook.to_vec(), ..Settings::default() };
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
            let settings = Settings { more: vec![explaining()?], ..Settings::default() };
            let mut speaker = Ferrocast::start(&world.plane, &world.dir, role, settings).await?;
            speaker.wait_until_ready().await?;
            speakers.push(speaker);
        }
        Ok(Self { controller, speakers })
    }

    async fn end(mut self, world: &World) -> Result<()> {
        world.plane.kubectl(&["delete", "validatingwebhookconfiguration", "ferrocast-webhook"], None)?;
        for role in [self.controller].iter_mut().chain(&mut self.speakers) {
            role.process().terminate().await?;
        }
        Ok(())
    }
}

async fn what_plan_makes_of_a_table_is_what_the_cluster_does(world: &mut World) -> Result<()> {
    let running = Running::start(world).await?;
    let files = ["plan/allocation.yaml", "plan/announcement.yaml", "plan/routes.yaml", "plan/later.yaml"];
    let all: Vec<Case> = files.into_iter().flat_map(table).filter(|case| obstacle(case).is_none()).collect();
    let (mut tried, mut refused, mut compared) = (0, 0, 0);
    for case in all.iter().step_by(SAMPLE) {
        let whole = plan(world, case)?;
        let planned = Facts::planned(&plan(world, &stored(case, &whole))?);
        let context = || format!("case {:?}", case.name);
        refused += apply(world, case, &whole).await.with_context(context)?;
        eventually("the cluster does what was planned", CONVERGENCE_TIME_MAX, async || {
            let found = Facts::found(&running.controller, &running.speakers, &planned)?;
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
    running.end(world).await
}

/// A part of an explanation in the table's words. A speaker whose Node is not (any more) in the case is left out.
fn said(told: &Value, part: &str, case: &Case) -> Vec<String> {
    let is_node = |node: &str| case.objects.iter().any(|o| o["kind"] == "Node" && o["metadata"]["name"] == node);
    let code = |row: &Value| word(&row["reason"], "code");
    if part == "facts" {
        return rows(told, part).iter().map(|fact| word(fact, "code")).collect();
    }
    let mut lines = Vec::new();
    for service in rows(told, "services") {
        let name = format!("{}/{}", word(service, "namespace"), word(service, "name"));
        if part == "services" {
            lines.push(format!("{name} {}", code(service)));
            continue;
        }
        for node in rows(service, "nodes").iter().filter(|node| is_node(&word(node, "node"))) {
            let address = node["address"].as_str().unwrap_or("-");
            lines.push(format!("{name} {address} {} {}", word(node, "node"), code(node)));
        }
    }
    lines
}

async fn what_explain_makes_of_a_table_is_what_the_cluster_says(world: &mut World) -> Result<()> {
    let running = Running::start(world).await?;
    let kubeconfig = world.plane.admin_kubeconfig();
    let (mut tried, mut compared) = (0, 0);
    let all: Vec<Case> = table("explain/cases.yaml").into_iter().filter(|case| obstacle(case).is_none()).collect();
    for case in all.iter().step_by(EXPLAINED_SAMPLE) {
        let Some((kind @ ("service" | "address"), name)) = case.explain.split_once(' ') else { continue };
        let plan = plan(world, case)?;
        let wanted: Vec<_> = case.want.iter().filter(|(part, _)| SAID.contains(&&***part)).collect();
        if rows(&plan, "configuration").iter().any(is_refused) || wanted.is_empty() {
            continue;
        }
        let context = || format!("case {:?}", case.name);
        apply(world, case, &plan).await.with_context(context)?;
        eventually("the cluster says what the table does", CONVERGENCE_TIME_MAX, async || {
            let mut command = Command::new(binary()?);
            command.args(["explain", kind, name, "-o", "json", "--kubeconfig"]).arg(&kubeconfig);
            let told: Value = serde_json::from_str(&run(&mut command)?)?;
            for (part, want) in &wanted {
                let said = said(&told, part, case);
                ensure_that(said == **want, || format!("{part}: wanted {want:?}, said {said:?} in {told:#}"))?;
            }
            Ok(())
        })
        .await
        .with_context(context)?;
        compared += wanted.len();
        clean(world, case).await.with_context(context)?;
        tried += 1;
    }
    ensure!(tried >= EXPLAINED_MIN, "only {tried} cases");
    println!("     {tried} cases, {compared} parts");
    running.end(world).await
}
