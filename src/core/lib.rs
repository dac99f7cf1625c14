//! Muster's decisions: pure functions over plain data, from the text of a plan to the verdict on a run.
//!
//! Nothing here reads a clock, a file, a socket, the environment or a random number; `now` and ids are arguments.

pub mod base;
pub mod diff;
pub mod lifecycle;
pub mod measure;
pub mod model;
pub mod report;
pub mod schedule;
pub mod spec;
pub mod topology;
