//! What `ferrocast plan` says will happen, and what then happens at the API server and at the routers; and the edits that must not
//! be felt at all: a pool that is renamed, a range that is moved.

#[path = "../../controller/tests/cases/dice.rs"]
mod dice;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dice::Dice;
use ferrocast_tests::cases;
use ferrocast_tests::document::{rows, texts, word};
use ferrocast_tests::ferrocast::binary;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, HUB, Lab, NODES, backend, base_configuration, hops, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Service, config};
use ferrocast_tests::process::free_port;
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually, pause, throughout};
use serde_json::{Value, json};

/// Edits of the random history: enough that every kind of edit follows on every other now and then.
const EDITS: usize = 50;
/// Seed of the random history; another one may be given in this variable.
const SEED: (&str, u64) = ("FERROCAST_PLAN_SEED", 7);
/// Longer than a condition waits for what follows from a change.
const QUIET: Duration = Duration::from_millis(1_500);
/// The API server keeps times in seconds: objects that are to be of different age are so far apart.
const AGE: Duration = Duration::from_millis(1_050);
/// What `plan` ends with if something would change.
const CHANGES: i32 = 2;

fn main() -> ExitCode {
    let cases =
        cases![what_plan_predicts_is_what_happens, a_pool_is_renamed_and_a_range_moved_without_a_route_leaving,];
    runner::main::<Bed>("e2e_plan", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed {
    lab: Lab,
    dir: PathBuf,
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let lab = Lab::with_ferrocast_only(dir, 1).await?;
        Ok(Self { lab, dir: dir.to_owned() })
    }

    fn diagnose(&self) -> String {
        self.lab.diagnose()
    }
}

/// Which addresses each Service has, and by which nodes each router forwards to what.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    services: BTreeMap<String, BTreeSet<String>>,
    routes: BTreeMap<(&'static str, String), BTreeSet<String>>,
}

impl State {
    /// What is so now.
    async fn found(lab: &Lab) -> Result<Self> {
        let mut state = Self::default();
        for (name, addresses) in lab.cluster.all_addresses("default").await? {
            if !addresses.is_empty() {
                state.services.insert(name, addresses.into_iter().collect());
            }
        }
        for router in lab.routers() {
            for prefix in router.prefixes()? {
                let length = if prefix.contains('/') { prefix.clone() } else { host_route(&prefix) };
                state.routes.insert((router.netns, length), router.next_hops(&prefix)?);
            }
        }
        Ok(state)
    }

    /// The differences, for people.
    fn against(&self, other: &Self) -> String {
        let mut text = String::new();
        for key in self.services.keys().chain(other.services.keys()).collect::<BTreeSet<_>>() {
            let (own, others) = (self.services.get(key), other.services.get(key));
            if own != others {
                text += &format!("\n  {key}: {own:?}, found {others:?}");
            }
        }
        for key in self.routes.keys().chain(other.routes.keys()).collect::<BTreeSet<_>>() {
            let (own, others) = (self.routes.get(key), other.routes.get(key));
            if own != others {
                text += &format!("\n  {key:?}: {own:?}, found {others:?}");
            }
        }
        text
    }
}

/// The state that `plan` leads from and to: node, peer, prefix of every route beside the Services' addresses.
#[derive(Clone, Debug, Default)]
struct Forecast {
    services: BTreeMap<String, BTreeSet<String>>,
    routes: BTreeSet<(String, String, String)>,
}

impl Forecast {
    /// Takes over what would change.
    fn follow(&mut self, differences: &Value) -> Result<()> {
        for row in rows(differences, "services") {
            let (name, before, after) = (word(row, "name"), texts(&row["before"]), texts(&row["after"]));
            let known = self.services.remove(&name).unwrap_or_default();
            ensure!(known == before, "{name} is taken to have {before:?}, it has {known:?}");
            if !after.is_empty() {
                self.services.insert(name, after);
            }
        }
        for row in rows(differences, "routes") {
            let route = (word(row, "node"), word(row, "peer"), word(row, "prefix"));
            match &*word(row, "change") {
                "withdrawn" => ensure!(self.routes.remove(&route), "{route:?} is withdrawn, but was not there"),
                "added" => ensure!(self.routes.insert(route.clone()), "{route:?} is added, but was there"),
                _ => ensure!(self.routes.contains(&route), "{route:?} changes, but was not there"),
            }
        }
        Ok(())
    }

    /// As it looks from outside.
    fn state(&self) -> State {
        let mut state = State { services: self.services.clone(), routes: BTreeMap::new() };
        for (node, peer, prefix) in &self.routes {
            let router = if peer.starts_with("bird") { "bird" } else { "frr" };
            state.routes.entry((router, prefix.clone())).or_default().extend(hops(&[node.as_str()], prefix));
        }
        state
    }
}

/// Runs `ferrocast plan`; what it prints as JSON.
fn plan(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(binary()?).args(["plan", "-o", "json"]).args(arguments).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | CHANGES)), "plan {arguments:?}: {:?}: {errors}", output.status);
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let parts = ["services", "routes", "announcements", "sessions", "limits"];
    if arguments.contains(&"-f") {
        let any =
            parts.iter().any(|part| !rows(&document, part).is_empty()) || !rows(&document, "configuration").is_empty();
        ensure!(any == (output.status.code() == Some(CHANGES)), "exit code {:?} with {document}", output.status.code());
    }
    Ok(document)
}

