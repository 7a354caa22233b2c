//! At rest: with a thousand Services and nothing to do, nothing is done.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::audit;
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::Ferrocast;
use ferrocast_tests::lab::{Lab, NODES, backend, base_configuration};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Endpoint, Service};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually, pause};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

/// Standing Services.
const SERVICES: usize = 1_000;
/// Services created at once.
const CREATED_AT_ONCE: usize = 16;
/// How long they may take to have addresses and routes, s: the API server's own work for the most part.
const STANDING_TIME_MAX: Duration = Duration::from_secs(150);
/// How long rest is observed.
const REST: Duration = Duration::from_secs(30);
/// CPU time that one process may use in [`REST`], ms: 1 % of a core, for Lease, keepalives, and the upkeep of metrics.
const REST_CPU_MAX_MS: u64 = 300;

fn main() -> ExitCode {
    let cases = cases![nothing_is_written_or_announced_at_rest_and_a_restart_writes_nothing];
    runner::main::<Bed>("e2e_rest", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed(Lab);

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let mut lab = Lab::without_proxies(dir).await?;
        lab.cluster.apply_all(&base_configuration()).await?;
        lab.cluster.apply(&objects::pool(CONFIG_NAMESPACE, "wide", &["10.60.0.0/20"])).await?;
        lab.start_ferrocast(1).await?;
        lab.wait_for_sessions().await?;
        Ok(Self(lab))
    }

    fn diagnose(&self) -> String {
        self.0.diagnose()
    }
}

async fn create_services(lab: &Lab) -> Result<()> {
    let one = async |number: usize| -> Result<()> {
        let name = format!("s{number:04}");
        let address = backend("n1", "IPv4");
        let slice = objects::endpoint_slice("default", &name, "IPv4", &[Endpoint::ready(&address, "n1")]);
        lab.cluster.create(&slice).await?;
        let service = Service::named(&name).annotated("metallb.io/address-pool", "wide").object();
        lab.cluster.create(&service).await?;
        Ok(())
    };
    stream::iter((0..SERVICES).map(one)).buffer_unordered(CREATED_AT_ONCE).try_collect::<Vec<()>>().await?;
    eventually("all Services have addresses and routes", STANDING_TIME_MAX, async || {
        let addresses = lab.cluster.all_addresses("default").await?;
        let have = addresses.values().filter(|addresses| addresses.len() == 1).count();
        ensure!(have == SERVICES, "{have} have an address");
        let routes = lab.frr.prefixes()?.len();
        ensure_that(routes == SERVICES, || format!("{routes} routes at FRR"))
    })
    .await
}

/// CPU time that a process has used so far, ms.
fn cpu_ms(role: &mut Ferrocast) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", role.process().pid()))?;
    let after_name = stat.rsplit(')').next().context("no name in /proc/<pid>/stat")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // utime and stime, in ticks of 10 ms (USER_HZ is 100 on every architecture that runs this).
    Ok((fields[11].parse::<u64>()? + fields[12].parse::<u64>()?) * 10)
}

fn updates(lab: &Lab) -> Result<f64> {
    lab.speakers.iter().map(|speaker| speaker.metric("metallb_bgp_updates_total")).sum()
}

fn cpus(lab: &mut Lab) -> Result<Vec<u64>> {
    lab.controllers.iter_mut().chain(&mut lab.speakers).map(cpu_ms).collect()
}

async fn nothing_is_written_or_announced_at_rest_and_a_restart_writes_nothing(bed: &mut Bed) -> Result<()> {
    let lab = &mut bed.0;
    // A session that a speaker has yet to tell of would change what is said of Services already written.
    eventually("every speaker's status has its sessions", STANDING_TIME_MAX, async || {
        let statuses = lab.cluster.speaker_statuses().await?;
        let established = |s: &&kube::api::DynamicObject| {
            let peers = s.data["status"]["peers"].as_array();
            peers.is_some_and(|peers| peers.len() == 3 && peers.iter().all(|peer| peer["state"] == "Established"))
        };
        ensure_that(statuses.iter().filter(established).count() == NODES.len(), || format!("{statuses:?}"))
    })
    .await?;
    create_services(lab).await?;
    // Events come after the addresses: rest begins when there is one for each.
    let written = |lab: &Lab| -> Result<Vec<audit::Request>> {
        let requests = audit::requests(&lab.plane)?.into_iter();
        Ok(requests.filter(|request| request.is_write() && request.resource != "leases").collect())
    };
    eventually("every Service has its Event", STANDING_TIME_MAX, async || {
        let events = written(lab)?.iter().filter(|request| request.resource == "events").count();
        ensure_that(events >= SERVICES, || format!("{events} Events"))
    })
    .await?;
    // The speakers' statuses come last: they say what has settled.
    eventually("every speaker's status has all routes", STANDING_TIME_MAX, async || {
        let statuses = lab.cluster.speaker_statuses().await?;
        let whole = statuses
            .iter()
            .filter(|s| s.data["status"]["announced"] == SERVICES && s.data["status"]["problem"].is_null());
        ensure_that(whole.count() == NODES.len(), || format!("{statuses:?}"))
    })
    .await?;
    // Counts of pools are written at most every ten seconds.
    eventually("the pool's status has all addresses", STANDING_TIME_MAX, async || {
        let pools = lab.cluster.list("metallb.io/v1beta1", "IPAddressPool", CONFIG_NAMESPACE).await?;
        let whole = pools.iter().any(|pool| pool.data["status"]["assignedIPv4"] == SERVICES);
        ensure_that(whole, || format!("{:?}", pools.iter().map(|pool| &pool.data["status"]).collect::<Vec<_>>()))
    })
    .await?;
    let writes = written(lab)?;
    let patches = writes.iter().filter(|request| request.resource == "services/status").count();
    ensure!(patches == 2 * SERVICES, "{patches} patches of address and condition for {SERVICES} Services");

    let (cpu_before, updates_before) = (cpus(lab)?, updates(lab)?);
    pause(REST).await;
    let new: Vec<_> = written(lab)?.split_off(writes.len());
    ensure!(new.is_empty(), "written at rest: {new:#?}");
    ensure!(updates(lab)? == updates_before, "{} UPDATEs at rest", updates(lab)? - updates_before);
    let used: Vec<u64> = cpus(lab)?.iter().zip(cpu_before).map(|(after, before)| after - before).collect();
    println!("     CPU time of controller and speakers over {REST:?} of rest, ms: {used:?}");
    ensure!(used.iter().all(|used| *used <= REST_CPU_MAX_MS), "CPU time at rest, ms: {used:?}");

    lab.controllers[0].process().terminate().await?;
    lab.controllers[0].restart()?;
    lab.controllers[0].wait_until_ready().await?;
    let probe = Service::named("probe");
    lab.apply_service(&probe, &NODES).await?;
    lab.cluster.wait_for_addresses("default", "probe", 1).await?;
    let new: Vec<_> = written(lab)?.split_off(writes.len());
    let about_others: Vec<_> = new
        .iter()
        .filter(|request| !request.name.starts_with("probe"))
        .filter(|request| !["speakerstatuses/status", "ipaddresspools/status"].contains(&&*request.resource))
        .collect();
    ensure!(about_others.is_empty(), "written by a restart: {about_others:#?}");
    Ok(())
}
