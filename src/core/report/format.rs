//! Numbers as people read them: `213.4ms`, `1,204`, `2.31%`, `1.2 MB`.

use super::json::Measured;
use crate::measure::summary::Numbers;

/// A duration given in milliseconds.
pub(super) fn milliseconds(ms: f64) -> String {
    if ms <= 0.0 {
        "0".to_owned()
    } else if ms < 0.9995 {
        format!("{}µs", round(ms * 1_000.0, 3))
    } else if ms < 999.95 {
        format!("{}ms", round(ms, 4))
    } else if ms < 60_000.0 {
        format!("{}s", round(ms / 1_000.0, 4))
    } else {
        seconds(ms / 1_000.0)
    }
}

/// A duration given in seconds, from `0.4s` to `2h 5m`.
pub(super) fn seconds(seconds: f64) -> String {
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

/// So many significant digits at most, without zeros at the end, and never fewer than the whole part.
fn round(value: f64, digits: usize) -> String {
    let whole = format!("{:.0}", value.trunc().abs()).len();
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// `1,204,000`.
pub(super) fn count(count: u64) -> String {
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
pub(super) fn rate(per_second: f64) -> String {
    if per_second >= 1_000.0 {
        format!("{}/s", count(per_second.round() as u64))
    } else {
        format!("{}/s", round(per_second, 4))
    }
}

/// A share of 0 to 1; what is not nothing is never shown as 0.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.01 {
        "<0.01%".to_owned()
    } else if (99.99..100.0).contains(&percent) {
        ">99.99%".to_owned()
    } else {
        format!("{}%", round(percent, if percent < 1.0 { 3 } else { 4 }))
    }
}

/// `1.2 MB`, powers of 1,000 as k6 prints them.
pub(super) fn bytes(bytes: f64) -> String {
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

/// A plain number.
pub(super) fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(value.abs() as u64))
    } else {
        round(value, 4)
    }
}

/// One of a trend's numbers; what falls among dropped arrivals has no value.
pub(super) fn of_trend(numbers: Option<&Numbers>, statistic: &str) -> String {
    match numbers.and_then(|numbers| super::json::measured(numbers, statistic)) {
        None => "-".to_owned(),
        Some(Measured::AboveAll) => "dropped".to_owned(),
        Some(Measured::Number(ms)) => milliseconds(ms),
    }
}

/// A value of a metric, in its unit.
pub(super) fn value(metric: &str, expression: &str, value: f64) -> String {
    use crate::measure::threshold::{Unit, parse_expression, parse_key, parse_rule_expression, parse_rule_metric};
    let unit = match parse_key(metric) {
        Ok((metric, _)) if !expression.trim_start().starts_with("value") => {
            parse_expression(metric, expression).map(|expression| Unit::of(metric, expression.statistic))
        }
        _ => parse_rule_metric(metric)
            .and_then(|metric| parse_rule_expression(&metric, expression).map(|_| Unit::of_rule(&metric))),
    };
    match unit {
        Ok(Unit::Milliseconds) => milliseconds(value),
        Ok(Unit::Share) => percent(value),
        Ok(Unit::Plain) | Err(_) if metric.starts_with("data_") => bytes(value),
        Ok(Unit::Plain) | Err(_) => plain(value),
    }
}

/// A table whose first columns stand left and whose others stand right; every line indented by two.
pub(super) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(left: usize, head: &[&str]) -> Self {
        Self {
            left,
            rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, the head first. Left columns wider than `most` are cut.
    pub(super) fn lines(&self, most: usize) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cut = |column: usize, cell: &str| {
            if column < self.left {
                shorten(cell, most)
            } else {
                cell.to_owned()
            }
        };
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cut(column, cell).chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let cell = cut(column, cell);
                let pad = " ".repeat(widths[column] - cell.chars().count());
                line.push_str(if column == 0 { " " } else { "  " });
                line.push_str(&if column < self.left { cell + &pad } else { pad + &cell });
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// Cut in the middle of nothing: the end is replaced by `…`.
pub(super) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
