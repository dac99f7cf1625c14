//! The rows of both stores, as types. JSON columns hold what only Muster's own code reads back.

use jiff::Timestamp;
use muster_core::model::id::{Digest, Name, Revision, RunId, SessionId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::run::{Event, RunIdentity};
use muster_core::model::schedule::SlotOutcome;
use muster_core::model::service::SecretRef;
use muster_core::schedule::slot::{Cursor, Suspension};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One project: what it last applied and what its newest commit says.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectRow {
    /// Which.
    pub project: Name,
    /// Newest revision looked at.
    pub observed_revision: Revision,
    /// Last good revision: what the resources are from. `None`: there never was one.
    pub good_revision: Option<Revision>,
    /// Resources at the last good revision (`Vec<Resource>` as JSON).
    pub resources: serde_json::Value,
    /// Diagnostics of the newest revision (JSON); empty array: it is good.
    pub diagnostics: serde_json::Value,
    /// Most resources it ever had.
    pub high_water: u32,
    /// When the row was written.
    pub at: Timestamp,
}

impl ProjectRow {
    /// What is wrong with the newest revision, warnings apart.
    pub fn errors(&self) -> impl Iterator<Item = &serde_json::Value> {
        let all = self.diagnostics.as_array().into_iter().flatten();
        all.filter(|diagnostic| diagnostic["severity"] != "warning")
    }
}

/// A changeset with what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangesetRow {
    /// Grows; 0 to have the store choose.
    pub id: u64,
    /// The revision it leads to.
    pub revision: Revision,
    /// When it was computed.
    pub at: Timestamp,
    /// The changeset as JSON.
    pub changeset: serde_json::Value,
    /// What became of each change, as JSON.
    pub outcome: serde_json::Value,
}

/// A suspend overlay beside git's `suspend` (promise 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Which plan.
    pub plan: Key,
    /// Why.
    pub reason: String,
    /// The token's name.
    pub who: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: until `resume`.
    pub until: Option<Timestamp>,
}

impl Overlay {
    /// What it means for slots.
    pub fn suspension(&self) -> Suspension {
        Suspension::by(&self.who, &self.reason, self.until)
    }
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only after this number.
    pub after: u64,
    /// Only about this.
    pub about: Option<String>,
    /// Only of this project.
    pub project: Option<Name>,
    /// The newest so many of those (0: 1,000), still returned oldest first.
    pub limit: u32,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Its number.
    pub sequence: u64,
    /// The event.
    pub event: Event,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// What never changes.
    pub identity: RunIdentity,
    /// The stage's word, for queries.
    pub stage: String,
    /// The ending's text (`Failed(thresholds)`), once finished.
    pub ending: Option<String>,
    /// `lifecycle`'s state, as JSON.
    pub state: serde_json::Value,
    /// The resolved plan and everything pinned with it, as JSON. `results` in it is a [`ResultsPin`], or null or absent where the
    /// run's results are in the daemon's own store.
    pub pinned: serde_json::Value,
    /// When the state must have been left (promise 35).
    pub deadline: Option<Timestamp>,
    /// When load started.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// A name that keeps it from retention.
    pub tag: Option<String>,
    /// How long details are kept, in seconds; `None`: the settings' default.
    pub retention_s: Option<u64>,
    /// Grows with each save, from 1.
    pub version: u64,
}

/// The database that holds a run's results, for as long as the run is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsPin {
    /// The DatabaseCluster the plan named.
    pub cluster: Key,
    /// Where its address stands; the address itself may change.
    pub url: SecretRef,
}

/// A plan's schedule, as far as it was followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRow {
    /// How far its slots are decided.
    pub cursor: Cursor,
    /// The plan it was armed for: another revision arms it again.
    pub digest: Digest,
    /// Runs before it do not count against the failure budget.
    pub armed_at: Timestamp,
}

