//! Workers in a fleet: from Prepare to Release over real connections, with cuts, restarts and lost owners.

use crate::support::entrance;
use muster::api::worker::serve;
use muster::bus::dial::{Address, Dial};
use muster::bus::memory;
use muster::control::fleet::door::Bringer;
use muster::control::fleet::offset::MAX_ERROR_US;
use muster::control::fleet::{
    Assignment, EndedWhy, Fleet, FleetEvent, Progress, SharedLoad, StopMode, WorkerView, join,
};
use muster::ingest::{Ingest, ingest};
use muster::runtime::clock::Clock;
use muster::store::rows::{PartOf, SessionRow};
use muster::store::{Results, open};
use muster::worker::{Ended, Teller, WorkerArgs, WorkerError, run};
use muster_core::measure::slice::Stats;
use muster_core::measure::validity::{CompletenessKind, completeness};
use muster_core::model::id::{Name, RunId, SessionId, WorkerId};
use muster_core::model::load::{Engine, Executor, LoadPlan, Phase, PhaseWork, Rate, Segment, SyntheticEngine, Users};
use muster_core::model::policy::TargetRules;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(42));
const SOON: Duration = Duration::from_secs(30);

/// The owner's side, which can be stopped and started again on another port.
struct Owner {
    fleet: Fleet,
    ingest: Ingest,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Owner {
    async fn start(folder: &TempDir, results: Arc<dyn Results>, epoch: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        join::write_address(folder.path(), listener.local_addr().unwrap()).unwrap();
        let entrance = entrance(listener, folder.path());
        let fleet = Fleet::new(epoch, Clock::system());
        let (queue, mut deliveries) = memory::queue(256);
        let (handle, intake) = ingest(results, Clock::system());
        let stop = CancellationToken::new();
        let serving = serve(entrance, fleet.clone(), queue, stop.clone());
        let stopped = stop.clone();
        let tasks = vec![
            tokio::spawn(async move { serving.await.unwrap() }),
            tokio::spawn(async move { intake.run(&mut deliveries, stopped).await }),
        ];
        Self {
            fleet,
            ingest: handle,
            stop,
            tasks,
        }
    }

    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            timeout(SOON, task).await.unwrap().unwrap();
        }
    }
}

/// A wire that can be cut: all connections through it at once.
struct Wire {
    cut: Arc<tokio::sync::Notify>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Puts itself between the workers and whom the join file names.
    async fn between(folder: &TempDir) -> Self {
        let join = folder.path().join("join");
        let owner = std::fs::read_to_string(join).unwrap().trim().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        join::write_address(folder.path(), listener.local_addr().unwrap()).unwrap();
        let cut = Arc::new(tokio::sync::Notify::new());
        let cutter = cut.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut inner, _) = listener.accept().await.unwrap();
                let mut outer = tokio::net::TcpStream::connect(&owner).await.unwrap();
                let cut = cutter.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = cut.notified() => {}
                        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                    }
                });
            }
        });
        Self { cut, task }
    }
}

struct World {
    wire: Wire,
    folder: TempDir,
    results: Arc<dyn Results>,
    owner: Owner,
    workers: Vec<JoinHandle<Result<Ended, WorkerError>>>,
    stop: CancellationToken,
}

impl World {
    async fn start(workers: usize, orphan_timeout: Duration) -> Self {
        let folder = TempDir::new().unwrap();
        let results = open("sqlite::memory:").await.unwrap().results;
        let owner = Owner::start(&folder, results.clone(), 1).await;
        let wire = Wire::between(&folder).await;
        let mut world = Self {
            wire,
            folder,
            results,
            owner,
            workers: Vec::new(),
            stop: CancellationToken::new(),
        };
        for index in 0..workers {
            world.add_worker(index, orphan_timeout);
        }
        world
            .until(|views| views.iter().filter(|view| view.is_free()).count() == workers)
            .await;
        world
    }

