//! Durations as Go prints them: `1h2m3.5s`, `1.2ms`, the notation of the services that this one replaces.

use std::time::Duration;

/// Formats a duration as Go's `time.Duration` does: the largest unit first, fractions without trailing zeros.
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(tollgate::http::go_duration(Duration::from_micros(1_200)), "1.2ms");
/// ```
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    let seconds = duration.as_secs();
    if seconds == 0 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => decimal(u64::from(nanos / 1_000), nanos % 1_000, 3) + "µs",
            _ => decimal(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6) + "ms",
        };
    }
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let rest = decimal(seconds % 60, nanos, 9) + "s";
    match (hours, minutes) {
        (0, 0) => rest,
        (0, _) => format!("{minutes}m{rest}"),
        _ => format!("{hours}h{minutes}m{rest}"),
    }
}

fn decimal(whole: u64, fraction: u32, digits: usize) -> String {
    if fraction == 0 {
        return whole.to_string();
    }
    format!("{whole}.{fraction:0digits$}")
        .trim_end_matches('0')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (1_200_000, "1.2ms"),
            (2_000_000, "2ms"),
            (1_000_000_000, "1s"),
            (44_398_377_667, "44.398377667s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (360_000_000_000_001, "100h0m0.000000001s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
