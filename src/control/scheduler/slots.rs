//! What becomes of the slots of one plan: asked of the pure decision, written, told, and started.

use super::{LOOK_EVERY, Planned, RUNS_BEYOND, Scheduler};
use crate::control::runs::{Blocked, SlotStart, StartRequest};
use crate::store::StoreError;
use crate::store::rows::{RunFilter, ScheduleRow, SlotFilter, SlotRow};
use jiff::Timestamp;
use muster_core::base::chain::chain;
use muster_core::lifecycle::state::RunState;
use muster_core::model::key::Key;
use muster_core::model::plan::TestPlan;
use muster_core::model::run::{EndingKind, Severity, TriggerKind};
use muster_core::model::schedule::{BlockReason, SkipReason, SlotOutcome};
use muster_core::schedule::slot::{
    Approved, Cursor, Decision, Situation, Suspension, Waiting, began, decide, failures_in_a_row,
};

impl Scheduler {
    /// Decides what is due of a plan, and says when to look again.
    /// `held`: what holds it back beside git.
    pub(super) async fn look_at(
        &mut self,
        planned: &Planned,
        held: Option<&Suspension>,
    ) -> Result<Timestamp, StoreError> {
        let (Some(plan), now) = (planned.plan(), self.clock.now()) else {
            return Ok(Timestamp::MAX);
        };
        let Some(schedule) = plan.timing.schedule.clone() else {
            return Ok(Timestamp::MAX);
        };
        let known = self.rows.get(&planned.key).cloned();
        let mut row = match known.clone() {
            // Another revision of the plan arms its schedule again, as the first one does.
            Some(row) if row.digest == planned.resource.digest => row,
            known => ScheduleRow {
                cursor: known.map_or_else(|| Cursor::new(schedule.clone(), now), |row| row.cursor),
                digest: planned.resource.digest.clone(),
                armed_at: now,
            },
        };
        if known.as_ref() != Some(&row) {
            self.put(planned, &[], row.clone()).await?;
        }
        while row.cursor.schedule != schedule {
            let (cursor, rows) = row.cursor.follow(&schedule, self.waiting.get(&planned.key), now);
            row.cursor = cursor;
            self.put(planned, &rows, row.clone()).await?;
        }
        self.decide((planned, plan), held, row, now).await?;
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
        (planned, plan): (&Planned, &TestPlan),
        held: Option<&Suspension>,
        row: ScheduleRow,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let waiting = self.waiting.get(&planned.key).cloned();
        let suspended = Suspension::of(plan, held);
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

    /// Notes in slots' rows when load of their runs began; also those of an earlier daemon.
    pub(super) async fn note_begun(&mut self) -> Result<(), StoreError> {
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
