//! What only real processes show: shims, signals, leftovers, secrets, users.

use super::provider::{config, process, reach, replica};
use crate::support::eventually;
use muster::provider::process::{ProcessConfig, ProcessProvider, RunAs, WorkerLaunch};
use muster::provider::{Materials, Provider, ProviderError};
use muster_core::model::id::{Digest, Name};
use muster_core::model::service::{EnvValue, EnvVar, Health, Probe, SecretRef, UnitFile};
use muster_core::model::unit::{UnitName, UnitSpec, UnitState, UnitWork};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A test's folder; whatever units a failed test leaves behind are killed with it.
struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn provider(&self) -> ProcessProvider {
        process(self.root())
    }

    fn unit_folder(&self, unit: &UnitName) -> PathBuf {
        self.root().join("units").join(unit.as_str())
    }

    /// A process id out of a unit's record: `shim` or `child`.
    fn pid(&self, unit: &UnitName, whose: &str) -> i32 {
        let text = fs::read(self.unit_folder(unit).join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap();
        i32::try_from(state[whose]["pid"].as_i64().unwrap()).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.root().join("units")).into_iter().flatten().flatten() {
            let Ok(text) = fs::read(entry.path().join("state.json")) else {
                continue;
            };
            let Ok(state) = serde_json::from_slice::<serde_json::Value>(&text) else {
                continue;
            };
            for whose in ["shim", "child"] {
                if let Some(pid) = state[whose]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
                }
            }
        }
    }
}

fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

async fn gone(pid: i32) {
    eventually(&format!("process {pid} is gone"), async || {
        (!is_running(pid)).then_some(())
    })
    .await;
}

fn sh(ordinal: u32, script: &str) -> UnitSpec {
    replica(ordinal, &["sh", "-c", script])
}

/// The unit's output once it holds a text.
async fn output(provider: &dyn Provider, unit: &UnitName, holds: &str) -> String {
    eventually(&format!("{unit} prints {holds}"), async || {
        let text = String::from_utf8(provider.logs(unit, 1 << 20).await.unwrap()).unwrap();
        text.contains(holds).then_some(text)
    })
    .await
}

fn replica_parts(unit: &mut UnitSpec) -> (&mut Vec<EnvVar>, &mut Vec<UnitFile>, &mut Option<Health>) {
    match &mut unit.work {
        UnitWork::Replica { env, files, health, .. } => (env, files, health),
        _ => panic!("a replica"),
    }
}

#[tokio::test]
async fn s17_a_unit_that_ends_by_itself_is_started_again_on_its_port() {
    let lab = Lab::new();
    let provider = lab.provider();
    let unit = sh(0, "echo port ${PORT} of ${UNIT_NAME}; exec sleep 1000");
    provider.create(&unit, &Materials::default()).await.unwrap();
    let first = reach(&provider, &unit.name, "Ready").await;
    let pid = lab.pid(&unit.name, "child");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let down = reach(&provider, &unit.name, "BackOff").await;
    assert_eq!(down.state.reason(), Some("killed by SIGKILL"));
    let again = reach(&provider, &unit.name, "Ready").await;
    assert_eq!((again.restarts, &again.ports), (1, &first.ports));
    assert_ne!(lab.pid(&unit.name, "child"), pid);
    let text = output(&provider, &unit.name, "starts again").await;
    let line = format!("port {} of {}\n", first.ports[0].1, unit.name);
    assert_eq!(text.matches(&line).count(), 2, "{text}");
    provider.delete(&unit.name).await.unwrap();
}

