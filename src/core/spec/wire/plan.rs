//! `TestPlan` as written.

use super::engine::Engine;
use super::phase::Phase;
use super::scalar::{Instant, NameText, Percent, ReferenceText, Span, Unsupported};
use super::service::{EnvVar, SecretRef};
use super::union::{text_or_object, word_enum};
use super::wire;
use std::collections::BTreeMap;

wire! {
    /// What is run, in which phases, and what must hold.
    pub struct TestPlanSpec {
        /// For people.
        pub description: Option<String>,
        /// When it runs: a cron expression of minute, hour, day of month, month, day of week, such as `30 2 * * 6#1` (the first Saturday of
        /// the month). Absent: by hand only.
        #[schemars(length(min = 1, max = 500))]
        pub schedule: Option<String>,
        /// Whose clocks `schedule` and `windows` follow: an IANA name such as `Asia/Shanghai`. Needed with them, unless the settings name a
        /// default.
        #[schemars(length(min = 1, max = 100))]
        pub time_zone: Option<String>,
        /// Load of a slot begins at most so many seconds after its instant; an older slot is Missed. Default 600.
        #[schemars(range(min = 1, max = 2_678_400))]
        pub starting_deadline_seconds: Option<u32>,
        /// What a slot does while the plan's last run is not over: Forbid (default) skips the slot, Replace stops the old run first, Allow
        /// runs both.
        pub concurrency_policy: Option<ConcurrencyPolicy>,
        /// Holds the plan back: a start is an error.
        pub suspend: Option<Suspend>,
        /// A commit that changes the plan starts a run.
        pub run_on_change: Option<Unsupported>,
        /// Failures after which the schedule stops.
        pub failure_budget: Option<FailureBudget>,
        /// When runs may be, and when not. Deny beats Allow, the whole run must fit, and starts by hand are bound too.
        #[serde(default)]
        #[schemars(length(max = 100))]
        pub windows: Vec<Window>,
        /// By whose leave.
        pub approvals: Option<Unsupported>,
        /// What is aimed at.
        pub target: Target,
        /// The plan's own bounds, never above the settings' caps.
        pub limits: Option<PlanLimits>,
        /// What makes an iteration.
        pub engine: Engine,
        /// Data files for `{{name.column}}`.
        #[serde(default)]
        pub data: Vec<DataFile>,
        /// What must be Ready and in sync before a run: `Kind/name`.
        #[serde(default)]
        pub depends_on: Vec<ReferenceText>,
        /// The WorkerPool that makes the load. Default: one worker process on the daemon's host.
        pub pool: Option<ReferenceText>,
        /// One after another.
        #[schemars(length(min = 1, max = 1_000))]
        pub phases: Vec<Phase>,
        /// What must hold, in k6's grammar, by metric: `http_req_duration{phase:peak}: ["p(95)<300ms"]`.
        #[serde(default)]
        pub thresholds: BTreeMap<String, Vec<ThresholdLine>>,
        /// Comparison with an earlier run.
        pub regression: Option<Unsupported>,
        /// What must not happen while the run goes on.
        #[serde(default)]
        pub abort_rules: Vec<AbortRule>,
        /// Stops a run whose target is down: on by default; `Disabled` turns it off.
        pub auto_stop: Option<AutoStop>,
        /// When numbers do not count.
        pub validity: Option<Validity>,
        /// Commands and requests around the run; a PostRun hook always runs.
        #[serde(default)]
        pub hooks: Vec<Hook>,
        /// The target's own curves.
        pub observe: Option<Unsupported>,
        /// What a commit that edits or deletes the plan does to a run in flight: Finish (default) or Abort.
        pub on_change: Option<OnChange>,
        /// Where news goes.
        pub notifications: Option<Unsupported>,
        /// What is kept of a run.
        pub results: Option<Results>,
    }

    /// How many runs may fail before the schedule stops.
    pub struct FailureBudget {
        /// Runs in a row that end as Failed, Aborted, Error or Invalid. A new revision of the plan or `muster resume` arms the schedule again.
        #[schemars(range(min = 1, max = 1_000))]
        pub consecutive_failures: u32,
    }

    /// A time in which runs may, or may not, be.
    pub struct Window {
        /// Allow or Deny.
        pub kind: WindowKind,
        /// When it begins: a cron expression in the plan's time zone.
        #[schemars(length(min = 1, max = 500))]
        pub schedule: String,
        /// How long it lasts from there.
        pub duration: Span,
        /// Why, for people.
        #[schemars(length(min = 1, max = 1_000))]
        pub reason: Option<String>,
    }

    /// Holds a plan back.
    pub struct Suspend {
        /// Why.
        #[schemars(length(min = 1, max = 1_000))]
        pub reason: String,
        /// Until when. Absent: until a commit takes it away.
        pub until: Option<Instant>,
    }

    /// What is aimed at: `baseURL`, or `service` with `port`.
    pub struct Target {
        /// `http://host[:port][/path]` or https; the host must be allowed by the settings.
        #[serde(rename = "baseURL")]
        pub base_url: Option<String>,
        /// The ready replicas of a Service.
        pub service: Option<ReferenceText>,
        /// A named port of the service. Default: its first.
        pub port: Option<NameText>,
        /// A LoadBalancer.
        pub load_balancer: Option<Unsupported>,
    }

    /// A plan's own bounds. Absent: the settings' caps.
    pub struct PlanLimits {
        /// Iterations per second.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub rate: Option<u64>,
        /// Requests per second.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub requests_per_second: Option<u64>,
        /// Virtual users.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub vus: Option<u64>,
        /// Of load.
        pub duration: Option<Span>,
        /// Money.
        pub cost: Option<Unsupported>,
    }

    /// A CSV file with a header.
    pub struct DataFile {
        /// `{{name.column}}`.
        pub name: NameText,
        /// Path in the repository, relative to this document's file.
        pub path: String,
        /// Copy (default): every worker gets all rows. Split: each its own contiguous block, sizes differ by at most one, and no row is
        /// lost. Unique: as Split, and each row is used at most once; a worker whose rows are used up has no more users.
        pub mode: Option<DataMode>,
    }

    /// A threshold with more than an expression.
    pub struct ThresholdObject {
        /// `rate<5%`.
        pub threshold: String,
        /// Judged over each sliding window of this length. Default: the whole run.
        pub window: Option<Span>,
        /// Broken only when broken for so long without a break. Default 0s.
        #[serde(rename = "for")]
        pub persists_for: Option<Span>,
        /// Ends the run as Aborted(threshold) when broken. Default false.
        pub abort_on_fail: Option<bool>,
        /// Not looked at before so much of the run has gone by. Default 0s.
        pub delay_abort_eval: Option<Span>,
    }

    /// Something that ends, pauses or spoils a run while it goes on.
    pub struct AbortRule {
        /// Unique in the plan.
        #[schemars(length(min = 1, max = 200))]
        pub name: String,
        /// `worker_cpu`, `worker_steal`, `worker_lag`, or a measured metric with tags.
        pub metric: Option<String>,
        /// A query to a Prometheus server.
        pub prometheus: Option<Unsupported>,
        /// When it is true: `value>90%`.
        pub abort_when: String,
        /// How much of the past one look covers. Default 15s.
        pub interval: Option<Span>,
        /// True for so long without a break before it acts. Default 0s.
        #[serde(rename = "for")]
        pub persists_for: Option<Span>,
        /// What an unreachable Prometheus server means.
        pub on_no_data: Option<Unsupported>,
        /// Abort (default), Pause, Invalidate or Notify.
        pub action: Option<RuleAction>,
    }

    /// When a target counts as down.
    pub struct AutoStopRule {
        /// Share of failed requests. Default 90%.
        pub error_rate: Option<Percent>,
        /// Over the last so many seconds. Default 60s.
        pub window: Option<Span>,
    }

    /// When numbers do not count.
    pub struct Validity {
        /// More lost workers make the run Invalid(workers). Default 0.
        #[schemars(range(max = 100_000))]
        pub max_lost_workers: Option<u32>,
        /// CPU share from which a worker's second is bad. Default 90%.
        pub max_generator_cpu: Option<Percent>,
        /// p99 of the generator's own lag from which a worker's second is bad. Default 10ms.
        pub max_generator_lag: Option<Span>,
        /// Share of a phase's arrivals in bad worker-seconds from which the run is Invalid(saturated). Default 1%.
        pub max_bad_share: Option<Percent>,
    }

    /// Something done around a run: `command` or `http`.
    pub struct Hook {
        /// Unique in the plan.
        #[schemars(length(min = 1, max = 200))]
        pub name: String,
        /// PreRun: before load. Verify: after load, a failure is Failed(verify). PostRun: at the end, always.
        pub when: HookWhen,
        /// Program and arguments, run on the daemon's host where the settings allow it. A program that begins with `./` or
        /// `../` is a file of the repository, relative to this document's file.
        #[schemars(length(min = 1, max = 1_000))]
        pub command: Option<Vec<String>>,
        /// The command's environment; nothing of the daemon's own is inherited.
        #[serde(default)]
        pub env: Vec<EnvVar>,
        /// Sends one request; 2xx is success.
        pub http: Option<HttpHook>,
        /// A container.
        pub job: Option<Unsupported>,
        /// All: the command runs on every worker of the run, where the worker allows commands, instead of on the daemon's host. PreRun only;
        /// `${WORKER_INDEX}` and `${WORKER_COUNT}` are substituted.
        pub on_workers: Option<OnWorkers>,
        /// At most so long. Default 5m.
        pub timeout: Option<Span>,
        /// Fail (default): its failure is the run's. Ignore: it is shown, no more.
        pub failure_policy: Option<FailurePolicy>,
        /// May be repeated when a daemon died while it ran. Default false.
        pub idempotent: Option<bool>,
    }

    /// One request of a hook.
    pub struct HttpHook {
        /// Default POST.
        pub method: Option<HookMethod>,
        /// The host must be allowed; `${RUN_ID}` and the like are substituted.
        pub url: String,
        /// Headers.
        #[serde(default)]
        pub headers: BTreeMap<String, String>,
        /// Headers whose values are secrets.
        #[serde(default)]
        pub secret_headers: Vec<SecretHeader>,
        /// The body; `${…}` is substituted.
        pub body: Option<String>,
    }

    /// A header whose value is a secret.
    pub struct SecretHeader {
        /// Its name.
        pub name: String,
        /// Where its value stands.
        pub secret_ref: SecretRef,
    }

    /// What is kept of a run.
    pub struct Results {
        /// The DatabaseCluster that results go to. Absent: the daemon's own store, which a pool with a `bus` cannot use.
        pub database_cluster: Option<ReferenceText>,
        /// How long a run's details are kept. Default: the settings'.
        pub retention: Option<Span>,
        /// Files made at the end.
        pub reports: Option<Unsupported>,
    }
}

