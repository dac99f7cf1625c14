//! `muster render`: plans with every default and step written out.

use super::Global;
use super::exit::Exit;
use super::local;
use super::output;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Print plans with defaults and steps written out, as YAML.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// A folder, or one file in it.
    path: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// When the folder or the settings cannot be read.
pub async fn run(args: &RenderArgs, global: &Global) -> Result<Exit> {
    let policy = local::policy(global.settings.as_deref())?;
    let plans = local::read(&args.path, &policy).await?;
    if plans.diagnostics().iter().any(|diagnostic| diagnostic.is_error()) {
        plans.show_diagnostics();
        return Ok(Exit::Failed);
    }
    let desired = plans.desired();
    let documents: Vec<String> = desired
        .resources()
        .filter(|resource| {
            plans
                .only
                .as_ref()
                .is_none_or(|only| *only == resource.meta.origin.file)
        })
        .map(|resource| muster_core::spec::render::yaml(resource))
        .collect();
    output::data(&documents.join("---\n"));
    Ok(Exit::Done)
}
