//! Durations as Go writes them.
use std::time::Duration;

/// Go keeps a duration in 63 bits of nanoseconds; more is refused there and here.
const NANOSECONDS_MAX: u128 = i64::MAX as u128;
/// Digits of a fraction that still matter: an hour has fewer than 10^13 ns.
const FRACTION_DIGITS_MAX: usize = 13;

/// Parses a Go duration, e.g. `1h2m3.5s`, `90s` or `0`.
///
/// # Errors
/// In words, what is allowed; for negative durations too: nothing here can last less than nothing.
///
/// Source: <https://pkg.go.dev/time#ParseDuration>
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "is not a duration: write a number and a unit, such as 90s or 1m30s".to_owned();
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if let Some(positive) = unsigned.strip_prefix('-') {
        return Err(parse(positive).map_or_else(|e| e, |_| "must not be negative".to_owned()));
    }
    if unsigned.is_empty() {
        return Err(wrong());
    }
    let mut rest = unsigned;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| {
            format!("is not a duration: unit missing after {rest}, write for example {}s", rest.trim_end_matches('.'))
        })?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let part = nanoseconds(number, unit_ns(unit).ok_or_else(wrong)?).ok_or_else(wrong)?;
        total = total.saturating_add(part);
        rest = after;
    }
    if total > NANOSECONDS_MAX {
        return Err("is longer than any duration can be (about 292 years)".to_owned());
    }
    let (seconds, ns) = (total / 1_000_000_000, total % 1_000_000_000);
    Ok(Duration::new(u64::try_from(seconds).unwrap_or(u64::MAX), u32::try_from(ns).unwrap_or(0)))
}

fn unit_ns(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` (digits with at most one point) times `unit`, in nanoseconds; too much saturates.
fn nanoseconds(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits =
        |text: &str| text.bytes().fold(0u128, |n, d| n.saturating_mul(10).saturating_add(u128::from(d - b'0')));
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let scale = (0..fraction.len()).fold(1u128, |scale, _| scale * 10);
    Some(digits(whole).saturating_mul(unit).saturating_add(digits(fraction).saturating_mul(unit) / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_read_as_go_reads_it() {
        for (text, want_ms) in [
            ("0", 0),
            ("+0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("1h2m3.5s", 3_723_500),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("5.s", 5_000),
            ("100ms", 100),
            ("+3s", 3_000),
            ("2000us", 2),
            ("3000µs", 3),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(want_ms)), "{text}");
        }
    }

    #[test]
    fn duration_is_refused_when_go_refuses_it_or_it_is_negative() {
        for text in
            ["", "90", "s", ".s", "1.2.3s", "1d", "-3s", "90 s", "1h-1s", "99999999999999999999h", "é", "9é", "+"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
