//! Plans whose results are in a database of their own (promise 52), over the direct bus: real daemon, workers, servers.

use super::daemon::World;
use crate::support::mariadb::MariaDb;
use crate::support::muster::Daemon;
use crate::support::nginx::Nginx;
use crate::support::wait_for;
use serde_json::Value;

fn plan(name: &str, url: &str, duration: &str, more: &str) -> String {
    format!(
        "apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: {name}}}\nspec:\n  \
         target: {{baseURL: \"{url}\"}}\n  engine: {{type: http, timeout: 5s, requests: [{{name: home, get: /{name}}}]}}\n  \
         phases: [{{name: p, executor: constant-arrival-rate, rate: 50, duration: {duration}}}]\n  \
         thresholds: {{http_req_failed: [rate<1%]}}\n  validity: {{maxBadShare: 100%}}\n{more}"
    )
}

const CLUSTER: &str = "apiVersion: muster.dev/v1alpha1\nkind: DatabaseCluster\nmetadata: {name: results}\n\
                       spec: {engine: mariadb, external: {secretRef: {name: results-db}}}\n";

fn finished(daemon: &Daemon, id: &str) -> (String, Value) {
    let run = wait_for("the run to end", || {
        let (_, run) = daemon.get(&format!("/api/v1/runs/{id}"));
        (run["stage"] == "Finished").then_some(run)
    });
    let report = daemon.muster(&["report", id, "-o", "json"]).json();
    (run["ending"].as_str().unwrap().to_owned(), report)
}

#[test]
fn s49_s52_a_plans_own_database_killed_in_mid_run_costs_nothing_and_holds_up_no_other_run() {
    let world = World::of(&[]);
    let nginx = Nginx::start(&world.dir.path().join("nginx"), "location / { return 200 \"ok\"; }");
    let elsewhere = plan(
        "elsewhere",
        &nginx.url(),
        "15s",
        "  results: {databaseCluster: results}\n",
    );
    world.repo.write("plans/elsewhere.yaml", &elsewhere);
    world
        .repo
        .write("plans/here.yaml", &plan("here", &nginx.url(), "3s", ""));
    world.repo.write("plans/results.yaml", CLUSTER);
    world.repo.commit("two plans");
    let database = MariaDb::start();
    let secret = world.dir.path().join("url");
    std::fs::write(&secret, database.database("muster_results")).unwrap();
    let settings = format!(
        "{}targets: {{allow: [\"127.0.0.1\"]}}\nsecrets: [{{name: results-db, file: {}}}]\n",
        world.settings(),
        secret.display()
    );
    let daemon = Daemon::start(world.dir.path(), &settings);
    wait_for("the plans to be synced", || {
        let synced = |name| daemon.get(&format!("/api/v1/resources/default/TestPlan/{name}")).1["sync"] == "Synced";
        (synced("elsewhere") && synced("here")).then_some(())
    });
    let id = wait_for("its database to be ready", || {
        let done = daemon.muster(&["start", "elsewhere", "-o", "json"]);
        (done.code == 0).then(|| done.json()["id"].clone())
    });
    let id = id.as_str().unwrap();
    wait_for("load of it to be seen", || {
        let (_, live) = daemon.get(&format!("/api/v1/runs/{id}/live"));
        (live["live"]["numbers"]["requestsPerS"].as_f64()? > 10.0).then_some(())
    });
    database.kill();
    // A whole run of another plan, while the first one's database is away.
    let report = daemon.ok(&["start", "here", "--wait", "-o", "json"]).json();
    assert_eq!(report["completeness"]["kind"], "Complete", "{report:#}");
    assert_eq!(report["metrics"]["iterations"]["count"], 150, "{report:#}");
    database.up();
    let (ending, report) = finished(&daemon, id);
    assert_eq!(ending, "Passed", "{report:#}\n{}", daemon.log());
    assert_eq!(report["completeness"]["kind"], "Complete", "{report:#}");
    assert_eq!(report["metrics"]["iterations"]["count"], 750, "{report:#}");
    let log = nginx.stop();
    assert_eq!(log.len(), 900, "as the target saw it");
    let sum = "(SELECT SUM(requests) FROM muster_results.series_second WHERE run = '{id}')".replace("{id}", id);
    // Fails unless the sum is what the target saw.
    database.sql(&format!(
        "CREATE TABLE muster_results.checked (n INT, CHECK (n = 750)); INSERT INTO muster_results.checked SELECT {sum}"
    ));

    // A name keeps it from retention, belongs to one run of the plan, and can be taken away.
    daemon.ok(&["tag", &format!("run/{id}"), "release-1"]);
    assert_eq!(daemon.get(&format!("/api/v1/runs/{id}")).1["tag"], "release-1");
    let refused = daemon.muster(&["tag", &format!("run/{id}"), "Not A Name"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    daemon.ok(&["tag", &format!("run/{id}"), "--remove"]);
    assert_eq!(daemon.get(&format!("/api/v1/runs/{id}")).1["tag"], Value::Null);
}
