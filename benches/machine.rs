//! The machine under a benchmark: a network of its own, pinned processes, CPU time and memory.

use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::resource::{Resource, Usage, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::{Pid, Uid};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Pins the calling process (later threads too) to a core, where there is more than one.
pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// A network namespace of its own where the user is root: connection tracking costs 8 to 10 % on a shared loopback. Before any thread starts.
pub fn private_network() {
    if Uid::effective().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(
            up.is_ok_and(|status| status.success()),
            "`ip link set lo up` failed in a network namespace"
        );
    } else {
        eprintln!("not root: on the shared loopback, all rates are lower by connection tracking");
    }
}

/// Gives the calling thread, and those it starts from here on, a descriptor table of its own: the limit on open files holds for each table.
///
/// Between two tables a descriptor's number means nothing, so a thread must not wake a runtime of another table (a waker writes to a descriptor): only std's
/// channels, locks and atomics pass. A runtime of tokio must have stood before, because its watch for signals is the process's.
pub fn own_descriptors() {
    unshare(CloneFlags::CLONE_FILES).expect("a descriptor table needs no rights");
}

/// Raises the limit on open files as far as it goes, and says how far that is.
pub fn open_files() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit that exists");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a limit may be raised to the hard one");
    hard
}

/// TCP sockets of this network namespace that listen or are connected.
pub fn tcp_sockets() -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/sockstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: inuse "));
    let sockets = line.and_then(|line| line.split(' ').next()?.parse().ok());
    sockets.unwrap_or(0)
}

/// This program again, with other arguments, on a core of its own.
pub fn again(arguments: &[&str]) -> Command {
    let program = std::env::current_exe().expect("a program has a path");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A child that is killed with its owner.
pub struct Helper(Child);

impl Helper {
    pub fn start(mut command: Command) -> Self {
        Self(
            command
                .stdout(Stdio::piped())
                .spawn()
                .expect("a program that can be started"),
        )
    }

    /// The first line that the child prints.
    pub fn first_line(&mut self) -> String {
        use std::io::BufRead;
        let mut line = String::new();
        let stdout = self.0.stdout.take().expect("stdout is piped");
        std::io::BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a line of text");
        line.trim().to_owned()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a child to its end; its output and the CPU time that it used. No other child may end meanwhile.
pub fn timed(mut command: Command) -> (Output, Duration) {
    let before = cpu(UsageWho::RUSAGE_CHILDREN);
    let output = command.output().expect("a program that can be started");
    (output, cpu(UsageWho::RUSAGE_CHILDREN) - before)
}

/// CPU time used by this process so far.
pub fn own_cpu() -> Duration {
    cpu(UsageWho::RUSAGE_SELF)
}

fn cpu(who: UsageWho) -> Duration {
    let usage: Usage = getrusage(who).expect("both kinds of usage exist");
    let part = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec().unsigned_abs()) + Duration::from_micros(value.tv_usec().unsigned_abs())
    };
    part(usage.user_time()) + part(usage.system_time())
}

/// Resident memory of this process that no file backs, in bytes.
pub fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
