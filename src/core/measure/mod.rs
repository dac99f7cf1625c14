//! Measurement: histograms, slices, frames, merging, thresholds, summaries, verdicts.

pub mod histogram;
pub mod slice;
