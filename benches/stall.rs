//! P4: latency under stalls. A server answers nothing for a second, every ten; an open model must report what arrivals in the stall would have seen.
//!
//! `bench-stall [rate] [seconds] [users]`

use muster_bench::{figure, job, machine, run, server};
use muster_core::model::load::{Executor, Rate, Users};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let number = |index: usize, default| arguments.get(index).copied().unwrap_or(default);
    measure(number(0, 1_000), number(1, 60), number(2, 50));
}

fn measure(rate: u64, seconds: u64, users: u64) {
    machine::private_network();
    let (listener, address) = server::listen();
    let stalls: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
    let seen = stalls.clone();
    std::thread::spawn(move || {
        machine::pin(0);
        let stall = (Duration::from_secs(10), Duration::from_secs(1));
        server::serve(&listener, Some(stall), |begin, end| {
            seen.lock().expect("nobody panics").push((begin, end))
        });
    });
    machine::pin(1);
    let executor = Executor::ConstantArrivalRate {
        rate: Rate {
            iterations: rate,
            per_ms: 1_000,
        },
        duration: Duration::from_secs(seconds),
        users: Users {
            pre_allocated: users,
            max: users,
        },
    };
    let begin = Instant::now();
    let measured = run(job(address, executor, None), |_| {});
    let total = rate * seconds;
    let requests = &measured.requests;
    figure("p4_intended", total as f64, "requests");
    figure("p4_sent", requests.requests as f64, "requests");
    figure("p4_dropped", requests.overflow as f64, "requests");
    figure("p4_worst_lag_p99", measured.worst_lag_p99.as_secs_f64() * 1e3, "ms");
    let duration = requests.duration.as_ref().expect("requests were made");
    let stalls = stalls.lock().expect("nobody panics");
    let mut truth = truth(begin, rate, total, &stalls);
    truth.sort();
    for (name, quantile) in [("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)] {
        let rank = ((total as f64 * quantile).ceil() as usize).clamp(1, truth.len());
        let (truth, seen) = (
            truth[rank - 1].as_secs_f64() * 1e3,
            duration.quantile(quantile).unwrap_or(0) as f64 / 1e6,
        );
        figure(&format!("p4_{name}_truth"), truth, "ms");
        figure(&format!("p4_{name}_reported"), seen, "ms");
        figure(&format!("p4_{name}_error"), (seen / truth - 1.0) * 100.0, "%");
    }
}

/// What each arrival would have seen of a server that is infinitely fast but for its stalls: the rest of the stall it came in.
fn truth(begin: Instant, rate: u64, total: u64, stalls: &[(Instant, Instant)]) -> Vec<Duration> {
    let wait = |k: u64| {
        let at = begin + Duration::from_nanos(k * 1_000_000_000 / rate);
        let stall = stalls.iter().find(|(from, to)| (*from..*to).contains(&at));
        stall.map_or(Duration::ZERO, |(_, to)| *to - at)
    };
    (0..total).map(wait).collect()
}
