//! Follows the schedules of plans: at each one's next instant it asks the pure `decide` what becomes of the slot, writes that, and
//! starts the run. The slot's row is written in one transaction with its run, before anything starts (promise 27).

mod slots;

use super::news::News;
use super::runs::{Runs, World};
use crate::runtime::clock::Clock;
use crate::store::rows::{Overlay, ScheduleRow};
use crate::store::{Ledger, StoreError};
use jiff::{SignedDuration, Timestamp};
use muster_core::base::chain::chain;
use muster_core::model::id::RunId;
use muster_core::model::key::Key;
use muster_core::model::plan::TestPlan;
use muster_core::model::resource::{Resource, Spec};
use muster_core::model::run::Severity;
use muster_core::schedule::slot::{Clocks, Waiting, clocks};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The clocks are compared, and what waits is looked at again, this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A ledger that did not answer is asked again after so long.
const RETRY: Duration = Duration::from_secs(1);
/// Runs looked at for a failure budget beyond its size: those that were stopped by hand say nothing.
const RUNS_BEYOND: u32 = 20;
/// Words from people that wait to be heard.
const WORDS: usize = 64;
/// A scheduler that does not answer in so long waits for its database.
const ANSWER: Duration = Duration::from_secs(5);

/// Who asks the scheduler. Cheap to clone.
#[derive(Clone)]
pub struct SchedulerHandle {
    words: mpsc::Sender<(Key, oneshot::Sender<()>)>,
}

impl SchedulerHandle {
    /// Arms a schedule that its failure budget stopped. False: the scheduler does not answer.
    pub async fn arm(&self, plan: &Key) -> bool {
        let (heard, is_heard) = oneshot::channel();
        let word = async {
            self.words.send((plan.clone(), heard)).await.ok()?;
            is_heard.await.ok()
        };
        matches!(tokio::time::timeout(ANSWER, word).await, Ok(Some(())))
    }
}

/// The loop.
pub struct Scheduler {
    ledger: Arc<dyn Ledger>,
    runs: Runs,
    world: Arc<dyn World>,
    clock: Clock,
    news: News,
    words: mpsc::Receiver<(Key, oneshot::Sender<()>)>,
    /// How far each plan's slots are decided, as the ledger has it.
    rows: BTreeMap<Key, ScheduleRow>,
    /// What waits, as the last look said.
    waiting: BTreeMap<Key, Waiting>,
    /// The run of a slot that is being started: the same one when the answer to its row was lost.
    starting: BTreeMap<Key, (Timestamp, RunId)>,
    /// When each plan is looked at next.
    due: BTreeMap<Key, Timestamp>,
    /// Where both clocks stood.
    began: (Timestamp, Instant),
    frozen: bool,
    /// Slots were started of which it is not known yet when load began.
    pending: bool,
}

/// A plan with a schedule, as it is wanted now.
struct Planned {
    key: Key,
    resource: Arc<Resource>,
    lead_time: Duration,
}

impl Planned {
    fn plan(&self) -> Option<&TestPlan> {
        match &self.resource.spec {
            Spec::TestPlan(plan) => Some(plan),
            _ => None,
        }
    }
}

impl Scheduler {
    /// A loop that was not started, and the handle to it.
    pub fn new(ledger: Arc<dyn Ledger>, runs: Runs, world: Arc<dyn World>, clock: Clock) -> (Self, SchedulerHandle) {
        let (sender, words) = mpsc::channel(WORDS);
        let scheduler = Self {
            news: News::new(ledger.clone(), clock.clone()),
            began: (clock.now(), clock.instant()),
            ledger,
            runs,
            world,
            clock,
            words,
            rows: BTreeMap::new(),
            waiting: BTreeMap::new(),
            starting: BTreeMap::new(),
            due: BTreeMap::new(),
            frozen: false,
            pending: true,
        };
        (scheduler, SchedulerHandle { words: sender })
    }

