//! A generator from outside: prepare a job, start it at an instant, talk to it, read what it measured second by second.

use crate::control::{Command, Control};
use crate::engine::{EngineError, Script};
use crate::files::{self, TooMany};
use crate::lane::{self, IdleLane, LaneMessage, Start};
use crate::recorder::{LaneSecond, Series};
use muster_core::lifecycle::share::{part_in, share};
use muster_core::measure::histogram::{Histogram, Precision};
use muster_core::measure::slice::{Second, SeriesKey};
use muster_core::model::load::{Executor, LoadPlan, Phase, PhaseWork, Segment};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// Reports a thread may be ahead of its reader: 17 minutes of seconds. A reader that far behind is gone, and load stops by itself
/// because its threads wait for room.
const REPORTS: usize = 1_024;
/// Threads a worker may use; more than cores is of no use.
pub const THREADS_MAX: usize = 256;

/// One worker's part of a run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The whole run's load.
    pub plan: LoadPlan,
    /// Which part is this worker's.
    pub segment: Segment,
    /// Files by digest: data, bodies, certificates.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Threads, 1 to [`THREADS_MAX`].
    pub threads: usize,
    /// Of every random choice.
    pub seed: u64,
}

/// Why a job cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The plan asks for what the engine cannot do.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// More users than the process may have open files.
    #[error(
        "{users} users need {needed} open files, and this process may have {limit}: use more workers, or raise its hard limit \
         (LimitNOFILE= of systemd, --ulimit nofile= of docker, ulimit -Hn)"
    )]
    Files {
        /// This worker's share.
        users: u64,
        /// One each, and what the generator needs beside.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// No runtime: the process may open no further descriptor or thread.
    #[error("starting a load thread")]
    Thread(#[source] std::io::Error),
    /// A segment of nothing.
    #[error("segment {index} of {count} does not exist")]
    Segment {
        /// Its index.
        index: u32,
        /// Of how many.
        count: u32,
    },
}

/// What a generator reports. Seconds come in order, each once, also when empty.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "most reports are the large one")]
pub enum Report {
    /// A run second that passed.
    Second(Second),
    /// A phase's load began.
    PhaseStarted(u32),
    /// A phase's border: what runs goes on within its graceful stop.
    PhaseEnded(u32),
    /// This phase starts (or, where it is a pause, what follows it) at [`Command::Advance`].
    Waiting(u32),
    /// All load is over and all seconds were reported.
    Finished,
}

/// What all threads share: read only, but for counters.
pub(crate) struct Shared {
    pub(crate) plan: LoadPlan,
    pub(crate) segment: Segment,
    pub(crate) threads: u32,
    pub(crate) seed: u64,
    pub(crate) series: Arc<Series>,
    pub(crate) script: Script,
    /// Iterations taken so far of each phase that shares them.
    taken: Vec<AtomicU64>,
    /// Told once the worker's rows of a file with mode Unique are used up: its users end.
    pub(crate) used_up: watch::Sender<bool>,
}

impl Shared {
    /// This worker's part in a phase; `None`: it idles.
    fn part(&self, phase: &Phase) -> Option<Segment> {
        part_in(phase.workers, self.segment)
    }

    /// Whether others go on from a phase on and this worker does not: its load is over.
    pub(crate) fn is_left_out_from(&self, phase: usize) -> bool {
        let rest = || {
            self.plan.phases[phase..]
                .iter()
                .filter(|phase| executor(&phase.work).is_some())
        };
        rest().next().is_some() && rest().all(|phase| self.part(phase).is_none())
    }

    /// Most users this worker has in a phase.
    fn most_users(&self) -> u64 {
        let users = self.plan.phases.iter().filter_map(|phase| {
            let part = self.part(phase)?;
            Some(share(executor(&phase.work)?.peak_vus(), part))
        });
        users.max().unwrap_or(0)
    }

    /// Takes one of the worker's shared iterations of a phase.
    pub(crate) fn take_iteration(&self, phase: usize, all: u64) -> bool {
        let own = self.part(&self.plan.phases[phase]).map_or(0, |part| share(all, part));
        self.taken[phase].fetch_add(1, Ordering::Relaxed) < own
    }

    /// The part of one thread in a phase. An open phase uses no more threads than it has users, or arrivals would wait where nobody is.
    pub(crate) fn lane_segment(&self, phase: usize, lane: u32) -> Option<Segment> {
        let phase = &self.plan.phases[phase];
        let part = self.part(phase)?;
        let lanes = match executor(&phase.work)?.users() {
            Some(users) => {
                let own = share(users.max, part).max(1);
                u32::try_from(own).map_or(self.threads, |own| own.min(self.threads))
            }
            None => self.threads,
        };
        (lane < lanes).then(|| Segment {
            index: part.index + part.count * lane,
            count: part.count * lanes,
        })
    }
}

/// A job ready to start.
pub struct Prepared {
    lanes: Vec<IdleLane>,
}

/// Reads a job's files, compiles its requests, resolves its hosts under the target rules and sets up TLS. Makes no request. Blocks for at most a few seconds on
/// names that do not resolve.
///
/// # Errors
/// [`PrepareError`] where the plan, its files or its target cannot be used.
pub fn prepare(job: Job) -> Result<Prepared, PrepareError> {
    let Segment { index, count } = job.segment;
    if index >= count {
        return Err(PrepareError::Segment { index, count });
    }
    let threads = job.threads.clamp(1, THREADS_MAX);
    let script = Script::compile(&job.plan, job.segment, &job.files)?;
    let series = Arc::new(series(&job.plan, &script));
    let shared = Arc::new(Shared {
        taken: job.plan.phases.iter().map(|_| AtomicU64::new(0)).collect(),
        used_up: watch::Sender::new(false),
        segment: job.segment,
        threads: threads as u32,
        seed: job.seed,
        series,
        script,
        plan: job.plan,
    });
    if let Script::Http(_) = &shared.script {
        let users = shared.most_users();
        let refused = |TooMany { needed, limit }| PrepareError::Files { users, needed, limit };
        files::provide(users, threads as u64).map_err(refused)?;
    }
    let lanes = (0..threads as u32).map(|index| lane::spawn(shared.clone(), index));
    let lanes = lanes.collect::<Result<_, _>>().map_err(PrepareError::Thread)?;
    Ok(Prepared { lanes })
}

fn series(plan: &LoadPlan, script: &Script) -> Series {
    let names = script.series();
    let phases: Vec<String> = plan.phases.iter().map(|phase| phase.name.to_string()).collect();
    let keys = phases.iter().flat_map(|phase| {
        names.iter().map(|(scenario, name)| SeriesKey {
            phase: phase.clone(),
            scenario: scenario.clone(),
            name: name.clone(),
        })
    });
    Series {
        keys: keys.collect(),
        per_phase: names.len(),
        phases,
    }
}

impl Prepared {
    /// Lets the threads begin. The first phase begins at `t0`, from which run seconds count; it may lie ahead.
    pub fn start(self, t0: Instant) -> Running {
        let (sender, reports) = mpsc::channel(REPORTS);
        let (commands, control) = watch::channel(Control::default());
        let lanes = self.lanes.len();
        let start = || Start {
            t0,
            control: control.clone(),
            sender: sender.clone(),
        };
        let threads = self.lanes.into_iter().map(|lane| lane.start(start())).collect();
        Running {
            commands,
            reports,
            threads,
            merge: Merge::new(lanes),
            ready: VecDeque::new(),
            done: false,
        }
    }
}

/// Load that is being made. Dropping it cuts the load off.
pub struct Running {
    commands: watch::Sender<Control>,
    reports: mpsc::Receiver<LaneMessage>,
    threads: Vec<JoinHandle<()>>,
    merge: Merge,
    ready: VecDeque<Report>,
    done: bool,
}

impl Running {
    /// Says something to the generator, now.
    pub fn command(&self, command: Command) {
        let now = Instant::now();
        self.commands.send_modify(|control| control.apply(command, now));
    }

    /// When all threads could begin their load, once they did.
    pub fn began(&self) -> Option<Instant> {
        self.merge.began
    }

    /// The next report; `None` after [`Report::Finished`]. May be dropped and called again.
    ///
    /// # Panics
    /// When a load thread panicked: what it measured is lost, so the worker must not go on as if nothing had happened.
    pub async fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(report) = self.ready.pop_front() {
                return Some(report);
            }
            if self.done {
                return None;
            }
            match self.reports.recv().await {
                Some(message) => self.merge.take(message, &mut self.ready),
                None => self.close(),
            }
        }
    }

    fn close(&mut self) {
        self.done = true;
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        assert!(self.merge.all_finished(), "a load thread ended before its load");
        self.ready.push_back(Report::Finished);
    }
}

