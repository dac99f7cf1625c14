//! What several tests share.

pub mod flaky;
