//! A file of fixed size that is written round and round. It has no name, so nothing of it is left behind, however its process ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The file. Positions are bytes since it was last empty; who uses it sees to it that no more than its size is in use.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    size: u64,
}

impl Ring {
    /// A new one on the disk of this folder; `name` is nobody else's.
    ///
    /// # Errors
    /// When the folder is not there, or may not be written to.
    pub fn make(folder: &Path, name: &str, size: u64) -> io::Result<Self> {
        let place = folder.join(name);
        // Only the worker may read what it measured.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&place)?;
        std::fs::remove_file(&place)?;
        Ok(Self::of(file, size))
    }

    pub fn of(file: File, size: u64) -> Self {
        Self { file, size }
    }

    /// # Errors
    /// When the disk is full or broken: what stands before is as it was.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (start, until_end) = self.place(at, bytes.len());
        let (first, rest) = bytes.split_at(until_end);
        self.file.write_all_at(first, start)?;
        self.file.write_all_at(rest, 0)
    }

    /// # Errors
    /// When the disk is broken.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (start, until_end) = self.place(at, bytes.len());
        let (first, rest) = bytes.split_at_mut(until_end);
        self.file.read_exact_at(first, start)?;
        self.file.read_exact_at(rest, 0)
    }

    /// Gives the disk back what it held.
    ///
    /// # Errors
    /// When the disk is broken.
    pub fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Where it begins in the file, and how much stands there before the file's end.
    fn place(&self, at: u64, len: usize) -> (u64, usize) {
        let start = at % self.size;
        let until_end = usize::try_from(self.size - start).unwrap_or(usize::MAX);
        (start, until_end.min(len))
    }
}
