//! What Ferrocast writes, from the API server's audit log: per Service created, and at a restart.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ferrocast_tests::audit::{self, Request};
use ferrocast_tests::kube::ControlPlane;
use ferrocast_tests::wait::pause;

use crate::Plan;
use crate::bed::{Bed, PATIENCE};
use crate::load::Load;
use crate::report::Report;
use crate::updates::count;

/// A count that did not change for so long has come to its end.
const QUIET: Duration = Duration::from_secs(3);
/// Pause after a restart in which a write would still count as caused by it.
const AFTER_RESTART: Duration = Duration::from_secs(10);

fn writes(plane: &ControlPlane) -> Result<Vec<Request>> {
    let all = audit::requests(plane)?.into_iter();
    Ok(all.filter(|r| r.is_write() && r.resource != "leases" && r.account.starts_with("ferrocast")).collect())
}

/// Waits until no Event has been written for a while.
///
/// # Errors
/// When that does not happen in time.
pub(crate) async fn wait_for_quiet(plane: &ControlPlane) -> Result<()> {
    let written = || -> Result<usize> {
        let log = fs::read_to_string(plane.audit_log()).context("the audit log")?;
        Ok(log.matches("\"resource\":\"events\"").count())
    };
    let mut before = written()?;
    for _ in 0..PATIENCE.as_secs() / QUIET.as_secs() {
        pause(QUIET).await;
        let now = written()?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
    bail!("Events are still being written")
}

/// Writes per Service created, and at a restart of the controller with `standing` allocated Services.
///
/// # Errors
/// When something does not work at all.
pub(crate) async fn api_writes(bed: &mut Bed, plan: &Plan, standing: usize, report: &mut Report) -> Result<()> {
    let load = Load::new(&bed.client(), "measured");
    bed.start_ferrocast(standing, standing).await?;
    wait_for_quiet(&bed.plane).await?;
    let before = writes(&bed.plane)?.len();
    load.create_services(0..plan.services).await?;
    bed.arrivals.wait_for_present(standing + plan.services, PATIENCE).await?;
    wait_for_quiet(&bed.plane).await?;
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for request in writes(&bed.plane)?.split_off(before) {
        *kinds.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    eprintln!("  written for {} Services: {kinds:?}", plan.services);
    let per_service = |what: &str| count(kinds.get(what).copied().unwrap_or(0)) / count(plan.services);
    let all = count(kinds.values().sum()) / count(plan.services);
    let (patches, events) = (per_service("patch services/status"), per_service("create events"));
    report.values("status patches per Service created", "", &[patches], "1");
    report.values("Events per Service created", "", &[events], "1");
    report.values("other writes per Service created", "", &[all - patches - events], "0");

    let before = writes(&bed.plane)?.len();
    bed.stop_controller().await?;
    bed.start_controller(standing + plan.services).await?;
    pause(AFTER_RESTART).await;
    let written = writes(&bed.plane)?.split_off(before);
    let name = format!("writes at controller restart with {standing} Services, Lease apart");
    report.values(name, "", &[count(written.len())], "0");
    bed.stop_ferrocast().await?;
    load.delete_services(0..plan.services).await
}
