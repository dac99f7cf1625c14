//! The ledger in SQL: one row of what was decided per call.

use super::db::{Db, transaction};
use super::read;
use super::rows::{
    ChangesetRow, EventFilter, EventRow, HookRow, Inserted, Overlay, ProjectRow, RunFilter, RunRow, RunWorkerRow,
    ScheduleRow, SlotFilter, SlotRow,
};
use super::value::{Row, Unreadable, Value, read_all, values};
use super::{Ledger, Result, StoreError};
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::model::id::{Digest, Name, RunId};
use muster_core::model::key::Key;
use muster_core::model::observed::{AppliedResource, DeletionApproval, InventoryRow, ResourceStatus};
use muster_core::model::run::Event;
use muster_core::model::unit::UnitName;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Runs listed when a filter names no limit.
const RUNS_DEFAULT: u32 = 100;
/// Events listed when a filter names no limit.
const EVENTS_DEFAULT: u32 = 1_000;

/// A ledger on either database.
#[derive(Debug)]
pub(super) struct SqlLedger {
    pub(super) db: Arc<Db>,
    /// Numbers of events are given before their commit. One at a time, so that who reads "after n" never misses an n - 1
    /// that became visible later.
    events: Mutex<()>,
}

impl SqlLedger {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Self {
            db,
            events: Mutex::new(()),
        }
    }
}

/// A document as the text of its JSON.
pub(super) fn document<T: serde::Serialize>(table: &'static str, row: &impl ToString, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt {
        table,
        row: row.to_string(),
        reason: error.to_string(),
    })
}

#[async_trait]
impl Ledger for SqlLedger {
    async fn meta(&self, name: &str) -> Result<Option<String>> {
        let sql = "SELECT value FROM meta WHERE name = ?";
        Ok(self
            .db
            .fetch("meta", sql, &values![name], |row| row.text(0))
            .await?
            .pop())
    }

    async fn meta_or_insert(&self, name: &str, value: &str) -> Result<String> {
        let sql = self.db.upsert_sql("meta", &["name", "value"], &[]);
        self.db.execute(sql, &values![name, value]).await?;
        let set = self.meta(name).await?;
        set.ok_or_else(|| StoreError::Conflict(format!("meta {name}")))
    }

    async fn projects(&self) -> Result<Vec<ProjectRow>> {
        let sql = "SELECT project, observed_revision, good_revision, resources, diagnostics, high_water, written_at FROM project ORDER BY project";
        self.db.fetch("project", sql, &[], read::project).await
    }

    async fn put_project(&self, row: &ProjectRow) -> Result<()> {
        let columns = [
            "observed_revision",
            "good_revision",
            "resources",
            "diagnostics",
            "high_water",
            "written_at",
        ];
        let values = values![
            &row.project,
            &row.observed_revision,
            row.good_revision.as_ref(),
            &row.resources,
            &row.diagnostics,
            row.high_water,
            row.at,
        ];
        self.db.upsert("project", &["project"], &columns, &values).await
    }

    async fn applied(&self) -> Result<Vec<(Key, AppliedResource)>> {
        let sql = "SELECT resource, document FROM applied ORDER BY resource";
        self.db.fetch("applied", sql, &[], read::keyed_document).await
    }

    async fn put_applied(&self, key: &Key, resource: &AppliedResource) -> Result<()> {
        let values = values![key, document("applied", key, resource)?];
        self.db.upsert("applied", &["resource"], &["document"], &values).await
    }

    async fn delete_applied(&self, key: &Key, at: Timestamp) -> Result<()> {
        transaction!(self.db, |tx| {
            let gone = tx
                .execute("DELETE FROM applied WHERE resource = ?", &values![key])
                .await?;
            // A repeat after an unknown outcome must not count twice.
            if gone.rows > 0 {
                let sql = "INSERT INTO deletion (project, resource, deleted_at) VALUES (?, ?, ?)";
                tx.execute(sql, &values![&key.project, key, at]).await?;
            }
            Ok(())
        })
    }

