//! What must hold: metrics, statistics and thresholds in k6's grammar.

use crate::base::units;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The closed set of metrics, with k6's names and one of our own (`http_req_service_time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "k6's metric reference says what each is")]
pub enum Metric {
    HttpReqs,
    HttpReqDuration,
    HttpReqServiceTime,
    HttpReqFailed,
    HttpReqBlocked,
    HttpReqConnecting,
    HttpReqTlsHandshaking,
    HttpReqSending,
    HttpReqWaiting,
    HttpReqReceiving,
    Iterations,
    IterationDuration,
    DroppedIterations,
    Checks,
    DataSent,
    DataReceived,
    Vus,
    VusMax,
}

/// k6's types of metric: they decide which statistics make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// `count`, `rate`.
    Counter,
    /// `value`, `min`, `max`.
    Gauge,
    /// `rate`.
    Rate,
    /// `avg`, `min`, `med`, `max`, `p(N)`, `count`.
    Trend,
}

impl Metric {
    /// All metrics, in the order reports print them.
    pub const ALL: [Self; 18] = [
        Self::Checks,
        Self::DataReceived,
        Self::DataSent,
        Self::DroppedIterations,
        Self::HttpReqBlocked,
        Self::HttpReqConnecting,
        Self::HttpReqDuration,
        Self::HttpReqFailed,
        Self::HttpReqReceiving,
        Self::HttpReqSending,
        Self::HttpReqServiceTime,
        Self::HttpReqTlsHandshaking,
        Self::HttpReqWaiting,
        Self::HttpReqs,
        Self::IterationDuration,
        Self::Iterations,
        Self::Vus,
        Self::VusMax,
    ];

    /// The metric's name as k6 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpReqs => "http_reqs",
            Self::HttpReqDuration => "http_req_duration",
            Self::HttpReqServiceTime => "http_req_service_time",
            Self::HttpReqFailed => "http_req_failed",
            Self::HttpReqBlocked => "http_req_blocked",
            Self::HttpReqConnecting => "http_req_connecting",
            Self::HttpReqTlsHandshaking => "http_req_tls_handshaking",
            Self::HttpReqSending => "http_req_sending",
            Self::HttpReqWaiting => "http_req_waiting",
            Self::HttpReqReceiving => "http_req_receiving",
            Self::Iterations => "iterations",
            Self::IterationDuration => "iteration_duration",
            Self::DroppedIterations => "dropped_iterations",
            Self::Checks => "checks",
            Self::DataSent => "data_sent",
            Self::DataReceived => "data_received",
            Self::Vus => "vus",
            Self::VusMax => "vus_max",
        }
    }

    /// Its type.
    pub fn kind(self) -> MetricType {
        match self {
            Self::HttpReqs | Self::Iterations | Self::DroppedIterations | Self::DataSent | Self::DataReceived => {
                MetricType::Counter
            }
            Self::HttpReqFailed | Self::Checks => MetricType::Rate,
            Self::Vus | Self::VusMax => MetricType::Gauge,
            _ => MetricType::Trend,
        }
    }

    /// Finds a metric by k6's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == text)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One number out of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "k6's words")]
pub enum Statistic {
    Avg,
    Min,
    Med,
    Max,
    /// 0 to 100.
    Percentile(f64),
    Count,
    /// Of a counter: per second. Of a rate: the share, 0 to 1.
    Rate,
    Value,
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl Operator {
    /// Whether `left operator right` holds. NaN never holds.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right && !left.is_nan() && !right.is_nan(),
        }
    }
}

/// Which part of a metric: only series that carry all these tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Of this phase.
    pub phase: Option<String>,
    /// Of this scenario.
    pub scenario: Option<String>,
    /// Of this request.
    pub name: Option<String>,
}

/// A comparison: `p(95)<300ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expression {
    /// As the user wrote it.
    pub text: String,
    /// Left side.
    pub statistic: Statistic,
    /// Between.
    pub operator: Operator,
    /// Right side, in the metric's base unit: milliseconds, a share of 0 to 1, bytes, a count, or per second.
    pub value: f64,
}

/// One line that must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Of what.
    pub metric: Metric,
    /// Of which part.
    pub tags: Tags,
    /// What must hold.
    pub expression: Expression,
    /// Judged over each sliding window of this length, not over the whole run.
    #[serde(with = "units::duration_option")]
    pub window: Option<Duration>,
    /// Broken only when broken for so long without a break.
    #[serde(with = "units::duration")]
    pub persists_for: Duration,
    /// Ends the run as Aborted(threshold) when broken.
    pub abort_on_fail: bool,
    /// Not looked at before so much of the run has gone by.
    #[serde(with = "units::duration")]
    pub delay_abort_eval: Duration,
}

/// What an abort rule looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RuleMetric {
    /// Highest CPU share of any worker, 0 to 1.
    WorkerCpu,
    /// Highest steal share of any worker, 0 to 1.
    WorkerSteal,
    /// Highest p99 of any generator's own lag, in milliseconds.
    WorkerLag,
    /// A measured metric over the last interval: a counter per second, a rate's share, a gauge's value, a trend's p(95).
    Measured {
        /// Which.
        metric: Metric,
        /// Of which part.
        tags: Tags,
    },
}

/// Something that ends, pauses or spoils a run while it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbortRule {
    /// Its name, unique in the plan.
    pub name: String,
    /// What it looks at.
    pub metric: RuleMetric,
    /// When it is true: `value>90%`.
    pub abort_when: Expression,
    /// How much of the past one look covers.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// True for so long without a break before it acts.
    #[serde(with = "units::duration")]
    pub persists_for: Duration,
    /// What it does.
    pub action: RuleAction,
}

/// What an abort rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleAction {
    /// Ends the run as Aborted(rule).
    Abort,
    /// Pauses it, as by hand.
    Pause,
    /// Lets it go on; it ends as Invalid(rule).
    Invalidate,
    /// An event, no more.
    Notify,
}
