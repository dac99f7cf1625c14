//! Runs from their start to their end, over real connections.

mod fleet;
