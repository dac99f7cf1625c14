//! Instants of schedules where clocks are changed.

use super::{at, schedule};
use crate::schedule::fires::{Note, between};

/// Fires in an interval, as `local text` and note.
fn fires(cron: &str, zone: &str, after: &str, until: &str) -> Vec<(String, Option<Note>)> {
    let schedule = schedule(cron, zone);
    between(&schedule, at(after), at(until))
        .map(|fire| (fire.local_text(), fire.note))
        .collect()
}

/// A schedule at a fixed time: one fire a day, whatever the clocks do (promise 30).
#[test]
fn s30_fixed_times_fire_once_a_day_everywhere() {
    const GAP: Option<Note> = Some(Note::Gap);
    const TWICE: Option<Note> = Some(Note::Repeated);
    for (cron, zone, day, expected, note) in [
        // Both hemispheres, both ways.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-29",
            "2026-03-29T03:00:00+02:00",
            GAP,
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25",
            "2026-10-25T02:30:00+02:00",
            TWICE,
        ),
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-08",
            "2026-03-08T03:00:00-04:00",
            GAP,
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-11-01",
            "2026-11-01T01:30:00-04:00",
            TWICE,
        ),
        (
            "30 2 * * *",
            "Australia/Sydney",
            "2026-10-04",
            "2026-10-04T03:00:00+11:00",
            GAP,
        ),
        (
            "30 2 * * *",
            "Australia/Sydney",
            "2026-04-05",
            "2026-04-05T02:30:00+11:00",
            TWICE,
        ),
        (
            "30 2 * * *",
            "Pacific/Auckland",
            "2026-09-27",
            "2026-09-27T03:00:00+13:00",
            GAP,
        ),
        // The edges of gap and repeat: the first instant after, the last before.
        (
            "0 3 * * *",
            "Europe/Berlin",
            "2026-03-29",
            "2026-03-29T03:00:00+02:00",
            None,
        ),
        (
            "0 2 * * *",
            "Europe/Berlin",
            "2026-03-29",
            "2026-03-29T03:00:00+02:00",
            GAP,
        ),
        (
            "59 1 * * *",
            "Europe/Berlin",
            "2026-03-29",
            "2026-03-29T01:59:00+01:00",
            None,
        ),
        (
            "0 3 * * *",
            "Europe/Berlin",
            "2026-10-25",
            "2026-10-25T03:00:00+01:00",
            None,
        ),
        (
            "0 2 * * *",
            "Europe/Berlin",
            "2026-10-25",
            "2026-10-25T02:00:00+02:00",
            TWICE,
        ),
        (
            "59 2 * * *",
            "Europe/Berlin",
            "2026-10-25",
            "2026-10-25T02:59:00+02:00",
            TWICE,
        ),
        // Half an hour.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-04",
            "2026-10-04T02:30:00+11:00",
            GAP,
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-05",
            "2026-04-05T01:45:00+11:00",
            TWICE,
        ),
        (
            "29 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-05",
            "2026-04-05T01:29:00+11:00",
            None,
        ),
        // Clocks that change at midnight.
        (
            "30 0 * * *",
            "America/Santiago",
            "2026-09-06",
            "2026-09-06T01:00:00-03:00",
            GAP,
        ),
        (
            "30 23 * * *",
            "America/Santiago",
            "2026-04-04",
            "2026-04-04T23:30:00-03:00",
            TWICE,
        ),
        (
            "30 0 * * *",
            "Africa/Cairo",
            "2026-04-24",
            "2026-04-24T01:00:00+03:00",
            GAP,
        ),
        // Ramadan: clocks go back before it and forward after it.
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-02-15",
            "2026-02-15T02:30:00+01:00",
            TWICE,
        ),
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-03-22",
            "2026-03-22T03:00:00+01:00",
            GAP,
        ),
        // Two hours at a research station.
        (
            "30 2 * * *",
            "Antarctica/Troll",
            "2026-03-29",
            "2026-03-29T03:00:00+02:00",
            GAP,
        ),
        (
            "30 1 * * *",
            "Antarctica/Troll",
            "2026-10-25",
            "2026-10-25T01:30:00+02:00",
            TWICE,
        ),
        // Zones that leave the clocks alone, or no longer touch them.
        (
            "30 2 * * *",
            "Asia/Shanghai",
            "2026-03-29",
            "2026-03-29T02:30:00+08:00",
            None,
        ),
        (
            "30 2 * * *",
            "Asia/Kolkata",
            "2026-03-29",
            "2026-03-29T02:30:00+05:30",
            None,
        ),
        (
            "30 2 * * *",
            "Asia/Kathmandu",
            "2026-03-29",
            "2026-03-29T02:30:00+05:45",
            None,
        ),
        ("30 2 * * *", "UTC", "2026-03-29", "2026-03-29T02:30:00+00:00", None),
        // Leap days, in a leap year of each kind.
        (
            "30 2 29 2 *",
            "Asia/Shanghai",
            "2028-02-29",
            "2028-02-29T02:30:00+08:00",
            None,
        ),
        (
            "30 2 L 2 *",
            "America/New_York",
            "2100-02-28",
            "2100-02-28T02:30:00-05:00",
            None,
        ),
    ] {
        let day: jiff::civil::Date = day.parse().expect("a date");
        let found: Vec<_> = between(
            &schedule(cron, zone),
            at("2025-12-31T00:00:00Z"),
            at("2101-01-01T00:00:00Z"),
        )
        .skip_while(|fire| fire.local.date() < day)
        .take_while(|fire| fire.local.date() == day)
        .map(|fire| (fire.local_text(), fire.note))
        .collect();
        assert_eq!(found, [(expected.to_owned(), note)], "{cron} {zone} {day}");
    }
}

