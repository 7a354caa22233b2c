//! Many at once: Services stand without an address until a pool (for the floor: a start signal) comes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ferrocast_tests::wait::{ensure_that, eventually, pause};

use crate::Plan;
use crate::arrivals::What;
use crate::bed::{Bed, Contender, FloorMode, PATIENCE};
use crate::load::Load;
use crate::report::{Comparison, Report};
use crate::stats::ms;
use crate::updates::count;
use crate::writes::wait_for_quiet;

/// Pause after a start, so that what a start entails is over.
const SETTLE: Duration = Duration::from_secs(2);

/// `standing` Services at once: the last route, and apart from it the last Event. There is a pool before and after.
///
/// # Errors
/// When something does not work at all.
pub(crate) async fn at_once(bed: &mut Bed, plan: &Plan, standing: usize, report: &mut Report) -> Result<()> {
    let load = Load::new(&bed.client(), "standing");
    let mut comparison = Comparison::new(format!("{standing} at once → last route"));
    let mut last_events = vec![];
    bed.delete_pool().await?;
    for _ in 0..plan.runs {
        load.release(0..standing).await?;
        let mut floor = bed.start_floor(FloorMode::Hold).await?;
        pause(SETTLE).await;
        let began = floor.go().await?;
        let last = bed.arrivals.stamp(What::Appeared, standing, PATIENCE).await?;
        comparison.add(Contender::Floor, vec![ms(last.duration_since(began))]);
        drop(floor);

        load.release(0..standing).await?;
        bed.start_ferrocast(standing, 0).await?;
        bed.wait_for_session().await?;
        wait_for_quiet(&bed.plane).await?;
        let began = bed.create_pool().await?;
        let last = bed.arrivals.stamp(What::Appeared, standing, PATIENCE).await?;
        comparison.add(Contender::Ferrocast, vec![ms(last.duration_since(began))]);
        last_events.push(ms(last_event(bed, standing).await?.duration_since(began)));
        bed.stop_ferrocast().await?;
        bed.delete_pool().await?;
    }
    report.compare(comparison);
    report.values(format!("{standing} at once → last Event"), "ms", &last_events, "reported apart");
    load.allocate(0..standing).await?;
    bed.create_pool().await?;
    Ok(())
}

/// When the controller had written an Event for each of `number` allocations.
async fn last_event(bed: &mut Bed, number: usize) -> Result<Instant> {
    let controller = bed.controller()?;
    eventually("an Event for every Service", PATIENCE, async || {
        let text = controller.get("/metrics")?;
        let written = |line: &str| -> Option<f64> {
            let value = line.strip_prefix("ferrocast_events_total{reason=\"IPAllocated\"} ")?;
            value.parse().ok()
        };
        let written = text.lines().find_map(written).unwrap_or(0.0);
        ensure_that(written >= count(number), || format!("{written} written"))?;
        Ok(Instant::now())
    })
    .await
    .with_context(|| controller.tail())
}
