//! A world with one plan, and a worker that makes what numbers it is told to.

use async_trait::async_trait;
use muster::bus::kafka::Lag;
use muster::control::fleet::door::Pass;
use muster::control::fleet::{Connection, EndedWhy, Fleet, Hello, Progress, What};
use muster::control::runs::World;
use muster::control::runs::pinned::BusPin;
use muster::control::sync::{ProjectState, Published};
use muster::runtime::secrets::{ConfiguredSecrets, Secrets};
use muster::store::Results;
use muster::store::rows::{Flush, PartOf, ResultsPin, SlicePart};
use muster_core::measure::histogram::{Histogram, Precision};
use muster_core::measure::slice::{GeneratorStat, SeriesKey, Stats};
use muster_core::model::desired::{Desired, ProjectDesired};
use muster_core::model::environment::{KafkaTopic, WorkerPool};
use muster_core::model::id::{Digest, Name, Revision, RunId, SessionId, WorkerId};
use muster_core::model::key::{Key, Kind};
use muster_core::model::load::{Engine, Executor, Phase, PhaseWork, SyntheticEngine};
use muster_core::model::plan::{OnChange, PlanLimits, Target, TestPlan, Validity};
use muster_core::model::policy::Policy;
use muster_core::model::resource::{Annotations, Meta, Origin, Resource, Spec};
use muster_core::model::schedule::Timing;
use muster_core::model::service::SecretRef;
use muster_core::model::streaming::{DatabaseCluster, DatabaseEngine, ExternalKafka, KafkaCluster};
use muster_core::model::unit::ObservedUnit;
use muster_core::topology::{local_environment, local_environment_spec, local_pool_spec};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

pub fn plan_key() -> Key {
    Key::new(Name::default_project(), Kind::TestPlan, Name::new("hello").unwrap())
}

/// A database whose address is the secret `results`.
pub fn cluster_key() -> Key {
    let name = Name::new("results").unwrap();
    Key::new(Name::default_project(), Kind::DatabaseCluster, name)
}

fn kafka_key() -> Key {
    let name = Name::new("metrics").unwrap();
    Key::new(Name::default_project(), Kind::KafkaCluster, name)
}

/// A pool whose workers send to Kafka.
pub fn bus_pool() -> Key {
    let name = Name::new("crew").unwrap();
    Key::new(Name::default_project(), Kind::WorkerPool, name)
}

pub fn plan() -> TestPlan {
    TestPlan {
        description: None,
        suspend: None,
        timing: Timing::default(),
        target: Target::BaseUrl("http://127.0.0.1:1".to_owned()),
        limits: PlanLimits::default(),
        engine: Engine::Synthetic(SyntheticEngine {
            p50: Duration::from_millis(1),
            p99: Duration::from_millis(2),
            error_rate: 0.0,
        }),
        data: Vec::new(),
        depends_on: Vec::new(),
        pool: None,
        phases: vec![Phase {
            name: Name::new("peak").unwrap(),
            work: PhaseWork::Load {
                executor: Executor::ConstantVus {
                    vus: 5,
                    duration: Duration::from_secs(3),
                },
                graceful_stop: Duration::from_secs(1),
            },
            workers: None,
        }],
        thresholds: Vec::new(),
        abort_rules: Vec::new(),
        auto_stop: None,
        validity: Validity::default(),
        hooks: Vec::new(),
        on_change: OnChange::Finish,
        retention: None,
        results: None,
    }
}

pub struct FakeWorld {
    published: watch::Sender<Option<Arc<Published>>>,
    policy: Mutex<Arc<Policy>>,
    /// How far ingest is, and how often somebody asked.
    pub lag: Mutex<(Option<Lag>, u32)>,
}

impl FakeWorld {
    pub fn new(plan: TestPlan) -> Arc<Self> {
        let mut policy = Policy::closed();
        policy.process_enabled = true;
        for project in policy.projects.values_mut() {
            project.targets.allow = vec!["127.0.0.1".to_owned()];
        }
        let world = Self {
            published: watch::channel(None).0,
            policy: Mutex::new(Arc::new(policy)),
            lag: Mutex::default(),
        };
        world.publish(plan);
        Arc::new(world)
    }

