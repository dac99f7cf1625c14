//! Commands that tell a daemon to do something: stop, pause, resume, suspend, rerun, reconcile, approve-deletion, logs.

use super::Global;
use super::exit::Exit;
use super::output;
use super::reader::{Reader, client};
use super::target;
use super::text::word;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

/// `TYPE/NAME` or `TYPE NAME`.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// run/ID or plan/NAME; `run ID` and `plan NAME` work as well.
    #[arg(required = true, num_args = 1..=2, value_name = "TYPE/NAME")]
    target: Vec<String>,
}

impl TargetArgs {
    /// As one word.
    pub fn word(&self) -> String {
        self.target.join("/")
    }
}

/// Stop a run: no new iterations, those in flight finish, results are kept.
#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    run: TargetArgs,
    /// Do not wait for iterations in flight.
    #[arg(long)]
    abort: bool,
}

/// Name a run: it is kept from retention, and the name stands for it as a baseline of its plan.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// run/ID.
    #[arg(value_name = "run/ID")]
    run: String,
    /// Its name: lower-case letters, digits and dashes.
    #[arg(required_unless_present = "remove", conflicts_with = "remove")]
    name: Option<String>,
    /// Take its name away.
    #[arg(long)]
    remove: bool,
}

/// Hold a plan back: a start is refused until `resume`.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    plan: TargetArgs,
    /// Why, for everyone who finds it suspended.
    #[arg(long)]
    reason: String,
    /// Until when, RFC 3339; without it until `resume`.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

/// Look at the source and at what is there now, not at the next interval.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Only this resource; without it everything.
    #[arg(value_name = "KIND/NAME")]
    resource: Option<String>,
}

/// Approve the deletions that a revision was refused for.
#[derive(Debug, Args)]
pub struct ApproveDeletionArgs {
    /// The whole commit id, as `muster diff` shows it.
    revision: String,
}

/// Print the end of a unit's output.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// unit/NAME.
    #[arg(value_name = "unit/NAME")]
    unit: String,
    /// How much of it.
    #[arg(long, default_value_t = 64 << 10)]
    bytes: u32,
}

/// Runs `stop`.
///
/// # Errors
/// When nobody answers or the run is over.
pub async fn stop(args: &StopArgs, global: &Global) -> Result<Exit> {
    act(&args.run.word(), "stop", json!({"abort": args.abort}), global).await
}

/// Runs `pause`.
///
/// # Errors
/// When nobody answers or the run makes no load.
pub async fn pause(args: &TargetArgs, global: &Global) -> Result<Exit> {
    act(&args.word(), "pause", json!({}), global).await
}

/// Runs `resume` of a run or of a plan.
///
/// # Errors
/// When nobody answers or there is nothing to resume.
pub async fn resume(args: &TargetArgs, global: &Global) -> Result<Exit> {
    let word = args.word();
    if word.starts_with("run/") {
        return act(&word, "resume", json!({}), global).await;
    }
    let key = target::plan(&word)?;
    client(global)?
        .post(
            &format!("/api/v1/plans/{}/{}/resume", key.project, key.name),
            &json!({}),
        )
        .await?;
    output::progress(&format!("plan {}/{} may be started again", key.project, key.name));
    Ok(Exit::Done)
}

async fn act(word: &str, action: &str, body: serde_json::Value, global: &Global) -> Result<Exit> {
    let Some(id) = word.strip_prefix("run/") else {
        bail!("`{word}` is not run/ID\n  hint: `muster get runs` lists them; the last digits are enough");
    };
    let answer = client(global)?
        .post(&format!("/api/v1/runs/{id}/{action}"), &body)
        .await?;
    output::progress(&format!(
        "run {}: {action} requested",
        super::text::short_id(&answer["id"])
    ));
    Ok(Exit::Done)
}

/// Runs `tag`.
///
/// # Errors
/// When nobody answers, there is no such run, or another one has the name.
pub async fn tag(args: &TagArgs, global: &Global) -> Result<Exit> {
    let answer = client(global)?
        .post(
            &format!("/api/v1/runs/{}/tag", target::run(&args.run)),
            &json!({"name": args.name}),
        )
        .await?;
    let id = super::text::short_id(&answer["id"]);
    output::progress(&match &args.name {
        Some(name) => format!("run {id} is called {name}"),
        None => format!("run {id} has no name any more"),
    });
    Ok(Exit::Done)
}

/// Runs `suspend`.
///
/// # Errors
/// When nobody answers or there is no such plan.
pub async fn suspend(args: &SuspendArgs, global: &Global) -> Result<Exit> {
    let key = target::plan(&args.plan.word())?;
    let body = json!({"reason": args.reason, "until": args.until});
    client(global)?
        .post(&format!("/api/v1/plans/{}/{}/suspend", key.project, key.name), &body)
        .await?;
    output::progress(&format!(
        "plan {}/{} is suspended: {}",
        key.project, key.name, args.reason
    ));
    Ok(Exit::Done)
}

/// Runs `reconcile`.
///
/// # Errors
/// When nobody answers.
pub async fn reconcile(args: &ReconcileArgs, global: &Global) -> Result<Exit> {
    let resource = args.resource.as_deref().map(target::resource).transpose()?;
    client(global)?
        .post("/api/v1/reconcile", &json!({"resource": resource}))
        .await?;
    output::progress("requested");
    Ok(Exit::Done)
}

/// Runs `approve-deletion`.
///
/// # Errors
/// When the revision waits for no approval.
pub async fn approve_deletion(args: &ApproveDeletionArgs, global: &Global) -> Result<Exit> {
    let answer = client(global)?
        .post(&format!("/api/v1/deletions/{}/approve", args.revision), &json!({}))
        .await?;
    let keys: Vec<String> = answer["approved"]
        .as_array()
        .context("the answer names what was approved")?
        .iter()
        .map(word)
        .collect();
    output::progress(&format!("approved the deletion of {}", keys.join(", ")));
    Ok(Exit::Done)
}

/// Runs `logs`.
///
/// # Errors
/// When there is no such unit.
pub async fn logs(args: &LogsArgs, global: &Global) -> Result<Exit> {
    let unit = args.unit.strip_prefix("unit/").unwrap_or(&args.unit);
    let answer = Reader::open(global)
        .await?
        .get(&format!("/api/v1/units/{unit}/logs?bytes={}", args.bytes))
        .await?;
    match answer["log"].as_str().unwrap_or_default() {
        "" => output::progress(&format!("{unit} has written nothing yet")),
        log => output::data(log),
    }
    Ok(Exit::Done)
}
