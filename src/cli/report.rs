//! `muster report` and `muster compare`: what a run measured, out of the recorded document.

use super::Global;
use super::exit::Exit;
use super::output;
use super::reader::Reader;
use super::target;
use anyhow::Result;
use clap::{Args, ValueEnum};
use muster_core::report::style::TextOptions;
use muster_core::report::{Report, compare, junit, markdown, text};
use serde_json::Value;

/// Print the report of a finished run.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Its id, or the last digits that `get runs` shows.
    #[arg(value_name = "RUN")]
    run: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Compare two finished runs, metric by metric.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The run to compare with.
    #[arg(value_name = "BASE")]
    base: String,
    /// The run to look at.
    #[arg(value_name = "RUN")]
    run: String,
    /// How to print.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal.
    Text,
    /// The recorded document.
    Json,
    /// For CI servers.
    Junit,
    /// For a merge request.
    Markdown,
}

/// Prints a recorded report in one of its forms.
///
/// # Errors
/// When the document is not a report of a version this build reads.
pub fn print(document: &Value, format: Format) -> Result<()> {
    if format == Format::Json {
        output::json(document);
        return Ok(());
    }
    let report = Report::from_json(document)?;
    output::data(&match format {
        Format::Text | Format::Json => text::render(&report, options()),
        Format::Junit => junit::render(&report),
        Format::Markdown => markdown::render(&report),
    });
    Ok(())
}

/// Runs `report`.
///
/// # Errors
/// When there is no such run or it is not finished.
pub async fn run(args: &ReportArgs, global: &Global) -> Result<Exit> {
    let reader = Reader::open(global).await?;
    let document = reader
        .get(&format!("/api/v1/runs/{}/report", target::run(&args.run)))
        .await?;
    print(&document, args.output)?;
    Ok(Exit::Done)
}

/// Runs `compare`.
///
/// # Errors
/// When there is no such run or one is not finished.
pub async fn run_compare(args: &CompareArgs, global: &Global) -> Result<Exit> {
    let reader = Reader::open(global).await?;
    let mut reports = Vec::new();
    for run in [&args.base, &args.run] {
        let document = reader.get(&format!("/api/v1/runs/{}/report", target::run(run))).await?;
        reports.push(Report::from_json(&document)?);
    }
    let comparison = compare::compare(&reports[0], &reports[1]);
    if args.output == "json" {
        output::json(&comparison.to_json());
    } else {
        output::data(&comparison.to_text(options()));
    }
    Ok(Exit::Done)
}

/// How texts are set on this terminal: a locale that says C or POSIX shows no signs beyond ASCII.
fn options() -> TextOptions {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    TextOptions {
        color: output::stdout_color(),
        ascii: matches!(locale.as_deref(), Some("C" | "POSIX")),
        ..TextOptions::default()
    }
}
