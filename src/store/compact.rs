//! Compaction of a sealed run: many parts of one (second, series) become one. Bounded in memory, all or nothing for readers.
//!
//! The merged parts are written as generation 1, unseen, while readers still get generation 0. One short transaction then switches
//! the run over, and the old parts are deleted. Cut off before the switch, it starts anew; cut off after, only the deleting is left.

use super::db::transaction;
use super::part::{Label, Numbers, PART_COLUMNS, raw_row};
use super::read;
use super::results::{FINISHED, SqlResults};
use super::value::{Row, values};
use super::{Result, StoreError};
use muster_core::base::chain::chain;
use muster_core::measure::slice::Stats;
use muster_core::model::id::RunId;
use std::collections::BTreeMap;

/// Run seconds whose labels are looked at together; a second of a large run has some hundred parts.
const SECONDS_AT_ONCE: u32 = 16;
/// Parts read and written together: at some kilobytes each, a few megabytes.
const PARTS_AT_ONCE: usize = 256;
/// Rows deleted in one statement, so that its locks are short.
const DELETE_AT_ONCE: u32 = 2_000;

impl SqlResults {
    pub(super) async fn compact_run(&self, run: RunId) -> Result<()> {
        let state = transaction!(self.db, |tx| { self.locked_state(&mut tx, run).await })?;
        if state.finished {
            return Ok(());
        }
        if !state.sealed {
            return Err(StoreError::Refused(format!(
                "run {run} is not sealed, so its parts cannot be compacted"
            )));
        }
        if state.generation == 0 {
            // What a compaction that was cut off left behind.
            self.delete_generation(run, 1).await?;
            let highest = self.merge_all(run).await?;
            let sql = "UPDATE run_state SET generation = 1, compacted_above = ? WHERE run = ? AND generation = 0";
            self.db.execute(sql, &values![highest, run.0]).await?;
        }
        self.delete_generation(run, 0).await?;
        let sql = "UPDATE run_state SET sealed = ? WHERE run = ?";
        self.db.execute(sql, &values![FINISHED, run.0]).await.map(drop)
    }

    /// Writes generation 1 and returns the highest number of generation 0.
    async fn merge_all(&self, run: RunId) -> Result<u64> {
        let sql =
            "SELECT COALESCE(MAX(id), 0), COALESCE(MAX(second), 0) FROM slice_part WHERE run = ? AND generation = 0";
        let read = |row: &Row| Ok((u64::try_from(row.int(0)?)?, u32::try_from(row.int(1)?)?));
        let found = self.db.fetch("slice_part", sql, &values![run.0], read).await?;
        let (highest, last_second) = found.first().copied().unwrap_or_default();
        let mut from = 0;
        while from <= last_second {
            let next = from.saturating_add(SECONDS_AT_ONCE);
            for batch in batches(self.groups(run, from, next).await?) {
                self.merge_batch(run, batch).await?;
            }
            from = next;
        }
        Ok(highest)
    }

    /// The numbers of the parts of some seconds, grouped by what becomes one part. What workers said of themselves is never merged.
    async fn groups(&self, run: RunId, from: u32, below: u32) -> Result<Vec<Group>> {
        let sql = "SELECT id, second, worker, phase, scenario, name FROM slice_part \
                   WHERE run = ? AND generation = 0 AND second >= ? AND second < ?";
        let labels = self
            .db
            .fetch("slice_part", sql, &values![run.0, from, below], read::part_label)
            .await?;
        let mut groups: BTreeMap<(u32, Label, u64), Vec<u64>> = BTreeMap::new();
        for (id, second, label) in labels {
            let apart = if matches!(label, Label::Worker(_)) { id } else { 0 };
            groups.entry((second, label, apart)).or_default().push(id);
        }
        let group = |((second, label, _), ids)| Group { second, label, ids };
        Ok(groups.into_iter().map(group).collect())
    }

