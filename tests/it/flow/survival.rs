//! What dies, and what goes on: daemons killed and stopped, with runs and units in flight.

use super::daemon::{World, ready_units};
use crate::support::muster::Daemon;
use crate::support::nginx::Nginx;
use crate::support::wait_for;
use tempfile::TempDir;

fn pids(daemon: &Daemon) -> Vec<String> {
    let mut pids: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .ok()?
                .replace('\0', " ");
            (command.contains(" shim ") && command.contains(&daemon.dir.display().to_string())).then(|| pid.to_string())
        })
        .collect();
    pids.sort();
    pids
}

/// SIGTERM leaves units as they are; the next daemon adopts them and starts nothing again.
#[test]
fn s24_units_outlive_the_daemon_and_are_adopted() {
    let world = World::new();
    let mut daemon = world.serve();
    ready_units(&daemon, 3);
    let before = pids(&daemon);
    assert_eq!(before.len(), 3, "one shim each");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(pids(&daemon), before);
    let next = Daemon::again(world.dir.path(), daemon.port());
    ready_units(&next, 3);
    assert_eq!(pids(&next), before, "adopted, not started again");
}

fn long_plan(world: &World, url: &str, orphan_timeout: &str) {
    world.repo.write(
        "plans/long.yaml",
        &format!(
            "apiVersion: muster.dev/v1alpha1\nkind: Environment\nmetadata: {{name: crew}}\nspec: {{provider: {{type: process}}}}\n---\n\
             apiVersion: muster.dev/v1alpha1\nkind: WorkerPool\nmetadata: {{name: crew}}\nspec:\n  environment: crew\n  \
             capacity: {{vus: 100, rate: 500}}\n  workers: {{min: 0, max: 2}}\n  orphanTimeout: {orphan_timeout}\n---\n\
             apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: long}}\nspec:\n  target: {{baseURL: \"{url}\"}}\n  \
             pool: crew\n  engine: {{type: http, timeout: 5s, requests: [{{name: home, get: /}}]}}\n  \
             phases: [{{name: p, executor: constant-arrival-rate, rate: 600, duration: 12s, maxVUs: 100}}]\n  \
             thresholds: {{http_req_failed: [rate<1%]}}\n  validity: {{maxBadShare: 100%}}\n"
        ),
    );
    world.repo.commit("a long run");
}

/// `orphan_timeout`: how long a daemon may be away; on a busy machine its start alone may take seconds.
fn long_world(orphan_timeout: &str) -> (World, Nginx) {
    let world = World::new();
    let nginx = Nginx::start(&world.dir.path().join("nginx"), "location / { return 200 \"ok\"; }");
    world.repo.git(&[
        "rm",
        "-q",
        "plans/lab.yaml",
        "plans/checkout.yaml",
        "plans/files/shop.conf",
    ]);
    long_plan(&world, &nginx.url(), orphan_timeout);
    (world, nginx)
}

fn settings(world: &World) -> String {
    format!("{}targets: {{allow: [\"127.0.0.1\"]}}\n", world.settings())
}