    async fn deletions_since(&self, since: Timestamp) -> Result<Vec<(Name, u32)>> {
        let sql = "SELECT project, COUNT(*) FROM deletion WHERE deleted_at >= ? GROUP BY project ORDER BY project";
        let read = |row: &Row| Ok((Name::new(row.text(0)?)?, u32::try_from(row.int(1)?)?));
        self.db.fetch("deletion", sql, &values![since], read).await
    }

    async fn inventory(&self) -> Result<Vec<InventoryRow>> {
        let sql = "SELECT unit, owner, environment, digest, revision, since FROM inventory ORDER BY unit";
        self.db.fetch("inventory", sql, &[], read::inventory).await
    }

    async fn put_inventory(&self, row: &InventoryRow) -> Result<()> {
        let columns = ["owner", "environment", "digest", "revision", "since"];
        let values = values![
            &row.unit,
            &row.owner,
            &row.environment,
            &row.digest,
            &row.revision,
            row.since
        ];
        self.db.upsert("inventory", &["unit"], &columns, &values).await
    }

    async fn delete_inventory(&self, unit: &UnitName) -> Result<()> {
        let sql = "DELETE FROM inventory WHERE unit = ?";
        self.db.execute(sql, &values![unit]).await.map(drop)
    }

    async fn statuses(&self) -> Result<Vec<(Key, ResourceStatus)>> {
        let sql = "SELECT resource, document FROM resource_status ORDER BY resource";
        self.db.fetch("resource_status", sql, &[], read::keyed_document).await
    }

    async fn put_status(&self, key: &Key, status: &ResourceStatus) -> Result<()> {
        let values = values![key, document("resource_status", key, status)?];
        self.db
            .upsert("resource_status", &["resource"], &["document"], &values)
            .await
    }

    async fn delete_status(&self, key: &Key) -> Result<()> {
        let sql = "DELETE FROM resource_status WHERE resource = ?";
        self.db.execute(sql, &values![key]).await.map(drop)
    }

    async fn put_changeset(&self, row: &ChangesetRow) -> Result<()> {
        let values = values![&row.revision, row.at, &row.changeset, &row.outcome];
        if row.id == 0 {
            let sql = "INSERT INTO changeset (revision, computed_at, changeset, outcome) VALUES (?, ?, ?, ?)";
            return self.db.execute(sql, &values).await.map(drop);
        }
        let values = [&values![row.id], values.as_slice()].concat();
        let columns = ["revision", "computed_at", "changeset", "outcome"];
        self.db.upsert("changeset", &["id"], &columns, &values).await
    }

    async fn changesets(&self, limit: u32) -> Result<Vec<ChangesetRow>> {
        let sql = "SELECT id, revision, computed_at, changeset, outcome FROM changeset ORDER BY id DESC LIMIT ?";
        self.db.fetch("changeset", sql, &values![limit], read::changeset).await
    }

    async fn deletion_approvals(&self) -> Result<Vec<DeletionApproval>> {
        let sql = "SELECT revision, document FROM deletion_approval ORDER BY revision, keys_digest";
        let read = |row: &Row| Ok(serde_json::from_str(&row.text(1)?)?);
        self.db.fetch("deletion_approval", sql, &[], read).await
    }

    async fn put_deletion_approval(&self, approval: &DeletionApproval) -> Result<()> {
        // An approval is bound to its exact set: another set at the same revision is another approval.
        let mut keys: Vec<String> = approval.keys.iter().map(ToString::to_string).collect();
        keys.sort_unstable();
        let digest = Digest::of(keys.join("\n").as_bytes());
        let values = values![
            &approval.revision,
            &digest,
            document("deletion_approval", &approval.revision, approval)?
        ];
        let keys = ["revision", "keys_digest"];
        self.db.upsert("deletion_approval", &keys, &["document"], &values).await
    }

