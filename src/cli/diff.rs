//! `muster diff`: what a merge would change, or what differs between git and the machine.

use super::Global;
use super::exit::Exit;
use super::local;
use super::output;
use super::reader::Reader;
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use muster_core::diff::forecast::{ForecastDelta, delta};
use muster_core::diff::{self, Changeset, DiffPolicy};
use muster_core::topology::outlook::{end, outlook};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How far the forecast of both revisions looks: at least one slot of a monthly plan.
const FORECAST_DAYS: u32 = 60;

/// What a merge would change (--base, --head), or desired against observed on a daemon.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Revision before.
    #[arg(long, value_name = "REV", requires = "head")]
    base: Option<String>,
    /// Revision after.
    #[arg(long, value_name = "REV", requires = "base")]
    head: Option<String>,
    /// The repository.
    #[arg(short = 'C', value_name = "REPO", default_value = ".")]
    repository: PathBuf,
    /// The folder in it that holds plans; without it the settings' `source.path`, else all.
    #[arg(long, value_name = "FOLDER")]
    path: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Exit with 2 when there are changes.
    #[arg(long)]
    detailed_exitcode: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Markdown,
}

/// Runs the command.
///
/// # Errors
/// When a revision, the settings or the daemon cannot be read.
pub async fn run(args: &DiffArgs, global: &Global) -> Result<Exit> {
    let (changeset, forecast) = match (&args.base, &args.head) {
        (Some(base), Some(head)) => match between(args, base, head, global)? {
            Some(found) => found,
            None => return Ok(Exit::Failed),
        },
        _ => {
            let answer = Reader::open(global).await?.get("/api/v1/diff").await?;
            let changeset =
                serde_json::from_value(answer).context("this is not a changeset that this version reads")?;
            (changeset, None)
        }
    };
    match args.output {
        Format::Text => {
            let forecast = forecast.map(|delta| format!("\n{}", delta.to_text()));
            output::data(&colored(&format!(
                "{}{}",
                changeset.to_text(),
                forecast.unwrap_or_default()
            )));
        }
        Format::Json => {
            let mut json = serde_json::to_value(&changeset)?;
            if let Some(delta) = forecast {
                json["forecast"] = serde_json::to_value(delta)?;
            }
            output::json(&json);
        }
        Format::Markdown => {
            let forecast = forecast.map(|delta| format!("\n```diff\n{}```\n", delta.to_text()));
            output::data(&format!("{}{}", changeset.to_markdown(), forecast.unwrap_or_default()));
        }
    }
    Ok(if args.detailed_exitcode && changeset.has_changes() {
        Exit::Changes
    } else {
        Exit::Done
    })
}

type Between = (Changeset, Option<ForecastDelta>);

fn between(args: &DiffArgs, base: &str, head: &str, global: &Global) -> Result<Option<Between>> {
    let settings = global.settings.as_deref().map(super::settings::load).transpose()?;
    let policy = match &settings {
        Some(settings) => settings.policy(),
        None => local::policy(None)?,
    };
    let folder = match (&args.path, &settings) {
        (Some(path), _) => path.as_str(),
        (None, Some(settings)) => settings.source.path.as_str(),
        (None, None) => ".",
    };
    let base = local::read_revision(&args.repository, base, folder, &policy)?;
    let head = local::read_revision(&args.repository, head, folder, &policy)?;
    if head.diagnostics().iter().any(|diagnostic| diagnostic.is_error()) {
        head.show_diagnostics();
        output::error("the head revision is not valid; a daemon would keep the last good one");
        return Ok(None);
    }
    let diff_policy = DiffPolicy {
        deletion_max_share: policy.deletion_max_share,
    };
    let (base, head, now) = (base.desired(), head.desired(), Timestamp::now());
    let ahead = |desired| {
        let until = end(now, FORECAST_DAYS)?;
        Some(outlook(desired, &BTreeMap::new(), (now, until), |_| true))
    };
    let forecast = ahead(&base)
        .zip(ahead(&head))
        .and_then(|(base, head)| delta(&base, &head));
    Ok(Some((diff::between(&base, &head, &diff_policy, now), forecast)))
}

/// Lines in the colours of a diff, where a person looks.
fn colored(text: &str) -> String {
    let color = output::stdout_color();
    let paint = |line: &str| {
        let tone = match line.trim_start().chars().next() {
            Some('+') => output::Tone::Good,
            Some('-') => output::Tone::Bad,
            Some('~' | '!' | '?') => output::Tone::Warn,
            _ => return line.to_owned(),
        };
        output::paint(line, tone, color)
    };
    text.lines().map(|line| paint(line) + "\n").collect()
}
