//! The part of a ledger that tests of this folder need, in memory; runs and schedules it has none.

use super::MemoryLedger;
use crate::store::rows::{
    ChangesetRow, EventFilter, EventRow, HookRow, Inserted, Overlay, ProjectRow, RunFilter, RunRow, RunWorkerRow,
    ScheduleRow, SlotFilter, SlotRow,
};
use crate::store::{Ledger, Result, StoreError};
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::model::id::{Name, RunId};
use muster_core::model::key::Key;
use muster_core::model::observed::{AppliedResource, DeletionApproval, InventoryRow, ResourceStatus};
use muster_core::model::run::Event;
use muster_core::model::unit::UnitName;
use serde_json::Value;
use std::collections::BTreeSet;

fn absent<T>() -> Result<T> {
    Err(StoreError::Refused("these tests hold no runs".to_owned()))
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn meta(&self, _: &str) -> Result<Option<String>> {
        absent()
    }
    async fn meta_or_insert(&self, _: &str, _: &str) -> Result<String> {
        absent()
    }
    async fn projects(&self) -> Result<Vec<ProjectRow>> {
        Ok(self.open()?.projects.values().cloned().collect())
    }
    async fn put_project(&self, row: &ProjectRow) -> Result<()> {
        self.write(format!("project {}", row.project))?
            .projects
            .insert(row.project.clone(), row.clone());
        Ok(())
    }
    async fn applied(&self) -> Result<Vec<(Key, AppliedResource)>> {
        Ok(self.open()?.applied.clone().into_iter().collect())
    }
    async fn put_applied(&self, key: &Key, resource: &AppliedResource) -> Result<()> {
        self.write(format!("applied {key}"))?
            .applied
            .insert(key.clone(), resource.clone());
        Ok(())
    }
    async fn delete_applied(&self, key: &Key, _: Timestamp) -> Result<()> {
        let mut rows = self.write(format!("unapplied {key}"))?;
        rows.applied.remove(key);
        *rows.deletions.entry(key.project.clone()).or_default() += 1;
        Ok(())
    }
    async fn deletions_since(&self, _: Timestamp) -> Result<Vec<(Name, u32)>> {
        Ok(self.open()?.deletions.clone().into_iter().collect())
    }
    async fn inventory(&self) -> Result<Vec<InventoryRow>> {
        Ok(self.open()?.inventory.values().cloned().collect())
    }
    async fn put_inventory(&self, row: &InventoryRow) -> Result<()> {
        self.write(format!("inventory {}", row.unit))?
            .inventory
            .insert(row.unit.clone(), row.clone());
        Ok(())
    }
    async fn delete_inventory(&self, unit: &UnitName) -> Result<()> {
        self.write(format!("uninventory {unit}"))?.inventory.remove(unit);
        Ok(())
    }
    async fn statuses(&self) -> Result<Vec<(Key, ResourceStatus)>> {
        Ok(self.open()?.statuses.clone().into_iter().collect())
    }
    async fn put_status(&self, key: &Key, status: &ResourceStatus) -> Result<()> {
        self.write(format!("status {key}"))?
            .statuses
            .insert(key.clone(), status.clone());
        Ok(())
    }
    async fn delete_status(&self, key: &Key) -> Result<()> {
        self.write(format!("unstatus {key}"))?.statuses.remove(key);
        Ok(())
    }
    async fn schedules(&self) -> Result<Vec<(Key, ScheduleRow)>> {
        absent()
    }
    async fn delete_schedule(&self, _: &Key) -> Result<()> {
        absent()
    }
    async fn put_slots(&self, _: &Key, _: &[SlotRow], _: &ScheduleRow) -> Result<()> {
        absent()
    }
    async fn start_slot(&self, _: &SlotRow, _: &RunRow, _: &ScheduleRow) -> Result<bool> {
        absent()
    }
    async fn end_slot(&self, _: &SlotRow) -> Result<()> {
        absent()
    }
    async fn slots(&self, _: &SlotFilter) -> Result<Vec<SlotRow>> {
        absent()
    }
    async fn put_changeset(&self, row: &ChangesetRow) -> Result<()> {
        self.write("changeset".to_owned())?.changesets.push(row.clone());
        Ok(())
    }
    async fn changesets(&self, _: u32) -> Result<Vec<ChangesetRow>> {
        Ok(self.open()?.changesets.clone())
    }
    async fn deletion_approvals(&self) -> Result<Vec<DeletionApproval>> {
        Ok(self.open()?.approvals.clone())
    }
    async fn put_deletion_approval(&self, approval: &DeletionApproval) -> Result<()> {
        self.open()?.approvals.push(approval.clone());
        Ok(())
    }
    async fn overlays(&self) -> Result<Vec<Overlay>> {
        self.open().map(|_| Vec::new())
    }
    async fn put_overlay(&self, _: &Overlay) -> Result<()> {
        absent()
    }
    async fn delete_overlay(&self, _: &Key) -> Result<()> {
        absent()
    }
    async fn append_event(&self, event: &Event) -> Result<u64> {
        let mut rows = self.open()?;
        rows.events.push(event.clone());
        Ok(rows.events.len() as u64)
    }
    async fn events(&self, _: &EventFilter) -> Result<Vec<EventRow>> {
        absent()
    }
    async fn insert_run(&self, _: &RunRow) -> Result<Inserted> {
        absent()
    }
    async fn save_run(&self, _: &RunRow) -> Result<()> {
        absent()
    }
    async fn run(&self, _: RunId) -> Result<Option<RunRow>> {
        absent()
    }
    async fn runs(&self, _: &RunFilter) -> Result<Vec<RunRow>> {
        absent()
    }
    async fn run_workers(&self, _: RunId) -> Result<Vec<RunWorkerRow>> {
        absent()
    }
    async fn put_run_worker(&self, _: &RunWorkerRow) -> Result<()> {
        absent()
    }
    async fn hooks(&self, _: RunId) -> Result<Vec<HookRow>> {
        absent()
    }
    async fn put_hook(&self, _: &HookRow) -> Result<()> {
        absent()
    }
    async fn summary(&self, _: RunId) -> Result<Option<Value>> {
        absent()
    }
    async fn put_summary(&self, _: RunId, _: &Value) -> Result<()> {
        absent()
    }
    async fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.open()?.blobs.get(digest).cloned())
    }
    async fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        self.open()?.blobs.insert(digest.to_owned(), bytes.to_vec());
        Ok(())
    }
    async fn blobs(&self, _: &str, _: u32) -> Result<Vec<String>> {
        absent()
    }
    async fn delete_blob(&self, _: &str) -> Result<()> {
        absent()
    }
    async fn tag_run(&self, _: RunId, _: Option<&str>) -> Result<bool> {
        absent()
    }
    async fn tagged_run(&self, _: &Key, _: &str) -> Result<Option<RunId>> {
        absent()
    }
    async fn detailed_runs(&self, _: Option<RunId>, _: u32) -> Result<Vec<RunRow>> {
        absent()
    }
    async fn expired_runs(&self, _: u32) -> Result<BTreeSet<RunId>> {
        absent()
    }
    async fn put_expired(&self, _: RunId, _: Timestamp) -> Result<()> {
        absent()
    }
}
