//! The report as JUnit XML, for build servers: one test case for the ending, one per threshold and per verification.

use super::complete;
use super::json::Report;
use super::style::Style;
use super::text::threshold_style;
use crate::model::plan::HookWhen;
use std::fmt::Write as _;

/// What became of one test case.
enum Case {
    Fine,
    /// What must hold did not.
    Failure(String),
    /// It could not be told.
    Error(String),
}

/// Prints a report.
pub fn render(report: &Report) -> String {
    let class = format!("{}.{}", report.project, report.plan);
    let seconds = match (report.started_at, report.finished_at) {
        (Some(from), Some(to)) => to.duration_since(from).as_secs_f64().max(0.0),
        _ => 0.0,
    };
    let cases = cases(report);
    let failures = cases
        .iter()
        .filter(|(_, case)| matches!(case, Case::Failure(_)))
        .count();
    let errors = cases.iter().filter(|(_, case)| matches!(case, Case::Error(_))).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\"",
        cases.len()
    );
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites name=\"muster\" {counts}>");
    let _ = write!(xml, "  <testsuite name=\"{}\" {counts} skipped=\"0\"", escape(&class));
    if let Some(started) = report.started_at {
        let _ = write!(xml, " timestamp=\"{}\"", started.strftime("%FT%T"));
    }
    xml.push_str(">\n    <properties>\n");
    for (name, value) in [
        ("run", report.run.to_string()),
        ("revision", report.revision.to_string()),
        ("ending", report.ending_text()),
        ("completeness", complete::sentence(report)),
    ] {
        let _ = writeln!(xml, "      <property name=\"{name}\" value=\"{}\"/>", escape(&value));
    }
    xml.push_str("    </properties>\n");
    for (name, case) in cases {
        let _ = write!(
            xml,
            "    <testcase classname=\"{}\" name=\"{}\"",
            escape(&class),
            escape(&name)
        );
        let (tag, message) = match case {
            Case::Fine => {
                xml.push_str("/>\n");
                continue;
            }
            Case::Failure(message) => ("failure", message),
            Case::Error(message) => ("error", message),
        };
        let _ = writeln!(
            xml,
            ">\n      <{tag} message=\"{}\"/>\n    </testcase>",
            escape(&message)
        );
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

fn cases(report: &Report) -> Vec<(String, Case)> {
    let detail = format!("{}: {}", report.ending_text(), report.ending.detail);
    let detail = detail.trim_end_matches(": ").to_owned();
    let ending = match report.ending.kind.as_str() {
        "Passed" => Case::Fine,
        "Failed" | "Aborted" => Case::Failure(detail),
        _ => Case::Error(detail),
    };
    let mut cases = vec![("ending".to_owned(), ending)];
    for result in &report.thresholds {
        let message = result.came_to();
        let case = match threshold_style(result) {
            Style::Good => Case::Fine,
            Style::Bad => Case::Failure(message),
            _ => Case::Error(message),
        };
        cases.push((format!("{}: {}", result.metric, result.expression), case));
    }
    for hook in report.hooks.iter().filter(|hook| hook.when == HookWhen::Verify) {
        let case = match hook.succeeded {
            Some(false) if hook.matters => Case::Failure(hook.message.clone()),
            None => Case::Error("it never ended".to_owned()),
            _ => Case::Fine,
        };
        cases.push((format!("verify: {}", hook.name), case));
    }
    cases
}

/// For attribute values; what XML 1.0 cannot hold becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\r' => out.push_str("&#13;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
