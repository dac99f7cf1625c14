//! What the benchmarks share: a one-thread stub server, pinned processes, CPU time, plans, and how figures are printed.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

pub mod machine;
pub mod server;

use muster_core::measure::slice::{Second, SeriesKey, Stats};
use muster_core::model::id::{Name, RunId};
use muster_core::model::load::{
    Body, Engine, Executor, HttpEngine, HttpOptions, LoadPlan, Method, Phase, PhaseWork, Request, Scenario, Segment,
    Template, TemplatePart, Think, TlsOptions,
};
use muster_core::model::policy::TargetRules;
use muster_load::{Job, Report, prepare};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Prints one figure.
pub fn figure(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

/// The middle of some values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A job on one thread: GET / of one server by one phase.
pub fn job(server: SocketAddr, executor: Executor, think: Option<Duration>) -> Job {
    let request = Request {
        name: "root".to_owned(),
        method: Method::Get,
        url: Template {
            parts: vec![TemplatePart::Text("/".to_owned())],
        },
        headers: Vec::new(),
        body: Body::Empty,
        captures: Vec::new(),
        checks: Vec::new(),
        expect_status: Vec::new(),
        think: think.map(|pause| Think { min: pause, max: pause }),
    };
    let engine = HttpEngine {
        timeout: Duration::from_secs(60),
        options: HttpOptions {
            keep_alive: true,
            max_connections_per_vu: 1,
            follow_redirects: 10,
            tls: TlsOptions::default(),
        },
        scenarios: vec![Scenario {
            name: "default".to_owned(),
            weight: 1,
            requests: vec![request],
        }],
    };
    let plan = LoadPlan {
        run: "0190b1a0-0000-7000-8000-000000000000".parse::<RunId>().expect("a UUID"),
        plan: "default/bench".to_owned(),
        phases: vec![Phase {
            name: Name::new("load").expect("a DNS label"),
            work: PhaseWork::Load {
                executor,
                graceful_stop: Duration::from_secs(30),
            },
            workers: None,
        }],
        engine: Engine::Http(engine),
        base_urls: vec![format!("http://{server}")],
        data: Vec::new(),
        targets: TargetRules {
            allow: vec![server.ip().to_string()],
            ..TargetRules::default()
        },
        requests_per_second: None,
    };
    Job {
        plan,
        segment: Segment::WHOLE,
        files: BTreeMap::new(),
        threads: 1,
        seed: 1,
    }
}

/// What a run measured in all: its requests, and the highest generator lag of any second.
pub struct Measured {
    pub requests: Stats,
    pub arrivals: u64,
    pub worst_lag_p99: Duration,
}

/// Runs a job to its end; `each` sees every second that passed.
pub fn run(job: Job, mut each: impl FnMut(&Second)) -> Measured {
    let mut running = prepare(job).expect("a job that can be run").start(Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut measured = Measured {
        requests: Stats::default(),
        arrivals: 0,
        worst_lag_p99: Duration::ZERO,
    };
    runtime.block_on(async {
        while let Some(report) = running.next().await {
            let Report::Second(second) = report else { continue };
            let requests = second
                .entries
                .iter()
                .filter(|(key, _): &(&SeriesKey, &Stats)| !key.name.is_empty());
            requests.for_each(|(_, stats)| measured.requests.merge(stats));
            measured.arrivals += second.generator.arrivals.values().sum::<u64>();
            let lag = Duration::from_nanos(second.generator.lag_p99_ns);
            measured.worst_lag_p99 = measured.worst_lag_p99.max(lag);
            each(&second);
        }
    });
    measured
}
