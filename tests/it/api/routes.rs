//! Each route's good answer, and answers that are held back until there is something to say.

use super::{World, ready_units};
use crate::support::wait_for;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn items(answer: (u16, Value)) -> Vec<Value> {
    let (status, body) = answer;
    assert_eq!((status, &body["formatVersion"]), (200, &json!(1)), "{body:#}");
    body["items"].as_array().unwrap().clone()
}

#[test]
fn what_there_is_can_be_read() {
    let world = World::new();
    let daemon = world.serve("");
    let units = ready_units(&daemon, 2);
    assert_eq!(daemon.get("/livez"), (200, json!({"live": true})));
    assert_eq!(daemon.get("/readyz"), (200, json!({"ready": true})));
    assert_eq!(daemon.get("/api/v1/version").1["version"], env!("CARGO_PKG_VERSION"));
    let project = &items(daemon.get("/api/v1/projects"))[0];
    assert_eq!(
        (&project["project"], &project["resources"]),
        (&json!("default"), &json!(3))
    );
    assert_eq!(items(daemon.get("/api/v1/resources")).len(), 3);
    let plans = items(daemon.get("/api/v1/resources?kind=TestPlan"));
    assert_eq!((plans.len(), &plans[0]["name"]), (1, &json!("hello")));
    let (_, service) = daemon.get("/api/v1/resources/default/Service/shop");
    assert_eq!(service["units"].as_array().map(Vec::len), Some(2), "{service:#}");
    let name = units[0]["name"].as_str().unwrap();
    let (status, log) = daemon.get(&format!("/api/v1/units/{name}/logs?bytes=10"));
    assert_eq!(status, 200, "{log}");
    assert_eq!(items(daemon.get("/api/v1/runs")).len(), 0);
    assert_eq!(items(daemon.get("/api/v1/workers")).len(), 0);
    assert!(!items(daemon.get("/api/v1/events?limit=1")).is_empty());
    wait_for("an empty diff", || {
        let (status, diff) = daemon.get("/api/v1/diff");
        assert_eq!(status, 200);
        let changes = diff["changes"].as_array()?;
        changes.iter().all(|change| change["action"] == "NoOp").then_some(())
    });
    assert_eq!(daemon.post("/api/v1/reconcile", &json!({})).0, 200);
    let one = json!({"resource": "default/Service/shop"});
    assert_eq!(daemon.post("/api/v1/reconcile", &one).0, 200);
}

#[test]
fn the_forecast_follows_plans_and_those_that_hold_them_back() {
    let world = World::new();
    let schedule = "\nspec:\n  schedule: \"0 2 * * *\"\n  timeZone: Asia/Shanghai\n";
    world.repo.write(
        "plans/nightly.yaml",
        &super::plan("nightly").replace("\nspec:\n", schedule),
    );
    world.repo.commit("a schedule");
    let daemon = world.serve("");
    let ahead = || {
        let (status, forecast) = daemon.get("/api/v1/forecast?from=2027-06-01T00:00:00Z&days=2");
        assert_eq!(status, 200, "{forecast}");
        let fires = forecast["fires"].as_array().unwrap().clone();
        (fires.len() == 2).then_some((fires, forecast["totals"]["runs"].clone()))
    };
    let (fires, runs) = wait_for("the plan's slots", ahead);
    assert_eq!(
        (&fires[0]["plan"], &fires[0]["local"], runs),
        (&json!("default/nightly"), &json!("2027-06-02T02:00:00+08:00"), json!(2))
    );
    let args = ["--from", "2027-06-01", "--days", "2"];
    let text = daemon.ok(&[&["forecast"], &args[..]].concat()).stdout;
    assert!(text.contains("2027-06-01 18:00Z"), "{text}");
    let until = json!({"reason": "freeze", "until": "2027-06-02T00:00:00Z"});
    assert_eq!(daemon.post("/api/v1/plans/default/nightly/suspend", &until).0, 200);
    let (fires, runs) = wait_for("the suspension", ahead);
    assert_eq!((&fires[0]["outcome"], runs), (&json!("Skipped(Suspended)"), json!(1)));
    for days in ["0", "401", "x"] {
        assert_eq!(daemon.get(&format!("/api/v1/forecast?days={days}")).0, 400, "{days}");
    }
}

