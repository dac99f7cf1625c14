//! What a worker tells whoever started it by hand.

use muster_core::model::id::RunId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something a person wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The daemon took it in.
    Connected {
        /// Where.
        address: String,
        /// Key of its pool.
        pool: String,
        /// The run it holds from before.
        run: Option<RunId>,
    },
    /// The daemon turned it away; it tries again.
    Refused {
        /// In the daemon's words.
        reason: String,
        /// After so long.
        pause: Duration,
    },
    /// Nobody answers; it tries again.
    Unreachable(String),
    /// The connection is over.
    Lost {
        /// Why.
        reason: String,
        /// The run it holds.
        run: Option<RunId>,
        /// How long that run's load goes on without a daemon.
        orphan_timeout: Option<Duration>,
    },
    /// It was given a run.
    RunBegins {
        /// Which.
        run: RunId,
        /// Its place in the set, from 0.
        index: u32,
        /// Of so many.
        count: u32,
    },
    /// It cannot take part.
    CannotPrepare(String),
    /// Its load began so much later than agreed.
    LoadStarted {
        /// In microseconds.
        late_us: i64,
    },
    /// Its load is over.
    LoadEnded {
        /// Why, in one word.
        why: &'static str,
        /// Frames made.
        frames: u64,
        /// Of those, dropped by a full spool.
        dropped: u64,
    },
    /// The run is over and forgotten.
    Released,
    /// The daemon has not been heard for the orphan timeout, in a run: the process ends.
    Orphaned,
}

/// Who is told. By default nobody.
#[derive(Clone, Default)]
pub struct Teller(Option<Arc<dyn Fn(News) + Send + Sync>>);

impl Teller {
    /// Has a function called with all news.
    pub fn new(tell: impl Fn(News) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(super) fn tell(&self, news: News) {
        if let Some(tell) = &self.0 {
            tell(news);
        }
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Teller")
    }
}
