//! One phase on one thread: its users, and who decides when an iteration begins (k6's six executors).

use crate::arrivals::{self, Open};
use crate::control::Control;
use crate::engine::{Scope, User};
use crate::lane::Lane;
use crate::pacing::sleep_until_or_forever;
use muster_core::lifecycle::vus::Vus;
use muster_core::measure::slice::ErrorKind;
use muster_core::model::load::{Executor, Segment};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// A phase that runs on this thread, or whose last iterations do.
pub(crate) struct PhaseRun {
    pub(crate) lane: Rc<Lane>,
    pub(crate) index: usize,
    /// When it began; the owner's pauses come on top.
    pub(crate) begin: Instant,
    pub(crate) open: Option<Open>,
    closed: Cell<bool>,
    alive: Cell<u64>,
    changed: Notify,
    users: RefCell<HashMap<u64, AbortHandle>>,
    next_user: Cell<u64>,
    manager: RefCell<Option<AbortHandle>>,
}

/// Why a user begins another iteration.
enum Role {
    /// For as long as the phase lasts and nobody took it away.
    Loop(Rc<Cell<bool>>),
    /// So many times.
    Times(u64),
    /// As long as the worker's share of so many is not used up.
    Shared(u64),
    /// For each arrival it gets.
    Arrivals,
}

impl PhaseRun {
    /// Starts the phase's users, or the task that does.
    pub(crate) fn start(
        lane: Rc<Lane>,
        index: usize,
        (executor, segment): (&Executor, Option<Segment>),
        begin: Instant,
    ) -> Rc<Self> {
        let open = segment.and_then(|segment| Open::new(executor, segment));
        lane.made.set(0);
        let run = Rc::new(Self {
            index,
            begin,
            open,
            closed: Cell::new(false),
            alive: Cell::new(0),
            changed: Notify::new(),
            users: RefCell::default(),
            next_user: Cell::new(0),
            manager: RefCell::default(),
            lane,
        });
        let Some(segment) = segment else { return run };
        let vus = Vus::new(executor);
        let now = vus.as_ref().map_or(0, |vus| vus.own_at(Duration::ZERO, segment));
        match executor {
            Executor::ConstantVus { .. } => run.spawn_users(now, || Role::Loop(Rc::default())),
            Executor::PerVuIterations { iterations, .. } => run.spawn_users(now, || Role::Times(*iterations)),
            Executor::SharedIterations { iterations, .. } => run.spawn_users(now, || Role::Shared(*iterations)),
            Executor::RampingVus { graceful_ramp_down, .. } => {
                if let Some(vus) = vus {
                    let manager = ramp(run.clone(), vus, segment, *graceful_ramp_down);
                    run.manage(manager);
                }
            }
            Executor::ConstantArrivalRate { .. } | Executor::RampingArrivalRate { .. } => {
                run.manage(arrivals::dispatch(run.clone()));
            }
        }
        run
    }

    fn manage(&self, manager: impl Future<Output = ()> + 'static) {
        let handle = tokio::task::spawn_local(manager).abort_handle();
        *self.manager.borrow_mut() = Some(handle);
    }

    fn spawn_users(self: &Rc<Self>, count: u64, role: impl Fn() -> Role) {
        for _ in 0..count {
            self.spawn(role());
        }
    }

    pub(crate) fn spawn_for_arrivals(self: &Rc<Self>) {
        self.spawn(Role::Arrivals);
    }

    fn spawn(self: &Rc<Self>, role: Role) -> u64 {
        let id = self.next_user.get();
        self.next_user.set(id + 1);
        self.alive.set(self.alive.get() + 1);
        self.lane.made.set(self.lane.made.get() + 1);
        let alive = Alive { run: self.clone(), id };
        let task = tokio::task::spawn_local(user(alive, role));
        self.users.borrow_mut().insert(id, task.abort_handle());
        id
    }

