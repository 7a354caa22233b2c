//! One Service after another against a real API server: what is given, what is written, what is told.

mod api;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use api::{ANNOTATION, World, end, with_ports};
use ferrocast_tests::lab::CONVERGENCE_TIME_MAX;
use ferrocast_tests::objects::{Service, config, namespace};
use ferrocast_tests::wait::eventually;
use ferrocast_tests::{cases, runner};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let cases = cases![
        a_new_service_costs_two_patches_and_one_event,
        a_service_that_is_no_load_balancer_any_more_loses_annotation_and_address_by_one_patch,
        a_service_of_another_class_is_never_written,
        a_status_that_somebody_else_changed_is_put_right_by_one_patch,
        a_failure_is_told_once_until_its_text_changes,
        services_with_one_key_and_disjoint_ports_share_an_address,
        a_requested_address_is_given_under_both_prefixes_and_by_the_spec,
        a_service_that_requires_both_families_gets_both_or_nothing,
        a_service_that_prefers_both_families_is_upgraded_when_its_pool_is,
        a_pool_without_automatic_assignment_serves_only_who_names_it,
        a_namespaced_pool_follows_the_labels_of_namespaces,
        a_deleted_namespace_frees_the_addresses_in_it,
    ];
    runner::main::<World>("api_services", env!("CARGO_TARGET_TMPDIR"), cases)
}

async fn a_new_service_costs_two_patches_and_one_event(world: &mut World) -> Result<()> {
    let site = world.site("one-write").await?;
    site.give_pool("pool", &["192.0.2.0/28"]).await?;
    let controller = world.controller(&site, "0").await?;
    site.allocate(&site.service("first"), 1).await?; // from here on it leads and is warm
    site.wait_for_event("first", &["IPAllocated"]).await?;
    let before = world.settled().await?;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        world.cluster.apply(&site.service(name).object()).await?;
    }
    for name in names {
        let address = site.addresses(name, 1).await?.remove(0);
        let event = site.wait_for_event(name, &["Normal IPAllocated", "Assigned IP", &address]).await?;
        let all = world.cluster.events_about(&site.name, name).await?;
        ensure!(all == [event], "{name} has {all:#?}");
    }
    // One patch for the address, one for the condition.
    world.wait_for_writes(before, 10, 5).await?;
    let service = serde_json::to_value(world.cluster.service(&site.name, "a").await?)?;
    let mode = service.pointer("/status/loadBalancer/ingress/0/ipMode").and_then(Value::as_str);
    ensure!(mode == Some("VIP"), "the API server adds ipMode no more, the case has lost its point: {service}");
    end([controller]).await
}

async fn a_service_that_is_no_load_balancer_any_more_loses_annotation_and_address_by_one_patch(
    world: &mut World,
) -> Result<()> {
    let site = world.site("type-change").await?;
    site.give_pool("pool", &["192.0.2.1/32"]).await?;
    let controller = world.controller(&site, "0").await?;
    let service = site.service("changing");
    site.allocate(&service, 1).await?;
    site.wait_for_annotation("changing", Some("pool")).await?;
    let waiting = site.service("waiting");
    world.cluster.apply(&waiting.object()).await?;
    site.wait_for_event("waiting", &["AllocationFailed"]).await?;

    let before = world.settled().await?;
    let mut inner = service.object();
    inner["spec"] =
        json!({"type": "ClusterIP", "selector": {"app": "changing"}, "ports": [{"name": "http", "port": 80}]});
    world.cluster.apply(&inner).await?;
    site.wait_for_annotation("changing", None).await?;
    site.wait_for("waiting", &["192.0.2.1"]).await?;
    // One patch and one of the condition for each of the two Services, one Event for the one that got something.
    world.wait_for_writes(before, 4, 1).await?;
    site.wait_for("changing", &[]).await?;

    world.cluster.delete(&waiting.object()).await?;
    world.cluster.apply(&service.object()).await?;
    site.wait_for("changing", &["192.0.2.1"]).await?;
    site.wait_for_annotation("changing", Some("pool")).await?;
    end([controller]).await
}

async fn a_service_of_another_class_is_never_written(world: &mut World) -> Result<()> {
    let site = world.site("other-class").await?;
    let other = site.service("other").of_class("example.com/other").annotated(ANNOTATION, "theirs");
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    world.cluster.apply(&other.object()).await?;
    world.cluster.merge_status(&other.object(), &status).await?;
    let version = site.version("other").await?;
    site.give_pool("pool", &["192.0.2.0/30"]).await?;
    let controller = world.controller(&site, "0").await?;
    site.allocate(&site.service("ours"), 1).await?;
    // It changes under the controller's eyes, too.
    world.cluster.merge(&other.object(), &json!({"metadata": {"labels": {"touched": "yes"}}})).await?;
    let touched = site.version("other").await?;
    site.allocate(&site.service("ours-too"), 1).await?;
    ensure!(touched != version, "the test changed nothing");
    ensure!(site.version("other").await? == touched, "it was written");
    let events = world.cluster.events_about(&site.name, "other").await?;
    ensure!(events.is_empty(), "Events: {events:#?}");
    end([controller]).await
}

