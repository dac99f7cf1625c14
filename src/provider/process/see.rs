//! What an observer is told: the records, weighed by the locks.

use super::record::{Folder, State};
use super::{ProcessConfig, unreachable};
use crate::provider::ProviderError;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitState};
use std::fs;
use std::io;

/// All units on record.
///
/// # Errors
/// [`ProviderError::Unreachable`] when one cannot be read: an incomplete list would make it look absent (promise 14).
pub(super) fn all(
    config: &ProcessConfig,
    names: io::Result<Vec<UnitName>>,
) -> Result<Vec<ObservedUnit>, ProviderError> {
    let names = names.map_err(|error| unreachable(&config.root, &error))?;
    let mut units = Vec::with_capacity(names.len());
    for name in names {
        let folder = Folder::new(config.root.join(name.as_str()));
        match one(config, &folder) {
            Ok(unit) => units.push(unit),
            // Deleted since the listing.
            Err(_) if !folder.path().try_exists().unwrap_or(true) => {}
            Err(error) => return Err(unreachable(folder.path(), &error)),
        }
    }
    Ok(units)
}

fn one(config: &ProcessConfig, folder: &Folder) -> io::Result<ObservedUnit> {
    let sheet = folder.sheet()?;
    // Asked before the state is read: a state read first could be older than the shim's end.
    let alive = folder.is_alive()?;
    let state = folder.state()?;
    let since = match &state {
        Some(state) => state.since,
        None => fs::metadata(folder.path())?
            .modified()?
            .try_into()
            .map_err(io::Error::other)?,
    };
    let restarts = state.as_ref().map_or(0, |state| state.restarts);
    let seen = if sheet.host_id == config.host_id {
        weigh(alive, state)
    } else {
        UnitState::Unknown {
            reason: format!("belongs to host {}", sheet.host_id),
        }
    };
    Ok(ObservedUnit {
        name: sheet.spec.name,
        owner: sheet.spec.owner,
        environment: config.environment.clone(),
        digest: sheet.spec.digest,
        state: seen,
        ports: sheet.ports,
        restarts,
        since,
    })
}

/// Only the lock tells whether the written state still holds.
fn weigh(alive: bool, state: Option<State>) -> UnitState {
    let gone = |reason: &str| UnitState::Exited {
        reason: reason.to_owned(),
    };
    match (alive, state.map(|state| state.state)) {
        (true, Some(state)) => state,
        (true, None) => UnitState::Starting,
        (false, None) => gone("was never started"),
        (false, Some(UnitState::Exited { reason })) => UnitState::Exited { reason },
        (false, Some(_)) => gone("its shim is gone"),
    }
}
