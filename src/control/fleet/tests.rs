//! The fleet without a wire.

use super::door::{Bringer, Pass};
use super::offset::{EXCHANGES, KEPT};
use super::{
    Assignment, Connection, EndedWhy, Fleet, FleetError, FleetEvent, GRACE, Hello, HookOrder, MaySend, Order, Progress,
    SharedLoad, StopMode, What,
};
use crate::runtime::clock::Clock;
use jiff::Timestamp;
use muster_core::model::id::{RunId, SessionId, WorkerId};
use muster_core::model::load::{Engine, LoadPlan, Segment, SyntheticEngine};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(1));

fn fleet() -> Fleet {
    Fleet::new(5, Clock::following(Timestamp::UNIX_EPOCH))
}

fn worker(id: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(id))
}

fn session(id: u128) -> SessionId {
    SessionId(Uuid::from_u128(100 + id))
}

fn hello(id: u128, held: Option<(RunId, SessionId)>) -> Hello {
    Hello {
        worker: worker(id),
        unit: Some(format!("default.workerpool.local.{id}").parse().unwrap()),
        host: String::new(),
        address: None,
        pool: "default/WorkerPool/local".parse().unwrap(),
        version: String::new(),
        threads: 1,
        allows_commands: false,
        held,
        epoch: 5,
    }
}

fn dial(fleet: &Fleet, id: u128) -> Connection {
    fleet.connect(hello(id, None), &Pass::OWN).unwrap()
}

fn set(ids: &[u128]) -> Vec<Assignment> {
    let load = Arc::new(SharedLoad {
        plan: LoadPlan {
            run: RUN,
            plan: String::new(),
            phases: Vec::new(),
            engine: Engine::Synthetic(SyntheticEngine {
                p50: Duration::ZERO,
                p99: Duration::ZERO,
                error_rate: 0.0,
            }),
            base_urls: Vec::new(),
            data: Vec::new(),
            targets: Default::default(),
            requests_per_second: None,
        },
        files: BTreeMap::new(),
        seed: 0,
        orphan_timeout: Duration::from_secs(60),
        pool: "default/WorkerPool/local".parse().unwrap(),
        bus: None,
        bringer: Bringer::Own,
    });
    let assignment = |(index, id): (usize, &u128)| Assignment {
        worker: worker(*id),
        session: session(*id),
        segment: Segment {
            index: u32::try_from(index).unwrap(),
            count: u32::try_from(ids.len()).unwrap(),
        },
        load: load.clone(),
    };
    ids.iter().enumerate().map(assignment).collect()
}

fn words(orders: Vec<Order>) -> Vec<String> {
    let word = |order: Order| match order.what {
        What::Prepare(_) => "prepare".to_owned(),
        What::Arm { .. } => "arm".to_owned(),
        What::Commit => "commit".to_owned(),
        What::Advance { phase, .. } => format!("advance {phase}"),
        What::Pause => "pause".to_owned(),
        What::Resume => "resume".to_owned(),
        What::Stop(mode) => format!("{mode:?}"),
        What::Release => "release".to_owned(),
        What::Hook(hook) => format!("hook {}", hook.name),
    };
    orders.into_iter().map(word).collect()
}

/// What a connection is told so far.
fn told(connection: &mut Connection) -> Vec<String> {
    let mut orders = Vec::new();
    while let Some(Some(order)) = futures_util::FutureExt::now_or_never(connection.order()) {
        orders.push(order);
    }
    words(orders)
}

fn measure(connection: &mut Connection) {
    for _ in 0..EXCHANGES {
        connection.exchanged(connection.owner_us(), 0, 0);
    }
}

fn events(receiver: &mut Receiver<FleetEvent>) -> Vec<FleetEvent> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

fn lost(receiver: &mut Receiver<FleetEvent>) -> Vec<(WorkerId, Option<RunId>)> {
    let lost = |event| match event {
        FleetEvent::Lost { worker, run, .. } => Some((worker, run)),
        _ => None,
    };
    events(receiver).into_iter().filter_map(lost).collect()
}