async fn a_status_that_somebody_else_changed_is_put_right_by_one_patch(world: &mut World) -> Result<()> {
    let site = world.site("tampered").await?;
    site.give_pool("pool", &["192.0.2.0/28"]).await?;
    let controller = world.controller(&site, "0").await?;
    let service = site.service("victim");
    site.allocate(&service, 1).await?;
    site.wait_for_event("victim", &["IPAllocated"]).await?;
    let object = service.object();
    for ingress in
        [json!(null), json!([{"ip": "192.0.2.9"}]), json!([{"ip": "192.0.2.0"}, {"hostname": "example.com"}])]
    {
        let before = world.settled().await?;
        world.cluster.merge_status(&object, &json!({"loadBalancer": {"ingress": ingress}})).await?;
        site.wait_for_ingress("victim", &json!([{"ip": "192.0.2.0", "ipMode": "VIP"}])).await?;
        let told = u64::from(ingress[0]["ip"] != "192.0.2.0"); // that it has its address again
        world.wait_for_writes(before, 2, told).await?; // the test's own and the answer
    }
    let before = world.settled().await?;
    world.cluster.merge(&object, &json!({"metadata": {"annotations": {ANNOTATION: null}}})).await?;
    site.wait_for_annotation("victim", Some("pool")).await?;
    world.wait_for_other_writes(before, 1, 0, 1).await?;
    end([controller]).await
}

async fn a_failure_is_told_once_until_its_text_changes(world: &mut World) -> Result<()> {
    let site = world.site("failure").await?;
    site.give_pool("pool", &["192.0.2.1/32"]).await?;
    let mut controller = world.controller(&site, "0").await?;
    let holder = site.service("holder");
    site.allocate(&holder, 1).await?;
    let waiting = site.service("waiting");
    world.cluster.apply(&waiting.object()).await?;
    let exhausted = ["Warning AllocationFailed", "no available IPs", "pool", "IPv4"];
    site.wait_for_event("waiting", &exhausted).await?;

    // Neither a change that does not concern it nor a restart says it again.
    world.cluster.merge(&waiting.object(), &json!({"metadata": {"labels": {"touched": "yes"}}})).await?;
    controller.process().terminate().await?;
    controller.restart()?;
    controller.wait_until_ready().await?;
    site.give_pool("other", &["2001:db8::1/128"]).await?;
    site.allocate(&site.service("six").ipv6(), 1).await?;
    let told = site.events("waiting", &["AllocationFailed"]).await?;
    ensure!(told.len() == 1, "told {told:#?}");

    // Another text, and the first one again after that.
    world.cluster.apply(&waiting.clone().annotated("metallb.io/address-pool", "absent").object()).await?;
    site.wait_for_event("waiting", &["AllocationFailed", "unknown pool \"absent\""]).await?;
    world.cluster.apply(&waiting.object()).await?;
    eventually("the first text is told again", CONVERGENCE_TIME_MAX, async || {
        let told = site.events("waiting", &exhausted).await?;
        ensure!(told.len() == 2, "told {told:#?}");
        Ok(())
    })
    .await?;
    let all = site.events("waiting", &["AllocationFailed"]).await?;
    ensure!(all.len() == 3, "told {all:#?}");

    world.cluster.delete(&holder.object()).await?;
    site.wait_for("waiting", &["192.0.2.1"]).await?;
    end([controller]).await
}

async fn services_with_one_key_and_disjoint_ports_share_an_address(world: &mut World) -> Result<()> {
    let site = world.site("sharing").await?;
    site.give_pool("pool", &["192.0.2.0/28"]).await?;
    let controller = world.controller(&site, "0").await?;
    let shared = |name| site.service(name).annotated("metallb.io/allow-shared-ip", "key");
    for (name, ports, address) in [
        ("web", [80, 443], "192.0.2.0"),
        ("dns", [53, 853], "192.0.2.0"),
        ("clash", [443, 8443], "192.0.2.1"), // 443 is taken
    ] {
        world.cluster.apply(&with_ports(&shared(name), &ports)).await?;
        site.wait_for(name, &[address]).await?;
    }
    site.allocate(&site.service("alone"), 1).await?;
    site.wait_for("alone", &["192.0.2.2"]).await?;
    // Who gives the key up has to leave; the other stays.
    world.cluster.apply(&with_ports(&site.service("dns"), &[53, 853])).await?;
    site.wait_for("dns", &["192.0.2.3"]).await?;
    site.wait_for("web", &["192.0.2.0"]).await?;
    end([controller]).await
}

