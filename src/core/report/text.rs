//! The report a person reads on a terminal of 80 to 100 columns: the ending first, then why, then the numbers.

use super::complete;
use super::format::{Table, of_trend, shorten};
use super::json::{Measured, PhaseReport, Report};
use super::page::{LIST_MAX, Page};
use super::style::{Style, TextOptions};
use crate::base::humane::{bytes, count, milliseconds, percent, rate, seconds};
use crate::measure::judge::ThresholdResult;
use crate::measure::validity::CompletenessKind;
use crate::model::run::TriggerKind;
use std::fmt::Write as _;

const TREND_COLUMNS: [&str; 7] = ["avg", "min", "med", "p(90)", "p(95)", "p(99)", "max"];

/// Prints a report.
pub fn render(report: &Report, options: TextOptions) -> String {
    let mut page = Page {
        options,
        text: String::new(),
    };
    page.ending(report);
    page.identity(report);
    page.thresholds(report);
    page.rules_and_hooks(report);
    page.numbers(report);
    page.trends(report);
    page.requests(report);
    page.phases(report);
    page.checks(report);
    page.errors(report);
    page.workers(report);
    page.completeness(report);
    page.text
}

/// The style of an ending.
pub fn ending_style(report: &Report) -> Style {
    match report.ending.kind.as_str() {
        "Passed" => Style::Good,
        "Failed" | "Error" => Style::Bad,
        _ => Style::Warn,
    }
}

/// The sign and the outcome's style of a threshold.
pub(super) fn threshold_style(result: &ThresholdResult) -> Style {
    match (result.no_samples, result.passed) {
        (true, _) => Style::Warn,
        (false, true) => Style::Good,
        (false, false) => Style::Bad,
    }
}

impl Page {
    fn ending(&mut self, report: &Report) {
        let style = ending_style(report);
        let word = match &report.ending.reason {
            Some(reason) => format!("{} ({reason})", report.ending.kind.to_uppercase()),
            None => report.ending.kind.to_uppercase(),
        };
        let plan = format!("{}/{}", report.project, report.plan);
        let note = if report.smoke {
            "  smoke test: thresholds not judged"
        } else {
            ""
        };
        let line = format!(
            "{} {}  {plan}{note}",
            self.options.sign(style),
            self.options.paint(style, &self.options.paint(Style::Strong, &word))
        );
        self.raw(&line);
        for detail in report.ending.detail.split("; ").filter(|detail| !detail.is_empty()) {
            self.wrapped("    ", detail);
        }
    }

    fn identity(&mut self, report: &Report) {
        self.raw("");
        if let Some(description) = &report.description {
            self.wrapped("  ", description);
        }
        let way = match report.trigger.kind {
            TriggerKind::Manual => "started",
            TriggerKind::Foreground => "run in the foreground",
            TriggerKind::Rerun => "run again",
            TriggerKind::Schedule => "started",
        };
        let load = match (report.started_at, report.finished_at) {
            (Some(from), Some(to)) => {
                let lasted = seconds(to.duration_since(from).as_secs_f64().max(0.0));
                let end = if to.strftime("%F").to_string() == from.strftime("%F").to_string() {
                    "%T UTC"
                } else {
                    "%F %T UTC"
                };
                format!("{} to {}, {lasted}", from.strftime("%F %T"), to.strftime(end))
            }
            (Some(from), None) => format!("{}, not over", from.strftime("%F %T UTC")),
            (None, _) => "never started".to_owned(),
        };
        self.line(&format!("  run       {} ({way} by {})", report.run, report.trigger.who));
        self.line(&format!(
            "  revision  {}  plan {}",
            report.revision.short(),
            shorten(report.digest.hex(), 13)
        ));
        self.line(&format!(
            "  target    {}",
            shorten(&report.target, self.options.width.saturating_sub(12))
        ));
        self.line(&format!("  load      {load}"));
    }

    fn thresholds(&mut self, report: &Report) {
        if report.thresholds.is_empty() {
            return;
        }
        self.heading("THRESHOLDS");
        let width = |text: fn(&ThresholdResult) -> usize| report.thresholds.iter().map(text).max().unwrap_or(0);
        let metric = width(|one| one.metric.chars().count()).min(self.options.width / 2);
        let expression = width(|one| one.expression.chars().count());
        for result in &report.thresholds {
            let style = threshold_style(result);
            let mut rest = result.shown.clone();
            if let Some(window) = result.window_s {
                let _ = write!(rest, "  (worst {window}s window");
                if let Some(second) = result.failed_at {
                    let _ = write!(rest, ", failed at {}:{:02}", second / 60, second % 60);
                }
                rest.push(')');
            }
            let name = self.options.clean(&format!(
                "{:metric$}  {:expression$}",
                shorten(&result.metric, metric),
                result.expression
            ));
            let rest = self.options.paint(style, &self.options.clean(&rest));
            let line = format!("  {} {name}  {rest}", self.options.sign(style));
            self.raw(&line);
        }
    }

