//! One load thread: its runtime, its phases one after another, its seconds to the reader.

use crate::control::{Control, StopMode};
use crate::deck::Deck;
use crate::engine::EngineLane;
use crate::pacing::{Pacer, RateBound, sleep_until_or_forever};
use crate::phase::PhaseRun;
use crate::random::Rng;
use crate::recorder::{LaneSecond, Recorder};
use crate::run::{Shared, executor};
use muster_core::model::load::{Executor, PhaseWork};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How often a thread looks at how late it is itself: often enough that a second's p99 stands on a hundred values.
const HEARTBEAT: Duration = Duration::from_millis(10);
/// Name look-ups at the same time per thread; others wait for their turn.
const BLOCKING_THREADS: usize = 4;

/// From a thread to the reader.
pub(crate) enum LaneMessage {
    Second(u32, Box<LaneSecond>),
    /// The phase, and when this thread could begin its load.
    Started(u32, Instant),
    Ended(u32),
    Waiting(u32),
    Finished(u32),
}

/// What the users of one thread share. Never crosses a thread, so nothing in it is locked.
pub(crate) struct Lane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: u32,
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) paused: Cell<bool>,
    pub(crate) rng: Rng,
    pub(crate) deck: Deck,
    pub(crate) bound: Option<RateBound>,
    pub(crate) active: Cell<u64>,
    pub(crate) made: Cell<u64>,
    pub(crate) engine: EngineLane,
}

/// When a thread's load begins, and whom it hears and tells.
pub(crate) struct Start {
    pub(crate) t0: Instant,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) sender: mpsc::Sender<LaneMessage>,
}

/// A load thread that waits for its start; dropped, it ends.
pub(crate) struct IdleLane {
    start: SyncSender<Start>,
    thread: JoinHandle<()>,
}

impl IdleLane {
    pub(crate) fn start(self, start: Start) -> JoinHandle<()> {
        // A thread that is gone panicked, and says so when it is joined.
        let _ = self.start.send(start);
        self.thread
    }
}

/// Makes a load thread with its runtime. The runtime belongs to that thread, so that a task that wakes is queued without a lock.
///
/// # Errors
/// Where the process may open no further descriptor or thread.
pub(crate) fn spawn(shared: Arc<Shared>, index: u32) -> io::Result<IdleLane> {
    let (made, is_made) = sync_channel(1);
    let (start, started) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("load-{index}"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .build_local(LocalOptions::default());
            let (runtime, result) = match runtime {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let _ = made.send(result);
            if let Some(runtime) = runtime
                && let Ok(start) = started.recv()
            {
                run(runtime, shared, index, start);
            }
        })?;
    let gone = || io::Error::other("a load thread ended at once");
    is_made.recv().map_err(|_| gone())??;
    Ok(IdleLane { start, thread })
}

/// The body of a load thread.
fn run(runtime: LocalRuntime, shared: Arc<Shared>, index: u32, start: Start) {
    let Start { t0, control, sender } = start;
    let parts = u64::from(shared.segment.count) * u64::from(shared.threads);
    let stream = u64::from(shared.segment.index) + u64::from(shared.segment.count) * u64::from(index);
    let lane = Rc::new(Lane {
        recorder: RefCell::new(Recorder::new(shared.series.clone(), t0)),
        control,
        paused: Cell::new(false),
        rng: Rng::new(shared.seed, stream),
        deck: Deck::new(shared.script.weights()),
        bound: shared
            .plan
            .requests_per_second
            .map(|per_second| RateBound::new(per_second, parts, t0)),
        active: Cell::new(0),
        made: Cell::new(0),
        engine: EngineLane::new(&shared.script, stream),
        shared,
        index,
    });
    runtime.block_on(lane.main(t0, sender));
    // A name that is being looked up cannot be interrupted, and nobody waits for it any more.
    runtime.shutdown_background();
}

enum Border {
    At(Instant),
    Stopped(Instant),
}

