//! How reading goes: a page costs what it holds, however much of other runs lies between (promise 44: the judge reads every second).

use super::Kind;
use super::results::{flush, opened, part, series, session};
use super::unfit::own;
use crate::support::mariadb::MariaDb;
use muster::store::open;

const RUNS: usize = 10;
const SECONDS: u32 = 60;
const NAMES: u32 = 20;

/// Rows that the server has handled so far, one by one or to sort them.
fn handled(server: &MariaDb) -> i64 {
    let counted =
        server.sql("SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Handler_read%' OR Variable_name = 'Sort_rows'");
    let number = |line: &str| line.split_whitespace().nth(1)?.parse::<i64>().ok();
    counted.lines().filter_map(number).sum()
}

async fn a_page_costs_what_it_holds(kind: Kind) {
    let server = own(kind).await;
    let results = open(&server.database("muster_paths")).await.unwrap().results;
    let mine = session();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(opened(&results, &[mine]).await);
    }
    for second in 0..SECONDS {
        for run in &runs {
            let names = (0..NAMES).map(|name| part(second, series(&name.to_string()), vec![7; 300]));
            let at = u64::from(second);
            results
                .append(&flush(*run, mine, at, at + 1, names.collect()))
                .await
                .unwrap();
        }
    }
    let run = runs[3];
    let half = results.parts(run, 0, SECONDS * NAMES / 2).await.unwrap();
    let cursor = half.last().unwrap().0;
    // What asking costs by itself.
    let asking = -handled(&server) + handled(&server);
    let before = handled(&server);
    assert_eq!(results.parts(run, cursor, 100).await.unwrap().len(), 100);
    let cost = handled(&server) - before - asking;
    assert!(cost <= 120, "{cost} rows were handled for a page of 100");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_page_of_parts_costs_what_it_holds_in_mariadb() {
    a_page_costs_what_it_holds(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_page_of_parts_costs_what_it_holds_in_mysql8() {
    a_page_costs_what_it_holds(Kind::MySql).await;
}
