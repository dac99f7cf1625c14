//! Windows against a table and against every minute.

use super::{at, schedule};
use crate::base::units::parse_duration;
use crate::model::cron::Cron;
use crate::model::schedule::{Schedule, Window, WindowKind, Zone};
use crate::schedule::fires::between;
use crate::schedule::window::{check, first_fit, free};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::time::Duration;

fn window(kind: WindowKind, cron: &str, duration: &str, reason: &str) -> Window {
    Window {
        kind,
        schedule: schedule(cron, "Asia/Shanghai"),
        duration: parse_duration(duration).expect("a duration"),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
    }
}

fn verdict(windows: &[Window], start: &str, duration: &str) -> String {
    match check(windows, at(start), parse_duration(duration).expect("a duration")) {
        Ok(()) => "fits".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

/// The plan format's own example: nights, but for the Double 11 freeze.
#[test]
fn the_whole_run_must_fit_and_deny_beats_allow() {
    let nights = window(WindowKind::Allow, "0 1 * * *", "5h", "");
    let freeze = window(WindowKind::Deny, "0 0 1 11 *", "12d", "Double 11 freeze");
    let both = [nights.clone(), freeze.clone()];
    for (start, duration, expected) in [
        ("2026-12-05T02:30:00+08:00", "45m", "fits"),
        ("2026-12-05T01:00:00+08:00", "5h", "fits"),
        (
            "2026-12-05T01:00:00+08:00",
            "5h1ms",
            "the run lasts 5h1ms, and the Allow window `0 1 * * *` ends at 2026-12-05T06:00:00+08:00",
        ),
        (
            "2026-12-05T05:30:00+08:00",
            "45m",
            "the run lasts 45m, and the Allow window `0 1 * * *` ends at 2026-12-05T06:00:00+08:00",
        ),
        (
            "2026-12-05T00:59:59+08:00",
            "45m",
            "no Allow window is open at 2026-12-04T16:59:59Z",
        ),
        (
            "2026-12-05T06:00:00+08:00",
            "45m",
            "no Allow window is open at 2026-12-04T22:00:00Z",
        ),
        (
            "2026-11-07T02:30:00+08:00",
            "45m",
            "the Deny window `0 0 1 11 *` (Double 11 freeze) is closed from 2026-11-01T00:00:00+08:00 to 2026-11-13T00:00:00+08:00",
        ),
        ("2026-11-13T01:00:00+08:00", "45m", "fits"),
    ] {
        assert_eq!(verdict(&both, start, duration), expected, "{start} {duration}");
    }
    // What only touches a closed window is free, to the nanosecond.
    let only = [freeze];
    assert_eq!(verdict(&only, "2026-10-31T23:00:00+08:00", "1h"), "fits");
    assert!(verdict(&only, "2026-10-31T23:00:00.000000001+08:00", "1h").starts_with("the Deny"));
    assert!(verdict(&only, "2026-11-12T23:59:59.999999999+08:00", "1h").starts_with("the Deny"));
    assert_eq!(verdict(&only, "2026-11-13T00:00:00+08:00", "1h"), "fits");
    // No window, and a run that lasts no time.
    assert_eq!(verdict(&[], "2026-11-13T00:00:00+08:00", "1h"), "fits");
    assert!(verdict(&only, "2026-11-01T00:00:00+08:00", "0s").starts_with("the Deny"));
    assert!(verdict(&[nights], "2026-12-05T06:00:00+08:00", "0s").starts_with("no Allow"));
}

#[test]
fn windows_that_touch_are_one() {
    let halves = [
        window(WindowKind::Allow, "0 1 * * *", "2h", "early"),
        window(WindowKind::Allow, "0 3 * * *", "2h", "late"),
    ];
    assert_eq!(verdict(&halves, "2026-12-05T01:00:00+08:00", "4h"), "fits");
    assert_eq!(
        verdict(&halves, "2026-12-05T01:30:00+08:00", "4h"),
        "the run lasts 4h, and the Allow window `0 3 * * *` (late) ends at 2026-12-05T05:00:00+08:00"
    );
    let always = [window(WindowKind::Allow, "* * * * *", "1m", "")];
    assert_eq!(verdict(&always, "2026-12-05T01:30:30+08:00", "3h"), "fits");
    let hours = [window(WindowKind::Allow, "* * * * *", "90m", "")];
    assert_eq!(verdict(&hours, "2026-12-05T01:30:30+08:00", "3h"), "fits");
}

/// A window's length is elapsed time: the night that clocks go back it ends an hour earlier on the wall.
#[test]
fn a_window_lasts_as_long_when_clocks_change() {
    let berlin = Window {
        schedule: schedule("0 1 * * *", "Europe/Berlin"),
        ..window(WindowKind::Allow, "0 1 * * *", "3h", "")
    };
    let ends = |start: &str, duration: &str| verdict(std::slice::from_ref(&berlin), start, duration);
    assert_eq!(ends("2026-10-25T01:00:00+02:00", "3h"), "fits");
    assert!(ends("2026-10-25T01:00:00+02:00", "3h1s").ends_with("ends at 2026-10-25T03:00:00+01:00"));
    assert!(ends("2026-03-29T01:00:00+01:00", "3h1s").ends_with("ends at 2026-03-29T05:00:00+02:00"));
}

#[test]
fn s31_a_window_that_never_fits_the_run_is_found() {
    let hour = Duration::from_secs(3_600);
    let monthly = schedule("30 2 * * 6#1", "Asia/Shanghai");
    let nights = window(WindowKind::Allow, "0 1 * * *", "5h", "");
    let now = at("2026-11-21T00:00:00Z");
    let fits = |windows: &[Window], duration| first_fit(Some(&monthly), windows, now, duration);
    assert_eq!(fits(&[], hour), Ok(at("2026-12-05T02:30:00+08:00")));
    assert_eq!(
        fits(std::slice::from_ref(&nights), hour),
        Ok(at("2026-12-05T02:30:00+08:00"))
    );
    // December is closed.
    let december = window(WindowKind::Deny, "0 0 1 12 *", "31d", "year end");
    assert_eq!(
        fits(&[nights.clone(), december], hour),
        Ok(at("2027-01-02T02:30:00+08:00"))
    );
    // Longer than what is left of the night, each time.
    let error = fits(std::slice::from_ref(&nights), hour * 4).expect_err("it never fits");
    assert_eq!(
        error.to_string(),
        "no start before 2034-11-27T00:00:00Z fits the windows: the run lasts 4h, and the Allow window `0 1 * * *` ends at 2026-12-05T06:00:00+08:00"
    );
    // Without a schedule, some start fits.
    assert_eq!(
        first_fit(None, std::slice::from_ref(&nights), now, hour * 4),
        Ok(at("2026-11-22T01:00:00+08:00"))
    );
    assert_eq!(first_fit(None, &[], now, hour), Ok(now));
    assert!(first_fit(None, &[nights], now, hour * 6).is_err());
    // Only leap days are open.
    let leap = window(WindowKind::Allow, "0 0 29 2 *", "1d", "");
    let daily = schedule("0 3 * * *", "Asia/Shanghai");
    assert_eq!(
        first_fit(Some(&daily), &[leap], now, hour),
        Ok(at("2028-02-29T03:00:00+08:00"))
    );
    // A freeze that is renewed before it ends.
    let frozen = window(WindowKind::Deny, "0 0 * * *", "1d", "frozen");
    assert!(fits(&[frozen], hour).is_err());
}

/// A run as long as its window has one instant to begin at, a longer one none.
#[test]
fn a_run_may_fill_its_window() {
    let nights = [window(WindowKind::Allow, "0 1 * * *", "5h", "")];
    let stretches = |duration| {
        let free = free(
            &nights,
            at("2026-12-05T00:00:00+08:00"),
            at("2026-12-06T00:00:00+08:00"),
            parse_duration(duration).expect("one"),
        );
        free.iter()
            .map(|stretch| (stretch.from, stretch.until))
            .collect::<Vec<_>>()
    };
    let opens = at("2026-12-05T01:00:00+08:00");
    assert_eq!(stretches("5h"), [(opens, opens)]);
    assert_eq!(stretches("5h1ms"), []);
    assert_eq!(stretches("3h"), [(opens, at("2026-12-05T03:00:00+08:00"))]);
}

fn any_window() -> impl Strategy<Value = Window> {
    let crons = prop_oneof![
        (0_u8..24).prop_map(|hour| format!("0 {hour} * * *")),
        (0_u8..60).prop_map(|minute| format!("{minute} * * * *")),
        (0_u8..24, 0_u8..7).prop_map(|(hour, day)| format!("15 {hour} * * {day}")),
        Just("*/20 * * * *".to_owned()),
        Just("* 9-17 * * *".to_owned()),
    ];
    let zones = prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe"]);
    (crons, zones, 1_u64..2_000, any::<bool>()).prop_map(|(cron, zone, minutes, allow)| Window {
        kind: if allow { WindowKind::Allow } else { WindowKind::Deny },
        schedule: Schedule {
            cron: Cron::parse(&cron).expect("a schedule"),
            zone: Zone::new(zone).expect("a zone"),
        },
        duration: Duration::from_secs(minutes * 60),
        reason: None,
    })
}

/// Whether a window is open in a minute, by all of its instants before.
fn is_open(window: &Window, minute: Timestamp) -> bool {
    let since = minute - SignedDuration::try_from(window.duration).expect("short");
    between(&window.schedule, since, minute).next().is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn windows_agree_with_every_minute(
        windows in prop::collection::vec(any_window(), 0..4),
        // Around the days on which clocks change.
        start in prop_oneof![29_850_000_i64..29_886_000, 29_574_000_i64..29_592_000],
        minutes in 1_i64..600,
    ) {
        let at_minute = |minute: i64| Timestamp::from_second(minute * 60).expect("in range");
        let duration = Duration::from_secs(minutes.unsigned_abs() * 60);
        let any_allow = windows.iter().any(|window| window.kind == WindowKind::Allow);
        let expected = (start..start + minutes).all(|minute| {
            let opens = |kind| windows.iter().any(|window| window.kind == kind && is_open(window, at_minute(minute)));
            !opens(WindowKind::Deny) && (!any_allow || opens(WindowKind::Allow))
        });
        let found = check(&windows, at_minute(start), duration);
        prop_assert_eq!(found.is_ok(), expected, "{:?}", found);
    }

    #[test]
    fn the_free_stretches_are_where_a_run_may_begin(
        windows in prop::collection::vec(any_window(), 1..4),
        start in prop_oneof![29_850_000_i64..29_886_000, 29_574_000_i64..29_592_000],
        minutes in 0_u64..600,
    ) {
        let from = Timestamp::from_second(start * 60).expect("in range");
        let until = from + SignedDuration::from_hours(60);
        let duration = Duration::from_secs(minutes * 60);
        let stretches = free(&windows, from, until, duration);
        prop_assert!(stretches.windows(2).all(|pair| pair[0].until < pair[1].from), "{:?}", stretches);
        let nanosecond = SignedDuration::from_nanos(1);
        let mut instants: Vec<Timestamp> = (0..60 * 6).map(|step| from + SignedDuration::from_mins(step * 10)).collect();
        for stretch in &stretches {
            instants.extend([stretch.from, stretch.until, stretch.from - nanosecond, stretch.until + nanosecond]);
        }
        for instant in instants.into_iter().filter(|instant| (from..=until).contains(instant)) {
            let inside = stretches.iter().any(|stretch| (stretch.from..=stretch.until).contains(&instant));
            prop_assert_eq!(check(&windows, instant, duration).is_ok(), inside, "{} {:?}", instant, stretches);
        }
    }
}
