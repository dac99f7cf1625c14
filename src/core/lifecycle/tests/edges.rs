//! What an event does where it is early, late, repeated or meant for somebody else, and how long each position lasts.

use super::{SECOND, Walk, failed, hook, plan, timed, worker};
use crate::lifecycle::deadline::{self, lasts};
use crate::lifecycle::effects::effects_of;
use crate::lifecycle::event::{Effect, Event, StopMode};
use crate::lifecycle::plan::PhasePlan;
use crate::lifecycle::state::Position;
use crate::model::load::OnTimeout;
use crate::model::plan::{FailurePolicy, HookWhen, OnChange};
use crate::model::run::{AbortedReason, EndingKind, ErrorReason, InvalidReason, Stage};
use std::time::Duration;

/// A run brought to a position by the ordinary way.
fn at(position: Position) -> Walk {
    let mut walk = Walk::new(plan(2));
    match position {
        Position::Provisioning => _ = walk.on(Event::Begin),
        Position::PreparingWorkers => _ = walk.claim(),
        Position::PreRun => _ = walk.claim().each(Event::Prepared),
        Position::Arming => _ = walk.claim().each(Event::Prepared).hook(0, Ok(())),
        Position::Committed => _ = walk.armed(),
        Position::Running { .. } => _ = walk.running(),
        Position::HandPause { .. } => _ = walk.running().on(Event::Pause { who: "li".to_owned() }),
        Position::Stopping(StopMode::Graceful) => _ = walk.running().on(Event::Blind),
        Position::Stopping(StopMode::Abort) => _ = walk.running().on(Event::Abort { who: "bo".to_owned() }),
        Position::Delivering => _ = walk.running().each(Event::Ended),
        Position::Sealing => _ = walk.running().each(Event::Ended).on(Event::Delivered),
        Position::VerifyHooks => _ = at_end(&mut walk),
        Position::Judging => _ = at_end(&mut walk).hook(2, Ok(())),
        Position::PostRun => _ = at_end(&mut walk).hook(2, Ok(())).on(Event::Judged(Vec::new())),
        _ => {}
    }
    assert_eq!(walk.state.position, position);
    walk
}

fn at_end(walk: &mut Walk) -> &mut Walk {
    walk.running().each(Event::Ended).on(Event::Delivered).on(Event::Sealed)
}

fn held(walk: &Walk) -> Option<EndingKind> {
    walk.state.ending.as_ref().map(|ending| ending.kind)
}

#[test]
fn a_stop_cuts_short_what_may_be_cut_short() {
    use Position::{
        Arming, Committed, Delivering, Judging, Pending, PostRun, PreRun, PreparingWorkers, Provisioning, Running,
        Sealing, Stopping, VerifyHooks,
    };
    let (graceful, abort) = (Stopping(StopMode::Graceful), Stopping(StopMode::Abort));
    let stopped = Some(EndingKind::Stopped);
    // Position, after a stop, after an abort, the ending that is held.
    let table = [
        (Pending, PostRun, PostRun, stopped),
        (Provisioning, PostRun, PostRun, stopped),
        (PreparingWorkers, PostRun, PostRun, stopped),
        (PreRun, PostRun, PostRun, stopped),
        (Arming, PostRun, PostRun, stopped),
        (Committed, graceful, abort, stopped),
        (Running { phase: 0 }, graceful, abort, stopped),
        (Position::HandPause { phase: 0 }, graceful, abort, stopped),
        (graceful, graceful, abort, stopped),
        (abort, abort, abort, stopped),
        (Delivering, Delivering, Sealing, stopped),
        (Sealing, Sealing, Sealing, stopped),
        (VerifyHooks, Judging, Judging, stopped),
        (Judging, Judging, Judging, None),
        (PostRun, PostRun, PostRun, None),
    ];
    for (from, after_stop, after_abort, ending) in table {
        let who = || "li".to_owned();
        for (event, position) in [
            (Event::Stop { who: who() }, after_stop),
            (Event::Abort { who: who() }, after_abort),
        ] {
            let mut walk = at(from);
            let since = walk.state.since;
            walk.now = walk.now.checked_add(SECOND).expect("in range");
            walk.on(event.clone());
            assert_eq!(walk.state.position, position, "{from:?} {event:?}");
            assert_eq!(held(&walk), ending, "{from:?} {event:?}");
            let again = from == position;
            assert_eq!(walk.state.since == since, again, "a deadline is not put off: {from:?}");
        }
    }
}

