//! Open phases on one thread: arrivals have intended instants, go to free users, wait where there are none, and are dropped only after
//! the request timeout (promise 59).

use crate::pacing::Pacer;
use crate::phase::PhaseRun;
use muster_core::lifecycle::arrivals::Arrivals;
use muster_core::lifecycle::share::{index_of, share};
use muster_core::model::load::{Executor, Segment};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// The arrivals of one phase on one thread.
///
/// Those that wait are always a range of consecutive arrivals, so the queue is two numbers, however long the target stalls.
pub(crate) struct Open {
    pub(crate) pre_allocated: u64,
    max: u64,
    segment: Segment,
    arrivals: Arrivals,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Own arrivals that came, and of those the ones that were given to a user or dropped.
    came: u64,
    served: u64,
    /// Users without an arrival. First in, first out, so that all of them (and the replicas they are spread over) get work.
    free: VecDeque<Rc<Slot>>,
    made: u64,
    shift: Duration,
    paused: bool,
    closed: bool,
    stopped: bool,
}

/// Where a free user gets its next arrival.
#[derive(Default)]
pub(crate) struct Slot {
    listed: Cell<bool>,
    intended: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Open {
    /// `None` for closed executors.
    pub(crate) fn new(executor: &Executor, segment: Segment) -> Option<Self> {
        let (Executor::ConstantArrivalRate { users, .. } | Executor::RampingArrivalRate { users, .. }) = executor
        else {
            return None;
        };
        let max = share(users.max, segment);
        Some(Self {
            pre_allocated: share(users.pre_allocated, segment).min(max),
            max,
            segment,
            arrivals: Arrivals::new(executor)?,
            state: RefCell::default(),
        })
    }

    /// The instant of this thread's `nth` arrival.
    fn intended(&self, nth: u64, begin: Instant, shift: Duration) -> Option<Instant> {
        let at = self.arrivals.time_of(index_of(nth, self.segment))?;
        Some(begin + shift + at)
    }

    /// A user's next arrival; `None`: there will be none.
    pub(crate) async fn next(&self, run: &PhaseRun, slot: &Rc<Slot>) -> Option<Instant> {
        std::future::poll_fn(|context| {
            if let Some(intended) = slot.intended.take() {
                let now = Instant::now();
                let lag = now.saturating_duration_since(intended);
                run.lane.recorder.borrow_mut().lag(now, lag);
                return Poll::Ready(Some(intended));
            }
            let mut state = self.state.borrow_mut();
            if state.closed && state.served == state.came && self.exhausted(&state) {
                return Poll::Ready(None);
            }
            if !slot.listed.get() && !state.paused && state.served < state.came {
                let intended = self.intended(state.served, run.begin, state.shift);
                state.served += 1;
                return Poll::Ready(intended);
            }
            if !slot.listed.replace(true) {
                state.free.push_back(slot.clone());
            }
            *slot.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn exhausted(&self, state: &State) -> bool {
        state.stopped || self.arrivals.time_of(index_of(state.came, self.segment)).is_none()
    }

    /// No arrivals after those of the phase's time, or (`now`) none after this instant.
    pub(crate) fn close(&self, now: bool) {
        {
            let mut state = self.state.borrow_mut();
            state.closed = true;
            state.stopped |= now;
        }
        self.wake_if_closed();
    }

    /// Once there will be no more arrivals, free users look for themselves whether anything is left.
    fn wake_if_closed(&self) {
        let state = self.state.borrow();
        if state.closed {
            state.free.iter().for_each(|slot| slot.wake());
        }
    }

    /// Gives everything that is due to free users, makes users where there are too few, and lets the rest wait.
    fn hand_out(&self, run: &Rc<PhaseRun>, now: Instant) {
        let mut came = 0;
        loop {
            let mut state = self.state.borrow_mut();
            let due = self.intended(state.came, run.begin, state.shift);
            let due = due.filter(|due| *due <= now && !state.stopped);
            if due.is_some() {
                came += 1;
                state.came += 1;
            } else if state.served == state.came || state.free.is_empty() {
                break;
            }
            if let Some(slot) = state.free.pop_front() {
                slot.intended.set(self.intended(state.served, run.begin, state.shift));
                slot.listed.set(false);
                state.served += 1;
                slot.wake();
            } else if state.made < self.max {
                state.made += 1;
                drop(state);
                run.spawn_for_arrivals();
            }
        }
        if came > 0 {
            let mut recorder = run.lane.recorder.borrow_mut();
            recorder.arrivals(run.index, now, came);
        }
    }

    /// Drops what waited longer than a request may take.
    fn expire(&self, run: &PhaseRun, now: Instant) {
        let timeout = run.lane.shared.script.timeout();
        let mut state = self.state.borrow_mut();
        while state.served < state.came
            && let Some(intended) = self.intended(state.served, run.begin, state.shift)
            && (state.stopped || intended + timeout <= now)
        {
            state.served += 1;
            record_drop(run, now);
        }
    }

    /// Gives up what waits without dropping it, and says how many that were.
    pub(crate) fn give_up(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        let waiting = state.came - state.served;
        state.served = state.came;
        waiting
    }

    /// Drops everything that waits.
    pub(crate) fn drop_waiting(&self, run: &PhaseRun, now: Instant) {
        let mut state = self.state.borrow_mut();
        for _ in state.served..state.came {
            record_drop(run, now);
        }
        state.served = state.came;
    }

    fn next_event(&self, run: &PhaseRun) -> Option<Instant> {
        let state = self.state.borrow();
        let due = self.intended(state.came, run.begin, state.shift);
        let expiry = (state.served < state.came)
            .then(|| self.intended(state.served, run.begin, state.shift))
            .flatten()
            .map(|intended| intended + run.lane.shared.script.timeout());
        due.filter(|_| !state.stopped).into_iter().chain(expiry).min()
    }
}

fn record_drop(run: &PhaseRun, now: Instant) {
    let lane = &run.lane;
    let scenario = lane.deck.draw(&lane.rng);
    let first = run.index * lane.shared.series.per_phase + lane.shared.script.first_request_series(scenario);
    lane.recorder.borrow_mut().dropped(run.index, first, now);
}

/// Follows the clock of arrivals until the phase is cut.
pub(crate) async fn dispatch(run: Rc<PhaseRun>) {
    let Some(open) = &run.open else { return };
    for _ in 0..open.pre_allocated {
        open.state.borrow_mut().made += 1;
        run.spawn_for_arrivals();
    }
    let pacer = Pacer::new();
    let mut control = run.lane.control.clone();
    loop {
        let now = Instant::now();
        let paused = {
            let said = control.borrow_and_update();
            let mut state = open.state.borrow_mut();
            state.shift = run.frozen(&said, now);
            state.paused = said.is_paused();
            state.paused
        };
        if !paused {
            open.hand_out(&run, now);
            open.expire(&run, now);
        }
        open.wake_if_closed();
        let next = open.next_event(&run).filter(|_| !paused);
        let due = async {
            match next {
                Some(at) => pacer.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = run.changed() => {}
            changed = control.changed() => if changed.is_err() { return },
        }
    }
}
