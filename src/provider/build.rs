//! From an environment of the desired state to the provider that serves it.

use super::joined::JoinedProvider;
use super::process::{ProcessConfig, ProcessProvider, RunAs, WorkerLaunch};
use super::simulated::{SimulatedConfig, SimulatedProvider};
use super::{Provider, ProviderError};
use crate::runtime::clock::Clock;
use muster_core::model::environment::ProviderSpec;
use muster_core::model::key::Key;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What providers need to know of the daemon and its host.
#[derive(Debug, Clone)]
pub struct Host {
    /// The daemon's state folder; units live in `units/` below it unless their environment says another place.
    pub state_dir: PathBuf,
    /// This host's id, from [`host_id`].
    pub id: String,
    /// The `muster` program, for shims and workers.
    pub muster_exe: PathBuf,
    /// What workers need to join.
    pub worker_launch: Option<WorkerLaunch>,
    /// Whether plans may run commands on this host (promise 58).
    pub commands: bool,
    /// Whom those commands run as.
    pub run_as: RunAs,
    /// Time for simulated units.
    pub clock: Clock,
}

/// Opens the provider of an environment. Two environments never share a folder, also where they name the same one.
///
/// # Errors
/// When its folder or state file cannot be used.
pub fn build(environment: &Key, spec: &ProviderSpec, host: &Host) -> Result<Arc<dyn Provider>, ProviderError> {
    let own = format!("{}.{}", environment.project, environment.name);
    let units = host.state_dir.join("units");
    match spec {
        ProviderSpec::Process { work_dir } => {
            let root = work_dir.as_ref().map_or(units, PathBuf::from).join(own);
            let provider = ProcessProvider::open(ProcessConfig {
                root,
                environment: environment.clone(),
                host_id: host.id.clone(),
                muster_exe: host.muster_exe.clone(),
                worker_launch: host.worker_launch.clone(),
                commands: host.commands,
                run_as: host.run_as,
            })?;
            Ok(Arc::new(provider))
        }
        ProviderSpec::Simulated {
            ready_after,
            fail_every,
        } => {
            let fault = |error: io::Error| ProviderError::Unreachable(format!("{}: {error}", units.display()));
            fs::create_dir_all(&units).map_err(fault)?;
            let config = SimulatedConfig {
                environment: environment.clone(),
                ready_after: *ready_after,
                fail_every: *fail_every,
                state_file: Some(units.join(format!("{own}.simulated.json"))),
            };
            Ok(Arc::new(SimulatedProvider::open(config, host.clock.clone())?))
        }
        ProviderSpec::Joined => Ok(Arc::new(JoinedProvider)),
    }
}

/// This host's id: made once and kept in the state folder as `host-id`.
///
/// # Errors
/// When it can be neither read nor written.
pub fn host_id(state_dir: &Path) -> io::Result<String> {
    let path = state_dir.join("host-id");
    match fs::read_to_string(&path) {
        Ok(text) if uuid::Uuid::parse_str(text.trim()).is_ok() => return Ok(text.trim().to_owned()),
        Ok(_) => return Err(io::Error::other(format!("{} holds no host id", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = uuid::Uuid::now_v7().to_string();
    let new = state_dir.join("host-id.new");
    fs::write(&new, format!("{id}\n"))?;
    fs::rename(new, path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::host_id;

    #[test]
    fn s25_a_host_keeps_its_id() {
        let folder = tempfile::tempdir().expect("a folder");
        let id = host_id(folder.path()).expect("made");
        assert_eq!(host_id(folder.path()).expect("kept"), id);
        std::fs::write(folder.path().join("host-id"), "").expect("written");
        assert!(
            host_id(folder.path()).is_err(),
            "a lost id is not silently another host"
        );
    }
}
