//! What the fleet knows and wants, without any waiting: every change is a function of this state and the time.

use super::door::Pass;
use super::offset::{Exchange, MAX_ERROR_US, Offset, Verdict};
use super::session::{Order, What};
use super::wanted::{Member, Wanted};
use super::{Assignment, FleetError, FleetEvent, Progress, WorkerStatus, WorkerView};
use jiff::Timestamp;
use muster_core::model::id::{RunId, SessionId, WorkerId};
use muster_core::model::key::Key;
use muster_core::model::unit::UnitName;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Most milestones kept of one worker in one run: three per phase of the largest plan, and a handful. A worker that reports more is
/// not ours.
const PROGRESS_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct State {
    grace: Duration,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) runs: BTreeMap<RunId, Wanted>,
    pub(super) adopted: bool,
    next_connection: u64,
    next_order: u64,
    events: Vec<FleetEvent>,
}

/// A process that dialled in.
#[derive(Debug)]
pub(super) struct Worker {
    pub pass: Pass,
    pub unit: Option<UnitName>,
    pub host: String,
    pub address: Option<IpAddr>,
    pub allows_commands: bool,
    pub pool: Key,
    pub version: String,
    pub threads: u32,
    pub joined_at: Timestamp,
    pub link: Option<Link>,
    pub gone_since: Instant,
    pub offset: Offset,
    pub status: WorkerStatus,
    pub held: Option<Held>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub connection: u64,
    pub orders: mpsc::Sender<Order>,
}

/// The run a worker says it holds.
#[derive(Debug)]
pub(super) struct Held {
    pub run: RunId,
    pub session: SessionId,
    pub history: Vec<Progress>,
}

