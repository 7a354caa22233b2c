//! BFDProfile: every rule of one profile.
use std::{sync::Arc, time::Duration};

use super::{
    BfdProfile, BfdProfileSpec, Meta,
    check::{Report, integer},
};

/// Intervals of BFD, milliseconds, as in MetalLB's CRD.
const INTERVAL_RANGE_MS: (i64, i64) = (10, 60_000);
/// Detection multipliers, as in MetalLB's CRD: with 1 the first lost packet would count.
const MULTIPLIER_RANGE: (i64, i64) = (2, 255);
/// TTLs that a received packet of a multihop session may be asked to have, as in MetalLB's CRD.
const TTL_RANGE: (i64, i64) = (1, 254);
/// MetalLB's `echoInterval` where none is given.
const ECHO_INTERVAL_DEFAULT: Duration = Duration::from_millis(50);

/// Checks everything about a profile; it concerns no other object.
pub(super) fn check(meta: &Meta, spec: &BfdProfileSpec, report: &mut Report) -> Option<Arc<BfdProfile>> {
    let plain = BfdProfile::new(&meta.key.name);
    let mut interval = |field: &str, written| {
        integer::<u64>(report, field, written, INTERVAL_RANGE_MS, "interval in milliseconds").map(Duration::from_millis)
    };
    let receive = interval("spec.receiveInterval", spec.receive_interval);
    let transmit = interval("spec.transmitInterval", spec.transmit_interval);
    let echo = interval("spec.echoInterval", spec.echo_interval);
    let multiplier =
        integer(report, "spec.detectMultiplier", spec.detect_multiplier, MULTIPLIER_RANGE, "detect multiplier");
    let minimum_ttl = integer(report, "spec.minimumTtl", spec.minimum_ttl, TTL_RANGE, "minimum TTL");
    let profile = BfdProfile {
        receive_interval: receive.unwrap_or(plain.receive_interval),
        transmit_interval: transmit.unwrap_or(plain.transmit_interval),
        detect_multiplier: multiplier.unwrap_or(plain.detect_multiplier),
        echo_interval: (spec.echo_mode == Some(true)).then_some(echo.unwrap_or(ECHO_INTERVAL_DEFAULT)),
        passive: spec.passive_mode.unwrap_or(plain.passive),
        minimum_ttl: minimum_ttl.unwrap_or(plain.minimum_ttl),
        name: plain.name,
    };
    (!report.has_error()).then(|| Arc::new(profile))
}
