//! `muster watch` and the progress of `run` and `start --wait`: a moving bar for a person, plain lines elsewhere, all on stderr.

use super::Global;
use super::exit::Exit;
use super::output;
use super::reader::client;
use super::steer::TargetArgs;
use super::text::{short_id, word};
use super::wire::{Client, WireError};
use super::workers;
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use muster_core::base::units::counted;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Follow a run until it ends; its report is `muster report RUN`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    run: TargetArgs,
}

/// How long the daemon may hold an answer back.
const WAIT: Duration = Duration::from_secs(10);
/// Where nobody watches a bar, a line so often beside those for each new stage: a log of an hour stays readable.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// A daemon that restarts is away for seconds; a run outlives it (promise 42), and so does the one who waits.
const AWAY_MAX: Duration = Duration::from_secs(120);
/// Between two tries to reach a daemon that is away.
const RETRY: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// When there is no such run or the daemon stays away.
pub async fn run(args: &WatchArgs, global: &Global) -> Result<Exit> {
    let client = client(global)?;
    let text = args.run.word();
    // A daemon that goes away meanwhile is waited for; one that is not there at all is not.
    client.get("/livez").await?;
    let ended = follow(&client, super::target::run(&text)).await?;
    output::data(&format!(
        "run {} ended: {}",
        short_id(&ended["id"]),
        word(&ended["ending"])
    ));
    Ok(Exit::Done)
}

