//! Rows as read from the database, turned into types.

use super::part::Label;
use super::rows::{ChangesetRow, EventRow, HookRow, Overlay, ProjectRow, RunRow, RunWorkerRow, SessionRow, SlotRow};
use super::value::{Row, Unreadable};
use jiff::Timestamp;
use muster_core::measure::slice::SeriesKey;
use muster_core::model::id::{Digest, Name, Revision, RunId, SessionId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::observed::InventoryRow;
use muster_core::model::run::{Event, RunIdentity};
use serde::de::DeserializeOwned;
use uuid::Uuid;

type Read<T> = Result<T, Unreadable>;

/// The columns of [`run`], in its order.
pub(super) const RUN_COLUMNS: &str = "id, plan, project, revision, digest, triggered_by, created_at, tag, stage, ending, state, pinned, \
     deadline, started_at, finished_at, retention_s, version";

fn instant(row: &Row, index: usize) -> Read<Timestamp> {
    Ok(Timestamp::from_microsecond(row.int(index)?)?)
}

fn instant_or_null(row: &Row, index: usize) -> Read<Option<Timestamp>> {
    let found = row.int_or_null(index)?;
    Ok(found.map(Timestamp::from_microsecond).transpose()?)
}

fn json<T: DeserializeOwned>(row: &Row, index: usize) -> Read<T> {
    Ok(serde_json::from_str(&row.text(index)?)?)
}

fn id(row: &Row, index: usize) -> Read<Uuid> {
    Ok(Uuid::from_slice(&row.bytes(index)?)?)
}

fn number<T: TryFrom<i64, Error = std::num::TryFromIntError>>(row: &Row, index: usize) -> Read<T> {
    Ok(T::try_from(row.int(index)?)?)
}

fn key(row: &Row, index: usize) -> Read<Key> {
    Ok(row.text(index)?.parse()?)
}

pub(super) fn project(row: &Row) -> Read<ProjectRow> {
    Ok(ProjectRow {
        project: Name::new(row.text(0)?)?,
        observed_revision: Revision::new(row.text(1)?)?,
        good_revision: row.text_or_null(2)?.map(Revision::new).transpose()?,
        resources: json(row, 3)?,
        diagnostics: json(row, 4)?,
        high_water: number(row, 5)?,
        at: instant(row, 6)?,
    })
}

pub(super) fn keyed_document<T: DeserializeOwned>(row: &Row) -> Read<(Key, T)> {
    Ok((key(row, 0)?, json(row, 1)?))
}

pub(super) fn inventory(row: &Row) -> Read<InventoryRow> {
    Ok(InventoryRow {
        unit: row.text(0)?.parse()?,
        owner: key(row, 1)?,
        environment: key(row, 2)?,
        digest: Digest::try_from(row.text(3)?)?,
        revision: Revision::new(row.text(4)?)?,
        since: instant(row, 5)?,
    })
}

pub(super) fn changeset(row: &Row) -> Read<ChangesetRow> {
    Ok(ChangesetRow {
        id: number(row, 0)?,
        revision: Revision::new(row.text(1)?)?,
        at: instant(row, 2)?,
        changeset: json(row, 3)?,
        outcome: json(row, 4)?,
    })
}

pub(super) fn overlay(row: &Row) -> Read<Overlay> {
    Ok(Overlay {
        plan: key(row, 0)?,
        reason: row.text(1)?,
        who: row.text(2)?,
        since: instant(row, 3)?,
        until: instant_or_null(row, 4)?,
    })
}

pub(super) fn event(row: &Row) -> Read<EventRow> {
    Ok(EventRow {
        sequence: number(row, 0)?,
        event: Event {
            at: instant(row, 1)?,
            project: row.text_or_null(2)?.map(Name::new).transpose()?,
            about: row.text(3)?,
            severity: json(row, 4)?,
            reason: row.text(5)?,
            message: row.text(6)?,
        },
    })
}

pub(super) fn slot(row: &Row) -> Read<SlotRow> {
    Ok(SlotRow {
        plan: key(row, 0)?,
        slot: instant(row, 1)?,
        outcome: row.text(3)?.parse()?,
        detail: row.text(4)?,
        run: row
            .bytes_or_null(5)?
            .map(|id| Uuid::from_slice(&id).map(RunId))
            .transpose()?,
        load_at: instant_or_null(row, 6)?,
        decided_at: instant(row, 7)?,
    })
}

pub(super) fn run(row: &Row) -> Read<RunRow> {
    Ok(RunRow {
        identity: RunIdentity {
            id: RunId(id(row, 0)?),
            plan: key(row, 1)?,
            revision: Revision::new(row.text(3)?)?,
            digest: Digest::try_from(row.text(4)?)?,
            trigger: json(row, 5)?,
            created_at: instant(row, 6)?,
        },
        tag: row.text_or_null(7)?,
        stage: row.text(8)?,
        ending: row.text_or_null(9)?,
        state: json(row, 10)?,
        pinned: json(row, 11)?,
        deadline: instant_or_null(row, 12)?,
        started_at: instant_or_null(row, 13)?,
        finished_at: instant_or_null(row, 14)?,
        retention_s: row.int_or_null(15)?.map(u64::try_from).transpose()?,
        version: number(row, 16)?,
    })
}

pub(super) fn run_worker(row: &Row) -> Read<RunWorkerRow> {
    Ok(RunWorkerRow {
        run: RunId(id(row, 0)?),
        worker: WorkerId(id(row, 1)?),
        index: number(row, 2)?,
        session: SessionId(id(row, 3)?),
        detail: json(row, 4)?,
    })
}

pub(super) fn hook(row: &Row) -> Read<HookRow> {
    Ok(HookRow {
        run: RunId(id(row, 0)?),
        name: row.text(1)?,
        started_at: instant(row, 2)?,
        finished_at: instant_or_null(row, 3)?,
        succeeded: row.int_or_null(4)?.map(|found| found != 0),
        message: row.text(5)?,
    })
}

/// Columns: run, session, worker, watermark, last_sequence, dropped.
pub(super) fn session(row: &Row) -> Read<SessionRow> {
    Ok(SessionRow {
        run: RunId(id(row, 0)?),
        session: SessionId(id(row, 1)?),
        worker: number(row, 2)?,
        watermark: number(row, 3)?,
        end: row.int_or_null(4)?.map(u64::try_from).transpose()?,
        dropped: json(row, 5)?,
    })
}

/// Columns: id, second, worker, phase, scenario, name.
pub(super) fn part_label(row: &Row) -> Read<(u64, u32, Label)> {
    let label = match row.int_or_null(2)? {
        Some(worker) => Label::Worker(worker),
        None => Label::Series(SeriesKey {
            phase: row.text(3)?,
            scenario: row.text(4)?,
            name: row.text(5)?,
        }),
    };
    Ok((number(row, 0)?, number(row, 1)?, label))
}