    fn rules_and_hooks(&mut self, report: &Report) {
        let fired: Vec<_> = report
            .abort_rules
            .iter()
            .filter(|rule| rule.fired_at.is_some())
            .collect();
        if !fired.is_empty() {
            self.heading("ABORT RULES");
        }
        for rule in fired {
            let second = rule.fired_at.unwrap_or_default();
            let text = format!(
                "{}: {} {}, {:?} at {}:{:02}, worst {}",
                rule.name,
                rule.metric,
                rule.expression,
                rule.action,
                second / 60,
                second % 60,
                rule.shown
            );
            let line = format!("  {} {}", self.options.sign(Style::Warn), self.options.clean(&text));
            self.raw(&line);
        }
        if !report.hooks.is_empty() {
            self.heading("HOOKS");
        }
        let width = report
            .hooks
            .iter()
            .map(|hook| hook.name.chars().count())
            .max()
            .unwrap_or(0);
        for hook in &report.hooks {
            let style = match (hook.succeeded, hook.matters) {
                (Some(true), _) => Style::Good,
                (Some(false), true) => Style::Bad,
                _ => Style::Warn,
            };
            let took = hook.duration_ms.map_or_else(String::new, |ms| milliseconds(ms as f64));
            let line = self.options.clean(&format!(
                "{:8} {:width$}  {took}",
                format!("{:?}", hook.when),
                hook.name
            ));
            let line = format!("  {} {}", self.options.sign(style), line.trim_end());
            self.raw(&line);
            if hook.succeeded != Some(true) && !hook.message.is_empty() {
                self.wrapped("      ", &hook.message);
            }
        }
    }

    fn numbers(&mut self, report: &Report) {
        let number = |metric: &str, statistic: &str| match report.number(metric, statistic) {
            Some(Measured::Number(number)) => number,
            _ => 0.0,
        };
        let whole = |metric: &str, statistic: &str| number(metric, statistic) as u64;
        if !report.metrics.contains_key("http_reqs") {
            return;
        }
        self.heading("NUMBERS");
        let mut table = Table::new(1, &["", "total", "rate", ""]);
        let failed = format!(
            "{} failed ({})",
            count(whole("http_req_failed", "passes")),
            percent(number("http_req_failed", "value"))
        );
        for (name, metric, note) in [
            ("requests", "http_reqs", failed),
            ("iterations", "iterations", String::new()),
            ("dropped", "dropped_iterations", String::new()),
        ] {
            table.row(vec![
                name.to_owned(),
                count(whole(metric, "count")),
                rate(number(metric, "rate")),
                note,
            ]);
        }
        for (name, metric) in [("sent", "data_sent"), ("received", "data_received")] {
            table.row(vec![
                name.to_owned(),
                bytes(number(metric, "count")),
                format!("{}/s", bytes(number(metric, "rate"))),
            ]);
        }
        if report.metrics.contains_key("vus") {
            let (low, high) = (whole("vus", "min"), whole("vus", "max"));
            let users = if low == high {
                count(high)
            } else {
                format!("{}-{}", count(low), count(high))
            };
            table.row(vec!["users".to_owned(), users]);
        }
        self.table(&table);
    }

    fn trends(&mut self, report: &Report) {
        let rows = [
            ("duration", "http_req_duration"),
            ("service time", "http_req_service_time"),
            ("  blocked", "http_req_blocked"),
            ("  connecting", "http_req_connecting"),
            ("  tls", "http_req_tls_handshaking"),
            ("  sending", "http_req_sending"),
            ("  waiting", "http_req_waiting"),
            ("  receiving", "http_req_receiving"),
            ("iteration", "iteration_duration"),
        ];
        let mut table = Table::new(1, &[&[""][..], &TREND_COLUMNS].concat());
        let mut some = false;
        for (name, metric) in rows {
            let Some(numbers) = report.metrics.get(metric).and_then(|numbers| numbers.as_object()) else {
                continue;
            };
            // Plain HTTP has no handshakes, kept connections no connects: a row of zeros says nothing.
            if name.starts_with("  ") && numbers.get("max").and_then(serde_json::Value::as_f64) == Some(0.0) {
                continue;
            }
            some = true;
            let cells = TREND_COLUMNS.iter().map(|statistic| of_trend(Some(numbers), statistic));
            table.row(std::iter::once(name.to_owned()).chain(cells).collect());
        }
        if some {
            self.heading("TIMES");
            self.table(&table);
        }
    }

    fn requests(&mut self, report: &Report) {
        let asked: Vec<_> = report.requests.iter().collect();
        if asked.is_empty() {
            return;
        }
        self.heading("REQUESTS");
        let dropped = asked.iter().any(|request| request.dropped > 0);
        let one_scenario = asked.iter().all(|request| request.scenario == asked[0].scenario);
        let mut head = vec!["request", "count", "rate", "failed", "med", "p(95)", "p(99)", "max"];
        if dropped {
            head.push("dropped");
        }
        let mut table = Table::new(1, &head);
        for request in asked {
            let name = if one_scenario {
                request.name.clone()
            } else {
                format!("{}/{}", request.scenario, request.name)
            };
            let name = match &request.method {
                Some(method) => format!("{name} ({method})"),
                None => name,
            };
            let share = if request.count == 0 {
                0.0
            } else {
                request.failed as f64 / request.count as f64
            };
            let mut cells = vec![name, count(request.count), rate(request.rate), percent(share)];
            let statistics = ["med", "p(95)", "p(99)", "max"];
            cells.extend(statistics.map(|statistic| of_trend(request.http_req_duration.as_ref(), statistic)));
            if dropped {
                cells.push(count(request.dropped));
            }
            table.row(cells);
        }
        self.table(&table);
    }

