//! What the generator's tests share: a scripted HTTP server that counts, plans, and a reader of whole runs.
#![allow(dead_code, reason = "each test file uses its part")]

use muster_core::measure::slice::{Second, SeriesKey, Stats};
use muster_core::model::id::{Name, RunId};
use muster_core::model::load::{
    Body, Engine, Executor, HttpEngine, HttpOptions, LoadPlan, Method, Phase, PhaseWork, Rate, Request, Scenario,
    Segment, Template, TemplatePart, TlsOptions, Users,
};
use muster_core::model::policy::TargetRules;
use muster_load::{Command, Job, Prepared, Report, Running, prepare};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// No test waits longer than this for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a server does with a request that it read.
pub type Answer = Arc<dyn Fn(&Received, &mut TcpStream) -> Then + Send + Sync>;

/// What happens to the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    KeepOpen,
    Close,
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Received {
    pub line: String,
    pub head: String,
    pub body: Vec<u8>,
    /// Number of the connection, and of the request on it, from 0.
    pub connection: u64,
    pub nth: u64,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }
}

/// A server with a thread per connection; counts what it read completely.
pub struct Server {
    pub address: SocketAddr,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<Received>>>,
}

/// How many requests a server remembers.
const SEEN_MAX: usize = 1_000;

impl Server {
    pub fn start(answer: impl Fn(&Received, &mut TcpStream) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("a bound socket"),
            requests: Arc::default(),
            connections: Arc::default(),
            seen: Arc::default(),
        };
        let answer: Answer = Arc::new(answer);
        let (requests, connections, seen) = (server.requests.clone(), server.connections.clone(), server.seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests, seen) = (answer.clone(), requests.clone(), seen.clone());
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(stream, connection, &answer, &requests, &seen));
            }
        });
        server
    }

    /// Answers everything with 200 and two bytes.
    pub fn ok() -> Self {
        Self::start(|_, stream| {
            let _ = stream.write_all(OK);
            Then::KeepOpen
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn seen(&self) -> Vec<Received> {
        self.seen.lock().expect("no server thread panicked").clone()
    }
}

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn serve(mut stream: TcpStream, connection: u64, answer: &Answer, requests: &AtomicU64, seen: &Mutex<Vec<Received>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    for nth in 0.. {
        let Some(received) = read_request(&mut stream, &mut buffer, connection, nth) else {
            return;
        };
        requests.fetch_add(1, Ordering::SeqCst);
        {
            let mut seen = seen.lock().expect("no server thread panicked");
            if seen.len() < SEEN_MAX {
                seen.push(received.clone());
            }
        }
        if answer(&received, &mut stream) == Then::Close {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>, connection: u64, nth: u64) -> Option<Received> {
    let mut piece = [0_u8; 16 * 1_024];
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut received = Received {
                line: head.lines().next().unwrap_or("").to_owned(),
                head,
                body: Vec::new(),
                connection,
                nth,
            };
            let length: usize = received
                .header("content-length")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                received.body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some(received);
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.extend_from_slice(&piece[..count]),
        }
    }
}

/// A response with a body and further header lines.
pub fn response(status: u16, headers: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    format!("{text}\r\n{body}").into_bytes()
}

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a DNS label")
}

/// A template as plans write it.
pub fn template(text: &str) -> Template {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (variable, after) = after.split_once("}}").expect("a closed variable");
        parts.push(TemplatePart::Text(before.to_owned()));
        parts.push(TemplatePart::Variable(variable.to_owned()));
        rest = after;
    }
    parts.push(TemplatePart::Text(rest.to_owned()));
    parts.retain(|part| *part != TemplatePart::Text(String::new()));
    Template { parts }
}

pub fn request(name: &str, method: Method, url: &str) -> Request {
    Request {
        name: name.to_owned(),
        method,
        url: template(url),
        headers: Vec::new(),
        body: Body::Empty,
        captures: Vec::new(),
        checks: Vec::new(),
        expect_status: Vec::new(),
        think: None,
    }
}

pub fn get(path: &str) -> Request {
    request("get", Method::Get, path)
}

pub fn scenario(requests: Vec<Request>) -> Scenario {
    Scenario {
        name: "default".to_owned(),
        weight: 1,
        requests,
    }
}

pub fn http(scenarios: Vec<Scenario>) -> HttpEngine {
    HttpEngine {
        timeout: Duration::from_secs(10),
        options: HttpOptions {
            keep_alive: true,
            max_connections_per_vu: 1,
            follow_redirects: 5,
            tls: TlsOptions::default(),
        },
        scenarios,
    }
}

