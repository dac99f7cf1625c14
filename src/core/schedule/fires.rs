//! The instants of a schedule, across changes of clocks (promise 30).
//!
//! The calendar is croner's, on wall clocks without a zone; the zone is jiff's. What stands here is only how the two meet:
//! a wall-clock time that does not exist fires at the instant the gap ends, one that exists twice fires once, the first time;
//! a schedule with a wildcard or step in minute or hour fires whenever the wall clock matches, so it follows elapsed time.

use crate::model::schedule::Schedule;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// One instant of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fire {
    /// When.
    pub at: Timestamp,
    /// What the zone's clocks show then.
    pub local: DateTime,
    /// How far they are ahead of UTC.
    pub offset: Offset,
    /// What a change of clocks does to it.
    pub note: Option<Note>,
}

/// What a change of clocks does to an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Note {
    /// Its local time does not exist that day: it fires when the gap ends.
    Gap,
    /// Its local time comes twice that day. A schedule at a fixed time fires the first time only.
    Repeated,
}

impl Fire {
    /// The local time with its offset from UTC: `2026-03-29T03:00:00+02:00`.
    pub fn local_text(&self) -> String {
        let minutes = self.offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        format!(
            "{}{sign}{:02}:{:02}",
            self.local,
            minutes.abs() / 60,
            minutes.abs() % 60
        )
    }
}

/// The first instant after `after`. `None`: none before the year 5000.
pub fn next(schedule: &Schedule, after: Timestamp) -> Option<Fire> {
    if schedule.cron.follows_elapsed_time() {
        next_elapsed(schedule, after)
    } else {
        next_fixed(schedule, after)
    }
}

/// The instants after `after`, up to and including `until`.
pub fn between(schedule: &Schedule, after: Timestamp, until: Timestamp) -> impl Iterator<Item = Fire> + '_ {
    let mut cursor = after;
    std::iter::from_fn(move || {
        let fire = next(schedule, cursor).filter(|fire| fire.at <= until)?;
        cursor = fire.at;
        Some(fire)
    })
}

/// The last instant after `after`, up to and including `until`.
pub fn last(schedule: &Schedule, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let within = |after: Timestamp| next(schedule, after).map(|fire| fire.at).filter(|at| *at <= until);
    let mut found = within(after)?;
    // No instant lies in (beyond, until].
    let mut beyond = until;
    // Halves at most ten thousand years of seconds.
    while beyond.duration_since(found) > SignedDuration::from_secs(1) {
        let half = beyond.duration_since(found) / 2;
        let Ok(middle) = found.checked_add(half) else { break };
        match within(middle) {
            Some(later) => found = later,
            None => beyond = middle,
        }
    }
    Some(found)
}

/// The whole minute after a wall-clock time.
fn next_minute(local: DateTime) -> Option<DateTime> {
    let seconds = i64::from(local.second());
    let whole = local
        .checked_sub(seconds.seconds().nanoseconds(i64::from(local.subsec_nanosecond())))
        .ok()?;
    whole.checked_add(1.minute()).ok()
}

fn next_fixed(schedule: &Schedule, after: Timestamp) -> Option<Fire> {
    let zone = schedule.zone.time_zone();
    // Wall-clock times in order give instants in order, and those up to here give none after `after`.
    let mut from = next_minute(zone.to_datetime(after))?;
    loop {
        let wanted = schedule.cron.next_civil(from)?;
        let fire = match zone.to_ambiguous_timestamp(wanted).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(wanted, offset, None)?,
            AmbiguousOffset::Fold { before, .. } => at(wanted, before, Some(Note::Repeated))?,
            AmbiguousOffset::Gap { before, after } => {
                let begins = after.to_timestamp(wanted).ok()?;
                let ends = before.to_timestamp(wanted).ok()?;
                // The change lies between the two readings of the time that does not exist.
                let change = zone
                    .following(begins)
                    .take_while(|change| change.timestamp() <= ends)
                    .find(|change| change.offset() == after)
                    .map_or(ends, |change| change.timestamp());
                Fire {
                    at: change,
                    local: after.to_datetime(change),
                    offset: after,
                    note: Some(Note::Gap),
                }
            }
        };
        if fire.at > after {
            return Some(fire);
        }
        from = wanted.checked_add(1.minute()).ok()?;
    }
}

fn at(local: DateTime, offset: Offset, note: Option<Note>) -> Option<Fire> {
    let at = offset.to_timestamp(local).ok()?;
    Some(Fire {
        at,
        local,
        offset,
        note,
    })
}

fn next_elapsed(schedule: &Schedule, after: Timestamp) -> Option<Fire> {
    let zone = schedule.zone.time_zone();
    let mut offset = zone.to_offset(after);
    let mut from = next_minute(offset.to_datetime(after))?;
    let mut changes = zone.following(after);
    loop {
        // Between two changes the wall clock runs evenly.
        let local = schedule.cron.next_civil(from)?;
        let found = at(local, offset, None);
        let change = changes.next();
        match (found, change) {
            (Some(fire), None) => return Some(marked(schedule, fire)),
            (Some(fire), Some(change)) if fire.at < change.timestamp() => return Some(marked(schedule, fire)),
            (_, Some(change)) => {
                offset = change.offset();
                let local = offset.to_datetime(change.timestamp());
                let whole = local.second() == 0 && local.subsec_nanosecond() == 0;
                from = if whole { local } else { next_minute(local)? };
            }
            (None, None) => return None,
        }
    }
}

fn marked(schedule: &Schedule, fire: Fire) -> Fire {
    let twice = matches!(
        schedule.zone.time_zone().to_ambiguous_timestamp(fire.local).offset(),
        AmbiguousOffset::Fold { .. }
    );
    Fire {
        note: twice.then_some(Note::Repeated),
        ..fire
    }
}