#[tokio::test]
async fn s17_what_a_killed_shim_left_behind_is_recognised_and_killed() {
    let lab = Lab::new();
    let provider = lab.provider();
    // One child stays in the group, one leaves it and is known by its tag only.
    let unit = sh(0, "sleep 1000 & setsid sleep 2000 & echo $!; wait");
    provider.create(&unit, &Materials::default()).await.unwrap();
    reach(&provider, &unit.name, "Ready").await;
    let escaped: i32 = output(&provider, &unit.name, "\n").await.trim().parse().unwrap();
    let (shim, child) = (lab.pid(&unit.name, "shim"), lab.pid(&unit.name, "child"));
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let dead = reach(&provider, &unit.name, "Exited").await;
    assert_eq!(dead.state.reason(), Some("its shim is gone"));
    assert!(
        is_running(child) && is_running(escaped),
        "a shim's death alone ends nothing"
    );

    lab.provider().create(&unit, &Materials::default()).await.unwrap();
    gone(child).await;
    gone(escaped).await;
    reach(&provider, &unit.name, "Ready").await;
    assert_ne!(lab.pid(&unit.name, "child"), child);

    kill(Pid::from_raw(lab.pid(&unit.name, "shim")), Signal::SIGKILL).unwrap();
    let child = lab.pid(&unit.name, "child");
    provider.delete(&unit.name).await.unwrap();
    gone(child).await;
    assert!(!lab.unit_folder(&unit.name).exists());
}

#[tokio::test]
async fn s17_a_record_of_another_boot_is_nobodys_process() {
    let lab = Lab::new();
    let provider = lab.provider();
    let unit = sh(0, "exec sleep 1000");
    provider.create(&unit, &Materials::default()).await.unwrap();
    reach(&provider, &unit.name, "Ready").await;
    let (shim, child) = (lab.pid(&unit.name, "shim"), lab.pid(&unit.name, "child"));
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    gone(child).await;
    // After a reboot the recorded ids belong to strangers: here to this test itself.
    let path = lab.unit_folder(&unit.name).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["boot_id"] = "another boot".into();
    state["child"]["pid"] = std::process::id().into();
    state["child"]["start"] = 0.into();
    fs::write(&path, state.to_string()).unwrap();
    provider.delete(&unit.name).await.unwrap();
    assert!(provider.observe().await.unwrap().is_empty());
}

#[tokio::test]
async fn s24_the_daemons_end_leaves_units_alone_and_a_stop_ends_all_of_them() {
    let lab = Lab::new();
    let unit = sh(0, "sleep 1000 & echo ready; wait");
    let first = lab.provider();
    first.create(&unit, &Materials::default()).await.unwrap();
    drop(first);
    let next = lab.provider();
    reach(&next, &unit.name, "Ready").await;
    let (shim, child) = (lab.pid(&unit.name, "shim"), lab.pid(&unit.name, "child"));
    assert_eq!(
        nix::unistd::getsid(Some(Pid::from_raw(child))).unwrap().as_raw(),
        shim,
        "own session"
    );
    assert_eq!(
        nix::unistd::getpgid(Some(Pid::from_raw(child))).unwrap().as_raw(),
        child,
        "own group"
    );
    next.delete(&unit.name).await.unwrap();
    gone(child).await;
    gone(shim).await;
}

#[tokio::test]
async fn s20_a_unit_gets_term_its_grace_and_then_kill() {
    let lab = Lab::new();
    let provider = lab.provider();
    let trace = lab.root().join("trace");
    let polite = sh(
        0,
        &format!(
            "trap 'echo bye > {}; exit 0' TERM; echo up; while :; do sleep 0.05; done",
            trace.display()
        ),
    );
    provider.create(&polite, &Materials::default()).await.unwrap();
    output(&provider, &polite.name, "up").await;
    provider.delete(&polite.name).await.unwrap();
    assert_eq!(fs::read_to_string(&trace).unwrap(), "bye\n");

    let mut deaf = sh(1, "trap '' TERM; echo up; while :; do sleep 0.05; done");
    deaf.stop_grace = Duration::from_millis(300);
    provider.create(&deaf, &Materials::default()).await.unwrap();
    output(&provider, &deaf.name, "up").await;
    let child = lab.pid(&deaf.name, "child");
    let began = Instant::now();
    provider.delete(&deaf.name).await.unwrap();
    assert!(began.elapsed() >= deaf.stop_grace, "the grace is given");
    gone(child).await;
}