#[test]
fn an_answer_is_held_back_until_something_happens() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    let quiet = wait_for("the first events to be over", || {
        let last = daemon.get("/api/v1/events").1["last"].as_u64()?;
        let begun = Instant::now();
        let (_, answer) = daemon.get(&format!("/api/v1/events?after={last}&waitSeconds=1"));
        let held = begun.elapsed() >= Duration::from_secs(1);
        (held && answer["items"] == json!([])).then_some(last)
    });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| daemon.get(&format!("/api/v1/events?after={quiet}&waitSeconds=30")));
        world
            .repo
            .write("plans/lab.yaml", &super::LAB.replace("replicas: 2", "replicas: 1"));
        world.repo.commit("fewer");
        let begun = Instant::now();
        let news = items(waiting.join().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(29));
        assert!(news.iter().all(|event| event["sequence"].as_u64().unwrap() > quiet));
        assert!(news.iter().any(|event| event["reason"] == "RevisionRead"), "{news:#?}");
    });
}

#[test]
fn a_run_is_started_watched_steered_and_read() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    let id = "0199a000-0000-7000-8000-00000000feed";
    let start = json!({"plan": "hello", "id": id});
    assert_eq!(daemon.post("/api/v1/runs", &start), (201, json!({"id": id})));
    assert_eq!(
        daemon.post("/api/v1/runs", &start),
        (201, json!({"id": id})),
        "the same run"
    );
    assert_eq!(daemon.get("/api/v1/runs/feed").1["id"], id, "by its last digits");
    assert_eq!(items(daemon.get("/api/v1/runs?active=true&plan=hello")).len(), 1);
    assert_eq!(items(daemon.get("/api/v1/runs?plan=other")).len(), 0);
    super::refused(
        &daemon.get(&format!("/api/v1/runs/{id}/report")),
        409,
        "NotFinished",
        "muster watch",
    );
    let mut version = 0;
    let mut views = 0;
    wait_for("load", || {
        let (status, answer) = daemon.get(&format!("/api/v1/runs/{id}/live?waitSeconds=30&after={version}"));
        assert_eq!(status, 200, "{answer}");
        assert_ne!(answer["version"], version, "it changed, or it was held back");
        version = answer["version"].as_u64()?;
        views += 1;
        (answer["run"]["stage"] == "Running").then_some(())
    });
    assert!(views > 1, "each state is seen once");
    let dance = daemon.post(&format!("/api/v1/runs/{id}/dance"), &json!({}));
    super::refused(&dance, 404, "NotFound", "dance");
    for action in ["pause", "resume", "stop"] {
        let steered = wait_for(action, || {
            let answer = daemon.post(&format!("/api/v1/runs/{id}/{action}"), &json!({}));
            // The run answers NotNow until its workers have followed the word before.
            (answer.0 == 200).then_some(answer)
        });
        assert_eq!(steered.1["id"], id);
    }
    wait_for("the end", || {
        (daemon.get("/api/v1/runs/feed").1["stage"] == "Finished").then_some(())
    });
    let (status, report) = daemon.get("/api/v1/runs/feed/report");
    assert_eq!((status, &report["run"]), (200, &json!(id)), "{report:#}");
    assert_eq!(daemon.get(&format!("/api/v1/runs/{id}")).1["ending"], "Stopped");
    let late = daemon.post(&format!("/api/v1/runs/{id}/stop"), &json!({}));
    super::refused(&late, 409, "NotNow", id);
    let (status, again) = daemon.post("/api/v1/runs/feed/rerun", &json!({}));
    assert_eq!(status, 201, "{again}");
    let again = again["id"].as_str().unwrap();
    assert_eq!(
        daemon
            .post(&format!("/api/v1/runs/{again}/stop"), &json!({"abort": true}))
            .0,
        200
    );
}