    /// A commit that sets the plan.
    pub fn publish(&self, plan: TestPlan) {
        let digest = Digest::of(&serde_json::to_vec(&plan).unwrap());
        let revision = Revision::new(digest.hex()).unwrap();
        let resource = Resource {
            meta: Meta {
                key: plan_key(),
                labels: BTreeMap::new(),
                annotations: Annotations::default(),
                origin: Origin {
                    file: "hello.yaml".to_owned(),
                    line: 1,
                },
            },
            spec: Spec::TestPlan(Box::new(plan)),
            digest,
            rendered: serde_json::Value::Null,
        };
        let database = Spec::DatabaseCluster(DatabaseCluster {
            engine: DatabaseEngine::Mariadb,
            url: SecretRef {
                name: "results".to_owned(),
                key: None,
            },
        });
        let kafka = Spec::KafkaCluster(KafkaCluster {
            external: ExternalKafka {
                bootstrap_servers: vec!["nowhere:9092".to_owned()],
                secret: None,
            },
            topics: Vec::new(),
        });
        let pool = Spec::WorkerPool(WorkerPool {
            bus: Some(KafkaTopic {
                cluster: kafka_key(),
                topic: "frames".to_owned(),
            }),
            ..local_pool_spec()
        });
        let others = [
            (cluster_key(), database),
            (kafka_key(), kafka),
            (bus_pool(), pool),
            (local_environment(), Spec::Environment(local_environment_spec())),
        ];
        let other = |(key, spec): (Key, Spec)| {
            let mut other = Resource {
                spec,
                ..resource.clone()
            };
            other.meta.key = key.clone();
            (key, Arc::new(other))
        };
        let mut resources: BTreeMap<_, _> = others.into_iter().map(other).collect();
        resources.insert(plan_key(), Arc::new(resource));
        let project = ProjectDesired {
            revision: revision.clone(),
            resources,
        };
        let state = ProjectState {
            observed: revision.clone(),
            good: Some(revision.clone()),
            errors: 0,
            first_error: None,
            high_water: 1,
        };
        let name = Name::default_project();
        self.published.send_replace(Some(Arc::new(Published {
            revision: Some(revision),
            desired: Arc::new(Desired {
                projects: BTreeMap::from([(name.clone(), project)]),
            }),
            projects: BTreeMap::from([(name, state)]),
        })));
    }
}

#[async_trait]
impl World for FakeWorld {
    fn published(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.published.subscribe()
    }

    fn policy(&self) -> Arc<Policy> {
        self.policy.lock().unwrap().clone()
    }

    async fn check_ready(&self, key: &Key) -> Result<(), String> {
        match [cluster_key(), kafka_key()].contains(key) {
            true => Ok(()),
            false => Err("it is not there".to_owned()),
        }
    }

    fn units(&self, _: &Key) -> Vec<ObservedUnit> {
        Vec::new()
    }

    fn replicas(&self, _: &Key, _: &Name) -> Vec<String> {
        Vec::new()
    }

    async fn content(&self, digest: &Digest) -> Result<Arc<[u8]>, String> {
        Err(format!("no {digest}"))
    }

    fn secrets(&self) -> Arc<dyn Secrets> {
        Arc::new(ConfiguredSecrets::default())
    }

    async fn lag(&self, _: &BusPin, _: Option<&ResultsPin>) -> Result<Option<Lag>, String> {
        let mut lag = self.lag.lock().unwrap();
        lag.1 += 1;
        Ok(lag.0.clone())
    }
}

/// What a fake worker does once it is committed.
#[derive(Clone, Copy, PartialEq)]
pub enum Act {
    /// So many seconds of numbers, then the end.
    Work { seconds: u32, latency_ms: u64 },
    /// Goes on until it is stopped.
    UntilStopped,
    /// Dies in the middle.
    Die,
    /// Is armed, and never says that it started.
    Mute,
    /// Stores ten seconds of numbers and goes on until it is stopped.
    Linger,
}

/// What survives a connection.
#[derive(Default)]
pub struct Memory {
    pub history: Vec<Progress>,
    /// A stop has reached it.
    pub was_stopped: bool,
    held: Option<(RunId, SessionId)>,
    is_over: bool,
    /// What is stored of the session goes up to here.
    watermark: u64,
}

pub fn worker_id(number: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(1_000 + number))
}

