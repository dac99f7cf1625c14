//! A worker's side: what `muster worker` does with commands and time, without a process, a socket or a request.

use super::{Item, ORPHAN_GRACE, Sim};
use crate::lifecycle::deadline::BARRIER;
use crate::lifecycle::event::StopMode;
use crate::lifecycle::plan::PhasePlan;

/// What a worker is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Heartbeat,
    Prepare,
    /// Which order, and the instant.
    Arm(u64, u64),
    Commit,
    Advance(u32, u64),
    /// Or go on.
    Pause(bool),
    Stop(StopMode),
    Release,
}

/// A milestone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    Prepared,
    Armed,
    Started,
    PhaseStarted(u32),
    PhaseEnded(u32),
    Waiting(u32),
    Ended,
    Orphaned,
    CommitTooLate,
}

#[derive(Default)]
pub(super) struct Worker {
    dead: bool,
    /// Its connection; 0: none. Each is another number.
    connection: u32,
    connections: u32,
    /// A cut lasts until then.
    cut_until: u64,
    /// What is on its way to it and from it arrives in order.
    inbound: u64,
    outbound: u64,
    /// When its owner was heard last.
    pub heard: u64,
    orphaned: bool,
    stage: Stage,
    history: Vec<Say>,
    /// The phases that it began.
    pub phases: Vec<u32>,
    pub end_stored: bool,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Preparing(u64),
    Ready(Option<(u64, u64)>),
    Running(Load),
    Over,
}

struct Load {
    start: u64,
    started: bool,
    phase: u32,
    /// When the phase begins, and whether it needs a word before.
    begin: u64,
    needs_word: bool,
    heard: Option<u32>,
    word: Option<(u32, u64)>,
    /// The phase's border, once it has begun; `None`: it has not.
    border: Option<u64>,
    waits: bool,
    paused_since: Option<u64>,
    stop: Option<StopMode>,
    /// Load is over then.
    over_at: Option<u64>,
}

impl Worker {
    /// Whether it has a run.
    pub fn holds(&self) -> bool {
        !self.dead && !matches!(self.stage, Stage::Idle)
    }

    pub fn makes_load(&self, now: u64) -> bool {
        !self.dead && matches!(&self.stage, Stage::Running(load) if load.start <= now)
    }

    /// Later than what was sent before on the same connection.
    pub fn arrives_after(&mut self, at: u64) -> u64 {
        self.inbound = self.inbound.max(at);
        self.inbound
    }
}

impl Sim {
    fn say(&mut self, worker: usize, say: Say) {
        self.workers[worker].history.push(say);
        if matches!(say, Say::PhaseStarted(_) | Say::Ended | Say::Orphaned) {
            self.note(format!("worker {worker} says {say:?}"));
        }
        self.tell_daemon(worker, self.workers[worker].history.len() - 1);
    }

    fn tell_daemon(&mut self, worker: usize, number: usize) {
        let delay = self.delay();
        let one = &mut self.workers[worker];
        if one.connection == 0 {
            return;
        }
        one.outbound = one.outbound.max(self.now + delay);
        let (say, connection, due) = (one.history[number], one.connection, one.outbound);
        self.at(due - self.now, Item::ToDaemon(worker, connection, number, say));
        if self.rng.one_in(8) {
            self.at(due - self.now, Item::ToDaemon(worker, connection, number, say));
        }
    }

    /// Dials in, if there is anybody to answer; else again soon.
    pub(super) fn redial(&mut self, worker: usize) {
        let now = self.now;
        let one = &mut self.workers[worker];
        if one.dead || one.connection != 0 {
            return;
        }
        if one.cut_until > now || !self.daemon.up {
            let pause = 100 + self.rng.below(900);
            self.at(pause, Item::Redial(worker));
            return;
        }
        one.connections += 1;
        one.connection = one.connections;
        one.heard = now;
        (one.inbound, one.outbound) = (now, now);
        let (connection, told) = (one.connection, one.history.len());
        self.joined(worker, connection);
        for number in 0..told {
            self.tell_daemon(worker, number);
        }
    }

