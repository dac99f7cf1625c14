//! Two runs side by side: what got better, what got worse.

use super::format::Table;
use super::json::{Measured, Report, measured};
use super::style::{Style, TextOptions};
use crate::base::humane::{bytes, count, milliseconds, percent, plain, rate};
use crate::measure::summary::Numbers;
use crate::model::id::{Revision, RunId};
use serde::{Deserialize, Serialize};

/// Version of the document.
pub const FORMAT_VERSION: u32 = 1;
/// Differences up to this are called the same: two runs of one revision on one machine differ by so much.
pub const SAME_WITHIN_PERCENT: f64 = 5.0;

/// Two runs, number by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The run compared with.
    pub before: Compared,
    /// The run compared.
    pub after: Compared,
    /// What makes the comparison doubtful: different plans, endings that do not count.
    pub notes: Vec<String>,
    /// The whole run.
    pub metrics: Vec<Difference>,
    /// p(95) of each request both have.
    pub requests: Vec<Difference>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The run.
    pub run: RunId,
    /// `project/name` of its plan.
    pub plan: String,
    /// Its commit.
    pub revision: Revision,
    /// How it ended.
    pub ending: String,
}

/// One number in both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The metric, or the request as `scenario/name`.
    pub metric: String,
    /// Which of its numbers.
    pub statistic: String,
    /// What it is measured in.
    pub unit: Unit,
    /// Null: among dropped arrivals.
    pub before: Option<f64>,
    /// Null: among dropped arrivals.
    pub after: Option<f64>,
    /// Change relative to before, in percent; null where before is zero or one is null.
    pub percent: Option<f64>,
    /// What to think of it.
    pub trend: Trend,
}

/// What a number is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Unit {
    Milliseconds,
    Share,
    PerSecond,
    BytesPerSecond,
    Count,
}

/// What to think of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trend {
    /// Within [`SAME_WITHIN_PERCENT`].
    Same,
    /// More than that, for the better.
    Better,
    /// More than that, for the worse.
    Worse,
    /// More than that, and neither good nor bad by itself.
    Different,
}

#[derive(Clone, Copy, PartialEq)]
enum Good {
    Less,
    More,
    Neither,
}

const ROWS: [(&str, &str, Unit, Good); 14] = [
    ("http_reqs", "rate", Unit::PerSecond, Good::More),
    ("iterations", "rate", Unit::PerSecond, Good::More),
    ("dropped_iterations", "count", Unit::Count, Good::Less),
    ("http_req_failed", "value", Unit::Share, Good::Less),
    ("checks", "value", Unit::Share, Good::More),
    ("http_req_duration", "avg", Unit::Milliseconds, Good::Less),
    ("http_req_duration", "med", Unit::Milliseconds, Good::Less),
    ("http_req_duration", "p(90)", Unit::Milliseconds, Good::Less),
    ("http_req_duration", "p(95)", Unit::Milliseconds, Good::Less),
    ("http_req_duration", "p(99)", Unit::Milliseconds, Good::Less),
    ("http_req_duration", "max", Unit::Milliseconds, Good::Less),
    ("http_req_waiting", "p(95)", Unit::Milliseconds, Good::Less),
    ("iteration_duration", "p(95)", Unit::Milliseconds, Good::Less),
    ("data_received", "rate", Unit::BytesPerSecond, Good::Neither),
];

/// Compares two runs: how `after` differs from `before`.
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let metrics = ROWS.into_iter().filter_map(|(metric, statistic, unit, good)| {
        let (left, right) = (before.number(metric, statistic)?, after.number(metric, statistic)?);
        Some(difference(metric.to_owned(), statistic, unit, good, (left, right)))
    });
    let requests = after.requests.iter().filter_map(|request| {
        let same =
            |other: &&super::json::RequestReport| (&other.scenario, &other.name) == (&request.scenario, &request.name);
        let other = before.requests.iter().find(same)?;
        let number = |numbers: &Option<Numbers>| measured(numbers.as_ref()?, "p(95)");
        let pair = (number(&other.http_req_duration)?, number(&request.http_req_duration)?);
        let name = format!("{}/{}", request.scenario, request.name);
        Some(difference(name, "p(95)", Unit::Milliseconds, Good::Less, pair))
    });
    Comparison {
        format_version: FORMAT_VERSION,
        before: compared(before),
        after: compared(after),
        notes: notes(before, after),
        metrics: metrics.collect(),
        requests: requests.collect(),
    }
}

fn compared(report: &Report) -> Compared {
    Compared {
        run: report.run,
        plan: format!("{}/{}", report.project, report.plan),
        revision: report.revision.clone(),
        ending: report.ending_text(),
    }
}

