//! Several hosts, as network namespaces: `examples/several-hosts` by the commands of its README, its counts against the target's own log;
//! then the network between one worker and the daemon is cut in mid-run.

use crate::support::wait_for;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;
use tempfile::TempDir;

/// What the plan's pool says.
const ORPHAN_TIMEOUT: f64 = 5.0;

struct Hosts {
    _folder: TempDir,
    dir: PathBuf,
    prefix: String,
    /// The README's blocks of commands.
    blocks: Vec<String>,
}

impl Hosts {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/several-hosts");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(&example)
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(copied.success());
        let dir = folder.path().join("several-hosts");
        // The machine is shared with other tests: a busy one makes no run Invalid here.
        let plan = dir.join("plans/shop.yaml");
        let text = std::fs::read_to_string(&plan).unwrap();
        std::fs::write(
            &plan,
            text.trim_end().to_owned() + "\n  validity: {maxBadShare: 100%}\n",
        )
        .unwrap();
        // Writable for the target's workers, which give up root.
        let open = Command::new("chmod")
            .args(["-R", "a+rwX"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(open.success());
        let readme = std::fs::read_to_string(dir.join("README.md")).unwrap();
        let blocks = readme.split("```console\n").skip(1).map(|block| {
            let block = block.split("```").next().unwrap();
            let commands: Vec<&str> = block.lines().map(|line| line.strip_prefix("$ ").unwrap()).collect();
            commands.join("\n")
        });
        Self {
            blocks: blocks.collect(),
            _folder: folder,
            dir,
            prefix: format!("it{}", std::process::id()),
        }
    }

    fn bash(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_muster")).parent().unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-ec", script])
            .current_dir(&self.dir)
            .env_clear()
            .env("HOME", &self.dir)
            .env("HOSTS", &self.prefix)
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", program.display()))
            .stdin(Stdio::null());
        command
    }

    /// Runs a block of the README; what it leaves in the background goes on.
    #[track_caller]
    fn block(&self, number: usize) {
        let log = self.dir.join(format!("block-{number}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let status = self
            .bash(&self.blocks[number])
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "{}\n{}\n{}",
            self.blocks[number],
            self.read(&log),
            self.logs()
        );
    }

    fn read(&self, path: &Path) -> String {
        std::fs::read_to_string(self.dir.join(path)).unwrap_or_default()
    }

    fn logs(&self) -> String {
        format!(
            "{}\n{}",
            self.read(Path::new("block-0.log")),
            self.read(Path::new("daemon.log"))
        )
    }

    /// `muster ARGS -o json` on the daemon's host; null while it cannot answer.
    fn json(&self, args: &str) -> Value {
        let output = self
            .bash(&format!("./hosts.sh on daemon muster {args} -o json"))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn workers_idle(&self) -> Option<()> {
        let workers = self.json("get workers");
        let idle = workers["items"]
            .as_array()?
            .iter()
            .filter(|worker| worker["state"] == "Idle")
            .count();
        (idle == 3).then_some(())
    }

    /// Who asked the target, and when, in seconds since 1970.
    fn asked(&self) -> Vec<(String, f64)> {
        let line = |line: &str| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        self.read(Path::new("target.log")).lines().filter_map(line).collect()
    }

    fn pids(&self, host: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "pids", &format!("{}-{host}", self.prefix)])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = self.bash("./hosts.sh down").status();
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

fn worker<'a>(report: &'a Value, name: &str) -> &'a Value {
    let workers = report["workers"].as_array().unwrap();
    workers
        .iter()
        .find(|worker| worker["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {report:#}"))
}