text_or_object! {
    /// `p(95)<300ms`, or an object with `threshold` and more.
    pub enum ThresholdLine { Text(String), Object(ThresholdObject) }
}

text_or_object! {
    /// `Disabled`, or when a target counts as down.
    pub enum AutoStop { Text(Disabled), Object(AutoStopRule) }
}

word_enum! {
    /// The only word that stands for an object.
    pub enum Disabled {
        "Disabled" => Disabled,
    }
    refused: [];
}

word_enum! {
    /// What a slot does while the plan's last run is not over.
    pub enum ConcurrencyPolicy {
        "Forbid" => Forbid,
        "Replace" => Replace,
        "Allow" => Allow,
    }
    refused: [];
}

word_enum! {
    /// Whether a window opens or closes.
    pub enum WindowKind {
        "Allow" => Allow,
        "Deny" => Deny,
    }
    refused: [];
}

word_enum! {
    /// Which rows a worker gets.
    pub enum DataMode {
        "Copy" => Copy,
        "Split" => Split,
        "Unique" => Unique,
    }
    refused: [];
}

word_enum! {
    /// Which workers run a hook.
    pub enum OnWorkers {
        "All" => All,
    }
    refused: [];
}

word_enum! {
    /// What an abort rule does.
    pub enum RuleAction {
        "Abort" => Abort,
        "Pause" => Pause,
        "Invalidate" => Invalidate,
        "Notify" => Notify,
    }
    refused: [];
}

word_enum! {
    /// When a hook runs.
    pub enum HookWhen {
        "PreRun" => PreRun,
        "Verify" => Verify,
        "PostRun" => PostRun,
    }
    refused: [];
}

word_enum! {
    /// HTTP methods.
    pub enum HookMethod {
        "GET" => Get,
        "POST" => Post,
        "PUT" => Put,
        "PATCH" => Patch,
        "DELETE" => Delete,
        "HEAD" => Head,
        "OPTIONS" => Options,
    }
    refused: [];
}

word_enum! {
    /// Whether a hook's failure is the run's.
    pub enum FailurePolicy {
        "Fail" => Fail,
        "Ignore" => Ignore,
    }
    refused: [];
}

word_enum! {
    /// What a commit that edits or deletes the plan does to a run in flight.
    pub enum OnChange {
        "Finish" => Finish,
        "Abort" => Abort,
    }
    refused: [];
}
