//! What becomes of a slot, case by case.

use super::{at, schedule};
use crate::base::units::parse_duration;
use crate::model::run::{AbortedReason, EndingKind, ErrorReason, FailedReason, InvalidReason};
use crate::model::schedule::{
    BlockReason, ConcurrencyPolicy, FailureBudget, Schedule, SkipReason, SlotOutcome, Timing, Window, WindowKind,
};
use crate::schedule::slot::{
    Approved, Clocks, Cursor, DECISIONS_MAX, Decision, Situation, Suspension, Waiting, began, clocks, decide,
    failures_in_a_row,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const MISSED: SlotOutcome = SlotOutcome::Missed;

/// A plan of each day at 02:30 in UTC with its defaults, whose slots are decided up to 1 June 2026.
struct Case {
    timing: Timing,
    lead_time: Duration,
    cursor: Cursor,
    suspended: Option<Suspension>,
    active: bool,
    approved: Approved,
    failures: u32,
    waiting: Option<Waiting>,
}

impl Case {
    fn new() -> Self {
        let daily = schedule("30 2 * * *", "UTC");
        Self {
            timing: Timing {
                schedule: Some(daily.clone()),
                ..Timing::default()
            },
            lead_time: Duration::ZERO,
            cursor: Cursor::new(daily, at("2026-06-01T00:00:00Z")),
            suspended: None,
            active: false,
            approved: Approved::All,
            failures: 0,
            waiting: None,
        }
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            timing: &self.timing,
            duration: MINUTE * 45,
            lead_time: self.lead_time,
            cursor: &self.cursor,
            suspended: self.suspended.as_ref(),
            active: self.active,
            approved: &self.approved,
            failures: self.failures,
            waiting: self.waiting.as_ref(),
        }
    }

    /// The decisions at `now`, in short.
    fn at(&self, now: &str) -> Vec<String> {
        decide(&self.situation(), at(now)).iter().map(short).collect()
    }
}

fn short(decision: &Decision) -> String {
    let day = |at: &Timestamp| at.strftime("%d %H:%M:%S").to_string();
    match decision {
        Decision::Start { slot, load_at } => format!("{} Start at {}", day(slot), day(load_at)),
        Decision::Record { slot, outcome, detail } => format!("{} {outcome} {detail}", day(slot)).trim_end().to_owned(),
        Decision::Wait(waiting) => {
            format!(
                "{} waits until {}, else {}",
                day(&waiting.slot),
                day(&waiting.until),
                waiting.becomes
            )
        }
    }
}

#[test]
fn s27_a_slot_starts_at_its_instant_and_not_before() {
    let case = Case::new();
    assert!(case.at("2026-06-01T02:29:59.999999999Z").is_empty());
    assert_eq!(case.at("2026-06-01T02:30:00Z"), ["01 02:30:00 Start at 01 02:30:00"]);
    assert_eq!(case.cursor.due(Duration::ZERO), Some(at("2026-06-01T02:30:00Z")));
    assert_eq!(case.cursor.due(MINUTE * 12), Some(at("2026-06-01T02:18:00Z")));
}

#[test]
fn s27_a_decided_slot_is_never_decided_again() {
    let mut case = Case::new();
    case.cursor.at = at("2026-06-01T02:30:00Z");
    assert!(case.at("2026-06-01T02:30:00Z").is_empty());
    // The wall clock was set back.
    assert!(case.at("2026-06-01T01:00:00Z").is_empty());
    assert_eq!(case.at("2026-06-02T02:30:00Z"), ["02 02:30:00 Start at 02 02:30:00"]);
}

#[test]
fn s28_after_downtime_only_the_newest_slot_is_caught_up_within_its_deadline() {
    let case = Case::new();
    assert_eq!(
        case.at("2026-06-03T02:40:00Z"),
        [
            "01 02:30:00 Missed",
            "02 02:30:00 Missed",
            "03 02:30:00 Start at 03 02:40:00"
        ]
    );
    assert_eq!(
        case.at("2026-06-03T02:40:00.000000001Z"),
        ["01 02:30:00 Missed", "02 02:30:00 Missed", "03 02:30:00 Missed"]
    );
    let mut patient = Case::new();
    patient.timing.starting_deadline = MINUTE * 30;
    assert_eq!(patient.at("2026-06-01T03:00:00Z"), ["01 02:30:00 Start at 01 03:00:00"]);
    assert_eq!(patient.at("2026-06-01T03:00:01Z"), ["01 02:30:00 Missed"]);
}

