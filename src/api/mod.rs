//! What the daemon serves over the network.

pub mod worker;
