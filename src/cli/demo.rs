//! `muster demo`: the tour. A temporary git repository, a daemon on it, two commits, two runs, everything taken down again.

use super::exit::Exit;
use super::output::{self, Tone};
use super::wire::Client;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The plans of this repository, which the tour commits.
const PLANS: [(&str, &str); 3] = [
    ("plans/lab.yaml", include_str!("../../plans/lab.yaml")),
    ("plans/checkout.yaml", include_str!("../../plans/checkout.yaml")),
    ("plans/files/shop.conf", include_str!("../../plans/files/shop.conf")),
];
/// How long any one step of the tour may take: starting three replicas takes about two seconds.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
/// How often the tour looks.
const POLL: Duration = Duration::from_millis(100);

/// Runs the tour.
///
/// # Errors
/// When a step did not do what it should; the daemon's log is then shown.
pub async fn run() -> Result<Exit> {
    for program in ["git", "nginx"] {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$0\"", program])
            .env("PATH", tool_path())
            .stdout(Stdio::null())
            .status()?;
        ensure!(found.success(), "the tour needs `{program}`: apt-get install {program}");
    }
    let mut tour = Tour::new()?;
    let outcome = tour.walk().await;
    if outcome.is_err() {
        output::error(&format!("the tour broke off; the daemon's log:\n{}", tour.log_tail()));
    }
    tour.take_down(outcome.is_ok()).await?;
    outcome.map(|()| Exit::Done)
}

/// Debian keeps servers in sbin, which a plain user's PATH may lack.
fn tool_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

struct Tour {
    folder: PathBuf,
    exe: PathBuf,
    client: Client,
    daemon: Option<Child>,
}

