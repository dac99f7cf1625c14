//! `muster run`: a run in the foreground, by the parts of a daemon in this process, with a store in `.muster/`.

use super::Global;
use super::daemon::{self, Daemon, Options};
use super::exit::Exit;
use super::local::{self, Plans};
use super::output;
use super::report::{self, Format};
use super::settings::{self, InvalidSettings};
use super::target;
use super::watch::Progress;
use crate::control::runs::{Blocked, StartRequest};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use muster_core::base::units::parse_percent;
use muster_core::model::desired::Desired;
use muster_core::model::id::RunId;
use muster_core::model::key::Key;
use muster_core::model::policy::Policy;
use muster_core::model::resource::{Resource, Spec};
use muster_core::model::run::TriggerKind;
use muster_core::report::Report;
use muster_core::spec::code::Code;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run a plan in the foreground, without a daemon: report on stdout, progress on stderr.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// NAME or project/NAME.
    plan: String,
    /// Folder of the plans, or a file in it.
    #[arg(short = 'f', long = "file", value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Aim here instead of the plan's target.
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Added to the environment of command hooks; may be repeated.
    #[arg(long, value_name = "K=V", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A share of the load, for example 1%.
    #[arg(long, value_name = "PERCENT")]
    scale: Option<String>,
    /// One user, one iteration of each scenario, thresholds not judged.
    #[arg(long)]
    smoke: bool,
    /// Allow requests to this host, too; may be repeated. Without settings only loopback is allowed.
    #[arg(long, value_name = "HOST")]
    allow_target: Vec<String>,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Services a plan needs must be Ready within this time; a daemon would start the run as Blocked.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// After a second interrupt units get this long to go.
const HASTE: Duration = Duration::from_secs(5);

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not K=V")),
    }
}

/// Reads `1%` as a share above 0 and at most 1.
///
/// # Errors
/// When it is none.
pub fn scale(text: &str) -> Result<f64> {
    let share = parse_percent(text)?;
    anyhow::ensure!(share > 0.0, "a scale is above 0%");
    Ok(share)
}

/// Runs the command.
///
/// # Errors
/// When a part cannot be started; a run's own failures are endings.
pub async fn run(args: &RunArgs, global: &Global) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let settings = match global.settings.as_deref().map(settings::load).transpose() {
        Ok(settings) => settings,
        Err(error) if error.is::<InvalidSettings>() => {
            output::error(&error.to_string());
            return Ok(Exit::Invalid);
        }
        Err(error) => return Err(error),
    };
    let policy = match &settings {
        Some(settings) => settings.policy(),
        None => Policy::foreground(&args.allow_target),
    };
    let scale = args.scale.as_deref().map(scale).transpose()?;
    let key = target::plan(&args.plan)?;
    let plans = local::read(&args.path, &policy).await?;
    let Some(only) = needed(&plans, &key) else {
        return Ok(refuse(&plans, &key));
    };
    let daemon = tokio::select! {
        daemon = Daemon::foreground(Options::of_folder(settings, policy)?, &plans, only) => daemon?,
        _ = signals.next() => return Ok(Exit::Interrupted),
    };
    let request = StartRequest {
        scale,
        smoke: args.smoke,
        target: args.target.clone(),
        env: args.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        ..StartRequest::new(key, TriggerKind::Foreground, daemon::LOCAL_USER)
    };
    let outcome = drive(&daemon, request, &mut signals).await;
    let interrupted = matches!(outcome, Ok(Driven::Interrupted));
    if interrupted {
        // Whoever interrupts twice does not want to wait; workers end with their owner, units by the next run here.
        tokio::time::timeout(HASTE, daemon.take_down()).await.ok();
    } else {
        daemon.take_down().await;
    }
    match outcome? {
        Driven::Finished(id) => {
            let document = daemon
                .stores()
                .ledger
                .summary(id)
                .await?
                .context("a finished run has a report")?;
            report::print(&document, args.output)?;
            Ok(Exit::Reported(Report::from_json(&document)?.exit_code))
        }
        Driven::Blocked(reason) => {
            output::error(&format!("not started: {reason}"));
            Ok(Exit::NotStarted)
        }
        Driven::Interrupted => Ok(Exit::Interrupted),
    }
}

enum Driven {
    Finished(RunId),
    Blocked(String),
    Interrupted,
}

