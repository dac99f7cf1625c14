//! Muster: a commit becomes a measured run. Everything but the pure core and the load generator.

pub mod api;
pub mod bus;
pub mod cli;
pub mod control;
pub mod ingest;
pub mod provider;
pub mod runtime;
pub mod source;
pub mod store;
pub mod worker;