#[test]
fn s39_s41_s50_workers_on_several_hosts_share_a_run_and_one_that_is_cut_off_ends_its_load() {
    let hosts = Hosts::new();
    let [start, run, cut, end] = &hosts.blocks[..] else {
        panic!("the README has other blocks than this test knows: {:?}", hosts.blocks);
    };
    assert!(start.contains("hosts.sh up") && run.contains("--wait") && cut.contains("cut") && end.contains("down"));
    hosts.block(0);
    wait_for("three workers", || hosts.workers_idle());

    hosts.block(1);
    let report: Value = serde_json::from_str(&hosts.read(Path::new("report.json"))).unwrap();
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(report["completeness"]["kind"], "Complete");
    let asked = hosts.asked();
    assert_eq!(asked.len(), 2_400);
    assert_eq!(report["metrics"]["http_reqs"]["count"], 2_400, "{report:#}");
    for number in 1..=3 {
        let address = format!("10.77.1.1{number}");
        let count = asked.iter().filter(|(who, _)| *who == address).count();
        assert_eq!(count, 800, "{address} made its share, exactly");
        let worker = worker(&report, &format!("worker-{number}"));
        assert!(
            (worker["share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9,
            "{worker:#}"
        );
        assert!(
            worker["startSkewMs"].is_number() && worker["clockErrorMs"].is_number(),
            "{worker:#}"
        );
    }
    wait_for("free workers", || hosts.workers_idle());
    assert!(hosts.json("get pools")["items"][0]["workers"]["free"] == 3);

    hosts.block(2);
    let cut_at = now();
    wait_for("the worker to end by itself", || {
        hosts.pids("worker-2").is_empty().then_some(())
    });
    let runs = wait_for("the run to end", || {
        let runs = hosts.json("get runs");
        (runs["items"][0]["stage"] == "Finished").then_some(runs)
    });
    assert_eq!(
        runs["items"][0]["ending"],
        "Invalid(workers)",
        "{runs:#}\n{}",
        hosts.logs()
    );
    let last = |who: &str| {
        let times = hosts
            .asked()
            .into_iter()
            .filter(|(other, _)| other == who)
            .map(|(_, at)| at);
        times.fold(0.0, f64::max)
    };
    let went_on = last("10.77.1.12") - cut_at;
    // It heard its daemon last up to a second before the cut; a busy machine may take a moment more.
    assert!(
        (ORPHAN_TIMEOUT - 2.0..ORPHAN_TIMEOUT + 2.0).contains(&went_on),
        "load went on for {went_on} s"
    );
    let ended = [last("10.77.1.11"), last("10.77.1.13")].map(|last| last - cut_at);
    assert!(
        ended.iter().all(|ended| *ended < 17.0),
        "the others stopped with the run: {ended:?}"
    );

    let id = runs["items"][0]["id"].as_str().unwrap();
    let report = hosts.json(&format!("report run/{id}"));
    assert_eq!(report["completeness"]["kind"], "Partial", "{report:#}");
    let gone = worker(&report, "worker-2");
    assert!(gone["lost"] == true && gone["lostAt"].is_string(), "{gone:#}");
    let missing = gone["missing"].as_array().unwrap();
    assert!(!missing.is_empty(), "{gone:#}");
    for fine in ["worker-1", "worker-3"] {
        let fine = worker(&report, fine);
        assert!(
            fine["lost"] == false && fine["missing"] == Value::Array(Vec::new()),
            "{fine:#}"
        );
    }
    let text = hosts
        .bash(&format!("./hosts.sh on daemon muster report run/{id}"))
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("(worker-2) lost at ") && text.contains("missing"),
        "{text}"
    );
    assert!(
        hosts.logs().contains("lost the daemon"),
        "the worker says so: {}",
        hosts.logs()
    );

    hosts.block(3);
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let left = String::from_utf8(left.stdout).unwrap();
    assert!(!left.contains(&format!("{}-", hosts.prefix)), "{left}");
    wait_for("the last process to be gone", || {
        let output = Command::new("pgrep").args(["-f", hosts.dir.to_str()?]).output().ok()?;
        output.stdout.is_empty().then_some(())
    });
}
