//! A resource type that is deleted under Ferrocast and comes back. It has a control plane of its own: types are
//! everybody's.

mod api;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use api::{World, end, wait_for_log};
use ferrocast_tests::lab::CONVERGENCE_TIME_MAX;
use ferrocast_tests::wait::{eventually, throughout};
use ferrocast_tests::{cases, runner};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

/// How long addresses are watched while their pool's type, or the pool, is away, s: longer than the watchers' waits.
const ABSENCE_S: u64 = 5;

fn main() -> ExitCode {
    let cases = cases![no_address_is_released_when_the_type_of_pools_is_deleted_and_comes_back];
    runner::main::<World>("api_types", env!("CARGO_TARGET_TMPDIR"), cases)
}

async fn no_address_is_released_when_the_type_of_pools_is_deleted_and_comes_back(world: &mut World) -> Result<()> {
    let site = world.site("types").await?;
    site.give_pool("one", &["192.0.2.0/31"]).await?;
    site.give_pool("two", &["198.51.100.0/28"]).await?;
    let controller = world.controller(&site, "0").await?;
    for name in ["a", "b", "c"] {
        site.allocate(&site.service(name), 1).await?;
    }
    let addresses = world.cluster.all_addresses(&site.name).await?;
    let unchanged = async || -> Result<()> {
        let mut now = world.cluster.all_addresses(&site.name).await?;
        now.retain(|name, _| addresses.contains_key(name));
        ensure!(now == addresses, "they were {addresses:?} and are {now:?}");
        Ok(())
    };
    let absence = Duration::from_secs(ABSENCE_S);

    let crds: Api<CustomResourceDefinition> = Api::all(world.cluster.client());
    let name = "ipaddresspools.metallb.io";
    let mut definition = crds.get(name).await?;
    crds.delete(name, &DeleteParams::default()).await?;
    wait_for_log(&controller, &["WARN", "IPAddressPool", "is being deleted"]).await?;
    eventually("the type is gone", CONVERGENCE_TIME_MAX, async || {
        ensure!(crds.get_opt(name).await?.is_none(), "still there");
        Ok(())
    })
    .await?;
    throughout("addresses stay while the type is away", absence, unchanged).await?;
    // What is known goes on serving.
    site.allocate(&site.service("meanwhile"), 1).await?;

    definition.status = None;
    definition.metadata.resource_version = None;
    definition.metadata.uid = None;
    crds.create(&PostParams::default(), &definition).await?;
    wait_for_log(&controller, &["IPAddressPool", "is back"]).await?;
    throughout("addresses stay until the pools are restored", absence, unchanged).await?;
    // One after the other, as people do.
    site.give_pool("two", &["198.51.100.0/28"]).await?;
    throughout("addresses of the pool that is not restored yet stay", absence, unchanged).await?;
    site.give_pool("one", &["192.0.2.0/31"]).await?;
    site.allocate(&site.service("after"), 1).await?;
    unchanged().await?;

    // From here on a deletion is one again: nobody gets an address of that pool, who has one holds it.
    world.cluster.delete(&site.pool("two", &[])).await?;
    site.wait_for_held("c", true).await?;
    world.cluster.apply(&site.service("late").object()).await?;
    site.wait_for_event("late", &["AllocationFailed"]).await?;
    unchanged().await?;
    end([controller]).await
}
