//! `muster diff`: what a merge would change, or what differs between git and the machine.

use super::Global;
use super::exit::Exit;
use super::local;
use super::output;
use super::reader::Reader;
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use muster_core::diff::{self, Changeset, DiffPolicy};
use std::path::PathBuf;

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
    let changeset = match (&args.base, &args.head) {
        (Some(base), Some(head)) => match between(args, base, head, global)? {
            Some(changeset) => changeset,
            None => return Ok(Exit::Failed),
        },
        _ => {
            let answer = Reader::open(global).await?.get("/api/v1/diff").await?;
            serde_json::from_value(answer).context("this is not a changeset that this version reads")?
        }
    };
    match args.output {
        Format::Text => output::data(&colored(&changeset.to_text())),
        Format::Json => output::json(&serde_json::to_value(&changeset)?),
        Format::Markdown => output::data(&changeset.to_markdown()),
    }
    Ok(if args.detailed_exitcode && changeset.has_changes() {
        Exit::Changes
    } else {
        Exit::Done
    })
}

fn between(args: &DiffArgs, base: &str, head: &str, global: &Global) -> Result<Option<Changeset>> {
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
    Ok(Some(diff::between(
        &base.desired(),
        &head.desired(),
        &diff_policy,
        Timestamp::now(),
    )))
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
