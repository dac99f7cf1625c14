//! The dead-man's switch: notices that nobody has been heard for too long, on a thread of its own that no load can starve (promise 41).

use muster_core::model::unit::EXIT_ORPHANED;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longest sleep of the thread: a changed timeout is noticed within it.
const LOOK: Duration = Duration::from_millis(250);
/// What the process gets to end by itself once the switch fired: ramp-down, abort and spool drain with some room. Then it is ended.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(60);

/// The switch. Dropped: disarmed.
#[derive(Debug)]
pub(super) struct Deadman {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug)]
struct Shared {
    base: Instant,
    heard_ms: AtomicU64,
    timeout_ms: AtomicU64,
    disarmed: AtomicBool,
    fired: CancellationToken,
}

impl Deadman {
    /// Arms the switch, with no timeout for one that never fires; the owner counts as heard now. `ends_process`: exits if the process
    /// has not done so in [`LAST_WORDS`].
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(timeout: Option<Duration>, ends_process: bool) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            base: Instant::now(),
            heard_ms: AtomicU64::new(0),
            timeout_ms: AtomicU64::new(timeout.map_or(u64::MAX, millis)),
            disarmed: AtomicBool::new(false),
            fired: CancellationToken::new(),
        });
        let watched = shared.clone();
        let handle = thread::Builder::new()
            .name("dead-man".to_owned())
            .spawn(move || watched.watch(ends_process))?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    /// The owner was heard.
    pub fn heard(&self) {
        let now_ms = millis(self.shared.base.elapsed());
        self.shared.heard_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// Another timeout from now on: that of the run's pool, or of a worker without a run.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.shared
            .timeout_ms
            .store(timeout.map_or(u64::MAX, millis), Ordering::Relaxed);
    }

    /// How long the owner may be silent now.
    pub fn timeout(&self) -> Option<Duration> {
        let timeout_ms = self.shared.timeout_ms.load(Ordering::Relaxed);
        (timeout_ms != u64::MAX).then(|| Duration::from_millis(timeout_ms))
    }

    /// Cancelled once the owner has not been heard for the timeout. There is no way back.
    pub fn fired(&self) -> &CancellationToken {
        &self.shared.fired
    }
}

impl Drop for Deadman {
    fn drop(&mut self) {
        self.shared.disarmed.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Shared {
    fn watch(&self, ends_process: bool) {
        loop {
            if self.disarmed.load(Ordering::Relaxed) {
                return;
            }
            let silent_ms = millis(self.base.elapsed()).saturating_sub(self.heard_ms.load(Ordering::Relaxed));
            let left_ms = self.timeout_ms.load(Ordering::Relaxed).saturating_sub(silent_ms);
            if left_ms == 0 {
                break;
            }
            thread::park_timeout(LOOK.min(Duration::from_millis(left_ms)));
        }
        self.fired.cancel();
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until {
            if self.disarmed.load(Ordering::Relaxed) {
                return;
            }
            thread::park_timeout(LOOK);
        }
        if ends_process {
            std::process::exit(i32::from(EXIT_ORPHANED));
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Deadman;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn s41_the_switch_fires_once_nobody_was_heard_for_the_timeout() {
        let timeout = Duration::from_millis(300);
        let deadman = Deadman::start(Some(timeout), false).unwrap();
        let start = Instant::now();
        while start.elapsed() < timeout * 2 {
            deadman.heard();
            assert!(!deadman.fired().is_cancelled());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::timeout(Duration::from_secs(5), deadman.fired().cancelled())
            .await
            .unwrap();
        assert!(start.elapsed() >= timeout * 3 - Duration::from_millis(30));
    }

    #[tokio::test]
    async fn s41_a_shorter_timeout_counts_at_once() {
        let deadman = Deadman::start(None, false).unwrap();
        assert_eq!(deadman.timeout(), None);
        deadman.set_timeout(Some(Duration::ZERO));
        tokio::time::timeout(Duration::from_secs(5), deadman.fired().cancelled())
            .await
            .unwrap();
    }
}
