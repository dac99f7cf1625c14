//! Doubles for this folder's tests: a ledger in memory, a provider that records, resources without documents.

mod ledger;

use super::contents::Contents;
use super::external::{External, Outside};
use super::sync::{ProjectState, Published, SyncHandle};
use crate::provider::simulated::{SimulatedConfig, SimulatedProvider};
use crate::provider::{Materials, Provider, ProviderError};
use crate::runtime::clock::Clock;
use crate::runtime::secrets::ConfiguredSecrets;
use crate::store::rows::{ChangesetRow, ProjectRow};
use crate::store::{Ledger, Result, StoreError};
use async_trait::async_trait;
use muster_core::model::desired::{Desired, ProjectDesired};
use muster_core::model::environment::{Environment, EnvironmentLimits, ProviderSpec};
use muster_core::model::id::{Digest, Name, Revision};
use muster_core::model::key::Key;
use muster_core::model::observed::{AppliedResource, DeletionApproval, ExternalSight, InventoryRow, ResourceStatus};
use muster_core::model::resource::{Annotations, Meta, Origin, Resource, Spec};
use muster_core::model::run::Event;
use muster_core::model::service::{Service, Update, UpdateStrategy};
use muster_core::model::settings::SecretSource;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitSpec};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

pub(super) fn key(text: &str) -> Key {
    text.parse().expect("a key")
}
pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}
pub(super) fn revision(number: u32) -> Revision {
    Revision::new(format!("{number:040x}")).expect("a revision")
}

pub(super) const LAB: &str = "p/Environment/lab";

pub(super) fn resource(text: &str, spec: Spec) -> Arc<Resource> {
    let rendered = match &spec {
        Spec::Service(service) => json!({"spec": {"command": service.command, "replicas": service.replicas,
            "environment": service.environment.to_string()}}),
        Spec::IngestCluster(ingest) => json!({"spec": {"environment": ingest.environment.to_string(),
            "kafkaCluster": ingest.from.cluster.to_string(), "databaseCluster": ingest.database.to_string()}}),
        Spec::KafkaCluster(cluster) => json!({"spec": {"topics": cluster.topics.len()}}),
        Spec::DatabaseCluster(database) => json!({"spec": {"external": database.url.name}}),
        _ => json!({"spec": {"provider": {"type": "simulated", "readyAfter": "1s"}}}),
    };
    Arc::new(Resource {
        meta: Meta {
            key: key(text),
            labels: BTreeMap::new(),
            annotations: Annotations::default(),
            origin: Origin {
                file: "plan.yaml".to_owned(),
                line: 1,
            },
        },
        spec,
        digest: Digest::of(rendered.to_string().as_bytes()),
        rendered,
    })
}

pub(super) fn lab() -> Arc<Resource> {
    let provider = ProviderSpec::Simulated {
        ready_after: Duration::from_secs(1),
        fail_every: 0,
    };
    resource(
        LAB,
        Spec::Environment(Environment {
            provider,
            limits: EnvironmentLimits::default(),
            price: None,
        }),
    )
}

pub(super) fn service(text: &str, version: &str, replicas: u32) -> Arc<Resource> {
    let spec = Service {
        environment: key(LAB),
        command: vec![version.to_owned()],
        replicas,
        env: Vec::new(),
        files: Vec::new(),
        ports: Vec::new(),
        health: None,
        depends_on: Vec::new(),
        update: Update {
            strategy: UpdateStrategy::Rolling,
            max_unavailable: 1,
        },
    };
    resource(text, Spec::Service(spec))
}

/// What sync would publish of one good revision of project `p`.
pub(super) fn published(number: u32, resources: Vec<Arc<Resource>>) -> Arc<Published> {
    let high_water = u32::try_from(resources.len()).expect("few");
    let resources = resources
        .into_iter()
        .map(|resource| (resource.meta.key.clone(), resource))
        .collect();
    let project = ProjectDesired {
        revision: revision(number),
        resources,
    };
    let state = ProjectState {
        observed: revision(number),
        good: Some(revision(number)),
        errors: 0,
        first_error: None,
        high_water,
    };
    Arc::new(Published {
        revision: Some(revision(number)),
        desired: Arc::new(Desired {
            projects: BTreeMap::from([(name("p"), project)]),
        }),
        projects: BTreeMap::from([(name("p"), state)]),
    })
}

/// A sync whose published value the test sets.
pub(super) fn sync(ledger: &Arc<MemoryLedger>) -> (watch::Sender<Option<Arc<Published>>>, SyncHandle) {
    let (sender, receiver) = watch::channel(None);
    let contents = Contents::new(Arc::clone(ledger) as Arc<dyn Ledger>);
    (sender, SyncHandle::fixed(receiver, contents))
}

/// One that every process has: `path`.
pub(super) fn secrets() -> Arc<ConfiguredSecrets> {
    let path = ("path".to_owned(), SecretSource::Env("PATH".to_owned()));
    Arc::new(ConfiguredSecrets::new([path].into()))
}

/// What was done, in order, by all doubles that share it.
pub(super) type Log = Arc<Mutex<Vec<String>>>;
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows in memory.
#[derive(Default)]
pub(super) struct MemoryLedger {
    pub(super) rows: Mutex<Rows>,
    pub(super) log: Log,
}

#[derive(Default)]
pub(super) struct Rows {
    pub(super) down: bool,
    pub(super) projects: BTreeMap<Name, ProjectRow>,
    pub(super) applied: BTreeMap<Key, AppliedResource>,
    pub(super) deletions: BTreeMap<Name, u32>,
    pub(super) inventory: BTreeMap<UnitName, InventoryRow>,
    pub(super) statuses: BTreeMap<Key, ResourceStatus>,
    pub(super) changesets: Vec<ChangesetRow>,
    pub(super) approvals: Vec<DeletionApproval>,
    pub(super) events: Vec<Event>,
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
}