    /// Follows schedules until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        while let Err(error) = self.load().await {
            tracing::warn!(error = %chain(&error), "schedules cannot be read yet");
            self.clock.sleep(RETRY).await;
        }
        let mut published = self.world.published();
        let mut has_changed = true;
        loop {
            if std::mem::take(&mut has_changed) {
                published.borrow_and_update();
                self.find_due();
            }
            self.forget().await;
            self.look_at_clocks().await;
            if !self.frozen {
                self.look().await;
            }
            if self.pending
                && let Err(error) = self.note_begun().await
            {
                tracing::warn!(error = %chain(&error), "cannot note when load of slots began");
            }
            let wait = self.until_next();
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                changed = published.changed() => match changed {
                    Ok(()) => has_changed = true,
                    Err(_) => return,
                },
                Some((plan, heard)) = self.words.recv() => match self.arm(&plan).await {
                    Ok(()) => drop(heard.send(())),
                    // Who asked is told by the silence.
                    Err(error) => tracing::warn!(%plan, error = %chain(&error), "a schedule cannot be armed"),
                },
            }
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        self.rows = self.ledger.schedules().await?.into_iter().collect();
        Ok(())
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now();
        let next = self.due.values().min().copied().filter(|_| !self.frozen);
        let left = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        match next {
            Some(_) => left.unwrap_or(Duration::ZERO).min(LOOK_EVERY),
            None => LOOK_EVERY,
        }
    }

    /// Plans that came, went or changed since the last look.
    fn find_due(&mut self) {
        let now = self.clock.now();
        let planned = self.planned();
        self.due.retain(|key, _| planned.contains_key(key));
        self.waiting.retain(|key, _| planned.contains_key(key));
        for (key, plan) in &planned {
            let schedule = plan.plan().and_then(|plan| plan.timing.schedule.as_ref());
            let known = self.rows.get(key);
            let is_new =
                known.is_none_or(|row| Some(&row.cursor.schedule) != schedule || row.digest != plan.resource.digest);
            if is_new {
                self.due.insert(key.clone(), now);
            } else if let (Some(row), false) = (known, self.waiting.contains_key(key)) {
                let due = row.cursor.due(plan.lead_time);
                self.due.insert(key.clone(), due.unwrap_or(Timestamp::MAX));
            }
        }
    }

    /// What has no schedule any more and gets one again later has no slots in between.
    async fn forget(&mut self) {
        if self.world.published().borrow().is_none() {
            return;
        }
        let gone: Vec<Key> = self
            .rows
            .keys()
            .filter(|key| !self.due.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            match self.ledger.delete_schedule(&key).await {
                Ok(()) => drop(self.rows.remove(&key)),
                Err(error) => tracing::warn!(plan = %key, error = %chain(&error), "a schedule cannot be forgotten yet"),
            }
        }
    }

    fn planned(&self) -> BTreeMap<Key, Planned> {
        let published = self.world.published().borrow().clone();
        let Some(published) = published else {
            return BTreeMap::new();
        };
        let desired = &published.desired;
        let lead_time = |plan: &TestPlan| match plan.pool.as_ref().and_then(|pool| desired.get(pool)) {
            Some(pool) => match &pool.spec {
                Spec::WorkerPool(pool) => pool.lead_time,
                _ => Duration::ZERO,
            },
            None => Duration::ZERO,
        };
        let all = desired.projects.values().flat_map(|project| &project.resources);
        let scheduled = all.filter_map(|(key, resource)| match &resource.spec {
            Spec::TestPlan(plan) if plan.timing.schedule.is_some() => Some(Planned {
                key: key.clone(),
                lead_time: lead_time(plan),
                resource: resource.clone(),
            }),
            _ => None,
        });
        scheduled.map(|planned| (planned.key.clone(), planned)).collect()
    }

    /// Compares how far both clocks went; apart, nothing is fired or missed (promise 29).
    async fn look_at_clocks(&mut self) {
        let (wall, monotonic) = self.began;
        let wall = self.clock.now().duration_since(wall);
        let monotonic = SignedDuration::try_from(self.clock.instant() - monotonic).unwrap_or(SignedDuration::MAX);
        let found = clocks(wall, monotonic);
        let is_apart = found != Clocks::Agree;
        metrics::gauge!("muster_scheduler_frozen").set(if is_apart { 1.0 } else { 0.0 });
        if let (Clocks::Apart { ahead }, false) = (found, self.frozen) {
            let message = format!(
                "the wall clock was set: it is {ahead:#} ahead of the time that passed. No slot is started or missed until they agree \
                 again, or the daemon is started anew"
            );
            self.news
                .about_source(Severity::Warning, "SchedulerFrozen", &message)
                .await;
        } else if !is_apart && self.frozen {
            let message = "the wall clock and the time that passed agree again";
            self.news
                .about_source(Severity::Normal, "SchedulerResumed", message)
                .await;
        }
        self.frozen = is_apart;
    }

    async fn look(&mut self) {
        let now = self.clock.now();
        let due: Vec<Key> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        if due.is_empty() {
            return;
        }
        let mut planned = self.planned();
        // Once for all that are due in the same moment.
        let overlays = self.ledger.overlays().await;
        for key in due {
            let Some(plan) = planned.remove(&key) else { continue };
            let next = match &overlays {
                Ok(overlays) => {
                    let overlay = overlays.iter().find(|overlay| overlay.plan == key);
                    let held = overlay.map(Overlay::suspension);
                    self.look_at(&plan, held.as_ref()).await
                }
                Err(error) => Err(StoreError::Unavailable(chain(error))),
            };
            let next = next.unwrap_or_else(|error| {
                tracing::warn!(plan = %key, error = %chain(&error), "a schedule cannot be followed yet");
                self.clock.now().checked_add(RETRY).unwrap_or(Timestamp::MAX)
            });
            self.due.insert(key, next);
        }
    }

    async fn arm(&mut self, plan: &Key) -> Result<(), StoreError> {
        let Some(row) = self.rows.get(plan) else { return Ok(()) };
        let row = ScheduleRow {
            armed_at: self.clock.now(),
            ..row.clone()
        };
        self.ledger.put_slots(plan, &[], &row).await?;
        self.rows.insert(plan.clone(), row);
        Ok(())
    }
}
