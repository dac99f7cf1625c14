//! `muster run`: no daemon, no settings file; exit codes, signals, targets.

use crate::support::muster::{command, muster, muster_ok, signal};
use crate::support::nginx::Nginx;
use crate::support::wait_for;
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;

const OK: &str = "location / { return 200 \"ok\"; } location /bad { return 500 \"bad\"; }";

fn plan(dir: &Path, url: &str, path: &str, phases: &str, thresholds: &str) {
    let text = format!(
        "apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: hello}}\nspec:\n  target: {{baseURL: \"{url}\"}}\n  \
         engine: {{type: http, timeout: 5s, requests: [{{name: home, get: {path}}}]}}\n  phases: [{phases}]\n  \
         thresholds: {thresholds}\n  validity: {{maxBadShare: 100%}}\n"
    );
    std::fs::write(dir.join("hello.yaml"), text).unwrap();
}

const SHORT: &str = "{name: p, executor: shared-iterations, vus: 2, iterations: 20, maxDuration: 20s}";
const LONG: &str = "{name: p, executor: constant-arrival-rate, rate: 50, duration: 5m}";

#[test]
fn s55_the_exit_code_tells_the_ending() {
    let dir = TempDir::new().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), OK);
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    plan(&work, &nginx.url(), "/", SHORT, "{http_req_failed: [rate<1%]}");
    let passed = muster(&work, &["run", "hello"]);
    assert_eq!(passed.code, 0, "{passed:?}");
    assert!(passed.stdout.contains("PASSED"), "the report is on stdout: {passed:?}");
    plan(&work, &nginx.url(), "/bad", SHORT, "{http_req_failed: [rate<1%]}");
    let failed = muster(&work, &["run", "hello"]);
    assert_eq!(failed.code, 99, "{failed:?}");
    plan(
        &work,
        &nginx.url(),
        "/",
        "{name: p, executor: constant-vus, vus: 1, duration: 10}",
        "{http_req_failed: [rate<1%]}",
    );
    assert_eq!(muster(&work, &["run", "hello"]).code, 104);
    plan(
        &work,
        &nginx.url(),
        "/",
        SHORT,
        "{\"http_req_duration{name:home}\": [\"p(95)<0.000001ms\"]}",
    );
    assert_eq!(muster(&work, &["run", "hello"]).code, 99);
    let missing = muster(&work, &["run", "nope"]);
    assert_eq!(missing.code, 104, "{missing:?}");
    assert!(missing.stderr.contains("hello"), "names what there is: {missing:?}");
}

#[test]
fn a_finished_run_can_be_read_without_a_daemon() {
    let dir = TempDir::new().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), OK);
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    plan(&work, &nginx.url(), "/", SHORT, "{http_req_failed: [rate<1%]}");
    let first = muster_ok(&work, &["run", "hello", "-o", "json"]).json();
    let second = muster_ok(&work, &["run", "hello", "-o", "json"]).json();
    let runs = muster_ok(&work, &["get", "runs", "-o", "json"]).json();
    assert_eq!(runs["items"].as_array().unwrap().len(), 2, "{runs}");
    let (first, second) = (first["run"].as_str().unwrap(), second["run"].as_str().unwrap());
    assert_eq!(runs["items"][0]["id"], second, "newest first");
    for (format, part) in [
        ("text", "TIMES"),
        ("json", "\"formatVersion\""),
        ("junit", "<testsuite"),
        ("markdown", "|"),
    ] {
        let report = muster_ok(&work, &["report", first, "-o", format]).stdout;
        assert!(report.contains(part), "{format}: {report}");
    }
    let compared = muster_ok(&work, &["compare", first, second]).stdout;
    assert!(compared.contains("http_req_duration"), "{compared}");
    assert!(
        muster_ok(&work, &["describe", &format!("run/{first}")])
            .stdout
            .contains("Passed")
    );
    assert!(muster_ok(&work, &["events"]).stdout.contains("run/"));
}

#[test]
fn s60_without_settings_only_loopback_is_aimed_at() {
    let dir = TempDir::new().unwrap();
    plan(
        dir.path(),
        "http://192.0.2.1:80",
        "/",
        SHORT,
        "{http_req_failed: [rate<1%]}",
    );
    let done = muster(dir.path(), &["run", "hello"]);
    assert_eq!(done.code, 104, "{done:?}");
    assert!(done.stderr.contains("--allow-target"), "how to allow it: {done:?}");
}

