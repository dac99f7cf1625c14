//! How load is made: phases, executors, the `http` and `synthetic` engines. k6's words and defaults.

pub use super::data::{DataFile, DataMode};
use super::id::Name;
use crate::base::units;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One phase of a plan. Phases run one after another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name, unique in the plan; the `phase` tag of everything measured in it.
    pub name: Name,
    /// Load or a pause.
    pub work: PhaseWork,
    /// How many of the run's workers make its load, the first ones; `None`: all.
    pub workers: Option<u32>,
}

/// What a phase does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PhaseWork {
    /// Makes load.
    Load {
        /// Who decides when an iteration starts.
        executor: Executor,
        /// How long iterations may go on after the phase's end, under the phase's own tag. k6's default: 30 s.
        #[serde(with = "units::duration")]
        graceful_stop: Duration,
    },
    /// Waits for a person's `resume`.
    Pause {
        /// How long at most.
        #[serde(with = "units::duration")]
        timeout: Duration,
        /// What happens then.
        on_timeout: OnTimeout,
    },
}

/// What a pause phase does when nobody came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnTimeout {
    /// The run ends as Aborted(pauseTimeout).
    Abort,
    /// The next phase starts.
    Continue,
}

/// k6's six executors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Executor {
    /// A fixed number of users, each as fast as it can.
    ConstantVus {
        /// Users.
        vus: u64,
        /// How long.
        #[serde(with = "units::duration")]
        duration: Duration,
    },
    /// A number of users that follows stages.
    RampingVus {
        /// Users at the start.
        start_vus: u64,
        /// Linear ramps, one after another.
        stages: Vec<VuStage>,
        /// How long a user taken away may go on with its iteration.
        #[serde(with = "units::duration")]
        graceful_ramp_down: Duration,
    },
    /// A fixed number of iterations per time unit, whatever the target does.
    ConstantArrivalRate {
        /// Iterations per time unit.
        rate: Rate,
        /// How long.
        #[serde(with = "units::duration")]
        duration: Duration,
        /// Users.
        users: Users,
    },
    /// A number of iterations per time unit that follows stages.
    RampingArrivalRate {
        /// Rate at the start.
        start: Rate,
        /// Linear ramps, one after another; `steps` of a plan are expanded to stages.
        stages: Vec<RateStage>,
        /// Users.
        users: Users,
    },
    /// Each user makes the same number of iterations.
    PerVuIterations {
        /// Users.
        vus: u64,
        /// Iterations of each.
        iterations: u64,
        /// The phase ends here, done or not.
        #[serde(with = "units::duration")]
        max_duration: Duration,
    },
    /// Users share a number of iterations.
    SharedIterations {
        /// Users.
        vus: u64,
        /// Iterations of all together.
        iterations: u64,
        /// The phase ends here, done or not.
        #[serde(with = "units::duration")]
        max_duration: Duration,
    },
}

/// A ramp of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VuStage {
    /// Users at its end.
    pub target: u64,
    /// How long it takes; 0 jumps.
    #[serde(with = "units::duration")]
    pub duration: Duration,
}

/// A ramp of the arrival rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateStage {
    /// Rate at its end.
    pub target: Rate,
    /// How long it takes; 0 jumps.
    #[serde(with = "units::duration")]
    pub duration: Duration,
}

/// Iterations per time, an exact fraction: `steps` between whole rates need thirds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Iterations …
    pub iterations: u64,
    /// … per so many milliseconds; at least 1.
    pub per_ms: u64,
}

impl Rate {
    /// Iterations per second, for display and limits.
    pub fn per_second(self) -> f64 {
        self.iterations as f64 * 1_000.0 / self.per_ms as f64
    }
}

/// The users of an open executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Made before the phase starts. Absent in a plan: peak rate × 100 ms, at least 10.
    pub pre_allocated: u64,
    /// Never more. Absent in a plan: the smaller of the pool's capacity (of all its workers) and `limits.vus`.
    pub max: u64,
}

