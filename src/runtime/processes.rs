//! Which processes belong to a unit or a hook: by boot id, start time, group and environment tag, never by process id alone (promise 17).

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The environment variable all processes of a unit or a hook inherit.
pub(crate) const TAG: &str = "MUSTER_UNIT_TAG";
/// How often a dying process is looked at again.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// One process of one boot: an id is used again, an id with its start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    /// Process id.
    pub pid: i32,
    /// Clock ticks after boot at which it started.
    pub start: u64,
}

impl Process {
    /// The process with this id as it is now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self { pid, start: stat.start })
    }

    /// Whether exactly this process is still there (a zombie is not).
    pub(crate) fn is_running(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.start == self.start && !stat.dead)
    }

    /// Signals exactly this process; one that is gone is fine.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_running() {
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }
}

/// This boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The part of `/proc/PID/stat` that tells who is who (proc(5)).
struct Stat {
    dead: bool,
    group: i32,
    session: i32,
    start: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "odd /proc/PID/stat"))
    }

    /// The program's name stands in parentheses and may itself hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            dead: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// How the processes of a unit or a hook are recognised.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    /// The word in their environment that nobody else has.
    pub tag: String,
    /// The unit's first process and the shim's session, where they are known to be of this boot. A program that writes over
    /// its environment (nginx does) is still recognised by both.
    pub group: Option<(Process, i32)>,
}

impl Marks {
    /// All of them that run now.
    pub(crate) fn members(&self) -> io::Result<Vec<Process>> {
        let me = std::process::id();
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // A process that ends while it is looked at is none.
            let Ok(stat) = Stat::read(pid) else { continue };
            if !stat.dead && u32::try_from(pid) != Ok(me) && self.fit(pid, &stat) {
                members.push(Process { pid, start: stat.start });
            }
        }
        Ok(members)
    }

    fn fit(&self, pid: i32, stat: &Stat) -> bool {
        let by_group = self.group.is_some_and(|(leader, session)| {
            stat.session == session && stat.group == leader.pid && stat.start >= leader.start
        });
        by_group || has_tag(pid, &self.tag)
    }

    /// Kills all of them and waits until none is left.
    ///
    /// # Errors
    /// When some are still there at the deadline, or `/proc` cannot be read.
    pub(crate) fn kill(&self, deadline: Instant) -> io::Result<()> {
        loop {
            let members = self.members()?;
            if members.is_empty() {
                return Ok(());
            }
            for member in &members {
                member.signal(Signal::SIGKILL);
            }
            if Instant::now() >= deadline {
                let pids: Vec<i32> = members.iter().map(|member| member.pid).collect();
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("processes {pids:?} do not die"),
                ));
            }
            thread::sleep(LOOK);
        }
    }
}

fn has_tag(pid: i32, tag: &str) -> bool {
    let wanted = format!("{TAG}={tag}");
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{Marks, Process, Stat, TAG};
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn s17_stat_is_read_behind_the_last_parenthesis() {
        let text = "12 (a) b (x)) S 1 34 56 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 7890 1 2";
        let stat = Stat::parse(text).expect("parses");
        assert_eq!((stat.group, stat.session, stat.start, stat.dead), (34, 56, 7890, false));
        assert!(Stat::parse("12 (a) S 1").is_none());
    }

    #[test]
    fn s17_a_process_id_with_another_start_time_is_another_process() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleeps");
        let pid = i32::try_from(child.id()).expect("small");
        let process = Process::of(pid).expect("there");
        assert!(process.is_running());
        let stranger = Process {
            start: process.start + 1,
            ..process
        };
        assert!(!stranger.is_running());
        stranger.signal(nix::sys::signal::Signal::SIGKILL);
        assert!(process.is_running(), "a stranger with the same id is not signalled");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(!process.is_running());
    }

    #[test]
    fn s17_leftovers_are_recognised_by_their_tag() {
        let tag = uuid::Uuid::now_v7().to_string();
        let mut ours = Command::new("sleep").arg("60").env(TAG, &tag).spawn().expect("sleeps");
        let mut other = Command::new("sleep")
            .arg("60")
            .env(TAG, "other")
            .spawn()
            .expect("sleeps");
        let marks = Marks { tag, group: None };
        let deadline = Instant::now() + Duration::from_secs(10);
        let waiter = std::thread::spawn(move || ours.wait().expect("reaped"));
        while marks.members().expect("seen").is_empty() {
            assert!(Instant::now() < deadline, "the tag appears with exec");
        }
        marks.kill(deadline).expect("killed");
        assert!(!waiter.join().expect("joined").success());
        assert!(
            other.try_wait().expect("asked").is_none(),
            "another tag is another unit"
        );
        other.kill().expect("killed");
        other.wait().expect("reaped");
    }
}