/// Services of the history; their families never change, for the API server does not let them.
const SERVICES: [(&str, &[&str]); 6] = [
    ("one", &["IPv4"]),
    ("two", &["IPv4"]),
    ("three", &["IPv4"]),
    ("four", &["IPv6"]),
    ("both", &["IPv4", "IPv6"]),
    ("also", &["IPv4", "IPv6"]),
];
const POOLS: [&str; 3] = ["p", "q", "r"];
const ADVERTISEMENTS: [&str; 3] = ["x", "y", "z"];
const PEERS: [&str; 3] = ["bird4", "bird6", "frr"];
/// Ranges that go from pool to pool; every pool also has one of its own.
const RANGES: [&str; 4] = ["10.60.0.0/31", "10.60.1.0-10.60.1.2", "fd60::/127", "fd60::4/127"];

/// The random edits, and what they need to know of those before.
struct History {
    dice: Dice,
    /// Which pool has which of [`RANGES`].
    owner: [Option<usize>; RANGES.len()],
    exists: BTreeSet<&'static str>,
}

impl History {
    /// Objects to apply together, in this order.
    fn edit(&mut self) -> Vec<Value> {
        match self.dice.roll(14) {
            0..=5 => self.service(),
            6 => self.endpoints(),
            7..=9 => self.pools(),
            10 | 11 => vec![self.advertisement()],
            12 => vec![self.peer()],
            _ => vec![self.policy()],
        }
    }

    fn service(&mut self) -> Vec<Value> {
        let (name, families) = self.dice.pick(&SERVICES);
        let mut service = Service { families, ..Service::named(name) };
        if families.len() > 1 {
            service.family_policy = self.dice.pick(&["RequireDualStack", "PreferDualStack"]);
        }
        service.traffic_policy = self.dice.pick(&["Cluster", "Cluster", "Local"]);
        let service = match self.dice.roll(6) {
            0 => service.annotated("metallb.io/address-pool", self.dice.pick(&["p", "q", "r", "lab"])),
            1 => {
                service.annotated("metallb.io/loadBalancerIPs", self.dice.pick(&["10.60.0.1", "10.61.0.3", "fd60::5"]))
            }
            2 => service.annotated("metallb.io/allow-shared-ip", "k"),
            _ => service,
        };
        let mut objects = vec![service.object()];
        // A port of its own, so that sharing is possible.
        let port = 1_000 + SERVICES.iter().position(|(known, _)| *known == name).unwrap_or_default();
        objects[0]["spec"]["ports"] = json!([{"name": "http", "port": port, "targetPort": "http"}]);
        if self.exists.insert(name) {
            objects.extend(self.slices(name, families));
        }
        objects
    }

    fn slices(&mut self, name: &str, families: &[&str]) -> Vec<Value> {
        let nodes = self.dice.some(&NODES);
        let slice = |family: &&str| {
            let addresses: Vec<(String, &str)> = nodes.iter().map(|node| (backend(node, family), *node)).collect();
            let endpoints: Vec<objects::Endpoint<'_>> =
                addresses.iter().map(|(address, node)| objects::Endpoint::ready(address, node)).collect();
            objects::endpoint_slice("default", name, family, &endpoints)
        };
        families.iter().map(slice).collect()
    }

    fn endpoints(&mut self) -> Vec<Value> {
        let (name, families) = self.dice.pick(&SERVICES);
        if self.exists.contains(name) { self.slices(name, families) } else { self.service() }
    }

    /// The pools as they are now owned; those that lose something first, so that no two ever overlap.
    fn pools(&mut self) -> Vec<Value> {
        let range = self.dice.roll(RANGES.len());
        let (loser, winner) = (self.owner[range], self.dice.pick(&[None, Some(0), Some(1), Some(2)]));
        self.owner[range] = winner;
        let which: BTreeSet<usize> = [loser, winner].into_iter().flatten().collect();
        let mut order: Vec<usize> = which.into_iter().collect();
        order.sort_by_key(|pool| Some(*pool) == winner);
        order.into_iter().map(|pool| self.pool(pool)).collect()
    }

