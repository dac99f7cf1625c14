//! P5 and P13: what results cost in MariaDB or MySQL, and how long the numbers of an hour take to read.
//!
//! `bench-store mysql://USER@HOST:PORT/DATABASE [seconds]`: the database is empty and on this machine; the user may read `@@pid_file`'s
//! process. `bench-store URL report` only measures P13.

use muster::bus::{Message, Producer as _, memory};
use muster::ingest::ingest;
use muster::runtime::clock::Clock;
use muster::store::rows::{Flush, PartOf, SessionRow, SlicePart};
use muster::store::{Results, Stores, open};
use muster_bench::figure;
use muster_core::measure::frame::{Body, Frame};
use muster_core::measure::histogram::{Histogram, Precision};
use muster_core::measure::judge::Judge;
use muster_core::measure::slice::{GeneratorStat, Second, SeriesKey, Stats};
use muster_core::measure::view::RunView;
use muster_core::model::id::{RunId, SessionId};
use muster_core::model::plan::TestPlan;
use muster_core::model::policy::Policy;
use muster_core::model::resource::Spec;
use muster_core::spec::{self, Cache, Files, SourceFile};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const WORKERS: u32 = 1_000;
const NAMES: u32 = 20;
/// Rows of the batch insert: as many as a few seconds of the goal take.
const BATCH_ROWS: u64 = 400_000;
/// Rows in one INSERT of it.
const BATCH: u64 = 1_000;
const HOUR_S: u32 = 3_600;
const HOUR_WORKERS: u32 = 40;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = arguments.first().expect("bench-store URL [seconds|report]");
    let stores = open(url).await.expect("a store");
    let what = arguments.get(1).map_or("30", String::as_str);
    if what != "report" {
        let mut database = MySqlConnection::connect(url).await.expect("a connection");
        batch_insert(&mut database).await;
        live(&stores, &mut database, what.parse().expect("seconds")).await;
    }
    hour(&stores).await;
}

async fn number(database: &mut MySqlConnection, sql: &str) -> i64 {
    let sql = AssertSqlSafe(sql.to_owned());
    database.fetch_one(sql).await.expect("a row").get_unchecked(0)
}

/// The raw limit: rows of 100 bytes on one connection, a commit for each INSERT.
async fn batch_insert(database: &mut MySqlConnection) {
    let flushed = number(database, "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED)").await;
    figure("p5_flush_log_at_trx_commit", flushed as f64, "setting");
    let table = "CREATE TABLE bench_raw (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, run BINARY(16), second BIGINT, data VARBINARY(100))";
    for sql in ["DROP TABLE IF EXISTS bench_raw", table] {
        database.execute(sql).await.expect("a table");
    }
    let rows = vec!["(?, ?, ?)"; BATCH as usize].join(", ");
    let sql = format!("INSERT INTO bench_raw (run, second, data) VALUES {rows}");
    let (run, data) = (Uuid::nil().into_bytes(), [7_u8; 100]);
    let begun = Instant::now();
    for _ in 0..BATCH_ROWS / BATCH {
        let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
        for second in 0..BATCH {
            query = query.bind(&run[..]).bind(second).bind(&data[..]);
        }
        query.execute(&mut *database).await.expect("an insert");
    }
    figure(
        "p5_batch_insert",
        BATCH_ROWS as f64 / begun.elapsed().as_secs_f64(),
        "rows/s",
    );
    database.execute("DROP TABLE bench_raw").await.expect("dropped");
}

fn session(worker: u32) -> SessionId {
    SessionId(Uuid::from_u128(1 << 64 | u128::from(worker)))
}

fn series(name: u32) -> SeriesKey {
    SeriesKey {
        phase: "peak".to_owned(),
        scenario: "default".to_owned(),
        name: format!("request {name}"),
    }
}

/// What one worker measured of one name in a second, `requests` in number: as the http engine fills it over TLS.
fn stats(seed: u32, requests: u32) -> Stats {
    let spread = |scale_us: u64| {
        let mut histogram = Histogram::new(Precision::Fine);
        for request in 0..requests {
            // Some spread without a random number: multiplicative hashing.
            let draw = u64::from(seed.wrapping_mul(31).wrapping_add(request).wrapping_mul(2_654_435_761) >> 22);
            histogram.record(scale_us * (1_000 + draw * draw / 64));
        }
        Some(histogram)
    };
    Stats {
        requests: requests.into(),
        data_sent: u64::from(requests) * 200,
        data_received: u64::from(requests) * 4_000,
        duration: spread(5_000),
        service_time: spread(5_000),
        blocked: spread(10),
        sending: spread(20),
        waiting: spread(4_900),
        receiving: spread(100),
        statuses: BTreeMap::from([(200, requests.into())]),
        ..Stats::default()
    }
}

