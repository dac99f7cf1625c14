//! The shim: one small process per unit that outlives the daemon, holds the unit's lock, and starts the unit again.
//!
//! No async and no runtime: it must be small, and it does setsid and limits in itself, since a `pre_exec` would be unsafe.
//! It is told to stop through a pipe in the unit's folder and ends its unit first: TERM to the group, the unit's grace, KILL.
//! It blocks no signal, since the unit would inherit that.

use super::child;
use super::health::{Prober, Verdict};
use super::log::Log;
use super::record::{Folder, Sheet, State};
use super::wake::Waker;
use crate::runtime::clock::Clock;
use crate::runtime::processes::{LOOK, Marks, Process, boot_id};
use muster_core::base::backoff::Backoff;
use muster_core::model::unit::{EXIT_ORPHANED, UnitState, UnitWork};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// A unit that ends by itself is started again after 250 ms, doubling, to 30 s.
const RESTART: Backoff = Backoff {
    min: Duration::from_millis(250),
    max: Duration::from_secs(30),
};
/// A unit that lived this long failed for a new reason: the backoff begins anew.
const PROVEN: Duration = Duration::from_secs(60);
/// A unit without a health check is Ready when it has lived this long; a wrong argument ends most programs sooner.
const SETTLE: Duration = Duration::from_millis(500);
/// What KILL does not end within this time is stuck in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// Open files of a unit, as far as the machine allows: a load generator of 10,000 users needs one for each.
const OPEN_FILES: u64 = 65_536;
/// Secrets of one unit, together.
const HANDOVER_MAX: u64 = 1 << 20;
/// A state that could not be written is tried again this much later.
const SAVE_AGAIN: Duration = Duration::from_secs(1);
/// Longest sleep of the loop without anything to do; no event is missed by it, so it only bounds a lost wake-up.
const IDLE: Duration = Duration::from_secs(60);

