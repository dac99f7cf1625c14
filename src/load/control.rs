//! What the owner of a running generator says to it: advance, pause, resume, stop. The last word is a state, so repeating one changes nothing.

use std::time::{Duration, Instant};

/// A word from the owner. Each is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Starts `phase` at `at`, after [`Report::Waiting`](crate::Report::Waiting). A pause phase stands for the phase after it.
    Advance {
        /// Index into the plan's phases.
        phase: u32,
        /// When it begins.
        at: Instant,
    },
    /// Freezes the time of phases: no new iterations; those that run go on to their end.
    Pause,
    /// Lets the time of phases go on.
    Resume,
    /// Ends the load.
    Stop(StopMode),
}

/// How load ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopMode {
    /// No new iterations; those that run get the phase's graceful stop.
    Graceful,
    /// Iterations that run are cut off at once.
    Abort,
}

/// Everything said so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control {
    pauses: Vec<(Instant, Option<Instant>)>,
    advance: Option<(u32, Instant)>,
    stop: Option<StopMode>,
}

impl Control {
    pub(crate) fn apply(&mut self, command: Command, now: Instant) {
        match command {
            Command::Advance { phase, at } => {
                if self.advance.is_none_or(|(last, _)| last < phase) {
                    self.advance = Some((phase, at));
                }
            }
            Command::Pause if !self.is_paused() => self.pauses.push((now, None)),
            Command::Resume => {
                if let Some((_, end @ None)) = self.pauses.last_mut() {
                    *end = Some(now);
                }
            }
            Command::Stop(mode) => self.stop = self.stop.max(Some(mode)),
            Command::Pause => {}
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.pauses.last(), Some((_, None)))
    }

    pub(crate) fn stop(&self) -> Option<StopMode> {
        self.stop
    }

    /// The last `Advance`, where it names `phase` or a later one.
    pub(crate) fn advance_to(&self, phase: u32) -> Option<(u32, Instant)> {
        self.advance.filter(|(to, _)| *to >= phase)
    }

    /// How much of `from..to` was spent paused.
    pub(crate) fn frozen(&self, from: Instant, to: Instant) -> Duration {
        self.pauses
            .iter()
            .map(|(begin, end)| {
                let end = end.unwrap_or(to).min(to);
                end.saturating_duration_since((*begin).max(from))
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Control, StopMode};
    use std::time::{Duration, Instant};

    #[test]
    fn paused_time_is_counted_once_however_often_it_is_said() {
        let t0 = Instant::now();
        let at = |seconds| t0 + Duration::from_secs(seconds);
        let mut control = Control::default();
        for (command, second) in [
            (Command::Resume, 1),
            (Command::Pause, 2),
            (Command::Pause, 3),
            (Command::Resume, 5),
            (Command::Resume, 6),
            (Command::Pause, 8),
        ] {
            control.apply(command, at(second));
        }
        assert!(control.is_paused());
        assert_eq!(control.frozen(t0, at(10)), Duration::from_secs(5));
        assert_eq!(control.frozen(at(4), at(7)), Duration::from_secs(1));
        assert_eq!(control.frozen(at(6), at(7)), Duration::ZERO);
    }

    #[test]
    fn abort_outranks_graceful_and_phases_only_go_forward() {
        let t0 = Instant::now();
        let mut control = Control::default();
        control.apply(Command::Stop(StopMode::Abort), t0);
        control.apply(Command::Stop(StopMode::Graceful), t0);
        assert_eq!(control.stop(), Some(StopMode::Abort));
        control.apply(Command::Advance { phase: 3, at: t0 }, t0);
        control.apply(Command::Advance { phase: 2, at: t0 }, t0);
        assert_eq!(control.advance_to(3), Some((3, t0)));
        assert_eq!(control.advance_to(4), None);
    }
}
