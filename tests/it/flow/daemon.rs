//! A daemon on a repository: commits, runs, refusals, teams.

use crate::support::muster::{Daemon, kill_below};
use crate::support::repo::Repo;
use crate::support::wait_for;
use serde_json::Value;
use tempfile::TempDir;

/// A repository with this project's own plans, and settings that watch it.
pub struct World {
    pub dir: TempDir,
    pub repo: Repo,
}

impl World {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let repo = Repo::new(&dir.path().join("repo"));
        repo.write("plans/lab.yaml", include_str!("../../../plans/lab.yaml"));
        repo.write("plans/checkout.yaml", include_str!("../../../plans/checkout.yaml"));
        repo.write("plans/files/shop.conf", include_str!("../../../plans/files/shop.conf"));
        repo.commit("plans");
        Self { dir, repo }
    }

    pub fn settings(&self) -> String {
        self.settings_on(&format!("sqlite://{}/state/muster.db", self.dir.path().display()))
    }

    /// With this store.
    pub fn settings_on(&self, store: &str) -> String {
        format!(
            "source: {{url: \"{}\", branch: main, path: plans, interval: 1s}}\nstore: {{url: \"{store}\"}}\n\
             process: {{enabled: true}}\n",
            self.repo.url(),
        )
    }

    /// With these plans alone.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let repo = Repo::new(&dir.path().join("repo"));
        for (path, text) in files {
            repo.write(&format!("plans/{path}"), text);
        }
        repo.commit("plans");
        Self { dir, repo }
    }

    pub fn serve(&self) -> Daemon {
        Daemon::start(self.dir.path(), &self.settings())
    }

    pub fn edit(&self, path: &str, from: &str, to: &str) -> String {
        let file = self.repo.dir.join(path);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{path} has no `{from}`");
        std::fs::write(&file, text.replace(from, to)).unwrap();
        self.repo.commit(&format!("{from} becomes {to}"))
    }
}

/// Processes of units must not outlive a test, whatever became of it.
impl Drop for World {
    fn drop(&mut self) {
        let units = self.dir.path().join("state/units");
        kill_below(&units);
    }
}

/// The replicas of the shop, once there are as many as wanted and all are Ready.
pub fn ready_units(daemon: &Daemon, wanted: usize) -> Vec<Value> {
    wait_for(&format!("{wanted} ready replicas"), || {
        let (_, units) = daemon.get("/api/v1/units");
        let shop: Vec<Value> = units["items"]
            .as_array()?
            .iter()
            .filter(|unit| unit["owner"] == "default/Service/shop")
            .cloned()
            .collect();
        (shop.len() == wanted && shop.iter().all(|unit| unit["state"] == "Ready")).then_some(shop)
    })
}

#[test]
fn a_commit_becomes_a_measured_run() {
    let world = World::new();
    let daemon = world.serve();
    ready_units(&daemon, 3);
    let plans = daemon.ok(&["get", "plans"]).stdout;
    assert!(plans.contains("checkout") && plans.contains("Synced"), "{plans}");
    let report = daemon.ok(&["start", "plan/checkout", "--wait", "-o", "json"]).json();
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(report["phases"].as_array().unwrap().len(), 4);
    assert_eq!(report["revision"], world.repo.git(&["rev-parse", "HEAD"]));

    let head = world.edit("plans/lab.yaml", "replicas: 3", "replicas: 2");
    daemon.ok(&["reconcile"]);
    ready_units(&daemon, 2);
    wait_for("the commit to be applied", || {
        let (_, service) = daemon.get("/api/v1/resources/default/Service/shop");
        (service["appliedRevision"] == head.as_str() && service["sync"] == "Synced").then_some(())
    });
    let diff = daemon.muster(&["diff", "--detailed-exitcode"]);
    assert_eq!(diff.code, 0, "nothing left to do: {diff:?}");
    let metrics = daemon.get("/metrics").1.to_string();
    assert!(metrics.contains("muster_"), "{metrics}");
    let described = daemon.ok(&["describe", "service/shop"]).stdout;
    assert!(
        described.contains("Healthy") && described.contains("nginx"),
        "{described}"
    );
}

#[test]
fn s05_a_bad_commit_keeps_the_last_good_state_and_says_why() {
    let world = World::new();
    let daemon = world.serve();
    ready_units(&daemon, 3);
    let good = world.repo.git(&["rev-parse", "HEAD"]);
    let bad = world.edit("plans/lab.yaml", "replicas: 3", "replicas: three");
    daemon.ok(&["reconcile"]);
    let project = wait_for("the bad commit to be seen", || {
        let (_, projects) = daemon.get("/api/v1/projects");
        let project = projects["items"][0].clone();
        (project["observed"] == bad.as_str()).then_some(project)
    });
    assert_eq!(project["ready"], false);
    assert_eq!(project["revision"], good.as_str());
    let diagnostic = &project["diagnostics"][0];
    assert_eq!(diagnostic["file"], "lab.yaml", "{project:#}");
    assert!(diagnostic["line"].as_u64().unwrap() > 1);
    ready_units(&daemon, 3);
    let events = daemon.ok(&["events"]).stdout;
    assert_eq!(events.matches("PlansInvalid").count(), 1, "told once: {events}");
}

