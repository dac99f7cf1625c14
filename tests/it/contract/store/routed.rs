//! Results of each run in its own place: the daemon's SQLite, a MariaDB, a MySQL 8 (promise 52).

use super::results::{contents, flush, opened, part, series, session};
use super::{Kind, fresh_database};
use muster::runtime::clock::Clock;
use muster::runtime::secrets::{ConfiguredSecrets, Secrets};
use muster::store::rows::{Appended, ResultsPin, RunRow};
use muster::store::{StoreError, Stores, open};
use muster_core::model::id::RunId;
use muster_core::model::service::SecretRef;
use muster_core::model::settings::SecretSource;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

fn pin(cluster: &str) -> ResultsPin {
    ResultsPin {
        cluster: format!("default/DatabaseCluster/{cluster}").parse().unwrap(),
        url: SecretRef {
            name: "urls".to_owned(),
            key: Some(cluster.to_owned()),
        },
    }
}

/// A daemon's SQLite, and a folder with the addresses of the databases that runs may be pinned to.
async fn daemon(folder: &Path) -> Stores {
    std::fs::create_dir_all(folder.join("urls")).unwrap();
    let place = SecretSource::File(folder.join("urls").display().to_string());
    let secrets: Arc<dyn Secrets> = Arc::new(ConfiguredSecrets::new(BTreeMap::from([("urls".to_owned(), place)])));
    let url = format!("sqlite://{}/muster.db", folder.display());
    open(&url).await.unwrap().routed(secrets, Clock::system())
}

/// A run in the ledger, pinned to a place; its results are still to be opened.
async fn pinned(stores: &Stores, results: Option<ResultsPin>) -> RunId {
    let run = RunId(Uuid::now_v7());
    let row = RunRow {
        pinned: json!({"format": 1, "results": results}),
        ..super::ledger::run_row(run, "default/TestPlan/x", 0)
    };
    stores.ledger.insert_run(&row).await.unwrap();
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_each_run_is_in_the_database_it_is_pinned_to_and_in_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let stores = daemon(folder.path()).await;
    let (maria, mysql) = (fresh_database(Kind::MariaDb).await, fresh_database(Kind::MySql).await);
    std::fs::write(folder.path().join("urls/maria"), &maria.url).unwrap();
    std::fs::write(folder.path().join("urls/mysql"), &mysql.url).unwrap();
    let own = format!("sqlite://{}/muster.db", folder.path().display());
    let mut runs = Vec::new();
    for (place, url) in [
        (None, &own),
        (Some(pin("maria")), &maria.url),
        (Some(pin("mysql")), &mysql.url),
    ] {
        let run = pinned(&stores, place).await;
        let mine = session();
        stores.results.open_run(run).await.unwrap();
        let row = super::results::session_row(run, mine, 0);
        stores.results.open_session(&row).await.unwrap();
        let parts = vec![part(1, series("home"), url.as_bytes())];
        let appended = stores
            .results
            .append(&flush(run, mine, 0, 1, parts.clone()))
            .await
            .unwrap();
        assert_eq!(appended, Appended::Stored);
        assert_eq!(contents(&stores.results, run).await, parts);
        assert_eq!(stores.results.seal(run).await.unwrap(), 0);
        assert!(stores.results.is_sealed(run).await.unwrap());
        assert_eq!(stores.results.sessions(run).await.unwrap()[0].watermark, 1);
        runs.push((run, url, parts));
    }
    for (run, url, parts) in &runs {
        for (_, other, _) in &runs {
            let found = contents(&open(other).await.unwrap().results, *run).await;
            assert_eq!(
                found,
                if url == other { parts.clone() } else { Vec::new() },
                "{run} in {other}"
            );
        }
    }
    // Another daemon on the same ledger finds them where they are.
    let next = daemon(folder.path()).await;
    for (run, _, parts) in &runs {
        assert_eq!(&contents(&next.results, *run).await, parts);
    }
    maria.remove().await;
    mysql.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_database_that_is_away_is_away_for_its_own_runs_only_and_may_move() {
    let folder = tempfile::tempdir().unwrap();
    let stores = daemon(folder.path()).await;
    let away = format!(
        "mysql://muster:hunter2@127.0.0.1:{}/muster_x",
        crate::support::free_port()
    );
    std::fs::write(folder.path().join("urls/away"), away).unwrap();
    std::fs::write(folder.path().join("urls/file"), "sqlite:///etc/passwd").unwrap();
    let lost = pinned(&stores, Some(pin("away"))).await;
    for _ in 0..2 {
        let error = stores.results.open_run(lost).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Unavailable(_)), "{text}");
        assert!(
            text.contains("default/DatabaseCluster/away") && !text.contains("hunter2"),
            "{text}"
        );
    }
    for (cluster, why) in [("file", "mysql://"), ("nowhere", "nowhere")] {
        let run = pinned(&stores, Some(pin(cluster))).await;
        let error = stores.results.open_run(run).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Refused(text) if text.contains(why)),
            "{error}"
        );
    }
    let mine = session();
    let run = opened(&stores.results, &[mine]).await;
    let parts = vec![part(1, series("home"), *b"x")];
    let appended = stores.results.append(&flush(run, mine, 0, 1, parts)).await.unwrap();
    assert_eq!(appended, Appended::Stored);

    // Its secret names another address now.
    let maria = fresh_database(Kind::MariaDb).await;
    std::fs::write(folder.path().join("urls/away"), &maria.url).unwrap();
    crate::support::eventually("the new address counts", async || {
        stores.results.open_run(lost).await.ok()
    })
    .await;
    maria.remove().await;
}
