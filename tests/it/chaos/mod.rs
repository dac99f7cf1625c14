//! The kill matrix: in the steady phase of a real run over a real Kafka into a real MariaDB something dies, or a network is cut, and
//! afterwards the report says what the target's own log says.
//!
//! `make test` runs the cells that no other test has (`flow::kafka` kills an ingest and each broker, `flow::survival` the daemon) with short
//! outages, `make chaos` all of them with long ones.

mod cut;
mod network;
mod scene;

use scene::{Scene, Victim};
use std::time::Duration;

/// What dies, and what must have become of the run.
struct Cell {
    name: &'static str,
    victim: Victim,
    /// How long it is away.
    away: Duration,
    ending: &'static str,
}

/// Nothing but a worker's death may show.
fn cells(away: Duration) -> [Cell; 7] {
    let cell = |name, victim, ending| Cell {
        name,
        victim,
        away,
        ending,
    };
    [
        cell("one ingest of three", Victim::Ingest, "Passed"),
        cell("the daemon", Victim::Daemon, "Passed"),
        cell("the broker that leads", Victim::LeadingBroker, "Passed"),
        cell("all brokers", Victim::AllBrokers, "Passed"),
        cell("the database of the results", Victim::Database, "Passed"),
        cell("all ingests and the daemon at once", Victim::IngestsAndDaemon, "Passed"),
        cell("a worker", Victim::Worker, "Invalid(workers)"),
    ]
}

/// Load goes on for a while after the outage.
const AFTER: Duration = Duration::from_secs(8);

fn run_all(away: Duration, victims: &[Victim]) {
    let mut scene = Scene::start(away + AFTER);
    for cell in cells(away).into_iter().filter(|cell| victims.contains(&cell.victim)) {
        eprintln!("chaos: kill -9 of {}, away for {:?}", cell.name, cell.away);
        let id = scene.begin();
        scene.kill(cell.victim, cell.away);
        let report = scene.finish(&id);
        let ending = match report["ending"]["reason"].as_str() {
            Some(reason) => format!("{}({reason})", report["ending"]["kind"].as_str().unwrap_or_default()),
            None => report["ending"]["kind"].as_str().unwrap_or_default().to_owned(),
        };
        assert_eq!(ending, cell.ending, "{}: {report:#}", cell.name);
        let (reported, logged) = (
            report["metrics"]["http_reqs"]["count"].as_u64().unwrap(),
            scene.requests(),
        );
        if matches!(cell.victim, Victim::Worker) {
            // What the dead worker had not sent yet is missing, and said to be.
            assert!(
                reported <= logged && reported > 0,
                "{}: {reported} of {logged}",
                cell.name
            );
            assert_eq!(report["completeness"]["kind"], "Partial", "{}: {report:#}", cell.name);
        } else {
            assert_eq!(report["completeness"]["kind"], "Complete", "{}: {report:#}", cell.name);
            assert_eq!(reported, logged, "{}: {report:#}", cell.name);
        }
        scene.rest();
    }
}

#[test]
fn s49_whatever_dies_for_a_moment_the_numbers_are_the_targets_own() {
    let victims = [
        Victim::IngestsAndDaemon,
        Victim::AllBrokers,
        Victim::Database,
        Victim::Worker,
    ];
    run_all(Duration::from_secs(3), &victims);
}

/// Each by itself, so that one that fails says which it was, and can be tried again.
mod twenty_seconds {
    use super::{Victim, run_all};
    use std::time::Duration;

    macro_rules! cells {
        ($($name:ident: $victim:ident,)+) => {$(
            #[test]
            #[ignore = "a long outage: make chaos"]
            fn $name() {
                run_all(Duration::from_secs(20), &[Victim::$victim]);
            }
        )+};
    }

    cells! {
        s49_one_ingest_of_three: Ingest,
        s42_the_daemon: Daemon,
        s49_the_broker_that_leads: LeadingBroker,
        s49_all_brokers: AllBrokers,
        s49_the_database: Database,
        s49_all_ingests_and_the_daemon: IngestsAndDaemon,
        s50_a_worker: Worker,
    }
}
