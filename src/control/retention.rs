//! What is kept of finished runs (promise 53): compacts what a crash left uncompacted, removes details whose time is over, and
//! contents that nobody refers to any more.

use super::contents::Contents;
use super::runs::Runs;
use crate::runtime::clock::Clock;
use crate::store::rows::{RunFilter, RunRow};
use crate::store::{StoreError, Stores};
use muster_core::base::chain::chain;
use muster_core::base::units::format_duration;
use muster_core::lifecycle::retention::{FinishedRun, expired};
use muster_core::model::id::{Digest, RunId};
use muster_core::model::run::{EndingKind, Event, Severity};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After a start other work comes first.
const FIRST: Duration = Duration::from_secs(60);
/// Retention is a matter of days.
const EVERY: Duration = Duration::from_secs(3_600);
/// Between two chunks of one run, so that runs that are being measured have the database in between.
const BETWEEN_CHUNKS: Duration = Duration::from_millis(50);
/// Rows read at a time: pinned plans are some kilobytes each.
const PAGE: u32 = 100;
/// The newest runs, among them those that began while the others were looked at: far more than begin in one pass.
const NEWEST: u32 = 1_000;

/// The loop.
pub struct Retention {
    stores: Stores,
    clock: Clock,
    keep: Duration,
    runs: Runs,
    contents: Contents,
    /// Runs that need no compaction.
    compacted: BTreeSet<RunId>,
    /// Contents that nobody referred to in the last pass. They go in the next one if that still holds: a commit that is being
    /// read just now may refer to one again.
    unused: BTreeSet<String>,
}

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Runs whose details are gone.
    pub removed: u32,
    /// Contents that are gone.
    pub contents: u32,
    /// What did not work and is tried again.
    pub failures: u32,
}

/// A finished run and the contents it refers to.
struct Kept {
    run: FinishedRun,
    digests: BTreeSet<String>,
}

impl Retention {
    /// `keep`: how long details are kept where the plan says nothing.
    pub fn new(stores: Stores, clock: Clock, keep: Duration, runs: Runs, contents: Contents) -> Self {
        Self {
            stores,
            clock,
            keep,
            runs,
            contents,
            compacted: BTreeSet::new(),
            unused: BTreeSet::new(),
        }
    }

