//! What touches the machine for everybody: the clock, signals, telemetry, secrets.

pub mod clock;
pub mod secrets;
pub mod telemetry;
