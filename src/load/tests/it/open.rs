//! Open models and phases: what waits, what is dropped, what is cut off, who starts a phase. Counts, not times, decide.

use crate::support::{
    OK, Server, Then, get, http, iterations, job, name, per_second, phase, plan, run, run_with, scenario, users,
};
use muster_core::model::load::{
    Engine, Executor, LoadPlan, OnTimeout, Phase, PhaseWork, SyntheticEngine, Think, VuStage,
};
use muster_load::{Command, Report, StopMode};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const GRACE: Duration = Duration::from_secs(20);

fn constant_rate(rate: u64, duration: Duration, max: u64) -> Executor {
    Executor::ConstantArrivalRate {
        rate: per_second(rate),
        duration,
        users: users(max, max),
    }
}

fn one_get(url: &str, phases: Vec<Phase>) -> LoadPlan {
    plan(url, http(vec![scenario(vec![get("/")])]), phases)
}

/// A server that stops answering once, for a second, after some requests.
fn stalling(after: u64) -> Server {
    let gate = Arc::new((AtomicU64::new(0), std::sync::Mutex::new(())));
    Server::start(move |_, stream| {
        let number = gate.0.fetch_add(1, Ordering::SeqCst);
        {
            // All connections wait behind the one that stalls.
            let _turn = gate.1.lock().expect("no server thread panicked");
            if number == after {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        let _ = stream.write_all(OK);
        Then::KeepOpen
    })
}

#[test]
fn s59_a_stall_is_seen_by_all_who_should_have_been_served_in_it() {
    let server = stalling(200);
    let executor = constant_rate(400, Duration::from_secs(2), 10);
    let outcome = run(job(one_get(&server.url(), vec![phase("p", executor, GRACE)])));
    let stats = outcome.of("p", "get");
    assert_eq!((stats.requests, stats.overflow, server.requests()), (800, 0, 800));
    assert_eq!(outcome.arrivals("p"), 800);
    // About 400 arrivals fell into the stall, waiting from 1 s down to nothing: a quarter of all took over half a second's half. By the
    // service time alone only the ten users' requests were slow.
    let quantile = |histogram: Option<muster_core::measure::histogram::Histogram>, q: f64| {
        histogram.and_then(|histogram| histogram.quantile(q)).expect("samples")
    };
    assert!(quantile(stats.duration.clone(), 0.75) > 200_000_000);
    assert!(quantile(stats.duration, 0.95) > 700_000_000);
    assert!(quantile(stats.service_time, 0.90) < 200_000_000);
}

#[test]
fn s59_an_arrival_that_waits_longer_than_the_request_timeout_is_dropped_and_counted() {
    let silent = Server::start(|_, stream| {
        let _ = std::io::Read::read(stream, &mut [0]);
        Then::Close
    });
    let mut plan = one_get(
        &silent.url(),
        vec![phase("p", constant_rate(100, Duration::from_secs(1), 4), GRACE)],
    );
    if let Engine::Http(engine) = &mut plan.engine {
        engine.timeout = Duration::from_millis(250);
    }
    let outcome = run(job(plan));
    let stats = outcome.of("p", "get");
    assert_eq!(
        stats.requests + stats.overflow,
        100,
        "every intended request is sent or counted as dropped"
    );
    assert!(stats.overflow > 50, "{}", stats.overflow);
    assert_eq!(outcome.errors(), [("timeout".to_owned(), stats.requests)]);
    assert_eq!(outcome.arrivals("p"), 100);
}

#[test]
fn users_grow_to_the_most_allowed_and_no_further() {
    let server = Server::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(100));
        let _ = stream.write_all(OK);
        Then::KeepOpen
    });
    let executor = Executor::ConstantArrivalRate {
        rate: per_second(200),
        duration: Duration::from_secs(1),
        users: users(2, 15),
    };
    let outcome = run(job(one_get(&server.url(), vec![phase("p", executor, GRACE)])));
    assert_eq!(outcome.of("p", "get").requests, 200);
    assert_eq!(server.connections(), 15);
    let most = outcome.seconds.iter().map(|second| second.generator.vus_max).max();
    assert_eq!(most, Some(15));
}

