//! Reads blobs out of an object database at one commit, without a work tree: no filter, no hook, no link is ever followed.

use super::fault;
use crate::source::tree::{Builder, Limits, components, join, plain_name};
use crate::source::{Refusal, SourceError, SourceReason, Tree};
use git2::{Commit, ErrorCode, ObjectType, Oid, Repository};
use muster_core::model::id::Revision;
use std::path::PathBuf;
use std::time::Instant;

/// Longest author text kept; names are data of strangers.
const AUTHOR_MAX: usize = 200;
const MODE_TYPE: i32 = 0o170_000;
const MODE_SYMLINK: i32 = 0o120_000;

/// The commit's id as libgit2 wants it.
///
/// # Errors
/// When the revision is not a SHA-1 (libgit2 reads no SHA-256 repositories).
pub(super) fn oid(revision: &Revision) -> Result<Oid, SourceError> {
    Oid::from_str(revision.as_str()).map_err(|_| {
        SourceError::terminal(
            SourceReason::Internal,
            format!("{revision} is not a commit this build can read"),
        )
    })
}

/// Everything under `path` at a commit.
///
/// # Errors
/// [`SourceReason::PathNotFound`] when there is no such folder, [`SourceReason::LimitExceeded`], or a damaged copy.
pub(super) fn tree(repository: &Repository, commit: Oid, path: &str, limits: Limits) -> Result<Tree, SourceError> {
    let internal = |error: git2::Error| fault::of_store(&error);
    let mut root = repository
        .find_commit(commit)
        .and_then(|commit| commit.tree())
        .map_err(internal)?;
    for part in components(path)? {
        let missing = || {
            SourceError::terminal(
                SourceReason::PathNotFound,
                format!("there is no folder `{path}` at {commit}"),
            )
        };
        let entry = root.get_name(part).ok_or_else(missing)?.id();
        root = repository.find_tree(entry).map_err(|_| missing())?;
    }
    let odb = repository.odb().map_err(internal)?;
    let mut builder = Builder::new(limits);
    let mut folders = vec![(root.id(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let folder = repository.find_tree(folder).map_err(internal)?;
        for entry in &folder {
            builder.count_entry()?;
            let name = match plain_name(entry.name_bytes()) {
                Ok(name) => join(&prefix, name),
                Err(shown) => {
                    builder.refuse(&join(&prefix, &shown), Refusal::BadName);
                    continue;
                }
            };
            match entry.kind() {
                _ if entry.filemode() & MODE_TYPE == MODE_SYMLINK => builder.refuse(&name, Refusal::Symlink),
                Some(ObjectType::Commit) => builder.refuse(&name, Refusal::Submodule),
                Some(ObjectType::Tree) => {
                    builder.check_depth(&name, depth + 1)?;
                    folders.push((entry.id(), name, depth + 1));
                }
                Some(ObjectType::Blob) => {
                    // The size comes from the object's header: a blob over the limit is never inflated.
                    let (size, _) = odb.read_header(entry.id()).map_err(internal)?;
                    if builder.admit(&name, size as u64)? {
                        let object = odb.read(entry.id()).map_err(internal)?;
                        builder.keep(&name, entry.id().to_string(), object.data().into());
                    }
                }
                _ => builder.refuse(&name, Refusal::NotAFile),
            }
        }
    }
    Ok(builder.finish())
}

/// Whether a commit and all it needs is here. A fetch that was cut off leaves no pack, so the commit alone tells.
///
/// # Errors
/// When the copy is damaged.
pub(super) fn holds(repository: &Repository, commit: Oid) -> Result<bool, SourceError> {
    match repository.find_commit(commit) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
        Err(error) => Err(fault::of_store(&error)),
    }
}

/// The author of the newest commit that made a file what it is, found as `git log -1 -- FILE` does: at a merge, the way
/// that brought the file unchanged is the way to go. `None` past the deadline, or where the file is not there.
pub(super) fn author_of(
    repository: &Repository,
    commit: Oid,
    path: &str,
    file: &str,
    deadline: Instant,
) -> Option<String> {
    let place = components(path).ok()?.into_iter().chain([file]).collect::<PathBuf>();
    let content = |commit: &Commit<'_>| Some(commit.tree().ok()?.get_path(&place).ok()?.id());
    let mut newest = repository.find_commit(commit).ok()?;
    let wanted = content(&newest)?;
    while Instant::now() < deadline {
        match newest.parents().find(|parent| content(parent) == Some(wanted)) {
            Some(parent) => newest = parent,
            None => return author(repository, newest.id()),
        }
    }
    None
}

/// `Name <email>` of a commit's author, without control characters, cut to a bounded length.
pub(super) fn author(repository: &Repository, commit: Oid) -> Option<String> {
    let commit = repository.find_commit(commit).ok()?;
    let author = commit.author();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = format!("{} <{}>", lossy(author.name_bytes()), lossy(author.email_bytes()));
    Some(text.chars().filter(|c| !c.is_control()).take(AUTHOR_MAX).collect())
}