#[test]
fn s28_the_deadline_counts_to_the_start_of_load() {
    let mut case = Case::new();
    case.lead_time = MINUTE * 8;
    assert_eq!(case.at("2026-06-01T02:32:00Z"), ["01 02:30:00 Start at 01 02:40:00"]);
    assert_eq!(case.at("2026-06-01T02:32:01Z"), ["01 02:30:00 Missed"]);
    // Workers take longer than the deadline: then load can only be on time or not at all.
    case.lead_time = MINUTE * 12;
    assert_eq!(case.at("2026-06-01T02:28:00Z"), ["01 02:30:00 Start at 01 02:40:00"]);
    assert_eq!(case.at("2026-06-01T02:28:01Z"), ["01 02:30:00 Missed"]);
    // Even no deadline at all leaves the ten seconds that count as on time.
    case.lead_time = Duration::ZERO;
    case.timing.starting_deadline = Duration::ZERO;
    assert_eq!(case.at("2026-06-01T02:30:10Z"), ["01 02:30:00 Start at 01 02:30:10"]);
    assert_eq!(case.at("2026-06-01T02:30:11Z"), ["01 02:30:00 Missed"]);
}

#[test]
fn s32_provisioning_begins_a_lead_time_ahead() {
    let mut case = Case::new();
    case.lead_time = MINUTE * 12;
    assert!(case.at("2026-06-01T02:17:59Z").is_empty());
    assert_eq!(case.at("2026-06-01T02:18:00Z"), ["01 02:30:00 Start at 01 02:30:00"]);
}

/// A lead time longer than the schedule's own period: each slot is decided once, in its turn.
#[test]
fn s32_slots_closer_than_the_lead_time_each_start() {
    let mut case = Case::new();
    let often = schedule("*/5 * * * *", "UTC");
    case.timing.schedule = Some(often.clone());
    case.timing.concurrency_policy = ConcurrencyPolicy::Allow;
    case.cursor = Cursor::new(often, at("2026-06-01T00:10:00Z"));
    case.lead_time = MINUTE * 12;
    assert_eq!(case.at("2026-06-01T00:03:00Z"), ["01 00:15:00 Start at 01 00:15:00"]);
    case.cursor.at = at("2026-06-01T00:15:00Z");
    assert!(case.at("2026-06-01T00:07:59Z").is_empty());
    assert_eq!(case.at("2026-06-01T00:08:00Z"), ["01 00:20:00 Start at 01 00:20:00"]);
}

#[test]
fn s26_a_suspended_plans_slots_are_skipped_up_to_its_end() {
    let mut case = Case::new();
    case.suspended = Some(Suspension {
        until: None,
        detail: "freeze".to_owned(),
    });
    assert_eq!(
        case.at("2026-06-02T02:30:00Z"),
        [
            "01 02:30:00 Skipped(Suspended) freeze",
            "02 02:30:00 Skipped(Suspended) freeze"
        ]
    );
    // A suspension that ends at the instant does not hold the slot, and one that has ended still held those before.
    case.suspended = Some(Suspension {
        until: Some(at("2026-06-02T02:30:00Z")),
        detail: "freeze".to_owned(),
    });
    assert_eq!(
        case.at("2026-06-02T02:35:00Z"),
        [
            "01 02:30:00 Skipped(Suspended) freeze",
            "02 02:30:00 Start at 02 02:35:00"
        ]
    );
}

#[test]
fn s26_a_failure_budget_stops_the_schedule() {
    let mut case = Case::new();
    case.failures = 3;
    assert_eq!(case.at("2026-06-01T02:30:00Z"), ["01 02:30:00 Start at 01 02:30:00"]);
    case.timing.failure_budget = Some(FailureBudget {
        consecutive_failures: 3,
    });
    let stopped = "Skipped(Budget) 3 runs failed in a row: the schedule is stopped";
    assert_eq!(
        case.at("2026-06-02T02:30:00Z"),
        [format!("01 02:30:00 {stopped}"), format!("02 02:30:00 {stopped}")]
    );
    case.failures = 2;
    assert_eq!(case.at("2026-06-01T02:30:00Z"), ["01 02:30:00 Start at 01 02:30:00"]);
}

#[test]
fn s26_what_fails_in_a_row() {
    let failed = EndingKind::Failed(FailedReason::Thresholds);
    let aborted = EndingKind::Aborted(AbortedReason::Rule);
    let error = EndingKind::Error(ErrorReason::Hook);
    let invalid = EndingKind::Invalid(InvalidReason::Saturated);
    for (newest_first, expected) in [
        (vec![], 0),
        (vec![EndingKind::Passed, failed], 0),
        (vec![failed, aborted, error, invalid, EndingKind::Passed, failed], 4),
        (vec![failed, EndingKind::Stopped, failed, EndingKind::Passed], 2),
        (vec![EndingKind::Stopped], 0),
    ] {
        assert_eq!(failures_in_a_row(newest_first.clone()), expected, "{newest_first:?}");
    }
}

