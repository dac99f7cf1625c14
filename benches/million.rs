//! P3: how many virtual users one process holds, each on a connection of its own.
//!
//! The limit on open files is a descriptor table's, so users are spread over as many tables as they need: each is a thread's that has one of its own and runs a
//! part of the job there, as one worker of many would. The server is another process, made the same way. Sources and targets lie in 127.0.0.0/8.
//!
//! `bench-million [users] [think seconds] [seconds to hold them]`

use muster_bench::{figure, job, machine, run, server};
use muster_core::measure::slice::Stats;
use muster_core::model::load::{Executor, PhaseWork, Segment, VuStage};
use muster_load::Job;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many users begin per second: less than one core can open, so that a second's answers come within the second.
const USERS_PER_SECOND: u64 = 15_000;
/// Descriptors of a table that are not connections: the standard ones, runtimes, listeners.
const OTHER_FILES: u64 = 500;
/// Connections to one address and port. There are 28,232 local ports; the fewer are free, the longer the kernel looks for one.
const PER_ADDRESS: u64 = 7_000;
/// How often the kernel is asked how many connections are open.
const LOOK: Duration = Duration::from_millis(100);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default| {
        arguments
            .get(index)
            .and_then(|word| word.parse().ok())
            .unwrap_or(default)
    };
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(number(1, 1)),
        Some("muster") => {
            let ports: Vec<u16> = arguments[4..].iter().filter_map(|word| word.parse().ok()).collect();
            generate(
                number(1, 0),
                [number(2, 0), number(3, 0)].map(Duration::from_secs),
                &ports,
            );
        }
        _ => measure([number(0, 1_000_000), number(1, 60), number(2, 90)]),
    }
}

fn measure([users, think, hold]: [u64; 3]) {
    machine::private_network();
    let tables = users.div_ceil(machine::open_files() - OTHER_FILES);
    let mut helper = machine::Helper::start(machine::again(&["serve", &tables.to_string()]));
    let ports = helper.first_line();
    let numbers = [users, think, hold].map(|number| number.to_string());
    let mut generator = machine::again(&["muster"]);
    generator.args(numbers).args(ports.split(' '));
    let ended = generator.status().expect("a program that can be started");
    assert!(ended.success(), "the generator ended with {ended}");
}

/// One thread per table, each with a port of its own on every address.
fn serve(tables: u64) {
    machine::pin(0);
    machine::open_files();
    let (sender, ports) = channel();
    for _ in 0..tables {
        let sender = sender.clone();
        std::thread::spawn(move || {
            machine::own_descriptors();
            let (listener, address) = server::listen_on(Ipv4Addr::UNSPECIFIED);
            sender.send(address.port().to_string()).expect("the main thread waits");
            server::serve(&listener, None, |_, _| {});
        });
    }
    let ports: Vec<String> = ports.iter().take(tables as usize).collect();
    println!("{}", ports.join(" "));
    std::io::stdout().flush().expect("a pipe");
    loop {
        std::thread::park();
    }
}

/// A second of one table: its number and its requests.
type TableSecond = (u32, u64);

fn generate(users: u64, [think, hold]: [Duration; 2], ports: &[u16]) {
    machine::pin(1);
    machine::open_files();
    let ramp = Duration::from_secs(users.div_ceil(USERS_PER_SECOND));
    // The first runtime of a process opens what all later ones use, by number: it must stand before a thread takes a table of its own.
    let _first = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let begin = Instant::now();
    let (sender, seconds) = channel();
    let tables: Vec<JoinHandle<Stats>> = (0..ports.len() as u32)
        .map(|index| {
            let mut job = whole(users, [think, ramp, hold], ports);
            job.segment = Segment {
                index,
                count: ports.len() as u32,
            };
            let sender = sender.clone();
            std::thread::spawn(move || table(job, &sender))
        })
        .collect();
    drop(sender);
    let held = watch(
        &seconds,
        users,
        ports.len() as u64,
        begin,
        (ramp + hold).as_secs() as u32,
    );
    let mut all = Stats::default();
    for table in tables {
        all.merge(&table.join().expect("a table's thread does not panic"));
    }
    figure("p3_users", users as f64, "users");
    figure("p3_tables", ports.len() as f64, "descriptor tables");
    figure("p3_open_connections", held.open as f64, "connections");
    figure(
        "p3_seconds_to_open",
        held.opened.map_or(f64::NAN, |at| (at - begin).as_secs_f64()),
        "s",
    );
    figure("p3_cpu_to_open", held.cpu_to_open.as_secs_f64(), "s");
    figure("p3_requests", all.requests as f64, "requests");
    figure("p3_errors", all.failed as f64, "requests");
    for (kind, error) in &all.errors {
        eprintln!("{} times {}: {}", error.count, kind.as_str(), error.sample);
    }
    figure("p3_memory", held.memory as f64 / 1e6, "MB");
    figure("p3_memory_per_user", held.memory as f64 / users as f64 / 1e3, "kB");
    figure("p3_requests_per_second", held.rate, "1/s");
    figure("p3_cpu", held.cpu * 100.0, "% of a core");
    let p99 = all
        .duration
        .as_ref()
        .and_then(|duration| duration.quantile(0.99))
        .unwrap_or(0);
    figure("p3_p99", p99 as f64 / 1e6, "ms");
}