#[tokio::test]
async fn s18_ready_follows_the_health_check() {
    let lab = Lab::new();
    let provider = lab.provider();
    // perl-base is part of every Debian; it answers 200 while the file `well` exists.
    let server = r#"use IO::Socket::INET; open(my $f, ">", "well"); close $f;
        my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$ARGV[0]", Listen => 9, ReuseAddr => 1) or die;
        while (my $c = $s->accept) { my $r = <$c>; my $code = -e "well" ? "200 OK" : "503 Busy";
            print $c "HTTP/1.1 $code\r\nContent-Length: 0\r\n\r\n"; close $c }"#;
    let mut unit = replica(0, &["perl", "-e", server, "${PORT_HTTP}"]);
    *replica_parts(&mut unit).2 = Some(Health {
        probe: Probe::Http {
            path: "/healthz".to_owned(),
            port: Name::new("http").unwrap(),
        },
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        failures: 3,
    });
    provider.create(&unit, &Materials::default()).await.unwrap();
    reach(&provider, &unit.name, "Ready").await;
    let well = lab.unit_folder(&unit.name).join("files/well");
    fs::remove_file(&well).unwrap();
    let sick = reach(&provider, &unit.name, "Unhealthy").await;
    assert!(sick.state.reason().unwrap().contains("status 503"), "{sick:?}");
    fs::write(&well, "").unwrap();
    reach(&provider, &unit.name, "Ready").await;
    provider.delete(&unit.name).await.unwrap();

    if let Some(health) = replica_parts(&mut unit).2 {
        health.probe = Probe::Tcp {
            port: Name::new("http").unwrap(),
        };
    }
    provider.create(&unit, &Materials::default()).await.unwrap();
    reach(&provider, &unit.name, "Ready").await;
    provider.delete(&unit.name).await.unwrap();
}

#[tokio::test]
async fn s57_a_secret_reaches_the_process_and_no_file() {
    let lab = Lab::new();
    let provider = lab.provider();
    let mut unit = sh(0, "test \"$DB_PASSWORD\" = canary-9f2 && echo right; exec sleep 1000");
    replica_parts(&mut unit).0.push(EnvVar {
        name: "DB_PASSWORD".to_owned(),
        value: EnvValue::Secret(SecretRef {
            name: "shop-db".to_owned(),
            key: Some("password".to_owned()),
        }),
    });
    let error = provider.create(&unit, &Materials::default()).await.unwrap_err();
    assert!(
        matches!(&error, ProviderError::Refused { reason, .. } if reason.contains("shop-db/password")),
        "{error}"
    );
    let mut materials = Materials::default();
    materials
        .secrets
        .insert("shop-db/password".to_owned(), "canary-9f2".into());
    assert!(!format!("{materials:?}").contains("canary"));
    provider.create(&unit, &materials).await.unwrap();
    reach(&provider, &unit.name, "Ready").await;
    // The shim keeps it in memory: a process started again has it too.
    kill(Pid::from_raw(lab.pid(&unit.name, "child")), Signal::SIGKILL).unwrap();
    let text = eventually("both processes saw the secret", async || {
        let text = output(&provider, &unit.name, "right").await;
        (text.matches("right").count() == 2).then_some(text)
    })
    .await;
    assert!(!text.contains("canary"));
    for name in ["spec.json", "state.json", "shim.err", "lock"] {
        // The script itself holds the word to compare with; nothing else may.
        let text = fs::read_to_string(lab.unit_folder(&unit.name).join(name)).unwrap();
        assert_eq!(
            text.matches("canary").count(),
            text.matches("= canary-9f2 &&").count(),
            "{name}: {text}"
        );
    }
    let shim = fs::read(format!("/proc/{}/cmdline", lab.pid(&unit.name, "shim"))).unwrap();
    assert!(!String::from_utf8_lossy(&shim).contains("canary"));
    provider.delete(&unit.name).await.unwrap();
}

