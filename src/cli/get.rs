//! `muster get`: lists of plans, runs, slots, units, environments, workers and other resources.

use super::Global;
use super::exit::Exit;
use super::output;
use super::reader::Reader;
use super::text::{age, short_id, word};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use muster_core::spec::hint::did_you_mean;
use serde_json::{Value, json};
use std::time::Duration;

/// List plans, runs, slots, units, environments, pools, services, projects or workers.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to list, one or more: plans, runs, slots, units, environments, pools, services, projects, workers.
    #[arg(required = true, value_name = "KIND")]
    kinds: Vec<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Print again whenever something changed, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(Debug, Clone, Copy)]
enum List {
    Resources(&'static str),
    Runs,
    Slots,
    Units,
    Workers,
    Projects,
}

/// What can be listed, as people write it.
const KNOWN: [&str; 12] = [
    "plans",
    "runs",
    "slots",
    "units",
    "environments",
    "pools",
    "services",
    "kafkas",
    "ingests",
    "databases",
    "projects",
    "workers",
];

/// How often `-w` looks; the answers come from the daemon's memory.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

fn list_of(word: &str) -> Option<List> {
    Some(match word.to_ascii_lowercase().as_str() {
        "plan" | "plans" | "testplan" | "testplans" => List::Resources("TestPlan"),
        "environment" | "environments" | "env" => List::Resources("Environment"),
        "pool" | "pools" | "workerpool" | "workerpools" => List::Resources("WorkerPool"),
        "service" | "services" => List::Resources("Service"),
        "kafka" | "kafkas" | "kafkacluster" | "kafkaclusters" => List::Resources("KafkaCluster"),
        "ingest" | "ingests" | "ingestcluster" | "ingestclusters" => List::Resources("IngestCluster"),
        "database" | "databases" | "databasecluster" | "databaseclusters" => List::Resources("DatabaseCluster"),
        "run" | "runs" => List::Runs,
        "slot" | "slots" => List::Slots,
        "unit" | "units" => List::Units,
        "worker" | "workers" => List::Workers,
        "project" | "projects" => List::Projects,
        _ => return None,
    })
}

impl List {
    fn plural(self) -> &'static str {
        match self {
            Self::Resources("TestPlan") => "plans",
            Self::Resources("Environment") => "environments",
            Self::Resources("WorkerPool") => "pools",
            Self::Resources("KafkaCluster") => "kafkas",
            Self::Resources("IngestCluster") => "ingests",
            Self::Resources("DatabaseCluster") => "databases",
            Self::Resources(_) => "services",
            Self::Runs => "runs",
            Self::Slots => "slots",
            Self::Units => "units",
            Self::Workers => "workers",
            Self::Projects => "projects",
        }
    }