async fn drive(daemon: &Daemon, request: StartRequest, signals: &mut Signals) -> Result<Driven> {
    let id = tokio::select! {
        started = start(daemon, request) => match started {
            Ok(id) => id,
            Err(blocked) => return Ok(Driven::Blocked(blocked.to_string())),
        },
        _ = signals.next() => return Ok(Driven::Interrupted),
    };
    let mut live = daemon
        .runs()
        .live(id)
        .context("a run that was started just now is driven")?;
    let mut progress = Progress::new();
    let mut stopping = false;
    loop {
        let view = live.borrow_and_update().clone();
        progress.show(&serde_json::to_value(&view)?);
        if view.stage == "Finished" {
            progress.finish();
            return Ok(Driven::Finished(id));
        }
        tokio::select! {
            changed = live.changed() => if changed.is_err() && live.borrow().stage != "Finished" {
                bail!("the run's driver ended before the run");
            },
            () = signals.next() => {
                if stopping {
                    progress.finish();
                    output::progress("aborted");
                    // The run's own rows say Stopped as far as they could be written; load ends with this process's workers.
                    let _ = daemon.runs().abort(id, daemon::LOCAL_USER).await;
                    return Ok(Driven::Interrupted);
                }
                stopping = true;
                progress.line("stopping: iterations in flight may finish (Ctrl-C again: abort)");
                let _ = daemon.runs().stop(id, daemon::LOCAL_USER).await;
            }
        }
    }
}

/// Starts the run once everything it needs is Ready.
async fn start(daemon: &Daemon, request: StartRequest) -> Result<RunId, Blocked> {
    let deadline = tokio::time::Instant::now() + READY_DEADLINE;
    loop {
        match daemon.runs().start(request.clone()).await {
            Err(Blocked::NotReady { key, reason }) if tokio::time::Instant::now() < deadline => {
                tracing::debug!(%key, reason, "waiting for what the plan needs");
                daemon.changed().await;
            }
            outcome => return outcome,
        }
    }
}

/// The plan with everything it refers to, and nothing else of the folder; `None` if any of it is not valid.
fn needed(plans: &Plans, key: &Key) -> Option<BTreeSet<Key>> {
    let all = plans.desired();
    let mut open = vec![key.clone()];
    let mut wanted = BTreeSet::new();
    while let Some(key) = open.pop() {
        let resource = all.get(&key)?;
        if wanted.insert(key) {
            open.extend(resource.references().into_iter().cloned());
            open.extend(ingests(&all, resource));
        }
    }
    Some(wanted)
}

/// Who takes the plan's results from the topic its workers send to: no document refers to them.
fn ingests(all: &Desired, resource: &Resource) -> Vec<Key> {
    let Spec::TestPlan(plan) = &resource.spec else {
        return Vec::new();
    };
    let pool = plan.pool.as_ref().and_then(|key| all.get(key));
    let bus = match pool.map(|pool| &pool.spec) {
        Some(Spec::WorkerPool(pool)) => pool.bus.as_ref(),
        _ => None,
    };
    let takes = |resource: &&Arc<Resource>| match &resource.spec {
        Spec::IngestCluster(ingest) => Some(&ingest.from) == bus && Some(&ingest.database) == plan.results.as_ref(),
        _ => false,
    };
    all.resources()
        .filter(takes)
        .map(|resource| resource.meta.key.clone())
        .collect()
}

/// Says why a plan cannot be run.
fn refuse(plans: &Plans, key: &Key) -> Exit {
    plans.show_diagnostics();
    let desired = plans.desired();
    let errors = plans
        .diagnostics()
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .count();
    if plans
        .diagnostics()
        .iter()
        .any(|diagnostic| diagnostic.code == Code::TargetNotAllowed)
    {
        output::progress("hint: without settings only loopback is aimed at; --allow-target HOST allows one more");
    }
    let known: Vec<String> = desired
        .resources()
        .filter(|resource| resource.meta.key.kind == key.kind)
        .map(|resource| resource.meta.key.name.to_string())
        .collect();
    output::error(&match (errors, known.len()) {
        (0, 0) => "there is no plan here; `muster init` writes a first one".to_owned(),
        (0, _) => format!(
            "there is no plan {}/{}; there are: {}",
            key.project,
            key.name,
            known.join(", ")
        ),
        (errors, _) => format!(
            "plan {}/{} is not valid, or what it refers to ({errors} error(s) above)",
            key.project, key.name
        ),
    });
    Exit::Invalid
}

/// SIGINT and SIGTERM alike: the first asks to stop, the second to abort.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}