/// Shows a daemon's run until it is Finished; returns its row.
///
/// # Errors
/// When there is no such run or the daemon stays away.
pub async fn follow(client: &Client, id: &str) -> Result<Value> {
    let mut progress = Progress::new();
    let mut after = 0;
    let mut away: Option<Instant> = None;
    loop {
        let path = format!("/api/v1/runs/{id}/live?after={after}&waitSeconds={}", WAIT.as_secs());
        let answer = match client.get_waiting(&path, WAIT).await {
            Ok(answer) => answer,
            Err(error @ (WireError::Unreachable { .. } | WireError::Refused { status: 503, .. })) => {
                let since = *away.get_or_insert_with(|| {
                    progress.line("the daemon is away; waiting for it");
                    Instant::now()
                });
                anyhow::ensure!(since.elapsed() < AWAY_MAX, "{error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        away = None;
        after = answer["version"].as_u64().unwrap_or(0);
        if !answer["live"].is_null() {
            progress.show_with_workers(&answer["live"], &answer["each"]);
        }
        if answer["run"]["stage"] == "Finished" {
            progress.finish();
            return Ok(answer["run"].clone());
        }
        if answer["live"].is_null() {
            // Nobody drives it at the moment: it is being adopted, or waits to be.
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The progress of one run.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
    shown: Option<Instant>,
}

impl Progress {
    /// A bar where stderr is a terminal, lines elsewhere, nothing with `-q`.
    pub fn new() -> Self {
        let bar = (output::stderr_is_terminal() && !output::is_quiet()).then(|| {
            let template = if output::stderr_color() {
                "{bar:24.green/dim} {msg}"
            } else {
                "{bar:24} {msg}"
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(1).with_style(style.progress_chars("━━─"))
        });
        Self {
            bar,
            last: String::new(),
            shown: None,
        }
    }

    /// Shows a live view.
    pub fn show(&mut self, live: &Value) {
        self.show_with_workers(live, &Value::Null);
    }

    /// Shows a live view with the workers that need eyes below it.
    fn show_with_workers(&mut self, live: &Value, each: &Value) {
        let stage = stage(live);
        // Once load is over the rates of its last seconds say nothing any more.
        let loads = matches!(live["stage"].as_str(), Some("Running" | "Paused" | "Draining"));
        let numbers = if loads { numbers(live) } else { String::new() };
        if let Some(bar) = &self.bar {
            let (done, planned) = self::elapsed(live);
            bar.set_length(planned.max(1));
            bar.set_position(done.min(planned));
            let table = if loads { workers::worst(each) } else { String::new() };
            bar.set_message(format!("{stage}  {numbers}\n{table}").trim_end().to_owned());
            return;
        }
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= LINE_INTERVAL);
        if stage != self.last || (due && !numbers.is_empty()) {
            output::progress(format!("{stage}  {numbers}").trim_end());
            if due && !numbers.is_empty() {
                let table = workers::worst(each);
                for line in table.lines() {
                    output::progress(&format!("  {}", line.trim_end()));
                }
            }
            self.last = stage;
            self.shown = Some(Instant::now());
        }
    }

    /// A line of its own, above the bar where there is one.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => output::progress(text),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Stage and phase, with what the run waits for.
fn stage(live: &Value) -> String {
    let stage = word(&live["stage"]);
    let workers = &live["workers"];
    match stage.as_str() {
        "Provisioning" => {
            let wanted = workers["wanted"].as_u64().unwrap_or_default();
            format!(
                "Provisioning  {}",
                counted(usize::try_from(wanted).unwrap_or(usize::MAX), "worker")
            )
        }
        "Running" | "Paused" => {
            let phase = &live["phase"];
            let place = format!("{}/{}", phase["index"].as_u64().unwrap_or(0) + 1, word(&phase["of"]));
            let waits = if phase["waitsForResume"] == true {
                "  waits for `muster resume`"
            } else {
                ""
            };
            format!("{stage}  {} {place}{waits}", word(&phase["name"]))
        }
        _ => match live["hook"].as_str() {
            Some(hook) => format!("{stage}  hook {hook}"),
            None => stage,
        },
    }
}

/// Milliseconds of load so far and as planned.
fn elapsed(live: &Value) -> (u64, u64) {
    let done = live["numbers"]["second"].as_u64().unwrap_or(0) * 1_000;
    (done, live["plannedMs"].as_u64().unwrap_or(0))
}

fn numbers(live: &Value) -> String {
    let numbers = &live["numbers"];
    if numbers["requests"].as_u64().unwrap_or(0) == 0 && numbers["iterations"].as_u64().unwrap_or(0) == 0 {
        return String::new();
    }
    let number = |name: &str| numbers[name].as_f64();
    let mut parts = vec![
        format!("{}s", word(&numbers["second"])),
        format!("{} VUs", word(&numbers["vus"])),
        format!("{:.0} req/s", number("requestsPerS").unwrap_or(0.0)),
    ];
    if let Some(p95) = number("p95Ms") {
        parts.push(format!("p95 {p95:.1} ms"));
    }
    if let Some(share) = number("failedShare") {
        parts.push(format!("failed {:.2}%", share * 100.0));
    }
    if let Some(dropped) = numbers["dropped"].as_u64().filter(|dropped| *dropped > 0) {
        parts.push(format!("dropped {dropped}"));
    }
    let broken = live["thresholds"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|threshold| threshold["passed"] == false && threshold["noSamples"] != true)
        .count();
    if broken > 0 {
        parts.push(format!("{broken} threshold(s) broken"));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::{numbers, stage};
    use serde_json::json;

    #[test]
    fn a_line_says_stage_phase_and_numbers() {
        let live = json!({"stage": "Running", "phase": {"index": 1, "of": 4, "name": "steady", "waitsForResume": false},
            "workers": {"wanted": 1}, "plannedMs": 10_000,
            "numbers": {"second": 3, "vus": 5, "requests": 30, "iterations": 30, "failed": 0, "dropped": 2,
                "requestsPerS": 10.2, "iterationsPerS": 10.2, "failedShare": 0.0, "p95Ms": 1.25},
            "thresholds": [{"passed": false}, {"passed": true}, {"passed": false, "noSamples": true}]});
        assert_eq!(stage(&live), "Running  steady 2/4");
        assert_eq!(
            numbers(&live),
            "3s  5 VUs  10 req/s  p95 1.2 ms  failed 0.00%  dropped 2  1 threshold(s) broken"
        );
        assert_eq!(
            stage(&json!({"stage": "Preparing", "hook": "seed"})),
            "Preparing  hook seed"
        );
        assert_eq!(numbers(&json!({"numbers": {"requests": 0, "iterations": 0}})), "");
    }
}
