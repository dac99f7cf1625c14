//! `muster validate`: all errors of all files at once.

use super::Global;
use super::exit::Exit;
use super::local;
use super::output;
use super::reader::client;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use muster_core::model::policy::Policy;
use muster_core::spec::diagnostic::Diagnostic;
use serde_json::json;
use std::path::PathBuf;

/// Check plans: every error of every file, with its place, cause and hint. With --settings FILE or --server URL also against the
/// rules there: projects, kinds, targets, caps.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// A folder, or one file in it.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// How to print: text goes to stderr, JSON to stdout.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Runs the command.
///
/// # Errors
/// When the folder or the settings cannot be read.
pub async fn run(args: &ValidateArgs, global: &Global) -> Result<Exit> {
    let policy = policy(global).await?;
    let plans = local::read(&args.path, &policy).await?;
    let diagnostics = plans.diagnostics();
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let resources: usize = plans
        .loaded
        .projects
        .values()
        .map(|project| project.resources.len())
        .sum();
    if args.output == "json" {
        let valid = errors == 0;
        output::json(&json!({"formatVersion": 1, "valid": valid, "resources": resources,
            "ignoredDocuments": plans.loaded.ignored_documents, "diagnostics": diagnostics}));
        return Ok(if valid { Exit::Done } else { Exit::Failed });
    }
    plans.show_diagnostics();
    let ignored = match plans.loaded.ignored_documents {
        0 => String::new(),
        1 => ", 1 document of others ignored".to_owned(),
        many => format!(", {many} documents of others ignored"),
    };
    if errors > 0 {
        let files: std::collections::BTreeSet<&str> = diagnostics
            .iter()
            .map(|diagnostic: &&Diagnostic| diagnostic.file.as_str())
            .collect();
        output::error(&format!(
            "{errors} error{} in {} file{}{ignored}",
            plural(errors),
            files.len(),
            plural(files.len())
        ));
        return Ok(Exit::Failed);
    }
    if resources == 0 {
        output::error(&format!(
            "{} holds no plan; `muster init` writes a first one{ignored}",
            args.path.display()
        ));
        return Ok(Exit::Failed);
    }
    output::progress(&format!("{resources} resource{} valid{ignored}", plural(resources)));
    Ok(Exit::Done)
}

/// The rules that plans are held to: of `--settings FILE`, of the daemon at `--server URL`, or what can be said without either.
async fn policy(global: &Global) -> Result<Policy> {
    // `MUSTER_SERVER` says whom commands talk to; validating needs nobody unless it is asked for.
    let named = global.server.as_deref();
    let Some(server) = named.filter(|server| std::env::var("MUSTER_SERVER").as_deref() != Ok(server)) else {
        return local::policy(global.settings.as_deref());
    };
    if global.settings.is_some() {
        bail!("--settings and --server each name the rules\n  hint: give one of them");
    }
    let answer = client(global)?.get("/api/v1/policy").await?;
    serde_json::from_value(answer["policy"].clone())
        .with_context(|| format!("the daemon at {server} is of another version of muster: its rules cannot be read"))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
