//! Makes the report document of a run out of everything that is known of it.

use super::json::{
    CheckReport, Cost, EndingDocument, ErrorReport, FORMAT_VERSION, HookResult, PhaseReport, Report, RequestReport,
    SecondRange, StatusCount, WorkerReport,
};
use crate::measure::judge::Outcome;
use crate::measure::slice::{SeriesKey, Stats};
use crate::measure::summary::{metrics, numbers};
use crate::measure::validity::Completeness;
use crate::measure::view::{RunView, WorkerView};
use crate::model::load::{Engine, Phase, PhaseWork, Template, TemplatePart};
use crate::model::plan::TestPlan;
use crate::model::run::{Ending, RunIdentity};
use crate::model::threshold::{Metric, Tags};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// Everything a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    /// What never changes of the run.
    pub identity: &'a RunIdentity,
    /// The resolved plan.
    pub plan: &'a TestPlan,
    /// What was aimed at, for people: base URLs.
    pub target: &'a str,
    /// How it ended.
    pub ending: &'a Ending,
    /// When load started.
    pub started_at: Option<Timestamp>,
    /// When the run was over.
    pub finished_at: Option<Timestamp>,
    /// Phases that started.
    pub phases: &'a [PhaseTiming],
    /// The exact set of workers.
    pub workers: &'a [WorkerInfo],
    /// Hooks that started.
    pub hooks: &'a [HookResult],
    /// The numbers.
    pub view: &'a RunView,
    /// What the judge said.
    pub outcome: &'a Outcome,
    /// Whether all arrived.
    pub completeness: &'a Completeness,
    /// Hours of all workers together, where known.
    pub worker_hours: Option<f64>,
    /// `--smoke`.
    pub smoke: bool,
}

/// When a phase really ran.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseTiming {
    /// Index into the plan's phases.
    pub phase: u32,
    /// When it started.
    pub started_at: Timestamp,
}

/// What the owner knows of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerInfo {
    /// Its index.
    pub index: u32,
    /// The unit or host it ran on.
    pub name: String,
    /// Why it was lost on the way, if it was.
    pub lost: Option<String>,
    /// When that was noticed.
    pub lost_at: Option<Timestamp>,
    /// How far from the agreed instant it started, in milliseconds.
    pub start_skew_ms: Option<f64>,
    /// How far its wall clock was ahead of the daemon's, in milliseconds.
    pub clock_offset_ms: Option<f64>,
    /// How well its clock was known when load began, ± milliseconds.
    pub clock_error_ms: Option<f64>,
}

impl Report {
    /// Makes the document.
    pub fn build(input: &ReportInput<'_>) -> Self {
        let kind = input.ending.kind;
        let total = total(input.view);
        let thresholds = if input.smoke {
            Vec::new()
        } else {
            input.outcome.thresholds.clone()
        };
        Self {
            format_version: FORMAT_VERSION,
            run: input.identity.id,
            project: input.identity.plan.project.clone(),
            plan: input.identity.plan.name.clone(),
            description: input.plan.description.clone(),
            revision: input.identity.revision.clone(),
            digest: input.identity.digest.clone(),
            trigger: input.identity.trigger.clone(),
            slot: input.identity.trigger.slot,
            target: input.target.to_owned(),
            ending: EndingDocument {
                kind: kind.as_str().to_owned(),
                reason: kind.reason().map(str::to_owned),
                detail: input.ending.detail.clone(),
            },
            passed: kind.exit_code() == 0,
            exit_code: kind.exit_code(),
            started_at: input.started_at,
            finished_at: input.finished_at,
            smoke: input.smoke,
            approvals: Vec::new(),
            cost: input.worker_hours.map(|worker_hours| Cost { worker_hours }),
            completeness: input.completeness.clone(),
            thresholds,
            abort_rules: input.outcome.rules.clone(),
            regression: None,
            hooks: input.hooks.to_vec(),
            phases: phases(input),
            workers: workers(input),
            requests: requests(input),
            errors: errors(&total),
            checks: checks(&total),
            statuses: statuses(&total),
            metrics: metrics(input.view, input.plan.thresholds.iter()),
        }
    }
}

