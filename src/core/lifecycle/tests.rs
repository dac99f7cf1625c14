//! The laws of the state machine, and its ways to each ending.

use super::deadline;
use super::effects::effects_of;
use super::event::{Effect, Event, StopMode, Word};
use super::plan::{HookPlan, PhasePlan, RunPlan};
use super::state::{Position, RunState};
use super::step::step;
use crate::model::id::WorkerId;
use crate::model::load::OnTimeout;
use crate::model::plan::{FailurePolicy, HookWhen, OnChange};
use crate::model::run::{AbortedReason, Ending, EndingKind, ErrorReason, FailedReason, InvalidReason, Stage};
use jiff::Timestamp;
use proptest::prelude::*;
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

fn any_plan() -> impl Strategy<Value = RunPlan> {
    let on_timeout = prop_oneof![Just(OnTimeout::Abort), Just(OnTimeout::Continue)];
    let phase = prop_oneof![
        (1_u64..100).prop_map(timed),
        (1_u64..100).prop_map(|most| PhasePlan::Iterations {
            at_most: SECOND * most as u32,
            graceful: SECOND
        }),
        on_timeout.prop_map(|on_timeout| PhasePlan::Pause {
            timeout: SECOND * 9,
            on_timeout
        }),
    ];
    let when = prop_oneof![Just(HookWhen::PreRun), Just(HookWhen::Verify), Just(HookWhen::PostRun)];
    let policy = prop_oneof![Just(FailurePolicy::Fail), Just(FailurePolicy::Ignore)];
    let hook = (when, policy, any::<bool>()).prop_map(|(when, policy, idempotent)| HookPlan {
        policy,
        idempotent,
        ..hook("h", when)
    });
    let on_change = prop_oneof![Just(OnChange::Finish), Just(OnChange::Abort)];
    (
        prop::collection::vec(phase, 1..4),
        prop::collection::vec(hook, 0..4),
        1_u32..4,
        0_u32..2,
        on_change,
    )
        .prop_map(|(phases, hooks, workers, max_lost_workers, on_change)| RunPlan {
            phases,
            hooks,
            max_lost_workers,
            on_change,
            ..plan(workers)
        })
}

fn any_event() -> impl Strategy<Value = Event> {
    let who = || "li".to_owned();
    let id = (0_u128..4).prop_map(worker);
    let ending = prop_oneof![
        Just(EndingKind::Aborted(AbortedReason::Threshold)),
        Just(EndingKind::Invalid(InvalidReason::Rule)),
        Just(EndingKind::Failed(FailedReason::Thresholds)),
    ];
    let ending = ending.prop_map(|kind| Ending {
        kind,
        detail: String::new(),
    });
    let hook_result = prop_oneof![Just(Ok(())), Just(Err("no".to_owned()))];
    prop_oneof![
        Just(Event::Begin),
        Just(Event::Tick),
        Just(Event::Adopted),
        (1_u128..5).prop_map(|count| Event::Claimed((0..count).map(worker).collect())),
        id.clone().prop_map(Event::Prepared),
        (id.clone(), 1_u32..4).prop_map(|(worker, attempt)| Event::Armed { worker, attempt }),
        id.clone().prop_map(Event::Started),
        (id.clone(), 0_u32..5).prop_map(|(worker, phase)| Event::PhaseStarted { worker, phase }),
        (id.clone(), 0_u32..5).prop_map(|(worker, phase)| Event::PhaseEnded { worker, phase }),
        (id.clone(), 0_u32..5).prop_map(|(worker, phase)| Event::Waiting { worker, phase }),
        id.clone().prop_map(Event::Ended),
        (0_u32..4, 1_u32..4, hook_result).prop_map(|(hook, attempt, result)| Event::HookEnded {
            hook,
            attempt,
            result
        }),
        prop_oneof![
            id.clone().prop_map(|worker| Event::Lost(worker, String::new())),
            id.prop_map(|worker| Event::Refused(worker, String::new())),
            Just(Event::NoWorkers(String::new())),
            Just(Event::Stop { who: who() }),
            Just(Event::Abort { who: who() }),
            ending.clone().prop_map(Event::Breached),
            Just(Event::PlanChanged),
            Just(Event::Blind),
        ],
        Just(Event::Pause { who: who() }),
        Just(Event::Resume { who: who() }),
        ending.clone().prop_map(Event::Spoiled),
        Just(Event::Delivered),
        Just(Event::Sealed),
        prop::collection::vec(ending, 0..2).prop_map(Event::Judged),
        Just(Event::Released),
        Just(Event::Reported),
    ]
}

