//! The forecast of a million slots: what looking ahead over every plan costs.
//!
//! `bench-forecast [PLANS] [DAYS]`: plans over ten zones, each with a schedule of its own minute, a shared window at night and a limit that they
//! share. Prints the slots, the seconds of looking ahead alone, and those of writing the answer as JSON.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use jiff::{SignedDuration, Timestamp};
use muster_core::model::cron::Cron;
use muster_core::model::environment::{EnvironmentLimits, Price};
use muster_core::model::id::Name;
use muster_core::model::key::{Key, Kind};
use muster_core::model::schedule::{Schedule, Timing, Window, WindowKind, Zone};
use muster_core::schedule::forecast::{Plan, forecast};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const ZONES: [&str; 10] = [
    "Asia/Shanghai",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Europe/London",
    "UTC",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: usize| {
        arguments
            .next()
            .map_or(Ok(default), |text| text.parse())
            .expect("a number")
    };
    let (plans, days) = (argument(16_700), argument(60));
    let timings: Vec<Timing> = (0..plans).map(timing).collect();
    let keys: Vec<Key> = (0..plans)
        .map(|plan| {
            let name = Name::new(format!("plan-{plan}")).expect("a name");
            Key::new(Name::default_project(), Kind::TestPlan, name)
        })
        .collect();
    let price = Price {
        currency: "CNY".to_owned(),
        worker_hour_micros: 900_000,
    };
    let targets: Vec<String> = (0..100)
        .map(|target| format!("https://target-{target}.example.com"))
        .collect();
    let plans: Vec<Plan<'_>> = keys
        .iter()
        .zip(&timings)
        .enumerate()
        .map(|(index, (key, timing))| Plan {
            key,
            timing,
            suspended: None,
            duration: Duration::from_secs(2_700),
            lead_time: Duration::from_secs(720),
            target: &targets[index % targets.len()],
            peak_rate: 500.0,
            peak_vus: 1_000,
            workers: 4,
            price: Some(&price),
            counts_in: vec!["lab"],
        })
        .collect();
    let limits = EnvironmentLimits {
        workers: Some(40),
        concurrent_runs: Some(10),
        ..EnvironmentLimits::default()
    };
    let from: Timestamp = "2026-10-01T00:00:00Z".parse().expect("an instant");
    let until = from + SignedDuration::from_hours(24 * i64::try_from(days).expect("few days"));
    let began = Instant::now();
    let forecast = forecast(&plans, &BTreeMap::from([("lab", &limits)]), from, until);
    let took = began.elapsed().as_secs_f64();
    println!("forecast_slots {} slots", forecast.fires.len());
    println!("forecast_clashes {} clashes", forecast.totals.clashes);
    println!("forecast {took:.3} s");
    let began = Instant::now();
    let json = serde_json::to_vec(&forecast).expect("a forecast is JSON");
    println!("forecast_json {:.3} s", began.elapsed().as_secs_f64());
    println!("forecast_json_size {} bytes", json.len());
}

fn timing(index: usize) -> Timing {
    let zone = Zone::new(ZONES[index % ZONES.len()]).expect("a zone");
    let schedule = |cron: &str| Schedule {
        cron: Cron::parse(cron).expect("a schedule"),
        zone: zone.clone(),
    };
    Timing {
        schedule: Some(schedule(&format!("{} {} * * *", index % 60, index / 60 % 24))),
        windows: vec![Window {
            kind: WindowKind::Deny,
            schedule: schedule("0 12 * * *"),
            duration: Duration::from_secs(3_600),
            reason: None,
        }],
        ..Timing::default()
    }
}
