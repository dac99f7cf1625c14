//! init, validate, render, explain, schema, diff between revisions, completion: no daemon, no network.

use crate::support::muster::{muster, muster_ok};
use crate::support::repo::Repo;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

#[test]
fn init_writes_a_folder_that_validates() {
    for template in ["hello", "journey", "open-model", "service"] {
        let dir = TempDir::new().unwrap();
        let done = muster_ok(dir.path(), &["init", "plans", "--template", template]);
        assert_eq!(done.stdout, "", "progress belongs on stderr");
        assert!(done.stderr.contains("muster validate"), "{done:?}");
        let plans = dir.path().join("plans");
        assert!(plans.join(".muster/muster.schema.json").exists());
        let valid = muster_ok(&plans, &["validate", "-o", "json"]).json();
        assert_eq!(valid["valid"], true, "{valid}");
        let again = muster(dir.path(), &["init", "plans", "--template", template]);
        assert_eq!(again.code, 1);
        assert!(again.stderr.contains("is there already"), "{again:?}");
    }
}

#[test]
fn init_settings_are_valid_and_have_a_modeline() {
    let dir = TempDir::new().unwrap();
    muster_ok(dir.path(), &["init"]);
    let settings = std::fs::read_to_string(dir.path().join("muster.yaml")).unwrap();
    assert!(settings.starts_with("# yaml-language-server: $schema="));
    let plan = std::fs::read_to_string(dir.path().join("hello.yaml")).unwrap();
    assert!(
        plan.starts_with("# yaml-language-server: $schema=.muster/muster.schema.json")
            || plan.starts_with("# yaml-language-server: $schema=./.muster/muster.schema.json"),
        "{plan}"
    );
    muster_ok(dir.path(), &["validate", "--settings", "muster.yaml"]);
}

#[test]
fn validate_shows_all_errors_of_all_files_at_once() {
    let dir = TempDir::new().unwrap();
    muster_ok(dir.path(), &["init"]);
    let plan = std::fs::read_to_string(dir.path().join("hello.yaml")).unwrap();
    let one = plan
        .replace("name: hello", "name: one")
        .replace("duration: 10s", "duration: 10");
    let two = plan
        .replace("name: hello", "name: two")
        .replace("thresholds:", "tresholds:");
    std::fs::write(dir.path().join("one.yaml"), one).unwrap();
    std::fs::write(dir.path().join("two.yaml"), two).unwrap();
    let done = muster(dir.path(), &["validate"]);
    assert_eq!(done.code, 1);
    assert_eq!(done.stdout, "");
    for part in [
        "one.yaml:9:",
        "two.yaml:",
        "did you mean `thresholds`",
        "error[M",
        "2 errors in 2 files",
    ] {
        assert!(done.stderr.contains(part), "no `{part}` in {}", done.stderr);
    }
    let json = muster(dir.path(), &["validate", "-o", "json"]).json();
    assert_eq!(json["valid"], false);
    assert_eq!(json["diagnostics"].as_array().map(Vec::len), Some(2), "{json}");
    let only = muster(dir.path(), &["validate", "hello.yaml"]);
    assert_eq!(only.code, 0, "a file named alone is judged alone: {only:?}");
}

#[test]
fn render_writes_defaults_and_steps_out_and_loads_again() {
    let dir = TempDir::new().unwrap();
    muster_ok(dir.path(), &["init", "--template", "open-model"]);
    let rendered = muster_ok(dir.path(), &["render", "open-model.yaml"]).stdout;
    for part in [
        "gracefulStop: 30s",
        "preAllocatedVUs: ",
        "apiVersion: muster.dev/v1alpha1",
    ] {
        assert!(rendered.contains(part), "no `{part}` in {rendered}");
    }
    assert!(!rendered.contains("steps:"), "{rendered}");
    let second = TempDir::new().unwrap();
    std::fs::write(second.path().join("plan.yaml"), &rendered).unwrap();
    let again = muster_ok(second.path(), &["render", "plan.yaml"]).stdout;
    assert_eq!(rendered, again, "rendering is idempotent");
}

