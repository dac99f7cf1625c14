//! The one integration test binary: real processes, real servers, real databases.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod api;
mod chaos;
mod cli;
mod contract;
mod flow;
mod runs;
mod support;