async fn watch_for(fleet: &Fleet, time: Duration) {
    tokio::select! {
        () = fleet.watch() => {}
        () = tokio::time::sleep(time) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn s38_only_a_set_of_free_connected_workers_is_prepared() {
    let fleet = fleet();
    let _one = dial(&fleet, 1);
    let mut two = dial(&fleet, 2);
    assert_eq!(fleet.prepare(RUN, set(&[])), Err(FleetError::NotASet(RUN)));
    assert_eq!(fleet.prepare(RUN, set(&[1, 1])), Err(FleetError::NotASet(RUN)));
    assert_eq!(
        fleet.prepare(RUN, set(&[1, 3])),
        Err(FleetError::NotConnected(worker(3)))
    );
    assert_eq!(told(&mut two), Vec::<String>::new());
    fleet.prepare(RUN, set(&[1, 2])).unwrap();
    assert_eq!(told(&mut two), ["prepare"]);
    let other = RunId(Uuid::from_u128(2));
    let busy = FleetError::Busy {
        worker: worker(2),
        run: RUN,
    };
    assert_eq!(fleet.prepare(other, set(&[2])), Err(busy));
    assert_eq!(fleet.commit(other), Err(FleetError::UnknownRun(other)));
}

#[tokio::test(start_paused = true)]
async fn s38_arm_waits_until_the_clock_is_measured_and_refuses_a_bad_one() {
    let fleet = fleet();
    let (mut good, mut bad) = (dial(&fleet, 1), dial(&fleet, 2));
    fleet.prepare(RUN, set(&[1, 2])).unwrap();
    assert_eq!(
        (told(&mut good), told(&mut bad)),
        (vec!["prepare".into()], vec!["prepare".into()])
    );
    fleet.arm(RUN, 1_000).unwrap();
    assert!(told(&mut good).is_empty());
    measure(&mut good);
    assert_eq!(told(&mut good), ["arm"]);
    let mut receiver = fleet.subscribe();
    for _ in 0..KEPT {
        assert!(events(&mut receiver).is_empty(), "quicker exchanges may come");
        let sent_us = bad.owner_us();
        tokio::time::advance(Duration::from_millis(150)).await;
        bad.exchanged(sent_us, 0, 0);
    }
    assert!(told(&mut bad).is_empty());
    let events = events(&mut receiver);
    let [
        FleetEvent::Progress {
            progress: Progress::Refused(reason),
            worker: who,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        (*who, reason.as_str()),
        (worker(2), "its clock is known only to ±75 ms, more than 50 ms")
    );
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_told_on_each_connection_until_load_is_near() {
    let fleet = fleet();
    let mut first = dial(&fleet, 1);
    measure(&mut first);
    fleet.prepare(RUN, set(&[1])).unwrap();
    let order = HookOrder {
        name: "warm".to_owned(),
        words: vec!["true".to_owned()],
        env: BTreeMap::new(),
        script: None,
        timeout: Duration::from_secs(1),
    };
    fleet.hook(RUN, BTreeMap::from([(worker(1), order)])).unwrap();
    assert_eq!(told(&mut first), ["prepare", "hook warm"]);
    let mut second = dial(&fleet, 1);
    measure(&mut second);
    assert_eq!(told(&mut second), ["prepare", "hook warm", "hook warm"]);
    fleet.arm(RUN, 1_000).unwrap();
    fleet.stop(RUN, StopMode::Abort).unwrap();
    assert_eq!(told(&mut second), ["arm", "arm", "Abort"]);
    let mut third = dial(&fleet, 1);
    assert_eq!(told(&mut third), ["prepare", "Abort"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_is_told_anew_on_each_connection() {
    let fleet = fleet();
    let mut first = dial(&fleet, 1);
    measure(&mut first);
    fleet.prepare(RUN, set(&[1])).unwrap();
    fleet.arm(RUN, 1_000).unwrap();
    fleet.commit(RUN).unwrap();
    fleet.pause(RUN).unwrap();
    fleet.advance(RUN, 2, 0).unwrap();
    fleet.advance(RUN, 1, 0).unwrap();
    fleet.stop(RUN, StopMode::Abort).unwrap();
    fleet.stop(RUN, StopMode::Graceful).unwrap();
    assert_eq!(told(&mut first).last().unwrap(), "Abort");
    // A second connection of the same process ends the first.
    let mut second = dial(&fleet, 1);
    assert!(first.order().await.is_none());
    drop(first);
    assert!(fleet.workers()[0].connected);
    measure(&mut second);
    assert_eq!(
        told(&mut second),
        [
            "prepare",
            "pause",
            "Abort",
            "arm",
            "commit",
            "advance 2",
            "pause",
            "Abort"
        ]
    );
    fleet.release(RUN);
    assert_eq!(told(&mut second), ["release"]);
    assert!(!fleet.workers()[0].is_free());
    second.released(RUN);
    assert!(fleet.workers()[0].is_free());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stays_away_is_lost_once_and_one_that_returns_in_time_is_not() {
    let fleet = fleet();
    let mut receiver = fleet.subscribe();
    let (one, two) = (dial(&fleet, 1), dial(&fleet, 2));
    fleet.prepare(RUN, set(&[1, 2])).unwrap();
    drop((one, two));
    watch_for(&fleet, GRACE / 2).await;
    let _two = fleet.connect(hello(2, Some((RUN, session(2)))), &Pass::OWN).unwrap();
    watch_for(&fleet, GRACE * 3).await;
    assert_eq!(lost(&mut receiver), [(worker(1), Some(RUN))]);
    // It comes back after all, and is told what is wanted; it is not lost a second time for the same run.
    let mut late = fleet.connect(hello(1, Some((RUN, session(1)))), &Pass::OWN).unwrap();
    assert_eq!(told(&mut late), ["prepare"]);
    drop(late);
    watch_for(&fleet, GRACE * 3).await;
    assert_eq!(lost(&mut receiver), []);
    assert_eq!(fleet.workers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_came_back_as_another_process_lost_the_first_at_once() {
    let fleet = fleet();
    let mut receiver = fleet.subscribe();
    let _old = dial(&fleet, 1);
    fleet.prepare(RUN, set(&[1])).unwrap();
    let mut again = hello(9, None);
    again.unit = hello(1, None).unit;
    let _new = fleet.connect(again, &Pass::OWN).unwrap();
    assert_eq!(lost(&mut receiver), [(worker(1), Some(RUN))]);
    assert_eq!(fleet.workers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn s42_an_adopted_run_has_its_history_told_and_misses_who_does_not_come() {
    let fleet = fleet();
    let early = fleet.connect(hello(1, Some((RUN, session(1)))), &Pass::OWN).unwrap();
    assert!(early.report(RUN, 1, Progress::Prepared) && early.report(RUN, 2, Progress::Armed));
    let mut receiver = fleet.subscribe();
    fleet.adopt(RUN, set(&[1, 2])).unwrap();
    let progress = |progress| FleetEvent::Progress {
        run: RUN,
        worker: worker(1),
        progress,
    };
    assert_eq!(
        events(&mut receiver),
        [progress(Progress::Prepared), progress(Progress::Armed)]
    );
    watch_for(&fleet, GRACE * 2).await;
    assert_eq!(lost(&mut receiver), [(worker(2), Some(RUN))]);
    fleet.release(RUN);
    early.released(RUN);
    assert_eq!(fleet.commit(RUN), Err(FleetError::UnknownRun(RUN)));
}

#[tokio::test(start_paused = true)]
async fn s42_what_nobody_adopted_is_released() {
    let fleet = fleet();
    let mut early = fleet.connect(hello(1, Some((RUN, session(1)))), &Pass::OWN).unwrap();
    assert!(told(&mut early).is_empty());
    fleet.adoption_done();
    assert_eq!(told(&mut early), ["release"]);
    let mut late = fleet.connect(hello(2, Some((RUN, session(2)))), &Pass::OWN).unwrap();
    assert_eq!(told(&mut late), ["release"]);
}

#[tokio::test(start_paused = true)]
async fn milestones_are_numbered_and_impossible_ones_close_the_connection() {
    let fleet = fleet();
    let connection = dial(&fleet, 1);
    fleet.prepare(RUN, set(&[1])).unwrap();
    let mut receiver = fleet.subscribe();
    assert!(connection.report(RUN, 1, Progress::Prepared));
    assert!(connection.report(RUN, 1, Progress::Prepared), "a repeat is fine");
    assert!(!connection.report(RUN, 3, Progress::Armed), "a hole is not");
    assert!(!connection.report(RUN, 0, Progress::Armed));
    let ended = Progress::Ended {
        why: EndedWhy::Finished,
        last_sequence: 1,
        dropped_frames: 0,
    };
    assert!(connection.report(RUN, 2, ended.clone()));
    assert_eq!(events(&mut receiver).len(), 2);
    assert_eq!(fleet.progress(RUN)[&worker(1)], [Progress::Prepared, ended]);
    let other = RunId(Uuid::from_u128(2));
    assert!(
        connection.report(other, 1, Progress::Prepared),
        "released long ago: ignored"
    );
    assert_eq!(events(&mut receiver), []);
}

#[tokio::test(start_paused = true)]
async fn s25_a_worker_that_obeyed_a_later_owner_is_not_taken() {
    let fleet = fleet();
    let mut newer = hello(1, None);
    newer.epoch = 6;
    assert!(
        fleet
            .connect(newer, &Pass::OWN)
            .unwrap_err()
            .contains("epoch 5 is over")
    );
    assert!(fleet.workers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn goodbye_is_loss_at_once() {
    let fleet = fleet();
    let connection = dial(&fleet, 1);
    let mut receiver = fleet.subscribe();
    connection.goodbye("enough");
    let reason = "enough".to_owned();
    assert_eq!(
        events(&mut receiver),
        [FleetEvent::Lost {
            worker: worker(1),
            run: None,
            reason
        }]
    );
    drop(connection);
    assert!(fleet.workers().is_empty());
}

fn joined_pass(environment: &str, most: u32) -> Pass {
    Pass {
        bringer: Bringer::Joined(environment.parse().unwrap()),
        bound: Some((0, most)),
    }
}

fn by_hand(id: u128) -> Hello {
    Hello {
        unit: None,
        ..hello(id, None)
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_brings_no_more_workers_than_its_rule_says() {
    let fleet = fleet();
    let pass = joined_pass("p/Environment/far", 2);
    let one = fleet.connect(by_hand(1), &pass).unwrap();
    let _two = fleet.connect(by_hand(2), &pass).unwrap();
    let reason = fleet.connect(by_hand(3), &pass).unwrap_err();
    assert_eq!(
        reason,
        "2 workers of this token are in environment p/Environment/far; it may bring at most 2"
    );
    // The same worker on a new connection is not one more; one that is gone with nothing in hand makes room.
    let again = fleet.connect(by_hand(1), &pass).unwrap();
    drop((one, again));
    let _three = fleet.connect(by_hand(3), &pass).unwrap();
    assert!(fleet.connect(by_hand(1), &pass).is_err());
    // The daemon's own units are not of this token.
    let _own = fleet.connect(hello(4, None), &Pass::OWN).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_away_in_mid_run_keeps_its_place() {
    let fleet = fleet();
    let pass = joined_pass("p/Environment/far", 1);
    let one = fleet.connect(by_hand(1), &pass).unwrap();
    let mut assignments = set(&[1]);
    let mut load = SharedLoad::clone(&assignments[0].load);
    load.bringer = pass.bringer.clone();
    assignments[0].load = Arc::new(load);
    fleet.prepare(RUN, assignments).unwrap();
    drop(one);
    assert!(fleet.connect(by_hand(2), &pass).is_err());
    let _one = fleet.connect(by_hand(1), &pass).unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_passes_for_another_ones_worker_or_sends_or_reads_what_is_of_its_run() {
    let fleet = fleet();
    let mut own = dial(&fleet, 1);
    let digest = "sha256:1".to_owned();
    let mut assignments = set(&[1]);
    let mut load = SharedLoad::clone(&assignments[0].load);
    load.files.insert(digest.clone(), Arc::from(&b"content"[..]));
    assignments[0].load = Arc::new(load);
    let stranger = joined_pass("p/Environment/far", 9);
    assert_eq!(fleet.may_send(session(1), &stranger.bringer), MaySend::NotYet);
    fleet.adoption_done();
    fleet.prepare(RUN, assignments).unwrap();
    let reason = fleet.connect(by_hand(1), &stranger).unwrap_err();
    assert_eq!(reason, "another one's worker has this id");
    let reason = fleet.connect(hello(1, None), &stranger).unwrap_err();
    assert_eq!(reason, "another one's worker has this id");
    let mut as_unit = by_hand(2);
    as_unit.unit = hello(1, None).unit;
    let reason = fleet.connect(as_unit, &stranger).unwrap_err();
    assert_eq!(reason, "only the daemon's own workers are units");
    assert_eq!(fleet.may_send(session(1), &stranger.bringer), MaySend::No);
    assert_eq!(fleet.may_send(session(1), &Bringer::Own), MaySend::Yes);
    assert!(fleet.file(&digest, &stranger.bringer).is_none());
    assert!(fleet.file(&digest, &Bringer::Own).is_some());
    assert_eq!(fleet.pool_of(worker(1), &stranger.bringer), None);
    assert_eq!(told(&mut own), ["prepare"], "its own connection stands");
    // Also when it is away.
    drop(own);
    assert!(fleet.connect(by_hand(1), &stranger).is_err());
}