/// Friday, 30 December 2011 is missing in Samoa: what would have been fires when the day after begins.
#[test]
fn s30_samoas_missing_day() {
    let fires = fires(
        "30 2 * * *",
        "Pacific/Apia",
        "2011-12-28T13:00:00Z",
        "2012-01-01T00:00:00Z",
    );
    assert_eq!(
        fires,
        [
            ("2011-12-29T02:30:00-10:00".to_owned(), None),
            ("2011-12-31T00:00:00+14:00".to_owned(), Some(Note::Gap)),
            ("2011-12-31T02:30:00+14:00".to_owned(), None),
            ("2012-01-01T02:30:00+14:00".to_owned(), None),
        ]
    );
    // A date that is only there in other years' calendars.
    let yearly = self::fires(
        "0 12 30 12 *",
        "Pacific/Apia",
        "2010-12-31T12:00:00Z",
        "2013-01-01T00:00:00Z",
    );
    assert_eq!(
        yearly,
        [
            ("2011-12-31T00:00:00+14:00".to_owned(), Some(Note::Gap)),
            ("2012-12-30T12:00:00+14:00".to_owned(), None),
        ]
    );
}

/// Several times inside one gap are one instant: one slot.
#[test]
fn s30_times_that_share_a_gap_are_one_slot() {
    let fires = fires(
        "0,30 1-3 * * *",
        "Europe/Berlin",
        "2026-03-28T23:00:00Z",
        "2026-03-29T02:00:00Z",
    );
    assert_eq!(
        fires,
        [
            ("2026-03-29T01:00:00+01:00".to_owned(), None),
            ("2026-03-29T01:30:00+01:00".to_owned(), None),
            ("2026-03-29T03:00:00+02:00".to_owned(), Some(Note::Gap)),
            ("2026-03-29T03:30:00+02:00".to_owned(), None),
        ]
    );
}

/// Wildcards and steps follow elapsed time: nothing in the gap, both passes of what is repeated.
#[test]
fn s30_wildcards_and_steps_follow_elapsed_time() {
    let texts = |cron, after, until| -> Vec<String> {
        fires(cron, "Europe/Berlin", after, until)
            .into_iter()
            .map(|(text, _)| text)
            .collect()
    };
    assert_eq!(
        texts("*/30 * * * *", "2026-03-29T00:00:00Z", "2026-03-29T01:30:00Z"),
        [
            "2026-03-29T01:30:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:30:00+02:00"
        ]
    );
    assert_eq!(
        texts("30 * * * *", "2026-10-24T23:45:00Z", "2026-10-25T02:45:00Z"),
        [
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-25T03:30:00+01:00"
        ]
    );
    assert_eq!(
        texts("*/30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:10:00Z"),
        ["2026-03-30T02:00:00+02:00"],
        "hour 2 does not exist on the 29th"
    );
    assert_eq!(
        texts("0 */2 * * *", "2026-10-24T22:30:00Z", "2026-10-25T03:30:00Z"),
        [
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T04:00:00+01:00"
        ]
    );
}

#[test]
fn repeated_instants_are_marked() {
    let fires = fires(
        "*/30 * * * *",
        "Europe/Berlin",
        "2026-10-24T23:30:00Z",
        "2026-10-25T02:00:00Z",
    );
    let notes: Vec<bool> = fires.iter().map(|(_, note)| *note == Some(Note::Repeated)).collect();
    assert_eq!(notes, [true, true, true, true, false], "{fires:?}");
}
