//! Results in SQL: what ingest appends in one transaction, what judges and reports read, the seal.

use super::db::{Conn, Db, transaction};
use super::fault::Fault;
use super::part::{PART_COLUMNS, parts_of, rows_of};
use super::read;
use super::rows::{Appended, Flush, RejectRow, SessionRow, SlicePart};
use super::value::{Row, Value, read_all, values};
use super::{Result, Results, StoreError};
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::model::id::{RunId, SessionId};
use muster_core::model::key::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Results on either database.
#[derive(Debug)]
pub(super) struct SqlResults {
    pub(super) db: Arc<Db>,
    /// Runs that are being compacted or removed: two at once would take away each other's parts.
    busy: Mutex<BTreeSet<RunId>>,
}

/// Refused frames kept: of one run, and of all.
const REJECTS_OF_RUN_MAX: usize = 100;
const REJECTS_MAX: usize = 10_000;
/// And for so long: a week.
const REJECT_KEPT_US: i64 = 7 * 24 * 3_600 * 1_000_000;

/// Holds a run while its parts are replaced or removed.
pub(super) struct Busy<'a> {
    results: &'a SqlResults,
    run: RunId,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.results.busy().remove(&self.run);
    }
}

/// In the column `sealed`: sealed, and its compaction is over.
pub(super) const FINISHED: i64 = 2;

/// What is known of a run's results as a whole.
#[derive(Debug, Default)]
pub(super) struct RunState {
    pub(super) sealed: bool,
    /// Compacted, and nothing of what was before is left.
    pub(super) finished: bool,
    /// 0: parts as they arrived; 1: compacted.
    pub(super) generation: i64,
    /// Cursors up to here are of parts that compaction replaced.
    pub(super) compacted_above: u64,
}

impl SqlResults {
    pub(super) fn new(db: Arc<Db>) -> Self {
        let busy = Mutex::default();
        Self { db, busy }
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<RunId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a run for as long as the guard lives.
    pub(super) fn hold(&self, run: RunId) -> Result<Busy<'_>> {
        match self.busy().insert(run) {
            true => Ok(Busy { results: self, run }),
            false => Err(StoreError::Conflict(format!("run {run} (being compacted or removed)"))),
        }
    }

    /// Reads a run's state and holds it until the transaction ends: who appends to a run does so alone, and so the parts of a run
    /// become visible in the order of their numbers, which is what lets readers go on from a cursor.
    pub(super) async fn locked_state(&self, tx: &mut Conn, run: RunId) -> Result<RunState, Fault> {
        state(tx, run, self.db.for_update()).await
    }

    async fn store(&self, tx: &mut Conn, flush: &Flush) -> Result<Appended, Fault> {
        if self.locked_state(tx, flush.run).await?.sealed {
            for (session, (_, to)) in &flush.watermarks {
                // The highest sequence seen late, so that a repeat does not count twice.
                let sql = "UPDATE session SET late = ? WHERE run = ? AND session = ? AND late < ?";
                tx.execute(sql, &values![*to, flush.run.0, session.0, *to]).await?;
            }
            return Ok(Appended::Late);
        }
        // The run's lock keeps watermarks as they are read here.
        let rows = tx
            .rows(
                "SELECT session, watermark FROM session WHERE run = ?",
                &values![flush.run.0],
            )
            .await?;
        let read = |row: &Row| {
            Ok((
                SessionId(Uuid::from_slice(&row.bytes(0)?)?),
                u64::try_from(row.int(1)?)?,
            ))
        };
        let stand: BTreeMap<_, _> = read_all("session", &rows, read)?.into_iter().collect();
        let fits = flush
            .watermarks
            .iter()
            .all(|(session, (from, _))| stand.get(session) == Some(from));
        if !fits || !flush.ends.keys().all(|session| stand.contains_key(session)) {
            return Ok(Appended::Moved);
        }
        let rows = rows_of(flush.run, &flush.parts);
        tx.insert_many("slice_part", &PART_COLUMNS, &rows, "").await?;
        self.raise_watermarks(tx, flush).await?;
        for (session, (last, dropped)) in &flush.ends {
            let sql = "UPDATE session SET last_sequence = ?, dropped = ? WHERE run = ? AND session = ?";
            let dropped = serde_json::json!(dropped);
            tx.execute(sql, &values![*last, &dropped, flush.run.0, session.0])
                .await?;
        }
        Ok(Appended::Stored)
    }