fn generator() -> GeneratorStat {
    GeneratorStat {
        vus: 100,
        vus_max: 100,
        cpu: 0.4,
        memory_bytes: 100 << 20,
        arrivals: BTreeMap::from([("peak".to_owned(), 200)]),
        ..GeneratorStat::default()
    }
}

async fn open_run(results: &dyn Results, workers: u32) -> RunId {
    let run = RunId(Uuid::now_v7());
    results.open_run(run).await.expect("opened");
    for worker in 0..workers {
        let row = SessionRow {
            run,
            session: session(worker),
            worker,
            watermark: 0,
            end: None,
            dropped: Vec::new(),
        };
        results.open_session(&row).await.expect("opened");
    }
    run
}

/// CPU seconds of the server so far, from its process.
fn cpu_s(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).expect("a server on this machine");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    let ticks: Vec<f64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse().ok())
        .collect();
    // Linux counts a hundred ticks a second for user space, whatever the kernel's own.
    ticks.iter().sum::<f64>() / 100.0
}

/// A thousand workers with twenty names each send a frame a second, through ingest, while a judge reads.
async fn live(stores: &Stores, database: &mut MySqlConnection, seconds: u32) {
    let results = Arc::clone(&stores.results);
    let run = open_run(&*results, WORKERS).await;
    let (_, intake) = ingest(Arc::clone(&results), Clock::system());
    let (producer, mut consumer) = memory::bus(1_024);
    let stop = CancellationToken::new();
    let (token, begun) = (stop.clone(), tokio::time::Instant::now() + Duration::from_secs(1));
    tokio::spawn(async move { intake.run(&mut consumer, token).await });
    let body: Arc<BTreeMap<SeriesKey, Stats>> =
        Arc::new((0..NAMES).map(|name| (series(name), stats(name, 10))).collect());
    let pid_file: String = database
        .fetch_one("SELECT @@pid_file")
        .await
        .expect("a row")
        .get_unchecked(0);
    let pid = std::fs::read_to_string(pid_file).expect("a server on this machine");
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (mut producer, body) = (producer.clone(), Arc::clone(&body));
        workers.spawn(async move {
            for second in 0..seconds {
                // A second's frame is ready when the second is over.
                tokio::time::sleep_until(begun + Duration::from_secs(u64::from(second) + 1)).await;
                let message = frame(run, worker, second, &body);
                producer.send(&[message]).await.expect("stored");
            }
        });
    }
    let (before, wall) = (cpu_s(&pid), Instant::now());
    let behind = tokio::spawn(watch(Arc::clone(&results), run, begun, seconds));
    while workers.join_next().await.is_some() {}
    let (used, wall) = (cpu_s(&pid) - before, wall.elapsed().as_secs_f64());
    let mut behind = behind.await.expect("watched");
    stop.cancel();
    let rows = number(database, "SELECT COUNT(*) FROM slice_part").await;
    let bytes = number(database, "SELECT CAST(SUM(LENGTH(data)) AS SIGNED) FROM slice_part").await;
    figure("p5_rows", rows as f64 / f64::from(seconds), "rows/s");
    figure("p5_stored", bytes as f64 / f64::from(seconds) / 1e3, "kB/s");
    figure("p5_database_cpu", used / wall * 100.0, "% of a core");
    behind.sort_by(f64::total_cmp);
    figure("p5_behind_median", behind[behind.len() / 2], "s");
    figure("p5_behind_worst", behind[behind.len() - 1], "s");
}

fn frame(run: RunId, worker: u32, second: u32, body: &BTreeMap<SeriesKey, Stats>) -> Message {
    let sequence = u64::from(second) + 1;
    let frame = Frame {
        run,
        session: session(worker),
        worker,
        sequence,
        skipped: 0,
        body: Body::Second(Second {
            second,
            entries: body.clone(),
            generator: generator(),
        }),
    };
    Message {
        run,
        session: frame.session,
        sequence,
        payload: frame.encode().into(),
    }
}

