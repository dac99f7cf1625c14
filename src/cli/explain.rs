//! `muster explain`: what a field means, from the same schema that validates it.

use super::exit::Exit;
use super::output::{self, Tone, paint};
use anyhow::{Result, bail};
use clap::Args;
use muster_core::model::key::Kind;
use muster_core::spec::code::Code;
use muster_core::spec::explain::{Explanation, explain};
use std::collections::BTreeSet;

/// What a kind, a field or an error code means: `muster explain testplan.spec.phases`, `muster explain M0301`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// KIND, KIND.field.field or a code.
    #[arg(value_name = "KIND.field")]
    path: String,
}

/// Runs the command.
///
/// # Errors
/// When there is no such field; what there is one step up stands in the text.
pub fn run(args: &ExplainArgs) -> Result<Exit> {
    if let Some(code) = Code::ALL
        .iter()
        .find(|code| code.to_string().eq_ignore_ascii_case(&args.path))
    {
        output::data(&format!(
            "{}  {}",
            paint(&code.to_string(), Tone::Strong, output::stdout_color()),
            code.about()
        ));
        return Ok(Exit::Done);
    }
    match explain(&args.path) {
        Some(explanation) => {
            output::data(&text(&explanation));
            Ok(Exit::Done)
        }
        None => bail!("there is no `{}`; {}", args.path, known(&args.path)),
    }
}

/// What there is at the nearest place that exists.
fn known(path: &str) -> String {
    let mut rest = path;
    while let Some((parent, _)) = rest.rsplit_once('.') {
        if let Some(explanation) = explain(parent) {
            let names: BTreeSet<&str> = explanation.fields.iter().map(|field| field.name.as_str()).collect();
            return format!("{} has: {}", explanation.path, Vec::from_iter(names).join(", "));
        }
        rest = parent;
    }
    let kinds: Vec<&str> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_supported())
        .map(Kind::as_str)
        .collect();
    format!("kinds: {}", kinds.join(", "))
}

fn text(explanation: &Explanation) -> String {
    let color = output::stdout_color();
    let mut out = format!(
        "{}  <{}>\n",
        paint(&explanation.path, Tone::Strong, color),
        explanation.kind
    );
    if !explanation.supported {
        out.push_str("not supported by this build\n");
    }
    if !explanation.description.is_empty() {
        out.push_str(&format!("\n{}\n", explanation.description));
    }
    let mut case = "";
    if !explanation.fields.is_empty() {
        out.push_str(&format!("\n{}\n", paint("FIELDS", Tone::Strong, color)));
    }
    for field in &explanation.fields {
        if field.case != case {
            case = &field.case;
            out.push_str(&format!("\n  with {}:\n", paint(case, Tone::Good, color)));
        }
        let required = if field.required { "  (required)" } else { "" };
        let supported = if field.supported {
            ""
        } else {
            "  (not supported by this build)"
        };
        out.push_str(&format!(
            "  {}  <{}>{required}{supported}\n",
            paint(&field.name, Tone::Strong, color),
            field.kind
        ));
        if !field.description.is_empty() {
            out.push_str(&format!("      {}\n", field.description.replace('\n', "\n      ")));
        }
    }
    out
}
