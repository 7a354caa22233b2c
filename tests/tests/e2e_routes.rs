//! From a Service to a client's connection: addresses, routes at both routers, and HTTP through them.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::cases;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, Lab, NODES, SPEAKER_ASN, backend, hops, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Endpoint, Service};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually, throughout};
use serde_json::json;

/// AS of the router that stops reading.
const STUCK_ASN: u32 = 64_510;
/// Large communities of each route for it.
const LONG_COMMUNITIES: u32 = 60;
/// How often the stuck router's share of the routes is changed, until nothing more fits into its connection.
const CHANGES_MAX: usize = 60;
/// How long the other sessions may take while one router does not read: far below any timer of BGP.
const UNDELAYED: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cases = cases![
        an_ipv4_service_is_reached_through_both_routers_and_all_nodes,
        an_ipv6_service_is_reached_through_both_routers_and_all_nodes,
        a_dual_stack_service_is_reached_over_both_families,
        a_deleted_service_leaves_no_route,
        a_local_service_is_announced_only_where_an_endpoint_serves,
        an_advertisement_carries_its_communities_and_aggregates,
        a_restarted_router_gets_its_routes_back,
        a_router_that_stops_reading_delays_no_other,
    ];
    runner::main::<Bed>("e2e_routes", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed(Lab);

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        Lab::with_ferrocast(dir, 1).await.map(Self)
    }

    fn diagnose(&self) -> String {
        self.0.diagnose()
    }
}

/// The whole way: status, kernel's next hops at both routers, an answer of every backend through each.
async fn reached(lab: &Lab, service: &Service<'_>) -> Result<Vec<String>> {
    lab.apply_service(service, &NODES).await?;
    let addresses = lab.cluster.wait_for_addresses(service.namespace, service.name, service.families.len()).await?;
    for address in &addresses {
        lab.wait_for_hops(&host_route(address), &NODES).await?;
        lab.wait_for_backends(address, &NODES).await?;
    }
    let marked = lab.cluster.service(service.namespace, service.name).await?.metadata.annotations.unwrap_or_default();
    let pool = marked.get("metallb.io/ip-allocated-from-pool").map(String::as_str);
    ensure!(pool == Some("lab"), "the Service says it is from pool {pool:?}");
    lab.cluster.wait_for_event(service.namespace, service.name, &["Normal IPAllocated", &addresses[0]]).await?;
    Ok(addresses)
}

async fn an_ipv4_service_is_reached_through_both_routers_and_all_nodes(bed: &mut Bed) -> Result<()> {
    let addresses = reached(&bed.0, &Service::named("four")).await?;
    ensure!(addresses[0].starts_with("10.50.0."), "{addresses:?}");
    Ok(())
}

async fn an_ipv6_service_is_reached_through_both_routers_and_all_nodes(bed: &mut Bed) -> Result<()> {
    let addresses = reached(&bed.0, &Service::named("six").ipv6()).await?;
    ensure!(addresses[0].starts_with("fd50::"), "{addresses:?}");
    Ok(())
}

async fn a_dual_stack_service_is_reached_over_both_families(bed: &mut Bed) -> Result<()> {
    let addresses = reached(&bed.0, &Service::named("both").dual_stack()).await?;
    ensure!(addresses[0].starts_with("10.50.0.") && addresses[1].starts_with("fd50::"), "{addresses:?}");
    Ok(())
}

async fn a_deleted_service_leaves_no_route(bed: &mut Bed) -> Result<()> {
    let lab = &bed.0;
    let service = Service::named("passing").dual_stack();
    lab.apply_service(&service, &NODES).await?;
    let addresses = lab.cluster.wait_for_addresses("default", "passing", 2).await?;
    for address in &addresses {
        lab.wait_for_hops(&host_route(address), &NODES).await?;
    }
    lab.cluster.delete(&service.object()).await?;
    for address in &addresses {
        lab.wait_for_hops(&host_route(address), &[]).await?;
    }
    Ok(())
}