/// Reads as a judge does, four times a second, and says for each second how long after its end all of it was there.
async fn watch(results: Arc<dyn Results>, run: RunId, begun: tokio::time::Instant, seconds: u32) -> Vec<f64> {
    let (mut cursor, mut seen, mut behind) = (0, vec![0; seconds as usize], Vec::new());
    while behind.len() < seconds as usize {
        let parts = results.parts(run, cursor, 512).await.expect("parts");
        for (at, part) in parts {
            cursor = at;
            if matches!(part.what, PartOf::Worker(_)) {
                let count = &mut seen[part.second as usize];
                *count += 1;
                if *count == WORKERS {
                    let end = begun + Duration::from_secs(u64::from(part.second) + 1);
                    behind.push(end.elapsed().as_secs_f64());
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    behind
}

fn plan() -> TestPlan {
    let mut text = "apiVersion: muster.dev/v1alpha1\nkind: TestPlan\nmetadata: {name: hour}\nspec:\n  \
                    target: {baseURL: \"http://127.0.0.1:1\"}\n  phases: [{name: peak, executor: constant-vus, vus: 4000, duration: 1h}]\n  \
                    thresholds: {http_req_duration: [\"p(95)<60s\"], http_req_failed: [rate<1%]}\n  engine:\n    type: http\n    requests:\n"
        .to_owned();
    for name in 0..NAMES {
        writeln!(text, "      - {{name: request {name}, get: /}}").expect("a String takes everything");
    }
    let file = SourceFile {
        blob: "1".to_owned(),
        bytes: Arc::from(text.into_bytes()),
    };
    let files = Files {
        files: BTreeMap::from([("hour.yaml".to_owned(), file)]),
        refused: BTreeMap::new(),
    };
    let loaded = spec::load(&files, &Policy::foreground(&[]), &mut Cache::default());
    let mut resources = loaded
        .projects
        .into_values()
        .flat_map(|project| project.resources.into_values());
    match resources.next().map(|resource| resource.spec.clone()) {
        Some(Spec::TestPlan(plan)) => *plan,
        _ => panic!("the plan is valid"),
    }
}

/// An hour of forty workers with twenty names: stored as ingest stores it, sealed, compacted, and read for the report.
async fn hour(stores: &Stores) {
    let results = &stores.results;
    let run = open_run(&**results, HOUR_WORKERS).await;
    let encoded: Vec<Vec<u8>> = (0..NAMES)
        .map(|name| stats(name, 10 * HOUR_WORKERS / 2).encode())
        .collect();
    let begun = Instant::now();
    for second in 0..HOUR_S {
        // Two flushes a second, each with half of the workers.
        for half in 0..2 {
            let all = encoded.iter().zip(0..).map(|(data, name)| SlicePart {
                second,
                what: PartOf::Series(series(name)),
                data: data.clone(),
            });
            let workers = (0..HOUR_WORKERS)
                .filter(|worker| worker % 2 == half)
                .map(|worker| SlicePart {
                    second,
                    what: PartOf::Worker(worker),
                    data: generator().encode(),
                });
            let sequence = u64::from(second);
            let watermarks = (0..HOUR_WORKERS).filter(|worker| worker % 2 == half);
            let flush = Flush {
                run,
                parts: all.chain(workers).collect(),
                watermarks: watermarks
                    .map(|worker| (session(worker), (sequence, sequence + 1)))
                    .collect(),
                ends: BTreeMap::new(),
            };
            results.append(&flush).await.expect("stored");
        }
    }
    figure("p13_store_an_hour", begun.elapsed().as_secs_f64(), "s");
    results.seal(run).await.expect("sealed");
    read(&**results, run, "before_compaction").await;
    let begun = Instant::now();
    results.compact(run).await.expect("compacted");
    figure("p13_compact", begun.elapsed().as_secs_f64(), "s");
    read(&**results, run, "compacted").await;
}

/// Reads all of a run as the report's maker does: decoded, merged, judged.
async fn read(results: &dyn Results, run: RunId, when: &str) {
    let plan = plan();
    let begun = Instant::now();
    let (mut view, mut judge, mut cursor, mut bytes) = (RunView::new(&plan, HOUR_WORKERS), Judge::new(&plan), 0, 0);
    let mut fetching = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let parts = results.parts(run, cursor, 512).await.expect("parts");
        fetching += asked.elapsed();
        if parts.is_empty() {
            break;
        }
        for (at, part) in parts {
            cursor = at;
            bytes += part.data.len();
            match &part.what {
                PartOf::Series(key) => view.apply(part.second, key, &Stats::decode(&part.data).expect("stats")),
                PartOf::Worker(worker) => {
                    let stat = GeneratorStat::decode(&part.data).expect("a stat");
                    view.apply_worker(part.second, *worker, &stat);
                }
            }
        }
        judge.advance(&mut view);
    }
    let outcome = judge.finish(&view);
    assert_eq!(outcome.thresholds.len(), 2, "both thresholds are judged");
    figure(&format!("p13_report_{when}"), begun.elapsed().as_secs_f64(), "s");
    figure(&format!("p13_report_{when}_database"), fetching.as_secs_f64(), "s");
    figure(&format!("p13_report_{when}_bytes"), bytes as f64 / 1e6, "MB");
}
