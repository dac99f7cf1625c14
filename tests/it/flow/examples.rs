//! Every example is validated, and run as its README says.

use crate::support::free_port;
use crate::support::muster::muster_ok;
use crate::support::nginx::Nginx;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A copy, so that what a run keeps does not end up in the repository. Tests share their machine with each other, so a generator
/// may find it busy: that makes no run Invalid here.
fn copy(name: &str, to: &Path) {
    let status = Command::new("cp")
        .arg("-r")
        .arg(examples().join(name))
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
    for entry in std::fs::read_dir(to.join(name)).unwrap().flatten() {
        let path = entry.path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.contains("kind: TestPlan") {
            std::fs::write(
                &path,
                text.trim_end().to_owned() + "\n  validity: {maxBadShare: 100%}\n",
            )
            .unwrap();
        }
    }
}

const SHOP: &str = "default_type application/json;\n\
     location = /login { return 200 '{\"ok\": true, \"data\": {\"token\": \"t-1\"}}'; }\n\
     location = /orders { return 201 '{\"order\": 1}'; }\n\
     location / { return 200 '{\"ok\": true}'; }";

#[test]
fn every_example_is_known_here_and_validates() {
    let mut names: Vec<String> = std::fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "distributed-kafka",
            "hello",
            "journey",
            "open-model",
            "service-under-test",
            "several-hosts"
        ],
        "add a test that runs it"
    );
    for name in names {
        muster_ok(&examples(), &["validate", &name]);
    }
}

fn run_against_nginx(name: &str, plan: &str) -> serde_json::Value {
    let dir = TempDir::new().unwrap();
    copy(name, dir.path());
    let nginx = Nginx::start(&dir.path().join("nginx"), SHOP);
    let report = muster_ok(
        &dir.path().join(name),
        &["run", plan, "--target", &nginx.url(), "-o", "json"],
    )
    .json();
    assert_eq!(
        report["metrics"]["http_reqs"]["count"],
        nginx.stop().len(),
        "{report:#}"
    );
    report
}

#[test]
fn hello_runs() {
    let report = run_against_nginx("hello", "hello");
    assert_eq!(report["passed"], true);
}

#[test]
fn journey_runs() {
    let report = run_against_nginx("journey", "journey");
    let requests = report["requests"].as_array().unwrap();
    for name in ["login", "order", "search"] {
        assert!(
            requests
                .iter()
                .any(|request| request["name"] == name && request["count"].as_u64() > Some(0)),
            "{name}: {report:#}"
        );
    }
    assert_eq!(report["metrics"]["checks"]["fails"], 0, "{report:#}");
}

#[test]
fn open_model_runs() {
    let report = run_against_nginx("open-model", "open-model");
    assert_eq!(report["phases"].as_array().unwrap().len(), 3);
}

#[test]
fn service_under_test_runs() {
    let dir = TempDir::new().unwrap();
    copy("service-under-test", dir.path());
    muster_ok(
        &dir.path().join("service-under-test"),
        &["validate", "--settings", "muster.yaml"],
    );
    let report = muster_ok(&dir.path().join("service-under-test"), &["run", "shop", "-o", "json"]).json();
    assert_eq!(report["metrics"]["iterations"]["count"], 400);
}

/// The plans this repository runs on itself.
#[test]
fn own_plans_validate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = TempDir::new().unwrap();
    let settings = dir.path().join("muster.yaml");
    std::fs::write(
        &settings,
        "source: {directory: .}\nstore: {url: \"sqlite://x.db\"}\nprocess: {enabled: true}\n",
    )
    .unwrap();
    muster_ok(root, &["validate", "plans", "--settings", settings.to_str().unwrap()]);
}

/// The lines of a README's consoles, without comments, as one script.
fn console(readme: &str) -> String {
    let lines = readme.lines().filter_map(|line| line.strip_prefix("$ "));
    lines.fold(String::new(), |script, line| script + line + "\n")
}

/// The daemon has ports, the topic and the database names of the test's own.
#[test]
fn distributed_kafka_runs_as_its_readme_says() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("distributed-kafka");
    copy("distributed-kafka", dir.path());
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts");
    let own = crate::support::kafka::unique("muster-example");
    let database = own.replace('-', "_");
    let change = |path: &str, pairs: &[(&str, &str)]| {
        let path = folder.join(path);
        let text = std::fs::read_to_string(&path).unwrap();
        let text = pairs.iter().fold(text, |text, (from, to)| text.replace(from, to));
        std::fs::write(&path, text).unwrap();
    };
    change("plans/way.yaml", &[("muster.example", &own)]);
    let validity = "  validity: {maxBadShare: 100%}\n  thresholds:";
    change(
        "plans/shop.yaml",
        &[("muster.example", &own), ("  thresholds:", validity)],
    );
    let (port, workers) = (free_port(), free_port());
    change(
        "muster.yaml",
        &[(
            "process: ",
            &format!("listen: 127.0.0.1:{port}\nworkers: {{listen: \"127.0.0.1:{workers}\"}}\nprocess: "),
        )],
    );
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let script = console(&readme)
        .replace("muster_example", &database)
        .replace("../../tests/parts", &parts.display().to_string());
    let bin = Path::new(env!("CARGO_BIN_EXE_muster")).parent().unwrap();
    let _units = Units(folder.join(".muster"));
    let output = Command::new("timeout")
        .args(["240", "bash", "-euxo", "pipefail", "-m", "-c", &script])
        .current_dir(&folder)
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .env("MUSTER_SERVER", format!("http://127.0.0.1:{port}"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let log = std::fs::read_to_string(folder.join("daemon.log")).unwrap_or_default();
    assert!(output.status.success(), "{told}\n{log}");
    let report = std::fs::read_to_string(folder.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["metrics"]["iterations"]["count"], 750, "{report:#}");
}

/// Processes of units must not outlive a test.
struct Units(PathBuf);

impl Drop for Units {
    fn drop(&mut self) {
        crate::support::muster::kill_below(&self.0);
    }
}