#[tokio::test]
async fn s58_a_unit_inherits_nothing_of_the_daemon() {
    let lab = Lab::new();
    let provider = lab.provider();
    // A descriptor that some library forgot to close on exec.
    let leak = fs::File::open("/etc/hostname").unwrap();
    nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut unit = sh(
        0,
        "env | cut -d= -f1 | sort | tr '\\n' ' '; ls -l /proc/self/fd | grep -c hostname; ulimit -c; echo end; exec sleep 1000",
    );
    replica_parts(&mut unit).0.push(EnvVar {
        name: "PROFILE".to_owned(),
        value: EnvValue::Plain("perf".to_owned()),
    });
    provider.create(&unit, &Materials::default()).await.unwrap();
    let text = output(&provider, &unit.name, "end\n").await;
    assert_eq!(
        text,
        "HOME LANG MUSTER_UNIT MUSTER_UNIT_TAG PATH PROFILE PWD 0\n0\nend\n"
    );
    provider.delete(&unit.name).await.unwrap();
}

#[tokio::test]
async fn s58_commands_run_only_where_the_settings_say_so() {
    let lab = Lab::new();
    let provider = ProcessProvider::open(ProcessConfig {
        commands: false,
        ..config(lab.root())
    })
    .unwrap();
    let error = provider
        .create(&sh(0, "true"), &Materials::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ProviderError::Refused { reason, .. } if reason.contains("process: {enabled: true}")),
        "{error}"
    );
    assert!(provider.observe().await.unwrap().is_empty());
}

#[tokio::test]
async fn s58_as_root_a_unit_is_an_unprivileged_user() {
    let run_as = RunAs::unprivileged().unwrap();
    let lab = Lab::new();
    // As under root's own folder: nobody else may pass through to the units' directories.
    fs::set_permissions(lab.root(), fs::Permissions::from_mode(0o700)).unwrap();
    let provider = ProcessProvider::open(ProcessConfig {
        run_as,
        ..config(lab.root())
    })
    .unwrap();
    let mut unit = sh(0, "id -u; ./bin/hello; touch mine && echo end; exec sleep 1000");
    let script = b"#!/bin/sh\necho hello on ${PORT}\n";
    replica_parts(&mut unit).1.push(UnitFile {
        path: "bin/hello".to_owned(),
        source: "files/hello".to_owned(),
        digest: Digest::of(script),
    });
    let mut materials = Materials::default();
    materials
        .files
        .insert(Digest::of(script).as_str().to_owned(), script[..].into());
    provider.create(&unit, &materials).await.unwrap();
    let text = output(&provider, &unit.name, "end\n").await;
    let port = provider.observe().await.unwrap()[0].ports[0].1;
    let uid = match run_as {
        RunAs::User { uid, .. } => uid,
        RunAs::Daemon => nix::unistd::getuid().as_raw(),
    };
    assert_eq!(text, format!("{uid}\nhello on {port}\nend\n"));
    provider.delete(&unit.name).await.unwrap();

    if run_as != RunAs::Daemon {
        let closed = lab.root().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        fs::copy("/bin/sleep", closed.join("sleep")).unwrap();
        let program = closed.join("sleep").display().to_string();
        let error = provider
            .create(&replica(1, &[&program, "9"]), &Materials::default())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("may not enter") && !error.is_transient(), "{text}");
        assert!(
            provider.observe().await.unwrap().is_empty(),
            "nothing stays that looks like a unit"
        );
    }
}