#[test]
fn events_of_load_mean_nothing_where_there_is_none() {
    for position in [Position::Provisioning, Position::Delivering, Position::Judging] {
        for event in [Event::Blind, Event::Breached(failed()), Event::Spoiled(failed())] {
            let mut walk = at(position);
            let before = walk.state.clone();
            assert_eq!(walk.on(event).state, before, "{position:?}");
        }
    }
    let mut walk = at(Position::PreparingWorkers);
    walk.on(Event::NoWorkers("none".to_owned()));
    assert_eq!(walk.state.position, Position::PreparingWorkers);
    let mut walk = at(Position::Provisioning);
    walk.on(Event::Claimed(vec![worker(0)]));
    assert_eq!(walk.state.position, Position::Provisioning, "the number is exact");
    walk.on(Event::NoWorkers("none".to_owned()));
    assert_eq!(held(&walk), Some(EndingKind::Error(ErrorReason::Infrastructure)));
    let mut walk = at(Position::Running { phase: 0 });
    let workers = walk.state.workers.clone();
    walk.on(Event::Claimed(vec![worker(5), worker(6)]));
    assert_eq!(
        (walk.state.position, walk.state.workers),
        (Position::Running { phase: 0 }, workers)
    );
}

#[test]
fn s35_the_forced_exit_of_each_position_says_why() {
    use EndingKind::{Aborted, Error, Invalid};
    let (post_run, abort) = (Position::PostRun, Position::Stopping(StopMode::Abort));
    let graceful = Position::Stopping(StopMode::Graceful);
    for (from, to, ending) in [
        (Position::Pending, post_run, Some(Error(ErrorReason::LostOwner))),
        (
            Position::Provisioning,
            post_run,
            Some(Error(ErrorReason::Infrastructure)),
        ),
        (Position::PreparingWorkers, post_run, Some(Error(ErrorReason::Timeout))),
        (Position::PreRun, post_run, Some(Error(ErrorReason::Timeout))),
        (Position::Arming, Position::Arming, None),
        (Position::Committed, abort, Some(Invalid(InvalidReason::Barrier))),
        (
            Position::Running { phase: 0 },
            graceful,
            Some(Error(ErrorReason::Timeout)),
        ),
        (
            Position::HandPause { phase: 0 },
            graceful,
            Some(Aborted(AbortedReason::PauseTimeout)),
        ),
        (graceful, abort, Some(Error(ErrorReason::Blind))),
        (abort, Position::Delivering, Some(EndingKind::Stopped)),
        (Position::Delivering, Position::Sealing, None),
        (Position::Sealing, post_run, Some(Error(ErrorReason::Infrastructure))),
        (
            Position::VerifyHooks,
            Position::Judging,
            Some(Error(ErrorReason::Timeout)),
        ),
        (Position::Judging, post_run, Some(Error(ErrorReason::Infrastructure))),
        (post_run, Position::Releasing, Some(Error(ErrorReason::Timeout))),
    ] {
        let mut walk = at(from);
        walk.now = walk
            .state
            .deadline
            .checked_sub(Duration::from_nanos(1))
            .expect("in range");
        assert_eq!(walk.on(Event::Tick).state.position, from, "not yet");
        walk.late();
        assert_eq!((walk.state.position, held(&walk)), (to, ending), "{from:?}");
    }
    let mut walk = at(Position::Committed);
    walk.on(Event::Started(worker(0))).late();
    let detail = walk.state.ending.expect("it ended").detail;
    assert_eq!(detail, "1 worker did not start together with the others");
}