impl Executor {
    /// k6's name of the executor.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConstantVus { .. } => "constant-vus",
            Self::RampingVus { .. } => "ramping-vus",
            Self::ConstantArrivalRate { .. } => "constant-arrival-rate",
            Self::RampingArrivalRate { .. } => "ramping-arrival-rate",
            Self::PerVuIterations { .. } => "per-vu-iterations",
            Self::SharedIterations { .. } => "shared-iterations",
        }
    }

    /// How long the phase lasts at most, without its graceful stop.
    pub fn duration(&self) -> Duration {
        match self {
            Self::ConstantVus { duration, .. } | Self::ConstantArrivalRate { duration, .. } => *duration,
            Self::RampingVus { stages, .. } => stages.iter().map(|stage| stage.duration).sum(),
            Self::RampingArrivalRate { stages, .. } => stages.iter().map(|stage| stage.duration).sum(),
            Self::PerVuIterations { max_duration, .. } | Self::SharedIterations { max_duration, .. } => *max_duration,
        }
    }

    /// Whether the phase ends when its iterations are done, which only its workers know.
    pub fn ends_by_iterations(&self) -> bool {
        matches!(self, Self::PerVuIterations { .. } | Self::SharedIterations { .. })
    }

    /// The users of an open executor.
    pub fn users(&self) -> Option<Users> {
        match self {
            Self::ConstantArrivalRate { users, .. } | Self::RampingArrivalRate { users, .. } => Some(*users),
            _ => None,
        }
    }

    /// Most users at the same time.
    pub fn peak_vus(&self) -> u64 {
        match self {
            Self::ConstantVus { vus, .. } | Self::PerVuIterations { vus, .. } | Self::SharedIterations { vus, .. } => {
                *vus
            }
            Self::RampingVus { start_vus, stages, .. } => {
                stages.iter().map(|stage| stage.target).fold(*start_vus, u64::max)
            }
            Self::ConstantArrivalRate { users, .. } | Self::RampingArrivalRate { users, .. } => users.max,
        }
    }

    /// Highest intended rate of iterations per second; `None` for closed executors, whose rate is the target's.
    pub fn peak_rate(&self) -> Option<f64> {
        match self {
            Self::ConstantArrivalRate { rate, .. } => Some(rate.per_second()),
            Self::RampingArrivalRate { start, stages, .. } => Some(
                stages
                    .iter()
                    .map(|stage| stage.target.per_second())
                    .fold(start.per_second(), f64::max),
            ),
            _ => None,
        }
    }
}

/// The closed set of engines this build has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Engine {
    /// The built-in HTTP/1.1 generator.
    Http(HttpEngine),
    /// Draws latencies from a distribution; touches no network.
    Synthetic(SyntheticEngine),
}

/// Draws from a log-normal distribution through two points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyntheticEngine {
    /// Median latency.
    #[serde(with = "units::duration")]
    pub p50: Duration,
    /// 99th percentile.
    #[serde(with = "units::duration")]
    pub p99: Duration,
    /// Share of requests that fail, 0 to 1.
    pub error_rate: f64,
}

/// The `http` engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpEngine {
    /// Per request, from its first byte wanted to its last byte read. k6's default: 60 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// How connections are used.
    pub options: HttpOptions,
    /// What users do; at least one, weights at least 1.
    pub scenarios: Vec<Scenario>,
}

/// How connections are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpOptions {
    /// Whether a user keeps its connection between requests.
    pub keep_alive: bool,
    /// Connections a user holds at the same time, at least 1. Requests of a user are sequential, so more than one is of use
    /// only over several hosts.
    pub max_connections_per_vu: u32,
    /// Redirects followed before the request counts as it is; 0: none.
    pub follow_redirects: u32,
    /// TLS.
    pub tls: TlsOptions,
}

/// How the target's certificate is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsOptions {
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// PEM file in the repository with the only roots trusted.
    pub ca_file: Option<RepoFile>,
}

/// A file of the repository, pinned by its digest. The content travels apart, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoFile {
    /// Path relative to the repository's configured path.
    pub path: String,
    /// What it holds.
    pub digest: super::id::Digest,
}

