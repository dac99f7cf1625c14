//! Data files of a plan: which rows each worker gets.

use super::load::RepoFile;
use serde::{Deserialize, Serialize};

/// A data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// `{{name.column}}`.
    pub name: String,
    /// CSV with a header.
    pub file: RepoFile,
    /// The header's columns.
    pub columns: Vec<String>,
    /// Rows without the header; at least 1.
    pub rows: u64,
    /// Which rows a worker gets.
    pub mode: DataMode,
}

impl DataFile {
    /// Whether there is a row for each of so many workers; fewer is an error (promise 40).
    pub fn suffices(&self, workers: u32) -> bool {
        self.mode == DataMode::Copy || self.rows >= u64::from(workers)
    }
}

/// Which rows of a data file a worker gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataMode {
    /// All; they wrap around.
    Copy,
    /// Its contiguous block (promise 40); the block wraps around.
    Split,
    /// Its block, each row at most once; when they are used up, the worker's users end.
    Unique,
}
