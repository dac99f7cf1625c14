//! A run of several workers, each with its part: phases of the first few only, and data split among all of them.

use crate::support::{Outcome, Server, get, http, iterations, job, per_second, phase, plan, run, scenario, users};
use muster_core::model::id::Digest;
use muster_core::model::load::{DataFile, DataMode, Executor, LoadPlan, Phase, RepoFile, Segment};
use muster_load::{EngineError, Job, PrepareError, prepare};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(10);

fn of(workers: u32, name: &str, executor: Executor) -> Phase {
    Phase {
        workers: Some(workers),
        ..phase(name, executor, GRACE)
    }
}

fn arrivals(rate: u64, millis: u64) -> Executor {
    Executor::ConstantArrivalRate {
        rate: per_second(rate),
        duration: Duration::from_millis(millis),
        users: users(5, 50),
    }
}

fn workers(job: &Job, count: u32) -> Vec<Outcome> {
    let workers = (0..count).map(|index| {
        let mut job = job.clone();
        job.segment = Segment { index, count };
        std::thread::spawn(move || run(job))
    });
    let workers: Vec<_> = workers.collect();
    workers
        .into_iter()
        .map(|worker| worker.join().expect("a run without a panic"))
        .collect()
}

#[test]
fn s39_the_first_workers_make_a_phase_and_those_with_none_left_end() {
    let server = Server::ok();
    let plan = plan(
        &server.url(),
        http(vec![scenario(vec![get("/")])]),
        vec![
            of(1, "one", arrivals(100, 300)),
            phase("all", arrivals(100, 300), GRACE),
            of(2, "two", arrivals(100, 300)),
        ],
    );
    for threads in [1, 2] {
        let mut job = job(plan.clone());
        job.threads = threads;
        let outcomes = workers(&job, 3);
        let made = |phase: &str| -> Vec<u64> {
            outcomes
                .iter()
                .map(|outcome| outcome.of(phase, "get").requests)
                .collect()
        };
        assert_eq!(made("one"), [30, 0, 0]);
        assert_eq!(made("all"), [10, 10, 10]);
        assert_eq!(made("two"), [15, 15, 0]);
        let last = ["Started(0)", "Ended(0)", "Started(1)", "Ended(1)", "Finished"];
        assert_eq!(
            outcomes[2].events, last,
            "it idles in the first phase and has no part in the last"
        );
        assert_eq!(outcomes[1].events.len(), 7, "{:?}", outcomes[1].events);
    }
}

#[test]
fn s39_iterations_are_shared_by_the_workers_of_their_phase() {
    let server = Server::ok();
    let shared = Executor::SharedIterations {
        vus: 7,
        iterations: 101,
        max_duration: GRACE,
    };
    let plan = plan(
        &server.url(),
        http(vec![scenario(vec![get("/")])]),
        vec![of(2, "shared", shared), of(3, "each", iterations(7, 3))],
    );
    let mut job = job(plan);
    job.threads = 2;
    let outcomes = workers(&job, 4);
    let made = |phase: &str| -> Vec<u64> {
        outcomes
            .iter()
            .map(|outcome| outcome.of(phase, "").iterations)
            .collect()
    };
    assert_eq!(made("shared"), [51, 50, 0, 0]);
    assert_eq!(made("each"), [9, 6, 6, 0]);
    let arrived: u64 = outcomes.iter().map(|outcome| outcome.arrivals("shared")).sum();
    assert_eq!(arrived, 101, "in a closed phase an iteration arrives when it is begun");
    assert_eq!(
        outcomes[3].events,
        ["Finished"],
        "there was nothing for the last worker in any phase"
    );
}

#[test]
fn s61_few_workers_may_use_the_whole_bound_on_requests() {
    let server = Server::ok();
    let duration = Duration::from_secs(1);
    let mut plan = plan(
        &server.url(),
        http(vec![scenario(vec![get("/")])]),
        vec![of(1, "p", Executor::ConstantVus { vus: 5, duration })],
    );
    plan.requests_per_second = Some(100);
    let mut job = job(plan);
    job.segment = Segment { index: 0, count: 10 };
    let made = run(job).of("p", "get").requests;
    // Users that wait for their turn at the end still get it, one each.
    assert!((90..=106).contains(&made), "{made} of 100");
}

