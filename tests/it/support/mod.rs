//! What all tests share: the binary, waiting on values, repositories, nginx.

pub mod flaky;
pub mod git_server;
pub mod kafka;
pub mod mariadb;
pub mod muster;
pub mod nginx;
pub mod repo;

use ::muster::api::worker::Entrance;
use ::muster::control::fleet::door::Door;
use ::muster::control::fleet::join;
use ::muster::runtime::secrets::ConfiguredSecrets;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` returns something, and returns it.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Where workers dial in on loopback with the token of a state folder, into pools that no plan names.
pub fn entrance(listener: tokio::net::TcpListener, state_dir: &std::path::Path) -> Entrance {
    let (token, _) = join::token(state_dir).unwrap();
    let plans = tokio::sync::watch::channel(None).1;
    let secrets = Arc::new(ConfiguredSecrets::default());
    Entrance {
        listener,
        tls: None,
        door: Door::new(Some(token), Vec::new(), secrets, plans),
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits until `look` gives a value, without holding up other tasks.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
