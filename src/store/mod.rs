//! What is kept: the ledger (what was decided and done) and results (what was measured). One trait each, SQLite and MySQL behind.

mod compact;
mod db;
mod examine;
mod fault;
mod ledger;
mod migrate;
mod open;
mod part;
mod read;
mod results;
mod routed;
pub mod rows;
mod server;
mod slots;
mod value;

pub use examine::{Examined, examine};
pub use open::{Stores, open, reach, redact};
pub use routed::RoutedResults;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::model::id::{Name, RunId};
use muster_core::model::key::Key;
use muster_core::model::observed::{AppliedResource, DeletionApproval, InventoryRow, ResourceStatus};
use muster_core::model::run::Event;
use muster_core::model::unit::UnitName;
use rows::{
    Appended, ChangesetRow, EventFilter, EventRow, Flush, HookRow, Inserted, Overlay, ProjectRow, RejectRow, RunFilter,
    RunRow, RunWorkerRow, ScheduleRow, SessionRow, SlicePart, SlotFilter, SlotRow,
};
use std::collections::BTreeSet;

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer in time or the connection broke; later may be better.
    #[error("database is unavailable: {0}")]
    Unavailable(String),
    /// A row changed since it was read.
    #[error("{0} was changed by another writer")]
    Conflict(String),
    /// A row holds something this version cannot read.
    #[error("{table} row {row} cannot be read: {reason}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// Which.
        row: String,
        /// Why.
        reason: String,
    },
    /// The database refuses for a reason that will not go away by itself: rights, schema, settings.
    #[error("database refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether trying again makes sense.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Shorthand of this module.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What was decided and done. Every write is durable when it returns.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// A small value by name (host id, schema notes).
    async fn meta(&self, name: &str) -> Result<Option<String>>;
    /// Sets it unless it is set, and returns what is set now.
    async fn meta_or_insert(&self, name: &str, value: &str) -> Result<String>;

    /// Every project's last good state and newest diagnostics.
    async fn projects(&self) -> Result<Vec<ProjectRow>>;
    /// Writes one project's row.
    async fn put_project(&self, row: &ProjectRow) -> Result<()>;

    /// All resources as last applied.
    async fn applied(&self) -> Result<Vec<(Key, AppliedResource)>>;
    /// Writes one.
    async fn put_applied(&self, key: &Key, resource: &AppliedResource) -> Result<()>;
    /// Removes one and counts it as a deletion of its project at `at` (promise 21).
    async fn delete_applied(&self, key: &Key, at: Timestamp) -> Result<()>;
    /// Deletions per project since `since`.
    async fn deletions_since(&self, since: Timestamp) -> Result<Vec<(Name, u32)>>;

    /// All inventory rows.
    async fn inventory(&self) -> Result<Vec<InventoryRow>>;
    /// Writes one, before its unit's first side effect (promise 17).
    async fn put_inventory(&self, row: &InventoryRow) -> Result<()>;
    /// Removes one, after its unit is gone.
    async fn delete_inventory(&self, unit: &UnitName) -> Result<()>;

    /// All statuses.
    async fn statuses(&self) -> Result<Vec<(Key, ResourceStatus)>>;
    /// Writes one; the caller writes only what changed (promise 22).
    async fn put_status(&self, key: &Key, status: &ResourceStatus) -> Result<()>;
    /// Removes one.
    async fn delete_status(&self, key: &Key) -> Result<()>;

    /// Keeps a changeset with its outcome.
    async fn put_changeset(&self, row: &ChangesetRow) -> Result<()>;
    /// The newest changesets, newest first.
    async fn changesets(&self, limit: u32) -> Result<Vec<ChangesetRow>>;

    /// All deletion approvals.
    async fn deletion_approvals(&self) -> Result<Vec<DeletionApproval>>;
    /// Keeps one.
    async fn put_deletion_approval(&self, approval: &DeletionApproval) -> Result<()>;

    /// Suspend overlays by plan.
    async fn overlays(&self) -> Result<Vec<Overlay>>;
    /// Sets a plan's overlay.
    async fn put_overlay(&self, overlay: &Overlay) -> Result<()>;
    /// Clears it; nothing there is success.
    async fn delete_overlay(&self, plan: &Key) -> Result<()>;

    /// Appends an event and returns its number; numbers grow.
    async fn append_event(&self, event: &Event) -> Result<u64>;
    /// Events after a number, oldest first.
    async fn events(&self, filter: &EventFilter) -> Result<Vec<EventRow>>;

    /// How far each plan's schedule was followed.
    async fn schedules(&self) -> Result<Vec<(Key, ScheduleRow)>>;
    /// Forgets how far a plan's schedule was followed, because it has none any more; its slots' rows stay.
    async fn delete_schedule(&self, plan: &Key) -> Result<()>;
    /// Writes rows of slots, each unless it has one already, with how far the plan's slots are decided by them, in one transaction.
    async fn put_slots(&self, plan: &Key, rows: &[SlotRow], schedule: &ScheduleRow) -> Result<()>;
    /// Writes a slot's row with its new run and how far slots are decided by it, in one transaction (promise 27). False: the slot has a
    /// row already, and nothing was written.
    async fn start_slot(&self, slot: &SlotRow, run: &RunRow, schedule: &ScheduleRow) -> Result<bool>;
    /// Notes when a slot's load began and what the slot is by that, or that its run made none.
    async fn end_slot(&self, row: &SlotRow) -> Result<()>;
    /// Slots, newest first.
    async fn slots(&self, filter: &SlotFilter) -> Result<Vec<SlotRow>>;

    /// Inserts a run; an id that is there already is reported, not overwritten (promise 34).
    async fn insert_run(&self, row: &RunRow) -> Result<Inserted>;
    /// Saves a run whose `version` in the database is still `row.version - 1`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not.
    async fn save_run(&self, row: &RunRow) -> Result<()>;
    /// One run.
    async fn run(&self, id: RunId) -> Result<Option<RunRow>>;
    /// Names a run, or takes its name away. False: there is no such run. Saving the run leaves the name alone.
    async fn tag_run(&self, id: RunId, tag: Option<&str>) -> Result<bool>;
    /// The run of a plan with this name.
    async fn tagged_run(&self, plan: &Key, tag: &str) -> Result<Option<RunId>>;
    /// Finished runs whose details are still kept, in the order of their ids, after one, at most `limit`.
    async fn detailed_runs(&self, after: Option<RunId>, limit: u32) -> Result<Vec<RunRow>>;
    /// The runs whose details were removed last, at most `limit`.
    async fn expired_runs(&self, limit: u32) -> Result<BTreeSet<RunId>>;
    /// Notes that a run's details were removed.
    async fn put_expired(&self, id: RunId, at: Timestamp) -> Result<()>;
    /// Runs, newest first.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>>;
    /// The exact set of workers of a run.
    async fn run_workers(&self, id: RunId) -> Result<Vec<RunWorkerRow>>;
    /// Writes one of them.
    async fn put_run_worker(&self, row: &RunWorkerRow) -> Result<()>;
    /// The hooks of a run, as far as they started.
    async fn hooks(&self, id: RunId) -> Result<Vec<HookRow>>;
    /// Writes one hook's row: before it starts and after it ended.
    async fn put_hook(&self, row: &HookRow) -> Result<()>;
    /// The finished run's report document.
    async fn summary(&self, id: RunId) -> Result<Option<serde_json::Value>>;
    /// Keeps it.
    async fn put_summary(&self, id: RunId, report: &serde_json::Value) -> Result<()>;
    /// A file's content by digest (scripts and data of runs: exact replay, promise 34).
    async fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>>;
    /// Keeps a content under its digest; there already is success.
    async fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<()>;
    /// Digests of contents after one, in their order, at most `limit`.
    async fn blobs(&self, after: &str, limit: u32) -> Result<Vec<String>>;
    /// Removes a content; nothing there is success.
    async fn delete_blob(&self, digest: &str) -> Result<()>;
}

