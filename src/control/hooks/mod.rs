//! Runs hooks: commands in a process group of their own, HTTP requests under the target rules. Each within its timeout.

pub mod command;
mod http;
#[cfg(test)]
mod tests;

pub use crate::runtime::command::{OUTPUT_MAX, Outcome};

use crate::runtime::clock::Clock;
use crate::runtime::processes::Marks;
use crate::runtime::secrets::Secrets;
use muster_core::model::plan::{Hook, HookAction};
use muster_core::model::policy::TargetRules;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a daemon that was killed left of a hook dies at once, but where its host hangs in a disk.
const LEFTOVERS_DEADLINE: Duration = Duration::from_secs(5);

/// Runs hooks below one folder.
#[derive(Debug, Clone)]
pub struct Hooks {
    folder: PathBuf,
    clock: Clock,
}

/// One hook with all it needs.
#[derive(Clone)]
pub struct HookRun {
    /// What to do.
    pub hook: Hook,
    /// What `${NAME}` stands for.
    pub variables: BTreeMap<String, String>,
    /// Added to a command's environment.
    pub env: BTreeMap<String, String>,
    /// Where requests may go.
    pub targets: TargetRules,
    /// Whether commands may run on this host (promise 58).
    pub commands_allowed: bool,
    /// The script's content, where the hook has one.
    pub script: Option<Arc<[u8]>>,
    /// Where values of secrets come from.
    pub secrets: Arc<dyn Secrets>,
}

impl Hooks {
    /// Commands get their own folders below `folder`.
    pub fn new(folder: PathBuf, clock: Clock) -> Self {
        Self { folder, clock }
    }

    /// Ends what a killed daemon's command hooks of a run left behind, before any of them is repeated or given up (promises 17, 42).
    ///
    /// # Errors
    /// What is still there, for people.
    pub async fn end_leftovers(&self, run: &str) -> Result<(), String> {
        let marks = marks(run);
        let killed = tokio::task::spawn_blocking(move || marks.kill(Instant::now() + LEFTOVERS_DEADLINE)).await;
        match killed {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs one hook to its end or its timeout. Dropped half-way: its processes are killed.
    pub async fn run(&self, run: HookRun) -> Outcome {
        match &run.hook.action {
            HookAction::Command { command, env, .. } => command::run(self, &run, command, env).await,
            HookAction::Http {
                method,
                url,
                headers,
                secret_headers,
                body,
            } => {
                let request = http::Request {
                    method: *method,
                    url,
                    headers,
                    secret_headers,
                    body: body.as_deref(),
                };
                http::send(&run, request).await
            }
        }
    }
}

/// All command hooks of a run carry one tag. A run's id is used once in the world, so nothing needs to be on disk to find them.
fn marks(run: &str) -> Marks {
    Marks {
        tag: format!("hook.{run}"),
        group: None,
    }
}

/// Puts values in for `${NAME}`; a name that is not known stays as it is.
pub fn substitute(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("${") {
        let (before, from) = rest.split_at(begin);
        out.push_str(before);
        let value = from
            .find('}')
            .and_then(|end| Some((variables.get(&from[2..end])?, end)));
        match value {
            Some((value, end)) => {
                out.push_str(value);
                rest = &from[end + 1..];
            }
            None => {
                out.push_str("${");
                rest = &from[2..];
            }
        }
    }
    out.push_str(rest);
    out
}