    /// No further iteration begins. Arrivals that wait are still served, unless `now`.
    pub(crate) fn close(&self, now: bool) {
        self.closed.set(true);
        if let Some(open) = &self.open {
            open.close(now);
        }
        self.changed.notify_waiters();
    }

    /// There are no data for further iterations: no user begins one, and arrivals that wait are given up.
    pub(crate) fn give_up(&self) {
        let waiting = self.open.as_ref().map_or(0, Open::give_up);
        for _ in 0..waiting {
            self.without_data(self.lane.deck.draw(&self.lane.rng));
        }
        self.close(true);
    }

    /// Counts an iteration for which there was no row.
    fn without_data(&self, scenario: usize) {
        let shared = &self.lane.shared;
        let series = self.index * shared.series.per_phase + shared.script.iteration_series(scenario);
        let mut recorder = self.lane.recorder.borrow_mut();
        recorder.error(series, Instant::now(), ErrorKind::DataUsedUp, "every row was used once");
    }

    /// Waits until the phase closes or its last user is gone.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Cuts off what still runs, and counts it.
    pub(crate) fn cut(&self) {
        if let Some(manager) = self.manager.borrow_mut().take() {
            manager.abort();
        }
        let users: Vec<AbortHandle> = self.users.borrow_mut().drain().map(|(_, user)| user).collect();
        users.iter().for_each(AbortHandle::abort);
        if let Some(open) = &self.open {
            open.drop_waiting(self, Instant::now());
        }
    }

    /// Waits until no user is left.
    pub(crate) async fn gone(&self) {
        loop {
            let changed = self.changed.notified();
            if self.alive.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// How much later everything is by the owner's pauses.
    pub(crate) fn frozen(&self, control: &Control, now: Instant) -> Duration {
        control.frozen(self.begin, now)
    }

    /// Whether a user of a closed executor may begin another iteration; waits while the owner pauses.
    async fn may_begin(&self) -> bool {
        if self.lane.paused.get() {
            let mut control = self.lane.control.clone();
            while control.borrow_and_update().is_paused() && !self.closed.get() {
                tokio::select! {
                    changed = control.changed() => if changed.is_err() { return false },
                    () = self.changed.notified() => {}
                }
            }
        }
        !self.closed.get()
    }
}

/// Counts a user for as long as its task lives, however that ends.
struct Alive {
    run: Rc<PhaseRun>,
    id: u64,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.run.alive.set(self.run.alive.get() - 1);
        // The handle would keep the ended task's memory.
        if let Ok(mut users) = self.run.users.try_borrow_mut() {
            users.remove(&self.id);
        }
        if self.run.alive.get() == 0 {
            self.run.changed.notify_waiters();
        }
    }
}

/// A virtual user: its own connections and cookies, one iteration after another.
async fn user(alive: Alive, mut role: Role) {
    let run = &alive.run;
    let mut user = User::new(&run.lane);
    let slot = Rc::default();
    loop {
        let intended = match &mut role {
            Role::Loop(stop) if stop.get() => return,
            Role::Loop(_) if run.may_begin().await => None,
            Role::Times(left) if *left > 0 && run.may_begin().await => {
                *left -= 1;
                None
            }
            Role::Shared(all) if run.may_begin().await && run.lane.shared.take_iteration(run.index, *all) => None,
            Role::Arrivals => match &run.open {
                Some(open) => match open.next(run, &slot).await {
                    Some(intended) => Some(intended),
                    None => return,
                },
                None => return,
            },
            Role::Loop(_) | Role::Times(_) | Role::Shared(_) => return,
        };
        if !iterate(run, &mut user, intended).await {
            return;
        }
        // An iteration that needed no I/O must not keep the thread to itself.
        tokio::task::coop::consume_budget().await;
    }
}

/// False: there are no data for it.
async fn iterate(run: &PhaseRun, user: &mut User, intended: Option<Instant>) -> bool {
    let lane = &run.lane;
    let scope = Scope {
        lane,
        series: run.index * lane.shared.series.per_phase,
        scenario: lane.deck.draw(&lane.rng),
        begin: Instant::now(),
        intended,
    };
    if !user.take_rows(&scope) {
        run.without_data(scope.scenario);
        lane.shared.used_up.send_replace(true);
        return false;
    }
    if intended.is_none() {
        // In a closed phase an iteration arrives when its user begins it.
        lane.recorder.borrow_mut().arrivals(run.index, scope.begin, 1);
    }
    let iteration = Iteration::begin(&scope);
    let end = user.iterate(&scope).await;
    iteration.end(end);
    true
}

/// An iteration in flight: dropped before its end, it counts as interrupted.
struct Iteration<'a> {
    lane: &'a Lane,
    series: usize,
    begin: Instant,
    ended: bool,
}

