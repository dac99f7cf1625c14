//! The changeset for a terminal, in the shape that Terraform's users know.

use super::changeset::{Action, Change, Changeset, FieldChange, Step, Summary, UnitStep};
use serde_json::Value;
use std::fmt::Write as _;

/// The line that stands in place of changes when there are none.
pub(super) const NO_CHANGES: &str = "No changes. What is there matches what git wants.";

/// Longest value that is printed whole, in characters: two values and a path fit two lines of a terminal.
const VALUE_MAX: usize = 100;

impl Changeset {
    /// Renders it as text: signs `+` create, `~` change, `-/+` replace, `-` delete, `!` blocked, `?` unknown. Control
    /// characters in values are escaped.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for change in self.changes.iter().filter(|change| change.action != Action::NoOp) {
            text.push_str(&change_text(change));
            text.push('\n');
        }
        for refusal in &self.refused {
            let keys: Vec<String> = refusal.keys.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "Refused: {}.", refusal.reason);
            let _ = writeln!(text, "  Held back: {}", keys.join(", "));
            let _ = writeln!(text, "  To allow exactly this: {}\n", refusal.approve_with);
        }
        text.push_str(&self.summary_line());
        text.push('\n');
        text
    }

    /// One line: `Plan: 2 to create, 1 to update.`, or that there is nothing to do.
    pub fn summary_line(&self) -> String {
        if self.has_changes() {
            format!("Plan: {}.", counts(&self.summary()))
        } else {
            NO_CHANGES.to_owned()
        }
    }
}

fn counts(summary: &Summary) -> String {
    let parts = [
        (summary.create, "to create"),
        (summary.update, "to update"),
        (summary.replace, "to replace"),
        (summary.delete, "to delete"),
        (summary.blocked, "blocked"),
        (summary.unknown, "unknown"),
        (summary.unchanged, "unchanged"),
    ];
    let mut parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if summary.drifted > 0 {
        parts.push(format!("{} of them drifted", summary.drifted));
    }
    parts.join(", ")
}

/// One resource with its fields and units.
pub(super) fn change_text(change: &Change) -> String {
    let mut text = format!("{:>3} {} ({}", change.action.sign(), change.key, change.action.as_str());
    if change.drift {
        text.push_str(", drift");
    }
    text.push(')');
    if let Some(reason) = &change.reason {
        let _ = write!(text, ": {}", one_line(reason));
    }
    text.push('\n');
    // A new or deleted document is one field, the document: its name says enough.
    for field in change.fields.iter().filter(|field| !field.path.is_empty()) {
        let _ = writeln!(text, "      {}", field_text(field));
    }
    for note in &change.notes {
        let _ = writeln!(text, "      {}", one_line(note));
    }
    for step in &change.units {
        let _ = writeln!(text, "      {}", step_text(step));
    }
    text
}

fn field_text(field: &FieldChange) -> String {
    let path = one_line(&field.path);
    match (&field.old, &field.new) {
        (Some(old), Some(new)) => format!("~ {path}: {} -> {}", value_text(old), value_text(new)),
        (Some(old), None) => format!("- {path}: {}", value_text(old)),
        (None, Some(new)) => format!("+ {path}: {}", value_text(new)),
        (None, None) => path,
    }
}

fn step_text(step: &UnitStep) -> String {
    let sign = match step.step {
        Step::Create => "+",
        Step::Delete => "-",
        Step::Replace => "-/+",
    };
    let later = if step.due { "" } else { ", later" };
    format!("{sign} unit {} ({}{later})", step.unit, one_line(&step.reason))
}

fn value_text(value: &Value) -> String {
    let text = one_line(&value.to_string());
    match text.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Escapes what would move a terminal's cursor, colour it, or turn the direction of text.
fn one_line(text: &str) -> String {
    let harmless = |character: char| {
        !character.is_control()
            && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|character| {
            if harmless(character) {
                character.to_string()
            } else {
                character.escape_unicode().to_string()
            }
        })
        .collect()
}