#[test]
fn s26_a_run_that_does_not_fit_its_windows_is_skipped() {
    let mut case = Case::new();
    let night = Window {
        kind: WindowKind::Allow,
        schedule: schedule("0 2 * * *", "UTC"),
        duration: parse_duration("80m").expect("a duration"),
        reason: Some("night".to_owned()),
    };
    case.timing.windows = vec![night];
    assert_eq!(case.at("2026-06-01T02:30:00Z"), ["01 02:30:00 Start at 01 02:30:00"]);
    assert_eq!(case.at("2026-06-01T02:35:00Z"), ["01 02:30:00 Start at 01 02:35:00"]);
    // Caught up later, it would last longer than the night.
    assert_eq!(
        case.at("2026-06-01T02:35:01Z"),
        [
            "01 02:30:00 Skipped(OutsideWindow) the run lasts 45m, and the Allow window `0 2 * * *` (night) ends at 2026-06-01T03:20:00+00:00"
        ]
    );
    // What counts is when load begins, not when workers are started.
    case.lead_time = MINUTE * 40;
    assert_eq!(case.at("2026-06-01T01:50:00Z"), ["01 02:30:00 Start at 01 02:30:00"]);
}

#[test]
fn s26_not_approved_is_decided_at_the_deadline() {
    let mut case = Case::new();
    case.approved = Approved::Slots(BTreeSet::from([at("2026-06-02T02:30:00Z")]));
    let waits = decide(&case.situation(), at("2026-06-01T02:30:00Z"));
    assert_eq!(
        waits.iter().map(short).collect::<Vec<_>>(),
        ["01 02:30:00 waits until 01 02:40:00, else Skipped(NotApproved)"]
    );
    let [Decision::Wait(waiting)] = &waits[..] else {
        panic!("{waits:?}")
    };
    case.waiting = Some(waiting.clone());
    assert_eq!(
        case.at("2026-06-01T02:40:00Z"),
        ["01 02:30:00 waits until 01 02:40:00, else Skipped(NotApproved)"]
    );
    assert_eq!(
        case.at("2026-06-01T02:40:01Z"),
        ["01 02:30:00 Skipped(NotApproved) approvals are missing"]
    );
    // Given in time.
    case.approved = Approved::All;
    assert_eq!(case.at("2026-06-01T02:39:00Z"), ["01 02:30:00 Start at 01 02:39:00"]);
    // For that slot only.
    case.approved = Approved::Slots(BTreeSet::from([at("2026-06-02T02:30:00Z")]));
    assert_eq!(
        case.at("2026-06-02T02:30:00Z"),
        [
            "01 02:30:00 Skipped(NotApproved) approvals are missing",
            "02 02:30:00 Start at 02 02:30:00"
        ]
    );
}

#[test]
fn s26_forbid_skips_a_slot_whose_last_run_is_not_over() {
    let mut case = Case::new();
    case.active = true;
    assert_eq!(
        case.at("2026-06-01T02:30:00Z"),
        ["01 02:30:00 Skipped(Overlap) the run before was not over"]
    );
    // While workers could be started ahead it may still end.
    case.lead_time = MINUTE * 5;
    assert_eq!(
        case.at("2026-06-01T02:25:00Z"),
        ["01 02:30:00 waits until 01 02:30:00, else Skipped(Overlap)"]
    );
    assert_eq!(
        case.at("2026-06-01T02:30:00Z"),
        ["01 02:30:00 Skipped(Overlap) the run before was not over"]
    );
    case.active = false;
    assert_eq!(case.at("2026-06-01T02:29:00Z"), ["01 02:30:00 Start at 01 02:34:00"]);
    // With a lead time beyond the deadline, the slot is given up when load could no longer begin in time.
    case.active = true;
    case.lead_time = MINUTE * 12;
    assert_eq!(
        case.at("2026-06-01T02:18:00Z"),
        ["01 02:30:00 waits until 01 02:28:00, else Skipped(Overlap)"]
    );
    assert_eq!(
        case.at("2026-06-01T02:28:00Z"),
        ["01 02:30:00 Skipped(Overlap) the run before was not over"]
    );
}

