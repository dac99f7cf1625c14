//! Tests of the generator as a whole, against servers of their own.

mod executors;
mod hostile;
mod messages;
mod open;
mod shares;
mod support;
mod tls;
