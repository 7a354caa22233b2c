//! One-for-one supervision.
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{Actor, Exhausted, RestartPolicy, chain};

/// An actor used up its restarts; the process should exit non-zero.
#[derive(Debug, thiserror::Error)]
#[error("actor `{name}` failed after {restarts} restarts, giving up: {last}")]
pub struct Escalation {
    /// The actor's name.
    pub name: &'static str,
    /// How many restarts were tried.
    pub restarts: u32,
    /// The last failure.
    pub last: String,
}

/// One supervised actor, as its owner sees it.
#[derive(Clone, Debug)]
pub struct Child {
    stop: CancellationToken,
    done: CancellationToken,
}

impl Child {
    /// Asks this child alone to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it has stopped for good.
    pub async fn stopped(&self) {
        self.done.cancelled().await;
    }

    /// Has it stopped for good?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.done.is_cancelled()
    }
}

/// Owns every task of one subtree. Dropping it aborts them.
#[derive(Debug, Default)]
pub struct Supervisor {
    children: JoinSet<Result<(), Escalation>>,
    stop: CancellationToken,
}

impl Supervisor {
    /// A supervisor whose subtree stops with `stop`.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { children: JoinSet::new(), stop }
    }

    /// Adds a child.
    pub fn spawn<A: Actor>(&mut self, actor: A, policy: RestartPolicy) -> Child {
        // Children that ended are reaped here, so that a long-lived owner of short-lived children does not grow.
        while let Some(done) = self.children.try_join_next() {
            if let Ok(Err(escalation)) = done {
                tracing::error!(%escalation, "child gave up");
            }
        }
        let child = Child { stop: self.stop.child_token(), done: CancellationToken::new() };
        let span = match actor.instance() {
            only if only.is_empty() => tracing::info_span!("actor", name = A::NAME),
            instance => tracing::info_span!("actor", name = A::NAME, instance),
        };
        let (stop, done) = (child.stop.clone(), child.done.clone().drop_guard());
        self.children.spawn(
            async move {
                let _done = done;
                supervise(actor, policy, stop).await
            }
            .instrument(span),
        );
        child
    }

    /// The token that stops the whole subtree.
    #[must_use]
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits for every child; the first escalation stops the rest.
    ///
    /// # Errors
    /// The first [`Escalation`], after all siblings have stopped.
    pub async fn join(&mut self) -> Result<(), Escalation> {
        let mut first = Ok(());
        while let Some(done) = self.children.join_next().await {
            let result =
                done.unwrap_or_else(|join| Err(Escalation { name: "supervisor", restarts: 0, last: join.to_string() }));
            if let Err(escalation) = result {
                self.stop.cancel();
                if first.is_ok() {
                    first = Err(escalation);
                }
            }
        }
        first
    }
}

async fn supervise<A: Actor>(mut actor: A, policy: RestartPolicy, stop: CancellationToken) -> Result<(), Escalation> {
    let mut restarts = 0_u32;
    loop {
        let began = Instant::now();
        let failure = match AssertUnwindSafe(actor.run(stop.child_token())).catch_unwind().await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => chain(&error),
            Err(_panic) => "panicked".to_owned(), // the panic hook has logged message and place
        };
        if stop.is_cancelled() {
            return Ok(());
        }
        if began.elapsed() >= policy.stable_after {
            restarts = 0;
        }
        restarts = restarts.saturating_add(1);
        metrics::counter!("ferrocast_actor_restarts_total", "actor" => A::NAME).increment(1);
        if restarts > policy.restarts_max {
            match policy.exhausted {
                Exhausted::Escalate => {
                    return Err(Escalation { name: A::NAME, restarts: restarts - 1, last: failure });
                }
                Exhausted::Park => tracing::error!(restarts, failure, "fails again and again: parked, retried rarely"),
            }
        }
        let delay = policy.delay_jittered(restarts);
        tracing::warn!(failure, restarts, ?delay, "restarting");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::ActorError;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    const POLICY: RestartPolicy = RestartPolicy {
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_secs(5),
        stable_after: Duration::from_secs(60),
        restarts_max: 3,
        exhausted: Exhausted::Escalate,
    };

    struct Flaky {
        runs: Arc<AtomicU32>,
        ok_on: u32,
    }
    impl Actor for Flaky {
        const NAME: &'static str = "flaky";
        async fn run(&mut self, _stop: CancellationToken) -> Result<(), ActorError> {
            let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
            if run == self.ok_on {
                return Ok(());
            }
            assert!(!run.is_multiple_of(2), "boom");
            Err(ActorError::Upstream("test"))
        }
    }

    struct Idle;
    impl Actor for Idle {
        const NAME: &'static str = "idle";
        async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
            stop.cancelled().await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn restart_backs_off_and_survives_panics() {
        let runs = Arc::new(AtomicU32::new(0));
        let mut sup = Supervisor::default();
        let child = sup.spawn(Flaky { runs: runs.clone(), ok_on: 4 }, POLICY);
        let t0 = Instant::now();
        sup.join().await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        assert!(child.is_stopped());
        let waited = t0.elapsed();
        let full = Duration::from_millis(100 + 200 + 400);
        assert!(waited <= full + Duration::from_millis(3) && waited >= full.mul_f64(0.75), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn supervisor_escalates_after_restarts_max_and_stops_siblings() {
        let mut sup = Supervisor::default();
        sup.spawn(Flaky { runs: Arc::default(), ok_on: u32::MAX }, POLICY);
        sup.spawn(Idle, POLICY);
        let err = sup.join().await.unwrap_err();
        assert_eq!((err.name, err.restarts), ("flaky", 3));
    }

    #[tokio::test(start_paused = true)]
    async fn parked_actor_never_escalates_and_recovers() {
        let runs = Arc::new(AtomicU32::new(0));
        let mut sup = Supervisor::default();
        let policy = RestartPolicy { exhausted: Exhausted::Park, ..POLICY };
        sup.spawn(Flaky { runs: runs.clone(), ok_on: 20 }, policy);
        sup.join().await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn child_stops_alone() {
        let mut sup = Supervisor::default();
        let (a, b) = (sup.spawn(Idle, POLICY), sup.spawn(Idle, POLICY));
        a.stop();
        a.stopped().await;
        assert!(!b.is_stopped());
        b.stop();
        sup.join().await.unwrap();
    }
}
