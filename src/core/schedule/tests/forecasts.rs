//! The forecast: what is found, added up and shown.

use super::{at, schedule};
use crate::base::units::parse_duration;
use crate::model::environment::{EnvironmentLimits, Price};
use crate::model::key::Key;
use crate::model::schedule::{ConcurrencyPolicy, Timing, Window, WindowKind};
use crate::schedule::forecast::{CLASHES_MAX, ClashKind, Forecast, Plan, forecast, to_ics, to_text};
use crate::schedule::slot::Suspension;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a test says of a plan; the rest is 45 minutes, 500/s, 100 users and 4 workers at 0.90 CNY on `shop`.
struct Given {
    key: Key,
    timing: Timing,
    duration: Duration,
    lead_time: Duration,
    target: &'static str,
    suspended: Option<Suspension>,
}

fn plan(name: &str, cron: &str, zone: &str) -> Given {
    Given {
        key: format!("payments/TestPlan/{name}").parse().expect("a key"),
        timing: Timing {
            schedule: Some(schedule(cron, zone)),
            ..Timing::default()
        },
        duration: Duration::from_secs(45 * 60),
        lead_time: Duration::ZERO,
        target: "shop",
        suspended: None,
    }
}

fn look(given: &[Given], limits: &EnvironmentLimits, from: &str, until: &str) -> Forecast {
    let price = Price {
        currency: "CNY".to_owned(),
        worker_hour_micros: 900_000,
    };
    let plans: Vec<Plan<'_>> = given
        .iter()
        .map(|given| Plan {
            key: &given.key,
            timing: &given.timing,
            suspended: given.suspended.as_ref(),
            duration: given.duration,
            lead_time: given.lead_time,
            target: given.target,
            peak_rate: 500.5,
            peak_vus: 100,
            workers: 4,
            price: Some(&price),
            counts_in: vec!["Environment default/lab"],
        })
        .collect();
    forecast(
        &plans,
        &BTreeMap::from([("Environment default/lab", limits)]),
        at(from),
        at(until),
    )
}

fn free() -> EnvironmentLimits {
    EnvironmentLimits::default()
}

fn minutes(text: &str) -> Duration {
    parse_duration(text).expect("a duration")
}

/// In short: UTC time, plan, outcome.
fn fires(forecast: &Forecast) -> Vec<String> {
    let short = |at: &Timestamp| at.strftime("%d %H:%M").to_string();
    forecast
        .fires
        .iter()
        .map(|fire| format!("{} {} {}", short(&fire.slot), fire.plan, fire.outcome))
        .collect()
}

fn clashes(forecast: &Forecast) -> Vec<String> {
    let short = |at: Timestamp| at.strftime("%d %H:%M").to_string();
    forecast
        .clashes
        .iter()
        .map(|clash| {
            format!(
                "{} to {} {:?} {}: {}",
                short(clash.from),
                short(clash.until),
                clash.kind,
                clash.plans.join("+"),
                clash.detail
            )
        })
        .collect()
}

fn peaks(forecast: &Forecast) -> Vec<String> {
    let short = |at: Timestamp| at.strftime("%d %H:%M").to_string();
    forecast
        .peaks
        .iter()
        .map(|peak| {
            format!(
                "{} {} to {}: {}/s {} users {} runs",
                peak.target,
                short(peak.from),
                short(peak.until),
                peak.rate,
                peak.vus,
                peak.runs
            )
        })
        .collect()
}

