//! Tables, and the numbers of a report in their cells.

use super::json::Measured;
use crate::base::humane::milliseconds;
use crate::measure::summary::Numbers;

/// One of a trend's numbers; what falls among dropped arrivals has no value.
pub(super) fn of_trend(numbers: Option<&Numbers>, statistic: &str) -> String {
    match numbers.and_then(|numbers| super::json::measured(numbers, statistic)) {
        None => "-".to_owned(),
        Some(Measured::AboveAll) => "dropped".to_owned(),
        Some(Measured::Number(ms)) => milliseconds(ms),
    }
}

/// A table whose first columns stand left and whose others stand right; every line indented by two.
pub(super) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(left: usize, head: &[&str]) -> Self {
        Self {
            left,
            rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, the head first. Left columns wider than `most` are cut.
    pub(super) fn lines(&self, most: usize) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cut = |column: usize, cell: &str| {
            if column < self.left {
                shorten(cell, most)
            } else {
                cell.to_owned()
            }
        };
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cut(column, cell).chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let cell = cut(column, cell);
                let pad = " ".repeat(widths[column] - cell.chars().count());
                line.push_str(if column == 0 { " " } else { "  " });
                line.push_str(&if column < self.left { cell + &pad } else { pad + &cell });
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// Cut in the middle of nothing: the end is replaced by `…`.
pub(super) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