async fn a_requested_address_is_given_under_both_prefixes_and_by_the_spec(world: &mut World) -> Result<()> {
    let site = world.site("requests").await?;
    site.give_pool("pool", &["192.0.2.0/28", "2001:db8::/124"]).await?;
    let controller = world.controller(&site, "0").await?;
    let new = site.service("new").annotated("metallb.io/loadBalancerIPs", "192.0.2.7");
    let old = site.service("old").annotated("metallb.universe.tf/loadBalancerIPs", "192.0.2.8");
    let both = site.service("both").dual_stack().annotated("metallb.io/loadBalancerIPs", "2001:db8::9,192.0.2.9");
    let mut by_spec = site.service("by-spec").object();
    by_spec["spec"]["loadBalancerIP"] = json!("192.0.2.10");
    world.cluster.apply_all(&[new.object(), old.object(), both.object(), by_spec]).await?;
    site.wait_for("new", &["192.0.2.7"]).await?;
    site.wait_for("old", &["192.0.2.8"]).await?;
    site.wait_for("both", &["192.0.2.9", "2001:db8::9"]).await?;
    site.wait_for("by-spec", &["192.0.2.10"]).await?;
    site.wait_for_event("old", &["Warning deprecatedAnnotation", "metallb.universe.tf/loadBalancerIPs"]).await?;

    // A change of mind moves it; whoever asks for an address that is taken waits until it is free.
    world.cluster.apply(&site.service("new").annotated("metallb.io/loadBalancerIPs", "192.0.2.11").object()).await?;
    site.wait_for("new", &["192.0.2.11"]).await?;
    let second = site.service("second").annotated("metallb.io/loadBalancerIPs", "192.0.2.11");
    world.cluster.apply(&second.object()).await?;
    site.wait_for_event("second", &["AllocationFailed", "requests/new"]).await?;
    world.cluster.delete(&new.object()).await?;
    site.wait_for("second", &["192.0.2.11"]).await?;

    let outside = site.service("outside").annotated("metallb.io/loadBalancerIPs", "198.51.100.1");
    world.cluster.apply(&outside.object()).await?;
    site.wait_for_event("outside", &["AllocationFailed", "\"198.51.100.1\" is not allowed in config"]).await?;
    end([controller]).await
}

async fn a_service_that_requires_both_families_gets_both_or_nothing(world: &mut World) -> Result<()> {
    let site = world.site("require").await?;
    site.give_pool("pool", &["192.0.2.0/30"]).await?;
    let controller = world.controller(&site, "0").await?;
    let service = site.service("both").dual_stack();
    world.cluster.apply(&service.object()).await?;
    site.wait_for_event("both", &["AllocationFailed", "no suitable pool for dual-stack"]).await?;
    site.wait_for("both", &[]).await?;
    site.give_pool("pool", &["192.0.2.0/30", "2001:db8::/126"]).await?;
    site.wait_for("both", &["192.0.2.0", "2001:db8::"]).await?;

    // A Service of one family that comes to need both keeps the address that it has.
    site.allocate(&site.service("growing"), 1).await?;
    site.wait_for("growing", &["192.0.2.1"]).await?;
    world.cluster.apply(&site.service("growing").dual_stack().object()).await?;
    site.wait_for("growing", &["192.0.2.1", "2001:db8::1"]).await?;
    end([controller]).await
}

