//! Command hooks: a process group of their own, an environment that holds nothing of the daemon's, TERM then KILL at the timeout.

use super::{HookRun, Hooks, OUTPUT_MAX, Verdict, marks, substitute};
use crate::runtime::processes::TAG;
use muster_core::base::chain::chain;
use muster_core::model::service::{EnvValue, EnvVar};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use secrecy::{ExposeSecret as _, SecretString};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// Time between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// After the command ended, so long for what it left behind to close its output.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Where commands are looked for: the daemon's own PATH is not inherited.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const READ: usize = 4 << 10;

/// Runs a command hook. A program that is a file of the repository is laid into the hook's folder first.
pub(super) async fn run(
    hooks: &Hooks,
    run: &HookRun,
    command: &[String],
    env: &[EnvVar],
    script: Option<&str>,
) -> Verdict {
    if !run.commands_allowed {
        return Verdict::failed("the settings do not let plans run commands on this host (process: {enabled: true})");
    }
    match try_run(hooks, run, command, env, script).await {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::failed(reason),
    }
}

async fn try_run(
    hooks: &Hooks,
    run: &HookRun,
    command: &[String],
    env: &[EnvVar],
    script: Option<&str>,
) -> Result<Verdict, String> {
    let run_id = run.variables.get("RUN_ID").map_or("run", String::as_str);
    let folder = Folder::make(hooks.folder.join(run_id).join(safe(&run.hook.name)))?;
    let mut arguments = command.iter().map(|argument| substitute(argument, &run.variables));
    let mut program = OsString::from(arguments.next().ok_or("the command is empty")?);
    if let (Some(path), Some(content)) = (script, &run.script) {
        program = folder.lay(path, content)?.into_os_string();
    }
    let mut process = Command::new(&program);
    process
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", &folder.0)
        .envs(&run.variables)
        .envs(&run.env)
        .current_dir(&folder.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut secrets: Vec<SecretString> = Vec::new();
    for variable in env {
        match &variable.value {
            EnvValue::Plain(text) => {
                process.env(&variable.name, substitute(text, &run.variables));
            }
            EnvValue::Secret(secret) => {
                let value = run.secrets.get(secret).map_err(|error| chain(&error))?;
                process.env(&variable.name, value.expose_secret());
                secrets.push(value);
            }
        }
    }
    process.env(TAG, marks(run_id).tag);
    let name = Path::new(&program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let child = process
        .spawn()
        .map_err(|error| format!("cannot start {name}: {}", chain(&error)))?;
    Ok(Group::of(child)?.wait(hooks, run.hook.timeout).await.without(&secrets))
}

/// A folder that is gone with the hook.
struct Folder(PathBuf);

impl Folder {
    fn make(path: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make the hook's folder: {error}"))?;
        Ok(Self(path))
    }

    fn lay(&self, path: &str, content: &[u8]) -> Result<PathBuf, String> {
        let name = Path::new(path).file_name().ok_or("the script has no name")?;
        let place = self.0.join(name);
        let write = || -> io::Result<()> {
            std::fs::write(&place, content)?;
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o700))
        };
        write().map_err(|error| format!("cannot write the script: {error}"))?;
        Ok(place)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        if let Some(parent) = self.0.parent() {
            // Only when it was the run's last one.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// A hook's name as a folder's.
fn safe(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect()
}

/// The command and everything it started. Dropped: killed.
struct Group {
    child: Child,
    id: Pid,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

impl Group {
    fn of(child: Child) -> Result<Self, String> {
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or("the command is gone already")?;
        Ok(Self {
            child,
            id: Pid::from_raw(id),
        })
    }

    fn signal(&self, signal: Signal) {
        // Nobody left is what is wanted.
        let _ = killpg(self.id, signal);
    }

    async fn wait(mut self, hooks: &Hooks, timeout: Duration) -> Verdict {
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let output = tokio::spawn(tail(out, err));
        let ended = tokio::select! {
            ended = self.child.wait() => Some(ended),
            () = hooks.clock.sleep(timeout) => None,
        };
        let result = match ended {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(Ok(status)) => Err(status.to_string()),
            Some(Err(error)) => Err(format!("cannot be waited for: {error}")),
            None => {
                self.signal(Signal::SIGTERM);
                let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
                Err(format!(
                    "took longer than {}",
                    muster_core::base::units::format_duration(timeout)
                ))
            }
        };
        self.signal(Signal::SIGKILL);
        let output = tokio::time::timeout(LAST_OUTPUT, output).await;
        Verdict {
            result,
            output: output.ok().and_then(Result::ok).unwrap_or_default(),
        }
    }
}

/// Reads both outputs to their ends and keeps the last [`OUTPUT_MAX`] bytes.
async fn tail(out: Option<impl AsyncRead + Unpin>, err: Option<impl AsyncRead + Unpin>) -> String {
    let (mut out, mut err) = (out, err);
    let mut kept: Vec<u8> = Vec::new();
    let (mut first, mut second) = (vec![0_u8; READ], vec![0_u8; READ]);
    while out.is_some() || err.is_some() {
        let read = tokio::select! {
            read = read(&mut out, &mut first), if out.is_some() => read.map(|count| &first[..count]),
            read = read(&mut err, &mut second), if err.is_some() => read.map(|count| &second[..count]),
        };
        kept.extend_from_slice(read.unwrap_or_default());
        let surplus = kept.len().saturating_sub(OUTPUT_MAX);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// The next bytes; at its end, or when it broke, the stream is put away.
async fn read(stream: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> Option<usize> {
    let count = match stream {
        Some(stream) => stream.read(buffer).await.ok().filter(|count| *count > 0),
        None => None,
    };
    if count.is_none() {
        *stream = None;
    }
    count
}
