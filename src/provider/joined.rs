//! Environments whose workers come by themselves: nothing is started there, so there is nothing to see, start or stop.

use super::{Materials, Provider, ProviderError};
use async_trait::async_trait;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitSpec};

/// The provider of an environment of type `joined`. Which workers came is the fleet's to say.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinedProvider;

#[async_trait]
impl Provider for JoinedProvider {
    async fn observe(&self) -> Result<Vec<ObservedUnit>, ProviderError> {
        Ok(Vec::new())
    }

    async fn create(&self, unit: &UnitSpec, _: &Materials) -> Result<(), ProviderError> {
        Err(ProviderError::Refused {
            unit: unit.name.clone(),
            reason: "workers of a joined environment are started by hand".to_owned(),
        })
    }

    async fn delete(&self, _: &UnitName) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn logs(&self, unit: &UnitName, _: usize) -> Result<Vec<u8>, ProviderError> {
        Err(ProviderError::NotFound(unit.clone()))
    }
}
