//! The ways of the state machine to each ending.

mod edges;
mod laws;
mod simulation;

use crate::lifecycle::deadline;
use crate::lifecycle::effects::effects_of;
use crate::lifecycle::event::{Effect, Event, StopMode, Word};
use crate::lifecycle::plan::{HookPlan, PhasePlan, RunPlan};
use crate::lifecycle::state::{Position, RunState, later};
use crate::lifecycle::step::step;
use crate::model::id::WorkerId;
use crate::model::load::OnTimeout;
use crate::model::plan::{FailurePolicy, HookWhen, OnChange};
use crate::model::run::{AbortedReason, Ending, EndingKind, ErrorReason, FailedReason, InvalidReason, Stage};
use jiff::Timestamp;
use std::time::Duration;
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

fn worker(index: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(index + 1))
}

fn hook(name: &str, when: HookWhen) -> HookPlan {
    HookPlan {
        name: name.to_owned(),
        when,
        timeout: SECOND,
        policy: FailurePolicy::Fail,
        idempotent: false,
    }
}

fn timed(seconds: u64) -> PhasePlan {
    PhasePlan::Timed {
        lasts: SECOND * seconds as u32,
        graceful: SECOND * 5,
    }
}

fn plan(workers: u32) -> RunPlan {
    RunPlan {
        phases: vec![timed(10), timed(10)],
        hooks: vec![
            hook("before", HookWhen::PreRun),
            hook("after", HookWhen::PostRun),
            hook("check", HookWhen::Verify),
        ],
        workers,
        ready_timeout: SECOND * 60,
        orphan_timeout: SECOND * 60,
        max_lost_workers: 0,
        on_change: OnChange::Finish,
        not_before: None,
    }
}

/// Walks a run through events, remembering every effect.
struct Walk {
    plan: RunPlan,
    state: RunState,
    now: Timestamp,
    effects: Vec<Effect>,
}

