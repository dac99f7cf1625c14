//! How busy this process's machine is: CPU of its cgroup or host, steal, own memory. Linux's /proc and cgroups, version 1 and 2.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Shares between two readings, and memory now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Reading {
    /// CPU share of the tightest cgroup limit or of the host, the higher, 0 to 1.
    pub cpu: f64,
    /// Share of host CPU time that the hypervisor took, 0 to 1.
    pub steal: f64,
    /// Resident memory of this process.
    pub memory_bytes: u64,
}

/// Remembers the last reading. What cannot be read counts as 0: elsewhere than on Linux there is no such number.
#[derive(Debug)]
pub(super) struct Usage {
    groups: Vec<Group>,
    host: Option<HostTimes>,
}

/// A cgroup with a CPU limit above or at this process.
#[derive(Debug)]
struct Group {
    usage_file: PathBuf,
    is_v2: bool,
    /// CPUs it may use.
    cpus: f64,
    last: Option<(Instant, Duration)>,
}

/// Ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostTimes {
    total: u64,
    idle: u64,
    steal: u64,
}

impl Usage {
    /// Begins: the first reading is over the time since now.
    pub fn start() -> Self {
        let mut usage = Self {
            groups: find_groups(),
            host: None,
        };
        usage.read();
        usage
    }

    /// Shares since the last call.
    pub fn read(&mut self) -> Reading {
        let mut reading = Reading {
            memory_bytes: text("/proc/self/status").and_then(|text| parse_rss(&text)).unwrap_or(0),
            ..Reading::default()
        };
        if let Some(now) = text("/proc/stat").and_then(|text| parse_host(&text))
            && let Some(before) = self.host.replace(now)
        {
            (reading.cpu, reading.steal) = now.shares_since(before);
        }
        for group in &mut self.groups {
            reading.cpu = reading.cpu.max(group.share());
        }
        reading
    }
}

impl HostTimes {
    fn shares_since(self, before: Self) -> (f64, f64) {
        let total = self.total.saturating_sub(before.total);
        if total == 0 {
            return (0.0, 0.0);
        }
        let idle = self.idle.saturating_sub(before.idle).min(total);
        let steal = self.steal.saturating_sub(before.steal).min(total);
        ((total - idle) as f64 / total as f64, steal as f64 / total as f64)
    }
}

impl Group {
    fn share(&mut self) -> f64 {
        let Some(used) = text(&self.usage_file).and_then(|text| parse_usage(&text, self.is_v2)) else {
            return 0.0;
        };
        let now = Instant::now();
        let Some((then, before)) = self.last.replace((now, used)) else {
            return 0.0;
        };
        let passed = now.duration_since(then).as_secs_f64() * self.cpus;
        if passed <= 0.0 {
            return 0.0;
        }
        (used.saturating_sub(before).as_secs_f64() / passed).clamp(0.0, 1.0)
    }
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// This process's cgroup and its parents, as far as they limit CPU.
fn find_groups() -> Vec<Group> {
    let root = Path::new("/sys/fs/cgroup");
    let mut groups = Vec::new();
    for line in text("/proc/self/cgroup").unwrap_or_default().lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|controller| controller == "cpu") {
            continue;
        }
        let base = if is_v2 { root.to_owned() } else { root.join(controllers) };
        let own = base.join(path.trim_start_matches('/'));
        for folder in own.ancestors().take_while(|folder| folder.starts_with(&base)) {
            let cpus = if is_v2 {
                text(folder.join("cpu.max")).and_then(|text| parse_max(&text))
            } else {
                let number = |name| text(folder.join(name))?.trim().parse::<f64>().ok();
                number("cpu.cfs_quota_us")
                    .zip(number("cpu.cfs_period_us"))
                    .and_then(|(quota, period)| limit(quota, period))
            };
            if let Some(cpus) = cpus {
                groups.push(Group {
                    usage_file: folder.join(if is_v2 { "cpu.stat" } else { "cpuacct.usage" }),
                    is_v2,
                    cpus,
                    last: None,
                });
            }
        }
    }
    groups
}

/// `user nice system idle iowait irq softirq steal …`: guest times, which follow, are within user already.
fn parse_host(text: &str) -> Option<HostTimes> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    Some(HostTimes {
        total: ticks.iter().sum(),
        idle: ticks.get(3)? + ticks.get(4)?,
        steal: *ticks.get(7)?,
    })
}

fn parse_rss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1_024)
}

/// `max 100000` or `150000 100000`.
fn parse_max(text: &str) -> Option<f64> {
    let mut parts = text.split_ascii_whitespace();
    let quota = parts.next()?.parse().ok()?;
    limit(quota, parts.next()?.parse().ok()?)
}

fn limit(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn parse_usage(text: &str, is_v2: bool) -> Option<Duration> {
    if !is_v2 {
        return text.trim().parse().ok().map(Duration::from_nanos);
    }
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    line.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::{HostTimes, Usage, parse_host, parse_max, parse_rss, parse_usage};
    use std::time::Duration;

    #[test]
    fn the_kernel_files_are_read() {
        let before = parse_host("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\n").unwrap();
        let expected = HostTimes {
            total: 1_000,
            idle: 800,
            steal: 0,
        };
        assert_eq!(before, expected);
        let after = parse_host("cpu  160 0 110 710 100 0 0 20 80 0\n").unwrap();
        assert_eq!(after.shares_since(before), (0.9, 0.2));
        assert_eq!(after.shares_since(after), (0.0, 0.0));
        assert_eq!(parse_max("max 100000\n"), None);
        assert_eq!(parse_max("150000 100000\n"), Some(1.5));
        assert_eq!(
            parse_usage("usage_usec 2500\nuser_usec 1\n", true),
            Some(Duration::from_micros(2_500))
        );
        assert_eq!(parse_usage("7\n", false), Some(Duration::from_nanos(7)));
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        for text in ["", "cpu ", "cpu  a b", "intr 5", "VmRSS: x kB"] {
            assert_eq!(parse_host(text), None);
            assert_eq!(parse_max(text), None);
            assert_eq!(parse_usage(text, true), None);
            assert_eq!(parse_rss(text), None);
        }
    }

    #[test]
    fn s45_this_machine_is_read() {
        let mut usage = Usage::start();
        let until = std::time::Instant::now() + Duration::from_millis(60);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        let reading = usage.read();
        assert!(reading.cpu > 0.0 && reading.cpu <= 1.0, "{reading:?}");
        assert!(reading.memory_bytes > 1 << 20);
    }
}
