//! Makes a run's report and keeps it in the ledger.

use super::context::Context;
use super::perform::judged;
use crate::store::StoreError;
use crate::store::rows::RunWorkerRow;
use muster_core::base::chain::chain;
use muster_core::lifecycle::event::Event;
use muster_core::lifecycle::state::RunState;
use muster_core::model::plan::FailurePolicy;
use muster_core::model::run::{Ending, EndingKind};
use muster_core::report::build::{PhaseTiming, ReportInput, WorkerInfo};
use muster_core::report::json::{HookResult, Report};
use serde_json::json;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Pause before a report is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps the report, however often that takes, and says so. Doing it again writes the same.
pub(super) async fn keep(context: &Context) {
    while let Err(error) = try_keep(context).await {
        tracing::warn!(run = %context.run(), error = %chain(&error), "report of a run cannot be kept yet");
        context.sleep(RETRY).await;
    }
    compact(context);
    context.tell(Event::Reported).await;
}

/// Merges what is stored of the run. Nobody waits for it: a run that stays as it is takes more room and says the same.
fn compact(context: &Context) {
    if context.state().load_ended_at.is_none() {
        return;
    }
    let (run, results) = (context.run(), Arc::clone(&context.shared.parts.stores.results));
    let stop = context.shared.stop.clone();
    context.shared.tasks.spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(results.compact(run)).await {
            tracing::warn!(run = %run, error = %chain(&error), "results of a run stay uncompacted");
        }
    });
}

async fn try_keep(context: &Context) -> Result<(), StoreError> {
    let state = context.state();
    let judged = judged(context).await?;
    let workers = workers(context, &state).await?;
    let hooks = hooks(context).await?;
    let began = !state.started.is_empty();
    let passed = Ending {
        kind: EndingKind::Passed,
        detail: String::new(),
    };
    let phases: Vec<PhaseTiming> = state
        .phases
        .iter()
        .map(|(phase, times)| PhaseTiming {
            phase: *phase,
            started_at: times.began_at,
        })
        .collect();
    let now = context.now();
    let hours =
        |from: jiff::Timestamp| now.duration_since(from).as_secs_f64() / 3_600.0 * f64::from(context.plan.workers);
    let report = Report::build(&ReportInput {
        identity: &context.identity,
        plan: &context.pinned.plan,
        target: &context.pinned.base_urls.join(", "),
        ending: state.ending.as_ref().unwrap_or(&passed),
        started_at: state.start_at.filter(|_| began),
        finished_at: Some(now),
        phases: &phases,
        workers: &workers,
        hooks: &hooks,
        view: &judged.numbers.view,
        outcome: &judged.outcome,
        completeness: &judged.completeness,
        worker_hours: state.start_at.filter(|_| began).map(hours),
        smoke: context.pinned.smoke,
    });
    context
        .shared
        .parts
        .stores
        .ledger
        .put_summary(context.run(), &report.to_json())
        .await
}

/// What the owner knows of each worker, which is also kept with the run.
async fn workers(context: &Context, state: &RunState) -> Result<Vec<WorkerInfo>, StoreError> {
    let ledger = &context.shared.parts.stores.ledger;
    let rows = ledger.run_workers(context.run()).await?;
    let mut infos = Vec::with_capacity(rows.len());
    for row in rows {
        let began = {
            let began = context.began.lock().unwrap_or_else(PoisonError::into_inner);
            began.get(&row.worker).copied()
        };
        let skew = began.map(|began| began.late_us);
        let clock = began.and_then(|began| began.clock);
        let name = row.detail["name"]
            .as_str()
            .map_or_else(|| row.worker.to_string(), str::to_owned);
        let (lost, lost_at) = (state.lost.get(&row.worker), state.lost_at.get(&row.worker));
        let detail = json!({"name": name, "startLateUs": skew, "clockOffsetUs": clock.map(|clock| clock.wall_us),
            "clockErrorUs": clock.map(|clock| clock.error_us), "lost": lost, "lostAt": lost_at});
        if detail != row.detail {
            ledger.put_run_worker(&RunWorkerRow { detail, ..row.clone() }).await?;
        }
        infos.push(WorkerInfo {
            index: row.index,
            name,
            lost: lost.cloned(),
            lost_at: lost_at.copied(),
            start_skew_ms: skew.map(|skew| skew as f64 / 1e3),
            clock_offset_ms: clock.map(|clock| clock.wall_us as f64 / 1e3),
            clock_error_ms: clock.map(|clock| clock.error_us as f64 / 1e3),
        });
    }
    Ok(infos)
}

async fn hooks(context: &Context) -> Result<Vec<HookResult>, StoreError> {
    let rows = context.shared.parts.stores.ledger.hooks(context.run()).await?;
    let result = |row: crate::store::rows::HookRow| {
        let hook = context.pinned.plan.hooks.iter().find(|hook| hook.name == row.name)?;
        let took = row
            .finished_at
            .map(|end| end.duration_since(row.started_at).as_millis());
        Some(HookResult {
            name: row.name,
            when: hook.when,
            succeeded: row.succeeded,
            matters: hook.failure_policy == FailurePolicy::Fail,
            duration_ms: took.and_then(|took| u64::try_from(took).ok()),
            message: row.message,
        })
    };
    Ok(rows.into_iter().filter_map(result).collect())
}