#[test]
fn s35_how_long_each_position_may_last() {
    let mut plan = plan(1);
    plan.phases = vec![
        timed(10),
        PhasePlan::Iterations {
            at_most: SECOND * 100,
            graceful: SECOND * 7,
        },
        timed(1_000),
        PhasePlan::Pause {
            timeout: SECOND * 9,
            on_timeout: OnTimeout::Abort,
        },
        timed(20),
    ];
    plan.hooks.push(hook("later", HookWhen::PostRun));
    for (position, seconds) in [
        // Until the iterations' end, which needs a word; the longest grace; slack.
        (Position::Running { phase: 0 }, 10 + 100 + 7 + 30),
        (Position::Running { phase: 2 }, 1_000 + 7 + 30),
        (Position::Running { phase: 4 }, 20 + 7 + 30),
        (Position::PausePhase { phase: 3 }, 9),
        (Position::Stopping(StopMode::Graceful), 7 + 10),
        (Position::Stopping(StopMode::Abort), 10),
        (Position::Provisioning, 60),
        (Position::Delivering, 60 + 30),
        // Each hook's second and its slack, and slack once more.
        (Position::PreRun, 30 + 31),
        (Position::VerifyHooks, 30 + 31),
        (Position::PostRun, 3 * (30 + 31 + 31)),
    ] {
        assert_eq!(lasts(position, &plan).as_secs(), seconds, "{position:?}");
    }
    assert_eq!(lasts(Position::Committed, &plan), Duration::from_millis(2_200));
}

#[test]
fn s38_each_attempt_to_arm_gives_twice_the_time_and_ends_before_the_start() {
    let mut walk = at(Position::Arming);
    for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let start = walk.state.start_at.expect("a start is agreed on");
        assert_eq!(
            (walk.state.attempt, start.duration_since(walk.now).as_secs()),
            (attempt, seconds)
        );
        let margin = start.duration_since(walk.state.deadline);
        assert_eq!(margin.as_millis(), deadline::COMMIT_MARGIN.as_millis() as i128);
        walk.now = walk.state.deadline;
        walk.each(|worker| Event::Armed { worker, attempt });
        assert_eq!(
            walk.state.position,
            Position::Arming,
            "armed at the deadline is too late"
        );
        walk.late();
    }
    assert_eq!(held(&walk), Some(EndingKind::Invalid(InvalidReason::Barrier)));
}

#[test]
fn phases_are_timed_by_the_first_word_and_never_go_back() {
    let mut walk = at(Position::Running { phase: 0 });
    walk.now = walk.now.checked_add(SECOND).expect("in range");
    walk.on(Event::PhaseStarted {
        worker: worker(0),
        phase: 1,
    });
    let (began, since) = (walk.now, walk.state.since);
    walk.now = walk.now.checked_add(SECOND).expect("in range");
    for (worker, phase) in [(worker(1), 1), (worker(1), 0), (worker(1), 9)] {
        walk.on(Event::PhaseStarted { worker, phase });
        if phase == 9 {
            break;
        }
        assert_eq!(walk.state.position, Position::Running { phase: 1 });
        assert_eq!(walk.state.since, since, "the deadline stands");
    }
    assert_eq!(walk.state.phases[&1].began_at, began);
    assert!(!walk.state.phases.contains_key(&9));
    walk.on(Event::PhaseEnded {
        worker: worker(1),
        phase: 1,
    });
    assert_eq!(walk.state.phases[&1].ended_at, Some(walk.now));
    let mut paused = at(Position::HandPause { phase: 0 });
    for (phase, shown) in [(1, 1), (0, 1)] {
        paused.on(Event::PhaseStarted {
            worker: worker(0),
            phase,
        });
        assert_eq!(paused.state.position, Position::HandPause { phase: shown });
    }
}

#[test]
fn a_word_is_given_for_the_newest_phase_that_workers_wait_for() {
    let mut walk = at(Position::Running { phase: 0 });
    walk.on(Event::Waiting {
        worker: worker(0),
        phase: 1,
    });
    walk.on(Event::Waiting {
        worker: worker(1),
        phase: 0,
    });
    assert_eq!(walk.state.waiting_for, Some(1), "an old word");
    assert_eq!(walk.state.words, 0);
    // Who is done waits for nothing.
    walk.on(Event::Ended(worker(1)));
    assert_eq!(walk.state.words, 1);
}