impl MemoryLedger {
    fn open(&self) -> Result<MutexGuard<'_, Rows>> {
        let rows = locked(&self.rows);
        if rows.down {
            return Err(StoreError::Unavailable("down".to_owned()));
        }
        Ok(rows)
    }

    fn write(&self, what: String) -> Result<MutexGuard<'_, Rows>> {
        let rows = self.open()?;
        locked(&self.log).push(what);
        Ok(rows)
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        locked(&self.rows)
            .events
            .iter()
            .map(|event| event.reason.clone())
            .collect()
    }
}

/// The simulated provider with a record of what was asked of it, and faults by unit.
pub(super) struct Recorder {
    pub(super) inner: SimulatedProvider,
    pub(super) log: Log,
    pub(super) faults: Mutex<BTreeMap<String, Fault>>,
    working: Mutex<BTreeSet<Key>>,
    /// How long each create and delete takes.
    pub(super) effort: Mutex<Duration>,
    clock: Clock,
}

/// What goes wrong when a unit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Refused,
    Transient,
    Panic,
}

impl Recorder {
    pub(super) fn new(clock: &Clock, log: &Log) -> Arc<Self> {
        let config = SimulatedConfig {
            environment: key(LAB),
            ready_after: Duration::from_secs(1),
            fail_every: 0,
            state_file: None,
        };
        let inner = SimulatedProvider::open(config, clock.clone()).expect("no state file");
        Arc::new(Self {
            inner,
            log: Arc::clone(log),
            faults: Mutex::default(),
            working: Mutex::default(),
            effort: Mutex::default(),
            clock: clock.clone(),
        })
    }

    pub(super) fn fail(&self, unit: &str, fault: Fault) {
        locked(&self.faults).insert(unit.to_owned(), fault);
    }

    pub(super) fn mend(&self) {
        locked(&self.faults).clear();
    }

    /// Promise 10: nobody works twice on one resource. Only for resources of one unit.
    async fn work(&self, owner: Key) {
        assert!(locked(&self.working).insert(owner.clone()), "two at once on {owner}");
        let effort = *locked(&self.effort);
        self.clock.sleep(effort).await;
        locked(&self.working).remove(&owner);
    }
}

#[async_trait]
impl Provider for Recorder {
    async fn observe(&self) -> Result<Vec<ObservedUnit>, ProviderError> {
        self.inner.observe().await
    }
    async fn create(&self, unit: &UnitSpec, materials: &Materials) -> Result<(), ProviderError> {
        locked(&self.log).push(format!("create {}", unit.name));
        if !locked(&self.effort).is_zero() {
            self.work(unit.owner.clone()).await;
        }
        let fault = locked(&self.faults).get(unit.name.as_str()).copied();
        match fault {
            Some(Fault::Refused) => Err(ProviderError::Refused {
                unit: unit.name.clone(),
                reason: "no such program".to_owned(),
            }),
            Some(Fault::Transient) => Err(ProviderError::Transient("try again".to_owned())),
            Some(Fault::Panic) => panic!("a provider's bug"),
            None => self.inner.create(unit, materials).await,
        }
    }
    async fn delete(&self, unit: &UnitName) -> Result<(), ProviderError> {
        locked(&self.log).push(format!("delete {unit}"));
        let fault = locked(&self.faults).get(unit.as_str()).copied();
        match fault {
            Some(_) => Err(ProviderError::Transient("it will not die".to_owned())),
            None => self.inner.delete(unit).await,
        }
    }
    async fn logs(&self, unit: &UnitName, max_bytes: usize) -> Result<Vec<u8>, ProviderError> {
        self.inner.logs(unit, max_bytes).await
    }
}

/// What somebody else runs, as the test wants it.
pub(super) struct Outsider {
    pub(super) log: Log,
    /// What a look sees; `None`: never answers.
    sight: Mutex<Option<ExternalSight>>,
    /// Why nothing can be made.
    pub(super) refusal: Mutex<Option<String>>,
}

impl Outsider {
    pub(super) fn new(log: &Log) -> Arc<Self> {
        Arc::new(Self {
            log: Arc::clone(log),
            sight: Mutex::default(),
            refusal: Mutex::default(),
        })
    }

    pub(super) fn say(&self, sight: ExternalSight) {
        *locked(&self.sight) = Some(sight);
    }
}

pub(super) fn fine() -> ExternalSight {
    ExternalSight::Fine {
        summary: "all is there".to_owned(),
    }
}

pub(super) fn away(why: &str) -> ExternalSight {
    ExternalSight::Unreachable {
        summary: why.to_owned(),
    }
}

#[async_trait]
impl External for Outsider {
    async fn look(&self, _: &Outside) -> ExternalSight {
        locked(&self.log).push("look".to_owned());
        let sight = locked(&self.sight).clone();
        match sight {
            Some(ExternalSight::Unreachable { summary }) if summary == "panics" => panic!("as the test wants"),
            Some(sight) => sight,
            None => std::future::pending().await,
        }
    }

    async fn make(&self, outside: &Outside) -> std::result::Result<ExternalSight, String> {
        locked(&self.log).push("make".to_owned());
        if let Some(refusal) = locked(&self.refusal).clone() {
            return Err(refusal);
        }
        match self.look(outside).await {
            ExternalSight::Unreachable { summary } => Err(summary),
            ExternalSight::Missing { .. } => {
                self.say(fine());
                Ok(fine())
            }
            other => Ok(other),
        }
    }
}
