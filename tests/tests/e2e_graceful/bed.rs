//! The lab with graceful restart on every session, two standing Services, and connections held through both routers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::ferrocast::{Ferrocast, Role, Settings};
use ferrocast_tests::held::Held;
use ferrocast_tests::lab::{
    CONVERGENCE_TIME_MAX, Lab, NODES, base_configuration, hops, host_route, with_graceful_restart,
};
use ferrocast_tests::objects::Service;
use ferrocast_tests::runner::Context;
use ferrocast_tests::wait::{ensure_that, eventually};
use serde_json::Value;

/// Connections of the client through each router.
const HELD_PER_ROUTER: usize = 100;
/// Sessions that one speaker's restart interrupts: BIRD has one for each family, FRR has one for both.
const SESSIONS: [usize; 2] = [2, 1];

/// The bed of the suite.
pub(crate) struct Bed {
    /// The lab.
    pub(crate) lab: Lab,
    pub(crate) dir: PathBuf,
    /// Addresses of the standing Services: one of policy Cluster, one Local, both dual-stack.
    pub(crate) addresses: Vec<String>,
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let mut lab = Lab::start(dir).await?;
        lab.cluster.apply_all(&with_graceful_restart(base_configuration())).await?;
        for node in NODES {
            let role = Role::Speaker { node: node.to_owned() };
            let more = vec!["--state-dir".to_owned(), state_dir(dir, node).display().to_string()];
            let settings = Settings { more, ..Settings::default() };
            lab.speakers.push(Ferrocast::start(&lab.plane, dir, role, settings).await?);
        }
        lab.start_ferrocast(1).await?;
        lab.wait_for_sessions().await?;
        lab.route_client_by_source()?;
        let mut bed = Self { lab, dir: dir.to_owned(), addresses: vec![] };
        for service in [Service::named("cluster").dual_stack(), Service::named("local").dual_stack().local()] {
            bed.lab.apply_service(&service, &NODES).await?;
            bed.addresses.extend(bed.lab.cluster.wait_for_addresses("default", service.name, 2).await?);
        }
        for address in &bed.addresses {
            bed.lab.wait_for_hops(&host_route(address), &NODES).await?;
            bed.lab.wait_for_backends(address, &NODES).await?;
        }
        Ok(bed)
    }

    fn diagnose(&self) -> String {
        self.lab.diagnose()
    }
}

/// Where a node's speaker saves what it announces.
pub(crate) fn state_dir(dir: &Path, node: &str) -> PathBuf {
    dir.join(format!("state-{node}"))
}

impl Bed {
    /// Both routers have lost, but keep, the sessions of so many nodes.
    pub(crate) async fn wait_until_helped(&self, nodes: usize) -> Result<()> {
        for (router, sessions) in self.lab.routers().into_iter().zip(SESSIONS) {
            let what = format!("{} keeps the routes of {nodes} restarting nodes", router.netns);
            eventually(&what, CONVERGENCE_TIME_MAX, async || {
                let helped = router.helped()?;
                ensure_that(helped == nodes * sessions, || format!("it helps {helped} sessions"))
            })
            .await?;
        }
        Ok(())
    }

    /// Each of a speaker's sessions is up with all routes announced, and has (or has not) been told that this is all.
    pub(crate) async fn wait_for_peers(&self, index: usize, complete: bool) -> Result<()> {
        let speaker = &self.lab.speakers[index];
        let routes = self.addresses.len();
        let what = format!("the peers of {} have their routes, End-of-RIB: {complete}", NODES[index]);
        eventually(&what, CONVERGENCE_TIME_MAX, async || {
            let sessions = speaker.sessions()?;
            ensure!(sessions.len() == 3, "{} sessions", sessions.len());
            let announced: u64 = sessions.iter().filter_map(|session| session["announced"].as_u64()).sum();
            // BIRD has half of them over each of its two sessions.
            ensure!(announced >= 2 * routes as u64, "{announced} announced");
            ensure!(sessions.iter().all(|session| session["endOfRIBSentAt"].is_null() != complete), "{sessions:?}");
            Ok(())
        })
        .await
        .with_context(|| speaker.tail())
    }