#[test]
fn the_first_interrupt_stops_gracefully_and_the_report_is_whole() {
    let dir = TempDir::new().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), OK);
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    plan(&work, &nginx.url(), "/", LONG, "{http_req_failed: [rate<1%]}");
    let child = command(&work, &["run", "hello", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("requests to arrive", || {
        let log = std::fs::read_to_string(dir.path().join("nginx/access.log")).unwrap_or_default();
        (log.lines().count() > 20).then_some(())
    });
    signal(child.id(), "INT");
    let done: crate::support::muster::Done = child.wait_with_output().unwrap().into();
    assert_eq!(done.code, 103, "{done:?}");
    let report = done.json();
    assert_eq!(report["ending"]["kind"], "Stopped");
    assert_eq!(
        report["metrics"]["http_reqs"]["count"],
        nginx.stop().len(),
        "{report:#}"
    );
}

#[test]
fn the_second_interrupt_ends_at_once() {
    let dir = TempDir::new().unwrap();
    // Requests that take for ever: the first interrupt alone would wait for them.
    let slow = "location / { limit_rate 1; alias big/; }";
    std::fs::create_dir_all(dir.path().join("nginx/big")).unwrap();
    std::fs::write(dir.path().join("nginx/big/x"), vec![b'x'; 1 << 20]).unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), slow);
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    plan(
        &work,
        &nginx.url(),
        "/x",
        "{name: p, executor: constant-vus, vus: 2, duration: 5m}",
        "{http_req_failed: [rate<1%]}",
    );
    let mut child = command(&work, &["run", "hello"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut until = |word: &str| {
        for line in lines.by_ref() {
            if line.unwrap().contains(word) {
                return;
            }
        }
        panic!("no line with `{word}`");
    };
    until("Running");
    signal(child.id(), "INT");
    until("stopping");
    signal(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(105));
}

/// A service that the plan aims at is brought up for the run and taken down after it; nothing is left.
#[test]
fn what_the_plan_needs_is_started_and_taken_down() {
    let dir = TempDir::new().unwrap();
    muster_ok(dir.path(), &["init", "--template", "service"]);
    let plan = dir.path().join("shop.yaml");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(
        &plan,
        text.trim_end().to_owned() + "\n  validity: {maxBadShare: 100%}\n",
    )
    .unwrap();
    let done = muster(dir.path(), &["run", "shop", "-o", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let report = done.json();
    assert_eq!(report["metrics"]["iterations"]["count"], 400, "{report:#}");
    assert_eq!(report["hooks"].as_array().map(Vec::len), Some(2), "{report:#}");
    let environments = std::fs::read_dir(dir.path().join(".muster/units")).unwrap();
    let left: Vec<_> = environments
        .flat_map(|environment| std::fs::read_dir(environment.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn smoke_is_one_iteration_of_each_scenario_and_judges_nothing() {
    let dir = TempDir::new().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), OK);
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    plan(&work, &nginx.url(), "/bad", LONG, "{http_req_failed: [rate<1%]}");
    let done = muster(&work, &["run", "hello", "--smoke"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(nginx.stop().len(), 1);
}

#[test]
fn smoke_plays_each_of_several_scenarios_once_whatever_their_weights() {
    let dir = TempDir::new().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), OK);
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    plan(&work, &nginx.url(), "/", LONG, "{http_req_failed: [rate<1%]}");
    let file = work.join("hello.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let scenarios = "scenarios: [{name: often, weight: 99, requests: [{name: a, get: /a}]}, {name: rarely, requests: [{name: b, get: /b}]}, \
                     {name: also, weight: 7, requests: [{name: c, get: /c}]}]";
    let edited = text.replace("requests: [{name: home, get: /}]", scenarios);
    assert_ne!(text, edited);
    std::fs::write(&file, edited).unwrap();
    let done = muster(&work, &["run", "hello", "--smoke"]);
    assert_eq!(done.code, 0, "{done:?}");
    let mut lines = nginx.stop();
    lines.sort();
    assert_eq!(lines, ["200 GET /a", "200 GET /b", "200 GET /c"]);
}
