//! Frames that were refused, kept with the reason for whoever looks into it: bounded, and without holding up what is good.

use crate::bus::Message;
use crate::store::Results;
use crate::store::rows::RejectRow;
use jiff::Timestamp;
use muster_core::model::id::RunId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Those that wait to be kept; more are only counted.
const WAITING_MAX: usize = 256;
/// Longest reason kept.
const REASON_MAX_CHARS: usize = 200;
/// A database that is slower has better things to do.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// What waits to be kept, and what is being kept just now.
#[derive(Default)]
pub(super) struct Rejects {
    waiting: Vec<RejectRow>,
    storing: Option<JoinHandle<()>>,
}

impl Rejects {
    pub fn add(&mut self, message: &Message, reason: &str, at: Timestamp) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(RejectRow {
                run: message.run,
                session: message.session,
                sequence: message.sequence,
                reason: reason.chars().take(REASON_MAX_CHARS).collect(),
                bytes: message.payload.len() as u64,
                at,
            });
        }
    }

    /// Begins to keep what waits, unless that is under way.
    pub fn begin(&mut self, results: &Arc<dyn Results>) {
        if self.storing.is_some() || self.waiting.is_empty() {
            return;
        }
        let mut runs: BTreeMap<RunId, Vec<RejectRow>> = BTreeMap::new();
        for row in self.waiting.drain(..) {
            runs.entry(row.run).or_default().push(row);
        }
        let results = results.clone();
        // A task of its own: one that is not polled while ingest waits for the database would keep a connection from it.
        self.storing = Some(tokio::spawn(async move {
            for (run, rows) in runs {
                let kept = timeout(STORE_DEADLINE, results.reject(run, &rows)).await;
                if !matches!(kept, Ok(Ok(()))) {
                    // They are counted all the same, and were logged when they came.
                    tracing::warn!(%run, frames = rows.len(), "refused frames could not be kept");
                }
            }
        }));
    }

    /// Waits until what is under way is kept; for ever when nothing is. Cancel-safe.
    pub async fn kept(&mut self) {
        match &mut self.storing {
            Some(storing) => drop(storing.await),
            None => std::future::pending().await,
        }
        self.storing = None;
    }
}
