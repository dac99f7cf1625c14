//! The changeset as Markdown, for a comment on a merge request.

use super::changeset::{Action, Changeset};
use super::text::change_text;
use std::fmt::Write as _;

impl Changeset {
    /// Renders it as Markdown: the summary, a table of resources, the details folded in a code block that no value can close.
    pub fn to_markdown(&self) -> String {
        let mut text = String::from("### Muster\n\n");
        let _ = writeln!(text, "{}", self.summary_line());
        if !self.has_changes() {
            return text;
        }
        text.push_str("\n| | resource | action |\n|---|---|---|\n");
        let mut details = String::new();
        for change in self.changes.iter().filter(|change| change.action != Action::NoOp) {
            let drift = if change.drift { ", drift" } else { "" };
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {}{drift} |",
                change.action.sign(),
                change.key,
                change.action.as_str()
            );
            details.push_str(&change_text(change));
        }
        for refusal in &self.refused {
            let _ = writeln!(
                text,
                "\n**Refused**: {}. To allow exactly this: `{}`",
                refusal.reason, refusal.approve_with
            );
        }
        let fence = fence(&details);
        let _ = writeln!(
            text,
            "\n<details><summary>Details</summary>\n\n{fence}text\n{details}{fence}\n\n</details>"
        );
        text
    }
}

/// A fence longer than any run of backticks in the text.
fn fence(text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for character in text.chars() {
        run = if character == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    "`".repeat(3.max(longest + 1))
}
