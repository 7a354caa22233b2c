//! Measures Ferrocast against a floor on a real API server: `tests/bench/run` builds and calls it.
//!
//! `bench [--quick] [--long] [--only WORD]… [--runs N] [--services N] [--json FILE]`
#![allow(clippy::disallowed_methods, reason = "benchmarks read the clock and own their tasks; the product does not")]

mod arrivals;
mod bed;
mod burst;
mod explain;
mod load;
mod report;
mod single;
mod start;
mod stats;
mod updates;
mod writes;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::bed::Bed;
use crate::load::Load;
use crate::report::Report;

/// Runs of each contender, and measured Services in each: what the issue asks for at least.
const RUNS: usize = 5;
const SERVICES: usize = 300;
/// The same for a quick look.
const QUICK_RUNS: usize = 3;
const QUICK_SERVICES: usize = 100;

/// What to measure.
pub(crate) struct Plan {
    /// Runs of each contender.
    pub(crate) runs: usize,
    /// Measured Services in each run.
    pub(crate) services: usize,
    quick: bool,
    long: bool,
    only: Vec<String>,
    json: PathBuf,
}

impl Plan {
    fn from_arguments(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut runs, mut services) = (None, None);
        let json = PathBuf::from("target/bench.json");
        let mut plan = Self { runs: RUNS, services: SERVICES, quick: false, long: false, only: vec![], json };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => plan.quick = true,
                "--long" => plan.long = true,
                "--only" => plan.only.push(value()?),
                "--runs" => runs = Some(value()?.parse()?),
                "--services" => services = Some(value()?.parse()?),
                "--json" => plan.json = value()?.into(),
                _ => bail!("usage: bench [--quick] [--long] [--only WORD]… [--runs N] [--services N] [--json FILE]"),
            }
        }
        if plan.quick {
            (plan.runs, plan.services) = (QUICK_RUNS, QUICK_SERVICES);
        }
        plan.runs = runs.unwrap_or(plan.runs);
        plan.services = services.unwrap_or(plan.services);
        Ok(plan)
    }

    /// How many Services stand beside, in growing order.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        let largest = match (self.quick, self.long) {
            (_, true) => 10_000,
            (true, false) => 1_000,
            (false, false) => 5_000,
        };
        [10, 1_000, 5_000, 10_000].into_iter().take_while(move |size| *size <= largest)
    }

    fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| word == scenario)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    let dir = tempfile::tempdir()?;
    let mut report = Report::default();
    let mut bed = Bed::start(dir.path()).await?;
    let done = measure(&mut bed, &plan, &mut report).await;
    if done.is_err() {
        eprintln!("{}", bed.plane.tails());
    }
    println!("{}", report.table());
    if let Some(folder) = plan.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&plan.json, serde_json::to_string_pretty(&report.json())?)?;
    done
}

async fn measure(bed: &mut Bed, plan: &Plan, report: &mut Report) -> Result<()> {
    if plan.wants("updates") {
        updates::ten_thousand_routes(plan, report).await?;
    }
    let standing = Load::new(&bed.client(), "standing");
    bed.create_pool().await?;
    single::prepare(bed, plan).await?;
    let mut stand = 0;
    for size in plan.sizes() {
        eprintln!("{size} standing Services");
        standing.create_slices(stand..size).await?;
        standing.create_services(stand..size).await?;
        standing.allocate(stand..size).await?;
        stand = size;
        measure_with(bed, plan, size, report).await?;
    }
    Ok(())
}

/// What is measured with so many Services, as far as it is wanted.
async fn measure_with(bed: &mut Bed, plan: &Plan, size: usize, report: &mut Report) -> Result<()> {
    if plan.wants("route") && size != 5_000 {
        single::service_to_route(bed, plan, size, report).await?;
    }
    if plan.wants("endpoint") && size == 1_000 {
        single::endpoint_lost(bed, plan, size, report).await?;
    }
    if plan.wants("writes") && size == 1_000 {
        writes::api_writes(bed, plan, size, report).await?;
    }
    if plan.wants("memory") {
        start::weight(bed, size, report).await?;
    }
    if plan.wants("explain") && size != 10 {
        explain::live(bed, plan, size, report).await?;
    }
    if plan.wants("start") && size != 10 {
        start::speaker_start(bed, plan, size, report).await?;
    }
    if plan.wants("burst") && (size == 1_000 || size == 5_000) {
        burst::at_once(bed, plan, size, report).await?;
    }
    Ok(())
}
