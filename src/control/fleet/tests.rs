//! The fleet without a wire.
