//! The command line without a daemon: what it prints, where, and how it exits.

mod forecast;
mod offline;
