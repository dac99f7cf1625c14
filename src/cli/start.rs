//! `muster start` and `muster rerun`: a run on a daemon, with `run`'s output and exit codes where it is waited for.

use super::Global;
use super::exit::Exit;
use super::output;
use super::reader::client;
use super::report::{self, Format};
use super::steer::TargetArgs;
use super::target;
use super::text::short_id;
use super::watch;
use super::wire::{Client, WireError};
use anyhow::{Context as _, Result};
use clap::Args;
use muster_core::report::Report;
use serde_json::json;
use uuid::Uuid;

/// Start a run of a plan on a daemon.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    plan: TargetArgs,
    /// The run's id; the same id again is the same run.
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// A share of the load, for example 1%.
    #[arg(long, value_name = "PERCENT")]
    scale: Option<String>,
    /// One user, one iteration of each scenario, thresholds not judged.
    #[arg(long)]
    smoke: bool,
    /// Start outside the plan's windows, for this reason, which is kept; only an admin may.
    #[arg(long, value_name = "REASON")]
    override_windows: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Run again what an earlier run ran: the same revision and digests.
#[derive(Debug, Args)]
pub struct RerunArgs {
    #[command(flatten)]
    run: TargetArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Whether to wait, and how to print.
#[derive(Debug, Args)]
struct WaitArgs {
    /// Wait for the end, print the report, and exit as `muster run` does.
    #[arg(long)]
    wait: bool,
    /// Form of the report; without --wait of the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Runs `start`.
///
/// # Errors
/// When nobody answers.
pub async fn run(args: &StartArgs, global: &Global) -> Result<Exit> {
    let key = target::plan(&args.plan.word())?;
    let scale = args.scale.as_deref().map(super::run::scale).transpose()?;
    let body = json!({"plan": format!("{}/{}", key.project, key.name), "id": args.id, "scale": scale, "smoke": args.smoke,
            "overrideWindows": args.override_windows});
    begin(&client(global)?, "/api/v1/runs", &body, &args.wait).await
}

/// Runs `rerun`.
///
/// # Errors
/// When nobody answers or there is no such run.
pub async fn rerun(args: &RerunArgs, global: &Global) -> Result<Exit> {
    let text = args.run.word();
    let path = format!("/api/v1/runs/{}/rerun", target::run(&text));
    begin(&client(global)?, &path, &json!({}), &args.wait).await
}

async fn begin(client: &Client, path: &str, body: &serde_json::Value, wait: &WaitArgs) -> Result<Exit> {
    let answer = match client.post(path, body).await {
        Ok(answer) => answer,
        Err(error @ WireError::Refused { .. }) if is_blocked(&error) => {
            output::error(&format!("not started: {error}"));
            return Ok(Exit::NotStarted);
        }
        Err(error) => return Err(error.into()),
    };
    let id = answer["id"].as_str().context("the answer names the run")?;
    if !wait.wait {
        if wait.output == Format::Json {
            output::json(&answer);
        } else {
            output::data(&format!("run/{id}"));
            output::progress(&format!("`muster watch run/{}` follows it", short_id(&answer["id"])));
        }
        return Ok(Exit::Done);
    }
    output::progress(&format!("run {id} on {}", client.server()));
    watch::follow(client, id).await?;
    let document = client.get(&format!("/api/v1/runs/{id}/report")).await?;
    report::print(&document, wait.output)?;
    Ok(Exit::Reported(Report::from_json(&document)?.exit_code))
}

fn is_blocked(error: &WireError) -> bool {
    matches!(error, WireError::Refused { code, .. } if code == "Blocked")
}