impl<'a> Iteration<'a> {
    fn begin(scope: &Scope<'a>) -> Self {
        scope.lane.active.set(scope.lane.active.get() + 1);
        Self {
            lane: scope.lane,
            series: scope.series + scope.lane.shared.script.iteration_series(scope.scenario),
            begin: scope.begin,
            ended: false,
        }
    }

    fn end(mut self, now: Instant) {
        self.ended = true;
        let mut recorder = self.lane.recorder.borrow_mut();
        recorder.iteration(self.series, now, now - self.begin);
    }
}

impl Drop for Iteration<'_> {
    fn drop(&mut self) {
        self.lane.active.set(self.lane.active.get() - 1);
        if !self.ended {
            let mut recorder = self.lane.recorder.borrow_mut();
            recorder.interrupted(self.series, Instant::now());
        }
    }
}

/// Keeps as many users as the ramp wants at each instant. Who is taken away first is who came last; it may finish its iteration within the
/// graceful ramp-down, and comes back to work if it is wanted again before.
async fn ramp(run: Rc<PhaseRun>, vus: Vus, segment: Segment, grace: Duration) {
    let mut control = run.lane.control.clone();
    let mut working: Vec<(u64, Rc<Cell<bool>>)> = Vec::new();
    let mut leaving: VecDeque<(Instant, u64, Rc<Cell<bool>>)> = VecDeque::new();
    loop {
        let now = Instant::now();
        let (paused, frozen) = {
            let said = control.borrow_and_update();
            (said.is_paused(), run.frozen(&said, now))
        };
        let elapsed = now.saturating_duration_since(run.begin + frozen);
        let wanted = if run.is_closed() {
            working.len() as u64
        } else {
            vus.own_at(elapsed, segment)
        };
        while (working.len() as u64) > wanted
            && let Some((id, stop)) = working.pop()
        {
            stop.set(true);
            leaving.push_back((now + grace, id, stop));
        }
        leaving.retain(|(_, id, _)| run.users.borrow().contains_key(id));
        while (working.len() as u64) < wanted {
            match leaving.pop_back() {
                Some((_, id, stop)) => {
                    stop.set(false);
                    working.push((id, stop));
                }
                None => {
                    let stop = Rc::new(Cell::new(false));
                    working.push((run.spawn(Role::Loop(stop.clone())), stop));
                }
            }
        }
        while let Some((_, id, _)) = leaving.pop_front_if(|(deadline, ..)| *deadline <= now) {
            let user = run.users.borrow_mut().remove(&id);
            user.inspect(AbortHandle::abort);
        }
        let change = vus
            .next_change(elapsed, segment)
            .filter(|_| !paused && !run.is_closed());
        let change = change.map(|at| run.begin + frozen + at);
        let next = change.into_iter().chain(leaving.front().map(|(at, ..)| *at)).min();
        tokio::select! {
            () = sleep_until_or_forever(next) => {}
            () = run.changed() => {}
            changed = control.changed() => if changed.is_err() { return },
        }
    }
}
