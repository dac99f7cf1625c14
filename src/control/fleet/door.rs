//! Who may bring workers, and to which pools: the daemon's own token for its own units, a token of the settings for the workers of one
//! environment of type `joined`.

use super::join::JoinToken;
use crate::control::sync::Published;
use crate::runtime::secrets::Secrets;
use muster_core::base::chain::chain;
use muster_core::model::desired::Desired;
use muster_core::model::environment::{ProviderSpec, WorkerPool};
use muster_core::model::key::{Key, Kind};
use muster_core::model::resource::Spec;
use muster_core::model::settings::JoinRule;
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq as _};
use tokio::sync::watch;

/// A shorter token could be found by trying: 16 random characters are more than anybody tries.
pub const TOKEN_MIN: usize = 16;

/// Who brought a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bringer {
    /// The daemon: it is a unit of its own.
    Own,
    /// Someone with a token for this environment.
    Joined(Key),
}

/// What a token that was shown allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Whose workers come with it.
    pub bringer: Bringer,
    /// The rule's place in the settings, and how many workers may come by it at the same time; `None`: no bound.
    pub bound: Option<(usize, u32)>,
}

impl Pass {
    /// Of the daemon's own units.
    pub const OWN: Self = Self {
        bringer: Bringer::Own,
        bound: None,
    };
}

/// What the workers' endpoint asks before it lets one in.
pub struct Door {
    own: Option<JoinToken>,
    rules: Vec<JoinRule>,
    secrets: Arc<dyn Secrets>,
    plans: watch::Receiver<Option<Arc<Published>>>,
}

impl Door {
    /// A door for those who show `own` (where there is one) or the token of a rule; `plans` says which pools there are.
    pub fn new(
        own: Option<JoinToken>,
        rules: Vec<JoinRule>,
        secrets: Arc<dyn Secrets>,
        plans: watch::Receiver<Option<Arc<Published>>>,
    ) -> Self {
        Self {
            own,
            rules,
            secrets,
            plans,
        }
    }

    /// What a token allows; `None`: it is nobody's. Values are read anew, so that one that was changed counts at once. Takes the same
    /// time however much of a token is right, and whichever it is.
    pub fn pass(&self, shown: &[u8]) -> Option<Pass> {
        let mut found = None;
        for (place, rule) in self.rules.iter().enumerate() {
            let is_it = match self.secrets.get(&rule.secret) {
                Ok(value) if value.expose_secret().len() >= TOKEN_MIN => value.expose_secret().as_bytes().ct_eq(shown),
                Ok(_) => Choice::from(0),
                Err(error) => {
                    tracing::warn!(environment = %rule.environment, error = %chain(&error), "a join token cannot be read");
                    Choice::from(0)
                }
            };
            if is_it.into() {
                found = Some(Pass {
                    bringer: Bringer::Joined(rule.environment.clone()),
                    bound: Some((place, rule.max_workers)),
                });
            }
        }
        match &self.own {
            Some(own) if own.is(shown) => Some(Pass::OWN),
            _ => found,
        }
    }

    /// Whether plans were read, so that it is known which pools there are.
    pub fn knows_pools(&self) -> bool {
        self.plans.borrow().is_some()
    }

    /// The pool a worker is for: the one it asks for (`name`, `project/name` or a whole key), or the only one there.
    ///
    /// # Errors
    /// Why it may not be there, for the worker.
    pub fn pool(&self, bringer: &Bringer, asked: &str) -> Result<Key, String> {
        let published = self.plans.borrow().clone();
        let desired = published.as_ref().map(|published| &*published.desired);
        match bringer {
            Bringer::Own => {
                let pool: Key = asked.parse().map_err(|_| "the pool is not project/WorkerPool/name")?;
                let environment = desired
                    .and_then(|desired| pool_of(desired, &pool))
                    .map(|pool| &pool.environment);
                match environment {
                    Some(environment) if desired.is_some_and(|desired| is_joined(desired, environment)) => Err(
                        format!("{pool} is in environment {environment}, whose workers show a token of its own"),
                    ),
                    _ => Ok(pool),
                }
            }
            Bringer::Joined(environment) => {
                let desired = desired.ok_or("the daemon has not read its plans yet")?;
                if !is_joined(desired, environment) {
                    return Err(format!("the plans have no environment {environment} of type joined"));
                }
                choose(&pools_in(desired, environment), environment, asked)
            }
        }
    }
}

fn is_joined(desired: &Desired, environment: &Key) -> bool {
    match desired.get(environment).map(|resource| &resource.spec) {
        Some(Spec::Environment(environment)) => environment.provider == ProviderSpec::Joined,
        _ => false,
    }
}

fn pool_of<'a>(desired: &'a Desired, key: &Key) -> Option<&'a WorkerPool> {
    match &desired.get(key)?.spec {
        Spec::WorkerPool(pool) => Some(pool),
        _ => None,
    }
}

fn pools_in<'a>(desired: &'a Desired, environment: &Key) -> Vec<&'a Key> {
    desired
        .resources()
        .filter(|resource| matches!(&resource.spec, Spec::WorkerPool(pool) if pool.environment == *environment))
        .map(|resource| &resource.meta.key)
        .collect()
}

fn choose(pools: &[&Key], environment: &Key, asked: &str) -> Result<Key, String> {
    let short = |key: &Key| format!("{}/{}", key.project, key.name);
    let all = || pools.iter().map(|key| short(key)).collect::<Vec<_>>().join(", ");
    let fits =
        |key: &Key| asked.is_empty() || asked == key.name.as_str() || asked == short(key) || asked == key.to_string();
    let fitting: Vec<&&Key> = pools.iter().filter(|key| fits(key)).collect();
    match (&fitting[..], pools.is_empty()) {
        ([one], _) => Ok((**one).clone()),
        (_, true) => Err(format!("environment {environment} has no {}", Kind::WorkerPool)),
        ([], false) => Err(format!(
            "environment {environment} has no pool `{asked}`; it has {}",
            all()
        )),
        _ => Err(format!(
            "environment {environment} has several pools; choose one: {}",
            all()
        )),
    }
}

#[cfg(test)]
mod tests;
