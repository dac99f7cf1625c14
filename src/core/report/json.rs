//! The report document: what `-o json` prints and stores keep.

use crate::measure::judge::{RuleResult, ThresholdResult};
use crate::measure::summary::Numbers;
use crate::measure::validity::Completeness;
use crate::model::id::{Digest, Name, Revision, RunId};
use crate::model::plan::HookWhen;
use crate::model::run::Trigger;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version of the document. Fields may be added without a new one; readers ignore what they do not know.
pub const FORMAT_VERSION: u32 = 1;

/// Why a stored document is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A later build wrote it.
    #[error("report has format {0}; this build reads {FORMAT_VERSION}")]
    Version(u64),
    /// It is something else.
    #[error("stored document is not a report")]
    Malformed(#[source] serde_json::Error),
}

/// One run, measured and judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The run.
    pub run: RunId,
    /// Its project.
    pub project: Name,
    /// Its plan.
    pub plan: Name,
    /// The plan's words.
    pub description: Option<String>,
    /// The commit.
    pub revision: Revision,
    /// Of the resolved plan with its scripts and data.
    pub digest: Digest,
    /// Who started it, and how.
    pub trigger: Trigger,
    /// The slot of a schedule; null for other starts.
    pub slot: Option<Timestamp>,
    /// What was aimed at.
    pub target: String,
    /// How it ended.
    pub ending: EndingDocument,
    /// Whether it ended as Passed.
    pub passed: bool,
    /// Of `run` and `start --wait` (promise 55).
    pub exit_code: u8,
    /// When load started; null if it never did.
    pub started_at: Option<Timestamp>,
    /// When the run was over.
    pub finished_at: Option<Timestamp>,
    /// `--smoke`: one user, one iteration, thresholds not judged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub smoke: bool,
    /// Leaves given; none are asked for in this version.
    pub approvals: Vec<Value>,
    /// What it cost.
    pub cost: Option<Cost>,
    /// Whether all that was measured arrived.
    pub completeness: Completeness,
    /// In the plan's order.
    pub thresholds: Vec<ThresholdResult>,
    /// In the plan's order.
    pub abort_rules: Vec<RuleResult>,
    /// Comparison with an earlier run; null: none was asked for.
    pub regression: Option<Value>,
    /// In the order they ran.
    pub hooks: Vec<HookResult>,
    /// In the plan's order.
    pub phases: Vec<PhaseReport>,
    /// By index.
    pub workers: Vec<WorkerReport>,
    /// In the plan's order.
    pub requests: Vec<RequestReport>,
    /// Most frequent first.
    pub errors: Vec<ErrorReport>,
    /// By name.
    pub checks: Vec<CheckReport>,
    /// Responses by status, lowest first; 65535 stands for the rest where there were too many.
    pub statuses: Vec<StatusCount>,
    /// k6's summary: by metric, by statistic. Trends in milliseconds; null: among the dropped arrivals, slower than everything.
    pub metrics: Map<String, Value>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingDocument {
    /// Passed, Failed, Aborted, Stopped, Invalid, Error.
    pub kind: String,
    /// The reason's word, for the kinds that have one.
    pub reason: Option<String>,
    /// What led to it, for people.
    #[serde(default)]
    pub detail: String,
}

/// What a run cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Hours of all workers together.
    pub worker_hours: f64,
}

