//! A process that ends what a command has started once whoever runs the command is gone, however it went: also by kill -9.
//!
//! It stands beside the command and reads a pipe that only its starter can write to. A byte says that the command is over; the pipe's end
//! without one says that the starter died.

use super::processes::{LOOK, Marks};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The subcommand that is one.
pub const COMMAND: &str = "guard";
/// A command that was being started when its starter died has its tag by then.
const STARTED: Duration = Duration::from_secs(1);
/// What KILL does not end within this time is stuck in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// The starter's end. Dropped: the guard goes without doing anything.
#[derive(Debug)]
pub struct Guard {
    pipe: std::fs::File,
}

impl Guard {
    /// Begins to watch over all processes that will carry this tag, which is nobody else's.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(tag: &str) -> io::Result<Self> {
        // Not by name: the program may have been replaced since this process began. In a group and without the environment of the starter's
        // unit, so that what ends the unit does not end its guard first.
        let mut child = Command::new("/proc/self/exe")
            .args([COMMAND, "--tag", tag])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe: OwnedFd = child
            .stdin
            .take()
            .ok_or_else(|| io::Error::other("it has no pipe"))?
            .into_owned_fd()?;
        Ok(Self { pipe: pipe.into() })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.pipe.write_all(b".");
    }
}

/// The guard itself: waits for the end of its input.
pub fn main(tag: &str) -> ExitCode {
    let marks = Marks {
        tag: tag.to_owned(),
        group: None,
    };
    loop {
        match io::stdin().read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(1..) => return ExitCode::SUCCESS,
            Ok(0) | Err(_) => break,
        }
    }
    let begun = Instant::now();
    while begun.elapsed() < STARTED {
        if marks.kill(Instant::now() + KILL_DEADLINE).is_err() {
            return ExitCode::FAILURE;
        }
        thread::sleep(LOOK);
    }
    ExitCode::SUCCESS
}
