//! What std lacks: durations as plans write them, numbers as people read them, backoff, error chains.

pub mod backoff;
pub mod chain;
pub mod csv;
pub mod humane;
pub mod units;
