//! Hooks that run on each worker before load, where workers allow it.

use super::daemon::World;
use crate::support::muster::{Daemon, processes, signal};
use crate::support::wait_for;
use std::path::Path;

fn world(hook: &str) -> World {
    let plan = format!(
        "apiVersion: muster.dev/v1alpha1\nkind: Environment\nmetadata: {{name: lab}}\nspec: {{provider: {{type: process}}}}\n---\n\
         apiVersion: muster.dev/v1alpha1\nkind: WorkerPool\nmetadata: {{name: crew}}\nspec:\n  environment: lab\n  \
         capacity: {{vus: 1, rate: 100}}\n  workers: {{min: 0, max: 2}}\n---\n\
         apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: hooked}}\nspec:\n  target: {{baseURL: \"http://127.0.0.1:9\"}}\n  \
         pool: crew\n  engine: {{type: synthetic, latency: {{p50: 1ms, p99: 2ms}}, errorRate: 0%}}\n  \
         phases: [{{name: p, executor: constant-vus, vus: 2, duration: 1s}}]\n  validity: {{maxBadShare: 100%}}\n  \
         hooks:\n    - {{name: preload, when: PreRun, command: {hook}, onWorkers: All, timeout: 20s}}\n"
    );
    World::of(&[
        ("hooked.yaml", &plan),
        (
            "preload.sh",
            "#!/bin/sh\necho \"$WORKER_INDEX of $WORKER_COUNT\" >> \"$1\"\n",
        ),
    ])
}

fn serve(world: &World) -> Daemon {
    let settings = format!("{}targets: {{allow: [\"127.0.0.1\"]}}\n", world.settings());
    let daemon = Daemon::start(world.dir.path(), &settings);
    wait_for("the plan to be synced", || {
        (daemon.get("/api/v1/resources/default/TestPlan/hooked").1["sync"] == "Synced").then_some(())
    });
    daemon
}

/// A file that the workers' user may write, whoever that is.
fn open_file(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, "").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
}

#[test]
fn a_hook_on_workers_runs_once_on_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    open_file(&said);
    let world = world(&format!("[./preload.sh, \"{}\"]", said.display()));
    let daemon = serve(&world);
    let report = daemon.ok(&["start", "hooked", "--wait", "-o", "json"]).json();
    assert_eq!(report["ending"]["kind"], "Passed", "{report:#}");
    let text = std::fs::read_to_string(said).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0 of 2", "1 of 2"]);
}

#[test]
fn s42_a_hook_on_workers_is_waited_for_by_the_next_daemon_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (said, go) = (folder.path().join("said"), folder.path().join("go"));
    open_file(&said);
    // The folder must be open to the workers' user, too.
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "echo begun >> {0}; while [ ! -e {1} ]; do sleep 0.1; done; echo ended ${{WORKER_INDEX}} >> {0}",
        said.display(),
        go.display()
    );
    let world = world(&format!("[sh, -c, {script:?}]"));
    let mut daemon = serve(&world);
    let started = daemon.ok(&["start", "hooked", "-o", "json"]).json();
    let id = started["id"].as_str().unwrap();
    let lines = || {
        std::fs::read_to_string(&said)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    wait_for("the hook to run on both workers", || (lines().len() == 2).then_some(()));
    daemon.kill();
    let next = Daemon::again(world.dir.path(), daemon.port());
    wait_for("both workers to be back", || {
        let (_, workers) = next.get("/api/v1/workers");
        let connected = |worker: &&serde_json::Value| worker["state"] == "Prepared";
        (workers["items"].as_array()?.iter().filter(connected).count() == 2).then_some(())
    });
    std::fs::write(&go, "").unwrap();
    wait_for("the run to end", || {
        (next.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
    });
    let report = next.ok(&["report", id, "-o", "json"]).json();
    assert_eq!(report["ending"]["kind"], "Passed", "{report:#}");
    let mut lines = lines();
    lines.sort_unstable();
    assert_eq!(lines, ["begun", "begun", "ended 0", "ended 1"]);
}

#[test]
fn a_hook_that_fails_on_one_worker_fails_with_its_words() {
    let world = world("[sh, -c, 'echo no such table for ${WORKER_INDEX}; exit ${WORKER_INDEX}']");
    let daemon = serve(&world);
    let done = daemon.muster(&["start", "hooked", "--wait", "-o", "json"]);
    assert_eq!(done.code, 97, "{done:#?}");
    let report = done.json();
    assert_eq!(report["ending"]["reason"], "hook", "{report:#}");
    let text = report.to_string();
    assert!(
        text.contains("worker 1") && text.contains("no such table for 1"),
        "{report:#}"
    );
}

#[test]
fn s41_a_hook_goes_with_its_worker_also_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    open_file(&said);
    // Two in the command's group, and one that has left it.
    let script = format!(
        "setsid sh -c 'echo $$ >> {0}; exec sleep 600' & sleep 600 & echo $$ $! >> {0}; wait",
        said.display()
    );
    let world = world(&format!("[sh, -c, {script:?}]"));
    let daemon = serve(&world);
    let started = daemon.ok(&["start", "hooked", "-o", "json"]).json();
    let id = started["id"].as_str().unwrap();
    let pids = || -> Vec<u32> {
        let text = std::fs::read_to_string(&said).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    let hooks = wait_for("the hook to run on both workers", || {
        Some(pids()).filter(|pids| pids.len() == 6)
    });
    let workers = processes(world.dir.path(), "muster worker");
    assert_eq!(workers.len(), 2);
    let guards: Vec<u32> = workers.iter().flat_map(|worker| children(*worker, "guard")).collect();
    assert_eq!(guards.len(), 2);
    for worker in &workers {
        signal(*worker, "KILL");
    }
    let is_gone = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    wait_for("hooks and guards to be gone", || {
        hooks.iter().chain(&guards).all(is_gone).then_some(())
    });
    wait_for("the run to end", || {
        (daemon.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
    });
    assert_eq!(pids(), hooks, "none was started again");
}

/// Children of a process, of whichever of its threads, whose command line has this word.
fn children(parent: u32, word: &str) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten();
    let texts = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let texts: Vec<String> = texts.collect();
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let mut pids: Vec<u32> = words.map(|pid| pid.parse().unwrap()).collect();
    pids.retain(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())
    });
    pids
}
