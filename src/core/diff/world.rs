//! A world in memory for tests: it performs changesets the way the executor does, and lets time pass.

use super::changeset::{Change, Changeset, Step, UnitStep};
use super::compute::{DiffPolicy, applied_resource, changeset, inventory_row};
use crate::model::desired::{Desired, ProjectDesired};
use crate::model::environment::{Capacity, Environment, EnvironmentLimits, KafkaTopic, ProviderSpec, WorkerPool};
use crate::model::id::{Digest, Name, Revision};
use crate::model::key::Key;
use crate::model::observed::{ExternalSight, Observed, Sight};
use crate::model::resource::{Annotations, Meta, Origin, Resource, Spec};
use crate::model::service::{SecretRef, Service, Update, UpdateStrategy};
use crate::model::streaming::{DatabaseCluster, DatabaseEngine, ExternalKafka, IngestCluster, KafkaCluster, Topic};
use crate::model::unit::{ObservedUnit, UnitSpec, UnitState};
use crate::topology::{PoolDemand, expand};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) fn revision(number: u32) -> Revision {
    Revision::new(format!("{number:040x}")).expect("a revision")
}

/// The document a resource would be rendered to, as far as the diff reads it.
fn rendered(key: &Key, spec: &Spec, annotations: &Annotations) -> Value {
    let texts = |keys: &[Key]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let spec = match spec {
        Spec::Environment(environment) => match &environment.provider {
            ProviderSpec::Process { work_dir } => json!({"provider": {"type": "process", "workDir": work_dir}}),
            ProviderSpec::Simulated {
                ready_after,
                fail_every,
            } => {
                json!({"provider": {"type": "simulated", "readyAfter": format!("{}ms", ready_after.as_millis()), "failEvery": fail_every}})
            }
            ProviderSpec::Joined => json!({"provider": {"type": "joined"}}),
        },
        Spec::WorkerPool(pool) => {
            json!({"environment": pool.environment.to_string(), "min": pool.min, "max": pool.max})
        }
        Spec::Service(service) => json!({
            "environment": service.environment.to_string(),
            "command": service.command,
            "replicas": service.replicas,
            "dependsOn": texts(&service.depends_on),
        }),
        Spec::TestPlan(plan) => json!({"dependsOn": texts(&plan.depends_on)}),
        Spec::KafkaCluster(cluster) => json!({
            "external": {"bootstrapServers": cluster.external.bootstrap_servers},
            "topics": cluster.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(),
        }),
        Spec::DatabaseCluster(database) => json!({"external": {"secretRef": database.url.name}}),
        Spec::IngestCluster(ingest) => json!({
            "environment": ingest.environment.to_string(),
            "replicas": ingest.replicas,
            "kafkaCluster": ingest.from.cluster.to_string(),
            "topic": ingest.from.topic,
            "databaseCluster": ingest.database.to_string(),
        }),
    };
    json!({"kind": key.kind.as_str(), "metadata": {"name": key.name.as_str(), "prune": !annotations.prune_disabled,
        "reconcile": !annotations.reconcile_disabled, "approved": annotations.deletion_approved.is_some()}, "spec": spec})
}

pub(crate) fn resource(key: &Key, spec: Spec, annotations: Annotations) -> Arc<Resource> {
    let rendered = rendered(key, &spec, &annotations);
    Arc::new(Resource {
        digest: Digest::of(rendered["spec"].to_string().as_bytes()),
        meta: Meta {
            key: key.clone(),
            labels: Default::default(),
            annotations,
            origin: Origin {
                file: "plan.yaml".to_owned(),
                line: 1,
            },
        },
        spec,
        rendered,
    })
}

pub(crate) fn environment() -> Spec {
    Spec::Environment(Environment {
        provider: ProviderSpec::Simulated {
            ready_after: Duration::ZERO,
            fail_every: 0,
        },
        limits: EnvironmentLimits::default(),
        price: None,
    })
}

pub(crate) fn service(environment: &str, version: &str, replicas: u32, depends_on: &[&str]) -> Spec {
    Spec::Service(Service {
        environment: key(environment),
        command: vec![version.to_owned()],
        replicas,
        env: Vec::new(),
        files: Vec::new(),
        ports: Vec::new(),
        health: None,
        depends_on: depends_on.iter().map(|text| key(text)).collect(),
        update: Update {
            strategy: UpdateStrategy::Rolling,
            max_unavailable: 1,
        },
    })
}

pub(crate) fn pool(environment: &str, min: u32, max: u32) -> Spec {
    Spec::WorkerPool(WorkerPool {
        environment: key(environment),
        capacity: Capacity::LOCAL,
        min,
        max,
        ready_timeout: Duration::from_secs(60),
        lead_time: Duration::ZERO,
        keep_warm: Duration::ZERO,
        orphan_timeout: Duration::from_secs(60),
        bus: None,
    })
}

pub(crate) fn kafka(server: &str, topics: &[&str]) -> Spec {
    let topics = topics.iter().map(|name| Topic {
        name: (*name).to_owned(),
        partitions: 6,
        replication_factor: 3,
        config: Default::default(),
    });
    Spec::KafkaCluster(KafkaCluster {
        external: ExternalKafka {
            bootstrap_servers: vec![server.to_owned()],
            secret: None,
        },
        topics: topics.collect(),
    })
}

pub(crate) fn database(secret: &str) -> Spec {
    Spec::DatabaseCluster(DatabaseCluster {
        engine: DatabaseEngine::Mariadb,
        url: SecretRef {
            name: secret.to_owned(),
            key: None,
        },
    })
}

