//! How often, and after what wait, an actor is restarted.
use std::time::Duration;

/// What happens once an actor has used up its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The process ends, so that the kubelet sees it: for actors without which nothing works.
    Escalate,
    /// Restarts go on at the longest delay and are reported as errors: for one session or plugin among many.
    Park,
}

/// Restart intensity, in OTP terms.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    /// First delay; doubles per restart.
    pub delay_min: Duration,
    /// Upper bound of the delay, before jitter.
    pub delay_max: Duration,
    /// A run this long clears the restart count: "stable" means up for a while, not merely started.
    pub stable_after: Duration,
    /// Restarts before [`RestartPolicy::exhausted`] applies.
    pub restarts_max: u32,
    /// What then.
    pub exhausted: Exhausted,
}

impl RestartPolicy {
    /// For actors without which nothing works (allocator, decider, watchers): ends the process after 8 quick failures.
    pub const VITAL: Self = Self {
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_secs(10),
        stable_after: Duration::from_secs(60),
        restarts_max: 8,
        exhausted: Exhausted::Escalate,
    };

    /// For one among many (a session, a plugin): never ends the process.
    pub const EXPENDABLE: Self = Self { delay_max: Duration::from_secs(60), exhausted: Exhausted::Park, ..Self::VITAL };

    /// Delay before restart number `restarts` (counted from 1), before jitter.
    #[must_use]
    pub fn delay(&self, restarts: u32) -> Duration {
        let factor = 2_u32.saturating_pow(restarts.saturating_sub(1));
        self.delay_min.saturating_mul(factor).min(self.delay_max)
    }

    /// `delay`, shortened by up to a quarter at random, so that a crowd does not restart in step.
    #[must_use]
    pub(super) fn delay_jittered(&self, restarts: u32) -> Duration {
        self.delay(restarts).mul_f64(1.0 - fastrand::f64() / 4.0)
    }
}
