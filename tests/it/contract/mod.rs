//! One contract per port, passed by every adapter.

mod bus;
mod kafka;
mod process;
mod provider;
mod source;
pub mod store;