impl Walk {
    fn new(plan: RunPlan) -> Self {
        let now = Timestamp::UNIX_EPOCH;
        Self {
            plan,
            state: RunState::new(now),
            now,
            effects: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) -> &mut Self {
        let (state, effects) = step(&self.state, &self.plan, &event, self.now);
        self.state = state;
        self.effects.extend(effects);
        self
    }

    fn each(&mut self, event: impl Fn(WorkerId) -> Event) -> &mut Self {
        for worker in self.state.workers.clone() {
            self.on(event(worker));
        }
        self
    }

    fn hook(&mut self, hook: u32, result: Result<(), String>) -> &mut Self {
        let attempt = self.state.hooks.get(&hook).map_or(1, |outcome| outcome.attempts + 1);
        self.on(Event::HookEnded { hook, attempt, result })
    }

    fn late(&mut self) -> &mut Self {
        self.now = self.state.deadline;
        self.on(Event::Tick)
    }

    fn claim(&mut self) -> &mut Self {
        let workers = (0..self.plan.workers).map(|index| worker(index.into())).collect();
        self.on(Event::Begin).on(Event::Claimed(workers))
    }

    fn armed(&mut self) -> &mut Self {
        self.claim().each(Event::Prepared).hook(0, Ok(()));
        let attempt = self.state.attempt;
        self.each(|worker| Event::Armed { worker, attempt })
    }

    fn running(&mut self) -> &mut Self {
        self.armed().each(Event::Started)
    }

    /// Brings a run whose load is over to its end.
    fn finish(&mut self, verdict: Vec<Ending>) -> &mut Self {
        self.on(Event::Delivered).on(Event::Sealed);
        if self.state.position == Position::VerifyHooks {
            self.hook(2, Ok(()));
        }
        self.on(Event::Judged(verdict))
            .hook(1, Ok(()))
            .on(Event::Released)
            .on(Event::Reported)
    }

    fn ending(&self) -> Option<EndingKind> {
        self.state.final_ending().map(|ending| ending.kind)
    }
}

fn failed() -> Ending {
    Ending {
        kind: EndingKind::Failed(FailedReason::Thresholds),
        detail: "p(95)<1ms".to_owned(),
    }
}

#[test]
fn s35_a_run_goes_through_its_stages_in_order() {
    let mut walk = Walk::new(plan(2));
    assert_eq!(walk.state.stage(), Stage::Pending);
    assert_eq!(walk.claim().state.stage(), Stage::Preparing);
    walk.each(Event::Prepared).hook(0, Ok(()));
    assert_eq!(walk.state.stage(), Stage::Ready);
    walk.each(|worker| Event::Armed { worker, attempt: 1 })
        .each(Event::Started);
    assert_eq!(walk.state.stage(), Stage::Running { phase: 0 });
    walk.each(|worker| Event::PhaseStarted { worker, phase: 1 });
    assert_eq!(walk.state.stage(), Stage::Running { phase: 1 });
    assert_eq!(walk.each(Event::Ended).state.stage(), Stage::Draining);
    assert_eq!(
        walk.on(Event::Delivered).on(Event::Sealed).state.stage(),
        Stage::Verifying
    );
    assert_eq!(
        walk.hook(2, Ok(())).on(Event::Judged(Vec::new())).state.stage(),
        Stage::CleaningUp
    );
    walk.hook(1, Ok(())).on(Event::Released).on(Event::Reported);
    assert_eq!(walk.ending(), Some(EndingKind::Passed));
    let words: Vec<_> = walk.effects.iter().map(|effect| format!("{effect:?}")).collect();
    let order = [
        "Claim",
        "Prepare",
        "RunHook",
        "Arm",
        "Commit",
        "Watch",
        "AwaitDelivery",
        "Seal",
        "RunHook",
        "Judge",
        "RunHook",
        "Release",
        "Report",
    ];
    assert_eq!(words.len(), order.len(), "{words:?}");
    assert!(
        words.iter().zip(order).all(|(word, wanted)| word.starts_with(wanted)),
        "{words:?}"
    );
}

#[test]
fn s32_workers_that_are_ready_early_begin_at_the_slots_instant() {
    let slot = later(Timestamp::UNIX_EPOCH, SECOND * 90);
    let mut early = Walk::new(RunPlan {
        not_before: Some(slot),
        ..plan(2)
    });
    early.now = later(early.now, SECOND * 30);
    early.claim().each(Event::Prepared).hook(0, Ok(()));
    assert_eq!(
        (early.state.position, early.state.stage()),
        (Position::Holding, Stage::Ready)
    );
    assert!(early.state.start_at.is_none(), "nobody is armed yet");
    early.late();
    assert_eq!(
        (early.state.position, early.state.start_at),
        (Position::Arming, Some(slot))
    );
    assert!(early.now < slot);
    // The first attempt failed: the next instant is as soon as it can be.
    early.late();
    assert!(early.state.start_at.is_some_and(|at| at > slot));
    // Late already: nothing is waited for.
    let mut late = Walk::new(early.plan.clone());
    late.now = later(slot, SECOND * 5);
    late.claim().each(Event::Prepared).hook(0, Ok(()));
    assert_eq!(late.state.start_at, Some(later(late.now, deadline::ARM_LEAD)));
    // A daemon that takes over in between goes on waiting, and a stop does not wait.
    let mut adopted = Walk::new(early.plan.clone());
    adopted.claim().each(Event::Prepared).hook(0, Ok(())).on(Event::Adopted);
    assert_eq!(adopted.state.position, Position::Holding);
    assert_eq!(adopted.state.deadline, slot - SECOND * 2);
    adopted.on(Event::Stop { who: "li".to_owned() });
    assert_eq!(adopted.state.position, Position::PostRun);
}

#[test]
fn s38_no_commit_before_all_of_the_exact_set_are_armed_and_none_without_it() {
    let mut walk = Walk::new(plan(2));
    walk.claim();
    walk.on(Event::Prepared(worker(0))).on(Event::Prepared(worker(9)));
    assert_eq!(
        walk.state.position,
        Position::PreparingWorkers,
        "a stranger does not count"
    );
    walk.on(Event::Prepared(worker(1))).hook(0, Ok(()));
    walk.on(Event::Armed {
        worker: worker(0),
        attempt: 1,
    });
    assert_eq!(walk.state.position, Position::Arming);
    walk.late();
    assert_eq!(
        (walk.state.position, walk.state.attempt),
        (Position::Arming, 2),
        "too late for that start: a later one"
    );
    walk.on(Event::Armed {
        worker: worker(1),
        attempt: 1,
    });
    assert!(
        walk.state.armed.is_empty(),
        "an answer to the old attempt does not count"
    );
    while walk.state.position == Position::Arming {
        walk.late();
    }
    assert_eq!(walk.state.attempt, deadline::ARM_ATTEMPTS);
    assert!(
        !walk
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Commit { .. }))
    );
    walk.hook(1, Ok(())).on(Event::Released).on(Event::Reported);
    assert_eq!(walk.ending(), Some(EndingKind::Invalid(InvalidReason::Barrier)));
}

