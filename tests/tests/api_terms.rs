//! From one controller to the next: what a restart, a take-over and a hand-over change, which is almost nothing.

mod api;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use api::{ANNOTATION, Site, World, end, wait_for_log};
use ferrocast_tests::ferrocast::Ferrocast;
use ferrocast_tests::lab::CONVERGENCE_TIME_MAX;
use ferrocast_tests::objects::{SYSTEM_NAMESPACE, Service, config};
use ferrocast_tests::wait::{Stopwatch, eventually};
use ferrocast_tests::{cases, runner};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

/// A leader that was asked to stop has a successor that allocates within this, s.
const HAND_OVER_MAX_S: f32 = 2.0;
/// No successor may allocate before this, s: the Lease of 15 s, which the killed leader renewed at most 6 s before (every 2 s).
const LEASE_MIN_S: f32 = 9.0;
/// A killed leader has a successor that allocates within this, s: its Lease of 15 s, and the retries.
const TAKE_OVER_MAX_S: f32 = 20.0;

fn main() -> ExitCode {
    let cases = cases![
        of_two_services_on_one_address_the_later_one_is_released_at_take_over,
        a_restart_writes_nothing,
        a_restart_after_the_pool_was_renamed_and_grown_moves_nothing,
        a_type_changed_while_no_controller_ran_costs_the_annotation,
        a_terminated_leader_hands_over_at_once,
        a_leader_that_was_stopped_writes_nothing_when_it_goes_on,
        a_killed_leader_is_replaced_when_its_lease_expires,
    ];
    runner::main::<World>("api_terms", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// What decides which of two Services comes first: creation time (to the second, as the API server keeps it) and name.
async fn age(world: &World, service: &Service<'_>) -> Result<(String, String)> {
    let found = world.cluster.service(service.namespace, service.name).await?;
    let created = found.metadata.creation_timestamp.context("no creationTimestamp")?;
    Ok((created.0.to_string(), service.name.to_owned()))
}

/// Creates the second of two Services so that its creationTimestamp is later (or the same) and returns whether the first
/// one comes first.
async fn create_pair(world: &World, first: &Service<'_>, second: &Service<'_>, same_time: bool) -> Result<bool> {
    let what = format!("{} and {} were created as the case wants", first.name, second.name);
    eventually(&what, CONVERGENCE_TIME_MAX, async || {
        if same_time {
            world.cluster.delete(&first.object()).await?;
        }
        world.cluster.delete(&second.object()).await?;
        world.cluster.apply(&first.object()).await?;
        world.cluster.apply(&second.object()).await?;
        let (one, other) = (age(world, first).await?, age(world, second).await?);
        ensure!((one.0 == other.0) == same_time, "{one:?}, {other:?}");
        Ok(one < other)
    })
    .await
}

async fn of_two_services_on_one_address_the_later_one_is_released_at_take_over(world: &mut World) -> Result<()> {
    let site = world.site("clash").await?;
    site.give_pool("pool", &["192.0.2.0/28"]).await?;
    // The names are against the order of creation: they decide only between twins.
    let mut pairs = vec![];
    for (first, second, address, same_time) in
        [("z-old", "a-young", "192.0.2.3", false), ("z-twin", "a-twin", "192.0.2.4", true)]
    {
        let held = |name| site.service(name).annotated(ANNOTATION, "pool");
        let (first, second) = (held(first), held(second));
        let in_order = create_pair(world, &first, &second, same_time).await?;
        ensure!(in_order || same_time, "the older one must come first");
        for service in [&first, &second] {
            let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
            world.cluster.merge_status(&service.object(), &status).await?;
        }
        let (keeps, goes) = if in_order { (first, second) } else { (second, first) };
        pairs.push((keeps.name.to_owned(), goes.name.to_owned(), address));
    }
    let mut versions = vec![];
    for (keeps, ..) in &pairs {
        versions.push(site.version(keeps).await?);
    }
    let controller = world.controller(&site, "0").await?;
    for ((keeps, goes, address), version) in pairs.iter().zip(versions) {
        let holder = format!("{}/{keeps}", site.name);
        site.wait_for_event(goes, &["Warning ClearAssignment", address, &holder]).await?;
        site.wait_for_event(goes, &["IPAllocated"]).await?;
        let new = site.addresses(goes, 1).await?;
        ensure!(new != [*address], "{goes} kept {new:?}");
        site.wait_for(keeps, &[address]).await?;
        ensure!(site.version(keeps).await? == version, "{keeps} was written");
        let mut events = site.events(keeps, &[]).await?;
        // The API server's own, when its repair loop overtakes the creation of the Service's ClusterIP.
        events.retain(|event| !event.contains("ClusterIPNotAllocated"));
        ensure!(events.is_empty(), "{keeps} has {events:#?}");
    }
    end([controller]).await
}

/// A site with a Service of each sort: plain, of both families, sharing, requesting in the old way, waiting.
async fn furnished(world: &World, name: &str) -> Result<(Site, Ferrocast)> {
    let site = world.site(name).await?;
    site.give_pool("pool", &["192.0.2.0-192.0.2.3", "2001:db8::/124"]).await?;
    // What the test asks afterwards whether the controller is at work; nobody else may use it.
    let spare = json!({"addresses": ["198.51.100.0/24"], "autoAssign": false});
    world.cluster.apply(&config(&site.name, "IPAddressPool", "spare", spare)).await?;
    let controller = world.controller(&site, "0").await?;
    site.allocate(&site.service("plain"), 1).await?;
    site.allocate(&site.service("both").dual_stack(), 2).await?;
    site.allocate(&site.service("shares").annotated("metallb.io/allow-shared-ip", "key"), 1).await?;
    let old = site.service("old").annotated("metallb.universe.tf/loadBalancerIPs", "192.0.2.3");
    site.allocate(&old, 1).await?;
    site.wait_for_event("old", &["deprecatedAnnotation"]).await?;
    world.cluster.apply(&site.service("waiting").object()).await?;
    site.wait_for_event("waiting", &["AllocationFailed"]).await?;
    for name in ["plain", "both", "shares", "old"] {
        site.wait_for_event(name, &["IPAllocated"]).await?;
    }
    world.settled().await?;
    Ok((site, controller))
}

/// A Service that only a controller at work gives an address to.
fn probe<'a>(site: &'a Site, name: &'a str) -> Service<'a> {
    site.service(name).annotated("metallb.io/address-pool", "spare")
}

/// The resourceVersions of every Service.
async fn versions(world: &World, site: &Site) -> Result<BTreeMap<String, String>> {
    let api: Api<v1::Service> = Api::namespaced(world.cluster.client(), &site.name);
    let services = api.list(&ListParams::default()).await?.items.into_iter();
    Ok(services.filter_map(|s| Some((s.metadata.name?, s.metadata.resource_version?))).collect())
}

async fn a_restart_writes_nothing(world: &mut World) -> Result<()> {
    let (site, mut controller) = furnished(world, "restart").await?;
    let addresses = world.cluster.all_addresses(&site.name).await?;
    let before = versions(world, &site).await?;
    let mut events = 0;
    for name in before.keys() {
        events += site.events(name, &[]).await?.len();
    }
    controller.process().terminate().await?;
    let writes = world.writes()?;
    controller.restart()?;
    controller.wait_until_ready().await?;
    site.allocate(&probe(&site, "probe"), 1).await?;
    site.wait_for_event("probe", &["IPAllocated"]).await?;
    let mut after = versions(world, &site).await?;
    after.remove("probe");
    ensure!(after == before, "versions were {before:?}, are {after:?}");
    let mut now = world.cluster.all_addresses(&site.name).await?;
    now.remove("probe");
    ensure!(now == addresses, "addresses were {addresses:?}, are {now:?}");
    let mut events_now = 0;
    for name in before.keys() {
        events_now += site.events(name, &[]).await?.len();
    }
    ensure!(events_now == events, "Events were {events}, are {events_now}");
    // Standing warnings may be offered once more; the API server knows them by name and refuses.
    let refused = 2;
    world.wait_for_writes(writes, 2, 1 + refused).await?; // the probe's address and condition
    end([controller]).await
}

async fn a_restart_after_the_pool_was_renamed_and_grown_moves_nothing(world: &mut World) -> Result<()> {
    let (site, mut controller) = furnished(world, "renamed").await?;
    let mut addresses = world.cluster.all_addresses(&site.name).await?;
    controller.process().terminate().await?;
    world.cluster.delete(&site.pool("pool", &[])).await?;
    site.give_pool("renamed", &["192.0.2.0-192.0.2.4", "2001:db8::/124"]).await?;
    let writes = world.writes()?;
    controller.restart()?;
    for name in ["plain", "both", "shares", "old", "waiting"] {
        site.wait_for_annotation(name, Some("renamed")).await?;
    }
    addresses.insert("waiting".to_owned(), vec!["192.0.2.4".to_owned()]);
    let now = world.cluster.all_addresses(&site.name).await?;
    ensure!(now == addresses, "addresses should be {addresses:?}, are {now:?}");
    // A patch for each Service, and one for the condition of the one that got something; an Event for that, and a standing
    // warning that is refused.
    world.wait_for_writes(writes, 6, 2).await?;
    end([controller]).await
}

async fn a_type_changed_while_no_controller_ran_costs_the_annotation(world: &mut World) -> Result<()> {
    let site = world.site("away").await?;
    site.give_pool("pool", &["192.0.2.1/32"]).await?;
    let mut controller = world.controller(&site, "0").await?;
    site.allocate(&site.service("changing"), 1).await?;
    site.wait_for_annotation("changing", Some("pool")).await?;
    world.settled().await?;
    controller.process().terminate().await?;
    let mut inner = site.service("changing").object();
    inner["spec"] = json!({"type": "ClusterIP", "ports": [{"name": "http", "port": 80}]});
    world.cluster.apply(&inner).await?;
    world.cluster.apply(&site.service("heir").object()).await?;
    let writes = world.writes()?;
    controller.restart()?;
    site.wait_for("heir", &["192.0.2.1"]).await?;
    site.wait_for_annotation("changing", None).await?;
    world.wait_for_writes(writes, 4, 1).await?; // of each Service the annotation or address, and the condition
    end([controller]).await
}

/// The Lease's holder by the name of its replica.
async fn holder(world: &World) -> Result<String> {
    let api: Api<Lease> = Api::namespaced(world.cluster.client(), SYSTEM_NAMESPACE);
    let spec = api.get("ferrocast-controller").await?.spec.context("a Lease without spec")?;
    let identity = spec.holder_identity.unwrap_or_default();
    Ok(identity.rsplit_once('_').map(|(name, _)| name.to_owned()).unwrap_or_default())
}

/// Starts two replicas; the one that leads comes first.
async fn replicas(world: &World, site: &Site) -> Result<[Ferrocast; 2]> {
    let mut both = [world.controller(site, "0").await?, world.controller(site, "1").await?];
    site.allocate(&site.service("before"), 1).await?;
    let leads = |role: &Ferrocast| role.metric("ferrocast_leader").unwrap_or(0.0);
    both.sort_by_key(|role| Reverse(leads(role) > 0.0));
    ensure!(leads(&both[0]) > 0.0 && leads(&both[1]) < 1.0, "not exactly one leads");
    for role in &both {
        role.get("/readyz")?;
        role.get("/healthz")?;
    }
    Ok(both)
}

/// Sends the leader a signal, and measures how long it takes until a new Service has an address.
async fn succession(world: &World, site: &Site, leader: &mut Ferrocast, signal: &str) -> Result<f32> {
    let old = holder(world).await?;
    let address = world.cluster.addresses(&site.name, "before").await?;
    let watch = Stopwatch::start();
    leader.process().signal(signal)?;
    site.allocate(&site.service("after"), 1).await?;
    let took = watch.seconds();
    let new = holder(world).await?;
    ensure!(new != old && new.starts_with(&site.name), "the Lease was {old}'s and is {new}'s");
    ensure!(world.cluster.addresses(&site.name, "before").await? == address, "an address changed");
    println!("     {signal}: a new Service had its address after {took:.2} s");
    Ok(took)
}

async fn a_terminated_leader_hands_over_at_once(world: &mut World) -> Result<()> {
    let site = world.site("hand-over").await?;
    site.give_pool("pool", &["192.0.2.0/28"]).await?;
    let [mut leader, standby] = replicas(world, &site).await?;
    let took = succession(world, &site, &mut leader, "TERM").await?;
    ensure!(took <= HAND_OVER_MAX_S, "it took {took} s");
    drop(leader);
    end([standby]).await
}

/// What a frozen virtual machine does: its Lease expires without its knowing.
async fn a_leader_that_was_stopped_writes_nothing_when_it_goes_on(world: &mut World) -> Result<()> {
    let site = world.site("frozen").await?;
    site.give_pool("pool", &["192.0.2.0/28"]).await?;
    let [mut leader, standby] = replicas(world, &site).await?;
    let took = succession(world, &site, &mut leader, "STOP").await?;
    ensure!(took <= TAKE_OVER_MAX_S, "it took {took} s");
    site.wait_for_event("after", &["IPAllocated"]).await?;
    let writes = world.settled().await?;
    leader.process().signal("CONT")?;
    wait_for_log(&leader, &["WARN", "leadership lost"]).await?;
    site.allocate(&site.service("again"), 1).await?;
    world.wait_for_writes(writes, 2, 1).await?; // address and condition
    ensure!(leader.metric("ferrocast_leader")? < 1.0, "it leads again");
    leader.get("/readyz")?;
    end([leader, standby]).await
}

async fn a_killed_leader_is_replaced_when_its_lease_expires(world: &mut World) -> Result<()> {
    let site = world.site("take-over").await?;
    site.give_pool("pool", &["192.0.2.0/28"]).await?;
    let [mut leader, standby] = replicas(world, &site).await?;
    let took = succession(world, &site, &mut leader, "KILL").await?;
    ensure!(took <= TAKE_OVER_MAX_S, "it took {took} s");
    ensure!(took > LEASE_MIN_S, "the Lease was not respected: it took {took} s");
    end([standby]).await
}
