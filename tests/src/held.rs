//! Connections held through both routers while something happens to the nodes, and what becomes of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::{CONVERGENCE_TIME_MAX, Lab};
use crate::process::{Process, sh};
use crate::wait::{ensure_that, eventually};

/// The held connections.
pub struct Held {
    processes: Vec<Process>,
    wanted: usize,
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Tally {
    /// Those that live.
    pub held: usize,
    /// Those that broke.
    pub broken: usize,
    /// Messages that were echoed.
    pub echoes: u64,
    /// The longest time that an echo took.
    pub slowest: Duration,
}

/// The Pods' namespaces.
const BACKENDS: [&str; 3] = ["p1", "p2", "p3"];

/// Established connections to the backend in a Pods' namespace.
fn connections_into(pods: &str) -> usize {
    let listed = sh(&format!("ip netns exec {pods} ss -tnH state established ( sport = :8081 )"));
    listed.map_or(0, |lines| lines.lines().count())
}

impl Held {
    /// Opens them: so many through each router, the same number to each address. `case` keeps the reports of one case apart
    /// from those of another. Needs [`Lab::route_client_by_source`].
    ///
    /// # Errors
    /// When not all come up, or a node has none.
    pub async fn open(lab: &Lab, case: &str, addresses: &[String], per_router: usize) -> Result<Self> {
        let mut held = Self { processes: vec![], wanted: 0 };
        // Of clients that ended while their packets led nowhere; the backends do not know.
        let before = BACKENDS.map(connections_into);
        let each = per_router / addresses.len();
        for router in lab.routers() {
            for address in addresses {
                let name = format!("held-{case}-{}-{}", router.netns, address.replace([':', '.'], "-"));
                held.processes.push(lab.hold_connections(&name, router, address, each)?);
                held.wanted += each;
            }
        }
        eventually("all connections exchange messages", CONVERGENCE_TIME_MAX, async || {
            let tally = held.tally()?;
            ensure_that(tally.held == held.wanted && tally.echoes > 0, || format!("{tally:?}"))
        })
        .await?;
        let spread = eventually("every connection ends at a backend", CONVERGENCE_TIME_MAX, async || {
            let mut spread = BACKENDS.map(connections_into);
            spread.iter_mut().zip(before).for_each(|(count, before)| *count = count.saturating_sub(before));
            ensure_that(spread.iter().sum::<usize>() == held.wanted, || format!("{spread:?}"))?;
            Ok(spread)
        })
        .await?;
        println!("     {} connections, at the nodes' backends {spread:?}", held.wanted);
        ensure!(spread.iter().all(|count| *count > 0), "a node without connections has nothing to lose");
        Ok(held)
    }

    /// The newest reports, added up.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn tally(&self) -> Result<Tally> {
        let mut all = Tally::default();
        for process in &self.processes {
            let log = process.log()?;
            let report = log.lines().rev().find(|line| line.starts_with("held ")).with_context(|| process.tail())?;
            let words: Vec<&str> = report.split_whitespace().collect();
            let ["held", held, "broken", broken, "echoes", echoes, "slowest-ms", slowest] = words.as_slice() else {
                anyhow::bail!("not a report: {report}")
            };
            all.held += held.parse::<usize>()?;
            all.broken += broken.parse::<usize>()?;
            all.echoes += echoes.parse::<u64>()?;
            all.slowest = all.slowest.max(Duration::from_millis(slowest.parse()?));
        }
        Ok(all)
    }

    /// Every connection lives, and has exchanged messages until now.
    ///
    /// # Errors
    /// When one broke: with what the clients say.
    pub async fn ensure_unbroken(&mut self) -> Result<()> {
        let before = self.tally()?.echoes + self.wanted as u64;
        // One more message of each, on average, in reports of every second.
        eventually("the connections go on", CONVERGENCE_TIME_MAX, async || {
            ensure_that(self.tally()?.echoes >= before, || format!("{:?}", self.tally()))
        })
        .await?;
        let tally = self.tally()?;
        println!(
            "     {} connections held, {} broken, {} messages echoed, the slowest in {} ms",
            tally.held,
            tally.broken,
            tally.echoes,
            tally.slowest.as_millis()
        );
        let tails = || self.processes.iter().map(Process::tail).collect::<String>();
        ensure!(tally.broken == 0 && tally.held == self.wanted, "{tally:?}\n{}", tails());
        self.processes.iter_mut().try_for_each(Process::ensure_running)
    }
}
