//! Diagnostics for people: file:line:column, the line itself, the cause and the hint.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use muster_core::spec::diagnostic::{Diagnostic, Severity};
use std::fmt::Write as _;

/// A diagnostic with the lines it is about, where the text is at hand.
pub fn render(diagnostic: &Diagnostic, text: Option<&str>, color: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let code = diagnostic.code.to_string();
    let title = level.primary_title(&diagnostic.message).id(&code);
    let mut group = Group::with_title(title);
    let span = diagnostic.span.start as usize..diagnostic.span.end as usize;
    match text.filter(|text| text.get(span.clone()).is_some()) {
        Some(text) => {
            let span = one_line(text, span);
            let snippet = Snippet::source(text)
                .path(&diagnostic.file)
                .annotation(AnnotationKind::Primary.span(span));
            group = group.element(snippet);
        }
        None => {
            let place = format!(
                "{}:{}:{}",
                diagnostic.file, diagnostic.span.line, diagnostic.span.column
            );
            group = group.element(Level::NOTE.message(place));
        }
    }
    if let Some(cause) = &diagnostic.cause {
        group = group.element(Level::NOTE.message(cause));
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut rendered = renderer.render(&[group]).to_string();
    let _ = writeln!(rendered);
    rendered
}

/// A span over many lines says no more than its first line, and fills the screen.
fn one_line(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let end = text[span.clone()]
        .find('\n')
        .map_or(span.end, |newline| span.start + newline);
    span.start..end
}
