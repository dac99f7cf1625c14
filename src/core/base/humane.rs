//! Numbers as people read them: `213.4ms`, `1,204`, `2.31%`, `1.2 MB`.

/// A duration given in milliseconds: `12.8µs`, `213.4ms`, `1.23s`.
pub fn milliseconds(ms: f64) -> String {
    // More digits would show the width of histogram buckets.
    let short = |value: f64, unit: &str| format!("{}{unit}", decimals(value, if value < 9.995 { 2 } else { 1 }));
    if ms <= 0.0 {
        "0".to_owned()
    } else if ms < 0.999_95 {
        short(ms * 1_000.0, "µs")
    } else if ms < 999.95 {
        short(ms, "ms")
    } else if ms < 59_950.0 {
        short(ms / 1_000.0, "s")
    } else {
        seconds(ms / 1_000.0)
    }
}

/// A duration given in seconds, from `0.4s` to `2h 5m`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{}s", round(seconds, 3));
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}h {minutes}m")
    } else {
        format!("{minutes}m {rest}s")
    }
}

/// So many significant digits at most, and never fewer than the whole part.
fn round(value: f64, digits: usize) -> String {
    let whole = format!("{:.0}", value.trunc().abs()).len();
    decimals(value, digits.saturating_sub(whole))
}

/// So many decimals at most, without zeros at the end.
fn decimals(value: f64, most: usize) -> String {
    let text = format!("{value:.most$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// `1,204,000`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `200.1/s`.
pub fn rate(per_second: f64) -> String {
    if per_second >= 1_000.0 {
        format!("{}/s", count(per_second.round() as u64))
    } else {
        format!("{}/s", round(per_second, 4))
    }
}

/// A share of 0 to 1; what is not nothing is never shown as 0.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.01 {
        "<0.01%".to_owned()
    } else if (99.95..100.0).contains(&percent) {
        ">99.9%".to_owned()
    } else {
        format!("{}%", round(percent, 3))
    }
}

/// `1.2 MB`, powers of 1,000 as k6 prints them.
pub fn bytes(bytes: f64) -> String {
    let (mut value, mut unit) = (bytes, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1_000.0 {
            break;
        }
        value /= 1_000.0;
        unit = next;
    }
    format!("{} {unit}", round(value, 3))
}

/// A plain number: `1,204`, `12.34`.
pub fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(value.abs() as u64))
    } else {
        round(value, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, milliseconds, percent, plain, rate, seconds};

    #[test]
    fn durations_have_the_unit_that_reads_best() {
        for (ms, text) in [
            (0.0, "0"),
            (0.000_064, "0.06µs"),
            (0.0128, "12.8µs"),
            (0.9994, "999.4µs"),
            (5.998_592, "6ms"),
            (90.01, "90ms"),
            (1.0, "1ms"),
            (213.44, "213.4ms"),
            (999.94, "999.9ms"),
            (999.96, "1s"),
            (1_234.0, "1.23s"),
            (59_940.0, "59.9s"),
            (59_990.0, "1m 0s"),
            (61_000.0, "1m 1s"),
        ] {
            assert_eq!(milliseconds(ms), text, "{ms}");
        }
        for (s, text) in [
            (0.0, "0s"),
            (0.4, "0.4s"),
            (10.0, "10s"),
            (59.96, "1m 0s"),
            (605.0, "10m 5s"),
            (7_500.0, "2h 5m"),
        ] {
            assert_eq!(seconds(s), text, "{s}");
        }
    }

    #[test]
    fn counts_shares_and_sizes() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1_000, 1_234_567].map(count)[..]
        );
        assert_eq!(
            ["0/s", "0.5/s", "200.1/s", "12,346/s"],
            [0.0, 0.5, 200.12, 12_345.6].map(rate)[..]
        );
        assert_eq!(
            ["0%", "<0.01%", "0.5%", "2.31%", ">99.9%", "100%"],
            [0.0, 0.000_01, 0.005, 0.0231, 0.999_999, 1.0].map(percent)[..]
        );
        assert_eq!(
            ["0 B", "999 B", "1.2 kB", "34.5 MB"],
            [0.0, 999.0, 1_200.0, 34_500_000.0].map(bytes)[..]
        );
        assert_eq!(
            ["10", "-1,000", "12.35", "0.012"],
            [10.0, -1_000.0, 12.346, 0.012].map(plain)[..]
        );
    }
}
