//! What was measured: one table for people, JSON for machines.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::contender::Contender;
use crate::stats::{median, percentile, spread};

/// So many routes to so many peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scenario {
    /// For `--only`.
    pub(crate) word: &'static str,
    pub(crate) routes: u32,
    pub(crate) peers: u32,
}

impl Scenario {
    const SMALL: Self = Self { word: "10k", routes: 10_000, peers: 1 };
    const LARGE: Self = Self { word: "100k", routes: 100_000, peers: 1 };
    const MANY: Self = Self { word: "100kx8", routes: 100_000, peers: 8 };
    pub(crate) const ALL: [Self; 3] = [Self::SMALL, Self::LARGE, Self::MANY];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},000 routes × {}", self.routes / 1_000, self.peers)
    }
}

/// One run of one contender; counts are those of one peer, memory is in kB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) took_ms: f64,
    pub(crate) updates: usize,
    pub(crate) octets: usize,
    /// With the table, before a session.
    pub(crate) loaded: u64,
    /// With everything sent.
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { took_ms, updates, octets, loaded, resident, peak } = self;
        write!(f, "{took_ms:.2} ms, {updates} UPDATEs, {octets} octets, {loaded} → {resident} kB, peak {peak}")
    }
}

/// Everything measured so far.
#[derive(Default)]
pub(crate) struct Report {
    runs: BTreeMap<(Scenario, Contender), Vec<Run>>,
    /// Routes, peers, and the p50 and p99 of each run, ms.
    pub(crate) changes: Vec<(u32, u32, Vec<f64>, Vec<f64>)>,
    /// Ferrocast without routes and peers, kB.
    pub(crate) idle: Option<u64>,
}

/// The medians of one contender in one scenario.
struct Medians {
    took_ms: f64,
    fastest_ms: f64,
    spread: f64,
    updates: f64,
    octets: f64,
    loaded_mb: f64,
    resident_mb: f64,
    peak_mb: f64,
    runs: usize,
}

#[expect(clippy::cast_precision_loss, reason = "nothing counted here comes near 2^53")]
fn medians(runs: &[Run]) -> Medians {
    let all = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let took = all(|run| run.took_ms);
    Medians {
        took_ms: median(&took),
        fastest_ms: percentile(&took, 0),
        spread: spread(&took),
        updates: median(&all(|run| run.updates as f64)),
        octets: median(&all(|run| run.octets as f64)),
        loaded_mb: median(&all(|run| run.loaded as f64)) / 1024.0,
        resident_mb: median(&all(|run| run.resident as f64)) / 1024.0,
        peak_mb: median(&all(|run| run.peak as f64)) / 1024.0,
        runs: runs.len(),
    }
}

/// One goal of the issue: what, value, limit.
struct Goal {
    what: String,
    value: f64,
    limit: f64,
}

impl Report {
    pub(crate) fn add(&mut self, scenario: Scenario, contender: Contender, run: Run) {
        self.runs.entry((scenario, contender)).or_default().push(run);
    }

    fn of(&self, scenario: Scenario, contender: Contender) -> Option<Medians> {
        self.runs.get(&(scenario, contender)).map(|runs| medians(runs))
    }

