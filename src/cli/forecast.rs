//! `muster forecast`: when plans will run, what that adds up to, and what stands in the way.

use super::Global;
use super::exit::Exit;
use super::local;
use super::output;
use super::reader::Reader;
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use muster_core::model::key::Key;
use muster_core::schedule::forecast::{Forecast, to_ics, to_text};
use muster_core::spec::instant;
use muster_core::topology::outlook::{DAYS_MAX, end, outlook};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Show when plans will run: every slot in the plan's zone and in UTC, with what a change of clocks does to it; the highest load on each
/// target, worker-hours and cost, and what clashes.
#[derive(Debug, Args)]
pub struct ForecastArgs {
    /// A folder of plans, or one file in it. Without it the daemon is asked what it will do.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    path: Option<PathBuf>,
    /// Where it begins: RFC 3339, or a date, which begins at 00:00 UTC. Default: now.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,
    /// How far it looks.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    /// A calendar file (RFC 5545).
    Ics,
}

fn time(text: &str) -> Result<Timestamp, String> {
    instant(text).ok_or_else(|| "write it as 2026-12-05T02:30:00+08:00, or as a date".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When the plans, the settings or the daemon cannot be read.
pub async fn run(args: &ForecastArgs, global: &Global) -> Result<Exit> {
    let now = Timestamp::now();
    let from = args.from.unwrap_or(now);
    let forecast = match &args.path {
        Some(path) => match of_files(path, from, args.days, global).await? {
            Some(forecast) => forecast,
            None => return Ok(Exit::Failed),
        },
        None => {
            let path = format!("/api/v1/forecast?from={from}&days={}", args.days);
            let answer = Reader::open(global).await?.get(&path).await?;
            serde_json::from_value(answer).context("this is not a forecast that this version reads")?
        }
    };
    match args.output {
        Format::Text => output::data(&to_text(&forecast)),
        Format::Json => output::json(&serde_json::to_value(&forecast)?),
        Format::Ics => output::data(&to_ics(&forecast, now)),
    }
    Ok(Exit::Done)
}

/// The forecast of plans on this machine; `None` where they are not valid, and what is wrong was shown.
async fn of_files(path: &Path, from: Timestamp, days: u32, global: &Global) -> Result<Option<Forecast>> {
    let policy = local::policy(global.settings.as_deref())?;
    let plans = local::read(path, &policy).await?;
    plans.show_diagnostics();
    if plans.diagnostics().iter().any(|diagnostic| diagnostic.is_error()) {
        output::error("plans that are not valid have no forecast");
        return Ok(None);
    }
    let until = end(from, days).context("it ends beyond the calendar")?;
    let desired = plans.desired();
    let wanted = |key: &Key| {
        let file = desired.get(key).map(|resource| &resource.meta.origin.file);
        plans.only.as_ref().is_none_or(|only| Some(only) == file)
    };
    let forecast = outlook(&desired, &BTreeMap::new(), (from, until), wanted);
    Ok(Some(forecast))
}
