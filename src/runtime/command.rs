//! Runs one command of a plan within limits: a process group, a folder and an environment of its own that hold nothing of ours, TERM then
//! KILL at the timeout, the end of its output kept.

use super::clock::Clock;
use super::processes::TAG;
use muster_core::base::chain::chain;
use muster_core::base::units::format_duration;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// The end of a command's output that is kept.
pub const OUTPUT_MAX: usize = 4 << 10;
/// Time between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// After the command ended, so long for what it left behind to close its output.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Where commands are looked for: our own PATH is not inherited.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const READ: usize = 4 << 10;

/// A command with everything it gets.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where it runs: made for it, and removed after it with all that is in it.
    pub folder: PathBuf,
    /// Program and arguments.
    pub words: Vec<String>,
    /// The program's content, where it is a file of the repository: laid into the folder.
    pub script: Option<Arc<[u8]>>,
    /// Its whole environment, but for PATH, HOME and the tag.
    pub env: BTreeMap<String, String>,
    /// By what all its processes are recognised.
    pub tag: String,
    /// Then it is killed.
    pub timeout: Duration,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Success, or why not.
    pub result: Result<(), String>,
    /// The end of its output: at most [`OUTPUT_MAX`] bytes.
    pub output: String,
}

impl Outcome {
    /// One that came to nothing.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self {
            result: Err(reason.into()),
            output: String::new(),
        }
    }

    /// Takes secret values out of what is kept (promise 57).
    pub fn without(mut self, secrets: &[SecretString]) -> Self {
        for secret in secrets
            .iter()
            .map(ExposeSecret::expose_secret)
            .filter(|secret| !secret.is_empty())
        {
            self.output = self.output.replace(secret, "***");
            self.result = self.result.map_err(|reason| reason.replace(secret, "***"));
        }
        self
    }
}

impl Job {
    /// Runs it to its end or its timeout. Dropped half-way: its processes are killed.
    pub async fn run(&self, clock: &Clock) -> Outcome {
        match self.start() {
            Ok((group, _folder)) => group.wait(clock, self.timeout).await,
            Err(reason) => Outcome::failed(reason),
        }
    }

    fn start(&self) -> Result<(Group, Folder), String> {
        let folder = Folder::make(self.folder.clone())?;
        let (first, arguments) = self.words.split_first().ok_or("the command is empty")?;
        let program = match &self.script {
            Some(content) => folder.lay(first, content)?.into_os_string(),
            None => OsString::from(first),
        };
        let child = Command::new(&program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &folder.0)
            .envs(&self.env)
            .env(TAG, &self.tag)
            .current_dir(&folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
        let child = child.map_err(|error| format!("cannot start {name}: {}", chain(&error)))?;
        Ok((Group::of(child)?, folder))
    }
}

/// A name as a folder's.
pub fn folder_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect()
}

/// A folder that is gone with the command.
struct Folder(PathBuf);

impl Folder {
    fn make(path: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make the command's folder: {error}"))?;
        Ok(Self(path))
    }

    fn lay(&self, program: &str, content: &[u8]) -> Result<PathBuf, String> {
        let name = Path::new(program).file_name().ok_or("the script has no name")?;
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

    async fn wait(mut self, clock: &Clock, timeout: Duration) -> Outcome {
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let output = tokio::spawn(tail(out, err));
        let ended = tokio::select! {
            ended = self.child.wait() => Some(ended),
            () = clock.sleep(timeout) => None,
        };
        let result = match ended {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(Ok(status)) => Err(status.to_string()),
            Some(Err(error)) => Err(format!("cannot be waited for: {error}")),
            None => {
                self.signal(Signal::SIGTERM);
                let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
                Err(format!("took longer than {}", format_duration(timeout)))
            }
        };
        self.signal(Signal::SIGKILL);
        let output = tokio::time::timeout(LAST_OUTPUT, output).await;
        Outcome {
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
