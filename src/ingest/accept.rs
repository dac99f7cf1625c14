//! Which messages are taken: decodes them and checks them against what is known of their session. Total: no bytes panic.

use crate::bus::Message;
use crate::store::rows::{Flush, SessionRow};
use muster_core::measure::frame::{Body, DROPPED_MAX, Frame};
use muster_core::model::id::{RunId, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Highest sequence taken: thirty years of seconds, far below what a database's integers hold.
const SEQUENCE_MAX: u64 = 1_000_000_000;
/// Highest run second taken: a week; the longest run that settings allow is shorter.
const SECOND_MAX: u32 = 7 * 24 * 3_600;

/// What is missing for so long was lost on the way (a bus that deleted it, a database set back): what follows is taken then, and the hole
/// told with the session's end. Much longer than it takes until what could not be stored comes again.
const HOLE_MAX: Duration = Duration::from_secs(600);
/// Runs whose sessions are remembered; those that hold nothing are read again when they are needed.
const RUNS_MAX: usize = 1_024;

/// What is known of runs and their sessions.
#[derive(Debug, Default)]
pub(super) struct Known {
    runs: BTreeMap<RunId, BTreeMap<SessionId, Session>>,
}

#[derive(Debug)]
struct Session {
    worker: u32,
    /// Up to here all is stored.
    stored: u64,
    /// Up to here all is stored or held.
    taken: u64,
    ended: bool,
    /// Since when something before what comes is missing.
    early_since: Option<Instant>,
    /// Sequences that never came, before ones that did.
    gaps: Vec<(u64, u64)>,
}

/// What to do with a message.
pub(super) enum Verdict {
    /// It is new.
    Take {
        /// Its content.
        frame: Box<Frame>,
        /// Where its session stood before it.
        from: u64,
    },
    /// It is stored already, as everything up to here.
    Stored(u64),
    /// It is held already.
    Held,
    /// Something before it is not here and was not dropped by its worker: both come again, in order.
    Early,
    /// It will never be taken.
    Refuse(String),
    /// Its session must be looked up; unknown still after that: refuse.
    UnknownSession,
}

impl Known {
    /// Takes in the sessions of a run as the store has them. What was known of one stays: more of it may be held.
    pub fn learn(&mut self, run: RunId, rows: Vec<SessionRow>) {
        let sessions = self.runs.entry(run).or_default();
        for row in rows {
            sessions.entry(row.session).or_insert(Session {
                worker: row.worker,
                stored: row.watermark,
                taken: row.watermark,
                ended: row.end.is_some_and(|end| end <= row.watermark),
                early_since: None,
                gaps: Vec::new(),
            });
        }
    }

    /// Whether there is no room for another run.
    pub fn is_full(&self) -> bool {
        self.runs.len() >= RUNS_MAX
    }

    /// Forgets all other runs.
    pub fn keep_only(&mut self, runs: &BTreeSet<RunId>) {
        self.runs.retain(|run, _| runs.contains(run));
    }

    /// A run is over, or must be read anew.
    pub fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
    }

    /// A flush is stored.
    pub fn stored(&mut self, flush: &Flush) {
        if let Some(sessions) = self.runs.get_mut(&flush.run) {
            for (session, (_, to)) in &flush.watermarks {
                if let Some(session) = sessions.get_mut(session) {
                    session.stored = session.stored.max(*to);
                }
            }
        }
    }

    /// Up to where a session is stored.
    pub fn watermark(&self, run: RunId, session: SessionId) -> u64 {
        self.session(run, session).map_or(0, |session| session.stored)
    }

    fn session(&self, run: RunId, session: SessionId) -> Option<&Session> {
        self.runs.get(&run)?.get(&session)
    }

    /// Judges a message, and counts it as held if it is to be taken.
    pub fn judge(&mut self, message: &Message, now: Instant) -> Verdict {
        if message.run.0.is_nil() {
            return Verdict::Refuse("it does not say of which session it is".to_owned());
        }
        let sessions = self.runs.get_mut(&message.run);
        let Some(session) = sessions.and_then(|sessions| sessions.get_mut(&message.session)) else {
            return Verdict::UnknownSession;
        };
        if message.sequence <= session.stored {
            return Verdict::Stored(session.stored);
        }
        if message.sequence <= session.taken {
            return Verdict::Held;
        }
        let mut frame = match Frame::decode(&message.payload) {
            Ok(frame) => frame,
            Err(error) => return Verdict::Refuse(error.to_string()),
        };
        if let Err(reason) = session.check(&frame, message) {
            return Verdict::Refuse(reason.to_owned());
        }
        let from = session.taken;
        // Taken now, it would raise the watermark over what still comes, which would then be taken for a repeat.
        if frame.sequence - 1 - frame.skipped > from {
            let since = *session.early_since.get_or_insert(now);
            if now.duration_since(since) < HOLE_MAX {
                return Verdict::Early;
            }
        }
        session.early_since = None;
        if message.sequence > from + 1 {
            session.missed(from + 1, message.sequence - 1);
        }
        session.taken = message.sequence;
        if let Body::End { dropped, .. } = &mut frame.body {
            session.ended = true;
            *dropped = union(dropped, &session.gaps);
        }
        Verdict::Take {
            frame: Box::new(frame),
            from,
        }
    }
}

