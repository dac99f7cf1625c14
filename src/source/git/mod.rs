//! A branch of a git repository as a source: one `ls-remote` per tick, a bare mirror, blobs read at the pinned commit.
//!
//! URLs: an absolute path, `file://`, `http://`, `https://`, `ssh://` and scp's `user@host:path`.

pub mod credentials;
mod fault;
mod known_hosts;
mod limits;
pub mod local;
mod mirror;
mod read;
mod remote;

use super::tree::{Limits, components};
use super::{Source, SourceError, SourceReason, Tree};
use async_trait::async_trait;
use credentials::{Credentials, redact_url};
use git2::Reference;
use muster_core::base::backoff::Backoff;
use muster_core::model::id::Revision;
use remote::Address;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// One `ls-remote`: connect, handshake and the list of refs.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(45);
/// One fetch and read; the first brings the branch's history.
const READ_DEADLINE: Duration = Duration::from_secs(300);
/// libgit2 notices its own end this much later at most (its longest silence); then the outer wait gives up.
const GRACE: Duration = Duration::from_secs(5);
/// After 401, 403 or 429 the host is left alone: 30 s, doubling, to 15 min (promise 2).
const REFUSED: Backoff = Backoff {
    min: Duration::from_secs(30),
    max: Duration::from_secs(15 * 60),
};

/// What to read and as whom.
#[derive(Debug, Clone)]
pub struct GitConfig {
    /// Where the repository is.
    pub url: String,
    /// The branch that is followed.
    pub branch: String,
    /// The folder that is read; `.` for all.
    pub path: String,
    /// Folder of the bare mirror, made when missing; nobody else writes to it.
    pub mirror: PathBuf,
    /// As whom.
    pub credentials: Credentials,
    /// Bounds of one tree.
    pub limits: Limits,
}

/// A branch of a remote repository.
pub struct GitSource {
    shared: Arc<Shared>,
    /// One conversation at a time; one that hangs keeps it, so that hanging ones never pile up.
    turn: Arc<tokio::sync::Mutex<()>>,
    refused: Mutex<Option<HeldOff>>,
}

struct Shared {
    address: Address,
    path: String,
    mirror: PathBuf,
    limits: Limits,
}

/// The host said no; until then it is not asked again.
#[derive(Debug, Clone)]
struct HeldOff {
    failures: u32,
    until: Instant,
    reason: SourceReason,
    message: String,
}

impl GitSource {
    /// Checks the configuration; nothing is contacted yet.
    ///
    /// # Errors
    /// A terminal error for a URL of another scheme, a branch no git would accept, or a path outside the repository.
    pub fn new(config: GitConfig) -> Result<Self, SourceError> {
        limits::init().map_err(|cause| SourceError::terminal(SourceReason::Internal, cause))?;
        check_url(&config.url)?;
        components(&config.path)?;
        if !Reference::is_valid_name(&format!("refs/heads/{}", config.branch)) || config.branch.contains(['*', '+']) {
            let message = format!("`{}` is not a branch name", config.branch.escape_debug());
            return Err(SourceError::terminal(SourceReason::BranchNotFound, message));
        }
        Ok(Self {
            shared: Arc::new(Shared {
                address: Address {
                    url: config.url,
                    branch: config.branch,
                    credentials: config.credentials,
                },
                path: config.path,
                mirror: config.mirror,
                limits: config.limits,
            }),
            turn: Arc::default(),
            refused: Mutex::new(None),
        })
    }

