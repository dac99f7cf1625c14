//! Data files: CSV with a header (RFC 4180), the worker's rows handed out in order to all its users (promise 40).

use muster_core::lifecycle::share::block;
use muster_core::model::load::{DataMode, Segment};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A data file in memory: one text, and where its cells lie.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    text: String,
    cells: Vec<Range<u32>>,
    rows: usize,
    /// The rows that are this worker's, and whether each is used once only.
    own: Range<usize>,
    unique: bool,
    /// Rows taken so far, by all threads.
    taken: AtomicUsize,
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
            own: 0..0,
            unique: false,
            taken: AtomicUsize::new(0),
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
        table.own = 0..table.rows;
        (table.rows > 0).then_some(table)
    }

    /// Leaves a worker the rows that its mode gives it; `None`: there are fewer than workers.
    pub(crate) fn for_worker(mut self, mode: DataMode, segment: Segment) -> Option<Self> {
        if mode != DataMode::Copy {
            let rows = block(self.rows as u64, segment);
            self.own = rows.start as usize..rows.end as usize;
        }
        self.unique = mode == DataMode::Unique;
        (self.rows >= segment.count as usize || mode == DataMode::Copy).then_some(self)
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

    /// The next of the worker's rows, for one iteration of one user. After the last one the first again, or, where rows are used once,
    /// none.
    pub(crate) fn take_row(&self) -> Option<usize> {
        let nth = self.taken.fetch_add(1, Ordering::Relaxed);
        let is_left = !self.unique || nth < self.own.len();
        is_left.then(|| self.own.start + nth % self.own.len())
    }

    pub(crate) fn value(&self, row: usize, column: usize) -> &str {
        let range = &self.cells[row * self.columns.len() + column];
        self.cell(range)
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use muster_core::model::load::{DataMode, Segment};
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
        let taken: Vec<Option<usize>> = (0..5).map(|_| table.take_row()).collect();
        assert_eq!(taken, [0, 1, 0, 1, 0].map(Some));
    }

    fn table_of(rows: usize) -> Table {
        let text: String = (0..rows).map(|row| format!("{row}\n")).collect();
        Table::parse("t", format!("row\n{text}").as_bytes()).unwrap()
    }

    #[test]
    fn s40_fewer_rows_than_workers_is_an_error_but_for_copies() {
        let segment = Segment { index: 0, count: 3 };
        for (rows, mode, good) in [
            (2, DataMode::Copy, true),
            (2, DataMode::Split, false),
            (2, DataMode::Unique, false),
            (3, DataMode::Unique, true),
        ] {
            assert_eq!(
                table_of(rows).for_worker(mode, segment).is_some(),
                good,
                "{rows} {mode:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn s40_workers_and_their_threads_take_every_row_of_their_blocks_in_order(
            count in 1_u32..40,
            more in 0_usize..100,
            threads in 1_usize..5,
            rounds in 1_usize..3,
        ) {
            let rows = count as usize + more;
            for mode in [DataMode::Split, DataMode::Unique] {
                let mut seen = vec![0; rows];
                for index in 0..count {
                    let table = table_of(rows).for_worker(mode, Segment { index, count }).unwrap();
                    let own = table.own.len();
                    let takes = own * rounds;
                    let mut taken: Vec<usize> = std::thread::scope(|scope| {
                        let take = |thread| {
                            let table = &table;
                            let times = takes / threads + usize::from(thread < takes % threads);
                            scope.spawn(move || (0..times).filter_map(|_| table.take_row()).collect::<Vec<_>>())
                        };
                        let handles: Vec<_> = (0..threads).map(take).collect();
                        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
                    });
                    let often = if mode == DataMode::Unique { 1 } else { rounds };
                    prop_assert_eq!(taken.len(), own * often);
                    taken.iter().for_each(|row| seen[*row] += 1);
                    taken.sort_unstable();
                    taken.dedup();
                    prop_assert_eq!(taken, table.own.clone().collect::<Vec<_>>());
                }
                let often = if mode == DataMode::Unique { 1 } else { rounds };
                prop_assert!(seen.iter().all(|times| *times == often), "no row is lost or another's: {:?}", seen);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Table::parse("t", &bytes);
        }
    }
}