    async fn overlays(&self) -> Result<Vec<Overlay>> {
        let sql = "SELECT plan, reason, who, since, until FROM overlay ORDER BY plan";
        self.db.fetch("overlay", sql, &[], read::overlay).await
    }

    async fn put_overlay(&self, overlay: &Overlay) -> Result<()> {
        let values = values![
            &overlay.plan,
            overlay.reason.as_str(),
            overlay.who.as_str(),
            overlay.since,
            overlay.until,
        ];
        let columns = ["reason", "who", "since", "until"];
        self.db.upsert("overlay", &["plan"], &columns, &values).await
    }

    async fn delete_overlay(&self, plan: &Key) -> Result<()> {
        let sql = "DELETE FROM overlay WHERE plan = ?";
        self.db.execute(sql, &values![plan]).await.map(drop)
    }

    async fn append_event(&self, event: &Event) -> Result<u64> {
        let sql =
            "INSERT INTO event (happened_at, project, about, severity, reason, message) VALUES (?, ?, ?, ?, ?, ?)";
        let values = values![
            event.at,
            event.project.as_ref(),
            event.about.as_str(),
            document("event", &event.about, &event.severity)?,
            event.reason.as_str(),
            event.message.as_str(),
        ];
        let _turn = self.events.lock().await;
        Ok(self.db.execute(sql, &values).await?.id)
    }

    async fn events(&self, filter: &EventFilter) -> Result<Vec<EventRow>> {
        let mut sql =
            "SELECT id, happened_at, project, about, severity, reason, message FROM event WHERE id > ?".to_owned();
        let mut values = values![filter.after].to_vec();
        if let Some(about) = &filter.about {
            sql.push_str(" AND about = ?");
            values.push(about.as_str().into());
        }
        if let Some(project) = &filter.project {
            sql.push_str(" AND project = ?");
            values.push(project.into());
        }
        sql.push_str(" ORDER BY id DESC LIMIT ?");
        values.push(or_default(filter.limit, EVENTS_DEFAULT));
        let mut events = self.db.fetch("event", sql, &values, read::event).await?;
        events.reverse();
        Ok(events)
    }

    async fn schedules(&self) -> Result<Vec<(Key, ScheduleRow)>> {
        self.all_schedules().await
    }

    async fn delete_schedule(&self, plan: &Key) -> Result<()> {
        let sql = "DELETE FROM schedule_cursor WHERE plan = ?";
        self.db.execute(sql, &values![plan]).await.map(drop)
    }

    async fn put_slots(&self, plan: &Key, rows: &[SlotRow], schedule: &ScheduleRow) -> Result<()> {
        self.write_slots(plan, rows, schedule).await
    }

    async fn start_slot(&self, slot: &SlotRow, run: &RunRow, schedule: &ScheduleRow) -> Result<bool> {
        self.write_started(slot, run, schedule).await
    }

    async fn end_slot(&self, row: &SlotRow) -> Result<()> {
        self.update_slot(row).await
    }

    async fn slots(&self, filter: &SlotFilter) -> Result<Vec<SlotRow>> {
        self.some_slots(filter).await
    }

    async fn insert_run(&self, row: &RunRow) -> Result<Inserted> {
        transaction!(self.db, |tx| {
            let sql = format!("SELECT {} FROM run WHERE id = ?", read::RUN_COLUMNS);
            let rows = tx.rows(sql, &values![row.identity.id.0]).await?;
            if let Some(found) = read_all("run", &rows, read::run)?.pop() {
                return Ok(Inserted::Existing(Box::new(found)));
            }
            // Another writer may come in between; the primary key then refuses this one, and the next try finds the other's.
            let columns: Vec<&str> = read::RUN_COLUMNS.split(", ").collect();
            tx.insert_many("run", &columns, &[run_values(row)?], "").await?;
            Ok(Inserted::New)
        })
    }

