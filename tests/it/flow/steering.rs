//! Steering runs on a daemon: pauses, ways to end, hooks, limits, commits in mid-run, workers that are killed.

use super::daemon::World;
use crate::support::muster::{Daemon, Done, signal};
use crate::support::wait_for;
use serde_json::Value;
use tempfile::TempDir;

/// A daemon on plans that need no target.
struct Lab {
    daemon: Daemon,
    world: World,
}

impl Lab {
    /// `plans`: file names and documents; `names` of the test plans among them.
    fn new(plans: &[(&str, String)], names: &[&str]) -> Self {
        let files: Vec<(&str, &str)> = plans.iter().map(|(file, text)| (*file, text.as_str())).collect();
        let world = World::of(&files);
        let settings = format!("{}targets: {{allow: [\"127.0.0.1\"]}}\n", world.settings());
        let daemon = Daemon::start(world.dir.path(), &settings);
        for name in names {
            wait_for(&format!("plan {name} to be synced"), || {
                let (_, plan) = daemon.get(&format!("/api/v1/resources/default/TestPlan/{name}"));
                (plan["sync"] == "Synced").then_some(())
            });
        }
        Self { daemon, world }
    }

    fn start(&self, plan: &str) -> String {
        let answer = self.daemon.ok(&["start", plan, "-o", "json"]).json();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Runs a plan to its end: the exit code, the ending, the report.
    fn play(&self, plan: &str) -> (i32, String, Value) {
        let done: Done = self.daemon.muster(&["start", plan, "--wait", "-o", "json"]);
        let report = done.json();
        let ending = self.run(report["run"].as_str().unwrap())["ending"].clone();
        (done.code, ending.as_str().unwrap().to_owned(), report)
    }

    fn run(&self, id: &str) -> Value {
        self.daemon.get(&format!("/api/v1/runs/{id}")).1
    }

    fn live(&self, id: &str) -> Value {
        self.daemon.get(&format!("/api/v1/runs/{id}/live")).1["live"].clone()
    }

    fn wait_for_stage(&self, id: &str, stage: &str) {
        wait_for(&format!("run {id} to be {stage}"), || {
            let run = self.run(id);
            assert!(
                stage == "Finished" || run["stage"] != "Finished",
                "ended before it was {stage}: {run:#}\n{}",
                self.daemon.log()
            );
            (run["stage"] == stage).then_some(())
        });
    }

    fn ending(&self, id: &str) -> String {
        self.wait_for_stage(id, "Finished");
        self.run(id)["ending"].as_str().unwrap().to_owned()
    }

    fn reasons(&self, about: &str) -> Vec<String> {
        let (_, events) = self.daemon.get(&format!("/api/v1/events?about={about}&limit=1000"));
        let items = events["items"].as_array().unwrap();
        items
            .iter()
            .map(|event| event["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Process ids whose command line has these words and then this lab's folder.
    fn processes(&self, words: &str) -> Vec<u32> {
        let output = std::process::Command::new("pgrep")
            .args(["-f", &format!("{words}.*{}", self.world.dir.path().display())])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// A plan of the synthetic engine; `rest` are further lines of its spec.
fn plan(name: &str, error_rate: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: {name}}}\nspec:\n  \
         target: {{baseURL: \"http://127.0.0.1:1\"}}\n  \
         engine: {{type: synthetic, latency: {{p50: 5ms, p99: 10ms}}, errorRate: {error_rate}}}\n  \
         validity: {{maxBadShare: 100%}}\n{rest}"
    )
}

/// An environment and pool `crew`, of workers that carry 20 iterations a second each.
fn crew(limits: &str) -> String {
    format!(
        "---\napiVersion: muster.dev/v1alpha1\nkind: Environment\nmetadata: {{name: crew}}\n\
         spec: {{provider: {{type: process}}, limits: {limits}}}\n\
         ---\napiVersion: muster.dev/v1alpha1\nkind: WorkerPool\nmetadata: {{name: crew}}\nspec:\n  environment: crew\n  \
         capacity: {{vus: 100, rate: 20}}\n  workers: {{min: 0, max: 3}}\n  orphanTimeout: 5s\n"
    )
}

const SHORT: &str = "  phases: [{name: p, executor: constant-vus, vus: 2, duration: 2s}]\n";
const LONG: &str = "  phases: [{name: p, executor: constant-vus, vus: 2, duration: 60s}]\n";

/// Name, error rate, spec, exit code and ending. A PostRun hook is added to each.
const ENDINGS: [(&str, &str, &str, i32, &str); 9] = [
    (
        "goes-on",
        "0%",
        "  phases: [{name: a, executor: constant-vus, vus: 1, duration: 1s}, {name: wait, pause: {timeout: 1s, onTimeout: Continue}}, \
         {name: b, executor: per-vu-iterations, vus: 2, iterations: 3}]\n",
        0,
        "Passed",
    ),
    (
        "nobody-resumes",
        "0%",
        "  phases: [{name: a, executor: constant-vus, vus: 1, duration: 1s}, {name: wait, pause: {timeout: 1s, onTimeout: Abort}}, \
         {name: b, executor: constant-vus, vus: 1, duration: 60s}]\n",
        108,
        "Aborted(pauseTimeout)",
    ),
    (
        "threshold",
        "100%",
        "  phases: [{name: p, executor: constant-vus, vus: 2, duration: 60s}]\n  autoStop: Disabled\n  \
         thresholds: {http_req_failed: [{threshold: rate<10%, abortOnFail: true}]}\n",
        108,
        "Aborted(threshold)",
    ),
    (
        "rule",
        "0%",
        "  phases: [{name: p, executor: constant-vus, vus: 2, duration: 60s}]\n  \
         abortRules: [{name: slow, metric: http_req_duration, abortWhen: \"value>1ms\", interval: 1s}]\n",
        108,
        "Aborted(rule)",
    ),
    (
        "spoiled",
        "0%",
        "  phases: [{name: p, executor: constant-vus, vus: 2, duration: 3s}]\n  \
         abortRules: [{name: slow, metric: http_req_duration, abortWhen: \"value>1ms\", interval: 1s, action: Invalidate}]\n",
        96,
        "Invalid(rule)",
    ),
    (
        "target-down",
        "100%",
        "  phases: [{name: p, executor: constant-vus, vus: 2, duration: 60s}]\n  autoStop: {errorRate: 90%, window: 1s}\n",
        108,
        "Aborted(autoStop)",
    ),
    (
        "bounded",
        "0%",
        "  phases: [{name: p, executor: constant-vus, vus: 10, duration: 3s}]\n  limits: {requestsPerSecond: 20}\n",
        0,
        "Passed",
    ),
    ("pre-run-fails", "0%", SHORT, 97, "Error(hook)"),
    ("verify-fails", "0%", SHORT, 99, "Failed(verify)"),
];

fn hooks(name: &str, marks: &str) -> String {
    let when = match name {
        "pre-run-fails" => "{name: fails, when: PreRun, command: [sh, -c, \"echo not today; exit 3\"]}, ",
        "verify-fails" => "{name: fails, when: Verify, command: [sh, -c, \"exit 3\"]}, ",
        _ => "",
    };
    format!("  hooks: [{when}{{name: purge, when: PostRun, command: [sh, -c, \"echo {name} >> {marks}\"]}}]\n")
}

#[test]
fn s36_s43_s45_each_way_to_end_has_its_ending_its_code_and_its_clean_up() {
    let marks_dir = TempDir::new().unwrap();
    let marks = marks_dir.path().join("marks");
    let text: String = ENDINGS
        .iter()
        .map(|(name, errors, rest, ..)| plan(name, errors, rest) + &hooks(name, &marks.display().to_string()))
        .collect();
    let names: Vec<&str> = ENDINGS.iter().map(|(name, ..)| *name).collect();
    let lab = Lab::new(&[("plans.yaml", text)], &names);
    let reports: Vec<(&str, Value)> = std::thread::scope(|scope| {
        let lab = &lab;
        // A few at a time: runs that start together on a small machine miss each other's barrier.
        let lanes: Vec<_> = ENDINGS
            .chunks(3)
            .map(|chunk| {
                scope.spawn(move || {
                    let mut reports = Vec::new();
                    for (name, _, _, code, ending) in chunk {
                        let played = lab.play(name);
                        assert_eq!(
                            (played.0, played.1.as_str()),
                            (*code, *ending),
                            "{name}: {:#}",
                            played.2
                        );
                        reports.push((*name, played.2));
                    }
                    reports
                })
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    let of = |name: &str| &reports.iter().find(|(of, _)| *of == name).unwrap().1;
    let bounded = of("bounded")["metrics"]["http_reqs"]["count"].as_u64().unwrap();
    assert!((30..=72).contains(&bounded), "20 a second for 3 s: {bounded}");
    let phases = of("goes-on")["phases"].as_array().unwrap().clone();
    let second = phases.iter().find(|phase| phase["name"] == "b").unwrap();
    assert_eq!(second["iterations"], 6, "{phases:#?}");
    assert!(of("pre-run-fails")["startedAt"].is_null(), "no load was made");
    let reason = &of("pre-run-fails")["ending"];
    assert!(reason.to_string().contains("fails"), "it names the hook: {reason}");
    let mut marked: Vec<String> = std::fs::read_to_string(&marks)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    marked.sort();
    let mut wanted = names.clone();
    wanted.sort_unstable();
    assert_eq!(marked, wanted, "PostRun ran once each, whatever the ending");
}

#[test]
fn s36_a_run_is_paused_and_resumed_by_hand_and_loses_no_arrival() {
    let rest = "  pool: crew\n  phases: [{name: p, executor: constant-arrival-rate, rate: 20, duration: 4s}]\n";
    let plans = crew("{concurrentRuns: 1}") + &plan("paced", "0%", rest) + &plan("second", "0%", rest);
    let lab = Lab::new(&[("plans.yaml", plans)], &["paced", "second"]);
    let id = lab.start("paced");
    let iterations = || lab.live(&id)["numbers"]["iterations"].as_u64().unwrap_or(0);
    wait_for("numbers", || (iterations() > 0).then_some(()));
    lab.daemon.ok(&["pause", &format!("run/{id}")]);
    lab.wait_for_stage(&id, "Paused");
    let refused = lab.daemon.muster(&["start", "second", "--wait"]);
    assert_eq!(refused.code, 95, "{refused:?}");
    assert!(refused.stderr.contains("runs at the same time"), "{refused:?}");
    let mut last = (0, 0);
    wait_for("load to stand still", || {
        let view = lab.live(&id);
        let (now, version) = (
            view["numbers"]["iterations"].as_u64().unwrap(),
            view["version"].as_u64().unwrap(),
        );
        if now != last.0 {
            last = (now, version);
        }
        // The judge looks once a second: what was measured before the pause is long in.
        (version >= last.1 + 4).then_some(())
    });
    assert!(last.0 < 80, "paused in the middle: {}", last.0);
    lab.daemon.ok(&["resume", &format!("run/{id}")]);
    assert_eq!(lab.ending(&id), "Passed");
    let report = lab.daemon.ok(&["report", &id, "-o", "json"]).json();
    assert_eq!(report["metrics"]["iterations"]["count"], 80, "{report:#}");
    assert!(lab.reasons(&format!("run/{id}")).contains(&"Paused".to_owned()));
    let over = lab.daemon.muster(&["pause", &format!("run/{id}")]);
    assert_eq!(over.code, 1, "{over:?}");
}

#[test]
fn s46_a_commit_in_mid_run_lets_it_finish_or_aborts_it_and_says_so() {
    let changed = |vus: u32| {
        let phases = |seconds: u32| {
            format!("  phases: [{{name: p, executor: constant-vus, vus: {vus}, duration: {seconds}s}}]\n")
        };
        plan("finish", "0%", &phases(6)) + &plan("abort", "0%", &(phases(60) + "  onChange: Abort\n"))
    };
    let gone = plan("gone", "0%", &(LONG.to_owned() + "  onChange: Abort\n"));
    let lab = Lab::new(
        &[("changed.yaml", changed(2)), ("gone.yaml", gone)],
        &["finish", "abort", "gone"],
    );
    let runs = ["finish", "abort", "gone"].map(|name| lab.start(name));
    for id in &runs {
        lab.wait_for_stage(id, "Running");
    }
    lab.world.repo.write("plans/changed.yaml", &changed(3));
    lab.world.repo.git(&["rm", "-q", "plans/gone.yaml"]);
    lab.world.repo.commit("two are edited, one is deleted");
    lab.daemon.ok(&["reconcile"]);
    let endings = runs.each_ref().map(|id| lab.ending(id));
    assert_eq!(endings, ["Passed", "Aborted(change)", "Aborted(change)"]);
    for (id, name) in runs.iter().zip(["finish", "abort", "gone"]) {
        for about in [format!("run/{id}"), format!("default/TestPlan/{name}")] {
            let told = lab.reasons(&about);
            let count = told.iter().filter(|reason| *reason == "PlanChanged").count();
            assert_eq!(count, 1, "{about}: {told:?}");
        }
    }
}

#[test]
fn s37_a_worker_killed_in_mid_run_spoils_it_and_nothing_is_left() {
    let rest = "  pool: crew\n  phases: [{name: p, executor: constant-arrival-rate, rate: 60, duration: 60s}]\n";
    let lab = Lab::new(&[("plans.yaml", crew("{}") + &plan("many", "0%", rest))], &["many"]);
    let id = lab.start("many");
    lab.wait_for_stage(&id, "Running");
    let workers = lab.processes("muster worker");
    assert_eq!(workers.len(), 3, "60/s over workers of 20/s");
    assert_eq!(lab.processes(" shim ").len(), 3);
    signal(workers[0], "KILL");
    assert_eq!(lab.ending(&id), "Invalid(workers)");
    let report = lab.daemon.muster(&["report", &id, "-o", "json"]).json();
    assert_eq!(report["completeness"]["kind"], "Partial", "{report:#}");
    let lost = report["workers"].as_array().unwrap().iter();
    assert_eq!(lost.filter(|worker| worker["lost"] == true).count(), 1, "{report:#}");
    wait_for("all workers and their shims to be gone", || {
        (lab.processes("muster worker").is_empty() && lab.processes(" shim ").is_empty()).then_some(())
    });
}

#[test]
fn s35_a_pool_that_cannot_start_says_why() {
    let unready = crew("{}").replace("  orphanTimeout", "  provisioning: {readyTimeout: 4s}\n  orphanTimeout");
    let rest = format!("  pool: crew\n{SHORT}");
    let lab = Lab::new(&[("plans.yaml", unready + &plan("unready", "0%", &rest))], &["unready"]);
    // No worker can prove itself without the token.
    let token = lab.world.dir.path().join("state/join-token");
    std::fs::remove_file(&token).unwrap();
    std::fs::create_dir(&token).unwrap();
    let (code, ending, report) = lab.play("unready");
    assert_eq!((code, ending.as_str()), (97, "Error(infrastructure)"), "{report:#}");
    let reason = report["ending"].to_string();
    assert!(
        reason.contains("0 of 1 workers") && reason.contains("muster logs unit/default.workerpool.crew.0"),
        "{reason}"
    );
}

/// A rule pauses the run once; the daemon that takes over does not do it again after somebody let it go on.
#[test]
fn s36_s42_a_rule_pauses_and_is_not_repeated_by_the_next_daemon() {
    let rest = "  pool: crew\n  phases: [{name: p, executor: constant-vus, vus: 2, duration: 12s}]\n  \
                abortRules: [{name: slow, metric: http_req_duration, abortWhen: \"value>1ms\", interval: 2s, action: Pause}, \
                {name: seen, metric: http_req_duration, abortWhen: \"value>1ms\", interval: 1s, action: Notify}]\n";
    let mut lab = Lab::new(&[("plans.yaml", crew("{}") + &plan("held", "0%", rest))], &["held"]);
    let id = lab.start("held");
    lab.wait_for_stage(&id, "Paused");
    lab.daemon.ok(&["resume", &format!("run/{id}")]);
    lab.wait_for_stage(&id, "Running");
    lab.daemon.kill();
    lab.daemon = Daemon::again(lab.world.dir.path(), lab.daemon.port());
    let mut stages = Vec::new();
    wait_for("the run to end", || {
        let stage = lab.run(&id)["stage"].as_str()?.to_owned();
        if stages.last() != Some(&stage) {
            stages.push(stage);
        }
        (stages.last()? == "Finished").then_some(())
    });
    assert!(!stages.contains(&"Paused".to_owned()), "{stages:?}");
    assert_eq!(lab.ending(&id), "Passed");
    let told = lab.reasons(&format!("run/{id}"));
    assert!(told.contains(&"RuleFired".to_owned()), "{told:?}");
}

/// A hook that had started when the daemon died is ended by the next one, and repeated only where its plan says that this does no harm.
#[test]
fn s17_s42_a_hook_that_had_started_is_ended_and_repeated_only_if_it_is_idempotent() {
    let dir = TempDir::new().unwrap();
    let marks = |name: &str| dir.path().join(name);
    let hook = |name: &str, idempotent: bool| {
        // The first time it never ends.
        let script = format!(
            "echo $$ >> {0}; if [ $(wc -l < {0}) -lt 2 ]; then exec sleep 60; fi",
            marks(name).display()
        );
        let hooks = format!(
            "  hooks: [{{name: once, when: PreRun, command: [sh, -c, '{script}'], idempotent: {idempotent}, timeout: 2m}}]\n"
        );
        plan(name, "0%", &(SHORT.to_owned() + &hooks))
    };
    let plans = hook("once", false) + &hook("again", true);
    let mut lab = Lab::new(&[("plans.yaml", plans)], &["once", "again"]);
    let runs = ["once", "again"].map(|name| lab.start(name));
    let pids = |name: &str| -> Vec<u32> {
        let text = std::fs::read_to_string(marks(name)).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    };
    // A zombie has no command line.
    let lives = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let first = ["once", "again"].map(|name| wait_for("the hook to begin", || pids(name).first().copied()));
    lab.daemon.kill();
    assert!(first.map(lives) == [true, true], "hooks outlive a killed daemon");
    lab.daemon = Daemon::again(lab.world.dir.path(), lab.daemon.port());
    let endings = runs.each_ref().map(|id| lab.ending(id));
    assert_eq!(endings, ["Error(hook)", "Passed"]);
    assert_eq!((pids("once").len(), pids("again").len()), (1, 2));
    assert!(
        first.map(lives) == [false, false],
        "the next daemon ends what is left of them"
    );
}
