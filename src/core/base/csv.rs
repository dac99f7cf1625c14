//! Comma-separated values (RFC 4180): records of fields, quoted or not, without copying what needs no unquoting.

use std::borrow::Cow;

/// Why a text is not CSV. Holds no content: data files may hold what nobody should read in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A quoted field never ends.
    #[error("line {line}: a quoted field has no closing quote")]
    OpenQuote {
        /// Where it begins, from 1.
        line: u64,
    },
    /// Something stands between a closing quote and the next comma.
    #[error("line {line}: text behind a closing quote")]
    AfterQuote {
        /// Where, from 1.
        line: u64,
    },
}

/// Reads records one after another. Lines without any text are skipped.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a str,
    line: u64,
}

impl<'a> Records<'a> {
    /// Begins at the start of a text; a byte order mark is skipped.
    pub fn new(text: &'a str) -> Self {
        Self {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            line: 1,
        }
    }

    /// The line that the next record begins on, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn record(&mut self) -> Result<Vec<Cow<'a, str>>, CsvError> {
        let mut fields = Vec::new();
        loop {
            let field = if self.rest.starts_with('"') {
                self.quoted()?
            } else {
                self.bare()
            };
            fields.push(field);
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            self.end_line();
            return Ok(fields);
        }
    }

    fn bare(&mut self) -> Cow<'a, str> {
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let (field, rest) = self.rest.split_at(end);
        self.rest = rest;
        Cow::Borrowed(if rest.starts_with('\n') || rest.is_empty() {
            field.strip_suffix('\r').unwrap_or(field)
        } else {
            field
        })
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, CsvError> {
        let begin = self.line;
        let inner = &self.rest[1..];
        let mut from = 0;
        loop {
            let quote = inner[from..].find('"').ok_or(CsvError::OpenQuote { line: begin })? + from;
            if inner[quote + 1..].starts_with('"') {
                from = quote + 2;
                continue;
            }
            let text = &inner[..quote];
            self.line += text.bytes().filter(|byte| *byte == b'\n').count() as u64;
            self.rest = &inner[quote + 1..];
            let ends = self.rest.is_empty() || self.rest.starts_with([',', '\n']) || self.rest.starts_with("\r\n");
            if !ends && self.rest != "\r" {
                return Err(CsvError::AfterQuote { line: self.line });
            }
            return Ok(if from == 0 {
                Cow::Borrowed(text)
            } else {
                Cow::Owned(text.replace("\"\"", "\""))
            });
        }
    }

    fn end_line(&mut self) {
        let rest = self.rest.strip_prefix('\r').unwrap_or(self.rest);
        if let Some(rest) = rest.strip_prefix('\n') {
            self.line += 1;
            self.rest = rest;
        } else {
            self.rest = rest;
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Vec<Cow<'a, str>>, CsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.rest.starts_with('\n') || self.rest.starts_with("\r\n") {
            self.end_line();
        }
        if self.rest.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.rest = "";
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::{CsvError, Records};
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Vec<String>>, CsvError> {
        Records::new(text)
            .map(|record| Ok(record?.into_iter().map(|field| field.into_owned()).collect()))
            .collect()
    }

    #[test]
    fn records_are_rfc_4180() {
        let text = "\u{feff}name,query\r\nann,\"a, \"\"b\"\"\"\r\n\n\"two\nlines\",\r\nlast,x";
        let expected = [
            ["name", "query"],
            ["ann", "a, \"b\""],
            ["two\nlines", ""],
            ["last", "x"],
        ];
        assert_eq!(
            read(text),
            Ok(expected.map(|row| row.map(str::to_owned).to_vec()).to_vec())
        );
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn errors_name_the_line_and_no_content() {
        assert_eq!(read("a\nb,\"x\n"), Err(CsvError::OpenQuote { line: 2 }));
        assert_eq!(read("a\n\"b\"x\n"), Err(CsvError::AfterQuote { line: 2 }));
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(rows in proptest::collection::vec(proptest::collection::vec("[ -~\n]{1,8}", 2..3), 1..5)) {
            let quote = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let text: Vec<String> = rows.iter().map(|row| row.iter().map(quote).collect::<Vec<_>>().join(",")).collect();
            prop_assert_eq!(read(&text.join("\n")), Ok(rows));
        }

        #[test]
        fn no_text_panics(text in "[\",\r\nab]{0,30}") {
            let _ = read(&text);
        }
    }
}