    fn pool(&mut self, pool: usize) -> Value {
        let own = format!("10.61.0.{}/31", pool * 2);
        let mut addresses = vec![own.as_str()];
        addresses
            .extend(RANGES.iter().zip(&self.owner).filter(|(_, owner)| **owner == Some(pool)).map(|(range, _)| range));
        let mut object = objects::pool(CONFIG_NAMESPACE, POOLS[pool], &addresses);
        object["spec"]["autoAssign"] = json!(self.dice.roll(4) != 0);
        object["spec"]["avoidBuggyIPs"] = json!(self.dice.roll(4) == 0);
        match self.dice.roll(5) {
            0 => object["spec"]["serviceAllocation"] = json!({"namespaces": ["elsewhere"]}),
            1 => object["spec"]["serviceAllocation"] = json!({"priority": 5 + pool, "namespaces": ["default"]}),
            _ => {}
        }
        object
    }

    fn advertisement(&mut self) -> Value {
        let mut spec = json!({});
        for (field, names) in [("ipAddressPools", self.dice.some(&POOLS)), ("peers", self.dice.some(&PEERS))] {
            if !names.is_empty() {
                spec[field] = json!(names);
            }
        }
        let nodes = self.dice.some(&NODES);
        if !nodes.is_empty() && self.dice.roll(2) == 0 {
            let requirement = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": nodes});
            spec["nodeSelectors"] = json!([{"matchExpressions": [requirement]}]);
        }
        if self.dice.roll(3) == 0 {
            spec["communities"] = json!([format!("64512:{}", self.dice.roll(3))]);
        } else if self.dice.roll(4) == 0 {
            spec["aggregationLength"] = json!(31);
        }
        config(CONFIG_NAMESPACE, "BGPAdvertisement", self.dice.pick(&ADVERTISEMENTS), spec)
    }

    fn peer(&mut self) -> Value {
        let name = self.dice.pick(&PEERS);
        let all = base_configuration();
        let mut peer =
            all.into_iter().find(|o| o["kind"] == "BGPPeer" && o["metadata"]["name"] == name).unwrap_or_default();
        let nodes = self.dice.some(&NODES);
        if !nodes.is_empty() {
            let requirement = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": nodes});
            peer["spec"]["nodeSelectors"] = json!([{"matchExpressions": [requirement]}]);
        }
        peer
    }

    fn policy(&mut self) -> Value {
        let pool = self.dice.pick(&POOLS);
        let mut spec = json!({"ipAddressPools": [pool], "strategy": self.dice.pick(&["First", "HashedByName"])});
        match self.dice.roll(4) {
            0 => spec["noNewAddresses"] = json!([self.dice.pick(&["10.60.0.0/31", "10.61.0.0/31", "fd60::/127"])]),
            1 => {
                let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "default"}});
                spec["quotas"] = json!([{"namespaceSelector": selector, "addressesMax": self.dice.roll(4)}]);
            }
            2 => spec["pairWith"] = json!(self.dice.pick(&POOLS)),
            _ => {}
        }
        let mut object = config(CONFIG_NAMESPACE, "PoolPolicy", &format!("of-{pool}"), spec);
        object["apiVersion"] = json!("ferrocast.io/v1alpha1");
        object
    }
}

/// Waits until what is found is what was forecast.
async fn wait_for(lab: &Lab, forecast: &Forecast, what: &str) -> Result<()> {
    let wanted = forecast.state();
    eventually(what, CONVERGENCE_TIME_MAX, async || {
        let found = State::found(lab).await?;
        ensure_that(found == wanted, || format!("forecast and found:{}", wanted.against(&found)))
    })
    .await
}

async fn what_plan_predicts_is_what_happens(bed: &mut Bed) -> Result<()> {
    let lab = &bed.lab;
    let seed = std::env::var(SEED.0).ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED.1);
    println!("     seed {seed} ({})", SEED.0);
    let kubeconfig = lab.plane.admin_kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a path that is no text")?;
    let file = bed.dir.join("edit.yaml");
    let file = file.to_str().context("a path that is no text")?;
    let mut forecast = Forecast::default();
    let mut history =
        History { dice: Dice(seed), owner: [Some(0), Some(1), Some(0), Some(2)], exists: BTreeSet::new() };
    let (mut services, mut routes) = (0, 0);
    // Else everybody would live in the large pool of the bed.
    let mut lab_pool = objects::pool(CONFIG_NAMESPACE, "lab", &["10.50.0.0/24", "fd50::/120"]);
    lab_pool["spec"]["autoAssign"] = json!(false);
    lab.cluster.apply(&lab_pool).await?;
    for number in 0..EDITS {
        let edit = if number < POOLS.len() { vec![history.pool(number)] } else { history.edit() };
        let text: Vec<String> = edit.iter().map(Value::to_string).collect();
        std::fs::write(file, text.join("\n---\n"))?;
        let differences = plan(&["--kubeconfig", kubeconfig, "-f", file])?;
        let what = || format!("edit {number}: {text:#?}, forecast {differences:#}");
        forecast.follow(&differences).with_context(what)?;
        services += rows(&differences, "services").len();
        routes += rows(&differences, "routes").len();
        lab.cluster.apply_all(&edit).await?;
        wait_for(lab, &forecast, "it is as forecast").await.with_context(what)?;
        pause(AGE).await;
        wait_for(lab, &forecast, "it stays as forecast").await.with_context(what)?;
    }
    println!("     {EDITS} edits, {services} changes of Services and {routes} of routes came as forecast");
    ensure!(services > EDITS / 5 && routes > EDITS, "hardly anything happened");
    Ok(())
}

