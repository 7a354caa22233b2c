//! `ferrocast explain` on a live cluster with many standing Services: from the command's start to its end.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use ferrocast_tests::ferrocast::binary;
use ferrocast_tests::process::run;
use ferrocast_tests::wait::{ensure_that, eventually};
use serde_json::Value;

use crate::Plan;
use crate::bed::{Bed, PATIENCE};
use crate::load::{Load, NAMESPACE, NODE};
use crate::report::Report;
use crate::stats::ms;

/// Explanations of each kind per run.
const QUESTIONS: usize = 5;

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