    fn add_worker(&mut self, index: usize, orphan_timeout: Duration) {
        let args = WorkerArgs {
            dial: Dial {
                address: Address::File(self.folder.path().join("join")),
                token_file: self.folder.path().join("join-token"),
                ca_file: None,
            },
            pool: "default/WorkerPool/local".to_owned(),
            unit: Some(format!("default.workerpool.local.{index}").parse().unwrap()),
            orphan_timeout: Some(orphan_timeout),
            allows_commands: false,
            teller: Teller::default(),
            threads: Some(1),
        };
        self.workers.push(tokio::spawn(run(args, self.stop.clone(), false)));
    }

    async fn until(&self, what: impl Fn(&[WorkerView]) -> bool) {
        let work = async {
            while !what(&self.owner.fleet.workers()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(SOON, work).await.is_err() {
            panic!("{:#?}", self.owner.fleet.workers());
        }
    }

    /// Waits until every worker of the run has reached a milestone.
    async fn reached(&self, milestone: impl Fn(&Progress) -> bool) {
        let count = self.owner.fleet.workers().len();
        self.until(|_| {
            let progress = self.owner.fleet.progress(RUN);
            progress.len() == count && progress.values().all(|history| history.iter().any(&milestone))
        })
        .await;
    }

    fn assignments(&self, plan: LoadPlan, orphan_timeout: Duration) -> Vec<Assignment> {
        let views = self.owner.fleet.workers();
        let count = u32::try_from(views.len()).unwrap();
        let load = Arc::new(SharedLoad {
            plan,
            files: BTreeMap::new(),
            seed: 1,
            orphan_timeout,
            pool: "default/WorkerPool/local".parse().unwrap(),
            bus: None,
            bringer: Bringer::Own,
        });
        let assignment = |(index, view): (u32, &WorkerView)| Assignment {
            worker: view.id,
            session: SessionId(Uuid::from_u128(1_000 + u128::from(index))),
            segment: Segment { index, count },
            load: load.clone(),
        };
        (0..count).zip(&views).map(assignment).collect()
    }

    async fn open_sessions(&self, set: &[Assignment]) {
        self.results.open_run(RUN).await.unwrap();
        for assignment in set {
            let row = SessionRow {
                run: RUN,
                session: assignment.session,
                worker: assignment.segment.index,
                watermark: 0,
                end: None,
                dropped: Vec::new(),
            };
            self.results.open_session(&row).await.unwrap();
        }
    }

    /// Prepares, arms and commits.
    async fn begin(&self, plan: LoadPlan, orphan_timeout: Duration) -> Vec<Assignment> {
        let set = self.assignments(plan, orphan_timeout);
        self.open_sessions(&set).await;
        let fleet = &self.owner.fleet;
        fleet.prepare(RUN, set.clone()).unwrap();
        self.reached(|progress| *progress == Progress::Prepared).await;
        fleet.arm(RUN, 300).unwrap();
        self.reached(|progress| *progress == Progress::Armed).await;
        fleet.commit(RUN).unwrap();
        self.reached(|progress| matches!(progress, Progress::Started { .. }))
            .await;
        set
    }

    /// Waits for the end and seals; iterations stored.
    async fn finish(&self, workers: u32) -> u64 {
        self.reached(|progress| matches!(progress, Progress::Ended { .. }))
            .await;
        let sealed = self.owner.ingest.seal(RUN, Instant::now() + SOON).await.unwrap();
        let complete = completeness(&sealed.states(), workers, 1);
        assert_eq!(complete.kind, CompletenessKind::Complete, "{sealed:?}");
        self.iterations().await
    }

    async fn iterations(&self) -> u64 {
        let parts = self.results.parts(RUN, 0, 100_000).await.unwrap();
        parts
            .into_iter()
            .filter(|(_, part)| matches!(&part.what, PartOf::Series(series) if series.name.is_empty()))
            .map(|(_, part)| Stats::decode(&part.data).unwrap().iterations)
            .sum()
    }

    async fn end(self) {
        self.stop.cancel();
        for worker in self.workers {
            assert_eq!(timeout(SOON, worker).await.unwrap().unwrap().unwrap(), Ended::Stopped);
        }
        assert_eq!(self.owner.fleet.workers().len(), 0, "all said goodbye");
        self.owner.end().await;
        self.wire.task.abort();
    }
}

fn plan(rate: u64, seconds: u64) -> LoadPlan {
    let executor = Executor::ConstantArrivalRate {
        rate: Rate {
            iterations: rate,
            per_ms: 1_000,
        },
        duration: Duration::from_secs(seconds),
        users: Users {
            pre_allocated: 50,
            max: 50,
        },
    };
    LoadPlan {
        run: RUN,
        plan: "default/hello".to_owned(),
        phases: vec![Phase {
            name: Name::new("peak").unwrap(),
            work: PhaseWork::Load {
                executor,
                graceful_stop: Duration::from_secs(5),
            },
            workers: None,
        }],
        engine: Engine::Synthetic(SyntheticEngine {
            p50: Duration::from_millis(5),
            p99: Duration::from_millis(20),
            error_rate: 0.0,
        }),
        base_urls: Vec::new(),
        data: Vec::new(),
        targets: TargetRules::default(),
        requests_per_second: None,
    }
}

fn late(progress: &BTreeMap<WorkerId, Vec<Progress>>) -> Vec<i64> {
    let lateness = |progress: &Progress| match progress {
        Progress::Started { late_us } => Some(*late_us),
        _ => None,
    };
    progress.values().flatten().filter_map(lateness).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s38_s48_an_exact_set_starts_together_and_exact_counts_arrive() {
    let world = World::start(3, SOON).await;
    let mut events = world.owner.fleet.subscribe();
    let set = world.begin(plan(101, 2), SOON).await;
    assert!(
        world
            .owner
            .fleet
            .workers()
            .iter()
            .all(|view| view.clock.is_some_and(|clock| clock.error_us <= MAX_ERROR_US))
    );
    assert_eq!(late(&world.owner.fleet.progress(RUN)).len(), 3);
    // The same set again changes nothing; a busy worker is not given away.
    world.owner.fleet.prepare(RUN, set.clone()).unwrap();
    assert!(world.owner.fleet.prepare(RunId(Uuid::from_u128(43)), set).is_err());
    assert_eq!(world.finish(3).await, 202);
    for history in world.owner.fleet.progress(RUN).values() {
        let expected = |progress: &Progress| {
            matches!(
                progress,
                Progress::Ended {
                    why: EndedWhy::Finished,
                    dropped_frames: 0,
                    ..
                }
            )
        };
        assert!(expected(history.last().unwrap()), "{history:?}");
        assert_eq!(history[3..5], [Progress::PhaseStarted(0), Progress::PhaseEnded(0)]);
        assert_eq!(history.len(), 6, "each milestone once: {history:?}");
    }
    world.owner.fleet.release(RUN);
    world.until(|views| views.iter().all(WorkerView::is_free)).await;
    let mut told = 0;
    while events.try_recv().is_ok() {
        told += 1;
    }
    assert_eq!(told, 3 * 6);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s38_without_commit_there_is_no_start() {
    let world = World::start(2, SOON).await;
    let set = world.assignments(plan(10, 1), SOON);
    world.open_sessions(&set).await;
    let fleet = &world.owner.fleet;
    fleet.prepare(RUN, set).unwrap();
    world.reached(|progress| *progress == Progress::Prepared).await;
    fleet.arm(RUN, 100).unwrap();
    world.reached(|progress| *progress == Progress::Armed).await;
    // Armed anew, later: both are armed twice, none has started.
    fleet.arm(RUN, 100).unwrap();
    let twice = |history: &Vec<Progress>| history.iter().filter(|progress| **progress == Progress::Armed).count() == 2;
    world.until(|_| fleet.progress(RUN).values().all(twice)).await;
    fleet.stop(RUN, StopMode::Graceful).unwrap();
    world
        .reached(|progress| {
            matches!(
                progress,
                Progress::Ended {
                    why: EndedWhy::Stopped,
                    ..
                }
            )
        })
        .await;
    assert!(late(&fleet.progress(RUN)).is_empty());
    assert_eq!(world.finish(2).await, 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s48_s49_cut_connections_lose_and_double_nothing() {
    let world = World::start(2, SOON).await;
    let mut events = world.owner.fleet.subscribe();
    world.begin(plan(100, 4), SOON).await;
    for seconds in 1..4 {
        world
            .until(|views| views.iter().all(|view| view.status.frames_made >= seconds))
            .await;
        world.wire.cut.notify_waiters();
    }
    assert_eq!(world.finish(2).await, 400);
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(event);
    }
    let progress = told
        .iter()
        .filter(|event| matches!(event, FleetEvent::Progress { .. }))
        .count();
    assert_eq!(progress, 2 * 6, "each milestone once: {told:?}");
    assert!(
        !told.iter().any(|event| matches!(event, FleetEvent::Lost { .. })),
        "{told:?}"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s42_s49_a_restarted_owner_adopts_the_run_and_nothing_is_lost_or_doubled() {
    let mut world = World::start(2, SOON).await;
    let set = world.begin(plan(100, 5), SOON).await;
    world
        .until(|views| views.iter().all(|view| view.status.frames_acked >= 1))
        .await;
    let next = Owner::start(&world.folder, world.results.clone(), 2);
    std::mem::replace(&mut world.owner, next.await).end().await;
    world.owner.fleet.adopt(RUN, set).unwrap();
    world.owner.fleet.adoption_done();
    assert_eq!(world.finish(2).await, 500);
    for history in world.owner.fleet.progress(RUN).values() {
        assert_eq!(history.len(), 6, "the whole history is told: {history:?}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s42_a_run_that_nobody_adopts_is_ended_and_its_workers_are_free_again() {
    let mut world = World::start(1, SOON).await;
    world.begin(plan(100, 600), SOON).await;
    let next = Owner::start(&world.folder, world.results.clone(), 2);
    std::mem::replace(&mut world.owner, next.await).end().await;
    world.owner.fleet.adoption_done();
    world
        .until(|views| views.len() == 1 && views.iter().all(WorkerView::is_free))
        .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s41_a_worker_without_its_owner_stops_and_exits() {
    let mut world = World::start(1, SOON).await;
    // The run's own timeout counts, not the one the process was started with.
    world.begin(plan(50, 600), Duration::from_secs(2)).await;
    let gone = Instant::now();
    world.owner.stop.cancel();
    let worker = world.workers.remove(0);
    let ended = timeout(SOON, worker).await.unwrap().unwrap().unwrap();
    assert_eq!(ended, Ended::Orphaned);
    assert!(gone.elapsed() >= Duration::from_millis(900), "not before the timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s47_stop_ends_a_run_and_what_was_measured_is_complete() {
    let world = World::start(2, SOON).await;
    world.begin(plan(100, 600), SOON).await;
    world
        .until(|views| views.iter().all(|view| view.status.frames_acked >= 1))
        .await;
    world.owner.fleet.stop(RUN, StopMode::Graceful).unwrap();
    assert!(world.finish(2).await >= 100);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_gone_is_lost_and_a_file_is_fetched() {
    let world = World::start(1, SOON).await;
    let mut set = world.assignments(plan(10, 1), SOON);
    let content: Arc<[u8]> = vec![7; 600_000].into();
    let digest = muster_core::model::id::Digest::of(&content).as_str().to_owned();
    let mut load = SharedLoad::clone(&set[0].load);
    load.files.insert(digest, content);
    set[0].load = Arc::new(load);
    world.open_sessions(&set).await;
    world.owner.fleet.prepare(RUN, set).unwrap();
    world.reached(|progress| *progress == Progress::Prepared).await;
    let mut events = world.owner.fleet.subscribe();
    world.stop.cancel();
    loop {
        let event = timeout(SOON, events.recv()).await.unwrap().unwrap();
        if let FleetEvent::Lost { run, reason, .. } = event {
            assert_eq!((run, reason.as_str()), (Some(RUN), "it was told to end"));
            break;
        }
    }
    world.end().await;
}