async fn a_local_service_is_announced_only_where_an_endpoint_serves(bed: &mut Bed) -> Result<()> {
    let lab = &bed.0;
    let service = Service::named("local").local();
    lab.apply_service(&service, &["n1"]).await?;
    let address = lab.cluster.wait_for_addresses("default", "local", 1).await?.remove(0);
    let route = host_route(&address);
    lab.wait_for_hops(&route, &["n1"]).await?;
    lab.wait_for_backends(&address, &["n1"]).await?;

    lab.set_endpoints(&service, &["n2"]).await?;
    lab.wait_for_hops(&route, &["n2"]).await?;
    lab.wait_for_backends(&address, &["n2"]).await?;

    lab.set_endpoints(&service, &["n2", "n3"]).await?;
    lab.wait_for_hops(&route, &["n2", "n3"]).await?;

    // A terminating Pod that still serves keeps its node announced; one that serves no more does not.
    let (second, third) = (backend("n2", "IPv4"), backend("n3", "IPv4"));
    let terminating = |serving| Endpoint { ready: false, serving, ..Endpoint::ready(&third, "n3") };
    let slice = |endpoints: &[Endpoint<'_>]| objects::endpoint_slice("default", "local", "IPv4", endpoints);
    lab.cluster.apply(&slice(&[terminating(true)])).await?;
    lab.wait_for_hops(&route, &["n3"]).await?;
    lab.cluster.apply(&slice(&[Endpoint::ready(&second, "n2"), terminating(false)])).await?;
    lab.wait_for_hops(&route, &["n2"]).await?;

    lab.set_endpoints(&service, &[]).await?;
    lab.wait_for_hops(&route, &[]).await?;
    ensure!(lab.cluster.addresses("default", "local").await? == [address], "the address was given up");
    Ok(())
}

async fn an_advertisement_carries_its_communities_and_aggregates(bed: &mut Bed) -> Result<()> {
    let lab = &bed.0;
    let spec = json!({
        "ipAddressPools": ["aggregated"], "aggregationLength": 28,
        "communities": ["64600:7", "large:64600:1:2", "no-export"],
    });
    let extra = [
        objects::pool(CONFIG_NAMESPACE, "aggregated", &["10.51.0.0/28"]),
        objects::config(CONFIG_NAMESPACE, "BGPAdvertisement", "aggregated", spec),
        // The base advertisement selects every pool: here only the one of its name.
        objects::config(CONFIG_NAMESPACE, "BGPAdvertisement", "lab", json!({"ipAddressPools": ["lab"]})),
    ];
    lab.cluster.apply_all(&extra).await?;
    let service = Service::named("aggregated").annotated("metallb.io/address-pool", "aggregated");
    lab.apply_service(&service, &NODES).await?;
    lab.cluster.wait_for_addresses("default", "aggregated", 1).await?;
    lab.wait_for_hops("10.51.0.0/28", &NODES).await?;
    let shown = lab.bird.show("show route all for 10.51.0.0/28")?;
    for word in ["(64600,7)", "(65535,65281)", "(64600, 1, 2)", &format!("BGP.as_path: {SPEAKER_ASN}")] {
        ensure!(shown.contains(word), "BIRD does not show {word}: {shown}");
    }
    lab.cluster.delete(&service.object()).await?;
    lab.wait_for_hops("10.51.0.0/28", &[]).await?;
    lab.cluster.delete_all(&extra[..2]).await?;
    lab.cluster.apply(&objects::advertisement(CONFIG_NAMESPACE, "lab")).await
}

async fn a_restarted_router_gets_its_routes_back(bed: &mut Bed) -> Result<()> {
    let lab = &mut bed.0;
    let service = Service::named("steady").dual_stack();
    lab.apply_service(&service, &NODES).await?;
    let addresses = lab.cluster.wait_for_addresses("default", "steady", 2).await?;
    let routes: Vec<String> = addresses.iter().map(|address| host_route(address)).collect();
    for route in &routes {
        lab.wait_for_hops(route, &NODES).await?;
    }
    lab.frr.record_changes().await?;
    lab.bird.kill()?;
    ensure!(lab.bird.prefixes()?.is_empty(), "the killed router keeps {:?}", lab.bird.prefixes()?);
    lab.bird.start().await?;
    for route in &routes {
        lab.wait_for_hops(route, &NODES).await?;
        let noticed = lab.frr.route_changes(route)?;
        ensure!(noticed.is_empty(), "the other router noticed: {noticed:?}");
    }
    lab.frr.kill()?;
    lab.frr.start().await?;
    for route in &routes {
        lab.wait_for_hops(route, &NODES).await?;
    }
    Ok(())
}

async fn a_router_that_stops_reading_delays_no_other(bed: &mut Bed) -> Result<()> {
    let lab = &bed.0;
    let stuck = lab.start_stuck_router(STUCK_ASN)?;
    let spec = json!({"myASN": SPEAKER_ASN, "peerASN": STUCK_ASN, "peerAddress": "10.99.0.13", "holdTime": "90s"});
    // Long UPDATEs for it alone fill its connection soon.
    let communities: Vec<String> = (0..LONG_COMMUNITIES).map(|number| format!("large:64600:0:{number}")).collect();
    let long = json!({"peers": ["stuck"], "communities": communities});
    let extra = [
        objects::config(CONFIG_NAMESPACE, "BGPPeer", "stuck", spec),
        objects::config(CONFIG_NAMESPACE, "BGPAdvertisement", "long", long),
    ];
    lab.cluster.apply_all(&extra).await?;
    eventually("the stuck router has sessions", CONVERGENCE_TIME_MAX, async || {
        ensure_that(stuck.log()?.contains("established"), || stuck.tail())
    })
    .await?;
    let service = Service::named("flapping").local();
    lab.apply_service(&service, &NODES).await?;
    let address = lab.cluster.wait_for_addresses("default", "flapping", 1).await?.remove(0);
    let route = host_route(&address);
    // Each node writes to it until nothing more fits.
    let full = || {
        let waiting = |node: &str| lab.unsent_octets(node, "10.99.0.13").is_ok_and(|octets| octets > 0);
        NODES.iter().all(|node| waiting(node))
    };
    for change in 0..CHANGES_MAX {
        let nodes: &[&str] = if change % 2 == 0 { &[] } else { &NODES };
        lab.set_endpoints(&service, nodes).await?;
        let wanted = hops(nodes, &route);
        eventually("the other routers follow", UNDELAYED, async || {
            let found = (lab.bird.next_hops(&route)?, lab.frr.next_hops(&route)?);
            ensure_that(found.0 == wanted && found.1 == wanted, || format!("{found:?} instead of {wanted:?}"))
        })
        .await
        .with_context(|| format!("change {change}, stuck: {}", full()))?;
        if change > CHANGES_MAX / 2 && full() {
            break;
        }
    }
    ensure!(full(), "the stuck router's connection never filled: nothing was tested");
    let up = || -> Result<f64> { lab.speakers.iter().map(|speaker| speaker.metric("metallb_bgp_session_up")).sum() };
    throughout("all other sessions stay up", UNDELAYED, async || {
        ensure_that(up()? >= 9.0, || format!("{:?} sessions are up", up()))
    })
    .await?;
    lab.restore_buffers()?;
    lab.cluster.delete_all(&extra).await
}
