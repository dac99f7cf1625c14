//! A repository on this machine, read as it is: for `muster diff --base REV --head REV -C REPO`.

use super::{limits, read};
use crate::source::tree::Limits;
use crate::source::{SourceError, SourceReason, Tree};
use git2::Repository;
use muster_core::model::id::Revision;
use std::path::Path;

/// An existing repository, bare or with a work tree that is never looked at. Calls block.
pub struct LocalRepository {
    repository: Repository,
}

impl LocalRepository {
    /// Opens the repository that `path` lies in.
    ///
    /// # Errors
    /// [`SourceReason::Unreachable`] when there is none.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let none = |cause: &str| {
            SourceError::terminal(
                SourceReason::Unreachable,
                format!("{} is not in a git repository: {cause}", path.display()),
            )
        };
        limits::init().map_err(|cause| none(&cause))?;
        let repository = Repository::discover(path).map_err(|error| none(error.message()))?;
        Ok(Self { repository })
    }

    /// The commit a name means: a branch, a tag, `HEAD~2`, a short or full SHA.
    ///
    /// # Errors
    /// [`SourceReason::BranchNotFound`] when it names no commit.
    pub fn resolve_rev(&self, name: &str) -> Result<Revision, SourceError> {
        let not = |cause: &str| {
            SourceError::terminal(
                SourceReason::BranchNotFound,
                format!("`{name}` names no commit: {cause}"),
            )
        };
        let commit = self
            .repository
            .revparse_single(name)
            .and_then(|object| object.peel_to_commit())
            .map_err(|error| not(error.message()))?;
        Revision::new(commit.id().to_string()).map_err(|error| not(&error.to_string()))
    }

    /// Everything under `path` (`.` for all) at a revision.
    ///
    /// # Errors
    /// As [`crate::source::Source::read`].
    pub fn read(&self, revision: &Revision, path: &str, limits: Limits) -> Result<Tree, SourceError> {
        read::tree(&self.repository, read::oid(revision)?, path, limits)
    }

    /// The author of a commit.
    pub fn author(&self, revision: &Revision) -> Option<String> {
        read::author(&self.repository, read::oid(revision).ok()?)
    }
}