/// One kind of iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// The `scenario` tag; `default` for a plan with `requests` only.
    pub name: String,
    /// How often it is chosen, relative to the others; at least 1.
    pub weight: u32,
    /// In this order, one after another.
    pub requests: Vec<Request>,
}

/// One request of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The `name` tag.
    pub name: String,
    /// The method.
    pub method: Method,
    /// Path (begins with `/`) or absolute URL.
    pub url: Template,
    /// Headers, in the order written.
    pub headers: Vec<(String, Template)>,
    /// The body.
    pub body: Body,
    /// Values taken from the response. A missing one ends the iteration, counted.
    pub captures: Vec<Capture>,
    /// k6 checks: counted, not failing.
    pub checks: Vec<Check>,
    /// Statuses that count as success; empty: below 400.
    pub expect_status: Vec<u16>,
    /// Pause after the request.
    pub think: Option<Think>,
}

/// HTTP methods of the plan format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Head,
    Options,
}

impl Method {
    /// As it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }

    /// Whether sending it twice means no more than once (RFC 9110, 9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }
}

/// A text with `{{name}}` in it, split once. Every name is a data column (`file.column`) or an earlier capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its parts, in order.
    pub parts: Vec<TemplatePart>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplatePart {
    /// As it is.
    Text(String),
    /// A variable's value, put in as it is.
    Variable(String),
}

impl Template {
    /// The text of a template without variables.
    pub fn as_static(&self) -> Option<&str> {
        match &self.parts[..] {
            [] => Some(""),
            [TemplatePart::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// A request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// None.
    Empty,
    /// Written in the plan.
    Inline(Template),
    /// A file of the repository, sent as it is.
    File(RepoFile),
}

/// A value taken from a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// `{{name}}` of later requests in the same iteration.
    pub name: String,
    /// Where it stands.
    pub from: CaptureFrom,
}

/// Where a captured value stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureFrom {
    /// JSON pointer (RFC 6901) into the body.
    Json(String),
    /// A header's value.
    Header(String),
    /// First group of a regular expression over the body; known to compile.
    Regex(String),
}

/// A k6 check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Check {
    /// The status is one of these.
    Status(Vec<u16>),
    /// A JSON pointer leads to this value.
    Json {
        /// RFC 6901.
        pointer: String,
        /// What it must be.
        equals: serde_json::Value,
    },
    /// The body holds this text.
    BodyContains(String),
    /// The request took less.
    DurationBelow(#[serde(with = "units::duration")] Duration),
}

impl Check {
    /// The name it is counted under.
    pub fn name(&self) -> String {
        match self {
            Self::Status(list) => {
                let list: Vec<String> = list.iter().map(u16::to_string).collect();
                format!("status is {}", list.join(" or "))
            }
            Self::Json { pointer, equals } => format!("{pointer} is {equals}"),
            Self::BodyContains(text) => format!("body contains {text}"),
            Self::DurationBelow(limit) => format!("duration below {}", units::format_duration(*limit)),
        }
    }
}

/// A pause after a request, drawn evenly between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Think {
    /// At least.
    #[serde(with = "units::duration")]
    pub min: Duration,
    /// At most; never below `min`.
    #[serde(with = "units::duration")]
    pub max: Duration,
}

/// A rational share of the load: this worker is `index` of `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// From 0.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl Segment {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// Everything a worker needs to make its share of a run's load; the content of files travels apart, by digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadPlan {
    /// The run.
    pub run: super::id::RunId,
    /// `project/name` of the plan.
    pub plan: String,
    /// All phases, pauses among them.
    pub phases: Vec<Phase>,
    /// What makes an iteration.
    pub engine: Engine,
    /// Base URLs; users are spread over them as they start. One for `baseURL`, one per ready replica for `service`.
    pub base_urls: Vec<String>,
    /// Data files.
    pub data: Vec<DataFile>,
    /// Where requests may go.
    pub targets: super::policy::TargetRules,
    /// Most requests per second of the whole run; checked per worker by its share.
    pub requests_per_second: Option<u64>,
}