#[test]
fn s21_an_emptied_repository_is_refused_until_approved() {
    let world = World::new();
    let daemon = world.serve();
    ready_units(&daemon, 3);
    world.repo.git(&["rm", "-q", "-r", "plans"]);
    world.repo.write("plans/README.md", "nothing\n");
    let head = world.repo.commit("empty");
    daemon.ok(&["reconcile"]);
    wait_for("the refusal", || {
        daemon
            .muster(&["diff"])
            .stdout
            .contains("approve-deletion")
            .then_some(())
    });
    ready_units(&daemon, 3);
    daemon.ok(&["approve-deletion", &head]);
    wait_for("the units to go", || {
        let (_, units) = daemon.get("/api/v1/units");
        units["items"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

#[test]
fn s23_a_suspended_plan_is_not_started() {
    let world = World::new();
    let daemon = world.serve();
    ready_units(&daemon, 3);
    daemon.ok(&["suspend", "plan/checkout", "--reason", "freeze of week 47"]);
    let refused = daemon.muster(&["start", "plan/checkout", "--wait"]);
    assert_eq!(refused.code, 95, "{refused:?}");
    assert!(refused.stderr.contains("freeze of week 47"), "{refused:?}");
    daemon.ok(&["resume", "plan/checkout"]);
    let started = daemon.ok(&["start", "plan/checkout", "-o", "json"]).json();
    let id = started["id"].as_str().unwrap();
    daemon.ok(&["stop", &format!("run/{id}")]);
    wait_for("the run to end", || {
        (daemon.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
    });
    assert_eq!(daemon.get(&format!("/api/v1/runs/{id}")).1["ending"], "Stopped");
}

#[test]
fn s34_a_repeated_id_is_the_same_run_and_a_rerun_is_pinned() {
    let world = World::new();
    let daemon = world.serve();
    ready_units(&daemon, 3);
    let id = "0199a000-0000-7000-8000-000000000001";
    let first = daemon
        .ok(&["start", "plan/checkout", "--id", id, "--wait", "-o", "json"])
        .json();
    assert_eq!(first["run"], id);
    let again = daemon
        .ok(&["start", "plan/checkout", "--id", id, "--wait", "-o", "json"])
        .json();
    assert_eq!(again["startedAt"], first["startedAt"], "the same run");
    world.edit("plans/checkout.yaml", "duration: 5s", "duration: 6s");
    daemon.ok(&["reconcile"]);
    wait_for("the edit to be applied", || {
        let (_, plan) = daemon.get("/api/v1/resources/default/TestPlan/checkout");
        plan["document"].to_string().contains("6s").then_some(())
    });
    let rerun = daemon
        .ok(&["rerun", &format!("run/{id}"), "--wait", "-o", "json"])
        .json();
    assert_eq!(rerun["digest"], first["digest"], "the plan as it was");
    assert_eq!(rerun["revision"], first["revision"]);
    assert_ne!(rerun["run"], first["run"]);
}

#[test]
fn s46_a_commit_does_not_touch_a_run_in_flight() {
    let world = World::new();
    let daemon = world.serve();
    ready_units(&daemon, 3);
    let started = daemon.ok(&["start", "plan/checkout", "-o", "json"]).json();
    let id = started["id"].as_str().unwrap().to_owned();
    wait_for("load", || {
        (daemon.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Running").then_some(())
    });
    world.edit("plans/checkout.yaml", "rate: 100", "rate: 50");
    daemon.ok(&["reconcile"]);
    wait_for("the run to end", || {
        (daemon.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
    });
    assert_eq!(daemon.get(&format!("/api/v1/runs/{id}")).1["ending"], "Passed");
}

#[test]
fn s58_s61_teams_share_a_repository_and_not_their_mistakes() {
    let dir = TempDir::new().unwrap();
    let repo = Repo::new(&dir.path().join("repo"));
    let plan = |name: &str, url: &str| {
        include_str!("../../../examples/hello/hello.yaml")
            .replace("name: hello", &format!("name: {name}"))
            .replace("http://127.0.0.1:8080", url)
    };
    repo.write("teams/a/plan.yaml", &plan("same-name", "http://127.0.0.1:8080"));
    repo.write("teams/b/plan.yaml", &plan("same-name", "http://127.0.0.1:8080"));
    repo.commit("two teams, one name");
    let settings = format!(
        "source: {{url: \"{}\", branch: main, interval: 1s}}\nstore: {{url: \"sqlite://{}/state/muster.db\"}}\n\
         targets: {{allow: [\"127.0.0.1\", \"10.0.0.1\"]}}\nprojects:\n  \
         - {{name: a, paths: [\"teams/a/**\"], targets: [\"127.0.0.1\"], kinds: [TestPlan]}}\n  \
         - {{name: b, paths: [\"teams/b/**\"], targets: [\"127.0.0.1\"]}}\n",
        repo.url(),
        dir.path().display()
    );
    let daemon = Daemon::start(dir.path(), &settings);
    let projects = || {
        let (_, answer) = daemon.get("/api/v1/projects");
        let find = |name: &str| {
            answer["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|project| project["project"] == name)
                .cloned()
        };
        (find("a"), find("b"))
    };
    wait_for("both projects", || {
        let (a, b) = projects();
        (a?["ready"] == true && b?["ready"] == true).then_some(())
    });
    let unit = "\n---\napiVersion: muster.dev/v1alpha1\nkind: Environment\nmetadata: {name: lab}\nspec: {provider: {type: process}}\n";
    repo.write("teams/a/plan.yaml", &(plan("same-name", "http://10.0.0.1") + unit));
    repo.write("teams/b/plan.yaml", &plan("renamed", "http://127.0.0.1:8080"));
    let head = repo.commit("a aims elsewhere and wants units; b renames");
    wait_for("the commit", || {
        let (a, b) = projects();
        (a?["observed"] == head.as_str() && b?["revision"] == head.as_str()).then_some(())
    });
    let (a, b) = projects();
    assert_eq!(b.unwrap()["ready"], true, "b goes on");
    let a = a.unwrap();
    assert_eq!(a["ready"], false);
    let errors = a["diagnostics"].to_string();
    assert!(errors.contains("10.0.0.1"), "the target: {errors}");
    assert!(errors.contains("Environment"), "the kind: {errors}");
}
