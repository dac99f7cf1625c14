//! The end of a run's results: waits until everything that was made has come, or the deadline, and closes them for good.

use super::Ingest;
use crate::store::StoreError;
use crate::store::rows::SessionRow;
use muster_core::measure::validity::SessionState;
use muster_core::model::id::RunId;
use std::time::Duration;
use tokio::time::Instant;

/// How often the sessions are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What ingest still holds at the deadline gets so much time to be stored.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// A run that is closed.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// Its sessions as they were then.
    pub sessions: Vec<SessionRow>,
    /// Frames that came too late so far.
    pub late: u64,
}

impl Sealed {
    /// The sessions as `measure::validity` judges their completeness.
    pub fn states(&self) -> Vec<SessionState> {
        let state = |row: &SessionRow| SessionState {
            worker: row.worker,
            watermark: row.watermark,
            end: row.end,
            dropped: row.dropped.clone(),
        };
        self.sessions.iter().map(state).collect()
    }
}

impl Ingest {
    /// Waits until every session of the run has its end and all before it, or the deadline; then closes the run's results.
    /// A later call for the same run returns the same.
    ///
    /// # Errors
    /// When the store does not answer; call it again.
    pub async fn seal(&self, run: RunId, deadline: Instant) -> Result<Sealed, StoreError> {
        let shared = &self.shared;
        loop {
            let sessions = shared.results.sessions(run).await;
            let is_over = shared.clock.instant() >= deadline;
            match sessions {
                Ok(rows) if rows.iter().all(|row| row.end.is_some_and(|end| row.watermark >= end)) => break,
                Ok(_) if is_over => break,
                Err(error) if is_over || !error.is_transient() => return Err(error),
                _ => {}
            }
            shared.clock.sleep(LOOK).await;
        }
        let given_up = shared.clock.instant() + LAST_FLUSH;
        while shared.holds(run) && shared.clock.instant() < given_up {
            shared.flush_now.notify_one();
            shared.clock.sleep(LOOK).await;
        }
        let late = shared.results.seal(run).await?;
        super::lock(&shared.sealed).push(run);
        let sessions = shared.results.sessions(run).await?;
        Ok(Sealed { sessions, late })
    }
}
