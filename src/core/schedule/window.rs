//! Windows: may a run of some length begin at an instant? Deny beats Allow, and the whole run must fit.

use super::fires::{Fire, last, next};
use crate::base::units::format_duration;
use crate::model::schedule::{Schedule, Window, WindowKind};
use jiff::{SignedDuration, Timestamp};
use std::fmt;
use std::time::Duration;

/// How far ahead [`first_fit`] looks: over the longest stretch between two leap days.
const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 366 * 8);
/// It looks so far at a time, as most plans fit in the first.
const STRETCH: SignedDuration = SignedDuration::from_hours(24 * 64);

/// Why a run may not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A Deny window holds a part of the run.
    Denied {
        /// The window.
        window: Box<Window>,
        /// When it begins, in its own zone.
        from: Fire,
        /// When it ends.
        until: Timestamp,
    },
    /// Allow windows do not hold the whole run.
    NotAllowed {
        /// The Allow window that is open at the start, with its end; `None`: none is open.
        closes: Option<(Box<Window>, Timestamp)>,
        /// When the run would begin.
        at: Timestamp,
        /// How long it lasts.
        duration: Duration,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { window, from, until } => write!(
                formatter,
                "the Deny window {} is closed from {} to {}",
                named(window),
                from.local_text(),
                local(window, *until)
            ),
            Self::NotAllowed {
                closes: Some((window, until)),
                duration,
                ..
            } => write!(
                formatter,
                "the run lasts {}, and the Allow window {} ends at {}",
                format_duration(*duration),
                named(window),
                local(window, *until)
            ),
            Self::NotAllowed { closes: None, at, .. } => write!(formatter, "no Allow window is open at {at}"),
        }
    }
}

fn named(window: &Window) -> String {
    match &window.reason {
        Some(reason) => format!("`{}` ({reason})", window.schedule.cron),
        None => format!("`{}`", window.schedule.cron),
    }
}

