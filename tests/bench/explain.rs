//! `ferrocast explain` on a live cluster with many standing Services: from the command's start to its end.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ferrocast_tests::ferrocast::binary;
use ferrocast_tests::process::run;
use ferrocast_tests::wait::{ensure_that, eventually, pause};
use serde_json::Value;

use crate::Plan;
use crate::bed::{Bed, PATIENCE};
use crate::load::{Load, NAMESPACE, NODE};
use crate::report::Report;
use crate::stats::ms;

/// Explanations of each kind per run.
const QUESTIONS: usize = 5;
/// At rest the machine does less than this in a window, parts in a hundred of all processors.
const REST_BUSY_MAX_PERCENT: u64 = 10;
/// The window.
const REST_WINDOW: Duration = Duration::from_secs(3);
/// How long Events and statuses of standing Services may go on being written.
const REST_AWAITED: Duration = Duration::from_secs(240);

/// What all processors together have done and could have done since they started, in ticks. Source: proc_stat(5).
fn ticks() -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    let all: u64 = fields.iter().take(8).sum();
    Ok((all - idle, all))
}

/// Waits until nothing is left to be written: Events come long after the addresses that they tell of.
async fn rest() -> Result<()> {
    let began = Instant::now();
    loop {
        let before = ticks()?;
        pause(REST_WINDOW).await;
        let after = ticks()?;
        let (busy, all) = (after.0 - before.0, after.1 - before.1);
        if busy * 100 < all * REST_BUSY_MAX_PERCENT {
            return Ok(());
        }
        ensure!(began.elapsed() < REST_AWAITED, "the machine is still busy: {busy} of {all} ticks");
    }
}

/// One explanation, as a person asks for it.
fn explain(bed: &Bed, kind: &str, name: &str) -> Result<Value> {
    let mut command = Command::new(binary()?);
    command.args(["explain", kind, name, "-o", "json", "--kubeconfig"]).arg(bed.plane.admin_kubeconfig());
    Ok(serde_json::from_str(&run(&mut command)?)?)
}

/// The command's start → its end, for a subject of each kind. Each time it makes a token, which controller and speaker have reviewed.
///
/// # Errors
/// When something does not work at all.
pub(crate) async fn live(bed: &mut Bed, plan: &Plan, standing: usize, report: &mut Report) -> Result<()> {
    bed.start_ferrocast(standing, standing).await?;
    let service = format!("{NAMESPACE}/{}", Load::new(&bed.client(), "standing").name(standing / 2));
    let told = eventually("controller and speaker explain a Service as sent", PATIENCE, async || {
        let told = explain(bed, "service", &service)?;
        let sent = told["services"][0]["nodes"][0]["peers"][0]["sent"] == true;
        ensure_that(sent && told["unanswered"].is_null(), || told.to_string())?;
        Ok(told)
    })
    .await?;
    rest().await?;
    let address = told["services"][0]["addresses"][0].as_str().unwrap_or_default().to_owned();
    for (kind, name) in [("service", &*service), ("address", &*address), ("node", NODE), ("peer", "receiver")] {
        let mut times = vec![];
        for _ in 0..plan.runs * QUESTIONS {
            let began = Instant::now();
            explain(bed, kind, name)?;
            times.push(ms(began.elapsed()));
        }
        report.values(format!("explain {kind}, {standing} Services stand"), "ms", &times, "≤ 100 ms");
    }
    bed.stop_ferrocast().await
}
