//! Saves a run's state, always the newest, without holding up the run: the database may be away while load goes on (promises 44, 47).

use crate::runtime::clock::Clock;
use crate::store::rows::RunRow;
use crate::store::{Ledger, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Pause after a save failed.
const RETRY: Duration = Duration::from_millis(500);
/// A save that takes longer is given up and tried again; whether it was done meanwhile is then found by reading.
const DEADLINE: Duration = Duration::from_secs(5);

/// How far saving is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saved {
    /// Everything up to this generation of the state.
    UpTo(u64),
    /// Somebody else saves this run: it is driven elsewhere.
    Taken,
}

/// Saves what `newest` holds whenever it changes, until its sender is gone. `version`: of the row in the database.
pub(super) async fn save_newest(
    ledger: Arc<dyn Ledger>,
    clock: Clock,
    mut version: u64,
    mut newest: watch::Receiver<(u64, RunRow)>,
    saved: watch::Sender<Saved>,
) {
    while newest.changed().await.is_ok() {
        let mut tried: Option<serde_json::Value> = None;
        loop {
            let (generation, mut row) = newest.borrow_and_update().clone();
            row.version = version + 1;
            match try_save(&*ledger, &row, tried.as_ref()).await {
                Ok(Outcome::Done) => {
                    version = row.version;
                    saved.send_replace(Saved::UpTo(generation));
                    break;
                }
                Ok(Outcome::EarlierDone) => version = row.version,
                Ok(Outcome::Taken) => {
                    saved.send_replace(Saved::Taken);
                    return;
                }
                Err(error) => {
                    tracing::warn!(run = %row.identity.id, error = %error, "state of a run cannot be saved; the run goes on");
                    clock.sleep(RETRY).await;
                }
            }
            tried = Some(row.state);
        }
    }
}

enum Outcome {
    Done,
    /// An earlier try was done after all; its answer was lost.
    EarlierDone,
    /// The row belongs to another writer now.
    Taken,
}

async fn try_save(ledger: &dyn Ledger, row: &RunRow, tried: Option<&serde_json::Value>) -> Result<Outcome, StoreError> {
    let slow = || StoreError::Unavailable("no answer in 5s".to_owned());
    let saved = tokio::time::timeout(DEADLINE, ledger.save_run(row)).await;
    match saved.map_err(|_| slow())? {
        Ok(()) => Ok(Outcome::Done),
        Err(StoreError::Conflict(_)) => {
            let read = tokio::time::timeout(DEADLINE, ledger.run(row.identity.id)).await;
            let found = read.map_err(|_| slow())??;
            match found {
                Some(found) if found.version == row.version && Some(&found.state) == tried => Ok(Outcome::EarlierDone),
                _ => Ok(Outcome::Taken),
            }
        }
        Err(error) => Err(error),
    }
}
