//! Units as child processes on this host, each under a shim that outlives the daemon (promises 17, 24, 58).

mod child;
mod health;
mod ingest;
mod layout;
mod log;
mod prepare;
mod record;
mod see;
pub mod shim;
mod wake;

pub use layout::WorkerLaunch;

use super::{Materials, Provider, ProviderError};
use crate::runtime::processes::LOOK;
use async_trait::async_trait;
use layout::SecretEnv;
use muster_core::model::key::Key;
use muster_core::model::unit::{ObservedUnit, UnitName, UnitSpec};
use nix::sys::signal::Signal;
use record::{Folder, Sheet, State};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// A shim says how the start went within milliseconds; a machine that swaps needs longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Longest answer of a shim.
const ANSWER_MAX: u64 = 16 << 10;
/// A shim needs this much longer than its unit's grace, to kill and to write its last words.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// What a dead shim left behind dies within this time or is stuck in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// Names of folders on their way in or out; no unit's name begins with a dot.
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// Whom a plan's commands run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// The daemon's own user.
    Daemon,
    /// Another user and group, by number; the daemon is root.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl RunAs {
    /// The default of a daemon: `nobody` where the daemon is root, else its own user (promise 58).
    ///
    /// # Errors
    /// When the daemon is root and the machine has no user `nobody`.
    pub fn unprivileged() -> io::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self::Daemon);
        }
        let nobody = nix::unistd::User::from_name("nobody")?;
        let nobody = nobody.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no user `nobody`"))?;
        Ok(Self::User {
            uid: nobody.uid.as_raw(),
            gid: nobody.gid.as_raw(),
        })
    }
}

/// How units of one environment are started.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Folder of the units' directories, of this environment only. Others need to be able to pass through its parents where
    /// units run as another user and name files of theirs absolutely.
    pub root: PathBuf,
    /// The environment.
    pub environment: Key,
    /// This host; units that another one started are Unknown (promise 25).
    pub host_id: String,
    /// The `muster` program, for shims and workers.
    pub muster_exe: PathBuf,
    /// What workers need; `None`: no workers here.
    pub worker_launch: Option<WorkerLaunch>,
    /// Whether commands that come from a plan may run at all (promise 58).
    pub commands: bool,
    /// Whom they run as. Workers always run as the daemon's user.
    pub run_as: RunAs,
}

/// Starts, watches and stops processes. Clones share their locks.
#[derive(Clone)]
pub struct ProcessProvider {
    config: Arc<ProcessConfig>,
    /// One create or delete at a time for each unit.
    busy: Arc<Mutex<BTreeMap<UnitName, Arc<tokio::sync::Mutex<()>>>>>,
    laying: Arc<Mutex<()>>,
}

impl ProcessProvider {
    /// Makes the environment's folder.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`] when that cannot be done.
    pub fn open(config: ProcessConfig) -> Result<Self, ProviderError> {
        let make = || -> io::Result<()> {
            fs::create_dir_all(&config.root)?;
            // Others may pass through to their own unit's folder, and list nothing.
            fs::set_permissions(&config.root, fs::Permissions::from_mode(0o711))
        };
        make().map_err(|error| unreachable(&config.root, &error))?;
        Ok(Self {
            config: Arc::new(config),
            busy: Arc::default(),
            laying: Arc::default(),
        })
    }

