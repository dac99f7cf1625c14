//! How a run goes: shares of load, instants of arrivals, users over time, and the state machine of a run. All pure.

pub mod arrivals;
pub mod share;
pub mod vus;
