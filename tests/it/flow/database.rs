//! A daemon whose database goes away: runs go on and lose nothing, stops work, a start says what is wrong.

use super::daemon::World;
use crate::support::mariadb::MariaDb;
use crate::support::muster::{Daemon, command};
use crate::support::nginx::Nginx;
use crate::support::{free_port, wait_for};
use serde_json::Value;
use std::path::PathBuf;

/// A daemon on a database of its own, with a plan of 50 iterations a second.
struct Lab {
    daemon: Daemon,
    database: MariaDb,
    nginx: Nginx,
    log: PathBuf,
    _world: World,
}

impl Lab {
    fn new(duration: &str) -> Self {
        let world = World::of(&[]);
        let folder = world.dir.path().join("nginx");
        let nginx = Nginx::start(&folder, "location / { return 200 \"ok\"; }");
        world.repo.write(
            "plans/steady.yaml",
            &format!(
                "apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: steady}}\nspec:\n  \
                 target: {{baseURL: \"{}\"}}\n  engine: {{type: http, timeout: 5s, requests: [{{name: home, get: /}}]}}\n  \
                 phases: [{{name: p, executor: constant-arrival-rate, rate: 50, duration: {duration}}}]\n  \
                 thresholds: {{http_req_failed: [rate<1%]}}\n  validity: {{maxBadShare: 100%}}\n",
                nginx.url()
            ),
        );
        world.repo.commit("a steady plan");
        let database = MariaDb::start();
        let store = database.database("muster_flow");
        let settings = format!("{}targets: {{allow: [\"127.0.0.1\"]}}\n", world.settings_on(&store));
        let daemon = Daemon::start(world.dir.path(), &settings);
        wait_for("the plan to be synced", || {
            (daemon.get("/api/v1/resources/default/TestPlan/steady").1["sync"] == "Synced").then_some(())
        });
        Self {
            daemon,
            database,
            nginx,
            log: folder.join("access.log"),
            _world: world,
        }
    }

    fn start(&self) -> String {
        let answer = self.daemon.ok(&["start", "steady", "-o", "json"]).json();
        let id = answer["id"].as_str().unwrap().to_owned();
        self.wait_for_requests(25);
        id
    }

    fn requests(&self) -> usize {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().count()
    }

    /// Waits until so many more requests have arrived.
    fn wait_for_requests(&self, more: usize) {
        let before = self.requests();
        wait_for(&format!("{more} more requests"), || {
            (self.requests() >= before + more).then_some(())
        });
    }

    fn ending(&self, id: &str) -> (String, Value) {
        let run = wait_for("the run to end", || {
            let (_, run) = self.daemon.get(&format!("/api/v1/runs/{id}"));
            (run["stage"] == "Finished").then_some(run)
        });
        let report = self.daemon.muster(&["report", id, "-o", "json"]).json();
        (run["ending"].as_str().unwrap().to_owned(), report)
    }
}

#[test]
fn s44_s49_a_database_killed_for_five_seconds_in_mid_run_costs_nothing() {
    let lab = Lab::new("15s");
    let id = lab.start();
    lab.database.kill();
    // Five seconds of load.
    lab.wait_for_requests(250);
    let (status, _) = lab.daemon.get(&format!("/api/v1/runs/{id}"));
    assert_eq!(status, 503, "the database is away");
    lab.database.up();
    let (ending, report) = lab.ending(&id);
    assert_eq!(ending, "Passed", "{report:#}\n{}", lab.daemon.log());
    assert_eq!(report["completeness"]["kind"], "Complete", "{report:#}");
    assert_eq!(report["metrics"]["iterations"]["count"], 750, "{report:#}");
    assert_eq!(report["metrics"]["http_reqs"]["count"], lab.nginx.stop().len());
}

#[test]
fn s47_a_stop_works_while_the_database_is_away() {
    let lab = Lab::new("10m");
    let id = lab.start();
    lab.database.kill();
    lab.wait_for_requests(25);
    lab.daemon.ok(&["stop", &format!("run/{id}")]);
    let (mut last, mut looks) = (0, 0);
    wait_for("load to stop", || {
        let now = lab.requests();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        // A second without a request at 50 a second.
        (looks >= 50).then_some(())
    });
    assert_eq!(lab.daemon.get(&format!("/api/v1/runs/{id}")).0, 503, "it is still away");
    lab.database.up();
    let (ending, report) = lab.ending(&id);
    assert_eq!(ending, "Stopped", "{report:#}");
    assert_eq!(report["completeness"]["kind"], "Complete", "{report:#}");
    assert_eq!(report["metrics"]["http_reqs"]["count"], lab.nginx.stop().len());
}

/// It does not wait: whoever starts it sees a wrong address at once, and a supervisor starts it again.
#[test]
fn a_daemon_without_its_database_says_so_and_ends() {
    let world = World::of(&[("README.md", "nothing\n")]);
    let store = format!("mysql://muster:pa55word@127.0.0.1:{}/muster_flow", free_port());
    std::fs::write(world.dir.path().join("muster.yaml"), world.settings_on(&store)).unwrap();
    let output = command(world.dir.path(), &["serve", "--config", "muster.yaml"])
        .env("MUSTER_STATE_DIR", world.dir.path().join("state"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("database is unavailable") && stderr.contains("127.0.0.1"),
        "{stderr}"
    );
    assert!(!stderr.contains("pa55word"), "{stderr}");
}
