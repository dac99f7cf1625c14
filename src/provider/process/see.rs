//! What an observer is told: the records, weighed by the locks.

use super::record::{Folder, State};
use super::{ProcessConfig, unreachable};
use crate::provider::ProviderError;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitState};
use std::fs;
use std::io;

/// All units on record. `in_turn`: whether this process is just creating or deleting a unit; one that it creates has no shim
/// for some milliseconds and is nothing to be told as Exited.
///
/// # Errors
/// [`ProviderError::Unreachable`] when one cannot be read: an incomplete list would make it look absent (promise 14).
pub(super) fn all(
    config: &ProcessConfig,
    names: io::Result<Vec<UnitName>>,
    in_turn: impl Fn(&UnitName) -> bool,
) -> Result<Vec<ObservedUnit>, ProviderError> {
    let names = names.map_err(|error| unreachable(&config.root, &error))?;
    let mut units = Vec::with_capacity(names.len());
    for name in names {
        let folder = Folder::new(config.root.join(name.as_str()));
        match one(config, &folder, || in_turn(&name)) {
            Ok(unit) => units.push(unit),
            // Deleted since the listing.
            Err(_) if !folder.path().try_exists().unwrap_or(true) => {}
            Err(error) => return Err(unreachable(folder.path(), &error)),
        }
    }
    Ok(units)
}

fn one(config: &ProcessConfig, folder: &Folder, in_turn: impl Fn() -> bool) -> io::Result<ObservedUnit> {
    let sheet = folder.sheet()?;
    let was_in_turn = in_turn();
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
        weigh(alive, state, was_in_turn || in_turn())
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
fn weigh(alive: bool, state: Option<State>, in_turn: bool) -> UnitState {
    let gone = |reason: &str| UnitState::Exited {
        reason: reason.to_owned(),
    };
    match (alive, state.map(|state| state.state)) {
        (true, Some(state)) => state,
        (true, None) => UnitState::Starting,
        (false, None) if in_turn => UnitState::Starting,
        (false, None) => gone("was never started"),
        (false, Some(UnitState::Exited { reason })) => UnitState::Exited { reason },
        (false, Some(_)) => gone("its shim is gone"),
    }
}

#[cfg(test)]
mod tests {
    use super::weigh;
    use muster_core::model::unit::UnitState;

    #[test]
    fn s17_a_unit_that_is_being_created_is_starting() {
        let exited = UnitState::Exited {
            reason: "was never started".to_owned(),
        };
        for (alive, in_turn, seen) in [
            (true, false, UnitState::Starting),
            (false, true, UnitState::Starting),
            (false, false, exited),
        ] {
            assert_eq!(weigh(alive, None, in_turn), seen, "{alive} {in_turn}");
        }
    }
}
