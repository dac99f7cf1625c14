//! `muster describe`: everything known of one thing, with its newest events.

use super::Global;
use super::exit::Exit;
use super::output::{self, Tone, paint};
use super::reader::Reader;
use super::steer::TargetArgs;
use super::target;
use super::text::{age, instant, word};
use super::workers;
use anyhow::Result;
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;

/// Everything known of a plan, service, environment, pool, run or worker.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// How to print.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Events shown.
const EVENTS: u32 = 10;

/// Runs the command.
///
/// # Errors
/// When there is no such thing.
pub async fn run(args: &DescribeArgs, global: &Global) -> Result<Exit> {
    let reader = Reader::open(global).await?;
    let text = args.target.word();
    if let Some(id) = text.strip_prefix("worker/") {
        let worker = reader.get(&format!("/api/v1/workers/{id}")).await?;
        if args.output == "json" {
            output::json(&worker);
        } else {
            let mut out = String::new();
            for (label, value) in workers::describe(&worker) {
                line(&mut out, label, &value);
            }
            output::data(&out);
        }
        return Ok(Exit::Done);
    }
    let (value, about) = match text.strip_prefix("run/") {
        Some(id) => {
            let run = reader.get(&format!("/api/v1/runs/{id}")).await?;
            let about = format!("run/{}", word(&run["id"]));
            (run, about)
        }
        None => {
            let key = target::resource(&text)?;
            (reader.get(&format!("/api/v1/resources/{key}")).await?, key.to_string())
        }
    };
    if args.output == "json" {
        output::json(&value);
        return Ok(Exit::Done);
    }
    let mut out = if about.starts_with("run/") {
        describe_run(&value)
    } else {
        describe_resource(&value)
    };
    let events = reader
        .get(&format!("/api/v1/events?about={about}&limit={EVENTS}"))
        .await?;
    section(&mut out, "Events", events["items"].as_array(), |event| {
        format!(
            "{:>6}  {:<20} {}",
            age(&event["at"], None),
            word(&event["reason"]),
            word(&event["message"])
        )
    });
    output::data(&out);
    Ok(Exit::Done)
}

fn describe_run(run: &Value) -> String {
    let mut out = String::new();
    for (label, value) in [
        ("Run", word(&run["id"])),
        ("Plan", format!("{}/{}", word(&run["project"]), word(&run["plan"]))),
        ("Stage", word(&run["stage"])),
        ("Ending", word(&run["ending"])),
        (
            "Started by",
            format!("{} ({})", word(&run["trigger"]["who"]), word(&run["trigger"]["kind"])),
        ),
        ("Revision", word(&run["revision"])),
        ("Digest", word(&run["digest"])),
        ("Created", instant(&run["createdAt"])),
        ("Load began", instant(&run["startedAt"])),
        ("Finished", instant(&run["finishedAt"])),
    ] {
        line(&mut out, label, &value);
    }
    section(&mut out, "Workers", run["workers"].as_array(), |worker| {
        let detail = &worker["detail"];
        let lost = detail["lost"]
            .as_str()
            .map_or_else(String::new, |reason| format!("  lost: {reason}"));
        format!(
            "{}  {}  {}{lost}",
            word(&worker["index"]),
            word(&detail["name"]),
            word(&worker["worker"])
        )
    });
    section(&mut out, "Hooks", run["hooks"].as_array(), |hook| {
        let outcome = match hook["succeeded"].as_bool() {
            Some(true) => "succeeded",
            Some(false) => "failed",
            None => "running",
        };
        format!("{:<20} {outcome}  {}", word(&hook["name"]), word(&hook["message"]))
    });
    out
}

fn describe_resource(resource: &Value) -> String {
    let mut out = String::new();
    for (label, value) in [
        ("Name", word(&resource["name"])),
        ("Kind", word(&resource["kind"])),
        ("Project", word(&resource["project"])),
        (
            "File",
            format!("{}:{}", word(&resource["file"]), word(&resource["line"])),
        ),
        ("Owner", word(&resource["owner"])),
        ("Runbook", word(&resource["runbook"])),
        ("Digest", word(&resource["digest"])),
        ("Applied", word(&resource["appliedRevision"])),
        ("Sync", word(&resource["sync"])),
        ("Health", word(&resource["health"])),
    ] {
        line(&mut out, label, &value);
    }
    if let Some(free) = resource["workers"]["free"].as_u64() {
        let workers = &resource["workers"];
        let text = format!(
            "{} connected: {} busy, {free} free",
            word(&workers["connected"]),
            word(&workers["busy"])
        );
        line(&mut out, "Workers", &text);
    }
    if let Some(suspended) = resource["suspended"].as_object() {
        let text = format!("{} (by {})", word(&suspended["reason"]), word(&suspended["who"]));
        line(&mut out, "Suspended", &text);
    }
    section(&mut out, "Conditions", resource["conditions"].as_array(), |condition| {
        format!(
            "{:<12} {:<8} {:<20} {}",
            word(&condition["type"]),
            word(&condition["status"]),
            word(&condition["reason"]),
            word(&condition["message"])
        )
    });
    section(&mut out, "Units", resource["units"].as_array(), |unit| {
        format!(
            "{:<32} {:<10} {}",
            word(&unit["name"]),
            word(&unit["state"]),
            word(&unit["reason"])
        )
    });
    let _ = writeln!(out, "\n{}", heading("Document"));
    for text in muster_core::spec::render::yaml_of(&resource["document"]).lines() {
        let _ = writeln!(out, "  {text}");
    }
    out
}

fn line(out: &mut String, label: &str, value: &str) {
    if value != "-" {
        let _ = writeln!(out, "{:<12} {value}", format!("{label}:"));
    }
}

fn heading(title: &str) -> String {
    paint(&format!("{title}:"), Tone::Strong, output::stdout_color())
}

fn section(out: &mut String, title: &str, items: Option<&Vec<Value>>, show: impl Fn(&Value) -> String) {
    if let Some(items) = items.filter(|items| !items.is_empty()) {
        let _ = writeln!(out, "\n{}", heading(title));
        for item in items {
            let _ = writeln!(out, "  {}", show(item).trim_end());
        }
    }
}
