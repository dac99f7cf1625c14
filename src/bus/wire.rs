//! The worker protocol as generated from `schemas/worker.proto`, and the numbers both sides must agree on.
#![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]

use std::time::Duration;

tonic::include_proto!("muster.worker.v1");

/// Version of the protocol; both sides must speak the same.
pub const PROTOCOL: u32 = 1;
/// Largest control message: a plan of 1 MiB with every template in it stays far below.
pub const CONTROL_MAX_BYTES: usize = 16 << 20;
/// Size of one piece of a fetched file.
pub const FETCH_PIECE_BYTES: usize = 256 << 10;
/// HTTP/2 pings on an idle connection, both sides: finds a dead peer that never closed its socket.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// An unanswered ping closes the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often each side gives a sign of life: five times within the shortest orphan timeout (5 s).
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Metadata key of the join token.
pub const TOKEN_KEY: &str = "x-muster-join-token";