    /// The goals about which something was measured.
    fn goals(&self) -> Vec<Goal> {
        let mut goals = vec![];
        let mut goal = |what: &str, value: f64, limit: f64| goals.push(Goal { what: what.to_owned(), value, limit });
        if let Some(own) = self.of(Scenario::SMALL, Contender::Ferrocast) {
            for (other, limit) in [(Contender::GoBgp, 0.25), (Contender::Frr, 0.5)] {
                if let Some(other_is) = self.of(Scenario::SMALL, other) {
                    let what = format!("10,000 × 1: time ÷ {}", other.name());
                    goal(&what, own.took_ms / other_is.took_ms, limit);
                }
            }
            goal("10,000 × 1: UPDATEs", own.updates, 13.0);
            goal("10,000 × 1: octets", own.octets, 50_650.0 * 1.01);
            goal("10,000 × 1: resident, MB", own.resident_mb, 12.0);
        }
        if let Some(own) = self.of(Scenario::MANY, Contender::Ferrocast) {
            let others = Contender::ALL.into_iter().filter(|contender| *contender != Contender::Ferrocast);
            let best = others.filter_map(|contender| self.of(Scenario::MANY, contender)).map(|other| other.took_ms);
            if let Some(best) = best.min_by(f64::total_cmp) {
                goal("100,000 × 8: time ÷ best daemon", own.took_ms / best, 0.5);
            }
            if let Some(one) = self.of(Scenario::LARGE, Contender::Ferrocast) {
                goal("100,000: resident × 8 ÷ resident × 1", own.resident_mb / one.resident_mb, 2.0);
            }
        }
        for (routes, peers, p50, _) in &self.changes {
            goal(&format!("one change, {},000 × {peers}: p50, ms", routes / 1_000), median(p50), 1.0);
        }
        goals
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<20} {:<10} {:>9} {:>9} {:>7} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>5}\n",
            "scenario",
            "who",
            "ms",
            "fastest",
            "spread",
            "ferrocast÷",
            "UPDATEs",
            "octets",
            "loaded MB",
            "RSS MB",
            "peak MB",
            "runs"
        );
        for (scenario, contender) in self.runs.keys() {
            let Some(of) = self.of(*scenario, *contender) else { continue };
            let ratio = self.of(*scenario, Contender::Ferrocast).map(|own| own.took_ms / of.took_ms);
            let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            text += &format!(
                "{:<20} {:<10} {:>9.2} {:>9.2} {:>5.0} % {ratio:>10} {:>8.0} {:>9.0} {:>9.1} {:>9.1} {:>9.1} {:>5}\n",
                scenario.to_string(),
                contender.name(),
                of.took_ms,
                of.fastest_ms,
                of.spread * 100.0,
                of.updates,
                of.octets,
                of.loaded_mb,
                of.resident_mb,
                of.peak_mb,
                of.runs
            );
        }
        for (routes, peers, p50, p99) in &self.changes {
            let (p50, p99) = (median(p50), median(p99));
            text +=
                &format!("one change with {},000 routes × {peers}: p50 {p50:.3} ms, p99 {p99:.3} ms\n", routes / 1_000);
        }
        if let Some(idle) = self.idle {
            text += &format!("Ferrocast's speaker without routes and peers: {idle} kB resident\n");
        }
        for goal in self.goals() {
            let verdict = if goal.value <= goal.limit { "met" } else { "MISSED" };
            text += &format!("goal: {:<44} {:>10.3} ≤ {:<10} {verdict}\n", goal.what, goal.value, goal.limit);
        }
        text
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Value {
        let runs = self.runs.iter().map(|((scenario, contender), runs)| {
            let of = medians(runs);
            let each = |of: fn(&Run) -> Value| runs.iter().map(of).collect::<Vec<_>>();
            json!({
                "routes": scenario.routes, "peers": scenario.peers, "who": contender.name(), "ms": of.took_ms,
                "spread": of.spread, "updates": of.updates, "octets": of.octets, "loadedMB": of.loaded_mb,
                "residentMB": of.resident_mb, "peakMB": of.peak_mb, "runsMs": each(|run| json!(run.took_ms)),
            })
        });
        let changes = self.changes.iter().map(|(routes, peers, p50, p99)| {
            json!({"routes": routes, "peers": peers, "p50Ms": median(p50), "p99Ms": median(p99), "runs": p50.len()})
        });
        let goals = self.goals().into_iter().map(|goal| {
            json!({"what": goal.what, "value": goal.value, "limit": goal.limit, "met": goal.value <= goal.limit})
        });
        json!({
            "results": runs.collect::<Vec<_>>(), "changes": changes.collect::<Vec<_>>(), "idleKB": self.idle,
            "goals": goals.collect::<Vec<_>>(),
        })
    }
}
