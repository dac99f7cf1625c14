//! P2: memory and CPU of virtual users that think. Measured in a process of its own: all of it counts, not only what the users hold.
//!
//! `bench-memory [users] [think seconds] [seconds]`

use muster_bench::{figure, job, machine, run, server};
use muster_core::model::load::Executor;
use std::io::Write;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["muster", address, users, think, seconds] => generate(
            address,
            [users, think, seconds].map(|word| word.parse().expect("a number")),
        ),
        _ => measure(
            number(words.first(), 2_500),
            number(words.get(1), 2),
            number(words.get(2), 30),
        ),
    }
}

fn number(word: Option<&&str>, default: u64) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(default)
}

fn serve() {
    machine::pin(0);
    let (listener, address) = server::listen();
    println!("{address}");
    std::io::stdout().flush().expect("a pipe");
    server::serve(&listener, None, |_, _| {});
}

/// Prints memory in bytes and the share of a core, both while all users are at work.
fn generate(address: &str, [users, think, seconds]: [u64; 3]) {
    machine::pin(1);
    let executor = Executor::ConstantVus {
        vus: users,
        duration: Duration::from_secs(seconds),
    };
    let mut job = job(
        address.parse().expect("an address"),
        executor,
        Some(Duration::from_secs(think)),
    );
    if let muster_core::model::load::PhaseWork::Load { graceful_stop, .. } = &mut job.plan.phases[0].work {
        *graceful_stop = Duration::ZERO;
    }
    let (mut most, mut begin, mut used) = (0, Duration::ZERO, Duration::ZERO);
    // The first seconds open connections; the last one is cut.
    let (from, to) = (think as u32 + 1, seconds as u32 - 2);
    let measured = run(job, |second| {
        most = most.max(machine::own_memory());
        if second.second == from {
            begin = machine::own_cpu();
        } else if second.second == to {
            used = machine::own_cpu() - begin;
        }
    });
    assert_eq!(measured.requests.failed, 0, "the stub answers everything");
    println!(
        "{most} {} {}",
        used.as_secs_f64() / f64::from(to - from),
        measured.requests.requests
    );
}

fn measure(users: u64, think: u64, seconds: u64) {
    machine::private_network();
    let mut helper = machine::Helper::start(machine::again(&["serve"]));
    let address = helper.first_line();
    let part = |users: u64| {
        let words = [users, think, seconds].map(|number| number.to_string());
        let (output, _) = machine::timed(machine::again(&["muster", &address, &words[0], &words[1], &words[2]]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers.len(), 3, "{text}{}", String::from_utf8_lossy(&output.stderr));
        numbers
    };
    let few = part(users / 100);
    let all = part(users);
    figure("p2_users", users as f64, "users");
    figure("p2_memory", all[0] / 1e6, "MB");
    figure(
        "p2_memory_per_user",
        (all[0] - few[0]) / (users - users / 100) as f64 / 1e3,
        "kB",
    );
    figure("p2_cpu", all[1] * 100.0, "% of a core");
    figure("p2_requests_per_second", all[2] / seconds as f64, "1/s");
}
