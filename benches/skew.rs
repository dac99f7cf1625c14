//! P11: how far from the agreed instant load begins over many workers of one machine, and how far from each other.
//!
//! `bench-skew [MUSTER [WORKERS [RUNS]]]` starts a daemon and the workers as real processes, has them run a plan several times, and reads
//! each one's start skew from the reports, as anybody would.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use muster_bench::figure;
use serde_json::Value;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long workers may take to be there, and the daemon to answer, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Processes that end with this one.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}

/// A folder with settings, a token and a plan for so many workers.
fn prepare(dir: &Path, workers: usize, (api, join): (u16, u16)) {
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("a writable folder");
    std::fs::create_dir_all(dir.join("plans")).expect("a folder");
    write("token", "0123456789abcdef0123456789abcdef\n".to_owned());
    write(
        "muster.yaml",
        format!(
            "source: {{directory: plans}}\nstore: {{url: \"sqlite://muster.db\"}}\nlisten: 127.0.0.1:{api}\n\
             workers: {{listen: \"127.0.0.1:{join}\"}}\ntargets: {{allow: [\"127.0.0.1\"]}}\ncaps: {{workers: {workers}}}\n\
             secrets: [{{name: join, file: token}}]\njoin: [{{environment: here, maxWorkers: {workers}, secretRef: {{name: join}}}}]\n"
        ),
    );
    let (rate, head) = (workers * 2, "apiVersion: muster.dev/v1alpha1\nkind:");
    write(
        "plans/skew.yaml",
        format!(
            "{head} Environment\nmetadata: {{name: here}}\nspec: {{provider: {{type: joined}}}}\n---\n\
             {head} WorkerPool\nmetadata: {{name: many}}\n\
             spec: {{environment: here, capacity: {{vus: 2, rate: 2}}, workers: {{min: 0, max: {workers}}}}}\n---\n\
             {head} TestPlan\nmetadata: {{name: skew}}\nspec:\n  target: {{baseURL: \"http://127.0.0.1:9\"}}\n  pool: many\n\
             \x20 engine: {{type: synthetic, latency: {{p50: 1ms, p99: 2ms}}}}\n  validity: {{maxBadShare: 100%}}\n\
             \x20 phases: [{{name: steady, executor: constant-arrival-rate, rate: {rate}, duration: 3s, preAllocatedVUs: {workers}}}]\n"
        ),
    );
}

fn json(muster: &Path, dir: &Path, server: &str, args: &[&str]) -> Value {
    let output = Command::new(muster)
        .args(args)
        .args(["-o", "json", "--server", server])
        .current_dir(dir)
        .output()
        .expect("the program runs");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn main() {
    let mut args = std::env::args().skip(1);
    let beside = std::env::current_exe().expect("a program").with_file_name("muster");
    let muster = args.next().map_or(beside, PathBuf::from);
    let muster = muster
        .canonicalize()
        .expect("the muster program; build it with `cargo build --release`");
    let mut number = |default: usize| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (workers, runs) = (number(100), number(5));
    let dir = std::env::temp_dir().join(format!("bench-skew-{}", std::process::id()));
    let ports = (free_port(), free_port());
    prepare(&dir, workers, ports);
    let server = format!("http://127.0.0.1:{}", ports.0);
    let join = format!("127.0.0.1:{}", ports.1);
    let start = |args: &[&str]| {
        let mut command = Command::new(&muster);
        command
            .args(args)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().expect("the program runs")
    };
    let mut processes = Processes(vec![start(&["serve", "--config", "muster.yaml"])]);
    for _ in 0..workers {
        processes
            .0
            .push(start(&["worker", "--join", &join, "--token-file", "token"]));
    }
    let begun = Instant::now();
    let idle = || {
        let answer = json(&muster, &dir, &server, &["get", "workers"]);
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter(|item| item["state"] == "Idle").count()
    };
    let (mut skews, mut spreads) = (Vec::new(), Vec::new());
    for run in 0..runs {
        while idle() < workers {
            assert!(
                begun.elapsed() < PATIENCE * (run as u32 + 1),
                "{} of {workers} workers came",
                idle()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let report = json(&muster, &dir, &server, &["start", "skew", "--wait"]);
        let each = report["workers"].as_array().cloned().unwrap_or_default();
        let of_run: Vec<f64> = each
            .iter()
            .filter_map(|worker| worker["startSkewMs"].as_f64())
            .collect();
        assert_eq!(of_run.len(), workers, "every worker began: {}", report["ending"]);
        let (low, high) = of_run.iter().fold((f64::MAX, f64::MIN), |(low, high), skew| {
            (low.min(*skew), high.max(*skew))
        });
        let _ = writeln!(
            std::io::stderr(),
            "run {run}: {low:.2} to {high:.2} ms, {}",
            report["ending"]["kind"]
        );
        spreads.push(high - low);
        skews.extend(of_run);
    }
    drop(processes);
    let _ = std::fs::remove_dir_all(&dir);
    skews.sort_by(f64::total_cmp);
    figure("p11_workers", workers as f64, "processes");
    figure("p11_start_skew_p50", percentile(&skews, 0.5), "ms");
    figure("p11_start_skew_p99", percentile(&skews, 0.99), "ms");
    figure("p11_start_skew_max", percentile(&skews, 1.0), "ms");
    figure("p11_start_spread_median", muster_bench::median(&mut spreads), "ms");
}
