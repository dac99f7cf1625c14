//! Saves a run's state, always the newest, without holding up the run: the database may be away while load goes on (promises 44, 47).

use super::{Blocked, Shared, SlotStart};
use crate::runtime::clock::Clock;
use crate::store::rows::{Inserted, RunRow, SlotRow};
use crate::store::{Ledger, StoreError};
use muster_core::model::schedule::SlotOutcome;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Pause after a save failed.
const RETRY: Duration = Duration::from_millis(500);
/// A save that takes longer is given up and tried again; whether it was done meanwhile is then found by reading.
const DEADLINE: Duration = Duration::from_secs(5);

/// States kept to know an earlier try by: a run changes its state a few times a minute, and a try is given up after 5 s.
const TRIED_MAX: usize = 64;

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
        // Any of them may still be done by a server that stalled, also after later ones were refused for its sake.
        let mut tried: Vec<serde_json::Value> = Vec::new();
        loop {
            let (generation, mut row) = newest.borrow_and_update().clone();
            row.version = version + 1;
            match try_save(&*ledger, &row, &tried).await {
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
            if tried.last() != Some(&row.state) {
                tried.push(row.state);
                let oldest = tried.len().saturating_sub(TRIED_MAX);
                tried.drain(..oldest);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// An earlier try was done after all; its answer was lost.
    EarlierDone,
    /// The row belongs to another writer now.
    Taken,
}

async fn try_save(ledger: &dyn Ledger, row: &RunRow, tried: &[serde_json::Value]) -> Result<Outcome, StoreError> {
    let slow = || StoreError::Unavailable("no answer in 5s".to_owned());
    let saved = tokio::time::timeout(DEADLINE, ledger.save_run(row)).await;
    match saved.map_err(|_| slow())? {
        Ok(()) => Ok(Outcome::Done),
        Err(StoreError::Conflict(_)) => {
            let read = tokio::time::timeout(DEADLINE, ledger.run(row.identity.id)).await;
            let found = read.map_err(|_| slow())??;
            Ok(conflict(found.as_ref(), row.version, tried))
        }
        Err(error) => Err(error),
    }
}

/// What it means that the row is not where it was thought to be.
fn conflict(found: Option<&RunRow>, wanted: u64, tried: &[serde_json::Value]) -> Outcome {
    match found {
        Some(found) if found.version == wanted && tried.contains(&found.state) => Outcome::EarlierDone,
        _ => Outcome::Taken,
    }
}

impl Shared {
    /// Writes a new run's row, with that of its slot where it has one.
    pub(super) async fn insert(&self, row: &RunRow, slot: Option<SlotStart>) -> Result<Inserted, Blocked> {
        let ledger = &self.parts.stores.ledger;
        let Some(start) = slot else {
            return Ok(ledger.insert_run(row).await?);
        };
        let slot = SlotRow {
            plan: row.identity.plan.clone(),
            slot: start.slot,
            outcome: SlotOutcome::Started,
            detail: String::new(),
            run: Some(row.identity.id),
            load_at: None,
            decided_at: row.identity.created_at,
        };
        if ledger.start_slot(&slot, row, &start.schedule).await? {
            return Ok(Inserted::New);
        }
        Err(Blocked::SlotTaken {
            plan: slot.plan,
            slot: slot.slot,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, conflict};
    use crate::store::rows::RunRow;
    use serde_json::{Value, json};

    fn row(version: u64, state: Value) -> RunRow {
        let identity = json!({
            "id": "0190b1a0-0000-7000-8000-000000000000",
            "plan": "default/TestPlan/hello",
            "revision": "1".repeat(40),
            "digest": format!("sha256:{}", "0".repeat(64)),
            "trigger": {"kind": "Manual", "who": "ci"},
            "created_at": "2026-01-01T00:00:00Z",
        });
        RunRow {
            identity: serde_json::from_value(identity).unwrap(),
            stage: "Running".to_owned(),
            ending: None,
            state,
            pinned: Value::Null,
            deadline: None,
            started_at: None,
            finished_at: None,
            tag: None,
            retention_s: None,
            version,
        }
    }

    #[test]
    fn s42_a_save_whose_answer_was_lost_is_known_again_whichever_of_several_it_was() {
        let tried = [json!("first"), json!("second")];
        let table = [
            (5, "first", Outcome::EarlierDone),
            (5, "second", Outcome::EarlierDone),
            (5, "somebody else's", Outcome::Taken),
            (6, "second", Outcome::Taken),
        ];
        for (version, state, expected) in table {
            assert_eq!(
                conflict(Some(&row(version, json!(state))), 5, &tried),
                expected,
                "{version} {state}"
            );
        }
        assert_eq!(conflict(None, 5, &tried), Outcome::Taken);
    }
}