/// What became of a slot (promise 26).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRow {
    /// Whose.
    pub plan: Key,
    /// Its instant.
    pub slot: Timestamp,
    /// What became of it.
    pub outcome: SlotOutcome,
    /// Why, for people; empty where the outcome says it all.
    pub detail: String,
    /// Its run, where there is one.
    pub run: Option<RunId>,
    /// When load began.
    pub load_at: Option<Timestamp>,
    /// When the row was written.
    pub decided_at: Timestamp,
}

/// Which slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotFilter {
    /// Only of this plan.
    pub plan: Option<Key>,
    /// Only of these projects.
    pub projects: Option<BTreeSet<Name>>,
    /// Only those of which it is not known yet when load began.
    pub pending: bool,
    /// The newest so many of those (0: 100), newest first.
    pub limit: u32,
}

/// What an insert found.
#[derive(Debug, Clone, PartialEq)]
pub enum Inserted {
    /// It is new.
    New,
    /// It was there.
    Existing(Box<RunRow>),
}

/// Which runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only of this plan.
    pub plan: Option<Key>,
    /// Only of these projects; `None`: of all.
    pub projects: Option<BTreeSet<Name>>,
    /// Only those that are not Finished.
    pub active: bool,
    /// At most so many (0: 100).
    pub limit: u32,
}

/// One worker of a run's exact set.
#[derive(Debug, Clone, PartialEq)]
pub struct RunWorkerRow {
    /// The run.
    pub run: RunId,
    /// The worker.
    pub worker: WorkerId,
    /// Its index in the set.
    pub index: u32,
    /// Its session in the run.
    pub session: SessionId,
    /// What is known of it, as JSON: start skew, clock offset, how it ended.
    pub detail: serde_json::Value,
}

/// One hook of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct HookRow {
    /// The run.
    pub run: RunId,
    /// The hook's name.
    pub name: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Whether it succeeded, once it ended.
    pub succeeded: Option<bool>,
    /// Its output's end or the error.
    pub message: String,
}

/// One worker's part in one run.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The run.
    pub run: RunId,
    /// The session.
    pub session: SessionId,
    /// The worker's index.
    pub worker: u32,
    /// Highest sequence stored.
    pub watermark: u64,
    /// Its last sequence, once its End came.
    pub end: Option<u64>,
    /// Ranges of sequences its spool dropped, inclusive.
    pub dropped: Vec<(u64, u64)>,
}

/// What one flush of ingest appends.
#[derive(Debug, Clone, PartialEq)]
pub struct Flush {
    /// The run.
    pub run: RunId,
    /// Merged parts, sorted by (second, series).
    pub parts: Vec<SlicePart>,
    /// By session: sequence it must stand at (`from`) and the one it then stands at (`to`).
    pub watermarks: BTreeMap<SessionId, (u64, u64)>,
    /// Ends that came with it: last sequence and dropped ranges.
    pub ends: BTreeMap<SessionId, (u64, Vec<(u64, u64)>)>,
}

/// A partial of one second: of one series, or how one worker was doing.
#[derive(Debug, Clone, PartialEq)]
pub struct SlicePart {
    /// Run second.
    pub second: u32,
    /// What it holds.
    pub what: PartOf,
    /// `measure`'s encoding.
    pub data: Vec<u8>,
}

/// What a part is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartOf {
    /// A series; `data` is an encoded `Stats`.
    Series(muster_core::measure::slice::SeriesKey),
    /// A worker's own second; `data` is an encoded `GeneratorStat`. Never merged with another.
    Worker(u32),
}

/// A frame that ingest refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRow {
    /// The run it claims to be of.
    pub run: RunId,
    /// The session it claims to be of.
    pub session: SessionId,
    /// Its sequence, as it claims.
    pub sequence: u64,
    /// Why it was refused.
    pub reason: String,
    /// Its size.
    pub bytes: u64,
    /// When.
    pub at: Timestamp,
}

/// What became of a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// All of it is stored.
    Stored,
    /// A watermark was not where the flush said; nothing is stored. Read the sessions and try anew.
    Moved,
    /// The run is sealed; the frames are counted as late.
    Late,
}