/// Counts, statuses, errors and checks of all series; histograms are left to the queries.
fn total(view: &RunView) -> Stats {
    let mut total = Stats::default();
    for (_, stats) in view.series() {
        total.merge(&Stats {
            statuses: stats.statuses.clone(),
            errors: stats.errors.clone(),
            checks: stats.checks.clone(),
            ..Stats::default()
        });
    }
    total
}

fn errors(total: &Stats) -> Vec<ErrorReport> {
    let mut errors: Vec<ErrorReport> = total
        .errors
        .iter()
        .map(|(kind, error)| ErrorReport {
            kind: kind.as_str().to_owned(),
            count: error.count,
            sample: error.sample.clone(),
        })
        .collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.count));
    errors
}

fn checks(total: &Stats) -> Vec<CheckReport> {
    let check = |(name, (passes, fails)): (&String, &(u64, u64))| CheckReport {
        name: name.clone(),
        passes: *passes,
        fails: *fails,
    };
    total.checks.iter().map(check).collect()
}

fn statuses(total: &Stats) -> Vec<StatusCount> {
    let status = |(status, count): (&u16, &u64)| StatusCount {
        status: *status,
        count: *count,
    };
    total.statuses.iter().map(status).collect()
}

fn phases(input: &ReportInput<'_>) -> Vec<PhaseReport> {
    let report = |(index, phase): (usize, &Phase)| {
        let timing = input.phases.iter().find(|timing| timing.phase as usize == index);
        phase_report(input.view, phase, timing.map(|timing| timing.started_at))
    };
    input.plan.phases.iter().enumerate().map(report).collect()
}

fn phase_report(view: &RunView, phase: &Phase, started_at: Option<Timestamp>) -> PhaseReport {
    let name = phase.name.as_str();
    let tags = Tags {
        phase: Some(name.to_owned()),
        ..Tags::default()
    };
    let counters = view.counters(&tags);
    let measured = view.phases().get(name).cloned().unwrap_or_default();
    let seconds = view.load_seconds(Some(name));
    PhaseReport {
        name: name.to_owned(),
        executor: match &phase.work {
            PhaseWork::Load { executor, .. } => executor.name().to_owned(),
            PhaseWork::Pause { .. } => "pause".to_owned(),
        },
        started_at,
        seconds,
        arrivals: measured.arrivals,
        iterations: counters.iterations,
        interrupted: counters.interrupted,
        dropped: counters.overflow,
        requests: counters.requests,
        rate: per_second(counters.requests, seconds),
        failed: counters.failed,
        bad_share: view.bad_share(name),
        http_req_duration: numbers(view, Metric::HttpReqDuration, &tags),
    }
}

fn workers(input: &ReportInput<'_>) -> Vec<WorkerReport> {
    let known: BTreeSet<u32> = input.workers.iter().map(|worker| worker.index).collect();
    let strangers = input
        .view
        .workers()
        .keys()
        .copied()
        .filter(|index| !known.contains(index));
    let indices: BTreeSet<u32> = known.iter().copied().chain(strangers).collect();
    let all = |of: fn(&WorkerView) -> u64| input.view.workers().values().map(of).sum::<u64>();
    let (arrivals, users) = (all(|worker| worker.arrivals), all(|worker| worker.vus_max));
    let report = |index: u32| {
        let info = input.workers.iter().find(|worker| worker.index == index);
        let seen = input.view.workers().get(&index).cloned().unwrap_or_default();
        WorkerReport {
            index,
            name: info.map_or_else(String::new, |info| info.name.clone()),
            lost: info.is_some_and(|info| info.lost.is_some()),
            lost_at: info.and_then(|info| info.lost_at),
            lost_reason: info.and_then(|info| info.lost.clone()),
            missing: missing(input, index),
            start_skew_ms: info.and_then(|info| info.start_skew_ms),
            clock_offset_ms: info.and_then(|info| info.clock_offset_ms),
            clock_error_ms: info.and_then(|info| info.clock_error_ms),
            // Where nothing arrives by itself, users are what is divided.
            share: match (arrivals, users) {
                (0, 0) => 0.0,
                (0, users) => seen.vus_max as f64 / users as f64,
                (arrivals, _) => seen.arrivals as f64 / arrivals as f64,
            },
            seconds: seen.seconds,
            bad_seconds: seen.bad_seconds,
            arrivals: seen.arrivals,
            own_drops: seen.own_drops,
            cpu_avg: if seen.seconds == 0 {
                0.0
            } else {
                seen.cpu_sum / seen.seconds as f64
            },
            cpu_max: seen.cpu_max,
            steal_max: seen.steal_max,
            lag_max_ms: seen.lag_max_ms,
            memory_max: seen.memory_max,
            vus_max: seen.vus_max,
        }
    };
    indices.into_iter().map(report).collect()
}

