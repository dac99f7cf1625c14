//! Stores that fail on demand, around real ones.

use async_trait::async_trait;
use jiff::Timestamp;
use muster::store::rows::{
    Appended, ChangesetRow, EventFilter, EventRow, Flush, HookRow, Inserted, Overlay, ProjectRow, RejectRow, RunFilter,
    RunRow, RunWorkerRow, ScheduleRow, SessionRow, SlicePart, SlotFilter, SlotRow,
};
use muster::store::{Ledger, Result, Results, StoreError, Stores};
use muster_core::model::id::{Name, RunId};
use muster_core::model::key::Key;
use muster_core::model::observed::{AppliedResource, DeletionApproval, InventoryRow, ResourceStatus};
use muster_core::model::run::Event;
use muster_core::model::unit::UnitName;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What calls come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They work.
    Up,
    /// They fail and have done nothing: the database is down.
    Down,
    /// They do their work and fail then: the connection broke before the answer.
    LosesAnswers,
    /// The next call of this name does its work and fails then; others work.
    LosesAnswerOf(&'static str),
}

/// Says what becomes of calls, and counts them.
#[derive(Debug)]
pub struct Switch {
    mode: Mutex<Mode>,
    failed: AtomicU64,
}

impl Switch {
    /// From now on.
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// How many calls failed because of this switch; wait for it to grow, rather than for time to pass.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    fn fails(&self, name: &str, is_done: bool) -> Result<()> {
        let mut mode = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        match *mode {
            Mode::Down if !is_done => {}
            Mode::LosesAnswers if is_done => {}
            Mode::LosesAnswerOf(lost) if is_done && lost == name => *mode = Mode::Up,
            _ => return Ok(()),
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::Unavailable("the test's switch says so".to_owned()))
    }
}

/// Puts a switch before both stores.
pub fn flaky(stores: Stores) -> (Stores, Arc<Switch>) {
    let switch = Arc::new(Switch {
        mode: Mutex::new(Mode::Up),
        failed: AtomicU64::new(0),
    });
    let flaky = Arc::new(Flaky {
        inner: stores,
        switch: Arc::clone(&switch),
    });
    let ledger: Arc<dyn Ledger> = flaky.clone();
    (Stores { ledger, results: flaky }, switch)
}

struct Flaky {
    inner: Stores,
    switch: Arc<Switch>,
}

macro_rules! forward {
    ($port:ident of $field:ident: $($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl $port for Flaky {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer> {
                self.switch.fails(stringify!($name), false)?;
                let answer = self.inner.$field.$name($($argument),*).await;
                self.switch.fails(stringify!($name), true)?;
                answer
            })*
        }
    };
}

forward! { Ledger of ledger:
    meta(name: &str) -> Option<String>;
    meta_or_insert(name: &str, value: &str) -> String;
    projects() -> Vec<ProjectRow>;
    put_project(row: &ProjectRow) -> ();
    applied() -> Vec<(Key, AppliedResource)>;
    put_applied(key: &Key, resource: &AppliedResource) -> ();
    delete_applied(key: &Key, at: Timestamp) -> ();
    deletions_since(since: Timestamp) -> Vec<(Name, u32)>;
    inventory() -> Vec<InventoryRow>;
    put_inventory(row: &InventoryRow) -> ();
    delete_inventory(unit: &UnitName) -> ();
    statuses() -> Vec<(Key, ResourceStatus)>;
    put_status(key: &Key, status: &ResourceStatus) -> ();
    delete_status(key: &Key) -> ();
    put_changeset(row: &ChangesetRow) -> ();
    changesets(limit: u32) -> Vec<ChangesetRow>;
    deletion_approvals() -> Vec<DeletionApproval>;
    put_deletion_approval(approval: &DeletionApproval) -> ();
    overlays() -> Vec<Overlay>;
    put_overlay(overlay: &Overlay) -> ();
    delete_overlay(plan: &Key) -> ();
    schedules() -> Vec<(Key, ScheduleRow)>;
    delete_schedule(plan: &Key) -> ();
    put_slots(plan: &Key, rows: &[SlotRow], schedule: &ScheduleRow) -> ();
    start_slot(slot: &SlotRow, run: &RunRow, schedule: &ScheduleRow) -> bool;
    end_slot(row: &SlotRow) -> ();
    slots(filter: &SlotFilter) -> Vec<SlotRow>;
    append_event(event: &Event) -> u64;
    events(filter: &EventFilter) -> Vec<EventRow>;
    insert_run(row: &RunRow) -> Inserted;
    save_run(row: &RunRow) -> ();
    run(id: RunId) -> Option<RunRow>;
    runs(filter: &RunFilter) -> Vec<RunRow>;
    run_workers(id: RunId) -> Vec<RunWorkerRow>;
    put_run_worker(row: &RunWorkerRow) -> ();
    hooks(id: RunId) -> Vec<HookRow>;
    put_hook(row: &HookRow) -> ();
    summary(id: RunId) -> Option<serde_json::Value>;
    put_summary(id: RunId, report: &serde_json::Value) -> ();
    blob(digest: &str) -> Option<Vec<u8>>;
    put_blob(digest: &str, bytes: &[u8]) -> ();
    blobs(after: &str, limit: u32) -> Vec<String>;
    delete_blob(digest: &str) -> ();
    tag_run(id: RunId, tag: Option<&str>) -> bool;
    tagged_run(plan: &Key, tag: &str) -> Option<RunId>;
    detailed_runs(after: Option<RunId>, limit: u32) -> Vec<RunRow>;
    expired_runs(limit: u32) -> BTreeSet<RunId>;
    put_expired(id: RunId, at: Timestamp) -> ();
}

forward! { Results of results:
    open_run(run: RunId) -> ();
    open_session(row: &SessionRow) -> ();
    sessions(run: RunId) -> Vec<SessionRow>;
    append(flush: &Flush) -> Appended;
    reject(run: RunId, rows: &[RejectRow]) -> ();
    rejects(run: RunId) -> Vec<RejectRow>;
    parts(run: RunId, after: u64, limit: u32) -> Vec<(u64, SlicePart)>;
    seal(run: RunId) -> u64;
    compact(run: RunId) -> ();
    is_sealed(run: RunId) -> bool;
    describe_run(run: RunId, plan: &Key, started_at: Timestamp) -> ();
    remove_run(run: RunId) -> bool;
}

#[tokio::test]
async fn the_switch_decides_what_calls_come_to() {
    let (stores, switch) = flaky(muster::store::open("sqlite::memory:").await.unwrap());
    let outcomes = [
        (Mode::Up, "a", true, true),
        (Mode::Down, "b", false, false),
        (Mode::LosesAnswers, "c", false, true),
    ];
    for (mode, name, answered, written) in outcomes {
        switch.set(mode);
        assert_eq!(
            stores.ledger.meta_or_insert(name, "1").await.is_ok(),
            answered,
            "{mode:?}"
        );
        switch.set(Mode::Up);
        assert_eq!(stores.ledger.meta(name).await.unwrap().is_some(), written, "{mode:?}");
    }
    assert_eq!(switch.failed(), 2);
}
