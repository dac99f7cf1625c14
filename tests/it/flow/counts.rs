//! The counts of a run equal the target's own log exactly, for each executor.

use crate::support::muster::{muster, muster_ok};
use crate::support::nginx::Nginx;
use tempfile::TempDir;

const PLAN: &str = r#"
apiVersion: muster.dev/v1alpha1
kind: TestPlan
metadata: {name: counted}
spec:
  target: {baseURL: "TARGET"}
  engine:
    type: http
    timeout: 10s
    scenarios:
      - {name: read, weight: 2, requests: [{name: a, get: /a}, {name: b, get: /b}]}
      - {name: write, weight: 1, requests: [{name: c, post: /c, body: "x=1"}]}
  phases: [PHASE]
  thresholds: {http_req_failed: [rate<1%]}
  validity: {maxBadShare: 100%}
"#;

/// One executor a test, so that a failing one names itself.
fn counts_are_exact(phase: &str) -> serde_json::Value {
    let dir = TempDir::new().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), "location / { return 200 \"ok\"; }");
    let plans = dir.path().join("plans");
    std::fs::create_dir(&plans).unwrap();
    std::fs::write(
        plans.join("plan.yaml"),
        PLAN.replace("TARGET", &nginx.url()).replace("PHASE", phase),
    )
    .unwrap();
    let report = muster_ok(&plans, &["run", "counted", "-o", "json"]).json();
    let log = nginx.stop();
    let metrics = &report["metrics"];
    assert_eq!(report["completeness"]["kind"], "Complete", "{report:#}");
    assert_eq!(metrics["http_reqs"]["count"], log.len(), "{phase}: {report:#}");
    for (name, path) in [("a", " /a"), ("b", " /b"), ("c", " /c")] {
        let logged = log.iter().filter(|line| line.ends_with(path)).count();
        let request = report["requests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|request| request["name"] == name)
            .unwrap();
        assert_eq!(request["count"], logged, "{phase}: {name}: {request}");
    }
    assert_eq!(
        metrics["http_req_failed"]["passes"], 0,
        "k6 counts failed requests as passes of this rate"
    );
    report
}

#[test]
fn counts_of_constant_vus_are_exact() {
    counts_are_exact("{name: p, executor: constant-vus, vus: 7, duration: 2s}");
}

#[test]
fn counts_of_ramping_vus_are_exact() {
    counts_are_exact(
        "{name: p, executor: ramping-vus, startVUs: 1, stages: [{target: 8, duration: 1s}, {target: 0, duration: 1s}]}",
    );
}

#[test]
fn counts_of_constant_arrival_rate_are_exact() {
    let report = counts_are_exact("{name: p, executor: constant-arrival-rate, rate: 300, duration: 2s}");
    assert_eq!(report["metrics"]["iterations"]["count"], 600, "{report:#}");
    assert_eq!(report["metrics"]["dropped_iterations"]["count"], 0);
}

#[test]
fn counts_of_ramping_arrival_rate_are_exact() {
    let report = counts_are_exact(
        "{name: p, executor: ramping-arrival-rate, startRate: 0, stages: [{target: 400, duration: 2s}]}",
    );
    assert_eq!(
        report["metrics"]["iterations"]["count"], 400,
        "the integral of the ramp: {report:#}"
    );
}

#[test]
fn counts_of_per_vu_iterations_are_exact() {
    let report = counts_are_exact("{name: p, executor: per-vu-iterations, vus: 7, iterations: 30, maxDuration: 30s}");
    assert_eq!(report["metrics"]["iterations"]["count"], 210, "{report:#}");
}

#[test]
fn counts_of_shared_iterations_are_exact() {
    let report = counts_are_exact("{name: p, executor: shared-iterations, vus: 7, iterations: 211, maxDuration: 30s}");
    assert_eq!(report["metrics"]["iterations"]["count"], 211, "{report:#}");
}

/// A graceful stop of zero cuts iterations off; they are counted apart, and what nginx logged beyond the report is at most those.
#[test]
fn what_was_cut_off_is_counted_apart() {
    let dir = TempDir::new().unwrap();
    let slow = "location / { limit_rate 2k; alias big/; }";
    std::fs::create_dir_all(dir.path().join("nginx/big")).unwrap();
    std::fs::write(dir.path().join("nginx/big/a"), vec![b'x'; 8 << 10]).unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"), slow);
    let plan = PLAN
        .replace("TARGET", &nginx.url())
        .replace(
            "PHASE",
            "{name: p, executor: constant-vus, vus: 4, duration: 2s, gracefulStop: 0s}",
        )
        .replace(
            "- {name: write, weight: 1, requests: [{name: c, post: /c, body: \"x=1\"}]}",
            "",
        )
        .replace(", {name: b, get: /b}", "");
    std::fs::write(dir.path().join("plan.yaml"), plan).unwrap();
    let done = muster(dir.path(), &["run", "counted", "-f", "plan.yaml", "-o", "json"]);
    let report = done.json();
    let log = nginx.stop();
    let counted = report["metrics"]["http_reqs"]["count"].as_u64().unwrap();
    let cut = report["phases"][0]["interrupted"].as_u64().unwrap();
    assert!(cut > 0, "{report:#}");
    assert!(
        counted <= log.len() as u64 && log.len() as u64 <= counted + cut,
        "{counted} + {cut} against {}",
        log.len()
    );
}
