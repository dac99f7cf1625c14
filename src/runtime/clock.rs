//! The only reader of time. Decisions get `now` as an argument; services ask this.

use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Wall and monotonic time. Tests hold a clock whose wall time follows tokio's paused time.
#[derive(Debug, Clone)]
pub struct Clock {
    base: Arc<Base>,
}

#[derive(Debug)]
enum Base {
    System,
    Following { wall: Timestamp, start: Instant },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self {
            base: Arc::new(Base::System),
        }
    }

    /// A clock that starts at `wall` and moves with tokio's (perhaps paused) time.
    pub fn following(wall: Timestamp) -> Self {
        Self {
            base: Arc::new(Base::Following {
                wall,
                start: Instant::now(),
            }),
        }
    }

    /// Wall time.
    pub fn now(&self) -> Timestamp {
        match &*self.base {
            Base::System => Timestamp::now(),
            Base::Following { wall, start } => *wall + start.elapsed(),
        }
    }

    /// Monotonic time.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
