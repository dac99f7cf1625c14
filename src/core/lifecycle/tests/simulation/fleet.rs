//! The daemon's side: one run driven through the state machine, what is wanted of its workers, who of them is there.

use super::super::worker as worker_id;
use super::worker::{Order, Say};
use super::{GRACE, Item, LOOK, Sim};
use crate::lifecycle::deadline::ADVANCE_LEAD;
use crate::lifecycle::effects::effects_of;
use crate::lifecycle::event::{Effect, Event, StopMode, Word};
use crate::lifecycle::state::{Position, RunState};
use crate::lifecycle::step::step;
use std::collections::BTreeSet;

/// A sign of life to each worker, every so many looks.
const HEARTBEAT: u64 = 1_000;

pub(super) struct Daemon {
    pub up: bool,
    /// Counts daemons.
    boot: u32,
    pub state: RunState,
    generation: u64,
    /// What another daemon would find, and which state that is.
    saved: (u64, RunState),
    /// Effects that this daemon has begun and not given up.
    begun: BTreeSet<Effect>,
    wanted: Wanted,
    /// The attempt to arm that workers were last told of.
    attempt: u32,
    members: Vec<Member>,
}

/// What workers are told, anew on each connection.
#[derive(Default)]
struct Wanted {
    prepare: bool,
    arm: Option<(u64, u64)>,
    commit: bool,
    advance: Option<(u32, u64)>,
    paused: Option<bool>,
    stop: Option<StopMode>,
    releasing: bool,
}

#[derive(Default, Clone)]
struct Member {
    /// Number of its connection; `None`: it has none since.
    connection: Option<u32>,
    gone_since: u64,
    lost: bool,
    /// How many of its milestones are known.
    known: usize,
}

impl Daemon {
    pub fn new() -> Self {
        let state = RunState::new(jiff::Timestamp::UNIX_EPOCH);
        Self {
            up: true,
            boot: 0,
            saved: (0, state.clone()),
            state,
            generation: 0,
            begun: BTreeSet::new(),
            wanted: Wanted::default(),
            attempt: 0,
            members: Vec::new(),
        }
    }

    pub fn is_finished(&self) -> bool {
        self.state.is_finished() && self.saved.1.is_finished()
    }
}

impl Sim {
    /// One step of the real state machine.
    pub(super) fn step(&mut self, event: &Event) {
        let now = self.timestamp();
        let (next, _) = step(&self.daemon.state, &self.plan, event, now);
        if next == self.daemon.state {
            return;
        }
        if next.position != self.daemon.state.position {
            self.note(format!("{event:?}: {:?}", next.position));
        }
        self.check(!self.daemon.state.is_finished(), "nothing leaves Finished");
        self.daemon.state = next;
        self.daemon.generation += 1;
        let delay = self.rng.below(30);
        self.at(delay, Item::Saved(self.daemon.boot, self.daemon.generation));
        self.follow_effects();
    }

    pub(super) fn saved(&mut self, boot: u32, generation: u64) {
        // Only the newest state is written; a save that comes late writes what is newest by then.
        if self.daemon.up && boot == self.daemon.boot && generation > self.daemon.saved.0 {
            self.daemon.saved = (self.daemon.generation, self.daemon.state.clone());
            self.follow_effects();
        }
    }

    pub(super) fn answer(&mut self, boot: u32, event: &Event) {
        if self.daemon.up && boot == self.daemon.boot {
            self.step(event);
        }
    }