impl Session {
    fn check(&self, frame: &Frame, message: &Message) -> Result<(), &'static str> {
        if (frame.run, frame.session, frame.sequence) != (message.run, message.session, message.sequence) {
            return Err("the frame is not what its envelope says");
        }
        if frame.worker != self.worker {
            return Err("the session belongs to another worker");
        }
        if self.ended {
            return Err("the session has ended");
        }
        if frame.sequence > SEQUENCE_MAX {
            return Err("the sequence is impossible");
        }
        match &frame.body {
            Body::Second(second) if second.second > SECOND_MAX => Err("the run second is impossible"),
            Body::End { last_sequence, .. } if *last_sequence != frame.sequence => Err("the end is not the last"),
            _ => Ok(()),
        }
    }

    fn missed(&mut self, from: u64, to: u64) {
        let is_full = self.gaps.len() >= DROPPED_MAX;
        match self.gaps.last_mut() {
            Some(last) if is_full => last.1 = to,
            _ => self.gaps.push((from, to)),
        }
    }
}

/// All sequences of both lists, as ascending ranges that do not touch.
fn union(left: &[(u64, u64)], right: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = left.iter().chain(right).copied().collect();
    all.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in all {
        match merged.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::{HOLE_MAX, Known, Verdict, union};
    use crate::bus::Message;
    use crate::store::rows::SessionRow;
    use muster_core::measure::frame::{Body, Frame};
    use muster_core::measure::slice::Second;
    use muster_core::model::id::{RunId, SessionId};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use tokio::time::Instant;
    use uuid::Uuid;

    const SESSION: SessionId = SessionId(Uuid::from_u128(2));

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn opened(known: &mut Known, number: u128) {
        let row = SessionRow {
            run: run(number),
            session: SESSION,
            worker: 0,
            watermark: 0,
            end: None,
            dropped: Vec::new(),
        };
        known.learn(run(number), vec![row]);
    }

    fn message(number: u128, sequence: u64) -> Message {
        let frame = Frame {
            run: run(number),
            session: SESSION,
            worker: 0,
            sequence,
            skipped: 0,
            body: Body::Second(Second::default()),
        };
        Message {
            run: run(number),
            session: SESSION,
            sequence,
            payload: frame.encode().into(),
        }
    }

    #[test]
    fn s49_what_is_lost_for_good_holds_a_session_up_for_a_bounded_time() {
        let mut known = Known::default();
        opened(&mut known, 1);
        let now = Instant::now();
        assert!(matches!(
            known.judge(&message(1, 1), now),
            Verdict::Take { from: 0, .. }
        ));
        assert!(matches!(known.judge(&message(1, 3), now), Verdict::Early));
        let almost = now + HOLE_MAX.mul_f64(0.99);
        assert!(matches!(known.judge(&message(1, 3), almost), Verdict::Early));
        // It came after all: the next hole has its own time.
        assert!(matches!(
            known.judge(&message(1, 2), almost),
            Verdict::Take { from: 1, .. }
        ));
        assert!(matches!(known.judge(&message(1, 4), now + HOLE_MAX), Verdict::Early));
        let over = now + HOLE_MAX * 2;
        assert!(matches!(
            known.judge(&message(1, 4), over),
            Verdict::Take { from: 2, .. }
        ));
    }

    #[test]
    fn what_does_not_say_whose_it_is_is_refused_and_idle_runs_are_forgotten() {
        let mut known = Known::default();
        let now = Instant::now();
        assert!(matches!(known.judge(&message(0, 1), now), Verdict::Refuse(_)));
        for number in 1..=u128::try_from(super::RUNS_MAX).unwrap() {
            assert!(!known.is_full());
            opened(&mut known, number);
        }
        assert!(known.is_full());
        known.keep_only(&BTreeSet::from([run(7)]));
        assert!(!known.is_full());
        assert!(matches!(known.judge(&message(8, 1), now), Verdict::UnknownSession));
        assert!(matches!(known.judge(&message(7, 1), now), Verdict::Take { .. }));
    }

    fn members(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(from, to)| *from..=*to).collect()
    }

    proptest! {
        #[test]
        fn a_union_holds_what_either_holds(
            left in proptest::collection::vec((0_u64..50, 0_u64..5), 0..8),
            right in proptest::collection::vec((0_u64..50, 0_u64..5), 0..8),
        ) {
            let ranges = |list: Vec<(u64, u64)>| list.into_iter().map(|(from, more)| (from, from + more)).collect::<Vec<_>>();
            let (left, right) = (ranges(left), ranges(right));
            let both = union(&left, &right);
            prop_assert_eq!(members(&both), members(&left).union(&members(&right)).copied().collect());
            prop_assert!(both.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
