//! Schedules against tables, independent oracles and simulated years.

mod cron;
mod fires;
mod forecasts;
mod laws;
mod simulation;
mod slots;
mod windows;

use crate::model::cron::Cron;
use crate::model::schedule::{Schedule, Zone};
use jiff::Timestamp;

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule {
        cron: Cron::parse(cron).unwrap_or_else(|error| panic!("{cron}: {error}")),
        zone: Zone::new(zone).unwrap_or_else(|error| panic!("{error}")),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
