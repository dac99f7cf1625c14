//! What all effects of one run share.

use super::Shared;
use super::live::LiveView;
use super::numbers::Numbers;
use super::pinned::Pinned;
use crate::control::fleet::offset::Estimate;
use jiff::Timestamp;
use muster_core::lifecycle::event::Event;
use muster_core::lifecycle::plan::RunPlan;
use muster_core::lifecycle::state::RunState;
use muster_core::measure::judge::Outcome;
use muster_core::measure::validity::Completeness;
use muster_core::model::id::{RunId, WorkerId};
use muster_core::model::run::{Event as LogEvent, RunIdentity, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The event log is for people: no run waits longer for it.
const LOG_DEADLINE: Duration = Duration::from_secs(5);

/// One run being driven.
pub(super) struct Context {
    pub shared: Arc<Shared>,
    pub identity: RunIdentity,
    pub pinned: Arc<Pinned>,
    pub plan: RunPlan,
    /// The newest state.
    pub state: watch::Sender<RunState>,
    pub events: mpsc::Sender<Event>,
    pub live: watch::Sender<LiveView>,
    /// The attempt to arm that workers were last told of; older answers are not believed.
    pub armed_attempt: AtomicU32,
    /// How each worker's load began.
    pub began: Mutex<BTreeMap<WorkerId, Began>>,
    /// Workers that were done before the others and are not this run's any more.
    pub let_go: Mutex<BTreeSet<WorkerId>>,
    /// What the sealed numbers said.
    pub judged: Mutex<Option<Arc<Judged>>>,
}

/// How a worker's load began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    /// So much later than agreed, in microseconds.
    pub late_us: i64,
    /// How well its clock was known then.
    pub clock: Option<Estimate>,
}

/// What the sealed numbers said.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub numbers: Numbers,
    pub outcome: Outcome,
    pub completeness: Completeness,
}

impl Context {
    pub fn run(&self) -> RunId {
        self.identity.id
    }

    pub fn now(&self) -> Timestamp {
        self.shared.parts.clock.now()
    }

    pub async fn sleep(&self, duration: Duration) {
        self.shared.parts.clock.sleep(duration).await;
    }

    /// Tells the state machine; nobody listens any more once the run is over.
    pub async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// A copy of the newest state.
    pub fn state(&self) -> RunState {
        self.state.borrow().clone()
    }

    pub fn arming(&self, attempt: u32) {
        self.armed_attempt.store(attempt, Ordering::Release);
    }

    pub fn armed_attempt(&self) -> u32 {
        self.armed_attempt.load(Ordering::Acquire)
    }

    pub fn is_let_go(&self, worker: WorkerId) -> bool {
        let let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
        let_go.contains(&worker)
    }

    /// From now on, what becomes of a worker is nothing to this run, and another one may have it.
    pub fn let_go(&self, worker: WorkerId) {
        let mut let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
        let_go.insert(worker);
        let mut claims = self.shared.claims();
        if claims.get(&worker) == Some(&self.run()) {
            claims.remove(&worker);
        }
    }

    pub fn judged(&self) -> Option<Arc<Judged>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_judged(&self, judged: Judged) -> Arc<Judged> {
        let judged = Arc::new(judged);
        *self.judged.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&judged));
        judged
    }

    /// Writes a line of the event log, if the database answers; losing one is no reason to hold up a run.
    pub async fn log(&self, severity: Severity, reason: &str, message: String) {
        self.log_about(format!("run/{}", self.run()), severity, reason, message)
            .await;
    }

    /// The same about something else than the run.
    pub async fn log_about(&self, about: String, severity: Severity, reason: &str, message: String) {
        let event = LogEvent {
            at: self.now(),
            project: Some(self.identity.plan.project.clone()),
            about,
            severity,
            reason: reason.to_owned(),
            message,
        };
        let appended = tokio::time::timeout(LOG_DEADLINE, self.shared.parts.stores.ledger.append_event(&event)).await;
        if !matches!(appended, Ok(Ok(_))) {
            tracing::warn!(run = %self.run(), reason, message = event.message, "event of a run could not be kept");
        }
    }
}
