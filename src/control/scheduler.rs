//! Follows the schedules of plans: at each one's next instant it asks the pure `decide` what becomes of the slot, writes that, and
//! starts the run. The slot's row is written in one transaction with its run, before anything starts (promise 27).

use super::news::News;
use super::runs::{Blocked, Runs, SlotStart, StartRequest, World};
use crate::runtime::clock::Clock;
use crate::store::rows::{RunFilter, ScheduleRow, SlotFilter, SlotRow};
use crate::store::{Ledger, StoreError};
use jiff::{SignedDuration, Timestamp};
use muster_core::base::chain::chain;
use muster_core::lifecycle::state::RunState;
use muster_core::model::id::RunId;
use muster_core::model::key::Key;
use muster_core::model::plan::TestPlan;
use muster_core::model::resource::{Resource, Spec};
use muster_core::model::run::{EndingKind, Severity, TriggerKind};
use muster_core::model::schedule::{BlockReason, SkipReason, SlotOutcome};
use muster_core::schedule::slot::{
    Approved, Clocks, Cursor, Decision, Situation, Suspension, Waiting, began, clocks, decide, failures_in_a_row,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The clocks are compared, and what waits is looked at again, this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A ledger that did not answer is asked again after so long.
const RETRY: Duration = Duration::from_secs(1);
/// Runs looked at for a failure budget beyond its size: those that were stopped by hand say nothing.
const RUNS_BEYOND: u32 = 20;
/// Words from people that wait to be heard.
const WORDS: usize = 64;
/// A scheduler that does not answer in so long waits for its database.
const ANSWER: Duration = Duration::from_secs(5);

/// Who asks the scheduler. Cheap to clone.
#[derive(Clone)]
pub struct SchedulerHandle {
    words: mpsc::Sender<(Key, oneshot::Sender<()>)>,
}

impl SchedulerHandle {
    /// Arms a schedule that its failure budget stopped. False: the scheduler does not answer.
    pub async fn arm(&self, plan: &Key) -> bool {
        let (heard, is_heard) = oneshot::channel();
        let word = async {
            self.words.send((plan.clone(), heard)).await.ok()?;
            is_heard.await.ok()
        };
        matches!(tokio::time::timeout(ANSWER, word).await, Ok(Some(())))
    }
}

/// The loop.
pub struct Scheduler {
    ledger: Arc<dyn Ledger>,
    runs: Runs,
    world: Arc<dyn World>,
    clock: Clock,
    news: News,
    words: mpsc::Receiver<(Key, oneshot::Sender<()>)>,
    /// How far each plan's slots are decided, as the ledger has it.
    rows: BTreeMap<Key, ScheduleRow>,
    /// What waits, as the last look said.
    waiting: BTreeMap<Key, Waiting>,
    /// The run of a slot that is being started: the same one when the answer to its row was lost.
    starting: BTreeMap<Key, (Timestamp, RunId)>,
    /// When each plan is looked at next.
    due: BTreeMap<Key, Timestamp>,
    /// Where both clocks stood.
    began: (Timestamp, Instant),
    frozen: bool,
    /// Slots were started of which it is not known yet when load began.
    pending: bool,
}

/// A plan with a schedule, as it is wanted now.
struct Planned {
    key: Key,
    resource: Arc<Resource>,
    lead_time: Duration,
}

impl Planned {
    fn plan(&self) -> Option<&TestPlan> {
        match &self.resource.spec {
            Spec::TestPlan(plan) => Some(plan),
            _ => None,
        }
    }
}

impl Scheduler {
    /// A loop that was not started, and the handle to it.
    pub fn new(ledger: Arc<dyn Ledger>, runs: Runs, world: Arc<dyn World>, clock: Clock) -> (Self, SchedulerHandle) {
        let (sender, words) = mpsc::channel(WORDS);
        let scheduler = Self {
            news: News::new(ledger.clone(), clock.clone()),
            began: (clock.now(), clock.instant()),
            ledger,
            runs,
            world,
            clock,
            words,
            rows: BTreeMap::new(),
            waiting: BTreeMap::new(),
            starting: BTreeMap::new(),
            due: BTreeMap::new(),
            frozen: false,
            pending: true,
        };
        (scheduler, SchedulerHandle { words: sender })
    }

    /// Follows schedules until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        while let Err(error) = self.load().await {
            tracing::warn!(error = %chain(&error), "schedules cannot be read yet");
            self.clock.sleep(RETRY).await;
        }
        let mut published = self.world.published();
        loop {
            published.borrow_and_update();
            self.find_due();
            self.forget().await;
            self.look_at_clocks().await;
            if !self.frozen {
                self.look().await;
            }
            if self.pending
                && let Err(error) = self.note_begun().await
            {
                tracing::warn!(error = %chain(&error), "cannot note when load of slots began");
            }
            let wait = self.until_next();
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                changed = published.changed() => if changed.is_err() { return },
                word = self.words.recv() => if let Some((plan, heard)) = word {
                    self.arm(&plan).await;
                    let _ = heard.send(());
                },
            }
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        self.rows = self.ledger.schedules().await?.into_iter().collect();
        Ok(())
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now();
        let next = self.due.values().min().copied();
        let left = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        match next {
            Some(_) => left.unwrap_or(Duration::ZERO).min(LOOK_EVERY),
            None => LOOK_EVERY,
        }
    }

    /// Plans that came, went or changed since the last look.
    fn find_due(&mut self) {
        let now = self.clock.now();
        let planned = self.planned();
        self.due.retain(|key, _| planned.contains_key(key));
        self.waiting.retain(|key, _| planned.contains_key(key));
        for (key, plan) in &planned {
            let schedule = plan.plan().and_then(|plan| plan.timing.schedule.as_ref());
            let known = self.rows.get(key);
            let is_new =
                known.is_none_or(|row| Some(&row.cursor.schedule) != schedule || row.digest != plan.resource.digest);
            if is_new {
                self.due.insert(key.clone(), now);
            } else if let (Some(row), false) = (known, self.due.contains_key(key)) {
                let due = row.cursor.due(plan.lead_time);
                self.due.insert(key.clone(), due.unwrap_or(Timestamp::MAX));
            }
        }
    }

    /// What has no schedule any more and gets one again later has no slots in between.
    async fn forget(&mut self) {
        if self.world.published().borrow().is_none() {
            return;
        }
        let gone: Vec<Key> = self
            .rows
            .keys()
            .filter(|key| !self.due.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            match self.ledger.delete_schedule(&key).await {
                Ok(()) => drop(self.rows.remove(&key)),
                Err(error) => tracing::warn!(plan = %key, error = %chain(&error), "a schedule cannot be forgotten yet"),
            }
        }
    }

    fn planned(&self) -> BTreeMap<Key, Planned> {
        let published = self.world.published().borrow().clone();
        let Some(published) = published else {
            return BTreeMap::new();
        };
        let desired = &published.desired;
        let lead_time = |plan: &TestPlan| match plan.pool.as_ref().and_then(|pool| desired.get(pool)) {
            Some(pool) => match &pool.spec {
                Spec::WorkerPool(pool) => pool.lead_time,
                _ => Duration::ZERO,
            },
            None => Duration::ZERO,
        };
        let all = desired.projects.values().flat_map(|project| &project.resources);
        let scheduled = all.filter_map(|(key, resource)| match &resource.spec {
            Spec::TestPlan(plan) if plan.timing.schedule.is_some() => Some(Planned {
                key: key.clone(),
                lead_time: lead_time(plan),
                resource: resource.clone(),
            }),
            _ => None,
        });
        scheduled.map(|planned| (planned.key.clone(), planned)).collect()
    }

    /// Compares how far both clocks went; apart, nothing is fired or missed (promise 29).
    async fn look_at_clocks(&mut self) {
        let (wall, monotonic) = self.began;
        let wall = self.clock.now().duration_since(wall);
        let monotonic = SignedDuration::try_from(self.clock.instant() - monotonic).unwrap_or(SignedDuration::MAX);
        let found = clocks(wall, monotonic);
        let is_apart = found != Clocks::Agree;
        metrics::gauge!("muster_scheduler_frozen").set(if is_apart { 1.0 } else { 0.0 });
        if let (Clocks::Apart { ahead }, false) = (found, self.frozen) {
            let message = format!(
                "the wall clock was set: it is {ahead:#} ahead of the time that passed. No slot is started or missed until they agree \
                 again, or the daemon is started anew"
            );
            self.news
                .about_source(Severity::Warning, "SchedulerFrozen", &message)
                .await;
        } else if !is_apart && self.frozen {
            let message = "the wall clock and the time that passed agree again";
            self.news
                .about_source(Severity::Normal, "SchedulerResumed", message)
                .await;
        }
        self.frozen = is_apart;
    }

    async fn look(&mut self) {
        let now = self.clock.now();
        let due: Vec<Key> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        if due.is_empty() {
            return;
        }
        let mut planned = self.planned();
        for key in due {
            let Some(plan) = planned.remove(&key) else { continue };
            let next = match self.look_at(&plan).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(plan = %key, error = %chain(&error), "a schedule cannot be followed yet");
                    self.clock.now().checked_add(RETRY).unwrap_or(Timestamp::MAX)
                }
            };
            self.due.insert(key, next);
        }
    }

    /// Decides what is due of a plan, and says when to look again.
    async fn look_at(&mut self, planned: &Planned) -> Result<Timestamp, StoreError> {
        let (Some(plan), now) = (planned.plan(), self.clock.now()) else {
            return Ok(Timestamp::MAX);
        };
        let Some(schedule) = plan.timing.schedule.clone() else {
            return Ok(Timestamp::MAX);
        };
        let digest = planned.resource.digest.clone();
        let mut row = match self.rows.get(&planned.key) {
            Some(row) => row.clone(),
            None => {
                let row = ScheduleRow {
                    cursor: Cursor::new(schedule.clone(), now),
                    digest: digest.clone(),
                    armed_at: now,
                };
                self.put(planned, &[], row.clone()).await?;
                row
            }
        };
        if row.digest != digest {
            // Another revision of the plan arms its schedule again.
            (row.digest, row.armed_at) = (digest, now);
            self.put(planned, &[], row.clone()).await?;
        }
        while row.cursor.schedule != schedule {
            let (cursor, rows) = row.cursor.follow(&schedule, self.waiting.get(&planned.key), now);
            row.cursor = cursor;
            self.put(planned, &rows, row.clone()).await?;
        }
        self.decide(planned, plan, row, now).await?;
        let again = now.checked_add(LOOK_EVERY).unwrap_or(Timestamp::MAX);
        Ok(
            match (self.waiting.contains_key(&planned.key), self.rows.get(&planned.key)) {
                (true, _) => again,
                (false, Some(row)) => row.cursor.due(planned.lead_time).unwrap_or(Timestamp::MAX),
                (false, None) => again,
            },
        )
    }

    async fn decide(
        &mut self,
        planned: &Planned,
        plan: &TestPlan,
        row: ScheduleRow,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let waiting = self.waiting.get(&planned.key).cloned();
        let suspended = self.suspension(&planned.key, plan).await?;
        let failures = self.failures(&planned.key, plan, &row).await?;
        let situation = Situation {
            timing: &plan.timing,
            duration: plan.duration(),
            lead_time: planned.lead_time,
            cursor: &row.cursor,
            suspended: suspended.as_ref(),
            active: self.runs.active().values().any(|active| *active == planned.key),
            approved: &Approved::All,
            failures,
            waiting: waiting.as_ref(),
        };
        let mut decisions = decide(&situation, now);
        if let Some(Decision::Start { slot, .. }) = decisions.last().cloned() {
            let earlier = decisions.len() - 1;
            self.record(planned, &row, &decisions[..earlier]).await?;
            let last = match self.start(planned, &row, slot).await? {
                Ok(()) => None,
                Err((becomes, detail)) => Some(situation.refused(slot, becomes, &detail, now)),
            };
            decisions = last.into_iter().collect();
        }
        let wait = decisions.iter().find_map(|decision| match decision {
            Decision::Wait(waiting) => Some(waiting.clone()),
            _ => None,
        });
        self.record(planned, &row, &decisions).await?;
        match wait {
            Some(waiting) => self.wait(planned, waiting).await,
            None => drop(self.waiting.remove(&planned.key)),
        }
        Ok(())
    }

    /// Remembers what waits, and has the run before stopped where that is what it waits for.
    async fn wait(&mut self, planned: &Planned, waiting: Waiting) {
        let is_new = self
            .waiting
            .get(&planned.key)
            .is_none_or(|old| old.detail != waiting.detail);
        if is_new {
            let message = format!(
                "slot {} waits until {}: {}",
                waiting.slot, waiting.until, waiting.detail
            );
            self.news
                .about_resource(&planned.key, Severity::Normal, "SlotWaiting", &message)
                .await;
            if waiting.becomes == SlotOutcome::Blocked(BlockReason::Overlap) {
                for (run, plan) in self.runs.active() {
                    if plan == planned.key
                        && let Err(error) = self.runs.stop(run, "the next slot of its schedule").await
                    {
                        tracing::warn!(%run, %error, "a run that is to be replaced cannot be stopped");
                    }
                }
            }
        }
        self.waiting.insert(planned.key.clone(), waiting);
    }

    /// Writes the rows of slots that do not start.
    async fn record(&mut self, planned: &Planned, row: &ScheduleRow, decisions: &[Decision]) -> Result<(), StoreError> {
        let recorded: Vec<Decision> = decisions
            .iter()
            .filter(|decision| matches!(decision, Decision::Record { .. }))
            .cloned()
            .collect();
        let Some(last) = recorded.last() else { return Ok(()) };
        let mut row = self.rows.get(&planned.key).unwrap_or(row).clone();
        row.cursor.at = row.cursor.at.max(last.slot());
        self.put(planned, &recorded, row).await
    }

    async fn put(&mut self, planned: &Planned, decisions: &[Decision], row: ScheduleRow) -> Result<(), StoreError> {
        let decided_at = self.clock.now();
        let rows: Vec<SlotRow> = decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Record { slot, outcome, detail } => Some(SlotRow {
                    plan: planned.key.clone(),
                    slot: *slot,
                    outcome: *outcome,
                    detail: detail.clone(),
                    run: None,
                    load_at: None,
                    decided_at,
                }),
                _ => None,
            })
            .collect();
        self.ledger.put_slots(&planned.key, &rows, &row).await?;
        self.rows.insert(planned.key.clone(), row);
        self.tell(&planned.key, &rows).await;
        Ok(())
    }

    /// One event for what became of slots without a run; many at once after a long time without a daemon.
    async fn tell(&self, plan: &Key, rows: &[SlotRow]) {
        for row in rows {
            metrics::counter!("muster_slots_total", "outcome" => row.outcome.as_str()).increment(1);
        }
        let Some(newest) = rows.last() else { return };
        let severity = match newest.outcome {
            SlotOutcome::Skipped(SkipReason::Suspended | SkipReason::OutsideWindow) => Severity::Normal,
            _ => Severity::Warning,
        };
        let more = match rows.len() {
            1 => String::new(),
            count => format!("; and {} slots before it", count - 1),
        };
        let why = match newest.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        let message = format!("slot {} is {}{why}{more}", newest.slot, newest.outcome.as_str());
        self.news
            .about_resource(plan, severity, "SlotNotStarted", &message)
            .await;
    }

    /// Starts a slot's run; the inner error: what the slot becomes unless that changes, and why.
    async fn start(
        &mut self,
        planned: &Planned,
        row: &ScheduleRow,
        slot: Timestamp,
    ) -> Result<Result<(), (SlotOutcome, String)>, StoreError> {
        let mut row = self.rows.get(&planned.key).unwrap_or(row).clone();
        row.cursor.at = row.cursor.at.max(slot);
        let id = match self.starting.get(&planned.key) {
            Some((known, id)) if *known == slot => *id,
            _ => self.runs.new_id(),
        };
        self.starting.insert(planned.key.clone(), (slot, id));
        let request = StartRequest {
            id: Some(id),
            slot: Some(SlotStart {
                slot,
                schedule: row.clone(),
            }),
            ..StartRequest::new(planned.key.clone(), TriggerKind::Schedule, "schedule")
        };
        let outcome = match self.runs.start(request).await {
            Ok(_) => {
                metrics::counter!("muster_slots_total", "outcome" => "Started").increment(1);
                Ok(())
            }
            // Another daemon was first, or this one before it died.
            Err(Blocked::SlotTaken { .. }) => Ok(()),
            Err(Blocked::Store(error)) => return Err(error),
            Err(Blocked::ShuttingDown) => {
                return Err(StoreError::Unavailable("the daemon is shutting down".to_owned()));
            }
            Err(blocked) => Err((becomes(&blocked), chain(&blocked))),
        };
        if outcome.is_ok() {
            self.rows.insert(planned.key.clone(), row);
            self.starting.remove(&planned.key);
            self.pending = true;
        }
        Ok(outcome)
    }

    /// Either of git's `suspend` and the overlay holds slots back.
    async fn suspension(&self, key: &Key, plan: &TestPlan) -> Result<Option<Suspension>, StoreError> {
        let by_git = plan.suspend.as_ref().map(|suspend| Suspension {
            until: suspend.until,
            detail: format!("suspended by {}: {}", suspend.by(), suspend.reason),
        });
        let overlays = self.ledger.overlays().await?;
        let by_hand = overlays
            .into_iter()
            .find(|overlay| overlay.plan == *key)
            .map(|overlay| Suspension {
                until: overlay.until,
                detail: format!("suspended by {}: {}", overlay.who, overlay.reason),
            });
        // Whichever lasts longer.
        let lasts = |suspension: &Suspension| suspension.until.unwrap_or(Timestamp::MAX);
        Ok(by_git.into_iter().chain(by_hand).max_by_key(lasts))
    }

    async fn failures(&self, key: &Key, plan: &TestPlan, row: &ScheduleRow) -> Result<u32, StoreError> {
        let Some(budget) = plan.timing.failure_budget else {
            return Ok(0);
        };
        let filter = RunFilter {
            plan: Some(key.clone()),
            limit: budget.consecutive_failures.saturating_add(RUNS_BEYOND),
            ..RunFilter::default()
        };
        let runs = self.ledger.runs(&filter).await?;
        let since = runs.iter().filter(|run| run.identity.created_at > row.armed_at);
        let endings = since.filter_map(|run| {
            let state: RunState = serde_json::from_value(run.state.clone()).ok()?;
            state.final_ending().map(|ending| ending.kind)
        });
        Ok(failures_in_a_row(endings.collect::<Vec<EndingKind>>()))
    }

    async fn arm(&mut self, plan: &Key) {
        let Some(row) = self.rows.get(plan) else { return };
        let row = ScheduleRow {
            armed_at: self.clock.now(),
            ..row.clone()
        };
        match self.ledger.put_slots(plan, &[], &row).await {
            Ok(()) => drop(self.rows.insert(plan.clone(), row)),
            Err(error) => tracing::warn!(%plan, error = %chain(&error), "a schedule cannot be armed"),
        }
    }

    /// Notes in slots' rows when load of their runs began; also those of an earlier daemon.
    async fn note_begun(&mut self) -> Result<(), StoreError> {
        let filter = SlotFilter {
            pending: true,
            ..SlotFilter::default()
        };
        let rows = self.ledger.slots(&filter).await?;
        self.pending = !rows.is_empty();
        for row in rows {
            let Some(run) = row.run else { continue };
            let Some(run) = self.ledger.run(run).await? else {
                continue;
            };
            let noted = match (run.started_at, &run.ending) {
                (Some(load_at), _) => SlotRow {
                    outcome: began(row.slot, load_at),
                    load_at: Some(load_at),
                    ..row
                },
                (None, Some(ending)) => SlotRow {
                    detail: format!("its run made no load: {ending}"),
                    ..row
                },
                (None, None) => continue,
            };
            self.ledger.end_slot(&noted).await?;
        }
        Ok(())
    }
}

/// What a slot becomes when its run is refused for good.
fn becomes(blocked: &Blocked) -> SlotOutcome {
    match blocked {
        Blocked::Suspended { .. } => SlotOutcome::Skipped(SkipReason::Suspended),
        Blocked::OutsideWindow { .. } => SlotOutcome::Skipped(SkipReason::OutsideWindow),
        Blocked::NotReady { .. } => SlotOutcome::Blocked(BlockReason::NotReady),
        Blocked::NotEnoughWorkers { .. } => SlotOutcome::Blocked(BlockReason::NotEnoughWorkers),
        Blocked::Limit { .. } | Blocked::PoolTooSmall { .. } => SlotOutcome::Blocked(BlockReason::Limit),
        _ => SlotOutcome::Blocked(BlockReason::Plan),
    }
}