/// What became of one hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookResult {
    /// Its name.
    pub name: String,
    /// When it ran.
    pub when: HookWhen,
    /// Whether it succeeded; null: it never ended.
    pub succeeded: Option<bool>,
    /// Whether its failure is the run's.
    pub matters: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// The end of its output, or the error.
    pub message: String,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// k6's name of the executor, or `pause`.
    pub executor: String,
    /// When it started; null: it never did, or nobody said.
    pub started_at: Option<Timestamp>,
    /// Seconds of load in it.
    pub seconds: f64,
    /// Iterations that were due.
    pub arrivals: u64,
    /// Iterations that ended.
    pub iterations: u64,
    /// Iterations cut off by a stop.
    pub interrupted: u64,
    /// Arrivals that found no user in time.
    pub dropped: u64,
    /// Requests.
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
    /// Requests that failed.
    pub failed: u64,
    /// Share of its arrivals in worker-seconds that do not count, 0 to 1 (promise 45).
    pub bad_share: f64,
    /// `http_req_duration`; null: no samples.
    pub http_req_duration: Option<Numbers>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerReport {
    /// Its index.
    pub index: u32,
    /// The unit or host it ran on.
    pub name: String,
    /// Whether it was lost on the way.
    pub lost: bool,
    /// When that was noticed.
    #[serde(default)]
    pub lost_at: Option<Timestamp>,
    /// Why it counts as lost.
    #[serde(default)]
    pub lost_reason: Option<String>,
    /// The run's seconds, from 0, that did not come from it.
    #[serde(default)]
    pub missing: Vec<SecondRange>,
    /// How far from the agreed instant it started, in milliseconds.
    pub start_skew_ms: Option<f64>,
    /// How far its wall clock was ahead of the daemon's, in milliseconds. Load starts by another clock, which nobody sets.
    #[serde(default)]
    pub clock_offset_ms: Option<f64>,
    /// How well its clock was known when load began, ± milliseconds.
    #[serde(default)]
    pub clock_error_ms: Option<f64>,
    /// Its part of all arrivals, or of all users where nothing arrives by itself, 0 to 1.
    #[serde(default)]
    pub share: f64,
    /// Seconds it reported.
    pub seconds: u64,
    /// Those of them that do not count.
    pub bad_seconds: u64,
    /// Iterations that were due at it.
    pub arrivals: u64,
    /// Those dropped for its own reasons.
    pub own_drops: u64,
    /// Mean CPU share, 0 to 1.
    pub cpu_avg: f64,
    /// Highest CPU share, 0 to 1.
    pub cpu_max: f64,
    /// Highest steal share, 0 to 1.
    pub steal_max: f64,
    /// Highest p99 of its own lag, in milliseconds.
    pub lag_max_ms: f64,
    /// Most resident memory, bytes.
    pub memory_max: u64,
    /// Most users made.
    pub vus_max: u64,
}

/// Seconds of a run, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondRange {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// One request of one scenario, over all phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestReport {
    /// The scenario.
    pub scenario: String,
    /// The request.
    pub name: String,
    /// The method; null for engines that have none.
    pub method: Option<String>,
    /// The URL as the plan writes it.
    pub url: Option<String>,
    /// How many were made.
    pub count: u64,
    /// Per second of load.
    pub rate: f64,
    /// How many failed.
    pub failed: u64,
    /// Arrivals dropped before this, the scenario's first request.
    pub dropped: u64,
    /// `http_req_duration`; null: no samples.
    pub http_req_duration: Option<Numbers>,
    /// `http_req_service_time`; null: no samples.
    pub http_req_service_time: Option<Numbers>,
}

/// One kind of error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The kind's word.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// One text of it.
    pub sample: String,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Its name.
    pub name: String,
    /// How often it held.
    pub passes: u64,
    /// How often not.
    pub fails: u64,
}

/// How often one status came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCount {
    /// The status.
    pub status: u16,
    /// How often.
    pub count: u64,
}

impl Report {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is of a later format, or no report at all.
    pub fn from_json(document: &Value) -> Result<Self, ReportError> {
        match document.get("formatVersion").and_then(Value::as_u64) {
            Some(version) if version > u64::from(FORMAT_VERSION) => Err(ReportError::Version(version)),
            _ => Self::deserialize(document).map_err(ReportError::Malformed),
        }
    }

    /// The document to store and to print.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a report holds only strings as keys and finite numbers")
    }

    /// A metric's number; `None` when it has no samples.
    pub fn number(&self, metric: &str, statistic: &str) -> Option<Measured> {
        measured(self.metrics.get(metric)?.as_object()?, statistic)
    }

    /// `Failed(thresholds)`.
    pub fn ending_text(&self) -> String {
        match &self.ending.reason {
            Some(reason) => format!("{}({reason})", self.ending.kind),
            None => self.ending.kind.clone(),
        }
    }
}

/// A number of a report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// As it is.
    Number(f64),
    /// Among the dropped arrivals: slower than everything.
    AboveAll,
}

/// A number out of a metric's numbers.
pub fn measured(numbers: &Numbers, statistic: &str) -> Option<Measured> {
    match numbers.get(statistic)? {
        Value::Null => Some(Measured::AboveAll),
        value => value.as_f64().map(Measured::Number),
    }
}