    /// Runs blocking libgit2 work with a deadline that libgit2 itself is also told.
    async fn blocking<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Shared, Instant) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let shared = Arc::clone(&self.shared);
        let turn = Arc::clone(&self.turn);
        let task = async {
            let turn = turn.lock_owned().await;
            let deadline = Instant::now() + limit;
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work(&shared, deadline)
            })
            .await
        };
        match timeout(limit + GRACE, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(SourceError::transient(SourceReason::Internal, error.to_string())),
            Err(_) => {
                let url = redact_url(&self.shared.address.url);
                let message = format!("{url} did not answer within {limit:?}");
                Err(SourceError::transient(SourceReason::Timeout, message))
            }
        }
    }

    /// The host's last refusal, while it is to be left alone.
    fn held_off(&self) -> Option<SourceError> {
        let held = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let left = held.until.checked_duration_since(Instant::now())?;
        let message = format!("{} (asked again in {} s)", held.message, left.as_secs() + 1);
        Some(SourceError::transient(held.reason, message))
    }

    /// Remembers refusals and forgets them when the host answers.
    fn note<T>(&self, result: Result<T, SourceError>) -> Result<T, SourceError> {
        let mut held = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(_) => *held = None,
            Err(error)
                if matches!(
                    error.reason,
                    SourceReason::AuthenticationFailed | SourceReason::RateLimited
                ) =>
            {
                let failures = held.as_ref().map_or(0, |held| held.failures) + 1;
                *held = Some(HeldOff {
                    failures,
                    until: Instant::now() + REFUSED.delay(failures, 0.0),
                    reason: error.reason,
                    message: error.message.clone(),
                });
            }
            Err(_) => {}
        }
        result
    }
}

#[async_trait]
impl Source for GitSource {
    async fn resolve(&self) -> Result<Revision, SourceError> {
        if let Some(error) = self.held_off() {
            return Err(error);
        }
        let found = self
            .blocking(RESOLVE_DEADLINE, |shared, deadline| shared.address.ls_remote(deadline))
            .await;
        let oid = self.note(found)?;
        Revision::new(oid.to_string()).map_err(|error| SourceError::terminal(SourceReason::Internal, error.to_string()))
    }

    async fn read(&self, revision: &Revision) -> Result<Tree, SourceError> {
        let commit = read::oid(revision)?;
        let here = self.blocking(READ_DEADLINE, move |shared, _| {
            let mirror = mirror::open(&shared.mirror)?;
            if read::holds(&mirror, commit)? {
                read::tree(&mirror, commit, &shared.path, shared.limits).map(Some)
            } else {
                Ok(None)
            }
        });
        if let Some(tree) = here.await? {
            return Ok(tree);
        }
        if let Some(error) = self.held_off() {
            return Err(error);
        }
        let fetched = self
            .blocking(READ_DEADLINE, |shared, deadline| {
                let mirror = mirror::open(&shared.mirror)?;
                // Only this source writes to the mirror, one fetch at a time: a lock that is there is a killed daemon's.
                std::fs::remove_file(shared.mirror.join(remote::TIP_LOCK)).ok();
                shared.address.fetch(&mirror, deadline)?;
                drop(mirror);
                mirror::pack_when_many(&shared.mirror);
                Ok(())
            })
            .await;
        self.note(fetched)?;
        let short = revision.short().to_owned();
        self.blocking(READ_DEADLINE, move |shared, _| {
            let mirror = mirror::open(&shared.mirror)?;
            if !read::holds(&mirror, commit)? {
                let message = format!("the branch moved away from {short} while it was fetched");
                return Err(SourceError::transient(SourceReason::BranchNotFound, message));
            }
            read::tree(&mirror, commit, &shared.path, shared.limits)
        })
        .await
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn author(&self, revision: &Revision) -> Option<String> {
        let commit = read::oid(revision).ok()?;
        self.blocking(READ_DEADLINE, move |shared, _| {
            Ok(read::author(&mirror::open(&shared.mirror)?, commit))
        })
        .await
        .ok()?
    }

    async fn author_of(&self, revision: &Revision, file: &str) -> Option<String> {
        let commit = read::oid(revision).ok()?;
        let file = file.to_owned();
        self.blocking(READ_DEADLINE, move |shared, deadline| {
            Ok(read::author_of(
                &mirror::open(&shared.mirror)?,
                commit,
                &shared.path,
                &file,
                deadline,
            ))
        })
        .await
        .ok()?
    }
}

fn check_url(url: &str) -> Result<(), SourceError> {
    let fine = match url.split_once("://") {
        Some((scheme, rest)) => matches!(scheme, "file" | "http" | "https" | "ssh") && !rest.is_empty(),
        None => url.starts_with('/') || credentials::host_of(url).is_some_and(|host| !host.is_empty()),
    };
    if fine && !url.contains(char::is_control) {
        return Ok(());
    }
    Err(SourceError::terminal(
        SourceReason::Unreachable,
        format!(
            "`{}` is not a repository: an absolute path, file://, http://, https:// or ssh:// is",
            redact_url(url).escape_debug()
        ),
    ))
}

#[cfg(test)]
mod tests;
