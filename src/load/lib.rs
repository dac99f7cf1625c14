//! Muster's load generator: virtual users, the arrivals' clock, the recorder, and the `http` and `synthetic` engines.
