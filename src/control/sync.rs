//! From a source to Desired: one look per tick, the last good state per project, nothing decided on emptiness.

use super::contents::Contents;
use super::news::News;
use crate::runtime::clock::Clock;
use crate::source::{Source, SourceError, SourceReason, Tree};
use crate::store::{Ledger, StoreError};
use jiff::Timestamp;
use muster_core::base::backoff::Backoff;
use muster_core::base::chain::chain;
use muster_core::base::units::counted;
use muster_core::model::id::Revision;
use muster_core::model::key::Key;
use muster_core::model::policy::Policy;
use muster_core::model::resource::Spec;
use muster_core::model::run::Severity;
use muster_core::spec::{self, Cache, Files, Loaded, ProjectLoad};
use projects::Projects;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

mod projects;

pub use projects::{ProjectState, Published};

/// One `ls-remote` over a slow line takes seconds; a minute means nobody is there.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(60);
/// A first fetch of a large repository takes minutes.
const READ_DEADLINE: Duration = Duration::from_secs(600);

/// How the source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Not asked yet.
    Unasked,
    /// It answered.
    Ready,
    /// It did not.
    Failing {
        /// Why.
        reason: SourceReason,
        /// For people.
        message: String,
        /// Since when.
        since: Timestamp,
    },
}

/// What [`Sync`] stands on.
#[derive(Clone)]
pub struct SyncDeps {
    /// Where plans come from.
    pub source: Arc<dyn Source>,
    /// Where the last good state is kept.
    pub ledger: Arc<dyn Ledger>,
    /// Time.
    pub clock: Clock,
    /// What plans may ask for.
    pub policy: Arc<Policy>,
    /// Time between two looks.
    pub interval: Duration,
    /// A foreground run takes only what its plan needs; the rest of the folder, and what is wrong there, is not its business.
    pub only: Option<BTreeSet<Key>>,
}

/// What became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// The revision of the last tick: nothing was read.
    Unchanged,
    /// A new revision was read.
    Changed,
    /// The source or the ledger did not answer; the last good state stays.
    Failed,
}

/// The loop's state.
pub struct Sync {
    deps: SyncDeps,
    contents: Contents,
    news: News,
    cache: Cache,
    seen: Option<Revision>,
    failures: u32,
    projects: Projects,
    published: watch::Sender<Option<Arc<Published>>>,
    state: watch::Sender<SourceState>,
    look: Arc<Notify>,
    loader: Loader,
}

/// How a tree becomes resources and diagnostics.
type Loader = fn(&Files, &Policy, &mut Cache) -> Loaded;

/// What others may see and ask of the loop.
#[derive(Clone)]
pub struct SyncHandle {
    /// `None` until there is something to decide on.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// How the source is doing.
    pub state: watch::Receiver<SourceState>,
    /// Contents of the files that resources refer to.
    pub contents: Contents,
    look: Arc<Notify>,
}

impl SyncHandle {
    /// A handle whose published value a test sets.
    #[cfg(test)]
    pub(super) fn fixed(published: watch::Receiver<Option<Arc<Published>>>, contents: Contents) -> Self {
        Self {
            published,
            state: watch::channel(SourceState::Ready).1,
            contents,
            look: Arc::default(),
        }
    }

    /// Looks at the source now.
    pub fn look_now(&self) {
        self.look.notify_one();
    }
}