pub(crate) fn ingest(environment: &str, replicas: u32, cluster: &str, topic: &str, database: &str) -> Spec {
    Spec::IngestCluster(IngestCluster {
        environment: key(environment),
        replicas,
        from: KafkaTopic {
            cluster: key(cluster),
            topic: topic.to_owned(),
        },
        database: key(database),
    })
}

/// Desired state with one project per name used, at a revision.
pub(crate) fn desired(number: u32, resources: Vec<(&str, Spec)>) -> Desired {
    let resources = resources
        .into_iter()
        .map(|(text, spec)| resource(&key(text), spec, Annotations::default()));
    desired_of(number, resources.collect())
}

pub(crate) fn desired_of(number: u32, resources: Vec<Arc<Resource>>) -> Desired {
    let mut desired = Desired::default();
    let empty = || ProjectDesired {
        revision: revision(number),
        resources: Default::default(),
    };
    desired.projects.insert(name("p"), empty());
    for resource in resources {
        let key = resource.meta.key.clone();
        let project = desired.projects.entry(key.project.clone()).or_insert_with(empty);
        project.resources.insert(key, resource);
    }
    desired
}

/// No share of deletions needs leave.
pub(crate) const LENIENT: DiffPolicy = DiffPolicy {
    deletion_max_share: 1e9,
};
/// The settings' default.
pub(crate) const STRICT: DiffPolicy = DiffPolicy {
    deletion_max_share: 0.3,
};

/// What is there, changed only by performing changesets.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) observed: Observed,
    pub(crate) demand: PoolDemand,
}

impl World {
    pub(crate) fn diff(&mut self, desired: &Desired, policy: &DiffPolicy) -> Changeset {
        let topology = expand(desired, &self.demand);
        for environment in topology.environments.keys() {
            let seen = || Sight::Seen(Vec::new());
            self.observed
                .environments
                .entry(environment.clone())
                .or_insert_with(seen);
        }
        for (name, project) in &desired.projects {
            let mark = self.observed.high_water.entry(name.clone()).or_default();
            *mark = (*mark).max(u32::try_from(project.resources.len()).expect("few"));
        }
        changeset(desired, &topology, &self.observed, policy, Timestamp::UNIX_EPOCH)
    }

    /// Performs everything that is due, each create leaving a unit that has just started.
    pub(crate) fn perform(&mut self, desired: &Desired, changes: &Changeset) {
        let topology = expand(desired, &self.demand);
        for change in &changes.changes {
            for step in change.units.iter().filter(|step| step.due) {
                self.step(step, topology.units.get(&step.unit));
            }
            if change.completes() {
                self.complete(desired, change);
            }
        }
    }

    fn complete(&mut self, desired: &Desired, change: &Change) {
        if let Some(resource) = desired.get(&change.key) {
            if matches!(resource.spec, Spec::KafkaCluster(_) | Spec::DatabaseCluster(_)) {
                let summary = "all is there".to_owned();
                self.observed
                    .externals
                    .insert(change.key.clone(), ExternalSight::Fine { summary });
            }
            let revision = &desired.projects[&change.key.project].revision;
            self.observed
                .applied
                .insert(change.key.clone(), applied_resource(resource, revision));
        } else if self.observed.applied.remove(&change.key).is_some() {
            *self
                .observed
                .recent_deletions
                .entry(change.key.project.clone())
                .or_default() += 1;
        }
    }

    fn step(&mut self, step: &UnitStep, spec: Option<&UnitSpec>) {
        if step.step != Step::Create {
            let from = step.from.as_ref().unwrap_or(&step.environment);
            self.units(from).retain(|unit| unit.name != step.unit);
            if step.step == Step::Delete {
                self.observed.inventory.remove(&step.unit);
                return;
            }
        }
        let spec = spec.expect("what is created is wanted");
        let now = Timestamp::UNIX_EPOCH;
        self.observed
            .inventory
            .insert(spec.name.clone(), inventory_row(spec, &revision(0), now));
        let clash = self.units(&spec.environment).iter().any(|unit| unit.name == spec.name);
        assert!(!clash, "{} is created over another", spec.name);
        self.units(&spec.environment).push(ObservedUnit {
            name: spec.name.clone(),
            owner: spec.owner.clone(),
            environment: spec.environment.clone(),
            digest: spec.digest.clone(),
            state: UnitState::Starting,
            ports: Vec::new(),
            restarts: 0,
            since: now,
        });
    }

    pub(crate) fn units(&mut self, environment: &Key) -> &mut Vec<ObservedUnit> {
        match self.observed.environments.get_mut(environment) {
            Some(Sight::Seen(units)) => units,
            other => panic!("{environment} is {other:?}"),
        }
    }

    pub(crate) fn all_units(&self) -> Vec<&ObservedUnit> {
        let sights = self.observed.environments.values();
        sights
            .filter_map(|sight| match sight {
                Sight::Seen(units) => Some(units),
                Sight::Unreachable { .. } => None,
            })
            .flatten()
            .collect()
    }

    /// What has started becomes Ready.
    pub(crate) fn tick(&mut self) {
        for sight in self.observed.environments.values_mut() {
            let Sight::Seen(units) = sight else { continue };
            for unit in units.iter_mut().filter(|unit| unit.state == UnitState::Starting) {
                unit.state = UnitState::Ready;
            }
        }
    }

    /// Diffs, performs and waits until nothing is left; `look` sees each pass before it is performed.
    pub(crate) fn settle(&mut self, desired: &Desired, policy: &DiffPolicy, mut look: impl FnMut(&Self, &Changeset)) {
        for _ in 0..100 {
            let changes = self.diff(desired, policy);
            look(self, &changes);
            if !changes.has_changes() {
                return;
            }
            self.perform(desired, &changes);
            self.tick();
        }
        panic!("does not settle:\n{}", self.diff(desired, policy).to_text());
    }
}
