//! Slots of schedules in SQL: each has one row, written together with how far its plan's slots are decided (promises 26 and 27).

use super::db::transaction;
use super::ledger::{SqlLedger, document, only_projects, run_values};
use super::read;
use super::rows::{RunRow, ScheduleRow, SlotFilter, SlotRow};
use super::value::{Row, Value, read_all, values};
use super::{Result, StoreError};
use muster_core::model::id::RunId;
use muster_core::model::key::Key;

/// Slots listed when a filter names no limit.
const SLOTS_DEFAULT: u32 = 100;
const COLUMNS: [&str; 8] = [
    "plan",
    "slot",
    "project",
    "outcome",
    "detail",
    "run",
    "load_at",
    "decided_at",
];

impl SqlLedger {
    pub(super) async fn all_schedules(&self) -> Result<Vec<(Key, ScheduleRow)>> {
        let sql = "SELECT plan, document FROM schedule_cursor ORDER BY plan";
        self.db.fetch("schedule_cursor", sql, &[], read::keyed_document).await
    }

    pub(super) async fn write_slots(&self, plan: &Key, rows: &[SlotRow], schedule: &ScheduleRow) -> Result<()> {
        let cursor = values![plan, document("schedule_cursor", plan, schedule)?];
        transaction!(self.db, |tx| {
            let mut new = Vec::new();
            for row in rows {
                let sql = "SELECT run FROM slot WHERE plan = ? AND slot = ?";
                if tx.rows(sql, &values![&row.plan, row.slot]).await?.is_empty() {
                    new.push(values(row));
                }
            }
            // Another writer may come in between; the primary key then refuses these, and the next try finds the other's.
            tx.insert_many("slot", &COLUMNS, &new, "").await?;
            let sql = self.db.upsert_sql("schedule_cursor", &["plan"], &["document"]);
            tx.execute(sql, &cursor).await?;
            Ok(())
        })
    }

    pub(super) async fn write_started(&self, slot: &SlotRow, run: &RunRow, schedule: &ScheduleRow) -> Result<bool> {
        let cursor = values![&slot.plan, document("schedule_cursor", &slot.plan, schedule)?];
        transaction!(self.db, |tx| {
            let sql = "SELECT run FROM slot WHERE plan = ? AND slot = ?";
            let rows = tx.rows(sql, &values![&slot.plan, slot.slot]).await?;
            let run_of = |row: &Row| row.bytes_or_null(0);
            if let Some(found) = read_all("slot", &rows, run_of)?.pop() {
                // Its own, where the answer of a commit was lost.
                return Ok(found.as_deref() == Some(run.identity.id.0.as_bytes()));
            }
            tx.insert_many("slot", &COLUMNS, &[values(slot)], "").await?;
            let columns: Vec<&str> = read::RUN_COLUMNS.split(", ").collect();
            tx.insert_many("run", &columns, &[run_values(run)?], "").await?;
            let sql = self.db.upsert_sql("schedule_cursor", &["plan"], &["document"]);
            tx.execute(sql, &cursor).await?;
            Ok(true)
        })
    }

    pub(super) async fn update_slot(&self, row: &SlotRow) -> Result<()> {
        let sql = "UPDATE slot SET outcome = ?, detail = ?, load_at = ? WHERE plan = ? AND slot = ?";
        let values = values![
            row.outcome.as_str(),
            row.detail.as_str(),
            row.load_at,
            &row.plan,
            row.slot
        ];
        match self.db.execute(sql, &values).await?.rows {
            0 => Err(StoreError::Conflict(format!("slot {} of {}", row.slot, row.plan))),
            _ => Ok(()),
        }
    }

    pub(super) async fn some_slots(&self, filter: &SlotFilter) -> Result<Vec<SlotRow>> {
        let mut sql = format!("SELECT {} FROM slot WHERE 1 = 1", COLUMNS.join(", "));
        let mut values = Vec::new();
        if let Some(plan) = &filter.plan {
            sql.push_str(" AND plan = ?");
            values.push(plan.into());
        }
        if let Some(projects) = &filter.projects {
            only_projects(&mut sql, &mut values, projects);
        }
        if filter.pending {
            sql.push_str(" AND outcome = 'Started' AND load_at IS NULL AND detail = ''");
        }
        sql.push_str(" ORDER BY slot DESC, plan LIMIT ?");
        let limit = if filter.limit == 0 { SLOTS_DEFAULT } else { filter.limit };
        values.push(limit.into());
        self.db.fetch("slot", sql, &values, read::slot).await
    }
}

fn values(row: &SlotRow) -> Vec<Value> {
    Vec::from(values![
        &row.plan,
        row.slot,
        &row.plan.project,
        row.outcome.as_str(),
        row.detail.as_str(),
        row.run.map(|RunId(id)| id),
        row.load_at,
        row.decided_at,
    ])
}