#[test]
fn arrivals_left_at_the_end_of_the_graceful_stop_are_dropped_and_what_runs_is_interrupted() {
    let silent = Server::start(|_, stream| {
        let _ = std::io::Read::read(stream, &mut [0]);
        Then::Close
    });
    let executor = constant_rate(50, Duration::from_secs(1), 3);
    let outcome = run(job(one_get(
        &silent.url(),
        vec![phase("p", executor, Duration::from_millis(200))],
    )));
    let (requests, iterations) = (outcome.of("p", "get"), outcome.of("p", ""));
    assert_eq!(
        (iterations.interrupted, requests.overflow, requests.requests),
        (3, 47, 0)
    );
}

#[test]
fn the_next_phase_begins_at_the_border_and_the_old_one_ends_under_its_own_name() {
    let server = Server::start(|received, stream| {
        if received.connection == 0 {
            std::thread::sleep(Duration::from_millis(700));
        }
        let _ = stream.write_all(OK);
        Then::KeepOpen
    });
    let constant = |ms| Executor::ConstantVus {
        vus: 1,
        duration: Duration::from_millis(ms),
    };
    let phases = vec![phase("slow", constant(300), GRACE), phase("next", constant(200), GRACE)];
    let outcome = run(job(one_get(&server.url(), phases)));
    assert_eq!(
        (outcome.of("slow", "").iterations, outcome.of("slow", "").interrupted),
        (1, 0)
    );
    assert!(outcome.of("next", "get").requests > 0);
    assert_eq!(outcome.requests(), server.requests());
    assert_eq!(
        outcome.events,
        ["Started(0)", "Ended(0)", "Started(1)", "Ended(1)", "Finished"]
    );
}

#[test]
fn after_iterations_and_at_pauses_the_owner_has_the_word() {
    let server = Server::ok();
    let pause = |text| Phase {
        name: name(text),
        work: PhaseWork::Pause {
            timeout: GRACE,
            on_timeout: OnTimeout::Abort,
        },
        workers: None,
    };
    let phases = vec![
        phase("a", iterations(2, 3), GRACE),
        phase("b", iterations(2, 3), GRACE),
        pause("c"),
        phase("d", constant_rate(50, Duration::from_millis(200), 2), GRACE),
        phase("e", constant_rate(50, Duration::from_millis(200), 2), GRACE),
        pause("f"),
    ];
    let mut job = job(one_get(&server.url(), phases));
    job.threads = 2;
    let outcome = run(job);
    let expected = [
        "Started(0)",
        "Ended(0)",
        "Waiting(1)",
        "Started(1)",
        "Ended(1)",
        "Waiting(2)",
        "Started(3)",
        "Ended(3)",
        "Started(4)",
        "Ended(4)",
        "Waiting(5)",
        "Finished",
    ];
    assert_eq!(outcome.events, expected);
    assert_eq!(server.requests(), 6 + 6 + 10 + 10);
}

fn synthetic(latency: Duration, phases: Vec<Phase>) -> LoadPlan {
    LoadPlan {
        engine: Engine::Synthetic(SyntheticEngine {
            p50: latency,
            p99: latency,
            error_rate: 0.5,
        }),
        ..one_get("http://127.0.0.1:1", phases)
    }
}

#[test]
fn a_pause_freezes_the_time_of_phases_and_loses_no_arrival() {
    let plan = synthetic(
        Duration::from_millis(1),
        vec![phase("p", constant_rate(100, Duration::from_secs(2), 20), GRACE)],
    );
    let mut quiet = 0;
    let outcome = run_with(job(plan), |running, report| {
        if let Report::Second(second) = report {
            match second.second {
                0 => running.command(Command::Pause),
                3 => running.command(Command::Resume),
                _ => {}
            }
            quiet += u32::from(second.generator.arrivals.is_empty() && second.second < 4);
        }
    });
    let stats = outcome.of("p", "request");
    assert_eq!((stats.requests, stats.overflow), (200, 0));
    assert!(quiet >= 1, "{quiet}");
    assert!(outcome.seconds.len() >= 5);
}

