//! P1: requests per generator CPU second, all metrics on, against a one-thread stub. Peers and the limit (a raw tokio client that only reads and writes) are
//! measured in the same rounds, one after another, and ratios of medians are printed.
//!
//! `bench-throughput [rounds] [seconds]`; `K6=/path/to/k6` adds k6.

use muster_bench::{figure, job, machine, median, run, server};
use muster_core::model::load::Executor;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONNECTIONS: u64 = 50;
const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["muster", address, seconds] => generate(address, seconds),
        ["raw", address, seconds] => raw(address, seconds),
        _ => measure(number(words.first(), 7), number(words.get(1), 4)),
    }
}

fn number(word: Option<&&str>, default: u64) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(default)
}

fn serve() {
    machine::pin(SERVER_CORE);
    let (listener, address) = server::listen();
    println!("{address}");
    std::io::stdout().flush().expect("a pipe");
    server::serve(&listener, None, |_, _| {});
}

fn generate(address: &str, seconds: &str) {
    machine::pin(CLIENT_CORE);
    let executor = Executor::ConstantVus {
        vus: CONNECTIONS,
        duration: Duration::from_secs(seconds.parse().expect("seconds")),
    };
    let measured = run(job(address.parse().expect("an address"), executor, None), |_| {});
    assert_eq!(measured.requests.failed, 0, "the stub answers everything");
    println!("{}", measured.requests.requests);
}

/// The limit: reads and writes, finds the end of the head, and counts; one clock read before and after, as the reference's.
fn raw(address: &str, seconds: &str) {
    machine::pin(CLIENT_CORE);
    let address: SocketAddr = address.parse().expect("an address");
    let seconds = Duration::from_secs(seconds.parse().expect("seconds"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let count = std::rc::Rc::new(std::cell::Cell::new(0_u64));
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        for _ in 0..CONNECTIONS {
            let count = count.clone();
            tokio::task::spawn_local(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.expect("a server");
                stream.set_nodelay(true).expect("a socket");
                let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
                let mut buffer = vec![0; 4_096];
                let mut longest = Duration::ZERO;
                loop {
                    let begin = std::time::Instant::now();
                    stream.write_all(request.as_bytes()).await.expect("an open connection");
                    let mut length = 0;
                    while memchr::memmem::find(&buffer[..length], b"\r\n\r\nok").is_none() {
                        length += stream.read(&mut buffer[length..]).await.expect("an open connection");
                    }
                    longest = longest.max(begin.elapsed());
                    count.set(count.get() + 1);
                }
            });
        }
        tokio::time::sleep(seconds).await;
    });
    println!("{}", count.get());
}

/// A tool and the CPU seconds that it used per 100,000 requests, round by round.
struct Tool {
    name: &'static str,
    command: Box<dyn Fn() -> Command>,
    /// Reads the number of requests out of what it printed.
    requests: fn(&str) -> Option<f64>,
    cost: Vec<f64>,
}

fn last_number(text: &str) -> Option<f64> {
    text.lines().last()?.trim().parse().ok()
}

/// `  123456 requests in 4.00s, 12MB read`
fn of_wrk(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains(" requests in "))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `    http_reqs......................: 12345  1234.5/s`
fn of_k6(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.trim_start().starts_with("http_reqs"))?;
    line.split_once(':')?.1.split_whitespace().next()?.parse().ok()
}

fn pinned(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &CLIENT_CORE.to_string(), program]).args(arguments);
    command
}

fn tools(address: &str, seconds: u64) -> Vec<Tool> {
    let mut tools = Vec::new();
    let mut add = |name, requests, command: Box<dyn Fn() -> Command>| {
        tools.push(Tool {
            name,
            command,
            requests,
            cost: Vec::new(),
        });
    };
    for mode in ["muster", "raw"] {
        let (address, seconds) = (address.to_owned(), seconds.to_string());
        add(
            mode,
            last_number,
            Box::new(move || machine::again(&[mode, &address, &seconds])),
        );
    }
    let url = format!("http://{address}/");
    let wrk = [
        "-t1".to_owned(),
        format!("-c{CONNECTIONS}"),
        format!("-d{seconds}s"),
        url.clone(),
    ];
    add("wrk", of_wrk, Box::new(move || pinned("wrk", &wrk)));
    if let Ok(k6) = std::env::var("K6") {
        let script = std::env::temp_dir().join(format!("muster-bench-{}.js", std::process::id()));
        let text = format!("import http from 'k6/http';\nexport default function () {{ http.get('{url}'); }}\n");
        std::fs::write(&script, text).expect("a temporary file");
        let run = [
            "run",
            "--vus",
            &CONNECTIONS.to_string(),
            "--duration",
            &format!("{seconds}s"),
            "--no-usage-report",
            "--quiet",
        ];
        let mut arguments: Vec<String> = run.iter().map(|word| (*word).to_owned()).collect();
        arguments.push(script.to_string_lossy().into_owned());
        add("k6", of_k6, Box::new(move || pinned(&k6, &arguments)));
    }
    tools
}

fn measure(rounds: u64, seconds: u64) {
    machine::private_network();
    let mut helper = machine::Helper::start(machine::again(&["serve"]));
    let address = helper.first_line();
    let mut tools = tools(&address, seconds);
    for round in 0..rounds {
        for tool in &mut tools {
            let (output, cpu) = machine::timed((tool.command)());
            let text = String::from_utf8_lossy(&output.stdout);
            let Some(requests) = (tool.requests)(&text).filter(|requests| *requests > 0.0) else {
                eprintln!(
                    "{} said nothing that can be read: {text}{}",
                    tool.name,
                    String::from_utf8_lossy(&output.stderr)
                );
                continue;
            };
            let cost = cpu.as_secs_f64() / requests * 1e5;
            eprintln!(
                "round {round}: {} {requests:.0} requests, {cost:.3} CPU s per 100k",
                tool.name
            );
            tool.cost.push(cost);
        }
    }
    report(&mut tools);
}

/// Costs and their ratios. A machine that switches between two speeds can put the median of one tool at one speed and of another at the other, so the
/// ratios within each round are printed too: there, both had the same speed most of the time.
fn report(tools: &mut [Tool]) {
    let by_round: Vec<(&str, Vec<f64>)> = tools.iter().map(|tool| (tool.name, tool.cost.clone())).collect();
    let cost: Vec<(&str, f64)> = tools
        .iter_mut()
        .map(|tool| (tool.name, median(&mut tool.cost)))
        .collect();
    for (name, value) in &cost {
        figure(&format!("p1_{name}_cpu_per_100k"), *value, "s");
    }
    for ((name, value), (_, rounds)) in cost.iter().zip(&by_round).skip(1) {
        figure(
            &format!("p1_requests_per_cpu_second_over_{name}"),
            value / cost[0].1,
            "ratio",
        );
        let mut ratios: Vec<f64> = rounds
            .iter()
            .zip(&by_round[0].1)
            .map(|(peer, own)| peer / own)
            .collect();
        figure(
            &format!("p1_median_ratio_of_rounds_over_{name}"),
            median(&mut ratios),
            "ratio",
        );
    }
}
