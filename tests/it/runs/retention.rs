//! What is kept of finished runs (promise 53), over real runs and stores.

use super::fake::plan;
use super::{Bench, WORK};
use muster::control::contents::Contents;
use muster::control::retention::{Pass, Retention};
use muster::runtime::clock::Clock;
use muster::store::rows::{EventFilter, PartOf, ProjectRow};
use muster_core::model::id::{Digest, Name, Revision, RunId};
use serde_json::json;
use std::time::Duration;

fn retention(bench: &Bench, keep: Duration) -> Retention {
    let stores = bench.stores.clone();
    let contents = Contents::new(stores.ledger.clone());
    Retention::new(stores, Clock::system(), keep, bench.runs.clone(), contents)
}

async fn passed(bench: &Bench) -> RunId {
    let run = bench.start().await;
    bench.worker(WORK);
    assert_eq!(bench.ending(run).await, "Passed");
    run
}

async fn parts(bench: &Bench, run: RunId) -> usize {
    bench.stores.results.parts(run, 0, 1_000).await.unwrap().len()
}

#[tokio::test]
async fn s53_details_go_after_their_time_but_for_tagged_runs_and_the_last_that_passed() {
    let bench = Bench::new(plan()).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(passed(&bench).await);
    }
    let ledger = &bench.stores.ledger;
    ledger.tag_run(runs[0], Some("release-1")).await.unwrap();
    let mut patient = retention(&bench, Duration::from_secs(86_400));
    assert_eq!(patient.pass().await.unwrap(), Pass::default());
    let mut retention = retention(&bench, Duration::ZERO);
    let one = Pass {
        removed: 1,
        ..Pass::default()
    };
    assert_eq!(retention.pass().await.unwrap(), one);
    assert_eq!(retention.pass().await.unwrap(), Pass::default());
    assert!(parts(&bench, runs[0]).await > 0, "it has a name");
    assert_eq!(parts(&bench, runs[1]).await, 0);
    assert!(parts(&bench, runs[2]).await > 0, "it is the last that passed");
    assert!(ledger.summary(runs[1]).await.unwrap().is_some(), "the report stays");
    let about = EventFilter {
        about: Some(format!("run/{}", runs[1])),
        ..EventFilter::default()
    };
    let events = ledger.events(&about).await.unwrap();
    assert!(
        events.iter().any(|row| row.event.reason == "DetailsRemoved"),
        "{events:?}"
    );
    ledger.tag_run(runs[0], None).await.unwrap();
    assert_eq!(retention.pass().await.unwrap(), one);
}

#[tokio::test]
async fn s53_what_a_crash_left_uncompacted_is_compacted_and_a_database_that_is_away_waits() {
    let bench = Bench::new(plan()).await;
    let run = passed(&bench).await;
    // As if the daemon had died between the seal and the compaction of another run.
    let mut row = bench.stores.ledger.run(run).await.unwrap().unwrap();
    row.identity.id = RunId(uuid::Uuid::now_v7());
    let crashed = row.identity.id;
    bench.stores.ledger.insert_run(&row).await.unwrap();
    let results = &bench.stores.results;
    let mine = crate::contract::store::results::session();
    results.open_run(crashed).await.unwrap();
    let session = crate::contract::store::results::session_row(crashed, mine, 0);
    results.open_session(&session).await.unwrap();
    for (from, (_, part)) in (0..).zip(results.parts(run, 0, 2).await.unwrap()) {
        for again in 0..2 {
            let flush = crate::contract::store::results::flush(
                crashed,
                mine,
                2 * from + again,
                2 * from + again + 1,
                vec![part.clone()],
            );
            results.append(&flush).await.unwrap();
        }
    }
    results.seal(crashed).await.unwrap();
    let series = async || {
        let parts = results.parts(crashed, 0, 100).await.unwrap();
        parts
            .iter()
            .filter(|(_, part)| matches!(part.what, PartOf::Series(_)))
            .count()
    };
    let before = series().await;
    let mut retention = retention(&bench, Duration::from_secs(86_400));
    bench.switch.set(crate::support::flaky::Mode::Down);
    assert!(retention.pass().await.is_err());
    bench.switch.set(crate::support::flaky::Mode::Up);
    assert_eq!(retention.pass().await.unwrap(), Pass::default());
    assert_eq!(series().await * 2, before, "two parts of a second became one");
}

#[tokio::test]
async fn s53_contents_go_when_nobody_refers_to_them_twice() {
    let bench = Bench::new(plan()).await;
    let run = passed(&bench).await;
    let ledger = &bench.stores.ledger;
    let [orphan, of_run, of_unit] = ["orphan", "of a run", "of a unit"].map(|text| (Digest::of(text.as_bytes()), text));
    for (digest, text) in [&orphan, &of_run, &of_unit] {
        ledger.put_blob(digest.as_str(), text.as_bytes()).await.unwrap();
    }
    let mut row = ledger.run(run).await.unwrap().unwrap();
    row.pinned["plan"]["data"] = json!([{"file": {"digest": of_run.0.as_str()}}]);
    row.version += 1;
    ledger.save_run(&row).await.unwrap();
    let project = ProjectRow {
        project: Name::default_project(),
        observed_revision: Revision::new("a".repeat(40)).unwrap(),
        good_revision: None,
        resources: json!([{"spec": {"files": [{"digest": of_unit.0.as_str()}]}}]),
        diagnostics: json!([]),
        high_water: 1,
        at: row.identity.created_at,
    };
    ledger.put_project(&project).await.unwrap();
    let mut retention = retention(&bench, Duration::from_secs(86_400));
    let there = async |digest: &Digest| ledger.blob(digest.as_str()).await.unwrap().is_some();
    assert_eq!(retention.pass().await.unwrap().contents, 0);
    assert!(there(&orphan.0).await, "somebody may be about to refer to it");
    assert_eq!(retention.pass().await.unwrap().contents, 1);
    assert!(!there(&orphan.0).await && there(&of_run.0).await && there(&of_unit.0).await);
    // The details of a run go, and with them what only it referred to.
    passed(&bench).await;
    let mut row = ledger.run(run).await.unwrap().unwrap();
    row.retention_s = Some(0);
    row.version += 1;
    ledger.save_run(&row).await.unwrap();
    assert_eq!(retention.pass().await.unwrap().removed, 1);
    retention.pass().await.unwrap();
    assert!(!there(&of_run.0).await && there(&of_unit.0).await);
}
