//! One contract per port, passed by every adapter.

mod process;
mod provider;
mod store;