/// What was measured.
#[async_trait]
pub trait Results: Send + Sync {
    /// Opens a run's results; there already is success.
    async fn open_run(&self, run: RunId) -> Result<()>;
    /// Opens a session; there already is success.
    async fn open_session(&self, row: &SessionRow) -> Result<()>;
    /// All sessions of a run with their watermarks and ends.
    async fn sessions(&self, run: RunId) -> Result<Vec<SessionRow>>;
    /// One transaction: run still open, watermarks compared and raised, parts and worker seconds appended (promise 49).
    /// Ingest has dropped what is at or below a watermark; what comes after the seal is counted, never added.
    ///
    /// After [`StoreError::Unavailable`] it is unknown whether the flush is stored: send the same again. [`Appended::Moved`] and
    /// watermarks that stand at `to` then say that it was. (Only reading may be too early: a commit can still be on its way.)
    async fn append(&self, flush: &Flush) -> Result<Appended>;
    /// Keeps frames of a run that ingest refused, with the reason, for some days; the run may be one nobody knows. One that is kept already
    /// is left as it is. Only the first of each run, and so many of all, are kept: nobody reads more, and anybody can send them.
    async fn reject(&self, run: RunId, rows: &[RejectRow]) -> Result<()>;
    /// The refused frames of a run that were kept.
    async fn rejects(&self, run: RunId) -> Result<Vec<RejectRow>>;
    /// Parts of a run after a cursor, in the order stored, of at most `limit` rows; each with the cursor of its row. A row holds one
    /// part, or those of all workers of a second. A cursor of a run stays good while the run is appended to, by however many, and
    /// over the seal.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the run was compacted since the cursor was given: forget what was read, and read from 0.
    async fn parts(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<(u64, SlicePart)>>;
    /// Closes a run for good. Closed already is success. Returns how many frames came late so far.
    async fn seal(&self, run: RunId) -> Result<u64>;
    /// Merges a sealed run to one part per (second, series), in bounded steps; parts of workers stay as they are. Readers see all
    /// of the old parts or all of the new ones. Compacted already is success; a compaction that was cut off starts anew.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the run is not sealed, [`StoreError::Corrupt`] when a part cannot be read: all parts stay then;
    /// [`StoreError::Conflict`] while this process compacts it already.
    async fn compact(&self, run: RunId) -> Result<()>;
    /// Whether a run is sealed.
    async fn is_sealed(&self, run: RunId) -> Result<bool>;
    /// Says what a run's results are of, for dashboards: its plan, and when its load began. Doing it again writes the same.
    async fn describe_run(&self, run: RunId, plan: &Key, started_at: Timestamp) -> Result<()>;
    /// Removes what is kept of a run, at most some thousand parts at a time. True: nothing of it is left (promise 53).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while it is being compacted.
    async fn remove_run(&self, run: RunId) -> Result<bool>;
}
