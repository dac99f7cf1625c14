//! Performs one change: what is written down comes before the effect, what is cleared comes after it (promises 17, 20).

use super::contents::Contents;
use super::external::{Externals, Outside};
use super::providers::Providers;
use super::queue::Ended;
use crate::provider::{Materials, ProviderError};
use crate::runtime::clock::Clock;
use crate::runtime::secrets::{self, SecretError, Secrets};
use crate::store::{Ledger, StoreError};
use futures_util::stream::{self, StreamExt as _};
use muster_core::base::chain::chain;
use muster_core::diff::{Change, Step, UnitStep, applied_resource, inventory_row};
use muster_core::model::desired::Desired;
use muster_core::model::environment::Environment;
use muster_core::model::id::Revision;
use muster_core::model::key::Key;
use muster_core::model::service::{EnvValue, SecretRef};
use muster_core::model::streaming::KAFKA_SECRET_KEYS;
use muster_core::model::unit::{UnitName, UnitSpec, UnitWork};
use muster_core::topology::{STOP_GRACE, Topology};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Units of one resource that are started or stopped at the same time: enough to hide their waits, few enough for one host.
const PARALLEL_STEPS: usize = 8;

/// What a pass decided on; all changes of the pass are performed against it.
pub struct Context {
    /// What git wants.
    pub desired: Arc<Desired>,
    /// Its units.
    pub topology: Topology,
    /// Every environment that holds or will hold units.
    pub environments: BTreeMap<Key, Environment>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The resource.
    pub key: Key,
    /// Units done.
    pub done: Vec<UnitName>,
    /// Units that failed, and why.
    pub failed: Vec<(UnitName, String)>,
    /// Why the resource as a whole failed.
    pub error: Option<String>,
    /// Whether another try without a new revision makes sense; meaningless without a failure.
    pub transient: bool,
}

impl Outcome {
    /// The outcome of a change whose task broke.
    pub fn broken(key: Key, error: String) -> Self {
        Self {
            key,
            done: Vec::new(),
            failed: Vec::new(),
            error: Some(error),
            transient: true,
        }
    }

    /// The first failure, for people.
    pub fn failure(&self) -> Option<String> {
        let unit = self.failed.first().map(|(unit, error)| format!("unit {unit}: {error}"));
        self.error.clone().or(unit)
    }

    /// As the queue wants it.
    pub fn ended(&self) -> Ended {
        match (self.failure(), self.transient) {
            (None, _) => Ended::Done,
            (Some(_), true) => Ended::Transient,
            (Some(_), false) => Ended::Terminal,
        }
    }
}

/// Why a step or a change failed. Texts name secrets, never their values.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("ledger: {0}")]
    Ledger(#[from] StoreError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("content of {path} is not at hand; waiting for the source")]
    Content { path: String },
    #[error("{0}")]
    Outside(String),
    #[error("{0} has no provider")]
    NoEnvironment(Key),
    #[error("project {0} has no revision")]
    NoRevision(Key),
}

impl ApplyError {
    fn is_transient(&self) -> bool {
        match self {
            // The next look sees what is in the way and plans its replacement.
            Self::Provider(ProviderError::Conflict(_)) => true,
            Self::Provider(error) => error.is_transient(),
            // A secret's value comes from outside git, so a new revision is not what it waits for.
            Self::Ledger(_) | Self::Secret(_) | Self::Content { .. } | Self::Outside(_) | Self::NoEnvironment(_) => {
                true
            }
            Self::NoRevision(_) => false,
        }
    }
}

/// Performs changes.
#[derive(Clone)]
pub struct Executor {
    /// What is written down.
    pub ledger: Arc<dyn Ledger>,
    /// Where units run.
    pub providers: Arc<Providers>,
    /// Contents of files.
    pub contents: Contents,
    /// Values of secrets.
    pub secrets: Arc<dyn Secrets>,
    /// What somebody else runs.
    pub externals: Externals,
    /// Time.
    pub clock: Clock,
}

impl Executor {
    /// Performs what is due of a change. Each unit on its own; the resource is written down as applied, or cleared, only when
    /// all of it went well.
    pub async fn perform(&self, context: &Context, change: &Change) -> Outcome {
        let due: Vec<UnitStep> = change.units.iter().filter(|step| step.due).cloned().collect();
        let results: Vec<(UnitName, Result<(), ApplyError>)> = stream::iter(due)
            .map(|step| async move { (step.unit.clone(), self.step(context, &step).await) })
            .buffer_unordered(PARALLEL_STEPS)
            .collect()
            .await;
        let mut outcome = Outcome {
            key: change.key.clone(),
            done: Vec::new(),
            failed: Vec::new(),
            error: None,
            transient: true,
        };
        for (unit, result) in results {
            match result {
                Ok(()) => outcome.done.push(unit),
                Err(error) => {
                    outcome.transient &= error.is_transient();
                    outcome.failed.push((unit, chain(&error)));
                }
            }
        }
        outcome.done.sort();
        outcome.failed.sort();
        if outcome.failed.is_empty()
            && change.completes()
            && let Err(error) = self.complete(context, &change.key).await
        {
            outcome.transient = error.is_transient();
            outcome.error = Some(chain(&error));
        }
        outcome
    }