/// All edits that may not be felt, with the webhook in the API server's way.
async fn a_pool_is_renamed_and_a_range_moved_without_a_route_leaving(bed: &mut Bed) -> Result<()> {
    let lab = &mut bed.lab;
    let cluster = lab.cluster.clone();
    // The history before may have left peers without nodes.
    cluster.apply_all(&base_configuration()).await?;
    lab.wait_for_sessions().await?;
    // The API server asks the controller's webhook from here on, and takes no answer for a refusal.
    let port = free_port()?;
    let listen = format!("--webhook={}:{port}", HUB);
    let mut controller = lab.controllers.pop().context("no controller")?;
    controller.process().terminate().await?;
    controller.set_arguments(&[&listen, "--webhook-host", HUB]);
    controller.restart()?;
    controller.wait_until_ready().await?;
    lab.controllers.push(controller);
    lab.plane.use_webhook(&format!("https://{}:{port}/validate", HUB))?;
    let ranges = ["10.62.0.0/30", "fd62::/126"];
    eventually("the webhook lets a pool in", CONVERGENCE_TIME_MAX, async || {
        cluster.apply(&objects::pool(CONFIG_NAMESPACE, "old", &ranges)).await
    })
    .await?;
    let everything =
        config(CONFIG_NAMESPACE, "BGPAdvertisement", "old-and-new", json!({"ipAddressPools": ["old", "new"]}));
    cluster.apply(&everything).await?;
    for name in ["renamed-1", "renamed-2"] {
        lab.apply_service(&Service::named(name).dual_stack().annotated("metallb.io/address-pool", "old"), &NODES)
            .await?;
        cluster.wait_for_addresses("default", name, 2).await?;
    }
    let before = cluster.all_addresses("default").await?;
    let addresses: Vec<String> = ["renamed-1", "renamed-2"].iter().flat_map(|name| before[*name].clone()).collect();
    for address in &addresses {
        lab.wait_for_hops(&host_route(address), &NODES).await?;
    }
    lab.record_route_changes().await?;
    let unchanged = async || -> Result<()> {
        let now = cluster.all_addresses("default").await?;
        for name in ["renamed-1", "renamed-2"] {
            ensure!(now.get(name) == before.get(name), "{name} had {:?}, has {:?}", before.get(name), now.get(name));
        }
        Ok(())
    };
    // Renamed: the old one goes with the wish that its addresses be held, the new one takes them over.
    let mut old = objects::pool(CONFIG_NAMESPACE, "old", &ranges);
    let Err(refusal) = cluster.delete(&old).await else { anyhow::bail!("a pool with living addresses was deleted") };
    ensure!(format!("{refusal:#}").contains("renamed-1"), "{refusal:#}");
    old["metadata"]["annotations"] = json!({"ferrocast.io/on-address-loss": "hold"});
    cluster.apply(&old).await?;
    cluster.delete(&old).await?;
    throughout("the addresses are held", QUIET, unchanged).await?;
    cluster.apply(&objects::pool(CONFIG_NAMESPACE, "new", &ranges)).await?;
    throughout("the new pool takes them over", QUIET, unchanged).await?;
    // Moved: one range goes to a pool that other advertisements may select, and back.
    let mut shrunk = objects::pool(CONFIG_NAMESPACE, "new", &ranges[1..]);
    shrunk["metadata"]["annotations"] = json!({"ferrocast.io/on-address-loss": "hold"});
    cluster.apply(&shrunk).await?;
    cluster.apply(&objects::pool(CONFIG_NAMESPACE, "old", &ranges[..1])).await?;
    throughout("the other pool takes the range over", QUIET, unchanged).await?;
    for router in lab.routers() {
        for address in &addresses {
            let changes = router.route_changes(&host_route(address))?;
            ensure!(changes.is_empty(), "{}: {changes:?}", router.netns);
            ensure!(router.next_hops(&host_route(address))? == hops(&NODES, &host_route(address)), "a next hop left");
        }
    }
    Ok(())
}