    async fn turn(&self, unit: &UnitName) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(busy.entry(unit.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Whether a create or delete of the unit is under way.
    fn in_turn(&self, unit: &UnitName) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.get(unit).is_some_and(|turn| turn.try_lock().is_err())
    }

    fn folder(&self, unit: &UnitName) -> Folder {
        Folder::new(self.config.root.join(unit.as_str()))
    }

    /// What is there under the unit's name.
    fn look(&self, unit: &UnitName) -> Result<Option<Present>, ProviderError> {
        let folder = self.folder(unit);
        let fault = |error: io::Error| unreachable(folder.path(), &error);
        if !folder.path().try_exists().map_err(fault)? {
            return Ok(None);
        }
        let sheet = folder.sheet().map_err(fault)?;
        if sheet.host_id != self.config.host_id {
            return Err(ProviderError::Unreachable(format!(
                "unit {unit} belongs to host {}",
                sheet.host_id
            )));
        }
        let alive = folder.is_alive().map_err(fault)?;
        let state = folder.state().map_err(fault)?;
        Ok(Some(Present {
            folder,
            sheet,
            state,
            alive,
        }))
    }

    async fn create_now(&self, unit: UnitSpec, materials: Materials) -> Result<(), ProviderError> {
        let _turn = self.turn(&unit.name).await;
        let this = self.clone();
        let name = unit.name.clone();
        let made = blocking(move || this.make(&unit, &materials)).await?;
        let Some((folder, secrets)) = made else { return Ok(()) };
        let started = self.start_shim(&name, &folder, &secrets).await;
        if started.is_err() {
            let this = self.clone();
            blocking(move || this.remove_dead(&name)).await?;
        }
        started
    }

    /// Lays a unit's directory out; `None` when the unit is already there.
    fn make(&self, unit: &UnitSpec, materials: &Materials) -> Result<Option<(Folder, SecretEnv)>, ProviderError> {
        if let Some(present) = self.look(&unit.name)? {
            match present {
                Present { alive: false, .. } => self.clear(&present)?,
                Present { sheet, .. } if sheet.spec.digest == unit.digest => return Ok(None),
                Present { .. } => return Err(ProviderError::Conflict(unit.name.clone())),
            }
        }
        // Ports are chosen one unit after the other: a chosen port counts as taken once it is written down.
        let _one = self.laying.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.taken_ports();
        let (sheet, secrets) = prepare::sheet(&self.config, unit, materials, &taken)?;
        let new = Folder::new(self.config.root.join(format!("{NEW}{}", unit.name)));
        prepare::lay_out(&new, &sheet, materials)?;
        // From here on the unit is on record, whole, whatever happens to this process (promise 17).
        let folder = self.folder(&unit.name);
        fs::rename(new.path(), folder.path()).map_err(|error| {
            ProviderError::Transient(format!("cannot make the directory of {}: {error}", unit.name))
        })?;
        Ok(Some((folder, secrets)))
    }

    /// Starts a shim and waits for its word.
    async fn start_shim(&self, unit: &UnitName, folder: &Folder, secrets: &SecretEnv) -> Result<(), ProviderError> {
        let fault = |what: &str, error: &io::Error| ProviderError::Transient(format!("{unit}: {what}: {error}"));
        let errors =
            fs::File::create(folder.shim_errors()).map_err(|error| fault("cannot write its folder", &error))?;
        let mut shim = tokio::process::Command::new(&self.config.muster_exe)
            .arg("shim")
            .arg("--dir")
            .arg(folder.path())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(false)
            .spawn()
            .map_err(|error| fault("cannot start its shim", &error))?;
        let (stdin, stdout) = (shim.stdin.take(), shim.stdout.take());
        let talk = async {
            let mut stdin = stdin.expect("standard input is piped");
            stdin.write_all(&layout::handover(secrets)).await?;
            drop(stdin);
            let mut answer = String::new();
            let stdout = stdout.expect("standard output is piped");
            stdout.take(ANSWER_MAX).read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = match timeout(ANSWER_DEADLINE, talk).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(fault("its shim broke off", &error)),
            Err(_) => {
                shim.kill()
                    .await
                    .map_err(|error| fault("cannot end its shim", &error))?;
                return Err(ProviderError::Transient(format!("{unit}: its shim does not answer")));
            }
        };
        let answer = answer.trim_end();
        if answer == "ok" {
            return Ok(());
        }
        if let Some(reason) = answer.strip_prefix("refused ") {
            return Err(ProviderError::Refused {
                unit: unit.clone(),
                reason: reason.to_owned(),
            });
        }
        let reason = answer
            .strip_prefix("failed ")
            .unwrap_or("its shim ended without a word");
        Err(ProviderError::Transient(format!("{unit}: {reason}")))
    }

    /// After a start that failed: nothing may stay that looks like a unit.
    fn remove_dead(&self, unit: &UnitName) -> Result<(), ProviderError> {
        let deadline = Instant::now() + KILL_DEADLINE;
        while let Some(present) = self.look(unit)? {
            if !present.alive {
                return self.clear(&present);
            }
            // The shim said no and is about to end.
            if Instant::now() >= deadline {
                return Err(ProviderError::Transient(format!("{unit}: its shim does not end")));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Kills what a dead shim left behind and removes the unit's folder.
    fn clear(&self, present: &Present) -> Result<(), ProviderError> {
        let name = &present.sheet.spec.name;
        let fault = |error: io::Error| ProviderError::Transient(format!("cannot clear up after {name}: {error}"));
        let marks = record::leftovers(&present.sheet, present.state.as_ref()).map_err(fault)?;
        marks.kill(Instant::now() + KILL_DEADLINE).map_err(fault)?;
        let gone = self.config.root.join(format!("{GONE}{name}"));
        remove_all(&gone).map_err(fault)?;
        // Gone under its name at once; a crash in the middle of the removal leaves no half unit.
        fs::rename(present.folder.path(), &gone).map_err(fault)?;
        remove_all(&gone).map_err(fault)
    }

    /// KILL for a shim that does not do what it is told.
    fn stop_hard(&self, present: &Present) -> Result<(), ProviderError> {
        let marks = record::leftovers(&present.sheet, present.state.as_ref());
        if let Some(state) = &present.state {
            state.shim.signal(Signal::SIGKILL);
        }
        marks
            .and_then(|marks| marks.kill(Instant::now() + KILL_DEADLINE))
            .map_err(|error| ProviderError::Transient(format!("{}: {error}", present.sheet.spec.name)))
    }

    async fn delete_now(&self, unit: UnitName) -> Result<(), ProviderError> {
        let _turn = self.turn(&unit).await;
        let (mut told, mut forced) = (false, false);
        let mut deadline = Instant::now() + STOP_MARGIN;
        loop {
            let (this, name) = (self.clone(), unit.clone());
            let Some(present) = blocking(move || this.look(&name)).await? else {
                return Ok(());
            };
            let this = self.clone();
            if !present.alive {
                return blocking(move || this.clear(&present)).await;
            }
            if !told && present.folder.say_stop() {
                told = true;
                deadline = Instant::now() + present.sheet.spec.stop_grace + STOP_MARGIN;
            }
            if Instant::now() >= deadline {
                if forced {
                    return Err(ProviderError::Transient(format!("{unit}: its shim does not end")));
                }
                forced = true;
                deadline = Instant::now() + STOP_MARGIN;
                blocking(move || this.stop_hard(&present)).await?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ports that other units of this environment were given; one that cannot be read is observed as an error elsewhere.
    fn taken_ports(&self) -> BTreeSet<u16> {
        let Ok(names) = self.names() else {
            return BTreeSet::new();
        };
        names
            .iter()
            .filter_map(|name| self.folder(name).sheet().ok())
            .flat_map(|sheet| sheet.ports)
            .map(|(_, port)| port)
            .collect()
    }

    fn names(&self) -> io::Result<Vec<UnitName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.config.root)? {
            // What is no unit's name was not made by us; what begins with a dot is on its way in or out.
            if let Some(name) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

#[async_trait]
impl Provider for ProcessProvider {
    async fn observe(&self) -> Result<Vec<ObservedUnit>, ProviderError> {
        let this = self.clone();
        blocking(move || see::all(&this.config, this.names(), |unit| this.in_turn(unit))).await
    }

    async fn create(&self, unit: &UnitSpec, materials: &Materials) -> Result<(), ProviderError> {
        // In a task of its own: a caller that gives up must not leave a shim without its secrets.
        let (this, unit, materials) = (self.clone(), unit.clone(), materials.clone());
        joined(tokio::spawn(async move { this.create_now(unit, materials).await }).await)
    }

    async fn delete(&self, unit: &UnitName) -> Result<(), ProviderError> {
        self.delete_now(unit.clone()).await
    }

    async fn logs(&self, unit: &UnitName, max_bytes: usize) -> Result<Vec<u8>, ProviderError> {
        let (folder, unit) = (self.folder(unit), unit.clone());
        blocking(move || {
            if !folder.path().is_dir() {
                return Err(ProviderError::NotFound(unit));
            }
            log::tail(&folder, max_bytes).map_err(|error| unreachable(folder.path(), &error))
        })
        .await
    }
}

/// A unit whose shim is on record.
struct Present {
    folder: Folder,
    sheet: Sheet,
    state: Option<State>,
    alive: bool,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(result: Result<Result<T, ProviderError>, tokio::task::JoinError>) -> Result<T, ProviderError> {
    result.unwrap_or_else(|error| Err(ProviderError::Transient(error.to_string())))
}

fn unreachable(path: &Path, error: &io::Error) -> ProviderError {
    ProviderError::Unreachable(format!("{}: {error}", path.display()))
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
