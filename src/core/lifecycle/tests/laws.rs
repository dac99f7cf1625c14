//! The laws of the state machine, over random plans and events.

use super::{SECOND, Walk, hook, plan, timed, worker};
use crate::lifecycle::effects::effects_of;
use crate::lifecycle::event::{Effect, Event};
use crate::lifecycle::plan::{HookPlan, PhasePlan, RunPlan};
use crate::lifecycle::state::{Position, RunState};
use crate::lifecycle::step::step;
use crate::model::load::OnTimeout;
use crate::model::plan::{FailurePolicy, HookWhen, OnChange};
use crate::model::run::{AbortedReason, Ending, EndingKind, FailedReason, InvalidReason};
use jiff::Timestamp;
use proptest::prelude::*;

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
        prop::option::of((0_i64..200).prop_map(|second| Timestamp::from_second(second).unwrap())),
    )
        .prop_map(
            |(phases, hooks, workers, max_lost_workers, on_change, not_before)| RunPlan {
                not_before,
                phases,
                hooks,
                max_lost_workers,
                on_change,
                ..plan(workers)
            },
        )
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
    #![proptest_config(ProptestConfig::with_cases(160))]

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