#[tokio::test]
async fn s58_a_worker_is_always_allowed() {
    let lab = Lab::new();
    let mut unit = replica(0, &[]);
    unit.work = UnitWork::Worker {
        orphan_timeout: Duration::from_secs(60),
    };
    let error = lab.provider().create(&unit, &Materials::default()).await.unwrap_err();
    assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
    let provider = ProcessProvider::open(ProcessConfig {
        commands: false,
        worker_launch: Some(WorkerLaunch {
            join_file: lab.root().join("join"),
            token_file: lab.root().join("join-token"),
        }),
        ..config(lab.root())
    })
    .unwrap();
    provider.create(&unit, &Materials::default()).await.unwrap();
    let text = fs::read_to_string(lab.unit_folder(&unit.name).join("spec.json")).unwrap();
    let sheet: serde_json::Value = serde_json::from_str(&text).unwrap();
    let command: Vec<&str> = sheet["command"]
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .filter_map(|word| word.as_str())
        .collect();
    let (join, token) = (lab.root().join("join"), lab.root().join("join-token"));
    assert_eq!(
        command,
        [
            "worker",
            "--join-file",
            join.to_str().unwrap(),
            "--token-file",
            token.to_str().unwrap(),
            "--pool",
            "payments/Service/shop",
            "--unit",
            "payments.service.shop.0",
        ]
    );
    provider.delete(&unit.name).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_missing_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let provider = lab.provider();
    for command in ["no-such-program", "/no/such/program", "/etc/hostname", ""] {
        let error = provider
            .create(&replica(0, &[command]), &Materials::default())
            .await
            .unwrap_err();
        assert!(matches!(error, ProviderError::Refused { .. }), "{command}: {error}");
        assert!(provider.observe().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn s14_a_record_that_cannot_be_read_is_an_error_never_absence() {
    let lab = Lab::new();
    let provider = lab.provider();
    let unit = sh(0, "exec sleep 1000");
    provider.create(&unit, &Materials::default()).await.unwrap();
    let path = lab.unit_folder(&unit.name).join("spec.json");
    let sheet = fs::read(&path).unwrap();
    fs::write(&path, "{").unwrap();
    let error = provider.observe().await.unwrap_err();
    assert!(matches!(error, ProviderError::Unreachable(_)), "{error}");
    assert!(provider.create(&unit, &Materials::default()).await.is_err());
    assert!(provider.delete(&unit.name).await.is_err(), "it may still be there");
    fs::write(&path, sheet).unwrap();
    assert_eq!(provider.observe().await.unwrap().len(), 1);
    provider.delete(&unit.name).await.unwrap();
}

#[tokio::test]
async fn s25_units_of_another_host_are_unknown() {
    let lab = Lab::new();
    let here = lab.provider();
    let unit = sh(0, "exec sleep 1000");
    here.create(&unit, &Materials::default()).await.unwrap();
    let there = ProcessProvider::open(ProcessConfig {
        host_id: "there".to_owned(),
        ..config(lab.root())
    })
    .unwrap();
    let seen = there.observe().await.unwrap();
    assert!(
        matches!(&seen[0].state, UnitState::Unknown { reason } if reason.contains("host here")),
        "{seen:?}"
    );
    assert!(there.create(&unit, &Materials::default()).await.is_err());
    assert!(there.delete(&unit.name).await.is_err());
    here.delete(&unit.name).await.unwrap();
}

#[tokio::test]
async fn s17_a_folder_whose_shim_never_started_is_cleared_by_the_next_create() {
    let lab = Lab::new();
    let provider = lab.provider();
    let unit = sh(0, "exec sleep 1000");
    provider.create(&unit, &Materials::default()).await.unwrap();
    kill(Pid::from_raw(lab.pid(&unit.name, "shim")), Signal::SIGKILL).unwrap();
    reach(&provider, &unit.name, "Exited").await;
    let child = lab.pid(&unit.name, "child");
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    gone(child).await;
    fs::remove_file(lab.unit_folder(&unit.name).join("state.json")).unwrap();
    let seen = reach(&provider, &unit.name, "Exited").await;
    assert_eq!(seen.state.reason(), Some("was never started"));
    provider.create(&unit, &Materials::default()).await.unwrap();
    reach(&provider, &unit.name, "Ready").await;
    provider.delete(&unit.name).await.unwrap();
}