    /// Many at once: a thousand workers would be a thousand statements. Every row is there, so what else an INSERT must name is
    /// never written.
    async fn raise_watermarks(&self, tx: &mut Conn, flush: &Flush) -> Result<(), Fault> {
        let keys = ["run", "session"];
        let columns = ["run", "session", "worker", "late", "dropped", "watermark"];
        let row = |(session, (_, to)): (&SessionId, &(u64, u64))| {
            Vec::from(values![flush.run.0, session.0, 0_u32, 0_u32, "[]", *to])
        };
        let rows: Vec<Vec<Value>> = flush.watermarks.iter().map(row).collect();
        let tail = self.db.where_there(&keys, &["watermark"]);
        tx.insert_many("session", &columns, &rows, &tail).await
    }
}

/// Reads a run's state; a run that was never opened is open and has nothing.
async fn state(conn: &mut Conn, run: RunId, lock: &str) -> Result<RunState, Fault> {
    let sql = format!("SELECT sealed, generation, compacted_above FROM run_state WHERE run = ?{lock}");
    let rows = conn.rows(sql, &values![run.0]).await?;
    let found = read_all("run_state", &rows, |row| {
        Ok(RunState {
            sealed: row.int(0)? != 0,
            finished: row.int(0)? == FINISHED,
            generation: row.int(1)?,
            compacted_above: u64::try_from(row.int(2)?)?,
        })
    })?;
    Ok(found.into_iter().next().unwrap_or_default())
}

#[async_trait]
impl Results for SqlResults {
    async fn open_run(&self, run: RunId) -> Result<()> {
        let sql = self
            .db
            .upsert_sql("run_state", &["run", "sealed", "generation", "compacted_above"], &[]);
        self.db
            .execute(sql, &values![run.0, 0_u32, 0_u32, 0_u32])
            .await
            .map(drop)
    }

    async fn open_session(&self, row: &SessionRow) -> Result<()> {
        let columns = [
            "run",
            "session",
            "worker",
            "watermark",
            "late",
            "last_sequence",
            "dropped",
        ];
        let sql = self.db.upsert_sql("session", &columns, &[]);
        let values = values![
            row.run.0,
            row.session.0,
            row.worker,
            row.watermark,
            0_u32,
            row.end,
            &serde_json::json!(row.dropped),
        ];
        self.db.execute(sql, &values).await.map(drop)
    }

    async fn sessions(&self, run: RunId) -> Result<Vec<SessionRow>> {
        let sql = "SELECT run, session, worker, watermark, last_sequence, dropped FROM session WHERE run = ? ORDER BY worker, session";
        self.db.fetch("session", sql, &values![run.0], read::session).await
    }

    async fn append(&self, flush: &Flush) -> Result<Appended> {
        transaction!(self.db, |tx| { self.store(&mut tx, flush).await })
    }

    async fn reject(&self, run: RunId, rows: &[RejectRow]) -> Result<()> {
        let Some(newest) = rows.iter().map(|row| row.at).max() else {
            return Ok(());
        };
        let columns = ["run", "session", "sequence", "reason", "bytes", "at"];
        let insert = self.db.upsert_sql("reject", &columns, &[]);
        transaction!(self.db, |tx| {
            let old = newest.as_microsecond() - REJECT_KEPT_US;
            tx.execute("DELETE FROM reject WHERE at < ?", &values![old]).await?;
            let count = "SELECT COUNT(*), COUNT(CASE WHEN run = ? THEN 1 END) FROM reject";
            let counts = read_all("reject", &tx.rows(count, &values![run.0]).await?, |row| {
                Ok((usize::try_from(row.int(0)?)?, usize::try_from(row.int(1)?)?))
            })?;
            let (all, of_run) = counts.into_iter().next().unwrap_or_default();
            let room = REJECTS_MAX
                .saturating_sub(all)
                .min(REJECTS_OF_RUN_MAX.saturating_sub(of_run));
            for row in rows.iter().take(room) {
                let values = values![
                    run.0,
                    row.session.0,
                    row.sequence,
                    row.reason.as_str(),
                    row.bytes,
                    row.at
                ];
                tx.execute(insert.clone(), &values).await?;
            }
            Ok(())
        })
    }