pub fn phase(text: &str, executor: Executor, graceful_stop: Duration) -> Phase {
    Phase {
        name: name(text),
        work: PhaseWork::Load {
            executor,
            graceful_stop,
        },
        workers: None,
    }
}

pub fn plan(url: &str, engine: HttpEngine, phases: Vec<Phase>) -> LoadPlan {
    LoadPlan {
        run: "0190b1a0-0000-7000-8000-000000000000".parse::<RunId>().expect("a UUID"),
        plan: "default/test".to_owned(),
        phases,
        engine: Engine::Http(engine),
        base_urls: vec![url.to_owned()],
        data: Vec::new(),
        targets: TargetRules {
            allow: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            ..TargetRules::default()
        },
        requests_per_second: None,
    }
}

pub fn per_second(rate: u64) -> Rate {
    Rate {
        iterations: rate,
        per_ms: 1_000,
    }
}

pub fn users(pre_allocated: u64, max: u64) -> Users {
    Users { pre_allocated, max }
}

/// So many iterations of one user, and nothing else.
pub fn iterations(vus: u64, iterations: u64) -> Executor {
    Executor::PerVuIterations {
        vus,
        iterations,
        max_duration: PATIENCE,
    }
}

pub fn job(plan: LoadPlan) -> Job {
    Job {
        plan,
        segment: Segment::WHOLE,
        files: BTreeMap::new(),
        threads: 1,
        seed: 42,
    }
}

/// Everything a run reported.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seconds: Vec<Second>,
    /// `Started(0)`, `Ended(0)`, … in order.
    pub events: Vec<String>,
    pub all: BTreeMap<SeriesKey, Stats>,
}

impl Outcome {
    /// The sum of the series of a phase; `""`: of its iterations.
    pub fn of(&self, phase: &str, request: &str) -> Stats {
        let mut sum = Stats::default();
        for (key, stats) in &self.all {
            if key.phase == phase && key.name == request {
                sum.merge(stats);
            }
        }
        sum
    }

    pub fn requests(&self) -> u64 {
        self.all.values().map(|stats| stats.requests).sum()
    }

    pub fn arrivals(&self, phase: &str) -> u64 {
        self.seconds
            .iter()
            .filter_map(|second| second.generator.arrivals.get(phase))
            .sum()
    }

    /// The kinds of errors and how often each was counted.
    pub fn errors(&self) -> Vec<(String, u64)> {
        let mut sum: BTreeMap<String, u64> = BTreeMap::new();
        for stats in self.all.values() {
            for (kind, error) in &stats.errors {
                *sum.entry(kind.as_str().to_owned()).or_default() += error.count;
            }
        }
        sum.into_iter().collect()
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs a job to its end.
pub fn run(job: Job) -> Outcome {
    run_with(job, |_, _| {})
}

/// Runs a job to its end, with a look at each report.
pub fn run_with(job: Job, look: impl FnMut(&Running, &Report)) -> Outcome {
    run_prepared(prepare(job).expect("a job that can be run"), look)
}

/// The same from there on.
pub fn run_prepared(prepared: Prepared, mut look: impl FnMut(&Running, &Report)) -> Outcome {
    // First: a test may leave load threads no file to spare.
    let runtime = runtime();
    let mut running = prepared.start(Instant::now());
    runtime.block_on(async {
        let mut outcome = Outcome::default();
        loop {
            let next = tokio::time::timeout(PATIENCE, running.next())
                .await
                .expect("a report in time");
            let Some(report) = next else { return outcome };
            look(&running, &report);
            match report {
                Report::Second(second) => {
                    assert_eq!(
                        second.second as usize,
                        outcome.seconds.len(),
                        "each second once, in order"
                    );
                    for (key, stats) in &second.entries {
                        outcome.all.entry(key.clone()).or_default().merge(stats);
                    }
                    outcome.seconds.push(second);
                }
                Report::PhaseStarted(phase) => outcome.events.push(format!("Started({phase})")),
                Report::PhaseEnded(phase) => outcome.events.push(format!("Ended({phase})")),
                Report::Waiting(phase) => {
                    outcome.events.push(format!("Waiting({phase})"));
                    running.command(Command::Advance {
                        phase,
                        at: Instant::now(),
                    });
                }
                Report::Finished => outcome.events.push("Finished".to_owned()),
            }
        }
    })
}