    async fn save_run(&self, row: &RunRow) -> Result<()> {
        let id = row.identity.id;
        let sql = "UPDATE run SET stage = ?, ending = ?, state = ?, pinned = ?, deadline = ?, started_at = ?, finished_at = ?, \
                   retention_s = ?, version = ? WHERE id = ? AND version = ?";
        let mut values = state_values(row);
        values.extend(values![id.0, row.version.saturating_sub(1)]);
        if self.db.execute(sql, &values).await?.rows == 1 {
            return Ok(());
        }
        // A save whose answer was lost and that is sent again finds itself.
        match self.run(id).await? {
            Some(found) if (found.version, &found.stage, &found.state) == (row.version, &row.stage, &row.state) => {
                Ok(())
            }
            _ => Err(StoreError::Conflict(format!("run {id}"))),
        }
    }

    async fn run(&self, id: RunId) -> Result<Option<RunRow>> {
        let sql = format!("SELECT {} FROM run WHERE id = ?", read::RUN_COLUMNS);
        Ok(self.db.fetch("run", sql, &values![id.0], read::run).await?.pop())
    }

    async fn tag_run(&self, id: RunId, tag: Option<&str>) -> Result<bool> {
        let sql = "UPDATE run SET tag = ? WHERE id = ?";
        Ok(self.db.execute(sql, &values![tag, id.0]).await?.rows > 0)
    }

    async fn tagged_run(&self, plan: &Key, tag: &str) -> Result<Option<RunId>> {
        let sql = "SELECT id FROM run WHERE plan = ? AND tag = ? ORDER BY created_at DESC LIMIT 1";
        Ok(self.db.fetch("run", sql, &values![plan, tag], run_id).await?.pop())
    }

    async fn detailed_runs(&self, after: Option<RunId>, limit: u32) -> Result<Vec<RunRow>> {
        let sql = format!(
            "SELECT {} FROM run WHERE id > ? AND stage = 'Finished' \
             AND NOT EXISTS (SELECT 1 FROM expired WHERE expired.run = run.id) ORDER BY id LIMIT ?",
            read::RUN_COLUMNS
        );
        let after = after.map_or(uuid::Uuid::nil(), |id| id.0);
        self.db.fetch("run", sql, &values![after, limit], read::run).await
    }

    async fn expired_runs(&self, limit: u32) -> Result<BTreeSet<RunId>> {
        let sql = "SELECT run FROM expired ORDER BY expired_at DESC LIMIT ?";
        let runs = self.db.fetch("expired", sql, &values![limit], run_id).await?;
        Ok(runs.into_iter().collect())
    }

