//! Measurement: histograms, slices, frames, merging, thresholds, summaries, verdicts.

pub mod frame;
pub mod histogram;
pub mod slice;
pub mod threshold;
mod wire;

pub use wire::WireError;
