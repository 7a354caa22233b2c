//! The one place between "what should be announced" and "what is announced now".
//!
//! Drains, readiness gates, damping, budgets and change windows will live here. Until then everything passes through; nothing
//! goes around it.
use std::time::Instant;

use crate::announce::Desired;

/// Decides when a change of the desired set may take effect. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub struct Pacer {}

/// What to announce now, and when to ask again.
#[derive(Debug, PartialEq)]
pub struct Paced {
    /// The set to hand to the announcers.
    pub now: Desired,
    /// Ask again then even if nothing changed; `None`: no change is waiting.
    pub again_at: Option<Instant>,
}

impl Pacer {
    /// What of `wanted` may be announced at `now`. Today: all of it, at once.
    #[must_use]
    pub fn pace(&mut self, wanted: &Desired, now: Instant) -> Paced {
        let _ = now;
        Paced { now: wanted.clone(), again_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests own the clock")]
    fn pacer_passes_everything_through_at_once() {
        let wanted = Desired { generation: 7, ..Desired::default() };
        let paced = Pacer::default().pace(&wanted, Instant::now());
        assert_eq!(paced, Paced { now: wanted, again_at: None });
    }
}