#[test]
fn s32_replace_waits_for_the_end_of_the_old_run_until_the_deadline() {
    let mut case = Case::new();
    case.timing.concurrency_policy = ConcurrencyPolicy::Replace;
    case.active = true;
    let waits = decide(&case.situation(), at("2026-06-01T02:30:00Z"));
    assert_eq!(
        waits.iter().map(short).collect::<Vec<_>>(),
        ["01 02:30:00 waits until 01 02:40:00, else Blocked(Overlap)"]
    );
    let [Decision::Wait(waiting)] = &waits[..] else {
        panic!("{waits:?}")
    };
    case.waiting = Some(waiting.clone());
    assert_eq!(
        case.at("2026-06-01T02:40:01Z"),
        ["01 02:30:00 Blocked(Overlap) the run before is being stopped"]
    );
    case.active = false;
    assert_eq!(case.at("2026-06-01T02:36:00Z"), ["01 02:30:00 Start at 01 02:36:00"]);
    // A plan that may not start does not stop what runs.
    case.active = true;
    case.approved = Approved::Slots(BTreeSet::new());
    assert_eq!(
        case.at("2026-06-01T02:36:00Z"),
        ["01 02:30:00 waits until 01 02:40:00, else Skipped(NotApproved)"]
    );
}

#[test]
fn allow_starts_beside_the_run_before() {
    let mut case = Case::new();
    case.timing.concurrency_policy = ConcurrencyPolicy::Allow;
    case.active = true;
    assert_eq!(case.at("2026-06-01T02:30:00Z"), ["01 02:30:00 Start at 01 02:30:00"]);
}

#[test]
fn s26_what_admission_refuses_waits_if_waiting_can_help() {
    let case = Case::new();
    let slot = at("2026-06-01T02:30:00Z");
    let refused = |outcome, now| short(&case.situation().refused(slot, outcome, "2 of 4 workers", at(now)));
    let blocked = SlotOutcome::Blocked(BlockReason::NotEnoughWorkers);
    assert_eq!(
        refused(blocked, "2026-06-01T02:30:00Z"),
        "01 02:30:00 waits until 01 02:40:00, else Blocked(NotEnoughWorkers)"
    );
    assert_eq!(
        refused(blocked, "2026-06-01T02:40:00Z"),
        "01 02:30:00 Blocked(NotEnoughWorkers) 2 of 4 workers"
    );
    let budget = SlotOutcome::Skipped(SkipReason::Budget);
    assert_eq!(
        refused(budget, "2026-06-01T02:30:00Z"),
        "01 02:30:00 Skipped(Budget) 2 of 4 workers"
    );
}

#[test]
fn s26_a_year_of_missed_slots_comes_in_bounded_answers() {
    let mut case = Case::new();
    let often = schedule("* * * * *", "UTC");
    case.cursor = Cursor::new(often.clone(), at("2026-06-01T00:00:00Z"));
    case.timing.schedule = Some(often);
    let now = at("2026-06-01T00:00:00Z") + SignedDuration::from_mins(2_500);
    let mut sizes = Vec::new();
    let mut starts = 0;
    loop {
        let decisions = decide(&case.situation(), now);
        let Some(last) = decisions.last() else { break };
        starts += decisions
            .iter()
            .filter(|decision| matches!(decision, Decision::Start { .. }))
            .count();
        sizes.push(decisions.len());
        case.cursor.at = last.slot();
    }
    assert_eq!(sizes, [DECISIONS_MAX, DECISIONS_MAX, 500]);
    assert_eq!(starts, 1);
    // Exactly as many as fit: the newest of them may start.
    case.cursor.at = now - SignedDuration::from_mins(i64::try_from(DECISIONS_MAX).expect("small"));
    let decisions = decide(&case.situation(), now);
    assert_eq!(decisions.len(), DECISIONS_MAX);
    assert!(matches!(decisions.last(), Some(Decision::Start { slot, .. }) if *slot == now));
}

