//! A database that is killed in the middle of a run.

use super::results::{contents, flush, opened, part, series, session};
use crate::support::mariadb::MariaDb;
use muster::store::open;
use muster::store::rows::Appended;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

const FLUSHES: u64 = 60;
const PARTS: u32 = 50;
/// Longest wait for anything here; two restarts of a database take some seconds.
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s49_a_database_killed_in_mid_run_loses_and_doubles_nothing() {
    let server = MariaDb::start();
    let results = open(&server.database("muster_killed")).await.unwrap().results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    let (progress, mut progressed) = watch::channel(0);
    let writer = tokio::spawn({
        let results = results.clone();
        async move {
            for from in 0..FLUSHES {
                let parts = (0..PARTS)
                    .map(|name| part(from as u32, series(&name.to_string()), vec![1; 200]))
                    .collect();
                let flush = flush(run, mine, from, from + 1, parts);
                let mut unknown = false;
                loop {
                    match results.append(&flush).await {
                        Ok(Appended::Stored) => break,
                        // Stored by the try whose answer was lost.
                        Ok(Appended::Moved) if unknown => break,
                        Ok(other) => panic!("{other:?}"),
                        Err(error) => assert!(error.is_transient(), "{error}"),
                    }
                    unknown = true;
                }
                progress.send_replace(from + 1);
            }
        }
    });
    for at in [FLUSHES / 4, FLUSHES / 2] {
        timeout(LIMIT, progressed.wait_for(|stored| *stored >= at))
            .await
            .expect("it goes on")
            .unwrap();
        server.kill();
        server.up();
    }
    timeout(LIMIT, writer).await.expect("the writer ends").unwrap();
    assert_eq!(results.sessions(run).await.unwrap()[0].watermark, FLUSHES);
    let mut stored: Vec<_> = contents(&results, run)
        .await
        .into_iter()
        .map(|part| (part.second, part.what))
        .collect();
    assert_eq!(stored.len() as u64, FLUSHES * u64::from(PARTS));
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len() as u64, FLUSHES * u64::from(PARTS));
}
