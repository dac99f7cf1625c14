//! Commands of plans that a worker runs before load (hooks with `onWorkers`): each once in a run, however often it is told.

use super::assignment::Board;
use super::fetch;
use crate::bus::dial::Dial;
use crate::bus::wire::{self, progress};
use crate::runtime::clock::Clock;
use crate::runtime::command::{Job, Outcome, folder_name};
use crate::runtime::guard::Guard;
use muster_core::base::chain::chain;
use muster_core::model::id::{RunId, SessionId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Commands of one run; a plan has a handful of hooks.
const COMMANDS_MAX: usize = 64;
/// Where they run, below the worker's own folder, so that nobody else can lay something there.
const FOLDER: &str = ".muster/hooks";

/// The commands of the run that is held.
#[derive(Debug)]
pub(super) struct Commands {
    /// Whether whoever started this worker lets it run any.
    allowed: bool,
    /// By name, also those that ended.
    begun: BTreeMap<String, AbortOnDropHandle<()>>,
}

impl Commands {
    pub fn new(allowed: bool) -> Self {
        Self {
            allowed,
            begun: BTreeMap::new(),
        }
    }

    /// Begins a command unless it was begun; its end goes on the board.
    pub fn begin(&mut self, run: RunId, dial: &Dial, board: &watch::Sender<Board>, hook: wire::Hook) {
        let Some((_, session)) = board.borrow().held else {
            return;
        };
        if self.begun.contains_key(&hook.name) || self.begun.len() >= COMMANDS_MAX {
            return;
        }
        let (name, dial, board, allowed) = (hook.name.clone(), dial.clone(), board.clone(), self.allowed);
        let told = name.clone();
        let task = tokio::spawn(async move {
            let outcome = match allowed {
                true => work(run, session, &dial, hook).await,
                false => Outcome::failed("this worker runs no commands of plans"),
            };
            board.send_modify(|board| {
                if board.held.is_some_and(|(held, _)| held == run) {
                    board.history.push(ended(told, outcome));
                }
            });
        });
        self.begun.insert(name, AbortOnDropHandle::new(task));
    }

    /// The run is let go of: what still runs is killed.
    pub fn forget(&mut self) {
        self.begun.clear();
    }
}

async fn work(run: RunId, session: SessionId, dial: &Dial, hook: wire::Hook) -> Outcome {
    let mut script = None;
    if !hook.script.is_empty() {
        match fetch::fetch(dial, std::slice::from_ref(&hook.script)).await {
            Ok(mut files) => script = files.remove(&hook.script),
            Err(error) => return Outcome::failed(chain(&error)),
        }
    }
    let folder = match std::path::absolute(FOLDER) {
        Ok(folder) => folder.join(run.to_string()).join(folder_name(&hook.name)),
        Err(error) => return Outcome::failed(format!("this worker has no folder: {error}")),
    };
    // Of this worker alone, and another one than that of the daemon's hooks: a daemon that adopts the run ends what is left of those, and
    // waits for these.
    let tag = format!("worker-hook.{session}.{}", hook.name);
    // Whatever becomes of this worker, nothing of its hook goes on.
    let _guard = match Guard::start(&tag) {
        Ok(guard) => guard,
        Err(error) => return Outcome::failed(format!("cannot watch over the command: {error}")),
    };
    let job = Job {
        folder,
        words: hook.command,
        script,
        env: hook
            .env
            .into_iter()
            .map(|variable| (variable.name, variable.value))
            .collect(),
        tag,
        timeout: Duration::from_millis(hook.timeout_ms),
    };
    job.run(&Clock::system()).await
}

fn ended(name: String, outcome: Outcome) -> progress::What {
    let message = match (&outcome.result, outcome.output.is_empty()) {
        (Ok(()), _) => outcome.output.clone(),
        (Err(reason), true) => reason.clone(),
        (Err(reason), false) => format!("{reason}: {}", outcome.output),
    };
    progress::What::HookEnded(wire::HookEnded {
        name,
        succeeded: outcome.result.is_ok(),
        message,
    })
}