    fn phases(&mut self, report: &Report) {
        if report.phases.is_empty() {
            return;
        }
        self.heading("PHASES");
        let head = [
            "phase", "executor", "lasted", "requests", "rate", "failed", "dropped", "p(95)", "p(99)",
        ];
        let mut table = Table::new(2, &head);
        for phase in &report.phases {
            table.row(phase_cells(phase));
        }
        self.table(&table);
    }

    fn checks(&mut self, report: &Report) {
        if report.checks.is_empty() {
            return;
        }
        self.heading("CHECKS");
        let mut checks: Vec<_> = report.checks.iter().collect();
        checks.sort_by_key(|check| std::cmp::Reverse(check.fails));
        for check in checks.iter().take(LIST_MAX) {
            let total = check.passes + check.fails;
            let style = if check.fails == 0 { Style::Good } else { Style::Bad };
            let share = percent(if total == 0 {
                0.0
            } else {
                check.passes as f64 / total as f64
            });
            let text = format!(
                "{share} of {}  {}",
                count(total),
                shorten(&check.name, self.options.width / 2)
            );
            let line = format!("  {} {}", self.options.sign(style), self.options.clean(&text));
            self.raw(&line);
        }
        self.more(checks.len());
    }

    fn errors(&mut self, report: &Report) {
        let unexpected: Vec<String> = report
            .statuses
            .iter()
            .filter(|status| status.status >= 400)
            .map(|status| match status.status {
                crate::measure::slice::OTHER_STATUS => format!("others: {}", count(status.count)),
                code => format!("{code}: {}", count(status.count)),
            })
            .collect();
        if report.errors.is_empty() && unexpected.is_empty() {
            return;
        }
        self.heading("ERRORS");
        if !unexpected.is_empty() {
            self.wrapped("  ", &format!("statuses {}", unexpected.join(", ")));
        }
        for error in report.errors.iter().take(LIST_MAX) {
            let room = self.options.width.saturating_sub(6);
            let text = format!("{} × {}  {}", count(error.count), error.kind, error.sample);
            let line = format!(
                "  {} {}",
                self.options.sign(Style::Bad),
                self.options.clean(&shorten(&text, room))
            );
            self.raw(&line);
        }
        self.more(report.errors.len());
    }

    fn workers(&mut self, report: &Report) {
        if report.workers.is_empty() {
            return;
        }
        self.heading("WORKERS");
        let drops = report.workers.iter().any(|worker| worker.own_drops > 0);
        let mut head = vec![
            "worker", "share", "skew", "clock", "seconds", "bad", "cpu max", "lag max", "memory",
        ];
        if drops {
            head.push("own drops");
        }
        let mut table = Table::new(1, &head);
        let signed = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:+.1} ms"));
        for worker in &report.workers {
            let lost = if worker.lost { " (lost)" } else { "" };
            let mut cells = vec![
                format!("{} {}{lost}", worker.index, worker.name),
                percent(worker.share),
                signed(worker.start_skew_ms),
                signed(worker.clock_offset_ms),
                count(worker.seconds),
                count(worker.bad_seconds),
                percent(worker.cpu_max),
                milliseconds(worker.lag_max_ms),
                bytes(worker.memory_max as f64),
            ];
            if drops {
                cells.push(count(worker.own_drops));
            }
            table.row(cells);
        }
        self.table(&table);
    }

    fn completeness(&mut self, report: &Report) {
        self.raw("");
        if report.completeness.kind == CompletenessKind::Complete {
            let line = format!("  {} results complete", self.options.sign(Style::Good));
            self.raw(&line);
            return;
        }
        let style = if report.completeness.objection().is_some() {
            Style::Bad
        } else {
            Style::Warn
        };
        let line = format!(
            "  {} results partial: {} of the worker-seconds arrived",
            self.options.sign(style),
            percent(report.completeness.percent / 100.0)
        );
        self.raw(&line);
        let lines = complete::lines(report);
        for text in lines.iter().take(LIST_MAX) {
            self.wrapped("      ", text);
        }
        self.more(lines.len());
    }
}

fn phase_cells(phase: &PhaseReport) -> Vec<String> {
    let mut cells = vec![phase.name.clone(), phase.executor.clone()];
    if phase.executor == "pause" {
        return cells;
    }
    let failed = if phase.requests == 0 {
        0.0
    } else {
        phase.failed as f64 / phase.requests as f64
    };
    let numbers = phase.http_req_duration.as_ref();
    cells.extend([
        seconds(phase.seconds),
        count(phase.requests),
        rate(phase.rate),
        percent(failed),
        count(phase.dropped),
        of_trend(numbers, "p(95)"),
        of_trend(numbers, "p(99)"),
    ]);
    cells
}
