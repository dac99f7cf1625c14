//! Who may do what: tokens by role, project and age; addresses that are not safe; a port that is taken.

use super::{World, plan, ready_units, refused};
use crate::support::muster::{Daemon, muster};
use crate::support::repo::Repo;
use crate::support::{free_port, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKENS: &str = "\
tokens:
  - {name: boss, role: admin, secretRef: {name: boss}}
  - {name: ci, role: operator, projects: [a], secretRef: {name: ci}}
  - {name: eye, role: viewer, secretRef: {name: eye}}
  - {name: old, role: admin, expires: 2020-01-01T00:00:00Z, secretRef: {name: old}}
projects:
  - {name: a, paths: [\"a/**\"]}
  - {name: b, paths: [\"b/**\"]}
";

/// Two teams, and tokens whose values stand in files.
fn world() -> (World, String) {
    let dir = TempDir::new().unwrap();
    let repo = Repo::new(&dir.path().join("repo"));
    repo.write("plans/a/plan.yaml", &plan("hello"));
    repo.write("plans/b/plan.yaml", &plan("hello"));
    repo.commit("plans");
    let mut settings = TOKENS.to_owned() + "secrets:\n";
    for name in ["boss", "ci", "eye", "old"] {
        let file = dir.path().join(format!("{name}.token"));
        std::fs::write(&file, format!("value-of-{name}\n")).unwrap();
        settings += &format!("  - {{name: {name}, file: \"{}\"}}\n", file.display());
    }
    (World { dir, repo }, settings)
}

fn ask(daemon: &Daemon, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let bearer = format!("authorization: Bearer value-of-{token}");
    let json = "content-type: application/json";
    daemon.send(
        method,
        path,
        &["host: muster.example.com", json, &bearer],
        &body.to_string(),
    )
}

/// Without the daemon's rules nobody can say whether a target is allowed.
#[test]
fn s61_plans_are_validated_against_the_rules_of_a_daemon() {
    let (world, settings) = world();
    let daemon = world.serve(&settings);
    let token = |name: &str| world.dir.path().join(format!("{name}.token")).display().to_string();
    let validate = |more: &[&str]| muster(&world.repo.dir, &[&["validate", "plans"], more].concat());
    let against = |name: &str| validate(&["--server", &daemon.server, "--token-file", &token(name)]);
    assert_eq!(against("eye").code, 0);
    world.repo.write(
        "plans/a/far.yaml",
        &plan("far").replace("127.0.0.1", "shop.example.com"),
    );
    let alone = muster(&world.repo.dir, &["validate", "plans/a/far.yaml"]);
    assert_eq!(alone.code, 0, "{alone:?}");
    let far = against("eye");
    assert!(
        far.code == 1 && far.stderr.contains("a/far.yaml:") && far.stderr.contains("shop.example.com"),
        "{far:?}"
    );
    let narrow = against("ci");
    assert!(
        narrow.code == 1 && narrow.stderr.contains("token for all projects"),
        "{narrow:?}"
    );
    let both = validate(&["--server", &daemon.server, "--settings", "x.yaml"]);
    assert!(both.code == 1 && both.stderr.contains("give one of them"), "{both:?}");
}

#[test]
fn a_limit_counts_what_a_token_may_see() {
    let (world, settings) = world();
    let daemon = world.serve(&settings);
    for project in ["a", "b"] {
        wait_for("a run", || {
            let body = json!({"plan": format!("{project}/hello"), "smoke": true});
            (ask(&daemon, "boss", "POST", "/api/v1/runs", &body).0 == 201).then_some(())
        });
    }
    for (token, query, projects) in [
        ("boss", "limit=1", &["b"][..]),
        ("ci", "limit=1", &["a"]),
        ("ci", "limit=1&project=a", &["a"]),
        ("ci", "project=b", &[]),
        ("eye", "project=a", &["a"]),
        ("eye", "", &["b", "a"]),
    ] {
        let (_, answer) = ask(&daemon, token, "GET", &format!("/api/v1/runs?{query}"), &json!({}));
        let items = answer["items"].as_array().unwrap_or_else(|| panic!("{answer:#}"));
        let found: Vec<&str> = items.iter().filter_map(|run| run["project"].as_str()).collect();
        assert_eq!(found, projects, "{token} {query}: {answer:#}");
    }
}

#[test]
fn a_token_does_what_its_role_and_projects_allow() {
    let (world, settings) = world();
    let daemon = world.serve(&settings);
    wait_for("both projects", || {
        let (_, answer) = ask(&daemon, "boss", "GET", "/api/v1/projects", &json!({}));
        (answer["items"].as_array()?.len() == 2).then_some(())
    });
    let none = json!({});
    let reason = json!({"reason": "test"});
    let (suspend_a, suspend_b) = ("/api/v1/plans/a/hello/suspend", "/api/v1/plans/b/hello/suspend");
    let deletion = format!("/api/v1/deletions/{}/approve", world.repo.git(&["rev-parse", "HEAD"]));
    for (token, method, path, body, status, words) in [
        ("eye", "GET", "/api/v1/resources/b/TestPlan/hello", &none, 200, "hello"),
        ("eye", "GET", "/api/v1/diff", &none, 200, "changes"),
        (
            "eye",
            "POST",
            suspend_a,
            &reason,
            403,
            "use a token whose role is operator",
        ),
        (
            "eye",
            "POST",
            "/api/v1/runs",
            &json!({"plan": "a/hello"}),
            403,
            "viewer",
        ),
        ("eye", "POST", "/api/v1/reconcile", &none, 403, "operator"),
        ("ci", "GET", "/api/v1/resources/a/TestPlan/hello", &none, 200, "hello"),
        (
            "ci",
            "GET",
            "/api/v1/resources/b/TestPlan/hello",
            &none,
            403,
            "token ci is for a; this concerns project b",
        ),
        ("ci", "GET", "/api/v1/diff", &none, 403, "all projects"),
        ("ci", "POST", suspend_a, &reason, 200, "suspended"),
        ("ci", "POST", suspend_b, &reason, 403, "project b"),
        ("ci", "POST", "/api/v1/plans/a/hello/resume", &none, 200, "false"),
        (
            "ci",
            "POST",
            "/api/v1/runs",
            &json!({"plan": "b/hello"}),
            403,
            "project b",
        ),
        ("ci", "POST", "/api/v1/reconcile", &none, 403, "all projects"),
        (
            "ci",
            "POST",
            "/api/v1/reconcile",
            &json!({"resource": "a/TestPlan/hello"}),
            200,
            "true",
        ),
        ("ci", "POST", &deletion, &none, 403, "admin"),
        ("boss", "POST", suspend_b, &reason, 200, "true"),
        ("boss", "POST", &deletion, &none, 409, "NothingRefused"),
        ("old", "GET", "/api/v1/runs", &none, 401, "token old has expired"),
        ("nobody", "GET", "/api/v1/runs", &none, 401, "--token-file"),
    ] {
        let (got, answer) = ask(&daemon, token, method, path, body);
        let text = answer.to_string();
        assert_eq!(got, status, "{token} {method} {path}: {text}");
        assert!(text.contains(words), "{token} {method} {path}: no `{words}` in {text}");
    }
    refused(&daemon.get("/api/v1/runs"), 401, "Unauthorized", "--token-file");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(daemon.get(path).0, 200, "probes and scrapers have no token: {path}");
    }
    let (_, seen) = ask(&daemon, "ci", "GET", "/api/v1/projects", &none);
    assert_eq!(seen["items"].as_array().map(Vec::len), Some(1), "{seen:#}");
    let (_, events) = ask(&daemon, "ci", "GET", "/api/v1/events", &none);
    assert!(!events.to_string().contains("b/TestPlan/hello"), "{events:#}");
    assert!(!daemon.log().contains("value-of-"), "s57: {}", daemon.log());

    let file = world.dir.path().join("eye.token").display().to_string();
    let plans = daemon.ok(&["get", "plans", "--token-file", &file]).stdout;
    assert!(plans.contains("hello"), "{plans}");
    let missing = daemon.muster(&["get", "plans"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("--token-file"), "{missing:?}");
}

#[test]
fn an_address_beyond_this_host_needs_tokens() {
    let world = World::new();
    let settings = world.settings() + "listen: 0.0.0.0:8420\n";
    std::fs::write(world.dir.path().join("muster.yaml"), settings).unwrap();
    let done = muster(world.dir.path(), &["serve", "--config", "muster.yaml"]);
    assert_eq!(done.code, 104, "{done:?}");
    assert!(done.stderr.contains("add `tokens`"), "{done:?}");
    assert!(!world.dir.path().join("state").exists(), "nothing was begun");
}

#[test]
fn a_token_without_a_value_is_said_by_name() {
    let (world, settings) = world();
    std::fs::remove_file(world.dir.path().join("ci.token")).unwrap();
    let port = free_port();
    let text = format!("{}{settings}listen: 127.0.0.1:{port}\n", world.settings());
    std::fs::write(world.dir.path().join("muster.yaml"), text).unwrap();
    let done = muster(world.dir.path(), &["serve", "--config", "muster.yaml"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stderr.contains("token ci") && done.stderr.contains("ci.token"),
        "{done:?}"
    );
}

#[test]
fn a_taken_port_is_said_with_the_setting_that_names_it() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    let other = World::new();
    for (key, address, free) in [
        ("listen", daemon.port(), "workers"),
        ("workers.listen", daemon.port(), "listen"),
    ] {
        let lines = match free {
            "workers" => format!("listen: 127.0.0.1:{address}\n"),
            _ => format!(
                "listen: 127.0.0.1:{}\nworkers: {{listen: \"127.0.0.1:{address}\"}}\n",
                free_port()
            ),
        };
        std::fs::write(other.dir.path().join("muster.yaml"), other.settings() + &lines).unwrap();
        let done = muster(other.dir.path(), &["serve", "--config", "muster.yaml"]);
        assert_eq!(done.code, 1, "{done:?}");
        for words in [&format!("127.0.0.1:{address}"), "in use", &format!("`{key}`")] {
            assert!(done.stderr.contains(words), "no `{words}` in {done:?}");
        }
    }
}
