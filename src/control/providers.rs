//! One provider per environment, made when first needed and again when its spec changes. Every call has a deadline, and a
//! provider that panics is one that does not answer.

use crate::provider::{Materials, Provider, ProviderError};
use muster_core::model::environment::{Environment, ProviderSpec};
use muster_core::model::key::Key;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitSpec};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Listing a few thousand units takes far less; an environment that is slower than this is as good as silent.
const OBSERVE_DEADLINE: Duration = Duration::from_secs(5);
/// Starting a process or a container whose files are at hand.
const CREATE_DEADLINE: Duration = Duration::from_secs(60);
/// Beyond a unit's grace between TERM and KILL.
const DELETE_MARGIN: Duration = Duration::from_secs(20);
/// Reading the end of a log.
const LOGS_DEADLINE: Duration = Duration::from_secs(5);

/// Makes the provider of an environment.
pub trait ProviderFactory: Send + Sync {
    /// Builds it; it must not start anything.
    ///
    /// # Errors
    /// When the environment cannot be used on this host; its units are then Unknown.
    fn build(&self, key: &Key, environment: &Environment) -> Result<Arc<dyn Provider>, ProviderError>;
}

impl<F> ProviderFactory for F
where
    F: Fn(&Key, &Environment) -> Result<Arc<dyn Provider>, ProviderError> + Send + Sync,
{
    fn build(&self, key: &Key, environment: &Environment) -> Result<Arc<dyn Provider>, ProviderError> {
        self(key, environment)
    }
}

/// A provider with the spec it was made from.
type Built = (ProviderSpec, Arc<dyn Provider>);

/// The providers in use.
pub struct Providers {
    factory: Arc<dyn ProviderFactory>,
    built: Mutex<BTreeMap<Key, Built>>,
}

impl Providers {
    /// None in use yet.
    pub fn new(factory: Arc<dyn ProviderFactory>) -> Self {
        Self {
            factory,
            built: Mutex::default(),
        }
    }

    fn get(&self, key: &Key, environment: &Environment) -> Result<Arc<dyn Provider>, ProviderError> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((spec, provider)) = built.get(key)
            && *spec == environment.provider
        {
            return Ok(Arc::clone(provider));
        }
        let provider = self.factory.build(key, environment)?;
        built.insert(key.clone(), (environment.provider.clone(), Arc::clone(&provider)));
        Ok(provider)
    }

    /// Asks all environments at once; each answer is complete or an error (promise 14).
    pub async fn observe(
        &self,
        environments: &BTreeMap<Key, Environment>,
    ) -> BTreeMap<Key, Result<Vec<ObservedUnit>, ProviderError>> {
        let mut answers = BTreeMap::new();
        let mut asked = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for (key, environment) in environments {
            match self.get(key, environment) {
                Ok(provider) => {
                    let task = tasks.spawn(async move { observe_one(&*provider).await });
                    asked.insert(task.id(), key);
                }
                Err(error) => {
                    answers.insert(key.clone(), Err(error));
                }
            }
        }
        while let Some(ended) = tasks.join_next_with_id().await {
            let (id, answer) = match ended {
                Ok(answer) => answer,
                Err(error) => (
                    error.id(),
                    Err(ProviderError::Transient("its provider panicked".to_owned())),
                ),
            };
            if let Some(key) = asked.get(&id) {
                answers.insert((*key).clone(), answer);
            }
        }
        answers
    }

    /// Starts a unit.
    ///
    /// # Errors
    /// The provider's, or that it did not answer in time.
    pub async fn create(
        &self,
        environment: &Environment,
        unit: &UnitSpec,
        materials: &Materials,
    ) -> Result<(), ProviderError> {
        let provider = self.get(&unit.environment, environment)?;
        within(CREATE_DEADLINE, provider.create(unit, materials)).await
    }

    /// Stops a unit, which has `grace` between TERM and KILL.
    ///
    /// # Errors
    /// The provider's, or that it did not answer in time.
    pub async fn delete(
        &self,
        key: &Key,
        environment: &Environment,
        unit: &UnitName,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let provider = self.get(key, environment)?;
        match within(grace + DELETE_MARGIN, provider.delete(unit)).await {
            Err(ProviderError::NotFound(_)) => Ok(()),
            answer => answer,
        }
    }

    /// The last bytes of a unit's output.
    ///
    /// # Errors
    /// The provider's, or that it did not answer in time.
    pub async fn logs(&self, environment: &Key, unit: &UnitName, max_bytes: usize) -> Result<Vec<u8>, ProviderError> {
        let provider = {
            let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            built.get(environment).map(|(_, provider)| Arc::clone(provider))
        };
        let provider = provider.ok_or_else(|| ProviderError::NotFound(unit.clone()))?;
        within(LOGS_DEADLINE, provider.logs(unit, max_bytes)).await
    }
}

async fn observe_one(provider: &dyn Provider) -> Result<Vec<ObservedUnit>, ProviderError> {
    within(OBSERVE_DEADLINE, provider.observe()).await
}

async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    timeout(deadline, answer).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", deadline.as_secs());
        Err(ProviderError::Unreachable(message))
    })
}
