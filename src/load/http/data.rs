//! Data files: CSV with a header (RFC 4180), rows handed out in order to all users of a worker.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A data file in memory: one text, and where its cells lie.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    text: String,
    cells: Vec<Range<u32>>,
    rows: usize,
    next: AtomicUsize,
}

impl Table {
    /// Reads a file; `None`: not UTF-8, no rows, over 4 GiB, a row of another length than the header, or a quote that does not end.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Option<Self> {
        let source = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).ok()?;
        let mut table = Self {
            name: name.to_owned(),
            columns: Vec::new(),
            text: String::with_capacity(source.len()),
            cells: Vec::new(),
            rows: 0,
            next: AtomicUsize::new(0),
        };
        let mut rest = source;
        while !rest.is_empty() {
            let before = table.cells.len();
            rest = table.read_row(rest)?;
            let row = &table.cells[before..];
            if row.len() == 1 && row[0].is_empty() {
                // An empty line is no row.
                table.cells.truncate(before);
            } else if table.columns.is_empty() {
                table.columns = row.iter().map(|cell| table.cell(cell).to_owned()).collect();
                table.cells.clear();
            } else if row.len() == table.columns.len() {
                table.rows += 1;
            } else {
                return None;
            }
        }
        (table.rows > 0).then_some(table)
    }

    /// Reads one row and returns what follows it.
    fn read_row<'a>(&mut self, source: &'a str) -> Option<&'a str> {
        let mut rest = source;
        loop {
            let start = self.text.len();
            let tail = match rest.strip_prefix('"') {
                Some(quoted) => self.read_quoted(quoted)?,
                None => {
                    let end = rest.find([',', '\n']).unwrap_or(rest.len());
                    let cell = &rest[..end];
                    self.text.push_str(if rest[end..].starts_with(',') {
                        cell
                    } else {
                        cell.trim_end_matches('\r')
                    });
                    &rest[end..]
                }
            };
            let range = u32::try_from(start).ok()?..u32::try_from(self.text.len()).ok()?;
            self.cells.push(range);
            let tail = tail.strip_prefix('\r').unwrap_or(tail);
            match tail.as_bytes().first() {
                Some(b',') => rest = &tail[1..],
                Some(b'\n') => return Some(&tail[1..]),
                None => return Some(""),
                Some(_) => return None,
            }
        }
    }

    fn read_quoted<'a>(&mut self, source: &'a str) -> Option<&'a str> {
        let mut rest = source;
        loop {
            let quote = rest.find('"')?;
            self.text.push_str(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest.strip_prefix('"') {
                Some(more) => {
                    self.text.push('"');
                    rest = more;
                }
                None => return Some(rest),
            }
        }
    }

    fn cell(&self, range: &Range<u32>) -> &str {
        &self.text[range.start as usize..range.end as usize]
    }

    /// The next row, for one iteration of one user; after the last one the first again.
    pub(crate) fn take_row(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.rows
    }

    pub(crate) fn value(&self, row: usize, column: usize) -> &str {
        let range = &self.cells[row * self.columns.len() + column];
        self.cell(range)
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use proptest::prelude::*;

    fn rows(text: &str) -> Option<Vec<Vec<String>>> {
        let table = Table::parse("t", text.as_bytes())?;
        let row = |row| {
            (0..table.columns.len())
                .map(|column| table.value(row, column).to_owned())
                .collect()
        };
        Some((0..table.rows).map(row).collect())
    }

    #[test]
    fn files_are_read_as_rfc_4180_says() {
        let read = rows("name,query\r\nann,\"a, \"\"b\"\"\nc\"\r\n\r\nbob,\n").unwrap();
        assert_eq!(read, [["ann", "a, \"b\"\nc"], ["bob", ""]]);
        assert_eq!(rows("\u{feff}a\n1").unwrap(), [["1"]]);
        for text in ["", "a,b\n", "a,b\n1\n", "a\n\"x", "a\n\"x\"y\n"] {
            assert_eq!(rows(text), None, "{text}");
        }
    }

    #[test]
    fn rows_go_around() {
        let table = Table::parse("t", b"a\n1\n2\n").unwrap();
        let taken: Vec<usize> = (0..5).map(|_| table.take_row()).collect();
        assert_eq!(taken, [0, 1, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Table::parse("t", &bytes);
        }
    }
}
