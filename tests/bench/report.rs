//! What was measured, as a table for people and as JSON for machines.

use serde_json::{Value, json};

use crate::bed::Contender;
use crate::stats::{median, percentile, spread};

/// The same thing done several times by both, alternately; milliseconds.
pub(crate) struct Comparison {
    name: String,
    floor: Vec<Vec<f64>>,
    ferrocast: Vec<Vec<f64>>,
}

impl Comparison {
    /// Of what.
    #[must_use]
    pub(crate) fn new(name: String) -> Self {
        Self { name, floor: vec![], ferrocast: vec![] }
    }

    /// Adds a run, all of its values.
    pub(crate) fn add(&mut self, contender: Contender, run: Vec<f64>) {
        eprintln!(
            "  {contender:?}: p50 {:.2} ms, p99 {:.2} ms of {}",
            percentile(&run, 50),
            percentile(&run, 99),
            run.len()
        );
        match contender {
            Contender::Floor => self.floor.push(run),
            Contender::Ferrocast => self.ferrocast.push(run),
        }
    }

    fn row(&self, percent: usize) -> Row {
        let of = |runs: &[Vec<f64>]| runs.iter().map(|run| percentile(run, percent)).collect::<Vec<_>>();
        let (floor, ferrocast) = (of(&self.floor), of(&self.ferrocast));
        let single = self.floor.iter().chain(&self.ferrocast).all(|run| run.len() == 1);
        Row {
            name: if single { self.name.clone() } else { format!("{}, p{percent}", self.name) },
            unit: "ms",
            value: median(&ferrocast),
            floor: Some(median(&floor)),
            spread: Some(spread(&floor).max(spread(&ferrocast))),
            runs: ferrocast.len(),
            limit: String::new(),
        }
    }
}

/// One line of the result.
struct Row {
    name: String,
    unit: &'static str,
    value: f64,
    floor: Option<f64>,
    spread: Option<f64>,
    runs: usize,
    limit: String,
}

/// Everything measured so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Takes in a comparison: its medians of p50 and of p99.
    pub(crate) fn compare(&mut self, comparison: Comparison) {
        let single = comparison.floor.iter().chain(&comparison.ferrocast).all(|run| run.len() == 1);
        self.push(comparison.row(50));
        if !single {
            self.push(comparison.row(99));
        }
    }

    /// Takes in the values of several runs of something that has no floor; `limit` says what the goal is.
    pub(crate) fn values(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        values: &[f64],
        limit: impl Into<String>,
    ) {
        self.push(Row {
            name: name.into(),
            unit,
            value: median(values),
            floor: None,
            spread: (values.len() > 1).then(|| spread(values)),
            runs: values.len(),
            limit: limit.into(),
        });
    }

    fn push(&mut self, row: Row) {
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    /// The table.
    #[must_use]
    pub(crate) fn table(&self) -> String {
        let heading = format!(
            "{:<66} {:>10} {:>10} {:>7} {:>7} {:>5}  goal",
            "what", "ferrocast", "floor", "ratio", "spread", "runs"
        );
        let lines = self.rows.iter().map(Row::line);
        std::iter::once(heading).chain(lines).collect::<Vec<_>>().join("\n")
    }

    /// The same for machines.
    #[must_use]
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "name": row.name, "unit": row.unit, "ferrocast": row.value, "floor": row.floor,
                "ratio": row.ratio(), "spread": row.spread, "runs": row.runs, "goal": row.goal(),
            })
        });
        json!({ "results": rows.collect::<Vec<_>>() })
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        Some(self.value / self.floor?)
    }

    fn goal(&self) -> &str {
        if self.floor.is_some() && self.limit.is_empty() { "≤ 1.2 × floor" } else { &self.limit }
    }

    fn line(&self) -> String {
        let number = |value: f64| format!("{value:.2} {}", self.unit);
        let floor = self.floor.map(number).unwrap_or_default();
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let spread = self.spread.map(|spread| format!("{:.0} %", spread * 100.0)).unwrap_or_default();
        let value = number(self.value);
        let (name, runs, goal) = (&self.name, self.runs, self.goal());
        format!("{name:<66} {value:>10} {floor:>10} {ratio:>7} {spread:>7} {runs:>5}  {goal}")
    }
}