impl Lane {
    async fn main(self: Rc<Self>, t0: Instant, sender: mpsc::Sender<LaneMessage>) {
        tokio::task::spawn_local(follow_control(self.clone()));
        tokio::task::spawn_local(heartbeat(self.clone(), t0));
        let mut drains = JoinSet::new();
        let load = async {
            self.phases(t0, &sender, &mut drains).await;
            while drains.join_next().await.is_some() {}
        };
        // Joined and not a task: a second that is being sent when load ends must not be lost.
        tokio::select! {
            () = load => {}
            () = report(self.clone(), t0, sender.clone()) => {}
        }
        self.update_users();
        self.recorder.borrow_mut().finish(Instant::now());
        self.send_seconds(&sender).await;
        let _ = sender.send(LaneMessage::Finished(self.index)).await;
    }

    /// Plays all phases up to the last one's border, or until the owner stops.
    async fn phases(self: &Rc<Self>, t0: Instant, sender: &mpsc::Sender<LaneMessage>, drains: &mut JoinSet<()>) {
        let (mut begin, mut next, mut needs_word) = (t0, 0_u32, false);
        let (mut heard, mut drains_until) = (None, t0);
        while let Some(phase) = self.shared.plan.phases.get(next as usize) {
            if self.shared.is_left_out_from(next as usize) {
                return;
            }
            let load = match &phase.work {
                PhaseWork::Load {
                    executor,
                    graceful_stop,
                } if !needs_word => (executor, *graceful_stop),
                work => {
                    let _ = sender.send(LaneMessage::Waiting(next)).await;
                    let Some((to, at)) = self.wait_for_word(next, heard).await else {
                        return;
                    };
                    let pause = executor(work).is_none();
                    (heard, begin, needs_word) = (Some(to), at, false);
                    next = to.max(next + u32::from(pause));
                    continue;
                }
            };
            if !self.reaches(begin).await {
                return;
            }
            let began = Instant::now();
            let segment = self.shared.lane_segment(next as usize, self.index);
            if let (Some(bound), Some(segment)) = (&self.bound, segment) {
                bound.begin_phase(segment.count.into(), drains_until);
            }
            let run = PhaseRun::start(self.clone(), next as usize, (load.0, segment), begin);
            let _ = sender.send(LaneMessage::Started(next, began)).await;
            let is_closed = segment.is_some() && load.0.users().is_none();
            self.recorder.borrow_mut().at_work(next as usize, is_closed);
            let border = self.until_border(&run, load.0).await;
            self.recorder.borrow_mut().at_work(next as usize, false);
            let (Border::At(at) | Border::Stopped(at)) = border;
            drains_until = drains_until.max(at + load.1);
            drains.spawn_local(drain(self.clone(), run, at + load.1));
            let _ = sender.send(LaneMessage::Ended(next)).await;
            if matches!(border, Border::Stopped(_)) {
                return;
            }
            (begin, next, needs_word) = (at, next + 1, load.0.ends_by_iterations());
        }
    }

    /// The owner's `Advance` to `phase` or beyond, but not the one that was followed last; `None`: the load is to end.
    async fn wait_for_word(&self, phase: u32, heard: Option<u32>) -> Option<(u32, Instant)> {
        let mut control = self.control.clone();
        let mut used_up = self.shared.used_up.subscribe();
        loop {
            {
                let said = control.borrow_and_update();
                if said.stop().is_some() {
                    return None;
                }
                let word = said
                    .advance_to(phase)
                    .filter(|(to, _)| heard.is_none_or(|heard| *to > heard));
                if word.is_some() {
                    return word;
                }
            }
            tokio::select! {
                changed = control.changed() => changed.ok()?,
                // By another thread, whose part of the phase took longer.
                _ = used_up.wait_for(|used_up| *used_up) => return None,
            }
        }
    }