#[test]
fn every_slot_of_the_interval_is_there_in_order() {
    let given = [
        plan("b", "30 2 * * *", "Asia/Shanghai"),
        plan("a", "30 18 * * *", "UTC"),
        plan("c", "0 0 1 1 *", "UTC"),
    ];
    let found = look(&given, &free(), "2026-12-04T18:30:00Z", "2026-12-05T18:30:00Z");
    assert_eq!(
        fires(&found),
        [
            "04 18:30 payments/a Started",
            "04 18:30 payments/b Started",
            "05 18:30 payments/a Started",
            "05 18:30 payments/b Started",
        ],
        "both ends belong to it"
    );
    assert_eq!(found.fires[1].local, "2026-12-05T02:30:00+08:00");
    assert_eq!(found.fires[1].until, at("2026-12-04T19:15:00Z"));
    assert_eq!(
        (found.totals.runs, found.totals.skipped, found.totals.clashes),
        (4, 0, 0)
    );
    // A plan without a schedule has no slots.
    let mut by_hand = plan("d", "0 0 1 1 *", "UTC");
    by_hand.timing.schedule = None;
    assert!(
        look(&[by_hand], &free(), "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
            .fires
            .is_empty()
    );
}

#[test]
fn peaks_add_up_per_target_and_minute() {
    let mut other = plan("other", "50 0 * * *", "UTC");
    other.target = "search";
    let mut odd = plan("odd", "30 0 * * *", "UTC");
    odd.duration = minutes("10m1s");
    let given = [plan("one", "0 0 * * *", "UTC"), odd, other];
    let found = look(&given, &free(), "2026-12-05T00:00:00Z", "2026-12-05T12:00:00Z");
    assert_eq!(
        peaks(&found),
        [
            "search 05 00:50 to 05 01:35: 500.5/s 100 users 1 runs",
            "shop 05 00:00 to 05 00:30: 500.5/s 100 users 1 runs",
            "shop 05 00:30 to 05 00:41: 1001/s 200 users 2 runs",
            "shop 05 00:41 to 05 00:45: 500.5/s 100 users 1 runs",
        ]
    );
    // One run after the other without a pause is one stretch.
    let mut back = plan("back", "45 0 * * *", "UTC");
    back.duration = minutes("45m");
    let found = look(
        &[plan("one", "0 0 * * *", "UTC"), back],
        &free(),
        "2026-12-05T00:00:00Z",
        "2026-12-05T12:00:00Z",
    );
    assert_eq!(peaks(&found), ["shop 05 00:00 to 05 01:30: 500.5/s 100 users 1 runs"]);
    // A run that lasts no time still has its minute.
    let mut short = plan("short", "0 0 * * *", "UTC");
    short.duration = Duration::ZERO;
    let found = look(&[short], &free(), "2026-12-05T00:00:00Z", "2026-12-05T12:00:00Z");
    assert_eq!(peaks(&found), ["shop 05 00:00 to 05 00:01: 500.5/s 100 users 1 runs"]);
}

#[test]
fn a_plans_own_overlap_is_found() {
    let often = |policy| {
        let mut often = plan("often", "0,30 0-1 * * *", "UTC");
        often.timing.concurrency_policy = policy;
        look(&[often], &free(), "2026-12-05T00:00:00Z", "2026-12-05T12:00:00Z")
    };
    let forbid = often(ConcurrencyPolicy::Forbid);
    assert_eq!(
        fires(&forbid),
        [
            "05 00:00 payments/often Started",
            "05 00:30 payments/often Skipped(Overlap)",
            "05 01:00 payments/often Started",
            "05 01:30 payments/often Skipped(Overlap)",
        ]
    );
    assert_eq!(
        clashes(&forbid)[0],
        "05 00:30 to 05 01:15 Overlap payments/often: it is skipped while the run before is not over, which may last 45m"
    );
    assert_eq!(
        (forbid.totals.runs, forbid.totals.skipped, forbid.totals.clashes),
        (2, 2, 2)
    );
    let replace = often(ConcurrencyPolicy::Replace);
    assert_eq!((replace.totals.runs, replace.totals.clashes), (4, 3));
    assert!(clashes(&replace)[0].ends_with("it stops the run before, which may last 45m"));
    assert_eq!(peaks(&replace), ["shop 05 00:00 to 05 02:15: 500.5/s 100 users 1 runs"]);
    let allow = often(ConcurrencyPolicy::Allow);
    assert_eq!((allow.totals.runs, allow.totals.clashes), (4, 0));
    assert_eq!(peaks(&allow)[1], "shop 05 00:30 to 05 00:45: 1001/s 200 users 2 runs");
    // One that is over at the instant is no overlap.
    let mut exact = plan("exact", "0,45 0 * * *", "UTC");
    exact.timing.concurrency_policy = ConcurrencyPolicy::Forbid;
    assert_eq!(
        look(&[exact], &free(), "2026-12-05T00:00:00Z", "2026-12-05T12:00:00Z")
            .totals
            .runs,
        2
    );
}

#[test]
fn windows_and_suspension_are_looked_at_ahead() {
    let mut given = plan("nightly", "30 2 * * *", "Asia/Shanghai");
    given.timing.windows = vec![Window {
        kind: WindowKind::Deny,
        schedule: schedule("0 0 6 12 *", "Asia/Shanghai"),
        duration: minutes("2d"),
        reason: Some("freeze".to_owned()),
    }];
    given.suspended = Some(Suspension {
        until: Some(at("2026-12-03T18:30:00Z")),
        detail: "held".to_owned(),
    });
    let found = look(&[given], &free(), "2026-12-02T00:00:00Z", "2026-12-09T00:00:00Z");
    assert_eq!(
        fires(&found),
        [
            "02 18:30 payments/nightly Skipped(Suspended)",
            "03 18:30 payments/nightly Started",
            "04 18:30 payments/nightly Started",
            "05 18:30 payments/nightly Skipped(OutsideWindow)",
            "06 18:30 payments/nightly Skipped(OutsideWindow)",
            "07 18:30 payments/nightly Started",
            "08 18:30 payments/nightly Started",
        ]
    );
    assert_eq!(
        clashes(&found)[0],
        "05 18:30 to 05 19:15 OutsideWindow payments/nightly: the Deny window `0 0 6 12 *` (freeze) is closed from 2026-12-06T00:00:00+08:00 to 2026-12-08T00:00:00+08:00"
    );
    assert_eq!(found.totals.clashes, 2, "a suspension is no clash");
}

#[test]
fn s33_limits_are_looked_at_over_the_whole_interval() {
    let mut late = plan("late", "40 0 * * *", "UTC");
    late.lead_time = minutes("10m");
    let given = [plan("one", "0 0 * * *", "UTC"), plan("two", "15 0 * * *", "UTC"), late];
    let with =
        |limits: EnvironmentLimits| clashes(&look(&given, &limits, "2026-12-05T00:00:00Z", "2026-12-05T12:00:00Z"));
    let workers = |workers| EnvironmentLimits {
        workers: Some(workers),
        ..free()
    };
    // Workers are there before their load.
    assert_eq!(
        with(workers(11)),
        [
            "05 00:30 to 05 00:45 Limit payments/late+payments/one+payments/two: Environment default/lab allows 11 workers, 12 are wanted"
        ]
    );
    assert!(with(workers(12)).is_empty());
    assert_eq!(
        with(workers(7)),
        [
            "05 00:15 to 05 01:00 Limit payments/late+payments/one+payments/two: Environment default/lab allows 7 workers, 12 are wanted",
        ]
    );
    let users = EnvironmentLimits {
        vus: Some(299),
        ..free()
    };
    assert_eq!(
        with(users),
        [
            "05 00:40 to 05 00:45 Limit payments/late+payments/one+payments/two: Environment default/lab allows 299 users, 300 are wanted"
        ]
    );
    let rate = EnvironmentLimits {
        rate: Some(1_502),
        ..free()
    };
    assert_eq!(
        with(rate),
        [
            "05 00:40 to 05 00:45 Limit payments/late+payments/one+payments/two: Environment default/lab allows 1502 iterations/s, 1503 are wanted"
        ]
    );
    let runs = EnvironmentLimits {
        concurrent_runs: Some(2),
        ..free()
    };
    assert_eq!(
        with(runs),
        [
            "05 00:30 to 05 00:45 Limit payments/late+payments/one+payments/two: Environment default/lab allows 2 runs, 3 are wanted"
        ]
    );
    // One that begins as the other ends is not beside it.
    let one_after_the_other = [plan("one", "0 0 * * *", "UTC"), plan("two", "45 0 * * *", "UTC")];
    let alone = EnvironmentLimits {
        concurrent_runs: Some(1),
        ..free()
    };
    assert!(
        look(
            &one_after_the_other,
            &alone,
            "2026-12-05T00:00:00Z",
            "2026-12-05T12:00:00Z"
        )
        .clashes
        .is_empty()
    );
    // A single run above a limit, and a limit that nobody counts in.
    assert_eq!(
        look(
            &one_after_the_other,
            &workers(3),
            "2026-12-05T00:00:00Z",
            "2026-12-05T12:00:00Z"
        )
        .totals
        .clashes,
        2
    );
}

#[test]
fn a_limit_is_only_for_those_that_count_in_it() {
    let given = plan("one", "0 0 * * *", "UTC");
    let plan = Plan {
        key: &given.key,
        timing: &given.timing,
        suspended: None,
        duration: given.duration,
        lead_time: Duration::ZERO,
        target: "shop",
        peak_rate: 1.0,
        peak_vus: 1,
        workers: 4,
        price: None,
        counts_in: vec!["here"],
    };
    let none = EnvironmentLimits {
        workers: Some(0),
        ..free()
    };
    let (from, until) = (at("2026-12-05T00:00:00Z"), at("2026-12-05T12:00:00Z"));
    let count = |name| {
        forecast(
            std::slice::from_ref(&plan),
            &BTreeMap::from([(name, &none)]),
            from,
            until,
        )
        .totals
        .clashes
    };
    assert_eq!((count("here"), count("elsewhere")), (1, 0));
    assert!(
        forecast(std::slice::from_ref(&plan), &BTreeMap::new(), from, until)
            .totals
            .cost
            .is_empty()
    );
}

#[test]
fn worker_hours_and_cost_count_from_provisioning_on() {
    let mut given = plan("one", "0 0 * * *", "UTC");
    given.lead_time = minutes("15m");
    let found = look(&[given], &free(), "2026-12-05T00:00:00Z", "2026-12-06T12:00:00Z");
    assert_eq!(found.totals.worker_hours, 8.0);
    assert_eq!(
        found.totals.cost,
        BTreeMap::from([("CNY".to_owned(), "7.20".to_owned())])
    );
    // A hundredth that is begun counts.
    let mut short = plan("short", "0 0 * * *", "UTC");
    short.duration = minutes("1s");
    let found = look(&[short], &free(), "2026-12-05T00:00:00Z", "2026-12-05T12:00:00Z");
    assert_eq!(found.totals.cost["CNY"], "0.01");
}

#[test]
fn clashes_are_listed_up_to_a_bound_and_counted_beyond() {
    let mut often = plan("often", "* * * * *", "UTC");
    often.timing.windows = vec![Window {
        kind: WindowKind::Deny,
        schedule: schedule("0 0 * * *", "UTC"),
        duration: minutes("1d"),
        reason: None,
    }];
    let found = look(&[often], &free(), "2026-12-05T00:00:00Z", "2026-12-05T23:59:00Z");
    assert_eq!(found.clashes.len(), CLASHES_MAX);
    assert_eq!(found.totals.clashes, 1_440);
    assert!(found.clashes.iter().all(|clash| clash.kind == ClashKind::OutsideWindow));
    assert!(to_text(&found).contains("  and 440 more\n"));
}

/// Everything in one: a gap, a repeat, a skipped slot, a clash.
fn autumn() -> Forecast {
    let mut held = plan("held", "0 12 * * *", "UTC");
    held.suspended = Some(Suspension {
        until: None,
        detail: "held".to_owned(),
    });
    let long = plan("a-rather-long-name-for-a-plan", "30 2 * * *", "Europe/Berlin");
    let limits = EnvironmentLimits {
        workers: Some(3),
        ..free()
    };
    look(&[held, long], &limits, "2026-10-25T00:00:00Z", "2026-10-26T12:00:00Z")
}

#[test]
fn s56_json_has_a_version_and_reads_back() {
    let found = autumn();
    let json = serde_json::to_value(&found).expect("JSON");
    assert_eq!(json["formatVersion"], 1);
    assert_eq!(
        json["fires"][0],
        serde_json::json!({
            "plan": "payments/a-rather-long-name-for-a-plan",
            "slot": "2026-10-25T00:30:00Z",
            "local": "2026-10-25T02:30:00+02:00",
            "note": "Repeated",
            "until": "2026-10-25T01:15:00Z",
            "outcome": "Started",
        })
    );
    assert_eq!(json["fires"][1]["outcome"], "Skipped(Suspended)");
    assert_eq!(json["peaks"][0]["rate"], 500.5);
    assert_eq!(json["clashes"][0]["kind"], "Limit");
    assert_eq!(json["totals"]["workerHours"], 6.0);
    assert_eq!(json["totals"]["cost"]["CNY"], "5.40");
    assert_eq!(serde_json::from_value::<Forecast>(json).expect("reads back"), found);
}

#[test]
fn text_shows_slots_peaks_clashes_and_totals() {
    assert_eq!(
        to_text(&autumn()),
        "\
FORECAST  2026-10-25 00:00Z to 2026-10-26 12:00Z

  SLOT (UTC)         LOCAL                      PLAN                                    NOTE
  2026-10-25 00:30Z  2026-10-25T02:30:00+02:00  payments/a-rather-long-name-for-a-plan  clocks go back: its time comes twice that day
  2026-10-25 12:00Z  2026-10-25T12:00:00+00:00  payments/held                           Skipped(Suspended)
  2026-10-26 01:30Z  2026-10-26T02:30:00+01:00  payments/a-rather-long-name-for-a-plan
  2026-10-26 12:00Z  2026-10-26T12:00:00+00:00  payments/held                           Skipped(Suspended)

PEAKS
  shop
    500.5/s iterations from 2026-10-25 00:30Z
    100 users from 2026-10-25 00:30Z

CLASHES
  2026-10-25 00:30Z  Limit  payments/a-rather-long-name-for-a-plan: Environment default/lab allows 3 workers, 4 are wanted
  2026-10-26 01:30Z  Limit  payments/a-rather-long-name-for-a-plan: Environment default/lab allows 3 workers, 4 are wanted

TOTALS  2 runs, 2 skipped, 6.00 worker-hours, 5.40 CNY
"
    );
    let empty = look(&[], &free(), "2026-10-25T00:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(
        to_text(&empty),
        "FORECAST  2026-10-25 00:00Z to 2026-10-26 12:00Z\n\n  no slot\n\nTOTALS  0 runs, 0 skipped, 0.00 worker-hours\n"
    );
}

#[test]
fn a_calendar_file_has_what_runs() {
    let spring = plan("spring", "30 2 29 3 *", "Europe/Berlin");
    let found = look(&[spring], &free(), "2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z");
    assert_eq!(
        to_ics(&found, at("2026-03-01T08:00:00Z")),
        "BEGIN:VCALENDAR\r\n\
         VERSION:2.0\r\n\
         PRODID:-//Muster//forecast//EN\r\n\
         CALSCALE:GREGORIAN\r\n\
         BEGIN:VEVENT\r\n\
         UID:20260329T010000Z-payments/spring@muster\r\n\
         DTSTAMP:20260301T080000Z\r\n\
         DTSTART:20260329T010000Z\r\n\
         DTEND:20260329T014500Z\r\n\
         SUMMARY:payments/spring\r\n\
         DESCRIPTION:Local time 2026-03-29T03:00:00+02:00\\; clocks go forward\\, its \r\n \
         local time does not exist that day\r\n\
         END:VEVENT\r\n\
         END:VCALENDAR\r\n"
    );
    let text = to_ics(&autumn(), at("2026-03-01T08:00:00Z"));
    assert_eq!(text.matches("BEGIN:VEVENT").count(), 2, "what is skipped is not in it");
    assert!(text.split("\r\n").all(|line| line.len() <= 75), "{text}");
    assert!(text.contains("comes twice"));
}

#[test]
fn a_calendar_file_is_escaped_and_folded_between_characters() {
    let mut found = autumn();
    found.fires.truncate(1);
    found.fires[0].plan = format!("a\\b;c,d\ne\rf{}", "测".repeat(60)).into();
    let text = to_ics(&found, at("2026-03-01T08:00:00Z"));
    assert!(text.contains("SUMMARY:a\\\\b\\;c\\,d\\nef测"), "{text}");
    assert!(text.split("\r\n").all(|line| line.len() <= 75), "{text}");
    let unfolded = text.replace("\r\n ", "");
    assert!(unfolded.contains(&"测".repeat(60)));
}