    async fn rejects(&self, run: RunId) -> Result<Vec<RejectRow>> {
        let sql =
            "SELECT session, sequence, reason, bytes, at FROM reject WHERE run = ? ORDER BY at, session, sequence";
        let read = |row: &Row| {
            Ok(RejectRow {
                run,
                session: SessionId(Uuid::from_slice(&row.bytes(0)?)?),
                sequence: u64::try_from(row.int(1)?)?,
                reason: row.text(2)?,
                bytes: u64::try_from(row.int(3)?)?,
                at: Timestamp::from_microsecond(row.int(4)?)?,
            })
        };
        self.db.fetch("reject", sql, &values![run.0], read).await
    }

    async fn parts(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<(u64, SlicePart)>> {
        let mut conn = self.db.connection(false).await?;
        // Which generation holds is decided by the same statement that reads the rows.
        let sql = format!(
            "SELECT id, second, worker, phase, scenario, name, data FROM slice_part{} \
             WHERE run = ? AND generation = (SELECT generation FROM run_state WHERE run = ?) AND id > ? \
             ORDER BY run, generation, id LIMIT ?",
            self.db.by_run()
        );
        let rows = conn.rows(sql, &values![run.0, run.0, after, limit]).await?;
        let compacted_above = state(&mut conn, run, "").await?.compacted_above;
        conn.release();
        if after > 0 && after <= compacted_above {
            return Err(StoreError::Conflict(format!(
                "run {run} (compacted; read its parts from 0 again)"
            )));
        }
        let parts = read_all("slice_part", &rows, parts_of)?;
        Ok(parts.into_iter().flatten().collect())
    }

    async fn seal(&self, run: RunId) -> Result<u64> {
        self.open_run(run).await?;
        transaction!(self.db, |tx| {
            if !self.locked_state(&mut tx, run).await?.sealed {
                tx.execute("UPDATE run_state SET sealed = 1 WHERE run = ?", &values![run.0])
                    .await?;
            }
            let sql = "SELECT late - watermark FROM session WHERE run = ? AND late > watermark";
            let rows = tx.rows(sql, &values![run.0]).await?;
            let late = read_all("session", &rows, |row| Ok(u64::try_from(row.int(0)?)?))?;
            Ok(late.iter().sum())
        })
    }

    async fn is_sealed(&self, run: RunId) -> Result<bool> {
        let mut conn = self.db.connection(false).await?;
        let found = state(&mut conn, run, "").await?;
        conn.release();
        Ok(found.sealed)
    }

    async fn compact(&self, run: RunId) -> Result<()> {
        let _held = self.hold(run)?;
        self.compact_run(run).await
    }

    async fn describe_run(&self, run: RunId, plan: &Key, started_at: Timestamp) -> Result<()> {
        let values = values![run.0, run.to_string(), plan, started_at];
        self.db
            .upsert("run_info", &["run"], &["id", "plan", "started_at"], &values)
            .await
    }

    async fn remove_run(&self, run: RunId) -> Result<bool> {
        let _held = self.hold(run)?;
        if !self.delete_some(run).await? {
            return Ok(false);
        }
        // The state last: a removal that is cut off leaves a run that can be removed.
        for table in ["session", "reject", "run_info", "run_state"] {
            let sql = format!("DELETE FROM {table} WHERE run = ?");
            self.db.execute(sql, &values![run.0]).await?;
        }
        Ok(true)
    }
}
