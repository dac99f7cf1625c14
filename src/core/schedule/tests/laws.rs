//! Laws of instants, and an oracle that shares nothing with them: it walks every minute.

use super::{at, schedule};
use crate::model::cron::Cron;
use crate::schedule::fires::{between, last, next};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Zones with every kind of change: hours, half hours, midnights, double summers, missing days, none.
const ZONES: [&str; 24] = [
    "UTC",
    "Asia/Shanghai",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Gaza",
    "Asia/Beirut",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Africa/Casablanca",
    "Africa/Cairo",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Caracas",
    "Antarctica/Troll",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Pacific/Apia",
    "Pacific/Kiritimati",
];

/// One field as text and as what the oracle takes it for.
#[derive(Debug, Clone)]
struct OracleField {
    text: String,
    days: Vec<DayRule>,
    star: bool,
    elapsed: bool,
}

/// What makes a value match; `Value` also serves minutes, hours and months.
#[derive(Debug, Clone, PartialEq)]
enum DayRule {
    Value(i8),
    LastDay,
    LastWorkday,
    NearestWorkday(i8),
    NthWeekday(i8, i8),
    LastWeekday(i8),
}

fn values(min: i8, max: i8) -> impl Strategy<Value = OracleField> {
    let list = prop::collection::btree_set(min..=max, 1..4).prop_map(|set| OracleField {
        text: set.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
        days: set.into_iter().map(DayRule::Value).collect(),
        star: false,
        elapsed: false,
    });
    let range = (min..=max, min..=max, 1_i8..=7).prop_map(move |(a, b, step)| {
        let (from, to) = (a.min(b), a.max(b));
        let stepped = step > 1 && step <= to - from;
        let step = if stepped { step } else { 1 };
        OracleField {
            text: if stepped {
                format!("{from}-{to}/{step}")
            } else {
                format!("{from}-{to}")
            },
            days: (from..=to).step_by(step as usize).map(DayRule::Value).collect(),
            star: false,
            elapsed: stepped,
        }
    });
    let star = (1_i8..=5).prop_map(move |step| OracleField {
        text: if step == 1 { "*".to_owned() } else { format!("*/{step}") },
        days: (min..=max).step_by(step as usize).map(DayRule::Value).collect(),
        star: true,
        elapsed: true,
    });
    prop_oneof![3 => list, 1 => range, 2 => star]
}

fn rule(text: String, rule: DayRule) -> OracleField {
    OracleField {
        text,
        days: vec![rule],
        star: false,
        elapsed: false,
    }
}

fn any_day() -> OracleField {
    OracleField {
        text: "*".to_owned(),
        days: (0..=31).map(DayRule::Value).collect(),
        star: true,
        elapsed: false,
    }
}

fn day_of_month() -> impl Strategy<Value = OracleField> {
    prop_oneof![
        4 => Just(any_day()),
        2 => values(1, 31),
        1 => Just(rule("L".to_owned(), DayRule::LastDay)),
        1 => Just(rule("LW".to_owned(), DayRule::LastWorkday)),
        1 => (1_i8..=31).prop_map(|day| rule(format!("{day}W"), DayRule::NearestWorkday(day))),
    ]
}

fn day_of_week() -> impl Strategy<Value = OracleField> {
    prop_oneof![
        4 => Just(any_day()),
        2 => values(0, 6),
        1 => (0_i8..=7, 1_i8..=5).prop_map(|(day, nth)| rule(format!("{day}#{nth}"), DayRule::NthWeekday(day % 7, nth))),
        1 => (0_i8..=7).prop_map(|day| rule(format!("{day}L"), DayRule::LastWeekday(day % 7))),
    ]
}

fn month() -> impl Strategy<Value = OracleField> {
    prop_oneof![5 => Just(any_day()), 1 => values(1, 12)]
}

#[derive(Debug, Clone)]
struct OracleCron {
    fields: [OracleField; 5],
}