#[test]
fn s38_a_worker_that_does_not_start_with_the_others_makes_the_run_invalid() {
    let mut walk = Walk::new(plan(2));
    walk.armed().on(Event::Started(worker(0)));
    let start = walk.state.start_at.expect("armed");
    assert_eq!(walk.state.deadline.duration_since(start).as_secs(), 2);
    walk.late();
    assert_eq!(walk.state.position, Position::Stopping(StopMode::Abort));
    walk.each(Event::Ended).finish(Vec::new());
    assert_eq!(walk.ending(), Some(EndingKind::Invalid(InvalidReason::Barrier)));
}

type Way = fn(&mut Walk);

fn ends(wanted: EndingKind, way: impl Fn(&mut Walk)) {
    let mut walk = Walk::new(plan(2));
    way(&mut walk);
    assert_eq!(walk.ending(), Some(wanted), "{:?}", walk.state);
    let post_run = Effect::RunHook { hook: 1, attempt: 1 };
    assert!(
        walk.effects.contains(&post_run),
        "PostRun hooks run whatever the ending"
    );
}

#[test]
fn s36_each_ending_of_load_is_reached() {
    use EndingKind::{Aborted, Error, Invalid, Stopped};
    let ending = |kind| Ending {
        kind,
        detail: String::new(),
    };
    let breaches = [
        AbortedReason::Rule,
        AbortedReason::Threshold,
        AbortedReason::AutoStop,
        AbortedReason::Limit,
    ];
    let mut cases: Vec<(EndingKind, Event)> = breaches
        .into_iter()
        .map(|reason| (Aborted(reason), Event::Breached(ending(Aborted(reason)))))
        .collect();
    let who = || "li".to_owned();
    let spoiled = Invalid(InvalidReason::Rule);
    cases.extend([
        (Stopped, Event::Stop { who: who() }),
        (Stopped, Event::Abort { who: who() }),
        (
            Invalid(InvalidReason::Workers),
            Event::Lost(worker(0), "gone".to_owned()),
        ),
        (spoiled, Event::Spoiled(ending(spoiled))),
        (Error(ErrorReason::Blind), Event::Blind),
    ]);
    for (wanted, event) in cases {
        ends(wanted, |walk| {
            walk.running().on(event.clone()).each(Event::Ended).finish(Vec::new());
        });
    }
}

#[test]
fn s36_each_ending_around_load_is_reached() {
    use EndingKind::{Error, Failed, Passed};
    let no = || Err("no".to_owned());
    ends(Passed, |walk| {
        walk.running().each(Event::Ended).finish(Vec::new());
    });
    ends(Failed(FailedReason::Thresholds), |walk| {
        walk.running().each(Event::Ended).finish(vec![failed()]);
    });
    ends(Failed(FailedReason::Verify), |walk| {
        walk.running().each(Event::Ended).on(Event::Delivered).on(Event::Sealed);
        walk.hook(2, no()).finish(Vec::new());
    });
    ends(Error(ErrorReason::Timeout), |walk| {
        walk.running().late().each(Event::Ended).finish(Vec::new());
    });
    let infrastructure: [Way; 2] = [
        |walk| _ = walk.on(Event::Begin).late().finish(Vec::new()),
        |walk| {
            _ = walk
                .claim()
                .on(Event::Lost(worker(1), String::new()))
                .finish(Vec::new())
        },
    ];
    for way in infrastructure {
        ends(Error(ErrorReason::Infrastructure), way);
    }
    ends(Error(ErrorReason::Engine), |walk| {
        walk.claim()
            .on(Event::Refused(worker(1), String::new()))
            .finish(Vec::new());
    });
    ends(Error(ErrorReason::Hook), |walk| {
        walk.claim().each(Event::Prepared).hook(0, no()).finish(Vec::new());
    });
}