#[test]
fn s43_hooks_fail_the_run_only_where_they_may_and_are_tried_three_times() {
    for (policy, ending) in [
        (FailurePolicy::Fail, EndingKind::Error(ErrorReason::Hook)),
        (FailurePolicy::Ignore, EndingKind::Passed),
    ] {
        let mut plan = plan(1);
        plan.hooks[1].idempotent = true;
        plan.hooks[1].policy = policy;
        let mut walk = Walk::new(plan);
        at_end(&mut walk).hook(2, Ok(())).on(Event::Judged(Vec::new()));
        for attempt in 1..=deadline::CLEANUP_ATTEMPTS {
            let due = [Effect::RunHook { hook: 1, attempt }];
            assert_eq!(effects_of(&walk.state, &walk.plan), due);
            walk.hook(1, Err("busy".to_owned()));
            // The word of an attempt that is over changes nothing.
            let before = walk.state.clone();
            let late = Event::HookEnded {
                hook: 1,
                attempt,
                result: Ok(()),
            };
            assert_eq!(walk.on(late).state, before);
        }
        walk.on(Event::Released).on(Event::Reported);
        assert_eq!(walk.ending(), Some(ending));
    }
    let mut plan = plan(1);
    plan.hooks[0].idempotent = true;
    plan.hooks[1].idempotent = false;
    let mut walk = Walk::new(plan);
    walk.claim().each(Event::Prepared).hook(0, Err("no".to_owned()));
    assert_eq!(walk.state.position, Position::PostRun, "PreRun is not tried again");
    walk.hook(1, Err("no".to_owned()));
    assert_eq!(walk.state.position, Position::Releasing, "nor what is not idempotent");
}

#[test]
fn s42_who_adopts_too_late_ends_what_has_not_begun_and_leaves_alone_what_is_over() {
    for (from, to) in [
        (Position::PreparingWorkers, Position::PostRun),
        (Position::Running { phase: 0 }, Position::Stopping(StopMode::Abort)),
        (Position::Delivering, Position::Delivering),
    ] {
        let mut walk = at(from);
        walk.now = walk.state.deadline.checked_add(SECOND * 61).expect("in range");
        walk.on(Event::Adopted);
        assert_eq!(walk.state.position, to, "{from:?}");
        let lost = (from != to).then_some(EndingKind::Error(ErrorReason::LostOwner));
        assert_eq!(held(&walk), lost);
    }
}

#[test]
fn workers_that_go_after_load_are_noted_only_while_their_numbers_are_awaited() {
    for (position, noted) in [(Position::Delivering, 1), (Position::Sealing, 0)] {
        let mut walk = at(position);
        walk.on(Event::Lost(worker(0), "gone".to_owned()));
        assert_eq!((walk.state.position, walk.state.lost.len()), (position, noted));
        assert_eq!(held(&walk), None);
    }
    let mut tolerant = plan(3);
    tolerant.max_lost_workers = 1;
    let mut walk = Walk::new(tolerant);
    walk.running();
    for _ in 0..2 {
        walk.on(Event::Lost(worker(0), "first".to_owned()));
    }
    assert_eq!(
        walk.state.stage(),
        Stage::Running { phase: 0 },
        "one worker, said twice"
    );
}

#[test]
fn s46_a_changed_plan_ends_what_has_not_begun_and_leaves_alone_what_is_over() {
    for (from, to) in [
        (Position::PreparingWorkers, Position::PostRun),
        (Position::Running { phase: 0 }, Position::Stopping(StopMode::Graceful)),
        (Position::Delivering, Position::Delivering),
    ] {
        let mut walk = at(from);
        walk.plan.on_change = OnChange::Abort;
        walk.on(Event::PlanChanged);
        assert_eq!(walk.state.position, to, "{from:?}");
        let aborted = (from != to).then_some(EndingKind::Aborted(AbortedReason::Change));
        assert_eq!(held(&walk), aborted);
    }
}

#[test]
fn the_first_of_equal_endings_is_told_and_the_pool_holds_workers_until_they_are_free() {
    let mut walk = at(Position::Running { phase: 0 });
    for detail in ["first", "second"] {
        let mut ending = failed();
        ending.detail = detail.to_owned();
        walk.on(Event::Spoiled(ending));
    }
    assert_eq!(
        walk.state.ending.as_ref().map(|ending| ending.detail.as_str()),
        Some("first")
    );
    for (position, demand) in [
        (Position::Pending, 0),
        (Position::Provisioning, 2),
        (Position::PostRun, 2),
    ] {
        let walk = at(position);
        assert_eq!(walk.state.demand(&walk.plan), demand, "{position:?}");
    }
    let mut over = at(Position::PostRun);
    over.hook(1, Ok(())).on(Event::Released);
    assert_eq!(over.state.demand(&over.plan), 0);
}