/// Dials in as a worker of a pool and does what it is told until the connection is over.
pub async fn work(
    fleet: Fleet,
    pool: Key,
    results: Arc<dyn Results>,
    id: WorkerId,
    act: Act,
    memory: Arc<Mutex<Memory>>,
) {
    let held = memory.lock().unwrap().held;
    let hello = Hello {
        worker: id,
        unit: None,
        host: "here".to_owned(),
        address: None,
        pool,
        version: "test".to_owned(),
        threads: 1,
        allows_commands: false,
        held,
        epoch: 0,
    };
    let mut connection = fleet.connect(hello, &Pass::OWN).unwrap();
    while connection.exchanged(connection.owner_us(), connection.owner_us(), 0) {}
    if let Some((run, _)) = held {
        let history = memory.lock().unwrap().history.clone();
        for (number, progress) in (1..).zip(history) {
            connection.report(run, number, progress);
        }
    }
    while let Some(order) = connection.order().await {
        let run = order.run;
        let say = |progress| say(&connection, run, &memory, progress);
        match order.what {
            What::Prepare(assignment) => {
                memory.lock().unwrap().held = Some((run, assignment.session));
                say(Progress::Prepared);
            }
            What::Arm { .. } => say(Progress::Armed),
            What::Commit if act == Act::Mute => {}
            What::Commit => {
                say(Progress::Started { late_us: 50 });
                say(Progress::PhaseStarted(0));
                match act {
                    Act::Work { seconds, latency_ms } => {
                        store(&*results, run, &memory, seconds, latency_ms, true).await;
                        say(Progress::PhaseEnded(0));
                        over(&connection, run, &memory, EndedWhy::Finished);
                    }
                    Act::Linger => store(&*results, run, &memory, 10, 1, false).await,
                    Act::UntilStopped | Act::Mute => {}
                    Act::Die => {
                        connection.goodbye("it was killed");
                        return;
                    }
                }
            }
            What::Stop(_) => {
                memory.lock().unwrap().was_stopped = true;
                store(&*results, run, &memory, 2, 1, true).await;
                over(&connection, run, &memory, EndedWhy::Stopped);
            }
            What::Release => {
                *memory.lock().unwrap() = Memory::default();
                connection.released(run);
            }
            What::Hook(hook) => say(Progress::HookEnded {
                name: hook.name,
                result: Ok(()),
            }),
            What::Advance { .. } | What::Pause | What::Resume => {}
        }
    }
}

fn say(connection: &Connection, run: RunId, memory: &Mutex<Memory>, progress: Progress) {
    let number = {
        let mut memory = memory.lock().unwrap();
        if memory.history.contains(&progress) && progress != Progress::Armed {
            return;
        }
        memory.history.push(progress.clone());
        u32::try_from(memory.history.len()).unwrap()
    };
    assert!(connection.report(run, number, progress));
}

fn over(connection: &Connection, run: RunId, memory: &Mutex<Memory>, why: EndedWhy) {
    let ended = Progress::Ended {
        why,
        last_sequence: 0,
        dropped_frames: 0,
    };
    say(connection, run, memory, ended);
}

/// Stores seconds with ten requests each and, where it is the last of them, the session's end, as ingest would.
pub async fn store(
    results: &dyn Results,
    run: RunId,
    memory: &Mutex<Memory>,
    seconds: u32,
    latency_ms: u64,
    is_last: bool,
) {
    let (session, from, to) = {
        let mut memory = memory.lock().unwrap();
        if memory.is_over {
            return;
        }
        memory.is_over = is_last;
        let from = memory.watermark;
        memory.watermark += u64::from(seconds) + u64::from(is_last);
        (memory.held.unwrap().1, from, memory.watermark)
    };
    let key = SeriesKey {
        phase: "peak".to_owned(),
        scenario: "default".to_owned(),
        name: "request".to_owned(),
    };
    let mut duration = Histogram::new(Precision::Fine);
    for _ in 0..10 {
        duration.record(latency_ms * 1_000_000);
    }
    let stats = Stats {
        requests: 10,
        duration: Some(duration),
        ..Stats::default()
    };
    let generator = GeneratorStat {
        vus: 5,
        arrivals: BTreeMap::from([("peak".to_owned(), 10)]),
        ..GeneratorStat::default()
    };
    let first = u32::try_from(from).unwrap();
    let parts = (first..first + seconds).flat_map(|second| {
        [
            (PartOf::Series(key.clone()), stats.encode()),
            (PartOf::Worker(0), generator.encode()),
        ]
        .map(|(what, data)| SlicePart { second, what, data })
    });
    let end = is_last.then(|| (session, (to, Vec::new())));
    let flush = Flush {
        run,
        parts: parts.collect(),
        watermarks: BTreeMap::from([(session, (from, to))]),
        ends: end.into_iter().collect(),
    };
    while results.append(&flush).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
