//! Hooks that run on every worker of a run, before load.

use super::context::Context;
use crate::control::fleet::{HookOrder, Progress};
use crate::control::hooks::command::resolve;
use crate::control::hooks::{HookRun, OUTPUT_MAX, Outcome};
use muster_core::model::id::WorkerId;
use muster_core::model::plan::HookAction;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often workers' answers are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Beyond the hook's own timeout, which each worker keeps: for fetching its script, for killing it, for the way back.
const MARGIN: Duration = Duration::from_secs(60);

/// Has every worker run the hook's command, and waits for all. One that fails is the hook's failure.
pub(super) async fn run(context: &Context, run: HookRun) -> Outcome {
    let fleet = &context.shared.parts.fleet;
    let workers = context.state().workers;
    let views = fleet.workers();
    let mut unwilling = views
        .iter()
        .filter(|view| workers.contains(&view.id) && !view.allows_commands);
    if let Some(first) = unwilling.next() {
        return Outcome::failed(format!(
            "{} of {} workers run no commands of plans, {} among them: start them with --allow-commands",
            unwilling.count() + 1,
            workers.len(),
            first.name()
        ));
    }
    let (orders, secrets) = match orders(&run, &workers) {
        Ok(orders) => orders,
        Err(reason) => return Outcome::failed(reason),
    };
    while fleet.hook(context.run(), orders.clone()).is_err() {
        // A run that was adopted is known once its workers are.
        context.sleep(LOOK).await;
    }
    let deadline = context.shared.parts.clock.instant() + run.hook.timeout + MARGIN;
    loop {
        let ended = answers(&fleet.progress(context.run()), &workers, &run.hook.name);
        let missing = ended.values().filter(|answer| answer.is_none()).count();
        let is_late = context.shared.parts.clock.instant() >= deadline;
        if missing == 0 || is_late {
            return together(&ended, missing).without(&secrets);
        }
        context.sleep(LOOK).await;
    }
}

type Orders = (BTreeMap<WorkerId, HookOrder>, Vec<secrecy::SecretString>);

fn orders(run: &HookRun, workers: &[WorkerId]) -> Result<Orders, String> {
    let HookAction::Command {
        command, env, script, ..
    } = &run.hook.action
    else {
        return Err("only commands run on workers".to_owned());
    };
    let (mut orders, mut secrets) = (BTreeMap::new(), Vec::new());
    for (index, worker) in workers.iter().enumerate() {
        let mut own = run.clone();
        own.variables.insert("WORKER_INDEX".to_owned(), index.to_string());
        let resolved = resolve(&own, command, env)?;
        let env = resolved.env.into_iter().map(|(name, value)| (name, value.into()));
        let order = HookOrder {
            name: run.hook.name.clone(),
            words: resolved.words,
            env: env.collect(),
            script: script.as_ref().map(|(_, digest)| digest.to_string()),
            timeout: run.hook.timeout,
        };
        orders.insert(*worker, order);
        secrets = resolved.secrets;
    }
    Ok((orders, secrets))
}

type Answers = BTreeMap<usize, Option<Result<(), String>>>;

/// What each worker, by its index, has said of the hook.
fn answers(progress: &BTreeMap<WorkerId, Vec<Progress>>, workers: &[WorkerId], hook: &str) -> Answers {
    let answer = |worker: &WorkerId| {
        progress.get(worker)?.iter().find_map(|milestone| match milestone {
            Progress::HookEnded { name, result } if name == hook => Some(result.clone()),
            _ => None,
        })
    };
    workers.iter().map(answer).enumerate().collect()
}

/// What became of it as a whole: the first reason, and each worker's that failed.
fn together(answers: &Answers, missing: usize) -> Outcome {
    let failures: Vec<String> = answers
        .iter()
        .filter_map(|(index, answer)| match answer {
            Some(Err(reason)) => Some(format!("worker {index}: {reason}")),
            None => Some(format!("worker {index} has not answered")),
            Some(Ok(())) => None,
        })
        .collect();
    let mut output = failures.join("\n");
    let end = output.floor_char_boundary(OUTPUT_MAX);
    output.truncate(end);
    match failures.first() {
        None => Outcome {
            result: Ok(()),
            output: format!("on {} workers", answers.len()),
        },
        Some(first) if failures.len() == 1 && missing == 0 => Outcome::failed(first.clone()),
        Some(first) => Outcome {
            result: Err(format!(
                "{} of {} workers failed: {first}",
                failures.len(),
                answers.len()
            )),
            output,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{answers, together};
    use crate::control::fleet::Progress;
    use muster_core::model::id::WorkerId;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    fn ended(name: &str, result: Result<(), &str>) -> Progress {
        Progress::HookEnded {
            name: name.to_owned(),
            result: result.map_err(str::to_owned),
        }
    }

    #[test]
    fn all_workers_must_have_succeeded() {
        let workers: Vec<WorkerId> = (0..3).map(|id| WorkerId(Uuid::from_u128(id))).collect();
        let told = |third: Vec<Progress>| {
            let first = vec![Progress::Prepared, ended("other", Err("no")), ended("warm", Ok(()))];
            let all = BTreeMap::from([(workers[0], first.clone()), (workers[1], first), (workers[2], third)]);
            answers(&all, &workers, "warm")
        };
        let table = [
            (vec![ended("warm", Ok(()))], Ok(())),
            (
                vec![ended("warm", Err("exit status: 3"))],
                Err("worker 2: exit status: 3"),
            ),
            (
                vec![ended("other", Ok(()))],
                Err("1 of 3 workers failed: worker 2 has not answered"),
            ),
        ];
        for (third, expected) in table {
            let answers = told(third);
            let missing = answers.values().filter(|answer| answer.is_none()).count();
            assert_eq!(together(&answers, missing).result, expected.map_err(str::to_owned));
        }
    }
}