fn notes(before: &Report, after: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if (&before.project, &before.plan) != (&after.project, &after.plan) {
        notes.push("the runs are of different plans".to_owned());
    } else if before.digest != after.digest {
        notes.push("the plan, its scripts or its data changed between the runs".to_owned());
    }
    if before.target != after.target {
        notes.push(format!("the targets differ: {} and {}", before.target, after.target));
    }
    for report in [before, after] {
        if !matches!(report.ending.kind.as_str(), "Passed" | "Failed") {
            notes.push(format!("run {} ended as {}", report.run, report.ending_text()));
        }
    }
    notes
}

fn difference(metric: String, statistic: &str, unit: Unit, good: Good, pair: (Measured, Measured)) -> Difference {
    let number = |measured| match measured {
        Measured::Number(number) => number,
        Measured::AboveAll => f64::INFINITY,
    };
    let (before, after) = (number(pair.0), number(pair.1));
    let change = change_percent(before, after);
    let trend = match good {
        // Of what mostly succeeds, the share that does not is what changes: 100% to 98% is no small step.
        Good::More if unit == Unit::Share => trend(1.0 - before, 1.0 - after, Good::Less),
        good => trend(before, after, good),
    };
    Difference {
        metric,
        statistic: statistic.to_owned(),
        unit,
        before: Some(before).filter(|number| number.is_finite()),
        after: Some(after).filter(|number| number.is_finite()),
        percent: change,
        trend,
    }
}

fn change_percent(before: f64, after: f64) -> Option<f64> {
    (before != 0.0 && before.is_finite() && after.is_finite()).then(|| (after - before) / before * 100.0)
}

fn trend(before: f64, after: f64, good: Good) -> Trend {
    let small = change_percent(before, after).is_some_and(|percent| percent.abs() <= SAME_WITHIN_PERCENT);
    match good {
        _ if before == after || small => Trend::Same,
        Good::Neither => Trend::Different,
        good if (after < before) == (good == Good::Less) => Trend::Better,
        _ => Trend::Worse,
    }
}

impl Comparison {
    /// Prints it for a terminal.
    pub fn to_text(&self, options: TextOptions) -> String {
        let mut out = String::new();
        for (word, run) in [("before", &self.before), ("after", &self.after)] {
            let line = format!(
                "{word:6}  {}  {} at {}  {}",
                run.run,
                run.plan,
                run.revision.short(),
                run.ending
            );
            out.push_str(&options.clean(&line));
            out.push('\n');
        }
        for note in &self.notes {
            let line = format!("{} {}\n", options.sign(Style::Warn), options.clean(note));
            out.push_str(&line);
        }
        for (heading, rows) in [("METRICS", &self.metrics), ("REQUESTS", &self.requests)] {
            if rows.is_empty() {
                continue;
            }
            out.push_str(&format!("\n{}\n", options.paint(Style::Strong, heading)));
            let mut table = Table::new(2, &["", "", "before", "after", "change"]);
            for row in rows {
                table.row(row.cells());
            }
            let lines = table.lines((options.width / 3).max(20));
            let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            for (at, line) in lines.iter().enumerate() {
                let line = options.clean(&format!("{line:widest$}"));
                let line = match at.checked_sub(1).map(|row| rows[row].trend) {
                    None => options.paint(Style::Dim, line.trim_end()),
                    Some(trend) => mark(options, trend, &line),
                };
                out.push_str(&line);
                out.push('\n');
            }
        }
        out
    }

    /// The document to print.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a comparison holds only strings as keys and finite numbers")
    }
}

fn mark(options: TextOptions, trend: Trend, line: &str) -> String {
    let (style, word) = match trend {
        Trend::Same => return line.trim_end().to_owned(),
        Trend::Better => (Style::Good, "better"),
        Trend::Worse => (Style::Bad, "worse"),
        Trend::Different => (Style::Warn, "different"),
    };
    format!("{line}  {}", options.paint(style, word))
}

impl Difference {
    fn cells(&self) -> Vec<String> {
        let show = |number: Option<f64>| match (number, self.unit) {
            (None, _) => "dropped".to_owned(),
            (Some(number), Unit::Milliseconds) => milliseconds(number),
            (Some(number), Unit::Share) => percent(number),
            (Some(number), Unit::PerSecond) => rate(number),
            (Some(number), Unit::BytesPerSecond) => format!("{}/s", bytes(number)),
            (Some(number), Unit::Count) => count(number as u64),
        };
        let change = self.percent.map_or_else(String::new, |percent| {
            let sign = match percent {
                _ if percent.abs() < 0.05 => "",
                _ if percent > 0.0 => "+",
                _ => "-",
            };
            format!("{sign}{}%", plain((percent.abs() * 10.0).round() / 10.0))
        });
        vec![
            self.metric.clone(),
            self.statistic.clone(),
            show(self.before),
            show(self.after),
            change,
        ]
    }
}
