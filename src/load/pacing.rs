//! Time inside the generator: a timer finer than the runtime's, deadlines that cost nothing while they hold, the bound on requests per second.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::cell::Cell;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

/// Below this a wait is spent letting other tasks run: setting a timer and waking from it costs about as much.
const SPIN: Duration = Duration::from_micros(20);

/// A timer with the kernel's precision: the runtime's own rounds up to a millisecond.
///
/// Where the process may open no further descriptor it falls back to the runtime's timer, and the lag shows it.
pub(crate) struct Pacer(Option<AsyncFd<Timer>>);

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Pacer {
    /// Made inside the runtime that it wakes.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; a Timer owns its descriptor as long as it lives, which is all that asks for"
    )]
    pub(crate) fn new() -> Self {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok();
        Self(timer.and_then(|timer| AsyncFd::new(Timer(timer)).ok()))
    }

    /// Comes back at `at`, or as soon as others had a turn when that has passed. A dropped wait leaves nothing behind.
    pub(crate) async fn sleep_until(&self, at: Instant) {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left <= SPIN {
                tokio::task::yield_now().await;
                if left.is_zero() {
                    return;
                }
            } else if !self.wait(left).await {
                tokio::time::sleep_until(at.into()).await;
            }
        }
    }

    /// False: there is no timer.
    async fn wait(&self, left: Duration) -> bool {
        let Some(timer) = &self.0 else { return false };
        let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
        let kernel = &timer.get_ref().0;
        if kernel.set(expiration, TimerSetTimeFlags::empty()).is_err() {
            return false;
        }
        let Ok(mut ready) = timer.readable().await else {
            return false;
        };
        // An earlier wait that was dropped may have left its expiry; the caller looks at the clock.
        let _ = kernel.wait();
        ready.clear_ready();
        true
    }
}

/// A deadline that is moved far more often than it passes: one timer that is looked at again only when it fires.
pub(crate) struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the timer holds the task's waker.
    armed: bool,
}

impl Deadline {
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            sleep: None,
            armed: false,
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn set(&mut self, at: Instant) {
        self.at = at;
        if let Some(sleep) = &mut self.sleep
            && sleep.deadline().into_std() > at
        {
            sleep.as_mut().reset(at.into());
            self.armed = false;
        }
    }

    /// Whether the deadline has passed; else the task is woken when it does. Always called from the same task.
    #[inline]
    pub(crate) fn poll_passed(&mut self, context: &mut Context<'_>) -> bool {
        match &self.sleep {
            Some(sleep) if self.armed && !sleep.is_elapsed() => false,
            _ => self.poll_fired(context),
        }
    }

    #[cold]
    fn poll_fired(&mut self, context: &mut Context<'_>) -> bool {
        let at = self.at;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        loop {
            if sleep.as_mut().poll(context).is_pending() {
                self.armed = true;
                return false;
            }
            if Instant::now() >= at {
                return true;
            }
            sleep.as_mut().reset(at.into());
        }
    }
}

/// Never more than so many requests per second: requests reserve instants that lie evenly apart and wait for theirs.
///
/// What was not used is not saved up. The wait counts neither as the target's time nor as the generator's lag.
pub(crate) struct RateBound {
    per_second: u64,
    /// Between two requests of one of all lanes of all workers.
    least: Duration,
    /// The same of one of those that make the phase.
    own: Cell<Duration>,
    /// Until when lanes that have no part in the phase may still make requests of an earlier one.
    shared_until: Cell<Instant>,
    next: Cell<Instant>,
}

impl RateBound {
    /// The bound of one of `lanes` equal parts of `per_second`.
    pub(crate) fn new(per_second: u64, lanes: u64, start: Instant) -> Self {
        let least = interval(per_second, lanes);
        Self {
            per_second,
            least,
            own: Cell::new(least),
            shared_until: Cell::new(start),
            next: Cell::new(start),
        }
    }

    /// A phase begins of which this lane makes one of `lanes` parts. Earlier ones go on until `shared_until` at the latest.
    pub(crate) fn begin_phase(&self, lanes: u64, shared_until: Instant) {
        self.own.set(interval(self.per_second, lanes));
        self.shared_until.set(shared_until);
    }

    /// The instant from which the next request may leave.
    pub(crate) fn reserve(&self, now: Instant) -> Instant {
        let slot = self.next.get().max(now);
        let is_shared = slot < self.shared_until.get();
        self.next
            .set(slot + if is_shared { self.least } else { self.own.get() });
        slot
    }
}

fn interval(per_second: u64, lanes: u64) -> Duration {
    let interval_ns = 1_000_000_000 * u128::from(lanes.max(1)) / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(interval_ns).unwrap_or(u64::MAX))
}

/// Ready at once, or pending for good: what a `select` without a deadline waits on.
pub(crate) async fn sleep_until_or_forever(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::poll_fn(|_| Poll::<()>::Pending).await,
    }
}

#[cfg(test)]
mod tests {
    use super::{Deadline, Pacer, RateBound};
    use std::time::{Duration, Instant};

    #[test]
    fn a_bound_spaces_requests_and_saves_nothing_up() {
        let start = Instant::now();
        let bound = RateBound::new(100, 2, start);
        let slots: Vec<Duration> = (0..3).map(|_| bound.reserve(start) - start).collect();
        assert_eq!(slots, [0, 20, 40].map(Duration::from_millis));
        let later = start + Duration::from_secs(5);
        assert_eq!(bound.reserve(later), later);
        assert_eq!(bound.reserve(later), later + Duration::from_millis(20));
    }

    #[test]
    fn a_phase_of_fewer_lanes_gets_the_whole_bound_once_the_others_are_done() {
        let start = Instant::now();
        let bound = RateBound::new(100, 10, start);
        bound.begin_phase(2, start + Duration::from_millis(150));
        let slots: Vec<Duration> = (0..5).map(|_| bound.reserve(start) - start).collect();
        assert_eq!(slots, [0, 100, 200, 220, 240].map(Duration::from_millis));
    }

    #[tokio::test]
    async fn the_pacer_is_never_early() {
        let pacer = Pacer::new();
        for micros in [0, 5, 150, 2_500] {
            let at = Instant::now() + Duration::from_micros(micros);
            pacer.sleep_until(at).await;
            assert!(Instant::now() >= at);
        }
    }

    #[tokio::test]
    async fn a_moved_deadline_passes_at_its_last_place() {
        let start = Instant::now();
        let mut deadline = Deadline::new(start + Duration::from_millis(1));
        let moved = start + Duration::from_millis(5);
        let mut first = true;
        std::future::poll_fn(|context| {
            let passed = deadline.poll_passed(context);
            if std::mem::take(&mut first) {
                deadline.set(moved);
            }
            if passed {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        assert!(Instant::now() >= moved);
        deadline.set(start);
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(deadline.poll_passed(context))).await
                || deadline.at() == start
        );
    }
}