/// Puts the seconds and borders of all threads together.
struct Merge {
    /// The second each thread reports next; `None`: it is finished.
    next: Vec<Option<u32>>,
    pending: BTreeMap<u32, (Second, Histogram)>,
    started: BTreeMap<u32, usize>,
    /// When the last of all threads could begin the first phase.
    began: Option<Instant>,
    ended: BTreeMap<u32, usize>,
    waiting: BTreeMap<u32, usize>,
}

impl Merge {
    fn new(lanes: usize) -> Self {
        Self {
            next: vec![Some(0); lanes],
            pending: BTreeMap::new(),
            started: BTreeMap::new(),
            began: None,
            ended: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn all_finished(&self) -> bool {
        self.next.iter().all(Option::is_none)
    }

    fn take(&mut self, message: LaneMessage, ready: &mut VecDeque<Report>) {
        let lanes = self.next.len();
        let count = |seen: &mut BTreeMap<u32, usize>, phase| {
            let seen = seen.entry(phase).or_default();
            *seen += 1;
            *seen
        };
        if let LaneMessage::Started(phase, at) = message
            && self.started.first_key_value().is_none_or(|(first, _)| *first == phase)
        {
            self.began = self.began.max(Some(at));
        }
        match message {
            // As for its end, all threads: each tells the end of a phase before the next one's start, so the merged word does, too.
            LaneMessage::Started(phase, _) if count(&mut self.started, phase) == lanes => {
                ready.push_back(Report::PhaseStarted(phase));
            }
            LaneMessage::Ended(phase) if count(&mut self.ended, phase) == lanes => {
                ready.push_back(Report::PhaseEnded(phase));
            }
            LaneMessage::Waiting(phase) if count(&mut self.waiting, phase) == lanes => {
                ready.push_back(Report::Waiting(phase));
            }
            LaneMessage::Second(lane, second) => {
                self.next[lane as usize] = Some(second.second.second + 1);
                self.add(*second);
            }
            LaneMessage::Finished(lane) => self.next[lane as usize] = None,
            LaneMessage::Started(..) | LaneMessage::Ended(_) | LaneMessage::Waiting(_) => {}
        }
        let complete = self.next.iter().flatten().min().copied().unwrap_or(u32::MAX);
        while let Some(entry) = self.pending.first_entry()
            && *entry.key() < complete
        {
            let (mut second, lag) = entry.remove();
            second.generator.lag_p99_ns = lag.quantile(0.99).unwrap_or(0);
            ready.push_back(Report::Second(second));
        }
    }

    fn add(&mut self, lane: LaneSecond) {
        let empty = || (Second::default(), Histogram::new(Precision::Coarse));
        let (second, lag) = self.pending.entry(lane.second.second).or_insert_with(empty);
        second.second = lane.second.second;
        lag.merge(&lane.lag);
        for (key, stats) in lane.second.entries {
            second
                .entries
                .entry(key)
                .and_modify(|own| own.merge(&stats))
                .or_insert(stats);
        }
        let (own, theirs) = (&mut second.generator, lane.second.generator);
        own.vus += theirs.vus;
        own.vus_max += theirs.vus_max;
        for (phase, count) in theirs.arrivals {
            *own.arrivals.entry(phase).or_default() += count;
        }
        for (phase, count) in theirs.own_drops {
            *own.own_drops.entry(phase).or_default() += count;
        }
    }
}

/// The executor of a load phase; `None` for a pause.
pub(crate) fn executor(work: &PhaseWork) -> Option<&Executor> {
    match work {
        PhaseWork::Load { executor, .. } => Some(executor),
        PhaseWork::Pause { .. } => None,
    }
}