#[test]
fn explain_answers_from_the_schema() {
    let dir = TempDir::new().unwrap();
    let done = muster_ok(dir.path(), &["explain", "testplan.spec.phases"]);
    assert!(done.stdout.contains("executor"), "{}", done.stdout);
    let code = muster_ok(dir.path(), &["explain", "M0301"]).stdout;
    assert!(code.starts_with("M0301  "), "{code}");
    let wrong = muster(dir.path(), &["explain", "testplan.spec.fases"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("phases"), "{}", wrong.stderr);
}

#[test]
fn schemas_are_those_of_the_repository() {
    let dir = TempDir::new().unwrap();
    for (args, file) in [
        (vec!["schema"], "muster.schema.json"),
        (vec!["schema", "settings"], "settings.schema.json"),
    ] {
        let printed: Value = muster_ok(dir.path(), &args).json();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
        let kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            printed,
            kept,
            "write it anew: muster {} > schemas/{file}",
            args.join(" ")
        );
    }
}

/// 2 ⇔ the text says changes ⇔ the JSON has a change ⇔ the Markdown says so.
#[test]
fn s54_diff_between_revisions_says_the_same_in_every_form() {
    let dir = TempDir::new().unwrap();
    let repo = Repo::new(dir.path());
    repo.write("plans/hello.yaml", include_str!("../../../examples/hello/hello.yaml"));
    let base = repo.commit("one");
    repo.write(
        "plans/hello.yaml",
        &include_str!("../../../examples/hello/hello.yaml").replace("vus: 5", "vus: 7"),
    );
    let head = repo.commit("two");
    let diff = |base: &str, head: &str, extra: &[&str]| {
        muster(
            dir.path(),
            &[&["diff", "--base", base, "--head", head, "--path", "plans"], extra].concat(),
        )
    };
    let changed = diff(&base, &head, &["--detailed-exitcode"]);
    assert_eq!(changed.code, 2, "{changed:?}");
    assert!(
        changed.stdout.contains('5') && changed.stdout.contains('7'),
        "{changed:?}"
    );
    assert_eq!(diff(&base, &head, &[]).code, 0);
    let json = diff(&base, &head, &["-o", "json"]).json();
    assert!(
        json["changes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|change| change["action"] != "NoOp"),
        "{json}"
    );
    assert!(diff(&base, &head, &["-o", "markdown"]).stdout.contains("hello"));
    let same = diff(&head, &head, &["--detailed-exitcode"]);
    assert_eq!(same.code, 0, "{same:?}");
    assert_eq!(diff("nope", &head, &["--detailed-exitcode"]).code, 1);
}

#[test]
fn s55_usage_errors_are_not_results() {
    let dir = TempDir::new().unwrap();
    for args in [&["nonsense"][..], &["run"], &["diff", "--base", "x"], &["get"]] {
        let done = muster(dir.path(), args);
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        assert_eq!(done.stdout, "");
    }
    assert_eq!(muster(dir.path(), &["--help"]).code, 0);
    assert_eq!(
        muster(dir.path(), &["version"]).stdout.trim(),
        format!("muster {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn s56_no_escape_codes_outside_a_terminal() {
    let dir = TempDir::new().unwrap();
    muster_ok(dir.path(), &["init"]);
    std::fs::write(dir.path().join("bad.yaml"), "kind: TestPlan\n").unwrap();
    for args in [&["validate"][..], &["render", "hello.yaml"], &["--help"], &["nonsense"]] {
        let done = muster(dir.path(), args);
        assert!(
            !done.stdout.contains('\u{1b}') && !done.stderr.contains('\u{1b}'),
            "{args:?}: {done:?}"
        );
    }
}

#[test]
fn a_missing_daemon_is_said_with_how_to_start_one() {
    let dir = TempDir::new().unwrap();
    let done = muster(dir.path(), &["get", "plans", "--server", "http://127.0.0.1:1"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("muster serve"), "{}", done.stderr);
}
