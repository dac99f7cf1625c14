//! The six executors against a server that counts: what is reported is what arrived, to the request.

use crate::support::{Server, get, http, iterations, job, per_second, phase, plan, run, scenario, users};
use muster_core::model::load::{Executor, RateStage, Segment, VuStage};
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(10);

fn executors() -> Vec<Executor> {
    let duration = Duration::from_millis(600);
    vec![
        Executor::ConstantVus { vus: 3, duration },
        Executor::RampingVus {
            start_vus: 1,
            stages: vec![
                VuStage { target: 6, duration },
                VuStage {
                    target: 0,
                    duration: Duration::from_millis(300),
                },
            ],
            graceful_ramp_down: GRACE,
        },
        Executor::ConstantArrivalRate {
            rate: per_second(200),
            duration,
            users: users(5, 50),
        },
        Executor::RampingArrivalRate {
            start: per_second(0),
            stages: vec![RateStage {
                target: per_second(400),
                duration,
            }],
            users: users(5, 50),
        },
        iterations(4, 25),
        Executor::SharedIterations {
            vus: 7,
            iterations: 100,
            max_duration: GRACE,
        },
    ]
}

/// How many iterations an executor makes, where that does not depend on the target.
fn expected(executor: &Executor) -> Option<u64> {
    match executor {
        Executor::ConstantVus { .. } | Executor::RampingVus { .. } => None,
        _ => Some(match executor {
            Executor::ConstantArrivalRate { .. } | Executor::RampingArrivalRate { .. } => 120,
            _ => 100,
        }),
    }
}

#[test]
fn counts_equal_the_servers_for_each_executor() {
    for executor in executors() {
        for threads in [1, 2] {
            let server = Server::ok();
            let mut job = job(plan(
                &server.url(),
                http(vec![scenario(vec![get("/")])]),
                vec![phase("p", executor.clone(), GRACE)],
            ));
            job.threads = threads;
            let outcome = run(job);
            let (requests, iterations) = (outcome.of("p", "get"), outcome.of("p", ""));
            let name = executor.name();
            assert_eq!(requests.requests, server.requests(), "{name}");
            assert_eq!(iterations.iterations, requests.requests, "{name}");
            assert_eq!(
                (iterations.interrupted, requests.overflow, requests.failed),
                (0, 0, 0),
                "{name}"
            );
            assert!(requests.requests > 0, "{name}");
            assert_eq!(
                requests.duration.as_ref().map(|histogram| histogram.count()),
                Some(requests.requests),
                "{name}"
            );
            if let Some(expected) = expected(&executor) {
                assert_eq!(requests.requests, expected, "{name} on {threads} threads");
            }
            assert_eq!(outcome.events, ["Started(0)", "Ended(0)", "Finished"], "{name}");
        }
    }
}

#[test]
fn s39_the_parts_of_all_workers_add_up_to_the_whole() {
    for executor in executors() {
        let Some(expected) = expected(&executor) else { continue };
        let total: u64 = (0..3)
            .map(|index| {
                let server = Server::ok();
                let mut job = job(plan(
                    &server.url(),
                    http(vec![scenario(vec![get("/")])]),
                    vec![phase("p", executor.clone(), GRACE)],
                ));
                job.segment = Segment { index, count: 3 };
                job.threads = 2;
                let outcome = run(job);
                assert_eq!(outcome.requests(), server.requests());
                outcome.requests()
            })
            .sum();
        assert_eq!(total, expected, "{}", executor.name());
    }
}
