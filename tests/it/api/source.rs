//! What a source that fails looks like to those who ask: its reason, and the last good state, which stays.

use super::{LAB, World, ready_units};
use crate::support::git_server::Server;
use crate::support::muster::Daemon;
use crate::support::wait_for;
use serde_json::Value;

/// Waits until the source stands so, and returns how it says it.
fn source(daemon: &Daemon, state: &str, reason: &str) -> Value {
    wait_for(&format!("the source to be {state} {reason}"), || {
        // The backoff of a failing source is not what is tested.
        daemon.ok(&["reconcile", "-q"]);
        let source = daemon.get("/api/v1/projects").1["source"].clone();
        let same = source["state"] == state && (reason.is_empty() || source["reason"] == reason);
        same.then_some(source)
    })
}

/// What failed is said where people look, once, and nothing else changed.
fn is_told(daemon: &Daemon, reason: &str) {
    let projects = daemon.ok(&["get", "projects"]);
    assert!(projects.stdout.contains("default"), "{projects:?}");
    assert!(
        projects.stderr.contains(reason) && projects.stderr.contains("last good"),
        "{projects:?}"
    );
    let events = daemon.ok(&["events", "--for", "source"]).stdout;
    assert_eq!(events.matches(reason).count(), 1, "{events}");
    ready_units(daemon, 2);
    let metrics = daemon.get("/metrics").1.to_string();
    assert!(
        metrics.contains(&format!("muster_source_failures_total{{reason=\\\"{reason}\\\"}}")),
        "{metrics}"
    );
}

#[test]
fn s5_a_deleted_branch_is_said_and_its_return_is_seen() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    assert_eq!(daemon.get("/api/v1/projects").1["source"]["state"], "Ready");
    world.repo.git(&["branch", "-m", "main", "other"]);
    let failing = source(&daemon, "Failing", "BranchNotFound");
    assert!(failing["message"].as_str().unwrap().contains("main"), "{failing}");
    is_told(&daemon, "BranchNotFound");
    world
        .repo
        .write("plans/lab.yaml", &LAB.replace("replicas: 2", "replicas: 1"));
    world.repo.commit("meanwhile");
    world.repo.git(&["branch", "-m", "other", "main"]);
    source(&daemon, "Ready", "");
    ready_units(&daemon, 1);
    let quiet = daemon.ok(&["get", "projects"]);
    assert_eq!(quiet.stderr, "");
    let events = daemon.ok(&["events"]).stdout;
    assert!(events.contains("SourceReady"), "{events}");
}