    /// The connection is over; what was on its way is lost.
    pub(super) fn hang_up(&mut self, worker: usize) {
        let one = &mut self.workers[worker];
        if std::mem::take(&mut one.connection) != 0 {
            let pause = 1 + self.rng.below(200);
            self.at(pause, Item::Redial(worker));
        }
        self.parted(worker);
    }

    pub(super) fn cut(&mut self, worker: Option<usize>, long: u64) {
        for index in 0..self.workers.len() {
            if worker.is_none_or(|worker| worker == index) {
                let until = self.now + long;
                let cut_until = &mut self.workers[index].cut_until;
                *cut_until = until.max(*cut_until);
                self.hang_up(index);
            }
        }
    }

    pub(super) fn kill_worker(&mut self, worker: usize) {
        let one = &mut self.workers[worker];
        let in_load = !one.dead && matches!(one.stage, Stage::Running(_));
        one.dead = true;
        self.killed_in_load += u32::from(in_load);
        self.hang_up(worker);
    }

    pub(super) fn send_to_worker(&mut self, worker: usize, connection: u32, order: Order) {
        let now = self.now;
        let one = &mut self.workers[worker];
        if one.dead || one.connection != connection {
            return;
        }
        one.heard = now;
        match (&mut one.stage, order) {
            (Stage::Idle, Order::Prepare) => {
                one.history.clear();
                let ready = now + 1 + self.rng.below(2_000);
                self.workers[worker].stage = Stage::Preparing(ready);
                self.wake_at(worker, ready);
            }
            (Stage::Ready(start), Order::Arm(order, at)) if start.is_none_or(|(old, _)| old < order) => {
                *start = Some((order, at));
                self.say(worker, Say::Armed);
            }
            (Stage::Ready(Some((_, at))), Order::Commit) => {
                let at = *at;
                if now > at + BARRIER.as_millis() as u64 {
                    self.over(worker, Say::CommitTooLate);
                } else {
                    one.stage = Stage::Running(Load {
                        start: at,
                        started: false,
                        phase: 0,
                        begin: at,
                        needs_word: false,
                        heard: None,
                        word: None,
                        border: None,
                        waits: false,
                        paused_since: None,
                        stop: None,
                        over_at: None,
                    });
                    self.wake_at(worker, at);
                }
            }
            (Stage::Running(load), Order::Advance(phase, at)) => {
                if load.word.is_none_or(|(last, _)| last < phase) {
                    load.word = Some((phase, at));
                }
                self.wake_at(worker, now);
            }
            (Stage::Running(load), Order::Pause(true)) => {
                load.paused_since.get_or_insert(now);
            }
            (Stage::Running(load), Order::Pause(false)) => {
                if let Some(since) = load.paused_since.take()
                    && let Some(border) = &mut load.border
                {
                    *border += now - since.max(load.begin.min(now));
                }
                self.wake_at(worker, now);
            }
            (Stage::Running(load), Order::Stop(mode)) => {
                load.stop = load.stop.max(Some(mode));
                if mode == StopMode::Abort {
                    load.over_at = Some(load.over_at.map_or(now, |at| at.min(now)));
                }
                self.wake_at(worker, now);
            }
            (Stage::Preparing(_) | Stage::Ready(_), Order::Stop(_)) => self.over(worker, Say::Ended),
            (_, Order::Release) => {
                one.stage = Stage::Idle;
                one.history.clear();
            }
            _ => {}
        }
    }

    fn wake_at(&mut self, worker: usize, at: u64) {
        self.at(at.saturating_sub(self.now), Item::Wake(worker));
    }