async fn a_service_that_prefers_both_families_is_upgraded_when_its_pool_is(world: &mut World) -> Result<()> {
    let site = world.site("prefer").await?;
    site.give_pool("pool", &["192.0.2.0/30"]).await?;
    let controller = world.controller(&site, "0").await?;
    let mut service = site.service("both").dual_stack().object();
    service["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    world.cluster.apply(&service).await?;
    site.wait_for("both", &["192.0.2.0"]).await?;
    // Another pool does not help: both addresses come from one.
    site.give_pool("six", &["2001:db8:6::/126"]).await?;
    site.allocate(&site.service("six").ipv6(), 1).await?;
    site.wait_for("both", &["192.0.2.0"]).await?;
    site.give_pool("pool", &["192.0.2.0/30", "2001:db8::/126"]).await?;
    site.wait_for("both", &["192.0.2.0", "2001:db8::"]).await?;
    site.wait_for_event("both", &["IPAllocated", "Assigned additional IP [\"2001:db8::\"]"]).await?;
    end([controller]).await
}

async fn a_pool_without_automatic_assignment_serves_only_who_names_it(world: &mut World) -> Result<()> {
    let site = world.site("by-name").await?;
    let spec = json!({"addresses": ["192.0.2.0/30"], "autoAssign": false});
    world.cluster.apply(&config(&site.name, "IPAddressPool", "reserved", spec)).await?;
    let controller = world.controller(&site, "0").await?;
    world.cluster.apply(&site.service("any").object()).await?;
    site.wait_for_event("any", &["AllocationFailed", "\"reserved\" serves only requests that name it"]).await?;
    site.allocate(&site.service("named").annotated("metallb.io/address-pool", "reserved"), 1).await?;
    site.wait_for("named", &["192.0.2.0"]).await?;
    site.wait_for_annotation("named", Some("reserved")).await?;
    world.cluster.merge(&site.pool("reserved", &[]), &json!({"spec": {"autoAssign": true}})).await?;
    site.wait_for("any", &["192.0.2.1"]).await?;
    end([controller]).await
}

async fn a_namespaced_pool_follows_the_labels_of_namespaces(world: &mut World) -> Result<()> {
    let site = world.site("tenants").await?;
    let allocation = json!({"namespaceSelectors": [{"matchLabels": {"team": "red"}}]});
    let spec = json!({"addresses": ["192.0.2.0/30"], "serviceAllocation": allocation});
    world.cluster.apply(&config(&site.name, "IPAddressPool", "red", spec)).await?;
    let controller = world.controller(&site, "0").await?;
    world.cluster.apply(&site.service("tenant").object()).await?;
    site.wait_for_event("tenant", &["AllocationFailed", "\"red\" is for other namespaces"]).await?;
    let label = |team: Value| json!({"metadata": {"labels": {"team": team}}});
    world.cluster.merge(&namespace(&site.name), &label(json!("red"))).await?;
    site.wait_for("tenant", &["192.0.2.0"]).await?;
    world.cluster.merge(&namespace(&site.name), &label(json!("blue"))).await?;
    // The edit takes the right to the address, not the address; somebody else of that namespace gets none.
    site.wait_for_held("tenant", true).await?;
    site.wait_for("tenant", &["192.0.2.0"]).await?;
    world.cluster.apply(&site.service("late").object()).await?;
    site.wait_for_event("late", &["AllocationFailed", "\"red\" is for other namespaces"]).await?;
    end([controller]).await
}

/// There is no namespace controller here: the test does its work, in its order.
async fn a_deleted_namespace_frees_the_addresses_in_it(world: &mut World) -> Result<()> {
    let site = world.site("landlord").await?;
    site.give_pool("pool", &["192.0.2.1/32"]).await?;
    let controller = world.controller(&site, "0").await?;
    let tenant = world.site("doomed").await?;
    let inside = |name| Service { namespace: "doomed", ..site.service(name) };
    world.cluster.apply(&inside("holder").object()).await?;
    tenant.wait_for("holder", &["192.0.2.1"]).await?;
    world.cluster.apply(&inside("beggar").object()).await?;
    tenant.wait_for_event("beggar", &["AllocationFailed"]).await?;
    world.cluster.apply(&site.service("heir").object()).await?;
    site.wait_for_event("heir", &["AllocationFailed"]).await?;

    let namespaces: Api<Namespace> = Api::all(world.cluster.client());
    namespaces.delete("doomed", &DeleteParams::default()).await?;
    // While it goes away, Events in it are refused: that holds nothing up.
    let absent = json!({"metadata": {"annotations": {"metallb.io/address-pool": "absent"}}});
    world.cluster.merge(&inside("beggar").object(), &absent).await?;
    eventually("an Event was refused", CONVERGENCE_TIME_MAX, async || {
        let dropped = controller.metric("ferrocast_events_dropped_total")?;
        ensure!(dropped >= 1.0, "dropped were {dropped}");
        Ok(())
    })
    .await?;
    world.cluster.delete_all(&[inside("holder").object(), inside("beggar").object()]).await?;
    let mut doomed = namespaces.get("doomed").await?;
    doomed.spec.get_or_insert_default().finalizers = None;
    namespaces.replace_subresource("finalize", "doomed", &PostParams::default(), &doomed).await?;
    site.wait_for("heir", &["192.0.2.1"]).await?;
    eventually("the namespace is gone", CONVERGENCE_TIME_MAX, async || {
        ensure!(namespaces.get_opt("doomed").await?.is_none(), "still there");
        Ok(())
    })
    .await?;
    end([controller]).await
}
