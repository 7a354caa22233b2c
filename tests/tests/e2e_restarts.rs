//! What survives: speakers and controllers that are killed, leaders that change, an API server that goes away.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::Ferrocast;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, Lab, NODES, host_route};
use ferrocast_tests::objects::Service;
use ferrocast_tests::process::Process;
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{Stopwatch, ensure_that, eventually, throughout};

/// The outage of the API server, s.
const OUTAGE_S: u64 = 60;
/// The long outage, s: longer than any watch or lease lives.
const LONG_OUTAGE_S: u64 = 600;
/// How long kube-proxy may take to see anything new after an outage: its own watches wait up to a minute and more.
const PROXY_RECOVERY_MAX: Duration = Duration::from_secs(120);
/// A killed leader's successor must allocate within this, s: its Lease of 15 s, and the retries.
const TAKE_OVER_MAX_S: u64 = 20;
/// A leader that was asked to stop must have a successor within this, s: well below the Lease's 15 s.
const HAND_OVER_MAX_S: u64 = 8;

fn main() -> ExitCode {
    let cases = cases![
        a_killed_speaker_costs_only_its_own_next_hop,
        a_terminated_speaker_costs_only_its_own_next_hop,
        a_terminated_leader_hands_over_at_once,
        a_killed_leader_is_replaced_when_its_lease_expires,
        all_controllers_restarted_move_nothing,
        an_outage_of_the_api_server_changes_nothing;
        long: a_long_outage_of_the_api_server_changes_nothing
    ];
    runner::main::<Bed>("e2e_restarts", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// Two controllers, and three Services that stand all the time.
struct Bed {
    lab: Lab,
    /// Name and addresses of each standing Service.
    standing: Vec<(&'static str, Vec<String>)>,
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let lab = Lab::with_ferrocast(dir, 2).await?;
        let mut standing = vec![];
        for service in [Service::named("four"), Service::named("six").ipv6(), Service::named("both").dual_stack()] {
            lab.apply_service(&service, &NODES).await?;
            let addresses = lab.cluster.wait_for_addresses("default", service.name, service.families.len()).await?;
            standing.push((service.name, addresses));
        }
        let bed = Self { lab, standing };
        bed.all_hops(&NODES).await?;
        Ok(bed)
    }

    fn diagnose(&self) -> String {
        self.lab.diagnose()
    }
}

impl Bed {
    fn routes(&self) -> impl Iterator<Item = String> {
        self.standing.iter().flat_map(|(_, addresses)| addresses).map(|address| host_route(address))
    }

    async fn all_hops(&self, nodes: &[&str]) -> Result<()> {
        for route in self.routes() {
            self.lab.wait_for_hops(&route, nodes).await?;
        }
        Ok(())
    }

    async fn ensure_addresses_unchanged(&self) -> Result<()> {
        for (name, addresses) in &self.standing {
            let now = self.lab.cluster.addresses("default", name).await?;
            ensure!(now == *addresses, "{name} had {addresses:?}, has {now:?}");
        }
        Ok(())
    }

    /// Since the recording began, no kernel changed anything about a standing Service.
    fn ensure_routes_untouched(&self) -> Result<()> {
        for router in self.lab.routers() {
            for route in self.routes() {
                let changes = router.route_changes(&route)?;
                ensure!(changes.is_empty(), "{} changed {route}: {changes:#?}", router.netns);
            }
        }
        Ok(())
    }

    /// Since the recording began, no IPv4 route of a standing Service was ever absent. (BIRD replaces an IPv6 route by
    /// removing and adding it, so that its kernel's messages say nothing there.)
    fn ensure_routes_never_absent(&self) -> Result<()> {
        for router in self.lab.routers() {
            for route in self.routes().filter(|route| !route.contains(':')) {
                let changes = router.route_changes(&route)?;
                let absent = changes.iter().any(|change| change.starts_with("Deleted"));
                ensure!(!absent, "{} lost {route}: {changes:#?}", router.netns);
            }
        }
        Ok(())
    }

    /// Index of the controller that leads.
    async fn leader(&self) -> Result<usize> {
        eventually("one controller leads", CONVERGENCE_TIME_MAX, async || {
            let leads = |controller: &Ferrocast| controller.metric("ferrocast_leader").is_ok_and(|leads| leads > 0.0);
            let leaders: Vec<usize> = (0..2).filter(|index| leads(&self.lab.controllers[*index])).collect();
            ensure!(leaders.len() == 1, "{leaders:?} lead");
            Ok(leaders[0])
        })
        .await
    }

    /// A new Service gets its address and its routes.
    async fn works(&self, name: &str, within: Duration) -> Result<()> {
        let service = Service::named(name);
        let began = Stopwatch::start();
        self.lab.apply_service(&service, &NODES).await?;
        eventually("a new Service has an address", within, async || {
            ensure_that(self.lab.cluster.addresses("default", name).await?.len() == 1, || "it has none".to_owned())
        })
        .await?;
        println!("     allocated again after {:.1} s", began.seconds());
        let address = self.lab.cluster.addresses("default", name).await?.remove(0);
        self.lab.wait_for_hops(&host_route(&address), &NODES).await?;
        self.lab.cluster.delete(&service.object()).await
    }

    async fn without_speaker(&mut self, stop: impl AsyncFnOnce(&mut Process) -> Result<()>) -> Result<()> {
        self.lab.record_route_changes().await?;
        stop(self.lab.speakers[1].process()).await?;
        self.all_hops(&["n1", "n3"]).await?;
        for (_, addresses) in &self.standing {
            self.lab.wait_for_backends(&addresses[0], &NODES).await?;
        }
        self.lab.speakers[1].restart()?;
        self.all_hops(&NODES).await?;
        for router in self.lab.routers() {
            let seen = router.route_changes(&host_route(&self.standing[0].1[0]))?;
            ensure!(!seen.is_empty(), "the recording at {} shows no change, though there was one", router.netns);
        }
        self.ensure_routes_never_absent()?;
        self.ensure_addresses_unchanged().await
    }
}

async fn a_killed_speaker_costs_only_its_own_next_hop(bed: &mut Bed) -> Result<()> {
    bed.without_speaker(async |speaker| speaker.kill()).await
}

async fn a_terminated_speaker_costs_only_its_own_next_hop(bed: &mut Bed) -> Result<()> {
    bed.without_speaker(async |speaker| {
        let status = speaker.terminate().await?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    })
    .await
}

async fn a_terminated_leader_hands_over_at_once(bed: &mut Bed) -> Result<()> {
    bed.lab.record_route_changes().await?;
    let leader = bed.leader().await?;
    let status = bed.lab.controllers[leader].process().terminate().await?;
    ensure!(status.success(), "it ended with {status}");
    bed.works("after-hand-over", Duration::from_secs(HAND_OVER_MAX_S)).await?;
    bed.lab.controllers[leader].restart()?;
    bed.lab.controllers[leader].wait_until_ready().await?;
    bed.ensure_routes_untouched()?;
    bed.ensure_addresses_unchanged().await
}

async fn a_killed_leader_is_replaced_when_its_lease_expires(bed: &mut Bed) -> Result<()> {
    bed.lab.record_route_changes().await?;
    let leader = bed.leader().await?;
    bed.lab.controllers[leader].process().kill()?;
    bed.works("after-take-over", Duration::from_secs(TAKE_OVER_MAX_S)).await?;
    bed.lab.controllers[leader].restart()?;
    bed.lab.controllers[leader].wait_until_ready().await?;
    ensure!(bed.leader().await? != leader, "the restarted one leads though another does");
    bed.ensure_routes_untouched()?;
    bed.ensure_addresses_unchanged().await
}

async fn all_controllers_restarted_move_nothing(bed: &mut Bed) -> Result<()> {
    bed.lab.record_route_changes().await?;
    let versions = async |bed: &Bed| -> Result<Vec<_>> {
        let mut versions = vec![];
        for (name, _) in &bed.standing {
            versions.push(bed.lab.cluster.service("default", name).await?.metadata.resource_version);
        }
        Ok(versions)
    };
    let before = versions(bed).await?;
    for controller in &mut bed.lab.controllers {
        controller.process().kill()?;
    }
    for controller in &mut bed.lab.controllers {
        controller.restart()?;
        controller.wait_until_ready().await?;
    }
    bed.works("after-restart", Duration::from_secs(TAKE_OVER_MAX_S)).await?;
    ensure!(before == versions(bed).await?, "a restart wrote to Services that had their addresses");
    bed.ensure_routes_untouched()?;
    bed.ensure_addresses_unchanged().await
}

async fn an_outage_of_the_api_server_changes_nothing(bed: &mut Bed) -> Result<()> {
    outage(bed, Duration::from_secs(OUTAGE_S)).await
}

async fn a_long_outage_of_the_api_server_changes_nothing(bed: &mut Bed) -> Result<()> {
    outage(bed, Duration::from_secs(LONG_OUTAGE_S)).await
}

/// Connections through both routers in both families, a Service created just before, one just after.
async fn outage(bed: &mut Bed, length: Duration) -> Result<()> {
    let both = bed.standing.iter().find(|(name, _)| *name == "both").context("it stands")?.1.clone();
    let mut held = vec![];
    for router in bed.lab.routers() {
        for address in &both {
            bed.lab.client_via(router, address)?;
            let name = format!("held-{}-{}", router.netns, host_route(address).replace(['/', ':', '.'], "-"));
            let mut connection = bed.lab.hold_connection(&name, address)?;
            eventually("the connection exchanges messages", CONVERGENCE_TIME_MAX, async || {
                connection.ensure_running()?;
                ensure_that(connection.log()?.lines().count() > 1, || connection.tail())
            })
            .await?;
            held.push(connection);
        }
    }
    bed.lab.record_route_changes().await?;
    let (before, after) = (Service::named("just-before"), Service::named("just-after"));
    bed.lab.apply_service(&before, &NODES).await?;
    bed.lab.plane.stop_api()?;
    let lab = &bed.lab;
    throughout("connections and requests go on without the API server", length, async || {
        held.iter_mut().try_for_each(Process::ensure_running)?;
        both.iter().try_for_each(|address| lab.request(address).map(drop))
    })
    .await?;
    bed.lab.plane.start_api().await?;
    let began = Stopwatch::start();
    bed.lab.apply_service(&after, &NODES).await?;
    for service in [&before, &after] {
        let address = bed.lab.cluster.wait_for_addresses("default", service.name, 1).await?.remove(0);
        println!("     {}: address {:.1} s after the API server's return", service.name, began.seconds());
        bed.lab.wait_for_hops(&host_route(&address), &NODES).await?;
        println!("     {}: routes {:.1} s after", service.name, began.seconds());
    }
    for service in [&before, &after] {
        let address = bed.lab.cluster.addresses("default", service.name).await?.remove(0);
        bed.lab.client_via(&bed.lab.bird, &address)?;
        let what = "kube-proxy has caught up";
        eventually(what, PROXY_RECOVERY_MAX, async || bed.lab.request(&address).map(drop)).await?;
        bed.lab.wait_for_backends(&address, &NODES).await?;
        println!("     {}: kube-proxy {:.1} s after", service.name, began.seconds());
    }
    held.iter_mut().try_for_each(Process::ensure_running)?;
    bed.ensure_routes_untouched()?;
    bed.ensure_addresses_unchanged().await?;
    bed.lab.cluster.delete_all(&[before.object(), after.object()]).await
}