impl Tour {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("muster-demo-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("repo"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let workers = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = format!(
            "source: {{url: \"file://{0}/repo\", branch: main, path: plans, interval: 1s}}\n\
             store: {{url: \"sqlite://{0}/state/muster.db\"}}\n\
             listen: 127.0.0.1:{port}\n\
             workers: {{listen: \"127.0.0.1:{workers}\"}}\n\
             process: {{enabled: true}}\n",
            folder.display()
        );
        std::fs::write(folder.join("muster.yaml"), settings)?;
        let client = Client::new(&format!("http://127.0.0.1:{port}"), None)?;
        Ok(Self {
            folder,
            exe: std::env::current_exe()?,
            client,
            daemon: None,
        })
    }

    async fn walk(&mut self) -> Result<()> {
        self.title("1. Plans live in git");
        for (path, content) in PLANS {
            let path = self.repo().join(path);
            std::fs::create_dir_all(path.parent().context("a plan has a folder")?)?;
            std::fs::write(path, content)?;
        }
        self.git(&["init", "-q", "-b", "main"])?;
        self.commit("A shop with three replicas, and its load test")?;
        self.muster(&["validate", "plans", "--settings", "../muster.yaml"])?;

        self.title("2. A daemon makes the machine what git says");
        self.serve().await?;
        self.wait_for_units(3).await?;
        self.muster(&["get", "units"])?;
        self.muster(&["get", "plans"])?;

        self.title("3. A phased test run, measured and judged");
        self.muster(&["start", "plan/checkout", "--wait"])?;

        self.title("4. A second commit: two replicas, a stricter threshold");
        self.edit("plans/lab.yaml", "replicas: 3", "replicas: 2")?;
        self.edit("plans/checkout.yaml", "p(99)<800ms", "p(99)<500ms")?;
        self.commit("Two replicas are enough, and faster is better")?;
        self.muster(&[
            "diff",
            "--base",
            "HEAD~1",
            "--head",
            "HEAD",
            "-C",
            ".",
            "--settings",
            "../muster.yaml",
        ])?;
        self.muster(&["reconcile"])?;
        self.wait_for_units(2).await?;
        self.muster(&["get", "units"])?;
        self.muster(&["start", "plan/checkout", "--wait", "--quiet"])?;

        self.title("5. What changed between the two runs");
        let runs = self.client.get("/api/v1/runs").await?;
        let ids: Vec<&str> = runs["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|run| run["id"].as_str())
            .collect();
        let [second, first] = ids[..] else {
            bail!("two runs are recorded, not {}", ids.len())
        };
        self.muster(&["compare", first, second])?;

        self.title("6. Taking it all down is a commit, too: an emptied repository is refused until somebody approves");
        self.git(&["rm", "-q", "-r", "plans"])?;
        std::fs::create_dir_all(self.repo().join("plans"))?;
        std::fs::write(self.repo().join("plans/README.md"), "No plans.\n")?;
        let revision = self.commit("Take the shop down")?;
        self.muster(&["reconcile"])?;
        self.wait("the refusal", |tour| async move {
            let diff = tour.client.get("/api/v1/diff").await?;
            Ok(diff.to_string().contains("approve-deletion"))
        })
        .await?;
        self.muster(&["diff"])?;
        self.muster(&["approve-deletion", &revision])?;
        self.wait_for_units(0).await?;
        self.muster(&["get", "units"])?;
        Ok(())
    }

    async fn serve(&mut self) -> Result<()> {
        self.say("muster serve --config muster.yaml &");
        let log = std::fs::File::create(self.folder.join("daemon.log"))?;
        let daemon = Command::new(&self.exe)
            .args(["serve", "--config", "muster.yaml"])
            .current_dir(&self.folder)
            .env("PATH", tool_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.daemon = Some(daemon);
        self.wait("the daemon", |tour| async move {
            Ok(tour.client.get("/readyz").await.is_ok())
        })
        .await
    }

    async fn wait_for_units(&self, wanted: usize) -> Result<()> {
        self.wait(&format!("{wanted} replicas"), |tour| async move {
            let units = tour.client.get("/api/v1/units").await?;
            let units: Vec<&Value> = units["items"].as_array().into_iter().flatten().collect();
            let replicas: Vec<&&Value> = units
                .iter()
                .filter(|unit| unit["owner"].as_str() == Some("default/Service/shop"))
                .collect();
            Ok(replicas.len() == wanted && replicas.iter().all(|unit| unit["state"] == "Ready"))
        })
        .await
    }

    async fn wait<'a, F>(&'a self, what: &str, mut holds: impl FnMut(&'a Self) -> F) -> Result<()>
    where
        F: Future<Output = Result<bool>>,
    {
        let begun = Instant::now();
        while !holds(self).await.unwrap_or(false) {
            ensure!(begun.elapsed() < STEP_DEADLINE, "waited {STEP_DEADLINE:?} for {what}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn repo(&self) -> PathBuf {
        self.folder.join("repo")
    }

    fn title(&self, text: &str) {
        output::data(&format!(
            "\n{}",
            output::paint(text, Tone::Strong, output::stdout_color())
        ));
    }

    fn say(&self, command: &str) {
        output::data(&output::paint(
            &format!("$ {command}"),
            Tone::Quiet,
            output::stdout_color(),
        ));
    }

    fn muster(&self, args: &[&str]) -> Result<()> {
        let words: Vec<String> = args
            .iter()
            .map(|arg| {
                if arg.contains(' ') {
                    format!("'{arg}'")
                } else {
                    (*arg).to_owned()
                }
            })
            .collect();
        self.say(&format!("muster {}", words.join(" ")));
        let status = Command::new(&self.exe)
            .args(args)
            .current_dir(self.repo())
            .env("MUSTER_SERVER", self.client.server())
            .env("PATH", tool_path())
            .stdin(Stdio::null())
            .status()?;
        check(&format!("muster {}", args.join(" ")), status)
    }

    fn git(&self, args: &[&str]) -> Result<()> {
        let status = Command::new("git")
            .args([
                "-c",
                "user.name=Muster demo",
                "-c",
                "user.email=demo@localhost",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(args)
            .current_dir(self.repo())
            .stdin(Stdio::null())
            .status()?;
        check(&format!("git {}", args.join(" ")), status)
    }

    fn commit(&self, message: &str) -> Result<String> {
        self.say(&format!("git commit -m '{message}'"));
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "-m", message])?;
        let head = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(self.repo())
            .output()?;
        Ok(String::from_utf8(head.stdout)?.trim().to_owned())
    }

    fn edit(&self, path: &str, from: &str, to: &str) -> Result<()> {
        let path = self.repo().join(path);
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{} has no `{from}`", path.display());
        self.say(&format!(
            "sed -i 's/{from}/{to}/' {}",
            path.strip_prefix(self.repo()).unwrap_or(Path::new("")).display()
        ));
        Ok(std::fs::write(&path, text.replace(from, to))?)
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Stops the daemon. After a whole tour nothing is left; after a broken one the folder stays for a look.
    async fn take_down(&mut self, whole: bool) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id())?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
            let begun = Instant::now();
            while daemon.try_wait()?.is_none() {
                if begun.elapsed() > STEP_DEADLINE {
                    daemon.kill()?;
                }
                tokio::time::sleep(POLL).await;
            }
        }
        if whole {
            std::fs::remove_dir_all(&self.folder)?;
            output::data("\nEverything is taken down. Next: `muster init`, or read README.md.");
        } else {
            output::error(&format!("what is left stands in {}", self.folder.display()));
        }
        Ok(())
    }
}

fn check(command: &str, status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "`{command}` ended with {status}");
    Ok(())
}
