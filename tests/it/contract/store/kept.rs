//! What stays and what goes: names of runs, retention, and the numbers that dashboards read (promise 53).

use super::ledger::{at, run_row};
use super::results::{contents, flush, opened, part, series, session};
use super::{Place, contract};
use muster::store::StoreError;
use muster::store::rows::{PartOf, RunRow, SlicePart};
use muster_core::measure::histogram::{Histogram, Precision};
use muster_core::measure::slice::Stats;
use muster_core::model::id::{Digest, RunId};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use std::collections::BTreeSet;
use uuid::Uuid;

contract!(
    s48_what_workers_say_of_a_second_shares_a_row,
    s52_dashboards_read_every_second_of_a_run,
    s53_a_removed_run_leaves_nothing_behind_and_no_other_run,
    s53_names_of_runs_outlive_their_saving,
    s53_finished_runs_are_listed_until_their_details_are_gone,
    s53_contents_are_listed_and_removed,
);

fn slow(requests: u64, failed: u64, value_ms: u64) -> Stats {
    let mut duration = Histogram::new(Precision::Fine);
    duration.record_many(value_ms * 1_000_000, requests);
    Stats {
        requests,
        failed,
        duration: Some(duration),
        ..Stats::default()
    }
}

async fn s48_what_workers_say_of_a_second_shares_a_row(place: Place) {
    let results = place.stores.results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    let worker = |second, worker: u32| part(second, PartOf::Worker(worker), worker.to_string());
    let mut parts: Vec<SlicePart> = vec![part(0, series("a"), slow(1, 0, 1).encode())];
    parts.extend((0..1_500).map(|index| worker(0, index)));
    parts.push(part(1, series("a"), slow(1, 0, 1).encode()));
    parts.extend((0..3).map(|index| worker(1, index)));
    parts.push(worker(2, u32::MAX));
    results.append(&flush(run, mine, 0, 3, parts.clone())).await.unwrap();
    assert_eq!(contents(&results, run).await, parts);
    let read = results.parts(run, 0, 10_000).await.unwrap();
    let rows: BTreeSet<u64> = read.iter().map(|(cursor, _)| *cursor).collect();
    assert_eq!(rows.len(), 6, "two series, 1,024 and 476 workers, three workers, one");
    // A page ends with a row, so that its cursor leads past all of it.
    let first = results.parts(run, 0, 2).await.unwrap();
    assert_eq!(first.len(), 1 + 1_024);
    let rest = results.parts(run, first.last().unwrap().0, 100).await.unwrap();
    assert_eq!(first.len() + rest.len(), parts.len());
    results.seal(run).await.unwrap();
    results.compact(run).await.unwrap();
    assert_eq!(contents(&results, run).await, parts, "nothing of it is merged");
}

/// `(time, plan, name, requests, errors, p95_ms)` of a run as a dashboard reads them; `None` where nobody else can read.
async fn dashboard(place: &Place, run: RunId) -> Option<Vec<(i64, String, String, i64, i64, Option<f64>)>> {
    let sql = AssertSqlSafe(format!(
        "SELECT time, plan, name, requests, errors, p95_ms FROM series_second WHERE run = '{run}' ORDER BY time, name, requests"
    ));
    macro_rules! read {
        ($connection:ty, $url:expr) => {{
            let mut connection = <$connection>::connect($url).await.unwrap();
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
            let row = |row: &_| sqlx_row(row);
            fn sqlx_row(
                row: &<<$connection as sqlx::Connection>::Database as sqlx::Database>::Row,
            ) -> (i64, String, String, i64, i64, Option<f64>) {
                (
                    row.get_unchecked(0),
                    row.get_unchecked(1),
                    row.get_unchecked(2),
                    row.get_unchecked(3),
                    row.get_unchecked(4),
                    row.get_unchecked(5),
                )
            }
            Some(rows.iter().map(row).collect())
        }};
    }
    match place.url.strip_prefix("sqlite://") {
        Some(path) => read!(sqlx::SqliteConnection, path),
        None if place.url.starts_with("mysql://") => read!(sqlx::MySqlConnection, &place.url),
        None => None,
    }
}

