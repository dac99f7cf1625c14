//! Muster's load generator: virtual users, the arrivals' clock, the recorder, and the `http` and `synthetic` engines.
//!
//! A [`Job`] is prepared, started at an instant and read second by second. Each of its threads has a runtime, users and a recorder of its own and takes its
//! part of the load as if it were a worker of its own, so on the way of a request there is no lock, and for requests without variables no allocation.

mod arrivals;
mod control;
mod deck;
mod engine;
mod files;
mod http;
mod lane;
mod pacing;
mod phase;
mod random;
mod recorder;
mod run;
mod synthetic;

pub use control::{Command, StopMode};
pub use engine::EngineError;
pub use run::{Job, PrepareError, Prepared, Report, Running, THREADS_MAX, prepare};