impl OracleCron {
    fn text(&self) -> String {
        self.fields
            .iter()
            .map(|field| field.text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn elapsed(&self) -> bool {
        self.fields[0].elapsed || self.fields[1].elapsed
    }

    fn matches(&self, time: DateTime) -> bool {
        let [minute, hour, day, month, weekday] = &self.fields;
        let has = |field: &OracleField, value: i8| field.days.contains(&DayRule::Value(value));
        let date = time.date();
        let by_day = day.days.iter().any(|rule| is_day(rule, date, date.day()));
        let by_weekday = weekday
            .days
            .iter()
            .any(|rule| is_day(rule, date, date.weekday().to_sunday_zero_offset()));
        let days = if day.star || weekday.star {
            by_day && by_weekday
        } else {
            by_day || by_weekday
        };
        has(minute, time.minute()) && has(hour, time.hour()) && has(month, time.month()) && days
    }
}

fn is_workday(date: Date) -> bool {
    !matches!(date.weekday().to_sunday_zero_offset(), 0 | 6)
}

fn is_day(rule: &DayRule, date: Date, value: i8) -> bool {
    match *rule {
        DayRule::Value(wanted) => wanted == value,
        DayRule::LastDay => date == date.last_of_month(),
        DayRule::LastWorkday => {
            let last = (0..3)
                .map(|back| date.last_of_month() - back.days())
                .find(|day| is_workday(*day));
            last == Some(date)
        }
        DayRule::NearestWorkday(day) => {
            let Ok(wanted) = Date::new(date.year(), date.month(), day) else {
                return false;
            };
            let near = [0, -1, 1, -2, 2].map(|by| wanted + by.days());
            near.into_iter()
                .find(|near| near.month() == wanted.month() && is_workday(*near))
                == Some(date)
        }
        DayRule::NthWeekday(weekday, nth) => {
            let before = (1..=date.day())
                .filter(|day| {
                    let other = Date::new(date.year(), date.month(), *day).expect("a day before one that is");
                    other.weekday().to_sunday_zero_offset() == weekday
                })
                .count();
            value == weekday && before == nth as usize
        }
        DayRule::LastWeekday(weekday) => value == weekday && (date + 7.days()).month() != date.month(),
    }
}

fn cron() -> impl Strategy<Value = OracleCron> {
    (values(0, 59), values(0, 23), day_of_month(), month(), day_of_week()).prop_map(
        |(minute, hour, day, month, weekday)| OracleCron {
            fields: [minute, hour, day, month, weekday],
        },
    )
}

/// What Debian's cron would start, told minute by minute from nothing but the time that clocks show.
fn oracle(cron: &OracleCron, zone: &TimeZone, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let mut fires = Vec::new();
    let minute = SignedDuration::from_mins(1);
    let mut reached = zone.to_datetime(from);
    let mut now = from + minute;
    while now <= until {
        let shown = zone.to_datetime(now);
        if cron.elapsed() {
            if cron.matches(shown) {
                fires.push(now);
            }
        } else if shown > reached {
            let mut passed = reached;
            let mut due = false;
            while passed < shown {
                passed += minute;
                due |= cron.matches(passed);
            }
            if due {
                fires.push(now);
            }
            reached = shown;
        }
        now += minute;
    }
    fires
}

/// An instant at which clocks may be changed: near one where the zone has any.
fn near_change(zone: &TimeZone, seconds: i64) -> Timestamp {
    let at = Timestamp::from_second(seconds - seconds.rem_euclid(86_400)).expect("in range");
    let change = zone.following(at).next().map(|change| change.timestamp());
    // Beyond a few years there are none left to wait for.
    let near = change.filter(|change| change.duration_since(at) < SignedDuration::from_hours(24 * 800));
    let near = near.unwrap_or(at);
    near - SignedDuration::from_hours(36)
}

/// 1985 to 2060: whole-minute offsets everywhere, rules of the database and rules beyond it.
const MODERN: std::ops::Range<i64> = 473_385_600..2_840_140_800;

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn s30_every_minute_agrees_with_the_oracle(
        cron in cron(),
        zone in prop::sample::select(&ZONES[..]),
        seconds in MODERN,
    ) {
        let Ok(parsed) = Cron::parse(&cron.text()) else {
            // A day that no year has; the oracle never fires either.
            prop_assume!(false);
            unreachable!()
        };
        let mut schedule = schedule("0 0 1 1 *", zone);
        schedule.cron = parsed;
        let zone = schedule.zone.time_zone().clone();
        let from = near_change(&zone, seconds);
        // A walk must not begin inside a time that is shown twice.
        let until = from + SignedDuration::from_hours(72);
        let expected = oracle(&cron, &zone, from, until);
        let found: Vec<Timestamp> = between(&schedule, from, until).map(|fire| fire.at).collect();
        prop_assert_eq!(found, expected, "{} {:?} from {}", cron.text(), schedule.zone, from);
    }

    #[test]
    fn s30_next_lies_ahead_and_never_panics(
        cron in cron(),
        zone in prop::sample::select(&ZONES[..]),
        second in Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(),
        nanosecond in 0_i32..1_000_000_000,
    ) {
        let Ok(parsed) = Cron::parse(&cron.text()) else { return Ok(()) };
        let mut schedule = schedule("0 0 1 1 *", zone);
        schedule.cron = parsed;
        let after = Timestamp::new(second, nanosecond).unwrap_or(Timestamp::MAX);
        if let Some(fire) = next(&schedule, after) {
            prop_assert!(fire.at > after);
            prop_assert_eq!(schedule.zone.time_zone().to_datetime(fire.at), fire.local);
            prop_assert_eq!(schedule.zone.time_zone().to_offset(fire.at), fire.offset);
            // Nothing lies between.
            prop_assert_eq!(next(&schedule, fire.at - SignedDuration::from_nanos(1)), Some(fire));
            prop_assert_eq!(last(&schedule, after, fire.at), Some(fire.at));
            prop_assert_eq!(last(&schedule, after, fire.at - SignedDuration::from_nanos(1)), None);
        }
    }

    #[test]
    fn the_last_of_an_interval_is_the_last(
        cron in cron(),
        zone in prop::sample::select(&ZONES[..]),
        seconds in MODERN,
        hours in 1_i64..200,
    ) {
        let Ok(parsed) = Cron::parse(&cron.text()) else { return Ok(()) };
        let mut schedule = schedule("0 0 1 1 *", zone);
        schedule.cron = parsed;
        let from = Timestamp::from_second(seconds).expect("in range");
        let until = from + SignedDuration::from_hours(hours);
        let all: Vec<Timestamp> = between(&schedule, from, until).map(|fire| fire.at).collect();
        prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(last(&schedule, from, until), all.last().copied());
    }
}

#[test]
fn s30_the_ends_of_time_do_not_panic() {
    for zone in ZONES {
        for cron in ["30 2 * * *", "* * * * *", "*/7 3 29 2 *", "0 0 1 1 *"] {
            let schedule = schedule(cron, zone);
            for after in [
                Timestamp::MIN,
                Timestamp::MAX,
                Timestamp::UNIX_EPOCH,
                at("4999-12-31T23:59:59Z"),
            ] {
                let next = next(&schedule, after);
                assert!(next.is_none_or(|fire| fire.at > after), "{cron} {zone} {after}");
            }
            assert!(next(&schedule, Timestamp::MIN).is_some(), "{cron} {zone}");
            assert_eq!(next(&schedule, Timestamp::MAX), None);
        }
    }
}

/// Every zone there is, over two years of changes: a daily slot each day that exists.
#[test]
fn s30_every_zone_has_one_daily_slot_a_day() {
    let names = crate::model::schedule::Zone::names();
    assert!(names.len() > 400, "{}", names.len());
    let (from, until) = (at("2025-12-31T12:00:00Z"), at("2027-01-02T12:00:00Z"));
    for name in names {
        let Ok(zone) = crate::model::schedule::Zone::new(&name) else {
            continue;
        };
        let mut schedule = schedule("30 2 * * *", "UTC");
        schedule.zone = zone;
        let days: Vec<Date> = between(&schedule, from, until).map(|fire| fire.local.date()).collect();
        let different: BTreeSet<Date> = days.iter().copied().collect();
        assert_eq!(days.len(), different.len(), "{name}");
        assert!((366..=368).contains(&days.len()), "{name}: {}", days.len());
    }
}
