//! Waiting for a state to be reached, with a deadline; the only place of the test bed that sleeps.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Pause between two looks, ms: short against everything waited for, long against the cost of a look.
const POLL_INTERVAL_MS: u64 = 100;

/// Looks until `probe` succeeds, for at most `within`.
///
/// # Errors
/// When the time is over: with `what` was waited for and the last failure of `probe`.
pub async fn eventually<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if began.elapsed() >= within => {
                return Err(anyhow!("after {within:?} still not: {what}: {error:#}"));
            }
            Err(_) => pause(Duration::from_millis(POLL_INTERVAL_MS)).await,
        }
    }
}

/// Looks over and over for the whole of `during`, and fails as soon as `probe` does.
///
/// # Errors
/// The first failure of `probe`, with `what` should have held and since when it was watched.
pub async fn throughout(what: &str, during: Duration, mut probe: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < during {
        let held = probe().await;
        held.map_err(|error| error.context(format!("did not hold after {:?}: {what}", began.elapsed())))?;
        pause(Duration::from_millis(POLL_INTERVAL_MS)).await;
    }
    Ok(())
}

/// Lets time pass where time itself is the subject (an outage's length, a rest to be observed), not a state.
pub async fn pause(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Tells how long something took, for the test's output.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since it began.
    #[must_use]
    pub fn seconds(self) -> f32 {
        self.0.elapsed().as_secs_f32()
    }
}

/// `true` or an error that says what was expected: for the probes of [`eventually`].
///
/// # Errors
/// When `holds` is false.
pub fn ensure_that(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(anyhow!(otherwise())) }
}

/// Bounds a future that could hang.
///
/// # Errors
/// What the future fails with, or that `what` took longer than `within`.
pub async fn bounded<T>(what: &str, within: Duration, future: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(within, future).await {
        Ok(result) => result,
        Err(_) => Err(anyhow!("{what} took longer than {within:?}")),
    }
}
