//! `Environment` and `WorkerPool`: where units run and what generates load.

use super::key::Key;
use super::load::{Phase, PhaseWork};
use crate::base::units;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where units run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// What starts the units.
    pub provider: ProviderSpec,
    /// What all runs on it together may reach.
    pub limits: EnvironmentLimits,
    /// What an hour of one worker costs.
    pub price: Option<Price>,
}

/// The closed set of providers this build has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderSpec {
    /// Child processes on the daemon's own host.
    Process {
        /// Absolute folder for the units' directories; `None`: below the daemon's state folder.
        work_dir: Option<String>,
    },
    /// The test double that behaves: units exist only in the daemon's memory and state file.
    Simulated {
        /// How long a unit takes to become Ready.
        #[serde(with = "units::duration")]
        ready_after: Duration,
        /// Each n-th create fails; 0: none.
        fail_every: u32,
    },
    /// Workers come by themselves, with a token of the settings' `join`; only WorkerPools live here, and Muster starts nothing.
    Joined,
}

/// Upper bounds of an environment; `None`: no bound of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentLimits {
    /// Workers at the same time.
    pub workers: Option<u32>,
    /// Virtual users at the same time.
    pub vus: Option<u64>,
    /// Iterations per second.
    pub rate: Option<u64>,
    /// Requests per second.
    pub requests_per_second: Option<u64>,
    /// Runs at the same time.
    pub concurrent_runs: Option<u32>,
}

/// A price, in decimal text so that no cent is rounded away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// ISO 4217 code.
    pub currency: String,
    /// Price of one worker for one hour, in millionths of the currency.
    pub worker_hour_micros: u64,
}

/// Load generators of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPool {
    /// Where its workers run.
    pub environment: Key,
    /// What one worker carries; a run's worker count follows from it.
    pub capacity: Capacity,
    /// Workers kept warm without any run.
    pub min: u32,
    /// Most workers at the same time.
    pub max: u32,
    /// How long workers may take to be ready before the run ends as Error(infrastructure).
    #[serde(with = "units::duration")]
    pub ready_timeout: Duration,
    /// How long workers stay after the last run that used them.
    #[serde(with = "units::duration")]
    pub keep_warm: Duration,
    /// A worker that has not heard from its owner for so long ramps down and exits: 5 s to 15 min (promise 41).
    #[serde(with = "units::duration")]
    pub orphan_timeout: Duration,
    /// What carries results; `None`: workers send straight to the daemon.
    pub bus: Option<KafkaTopic>,
}

/// A topic of a KafkaCluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaTopic {
    /// The KafkaCluster.
    pub cluster: Key,
    /// One of its topics.
    pub topic: String,
}

/// What one worker carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Virtual users.
    pub vus: u64,
    /// Iterations per second.
    pub rate: u64,
}

impl Capacity {
    /// The implicit pool `local`: one worker process on the daemon's host.
    pub const LOCAL: Self = Self {
        vus: 10_000,
        rate: 20_000,
    };

    /// Workers that a run of these phases has: the most that a phase asks for, or needs where it does not ask; at least 1.
    pub fn workers_for(&self, phases: &[Phase]) -> u32 {
        let of_phase = |phase: &Phase| {
            let PhaseWork::Load { executor, .. } = &phase.work else {
                return 1;
            };
            let by_users = executor.peak_vus().div_ceil(self.vus.max(1));
            let by_rate = (executor.peak_rate().unwrap_or(0.0) / self.rate.max(1) as f64).ceil() as u64;
            let needed = u32::try_from(by_users.max(by_rate)).unwrap_or(u32::MAX);
            phase.workers.unwrap_or(needed).max(1)
        };
        phases.iter().map(of_phase).max().unwrap_or(1)
    }
}