async fn s52_dashboards_read_every_second_of_a_run(place: Place) {
    let results = &place.stores.results;
    let mine = session();
    let run = opened(results, &[mine]).await;
    let plan = "shop/TestPlan/checkout".parse().unwrap();
    for _ in 0..2 {
        results.describe_run(run, &plan, at(0)).await.unwrap();
    }
    // The first second came in two parts: 90 fast requests and 10 slow ones.
    let parts = vec![
        part(0, series("home"), slow(90, 1, 10).encode()),
        part(0, series("home"), slow(10, 2, 1_000).encode()),
        part(0, PartOf::Worker(0), *b"w"),
        part(1, series("home"), slow(5, 0, 20).encode()),
    ];
    results.append(&flush(run, mine, 0, 2, parts)).await.unwrap();
    let Some(live) = dashboard(&place, run).await else {
        return;
    };
    let start = at(0).as_second();
    let plan = || "shop/TestPlan/checkout".to_owned();
    let row = |second, requests, errors, p95| (start + second, plan(), "home".to_owned(), requests, errors, p95);
    // Counts add up over parts; percentiles do not, so there are none yet.
    assert_eq!(live, [row(0, 10, 2, None), row(0, 90, 1, None), row(1, 5, 0, None)]);
    results.seal(run).await.unwrap();
    results.compact(run).await.unwrap();
    let rows = dashboard(&place, run).await.unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((rows[0].3, rows[0].4, rows[1].3), (100, 3, 5));
    // The p95 of all hundred is a slow one; the mean of the parts' would be 505.
    let p95 = |row: usize| rows[row].5.unwrap();
    assert!(
        (p95(0) - 1_000.0).abs() < 1.0 && (p95(1) - 20.0).abs() < 0.02,
        "{rows:?}"
    );
}

async fn s53_a_removed_run_leaves_nothing_behind_and_no_other_run(place: Place) {
    let results = &place.stores.results;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mine = session();
        let run = opened(results, &[mine]).await;
        results
            .describe_run(run, &"a/TestPlan/x".parse().unwrap(), at(0))
            .await
            .unwrap();
        let parts: Vec<_> = (0..5_000).map(|second| part(second, series("a"), *b"x")).collect();
        results.append(&flush(run, mine, 0, 1, parts)).await.unwrap();
        runs.push(run);
    }
    results.seal(runs[0]).await.unwrap();
    let mut steps = 1;
    while !results.remove_run(runs[0]).await.unwrap() {
        steps += 1;
    }
    assert!(steps > 1, "in bounded steps");
    assert_eq!(contents(results, runs[0]).await, []);
    assert_eq!(results.sessions(runs[0]).await.unwrap(), []);
    assert!(!results.is_sealed(runs[0]).await.unwrap());
    assert!(dashboard(&place, runs[0]).await.is_none_or(|rows| rows.is_empty()));
    assert!(results.remove_run(runs[0]).await.unwrap(), "again is success");
    assert_eq!(contents(results, runs[1]).await.len(), 5_000);
    assert_eq!(results.sessions(runs[1]).await.unwrap().len(), 1);
    // What comes late for a run that is gone is refused, not kept.
    let late = flush(runs[0], session(), 0, 1, Vec::new());
    assert_eq!(
        results.append(&late).await.unwrap(),
        muster::store::rows::Appended::Moved
    );
}

