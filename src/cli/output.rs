//! stdout is data, stderr is progress; colour only where a person looks (promise 56).

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);
static NO_COLOR: AtomicBool = AtomicBool::new(false);

/// Sets what the global flags say, once, before any output.
pub fn configure(quiet: bool, no_color: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
    NO_COLOR.store(
        no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        Ordering::Relaxed,
    );
}

/// Whether stdout takes colours.
pub fn stdout_color() -> bool {
    !NO_COLOR.load(Ordering::Relaxed) && std::io::stdout().is_terminal()
}

/// Whether stderr takes colours and moving progress.
pub fn stderr_color() -> bool {
    !NO_COLOR.load(Ordering::Relaxed) && stderr_is_terminal()
}

/// Whether a person watches stderr.
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var("TERM").as_deref() != Ok("dumb")
}

/// Whether `-q` was given.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints data. A closed pipe is the reader's choice and ends the program quietly.
pub fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    if write!(out, "{text}{newline}").and_then(|()| out.flush()).is_err() {
        std::process::exit(i32::from(super::exit::Exit::Done.code()));
    }
}

/// Prints one JSON document.
pub fn json(value: &serde_json::Value) {
    data(&format!("{value:#}"));
}

/// Tells a person how it goes; nothing with `-q`.
pub fn progress(text: &str) {
    if !is_quiet() {
        // Progress that cannot be shown is not worth failing for.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

/// Tells a person what went wrong, `-q` or not.
pub fn error(text: &str) {
    let label = paint("error", Tone::Bad, stderr_color());
    let _ = writeln!(std::io::stderr().lock(), "{label}: {text}");
}

/// Tells a person what they should know beside the data, `-q` or not.
pub fn warning(text: &str) {
    let label = paint("warning", Tone::Warn, stderr_color());
    let _ = writeln!(std::io::stderr().lock(), "{label}: {text}");
}

/// Shows what is wrong with a plan, already laid out.
pub fn diagnostic(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Tone {
    Good,
    Bad,
    Warn,
    Quiet,
    Strong,
}

/// Colours a text, where colour is wanted.
pub fn paint(text: &str, tone: Tone, color: bool) -> String {
    if !color {
        return text.to_owned();
    }
    let style = match tone {
        Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Tone::Warn => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Tone::Quiet => Style::new().dimmed(),
        Tone::Strong => Style::new().bold(),
    };
    format!("{style}{text}{style:#}")
}

/// A table as kubectl prints them: headings, no frame.
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::{Tone, paint, table};

    #[test]
    fn s56_without_colour_a_text_is_itself() {
        assert_eq!(paint("Passed", Tone::Good, false), "Passed");
        assert!(paint("Passed", Tone::Good, true).starts_with('\u{1b}'));
    }

    #[test]
    fn a_table_has_headings_and_no_frame() {
        let text = table(
            &["name", "state"],
            vec![vec!["a".into(), "Ready".into()], vec!["longer".into(), "-".into()]],
        );
        assert_eq!(text, "NAME    STATE\na       Ready\nlonger  -\n");
    }
}
