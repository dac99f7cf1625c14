//! A schedule as its user meets it: merged, forecast, started by itself, listed, missed on purpose, held by windows.

use super::daemon::World;
use crate::support::muster::Daemon;
use crate::support::nginx::Nginx;
use crate::support::{PATIENCE, wait_for};
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

fn plan(url: &str, more: &str) -> String {
    format!(
        "apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {{name: nightly}}\nspec:\n  schedule: \"* * * * *\"\n  \
         timeZone: Asia/Shanghai\n{more}  target: {{baseURL: \"{url}\"}}\n  engine: {{type: http, requests: [{{name: home, get: /}}]}}\n  \
         phases: [{{name: p, executor: constant-vus, vus: 1, duration: 2s}}]\n  validity: {{maxBadShare: 100%}}\n"
    )
}

fn world(more: &str) -> (World, Nginx, String) {
    let world = World::of(&[]);
    let nginx = Nginx::start(&world.dir.path().join("nginx"), "location / { return 200 \"ok\"; }");
    world.repo.write("plans/nightly.yaml", &plan(&nginx.url(), more));
    world.repo.commit("a test of each minute");
    let settings = format!("{}targets: {{allow: [\"127.0.0.1\"]}}\n", world.settings());
    (world, nginx, settings)
}

/// As `wait_for`, for what comes with the next minute.
#[track_caller]
fn wait_a_minute_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let (begun, longest) = (Instant::now(), 2 * PATIENCE);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < longest, "waited {longest:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

fn slots(daemon: &Daemon) -> Vec<serde_json::Value> {
    let items = daemon.ok(&["get", "slots", "-o", "json"]).json()["items"].clone();
    items.as_array().unwrap().clone()
}

/// A slot comes, is started at its instant by the daemon that is there, and its row says so also after that daemon was killed.
#[test]
fn s26_s27_s42_a_slot_starts_by_itself_once_over_daemons_that_are_killed() {
    let (world, nginx, settings) = world("");
    let mut daemon = Daemon::start(world.dir.path(), &settings);
    let first = wait_a_minute_for("a slot to start", || {
        slots(&daemon).into_iter().find(|slot| slot["outcome"] == "Started")
    });
    daemon.kill();
    let next = Daemon::again(world.dir.path(), daemon.port());
    let known = wait_for("its load to be noted", || {
        let same = slots(&next).into_iter().find(|slot| slot["slot"] == first["slot"])?;
        (!same["loadAt"].is_null()).then_some(same)
    });
    assert_eq!(known["run"], first["run"]);
    let slot: Timestamp = known["slot"].as_str().unwrap().parse().unwrap();
    let load_at: Timestamp = known["loadAt"].as_str().unwrap().parse().unwrap();
    assert!(load_at >= slot, "{known}");
    assert!(known["local"].as_str().unwrap().ends_with("+08:00"), "{known}");
    let run = known["run"].as_str().unwrap();
    wait_for("the run to end", || {
        (next.get(&format!("/api/v1/runs/{run}")).1["stage"] == "Finished").then_some(())
    });
    let report = next.ok(&["report", run, "-o", "json"]).json();
    assert_eq!(
        (&report["slot"], &report["trigger"]["kind"]),
        (&known["slot"], &"Schedule".into())
    );
    let table = next.ok(&["get", "slots"]).stdout;
    assert!(table.contains("Coming") && table.contains("nightly"), "{table}");
    drop(nginx);
}

/// A suspended plan's slots are rows too, and a window that is closed holds starts by hand.
#[test]
fn s23_s26_what_does_not_start_is_a_row_with_its_reason() {
    let open = Timestamp::now() + SignedDuration::from_hours(6);
    let window = format!(
        "  windows: [{{kind: Allow, schedule: \"{} {} * * *\", duration: 1h}}]\n",
        open.strftime("%-M"),
        open.in_tz("Asia/Shanghai").unwrap().strftime("%-H")
    );
    let (world, _nginx, settings) = world(&window);
    let daemon = Daemon::start(world.dir.path(), &settings);
    wait_for("the plan to be known", || {
        (daemon.ok(&["get", "plans", "-o", "name"]).stdout.contains("nightly")).then_some(())
    });
    let refused = daemon.muster(&["start", "plan/nightly"]);
    assert_eq!(refused.code, 95, "{refused:?}");
    assert!(refused.stderr.contains("--override-windows"), "{}", refused.stderr);
    let run = daemon.ok(&["start", "plan/nightly", "--override-windows", "an incident", "--wait"]);
    assert_eq!(run.code, 0);
    let events = daemon.ok(&["events"]).stdout;
    assert!(
        events.contains("WindowsOverridden") && events.contains("an incident"),
        "{events}"
    );
    let slot = wait_a_minute_for("a slot to be decided", || {
        slots(&daemon).into_iter().find(|slot| slot["outcome"] != "Coming")
    });
    assert_eq!(slot["outcome"], "Skipped(OutsideWindow)", "{slot}");
    assert!(!slot["detail"].as_str().unwrap().is_empty());
}