#[test]
fn a_stop_ends_iterations_gracefully_and_an_abort_at_once() {
    for (mode, vus) in [(StopMode::Graceful, 3), (StopMode::Abort, 3)] {
        let executor = Executor::ConstantVus {
            vus,
            duration: Duration::from_secs(600),
        };
        let plan = synthetic(
            Duration::from_millis(400),
            vec![phase("p", executor, GRACE), phase("q", iterations(1, 1), GRACE)],
        );
        let stopped = AtomicBool::new(false);
        let outcome = run_with(job(plan), |running, report| {
            if matches!(report, Report::Second(_)) && !stopped.swap(true, Ordering::SeqCst) {
                running.command(Command::Stop(mode));
            }
        });
        let sum = outcome.of("p", "");
        let interrupted = if mode == StopMode::Abort { vus } else { 0 };
        assert_eq!(sum.interrupted, interrupted, "{mode:?}");
        assert_eq!(sum.iterations, outcome.of("p", "request").requests, "{mode:?}");
        assert_eq!(outcome.of("q", "").iterations, 0, "{mode:?}");
        assert_eq!(outcome.events, ["Started(0)", "Ended(0)", "Finished"], "{mode:?}");
    }
}

#[test]
fn a_user_taken_away_by_a_ramp_may_finish_within_the_graceful_ramp_down() {
    for (grace, interrupted) in [(Duration::from_secs(10), 0), (Duration::ZERO, 4)] {
        let executor = Executor::RampingVus {
            start_vus: 4,
            stages: vec![
                VuStage {
                    target: 4,
                    duration: Duration::from_millis(300),
                },
                VuStage {
                    target: 0,
                    duration: Duration::ZERO,
                },
                VuStage {
                    target: 0,
                    duration: Duration::from_secs(2),
                },
            ],
            graceful_ramp_down: grace,
        };
        let plan = synthetic(Duration::from_millis(1_000), vec![phase("p", executor, GRACE)]);
        let sum = run(job(plan)).of("p", "");
        assert_eq!((sum.iterations, sum.interrupted), (4 - interrupted, interrupted));
    }
}

#[test]
fn the_same_seed_draws_the_same_numbers() {
    let draw = |seed| {
        let executor = Executor::PerVuIterations {
            vus: 1,
            iterations: 50,
            max_duration: GRACE,
        };
        let mut plan = synthetic(Duration::from_millis(1), vec![phase("p", executor, GRACE)]);
        plan.engine = Engine::Synthetic(SyntheticEngine {
            p50: Duration::from_millis(1),
            p99: Duration::from_millis(5),
            error_rate: 0.3,
        });
        let mut job = job(plan);
        job.seed = seed;
        let stats = run(job).of("p", "request");
        (stats.duration.map(|histogram| histogram.sum_ns()), stats.failed)
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn requests_per_second_are_never_exceeded() {
    let server = Server::ok();
    let executor = Executor::ConstantVus {
        vus: 20,
        duration: Duration::from_secs(2),
    };
    let mut plan = one_get(&server.url(), vec![phase("p", executor, GRACE)]);
    plan.requests_per_second = Some(100);
    let mut job = job(plan);
    job.threads = 2;
    let outcome = run(job);
    assert_eq!(outcome.requests(), server.requests());
    // Two seconds of load, and the reservations of users that waited for their turn at its end.
    assert!((100..=230).contains(&server.requests()), "{}", server.requests());
}

#[test]
fn seconds_are_reported_also_when_nothing_happens_and_the_start_may_lie_ahead() {
    let mut thinking = get("/");
    thinking.think = Some(Think {
        min: Duration::from_millis(2_300),
        max: Duration::from_millis(2_300),
    });
    let server = Server::ok();
    let plan = plan(
        &server.url(),
        http(vec![scenario(vec![thinking])]),
        vec![phase("p", iterations(1, 1), GRACE)],
    );
    let begin = Instant::now() + Duration::from_millis(300);
    let mut running = muster_load::prepare(job(plan))
        .expect("a job that can be run")
        .start(begin);
    let counts = crate::support::runtime().block_on(async {
        let mut counts = Vec::new();
        while let Some(report) = running.next().await {
            match report {
                Report::Second(second) => counts.push(second.entries.values().map(|stats| stats.requests).sum::<u64>()),
                Report::PhaseStarted(_) => assert!(Instant::now() >= begin),
                _ => {}
            }
        }
        counts
    });
    assert_eq!(counts, [1, 0, 0]);
}
