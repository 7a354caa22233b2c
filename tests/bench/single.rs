//! One change at a time: Service created → route, endpoint lost → withdrawn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ferrocast_tests::wait::pause;

use crate::Plan;
use crate::arrivals::What;
use crate::bed::{Bed, Contender, FloorMode, PATIENCE};
use crate::load::Load;
use crate::report::{Comparison, Report};
use crate::stats::ms;

/// How long one arrival may take before the run has failed.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);
/// Pause between an arrival and the next change: what follows an arrival (Events, metrics) is not part of the next one.
const GAP: Duration = Duration::from_millis(15);
/// Pause after a start, so that what a start entails is over.
const SETTLE: Duration = Duration::from_secs(1);
/// Changes before those that count: connections are made, caches filled.
const WARM_UP: usize = 10;

/// Milliseconds from `began` to `at`; negative if the arrival overtook the answer that `began` stands for.
fn signed_ms(began: Instant, at: Instant) -> f64 {
    match at.checked_duration_since(began) {
        Some(later) => ms(later),
        None => -ms(began.duration_since(at)),
    }
}

/// Service created → route at the receiver, with `standing` allocated Services beside.
///
/// # Errors
/// When something does not work at all.
pub(crate) async fn service_to_route(bed: &mut Bed, plan: &Plan, standing: usize, report: &mut Report) -> Result<()> {
    let load = Load::new(&bed.client(), "measured");
    let mut comparison = Comparison::new(format!("Service → route, {standing} standing"));
    for _ in 0..plan.runs {
        for contender in [Contender::Floor, Contender::Ferrocast] {
            let floor = start(bed, contender, FloorMode::Answer, standing).await?;
            let times = create_one_by_one(bed, &load, plan.services).await;
            comparison.add(contender, times.with_context(|| format!("{contender:?}, {standing} standing"))?);
            drop(floor);
            bed.stop_ferrocast().await?;
            load.delete_services(0..plan.services + WARM_UP).await?;
        }
    }
    report.compare(comparison);
    Ok(())
}

/// Starts a contender and waits until it is at rest.
async fn start(bed: &mut Bed, who: Contender, mode: FloorMode, standing: usize) -> Result<Option<crate::bed::Floor>> {
    let floor = match who {
        Contender::Floor => Some(bed.start_floor(mode).await?),
        Contender::Ferrocast => {
            bed.start_ferrocast(standing, standing).await?;
            None
        }
    };
    pause(SETTLE).await;
    bed.arrivals.forget_stamps();
    Ok(floor)
}

async fn create_one_by_one(bed: &Bed, load: &Load, count: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        let service = load.service(number)?;
        load.create(&service).await?;
        let answered = Instant::now();
        let arrived = bed.arrivals.stamp(What::Appeared, number + 1, ARRIVAL_MAX).await?;
        times.push(signed_ms(answered, arrived));
        pause(GAP).await;
    }
    Ok(times.split_off(WARM_UP))
}

/// The creation of the EndpointSlices of the measured Services, once for all runs.
///
/// # Errors
/// What the API server refuses.
pub(crate) async fn prepare(bed: &Bed, plan: &Plan) -> Result<()> {
    Load::new(&bed.client(), "measured").create_slices(0..plan.services + WARM_UP).await
}

/// Endpoint lost → route withdrawn, against a bare watch of EndpointSlices; of `standing` allocated Services the first
/// `plan.services` lose theirs.
///
/// The clock starts with the request: its answer comes after the watch event as often as before it.
///
/// # Errors
/// When something does not work at all.
pub(crate) async fn endpoint_lost(bed: &mut Bed, plan: &Plan, standing: usize, report: &mut Report) -> Result<()> {
    let load = Load::new(&bed.client(), "standing");
    let count = plan.services.min(standing.saturating_sub(WARM_UP));
    let mut comparison = Comparison::new(format!("endpoint lost → withdrawn, {standing} standing"));
    for _ in 0..plan.runs {
        for contender in [Contender::Floor, Contender::Ferrocast] {
            let floor = start(bed, contender, FloorMode::Endpoints, standing).await?;
            let mut times = Vec::with_capacity(WARM_UP + count);
            for number in 0..WARM_UP + count {
                let requested = Instant::now();
                load.lose_endpoints(number).await?;
                let arrived = bed.arrivals.stamp(What::Vanished, number + 1, ARRIVAL_MAX).await?;
                times.push(signed_ms(requested, arrived));
                pause(GAP).await;
            }
            comparison.add(contender, times.split_off(WARM_UP));
            load.restore_endpoints(0..WARM_UP + count).await?;
            if contender == Contender::Ferrocast {
                bed.arrivals.wait_for_present(standing, PATIENCE).await?;
            }
            drop(floor);
            bed.stop_ferrocast().await?;
        }
    }
    report.compare(comparison);
    Ok(())
}