#[test]
fn s36_the_stronger_ending_wins_whatever_came_first() {
    let stop = || Event::Stop { who: "li".to_owned() };
    let mut walk = Walk::new(plan(1));
    walk.running()
        .each(Event::Ended)
        .on(Event::Delivered)
        .on(Event::Sealed)
        .hook(2, Ok(()));
    walk.on(Event::Judged(vec![failed()]))
        .on(stop())
        .hook(1, Ok(()))
        .on(stop());
    walk.on(Event::Released).on(Event::Reported);
    assert_eq!(
        walk.ending(),
        Some(EndingKind::Failed(FailedReason::Thresholds)),
        "judged before the stop"
    );
    let mut walk = Walk::new(plan(2));
    walk.running().on(Event::Lost(worker(0), String::new()));
    walk.on(Event::Abort { who: "li".to_owned() }).each(Event::Ended);
    walk.finish(vec![failed()]);
    assert_eq!(walk.ending(), Some(EndingKind::Stopped));
}

#[test]
fn s43_post_run_hooks_are_retried_only_when_idempotent() {
    let mut plan = plan(1);
    plan.hooks[1].idempotent = true;
    let mut walk = Walk::new(plan);
    walk.running()
        .each(Event::Ended)
        .on(Event::Delivered)
        .on(Event::Sealed)
        .hook(2, Ok(()));
    walk.on(Event::Judged(Vec::new()));
    walk.hook(1, Err("busy".to_owned()));
    assert_eq!(
        effects_of(&walk.state, &walk.plan),
        [Effect::RunHook { hook: 1, attempt: 2 }]
    );
    walk.hook(1, Ok(())).on(Event::Released).on(Event::Reported);
    assert_eq!(walk.ending(), Some(EndingKind::Passed));
}

#[test]
fn s46_a_changed_plan_ends_a_run_only_where_it_says_so() {
    let mut walk = Walk::new(plan(1));
    walk.running().on(Event::PlanChanged);
    assert_eq!(
        (walk.state.stage(), walk.state.plan_changed),
        (Stage::Running { phase: 0 }, true)
    );
    let mut abort = plan(1);
    abort.on_change = OnChange::Abort;
    let mut walk = Walk::new(abort);
    walk.running()
        .on(Event::PlanChanged)
        .each(Event::Ended)
        .finish(Vec::new());
    assert_eq!(walk.ending(), Some(EndingKind::Aborted(AbortedReason::Change)));
}

#[test]
fn pause_phases_wait_for_all_workers_and_a_person() {
    let mut with_pause = plan(2);
    let pause = |on_timeout| PhasePlan::Pause {
        timeout: SECOND * 60,
        on_timeout,
    };
    with_pause.phases = vec![
        timed(10),
        pause(OnTimeout::Continue),
        pause(OnTimeout::Abort),
        timed(10),
    ];
    let mut walk = Walk::new(with_pause);
    walk.running().on(Event::Waiting {
        worker: worker(0),
        phase: 1,
    });
    assert_eq!(walk.state.position, Position::Running { phase: 0 });
    walk.on(Event::Waiting {
        worker: worker(1),
        phase: 1,
    });
    assert_eq!(walk.state.stage(), Stage::Paused { phase: 1 });
    walk.late();
    assert_eq!(
        walk.state.position,
        Position::PausePhase { phase: 2 },
        "one pause after another"
    );
    let mut nobody = Walk {
        plan: walk.plan.clone(),
        state: walk.state.clone(),
        now: walk.now,
        effects: Vec::new(),
    };
    walk.on(Event::Resume { who: "li".to_owned() });
    assert_eq!(
        walk.effects.last(),
        Some(&Effect::Tell {
            number: 1,
            word: Word::Advance { phase: 3 }
        })
    );
    assert_eq!(walk.state.stage(), Stage::Running { phase: 3 });
    nobody.late().each(Event::Ended).finish(Vec::new());
    assert_eq!(nobody.ending(), Some(EndingKind::Aborted(AbortedReason::PauseTimeout)));
}

