//! What somebody else runs: topics of Kafka clusters, databases. Looked at beside the loop, so that one that does not answer holds
//! nobody up; what is missing is made on the loop's word, and nothing is ever altered or deleted.

mod kafka;
mod reach;

pub use reach::Reach;

use crate::runtime::clock::Clock;
use async_trait::async_trait;
use muster_core::base::backoff::Backoff;
use muster_core::model::desired::Desired;
use muster_core::model::key::Key;
use muster_core::model::observed::ExternalSight;
use muster_core::model::resource::Spec;
use muster_core::model::streaming::{DatabaseCluster, KafkaCluster};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Time between two looks at what is as wanted: how long a lost database goes unnoticed where no run needs it.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// One look or one making, all its questions together. Each has a shorter deadline of its own.
const DEADLINE: Duration = Duration::from_secs(60);

/// Something that somebody else runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// A Kafka cluster, with the topics that must be there.
    Kafka(KafkaCluster),
    /// A database for results.
    Database(DatabaseCluster),
}

impl Outside {
    /// What a resource says of it; `None` for the kinds that Muster runs itself.
    pub fn of(spec: &Spec) -> Option<Self> {
        match spec {
            Spec::KafkaCluster(cluster) => Some(Self::Kafka(cluster.clone())),
            Spec::DatabaseCluster(database) => Some(Self::Database(database.clone())),
            _ => None,
        }
    }
}

/// How what somebody else runs is reached.
#[async_trait]
pub trait External: Send + Sync {
    /// Looks at it and changes nothing.
    async fn look(&self, outside: &Outside) -> ExternalSight;

    /// Makes what is missing, then looks.
    ///
    /// # Errors
    /// When it cannot be reached or does not let it be made; for people, without secrets.
    async fn make(&self, outside: &Outside) -> Result<ExternalSight, String>;
}

/// The last look at each of them. Clones share it.
#[derive(Clone)]
pub struct Externals {
    port: Arc<dyn External>,
    clock: Clock,
    /// Told when one looks different from before.
    changed: Arc<Notify>,
    seen: Arc<Mutex<BTreeMap<Key, Seen>>>,
}

struct Seen {
    outside: Outside,
    sight: Option<ExternalSight>,
    looking: bool,
    due: Instant,
    /// Looks in a row that found something wrong.
    failures: u32,
    /// It answers again, and nobody was told yet.
    recovered: bool,
    /// How often something was made: a look that began before says nothing any more.
    made: u32,
}

impl Externals {
    /// Nothing looked at yet; `changed` is told of news.
    pub fn new(port: Arc<dyn External>, clock: Clock, changed: Arc<Notify>) -> Self {
        Self {
            port,
            clock,
            changed,
            seen: Arc::default(),
        }
    }

    /// Begins the looks that are due, and forgets what git no longer names. Waits for nothing.
    pub fn refresh(&self, desired: &Desired) {
        let now = self.clock.instant();
        let mut seen = self.lock();
        seen.retain(|key, _| desired.get(key).is_some());
        for resource in desired.resources() {
            let Some(outside) = Outside::of(&resource.spec) else {
                continue;
            };
            let fresh = || Seen {
                outside: outside.clone(),
                sight: None,
                looking: false,
                due: now,
                failures: 0,
                recovered: false,
                made: 0,
            };
            let entry = seen.entry(resource.meta.key.clone()).or_insert_with(fresh);
            if entry.outside != outside {
                *entry = fresh();
            }
            if !entry.looking && entry.due <= now {
                entry.looking = true;
                tokio::spawn(self.clone().look(resource.meta.key.clone(), outside, entry.made));
            }
        }
    }

    /// How each looked last.
    pub fn sights(&self) -> BTreeMap<Key, ExternalSight> {
        let seen = self.lock();
        seen.iter()
            .filter_map(|(key, entry)| Some((key.clone(), entry.sight.clone()?)))
            .collect()
    }

    /// Those that did not answer and do again, each once: what failed because of it is worth another try now.
    pub fn take_recovered(&self) -> BTreeSet<Key> {
        let mut seen = self.lock();
        let told = |(key, entry): (&Key, &mut Seen)| std::mem::take(&mut entry.recovered).then(|| key.clone());
        seen.iter_mut().filter_map(told).collect()
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// Why it could not be made, for people.
    pub async fn make(&self, key: &Key, outside: Outside) -> Result<(), String> {
        let made = timeout(DEADLINE, self.port.make(&outside)).await;
        let sight = made.unwrap_or_else(|_| Err(late()))?;
        if let Some(entry) = self.entry(&mut self.lock(), key, &outside) {
            entry.made = entry.made.wrapping_add(1);
            self.note(entry, sight);
        }
        Ok(())
    }

    async fn look(self, key: Key, outside: Outside, made: u32) {
        let (port, asked) = (Arc::clone(&self.port), outside.clone());
        // In a task of its own, so that a panic ends only the look.
        let answer = tokio::spawn(async move { timeout(DEADLINE, port.look(&asked)).await }).await;
        let sight = match answer {
            Ok(Ok(sight)) => sight,
            Ok(Err(_)) => ExternalSight::Unreachable { summary: late() },
            Err(_) => ExternalSight::Unreachable {
                summary: "looking at it panicked".to_owned(),
            },
        };
        if let Some(entry) = self.entry(&mut self.lock(), &key, &outside) {
            entry.looking = false;
            if entry.made == made {
                self.note(entry, sight);
            }
        }
    }

    /// `None`: the document is gone, or says another place by now.
    fn entry<'a>(&self, seen: &'a mut BTreeMap<Key, Seen>, key: &Key, outside: &Outside) -> Option<&'a mut Seen> {
        seen.get_mut(key).filter(|entry| entry.outside == *outside)
    }

    fn note(&self, entry: &mut Seen, sight: ExternalSight) {
        let fine = matches!(sight, ExternalSight::Fine { .. });
        entry.failures = if fine { 0 } else { entry.failures.saturating_add(1) };
        let wait = match entry.failures {
            0 => LOOK_EVERY,
            failures => Backoff::RECONCILE.delay(failures, super::jitter()).min(LOOK_EVERY),
        };
        entry.due = self.clock.instant() + wait;
        let silent = |sight: &ExternalSight| matches!(sight, ExternalSight::Unreachable { .. });
        entry.recovered |= entry.sight.as_ref().is_some_and(silent) && !silent(&sight);
        let changed = entry.sight.as_ref() != Some(&sight);
        entry.sight = Some(sight);
        if changed {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late() -> String {
    format!("no answer within {} s", DEADLINE.as_secs())
}

#[cfg(test)]
mod tests;
