//! What every source holds to while it reads a tree: limits on files and bytes, names, and what is refused (promise 6).

use super::{File, Refusal, SourceError, SourceReason, Tree};
use std::sync::Arc;

/// Bounds of one tree. A file over its own limit is refused by name; a tree over a whole limit is not read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file. 32 MiB holds a CSV of half a million rows.
    pub file_bytes: u64,
    /// Bytes of all files together, as they are kept in memory while the revision is current.
    pub total_bytes: u64,
    /// Entries of all folders together, refused ones included.
    pub entries: usize,
    /// Folders inside folders.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 32 << 20,
            total_bytes: 256 << 20,
            entries: 20_000,
            depth: 32,
        }
    }
}

/// Git LFS pointers are shorter than this by their specification (below 1024 bytes) and begin with the version line.
const LFS_POINTER_MAX: usize = 1024;
const LFS_POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";

/// A tree being read, held to its limits.
#[derive(Debug)]
pub(crate) struct Builder {
    limits: Limits,
    entries: usize,
    bytes: u64,
    tree: Tree,
}

impl Builder {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: 0,
            bytes: 0,
            tree: Tree::default(),
        }
    }

    /// Counts one entry of a folder, whatever it is.
    ///
    /// # Errors
    /// When there are too many.
    pub(crate) fn count_entry(&mut self) -> Result<(), SourceError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(exceeded(format!(
                "the tree has more than {} entries; name a folder with `path`",
                self.limits.entries
            )));
        }
        Ok(())
    }

    /// Goes one folder deeper.
    ///
    /// # Errors
    /// When it is too deep.
    pub(crate) fn check_depth(&self, path: &str, depth: usize) -> Result<(), SourceError> {
        if depth > self.limits.depth {
            return Err(exceeded(format!(
                "`{path}` lies deeper than {} folders",
                self.limits.depth
            )));
        }
        Ok(())
    }

    /// Whether a file of this size may be read at all; otherwise it is refused by name.
    ///
    /// # Errors
    /// When the tree as a whole would become too large.
    pub(crate) fn admit(&mut self, path: &str, size: u64) -> Result<bool, SourceError> {
        if size > self.limits.file_bytes {
            self.refuse(path, Refusal::TooLarge { size });
            return Ok(false);
        }
        if self.bytes + size > self.limits.total_bytes {
            return Err(exceeded(format!(
                "the files together are larger than {} bytes, at `{path}`; name a folder with `path`",
                self.limits.total_bytes
            )));
        }
        Ok(true)
    }

    /// Keeps an admitted file, unless it is an LFS pointer.
    pub(crate) fn keep(&mut self, path: &str, blob: String, bytes: Arc<[u8]>) {
        if bytes.len() < LFS_POINTER_MAX && bytes.starts_with(LFS_POINTER_START) {
            self.refuse(path, Refusal::LfsPointer);
            return;
        }
        self.bytes += bytes.len() as u64;
        self.tree.files.insert(path.to_owned(), File { blob, bytes });
    }

    /// Names what is not read.
    pub(crate) fn refuse(&mut self, path: &str, why: Refusal) {
        self.tree.refused.insert(path.to_owned(), why);
    }

    pub(crate) fn finish(self) -> Tree {
        self.tree
    }
}

fn exceeded(message: String) -> SourceError {
    SourceError::terminal(SourceReason::LimitExceeded, message)
}

/// One component of a path, if it is a plain name. `Err` holds a printable form of what it was.
///
/// Git refuses such names when it checks out a tree; who only reads objects must refuse them itself.
pub(crate) fn plain_name(name: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(name).map_err(|_| name.escape_ascii().to_string())?;
    let fine = !text.is_empty()
        && text != "."
        && text != ".."
        && !text.eq_ignore_ascii_case(".git")
        && !text.contains(['/', '\\', ':'])
        && !text.chars().any(char::is_control);
    if fine {
        Ok(text)
    } else {
        Err(name.escape_ascii().to_string())
    }
}

/// Puts a parent and a name together with `/`.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}

/// The configured path as components: `.` and an empty path are the root.
///
/// # Errors
/// When it is absolute or has a component that is not a plain name.
pub(crate) fn components(path: &str) -> Result<Vec<&str>, SourceError> {
    let bad = || {
        SourceError::terminal(
            SourceReason::PathNotFound,
            format!("path `{path}` is not a relative path inside the repository"),
        )
    };
    if path.starts_with('/') {
        return Err(bad());
    }
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(|part| plain_name(part.as_bytes()).map_err(|_| bad()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Builder, Limits, components, plain_name};
    use crate::source::{Refusal, SourceReason};

    #[test]
    fn s06_only_plain_names_pass() {
        for name in ["a", "plans.yaml", "..a", "ü", "a b", ".gitignore"] {
            assert_eq!(plain_name(name.as_bytes()), Ok(name));
        }
        let bad: [&[u8]; 9] = [b"", b".", b"..", b".git", b".GIT", b"a/b", b"a\\b", b"a\n", b"\xff"];
        for name in bad {
            assert!(plain_name(name).is_err(), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn s06_a_configured_path_stays_inside() {
        assert_eq!(components(".").expect("fine"), Vec::<&str>::new());
        assert_eq!(components("./a//b/").expect("fine"), ["a", "b"]);
        for path in ["/etc", "../x", "a/../../b", ".git"] {
            assert_eq!(
                components(path).expect_err("outside").reason,
                SourceReason::PathNotFound,
                "{path}"
            );
        }
    }

    #[test]
    fn s06_limits_name_what_broke_them() {
        let limits = Limits {
            file_bytes: 4,
            total_bytes: 6,
            entries: 3,
            depth: 2,
        };
        let mut builder = Builder::new(limits);
        assert!(!builder.admit("big", 5).expect("refused alone"));
        assert!(builder.admit("a", 4).expect("fits"));
        builder.keep("a", String::new(), [0; 4][..].into());
        let error = builder.admit("b", 3).expect_err("too much together");
        assert_eq!(error.reason, SourceReason::LimitExceeded);
        assert!(error.message.contains("`b`") && !error.transient, "{error}");
        builder.check_depth("x/y", 2).expect("deep enough");
        assert!(builder.check_depth("x/y/z", 3).is_err());
        for _ in 0..3 {
            builder.count_entry().expect("three entries");
        }
        assert!(builder.count_entry().is_err());
        let tree = builder.finish();
        assert_eq!(tree.refused["big"], Refusal::TooLarge { size: 5 });
        assert_eq!(tree.files.len(), 1);
    }
}
