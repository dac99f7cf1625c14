//! The report as Markdown, short enough for a merge request's comment.

use super::complete;
use super::format::of_trend;
use super::json::{Measured, Report};
use super::style::Style;
use super::text::{ending_style, threshold_style};
use crate::base::humane::{count, percent, rate, seconds};
use crate::measure::validity::CompletenessKind;
use std::fmt::Write as _;

/// Errors shown; the document has all.
const LIST_MAX: usize = 10;

/// Prints a report.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let sign = sign(ending_style(report));
    let _ = writeln!(
        out,
        "### {sign} {}: `{}/{}`\n",
        report.ending_text(),
        report.project,
        report.plan
    );
    for detail in report.ending.detail.split("; ").filter(|detail| !detail.is_empty()) {
        let _ = writeln!(out, "- {}", escape(detail));
    }
    if !report.ending.detail.is_empty() {
        out.push('\n');
    }
    let lasted = match (report.started_at, report.finished_at) {
        (Some(from), Some(to)) => seconds(to.duration_since(from).as_secs_f64().max(0.0)),
        _ => "no load".to_owned(),
    };
    let _ = writeln!(
        out,
        "Run `{}` at `{}` against {}, {lasted}.\n",
        report.run,
        report.revision.short(),
        escape(&report.target)
    );
    thresholds(report, &mut out);
    numbers(report, &mut out);
    requests(report, &mut out);
    errors(report, &mut out);
    if report.completeness.kind == CompletenessKind::Partial {
        let _ = writeln!(
            out,
            "Results are partial: {} of the worker-seconds arrived.\n",
            percent(report.completeness.percent / 100.0)
        );
        for line in complete::lines(report).iter().take(LIST_MAX) {
            let _ = writeln!(out, "- {}", escape(line));
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn sign(style: Style) -> &'static str {
    match style {
        Style::Good => "✅",
        Style::Bad => "❌",
        _ => "⚠️",
    }
}

fn thresholds(report: &Report, out: &mut String) {
    if report.thresholds.is_empty() {
        return;
    }
    out.push_str("| | metric | must hold | was |\n|---|---|---|---|\n");
    for result in &report.thresholds {
        let window = result
            .window_s
            .map_or_else(String::new, |window| format!(" (worst {window}s window)"));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {}{window} |",
            sign(threshold_style(result)),
            code(&result.metric),
            code(&result.expression),
            result.shown
        );
    }
    out.push('\n');
}

fn numbers(report: &Report, out: &mut String) {
    let number = |metric: &str, statistic: &str| match report.number(metric, statistic) {
        Some(Measured::Number(number)) => number,
        _ => 0.0,
    };
    if !report.metrics.contains_key("http_reqs") {
        return;
    }
    let _ = writeln!(
        out,
        "{} requests ({}), {} failed, {} iterations, {} dropped.\n",
        count(number("http_reqs", "count") as u64),
        rate(number("http_reqs", "rate")),
        percent(number("http_req_failed", "value")),
        count(number("iterations", "count") as u64),
        count(number("dropped_iterations", "count") as u64),
    );
}

fn requests(report: &Report, out: &mut String) {
    if report.requests.is_empty() {
        return;
    }
    out.push_str(
        "| request | count | rate | failed | med | p(95) | p(99) | max |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for request in &report.requests {
        let share = if request.count == 0 {
            0.0
        } else {
            request.failed as f64 / request.count as f64
        };
        let _ = write!(
            out,
            "| {} | {} | {} | {} |",
            code(&format!("{}/{}", request.scenario, request.name)),
            count(request.count),
            rate(request.rate),
            percent(share)
        );
        for statistic in ["med", "p(95)", "p(99)", "max"] {
            let _ = write!(out, " {} |", of_trend(request.http_req_duration.as_ref(), statistic));
        }
        out.push('\n');
    }
    out.push('\n');
}

fn errors(report: &Report, out: &mut String) {
    if report.errors.is_empty() {
        return;
    }
    out.push_str("| errors | kind | for example |\n|--:|---|---|\n");
    for error in report.errors.iter().take(LIST_MAX) {
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            count(error.count),
            error.kind,
            escape(&error.sample)
        );
    }
    out.push('\n');
}

/// As code in a table's cell: a bar would end the cell, a backtick the code.
fn code(text: &str) -> String {
    format!(
        "`{}`",
        text.replace('`', "'").replace('|', "\\|").replace(['\n', '\r'], " ")
    )
}

/// A text of others, in which nothing is markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '@' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
