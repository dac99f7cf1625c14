//! The services of a daemon: they observe, decide by calling pure modules, and perform effects through ports.

pub mod fleet;