/// kill -9 of the daemon in mid-run: workers go on, the next daemon adopts the run and finishes it, and every request that nginx
/// logged is counted once.
#[test]
fn s42_a_killed_daemon_is_not_noticed_by_the_run() {
    let (world, nginx) = long_world("30s");
    let mut daemon = Daemon::start(world.dir.path(), &settings(&world));
    let id = start_long(&daemon);
    daemon.kill();
    let next = Daemon::again(world.dir.path(), daemon.port());
    wait_for("the run to end", || {
        (next.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
    });
    let report = next.ok(&["report", &id, "-o", "json"]).json();
    assert_eq!(report["ending"]["kind"], "Passed", "{report:#}");
    assert_eq!(report["completeness"]["kind"], "Complete");
    assert_eq!(
        report["workers"].as_array().unwrap().len(),
        2,
        "600/s over workers of 500/s"
    );
    assert_eq!(report["metrics"]["iterations"]["count"], 7_200);
    assert_eq!(report["metrics"]["http_reqs"]["count"], nginx.stop().len());
}

/// The owner dies for good: load stops within the orphan timeout, and no worker is left.
#[test]
fn s41_load_stops_when_its_owner_is_gone() {
    let (world, nginx) = long_world("5s");
    let mut daemon = Daemon::start(world.dir.path(), &settings(&world));
    start_long(&daemon);
    daemon.kill();
    let processes = |words: &str| {
        let output = std::process::Command::new("pgrep")
            .args(["-f", &format!("{words}.*{}", world.dir.path().display())])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    assert!(processes(" shim ") > 0, "this is what they look like");
    // Their shims do not start them again, or they would never be gone.
    wait_for("the workers and their shims to leave", || {
        (processes("muster worker") == 0 && processes(" shim ") == 0).then_some(())
    });
    let logged = nginx.stop().len();
    assert!(logged < 7_200, "load went on to its planned end: {logged}");
}

/// What nobody adopts in time is ended by the next daemon and cleaned up.
#[test]
fn s42_a_run_that_lost_its_owner_is_ended_by_the_next() {
    let (world, _nginx) = long_world("5s");
    let mut daemon = Daemon::start(world.dir.path(), &settings(&world));
    let id = start_long(&daemon);
    daemon.kill();
    let worker = format!("muster worker.*{}", world.dir.path().display());
    wait_for("the workers to leave", || {
        let output = std::process::Command::new("pgrep")
            .args(["-f", &worker])
            .output()
            .unwrap();
        output.stdout.is_empty().then_some(())
    });
    let next = Daemon::again(world.dir.path(), daemon.port());
    wait_for("the run to end", || {
        (next.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
    });
    let ending = next.get(&format!("/api/v1/runs/{id}")).1["ending"].clone();
    assert!(
        ending == "Error(lostOwner)" || ending == "Invalid(workers)",
        "load was cut short, so it is no result: {ending}"
    );
}

/// Starts the long plan and waits until load has begun.
fn start_long(daemon: &Daemon) -> String {
    wait_for("the plan to be synced", || {
        (daemon.get("/api/v1/resources/default/TestPlan/long").1["sync"] == "Synced").then_some(())
    });
    let id = daemon.ok(&["start", "plan/long", "-o", "json"]).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    wait_for("load", || {
        (daemon.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Running").then_some(())
    });
    id
}

/// A canary: the value of a secret turns up nowhere but in the environment of the unit that asked for it.
#[test]
fn s57_a_secret_is_written_nowhere() {
    let canary = "c4n4ry-0f-4-s3cr3t";
    let dir = TempDir::new().unwrap();
    let world = World {
        repo: crate::support::repo::Repo::new(&dir.path().join("repo")),
        dir,
    };
    std::fs::write(world.dir.path().join("secret"), canary).unwrap();
    world.repo.write(
        "plans/lab.yaml",
        "apiVersion: muster.dev/v1alpha1\nkind: Environment\nmetadata: {name: lab}\nspec: {provider: {type: process}}\n---\n\
         apiVersion: muster.dev/v1alpha1\nkind: Service\nmetadata: {name: shop}\nspec:\n  environment: lab\n  \
         command: [sh, -c, 'printf %s \"$DB\" | cksum; exec sleep 600']\n  replicas: 1\n  \
         env: [{name: DB, valueFrom: {secretKeyRef: {name: db, key: value}}}]\n",
    );
    world.repo.commit("a unit with a secret");
    let secrets = format!(
        "{}secrets: [{{name: db, file: {}/secrets}}]\n",
        world.settings(),
        world.dir.path().display()
    );
    std::fs::create_dir(world.dir.path().join("secrets")).unwrap();
    std::fs::rename(world.dir.path().join("secret"), world.dir.path().join("secrets/value")).unwrap();
    let daemon = Daemon::start(world.dir.path(), &secrets);
    ready_units(&daemon, 1);
    let log = wait_for("the unit's output", || {
        let log = daemon.ok(&["logs", "unit/default.service.shop.0"]).stdout;
        (!log.trim().is_empty()).then_some(log)
    });
    assert!(log.contains(&canary.len().to_string()), "the unit got it: {log}");
    for args in [
        &["get", "units", "-o", "json"][..],
        &["describe", "service/shop"],
        &["events"],
        &["diff", "-o", "json"],
    ] {
        let done = daemon.ok(args);
        assert!(
            !done.stdout.contains(canary) && !done.stderr.contains(canary),
            "{args:?}"
        );
    }
    let found = std::process::Command::new("grep")
        .args(["-rl", "--exclude-dir=secrets", canary])
        .arg(world.dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "", "a file on disk holds it");
}