/// The run's seconds that did not come from a worker. Sequence n of its session is second n - 1; the last one of a session is its end.
fn missing(input: &ReportInput<'_>, worker: u32) -> Vec<SecondRange> {
    let newest = u64::from(input.view.newest().unwrap_or_default());
    let gaps = input.completeness.gaps.iter().filter(|gap| gap.worker == worker);
    let ranges = gaps.map(|gap| SecondRange {
        from: gap.from.saturating_sub(1),
        to: gap.to.saturating_sub(1).min(newest),
    });
    let mut joined: Vec<SecondRange> = Vec::new();
    for range in ranges.filter(|range| range.from <= range.to) {
        match joined.last_mut() {
            Some(last) if last.to + 1 == range.from => last.to = range.to,
            _ => joined.push(range),
        }
    }
    joined
}

/// Requests in the plan's order, then others that were measured all the same.
fn requests(input: &ReportInput<'_>) -> Vec<RequestReport> {
    let mut keys: Vec<(String, String, Option<String>, Option<String>)> = Vec::new();
    if let Engine::Http(engine) = &input.plan.engine {
        for scenario in &engine.scenarios {
            for request in &scenario.requests {
                let method = request.method.as_str().to_owned();
                let url = template_text(&request.url);
                keys.push((scenario.name.clone(), request.name.clone(), Some(method), Some(url)));
            }
        }
    }
    let planned: BTreeSet<(String, String)> = keys.iter().map(|key| (key.0.clone(), key.1.clone())).collect();
    let others: BTreeSet<(String, String)> = input
        .view
        .series()
        .map(|(SeriesKey { scenario, name, .. }, _)| (scenario.clone(), name.clone()))
        .filter(|key| !key.1.is_empty() && !planned.contains(key))
        .collect();
    keys.extend(others.into_iter().map(|(scenario, name)| (scenario, name, None, None)));
    keys.into_iter().map(|key| request_report(input.view, key)).collect()
}

fn request_report(
    view: &RunView,
    (scenario, name, method, url): (String, String, Option<String>, Option<String>),
) -> RequestReport {
    let tags = Tags {
        phase: None,
        scenario: Some(scenario.clone()),
        name: Some(name.clone()),
    };
    let counters = view.counters(&tags);
    RequestReport {
        scenario,
        name,
        method,
        url,
        count: counters.requests,
        rate: per_second(counters.requests, view.load_seconds(None)),
        failed: counters.failed,
        dropped: counters.overflow,
        http_req_duration: numbers(view, Metric::HttpReqDuration, &tags),
        http_req_service_time: numbers(view, Metric::HttpReqServiceTime, &tags),
    }
}

fn template_text(template: &Template) -> String {
    let part = |part: &TemplatePart| match part {
        TemplatePart::Text(text) => text.clone(),
        TemplatePart::Variable(name) => format!("{{{{{name}}}}}"),
    };
    template.parts.iter().map(part).collect()
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
