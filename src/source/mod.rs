//! Where plans come from: git or a directory. A source resolves a revision once per tick and reads it without a work tree.

use async_trait::async_trait;
use muster_core::model::id::Revision;
use muster_core::spec::{Files, SourceFile};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub mod directory;
pub mod fixed;
pub mod git;
pub mod tree;

/// Everything under the configured path at one revision. Symlinks, submodules and what breaks a limit are named, not read.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Regular files by path relative to the configured path, with `/`.
    pub files: BTreeMap<String, File>,
    /// Entries that were refused: path and why (promise 6).
    pub refused: BTreeMap<String, Refusal>,
}

impl Tree {
    /// The same tree as `spec` reads it; contents are shared, not copied.
    pub fn to_files(&self) -> Files {
        let file = |file: &File| SourceFile {
            blob: file.blob.clone(),
            bytes: Arc::clone(&file.bytes),
        };
        Files {
            files: self
                .files
                .iter()
                .map(|(path, content)| (path.clone(), file(content)))
                .collect(),
            refused: self
                .refused
                .iter()
                .map(|(path, refusal)| (path.clone(), refusal.to_string()))
                .collect(),
        }
    }
}

/// One regular file.
#[derive(Debug, Clone)]
pub struct File {
    /// Git's blob id or a digest of the content: equal ids mean equal content (promise 4).
    pub blob: String,
    /// The content.
    pub bytes: Arc<[u8]>,
}

/// Why an entry of the tree is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A symbolic link.
    Symlink,
    /// A submodule.
    Submodule,
    /// A Git LFS pointer instead of the content.
    LfsPointer,
    /// Larger than the limit for one file, in bytes.
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// A name that is not UTF-8 or would leave the tree.
    BadName,
    /// A socket, a pipe or a device.
    NotAFile,
    /// The operating system refused to give its content.
    Unreadable {
        /// The system's words; never content.
        cause: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symlink => formatter.write_str("is a symbolic link; links are never followed"),
            Self::Submodule => formatter.write_str("is a submodule; submodules are not read"),
            Self::LfsPointer => formatter.write_str("is a Git LFS pointer; its content is not in the repository"),
            Self::TooLarge { size } => write!(formatter, "has {size} bytes, more than one file may have"),
            Self::BadName => formatter.write_str("has a name that is not UTF-8 or would leave the tree"),
            Self::NotAFile => formatter.write_str("is not a regular file"),
            Self::Unreadable { cause } => write!(formatter, "cannot be read: {cause}"),
        }
    }
}

/// A source of plans.
#[async_trait]
pub trait Source: Send + Sync {
    /// Finds the newest revision; one `ls-remote` for git.
    ///
    /// # Errors
    /// [`SourceError`] with a reason; the caller keeps the last good state.
    async fn resolve(&self) -> Result<Revision, SourceError>;

    /// Reads everything under the configured path at a revision that `resolve` returned. Fetches only what is missing.
    ///
    /// # Errors
    /// [`SourceError`] with a reason; the caller keeps the last good state.
    async fn read(&self, revision: &Revision) -> Result<Tree, SourceError>;

    /// Waits until something may have changed, or for ever where only polling helps.
    async fn changed(&self);

    /// The author of a commit, for the audit trail; `None` for a directory.
    async fn author(&self, revision: &Revision) -> Option<String>;

    /// The author of the newest commit up to `revision` that touched a file, by its path in the [`Tree`]; `None` for a
    /// directory, or where nobody can tell.
    async fn author_of(&self, revision: &Revision, file: &str) -> Option<String>;
}

/// Why a source has nothing new.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// One CamelCase word for the condition.
    pub reason: SourceReason,
    /// For people; no credentials.
    pub message: String,
    /// Whether trying again without a change makes sense.
    pub transient: bool,
}

/// The closed set of reasons, each a condition's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceReason {
    /// Nobody answers there, or not as a repository.
    Unreachable,
    /// The host does not take the credentials.
    AuthenticationFailed,
    /// The host asks to be left alone for a while.
    RateLimited,
    /// The branch is not there (any more).
    BranchNotFound,
    /// There is no commit yet.
    EmptyRepository,
    /// The configured folder is not in the commit.
    PathNotFound,
    /// More files or bytes than are read.
    LimitExceeded,
    /// No answer in time.
    Timeout,
    /// This side's own fault: its disk, its copy.
    Internal,
}

impl SourceReason {
    /// The condition's reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::RateLimited => "RateLimited",
            Self::BranchNotFound => "BranchNotFound",
            Self::EmptyRepository => "EmptyRepository",
            Self::PathNotFound => "PathNotFound",
            Self::LimitExceeded => "LimitExceeded",
            Self::Timeout => "Timeout",
            Self::Internal => "Internal",
        }
    }
}

impl SourceError {
    /// Something that may be better at the next tick without anybody's change.
    pub fn transient(reason: SourceReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            transient: true,
        }
    }

    /// Something that needs a commit or another setting.
    pub fn terminal(reason: SourceReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            transient: false,
        }
    }
}