/// The settings stop naming a project: nobody sees it go by itself, and everybody how to let it go.
#[test]
fn s21_a_project_that_left_the_settings_waits_for_approval_and_is_gone_then() {
    let world = World::new();
    world.repo.git(&["rm", "-q", "-r", "plans"]);
    for project in ["a", "b"] {
        world.repo.write(&format!("plans/{project}/lab.yaml"), LAB);
    }
    let head = world.repo.commit("two teams");
    let project = |name: &str| format!("  - {{name: {name}, paths: [\"{name}/**\"], kinds: [Environment, Service]}}\n");
    let mut daemon = world.serve(&format!("projects:\n{}{}", project("a"), project("b")));
    let units = |daemon: &Daemon, owner: &str| {
        let (_, units) = daemon.get("/api/v1/units");
        let all = units["items"].as_array().cloned().unwrap_or_default();
        all.iter()
            .filter(|unit| unit["owner"] == owner && unit["state"] == "Ready")
            .count()
    };
    wait_for("both to be there", || {
        (units(&daemon, "a/Service/shop") + units(&daemon, "b/Service/shop") == 4).then_some(())
    });
    daemon.kill();
    let settings = world.dir.path().join("muster.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace(&project("b"), "")).unwrap();
    daemon = Daemon::again(world.dir.path(), daemon.port());
    wait_for("what waits", || {
        let diff = daemon.ok(&["diff"]).stdout;
        diff.contains(&format!("muster approve-deletion {head}")).then_some(())
    });
    assert_eq!(units(&daemon, "b/Service/shop"), 2, "nothing goes without leave");
    let projects = daemon.ok(&["get", "projects"]).stdout;
    assert!(projects.contains("the settings do not name it any more"), "{projects}");
    let events = daemon.ok(&["events"]).stdout;
    assert_eq!(events.matches("ProjectRemoved").count(), 1, "{events}");
    daemon.ok(&["approve-deletion", &head]);
    wait_for("it to be gone", || {
        let projects = daemon.ok(&["get", "projects"]).stdout;
        (units(&daemon, "b/Service/shop") == 0 && !projects.contains("the settings do not name")).then_some(())
    });
    assert_eq!(units(&daemon, "a/Service/shop"), 2);
}

/// A password that is right, then wrong, then right again.
#[test]
fn s5_wrong_credentials_are_said_and_the_last_good_state_stays() {
    let server = Server::new();
    let head = server.commit(LAB);
    let dir = tempfile::TempDir::new().unwrap();
    let password = dir.path().join("password");
    let settings = format!(
        "source: {{url: \"{}\", branch: main, interval: 1s, credentials: {{secretRef: {{name: git}}}}}}\n\
         secrets: [{{name: git, file: \"{}\"}}]\nstore: {{url: \"sqlite://{}/state/muster.db\"}}\nprocess: {{enabled: true}}\n",
        server.url("http", "git"),
        password.display(),
        dir.path().display()
    );
    std::fs::write(&password, "lab:secret").unwrap();
    let mut daemon = Daemon::start(dir.path(), &settings);
    ready_units(&daemon, 2);
    daemon.kill();
    std::fs::write(&password, "lab:canary").unwrap();
    daemon = Daemon::again(dir.path(), daemon.port());
    let failing = source(&daemon, "Failing", "AuthenticationFailed");
    is_told(&daemon, "AuthenticationFailed");
    let project = daemon.get("/api/v1/projects").1["items"][0].clone();
    assert_eq!(
        (&project["revision"], &project["ready"]),
        (&head.into(), &true.into()),
        "{project:#}"
    );
    let said = failing.to_string() + &daemon.log() + &daemon.ok(&["events"]).stdout;
    assert!(!said.contains("canary"), "s57: {said}");
    daemon.kill();
    std::fs::write(&password, "lab:secret").unwrap();
    daemon = Daemon::again(dir.path(), daemon.port());
    source(&daemon, "Ready", "");
}

#[test]
fn s5_a_repository_that_is_removed_or_emptied_takes_nothing_away() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    let (repo, away) = (world.repo.dir.clone(), world.dir.path().join("away"));
    std::fs::rename(&repo, &away).unwrap();
    source(&daemon, "Failing", "Unreachable");
    is_told(&daemon, "Unreachable");
    let empty = crate::support::repo::Repo::new(&repo);
    source(&daemon, "Failing", "EmptyRepository");
    is_told(&daemon, "EmptyRepository");
    std::fs::remove_dir_all(&empty.dir).unwrap();
    std::fs::rename(&away, &repo).unwrap();
    source(&daemon, "Ready", "");
    ready_units(&daemon, 2);
}

#[test]
fn s3_a_forced_push_is_an_ordinary_revision() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    world
        .repo
        .write("plans/lab.yaml", &LAB.replace("replicas: 2", "replicas: 3"));
    world.repo.commit("more");
    ready_units(&daemon, 3);
    world.repo.git(&["checkout", "-q", "--orphan", "fresh"]);
    world
        .repo
        .write("plans/lab.yaml", &LAB.replace("replicas: 2", "replicas: 1"));
    let head = world.repo.commit("another history");
    world.repo.git(&["branch", "-M", "fresh", "main"]);
    ready_units(&daemon, 1);
    wait_for("the project to stand there", || {
        let project = daemon.get("/api/v1/projects").1["items"][0].clone();
        (project["revision"] == head.as_str() && project["ready"] == true).then_some(())
    });
    assert_eq!(daemon.get("/api/v1/projects").1["source"]["state"], "Ready");
}