/// Runs the shim of the unit in `dir` until it is told to stop. Its first line on standard output is `ok`, or `refused` or
/// `failed` with the reason; then standard output is closed.
pub fn main(dir: &Path) -> ExitCode {
    close_inherited();
    match Shim::start(dir) {
        Ok(mut shim) => {
            answer("ok");
            let ended = shim.run();
            if let Err(error) = &ended {
                shim.note_end(error);
            }
            shim.log.finish();
            if ended.is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(StartFault { terminal, reason }) => {
            let word = if terminal { "refused" } else { "failed" };
            answer(&format!("{word} {}", reason.replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

struct StartFault {
    terminal: bool,
    reason: String,
}

impl<E: std::fmt::Display> From<E> for StartFault {
    fn from(error: E) -> Self {
        Self {
            terminal: false,
            reason: error.to_string(),
        }
    }
}

/// The daemon's descriptors end here, also those that some library opened without CLOEXEC (promise 58).
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let inherited: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in inherited {
        nix::unistd::close(fd).ok();
    }
}

/// Tells the daemon how the start went, and lets go of its pipe.
fn answer(line: &str) {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).ok();
    if let Ok(null) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        nix::unistd::dup2_stdout(&null).ok();
        nix::unistd::dup2_stdin(&null).ok();
    }
}

struct Shim {
    folder: Folder,
    sheet: Sheet,
    secrets: BTreeMap<String, SecretString>,
    state: State,
    log: Log,
    stop: fs::File,
    waker: Waker,
    phase: Phase,
    failures: u32,
    unsaved: bool,
    prober: Prober,
    // Held until the process ends: the unit is alive as long as it is (promise 17).
    _lock: nix::fcntl::Flock<fs::File>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Running { child: Process, since: Instant },
    Waiting { until: Instant },
}

impl Shim {
    fn start(dir: &Path) -> Result<Self, StartFault> {
        nix::unistd::setsid().ok(); // already a leader when started by hand
        let folder = Folder::new(dir);
        let lock = folder.lock()?;
        let stop = folder.listen_for_stop()?;
        let secrets = read_handover()?;
        let sheet = folder.sheet()?;
        std::env::set_current_dir(folder.files())?;
        limit(&sheet)?;
        let (boot_id, me) = (boot_id()?, Process::of(Pid::this().as_raw())?);
        let waker = Waker::new()?;
        let prober = Prober::new(&sheet, waker.clone());
        let log = Log::start(&folder)?;
        let child = child::start(&sheet, &folder, &secrets, &log).map_err(|error| StartFault {
            terminal: error.terminal,
            reason: error.to_string(),
        })?;
        let state = State {
            boot_id,
            shim: me,
            child: Some(child),
            state: UnitState::Starting,
            since: Clock::system().now(),
            restarts: 0,
        };
        let shim = Self {
            prober,
            folder,
            sheet,
            secrets,
            state,
            log,
            stop,
            waker,
            phase: Phase::Running {
                child,
                since: Instant::now(),
            },
            failures: 0,
            unsaved: false,
            _lock: lock,
        };
        if let Err(error) = shim.folder.write_state(&shim.state) {
            shim.marks().kill(Instant::now() + KILL_DEADLINE).ok();
            return Err(error.into());
        }
        shim.watch(child)?;
        Ok(shim)
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            if self.told_to_stop()? {
                return self.stop();
            }
            self.waker.clear();
            if self.reap()? {
                return Ok(());
            }
            self.listen_to_probe();
            self.act()?;
            self.save();
        }
    }

    /// Sleeps until the unit ends, the probe answers, someone says stop, or something is due.
    fn wait(&self) -> io::Result<()> {
        let now = Instant::now();
        let due = match self.phase {
            Phase::Waiting { until } => until,
            Phase::Running { since, .. } => match self.prober.due() {
                Some(due) => due.unwrap_or(now + IDLE),
                None if self.state.state == UnitState::Starting => since + SETTLE,
                None => now + IDLE,
            },
        };
        // Rounded up below: waking a moment early would only mean one more turn, many of them a busy loop.
        let due = if self.unsaved { due.min(now + SAVE_AGAIN) } else { due };
        let sleep = due.saturating_duration_since(now).min(IDLE) + Duration::from_millis(1);
        let mut fds = [
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.waker.woken(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(sleep).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn told_to_stop(&self) -> io::Result<bool> {
        match (&self.stop).read(&mut [0; 16]) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Wakes the loop when a process has ended, and leaves it to [`Shim::reap`] to take it.
    fn watch(&self, child: Process) -> io::Result<()> {
        let mut waker = self.waker.clone();
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        thread::Builder::new().name("watch".to_owned()).spawn(move || {
            while waitid(Id::Pid(Pid::from_raw(child.pid)), ended) == Err(Errno::EINTR) {}
            waker.wake();
        })?;
        Ok(())
    }

    /// Takes every dead descendant; the unit's own end has consequences. True: nothing is to start it again.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(false),
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Phase::Running { child, since } = self.phase else {
                continue;
            };
            if status.pid() == Some(Pid::from_raw(child.pid)) {
                if self.is_orphan(status) {
                    self.end_for_good();
                    return Ok(true);
                }
                self.ended(how(status), since);
            }
        }
    }

    /// A worker that nobody owns would only come back to be orphaned again; a daemon that returns replaces what has exited.
    fn is_orphan(&self, status: WaitStatus) -> bool {
        let is_worker = matches!(self.sheet.spec.work, UnitWork::Worker { .. });
        is_worker && matches!(status, WaitStatus::Exited(_, code) if code == i32::from(EXIT_ORPHANED))
    }

    fn end_for_good(&mut self) {
        let reason = "it had lost its owner".to_owned();
        self.log.note(&format!("{reason}; is not started again"));
        self.marks().kill(Instant::now() + KILL_DEADLINE).ok();
        self.state.child = None;
        self.enter(UnitState::Exited { reason });
    }

    fn ended(&mut self, reason: String, since: Instant) {
        // What it left behind holds its ports.
        let left = self.marks().kill(Instant::now() + KILL_DEADLINE);
        if since.elapsed() >= PROVEN {
            self.failures = 0;
        }
        self.failures += 1;
        // No jitter: units of one host that fail together are few.
        let delay = RESTART.delay(self.failures, 0.0);
        self.phase = Phase::Waiting {
            until: Instant::now() + delay,
        };
        self.log.note(&format!("{reason}; starts again in {delay:?}"));
        let reason = match left {
            Ok(()) => reason,
            Err(error) => format!("{reason}; {error}"),
        };
        self.state.child = None;
        self.prober.forget();
        self.unsaved = true;
        self.enter(UnitState::BackOff { reason });
    }

    fn act(&mut self) -> io::Result<()> {
        match self.phase {
            Phase::Waiting { until } if Instant::now() >= until => return self.start_again(),
            Phase::Waiting { .. } => {}
            Phase::Running { .. } if self.prober.has_questions() => self.prober.ask_when_due(),
            Phase::Running { since, .. } => {
                if self.state.state == UnitState::Starting && since.elapsed() >= SETTLE {
                    self.enter(UnitState::Ready);
                }
            }
        }
        Ok(())
    }

    fn start_again(&mut self) -> io::Result<()> {
        self.state.restarts += 1;
        match child::start(&self.sheet, &self.folder, &self.secrets, &self.log) {
            Ok(child) => {
                let since = Instant::now();
                self.phase = Phase::Running { child, since };
                self.state.child = Some(child);
                self.prober.forget();
                self.enter(UnitState::Starting);
                self.watch(child)
            }
            Err(error) => {
                self.ended(format!("cannot start: {error}"), Instant::now());
                Ok(())
            }
        }
    }

    fn listen_to_probe(&mut self) {
        match self.prober.answer() {
            Some(Verdict::Healthy) => self.enter(UnitState::Ready),
            Some(Verdict::Unhealthy(reason)) => self.enter(UnitState::Unhealthy { reason }),
            None => {}
        }
    }

    /// Writes a state down when it is another one.
    fn enter(&mut self, state: UnitState) {
        if self.state.state == state {
            return;
        }
        self.state.state = state;
        self.state.since = Clock::system().now();
        self.unsaved = true;
        self.save();
    }

    /// A full disk must not end a unit that is well: what could not be written is written later.
    fn save(&mut self) {
        if self.unsaved {
            match self.folder.write_state(&self.state) {
                Ok(()) => self.unsaved = false,
                Err(error) => eprintln!("{}: cannot write its state: {error}", self.sheet.spec.name),
            }
        }
    }

    /// TERM to the group, the unit's grace, KILL to whatever is left.
    fn stop(&mut self) -> io::Result<()> {
        self.enter(UnitState::Stopping);
        self.log.note("is told to stop");
        let marks = self.marks();
        if let Phase::Running { child, .. } = self.phase {
            // Not reaped yet, so the group's id is still its own.
            killpg(Pid::from_raw(child.pid), Signal::SIGTERM).ok();
        }
        let grace = Instant::now() + self.sheet.spec.stop_grace;
        while Instant::now() < grace {
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
            if marks.members()?.is_empty() {
                break;
            }
            thread::sleep(LOOK);
        }
        let killed = marks.kill(Instant::now() + KILL_DEADLINE);
        self.state.child = None;
        let reason = match &killed {
            Ok(()) => "stopped".to_owned(),
            Err(error) => format!("stopped, but {error}"),
        };
        self.enter(UnitState::Exited { reason });
        killed
    }

    fn marks(&self) -> Marks {
        Marks {
            tag: self.sheet.tag.clone(),
            group: self.state.child.map(|child| (child, self.state.shim.pid)),
        }
    }

    /// The shim cannot go on (its disk is gone, say): the unit must not stay behind unwatched.
    fn note_end(&mut self, error: &io::Error) {
        eprintln!("{}: the shim ends: {error}", self.sheet.spec.name);
        self.marks().kill(Instant::now() + KILL_DEADLINE).ok();
        self.state.child = None;
        let reason = format!("its shim ended: {error}");
        self.enter(UnitState::Exited { reason });
    }
}

fn read_handover() -> Result<BTreeMap<String, SecretString>, StartFault> {
    let mut bytes = Vec::new();
    io::stdin().take(HANDOVER_MAX).read_to_end(&mut bytes)?;
    let values: BTreeMap<String, String> = serde_json::from_slice(&bytes).map_err(|_| StartFault {
        terminal: false,
        // Not serde's own text: it may quote the value.
        reason: "the daemon's handover on standard input is cut off".to_owned(),
    })?;
    Ok(values.into_iter().map(|(name, value)| (name, value.into())).collect())
}

/// Limits that the unit inherits: open files, no core dumps (they hold secrets), no way to gain rights where it has none.
fn limit(sheet: &Sheet) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES), hard)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    if sheet.run_as.is_some() {
        nix::sys::prctl::set_no_new_privs()?;
    }
    Ok(())
}

fn how(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}
