//! The loop: observe everything, decide once, perform each change on its own, write down what became of it.

use super::apply::{Context, Executor, Outcome};
use super::contents::Contents;
use super::external::{External, Externals};
use super::news::News;
use super::observe::{self, Observer};
use super::providers::{ProviderFactory, Providers};
use super::queue::Queue;
use super::status::{Basis, StatusWriter, derive};
use super::sync::{Published, SourceState, SyncHandle};
use crate::provider::ProviderError;
use crate::runtime::clock::Clock;
use crate::runtime::secrets::Secrets;
use crate::store::rows::ChangesetRow;
use crate::store::{Ledger, StoreError};
use muster_core::base::backoff::Backoff;
use muster_core::base::chain::chain;
use muster_core::diff::{self, Change, Changeset, DiffPolicy};
use muster_core::model::desired::Desired;
use muster_core::model::id::Revision;
use muster_core::model::key::Key;
use muster_core::model::observed::Observed;
use muster_core::model::unit::{ObservedUnit, UnitName};
use muster_core::topology::{self, PoolDemand};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Time between two looks when nothing else asks for one: how long drift goes unnoticed at most.
pub const RESYNC: Duration = Duration::from_secs(10);
/// Time between two looks while units are on their way: a rolling update goes on within a second of Ready.
const WATCH: Duration = Duration::from_millis(500);
/// After SIGTERM, changes in flight may finish for so long; what is cut off is written down and adopted (promises 17, 24).
const GRACE: Duration = Duration::from_secs(10);

/// What the reconciler stands on.
#[derive(Clone)]
pub struct ReconcilerDeps {
    /// What was decided and done.
    pub ledger: Arc<dyn Ledger>,
    /// How environments become providers.
    pub factory: Arc<dyn ProviderFactory>,
    /// Values of secrets.
    pub secrets: Arc<dyn Secrets>,
    /// How what somebody else runs is reached.
    pub external: Arc<dyn External>,
    /// Time.
    pub clock: Clock,
    /// Desired, and the contents of its files.
    pub sync: SyncHandle,
    /// How many workers runs need.
    pub demand: watch::Receiver<PoolDemand>,
    /// What the settings say about deletions.
    pub policy: DiffPolicy,
}

/// The loop's state.
pub struct Reconciler {
    shared: Arc<Shared>,
    observer: Observer,
    executor: Executor,
    externals: Externals,
    statuses: StatusWriter,
    published: watch::Receiver<Option<Arc<Published>>>,
    demand: watch::Receiver<PoolDemand>,
    queue: Queue<Key>,
    tasks: JoinSet<Outcome>,
    started: BTreeMap<Id, (Key, u64)>,
    passes: BTreeMap<u64, Pass>,
    next_pass: u64,
    failures: BTreeMap<Key, String>,
    revisions: BTreeMap<muster_core::model::id::Name, Revision>,
    /// Failed looks in a row.
    blind: u32,
}

/// A changeset of which something is still in flight.
struct Pass {
    changeset: Changeset,
    outcomes: Vec<Outcome>,
    open: usize,
}

struct Shared {
    deps: ReconcilerDeps,
    providers: Arc<Providers>,
    observed: watch::Sender<Option<Arc<Observed>>>,
    asked: Mutex<BTreeSet<Option<Key>>>,
    wake: Arc<Notify>,
}

/// What others may see of the loop and ask of it. Clones share it.
#[derive(Clone)]
pub struct ReconcilerHandle {
    shared: Arc<Shared>,
}

impl ReconcilerHandle {
    /// Looks at the source and all environments now; failures of the resource (`None`: of all) are forgotten.
    pub fn reconcile_now(&self, key: Option<Key>) {
        self.shared.deps.sync.look_now();
        lock(&self.shared.asked).insert(key);
        self.shared.wake.notify_one();
    }

    /// What git wants; empty before anything was read.
    pub fn desired(&self) -> Arc<Desired> {
        let published = self.shared.deps.sync.published.borrow();
        published
            .as_ref()
            .map_or_else(Arc::default, |published| Arc::clone(&published.desired))
    }

