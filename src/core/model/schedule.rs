//! When a plan runs: its schedule, windows, overlap, failure budget, and what became of a slot.

use super::cron::Cron;
use crate::base::units;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

/// What `startingDeadlineSeconds` is where a plan says nothing.
pub const STARTING_DEADLINE: Duration = Duration::from_secs(600);

/// The zones of the IANA database that is compiled in, so that a plan means the same on every machine.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone by its IANA name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

impl Zone {
    /// Finds a zone: `Asia/Shanghai`, `UTC`. Case does not count; the name kept is the database's.
    ///
    /// # Errors
    /// When the database has no such zone. An offset or an abbreviation of a country's time is none.
    pub fn new(name: &str) -> Result<Self, UnknownZone> {
        let unknown = || UnknownZone(name.to_owned());
        let zone = ZONES.get(name).map_err(|_| unknown())?;
        match zone.iana_name() {
            Some(_) if !zone.is_unknown() => Ok(Self(zone)),
            _ => Err(unknown()),
        }
    }

    /// UTC.
    pub fn utc() -> Self {
        Self::new("UTC").expect("the database that is compiled in has UTC")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The zone itself.
    pub fn time_zone(&self) -> &TimeZone {
        &self.0
    }

    /// Every name, for a "did you mean".
    pub fn names() -> Vec<String> {
        ZONES.available().map(|name| name.to_string()).collect()
    }
}

/// No zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time zone of the IANA database; write for example `Asia/Shanghai`")]
pub struct UnknownZone(String);

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Zone({})", self.name())
    }
}

impl PartialOrd for Zone {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Zone {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name().cmp(other.name())
    }
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;
    fn try_from(text: String) -> Result<Self, UnknownZone> {
        Self::new(&text)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

/// A cron expression in a time zone: all that decides when slots are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Schedule {
    /// When, on the clocks of the zone.
    pub cron: Cron,
    /// Whose clocks.
    pub zone: Zone,
}

/// What happens to a slot while the plan's last run is not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConcurrencyPolicy {
    /// The slot is skipped.
    #[default]
    Forbid,
    /// The old run is stopped, and the slot waits for its end.
    Replace,
    /// Both run.
    Allow,
}

/// Whether a window opens or closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WindowKind {
    /// Runs fit inside it; where a plan has one, nothing runs outside all of them.
    Allow,
    /// Nothing runs inside it, whatever else allows it.
    Deny,
}

/// A time in which runs may, or may not, be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// Opens or closes.
    pub kind: WindowKind,
    /// When it begins, in the plan's time zone.
    pub schedule: Schedule,
    /// How long it lasts from there, in elapsed time: a clock change inside it does not move its end.
    #[serde(with = "units::duration")]
    pub duration: Duration,
    /// For people.
    pub reason: Option<String>,
}

/// How many runs may fail in a row before the plan's schedule stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureBudget {
    /// At least 1.
    pub consecutive_failures: u32,
}

/// When a plan runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// `None`: only by hand.
    pub schedule: Option<Schedule>,
    /// Load of a slot begins at most so long after its instant.
    #[serde(with = "units::duration")]
    pub starting_deadline: Duration,
    /// What happens to a slot while the last run is not over.
    pub concurrency_policy: ConcurrencyPolicy,
    /// `None`: failures do not stop it.
    pub failure_budget: Option<FailureBudget>,
    /// Empty: any time. They bind starts by hand too.
    pub windows: Vec<Window>,
}

impl Timing {
    /// Whose clocks its schedule and windows follow; `None` where it has neither.
    pub fn zone(&self) -> Option<&Zone> {
        let window = self.windows.first().map(|window| &window.schedule);
        self.schedule.as_ref().or(window).map(|schedule| &schedule.zone)
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            schedule: None,
            starting_deadline: STARTING_DEADLINE,
            concurrency_policy: ConcurrencyPolicy::default(),
            failure_budget: None,
            windows: Vec::new(),
        }
    }
}

/// What became of a slot: one closed set, one row each (promise 26). As text: `Skipped(Overlap)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SlotOutcome {
    /// Its run was started; load began at its instant, or has not begun yet.
    Started,
    /// Its run's load began more than [`SlotOutcome::LATE_AFTER`] after its instant.
    Late,
    /// It was looked at and left out.
    Skipped(SkipReason),
    /// Nobody looked at it in time.
    Missed,
    /// Something stood in the way until its deadline.
    Blocked(BlockReason),
}

