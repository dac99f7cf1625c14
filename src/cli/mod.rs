//! The command line: one file per subcommand. The composition root: the only place that puts adapters and services together.

mod check;
mod daemon;
mod demo;
mod describe;
mod diagnostics;
mod diff;
mod events;
mod exit;
mod explain;
mod forecast;
mod get;
mod ingest;
mod init;
mod local;
mod output;
mod reader;
mod render;
mod report;
mod run;
mod schema;
mod serve;
mod settings;
mod start;
mod steer;
mod target;
mod text;
mod tree;
mod validate;
mod watch;
mod wire;
mod wiring;
mod worker;
mod workers;

use crate::provider::process::shim;
use crate::runtime::{guard, telemetry};
use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use exit::Exit;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Git-driven load tests: a commit becomes a measured run.
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The daemon's address [default: http://127.0.0.1:8420].
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "MUSTER_SERVER",
        hide_env = true,
        help_heading = "Global"
    )]
    server: Option<String>,
    /// File with the API token.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MUSTER_TOKEN_FILE",
        hide_env = true,
        help_heading = "Global"
    )]
    token_file: Option<PathBuf>,
    /// Settings file: its rules for plans; its store, where no daemon runs.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global")]
    settings: Option<PathBuf>,
    /// No progress, only data and errors.
    #[arg(short, long, global = true, help_heading = "Global")]
    quiet: bool,
    /// More log lines (-vv: all).
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global")]
    verbose: u8,
    /// No colours (also: NO_COLOR).
    #[arg(long, global = true, help_heading = "Global")]
    no_color: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Validate(validate::ValidateArgs),
    Render(render::RenderArgs),
    Explain(explain::ExplainArgs),
    Schema(schema::SchemaArgs),
    Diff(diff::DiffArgs),
    Forecast(forecast::ForecastArgs),
    Run(run::RunArgs),
    Serve(serve::ServeArgs),
    Ingest(ingest::IngestArgs),
    Check(check::CheckArgs),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Tree(tree::TreeArgs),
    Events(events::EventsArgs),
    Logs(steer::LogsArgs),
    Start(start::StartArgs),
    Watch(watch::WatchArgs),
    Stop(steer::StopArgs),
    /// Pause a run: no new iterations until `resume`, at most 30 minutes.
    Pause(steer::TargetArgs),
    /// Let a paused run or a suspended plan go on.
    Resume(steer::TargetArgs),
    Rerun(start::RerunArgs),
    Tag(steer::TagArgs),
    Suspend(steer::SuspendArgs),
    Reconcile(steer::ReconcileArgs),
    ApproveDeletion(steer::ApproveDeletionArgs),
    Report(report::ReportArgs),
    Compare(report::CompareArgs),
    /// The tour: a repository, a daemon, two commits, two runs; everything is taken down again.
    Demo,
    /// Print a completion script for a shell.
    Completion {
        /// Which.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
    Worker(worker::WorkerArgs),
    /// Watch over one unit; started by a provider.
    #[command(hide = true)]
    Shim {
        /// The unit's folder.
        #[arg(long)]
        dir: PathBuf,
    },
    /// End what carries a tag when standard input ends; started by a worker beside a hook's command.
    #[command(hide = true, name = guard::COMMAND)]
    Guard {
        /// The tag.
        #[arg(long)]
        tag: String,
    },
}

/// Runs the program; returns what the process exits with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; anything else is a usage error, whose 2 would be taken for a result.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Failed.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    let global = &cli.global;
    output::configure(global.quiet, global.no_color);
    match cli.command {
        // Before anything else is set up: a shim is as small as it can be.
        Command::Shim { dir } => shim::main(&dir),
        Command::Guard { tag } => guard::main(&tag),
        Command::Worker(args) => {
            install_tls();
            worker::main(args, global)
        }
        command => match run(command, global) {
            Ok(exit) => exit.into(),
            Err(error) => {
                output::error(&muster_core::base::chain::chain(error.as_ref()));
                Exit::Failed.into()
            }
        },
    }
}

/// One TLS provider for everything in the process.
fn install_tls() {
    // A second call happens only where tests share a process; the first one's choice is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn run(command: Command, global: &Global) -> Result<Exit> {
    let serves = matches!(command, Command::Serve(_) | Command::Ingest(_));
    telemetry::log_to_stderr(
        global.verbose,
        if serves { "info" } else { "error" },
        output::stderr_color(),
    );
    install_tls();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(dispatch(command, global));
    // Reads of slow files and databases must not hold up the end.
    runtime.shutdown_timeout(SHUTDOWN);
    exit
}

/// Blocking calls still under way at the end get this long.
const SHUTDOWN: Duration = Duration::from_secs(1);

async fn dispatch(command: Command, global: &Global) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(&args),
        Command::Validate(args) => validate::run(&args, global).await,
        Command::Render(args) => render::run(&args, global).await,
        Command::Explain(args) => explain::run(&args),
        Command::Schema(args) => Ok(schema::run(&args)),
        Command::Diff(args) => diff::run(&args, global).await,
        Command::Forecast(args) => forecast::run(&args, global).await,
        Command::Run(args) => run::run(&args, global).await,
        Command::Serve(args) => serve::run(&args).await,
        Command::Ingest(args) => ingest::run(&args).await,
        Command::Check(args) => check::run(&args, global).await,
        Command::Get(args) => get::run(&args, global).await,
        Command::Describe(args) => describe::run(&args, global).await,
        Command::Tree(args) => tree::run(&args, global).await,
        Command::Events(args) => events::run(&args, global).await,
        Command::Logs(args) => steer::logs(&args, global).await,
        Command::Start(args) => start::run(&args, global).await,
        Command::Watch(args) => watch::run(&args, global).await,
        Command::Stop(args) => steer::stop(&args, global).await,
        Command::Pause(args) => steer::pause(&args, global).await,
        Command::Resume(args) => steer::resume(&args, global).await,
        Command::Rerun(args) => start::rerun(&args, global).await,
        Command::Tag(args) => steer::tag(&args, global).await,
        Command::Suspend(args) => steer::suspend(&args, global).await,
        Command::Reconcile(args) => steer::reconcile(&args, global).await,
        Command::ApproveDeletion(args) => steer::approve_deletion(&args, global).await,
        Command::Report(args) => report::run(&args, global).await,
        Command::Compare(args) => report::run_compare(&args, global).await,
        Command::Demo => demo::run().await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "muster", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        Command::Version => {
            output::data(&format!("muster {}", env!("CARGO_PKG_VERSION")));
            Ok(Exit::Done)
        }
        Command::Worker(_) | Command::Shim { .. } | Command::Guard { .. } => {
            unreachable!("they ended in main, before there was a runtime")
        }
    }
}