    /// The speaker's three sessions were made anew without graceful restart: those of before the change do not count.
    pub(crate) async fn wait_until_not_graceful(&self, index: usize) -> Result<()> {
        let speaker = &self.lab.speakers[index];
        eventually("three sessions without graceful restart", CONVERGENCE_TIME_MAX, async || {
            let sessions = speaker.sessions()?;
            let without = |session: &Value| {
                session["state"] == "Established" && session["negotiated"]["gracefulRestart"].is_null()
            };
            ensure_that(sessions.len() == 3 && sessions.iter().all(without), || format!("{sessions:?}"))
        })
        .await
        .with_context(|| speaker.tail())
    }

    /// No session of any speaker has been lost in this life of it.
    pub(crate) fn ensure_nothing_flapped(&self) -> Result<()> {
        for speaker in &self.lab.speakers {
            for session in speaker.sessions()? {
                ensure!(session["flaps"] == 0 && session["state"] == "Established", "{session}");
            }
        }
        Ok(())
    }

    /// Since the recording began, no kernel changed anything about a standing Service, and all nodes are next hops.
    pub(crate) fn ensure_routes_untouched(&self) -> Result<()> {
        for router in self.lab.routers() {
            for route in self.addresses.iter().map(|address| host_route(address)) {
                let changes = router.route_changes(&route)?;
                ensure!(changes.is_empty(), "{} changed {route}: {changes:#?}", router.netns);
                ensure!(router.next_hops(&route)? == hops(&NODES, &route), "{} to {route}", router.netns);
            }
        }
        Ok(())
    }

    /// Opens the connections; `case` keeps the reports of one case apart from those of another.
    pub(crate) async fn hold(&self, case: &str) -> Result<Held> {
        Held::open(&self.lab, case, &self.addresses, HELD_PER_ROUTER).await
    }

    /// What a speaker has logged since its log had this length.
    pub(crate) fn log_since(&self, index: usize, from: usize) -> Result<String> {
        Ok(self.lab.speakers[index].log()?.split_off(from))
    }

    /// Ends a speaker with SIGTERM; it must say how in these words. Returns what it logged.
    pub(crate) async fn terminate(&mut self, index: usize, words: &[&str]) -> Result<String> {
        let from = self.lab.speakers[index].log()?.len();
        let status = self.lab.speakers[index].process().terminate().await?;
        ensure!(status.success(), "it ended with {status}");
        let log = self.log_since(index, from)?;
        let said = log.lines().find(|line| line.contains("ending: ")).context("no line says how it ends")?;
        ensure!(words.iter().all(|word| said.contains(word)), "{words:?} expected: {said}");
        Ok(log)
    }

    /// Waits until what is on a node's disk names every standing route.
    pub(crate) async fn wait_until_saved(&self, node: &str) -> Result<()> {
        eventually(&format!("{node} has saved its routes"), CONVERGENCE_TIME_MAX, async || {
            let saved = std::fs::read_to_string(state_dir(&self.dir, node).join("announced.json"))?;
            let missing = self.addresses.iter().find(|address| !saved.contains(&host_route(address)));
            ensure_that(missing.is_none(), || format!("no {missing:?}"))
        })
        .await
    }

    /// Waits until what is on a node's disk does not name a route any more.
    pub(crate) async fn wait_until_saved_without(&self, node: &str, route: &str) -> Result<()> {
        eventually(&format!("{node} has saved that {route} is gone"), CONVERGENCE_TIME_MAX, async || {
            let saved = std::fs::read_to_string(state_dir(&self.dir, node).join("announced.json"))?;
            ensure_that(!saved.contains(route), || "not yet".to_owned())
        })
        .await
    }
}