    fn follow_effects(&mut self) {
        let wanted = effects_of(&self.daemon.state, &self.plan);
        self.check(
            !self.daemon.state.is_finished() || wanted.is_empty(),
            "nothing is done after Finished",
        );
        self.daemon.begun.retain(|effect| wanted.contains(effect));
        for effect in wanted {
            let waits = matches!(effect, Effect::RunHook { .. } | Effect::Prepare | Effect::Commit { .. });
            let is_saved = self.daemon.saved.0 >= self.daemon.generation;
            if (is_saved || !waits) && self.daemon.begun.insert(effect.clone()) {
                self.perform(&effect);
            }
        }
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Claim { .. } | Effect::Watch | Effect::AwaitDelivery => {}
            Effect::Prepare => self.want(|wanted| wanted.prepare = true, true),
            Effect::RunHook { hook, attempt } => {
                let (hook, attempt) = (*hook, *attempt);
                let event = Event::HookEnded {
                    hook,
                    attempt,
                    result: Ok(()),
                };
                self.reply(event);
            }
            Effect::Arm { attempt, at } => {
                let at = u64::try_from(at.as_millisecond()).expect("after the epoch");
                if at > self.now {
                    self.daemon.attempt = *attempt;
                    // Of this daemon's epoch: higher than any earlier one's.
                    let order = u64::from(self.daemon.boot) << 32 | u64::from(*attempt);
                    self.want(|wanted| wanted.arm = Some((order, at)), false);
                }
            }
            Effect::Commit { .. } => self.want(|wanted| wanted.commit = true, false),
            Effect::Tell { word, .. } => {
                let at = self.now + ADVANCE_LEAD.as_millis() as u64;
                let word = *word;
                let change = |wanted: &mut Wanted| match word {
                    Word::Advance { phase } if wanted.advance.is_none_or(|(last, _)| phase > last) => {
                        wanted.advance = Some((phase, at));
                    }
                    Word::Advance { .. } => {}
                    Word::Pause => wanted.paused = Some(true),
                    Word::Resume => wanted.paused = Some(false),
                };
                self.want(change, false);
            }
            Effect::Stop(mode) => {
                let mode = *mode;
                self.want(|wanted| wanted.stop = wanted.stop.max(Some(mode)), false);
            }
            Effect::Seal => self.reply(Event::Sealed),
            Effect::Judge => self.reply(Event::Judged(Vec::new())),
            Effect::Release => {
                self.want(|wanted| wanted.releasing = true, false);
                self.reply(Event::Released);
            }
            Effect::Report => self.reply(Event::Reported),
        }
    }

    fn reply(&mut self, event: Event) {
        let delay = 1 + self.rng.below(500);
        self.at(delay, Item::Answer(self.daemon.boot, event));
    }

    fn want(&mut self, change: impl FnOnce(&mut Wanted), from_start: bool) {
        change(&mut self.daemon.wanted);
        for worker in 0..self.workers.len() {
            self.tell(worker, from_start);
        }
    }

    /// Everything that is wanted of a worker, in order.
    fn tell(&mut self, worker: usize, from_start: bool) {
        let Some(connection) = self.member(worker).connection else {
            return;
        };
        let wanted = &self.daemon.wanted;
        let mut orders = Vec::new();
        if wanted.releasing || self.daemon.state.is_finished() {
            orders.push(Order::Release);
        } else if wanted.prepare {
            orders.extend(from_start.then_some(Order::Prepare));
            if let Some((order, at)) = wanted.arm {
                orders.push(Order::Arm(order, at));
                orders.extend(wanted.commit.then_some(Order::Commit));
            }
            orders.extend(wanted.advance.map(|(phase, at)| Order::Advance(phase, at)));
            orders.extend(wanted.paused.map(Order::Pause));
            orders.extend(wanted.stop.map(Order::Stop));
        }
        for order in orders {
            let is_release = matches!(order, Order::Release);
            self.check(
                !self.daemon.state.is_finished() || is_release,
                "nothing is sent after Finished but Release",
            );
            self.send(worker, connection, order);
        }
    }

    /// In order, late, now and then twice.
    fn send(&mut self, worker: usize, connection: u32, order: Order) {
        let delay = self.delay();
        let due = self.workers[worker].arrives_after(self.now + delay);
        self.at(due - self.now, Item::ToWorker(worker, connection, order));
        if self.rng.one_in(8) {
            self.at(due - self.now, Item::ToWorker(worker, connection, order));
        }
    }

    pub(super) fn delay(&mut self) -> u64 {
        1 + self.rng.below(self.delay_max)
    }

    fn member(&mut self, worker: usize) -> &mut Member {
        self.daemon.members.resize(self.workers.len(), Member::default());
        &mut self.daemon.members[worker]
    }

    pub(super) fn daemon_looks(&mut self) {
        if !self.daemon.up || self.daemon.is_finished() {
            return;
        }
        if self.daemon.state.position == Position::Pending {
            self.step(&Event::Begin);
        }
        if self.timestamp() >= self.daemon.state.deadline {
            self.step(&Event::Tick);
            let left = self.daemon.state.is_finished() || self.daemon.state.deadline > self.timestamp();
            self.check(left, "no position outlives its deadline");
        }
        let grace = GRACE.min(self.plan.orphan_timeout.as_millis() as u64 / 2);
        for worker in 0..self.workers.len() {
            let now = self.now;
            let member = self.member(worker);
            if member.connection.is_none() && !member.lost && now >= member.gone_since + grace {
                member.lost = true;
                self.step(&Event::Lost(
                    worker_id(worker as u128),
                    "it is not connected".to_owned(),
                ));
            }
            if let Some(connection) = self.member(worker).connection
                && now % HEARTBEAT < LOOK
            {
                self.send(worker, connection, Order::Heartbeat);
            }
        }
        self.look_after_effects();
    }

    /// Effects that wait for something of the world.
    fn look_after_effects(&mut self) {
        let boot = self.daemon.boot;
        match self.daemon.state.position {
            Position::Provisioning => {
                let count = self.workers.len();
                let all_free =
                    (0..count).all(|worker| self.member(worker).connection.is_some() && !self.workers[worker].holds());
                if all_free {
                    let set = (0..count as u128).map(worker_id).collect();
                    self.at(0, Item::Answer(boot, Event::Claimed(set)));
                }
            }
            Position::Delivering => {
                let arrived = |worker: usize| {
                    self.workers[worker].end_stored || self.daemon.state.lost.contains_key(&worker_id(worker as u128))
                };
                if (0..self.workers.len()).all(arrived) {
                    self.at(0, Item::Answer(boot, Event::Delivered));
                }
            }
            Position::PausePhase { .. } if self.rng.one_in(12) => {
                let who = "li".to_owned();
                self.step(&Event::Resume { who });
            }
            _ => {}
        }
    }

    /// A worker said Hello: both sides tell each other everything.
    pub(super) fn joined(&mut self, worker: usize, connection: u32) {
        let member = self.member(worker);
        member.connection = Some(connection);
        self.tell(worker, true);
    }

    pub(super) fn parted(&mut self, worker: usize) {
        let now = self.now;
        let member = self.member(worker);
        if member.connection.take().is_some() {
            member.gone_since = now;
        }
    }

    pub(super) fn send_to_daemon(&mut self, worker: usize, connection: u32, number: usize, say: Say) {
        if !self.daemon.up || self.member(worker).connection != Some(connection) {
            return;
        }
        if number < self.member(worker).known {
            return;
        }
        let follows = number == self.member(worker).known;
        self.check(follows, "milestones come in order, none left out");
        self.member(worker).known += 1;
        let id = worker_id(worker as u128);
        let event = match say {
            Say::Prepared => Event::Prepared(id),
            Say::Armed => Event::Armed {
                worker: id,
                attempt: self.daemon.attempt,
            },
            Say::Started => Event::Started(id),
            Say::PhaseStarted(phase) => Event::PhaseStarted { worker: id, phase },
            Say::PhaseEnded(phase) => Event::PhaseEnded { worker: id, phase },
            Say::Waiting(phase) => Event::Waiting { worker: id, phase },
            Say::Ended => Event::Ended(id),
            Say::Orphaned => Event::Lost(id, "it had not heard from the daemon".to_owned()),
            Say::CommitTooLate => Event::Refused(id, "the commit came after the start".to_owned()),
        };
        self.step(&event);
    }

    pub(super) fn kill_daemon(&mut self, long: u64) {
        if !self.daemon.up {
            return;
        }
        if self.daemon.saved.0 < self.daemon.generation {
            // What a person said just now died with it.
            self.must_stop = false;
            self.may_fail = true;
        }
        self.daemon.up = false;
        for worker in 0..self.workers.len() {
            self.hang_up(worker);
        }
        self.at(long, Item::Restart);
    }

    /// The next daemon goes on from what was saved.
    pub(super) fn restart(&mut self) {
        let daemon = &mut self.daemon;
        daemon.up = true;
        daemon.boot += 1;
        daemon.state = daemon.saved.1.clone();
        daemon.generation = daemon.saved.0;
        daemon.begun.clear();
        daemon.attempt = 0;
        daemon.wanted = Wanted {
            // Workers are told of their run again once there are any.
            prepare: !daemon.state.workers.is_empty(),
            ..Wanted::default()
        };
        let gone = Member {
            gone_since: self.now,
            ..Member::default()
        };
        self.daemon.members = vec![gone; self.workers.len()];
        self.note(format!("another daemon in {:?}", self.daemon.state.position));
        if !self.daemon.state.is_finished() {
            self.step(&Event::Adopted);
            self.follow_effects();
        }
    }
}
