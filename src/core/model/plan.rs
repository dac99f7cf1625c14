//! `TestPlan`: what is run, in which phases, and what must hold.

use super::id::{Digest, Name};
use super::key::Key;
use super::load::{DataFile, Engine, Phase, PhaseWork};
use super::schedule::Timing;
use super::service::{EnvVar, SecretRef};
use super::threshold::{AbortRule, Threshold};
use crate::base::units;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A test plan, resolved: defaults and steps expanded, references turned into keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestPlan {
    /// For people.
    pub description: Option<String>,
    /// Held back by git; a start is an error.
    pub suspend: Option<Suspend>,
    /// When it starts by itself, and when it may start at all.
    #[serde(default)]
    pub timing: Timing,
    /// What is aimed at.
    pub target: Target,
    /// The plan's own bounds, never above the settings'.
    pub limits: PlanLimits,
    /// What makes an iteration.
    pub engine: Engine,
    /// Data files.
    pub data: Vec<DataFile>,
    /// Must be Ready and in sync, else a start is Blocked.
    pub depends_on: Vec<Key>,
    /// Who makes the load; `None`: the implicit pool `local`.
    pub pool: Option<Key>,
    /// One after another; at least one that makes load.
    pub phases: Vec<Phase>,
    /// What must hold.
    pub thresholds: Vec<Threshold>,
    /// What must not happen.
    pub abort_rules: Vec<AbortRule>,
    /// Stops a run whose target is down; `None`: disabled.
    pub auto_stop: Option<AutoStop>,
    /// When numbers do not count (promise 45).
    pub validity: Validity,
    /// Around the run.
    pub hooks: Vec<Hook>,
    /// What a commit that edits or deletes the plan does to a run in flight.
    pub on_change: OnChange,
    /// How long a run's details are kept; stored with the run. `None`: the settings' default.
    #[serde(with = "units::duration_option")]
    pub retention: Option<Duration>,
    /// The DatabaseCluster its results go to; `None`: the daemon's own store.
    pub results: Option<Key>,
}

impl TestPlan {
    /// Every resource the plan names.
    pub fn references(&self) -> Vec<&Key> {
        let service = match &self.target {
            Target::Service { service, .. } => Some(service),
            Target::BaseUrl(_) => None,
        };
        self.depends_on
            .iter()
            .chain(&self.pool)
            .chain(service)
            .chain(&self.results)
            .collect()
    }

    /// How long load lasts at most, graceful stops apart: the sum of all phases and pauses.
    pub fn duration(&self) -> Duration {
        let phase = |phase: &Phase| match &phase.work {
            PhaseWork::Load { executor, .. } => executor.duration(),
            PhaseWork::Pause { timeout, .. } => *timeout,
        };
        self.phases.iter().map(phase).sum()
    }
}

/// Git's `suspend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspend {
    /// Why; never empty.
    pub reason: String,
    /// Until when; `None`: until a commit takes it away.
    pub until: Option<Timestamp>,
    /// The author of the newest commit that touched the plan's file; `None`: the source knows no authors (promise 23).
    #[serde(default)]
    pub who: Option<String>,
}

impl Suspend {
    /// Who holds the plan back, for people.
    pub fn by(&self) -> String {
        match &self.who {
            Some(who) => format!("{who} in git"),
            None => "its file".to_owned(),
        }
    }
}

/// What is aimed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// `scheme://host[:port][/path]`, allowed by the settings.
    BaseUrl(String),
    /// The ready replicas of a Service.
    Service {
        /// Which.
        service: Key,
        /// Its named port.
        port: Name,
    },
}

/// A plan's own bounds; `None`: the settings' cap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLimits {
    /// Iterations per second.
    pub rate: Option<u64>,
    /// Requests per second.
    pub requests_per_second: Option<u64>,
    /// Virtual users.
    pub vus: Option<u64>,
    /// Of load.
    #[serde(with = "units::duration_option")]
    pub duration: Option<Duration>,
}

/// Stops a run whose target is down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AutoStop {
    /// Share of failed requests, 0 to 1.
    pub error_rate: f64,
    /// Over the last so many seconds.
    #[serde(with = "units::duration")]
    pub window: Duration,
}

impl Default for AutoStop {
    fn default() -> Self {
        Self {
            error_rate: 0.9,
            window: Duration::from_secs(60),
        }
    }
}

/// When numbers do not count (promise 45).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validity {
    /// More lost workers make the run Invalid(workers).
    pub max_lost_workers: u32,
    /// CPU share from which a worker's second is bad, 0 to 1.
    pub max_generator_cpu: f64,
    /// p99 of the generator's own lag from which a worker's second is bad.
    #[serde(with = "units::duration")]
    pub max_generator_lag: Duration,
    /// Share of a phase's arrivals in bad worker-seconds from which the run is Invalid(saturated), 0 to 1.
    pub max_bad_share: f64,
}

impl Default for Validity {
    fn default() -> Self {
        Self {
            max_lost_workers: 0,
            max_generator_cpu: 0.9,
            max_generator_lag: Duration::from_millis(10),
            max_bad_share: 0.01,
        }
    }
}

/// Something done around a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// Its name, unique in the plan.
    pub name: String,
    /// When.
    pub when: HookWhen,
    /// What.
    pub action: HookAction,
    /// At most so long.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Whether its failure is the run's.
    pub failure_policy: FailurePolicy,
    /// May be repeated when a daemon died while it ran.
    pub idempotent: bool,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HookWhen {
    /// Before load.
    PreRun,
    /// After load: does the target's own state agree? A failure is Failed(verify).
    Verify,
    /// At the end, always, whatever the ending.
    PostRun,
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HookAction {
    /// Runs a command on the daemon's host, where the settings allow it (promise 58).
    Command {
        /// Program and arguments; `${…}` is substituted.
        command: Vec<String>,
        /// Its environment; nothing of the daemon's.
        env: Vec<EnvVar>,
        /// The script's content, where the program is a file of the repository.
        script: Option<(String, Digest)>,
        /// Runs on every worker of the run (`onWorkers: All`) instead of on the daemon's host; PreRun only.
        on_workers: bool,
    },
    /// Sends one request; 2xx is success.
    Http {
        /// The method.
        method: super::load::Method,
        /// `${…}` is substituted; the host must be allowed.
        url: String,
        /// Headers.
        headers: Vec<(String, String)>,
        /// Headers whose values are secrets.
        secret_headers: Vec<(String, SecretRef)>,
        /// The body; `${…}` is substituted.
        body: Option<String>,
    },
}

/// Whether a hook's failure is the run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailurePolicy {
    /// The run ends as Error(hook), or Failed(verify).
    Fail,
    /// It is shown, no more.
    Ignore,
}

/// What a commit that edits or deletes the plan does to a run in flight (promise 46).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnChange {
    /// Nothing; a condition says so.
    Finish,
    /// Ends it as Aborted(change).
    Abort,
}
