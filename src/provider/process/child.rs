//! Starts a unit's process: clean environment, own group, own directory, limits, where told so another user.

use super::log::Log;
use super::record::{Folder, Sheet};
use crate::runtime::processes::{Process, TAG};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// All a unit finds in its environment beside its own variables (promise 58).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a unit did not start.
#[derive(Debug)]
pub(super) struct StartError {
    /// Whether it will not start next time either.
    pub terminal: bool,
    reason: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

/// Starts the unit's process. The caller's own directory is already the unit's: a parent that the unit's user may not
/// enter is no obstacle then.
pub(super) fn start(
    sheet: &Sheet,
    folder: &Folder,
    secrets: &BTreeMap<String, SecretString>,
    log: &Log,
) -> Result<Process, StartError> {
    let transient = |error: io::Error| StartError {
        terminal: false,
        reason: error.to_string(),
    };
    let [program, arguments @ ..] = &sheet.command[..] else {
        return Err(StartError {
            terminal: true,
            reason: "the command is empty".to_owned(),
        });
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", folder.files())
        .env("LANG", "C.UTF-8")
        .env("MUSTER_UNIT", sheet.spec.name.as_str())
        .envs(sheet.env.iter().map(|(name, value)| (name, value)))
        .envs(secrets.iter().map(|(name, value)| (name, value.expose_secret())))
        .env(TAG, &sheet.tag)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.end().map_err(transient)?)
        .stderr(log.end().map_err(transient)?);
    if let Some((user, group)) = sheet.run_as {
        command.uid(user).gid(group);
    }
    let child = command
        .spawn()
        .map_err(|error| explain(&error, program, sheet, folder))?;
    // The shim reaps all its descendants itself; a `Child` that is dropped waits for nothing.
    let pid = i32::try_from(child.id()).expect("process ids fit i32 on Linux");
    Process::of(pid).map_err(transient)
}

fn explain(error: &io::Error, program: &str, sheet: &Sheet, folder: &Folder) -> StartError {
    let terminal = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ArgumentListTooLong
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32);
    let reason = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            format!("`{program}` does not exist, or its interpreter does not")
        }
        io::ErrorKind::NotFound => format!("there is no program `{program}` in {PATH}"),
        io::ErrorKind::PermissionDenied => denied(program, sheet, folder),
        _ => format!("`{program}`: {error}"),
    };
    StartError { terminal, reason }
}

/// As root a unit runs as an unprivileged user, who often may not enter the folder the program lies in.
fn denied(program: &str, sheet: &Sheet, folder: &Folder) -> String {
    let Some((user, _)) = sheet.run_as else {
        return format!("`{program}` may not be executed");
    };
    let at = match closed_folder(&folder.files().join(program)) {
        Some(closed) => format!("it may not enter {}", closed.display()),
        None => "the file is not executable for it".to_owned(),
    };
    format!(
        "user {user} may not execute `{program}`: {at}. Install the program where every user may reach it, or let units run as the daemon's user"
    )
}

/// The first folder on the way that others may not enter.
fn closed_folder(program: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut ancestors: Vec<&Path> = program.ancestors().skip(1).collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|folder| {
            folder
                .metadata()
                .is_ok_and(|data| data.permissions().mode() & 0o001 == 0)
        })
        .map(Path::to_owned)
}
