//! One worker as the fleet shows it.

use super::Progress;
use super::offset::Estimate;
use jiff::Timestamp;
use muster_core::model::id::{RunId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::unit::UnitName;
use std::net::IpAddr;

/// How a worker says it is doing, once a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WorkerStatus {
    /// CPU share of its cgroup or host, the higher, 0 to 1.
    pub cpu: f64,
    /// Steal share of the host, 0 to 1.
    pub steal: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Frames made in the held session.
    pub frames_made: u64,
    /// Of those, stored.
    pub frames_acked: u64,
    /// Of those, waiting in the spool.
    pub frames_spooled: u64,
    /// Size of the spool.
    pub bytes_spooled: u64,
    /// Of those, dropped by a full spool.
    pub frames_dropped: u64,
}

/// One worker as the fleet knows it.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// Its id: one process.
    pub id: WorkerId,
    /// The unit it is; `None`: started by hand.
    pub unit: Option<UnitName>,
    /// Name of the machine it says it is on.
    pub host: String,
    /// Where it calls from.
    pub address: Option<IpAddr>,
    /// Its pool.
    pub pool: Key,
    /// Its Muster version.
    pub version: String,
    /// Load threads it can run.
    pub threads: u32,
    /// Whether it runs commands of plans.
    pub allows_commands: bool,
    /// Whether there is a connection now.
    pub connected: bool,
    /// When it was first seen by this daemon.
    pub joined_at: Timestamp,
    /// The run it holds or is wanted for.
    pub run: Option<RunId>,
    /// The newest milestone of that run.
    pub progress: Option<Progress>,
    /// How much later than agreed its load began, in microseconds, once it did.
    pub start_late_us: Option<i64>,
    /// Its clock, once measured.
    pub clock: Option<Estimate>,
    /// Its last status.
    pub status: WorkerStatus,
}

impl WorkerView {
    /// Whether a new run may use it.
    pub fn is_free(&self) -> bool {
        self.connected && self.run.is_none()
    }

    /// Where it is, in one word.
    pub fn state(&self) -> &'static str {
        match (&self.progress, self.run) {
            _ if !self.connected => "Away",
            (_, None) => "Idle",
            (None, Some(_)) => "Preparing",
            (Some(progress), Some(_)) => match progress {
                Progress::Prepared | Progress::HookEnded { .. } => "Prepared",
                Progress::Refused(_) => "Refused",
                Progress::Armed => "Armed",
                Progress::Started { .. } | Progress::PhaseStarted(_) | Progress::PhaseEnded(_) => "Running",
                Progress::Waiting(_) => "Waiting",
                Progress::Ended { .. } => "Ended",
            },
        }
    }

    /// What people call it: its unit, else its machine, else its id.
    pub fn name(&self) -> String {
        match &self.unit {
            Some(unit) => unit.to_string(),
            None if self.host.is_empty() => self.id.to_string(),
            None => self.host.clone(),
        }
    }
}