/// What all tables do together: users come one after another and stay, each with a request, a pause, a request, and so on.
fn whole(users: u64, [think, ramp, hold]: [Duration; 3], ports: &[u16]) -> Job {
    let stages = [ramp, hold].map(|duration| VuStage {
        target: users,
        duration,
    });
    let executor = Executor::RampingVus {
        start_vus: 0,
        stages: stages.to_vec(),
        graceful_ramp_down: Duration::ZERO,
    };
    let mut job = job(SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0])), executor, Some(think));
    let addresses = users.div_ceil(ports.len() as u64).div_ceil(PER_ADDRESS);
    let urls =
        (0..addresses as u8).flat_map(|net| ports.iter().map(move |port| format!("http://127.0.{net}.1:{port}")));
    job.plan.base_urls = urls.collect();
    job.plan.targets.allow = vec!["127.0.0.0/8".to_owned()];
    if let PhaseWork::Load { graceful_stop, .. } = &mut job.plan.phases[0].work {
        *graceful_stop = Duration::ZERO;
    }
    job
}

/// Runs a part of the job where its descriptors are its own.
fn table(job: Job, seconds: &Sender<TableSecond>) -> Stats {
    machine::own_descriptors();
    let each = |second: &muster_core::measure::slice::Second| {
        let requests = second.entries.values().map(|stats| stats.requests).sum();
        seconds
            .send((second.second, requests))
            .expect("the main thread listens");
    };
    run(job, each).requests
}

/// What was seen while all users were there.
struct Held {
    opened: Option<Instant>,
    /// CPU time until then.
    cpu_to_open: Duration,
    /// Fewest connections.
    open: u64,
    /// Most memory, in bytes.
    memory: u64,
    /// Requests per second.
    rate: f64,
    /// Cores.
    cpu: f64,
}

/// Looks at the kernel's count of connections, at memory and CPU, until every table has told a second shortly before the last, which is cut.
fn watch(seconds: &Receiver<TableSecond>, users: u64, tables: u64, begin: Instant, last: u32) -> Held {
    let mut held = Held {
        opened: None,
        cpu_to_open: Duration::ZERO,
        open: 0,
        memory: 0,
        rate: 0.0,
        cpu: 0.0,
    };
    let (mut from, to) = (u32::MAX, last.saturating_sub(2));
    let (mut requests, mut told) = (0, 0);
    let mut looked = begin;
    loop {
        match seconds.recv_timeout(LOOK) {
            Ok((second, made)) if (from..to).contains(&second) => requests += made,
            Ok((second, _)) if second == to => told += 1,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if told == tables {
            break;
        }
        if looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        // Both ends of a connection are here, and the server's listeners.
        let open = machine::tcp_sockets().saturating_sub(tables) / 2;
        held.memory = held.memory.max(machine::own_memory());
        if held.opened.is_some() {
            held.open = held.open.min(open);
        } else {
            held.open = open;
            if open >= users {
                held.opened = Some(looked);
                held.cpu_to_open = machine::own_cpu();
                from = (looked - begin).as_secs() as u32 + 1;
            }
        }
    }
    if let Some(opened) = held.opened {
        held.cpu = (machine::own_cpu() - held.cpu_to_open).as_secs_f64() / opened.elapsed().as_secs_f64();
        held.rate = requests as f64 / f64::from(to.saturating_sub(from).max(1));
    }
    held
}