    /// The session's end goes behind its frames; it is stored a little later, if the process lives so long.
    fn over(&mut self, worker: usize, say: Say) {
        self.workers[worker].stage = Stage::Over;
        self.say(worker, say);
        let delay = 1 + self.rng.below(1_500);
        self.at(delay, Item::EndStored(worker));
    }

    pub(super) fn wake(&mut self, worker: usize) {
        let now = self.now;
        if self.workers[worker].dead {
            return;
        }
        if matches!(self.workers[worker].stage, Stage::Preparing(at) if at <= now) {
            self.workers[worker].stage = Stage::Ready(None);
            self.say(worker, Say::Prepared);
        }
        while self.play_on(worker) {}
    }

    /// One thing that the generator does by its clock; false: it waits for the next.
    fn play_on(&mut self, worker: usize) -> bool {
        let now = self.now;
        let grace = self.rng.below(self.plan.longest_grace().as_millis() as u64 + 1);
        let last = self.rng.below(10_000);
        let orphaned = self.workers[worker].orphaned;
        let Stage::Running(load) = &mut self.workers[worker].stage else {
            return false;
        };
        if let Some(at) = load.over_at {
            if at > now {
                self.wake_at(worker, at);
                return false;
            }
            self.over(worker, if orphaned { Say::Orphaned } else { Say::Ended });
            self.workers[worker].dead |= orphaned;
            if orphaned {
                self.hang_up(worker);
            }
            return false;
        }
        if load.stop.is_some() {
            load.over_at = Some(now + grace);
            return true;
        }
        let phase = load.phase;
        let Some(plan) = self.plan.phase(phase) else {
            load.over_at = Some(now.max(load.begin) + grace);
            return true;
        };
        if let Some(border) = load.border {
            if load.paused_since.is_some() {
                return false;
            }
            if border > now {
                self.wake_at(worker, border);
                return false;
            }
            load.needs_word = matches!(plan, PhasePlan::Iterations { .. });
            (load.phase, load.begin, load.border) = (phase + 1, border, None);
            self.say(worker, Say::PhaseEnded(phase));
            return true;
        }
        let is_pause = matches!(plan, PhasePlan::Pause { .. });
        if is_pause || load.needs_word {
            let heard = load.heard;
            let word = load
                .word
                .filter(|(to, _)| *to >= phase && heard.is_none_or(|heard| *to > heard));
            let Some((to, at)) = word else {
                let waits = std::mem::replace(&mut load.waits, true);
                if !waits {
                    self.say(worker, Say::Waiting(phase));
                }
                return false;
            };
            (load.heard, load.begin, load.needs_word, load.waits) = (Some(to), at, false, false);
            load.phase = to.max(phase + u32::from(is_pause));
            return true;
        }
        if load.begin > now {
            let begin = load.begin;
            self.wake_at(worker, begin);
            return false;
        }
        let lasts = match plan {
            PhasePlan::Timed { lasts, .. } => lasts.as_millis() as u64,
            PhasePlan::Iterations { at_most, .. } => last.min(at_most.as_millis() as u64),
            PhasePlan::Pause { .. } => 0,
        };
        load.border = Some(load.begin + lasts);
        if !std::mem::replace(&mut load.started, true) {
            self.say(worker, Say::Started);
        }
        self.workers[worker].phases.push(phase);
        self.say(worker, Say::PhaseStarted(phase));
        true
    }

    /// The dead-man's switch.
    pub(super) fn worker_looks(&mut self, worker: usize) {
        let (now, timeout) = (self.now, self.plan.orphan_timeout.as_millis() as u64);
        let one = &mut self.workers[worker];
        if one.dead || one.orphaned || now <= one.heard + timeout {
            return;
        }
        one.orphaned = true;
        match &mut one.stage {
            Stage::Running(load) => {
                let grace = self.rng.below(ORPHAN_GRACE);
                load.over_at.get_or_insert(now + grace);
                self.wake_at(worker, now);
            }
            _ => {
                one.dead = true;
                self.hang_up(worker);
            }
        }
    }
}
