//! Pools that run out and fill up again, classes, and requests that cannot be met: what the user reads about it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::{Ferrocast, Role, Settings};
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, Lab, NODES, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Service};
use ferrocast_tests::process::free_port;
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually, throughout};
use serde_json::json;

/// The annotation by which a Service asks for a pool.
const POOL: &str = "metallb.io/address-pool";
/// How long nothing may happen where nothing should.
const NOTHING_HAPPENS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cases = cases![
        an_exhausted_pool_is_named_and_a_freed_address_goes_to_the_waiting_service,
        an_exhausted_family_is_named,
        a_grown_pool_serves_those_who_wait,
        a_class_of_its_own_is_served_by_its_controller_only,
        a_change_of_type_gives_the_address_back,
        an_impossible_request_is_explained,
    ];
    runner::main::<Bed>("e2e_pools", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed {
    lab: Lab,
    dir: std::path::PathBuf,
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

async fn an_exhausted_pool_is_named_and_a_freed_address_goes_to_the_waiting_service(bed: &mut Bed) -> Result<()> {
    let lab = &bed.lab;
    let pool = objects::pool(CONFIG_NAMESPACE, "small", &["10.52.0.0/31"]);
    lab.cluster.apply(&pool).await?;
    let services = ["small-1", "small-2", "small-3"].map(|name| Service::named(name).annotated(POOL, "small"));
    for service in &services[..2] {
        lab.apply_service(service, &NODES).await?;
        lab.cluster.wait_for_addresses("default", service.name, 1).await?;
    }
    lab.apply_service(&services[2], &NODES).await?;
    lab.cluster.wait_for_event("default", "small-3", &["Warning AllocationFailed", "small", "IPv4"]).await?;
    let freed = lab.cluster.addresses("default", "small-1").await?;
    lab.cluster.delete(&services[0].object()).await?;
    let got = lab.cluster.wait_for_addresses("default", "small-3", 1).await?;
    ensure!(got == freed, "freed {freed:?}, got {got:?}");
    lab.wait_for_hops(&host_route(&got[0]), &NODES).await?;
    lab.cluster.delete_all(&[services[1].object(), services[2].object(), pool]).await
}

async fn an_exhausted_family_is_named(bed: &mut Bed) -> Result<()> {
    let lab = &bed.lab;
    let pool = objects::pool(CONFIG_NAMESPACE, "thin", &["10.53.0.0/30", "fd53::/128"]);
    lab.cluster.apply(&pool).await?;
    let services = ["thin-1", "thin-2"].map(|name| Service::named(name).dual_stack().annotated(POOL, "thin"));
    lab.apply_service(&services[0], &NODES).await?;
    lab.cluster.wait_for_addresses("default", "thin-1", 2).await?;
    lab.apply_service(&services[1], &NODES).await?;
    lab.cluster.wait_for_event("default", "thin-2", &["Warning AllocationFailed", "thin", "IPv6"]).await?;
    ensure!(lab.cluster.addresses("default", "thin-2").await?.is_empty(), "RequireDualStack got half of it");
    lab.cluster.delete_all(&[services[0].object(), services[1].object(), pool]).await
}

async fn a_grown_pool_serves_those_who_wait(bed: &mut Bed) -> Result<()> {
    let lab = &bed.lab;
    lab.cluster.apply(&objects::pool(CONFIG_NAMESPACE, "growing", &["10.54.0.0/32"])).await?;
    let services = ["growing-1", "growing-2"].map(|name| Service::named(name).annotated(POOL, "growing"));
    for service in &services {
        lab.apply_service(service, &NODES).await?;
    }
    eventually("one of both has the only address", CONVERGENCE_TIME_MAX, async || {
        let all = lab.cluster.all_addresses("default").await?;
        let holders = all.iter().filter(|(name, addresses)| name.starts_with("growing") && !addresses.is_empty());
        let count = holders.count();
        ensure_that(count == 1, || format!("{count} have one"))
    })
    .await?;
    let before = lab.cluster.all_addresses("default").await?;
    let grown = objects::pool(CONFIG_NAMESPACE, "growing", &["10.54.0.0/31"]);
    lab.cluster.apply(&grown).await?;
    for service in &services {
        let now = lab.cluster.wait_for_addresses("default", service.name, 1).await?;
        ensure!(before[service.name].is_empty() || before[service.name] == now, "{} moved to {now:?}", service.name);
    }
    lab.cluster.delete_all(&[services[0].object(), services[1].object(), grown]).await
}

async fn a_class_of_its_own_is_served_by_its_controller_only(bed: &mut Bed) -> Result<()> {
    let lab = &bed.lab;
    let service = Service::named("of-another-class").of_class("example.org/other");
    lab.apply_service(&service, &NODES).await?;
    throughout("a Service of another class is left alone", NOTHING_HAPPENS, async || {
        let addresses = lab.cluster.addresses("default", "of-another-class").await?;
        ensure_that(addresses.is_empty(), || format!("it has {addresses:?}"))
    })
    .await?;
    ensure!(lab.cluster.events_about("default", "of-another-class").await?.is_empty(), "it got an Event");
    // A second installation for that class, which reads the same configuration; its pool is beside the first one's.
    let pool = objects::pool(CONFIG_NAMESPACE, "other", &["10.55.0.0/30"]);
    lab.cluster.apply(&pool).await?;
    lab.plane.kubectl(&["delete", "lease", "-n", objects::SYSTEM_NAMESPACE, "--all"], None)?;
    let settings = Settings { class: Some("example.org/other".to_owned()), ..Settings::default() };
    let role = Role::Controller { name: "other".to_owned(), port: free_port()? };
    let mut lab_controller = bed.lab.controllers.remove(0);
    lab_controller.process().terminate().await?;
    let mut other = Ferrocast::start(&bed.lab.plane, &bed.dir, role, settings).await?;
    other.wait_until_ready().await?;
    bed.lab.cluster.wait_for_addresses("default", "of-another-class", 1).await?;
    other.process().terminate().await?;
    lab_controller.restart()?;
    lab_controller.wait_until_ready().await?;
    bed.lab.controllers.push(lab_controller);
    bed.lab.cluster.delete_all(&[service.object(), pool]).await
}

async fn a_change_of_type_gives_the_address_back(bed: &mut Bed) -> Result<()> {
    let lab = &bed.lab;
    let service = Service::named("changing");
    lab.apply_service(&service, &NODES).await?;
    let address = lab.cluster.wait_for_addresses("default", "changing", 1).await?.remove(0);
    lab.wait_for_hops(&host_route(&address), &NODES).await?;
    let change =
        json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null, "allocateLoadBalancerNodePorts": null}});
    lab.cluster.merge(&service.object(), &change).await?;
    lab.wait_for_hops(&host_route(&address), &[]).await?;
    eventually("the annotation is gone", CONVERGENCE_TIME_MAX, async || {
        let annotations = lab.cluster.service("default", "changing").await?.metadata.annotations.unwrap_or_default();
        ensure_that(!annotations.contains_key("metallb.io/ip-allocated-from-pool"), || format!("{annotations:?}"))
    })
    .await?;
    let next = Service::named("next").annotated("metallb.io/loadBalancerIPs", &address);
    lab.apply_service(&next, &NODES).await?;
    ensure!(lab.cluster.wait_for_addresses("default", "next", 1).await? == [address.clone()], "not the freed address");
    lab.cluster.delete_all(&[service.object(), next.object()]).await
}

async fn an_impossible_request_is_explained(bed: &mut Bed) -> Result<()> {
    let lab = &bed.lab;
    for (name, key, value, words) in [
        ("asks-outside", "metallb.io/loadBalancerIPs", "192.0.2.77", ["AllocationFailed", "192.0.2.77"]),
        ("asks-unknown", POOL, "nowhere", ["AllocationFailed", "nowhere"]),
        ("asks-nonsense", "metallb.io/loadBalancerIPs", "ten-dot", ["LoadBalancerFailed", "ten-dot"]),
    ] {
        let service = Service::named(name).annotated(key, value);
        lab.apply_service(&service, &NODES).await?;
        lab.cluster.wait_for_event("default", name, &words).await?;
        lab.cluster.delete(&service.object()).await?;
    }
    Ok(())
}
