//! Whole ways through Muster: a commit, a run, a kill, a report; with real processes and real connections.

mod counts;
pub mod daemon;
mod database;
mod elsewhere;
mod examples;
mod fleet;
mod foreground;
mod hosts;
mod joining;
mod kafka;
mod on_workers;
mod outside;
mod schedule;
mod steering;
mod survival;
