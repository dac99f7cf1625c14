//! What results must do.

use super::{Place, contract};
use muster::store::rows::{Appended, Flush, PartOf, SessionRow, SlicePart};
use muster::store::{Results, StoreError};
use muster_core::measure::histogram::{Histogram, Precision};
use muster_core::measure::slice::{SeriesKey, Stats};
use muster_core::model::id::{RunId, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

contract!(
    s48_parts_read_back_in_the_order_stored,
    s48_ten_thousand_parts_page_by_cursor,
    s49_a_flush_that_starts_elsewhere_stores_nothing,
    s49_of_two_writers_at_one_watermark_exactly_one_stores,
    s49_writers_of_different_sessions_all_store_and_a_reader_misses_nothing,
    s49_an_append_that_was_cut_off_is_resolved_by_sending_it_again,
    s50_ends_and_dropped_ranges_read_back,
    s50_a_sealed_run_takes_nothing_more_and_counts_what_is_late_once,
    s50_seal_and_appends_at_the_same_time_lose_nothing_that_was_answered,
    s50_compaction_leaves_one_part_per_second_and_series,
    s50_a_compaction_that_was_cut_off_starts_anew,
    s50_a_part_that_cannot_be_read_keeps_all_parts,
);

pub type Store = Arc<dyn Results>;

pub fn session() -> SessionId {
    SessionId(Uuid::now_v7())
}

pub fn series(name: &str) -> PartOf {
    PartOf::Series(SeriesKey {
        phase: "main".to_owned(),
        scenario: "browse".to_owned(),
        name: name.to_owned(),
    })
}

pub fn part(second: u32, what: PartOf, data: impl Into<Vec<u8>>) -> SlicePart {
    SlicePart {
        second,
        what,
        data: data.into(),
    }
}

pub fn flush(run: RunId, session: SessionId, from: u64, to: u64, parts: Vec<SlicePart>) -> Flush {
    Flush {
        run,
        parts,
        watermarks: BTreeMap::from([(session, (from, to))]),
        ends: BTreeMap::new(),
    }
}

pub fn session_row(run: RunId, session: SessionId, worker: u32) -> SessionRow {
    SessionRow {
        run,
        session,
        worker,
        watermark: 0,
        end: None,
        dropped: Vec::new(),
    }
}

/// A run with some sessions, opened twice as after a lost answer.
pub async fn opened(results: &Store, sessions: &[SessionId]) -> RunId {
    let run = RunId(Uuid::now_v7());
    for _ in 0..2 {
        results.open_run(run).await.unwrap();
        for (worker, session) in (0..).zip(sessions) {
            results.open_session(&session_row(run, *session, worker)).await.unwrap();
        }
    }
    run
}

/// Every part, read in pages.
async fn all(results: &Store, run: RunId, page: u32) -> Vec<(u64, SlicePart)> {
    let mut seen: Vec<(u64, SlicePart)> = Vec::new();
    loop {
        let after = seen.last().map_or(0, |(cursor, _)| *cursor);
        let parts = results.parts(run, after, page).await.unwrap();
        if parts.is_empty() {
            return seen;
        }
        let rows: BTreeSet<u64> = parts.iter().map(|(cursor, _)| *cursor).collect();
        assert!(rows.len() <= page as usize);
        seen.extend(parts);
    }
}

pub async fn contents(results: &Store, run: RunId) -> Vec<SlicePart> {
    all(results, run, 1_000)
        .await
        .into_iter()
        .map(|(_, part)| part)
        .collect()
}

async fn s48_parts_read_back_in_the_order_stored(place: Place) {
    let results = place.stores.results;
    let (mine, others) = (session(), session());
    let run = opened(&results, &[mine]).await;
    let other = opened(&results, &[others]).await;
    let first = vec![
        part(1, series("GET /größe 負荷 🦀"), vec![0, 255, 0]),
        part(1, series("Home"), b"a".to_vec()),
        part(1, series("home"), b"b".to_vec()),
        part(1, series(""), Vec::new()),
        part(1, PartOf::Worker(7), b"w".to_vec()),
        part(u32::MAX, PartOf::Worker(u32::MAX), vec![9; 1 << 20]),
    ];
    let second = vec![part(0, series("Home"), b"c".to_vec())];
    assert_eq!(
        results.append(&flush(run, mine, 0, 2, first.clone())).await.unwrap(),
        Appended::Stored
    );
    let not_mine = vec![part(5, series("Home"), b"x".to_vec())];
    assert_eq!(
        results.append(&flush(other, others, 0, 1, not_mine)).await.unwrap(),
        Appended::Stored
    );
    assert_eq!(
        results.append(&flush(run, mine, 2, 3, second.clone())).await.unwrap(),
        Appended::Stored
    );
    let expected: Vec<_> = first.into_iter().chain(second).collect();
    assert_eq!(contents(&results, run).await, expected);
    assert_eq!(contents(&results, other).await.len(), 1);
    assert_eq!(contents(&results, RunId(Uuid::now_v7())).await, []);
    assert_eq!(results.sessions(run).await.unwrap()[0].watermark, 3);
}

async fn s48_ten_thousand_parts_page_by_cursor(place: Place) {
    let results = place.stores.results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    // 2,000 bytes each, so that one INSERT cannot take them all.
    let parts: Vec<_> = (0..10_000_u32)
        .map(|index| {
            part(
                index / 20,
                series(&format!("r{}", index % 20)),
                index.to_le_bytes().repeat(500),
            )
        })
        .collect();
    let whole = flush(run, mine, 0, 500, parts.clone());
    assert_eq!(results.append(&whole).await.unwrap(), Appended::Stored);
    for page in [777, 10_000, 20_000] {
        let seen = all(&results, run, page).await;
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(
            seen.into_iter().map(|(_, part)| part).eq(parts.iter().cloned()),
            "page of {page}"
        );
    }
}

async fn s49_a_flush_that_starts_elsewhere_stores_nothing(place: Place) {
    let results = place.stores.results;
    let (mine, other) = (session(), session());
    let run = opened(&results, &[mine, other]).await;
    let parts = vec![part(1, series("Home"), b"a".to_vec())];
    let first = flush(run, mine, 0, 3, parts.clone());
    assert_eq!(results.append(&first).await.unwrap(), Appended::Stored);
    let mut one_of_two = flush(run, other, 0, 4, parts.clone());
    one_of_two.watermarks.insert(mine, (2, 4));
    let mut end_of_unknown = flush(run, mine, 3, 4, parts.clone());
    end_of_unknown.ends.insert(session(), (4, Vec::new()));
    for moved in [
        first,
        one_of_two,
        end_of_unknown,
        flush(run, mine, 4, 5, parts.clone()),
        flush(run, session(), 0, 1, parts.clone()),
        flush(RunId(Uuid::now_v7()), mine, 0, 1, parts.clone()),
    ] {
        assert_eq!(results.append(&moved).await.unwrap(), Appended::Moved, "{moved:?}");
    }
    assert_eq!(contents(&results, run).await, parts);
    let stand: Vec<_> = results
        .sessions(run)
        .await
        .unwrap()
        .iter()
        .map(|row| row.watermark)
        .collect();
    assert_eq!(stand, [3, 0]);
}

async fn s49_of_two_writers_at_one_watermark_exactly_one_stores(place: Place) {
    let results = place.stores.results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    for round in 0..10 {
        let tasks: Vec<_> = (0..4)
            .map(|writer| {
                let results = results.clone();
                let parts = vec![part(round, series("Home"), vec![writer]); 3];
                let flush = flush(run, mine, u64::from(round), u64::from(round) + 1, parts);
                tokio::spawn(async move { results.append(&flush).await.unwrap() })
            })
            .collect();
        let mut stored = 0;
        for task in tasks {
            match task.await.unwrap() {
                Appended::Stored => stored += 1,
                other => assert_eq!(other, Appended::Moved),
            }
        }
        assert_eq!(stored, 1, "round {round}");
    }
    assert_eq!(contents(&results, run).await.len(), 30);
}

async fn s49_writers_of_different_sessions_all_store_and_a_reader_misses_nothing(place: Place) {
    const WRITERS: u8 = 6;
    const FLUSHES: u64 = 15;
    let results = place.stores.results;
    let sessions: Vec<_> = (0..WRITERS).map(|_| session()).collect();
    let run = opened(&results, &sessions).await;
    let tasks: Vec<_> = (0..WRITERS)
        .zip(sessions)
        .map(|(writer, session)| {
            let results = results.clone();
            tokio::spawn(async move {
                for from in 0..FLUSHES {
                    let parts = (0..5)
                        .map(|name| part(from as u32, series(&name.to_string()), vec![writer]))
                        .collect();
                    let flush = flush(run, session, from, from + 1, parts);
                    assert_eq!(results.append(&flush).await.unwrap(), Appended::Stored);
                }
            })
        })
        .collect();
    // Reads along while they write: what a cursor has passed must not appear later.
    let mut seen = Vec::new();
    let mut cursor = 0;
    let expected = usize::from(WRITERS) * FLUSHES as usize * 5;
    tokio::time::timeout(Duration::from_secs(60), async {
        while seen.len() < expected {
            let parts = results.parts(run, cursor, 7).await.unwrap();
            cursor = parts.last().map_or(cursor, |(last, _)| *last);
            seen.extend(parts);
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the reader sees every part");
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(all(&results, run, 100).await, seen);
}

async fn s49_an_append_that_was_cut_off_is_resolved_by_sending_it_again(place: Place) {
    let results = place.stores.results;
    let sessions: Vec<_> = (0..20).map(|_| session()).collect();
    let run = opened(&results, &sessions).await;
    for round in 0..24 {
        let parts = (0..60)
            .map(|second| part(second, series("Home"), vec![7; 100]))
            .collect();
        let flush = Flush {
            run,
            parts,
            watermarks: sessions.iter().map(|session| (*session, (round, round + 1))).collect(),
            ends: BTreeMap::new(),
        };
        let cut = tokio::time::timeout(Duration::from_micros(round * 400), results.append(&flush)).await;
        let again = results.append(&flush).await.unwrap();
        assert!(
            again == Appended::Moved || cut.is_err() && again == Appended::Stored,
            "{cut:?} {again:?}"
        );
        assert!(
            results
                .sessions(run)
                .await
                .unwrap()
                .iter()
                .all(|row| row.watermark == round + 1)
        );
        assert_eq!(contents(&results, run).await.len() as u64, (round + 1) * 60);
    }
}

async fn s50_ends_and_dropped_ranges_read_back(place: Place) {
    let results = place.stores.results;
    let (first, second) = (session(), session());
    let run = opened(&results, &[first, second]).await;
    let dropped = vec![(3, 4), (9, 9)];
    let mut last = flush(run, first, 0, 10, Vec::new());
    last.ends.insert(first, (12, dropped.clone()));
    // An End travels apart from frames as well.
    last.ends.insert(second, (0, Vec::new()));
    assert_eq!(results.append(&last).await.unwrap(), Appended::Stored);
    let row = |session, worker, watermark, end, dropped| SessionRow {
        run,
        session,
        worker,
        watermark,
        end,
        dropped,
    };
    let expected = [
        row(first, 0, 10, Some(12), dropped),
        row(second, 1, 0, Some(0), Vec::new()),
    ];
    assert_eq!(results.sessions(run).await.unwrap(), expected);
    // Opening it again, as a daemon that adopts does, changes nothing.
    results.open_session(&row(first, 0, 0, None, Vec::new())).await.unwrap();
    assert_eq!(results.sessions(run).await.unwrap(), expected);
}

async fn s50_a_sealed_run_takes_nothing_more_and_counts_what_is_late_once(place: Place) {
    let results = place.stores.results;
    let (first, second) = (session(), session());
    let run = opened(&results, &[first, second]).await;
    let parts = vec![part(1, series("Home"), b"a".to_vec())];
    results.append(&flush(run, first, 0, 5, parts.clone())).await.unwrap();
    assert!(!results.is_sealed(run).await.unwrap());
    assert_eq!(results.seal(run).await.unwrap(), 0);
    assert!(results.is_sealed(run).await.unwrap());
    for late in [
        flush(run, first, 5, 7, parts.clone()),
        flush(run, first, 5, 7, parts.clone()),
        flush(run, first, 7, 8, parts.clone()),
        flush(run, second, 0, 2, parts.clone()),
        flush(run, session(), 0, 9, parts.clone()),
    ] {
        assert_eq!(results.append(&late).await.unwrap(), Appended::Late);
    }
    assert_eq!(results.seal(run).await.unwrap(), 3 + 2);
    assert_eq!(contents(&results, run).await, parts);
    let stand: Vec<_> = results
        .sessions(run)
        .await
        .unwrap()
        .iter()
        .map(|row| row.watermark)
        .collect();
    assert_eq!(stand, [5, 0]);

    // A run that ended before its results were opened.
    let early = RunId(Uuid::now_v7());
    assert!(!results.is_sealed(early).await.unwrap());
    assert_eq!(results.seal(early).await.unwrap(), 0);
    assert!(results.is_sealed(early).await.unwrap());
}

async fn s50_seal_and_appends_at_the_same_time_lose_nothing_that_was_answered(place: Place) {
    let results = place.stores.results;
    let sessions = [session(), session(), session()];
    let run = opened(&results, &sessions).await;
    let tasks = sessions.map(|session| {
        let results = results.clone();
        tokio::spawn(async move {
            let mut stored = 0;
            for from in 0.. {
                let parts = vec![part(from as u32, series("Home"), b"a".to_vec())];
                match results
                    .append(&flush(run, session, from, from + 1, parts))
                    .await
                    .unwrap()
                {
                    Appended::Stored => stored += 1,
                    other => {
                        assert_eq!(other, Appended::Late);
                        return stored;
                    }
                }
            }
            unreachable!("the seal ends every writer")
        })
    });
    while results.parts(run, 0, 10).await.unwrap().len() < 10 {
        tokio::task::yield_now().await;
    }
    results.seal(run).await.unwrap();
    let sealed = contents(&results, run).await.len();
    let mut stored = 0;
    for task in tasks {
        stored += task.await.unwrap();
    }
    assert_eq!(stored, sealed);
    assert_eq!(contents(&results, run).await.len(), sealed);
    assert_eq!(results.seal(run).await.unwrap(), 3);
}

fn stats(value_ns: u64) -> Stats {
    let mut duration = Histogram::new(Precision::Fine);
    duration.record(value_ns);
    let mut stats = Stats {
        requests: 1,
        data_received: value_ns,
        duration: Some(duration),
        ..Stats::default()
    };
    stats.add_status(200, 1);
    stats
}

/// 40 seconds of three workers flushed apart; gives what each (second, series) must be in the end.
async fn filled(results: &Store) -> (RunId, BTreeMap<(u32, PartOf), Stats>) {
    let sessions = [session(), session(), session()];
    let run = opened(results, &sessions).await;
    let mut expected: BTreeMap<(u32, PartOf), Stats> = BTreeMap::new();
    for (worker, session) in (0_u32..).zip(sessions) {
        let mut parts = Vec::new();
        for second in 0..40 {
            for name in ["Home", "home", ""] {
                let stats = stats(u64::from(1 + worker * 1_000 + second) * 1_000);
                parts.push(part(second, series(name), stats.encode()));
                expected.entry((second, series(name))).or_default().merge(&stats);
            }
            parts.push(part(second, PartOf::Worker(worker), vec![worker as u8]));
        }
        assert_eq!(
            results.append(&flush(run, session, 0, 40, parts)).await.unwrap(),
            Appended::Stored
        );
    }
    (run, expected)
}

/// Checks that a run holds exactly one part per (second, series), each what it must be, and every worker's own.
async fn assert_compact(results: &Store, run: RunId, expected: &BTreeMap<(u32, PartOf), Stats>) {
    let parts = contents(results, run).await;
    let (workers, series): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .partition(|part| matches!(part.what, PartOf::Worker(_)));
    assert_eq!(workers.len(), 3 * 40);
    assert_eq!(series.len(), expected.len());
    for part in series {
        let whole = Stats::decode(&part.data).unwrap();
        assert_eq!(
            Some(&whole),
            expected.get(&(part.second, part.what.clone())),
            "{} {:?}",
            part.second,
            part.what
        );
    }
}

async fn s50_compaction_leaves_one_part_per_second_and_series(place: Place) {
    let results = place.stores.results;
    let (run, expected) = filled(&results).await;
    let (bystander, _) = filled(&results).await;
    assert!(matches!(results.compact(run).await, Err(StoreError::Refused(_))));
    let cursor = results.parts(run, 0, 100).await.unwrap().last().unwrap().0;
    results.seal(run).await.unwrap();
    // The seal alone keeps cursors; compaction does not, and says so.
    assert!(!results.parts(run, cursor, 100).await.unwrap().is_empty());
    results.compact(run).await.unwrap();
    assert!(matches!(
        results.parts(run, cursor, 100).await,
        Err(StoreError::Conflict(_))
    ));
    assert_compact(&results, run, &expected).await;
    results.compact(run).await.unwrap();
    assert_compact(&results, run, &expected).await;
    assert_eq!(contents(&results, bystander).await.len(), 3 * 40 * 4);

    let empty = opened(&results, &[]).await;
    results.seal(empty).await.unwrap();
    results.compact(empty).await.unwrap();
    assert_eq!(contents(&results, empty).await, []);
}

async fn s50_a_compaction_that_was_cut_off_starts_anew(place: Place) {
    let results = place.stores.results;
    let (run, expected) = filled(&results).await;
    results.seal(run).await.unwrap();
    for limit_us in [1, 500, 2_000, 5_000, 10_000, 20_000, 50_000] {
        let cut = tokio::time::timeout(Duration::from_micros(limit_us), results.compact(run)).await;
        // Readers see the whole old or the whole new at any time.
        let parts = contents(&results, run).await.len();
        assert!(
            parts == 3 * 40 * 4 || parts == 3 * 40 * 2,
            "{parts} parts after {limit_us} µs"
        );
        if cut.is_ok() {
            break;
        }
    }
    results.compact(run).await.unwrap();
    assert_compact(&results, run, &expected).await;
}

async fn s50_a_part_that_cannot_be_read_keeps_all_parts(place: Place) {
    let results = place.stores.results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    let parts = vec![
        part(1, series("Home"), stats(1_000).encode()),
        part(1, series("Home"), b"?".to_vec()),
    ];
    results.append(&flush(run, mine, 0, 1, parts.clone())).await.unwrap();
    results.seal(run).await.unwrap();
    let error = results.compact(run).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Corrupt {
                table: "slice_part",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(contents(&results, run).await, parts);
}
