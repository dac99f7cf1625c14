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
    /// How long before a slot a scheduled run begins to make its workers ready, so that load begins at the slot's instant.
    #[serde(default, with = "units::duration")]
    pub lead_time: Duration,
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

    /// How many workers a run of these phases takes: the most that any of them does, at least 1.
    pub fn workers_for(&self, phases: &[Phase]) -> u32 {
        phases.iter().map(|phase| self.workers_of(phase)).max().unwrap_or(1)
    }

    /// How many workers a phase takes: as many as it says, else what its users and rate need; at least 1, saturating far beyond any pool.
    /// The most users of an open phase are a bound, not a need.
    pub fn workers_of(&self, phase: &Phase) -> u32 {
        if let Some(workers) = phase.workers {
            return workers.max(1);
        }
        let PhaseWork::Load { executor, .. } = &phase.work else {
            return 1;
        };
        let users = executor
            .users()
            .map_or_else(|| executor.peak_vus(), |users| users.pre_allocated);
        let by_rate = (executor.peak_rate().unwrap_or(0.0) / self.rate.max(1) as f64).ceil() as u64;
        let workers = users.div_ceil(self.vus.max(1)).max(by_rate).max(1);
        u32::try_from(workers).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Capacity;
    use crate::model::id::Name;
    use crate::model::load::{Executor, Phase, PhaseWork, Rate, Users};
    use std::time::Duration;

    const CAPACITY: Capacity = Capacity {
        vus: 2_500,
        rate: 5_000,
    };
    const SECOND: Duration = Duration::from_secs(1);

    fn phase(executor: Executor, workers: Option<u32>) -> Phase {
        Phase {
            name: Name::new("p").expect("a name"),
            work: PhaseWork::Load {
                executor,
                graceful_stop: Duration::ZERO,
            },
            workers,
        }
    }

    fn closed(vus: u64) -> Phase {
        phase(Executor::ConstantVus { vus, duration: SECOND }, None)
    }

    fn open(iterations: u64, pre_allocated: u64) -> Phase {
        let executor = Executor::ConstantArrivalRate {
            rate: Rate {
                iterations,
                per_ms: 1_000,
            },
            duration: SECOND,
            users: Users {
                pre_allocated,
                max: 100_000,
            },
        };
        phase(executor, None)
    }

    #[test]
    fn the_worker_count_follows_from_the_busiest_phase() {
        let wanted = |phases: &[Phase]| CAPACITY.workers_for(phases);
        assert_eq!(wanted(&[]), 1);
        assert_eq!(wanted(&[closed(2_500)]), 1);
        assert_eq!(wanted(&[closed(10), closed(2_501)]), 2);
        assert_eq!(wanted(&[open(5_001, 100)]), 2);
        assert_eq!(wanted(&[open(100, 7_600)]), 4);
        assert_eq!(wanted(&[open(100, 10)]), 1, "the most users are a bound, not a need");
    }

    #[test]
    fn a_phase_that_says_how_many_workers_it_wants_gets_so_many() {
        let said = |workers, vus| Phase {
            workers: Some(workers),
            ..closed(vus)
        };
        assert_eq!(CAPACITY.workers_for(&[said(2, 10), said(8, 10), said(3, 10)]), 8);
        assert_eq!(CAPACITY.workers_for(&[said(2, 10), closed(7_501)]), 4);
        assert_eq!(CAPACITY.workers_of(&said(1, 100_000)), 1, "it is the author who knows");
    }
}