    fn path(self) -> String {
        match self {
            Self::Resources(kind) => format!("/api/v1/resources?kind={kind}"),
            Self::Runs => "/api/v1/runs".to_owned(),
            Self::Slots => "/api/v1/slots".to_owned(),
            Self::Units => "/api/v1/units".to_owned(),
            Self::Workers => "/api/v1/workers".to_owned(),
            Self::Projects => "/api/v1/projects".to_owned(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When a kind is unknown or nobody answers.
pub async fn run(args: &GetArgs, global: &Global) -> Result<Exit> {
    let mut lists = Vec::new();
    for kind in args.kinds.iter().flat_map(|kinds| kinds.split(',')) {
        let Some(list) = list_of(kind) else {
            let guess = did_you_mean(&kind.to_ascii_lowercase(), KNOWN).map(|guess| format!("; {guess}"));
            bail!(
                "`{kind}` cannot be listed{}\n  hint: known are {}",
                guess.unwrap_or_default(),
                KNOWN.join(", ")
            );
        };
        lists.push(list);
    }
    let reader = Reader::open(global).await?;
    let mut before = None;
    loop {
        let mut all = Vec::new();
        for list in &lists {
            all.push(reader.get(&list.path()).await?);
        }
        if before.as_ref() != Some(&all) {
            tell_of_source(&lists, &all);
            print(&lists, &all, args.output);
            before = Some(all);
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// A table of projects says how they stood; that nothing newer can be read belongs beside it.
fn tell_of_source(lists: &[List], answers: &[Value]) {
    for (_, answer) in lists
        .iter()
        .zip(answers)
        .filter(|(list, _)| matches!(list, List::Projects))
    {
        let source = &answer["source"];
        if source["state"] == "Failing" {
            output::warning(&format!(
                "the source cannot be read for {} ({}): {}; the last good state stays",
                age(&source["since"], None),
                word(&source["reason"]),
                word(&source["message"])
            ));
        }
    }
}

fn print(lists: &[List], answers: &[Value], format: Format) {
    if format == Format::Json || format == Format::Yaml {
        let items: Vec<&Value> = answers
            .iter()
            .flat_map(|answer| answer["items"].as_array().into_iter().flatten())
            .collect();
        let document = json!({"formatVersion": 1, "items": items});
        match format {
            Format::Yaml => output::data(&muster_core::spec::render::yaml_of(&document)),
            _ => output::json(&document),
        }
        return;
    }
    let texts: Vec<String> = lists
        .iter()
        .zip(answers)
        .map(|(list, answer)| {
            let items: Vec<&Value> = answer["items"].as_array().into_iter().flatten().collect();
            if format == Format::Name {
                names(*list, &items)
            } else {
                table(*list, &items, format == Format::Wide)
            }
        })
        .collect();
    for (list, _) in lists.iter().zip(&texts).filter(|(_, text)| text.is_empty()) {
        output::progress(&format!("no {} found", list.plural()));
    }
    let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    if !texts.is_empty() {
        output::data(&texts.join("\n"));
    }
}

fn names(list: List, items: &[&Value]) -> String {
    let name = |item: &&Value| match list {
        List::Resources(_) => format!(
            "{}/{}/{}",
            word(&item["project"]),
            word(&item["kind"]),
            word(&item["name"])
        ),
        List::Runs => format!("run/{}", word(&item["id"])),
        List::Slots => format!(
            "{}/{}/{}",
            word(&item["project"]),
            word(&item["plan"]),
            word(&item["slot"])
        ),
        List::Units => format!("unit/{}", word(&item["name"])),
        List::Workers => format!("worker/{}", word(&item["id"])),
        List::Projects => format!("project/{}", word(&item["project"])),
    };
    items.iter().map(|item| name(item) + "\n").collect()
}

fn table(list: List, items: &[&Value], wide: bool) -> String {
    if items.is_empty() {
        return String::new();
    }
    let many = items
        .iter()
        .any(|item| item.get("project").is_some_and(|project| project != "default"));
    let mut headings: Vec<&str> = if many { vec!["project"] } else { Vec::new() };
    let (columns, extra): (&[&str], &[&str]) = match list {
        List::Resources("WorkerPool") => (
            &["name", "sync", "health", "ready", "workers", "message"],
            &["revision", "file"],
        ),
        List::Resources(_) => (&["name", "sync", "health", "ready", "message"], &["revision", "file"]),
        List::Runs => (
            &["id", "plan", "stage", "ending", "age", "took"],
            &["revision", "by", "tag"],
        ),
        List::Slots => (
            &["slot", "local", "plan", "outcome", "late", "run", "detail"],
            &["timeZone", "loadAt", "decidedAt"],
        ),
        List::Units => (
            &["name", "state", "ports", "restarts", "since", "reason"],
            &["environment"],
        ),
        List::Workers => (
            &[
                "id", "name", "pool", "state", "run", "users", "rate", "cpu", "lag", "memory",
            ],
            &[
                "clock", "skew", "steal", "sent", "acked", "spooled", "dropped", "address", "version",
            ],
        ),
        List::Projects => (&["project", "ready", "revision", "resources", "message"], &["observed"]),
    };
    if matches!(list, List::Projects) {
        headings.clear();
    }
    let with_project = !headings.is_empty();
    headings.extend(columns);
    if wide {
        headings.extend(extra);
    }
    let rows = items
        .iter()
        .map(|item| {
            let mut row = if with_project {
                vec![word(&item["project"])]
            } else {
                Vec::new()
            };
            row.extend(columns.iter().map(|column| cell(list, item, column)));
            if wide {
                row.extend(extra.iter().map(|column| cell(list, item, column)));
            }
            row
        })
        .collect();
    output::table(&headings, rows)
}

/// `6 connected, 5 free`.
fn pool_workers(workers: &Value) -> String {
    match workers["connected"].as_u64() {
        Some(connected) => format!("{connected} connected, {} free", word(&workers["free"])),
        None => "-".to_owned(),
    }
}

fn cell(list: List, item: &Value, column: &str) -> String {
    match (list, column) {
        (List::Slots, "run") => short_id(&item["run"]),
        (List::Slots, "late") => match item["lateSeconds"].as_f64() {
            Some(late) => format!("{late:.1}s"),
            None => "-".to_owned(),
        },
        (List::Runs, "id") => short_id(&item["id"]),
        (List::Runs, "age") => age(&item["createdAt"], None),
        (List::Runs, "took") => match item["startedAt"] {
            Value::Null => "-".to_owned(),
            _ => age(&item["startedAt"], Some(&item["finishedAt"])),
        },
        (List::Runs, "by") => word(&item["trigger"]["who"]),
        (List::Resources(_), "revision") => word(&item["appliedRevision"]).chars().take(12).collect(),
        (_, "revision" | "observed") => word(&item[column]).chars().take(12).collect(),
        (List::Units, "since") => age(&item["since"], None),
        (List::Units, "ports") => {
            let ports: Vec<String> = item["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|port| format!("{}:{}", word(&port["name"]), word(&port["port"])))
                .collect();
            if ports.is_empty() {
                "-".to_owned()
            } else {
                ports.join(",")
            }
        }
        (List::Resources(_), "ready") => match item["ready"].as_bool() {
            Some(true) => "True".to_owned(),
            Some(false) => format!("False ({})", word(&item["reason"])),
            None => "Unknown".to_owned(),
        },
        (List::Projects, "ready") => match item["ready"].as_bool() {
            Some(true) => "True".to_owned(),
            Some(false) => "False".to_owned(),
            None => "Unknown".to_owned(),
        },
        (List::Resources(_), "workers") => pool_workers(&item["workers"]),
        (List::Workers, column) => super::workers::cell(item, column),
        _ => word(&item[column]),
    }
}