#[test]
fn phases_that_end_by_iterations_go_on_together() {
    let mut by_iterations = plan(2);
    by_iterations.phases[0] = PhasePlan::Iterations {
        at_most: SECOND * 600,
        graceful: SECOND,
    };
    let mut walk = Walk::new(by_iterations);
    walk.running().each(|worker| Event::Waiting { worker, phase: 1 });
    assert_eq!(
        walk.effects.last(),
        Some(&Effect::Tell {
            number: 1,
            word: Word::Advance { phase: 1 }
        })
    );
}

#[test]
fn s36_a_pause_by_hand_lasts_at_most_30_minutes() {
    let mut walk = Walk::new(plan(1));
    walk.running().on(Event::Pause { who: "li".to_owned() });
    assert_eq!(walk.state.stage(), Stage::Paused { phase: 0 });
    assert_eq!(walk.state.deadline.duration_since(walk.now).as_secs(), 30 * 60);
    walk.on(Event::Resume { who: "li".to_owned() })
        .on(Event::Pause { who: "li".to_owned() });
    let told: Vec<_> = walk
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Tell { .. }))
        .collect();
    assert_eq!(told.len(), 3, "{told:?}");
    walk.late().each(Event::Ended).finish(Vec::new());
    assert_eq!(walk.ending(), Some(EndingKind::Aborted(AbortedReason::PauseTimeout)));
}

#[test]
fn s42_a_run_adopted_in_time_goes_on_and_one_adopted_too_late_is_ended() {
    let mut walk = Walk::new(plan(1));
    walk.armed();
    walk.now = walk.state.deadline.checked_add(SECOND * 20).expect("in range");
    walk.on(Event::Adopted).on(Event::Tick);
    assert_eq!(
        walk.state.position,
        Position::Committed,
        "workers get time to dial in again"
    );
    walk.each(Event::Started);
    let mut late = Walk {
        plan: walk.plan.clone(),
        state: walk.state.clone(),
        now: walk.now,
        effects: Vec::new(),
    };
    walk.on(Event::Adopted).each(Event::Ended).finish(Vec::new());
    assert_eq!(walk.ending(), Some(EndingKind::Passed));
    late.now = late.state.deadline.checked_add(SECOND * 61).expect("in range");
    late.on(Event::Adopted).each(Event::Ended).finish(Vec::new());
    assert_eq!(late.ending(), Some(EndingKind::Error(ErrorReason::LostOwner)));
}

#[test]
fn s42_a_commit_that_perhaps_nobody_heard_of_is_agreed_on_anew() {
    let mut walk = Walk::new(plan(2));
    walk.armed().on(Event::Adopted);
    assert_eq!(
        effects_of(&walk.state, &walk.plan),
        [],
        "another commit would start workers alone"
    );
    walk.late();
    assert_eq!((walk.state.position, walk.state.attempt), (Position::Arming, 2));
    walk.each(|worker| Event::Armed { worker, attempt: 2 });
    assert_eq!(effects_of(&walk.state, &walk.plan), [Effect::Commit { attempt: 2 }]);
    let mut heard = Walk::new(plan(2));
    heard.armed().on(Event::Adopted).on(Event::Started(worker(0))).late();
    assert_eq!(heard.state.position, Position::Stopping(StopMode::Abort));
}

#[test]
fn s37_lost_workers_up_to_the_bound_do_not_end_the_run() {
    let mut tolerant = plan(3);
    tolerant.max_lost_workers = 1;
    let mut walk = Walk::new(tolerant);
    walk.running().on(Event::Lost(worker(0), String::new()));
    assert_eq!(walk.state.stage(), Stage::Running { phase: 0 });
    walk.on(Event::Lost(worker(1), String::new()));
    assert_eq!(walk.state.position, Position::Stopping(StopMode::Graceful));
    walk.each(Event::Ended).finish(Vec::new());
    assert_eq!(walk.ending(), Some(EndingKind::Invalid(InvalidReason::Workers)));
}
