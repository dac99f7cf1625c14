//! A local folder as a source: walked under the same limits as git, its digest in place of a SHA, watched with notify (promise 9).

use super::tree::{Builder, Limits, join, plain_name};
use super::{Refusal, Source, SourceError, SourceReason, Tree};
use async_trait::async_trait;
use muster_core::model::id::{Digest, Revision};
use nix::fcntl::OFlag;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A walk that takes longer hangs on a dead network file system: 20,000 local files take well under a second.
const WALK_DEADLINE: Duration = Duration::from_secs(30);
/// An editor saves with several events; the walk begins when none came for this long …
const QUIET: Duration = Duration::from_millis(100);
/// … but a folder that is written to all the time is still looked at this often.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// Folders no plan lives in; `target` only where cargo marked it as its cache.
const IGNORED: [&str; 3] = [".git", ".muster", "node_modules"];

/// A folder of plans on this machine.
pub struct DirectorySource {
    root: PathBuf,
    limits: Limits,
    /// What `resolve` saw, so that `read` returns exactly that.
    last: Mutex<Option<(Revision, Tree)>>,
    changed: Arc<Notify>,
    /// `None` where the system gives no watch: then only polling helps.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl DirectorySource {
    /// Watches a folder. Without a watch (no inotify instances left) changes are seen at the next poll only.
    pub fn new(root: impl Into<PathBuf>, limits: Limits) -> Self {
        let root = root.into();
        let changed = Arc::new(Notify::new());
        let watcher = watch(&root, Arc::clone(&changed))
            .inspect_err(
                |error| tracing::warn!(directory = %root.display(), %error, "no watch on the directory; polling it"),
            )
            .ok();
        Self {
            root,
            limits,
            last: Mutex::new(None),
            changed,
            _watcher: watcher,
        }
    }

    async fn walk(&self) -> Result<(Revision, Tree), SourceError> {
        let (root, limits) = (self.root.clone(), self.limits);
        let walk = tokio::task::spawn_blocking(move || walk(&root, limits));
        match timeout(WALK_DEADLINE, walk).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(SourceError::transient(SourceReason::Internal, error.to_string())),
            Err(_) => Err(SourceError::transient(
                SourceReason::Timeout,
                format!("reading {} took more than {WALK_DEADLINE:?}", self.root.display()),
            )),
        }
    }

    fn keep(&self, seen: &(Revision, Tree)) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen.clone());
    }
}

#[async_trait]
impl Source for DirectorySource {
    async fn resolve(&self) -> Result<Revision, SourceError> {
        let seen = self.walk().await?;
        self.keep(&seen);
        Ok(seen.0)
    }

    async fn read(&self, revision: &Revision) -> Result<Tree, SourceError> {
        if let Some((last, tree)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && last == revision
        {
            return Ok(tree.clone());
        }
        let seen = self.walk().await?;
        self.keep(&seen);
        if seen.0 == *revision {
            Ok(seen.1)
        } else {
            Err(SourceError::transient(
                SourceReason::PathNotFound,
                format!("the directory no longer holds {}", revision.short()),
            ))
        }
    }

    async fn changed(&self) {
        self.changed.notified().await;
        let until = Instant::now() + QUIET_MAX;
        while Instant::now() < until && timeout(QUIET, self.changed.notified()).await.is_ok() {}
    }

    async fn author(&self, _revision: &Revision) -> Option<String> {
        None
    }

    async fn author_of(&self, _revision: &Revision, _file: &str) -> Option<String> {
        None
    }
}

fn watch(root: &Path, changed: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let base = root.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error (an overflowed queue) may hide a change: look again.
        if event.is_err() || event.is_ok_and(|event| concerns(&event, &base)) {
            changed.notify_one();
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Our own reading is an access event and must not wake us; what lies in an ignored folder is nobody's plan.
fn concerns(event: &notify::Event, root: &Path) -> bool {
    let kind = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    kind && (event.need_rescan()
        || event.paths.iter().any(|path| {
            let inside = path.strip_prefix(root).unwrap_or(path);
            !inside
                .components()
                .any(|part| IGNORED.iter().any(|name| part.as_os_str() == *name))
        }))
}

fn ignored(name: &str, path: &Path) -> bool {
    IGNORED.contains(&name) || (name == "target" && path.join("CACHEDIR.TAG").is_file())
}

fn walk(root: &Path, limits: Limits) -> Result<(Revision, Tree), SourceError> {
    let mut builder = Builder::new(limits);
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if prefix.is_empty() => return Err(root_fault(root, &error)),
            Err(error) => {
                builder.refuse(&prefix, unreadable(&error));
                continue;
            }
        };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            let (path, name) = (entry.path(), entry.file_name());
            let relative = match plain_name(name.as_bytes()) {
                Ok(name) if ignored(name, &path) => continue,
                Ok(name) => join(&prefix, name),
                Err(_) if name == ".git" => continue,
                Err(shown) => {
                    builder.count_entry()?;
                    builder.refuse(&join(&prefix, &shown), Refusal::BadName);
                    continue;
                }
            };
            builder.count_entry()?;
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => builder.refuse(&relative, Refusal::Symlink),
                Ok(kind) if kind.is_dir() => {
                    builder.check_depth(&relative, depth + 1)?;
                    folders.push((path, relative, depth + 1));
                }
                Ok(kind) if kind.is_file() => read_file(&path, &relative, limits, &mut builder)?,
                Ok(_) => builder.refuse(&relative, Refusal::NotAFile),
                Err(error) => builder.refuse(&relative, unreadable(&error)),
            }
        }
    }
    let tree = builder.finish();
    Ok((digest(&tree), tree))
}

fn read_file(path: &Path, relative: &str, limits: Limits, builder: &mut Builder) -> Result<(), SourceError> {
    // Between the listing and now the entry may have become a link or a pipe: neither is followed nor waited for.
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let content = opened.and_then(|file| {
        let size = file.metadata()?.len();
        Ok((file, size))
    });
    let (file, size) = match content {
        Ok(content) => content,
        // Gone since the listing: it will not be in the next one either.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            builder.refuse(relative, unreadable(&error));
            return Ok(());
        }
    };
    if !builder.admit(relative, size)? {
        return Ok(());
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    if let Err(error) = file.take(limits.file_bytes + 1).read_to_end(&mut bytes) {
        builder.refuse(relative, unreadable(&error));
    } else if builder.admit(relative, bytes.len() as u64)? {
        let blob = Digest::of(&bytes).hex().to_owned();
        builder.keep(relative, blob, bytes.into());
    }
    Ok(())
}

fn unreadable(error: &std::io::Error) -> Refusal {
    Refusal::Unreadable {
        cause: error.kind().to_string(),
    }
}

fn root_fault(root: &Path, error: &std::io::Error) -> SourceError {
    SourceError::transient(
        SourceReason::PathNotFound,
        format!("cannot read directory {}: {}", root.display(), error.kind()),
    )
}

/// SHA-256 over the sorted listing: path, NUL, blob, newline; refused entries count by name and reason.
fn digest(tree: &Tree) -> Revision {
    let mut hash = Sha256::new();
    for (path, file) in &tree.files {
        hash.update(format!("{path}\0{}\n", file.blob));
    }
    for (path, why) in &tree.refused {
        hash.update(format!("{path}\0!{why}\n"));
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Revision::new(format!("dir-{hex}")).expect("64 hex digits after dir- are a revision")
}

#[cfg(test)]
mod tests;
