//! What std lacks: durations as plans write them, backoff, error chains.

pub mod backoff;
pub mod chain;
pub mod units;