    async fn merge_batch(&self, run: RunId, batch: Vec<Group>) -> Result<()> {
        let mut whole: Vec<Merging> = batch.iter().map(|_| Merging::Nothing).collect();
        let owners: BTreeMap<u64, usize> = batch
            .iter()
            .enumerate()
            .flat_map(|(index, group)| group.ids.iter().map(move |id| (*id, index)))
            .collect();
        let ids: Vec<u64> = owners.keys().copied().collect();
        for ids in ids.chunks(PARTS_AT_ONCE) {
            let marks = vec!["?"; ids.len()].join(", ");
            let sql = format!("SELECT id, data FROM slice_part WHERE id IN ({marks}) ORDER BY id");
            let ids: Vec<_> = ids.iter().map(|id| (*id).into()).collect();
            let read = |row: &Row| Ok((u64::try_from(row.int(0)?)?, row.bytes(1)?));
            for (id, data) in self.db.fetch("slice_part", sql, &ids, read).await? {
                let Some(merging) = owners.get(&id).and_then(|index| whole.get_mut(*index)) else {
                    continue;
                };
                merging.add(data).map_err(|reason| StoreError::Corrupt {
                    table: "slice_part",
                    row: id.to_string(),
                    reason,
                })?;
            }
        }
        let rows: Vec<_> = batch
            .iter()
            .zip(whole)
            .map(|(group, whole)| {
                let (data, numbers) = whole.encoded(&group.label);
                raw_row(run, 1, group.second, &group.label, &data, &numbers)
            })
            .collect();
        transaction!(self.db, |tx| {
            tx.insert_many("slice_part", &PART_COLUMNS, &rows, "").await
        })
    }

    async fn delete_generation(&self, run: RunId, generation: u32) -> Result<()> {
        while !self.delete_parts(run, generation).await? {}
        Ok(())
    }

    /// Removes some parts of a run, of whatever generation; true: none is left.
    pub(super) async fn delete_some(&self, run: RunId) -> Result<bool> {
        Ok(self.delete_parts(run, 0).await? && self.delete_parts(run, 1).await?)
    }

    /// Removes the oldest parts of a generation; true: none is left.
    async fn delete_parts(&self, run: RunId, generation: u32) -> Result<bool> {
        // Two statements, because SQLite knows no DELETE … LIMIT, and a DELETE by a subquery has MariaDB read the whole table.
        let sql = format!(
            "SELECT id FROM slice_part{} WHERE run = ? AND generation = ? ORDER BY run, generation, id LIMIT ?",
            self.db.by_run()
        );
        let values = values![run.0, generation, DELETE_AT_ONCE];
        let ids = self.db.fetch("slice_part", sql, &values, |row| row.int(0)).await?;
        if let Some(last) = ids.last() {
            let sql = "DELETE FROM slice_part WHERE run = ? AND generation = ? AND id <= ?";
            self.db.execute(sql, &values![run.0, generation, *last]).await?;
        }
        Ok(ids.len() < DELETE_AT_ONCE as usize)
    }
}

/// The parts that become one.
struct Group {
    second: u32,
    label: Label,
    ids: Vec<u64>,
}

/// Splits groups into runs of about [`PARTS_AT_ONCE`] parts.
fn batches(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut batches = vec![Vec::new()];
    let mut parts = 0;
    for group in groups {
        parts += group.ids.len();
        batches.last_mut().expect("there is always a batch").push(group);
        if parts >= PARTS_AT_ONCE {
            batches.push(Vec::new());
            parts = 0;
        }
    }
    batches
}

/// One part alone is copied as it is, readable or not.
enum Merging {
    Nothing,
    One(Vec<u8>),
    Many(Box<Stats>),
}

impl Merging {
    fn add(&mut self, data: Vec<u8>) -> Result<(), String> {
        let decode = |data: &[u8]| Stats::decode(data).map_err(|error| chain(&error));
        match self {
            Self::Nothing => *self = Self::One(data),
            Self::One(first) => {
                let mut whole = Box::new(decode(first)?);
                whole.merge(&decode(&data)?);
                *self = Self::Many(whole);
            }
            Self::Many(whole) => whole.merge(&decode(&data)?),
        }
        Ok(())
    }

    /// The bytes, and what dashboards read of a second that is whole now.
    fn encoded(self, label: &Label) -> (Vec<u8>, Numbers) {
        match self {
            Self::Nothing => (Vec::new(), Numbers::default()),
            Self::One(data) => {
                let whole = Some(&data).filter(|_| matches!(label, Label::Series(_)));
                let stats = whole.and_then(|data| Stats::decode(data).ok());
                let numbers = stats.map_or_else(Numbers::default, |stats| Numbers::whole(&stats));
                (data, numbers)
            }
            Self::Many(whole) => (whole.encode(), Numbers::whole(&whole)),
        }
    }
}
