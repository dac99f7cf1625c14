//! What is wrong with a file: code, place, cause and hint.

use super::code::Code;
use crate::model::key::Key;
use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The project keeps its last good state.
    Error,
    /// Worth a look; everything goes on.
    Warning,
}

impl Severity {
    /// The word in front of the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A part of a file: bytes for excerpts, line and column (from 1, in characters) for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Byte behind the last.
    pub end: u32,
    /// Line of the first byte.
    pub line: u32,
    /// Column of the first byte.
    pub column: u32,
}

impl Span {
    /// The start of a file: where nothing closer is known.
    pub const START: Self = Self {
        start: 0,
        end: 0,
        line: 1,
        column: 1,
    };
}

/// One thing that is wrong. Texts never hold the content of files other than plans, nor secret values (promises 6, 57).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Path relative to the configured path.
    pub file: String,
    /// Where in the file.
    #[serde(flatten)]
    pub span: Span,
    /// Error or warning.
    pub severity: Severity,
    /// What kind of thing.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Why, or the other place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The resource it is about, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

impl Diagnostic {
    /// An error without cause and hint.
    pub fn error(code: Code, file: &str, span: Span, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            span,
            severity: Severity::Error,
            code,
            message: message.into(),
            cause: None,
            hint: None,
            key: None,
        }
    }

    /// Adds why, or the other place.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to write instead, where something is known.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Whether it makes its project bad.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `file:line:column: error[M0301]: message`, then cause and hint in parentheses.
impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            span,
            severity,
            code,
            message,
            cause,
            hint,
            ..
        } = self;
        write!(
            formatter,
            "{file}:{}:{}: {}[{code}]: {message}",
            span.line,
            span.column,
            severity.as_str()
        )?;
        if let Some(cause) = cause {
            write!(formatter, "; {cause}")?;
        }
        if let Some(hint) = hint {
            write!(formatter, " (hint: {hint})")?;
        }
        Ok(())
    }
}
