//! What touches the machine for everybody: the clock, processes, telemetry, secrets.

pub mod clock;
pub(crate) mod processes;
pub mod secrets;
pub mod telemetry;
