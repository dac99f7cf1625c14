//! A part as a row and back: what workers said of one second shares a row, and numbers that dashboards read stand in columns.

use super::read::part_label;
use super::rows::{PartOf, SlicePart};
use super::value::{Row, Unreadable, Value, values};
use muster_core::measure::slice::Stats;
use muster_core::model::id::RunId;

/// The columns of a part as written.
pub(super) const PART_COLUMNS: [&str; 16] = [
    "run",
    "generation",
    "second",
    "worker",
    "phase",
    "scenario",
    "name",
    "data",
    "requests",
    "failed",
    "dropped",
    "iterations",
    "p50_ns",
    "p95_ns",
    "p99_ns",
    "max_ns",
];

/// In the column of a worker's number: the row is of many workers.
const MANY: i64 = -1;
/// Most workers in one row, and about how many bytes: far below what one INSERT carries.
const WORKERS_MAX: usize = 1_024;
const BYTES_MAX: usize = 1 << 20;

/// Parts as rows, in their order. Neighbours that are of workers in the same second share a row: a thousand workers cost one.
pub(super) fn rows_of(run: RunId, parts: &[SlicePart]) -> Vec<Vec<Value>> {
    let mut rows = Vec::with_capacity(parts.len());
    let mut rest = parts;
    while let Some(first) = rest.first() {
        let together = together(rest);
        let (now, later) = rest.split_at(together);
        match together {
            1 => rows.push(row_of(run, 0, first, &Numbers::counted(first))),
            _ => rows.push(packed(run, now)),
        }
        rest = later;
    }
    rows
}

/// How many of the first parts share a row.
fn together(parts: &[SlicePart]) -> usize {
    let mut bytes = 0;
    let fits = parts.iter().take(WORKERS_MAX).take_while(|part| {
        bytes += part.data.len() + 8;
        matches!(part.what, PartOf::Worker(_)) && part.second == parts[0].second && bytes <= BYTES_MAX
    });
    fits.count().max(1)
}

/// One row of many workers: number, length and bytes of each.
fn packed(run: RunId, parts: &[SlicePart]) -> Vec<Value> {
    let mut data = Vec::new();
    for part in parts {
        if let PartOf::Worker(worker) = part.what {
            data.extend_from_slice(&worker.to_le_bytes());
            // A part is of a frame, whose bytes are far fewer than 2^32.
            data.extend_from_slice(&u32::try_from(part.data.len()).unwrap_or(u32::MAX).to_le_bytes());
            data.extend_from_slice(&part.data);
        }
    }
    raw_row(
        run,
        0,
        parts[0].second,
        &Label::Worker(MANY),
        &data,
        &Numbers::default(),
    )
}

fn unpacked(second: u32, data: &[u8]) -> Result<Vec<SlicePart>, Unreadable> {
    let cut_off = || Unreadable("parts of workers end too early".to_owned());
    let mut parts = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let (worker, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let (data, after) = after.split_at_checked(length).ok_or_else(cut_off)?;
        let what = PartOf::Worker(u32::from_le_bytes(*worker));
        let data = data.to_vec();
        parts.push(SlicePart { second, what, data });
        rest = after;
    }
    Ok(parts)
}

/// What a row is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// A series.
    Series(muster_core::measure::slice::SeriesKey),
    /// A worker's number, or [`MANY`]. Never merged.
    Worker(i64),
}

/// The parts of a row. Columns: id, second, worker, phase, scenario, name, data.
pub(super) fn parts_of(row: &Row) -> Result<Vec<(u64, SlicePart)>, Unreadable> {
    let (cursor, second, label) = part_label(row)?;
    let data = row.bytes(6)?;
    let parts = match label {
        Label::Worker(MANY) => unpacked(second, &data)?,
        Label::Worker(worker) => {
            let what = PartOf::Worker(u32::try_from(worker)?);
            vec![SlicePart { second, what, data }]
        }
        Label::Series(series) => {
            let what = PartOf::Series(series);
            vec![SlicePart { second, what, data }]
        }
    };
    Ok(parts.into_iter().map(|part| (cursor, part)).collect())
}

/// What dashboards read without decoding: counts, which add up over parts, and percentiles, which do not and are therefore only
/// there when a part is the whole of its second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    counts: Option<[u64; 4]>,
    quantiles_ns: [Option<u64>; 4],
}

