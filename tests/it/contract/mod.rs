//! One contract per port, passed by every adapter.

mod store;
