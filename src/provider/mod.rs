//! Where units run: one trait, one adapter per kind of environment.

use async_trait::async_trait;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

pub mod build;
pub mod joined;
pub mod process;
pub mod simulated;

/// What a create needs beside the spec: contents that the model only holds digests or references of.
#[derive(Debug, Clone, Default)]
pub struct Materials {
    /// File contents by digest.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Secret values by `name` or `name/key`.
    pub secrets: BTreeMap<String, secrecy::SecretString>,
}

/// Starts, watches and stops the units of one environment.
#[async_trait]
pub trait Provider: Send + Sync {
    /// All units that carry our ownership marker, as they are now.
    ///
    /// # Errors
    /// When the answer would not be complete; the units are then Unknown (promise 14).
    async fn observe(&self) -> Result<Vec<ObservedUnit>, ProviderError>;

    /// Starts a unit, or adopts the one that is there with the same digest. A unit of another digest is an error.
    ///
    /// # Errors
    /// When it could not be started.
    async fn create(&self, unit: &UnitSpec, materials: &Materials) -> Result<(), ProviderError>;

    /// Stops a unit and removes its record: TERM, the unit's grace, KILL. A unit that is not there is success (promise 20).
    ///
    /// # Errors
    /// When it may still be there.
    async fn delete(&self, unit: &UnitName) -> Result<(), ProviderError>;

    /// The last bytes of a unit's output.
    ///
    /// # Errors
    /// When there is no such unit.
    async fn logs(&self, unit: &UnitName, max_bytes: usize) -> Result<Vec<u8>, ProviderError>;
}

/// What a provider could not do.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Nothing there by that name.
    #[error("unit {0} does not exist")]
    NotFound(UnitName),
    /// Another spec already runs under the name.
    #[error("unit {0} runs with another spec; delete it first")]
    Conflict(UnitName),
    /// The environment did not answer.
    #[error("environment is unreachable: {0}")]
    Unreachable(String),
    /// The unit could not be started and will not be without a change: a missing program, a port in use by the plan's choice.
    #[error("cannot start {unit}: {reason}")]
    Refused {
        /// Which.
        unit: UnitName,
        /// Why.
        reason: String,
    },
    /// Anything that may go better next time.
    #[error("{0}")]
    Transient(String),
}

impl ProviderError {
    /// Whether trying again without a new revision makes sense (promise 12).
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Conflict(_))
    }
}