/// Events that the state waits for, so that random walks come far.
fn helpful(state: &RunState, plan: &RunPlan) -> Vec<Event> {
    let mut events: Vec<Event> = effects_of(state, plan)
        .into_iter()
        .flat_map(|effect| match effect {
            Effect::Claim { workers } => vec![Event::Claimed((0..workers).map(|index| worker(index.into())).collect())],
            Effect::Prepare => state.workers.iter().copied().map(Event::Prepared).collect(),
            Effect::RunHook { hook, attempt } => vec![Event::HookEnded {
                hook,
                attempt,
                result: Ok(()),
            }],
            Effect::Arm { attempt, .. } => state
                .workers
                .iter()
                .map(|worker| Event::Armed {
                    worker: *worker,
                    attempt,
                })
                .collect(),
            Effect::Commit { .. } => state.workers.iter().copied().map(Event::Started).collect(),
            Effect::AwaitDelivery => vec![Event::Delivered],
            Effect::Seal => vec![Event::Sealed],
            Effect::Judge => vec![Event::Judged(Vec::new())],
            Effect::Release => vec![Event::Released],
            Effect::Report => vec![Event::Reported],
            Effect::Watch | Effect::Tell { .. } | Effect::Stop(_) => Vec::new(),
        })
        .collect();
    if state.position == Position::Pending {
        events.push(Event::Begin);
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn s35_any_events_then_deadlines_alone_lead_to_finished(
        plan in any_plan(),
        events in prop::collection::vec((any_event(), 0_u64..30, any::<bool>()), 0..60),
    ) {
        let mut walk = Walk::new(plan);
        let (mut hooks_owed, mut committed) = (true, false);
        for (event, seconds, help) in events {
            let events = if help { helpful(&walk.state, &walk.plan) } else { vec![event] };
            for event in events {
                let before = walk.state.clone();
                walk.now = walk.now.checked_add(SECOND * seconds as u32 / 10).expect("in range");
                walk.on(event);
                committed |= walk.state.position == Position::Committed;
                if before.is_finished() {
                    prop_assert_eq!(&walk.state, &before, "nothing leaves Finished");
                } else {
                    prop_assert!(walk.state.is_finished() || walk.state.deadline < Timestamp::MAX);
                    let rank = |state: &RunState| state.ending.as_ref().map_or(6, |ending| ending.kind.rank());
                    prop_assert!(rank(&walk.state) <= rank(&before), "an ending only gets stronger");
                    prop_assert!(committed || !walk.state.could_have_begun() || walk.state.load_ended_at.is_none());
                }
            }
        }
        let mut steps = 0;
        while !walk.state.is_finished() {
            let old = walk.state.deadline;
            walk.late();
            steps += 1;
            prop_assert!(steps < 40, "{:?}", walk.state);
            prop_assert!(walk.state.is_finished() || walk.state.deadline >= old);
        }
        prop_assert!(walk.state.final_ending().is_some());
        prop_assert!(walk.effects.contains(&Effect::Release), "workers are released whatever happened");
        for (hook, _) in walk.plan.hooks_at(HookWhen::PostRun).take(1) {
            hooks_owed &= walk.effects.contains(&Effect::RunHook { hook, attempt: 1 });
        }
        prop_assert!(hooks_owed, "PostRun hooks run whatever happened");
        prop_assert!(committed || !walk.effects.contains(&Effect::Seal), "what never began is not sealed");
    }

    #[test]
    fn s42_a_state_read_back_from_its_json_wants_the_same(
        plan in any_plan(),
        events in prop::collection::vec((any_event(), any::<bool>()), 0..40),
    ) {
        let mut walk = Walk::new(plan);
        for (event, help) in events {
            let events = if help { helpful(&walk.state, &walk.plan) } else { vec![event] };
            for event in events {
                let before = effects_of(&walk.state, &walk.plan);
                let (next, new) = step(&walk.state, &walk.plan, &event, walk.now);
                let mut wanted = effects_of(&next, &walk.plan);
                wanted.retain(|effect| !before.contains(effect));
                prop_assert_eq!(new, wanted);
                walk.state = next;
            }
            let text = serde_json::to_string(&walk.state).expect("it serialises");
            let read: RunState = serde_json::from_str(&text).expect("it reads back");
            prop_assert_eq!(effects_of(&read, &walk.plan), effects_of(&walk.state, &walk.plan));
            prop_assert_eq!(&read, &walk.state);
        }
    }
}
