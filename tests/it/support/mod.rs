//! What several tests share.

pub mod flaky;

use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Waits until `look` gives a value; tests wait on values, never for a time.
///
/// # Panics
/// After 30 s, with `what`.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
