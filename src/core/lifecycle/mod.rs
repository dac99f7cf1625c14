//! How a run goes: shares of load, instants of arrivals, users over time, and the state machine of a run. All pure.

pub mod arrivals;
pub mod deadline;
pub mod effects;
pub mod event;
mod expire;
pub mod plan;
pub mod retention;
pub mod share;
pub mod state;
pub mod step;
#[cfg(test)]
mod tests;
pub mod variant;
pub mod vus;
