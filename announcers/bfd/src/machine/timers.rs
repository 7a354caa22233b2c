//! How intervals follow from both sides' values. Intervals on the wire are microseconds in 32 bits.
use std::time::Duration;

/// Shortest transmit interval that may be advertised while a session is not Up, µs. Source: RFC 5880 §6.8.3.
pub(crate) const SLOW_INTERVAL_US: u32 = 1_000_000;
/// Shortest interval that a configuration gets, µs: below, the thread would do little else with a few sessions.
const INTERVAL_MIN_US: u32 = 1_000;

/// A configured interval for the wire, within what is sensible and fits.
pub(crate) fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX).max(INTERVAL_MIN_US)
}

/// Microseconds as a duration.
pub(crate) fn duration(us: u32) -> Duration {
    Duration::from_micros(us.into())
}

/// An interval shortened at random, so that sessions do not fall into step: to 75 to 100 %, or with a detect multiplier
/// of 1 to 75 to 90 %, so that one packet always arrives in time. Source: RFC 5880 §6.8.7.
pub(crate) fn jittered(interval: Duration, detect_multiplier: u8, random: u32) -> Duration {
    let span_percent = if detect_multiplier == 1 { 15 } else { 25 };
    let span = interval * span_percent / 100;
    // A fraction of `span` in 1/65536; the interval is at most 2^32 µs, so nothing overflows.
    let part = span.mul_f64(f64::from(random) / f64::from(u32::MAX));
    interval * 3 / 4 + part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_the_rfcs_bounds() {
        let interval = Duration::from_millis(100);
        for (multiplier, random, expected_us) in
            [(3, 0, 75_000), (3, u32::MAX, 100_000), (1, 0, 75_000), (1, u32::MAX, 90_000), (255, u32::MAX / 2, 87_500)]
        {
            let found = jittered(interval, multiplier, random).as_micros();
            assert!(found.abs_diff(expected_us) <= 1, "{multiplier} {random}: {found}");
        }
        assert!(jittered(duration(u32::MAX), 1, u32::MAX) <= duration(u32::MAX));
    }

    #[test]
    fn micros_clamps_what_the_wire_cannot_say() {
        for (interval, expected) in [
            (Duration::ZERO, INTERVAL_MIN_US),
            (Duration::from_millis(300), 300_000),
            (Duration::from_secs(10_000), u32::MAX),
        ] {
            assert_eq!(micros(interval), expected);
        }
    }
}
