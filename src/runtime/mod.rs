//! What touches the machine for everybody: the clock, processes, commands, telemetry, secrets.

pub mod clock;
pub mod command;
pub mod guard;
pub(crate) mod processes;
pub mod secrets;
pub mod telemetry;
