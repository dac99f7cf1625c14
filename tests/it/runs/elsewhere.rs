//! Runs whose results are in a database of their own (promise 52).

use super::fake::{cluster_key, plan};
use super::{Bench, WORK};
use crate::contract::store::{Kind, fresh_database};
use muster::runtime::clock::Clock;
use muster::runtime::secrets::ConfiguredSecrets;
use muster::store::open;
use muster_core::model::plan::TestPlan;
use muster_core::model::settings::SecretSource;
use std::collections::BTreeMap;
use std::sync::Arc;

fn elsewhere() -> TestPlan {
    TestPlan {
        results: Some(cluster_key()),
        ..plan()
    }
}

async fn runs_with_results_on(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let database = fresh_database(kind).await;
    let secret = folder.path().join("url");
    std::fs::write(&secret, &database.url).unwrap();
    let place = SecretSource::File(secret.display().to_string());
    let secrets = Arc::new(ConfiguredSecrets::new(BTreeMap::from([("results".to_owned(), place)])));
    let own = open("sqlite::memory:").await.unwrap();
    let bench = Bench::on(own.clone().routed(secrets, Clock::system()), elsewhere()).await;
    let run = bench.start().await;
    bench.worker(WORK);
    assert_eq!(bench.ending(run).await, "Passed");
    let report = own.ledger.summary(run).await.unwrap().unwrap();
    assert_eq!(report["metrics"]["http_reqs"]["count"].as_f64(), Some(30.0), "{report}");
    assert_eq!(
        own.results.sessions(run).await.unwrap(),
        [],
        "nothing is in the daemon's own store"
    );
    let there = open(&database.url).await.unwrap();
    assert!(there.results.is_sealed(run).await.unwrap());
    assert!(!there.results.parts(run, 0, 10).await.unwrap().is_empty());
    assert_eq!(there.ledger.run(run).await.unwrap(), None, "nor is the ledger there");
    // A repeat goes where the first went, whatever the plan says by now.
    bench.world.publish(plan());
    let again = bench.runs.rerun(run, "tester").await.unwrap();
    assert_eq!(bench.ending(again).await, "Passed");
    assert!(there.results.is_sealed(again).await.unwrap());
    database.remove().await;
}

#[tokio::test]
async fn s52_a_run_with_a_database_cluster_keeps_its_results_in_mariadb() {
    runs_with_results_on(Kind::MariaDb).await;
}

#[tokio::test]
async fn s52_a_run_with_a_database_cluster_keeps_its_results_in_mysql8() {
    runs_with_results_on(Kind::MySql).await;
}