fn local(window: &Window, at: Timestamp) -> String {
    let zoned = at.to_zoned(window.schedule.zone.time_zone().clone());
    zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Whether a run of `duration` may begin at `at`. Without an Allow window, any time is allowed that no Deny window holds.
///
/// # Errors
/// The first window that is in the way.
pub fn check(windows: &[Window], at: Timestamp, duration: Duration) -> Result<(), Refusal> {
    let end = run_end(at, duration);
    for window in windows.iter().filter(|window| window.kind == WindowKind::Deny) {
        if let Some(from) = next(&window.schedule, earlier(at, window.duration)).filter(|fire| fire.at < end) {
            return Err(Refusal::Denied {
                window: Box::new(window.clone()),
                until: later(from.at, window.duration),
                from,
            });
        }
    }
    let mut held = at;
    let mut closes = None;
    let mut any = false;
    while held < end {
        let mut furthest = held;
        for window in windows.iter().filter(|window| window.kind == WindowKind::Allow) {
            any = true;
            if let Some(open) = last(&window.schedule, earlier(held, window.duration), held) {
                let until = later(open, window.duration);
                if until > furthest {
                    furthest = until;
                    closes = Some((Box::new(window.clone()), until));
                }
            }
        }
        if !any {
            return Ok(());
        }
        if furthest == held {
            return Err(Refusal::NotAllowed { closes, at, duration });
        }
        held = furthest;
    }
    Ok(())
}

/// A stretch of instants, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

/// When a run of `duration` may begin, from `from` to `until`: in order, apart from each other.
pub fn free(windows: &[Window], from: Timestamp, until: Timestamp, duration: Duration) -> Vec<Stretch> {
    let reach = run_end(until, duration);
    let spans = |kind| {
        let mut spans: Vec<Span> = windows
            .iter()
            .filter(|window| window.kind == kind)
            .flat_map(|window| open(window, from, reach))
            .collect();
        merge(&mut spans);
        spans
    };
    let mut free: Vec<Stretch> = match windows.iter().any(|window| window.kind == WindowKind::Allow) {
        false => vec![Stretch { from, until }],
        true => spans(WindowKind::Allow)
            .into_iter()
            .map(|span| Stretch {
                from: span.from.max(from),
                until: run_start(span.until, duration).min(until),
            })
            .filter(|stretch| stretch.from <= stretch.until)
            .collect(),
    };
    for deny in spans(WindowKind::Deny) {
        free = free
            .into_iter()
            .flat_map(|stretch| {
                let before = Stretch {
                    until: stretch.until.min(run_start(deny.from, duration)),
                    ..stretch
                };
                let after = Stretch {
                    from: stretch.from.max(deny.until),
                    ..stretch
                };
                [before, after]
            })
            .filter(|stretch| stretch.from <= stretch.until)
            .collect();
    }
    free
}

/// A plan's run never fits its windows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no start before {until} fits the windows: {refusal}")]
pub struct NeverFits {
    /// How far was looked.
    pub until: Timestamp,
    /// Why the first slot does not fit.
    pub refusal: Refusal,
}

/// The first slot from `from` on whose whole run fits the windows; without a schedule, the first instant.
///
/// # Errors
/// When none does for eight years.
pub fn first_fit(
    schedule: Option<&Schedule>,
    windows: &[Window],
    from: Timestamp,
    duration: Duration,
) -> Result<Timestamp, NeverFits> {
    let slot_from = |at: Timestamp| match schedule {
        Some(schedule) => next(schedule, just_before(at)).map(|fire| fire.at),
        None => Some(at),
    };
    let until = from.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
    let first = slot_from(from).unwrap_or(from);
    let Err(refusal) = check(windows, first, duration) else {
        return Ok(first);
    };
    let mut at = from;
    while at < until {
        let border = at.checked_add(STRETCH).unwrap_or(Timestamp::MAX).min(until);
        for stretch in free(windows, at, border, duration) {
            if let Some(slot) = slot_from(stretch.from).filter(|slot| *slot <= stretch.until) {
                return Ok(slot);
            }
        }
        at = border;
    }
    Err(NeverFits { until, refusal })
}

/// A window, or several that touch: its end is not part of it.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Timestamp,
    until: Timestamp,
}

/// When a window is open between two instants; apart from each other, but for a first that may begin earlier than shown.
fn open(window: &Window, from: Timestamp, until: Timestamp) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let schedule = &window.schedule;
    let mut found = next(schedule, earlier(from, window.duration)).map(|fire| fire.at);
    while let Some(at) = found.filter(|at| *at <= until) {
        let end = later(at, window.duration);
        match spans.last_mut() {
            Some(span) if at <= span.until => span.until = end,
            _ => spans.push(Span { from: at, until: end }),
        }
        found = next(schedule, at).map(|fire| fire.at);
        // A window that begins each minute and lasts for hours: the last one before its end is what counts.
        if let Some(close) = found.filter(|close| later(*close, close.duration_since(at).unsigned_abs() * 8) < end) {
            found = last(schedule, at, end).or(Some(close));
        }
    }
    spans
}

fn merge(spans: &mut Vec<Span>) {
    spans.sort_by_key(|span| (span.from, span.until));
    spans.dedup_by(|next, span| {
        let touches = next.from <= span.until;
        if touches {
            span.until = span.until.max(next.until);
        }
        touches
    });
}

/// A run that lasts no time at all still is somewhere.
fn run_end(at: Timestamp, duration: Duration) -> Timestamp {
    later(at, duration.max(Duration::from_nanos(1)))
}

fn run_start(end: Timestamp, duration: Duration) -> Timestamp {
    earlier(end, duration.max(Duration::from_nanos(1)))
}

pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub(super) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn just_before(at: Timestamp) -> Timestamp {
    earlier(at, Duration::from_nanos(1))
}
