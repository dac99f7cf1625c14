//! Measurement: histograms, slices, frames, merging, thresholds, summaries, verdicts.

mod codec;
pub mod frame;
pub mod histogram;
pub mod judge;
pub mod query;
pub mod slice;
pub mod summary;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod threshold;
pub mod validity;
pub mod verdict;
pub mod view;
mod wire;

pub use wire::WireError;
