//! `muster events`: what happened, oldest first.

use super::Global;
use super::exit::Exit;
use super::output::{self, Tone, paint};
use super::reader::Reader;
use super::target::about;
use super::text::{instant, word};
use anyhow::Result;
use clap::Args;
use serde_json::Value;
use std::time::Duration;

/// What happened: to everything, or to one thing.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only about this: plan/NAME, service/NAME, run/ID, unit/NAME.
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    /// Go on as they happen, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
    /// One JSON object a line.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// How long the daemon may hold an answer back; below every proxy's idle timeout.
const WAIT: Duration = Duration::from_secs(20);

/// Runs the command.
///
/// # Errors
/// When nobody answers.
pub async fn run(args: &EventsArgs, global: &Global) -> Result<Exit> {
    let reader = Reader::open(global).await?;
    let filter = match &args.about {
        Some(text) => format!("&about={}", about(text)?),
        None => String::new(),
    };
    let mut after = 0;
    loop {
        let wait = if args.watch && after > 0 {
            format!("&waitSeconds={}", WAIT.as_secs())
        } else {
            String::new()
        };
        let answer = reader
            .get_waiting(&format!("/api/v1/events?after={after}{filter}{wait}"), WAIT)
            .await?;
        for event in answer["items"].as_array().into_iter().flatten() {
            after = event["sequence"].as_u64().unwrap_or(after).max(after);
            output::data(&if args.output == "json" {
                event.to_string()
            } else {
                line(event)
            });
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        // A filter that matches nothing must not make this loop spin.
        after = answer["last"].as_u64().unwrap_or(after).max(after).max(1);
    }
}

fn line(event: &Value) -> String {
    let warning = event["severity"] == "Warning";
    let reason = format!("{:<22}", word(&event["reason"]));
    let reason = paint(
        &reason,
        if warning { Tone::Warn } else { Tone::Good },
        output::stdout_color(),
    );
    format!(
        "{}  {reason}  {:<28}  {}",
        instant(&event["at"]),
        word(&event["about"]),
        word(&event["message"])
    )
}
