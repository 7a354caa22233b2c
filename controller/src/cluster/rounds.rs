//! Rounds of writes after the plan: what the leader writes into statuses on change, and nobody waits for.
use std::time::Duration;

use ferrocast_core::actor::{ActorError, CancellationToken, chain, sleep_until};
use tokio::{sync::watch, time::Instant};

use crate::allocator::Plan;

/// Shortest time between two rounds: while thousands of Services come, a status is written a few times, not thousands.
const PERIOD: Duration = Duration::from_secs(10);
/// Longest wait for all answers of a round.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Somebody who writes in rounds.
pub(super) trait Rounds: Send + Sync {
    /// What is known of the statuses in one term of leadership.
    type Known: Default + Send;
    /// What is written, for the log.
    const WHAT: &'static str;
    /// The first change after a time of rest is written so long after it was seen, with what follows soon.
    const SETTLE: Duration;

    /// Writes what differs from what is known.
    fn write(&self, plan: &Plan, known: &mut Self::Known) -> impl Future<Output = Result<(), kube::Error>> + Send;
}

/// Has every plan of a leader written, until `stop`.
pub(super) async fn rounds<W: Rounds>(
    writer: &W,
    mut plan: watch::Receiver<Plan>,
    stop: CancellationToken,
) -> Result<(), ActorError> {
    let (mut known, mut term, mut failing) = (W::Known::default(), 0, false);
    plan.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = plan.changed() => changed.map_err(|_| ActorError::Upstream("plan"))?,
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(W::SETTLE) => {}
        }
        let now = plan.borrow_and_update().clone();
        if now.term == 0 {
            continue;
        }
        if std::mem::replace(&mut term, now.term) != now.term {
            known = W::Known::default();
        }
        let error = match tokio::time::timeout(ANSWER_MAX, writer.write(&now, &mut known)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some(format!("no answer within {ANSWER_MAX:?}")),
        };
        match error {
            None => failing = false,
            Some(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error, "{} not written, trying again", W::WHAT);
                }
                plan.mark_changed();
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep_until(Some(Instant::now() + PERIOD)) => {}
        }
    }
}
