//! `muster serve`: the daemon as a process: settings, signals, and the services until told to stop.

use super::daemon::{Daemon, Options};
use super::exit::Exit;
use super::output;
use super::settings::{self, InvalidSettings};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Watch the repository, reconcile what it describes, run its tests.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Settings file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Folder of everything beside the database: units, the git mirror, the workers' token. Without it beside the SQLite file,
    /// else /var/lib/muster.
    #[arg(long, value_name = "DIR", env = "MUSTER_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

/// Runs the command until SIGTERM or Ctrl-C. A second signal ends it at once.
///
/// # Errors
/// When a service cannot be started.
pub async fn run(args: &ServeArgs) -> Result<Exit> {
    // Before anything else, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let settings = match settings::load(&args.config) {
        Ok(settings) => settings,
        Err(error) if error.is::<InvalidSettings>() => {
            output::error(&error.to_string());
            return Ok(Exit::Invalid);
        }
        Err(error) => return Err(error),
    };
    let daemon = Daemon::serve(Options::of_settings(settings, args.state_dir.clone())?).await?;
    output::progress(&format!(
        "listening on http://{}; workers on {}",
        daemon.address(),
        daemon.workers_address()
    ));
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    output::progress("stopping: no new work; runs and units go on and are adopted by the next daemon (again: at once)");
    tokio::select! {
        () = daemon.stop() => Ok(Exit::Done),
        _ = terminate.recv() => Ok(Exit::Interrupted),
        _ = interrupt.recv() => Ok(Exit::Interrupted),
    }
}
