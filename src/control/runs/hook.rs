//! Runs the hooks of a run so that none is repeated that must not be (promise 42).

use super::context::Context;
use super::on_workers;
use crate::control::hooks::{HookRun, Outcome};
use crate::store::StoreError;
use crate::store::rows::HookRow;
use muster_core::base::chain::chain;
use muster_core::lifecycle::event::Event;
use muster_core::model::plan::{Hook, HookAction};
use muster_core::model::run::Severity;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pause before a row is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The end of a hook is told after so long even where it cannot be written down.
const WRITE: Duration = Duration::from_secs(30);

/// Runs a hook, unless it ran already: its row is written before it starts and after it ended (promise 42).
pub(super) async fn run_hook(context: &Context, index: u32, attempt: u32) {
    let Some(hook) = context
        .pinned
        .plan
        .hooks
        .get(usize::try_from(index).unwrap_or(usize::MAX))
    else {
        return;
    };
    let (row, script) = loop {
        match begin_hook(context, hook, attempt).await {
            Ok(Begun::Run(row, script)) => break (row, script),
            Ok(Begun::Ended(result)) => {
                return context
                    .tell(Event::HookEnded {
                        hook: index,
                        attempt,
                        result,
                    })
                    .await;
            }
            Err(error) => {
                tracing::warn!(run = %context.run(), hook = hook.name, error = %chain(&error), "hook cannot be noted yet")
            }
        }
        context.sleep(RETRY).await;
    };
    let run = hook_run(context, hook, script);
    let Outcome { result, output } = if on_workers(hook) {
        on_workers::run(context, run).await
    } else {
        context.shared.hooks.run(run).await
    };
    let row = HookRow {
        finished_at: Some(context.now()),
        succeeded: Some(result.is_ok()),
        message: match &result {
            Ok(()) => output,
            Err(reason) if output.is_empty() => reason.clone(),
            Err(reason) => format!("{reason}\n{output}"),
        },
        ..row
    };
    context
        .log(
            if result.is_ok() {
                Severity::Normal
            } else {
                Severity::Warning
            },
            if result.is_ok() { "HookSucceeded" } else { "HookFailed" },
            match &result {
                Ok(()) => format!("hook {}", hook.name),
                Err(reason) => format!("hook {}: {reason}", hook.name),
            },
        )
        .await;
    // Its end is known here whether or not the row can be written: nobody else may repeat it.
    let written = tokio::time::timeout(WRITE, context.shared.parts.stores.ledger.put_hook(&row)).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::warn!(run = %context.run(), hook = hook.name, "end of a hook could not be noted");
    }
    context
        .tell(Event::HookEnded {
            hook: index,
            attempt,
            result,
        })
        .await;
}

fn on_workers(hook: &Hook) -> bool {
    matches!(hook.action, HookAction::Command { on_workers: true, .. })
}

enum Begun {
    Run(HookRow, Option<Arc<[u8]>>),
    Ended(Result<(), String>),
}

async fn begin_hook(context: &Context, hook: &Hook, attempt: u32) -> Result<Begun, StoreError> {
    let ledger = &context.shared.parts.stores.ledger;
    if attempt == 1 {
        let rows = ledger.hooks(context.run()).await?;
        if let Some(row) = rows.into_iter().find(|row| row.name == hook.name) {
            match row.succeeded {
                Some(true) => return Ok(Begun::Ended(Ok(()))),
                Some(false) => return Ok(Begun::Ended(Err(row.message))),
                // A worker runs it once however often it is told, so it is only waited for again.
                None if !hook.idempotent && !on_workers(hook) => {
                    let reason = "the daemon was restarted while it ran; it is not idempotent, so it is not repeated";
                    return Ok(Begun::Ended(Err(reason.to_owned())));
                }
                None => {}
            }
        }
    }
    let script = match &hook.action {
        HookAction::Command {
            script: Some((_, digest)),
            ..
        } => ledger.blob(digest.as_str()).await?.map(Arc::from),
        _ => None,
    };
    let row = HookRow {
        run: context.run(),
        name: hook.name.clone(),
        started_at: context.now(),
        finished_at: None,
        succeeded: None,
        message: String::new(),
    };
    ledger.put_hook(&row).await?;
    Ok(Begun::Run(row, script))
}

fn hook_run(context: &Context, hook: &Hook, script: Option<Arc<[u8]>>) -> HookRun {
    let plan = &context.identity.plan;
    let variables = [
        ("RUN_ID", context.run().to_string()),
        ("PLAN", format!("{}/{}", plan.project, plan.name)),
        ("REVISION", context.identity.revision.to_string()),
        ("WORKER_COUNT", context.plan.workers.to_string()),
    ];
    HookRun {
        hook: hook.clone(),
        variables: variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
        env: context.pinned.env.clone(),
        targets: context.pinned.targets.clone(),
        commands_allowed: context.pinned.commands_allowed,
        script,
        secrets: context.shared.parts.world.secrets(),
    }
}
