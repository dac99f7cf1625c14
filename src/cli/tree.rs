//! `muster tree`: projects, their resources, and the units that stand for them.

use super::Global;
use super::exit::Exit;
use super::output::{self, Tone, paint};
use super::reader::Reader;
use super::text::word;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Projects, their resources and units as a tree.
#[derive(Debug, Args)]
pub struct TreeArgs {
    /// How to print.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// A line with what hangs below it.
struct Branch {
    line: String,
    below: Vec<Branch>,
}

/// Runs the command.
///
/// # Errors
/// When nobody answers.
pub async fn run(args: &TreeArgs, global: &Global) -> Result<Exit> {
    let reader = Reader::open(global).await?;
    let projects = grown(
        &items(reader.get("/api/v1/projects").await?),
        &items(reader.get("/api/v1/resources").await?),
        &items(reader.get("/api/v1/units").await?),
    );
    if args.output == "json" {
        output::json(&json!({"formatVersion": 1, "items": projects}));
        return Ok(Exit::Done);
    }
    if projects.is_empty() {
        output::progress("no projects found");
    }
    let mut out = String::new();
    for project in projects.iter().map(project) {
        out.push_str(&project.line);
        out.push('\n');
        hang(&mut out, "", &project.below);
    }
    if !out.is_empty() {
        output::data(&out);
    }
    Ok(Exit::Done)
}

fn items(mut answer: Value) -> Vec<Value> {
    match answer["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Each project with its resources, each of them with its units. Owners that no file declares are those Muster adds itself.
fn grown(projects: &[Value], resources: &[Value], units: &[Value]) -> Vec<Value> {
    let mut owners: BTreeMap<String, Value> = BTreeMap::new();
    for resource in resources {
        let key = format!(
            "{}/{}/{}",
            word(&resource["project"]),
            word(&resource["kind"]),
            word(&resource["name"])
        );
        owners.insert(key, resource.clone());
    }
    for unit in units {
        let key = word(&unit["owner"]);
        let owner = owners.entry(key.clone()).or_insert_with(|| {
            let mut parts = key.splitn(3, '/');
            let mut part = || parts.next().unwrap_or_default().to_owned();
            json!({"project": part(), "kind": part(), "name": part()})
        });
        match owner["units"].as_array_mut() {
            Some(units) => units.push(unit.clone()),
            None => owner["units"] = json!([unit]),
        }
    }
    let mut grown: BTreeMap<String, Value> = BTreeMap::new();
    for project in projects {
        let known = json!({"project": project["project"], "ready": project["ready"], "revision": project["revision"],
            "message": project["message"]});
        grown.insert(word(&project["project"]), known);
    }
    for owner in owners.into_values() {
        let name = word(&owner["project"]);
        let project = grown.entry(name.clone()).or_insert_with(|| json!({"project": name}));
        match project["resources"].as_array_mut() {
            Some(resources) => resources.push(owner),
            None => project["resources"] = json!([owner]),
        }
    }
    grown.into_values().collect()
}

fn project(project: &Value) -> Branch {
    let mut line = paint(&word(&project["project"]), Tone::Strong, output::stdout_color());
    if let Some(revision) = project["revision"].as_str() {
        line.push_str(&format!(" at {}", revision.chars().take(12).collect::<String>()));
    }
    if project["ready"] == false {
        line.push_str(&format!("; {}", word(&project["message"])));
    }
    let resources = project["resources"].as_array();
    Branch {
        line,
        below: resources.into_iter().flatten().map(resource).collect(),
    }
}

fn resource(resource: &Value) -> Branch {
    let state = match resource["health"].as_str() {
        Some(health) => toned(health),
        None if resource["kind"] == "WorkerPool" && resource["name"] == "local" => "added by muster".to_owned(),
        None => "no longer wanted; `muster diff` says why it is still there".to_owned(),
    };
    let line = format!("{} {}  {state}", word(&resource["kind"]), word(&resource["name"]));
    let unit = |unit: &Value| Branch {
        line: format!("{}  {}", word(&unit["name"]), toned(&word(&unit["state"]))),
        below: Vec::new(),
    };
    let units = resource["units"].as_array();
    Branch {
        line,
        below: units.into_iter().flatten().map(unit).collect(),
    }
}

fn toned(state: &str) -> String {
    let tone = match state {
        "Healthy" | "Ready" => Tone::Good,
        "Degraded" | "Unhealthy" | "BackOff" | "Exited" => Tone::Bad,
        _ => Tone::Warn,
    };
    paint(state, tone, output::stdout_color())
}

fn hang(out: &mut String, indent: &str, branches: &[Branch]) {
    for (index, branch) in branches.iter().enumerate() {
        let last = index + 1 == branches.len();
        let (tick, bar) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        out.push_str(&format!("{indent}{tick}{}\n", branch.line));
        hang(out, &format!("{indent}{bar}"), &branch.below);
    }
}

#[cfg(test)]
mod tests {
    use super::{grown, hang, project};
    use serde_json::json;

    #[test]
    fn units_hang_below_their_owners_and_owners_below_their_projects() {
        let projects = [json!({"project": "default", "ready": true, "revision": "0123456789abcdef"})];
        let resources = [
            json!({"project": "default", "kind": "Service", "name": "shop", "health": "Healthy"}),
            json!({"project": "default", "kind": "TestPlan", "name": "hello", "health": "Suspended"}),
        ];
        let units = [
            json!({"name": "default.service.shop.0", "owner": "default/Service/shop", "state": "Ready"}),
            json!({"name": "default.service.shop.1", "owner": "default/Service/shop", "state": "Starting"}),
            json!({"name": "default.service.till.0", "owner": "default/Service/till", "state": "Ready"}),
            json!({"name": "default.workerpool.local.0", "owner": "default/WorkerPool/local", "state": "Ready"}),
        ];
        let projects = grown(&projects, &resources, &units);
        let branch = project(&projects[0]);
        let mut text = branch.line + "\n";
        hang(&mut text, "", &branch.below);
        assert_eq!(
            text,
            "default at 0123456789ab\n\
             ├─ Service shop  Healthy\n\
             │  ├─ default.service.shop.0  Ready\n\
             │  └─ default.service.shop.1  Starting\n\
             ├─ Service till  no longer wanted; `muster diff` says why it is still there\n\
             │  └─ default.service.till.0  Ready\n\
             ├─ TestPlan hello  Suspended\n\
             └─ WorkerPool local  added by muster\n   \
             └─ default.workerpool.local.0  Ready\n"
        );
    }
}