#[test]
fn s29_an_edited_schedule_fires_no_slot_of_the_past_and_loses_none() {
    let case = Case::new();
    let edited = schedule("0 2 * * *", "UTC");
    let now = at("2026-06-02T02:10:00Z");
    let (cursor, rows) = case.cursor.follow(&edited, None, now);
    assert_eq!(rows.iter().map(short).collect::<Vec<_>>(), ["01 02:30:00 Missed"]);
    assert_eq!(
        cursor,
        Cursor {
            schedule: edited.clone(),
            at: now
        }
    );
    assert_eq!(cursor.due(Duration::ZERO), Some(at("2026-06-03T02:00:00Z")));
    // A slot that was decided ahead stays decided.
    let mut ahead = case.cursor.clone();
    ahead.at = at("2026-06-02T02:30:00Z");
    let (cursor, rows) = ahead.follow(&edited, None, now);
    assert_eq!((cursor.at, rows), (at("2026-06-02T02:30:00Z"), Vec::new()));
    // The same schedule is no edit.
    let (same, rows) = case.cursor.follow(&case.cursor.schedule, None, now);
    assert_eq!((same, rows), (case.cursor.clone(), Vec::new()));
    // A slot that was waited for keeps its reason.
    let waiting = Waiting {
        slot: at("2026-06-01T02:30:00Z"),
        becomes: SlotOutcome::Skipped(SkipReason::NotApproved),
        detail: "approvals are missing".to_owned(),
        until: at("2026-06-01T02:40:00Z"),
    };
    let (_, rows) = case.cursor.follow(&edited, Some(&waiting), at("2026-06-01T02:35:00Z"));
    assert_eq!(
        rows.iter().map(short).collect::<Vec<_>>(),
        ["01 02:30:00 Skipped(NotApproved) approvals are missing"]
    );
}

#[test]
fn s29_an_edit_after_a_long_downtime_comes_in_bounded_answers() {
    let minutes = |minutes| at("2026-06-01T00:00:00Z") + SignedDuration::from_mins(minutes);
    let mut cursor = Cursor::new(schedule("* * * * *", "UTC"), minutes(0));
    let edited: Schedule = schedule("0 2 * * *", "UTC");
    let mut sizes = Vec::new();
    while cursor.schedule != edited {
        let (next, rows) = cursor.follow(&edited, None, minutes(2_500));
        assert!(
            rows.iter()
                .all(|row| matches!(row, Decision::Record { outcome, .. } if *outcome == MISSED))
        );
        sizes.push(rows.len());
        cursor = next;
    }
    assert_eq!(sizes, [DECISIONS_MAX, DECISIONS_MAX, 500]);
    assert_eq!(cursor.at, minutes(2_500));
}

#[test]
fn s26_late_is_more_than_ten_seconds() {
    let slot = at("2026-06-01T02:30:00Z");
    assert_eq!(began(slot, slot), SlotOutcome::Started);
    assert_eq!(began(slot, at("2026-06-01T02:30:10Z")), SlotOutcome::Started);
    assert_eq!(began(slot, at("2026-06-01T02:30:10.001Z")), SlotOutcome::Late);
}

#[test]
fn s29_clocks_more_than_five_seconds_apart_freeze() {
    let seconds = SignedDuration::from_secs;
    let apart = |ahead| Clocks::Apart { ahead };
    for (wall, monotonic, expected) in [
        (seconds(100), seconds(100), Clocks::Agree),
        (seconds(105), seconds(100), Clocks::Agree),
        (seconds(95), seconds(100), Clocks::Agree),
        (seconds(106), seconds(100), apart(seconds(6))),
        (seconds(94), seconds(100), apart(seconds(-6))),
        (seconds(-3_600), seconds(1), apart(seconds(-3_601))),
        (SignedDuration::MIN, seconds(1), apart(SignedDuration::MIN)),
    ] {
        assert_eq!(clocks(wall, monotonic), expected);
    }
}

#[test]
fn s23_what_holds_a_plan_back_longest_decides() {
    let until = |second: i64| Some(Timestamp::from_second(second).unwrap());
    let suspended = |git: Option<Option<Timestamp>>, beside: Option<Option<Timestamp>>| {
        let mut plan = crate::measure::testing::plan(&["p"]);
        plan.suspend = git.map(|until| crate::model::plan::Suspend {
            reason: "freeze".to_owned(),
            until,
            who: Some("li".to_owned()),
        });
        let beside = beside.map(|until| Suspension::by("ci", "incident", until));
        Suspension::of(&plan, beside.as_ref()).map(|suspension| suspension.detail)
    };
    let (git, beside) = ("suspended by li in git: freeze", "suspended by ci: incident");
    for (by_git, by_hand, expected) in [
        (None, None, None),
        (Some(until(5)), None, Some(git)),
        (None, Some(until(5)), Some(beside)),
        (Some(until(5)), Some(until(9)), Some(beside)),
        (Some(until(9)), Some(until(5)), Some(git)),
        (Some(None), Some(until(9)), Some(git)),
        (Some(until(9)), Some(None), Some(beside)),
    ] {
        assert_eq!(
            suspended(by_git, by_hand).as_deref(),
            expected,
            "{by_git:?} {by_hand:?}"
        );
    }
}
