//! Follows plan, decisions and the router, and prints a picture whenever it changes.
use std::{collections::BTreeMap, io::IsTerminal as _, net::SocketAddr, sync::Arc, time::Duration};

use ferrocast_bgp::{BgpAnnouncer, router::Rib};
use ferrocast_core::announce::Announcer as _;
use tokio::{sync::watch, time::Instant};

use super::{
    cluster::{ROUTER_PEER, Told},
    table::{Picture, Routes},
};
use crate::{allocator::Plan, cli::Output, decider::Decisions};

/// How often the parts are looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// Unchanged for this long, with every speaker done, counts as converged.
const SETTLED_AFTER: Duration = Duration::from_millis(400);
/// Longest wait for that with `--once`.
const CONVERGE_MAX: Duration = Duration::from_secs(20);

/// One speaker, as far as it is shown.
pub(super) struct Speaker {
    /// Its node.
    pub(super) name: Arc<str>,
    /// What it decides.
    pub(super) decisions: watch::Receiver<Decisions>,
    /// What announces for it.
    pub(super) announcer: Arc<BgpAnnouncer>,
}

/// Prints pictures.
pub(super) struct Show {
    router: SocketAddr,
    plan: watch::Receiver<Plan>,
    speakers: Vec<Speaker>,
    rib: watch::Receiver<Arc<Rib>>,
    told: watch::Receiver<Told>,
    output: Output,
}

impl Show {
    /// Of these parts.
    #[must_use]
    pub(super) fn new(
        router: SocketAddr,
        plan: watch::Receiver<Plan>,
        speakers: Vec<Speaker>,
        rib: watch::Receiver<Arc<Rib>>,
        told: watch::Receiver<Told>,
        output: Output,
    ) -> Self {
        Self { router, plan, speakers, rib, told, output }
    }

    fn picture(&self) -> Picture {
        let nodes: Vec<_> = self.speakers.iter().map(|s| (s.name.clone(), s.decisions.borrow().clone())).collect();
        let rib = self.rib.borrow().clone();
        let routes: Routes = routes(&rib);
        let mut picture = Picture::new(&self.plan.borrow().clone(), &nodes, &routes, &self.told.borrow().clone());
        picture.sessions = self.sessions();
        picture
    }

    /// The sessions with other routers than the built-in one, by peer and state, with the nodes they are of.
    fn sessions(&self) -> Vec<String> {
        let mut states: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
        for speaker in &self.speakers {
            let observed = speaker.announcer.observe().borrow().clone();
            for (peer, target) in observed.targets.iter().filter(|(peer, _)| ***peer != *ROUTER_PEER) {
                let state =
                    if target.up { format!("established, {} routes", target.announced) } else { target.reason.clone() };
                states.entry((peer.to_string(), state)).or_default().push(&speaker.name);
            }
        }
        states
            .into_iter()
            .map(|((peer, state), nodes)| format!("peer {peer} ({}): {state}", nodes.join(", ")))
            .collect()
    }

    /// Has every speaker handed the router all that it decided?
    fn handed_over(&self) -> bool {
        self.told.borrow().readings > 0
            && self.plan.borrow().term > 0
            && self.speakers.iter().all(|speaker| {
                let wanted = speaker.decisions.borrow().bgp.desired.generation;
                let observed = speaker.announcer.observe().borrow().clone();
                observed.targets.get(ROUTER_PEER).is_some_and(|t| t.up && t.generation >= wanted)
            })
    }

    /// Prints each new picture; with `once`, the converged one, and says whether it is complete.
    ///
    /// # Errors
    /// If standard output is closed.
    pub(super) async fn run(&mut self, once: bool) -> anyhow::Result<bool> {
        let began = Instant::now();
        let mut shown: Option<Picture> = None;
        let (mut last, mut since) = (self.picture(), Instant::now());
        let mut look = tokio::time::interval(LOOK_PERIOD);
        loop {
            look.tick().await;
            let now = self.picture();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let settled = self.handed_over() && !last.missing && since.elapsed() >= SETTLED_AFTER;
            if once {
                if settled || began.elapsed() >= CONVERGE_MAX {
                    self.print(&last)?;
                    return Ok(last.complete());
                }
            } else if (settled || since.elapsed() >= SETTLED_AFTER * 5) && shown.as_ref() != Some(&last) {
                self.print(&last)?;
                shown = Some(last.clone());
            }
        }
    }

    fn print(&self, picture: &Picture) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", picture.json())?,
            Output::Table => {
                if out.is_terminal() {
                    write!(out, "\x1b[2J\x1b[H")?;
                }
                let speakers = self.speakers.len();
                writeln!(out, "router {} (AS {}), {speakers} speakers", self.router, super::cluster::ROUTER_AS)?;
                writeln!(out, "{}", picture.table())?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// Next hops by prefix.
fn routes(rib: &Rib) -> Routes {
    let hops = |prefix| rib.next_hops(prefix).map(|(_, next_hop)| next_hop).collect();
    rib.routes.keys().map(|prefix| (*prefix, hops(prefix))).collect()
}
