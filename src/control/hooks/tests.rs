//! Hooks against real processes and a real socket.

use super::{HookRun, Hooks, OUTPUT_MAX, Outcome, substitute};
use crate::runtime::clock::Clock;
use crate::runtime::secrets::ConfiguredSecrets;
use muster_core::model::load::Method;
use muster_core::model::plan::{FailurePolicy, Hook, HookAction, HookWhen};
use muster_core::model::policy::TargetRules;
use muster_core::model::service::{EnvValue, EnvVar};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn hook(action: HookAction, timeout: Duration) -> HookRun {
    let variables = [("RUN_ID", "r1"), ("PLAN", "default/hello")];
    HookRun {
        hook: Hook {
            name: "it".to_owned(),
            when: HookWhen::PreRun,
            action,
            timeout,
            failure_policy: FailurePolicy::Fail,
            idempotent: false,
        },
        variables: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        env: BTreeMap::new(),
        targets: TargetRules {
            allow: vec!["127.0.0.1".to_owned()],
            ..TargetRules::default()
        },
        commands_allowed: true,
        script: None,
        secrets: Arc::new(ConfiguredSecrets::default()),
    }
}

fn shell(script: &str, timeout: Duration) -> HookRun {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let env = vec![EnvVar {
        name: "FOR".to_owned(),
        value: EnvValue::Plain("run ${RUN_ID}".to_owned()),
    }];
    hook(
        HookAction::Command {
            on_workers: false,
            command,
            env,
            script: None,
        },
        timeout,
    )
}

async fn run(folder: &Path, run: HookRun) -> Outcome {
    Hooks::new(folder.to_owned(), Clock::system()).run(run).await
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn names_are_put_in_and_others_stay() {
    let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    for (text, wanted) in [
        ("${A}-${A}", "1-1"),
        ("${B} ${A}", "${B} 1"),
        ("${A", "${A"),
        ("$A {A}", "$A {A}"),
        ("", ""),
    ] {
        assert_eq!(substitute(text, &variables), wanted);
    }
}

#[tokio::test]
async fn s58_a_command_gets_its_own_environment_and_nothing_of_the_daemons() {
    let folder = tempfile::tempdir().unwrap();
    let verdict = run(folder.path(), shell("env | sort", LONG)).await;
    assert_eq!(verdict.result, Ok(()));
    assert!(
        verdict.output.contains("FOR=run r1") && verdict.output.contains("PLAN=default/hello"),
        "{}",
        verdict.output
    );
    let own = [
        "PATH",
        "HOME",
        "PWD",
        "SHLVL",
        "_",
        "FOR",
        "RUN_ID",
        "PLAN",
        "MUSTER_UNIT_TAG",
    ];
    let names = verdict.output.lines().filter_map(|line| line.split_once('='));
    let strange: Vec<_> = names.filter(|(name, _)| !own.contains(name)).collect();
    assert_eq!(strange, []);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left of its folder"
    );
}

#[tokio::test]
async fn s58_no_command_without_leave() {
    let folder = tempfile::tempdir().unwrap();
    let mut denied = shell("touch /tmp/muster-denied-hook", LONG);
    denied.commands_allowed = false;
    assert!(
        run(folder.path(), denied)
            .await
            .result
            .unwrap_err()
            .contains("settings")
    );
    assert!(!Path::new("/tmp/muster-denied-hook").exists());
}

#[tokio::test]
async fn a_script_of_the_repository_is_laid_out_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let content = b"#!/bin/sh\necho script $1\nexit 3\n";
    let digest = muster_core::model::id::Digest::of(content);
    let action = HookAction::Command {
        on_workers: false,
        command: vec!["./it.sh".to_owned(), "${RUN_ID}".to_owned()],
        env: Vec::new(),
        script: Some(("hooks/it.sh".to_owned(), digest)),
    };
    let mut scripted = hook(action, LONG);
    scripted.script = Some(Arc::from(&content[..]));
    let verdict = run(folder.path(), scripted).await;
    assert_eq!(verdict.output, "script r1");
    assert!(verdict.result.unwrap_err().contains('3'));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    // The child ignores TERM and outlives its shell.
    let script = "trap '' TERM; (trap '' TERM; sleep 60; echo late) & echo $!; wait; wait";
    let verdict = run(folder.path(), shell(script, Duration::from_millis(300))).await;
    assert!(verdict.result.unwrap_err().contains("longer than 300ms"));
    assert!(begun.elapsed() < Duration::from_secs(30));
    let child = verdict.output.trim().to_owned();
    let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).ok();
    let until = Instant::now() + Duration::from_secs(10);
    while state().is_some_and(|stat| !stat.contains(") Z")) {
        assert!(Instant::now() < until, "child {child} is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn only_the_end_of_a_long_output_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let verdict = run(
        folder.path(),
        shell("yes 0123456789 | head -n 20000; echo the-end", LONG),
    )
    .await;
    assert_eq!(verdict.result, Ok(()));
    assert!(verdict.output.len() <= OUTPUT_MAX && verdict.output.ends_with("the-end"));
}

async fn answer(status: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        while !request.ends_with("run r1") {
            let mut buffer = [0_u8; 1_024];
            let count = stream.read(&mut buffer).await.unwrap();
            request.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        let response = format!("HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 5\r\n\r\nhello");
        stream.write_all(response.as_bytes()).await.unwrap();
        request
    });
    (port, served)
}

fn post(url: String) -> HookRun {
    let action = HookAction::Http {
        method: Method::Post,
        url,
        headers: vec![("x-plan".to_owned(), "${PLAN}".to_owned())],
        secret_headers: Vec::new(),
        body: Some("run ${RUN_ID}".to_owned()),
    };
    hook(action, Duration::from_secs(10))
}

#[tokio::test]
async fn a_request_is_success_with_2xx_and_no_redirect_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    for (status, wanted) in [("200 OK", true), ("302 Found", false), ("500 Oops", false)] {
        let (port, served) = answer(status).await;
        let verdict = run(folder.path(), post(format!("http://127.0.0.1:{port}/runs/${{RUN_ID}}"))).await;
        assert_eq!(verdict.result.is_ok(), wanted, "{status}: {verdict:?}");
        assert_eq!(verdict.output, "hello");
        let request = served.await.unwrap();
        assert!(
            request.starts_with("POST /runs/r1 ") && request.contains("x-plan: default/hello"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn s60_a_request_leaves_only_for_an_allowed_host() {
    let folder = tempfile::tempdir().unwrap();
    for url in [
        "http://169.254.169.254/latest",
        "http://localhost:9/",
        "http://example.com/",
    ] {
        let verdict = run(folder.path(), post(url.to_owned())).await;
        assert!(verdict.result.unwrap_err().contains("not an allowed target"), "{url}");
    }
}
