//! A page of text: lines, headings, tables and wrapped words, cleaned and painted.

use super::format::Table;
use super::style::{Style, TextOptions};

/// Entries of a list that are shown; the document has all.
pub(super) const LIST_MAX: usize = 10;

/// A page being written.
pub(super) struct Page {
    pub(super) options: TextOptions,
    pub(super) text: String,
}

impl Page {
    pub(super) fn line(&mut self, line: &str) {
        let clean = self.options.clean(line);
        self.raw(clean.trim_end());
    }

    /// A line whose parts were cleaned before they were painted.
    pub(super) fn raw(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(super) fn heading(&mut self, heading: &str) {
        let heading = self.options.paint(Style::Strong, heading);
        self.raw("");
        self.raw(&heading);
    }

    pub(super) fn table(&mut self, table: &Table) {
        let most = (self.options.width / 3).max(20);
        for (at, line) in table.lines(most).iter().enumerate() {
            let line = self.options.clean(line);
            let line = if at == 0 {
                self.options.paint(Style::Dim, &line)
            } else {
                line
            };
            self.raw(&line);
        }
    }

    /// Lines of words, at most as wide as the page, with an indent.
    pub(super) fn wrapped(&mut self, indent: &str, text: &str) {
        let most = self.options.width.max(60);
        let mut line = indent.to_owned();
        for word in self.options.clean(text).split_whitespace() {
            if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > most {
                self.raw(line.trim_end());
                line = indent.to_owned();
            }
            if line.len() > indent.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.raw(line.trim_end());
    }

    /// Says how many of a list were left out.
    pub(super) fn more(&mut self, listed: usize) {
        if listed > LIST_MAX {
            self.line(&format!("    and {} more", listed - LIST_MAX));
        }
    }
}