    /// Desired with how each project stands, as it changes.
    pub fn published(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.shared.deps.sync.published.clone()
    }

    /// How the source is doing.
    pub fn source(&self) -> SourceState {
        self.shared.deps.sync.state.borrow().clone()
    }

    /// What was there at the last complete look, as it changes.
    pub fn observed(&self) -> watch::Receiver<Option<Arc<Observed>>> {
        self.shared.observed.subscribe()
    }

    /// Whether there was a complete look since the start (promise 14).
    pub fn has_observed(&self) -> bool {
        self.shared.observed.borrow().is_some()
    }

    /// All units as they were seen last.
    pub fn units(&self) -> Vec<ObservedUnit> {
        let observed = self.shared.observed.borrow();
        observed
            .as_ref()
            .map_or_else(Vec::new, |observed| observe::units(observed))
    }

    /// Contents of files that resources refer to.
    pub fn contents(&self) -> Contents {
        self.shared.deps.sync.contents.clone()
    }

    /// Desired against what was seen last; `None` before the first complete look.
    pub fn changeset(&self) -> Option<Changeset> {
        let observed = self.shared.observed.borrow().clone()?;
        let desired = self.desired();
        let topology = topology::expand(&desired, &self.shared.deps.demand.borrow());
        let deps = &self.shared.deps;
        Some(diff::changeset(
            &desired,
            &topology,
            &observed,
            &deps.policy,
            deps.clock.now(),
        ))
    }

    /// What a revision deletes and the guard holds back: the exact set an approval names (promise 21).
    pub fn refused_deletions(&self, revision: &Revision) -> Vec<Key> {
        let refused = self.changeset().map_or_else(Vec::new, |changeset| changeset.refused);
        let of_revision = refused.into_iter().filter(|refusal| refusal.revision == *revision);
        of_revision.flat_map(|refusal| refusal.keys).collect()
    }

    /// The last bytes of a unit's output.
    ///
    /// # Errors
    /// When there is no such unit or its provider does not answer.
    pub async fn logs(&self, unit: &UnitName, max_bytes: usize) -> Result<Vec<u8>, ProviderError> {
        let found = self.units().into_iter().find(|seen| seen.name == *unit);
        let found = found.ok_or_else(|| ProviderError::NotFound(unit.clone()))?;
        self.shared.providers.logs(&found.environment, unit, max_bytes).await
    }
}

