//! Schedules over real runs and stores: each slot has one row, and starts at most once.

use super::fake::{Act, plan, plan_key};
use super::{Bench, WORK, daemon, within};
use crate::support::eventually;
use crate::support::flaky::Mode;
use jiff::{SignedDuration, Timestamp};
use muster::control::runs::{Blocked, SlotStart, StartRequest, World};
use muster::control::scheduler::{Scheduler, SchedulerHandle};
use muster::runtime::clock::Clock;
use muster::store::open;
use muster::store::rows::{Overlay, RunFilter, ScheduleRow, SlotFilter, SlotRow};
use muster_core::model::cron::Cron;
use muster_core::model::id::Digest;
use muster_core::model::plan::TestPlan;
use muster_core::model::run::TriggerKind;
use muster_core::model::schedule::{ConcurrencyPolicy, FailureBudget, Schedule, Timing, Zone};
use muster_core::schedule::slot::Cursor;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Half past each hour.
fn hourly() -> Schedule {
    Schedule {
        cron: Cron::parse("30 * * * *").unwrap(),
        zone: Zone::new("Asia/Kolkata").unwrap(),
    }
}

fn scheduled(timing: Timing) -> TestPlan {
    TestPlan {
        timing: Timing {
            schedule: Some(hourly()),
            ..timing
        },
        ..plan()
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn bench(plan: TestPlan, now: &str) -> Bench {
    let stores = open("sqlite::memory:").await.unwrap();
    Bench::at(stores, plan, Clock::following(time(now))).await
}

/// Slots were decided up to `cursor` by an earlier daemon.
async fn decided(bench: &Bench, plan: &TestPlan, cursor: &str) {
    let row = ScheduleRow {
        cursor: Cursor::new(hourly(), time(cursor)),
        digest: Digest::of(&serde_json::to_vec(plan).unwrap()),
        armed_at: time("2026-01-01T00:00:00Z"),
    };
    bench.stores.ledger.put_slots(&plan_key(), &[], &row).await.unwrap();
}

fn follow(bench: &Bench) -> (SchedulerHandle, CancellationToken) {
    let world = Arc::clone(&bench.world) as Arc<dyn World>;
    let ledger = bench.stores.ledger.clone();
    let (scheduler, handle) = Scheduler::new(ledger, bench.runs.clone(), world, bench.clock.clone());
    let stop = CancellationToken::new();
    tokio::spawn(scheduler.run(stop.clone()));
    (handle, stop)
}

async fn slots(bench: &Bench) -> Vec<SlotRow> {
    bench.stores.ledger.slots(&SlotFilter::default()).await.unwrap()
}

/// Waits until the newest slot's row is as wanted, and gives all rows.
async fn until(bench: &Bench, wanted: impl Fn(&SlotRow) -> bool) -> Vec<SlotRow> {
    eventually("the newest slot to be decided", async || {
        let rows = slots(bench).await;
        rows.first().is_some_and(&wanted).then_some(rows)
    })
    .await
}

fn words(rows: &[SlotRow]) -> Vec<(String, &'static str)> {
    let word = |row: &SlotRow| (row.slot.to_string(), row.outcome.as_str());
    rows.iter().map(word).collect()
}

#[tokio::test]
async fn s26_s27_a_slot_starts_at_its_instant_once_and_its_row_says_when_load_began() {
    let bench = bench(scheduled(Timing::default()), "2026-12-05T02:59:58Z").await;
    bench.worker(WORK);
    // Two daemons on one ledger.
    let (_, first) = follow(&bench);
    let (_, second) = follow(&bench);
    let rows = until(&bench, |row| row.load_at.is_some()).await;
    assert_eq!(words(&rows), [("2026-12-05T03:00:00Z".to_owned(), "Started")]);
    let (row, runs) = (&rows[0], bench.stores.ledger.runs(&RunFilter::default()).await.unwrap());
    assert_eq!((runs.len(), Some(runs[0].identity.id)), (1, row.run));
    assert_eq!(runs[0].identity.trigger.slot, Some(row.slot));
    assert!(row.load_at.unwrap() >= row.slot && row.decided_at >= row.slot);
    assert_eq!(bench.ending(row.run.unwrap()).await, "Passed");
    let report = bench.stores.ledger.summary(row.run.unwrap()).await.unwrap().unwrap();
    assert_eq!(report["slot"], "2026-12-05T03:00:00Z");
    first.cancel();
    second.cancel();
}

#[tokio::test]
async fn s27_a_slot_whose_answer_was_lost_is_started_once_and_not_forgotten() {
    let bench = bench(scheduled(Timing::default()), "2026-12-05T02:59:59Z").await;
    bench.worker(WORK);
    bench.switch.set(Mode::LosesAnswerOf("start_slot"));
    let (_, stop) = follow(&bench);
    let rows = until(&bench, |row| row.load_at.is_some()).await;
    assert_eq!(bench.switch.failed(), 1);
    let runs = bench.stores.ledger.runs(&RunFilter::default()).await.unwrap();
    assert_eq!((rows.len(), runs.len(), rows[0].run), (1, 1, Some(runs[0].identity.id)));
    assert_eq!(bench.ending(runs[0].identity.id).await, "Passed");
    stop.cancel();
}

#[tokio::test]
async fn s28_after_downtime_only_the_newest_slot_is_caught_up_and_the_others_are_missed() {
    let wanted = scheduled(Timing::default());
    let bench = bench(wanted.clone(), "2026-12-05T03:05:00Z").await;
    decided(&bench, &wanted, "2026-12-05T00:30:00Z").await;
    bench.worker(WORK);
    let (_, stop) = follow(&bench);
    let rows = until(&bench, |row| row.load_at.is_some()).await;
    let expected = [
        ("2026-12-05T03:00:00Z", "Late"),
        ("2026-12-05T02:00:00Z", "Missed"),
        ("2026-12-05T01:00:00Z", "Missed"),
    ];
    assert_eq!(words(&rows), expected.map(|(slot, word)| (slot.to_owned(), word)));
    stop.cancel();
    // The next daemon finds nothing left to do.
    let (_, runs, _) = daemon(2, &bench.stores, &bench.world, &bench.folder, &bench.clock);
    let world = Arc::clone(&bench.world) as Arc<dyn World>;
    let (scheduler, handle) = Scheduler::new(bench.stores.ledger.clone(), runs, world, bench.clock.clone());
    tokio::spawn(scheduler.run(CancellationToken::new()));
    assert!(handle.arm(&plan_key()).await);
    assert_eq!(slots(&bench).await.len(), 3);
}

#[tokio::test]
async fn s28_past_its_deadline_the_newest_is_missed_too() {
    let wanted = scheduled(Timing {
        starting_deadline: Duration::from_secs(60),
        ..Timing::default()
    });
    let bench = bench(wanted.clone(), "2026-12-05T03:05:00Z").await;
    decided(&bench, &wanted, "2026-12-05T02:30:00Z").await;
    let (_, stop) = follow(&bench);
    let rows = until(&bench, |_| true).await;
    assert_eq!(words(&rows), [("2026-12-05T03:00:00Z".to_owned(), "Missed")]);
    assert!(bench.runs.active().is_empty());
    stop.cancel();
}

#[tokio::test]
async fn s23_s26_a_suspended_slot_is_skipped_and_says_by_whom() {
    let wanted = scheduled(Timing::default());
    let bench = bench(wanted.clone(), "2026-12-05T03:00:30Z").await;
    decided(&bench, &wanted, "2026-12-05T02:30:00Z").await;
    let overlay = Overlay {
        plan: plan_key(),
        reason: "Double 11".to_owned(),
        who: "li.wei".to_owned(),
        since: time("2026-12-01T00:00:00Z"),
        until: None,
    };
    bench.stores.ledger.put_overlay(&overlay).await.unwrap();
    let (_, stop) = follow(&bench);
    let rows = until(&bench, |_| true).await;
    assert_eq!(rows[0].outcome.as_str(), "Skipped(Suspended)");
    assert_eq!(rows[0].detail, "suspended by li.wei: Double 11");
    stop.cancel();
}

#[tokio::test]
async fn s23_s32_a_suspension_that_ends_before_the_slot_does_not_hold_up_what_it_needs() {
    let bench = bench(scheduled(Timing::default()), "2026-12-05T02:59:50Z").await;
    let overlay = Overlay {
        plan: plan_key(),
        reason: "Double 11".to_owned(),
        who: "li.wei".to_owned(),
        since: time("2026-12-01T00:00:00Z"),
        until: Some(time("2026-12-05T02:59:58Z")),
    };
    bench.stores.ledger.put_overlay(&overlay).await.unwrap();
    bench.worker(WORK);
    let by_hand = StartRequest::new(plan_key(), TriggerKind::Manual, "tester");
    assert!(matches!(
        bench.runs.start(by_hand).await,
        Err(Blocked::Suspended { .. })
    ));
    let slot = time("2026-12-05T03:00:00Z");
    let request = StartRequest {
        slot: Some(SlotStart {
            slot,
            schedule: ScheduleRow {
                cursor: Cursor::new(hourly(), slot),
                digest: Digest::of(b"plan"),
                armed_at: slot,
            },
        }),
        ..StartRequest::new(plan_key(), TriggerKind::Schedule, "schedule")
    };
    let run = bench.runs.start(request).await.unwrap();
    assert_eq!(bench.ending(run).await, "Passed");
    // Workers were ready ten seconds before: load began at the instant, and not earlier.
    let row = bench.stores.ledger.run(run).await.unwrap().unwrap();
    let late = row.started_at.unwrap().duration_since(slot);
    assert!(
        late.as_millis() >= 0 && late < SignedDuration::from_secs(10),
        "{late:?}"
    );
}

#[tokio::test]
async fn s26_a_run_that_is_not_over_has_the_next_slot_skipped_or_gives_way() {
    for (policy, expected) in [
        (ConcurrencyPolicy::Forbid, "Skipped(Overlap)"),
        (ConcurrencyPolicy::Replace, "Started"),
    ] {
        let wanted = scheduled(Timing {
            concurrency_policy: policy,
            ..Timing::default()
        });
        let bench = bench(wanted.clone(), "2026-12-05T03:00:20Z").await;
        bench.worker(Act::UntilStopped);
        let before = bench.start().await;
        bench.stage(before, "Running").await;
        decided(&bench, &wanted, "2026-12-05T02:30:00Z").await;
        let (_, stop) = follow(&bench);
        let rows = until(&bench, |_| true).await;
        assert_eq!(rows[0].outcome.as_str(), expected, "{rows:?}");
        if policy == ConcurrencyPolicy::Replace {
            assert_eq!(bench.ending(before).await, "Stopped");
            assert_ne!(rows[0].run, Some(before));
        } else {
            bench.runs.abort(before, "tester").await.unwrap();
            within(bench.runs.finished(before)).await;
        }
        stop.cancel();
        bench.runs.shutdown().await;
    }
}

#[tokio::test]
async fn s26_a_schedule_that_failed_too_often_stops_until_it_is_armed() {
    let wanted = scheduled(Timing {
        failure_budget: Some(FailureBudget {
            consecutive_failures: 1,
        }),
        ..Timing::default()
    });
    let bench = bench(wanted.clone(), "2026-12-05T02:59:50Z").await;
    decided(&bench, &wanted, "2026-12-05T02:30:00Z").await;
    bench.worker(Act::Die);
    let failed = bench.start().await;
    assert!(bench.ending(failed).await.starts_with("Invalid"));
    let (handle, stop) = follow(&bench);
    let rows = until(&bench, |_| true).await;
    assert_eq!(rows[0].outcome.as_str(), "Skipped(Budget)");
    assert!(rows[0].detail.contains("1 runs failed in a row"), "{}", rows[0].detail);
    assert!(handle.arm(&plan_key()).await);
    let schedules = bench.stores.ledger.schedules().await.unwrap();
    assert!(schedules[0].1.armed_at > time("2026-12-05T02:59:50Z"));
    stop.cancel();
}
