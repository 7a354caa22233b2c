//! The speaker's start with many standing Services, and what both processes weigh.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ferrocast_tests::wait::pause;

use crate::Plan;
use crate::arrivals::What;
use crate::bed::{Bed, PATIENCE};
use crate::report::Report;
use crate::stats::ms;
use crate::updates::count;

/// Time for a process to come to rest before it is weighed.
const REST: Duration = Duration::from_secs(5);
/// How often memory is measured, each time after a start.
const WEIGHINGS: usize = 3;
/// Kilobytes per megabyte.
const KB_PER_MB: f64 = 1_000.0;

/// Start of the speaker (exec) → every route at the receiver.
///
/// # Errors
/// When something does not work at all.
pub(crate) async fn speaker_start(bed: &mut Bed, plan: &Plan, standing: usize, report: &mut Report) -> Result<()> {
    // The first start asks for a token; those that count do not.
    bed.start_speaker().await?;
    bed.arrivals.wait_for_present(standing, PATIENCE).await?;
    bed.stop_speaker().await?;
    let (mut times, mut updates) = (vec![], vec![]);
    for _ in 0..plan.runs {
        let began = bed.start_speaker().await?;
        let last = bed.arrivals.stamp(What::Appeared, standing, PATIENCE).await?;
        times.push(ms(last.duration_since(began)));
        updates.push(count(bed.arrivals.updates()));
        bed.stop_speaker().await?;
    }
    let limit = match standing {
        0..=5_000 => "≤ 2,000 ms",
        _ => "≤ 3,000 ms",
    };
    report.values(format!("speaker's start → {standing} routes"), "ms", &times, limit);
    report.values(format!("speaker's start → {standing} routes: UPDATE messages"), "", &updates, "");
    Ok(())
}

/// A field of `/proc/<pid>/status`, MB.
fn memory(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).with_context(|| format!("no {field}"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
    Ok(kilobytes * 1.024 / KB_PER_MB)
}

/// Resident memory of controller and speaker with `standing` allocated Services, and the most it has been.
///
/// # Errors
/// When something does not work at all.
pub(crate) async fn weight(bed: &mut Bed, standing: usize, report: &mut Report) -> Result<()> {
    let limit = match standing {
        0..=1_000 => "≤ 25 MB",
        _ => "≤ 80 MB",
    };
    let fields = ["VmRSS", "VmHWM", "RssAnon"];
    let mut weights = vec![vec![]; 2 * fields.len()];
    for _ in 0..WEIGHINGS {
        bed.start_ferrocast(standing, standing).await?;
        pause(REST).await;
        let pids = [bed.controller()?.process().pid(), bed.speaker()?.process().pid()];
        let each = pids.iter().flat_map(|pid| fields.map(|field| (*pid, field)));
        for (values, (pid, field)) in weights.iter_mut().zip(each) {
            values.push(memory(pid, field)?);
        }
        bed.stop_ferrocast().await?;
    }
    let names = ["controller", "speaker"].iter().flat_map(|who| {
        [("", limit), (", peak", ""), (", of that anonymous", "")]
            .map(|(what, limit)| (format!("memory of the {who} with {standing} Services{what}"), limit))
    });
    for ((name, limit), values) in names.zip(&weights) {
        report.values(name, "MB", values, limit);
    }
    Ok(())
}