/// Why a slot was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// The plan was suspended at its instant.
    Suspended,
    /// The plan's last run was not over.
    Overlap,
    /// The whole run did not fit the plan's windows.
    OutsideWindow,
    /// Approvals were missing at its deadline.
    NotApproved,
    /// The failure budget had stopped the schedule, or the project's money or worker-hours do not suffice; the row's text says which.
    Budget,
}

/// What stood in a slot's way until its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockReason {
    /// The run to be replaced was not over.
    Overlap,
    /// What the plan depends on was not Ready and in sync.
    NotReady,
    /// Too few workers were there.
    NotEnoughWorkers,
    /// A limit of environment, project or target was taken up by others.
    Limit,
    /// The plan at this revision cannot be run: files are gone, a target is not allowed, its project has errors.
    Plan,
}

impl SlotOutcome {
    /// Load that begins within so long of the instant is on time (promise 26).
    pub const LATE_AFTER: Duration = Duration::from_secs(10);

    /// All outcomes.
    pub const ALL: [Self; 13] = [
        Self::Started,
        Self::Late,
        Self::Skipped(SkipReason::Suspended),
        Self::Skipped(SkipReason::Overlap),
        Self::Skipped(SkipReason::OutsideWindow),
        Self::Skipped(SkipReason::NotApproved),
        Self::Skipped(SkipReason::Budget),
        Self::Missed,
        Self::Blocked(BlockReason::Overlap),
        Self::Blocked(BlockReason::NotReady),
        Self::Blocked(BlockReason::NotEnoughWorkers),
        Self::Blocked(BlockReason::Limit),
        Self::Blocked(BlockReason::Plan),
    ];

    /// As tables, rows and JSON show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::Late => "Late",
            Self::Skipped(SkipReason::Suspended) => "Skipped(Suspended)",
            Self::Skipped(SkipReason::Overlap) => "Skipped(Overlap)",
            Self::Skipped(SkipReason::OutsideWindow) => "Skipped(OutsideWindow)",
            Self::Skipped(SkipReason::NotApproved) => "Skipped(NotApproved)",
            Self::Skipped(SkipReason::Budget) => "Skipped(Budget)",
            Self::Missed => "Missed",
            Self::Blocked(BlockReason::Overlap) => "Blocked(Overlap)",
            Self::Blocked(BlockReason::NotReady) => "Blocked(NotReady)",
            Self::Blocked(BlockReason::NotEnoughWorkers) => "Blocked(NotEnoughWorkers)",
            Self::Blocked(BlockReason::Limit) => "Blocked(Limit)",
            Self::Blocked(BlockReason::Plan) => "Blocked(Plan)",
        }
    }
}

impl fmt::Display for SlotOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// No outcome of a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an outcome of a slot")]
pub struct UnknownOutcome(String);

impl FromStr for SlotOutcome {
    type Err = UnknownOutcome;
    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        let found = Self::ALL.into_iter().find(|outcome| outcome.as_str() == text);
        found.ok_or_else(|| UnknownOutcome(text.to_owned()))
    }
}

impl TryFrom<String> for SlotOutcome {
    type Error = UnknownOutcome;
    fn try_from(text: String) -> Result<Self, UnknownOutcome> {
        text.parse()
    }
}

impl From<SlotOutcome> for String {
    fn from(outcome: SlotOutcome) -> Self {
        outcome.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{SlotOutcome, Zone};

    #[test]
    fn s26_outcomes_read_back() {
        for outcome in SlotOutcome::ALL {
            let text = outcome.to_string();
            assert_eq!(text.parse(), Ok(outcome));
            let json = serde_json::to_string(&outcome).expect("text");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<SlotOutcome>(&json).expect("reads back"), outcome);
        }
        assert!("Skipped".parse::<SlotOutcome>().is_err());
    }

    #[test]
    fn s30_zones_are_iana_names() {
        for name in [
            "UTC",
            "Asia/Shanghai",
            "Australia/Lord_Howe",
            "America/Argentina/Buenos_Aires",
            "Etc/GMT+8",
        ] {
            let zone = Zone::new(name).expect(name);
            assert_eq!(zone.name(), name);
            assert_eq!(serde_json::to_string(&zone).expect("text"), format!("\"{name}\""));
        }
        for name in [
            "",
            "CST8",
            "+08:00",
            "Asia/Nowhere",
            "Etc/Unknown",
            "../etc/passwd",
            "Asia/Shanghai\0",
        ] {
            assert!(Zone::new(name).is_err(), "{name}");
        }
        assert!(Zone::names().iter().any(|name| name == "Asia/Shanghai"));
    }
}