    async fn complete(&self, context: &Context, key: &Key) -> Result<(), ApplyError> {
        if let Some(resource) = context.desired.get(key) {
            if let Some(outside) = Outside::of(&resource.spec) {
                self.externals.make(key, outside).await.map_err(ApplyError::Outside)?;
            }
            let revision = revision(context, key)?;
            let applied = applied_resource(resource, revision);
            self.ledger.put_applied(key, &applied).await?;
        } else if *key != muster_core::topology::local_pool() {
            self.ledger.delete_applied(key, self.clock.now()).await?;
            self.ledger.delete_status(key).await?;
        }
        Ok(())
    }

    async fn step(&self, context: &Context, step: &UnitStep) -> Result<(), ApplyError> {
        let unit = context.topology.units.get(&step.unit);
        match (step.step, unit) {
            (Step::Delete, _) | (_, None) => {
                self.delete(context, &step.environment, &step.unit).await?;
                // What a cut-off move left behind shares its row with the unit that stays.
                if unit.is_none() {
                    self.ledger.delete_inventory(&step.unit).await?;
                }
            }
            (Step::Create, Some(unit)) => self.create(context, unit, None).await?,
            (Step::Replace, Some(unit)) => {
                let from = step.from.as_ref().unwrap_or(&step.environment);
                self.create(context, unit, Some(from)).await?;
            }
        }
        Ok(())
    }

    /// Everything a unit needs is at hand, and it is written down, before what stands in its place is touched.
    async fn create(&self, context: &Context, unit: &UnitSpec, replaces: Option<&Key>) -> Result<(), ApplyError> {
        let materials = self.materials(unit).await?;
        let environment = environment(context, &unit.environment)?;
        let revision = revision(context, &unit.owner)?;
        let row = inventory_row(unit, revision, self.clock.now());
        self.ledger.put_inventory(&row).await?;
        if let Some(from) = replaces {
            self.delete(context, from, &unit.name).await?;
        }
        Ok(self.providers.create(environment, unit, &materials).await?)
    }

    async fn delete(&self, context: &Context, key: &Key, unit: &UnitName) -> Result<(), ApplyError> {
        let environment = environment(context, key)?;
        Ok(self.providers.delete(key, environment, unit, STOP_GRACE).await?)
    }

    async fn materials(&self, unit: &UnitSpec) -> Result<Materials, ApplyError> {
        let mut materials = Materials::default();
        let (env, files) = match &unit.work {
            UnitWork::Replica { env, files, .. } => (env, files),
            UnitWork::Ingest { kafka, database, .. } => {
                if let Some(secret) = &kafka.secret {
                    for (key, value) in secrets::some_of(&*self.secrets, &secret.name, &KAFKA_SECRET_KEYS)? {
                        materials.secrets.insert(format!("{}/{key}", secret.name), value);
                    }
                }
                materials
                    .secrets
                    .insert(secret_name(database), self.secrets.get(database)?);
                return Ok(materials);
            }
            UnitWork::Worker { .. } => return Ok(materials),
        };
        for file in files {
            let content = self.contents.get(&file.digest).await?;
            let content = content.ok_or_else(|| ApplyError::Content {
                path: file.source.clone(),
            })?;
            materials.files.insert(file.digest.as_str().to_owned(), content);
        }
        for variable in env {
            if let EnvValue::Secret(secret) = &variable.value {
                materials.secrets.insert(secret_name(secret), self.secrets.get(secret)?);
            }
        }
        Ok(materials)
    }
}

/// How [`Materials`] names a secret: `name` or `name/key`.
fn secret_name(secret: &SecretRef) -> String {
    match &secret.key {
        Some(key) => format!("{}/{key}", secret.name),
        None => secret.name.clone(),
    }
}

fn environment<'a>(context: &'a Context, key: &Key) -> Result<&'a Environment, ApplyError> {
    let environment = context.environments.get(key);
    environment.ok_or_else(|| ApplyError::NoEnvironment(key.clone()))
}

/// The revision a unit is wanted by. Muster's own workers belong to no document: any revision there is will do.
fn revision<'a>(context: &'a Context, key: &Key) -> Result<&'a Revision, ApplyError> {
    let projects = &context.desired.projects;
    let project = projects.get(&key.project).or_else(|| projects.values().next());
    project
        .map(|project| &project.revision)
        .ok_or_else(|| ApplyError::NoRevision(key.clone()))
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