impl State {
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            adopted: false,
            next_connection: 1,
            next_order: 1,
            events: Vec::new(),
        }
    }

    pub fn take_events(&mut self) -> Vec<FleetEvent> {
        std::mem::take(&mut self.events)
    }

    pub fn worker(&mut self, id: WorkerId, connection: u64) -> Option<&mut Worker> {
        self.workers
            .get_mut(&id)
            .filter(|worker| worker.link.as_ref().is_some_and(|link| link.connection == connection))
    }

    /// Which run a worker belongs to: the one it is wanted for, else the one it holds.
    pub(super) fn run_of(&self, id: WorkerId) -> Option<RunId> {
        self.runs
            .iter()
            .find(|(_, wanted)| wanted.members.contains_key(&id))
            .map(|(run, _)| *run)
            .or_else(|| self.workers.get(&id)?.held.as_ref().map(|held| held.run))
    }

    pub fn views(&self) -> Vec<WorkerView> {
        self.workers
            .iter()
            .map(|(id, worker)| {
                let run = self.run_of(*id);
                let held = worker.held.as_ref().filter(|held| Some(held.run) == run);
                WorkerView {
                    id: *id,
                    unit: worker.unit.clone(),
                    host: worker.host.clone(),
                    address: worker.address,
                    allows_commands: worker.allows_commands,
                    pool: worker.pool.clone(),
                    version: worker.version.clone(),
                    threads: worker.threads,
                    connected: worker.link.is_some(),
                    joined_at: worker.joined_at,
                    run,
                    progress: held.and_then(|held| held.history.last().cloned()),
                    start_late_us: held.and_then(|held| held.history.iter().find_map(Progress::start_late_us)),
                    clock: worker.offset.estimate(),
                    status: worker.status,
                }
            })
            .collect()
    }

    pub fn progress(&self, run: RunId) -> BTreeMap<WorkerId, Vec<Progress>> {
        self.workers
            .iter()
            .filter_map(|(id, worker)| Some((*id, worker.held.as_ref()?)))
            .filter(|(_, held)| held.run == run)
            .map(|(id, held)| (id, held.history.clone()))
            .collect()
    }

    pub fn prepare(&mut self, run: RunId, set: Vec<Assignment>, now: Instant) -> Result<(), FleetError> {
        for assignment in &set {
            let worker = assignment.worker;
            match self.run_of(worker) {
                Some(other) if other != run => return Err(FleetError::Busy { worker, run: other }),
                _ => {}
            }
            if self.workers.get(&worker).is_none_or(|worker| worker.link.is_none()) {
                return Err(FleetError::NotConnected(worker));
            }
        }
        self.want(run, set, now)
    }

    pub fn adopt(&mut self, run: RunId, set: Vec<Assignment>, now: Instant) -> Result<(), FleetError> {
        self.want(run, set, now)?;
        let told: Vec<FleetEvent> = self
            .progress(run)
            .into_iter()
            .flat_map(|(worker, history)| {
                history
                    .into_iter()
                    .map(move |progress| FleetEvent::Progress { run, worker, progress })
            })
            .collect();
        self.events.extend(told);
        Ok(())
    }

    fn want(&mut self, run: RunId, set: Vec<Assignment>, seen: Instant) -> Result<(), FleetError> {
        let count = set.len();
        let members: BTreeMap<WorkerId, Member> = set
            .into_iter()
            .map(|assignment| (assignment.worker, Member::new(assignment, seen)))
            .collect();
        if count == 0 || members.len() != count {
            return Err(FleetError::NotASet(run));
        }
        let ids: Vec<WorkerId> = members.keys().copied().collect();
        let wanted = self.runs.entry(run).or_default();
        if wanted.members.is_empty() {
            wanted.members = members;
        }
        for id in ids {
            self.tell(id, true);
        }
        Ok(())
    }

    pub fn arm(&mut self, run: RunId, at_us: u64) -> Result<(), FleetError> {
        let id = self.order_id();
        self.update(run, |wanted| wanted.arm = Some((id, at_us)))
    }

    pub fn advance(&mut self, run: RunId, phase: u32, at_us: u64) -> Result<(), FleetError> {
        self.update(run, |wanted| {
            if wanted.advance.is_none_or(|(last, _)| phase > last) {
                wanted.advance = Some((phase, at_us));
            }
        })
    }

    pub fn update(&mut self, run: RunId, change: impl FnOnce(&mut Wanted)) -> Result<(), FleetError> {
        let wanted = self
            .runs
            .get_mut(&run)
            .filter(|wanted| !wanted.releasing)
            .ok_or(FleetError::UnknownRun(run))?;
        change(wanted);
        let ids: Vec<WorkerId> = wanted.members.keys().copied().collect();
        for id in ids {
            self.tell(id, false);
        }
        Ok(())
    }

    pub fn release(&mut self, run: RunId) {
        let Some(wanted) = self.runs.get_mut(&run) else {
            return;
        };
        wanted.releasing = true;
        wanted.members.retain(|_, member| !member.lost);
        let ids: Vec<WorkerId> = wanted.members.keys().copied().collect();
        for id in ids {
            self.tell(id, false);
        }
        self.forget_released();
    }

    /// A member that the run needs no more.
    pub fn let_go(&mut self, run: RunId, id: WorkerId) {
        if let Some(wanted) = self.runs.get_mut(&run) {
            wanted.members.remove(&id);
        }
        self.release_unwanted(id);
    }

    pub fn adoption_done(&mut self) {
        self.adopted = true;
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            self.release_unwanted(id);
        }
    }

    /// A worker said Hello on a new connection; an older one of the same process is over.
    pub fn connect(&mut self, id: WorkerId, mut worker: Worker, orders: mpsc::Sender<Order>, now: Instant) -> u64 {
        if let Some(unit) = &worker.unit {
            let replaced: Vec<WorkerId> = self
                .workers
                .iter()
                .filter(|(other, old)| **other != id && old.unit.as_ref() == Some(unit))
                .map(|(other, _)| *other)
                .collect();
            for other in replaced {
                self.lose(other, "its unit came back as another process");
            }
        }
        let connection = self.next_connection;
        self.next_connection += 1;
        worker.link = Some(Link { connection, orders });
        if let Some(old) = self.workers.remove(&id) {
            worker.joined_at = old.joined_at;
            if let (Some(held), Some(known)) = (&mut worker.held, old.held)
                && held.session == known.session
            {
                held.history = known.history;
            }
        }
        let holds = worker.held.as_ref().map(|held| held.run);
        self.workers.insert(id, worker);
        self.events.push(FleetEvent::Joined { worker: id });
        for (run, wanted) in &mut self.runs {
            if wanted.releasing && holds != Some(*run) {
                wanted.members.remove(&id);
            } else if let Some(member) = wanted.members.get_mut(&id) {
                member.seen = now;
            }
        }
        self.forget_released();
        self.release_unwanted(id);
        self.tell(id, true);
        connection
    }

    pub fn disconnect(&mut self, id: WorkerId, connection: u64, now: Instant) {
        if let Some(worker) = self.worker(id, connection) {
            worker.link = None;
            worker.gone_since = now;
        }
        if let Some(member) = self.member(id) {
            member.seen = now;
        }
    }

    fn member(&mut self, id: WorkerId) -> Option<&mut Member> {
        self.runs.values_mut().find_map(|wanted| wanted.members.get_mut(&id))
    }

    /// The process is over: nothing will come from it any more.
    pub fn lose(&mut self, id: WorkerId, reason: &str) {
        let run = self.run_of(id);
        self.workers.remove(&id);
        let told = self
            .member(id)
            .is_some_and(|member| std::mem::replace(&mut member.lost, true));
        if !told {
            self.events.push(FleetEvent::Lost {
                worker: id,
                run,
                reason: reason.to_owned(),
            });
        }
        for wanted in self.runs.values_mut().filter(|wanted| wanted.releasing) {
            wanted.members.remove(&id);
        }
        self.forget_released();
    }

    /// Finds who is gone for too long.
    pub fn look(&mut self, now: Instant) {
        let connected = |workers: &BTreeMap<WorkerId, Worker>, id: &WorkerId| {
            workers.get(id).is_some_and(|worker| worker.link.is_some())
        };
        let mut lost: Vec<WorkerId> = Vec::new();
        for (id, member) in self.runs.values().flat_map(|wanted| &wanted.members) {
            let grace = self.grace.min(member.assignment.load.orphan_timeout / 2);
            if !member.lost && !connected(&self.workers, id) && now.duration_since(member.seen) >= grace {
                lost.push(*id);
            }
        }
        for (id, worker) in &self.workers {
            let is_wanted = |wanted: &Wanted| wanted.members.get(id).is_some_and(|member| !member.lost);
            if !self.runs.values().any(is_wanted)
                && worker.link.is_none()
                && now.duration_since(worker.gone_since) >= self.grace
            {
                lost.push(*id);
            }
        }
        for id in lost {
            self.lose(id, "it is not connected");
        }
    }

    /// A numbered milestone. Returns false when the report cannot be: the connection is then closed.
    pub fn report(&mut self, id: WorkerId, connection: u64, run: RunId, number: u32, progress: Progress) -> bool {
        let Some(worker) = self.worker(id, connection) else {
            return false;
        };
        if worker.held.as_ref().is_none_or(|held| held.run != run) {
            let Some(session) = self.wanted_session(id, run) else {
                // Released in the meantime: nobody wants to know.
                return true;
            };
            if let Some(worker) = self.worker(id, connection) {
                worker.held = Some(Held {
                    run,
                    session,
                    history: Vec::new(),
                });
            }
        }
        let Some(held) = self.worker(id, connection).and_then(|worker| worker.held.as_mut()) else {
            return false;
        };
        let known = held.history.len();
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if number == 0 || number > known + 1 || number > PROGRESS_MAX {
            return false;
        }
        if number == known + 1 {
            held.history.push(progress.clone());
            self.events.push(FleetEvent::Progress {
                run,
                worker: id,
                progress,
            });
        }
        true
    }

    fn wanted_session(&self, id: WorkerId, run: RunId) -> Option<SessionId> {
        let member = self.runs.get(&run)?.members.get(&id)?;
        Some(member.assignment.session)
    }

    /// A worker let go of a run.
    pub fn released(&mut self, id: WorkerId, connection: u64, run: RunId) {
        let Some(worker) = self.worker(id, connection) else {
            return;
        };
        if worker.held.as_ref().is_some_and(|held| held.run == run) {
            worker.held = None;
        }
        if let Some(wanted) = self.runs.get_mut(&run).filter(|wanted| wanted.releasing) {
            wanted.members.remove(&id);
        }
        self.forget_released();
    }

    /// One exchange of clocks. When it decides whether the worker may start, what waited for that is told.
    pub fn exchange(&mut self, id: WorkerId, connection: u64, exchange: Exchange) {
        let Some(worker) = self.worker(id, connection) else {
            return;
        };
        let before = worker.offset.verdict();
        worker.offset.add(exchange);
        if worker.offset.verdict() != before {
            self.tell(id, false);
        }
    }

    fn forget_released(&mut self) {
        self.runs
            .retain(|_, wanted| !(wanted.releasing && wanted.members.is_empty()));
    }

    fn release_unwanted(&mut self, id: WorkerId) {
        if !self.adopted {
            return;
        }
        let Some(run) = self
            .workers
            .get(&id)
            .and_then(|worker| worker.held.as_ref())
            .map(|held| held.run)
        else {
            return;
        };
        if self
            .runs
            .get(&run)
            .is_none_or(|wanted| !wanted.members.contains_key(&id))
        {
            let order = Order {
                run,
                id: self.order_id(),
                what: What::Release,
            };
            self.send(id, order);
        }
    }

    /// Sends a worker everything that is wanted of it; `from_start`: with Prepare, which is large.
    fn tell(&mut self, id: WorkerId, from_start: bool) {
        let Some(run) = self.run_of(id) else { return };
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(wanted) = self.runs.get(&run) else { return };
        let Some(member) = wanted.members.get(&id) else { return };
        let is_bad = worker.offset.verdict() == Verdict::Bad;
        if is_bad && wanted.arm.is_some() && !wanted.commit && !member.refused {
            self.refuse(run, id);
            return;
        }
        for (order, what) in wanted.orders(member, &worker.offset, from_start) {
            let order = Order {
                run,
                id: order.unwrap_or_else(|| self.order_id()),
                what,
            };
            self.send(id, order);
        }
    }

    /// A worker whose clock is known too badly takes no part in a common start (promise 38).
    fn refuse(&mut self, run: RunId, id: WorkerId) {
        let Some(member) = self.member(id) else { return };
        member.refused = true;
        let estimate = self.workers.get(&id).and_then(|worker| worker.offset.estimate());
        let reason = format!(
            "its clock is known only to ±{} ms, more than {} ms",
            estimate.map_or(0, |estimate| estimate.error_us) / 1_000,
            MAX_ERROR_US / 1_000
        );
        self.events.push(FleetEvent::Progress {
            run,
            worker: id,
            progress: Progress::Refused(reason),
        });
    }

    /// Hands an order to the connection. One that cannot take it is cut: the next one is told everything.
    fn send(&mut self, id: WorkerId, order: Order) {
        if let Some(worker) = self.workers.get_mut(&id)
            && let Some(link) = &worker.link
            && link.orders.try_send(order).is_err()
        {
            worker.link = None;
        }
    }

    fn order_id(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }
}
