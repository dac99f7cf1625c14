//! What touches the machine for everybody: the clock, tasks, signals, telemetry, secrets.

pub mod clock;
pub mod secrets;