fn split(mode: DataMode, rows: u64, phases: Vec<Phase>, url: &str) -> Job {
    let csv: String = (0..rows).map(|row| format!("{row}\n")).collect();
    let csv: Arc<[u8]> = Arc::from(format!("row\n{csv}").as_bytes());
    let digest = Digest::of(&csv);
    let engine = http(vec![scenario(vec![get("/{{rows.row}}")])]);
    let plan = LoadPlan {
        data: vec![DataFile {
            name: "rows".to_owned(),
            columns: vec!["row".to_owned()],
            rows,
            mode,
            file: RepoFile {
                path: "rows.csv".to_owned(),
                digest: digest.clone(),
            },
        }],
        ..plan(url, engine, phases)
    };
    let mut job = job(plan);
    job.threads = 2;
    job.files = BTreeMap::from([(digest.to_string(), csv)]);
    job
}

/// How often each row was asked for.
fn rows(server: &Server) -> BTreeMap<u64, u64> {
    let mut rows = BTreeMap::new();
    for seen in server.seen() {
        let row = seen.path()[1..].parse().expect("a row's number");
        *rows.entry(row).or_default() += 1;
    }
    rows
}

#[test]
fn s40_split_rows_go_around_within_each_workers_block() {
    let server = Server::ok();
    let job = split(
        DataMode::Split,
        11,
        vec![phase("p", iterations(4, 11), GRACE)],
        &server.url(),
    );
    let outcomes = workers(&job, 2);
    assert_eq!(outcomes.iter().map(Outcome::requests).sum::<u64>(), 44);
    // Five rows 22 times by the first, six by the second: in order, so that no row is two ahead of another.
    let rows = rows(&server);
    assert_eq!(rows.len(), 11);
    for (row, times) in rows {
        let fair = if row < 5 { 4..=5 } else { 3..=4 };
        assert!(fair.contains(&times), "row {row}: {times}");
    }
}

#[test]
fn s40_rows_of_unique_data_are_used_once_and_their_end_is_the_end_of_the_users() {
    let closed = Executor::ConstantVus {
        vus: 6,
        duration: GRACE,
    };
    let ramping = Executor::RampingVus {
        start_vus: 6,
        stages: vec![muster_core::model::load::VuStage {
            target: 12,
            duration: GRACE,
        }],
        graceful_ramp_down: GRACE,
    };
    for executor in [closed, ramping, arrivals(2_000, 10_000), iterations(6, 1_000)] {
        let server = Server::ok();
        let phases = vec![
            phase("p", executor.clone(), GRACE),
            phase("later", arrivals(10, 10_000), GRACE),
        ];
        let begun = std::time::Instant::now();
        let outcomes = workers(&split(DataMode::Unique, 101, phases, &server.url()), 3);
        assert!(begun.elapsed() < GRACE, "the phase ends with its users");
        let name = executor.name();
        let rows = rows(&server);
        assert_eq!((rows.len(), rows.values().max()), (101, Some(&1)), "{name}");
        for outcome in outcomes {
            let made = outcome.of("p", "get");
            assert!((33..=34).contains(&made.requests), "{name}: {}", made.requests);
            assert_eq!((made.failed, made.overflow), (0, 0), "{name}: it is no error");
            assert_eq!(outcome.events, ["Started(0)", "Ended(0)", "Finished"], "{name}");
            let errors = outcome.errors();
            assert!(
                matches!(&errors[..], [(kind, _)] if kind == "dataUsedUp"),
                "{name}: {errors:?}"
            );
        }
    }
}

#[test]
fn s40_a_file_with_fewer_rows_than_workers_is_refused() {
    let mut job = split(
        DataMode::Unique,
        2,
        vec![phase("p", iterations(1, 1), GRACE)],
        "http://127.0.0.1:1",
    );
    job.segment = Segment { index: 2, count: 3 };
    let refused = prepare(job);
    assert!(matches!(refused, Err(PrepareError::Engine(EngineError::TooFewRows(_)))));
}
