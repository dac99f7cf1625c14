//! Who may be worked on now: level-triggered, one at a time per key, with a backoff per key (promises 10, 12, 13).
//!
//! An activation carries only its key. The queue holds no work and reads no clock; whoever drives it observes afresh before it
//! starts a key.

use muster_core::base::backoff::Backoff;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// How the work on a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it should; earlier failures are forgotten.
    Done,
    /// Worth another try after a while.
    Transient,
    /// Not worth another try before something changes in git.
    Terminal,
}

/// The queue's state per key.
#[derive(Debug)]
pub struct Queue<K> {
    backoff: Backoff,
    entries: BTreeMap<K, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    waiting: bool,
    running: bool,
    failures: u32,
    hold: Hold,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Hold {
    #[default]
    None,
    Until(Instant),
    /// Until [`Queue::forget_failures`].
    Change,
}

impl<K: Ord + Clone> Queue<K> {
    /// An empty queue.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            entries: BTreeMap::new(),
        }
    }

    /// Asks for one run of a key. Asked again before it started, it is still one; asked while it runs, one more after it.
    pub fn add(&mut self, key: K) {
        self.entries.entry(key).or_default().waiting = true;
    }

    /// Starts a key if it was asked for, does not run, and does not wait out a failure.
    pub fn start(&mut self, key: &K, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let free = match entry.hold {
            Hold::None => true,
            Hold::Until(at) => at <= now,
            Hold::Change => false,
        };
        let start = entry.waiting && !entry.running && free;
        if start {
            entry.waiting = false;
            entry.running = true;
        }
        start
    }

    /// Ends a run. Returns whether the key was asked for in the meantime. `random` in `0.0..1.0` spreads the retries.
    pub fn finish(&mut self, key: &K, ended: Ended, now: Instant, random: f64) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        entry.running = false;
        match ended {
            Ended::Done => {
                entry.failures = 0;
                entry.hold = Hold::None;
            }
            Ended::Transient => {
                entry.failures = entry.failures.saturating_add(1);
                entry.hold = Hold::Until(now + self.backoff.delay(entry.failures, random));
            }
            Ended::Terminal => {
                entry.failures = entry.failures.saturating_add(1);
                entry.hold = Hold::Change;
            }
        }
        let again = entry.waiting;
        if !again && ended == Ended::Done {
            self.entries.remove(key);
        }
        again
    }

    /// Forgets a key for which nothing is left to do, with its failures, unless it runs.
    pub fn settle(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.waiting = false;
            if !entry.running {
                self.entries.remove(key);
            }
        }
    }

    /// The keys that were asked for or failed.
    pub fn keys(&self) -> BTreeSet<K> {
        self.entries.keys().cloned().collect()
    }

    /// Forgets what held every key back: a new revision cancels waits and retries of the old one (promise 13).
    pub fn forget_failures(&mut self) {
        for entry in self.entries.values_mut() {
            entry.failures = 0;
            entry.hold = Hold::None;
        }
    }

    /// Forgets what held one key back.
    pub fn forget_failure(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = 0;
            entry.hold = Hold::None;
        }
    }

    /// The keys that run.
    pub fn running(&self) -> BTreeSet<K> {
        let running = self.entries.iter().filter(|(_, entry)| entry.running);
        running.map(|(key, _)| key.clone()).collect()
    }

    /// When the next failed key may be tried again.
    pub fn next_retry(&self) -> Option<Instant> {
        let holds = self.entries.values().filter(|entry| !entry.running);
        holds
            .filter_map(|entry| match entry.hold {
                Hold::Until(at) => Some(at),
                Hold::None | Hold::Change => None,
            })
            .min()
    }

    /// Failures in a row of a key.
    pub fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Queue};
    use muster_core::base::backoff::Backoff;
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::time::Instant;

    fn queue() -> Queue<u8> {
        Queue::new(Backoff::RECONCILE)
    }

    #[test]
    fn s10_many_requests_are_one_run_and_one_more_after_a_request_in_between() {
        let (mut queue, now) = (queue(), Instant::now());
        for _ in 0..5 {
            queue.add(1);
        }
        assert!(queue.start(&1, now));
        assert!(!queue.start(&1, now), "never two at once");
        assert!(!queue.finish(&1, Ended::Done, now, 0.0));
        assert!(!queue.start(&1, now), "five requests were one run");
        queue.add(1);
        assert!(queue.start(&1, now));
        queue.add(1);
        queue.add(1);
        assert!(!queue.start(&1, now));
        assert!(queue.finish(&1, Ended::Done, now, 0.0));
        assert!(queue.start(&1, now));
        assert!(!queue.finish(&1, Ended::Done, now, 0.0));
    }

    #[test]
    fn s12_failures_back_off_and_success_forgets_them() {
        let (mut queue, mut now) = (queue(), Instant::now());
        for millis in [750, 1_500, 3_000] {
            queue.add(1);
            assert!(queue.start(&1, now));
            queue.add(1);
            queue.finish(&1, Ended::Transient, now, 0.0);
            let delay = Duration::from_millis(millis);
            assert_eq!(queue.next_retry(), Some(now + delay));
            assert!(!queue.start(&1, now + delay - Duration::from_millis(1)));
            now += delay;
        }
        assert!(queue.start(&1, now));
        queue.finish(&1, Ended::Done, now, 0.0);
        assert_eq!(queue.failures(&1), 0);
    }

    #[test]
    fn s12_s13_a_terminal_failure_waits_for_a_new_revision_which_cancels_all_waits() {
        let (mut queue, now) = (queue(), Instant::now());
        for (key, ended) in [(1, Ended::Terminal), (2, Ended::Transient)] {
            queue.add(key);
            assert!(queue.start(&key, now));
            queue.finish(&key, ended, now, 0.0);
            queue.add(key);
        }
        let later = now + Duration::from_secs(86_400);
        assert!(!queue.start(&1, later), "no time is long enough");
        queue.forget_failures();
        assert!(queue.start(&1, now) && queue.start(&2, now));
    }

    proptest! {
        #[test]
        fn s10_never_two_at_once_and_nothing_asked_for_is_lost(moves in prop::collection::vec((0..4_u8, 0..3_u8), 0..80)) {
            let (mut queue, mut now) = (queue(), Instant::now());
            let (mut running, mut asked) = ([0_u8; 3], [false; 3]);
            for (what, key) in moves {
                let index = usize::from(key);
                now += Duration::from_secs(16 * 60);
                match what {
                    0 => { queue.add(key); asked[index] = true; }
                    1 if queue.start(&key, now) => { running[index] += 1; asked[index] = false; }
                    2 if running[index] > 0 => { running[index] -= 1; queue.finish(&key, Ended::Done, now, 0.5); }
                    3 if running[index] > 0 => { running[index] -= 1; queue.finish(&key, Ended::Transient, now, 0.5); }
                    _ => {}
                }
                prop_assert!(running[index] <= 1);
            }
            now += Duration::from_secs(16 * 60);
            for key in 0..3_u8 {
                let index = usize::from(key);
                if running[index] > 0 {
                    queue.finish(&key, Ended::Done, now, 0.0);
                }
                prop_assert_eq!(queue.start(&key, now), asked[index]);
            }
        }
    }
}
