//! `muster worker`: makes load for a daemon; started by it, or by hand on another machine.

use super::Global;
use super::exit::Exit;
use super::output;
use crate::bus::dial::parse_address;
use crate::runtime::telemetry;
use crate::worker::{self, Address, Dial, News, Teller};
use clap::Args;
use jiff::Timestamp;
use muster_core::base::humane::{count, milliseconds};
use muster_core::base::units::{format_duration, parse_duration};
use muster_core::model::unit::UnitName;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Make load for a daemon that runs on another machine (--token-file FILE holds the join token).
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The daemon's address for workers. Unless it is loopback, TLS is spoken there.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_parser = parse_address,
        required_unless_present = "join_file",
        conflicts_with = "join_file"
    )]
    join: Option<String>,
    /// File that holds HOST:PORT, read again before each try.
    #[arg(long, value_name = "FILE", hide = true)]
    join_file: Option<PathBuf>,
    /// The pool to be in, `name` or `project/name`; not needed where the token is for a single one.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pool: String,
    /// Certificates (PEM) that the daemon's is checked against [default: those of this machine].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Run commands of plans here (hooks with `onWorkers`), as this user.
    #[arg(long)]
    allow_commands: bool,
    /// The unit it is.
    #[arg(long, value_name = "NAME", hide = true)]
    unit: Option<UnitName>,
    /// How long a unit may be without its owner.
    #[arg(long, value_parser = parse_duration, default_value = "60s", hide = true)]
    orphan_timeout: Duration,
}

/// Runs the command, to its end: 0 when told to end, 4 when it had lost its daemon in a run.
pub fn main(args: WorkerArgs, global: &Global) -> ExitCode {
    let by_hand = args.unit.is_none();
    // By hand, what happens is told in lines for people.
    telemetry::log_to_stderr(global.verbose, if by_hand { "off" } else { "warn" }, false);
    let Some(token_file) = global.token_file.clone() else {
        output::error("a worker needs --token-file FILE with the join token");
        return Exit::Failed.into();
    };
    let address = match (args.join, args.join_file) {
        (Some(join), _) => Address::Fixed(join),
        (None, Some(file)) => Address::File(file),
        (None, None) => unreachable!("clap requires one of the two"),
    };
    if let (Address::Fixed(address), true) = (&address, by_hand) {
        say(&format!("joining {address}"));
    }
    worker::main(worker::WorkerArgs {
        dial: Dial {
            address,
            token_file,
            ca_file: args.ca,
        },
        pool: args.pool,
        // A unit that its daemon has left is of no use to anybody; a worker started by hand waits for the next daemon.
        orphan_timeout: args.unit.is_some().then_some(args.orphan_timeout),
        unit: args.unit,
        allows_commands: args.allow_commands,
        teller: if by_hand {
            Teller::new(|news| say(&line(&news)))
        } else {
            Teller::default()
        },
        threads: None,
    })
}

fn say(text: &str) {
    output::progress(&format!("{}  {text}", Timestamp::now().strftime("%TZ")));
}

/// One line of what happens.
fn line(news: &News) -> String {
    match news {
        News::Connected { address, pool, run } => {
            let pool = pool.replace("/WorkerPool/", "/");
            match run {
                None => format!("connected to {address}, pool {pool}; waiting for a run"),
                Some(run) => format!("connected to {address} again; run {run} goes on"),
            }
        }
        News::Refused { reason, pause } => {
            format!("cannot join: {reason}; asking again every {}", format_duration(*pause))
        }
        News::Unreachable(reason) => format!("{reason}; trying again"),
        News::Lost {
            reason,
            run: Some(_),
            orphan_timeout: Some(left),
        } => format!(
            "lost the daemon ({reason}); trying again; without it load ends in {}",
            format_duration(*left)
        ),
        News::Lost { reason, .. } => format!("lost the daemon ({reason}); trying again"),
        News::RunBegins { run, index, count } => {
            format!("run {run} begins; this is worker {index} of {count}, counted from 0")
        }
        News::CannotPrepare(reason) => format!("cannot take part: {reason}"),
        News::LoadStarted { late_us } => {
            format!(
                "load started, {} after the agreed instant",
                milliseconds(*late_us as f64 / 1e3)
            )
        }
        News::LoadEnded { why, frames, dropped } => {
            let lost = match dropped {
                0 => String::new(),
                dropped => format!(", {} of them dropped", count(*dropped)),
            };
            format!("load ended ({why}) after {} frames{lost}", count(*frames))
        }
        News::Released => "the run is over; waiting for the next".to_owned(),
        News::Orphaned => "the daemon has not been heard for too long; ending the load and this worker".to_owned(),
    }
}