    async fn put_expired(&self, id: RunId, at: Timestamp) -> Result<()> {
        self.db
            .upsert("expired", &["run"], &["expired_at"], &values![id.0, at])
            .await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>> {
        let mut sql = format!("SELECT {} FROM run WHERE 1 = 1", read::RUN_COLUMNS);
        let mut values = Vec::new();
        if let Some(plan) = &filter.plan {
            sql.push_str(" AND plan = ?");
            values.push(plan.into());
        }
        if let Some(projects) = &filter.projects {
            only_projects(&mut sql, &mut values, projects);
        }
        if filter.active {
            sql.push_str(" AND stage <> 'Finished'");
        }
        sql.push_str(" ORDER BY created_at DESC, id DESC LIMIT ?");
        values.push(or_default(filter.limit, RUNS_DEFAULT));
        self.db.fetch("run", sql, &values, read::run).await
    }

    async fn run_workers(&self, id: RunId) -> Result<Vec<RunWorkerRow>> {
        let sql =
            "SELECT run, worker, position, session, detail FROM run_worker WHERE run = ? ORDER BY position, worker";
        self.db.fetch("run_worker", sql, &values![id.0], read::run_worker).await
    }

    async fn put_run_worker(&self, row: &RunWorkerRow) -> Result<()> {
        let values = values![row.run.0, row.worker.0, row.index, row.session.0, &row.detail];
        let columns = ["position", "session", "detail"];
        self.db
            .upsert("run_worker", &["run", "worker"], &columns, &values)
            .await
    }

    async fn hooks(&self, id: RunId) -> Result<Vec<HookRow>> {
        let sql = "SELECT run, name, started_at, finished_at, succeeded, message FROM hook WHERE run = ? ORDER BY started_at, name";
        self.db.fetch("hook", sql, &values![id.0], read::hook).await
    }

    async fn put_hook(&self, row: &HookRow) -> Result<()> {
        let values = values![
            row.run.0,
            row.name.as_str(),
            row.started_at,
            row.finished_at,
            row.succeeded,
            row.message.as_str(),
        ];
        let columns = ["started_at", "finished_at", "succeeded", "message"];
        self.db.upsert("hook", &["run", "name"], &columns, &values).await
    }

    async fn summary(&self, id: RunId) -> Result<Option<serde_json::Value>> {
        let sql = "SELECT run, report FROM summary WHERE run = ?";
        let read = |row: &Row| Ok(serde_json::from_str(&row.text(1)?)?);
        Ok(self.db.fetch("summary", sql, &values![id.0], read).await?.pop())
    }

    async fn put_summary(&self, id: RunId, report: &serde_json::Value) -> Result<()> {
        let values = values![id.0, report];
        self.db.upsert("summary", &["run"], &["report"], &values).await
    }

    async fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT bytes FROM content WHERE digest = ?";
        Ok(self
            .db
            .fetch("content", sql, &values![digest], |row| row.bytes(0))
            .await?
            .pop())
    }

    async fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let sql = self.db.upsert_sql("content", &["digest", "bytes"], &[]);
        self.db.execute(sql, &values![digest, bytes]).await.map(drop)
    }

    async fn blobs(&self, after: &str, limit: u32) -> Result<Vec<String>> {
        let sql = "SELECT digest FROM content WHERE digest > ? ORDER BY digest LIMIT ?";
        self.db
            .fetch("content", sql, &values![after, limit], |row| row.text(0))
            .await
    }

    async fn delete_blob(&self, digest: &str) -> Result<()> {
        let sql = "DELETE FROM content WHERE digest = ?";
        self.db.execute(sql, &values![digest]).await.map(drop)
    }
}

fn run_id(row: &Row) -> Result<RunId, Unreadable> {
    Ok(RunId(uuid::Uuid::from_slice(&row.bytes(0)?)?))
}

fn or_default(limit: u32, default: u32) -> Value {
    Value::from(if limit == 0 { default } else { limit })
}

/// Keeps to the rows of some projects; of none, where there are none.
pub(super) fn only_projects(sql: &mut String, values: &mut Vec<Value>, projects: &BTreeSet<Name>) {
    let marks = vec!["?"; projects.len()].join(", ");
    sql.push_str(&match projects.is_empty() {
        true => " AND 1 = 0".to_owned(),
        false => format!(" AND project IN ({marks})"),
    });
    values.extend(projects.iter().map(Value::from));
}

pub(super) fn run_values(row: &RunRow) -> Result<Vec<Value>> {
    let identity = &row.identity;
    let mut values = Vec::from(values![
        identity.id.0,
        &identity.plan,
        &identity.plan.project,
        &identity.revision,
        &identity.digest,
        document("run", &identity.id, &identity.trigger)?,
        identity.created_at,
    ]);
    values.push(row.tag.as_deref().into());
    values.extend(state_values(row));
    Ok(values)
}

/// What changes of a run, in the order of its columns.
fn state_values(row: &RunRow) -> Vec<Value> {
    Vec::from(values![
        row.stage.as_str(),
        row.ending.as_deref(),
        &row.state,
        &row.pinned,
        row.deadline,
        row.started_at,
        row.finished_at,
        row.retention_s,
        row.version,
    ])
}
