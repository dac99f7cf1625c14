//! A run with a simulated fleet: a seeded scheduler, a clock of its own, and everything that can go wrong between a daemon and its workers.
//!
//! The daemon is the real state machine, driven as `control/runs` drives it: what cannot be taken back waits for the state to be saved, a
//! daemon that is killed goes on from what was saved, what is wanted of workers is told anew on each connection. Workers do as
//! `muster worker` does: one run at a time, repeats change nothing, milestones are kept and told again, a dead-man's switch of their own.
//! A failing seed prints itself with what happened last; [`one_seed`] plays it again.

mod fleet;
mod worker;

use super::{SECOND, hook, timed, worker as worker_id};
use crate::lifecycle::event::{Event, StopMode};
use crate::lifecycle::plan::{PhasePlan, RunPlan};
use crate::lifecycle::state::{Position, later};
use crate::model::load::OnTimeout;
use crate::model::plan::{HookWhen, OnChange};
use crate::model::run::{EndingKind, InvalidReason, Stage};
use fleet::Daemon;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;
use worker::{Order, Say, Worker};

/// As many as a quick suite can afford.
const SEEDS: u64 = 3_000;
/// How often daemon and workers look at their clocks.
const LOOK: u64 = 250;
/// No run of these takes longer, in milliseconds, whatever happens to it.
const HORIZON: u64 = 90 * 60 * 1_000;
/// What iterations in flight get of a worker that lost its owner.
const ORPHAN_GRACE: u64 = 30_000;
/// Workers that are gone for so long are lost, or for half the orphan timeout.
const GRACE: u64 = 10_000;
/// The last so many lines of a failing seed are shown.
const TRACE: usize = 80;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `0..bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillWorker(usize),
    /// The connections of a worker, or of all, for so many milliseconds.
    Cut(Option<usize>, u64),
    /// The daemon, for so many milliseconds.
    KillDaemon(u64),
    Stop(StopMode),
    HandPause(u64),
}

/// Something that happens at an instant.
#[derive(Debug, Clone)]
enum Item {
    Look,
    Fault(Fault),
    Person(Event),
    Restart,
    /// What was asked for came about, unless another daemon drives the run by now.
    Answer(u32, Event),
    Saved(u32, u64),
    /// Over a connection, by its number.
    ToWorker(usize, u32, Order),
    ToDaemon(usize, u32, usize, Say),
    Redial(usize),
    Wake(usize),
    EndStored(usize),
}

struct Sim {
    seed: u64,
    rng: Rng,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    items: Vec<Option<Item>>,
    plan: RunPlan,
    daemon: Daemon,
    workers: Vec<Worker>,
    delay_max: u64,
    trace: VecDeque<String>,
    /// What the faults so far allow as an ending.
    may_fail: bool,
    must_stop: bool,
    killed_in_load: u32,
}

fn any_plan(rng: &mut Rng) -> RunPlan {
    let phases = (0..=rng.below(3)).map(|_| match rng.below(4) {
        0 => PhasePlan::Iterations {
            at_most: SECOND * 10,
            graceful: SECOND * 2,
        },
        1 => PhasePlan::Pause {
            timeout: SECOND * 9,
            on_timeout: OnTimeout::Continue,
        },
        _ => timed(1 + rng.below(15)),
    });
    let mut phases: Vec<PhasePlan> = phases.collect();
    phases.push(timed(5));
    RunPlan {
        phases,
        hooks: vec![hook("before", HookWhen::PreRun), hook("after", HookWhen::PostRun)],
        workers: 1 + rng.below(6) as u32,
        ready_timeout: SECOND * 60,
        orphan_timeout: SECOND * if rng.one_in(2) { 5 } else { 60 },
        max_lost_workers: rng.below(2) as u32,
        on_change: OnChange::Finish,
        not_before: rng
            .one_in(2)
            .then(|| later(Timestamp::UNIX_EPOCH, SECOND * rng.below(40) as u32)),
    }
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let plan = any_plan(&mut rng);
        let workers = (0..plan.workers).map(|_| Worker::default()).collect();
        let delay_max = [2, 20, 100, 400][rng.below(4) as usize];
        let mut sim = Self {
            seed,
            rng,
            now: 0,
            queue: BinaryHeap::new(),
            items: Vec::new(),
            daemon: Daemon::new(),
            plan,
            workers,
            delay_max,
            trace: VecDeque::new(),
            may_fail: false,
            must_stop: false,
            killed_in_load: 0,
        };
        for worker in 0..sim.workers.len() {
            sim.at(0, Item::Redial(worker));
        }
        for _ in 0..sim.rng.below(4) {
            let (fault, at) = (sim.any_fault(), sim.rng.below(40_000));
            sim.at(at, Item::Fault(fault));
        }
        sim.at(0, Item::Look);
        sim
    }

    fn any_fault(&mut self) -> Fault {
        let worker = self.rng.below(self.workers.len() as u64) as usize;
        let most = if self.rng.one_in(3) { 120_000 } else { 2_000 };
        let long = 100 + self.rng.below(most);
        match self.rng.below(10) {
            0 | 1 => Fault::KillWorker(worker),
            2..=4 => Fault::Cut((!self.rng.one_in(3)).then_some(worker), long),
            5..=7 => Fault::KillDaemon(long),
            8 => Fault::Stop([StopMode::Graceful, StopMode::Abort][self.rng.below(2) as usize]),
            _ => Fault::HandPause(long.min(60_000)),
        }
    }

    /// Has something happen in so many milliseconds. What is due at the same instant happens in the order it was asked for.
    fn at(&mut self, delay: u64, item: Item) {
        let number = self.items.len();
        self.items.push(Some(item));
        self.queue.push(Reverse((self.now + delay, number as u64, number)));
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
            .checked_add(Duration::from_millis(self.now))
            .expect("in range")
    }

    fn note(&mut self, line: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9} {line}", self.now));
    }

    fn check(&self, holds: bool, law: &str) {
        if !holds {
            let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
            let (seed, plan, state) = (self.seed, &self.plan, &self.daemon.state);
            panic!("seed {seed}: {law}\n{plan:?}\n{state:?}\n{}", trace.join("\n"));
        }
    }

    /// Plays until the run is over and for a while longer, in which nothing may happen but workers being set free.
    fn play(mut self) {
        let mut until = HORIZON;
        while let Some(Reverse((at, _, number))) = self.queue.pop() {
            if at > until {
                break;
            }
            self.now = at;
            let Some(item) = self.items[number].take() else {
                continue;
            };
            let was_finished = self.daemon.is_finished();
            self.happen(item);
            if self.daemon.is_finished() && !was_finished {
                until = self.now + 150_000;
            }
        }
        self.check(self.daemon.is_finished(), "the run ends within its deadlines");
        for worker in &self.workers {
            self.check(
                !worker.holds(),
                "every worker that is there is free in the end, every other one is gone",
            );
        }
        self.judge();
    }

    fn judge(&self) {
        let kind = self.daemon.state.final_ending().map(|ending| ending.kind);
        self.check(kind.is_some(), "a finished run has an ending");
        if self.must_stop {
            self.check(kind == Some(EndingKind::Stopped), "a stop in time is the ending");
        } else if !self.may_fail {
            self.check(
                kind == Some(EndingKind::Passed),
                "what a run must bear does not change its ending",
            );
        }
        if kind == Some(EndingKind::Passed) {
            let most = self.plan.max_lost_workers;
            self.check(
                self.killed_in_load <= most,
                "a run that lost more workers than it may has not passed",
            );
            let state = &self.daemon.state;
            let whole = |(index, worker): (usize, &Worker)| {
                state.lost.contains_key(&worker_id(index as u128)) || worker.phases == self.load_phases()
            };
            let all = self.workers.iter().enumerate().all(whole);
            self.check(
                all,
                "where a run passed, every worker that is not lost made every phase",
            );
        }
        if kind == Some(EndingKind::Invalid(InvalidReason::Workers)) {
            let lost = self.daemon.state.lost.len();
            self.check(lost > 0, "lost workers are named");
        }
    }

    fn load_phases(&self) -> Vec<u32> {
        let phases = (0..).zip(&self.plan.phases);
        let load = phases.filter(|(_, phase)| !matches!(phase, PhasePlan::Pause { .. }));
        load.map(|(index, _)| index).collect()
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Look => self.look(),
            Item::Fault(fault) => self.break_something(fault),
            Item::Person(event) if self.daemon.up => self.step(&event),
            Item::Person(event) => self.at(1_000, Item::Person(event)),
            Item::Restart => self.restart(),
            Item::Answer(boot, event) => self.answer(boot, &event),
            Item::Saved(boot, generation) => self.saved(boot, generation),
            Item::ToWorker(worker, connection, order) => self.send_to_worker(worker, connection, order),
            Item::ToDaemon(worker, connection, number, say) => self.send_to_daemon(worker, connection, number, say),
            Item::Redial(worker) => self.redial(worker),
            Item::Wake(worker) => self.wake(worker),
            Item::EndStored(worker) => self.workers[worker].end_stored = true,
        }
    }

    fn look(&mut self) {
        self.at(LOOK, Item::Look);
        self.daemon_looks();
        for worker in 0..self.workers.len() {
            self.worker_looks(worker);
            let (orphan, heard) = (self.plan.orphan_timeout.as_millis() as u64, self.workers[worker].heard);
            let limit = heard + orphan + ORPHAN_GRACE + 2 * LOOK;
            let in_time = !self.workers[worker].makes_load(self.now) || self.now <= limit;
            self.check(in_time, "load stops within the orphan timeout and the grace behind it");
        }
    }

    fn break_something(&mut self, fault: Fault) {
        self.note(format!("{fault:?} in {:?}", self.daemon.state.position));
        let steady = matches!(
            self.daemon.state.position,
            Position::Running { .. } | Position::PausePhase { .. }
        );
        let short = (self.plan.orphan_timeout.as_millis() as u64 / 2).min(GRACE) - 2 * LOOK;
        let is_over = self.daemon.is_finished();
        match fault {
            Fault::KillWorker(worker) => {
                self.may_fail |= !is_over;
                self.kill_worker(worker);
            }
            Fault::Cut(worker, long) => {
                self.may_fail |= !(is_over || steady && long < short);
                self.cut(worker, long);
            }
            Fault::KillDaemon(long) => {
                self.may_fail |= !(is_over || steady && long < short);
                self.kill_daemon(long);
            }
            Fault::Stop(mode) if self.daemon.up => {
                let state = &self.daemon.state;
                let is_over = matches!(
                    state.stage(),
                    Stage::Draining | Stage::Verifying | Stage::CleaningUp | Stage::Finished
                );
                self.must_stop |= !is_over && state.ending.is_none();
                self.may_fail = true;
                let who = "li".to_owned();
                self.step(&match mode {
                    StopMode::Graceful => Event::Stop { who },
                    StopMode::Abort => Event::Abort { who },
                });
            }
            Fault::HandPause(long) if self.daemon.up => {
                let who = || "li".to_owned();
                self.step(&Event::Pause { who: who() });
                self.at(long, Item::Person(Event::Resume { who: who() }));
            }
            Fault::Stop(_) | Fault::HandPause(_) => {}
        }
    }
}

#[test]
fn s35_s38_s41_s42_a_run_comes_to_its_right_end_whatever_dies_or_is_cut() {
    for seed in 0..SEEDS {
        Sim::new(seed).play();
    }
}

/// Plays one seed: the place to put one that failed.
#[test]
fn one_seed() {
    Sim::new(0).play();
}