/// The daemon starts while the platform's files are broken: what a team refers to in them means their last good state.
#[test]
fn s5_a_reference_into_a_broken_project_survives_a_restart() {
    let world = World::new();
    let (team, platform) = ("plans/team/plan.yaml", "plans/platform/lab.yaml");
    let service = "\
apiVersion: muster.dev/v1alpha1
kind: Service
metadata: {name: shop}
spec: {environment: platform/lab, command: [shop], replicas: 1, ports: [{name: http}]}
";
    let environment = LAB.split("---").next().unwrap();
    world.repo.git(&["rm", "-q", "-r", "plans"]);
    world.repo.write(team, service);
    world.repo.write(platform, environment);
    world.repo.commit("a team on a platform");
    let mut daemon = world.serve(
        "projects:\n  - {name: team, paths: [\"team/**\"]}\n  - {name: platform, paths: [\"platform/**\"], \
         kinds: [Environment], shares: [Environment/lab]}\n",
    );
    let project = |daemon: &Daemon, name: &str| {
        let answer = daemon.get("/api/v1/projects").1;
        let found = answer["items"]
            .as_array()?
            .iter()
            .find(|project| project["project"] == name);
        found.cloned()
    };
    wait_for("both to be good", || {
        let good = |name| project(&daemon, name).is_some_and(|project| project["ready"] == true);
        (good("team") && good("platform")).then_some(())
    });
    daemon.kill();
    world
        .repo
        .write(platform, &environment.replace("simulated", "simulatedd"));
    world.repo.write(team, &service.replace("replicas: 1", "replicas: 2"));
    let head = world.repo.commit("the platform breaks, the team goes on");
    let again = Daemon::again(world.dir.path(), daemon.port());
    let seen = wait_for("the commit", || {
        project(&again, "team").filter(|project| project["observed"] == head.as_str())
    });
    assert_eq!(seen["ready"], true, "{seen:#}");
    assert_eq!(project(&again, "platform").unwrap()["ready"], false);
}

#[test]
fn s23_the_age_of_a_suspension_is_a_metric_whoever_suspended() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    let age = || {
        let metrics = daemon.get("/metrics").1.as_str().unwrap_or_default().to_owned();
        let name = "muster_plan_suspended_seconds{";
        let line = metrics.lines().find(|line| line.starts_with(name))?.to_owned();
        assert!(
            line.contains("plan=\"hello\"") && line.contains("project=\"default\""),
            "{line}"
        );
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    wait_for("no suspension", || (age()? == 0.0).then_some(()));
    let suspended = |words: &str| {
        wait_for("the suspension's age", || {
            daemon.ok(&["reconcile", "-q"]);
            (age()? > 0.0).then_some(())
        });
        let plans = daemon.ok(&["get", "plans"]).stdout;
        assert!(plans.contains("Suspended") && plans.contains(words), "{plans}");
        let described = daemon.ok(&["describe", "plan/hello"]).stdout;
        assert!(described.contains(words), "{described}");
    };
    daemon.ok(&["suspend", "plan/hello", "--reason", "freeze of week 47"]);
    suspended("suspended by local: freeze of week 47");
    daemon.ok(&["resume", "plan/hello"]);
    wait_for("its end", || (age()? == 0.0).then_some(()));
    let text = std::fs::read_to_string(world.repo.dir.join("plans/hello.yaml")).unwrap();
    world
        .repo
        .write("plans/hello.yaml", &(text + "  suspend: {reason: Double 11}\n"));
    world.repo.commit("suspend");
    suspended("suspended by Test <test@example.com> in git: Double 11");
    let described = daemon.ok(&["describe", "plan/hello"]).stdout;
    assert!(
        described.contains("Suspended:   Double 11 (by Test <test@example.com> in git)"),
        "{described}"
    );
    let start = daemon.muster(&["start", "plan/hello"]);
    assert_eq!(start.code, 95, "{start:?}");
    assert!(
        start.stderr.contains("Double 11") && start.stderr.contains("commit"),
        "{start:?}"
    );
}
