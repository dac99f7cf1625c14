//! What is on disk about one unit: its sheet, its state, its lock. No secret value is ever among it (promise 57).
//!
//! ```text
//! ROOT/UNIT/spec.json    the sheet, written once before the shim starts
//! ROOT/UNIT/state.json   written by the shim at every change
//! ROOT/UNIT/lock         held by the shim for as long as it lives
//! ROOT/UNIT/stop         a pipe: whoever writes to it stops the unit
//! ROOT/UNIT/log, log.1   the unit's output, bounded
//! ROOT/UNIT/shim.err     what the shim itself complained about
//! ROOT/UNIT/files/       the unit's working directory
//! ```

use crate::runtime::processes::{Marks, Process, boot_id};
use jiff::Timestamp;
use muster_core::model::id::Name;
use muster_core::model::unit::{UnitSpec, UnitState};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A record is a few kilobytes; a larger one is not ours.
const RECORD_MAX: u64 = 4 << 20;

/// Everything a shim needs but secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sheet {
    /// The unit as wanted.
    pub spec: UnitSpec,
    /// The host that started it (promise 25).
    pub host_id: String,
    /// A random word in the environment of all its processes.
    pub tag: String,
    /// Program and arguments, substituted.
    pub command: Vec<String>,
    /// Plain environment, substituted.
    pub env: Vec<(String, String)>,
    /// User and group the unit runs as; `None`: as the daemon.
    pub run_as: Option<(u32, u32)>,
    /// Its ports by name, kept over restarts.
    pub ports: Vec<(Name, u16)>,
}

/// What the shim knows of its unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Which boot of the machine the process ids below belong to.
    pub boot_id: String,
    /// The shim.
    pub shim: Process,
    /// The unit's first process; it leads its process group.
    pub child: Option<Process>,
    /// What the unit does.
    pub state: UnitState,
    /// Since when.
    pub since: Timestamp,
    /// How often it was started again.
    pub restarts: u32,
}

/// How the processes of a unit whose shim is gone are recognised.
///
/// # Errors
/// When this boot's id cannot be read.
pub(crate) fn leftovers(sheet: &Sheet, state: Option<&State>) -> io::Result<Marks> {
    let boot = boot_id()?;
    let group = state
        .filter(|state| state.boot_id == boot)
        .and_then(|state| Some((state.child?, state.shim.pid)));
    let tag = sheet.tag.clone();
    Ok(Marks { tag, group })
}

/// The files of one unit.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub(crate) fn rotated_log(&self) -> PathBuf {
        self.0.join("log.1")
    }

    pub(crate) fn shim_errors(&self) -> PathBuf {
        self.0.join("shim.err")
    }

    pub(crate) fn write_sheet(&self, sheet: &Sheet) -> io::Result<()> {
        write_json(&self.0.join("spec.json"), sheet)
    }

    pub(crate) fn sheet(&self) -> io::Result<Sheet> {
        read_json(&self.0.join("spec.json"))
    }

    pub(crate) fn write_state(&self, state: &State) -> io::Result<()> {
        write_json(&self.0.join("state.json"), state)
    }

    /// The last state, or `None` while the shim has not written any.
    pub(crate) fn state(&self) -> io::Result<Option<State>> {
        match read_json(&self.0.join("state.json")) {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock for as long as the result lives.
    ///
    /// Waits: an observer that asks [`Folder::is_alive`] holds a shared lock for an instant.
    pub(crate) fn lock(&self) -> io::Result<Flock<File>> {
        Flock::lock(self.open_lock()?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// The reading end of the pipe that tells a shim to stop. Held open for writing too, so that it never ends.
    pub(crate) fn listen_for_stop(&self) -> io::Result<File> {
        let path = self.0.join("stop");
        match nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
    }

    /// Tells the shim to stop; `false` when none listens (yet).
    pub(crate) fn say_stop(&self) -> bool {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let pipe = options.open(self.0.join("stop"));
        pipe.and_then(|mut pipe| pipe.write_all(b"stop")).is_ok()
    }

    /// Whether a shim holds the lock: the only sign of life that counts (promise 17).
    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        match Flock::lock(self.open_lock()?, FlockArg::LockSharedNonblock) {
            Ok(_free) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(self.0.join("lock"))
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    fs::rename(new, path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RECORD_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::Folder;

    #[test]
    fn s17_alive_is_the_lock_held() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(place.path());
        assert!(!folder.is_alive().expect("asked"));
        let lock = folder.lock().expect("free");
        assert!(folder.is_alive().expect("asked"));
        drop(lock);
        assert!(!folder.is_alive().expect("asked"));
        assert_eq!(folder.state().expect("no state yet"), None);
    }
}
