//! Runs whose results travel through Kafka: when they are closed.

use super::Bench;
use super::fake::{Act, bus_pool, plan, store};
use crate::support::eventually;
use muster::bus::kafka::Lag;
use muster_core::model::plan::TestPlan;
use std::collections::BTreeMap;

fn over_kafka() -> TestPlan {
    TestPlan {
        pool: Some(bus_pool()),
        ..plan()
    }
}

/// Ingest has read so many of so many records.
fn lag(committed: u64, end: u64) -> Option<Lag> {
    Some(Lag {
        ends: BTreeMap::from([(0, end)]),
        committed: BTreeMap::from([(0, committed)]),
        is_new: false,
    })
}

#[tokio::test]
async fn s50_results_are_closed_once_ingest_has_read_what_was_in_kafka_then() {
    let bench = Bench::new(over_kafka()).await;
    bench.world.lag.lock().unwrap().0 = lag(7, 10);
    bench.worker_of(bus_pool(), Act::Die);
    let run = bench.start().await;
    let asked = || bench.world.lag.lock().unwrap().1;
    eventually("ingest to be waited for", async || (asked() >= 2).then_some(())).await;
    // Other runs go on in the same topic; what the dead worker had sent is read only now.
    bench.world.lag.lock().unwrap().0 = lag(8, 50);
    let before = asked();
    eventually("it to be waited for still", async || {
        (asked() >= before + 2).then_some(())
    })
    .await;
    store(&*bench.stores.results, run, &bench.memory, 3, 20, true).await;
    bench.world.lag.lock().unwrap().0 = lag(10, 50);
    assert_eq!(bench.ending(run).await, "Invalid(workers)");
    let report = bench.stores.ledger.summary(run).await.unwrap().unwrap();
    assert_eq!(report["metrics"]["http_reqs"]["count"].as_f64(), Some(30.0), "{report}");
    assert_eq!(report["completeness"]["kind"], "Complete", "{report}");
}

#[tokio::test]
async fn s50_nobody_is_waited_for_where_all_is_there_or_nobody_knows_who_reads() {
    let bench = Bench::new(over_kafka()).await;
    bench.world.lag.lock().unwrap().0 = lag(7, 10);
    bench.worker_of(bus_pool(), super::WORK);
    let run = bench.start().await;
    assert_eq!(bench.ending(run).await, "Passed");
    assert_eq!(bench.world.lag.lock().unwrap().1, 0, "brokers are not asked");

    let bench = Bench::new(over_kafka()).await;
    bench.worker_of(bus_pool(), Act::Die);
    let run = bench.start().await;
    assert_eq!(bench.ending(run).await, "Invalid(workers)");
    assert_eq!(bench.world.lag.lock().unwrap().1, 1);
}