    /// Waits for an instant; false: the load is to end before it.
    async fn reaches(&self, at: Instant) -> bool {
        let mut control = self.control.clone();
        // All workers of a run begin together: the runtime's own timer would add up to a millisecond.
        let pacer = Pacer::new();
        loop {
            if control.borrow_and_update().stop().is_some() {
                return false;
            }
            tokio::select! {
                () = pacer.sleep_until(at) => return true,
                changed = control.changed() => if changed.is_err() { return false },
            }
        }
    }

    /// Waits until no further iteration of the phase may begin.
    async fn until_border(&self, run: &Rc<PhaseRun>, executor: &Executor) -> Border {
        let mut control = self.control.clone();
        let mut used_up = self.shared.used_up.subscribe();
        loop {
            let now = Instant::now();
            let (paused, stopped, frozen) = {
                let said = control.borrow_and_update();
                (said.is_paused(), said.stop().is_some(), said.frozen(run.begin, now))
            };
            let end = run.begin + executor.duration() + frozen;
            if stopped {
                return Border::Stopped(now);
            }
            if !paused && now >= end {
                return Border::At(end);
            }
            tokio::select! {
                biased;
                _ = used_up.wait_for(|used_up| *used_up) => {
                    run.give_up();
                    return Border::Stopped(Instant::now());
                }
                () = sleep_until_or_forever((!paused).then_some(end)) => {}
                () = run.gone(), if executor.ends_by_iterations() => return Border::At(Instant::now()),
                changed = control.changed() => if changed.is_err() { return Border::Stopped(Instant::now()) },
            }
        }
    }

    fn update_users(&self) {
        self.recorder.borrow_mut().users(self.active.get(), self.made.get());
    }

    async fn send_seconds(&self, sender: &mpsc::Sender<LaneMessage>) {
        // Room first: a second that was taken out must not be lost when this wait is dropped.
        while let Ok(room) = sender.reserve().await {
            let finished = self.recorder.borrow_mut().take_finished();
            let Some(second) = finished else { return };
            room.send(LaneMessage::Second(self.index, Box::new(second)));
        }
    }
}

/// Lets the iterations of a phase that is over go on until `deadline`, then cuts them off.
async fn drain(lane: Rc<Lane>, run: Rc<PhaseRun>, deadline: Instant) {
    let mut control = lane.control.clone();
    run.close(control.borrow().stop().is_some());
    loop {
        let stop = control.borrow_and_update().stop();
        if stop == Some(StopMode::Abort) {
            break;
        }
        run.close(stop.is_some());
        tokio::select! {
            () = run.gone() => break,
            () = tokio::time::sleep_until(deadline.into()) => break,
            changed = control.changed() => if changed.is_err() { break },
        }
    }
    run.cut();
    run.gone().await;
}

/// Keeps what each iteration asks for beside it: whether the owner paused.
async fn follow_control(lane: Rc<Lane>) {
    let mut control = lane.control.clone();
    loop {
        lane.paused.set(control.borrow_and_update().is_paused());
        if control.changed().await.is_err() {
            return;
        }
    }
}

/// Measures how late this thread is for an instant of its own.
async fn heartbeat(lane: Rc<Lane>, t0: Instant) {
    let pacer = Pacer::new();
    let mut due = t0;
    loop {
        due += HEARTBEAT;
        pacer.sleep_until(due).await;
        let now = Instant::now();
        lane.recorder.borrow_mut().lag(now, now - due);
        if now - due > 100 * HEARTBEAT {
            due = now;
        }
    }
}

/// Closes each second soon after it is over and sends it.
async fn report(lane: Rc<Lane>, t0: Instant, sender: mpsc::Sender<LaneMessage>) {
    tokio::time::sleep_until(t0.into()).await;
    loop {
        let border = lane.recorder.borrow().next_border();
        tokio::time::sleep_until(border.into()).await;
        lane.update_users();
        lane.recorder.borrow_mut().rotate(Instant::now());
        lane.send_seconds(&sender).await;
    }
}