impl Sync {
    /// Restores what the last daemon knew, so that nothing is decided on emptiness.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn restore(deps: SyncDeps) -> Result<(Self, SyncHandle), StoreError> {
        let news = News::new(Arc::clone(&deps.ledger), deps.clock.clone());
        let projects = Projects::restore(Arc::clone(&deps.ledger), news.clone()).await?;
        let (published, published_receiver) = watch::channel(None);
        let (state, state_receiver) = watch::channel(SourceState::Unasked);
        let look = Arc::new(Notify::new());
        let contents = Contents::new(Arc::clone(&deps.ledger));
        // A reference into a project that is broken at this moment means its last good state (promise 5).
        let mut cache = Cache::default();
        for (name, project) in projects.good() {
            cache.remember(name.clone(), project.resources.clone());
        }
        let sync = Self {
            news,
            contents: contents.clone(),
            cache,
            seen: None,
            failures: 0,
            projects,
            published,
            state,
            look: Arc::clone(&look),
            loader: spec::load,
            deps,
        };
        if !sync.projects.is_empty() {
            sync.publish(None);
        }
        let handle = SyncHandle {
            published: published_receiver,
            state: state_receiver,
            contents,
            look,
        };
        Ok((sync, handle))
    }

    /// Looks again and again until cancelled: at each interval, when the source says that something changed, when asked to.
    pub async fn run(mut self, cancel: CancellationToken) {
        let source = Arc::clone(&self.deps.source);
        let look = Arc::clone(&self.look);
        loop {
            let tick = tokio::select! {
                () = cancel.cancelled() => return,
                tick = self.tick() => tick,
            };
            let wait = self.wait_after(tick);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = look.notified() => {}
                // While it fails, what it says of changes is not worth an earlier try.
                () = source.changed(), if tick != Tick::Failed => {}
                () = self.deps.clock.sleep(wait) => {}
            }
        }
    }

    fn wait_after(&self, tick: Tick) -> Duration {
        match tick {
            Tick::Failed => Backoff::RECONCILE
                .delay(self.failures, super::jitter())
                .max(self.deps.interval),
            Tick::Unchanged | Tick::Changed => self.deps.interval,
        }
    }

    /// One look: one `resolve`; a read only when the revision is another (promises 1, 2).
    pub async fn tick(&mut self) -> Tick {
        match self.look().await {
            Ok(tick) => {
                self.failures = 0;
                self.source_answers().await;
                tick
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.source_fails(&error).await;
                Tick::Failed
            }
        }
    }

    async fn look(&mut self) -> Result<Tick, SourceError> {
        let source = Arc::clone(&self.deps.source);
        let revision = within(RESOLVE_DEADLINE, source.resolve()).await?;
        if self.seen.as_ref() == Some(&revision) {
            return Ok(Tick::Unchanged);
        }
        let tree = within(READ_DEADLINE, source.read(&revision)).await?;
        let mut loaded = self.load(&tree).await?;
        if let Some(only) = &self.deps.only {
            for project in loaded.projects.values_mut() {
                project.resources.retain(|key, _| only.contains(key));
                project.diagnostics.clear();
            }
        }
        self.sign_suspensions(&revision, &mut loaded).await;
        self.take(&revision, &tree, loaded)
            .await
            .map_err(|error| internal(format!("ledger: {}", chain(&error))))?;
        self.seen = Some(revision);
        Ok(Tick::Changed)
    }

    /// Parses off the loop's thread; a revision that makes the parser panic is a failure like any other (promise 11).
    async fn load(&mut self, tree: &Tree) -> Result<Loaded, SourceError> {
        let files = tree.to_files();
        let policy = Arc::clone(&self.deps.policy);
        let mut cache = std::mem::take(&mut self.cache);
        let loader = self.loader;
        let work = move || {
            let loaded = loader(&files, &policy, &mut cache);
            (loaded, cache)
        };
        let (loaded, cache) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| internal("reading the plans panicked".to_owned()))?;
        self.cache = cache;
        Ok(loaded)
    }

    /// Names who holds a plan back: only the source knows (promise 23).
    async fn sign_suspensions(&self, revision: &Revision, loaded: &mut Loaded) {
        let resources = loaded
            .projects
            .values_mut()
            .flat_map(|project| project.resources.values_mut());
        for resource in resources {
            if !matches!(&resource.spec, Spec::TestPlan(plan) if plan.suspend.is_some()) {
                continue;
            }
            let who = self.deps.source.author_of(revision, &resource.meta.origin.file).await;
            if let Spec::TestPlan(plan) = &mut Arc::make_mut(resource).spec
                && let Some(suspend) = &mut plan.suspend
            {
                suspend.who = who;
            }
        }
    }

    /// Writes down what the revision says of each project, then lets others see it.
    async fn take(&mut self, revision: &Revision, tree: &Tree, loaded: Loaded) -> Result<(), StoreError> {
        let all_good = loaded.projects.values().all(ProjectLoad::is_good);
        let bytes = loaded.contents.iter().filter_map(|(digest, path)| {
            let file = tree.files.get(path)?;
            Some((digest.clone(), Arc::clone(&file.bytes)))
        });
        self.contents.replace(bytes.collect(), all_good);
        for (name, load) in &loaded.projects {
            self.projects.take(name, revision, load, self.deps.clock.now()).await?;
        }
        // A foreground run knows nothing of projects but its plan's.
        if self.deps.only.is_none() {
            let named = loaded.projects.keys().cloned().collect();
            self.projects.retire(&named, revision, self.deps.clock.now()).await?;
        }
        self.contents.keep(self.projects.unit_files()).await?;
        self.tell_of_revision(revision, &loaded).await;
        self.publish(Some(revision.clone()));
        Ok(())
    }

    async fn tell_of_revision(&self, revision: &Revision, loaded: &Loaded) {
        let resources: usize = loaded.projects.values().map(|project| project.resources.len()).sum();
        let mut message = format!("revision {} with {}", revision.short(), counted(resources, "resource"));
        if let Some(author) = self.deps.source.author(revision).await {
            message.push_str(&format!(" by {author}"));
        }
        self.news.about_source(Severity::Normal, "RevisionRead", &message).await;
        if let Some(first) = loaded.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
            let message = format!("{}:{}: {}", first.file, first.span.line, first.message);
            self.news
                .about_source(Severity::Warning, "FilesOutsideProjects", &message)
                .await;
        }
    }

    fn publish(&self, revision: Option<Revision>) {
        self.published
            .send_replace(Some(Arc::new(self.projects.published(revision))));
    }

    async fn source_answers(&self) {
        let before = self.state.send_replace(SourceState::Ready);
        if let SourceState::Failing { .. } = before {
            self.news
                .about_source(Severity::Normal, "SourceReady", "the source answers again")
                .await;
        }
    }

    /// A failure is told once, and again only when its reason is another.
    async fn source_fails(&self, error: &SourceError) {
        metrics::counter!("muster_source_failures_total", "reason" => error.reason.as_str()).increment(1);
        let now = self.deps.clock.now();
        let (since, told) = match &*self.state.borrow() {
            SourceState::Failing { reason, since, .. } => (*since, *reason == error.reason),
            SourceState::Unasked | SourceState::Ready => (now, false),
        };
        self.state.send_replace(SourceState::Failing {
            reason: error.reason,
            message: error.message.clone(),
            since,
        });
        if !told {
            let reason = error.reason.as_str();
            self.news.about_source(Severity::Warning, reason, &error.message).await;
        }
    }
}

async fn within<T>(deadline: Duration, answer: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    timeout(deadline, answer).await.unwrap_or_else(|_| {
        Err(SourceError {
            reason: SourceReason::Timeout,
            message: format!("no answer within {} s", deadline.as_secs()),
            transient: true,
        })
    })
}

fn internal(message: String) -> SourceError {
    SourceError {
        reason: SourceReason::Internal,
        message,
        transient: true,
    }
}

#[cfg(test)]
mod tests;