impl Reconciler {
    /// Puts the loop together; [`Reconciler::run`] starts it.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn new(deps: ReconcilerDeps) -> Result<(Self, ReconcilerHandle), StoreError> {
        let providers = Arc::new(Providers::new(Arc::clone(&deps.factory)));
        let news = News::new(Arc::clone(&deps.ledger), deps.clock.clone());
        let statuses = StatusWriter::restore(Arc::clone(&deps.ledger), news).await?;
        let wake = Arc::new(Notify::new());
        let externals = Externals::new(Arc::clone(&deps.external), deps.clock.clone(), Arc::clone(&wake));
        let observer = Observer::new(
            Arc::clone(&deps.ledger),
            Arc::clone(&providers),
            externals.clone(),
            deps.clock.clone(),
        );
        let executor = Executor {
            ledger: Arc::clone(&deps.ledger),
            providers: Arc::clone(&providers),
            contents: deps.sync.contents.clone(),
            secrets: Arc::clone(&deps.secrets),
            externals: externals.clone(),
            clock: deps.clock.clone(),
        };
        let shared = Arc::new(Shared {
            providers,
            observed: watch::channel(None).0,
            asked: Mutex::default(),
            wake,
            deps,
        });
        let reconciler = Self {
            observer,
            executor,
            externals,
            statuses,
            published: shared.deps.sync.published.clone(),
            demand: shared.deps.demand.clone(),
            queue: Queue::new(Backoff::RECONCILE),
            tasks: JoinSet::new(),
            started: BTreeMap::new(),
            passes: BTreeMap::new(),
            next_pass: 0,
            failures: BTreeMap::new(),
            revisions: BTreeMap::new(),
            blind: 0,
            shared: Arc::clone(&shared),
        };
        Ok((reconciler, ReconcilerHandle { shared }))
    }

    /// Runs until cancelled; changes in flight then get a bounded grace, and units stay (promise 24).
    pub async fn run(mut self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let begun = self.now();
            let pass = self.pass().await;
            metrics::histogram!("muster_reconcile_pass_seconds").record(self.now() - begun);
            let next = match pass {
                Ok(next) => {
                    self.blind = 0;
                    next
                }
                Err(error) => {
                    self.blind = self.blind.saturating_add(1);
                    metrics::counter!("muster_reconcile_blind_total").increment(1);
                    tracing::warn!(error = chain(&error), "the ledger does not answer; nothing is decided");
                    self.now() + Backoff::RECONCILE.delay(self.blind, super::jitter()).min(RESYNC)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.activation(next) => {}
            }
        }
        self.drain().await;
    }

    fn now(&self) -> Instant {
        self.shared.deps.clock.instant()
    }

    /// Waits until there is a reason to look again. However many there are by then, one look follows (promise 10).
    async fn activation(&mut self, next: Instant) {
        tokio::select! {
            Ok(()) = self.published.changed() => {}
            Ok(()) = self.demand.changed() => {}
            Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
            () = self.shared.wake.notified() => {}
            () = sleep_until(next) => {}
        }
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended).await;
        }
    }

    /// One look and what follows from it; returns when the next one is due at the latest.
    async fn pass(&mut self) -> Result<Instant, StoreError> {
        let Some(published) = self.published.borrow_and_update().clone() else {
            return Ok(self.now() + RESYNC);
        };
        let demand = self.demand.borrow_and_update().clone();
        self.take_requests(&published);
        // What runs while it is observed is not decided about: the look may be older than its end.
        let in_flight = self.queue.running();
        let observed = Arc::new(self.observer.observe(&published).await?);
        self.shared.observed.send_replace(Some(Arc::clone(&observed)));
        for key in self.externals.take_recovered() {
            self.queue.forget_failure(&key);
        }
        let topology = topology::expand(&published.desired, &demand);
        let now = self.shared.deps.clock.now();
        let policy = &self.shared.deps.policy;
        let changeset = diff::changeset(&published.desired, &topology, &observed, policy, now);
        let context = Context {
            desired: Arc::clone(&published.desired),
            environments: topology::environments(&published.desired, &observed.applied),
            topology,
        };
        self.write_statuses(&published, &context, &observed, &changeset).await?;
        // What is blocked, failed or crashing gets no closer look: nothing about it changes within a second.
        let promising = |change: &Change| change.has_work() && !self.failures.contains_key(&change.key);
        let watching = changeset.changes.iter().any(promising) || observe::units(&observed).iter().any(is_on_its_way);
        self.start_changes(context, changeset, &in_flight);
        let step = if watching { WATCH } else { RESYNC };
        let soonest = self.now() + step;
        Ok(self
            .queue
            .next_retry()
            .map_or(soonest, |retry| retry.clamp(self.now(), soonest)))
    }

    /// A new revision of any project cancels the waits of the old one (promise 13); so does a person.
    fn take_requests(&mut self, published: &Published) {
        let projects = published.desired.projects.iter();
        let revisions = projects
            .map(|(name, project)| (name.clone(), project.revision.clone()))
            .collect();
        if self.revisions != revisions {
            self.revisions = revisions;
            self.queue.forget_failures();
        }
        for asked in std::mem::take(&mut *lock(&self.shared.asked)) {
            match asked {
                Some(key) => self.queue.forget_failure(&key),
                None => self.queue.forget_failures(),
            }
        }
    }

    async fn write_statuses(
        &mut self,
        published: &Published,
        context: &Context,
        observed: &Observed,
        changeset: &Changeset,
    ) -> Result<(), StoreError> {
        // A failure is over when nothing is left to do for its resource.
        self.failures
            .retain(|key, _| changeset.get(key).is_some_and(|change| change.action.is_performed()));
        let overlays = self.shared.deps.ledger.overlays().await?;
        let basis = Basis {
            published,
            topology: &context.topology,
            observed,
            changeset,
            failures: &self.failures,
            overlays: &overlays,
            now: changeset.at,
        };
        let statuses = derive(&basis, self.statuses.written());
        self.statuses.write(statuses).await?;
        self.statuses.measure(changeset.at);
        Ok(())
    }

    /// Starts every change that is due and that neither runs nor waits out a failure, each in a task of its own.
    fn start_changes(&mut self, context: Context, changeset: Changeset, in_flight: &BTreeSet<Key>) {
        let due: BTreeMap<Key, Change> = changeset
            .changes
            .iter()
            .filter(|change| change.has_work())
            .map(|change| (change.key.clone(), change.clone()))
            .collect();
        for key in self.queue.keys().iter().filter(|key| !due.contains_key(key)) {
            self.queue.settle(key);
        }
        let now = self.now();
        let context = Arc::new(context);
        let pass = self.next_pass;
        let mut open = 0;
        for (key, change) in due {
            self.queue.add(key.clone());
            if in_flight.contains(&key) || !self.queue.start(&key, now) {
                continue;
            }
            let (executor, context) = (self.executor.clone(), Arc::clone(&context));
            let task = self
                .tasks
                .spawn(async move { executor.perform(&context, &change).await });
            self.started.insert(task.id(), (key, pass));
            open += 1;
        }
        if open > 0 {
            let pass = Pass {
                changeset,
                outcomes: Vec::new(),
                open,
            };
            self.passes.insert(self.next_pass, pass);
            self.next_pass += 1;
        }
    }

    /// Takes the end of a change. A panic is one more way to fail (promise 11).
    async fn ended(&mut self, ended: Result<(Id, Outcome), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some((key, pass)) = self.started.remove(&id) else {
            return;
        };
        let outcome = ended.map_or_else(
            |error| {
                metrics::counter!("muster_reconcile_panics_total").increment(u64::from(error.is_panic()));
                tracing::error!(resource = %key, "applying a change panicked");
                Outcome::broken(key.clone(), "applying it panicked".to_owned())
            },
            |(_, outcome)| outcome,
        );
        self.queue.finish(&key, outcome.ended(), self.now(), super::jitter());
        match outcome.failure() {
            Some(failure) => {
                metrics::counter!("muster_reconcile_failures_total").increment(1);
                self.failures.insert(key, failure);
            }
            None => {
                self.failures.remove(&key);
            }
        }
        self.file(pass, outcome).await;
    }

    /// Keeps the changeset with its outcome once all of it ended.
    async fn file(&mut self, id: u64, outcome: Outcome) {
        let Some(pass) = self.passes.get_mut(&id) else { return };
        pass.outcomes.push(outcome);
        pass.open -= 1;
        if pass.open > 0 {
            return;
        }
        let Some(mut pass) = self.passes.remove(&id) else {
            return;
        };
        let Some(revision) = pass.changeset.revisions.values().next().cloned() else {
            return;
        };
        pass.outcomes.sort_by(|left, right| left.key.cmp(&right.key));
        pass.changeset
            .changes
            .retain(|change| change.action != diff::Action::NoOp);
        let row = ChangesetRow {
            id: 0,
            revision,
            at: pass.changeset.at,
            changeset: json!(pass.changeset),
            outcome: json!(pass.outcomes),
        };
        if let Err(error) = self.shared.deps.ledger.put_changeset(&row).await {
            tracing::warn!(error = chain(&error), "a changeset could not be kept");
        }
    }

    async fn drain(mut self) {
        let finish = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended).await;
            }
        };
        if timeout(GRACE, finish).await.is_err() {
            tracing::warn!("changes in flight were cut off; the next daemon adopts what they left");
        }
    }
}

/// Whether a unit will be another soon without anybody's doing.
fn is_on_its_way(unit: &ObservedUnit) -> bool {
    use muster_core::model::unit::UnitState;
    matches!(unit.state, UnitState::Starting | UnitState::Stopping)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
