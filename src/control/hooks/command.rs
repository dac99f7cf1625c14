//! Command hooks: what a hook's command, environment and secrets come to, on this host or on a worker.

use super::{HookRun, Hooks, marks, substitute};
use crate::runtime::command::{Job, Outcome, folder_name};
use muster_core::base::chain::chain;
use muster_core::model::service::{EnvValue, EnvVar};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;

/// A command as it is to be run, with every name put in.
pub struct Resolved {
    /// Program and arguments.
    pub words: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Values that nothing of it may show.
    pub secrets: Vec<SecretString>,
}

/// Puts names and secrets in.
///
/// # Errors
/// Where a secret is not to be had, for people.
pub fn resolve(run: &HookRun, command: &[String], env: &[EnvVar]) -> Result<Resolved, String> {
    let mut resolved = Resolved {
        words: command.iter().map(|word| substitute(word, &run.variables)).collect(),
        env: run.variables.clone(),
        secrets: Vec::new(),
    };
    resolved.env.extend(run.env.clone());
    for variable in env {
        let value = match &variable.value {
            EnvValue::Plain(text) => substitute(text, &run.variables),
            EnvValue::Secret(secret) => {
                let value = run.secrets.get(secret).map_err(|error| chain(&error))?;
                let text = value.expose_secret().to_owned();
                resolved.secrets.push(value);
                text
            }
        };
        resolved.env.insert(variable.name.clone(), value);
    }
    Ok(resolved)
}

/// Runs a command hook on this host.
pub(super) async fn run(hooks: &Hooks, run: &HookRun, command: &[String], env: &[EnvVar]) -> Outcome {
    if !run.commands_allowed {
        return Outcome::failed("the settings do not let plans run commands on this host (process: {enabled: true})");
    }
    let resolved = match resolve(run, command, env) {
        Ok(resolved) => resolved,
        Err(reason) => return Outcome::failed(reason),
    };
    let run_id = run.variables.get("RUN_ID").map_or("run", String::as_str);
    let job = Job {
        folder: hooks.folder.join(run_id).join(folder_name(&run.hook.name)),
        words: resolved.words,
        script: run.script.clone(),
        env: resolved.env,
        tag: marks(run_id).tag,
        timeout: run.hook.timeout,
    };
    job.run(&hooks.clock).await.without(&resolved.secrets)
}