async fn s53_names_of_runs_outlive_their_saving(place: Place) {
    let ledger = place.stores.ledger;
    let (one, other) = (RunId(Uuid::now_v7()), RunId(Uuid::now_v7()));
    let row = run_row(one, "a/TestPlan/x", 0);
    ledger
        .insert_run(&RunRow {
            tag: None,
            ..row.clone()
        })
        .await
        .unwrap();
    ledger
        .insert_run(&RunRow {
            tag: None,
            ..run_row(other, "a/TestPlan/y", 1)
        })
        .await
        .unwrap();
    assert!(ledger.tag_run(one, Some("release-1")).await.unwrap());
    assert!(!ledger.tag_run(RunId(Uuid::now_v7()), Some("x")).await.unwrap());
    let plan = row.identity.plan.clone();
    // Who drives the run saves what was read before.
    ledger
        .save_run(&RunRow {
            tag: None,
            version: 2,
            ..row
        })
        .await
        .unwrap();
    assert_eq!(
        ledger.run(one).await.unwrap().unwrap().tag.as_deref(),
        Some("release-1")
    );
    assert_eq!(ledger.tagged_run(&plan, "release-1").await.unwrap(), Some(one));
    assert_eq!(ledger.tagged_run(&plan, "Release-1").await.unwrap(), None);
    let elsewhere = "a/TestPlan/y".parse().unwrap();
    assert_eq!(ledger.tagged_run(&elsewhere, "release-1").await.unwrap(), None);
    assert!(ledger.tag_run(one, None).await.unwrap());
    assert_eq!(ledger.tagged_run(&plan, "release-1").await.unwrap(), None);
}

async fn s53_finished_runs_are_listed_until_their_details_are_gone(place: Place) {
    let ledger = place.stores.ledger;
    let mut ids: Vec<RunId> = (0..5).map(|_| RunId(Uuid::now_v7())).collect();
    ids.sort_unstable();
    for (id, stage) in ids
        .iter()
        .zip(["Finished", "Running", "Finished", "Finished", "Finished"])
    {
        let row = run_row(*id, "a/TestPlan/x", 0);
        ledger
            .insert_run(&RunRow {
                stage: stage.to_owned(),
                ..row
            })
            .await
            .unwrap();
    }
    let listed = async |after, limit| -> Vec<RunId> {
        let rows = ledger.detailed_runs(after, limit).await.unwrap();
        rows.into_iter().map(|row| row.identity.id).collect()
    };
    assert_eq!(listed(None, 2).await, [ids[0], ids[2]]);
    assert_eq!(listed(Some(ids[2]), 2).await, [ids[3], ids[4]]);
    for _ in 0..2 {
        ledger.put_expired(ids[2], at(1)).await.unwrap();
    }
    assert_eq!(listed(None, 9).await, [ids[0], ids[3], ids[4]]);
    assert_eq!(ledger.expired_runs(9).await.unwrap(), BTreeSet::from([ids[2]]));
    assert!(ledger.run(ids[2]).await.unwrap().is_some(), "the run itself stays");
}

async fn s53_contents_are_listed_and_removed(place: Place) {
    let ledger = place.stores.ledger;
    let mut digests: Vec<String> = [&b"a"[..], b"b", b"c"]
        .map(|bytes| Digest::of(bytes).to_string())
        .to_vec();
    for (digest, bytes) in digests.iter().zip([b"a", b"b", b"c"]) {
        ledger.put_blob(digest, bytes).await.unwrap();
    }
    digests.sort_unstable();
    assert_eq!(ledger.blobs("", 2).await.unwrap(), digests[..2]);
    assert_eq!(ledger.blobs(&digests[1], 2).await.unwrap(), digests[2..]);
    for _ in 0..2 {
        ledger.delete_blob(&digests[1]).await.unwrap();
    }
    assert_eq!(
        ledger.blobs("", 9).await.unwrap(),
        [digests[0].clone(), digests[2].clone()]
    );
    assert_eq!(ledger.blob(&digests[1]).await.unwrap(), None);
}

#[tokio::test]
async fn s53_two_do_not_replace_the_parts_of_one_run_at_once() {
    let results = muster::store::open("sqlite::memory:").await.unwrap().results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    let parts: Vec<_> = (0..2_000)
        .map(|second| part(second, series("a"), slow(1, 0, 1).encode()))
        .collect();
    results.append(&flush(run, mine, 0, 1, parts)).await.unwrap();
    results.seal(run).await.unwrap();
    let (one, other) = tokio::join!(results.compact(run), results.remove_run(run));
    assert!(one.is_ok(), "{one:?}");
    assert!(matches!(other, Err(StoreError::Conflict(_))), "{other:?}");
}
