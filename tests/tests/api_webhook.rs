//! The validating webhook on a real API server, and what becomes of addresses that an edit takes away.

mod api;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use api::{HOST, Site, World, end};
use ferrocast_tests::ferrocast::Ferrocast;
use ferrocast_tests::lab::CONVERGENCE_TIME_MAX;
use ferrocast_tests::objects::{SYSTEM_NAMESPACE, config};
use ferrocast_tests::process::free_port;
use ferrocast_tests::wait::{ensure_that, eventually};
use ferrocast_tests::{cases, runner};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let cases = cases![
        mistakes_are_refused_before_they_are_stored,
        a_pool_is_renamed_and_a_range_moved_without_a_service_noticing,
        a_set_of_addresses_is_moved_by_its_digest_and_no_other,
        a_held_address_stays_held_over_a_restart,
        a_namespace_with_living_pools_can_be_deleted,
        a_lost_certificate_is_made_anew,
    ];
    runner::main::<World>("api_webhook", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// A controller of the site with its webhook, which the API server asks from now on.
async fn with_webhook(world: &World, site: &Site) -> Result<Ferrocast> {
    let port = free_port()?;
    world.plane.use_webhook(&format!("https://{HOST}:{port}/validate"))?;
    let listen = format!("--webhook={HOST}:{port}");
    let controller = world.controller_with(site, "0", &[&listen, "--webhook-host", HOST]).await?;
    // The API server refuses everything until it trusts the certificate (failurePolicy Fail in these tests).
    eventually("the webhook answers", CONVERGENCE_TIME_MAX, async || {
        let probe = config(&site.name, "Community", "probe", json!({"communities": [{"name": "x", "value": "1:2"}]}));
        world.cluster.apply(&probe).await
    })
    .await?;
    Ok(controller)
}

/// Ends the controller and takes the webhook out of the API server's way.
async fn without_webhook(world: &World, controller: Ferrocast) -> Result<()> {
    world.plane.kubectl(&["delete", "validatingwebhookconfiguration", "ferrocast-webhook"], None)?;
    end([controller]).await
}

/// What the API server says when it refuses the object.
async fn refusal(world: &World, object: &Value) -> Result<String> {
    match world.cluster.apply(object).await {
        Ok(()) => bail!("stored: {object}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn contains(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    Ok(())
}

async fn mistakes_are_refused_before_they_are_stored(world: &mut World) -> Result<()> {
    let site = world.site("refused").await?;
    let controller = with_webhook(world, &site).await?;
    let name = &site.name;
    site.give_pool("first", &["192.0.2.0/24"]).await?;
    let cases: Vec<(Value, &[&str])> = vec![
        (site.pool("broken", &["192.0.2.300/24"]), &["spec.addresses[0]", "192.0.2.300/24"]),
        (site.pool("twice", &["192.0.2.128/25"]), &["192.0.2.128/25", "overlaps", "first"]),
        (site.pool("mixed", &["192.0.2.1-fc00::1"]), &["different families"]),
        (
            config(name, "BGPPeer", "self", json!({"myASN": 0, "peerASN": 1, "peerAddress": "10.0.0.1"})),
            &["spec.myASN"],
        ),
        (config(name, "BGPPeer", "lost", json!({"myASN": 1, "peerASN": 1})), &["Address or Interface"]),
        (
            config(name, "BGPAdvertisement", "wide", json!({"aggregationLength": 20})),
            &["aggregation length 20", "first"],
        ),
        (config(name, "Community", "odd", json!({"communities": [{"name": "x", "value": "1"}]})), &["community"]),
        (
            config(name, "PoolPolicy", "odd", json!({"ipAddressPools": ["first"], "noNewAddresses": ["x"]})),
            &["spec.noNewAddresses[0]"],
        ),
        (config("default", "BGPAdvertisement", "elsewhere", json!({})), &["must be created in refused"]),
    ];
    for (object, words) in cases {
        contains(&refusal(world, &object).await?, words).with_context(|| object.to_string())?;
    }
    // What refers to something that may come later passes; a BFDProfile that is in use stays.
    let peer = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.99.0.99", "bfdProfile": "later"});
    world.cluster.apply(&config(name, "BGPPeer", "early", peer)).await?;
    let profile = config(name, "BFDProfile", "later", json!({}));
    world.cluster.apply(&profile).await?;
    eventually("the profile in use cannot be deleted", CONVERGENCE_TIME_MAX, async || {
        world.cluster.apply(&profile).await?;
        let said = world.plane.kubectl(&["delete", "bfdprofile", "later", "-n", name], None);
        let said = said.err().map(|error| format!("{error:#}")).context("it was deleted")?;
        contains(&said, &["used by BGPPeer", "early"])
    })
    .await?;
    // kubectl shows what is legal, but surely a mistake.
    let advertisement = config(name, "BGPAdvertisement", "dangling", json!({"ipAddressPools": ["nowhere"]}));
    world.cluster.apply(&advertisement).await?;
    without_webhook(world, controller).await
}

fn annotated(mut object: Value, wish: &str) -> Value {
    object["metadata"]["annotations"] = json!({"ferrocast.io/on-address-loss": wish});
    object
}

async fn a_pool_is_renamed_and_a_range_moved_without_a_service_noticing(world: &mut World) -> Result<()> {
    let site = world.site("renamed").await?;
    let controller = with_webhook(world, &site).await?;
    site.give_pool("old", &["192.0.2.0/30", "198.51.100.0/30"]).await?;
    let names = ["a", "b", "c"];
    let mut addresses = Vec::new();
    for name in names {
        addresses.push(site.allocate(&site.service(name), 1).await?.remove(0));
    }
    let unchanged = async |world: &World| -> Result<()> {
        for (name, address) in names.iter().zip(&addresses) {
            let found = world.cluster.addresses(&site.name, name).await?;
            ensure!(found == [address.clone()], "{name} had {address} and has {found:?}");
        }
        Ok(())
    };
    // Deleted or shrunk as it is, three Services would lose their address.
    let said = world.plane.kubectl(&["delete", "ipaddresspool", "old", "-n", &site.name], None);
    let said = said.err().map(|error| format!("{error:#}")).context("the pool was deleted")?;
    contains(&said, &["3 Services would lose", "renamed/a 192.0.2.0", "ferrocast.io/on-address-loss: hold", "move-"])?;
    contains(&refusal(world, &site.pool("old", &["198.51.100.0/30"])).await?, &["renamed/b 192.0.2.1"])?;
    // A range moves to another pool: out of one, held; into the other.
    let smaller = annotated(site.pool("old", &["198.51.100.0/30"]), "hold");
    world.cluster.apply(&smaller).await?;
    site.wait_for_held("a", true).await?;
    unchanged(world).await?;
    site.give_pool("new", &["192.0.2.0/30"]).await?;
    site.wait_for_annotation("a", Some("new")).await?;
    site.wait_for_held("a", false).await?;
    // The other way round, a rename: the pool goes, held by its annotation, and comes back under another name.
    world
        .cluster
        .merge(&site.pool("new", &[]), &json!({"metadata": {"annotations": {"ferrocast.io/on-address-loss": "hold"}}}))
        .await?;
    world.cluster.delete(&site.pool("new", &[])).await?;
    site.wait_for_held("c", true).await?;
    unchanged(world).await?;
    site.give_pool("newer", &["192.0.2.0/29"]).await?;
    site.wait_for_annotation("c", Some("newer")).await?;
    site.wait_for_held("c", false).await?;
    unchanged(world).await?;
    without_webhook(world, controller).await
}

async fn a_set_of_addresses_is_moved_by_its_digest_and_no_other(world: &mut World) -> Result<()> {
    let site = world.site("moved").await?;
    let controller = with_webhook(world, &site).await?;
    site.give_pool("pool", &["192.0.2.0/31", "198.51.100.0/28"]).await?;
    for (name, address) in [("a", "192.0.2.0"), ("b", "192.0.2.1")] {
        world.cluster.apply(&site.service(name).object()).await?;
        site.wait_for(name, &[address]).await?;
    }
    let smaller = site.pool("pool", &["198.51.100.0/28"]);
    let said = refusal(world, &smaller).await?;
    let digest = said.split("move-").nth(1).and_then(|rest| rest.get(..12)).context("no digest")?.to_owned();
    let wrong = annotated(smaller.clone(), "move-000000000000");
    contains(&refusal(world, &wrong).await?, &["others now", &digest])?;
    world.cluster.apply(&annotated(smaller, &format!("move-{digest}"))).await?;
    site.wait_for("a", &["198.51.100.0"]).await?;
    site.wait_for("b", &["198.51.100.1"]).await?;
    site.wait_for_event("a", &["ClearAssignment"]).await?;
    without_webhook(world, controller).await
}

async fn a_held_address_stays_held_over_a_restart(world: &mut World) -> Result<()> {
    let site = world.site("held-over").await?;
    // Without a webhook nothing refuses the edit: it is held all the same.
    let mut controller = world.controller(&site, "0").await?;
    site.give_pool("pool", &["192.0.2.0/30"]).await?;
    let address = site.allocate(&site.service("a"), 1).await?.remove(0);
    eventually("the configuration in force is recorded", CONVERGENCE_TIME_MAX, async || {
        let maps = world.cluster.list("v1", "ConfigMap", &site.name).await?;
        let found = maps.iter().filter_map(|map| map.metadata.name.as_deref());
        ensure_that(found.into_iter().any(|name| name.starts_with("ferrocast-in-force")), || "not yet".to_owned())
    })
    .await?;
    world.cluster.delete(&site.pool("pool", &[])).await?;
    site.wait_for_held("a", true).await?;
    controller.process().terminate().await?;
    // A Service that comes with somebody else's address is neither held nor touched.
    let foreign = site.service("foreign");
    world.cluster.apply(&foreign.object()).await?;
    world
        .cluster
        .merge_status(&foreign.object(), &json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}))
        .await?;
    controller.restart()?;
    controller.wait_until_ready().await?;
    eventually("it is said that the address is not ours", CONVERGENCE_TIME_MAX, async || {
        let found = site.condition("foreign", "ferrocast.io/AddressNotOurs").await?;
        ensure_that(found.is_some(), || "not yet".to_owned())
    })
    .await?;
    site.wait_for("a", &[&address]).await?;
    site.wait_for("foreign", &["203.0.113.7"]).await?;
    site.wait_for_held("a", true).await?;
    site.give_pool("again", &["192.0.2.0/24"]).await?;
    site.wait_for_annotation("a", Some("again")).await?;
    site.wait_for("a", &[&address]).await?;
    end([controller]).await
}

async fn a_namespace_with_living_pools_can_be_deleted(world: &mut World) -> Result<()> {
    let site = world.site("doomed").await?;
    let controller = with_webhook(world, &site).await?;
    site.give_pool("pool", &["192.0.2.0/30"]).await?;
    // A Service elsewhere lives on the pool.
    world.cluster.ensure_namespace("survivor").await?;
    let mut service = site.service("a").object();
    service["metadata"]["namespace"] = json!("survivor");
    world.cluster.apply(&service).await?;
    world.cluster.wait_for_addresses("survivor", "a", 1).await?;
    world.cluster.merge(&site.pool("pool", &[]), &json!({"metadata": {"labels": {"x": "y"}}})).await?;
    world.plane.kubectl(&["delete", "namespace", &site.name, "--wait=false"], None)?;
    // There is no namespace controller here: the test does its work, with the administrator's rights in a namespace that goes.
    world.plane.kubectl(&["delete", "ipaddresspool", "pool", "-n", &site.name], None)?;
    let found = world.cluster.addresses("survivor", "a").await?;
    ensure!(found == ["192.0.2.0"], "the Service has {found:?}");
    without_webhook(world, controller).await
}

async fn a_lost_certificate_is_made_anew(world: &mut World) -> Result<()> {
    let site = world.site("certified").await?;
    let controller = with_webhook(world, &site).await?;
    let bundle = async || -> Result<String> {
        let of = ["get", "validatingwebhookconfiguration", "ferrocast-webhook", "-o", "jsonpath={..caBundle}"];
        world.plane.kubectl(&of, None)
    };
    let before = bundle().await?;
    world
        .plane
        .kubectl(&["delete", "secret", "ferrocast-webhook-cert", "-n", SYSTEM_NAMESPACE, "--wait=false"], None)?;
    eventually("another certificate is trusted", CONVERGENCE_TIME_MAX, async || {
        let now = bundle().await?;
        ensure_that(now != before && !now.is_empty(), || "not yet".to_owned())
    })
    .await?;
    eventually("it is served", CONVERGENCE_TIME_MAX, async || site.give_pool("pool", &["192.0.2.0/30"]).await).await?;
    without_webhook(world, controller).await
}
