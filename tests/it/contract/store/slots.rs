//! Slots of schedules: one row each, written with the run and with how far slots are decided.

use super::ledger::{at, run_row};
use super::{Place, contract};
use jiff::Timestamp;
use muster::store::rows::{RunFilter, ScheduleRow, SlotFilter, SlotRow};
use muster_core::model::cron::Cron;
use muster_core::model::id::{Digest, Name, RunId};
use muster_core::model::key::Key;
use muster_core::model::schedule::{Schedule, SkipReason, SlotOutcome, Zone};
use muster_core::schedule::slot::Cursor;
use std::collections::BTreeSet;
use uuid::Uuid;

contract!(
    s26_what_became_of_slots_reads_back,
    s27_a_slot_is_written_with_its_run_and_only_once,
    s27_of_many_starts_of_one_slot_exactly_one_is_made,
);

const PLAN: &str = "a/TestPlan/monthly";

fn plan(text: &str) -> Key {
    text.parse().unwrap()
}

fn schedule(decided: Timestamp) -> ScheduleRow {
    let schedule = Schedule {
        cron: Cron::parse("30 2 * * 6#1").unwrap(),
        zone: Zone::new("Asia/Shanghai").unwrap(),
    };
    ScheduleRow {
        cursor: Cursor::new(schedule, decided),
        digest: Digest::of(b"plan"),
        armed_at: at(0),
    }
}

fn slot(of: &str, second: i64, outcome: SlotOutcome, run: Option<RunId>) -> SlotRow {
    SlotRow {
        plan: plan(of),
        slot: at(second),
        outcome,
        detail: match run {
            Some(_) => String::new(),
            None => "the run before was not over".to_owned(),
        },
        run,
        load_at: None,
        decided_at: at(second + 1),
    }
}

async fn s26_what_became_of_slots_reads_back(place: Place) {
    let ledger = place.stores.ledger;
    let skipped = SlotOutcome::Skipped(SkipReason::Overlap);
    let rows = [slot(PLAN, 10, SlotOutcome::Missed, None), slot(PLAN, 20, skipped, None)];
    ledger.put_slots(&plan(PLAN), &rows, &schedule(at(20))).await.unwrap();
    // Once more after a lost answer, and one that has a row already keeps it.
    let other = [slot(PLAN, 20, SlotOutcome::Missed, None), slot(PLAN, 30, skipped, None)];
    ledger.put_slots(&plan(PLAN), &other, &schedule(at(30))).await.unwrap();
    let elsewhere = slot("b/TestPlan/monthly", 25, SlotOutcome::Missed, None);
    ledger
        .put_slots(&elsewhere.plan, std::slice::from_ref(&elsewhere), &schedule(at(25)))
        .await
        .unwrap();
    let all = ledger.slots(&SlotFilter::default()).await.unwrap();
    let [first, second] = rows;
    let [_, third] = other;
    assert_eq!(all, [third.clone(), elsewhere.clone(), second, first]);
    let filter = SlotFilter {
        projects: Some(BTreeSet::from([Name::new("b").unwrap()])),
        ..SlotFilter::default()
    };
    assert_eq!(ledger.slots(&filter).await.unwrap(), std::slice::from_ref(&elsewhere));
    let filter = SlotFilter {
        plan: Some(plan(PLAN)),
        limit: 1,
        ..SlotFilter::default()
    };
    assert_eq!(ledger.slots(&filter).await.unwrap(), [third]);
    let schedules = ledger.schedules().await.unwrap();
    assert_eq!(
        schedules,
        [
            (plan(PLAN), schedule(at(30))),
            (elsewhere.plan.clone(), schedule(at(25)))
        ]
    );
    ledger.delete_schedule(&elsewhere.plan).await.unwrap();
    assert_eq!(ledger.schedules().await.unwrap().len(), 1);
    assert_eq!(
        ledger.slots(&SlotFilter::default()).await.unwrap().len(),
        4,
        "rows stay"
    );
}

async fn s27_a_slot_is_written_with_its_run_and_only_once(place: Place) {
    let ledger = place.stores.ledger;
    let run = RunId(Uuid::now_v7());
    let started = slot(PLAN, 10, SlotOutcome::Started, Some(run));
    let row = run_row(run, PLAN, 9);
    assert!(ledger.start_slot(&started, &row, &schedule(at(10))).await.unwrap());
    // The answer was lost: the same again is the same.
    assert!(ledger.start_slot(&started, &row, &schedule(at(10))).await.unwrap());
    let other = RunId(Uuid::now_v7());
    let again = slot(PLAN, 10, SlotOutcome::Started, Some(other));
    let refused = ledger
        .start_slot(&again, &run_row(other, PLAN, 9), &schedule(at(99)))
        .await
        .unwrap();
    assert!(!refused);
    assert_eq!(ledger.runs(&RunFilter::default()).await.unwrap(), [row]);
    assert_eq!(ledger.schedules().await.unwrap(), [(plan(PLAN), schedule(at(10)))]);
    let pending = SlotFilter {
        pending: true,
        ..SlotFilter::default()
    };
    assert_eq!(ledger.slots(&pending).await.unwrap(), std::slice::from_ref(&started));
    let late = SlotRow {
        outcome: SlotOutcome::Late,
        load_at: Some(at(25)),
        ..started
    };
    ledger.end_slot(&late).await.unwrap();
    assert_eq!(ledger.slots(&pending).await.unwrap(), []);
    assert_eq!(ledger.slots(&SlotFilter::default()).await.unwrap(), [late]);
}

async fn s27_of_many_starts_of_one_slot_exactly_one_is_made(place: Place) {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let ledger = place.stores.ledger.clone();
            let run = RunId(Uuid::now_v7());
            let started = slot(PLAN, 10, SlotOutcome::Started, Some(run));
            tokio::spawn(async move {
                ledger
                    .start_slot(&started, &run_row(run, PLAN, 9), &schedule(at(10)))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(task.await.unwrap());
    }
    assert_eq!(made, 1);
    assert_eq!(place.stores.ledger.runs(&RunFilter::default()).await.unwrap().len(), 1);
}
