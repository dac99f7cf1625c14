//! The last wait before results are closed: where they travel through Kafka, ingest first reads what the topic held when delivery was over,
//! so that a slow ingest makes no run Partial (promise 50).

use crate::bus::kafka::Lag;
use crate::control::runs::context::Context;
use crate::control::runs::let_go::is_stored;
use muster_core::base::units::counted;
use muster_core::model::run::Severity;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often brokers are asked. Ingest tells them once a second how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// Brokers that have not answered by then are asked again.
const ANSWER: Duration = Duration::from_secs(10);
/// Brokers that say nothing for so long, or an ingest that gets no further, are not waited for. A group takes some 10 s to notice that a
/// member died, and to share its partitions out anew.
const STILL_MAX: Duration = Duration::from_secs(30);
/// And one that gets further, but not there: half of what a run may take to be sealed.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// What one look found.
enum Seen {
    /// How far ingest is.
    Lag(Lag),
    /// Brokers did not answer.
    Nothing,
    /// The database does not answer, so ingest cannot get further.
    NoDatabase,
}

/// What to do after it.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Look,
    /// Ingest has read what was there at the first look.
    Passed,
    /// It is waited for no longer.
    GiveUp,
}

/// The wait.
struct Wait {
    over: Instant,
    /// Since when nothing has changed.
    still: Instant,
    /// What the partitions held at the first look.
    marks: Option<BTreeMap<i32, u64>>,
    /// How much of that is not read yet.
    left: u64,
}

impl Wait {
    fn new(now: Instant) -> Self {
        Self {
            over: now + WAIT_MAX,
            still: now,
            marks: None,
            left: u64::MAX,
        }
    }

    fn look(&mut self, now: Instant, seen: Seen) -> Next {
        match seen {
            Seen::Lag(lag) => {
                let left = lag.before(self.marks.get_or_insert_with(|| lag.ends.clone()));
                if left < self.left {
                    (self.left, self.still) = (left, now);
                }
            }
            Seen::Nothing => {}
            Seen::NoDatabase => self.still = now,
        }
        match self.left {
            0 => Next::Passed,
            _ if now >= self.over || now.duration_since(self.still) >= STILL_MAX => Next::GiveUp,
            _ => Next::Look,
        }
    }
}

/// Waits, unless everything is there already, or nobody knows who reads the topic.
pub(super) async fn passed(context: &Context) {
    let parts = &context.shared.parts;
    let Some(bus) = &context.pinned.bus else { return };
    let mut wait = Wait::new(parts.clock.instant());
    loop {
        let sessions = timeout(ANSWER, parts.stores.results.sessions(context.run())).await;
        let seen = match sessions {
            Ok(Ok(sessions)) if sessions.iter().all(is_stored) => return,
            Ok(Ok(_)) => match timeout(ANSWER, parts.world.lag(bus, context.pinned.results.as_ref())).await {
                Ok(Ok(Some(lag))) => Seen::Lag(lag),
                Ok(Ok(None)) => return,
                Ok(Err(_)) | Err(_) => Seen::Nothing,
            },
            Ok(Err(_)) | Err(_) => Seen::NoDatabase,
        };
        match wait.look(parts.clock.instant(), seen) {
            Next::Look => context.sleep(LOOK).await,
            Next::Passed => return,
            Next::GiveUp => {
                let behind = match wait.marks {
                    Some(_) => format!(
                        "ingest was {} behind",
                        counted(usize::try_from(wait.left).unwrap_or(usize::MAX), "record")
                    ),
                    None => "kafka did not answer".to_owned(),
                };
                let message = format!("results were closed while {behind}; what comes later is not counted");
                return context.log(Severity::Warning, "IngestBehind", message).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOK, Next, STILL_MAX, Seen, WAIT_MAX, Wait};
    use crate::bus::kafka::Lag;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use tokio::time::Instant;

    fn lag(ends: [u64; 2], committed: [u64; 2]) -> Seen {
        let of = |offsets: [u64; 2]| BTreeMap::from([(0, offsets[0]), (1, offsets[1])]);
        Seen::Lag(Lag {
            ends: of(ends),
            committed: of(committed),
            is_new: false,
        })
    }

    #[test]
    fn s50_ingest_is_waited_for_until_it_has_read_what_was_there_then() {
        let now = Instant::now();
        let mut wait = Wait::new(now);
        assert_eq!(wait.look(now, lag([5, 9], [5, 7])), Next::Look);
        // Other runs go on: what they add is not waited for, and one partition's progress is not another's.
        assert_eq!(wait.look(now, lag([50, 90], [40, 8])), Next::Look);
        assert_eq!(wait.look(now, lag([50, 90], [40, 9])), Next::Passed);
    }

    #[test]
    fn s50_an_ingest_that_gets_further_is_waited_for_and_one_that_does_not_is_not() {
        let begun = Instant::now();
        let mut wait = Wait::new(begun);
        let mut now = begun;
        for read in 0..9 {
            assert_eq!(wait.look(now, lag([0, 100], [0, read])), Next::Look, "{read}");
            now += STILL_MAX - LOOK;
        }
        assert_eq!(wait.look(now, lag([0, 100], [0, 8])), Next::Look);
        assert_eq!(wait.look(now + LOOK, lag([0, 100], [0, 8])), Next::GiveUp);
        assert_eq!(wait.look(begun + WAIT_MAX, lag([0, 100], [0, 99])), Next::GiveUp);
    }

    #[test]
    fn s50_silent_brokers_are_waited_for_so_long_and_a_database_that_is_away_longer() {
        let begun = Instant::now();
        let mut wait = Wait::new(begun);
        assert_eq!(wait.look(begun + STILL_MAX - LOOK, Seen::Nothing), Next::Look);
        assert_eq!(wait.look(begun + STILL_MAX, Seen::Nothing), Next::GiveUp);
        let mut wait = Wait::new(begun);
        let mut now = begun;
        while now < begun + WAIT_MAX {
            assert_eq!(wait.look(now, Seen::NoDatabase), Next::Look);
            now += Duration::from_secs(10);
        }
        assert_eq!(wait.look(now, Seen::NoDatabase), Next::GiveUp);
    }
}