    /// Passes until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.clock.clone();
        let mut wait = FIRST;
        while stop.run_until_cancelled(clock.sleep(wait)).await.is_some() {
            wait = EVERY;
            match stop.run_until_cancelled(self.pass()).await {
                Some(Ok(pass)) if pass != Pass::default() => tracing::info!(?pass, "retention"),
                Some(Ok(_)) | None => {}
                Some(Err(error)) => {
                    metrics::counter!("muster_retention_failures_total").increment(1);
                    tracing::warn!(error = %chain(&error), "retention could not look at the ledger");
                }
            }
        }
    }

    /// Looks at every finished run once. What fails for one run is left to the next pass.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn pass(&mut self) -> Result<Pass, StoreError> {
        let mut pass = Pass::default();
        let mut kept = self.finished_runs(&mut pass).await?;
        let all: Vec<FinishedRun> = kept.iter().map(|kept| kept.run.clone()).collect();
        for run in expired(&all, self.clock.now()) {
            match self.remove(&all, run).await {
                Ok(()) => {
                    pass.removed += 1;
                    metrics::counter!("muster_retention_runs_total").increment(1);
                    self.compacted.remove(&run);
                    kept.retain(|kept| kept.run.run != run);
                }
                Err(error) => failed(&mut pass, run, &error, "details of a run cannot be removed yet"),
            }
        }
        let needed = kept.into_iter().flat_map(|kept| kept.digests).collect();
        pass.contents = self.sweep(needed).await?;
        Ok(pass)
    }

    /// All finished runs that have details; compacts those that need it.
    async fn finished_runs(&mut self, pass: &mut Pass) -> Result<Vec<Kept>, StoreError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.stores.ledger.detailed_runs(after, PAGE).await?;
            after = page.last().map(|row| row.identity.id);
            let is_last = page.len() < PAGE as usize;
            for row in page {
                self.compact(row.identity.id, pass).await;
                let mut digests = BTreeSet::new();
                collect(&row.pinned, &mut digests);
                all.extend(self.finished(&row).map(|run| Kept { run, digests }));
            }
            if is_last {
                return Ok(all);
            }
        }
    }

    fn finished(&self, row: &RunRow) -> Option<FinishedRun> {
        let passed = row.ending.as_deref() == Some(EndingKind::Passed.to_string().as_str());
        Some(FinishedRun {
            run: row.identity.id,
            plan: row.identity.plan.clone(),
            finished_at: row.finished_at?,
            keep: row.retention_s.map_or(self.keep, Duration::from_secs),
            is_tagged: row.tag.is_some(),
            is_baseline: passed && row.pinned["smoke"] != true,
        })
    }

    async fn compact(&mut self, run: RunId, pass: &mut Pass) {
        if self.compacted.contains(&run) {
            return;
        }
        match self.stores.results.compact(run).await {
            // Refused: it was never sealed, for it made no load.
            Ok(()) | Err(StoreError::Refused(_)) => {
                self.compacted.insert(run);
            }
            Err(StoreError::Conflict(_)) => {}
            Err(error) => failed(pass, run, &error, "results of a run stay uncompacted"),
        }
    }

    async fn remove(&self, all: &[FinishedRun], run: RunId) -> Result<(), StoreError> {
        while !self.stores.results.remove_run(run).await? {
            self.clock.sleep(BETWEEN_CHUNKS).await;
        }
        let now = self.clock.now();
        self.stores.ledger.put_expired(run, now).await?;
        let Some(finished) = all.iter().find(|finished| finished.run == run) else {
            return Ok(());
        };
        let event = Event {
            at: now,
            project: Some(finished.plan.project.clone()),
            about: format!("run/{run}"),
            severity: Severity::Normal,
            reason: "DetailsRemoved".to_owned(),
            message: format!(
                "numbers per second are gone after {}; the report stays",
                format_duration(finished.keep)
            ),
        };
        self.stores.ledger.append_event(&event).await.map(drop)
    }

    /// Removes contents that neither these runs nor anything else refers to, and did not in the last pass.
    async fn sweep(&mut self, mut needed: BTreeSet<String>) -> Result<u32, StoreError> {
        // A start writes contents before its run's row; none does from here on.
        let _held = self.runs.hold_starts().await;
        let ledger = &self.stores.ledger;
        let newest = RunFilter {
            limit: NEWEST,
            ..RunFilter::default()
        };
        let active = RunFilter {
            active: true,
            limit: u32::MAX,
            ..RunFilter::default()
        };
        let expired = ledger.expired_runs(NEWEST).await?;
        for row in ledger
            .runs(&newest)
            .await?
            .into_iter()
            .chain(ledger.runs(&active).await?)
        {
            if !expired.contains(&row.identity.id) {
                collect(&row.pinned, &mut needed);
            }
        }
        for project in ledger.projects().await? {
            collect(&project.resources, &mut needed);
        }
        needed.extend(self.contents.kept().iter().map(ToString::to_string));
        let (mut gone, mut unused, mut after) = (0, BTreeSet::new(), String::new());
        loop {
            let page = ledger.blobs(&after, PAGE).await?;
            for digest in page.iter().filter(|digest| !needed.contains(*digest)) {
                if self.unused.contains(digest) {
                    ledger.delete_blob(digest).await?;
                    metrics::counter!("muster_retention_contents_total").increment(1);
                    gone += 1;
                } else {
                    unused.insert(digest.clone());
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE as usize => last.clone_into(&mut after),
                _ => break,
            }
        }
        self.unused = unused;
        Ok(gone)
    }
}

/// Everything in a document that looks like a digest, so that a content that some layout of it needs is never taken for unused.
fn collect(document: &Value, digests: &mut BTreeSet<String>) {
    match document {
        Value::String(text) if Digest::try_from(text.clone()).is_ok() => {
            digests.insert(text.clone());
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, digests)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, digests)),
        _ => {}
    }
}

fn failed(pass: &mut Pass, run: RunId, error: &StoreError, what: &'static str) {
    pass.failures += 1;
    metrics::counter!("muster_retention_failures_total").increment(1);
    tracing::warn!(%run, error = %chain(error), "{what}");
}