impl Numbers {
    /// Counts of a part; none if it cannot be read.
    fn counted(part: &SlicePart) -> Self {
        let counts = match part.what {
            PartOf::Series(_) => Stats::decode_counters(&part.data).ok(),
            PartOf::Worker(_) => None,
        };
        Self {
            counts: counts.map(|stats| counts_of(&stats)),
            ..Self::default()
        }
    }

    /// Counts and percentiles of a whole second of a series. One that falls among dropped arrivals has no value (promise 59).
    pub(super) fn whole(stats: &Stats) -> Self {
        use muster_core::measure::histogram::Quantile;
        let quantile = |q: f64| {
            let found = stats.duration.as_ref()?.quantile_with_overflow(q, stats.overflow)?;
            match found {
                Quantile::Value(value_ns) => Some(value_ns),
                Quantile::AboveAll => None,
            }
        };
        Self {
            counts: Some(counts_of(stats)),
            quantiles_ns: [0.5, 0.95, 0.99, 1.0].map(quantile),
        }
    }
}

fn counts_of(stats: &Stats) -> [u64; 4] {
    [stats.requests, stats.failed, stats.overflow, stats.iterations]
}

fn row_of(run: RunId, generation: i64, part: &SlicePart, numbers: &Numbers) -> Vec<Value> {
    let label = match &part.what {
        PartOf::Worker(worker) => Label::Worker(i64::from(*worker)),
        PartOf::Series(series) => Label::Series(series.clone()),
    };
    raw_row(run, generation, part.second, &label, &part.data, numbers)
}

/// A row as parameters.
pub(super) fn raw_row(
    run: RunId,
    generation: i64,
    second: u32,
    label: &Label,
    data: &[u8],
    numbers: &Numbers,
) -> Vec<Value> {
    let mut row = Vec::from(values![run.0, generation, second]);
    row.extend(match label {
        Label::Worker(worker) => [(*worker).into(), Value::Null, Value::Null, Value::Null],
        Label::Series(series) => values![
            Value::Null,
            series.phase.as_str(),
            series.scenario.as_str(),
            series.name.as_str()
        ],
    });
    row.push(data.into());
    match numbers.counts {
        Some(counts) => row.extend(counts.map(Value::from)),
        None => row.extend([const { Value::Null }; 4]),
    }
    row.extend(numbers.quantiles_ns.map(Value::from));
    row
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, Numbers, WORKERS_MAX, together, unpacked};
    use crate::store::rows::{PartOf, SlicePart};
    use crate::store::value::Value;
    use muster_core::measure::histogram::{Histogram, Precision};
    use muster_core::measure::slice::Stats;
    use muster_core::model::id::RunId;
    use proptest::prelude::*;

    fn of_worker(second: u32, worker: u32, bytes: usize) -> SlicePart {
        SlicePart {
            second,
            what: PartOf::Worker(worker),
            data: vec![7; bytes],
        }
    }

    #[test]
    fn rows_of_many_workers_are_bounded() {
        let many: Vec<_> = (0..3_000).map(|worker| of_worker(1, worker, 60)).collect();
        assert_eq!(together(&many), WORKERS_MAX);
        let large: Vec<_> = (0..10).map(|worker| of_worker(1, worker, BYTES_MAX / 4)).collect();
        assert_eq!(together(&large), 3);
        assert_eq!(together(&[of_worker(1, 0, BYTES_MAX * 2)]), 1);
        assert_eq!(together(&[of_worker(1, 0, 1), of_worker(2, 0, 1)]), 1);
    }

    #[test]
    fn s59_a_percentile_among_dropped_arrivals_has_no_value() {
        let mut duration = Histogram::new(Precision::Fine);
        duration.record_many(1_000_000, 90);
        let stats = Stats {
            requests: 90,
            overflow: 10,
            duration: Some(duration),
            ..Stats::default()
        };
        let numbers = Numbers::whole(&stats);
        assert_eq!(numbers.counts, Some([90, 0, 10, 0]));
        assert!(numbers.quantiles_ns[0].is_some());
        assert_eq!(numbers.quantiles_ns[1..], [None, None, None]);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(parts in proptest::collection::vec((any::<u32>(), 0_usize..100), 2..50)) {
            let parts: Vec<_> = parts.into_iter().map(|(worker, bytes)| of_worker(3, worker, bytes)).collect();
            let rows = super::rows_of(RunId(uuid::Uuid::nil()), &parts);
            prop_assert_eq!(rows.len(), 1);
            let Value::Bytes(data) = &rows[0][7] else { panic!("bytes") };
            prop_assert_eq!(unpacked(3, data).unwrap(), parts);
        }

        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = unpacked(0, &data);
        }
    }
}
