//! What touches the machine for everybody: the clock, processes, commands, telemetry, secrets.

pub mod clock;
pub mod command;
pub(crate) mod processes;
pub mod secrets;
pub mod telemetry;
