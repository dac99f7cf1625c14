//! The services of a daemon: they observe, decide by calling pure modules, and perform effects through ports.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

pub mod apply;
pub mod contents;
pub mod external;
#[cfg(test)]
mod fakes;
pub mod fleet;
pub mod hooks;
pub mod news;
pub mod observe;
pub mod providers;
pub mod queue;
pub mod reconcile;
pub mod retention;
pub mod runs;
pub mod scheduler;
pub mod status;
pub mod sync;

/// A random number in `0.0..1.0` that spreads retries; std's hasher keys are the randomness at hand.
fn jitter() -> f64 {
    let number = RandomState::new().build_hasher().finish() >> 11;
    number as f64 / (1_u64 << 53) as f64
}
