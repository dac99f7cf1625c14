//! What a source's answers do to Desired.

use super::{SourceState, Sync, SyncDeps, SyncHandle, Tick};
use crate::control::fakes::{MemoryLedger, locked, name, revision, service};
use crate::runtime::clock::Clock;
use crate::source::{File, Source, SourceError, SourceReason, Tree};
use async_trait::async_trait;
use jiff::Timestamp;
use muster_core::model::id::{Digest, Revision};
use muster_core::model::policy::Policy;
use muster_core::spec::code::Code;
use muster_core::spec::diagnostic::{Diagnostic, Span};
use muster_core::spec::{Cache, Files, Loaded};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A source whose newest revision, or failure, the test sets.
#[derive(Default)]
struct Scripted {
    state: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    newest: u32,
    failure: Option<SourceReason>,
    trees: BTreeMap<Revision, Tree>,
    resolves: u32,
    reads: u32,
}

impl Scripted {
    /// Commits files: `p/…` and `q/…` belong to projects; a line `bad` is an error.
    fn commit(&self, number: u32, files: &[(&str, &str)]) {
        let file = |text: &str| File {
            blob: text.to_owned(),
            bytes: Arc::from(text.as_bytes()),
        };
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), file(text)))
            .collect();
        let mut script = locked(&self.state);
        script.newest = number;
        let tree = Tree {
            files,
            ..Tree::default()
        };
        script.trees.insert(revision(number), tree);
    }

    fn fail(&self, reason: Option<SourceReason>) {
        locked(&self.state).failure = reason;
    }

    fn counts(&self) -> (u32, u32) {
        let script = locked(&self.state);
        (script.resolves, script.reads)
    }
}

#[async_trait]
impl Source for Scripted {
    async fn resolve(&self) -> Result<Revision, SourceError> {
        let mut script = locked(&self.state);
        script.resolves += 1;
        match script.failure {
            None => Ok(revision(script.newest)),
            Some(reason) => Err(SourceError {
                reason,
                message: "no".to_owned(),
                transient: true,
            }),
        }
    }
    async fn read(&self, revision: &Revision) -> Result<Tree, SourceError> {
        let mut script = locked(&self.state);
        script.reads += 1;
        Ok(script.trees[revision].clone())
    }
    async fn changed(&self) {
        std::future::pending().await
    }
    async fn author(&self, _: &Revision) -> Option<String> {
        None
    }
    async fn author_of(&self, _: &Revision, file: &str) -> Option<String> {
        Some(format!("the author of {file}"))
    }
}

/// Reads the test's files: each line of `PROJECT/…` is a service of it, or `bad`.
fn load(files: &Files, _: &Policy, _: &mut Cache) -> Loaded {
    let mut loaded = Loaded::default();
    for project in ["p", "q"] {
        loaded.projects.insert(name(project), Default::default());
    }
    for (path, file) in &files.files {
        let (project, _) = path.split_once('/').expect("a folder");
        let load = loaded.projects.get_mut(&name(project)).expect("a project");
        let text = std::str::from_utf8(&file.bytes).expect("text");
        assert_ne!(text, "panic", "a parser's bug");
        loaded.contents.insert(Digest::of(&file.bytes), path.clone());
        for line in text.lines() {
            if line == "bad" {
                let code = Code::ALL[0];
                load.diagnostics
                    .push(Diagnostic::error(code, path, Span::START, "it is bad"));
            } else {
                let resource = service(&format!("{project}/Service/{line}"), "v1", 1);
                load.resources.insert(resource.meta.key.clone(), resource);
            }
        }
    }
    loaded
}

struct Bench {
    source: Arc<Scripted>,
    ledger: Arc<MemoryLedger>,
    clock: Clock,
}

impl Bench {
    fn new() -> Self {
        Self {
            source: Arc::default(),
            ledger: Arc::default(),
            clock: Clock::following(Timestamp::UNIX_EPOCH),
        }
    }

    async fn daemon(&self) -> (Sync, SyncHandle) {
        let deps = SyncDeps {
            source: self.source.clone(),
            ledger: self.ledger.clone(),
            clock: self.clock.clone(),
            policy: Arc::new(Policy::closed()),
            interval: Duration::from_secs(10),
            only: None,
        };
        let (mut sync, handle) = Sync::restore(deps).await.expect("restored");
        sync.loader = load;
        (sync, handle)
    }
}

fn services(handle: &SyncHandle) -> Vec<String> {
    let published = handle.published.borrow().clone().expect("published");
    published
        .desired
        .resources()
        .map(|resource| resource.meta.key.to_string())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn s1_s2_one_resolve_per_tick_and_no_read_without_a_change() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "x\ny")]);
    let (mut sync, handle) = bench.daemon().await;
    assert!(handle.published.borrow().is_none(), "nothing is decided on emptiness");
    assert_eq!(sync.tick().await, Tick::Changed);
    for _ in 0..3 {
        assert_eq!(sync.tick().await, Tick::Unchanged);
    }
    assert_eq!(bench.source.counts(), (4, 1));
    let published = handle.published.borrow().clone().expect("published");
    assert_eq!(published.revision, Some(revision(1)));
    assert_eq!(published.projects[&name("p")].high_water, 2);
    assert_eq!(services(&handle), ["p/Service/x", "p/Service/y"]);
}

#[tokio::test(start_paused = true)]
async fn s3_a_forced_push_back_is_an_ordinary_new_revision() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "x")]);
    bench.source.commit(2, &[("p/a", "x\ny")]);
    let (mut sync, handle) = bench.daemon().await;
    sync.tick().await;
    bench.source.commit(1, &[("p/a", "x")]);
    assert_eq!(sync.tick().await, Tick::Changed);
    assert_eq!(services(&handle), ["p/Service/x"]);
}

#[tokio::test(start_paused = true)]
async fn s5_a_bad_commit_keeps_the_last_good_state_of_its_project_and_tells_once() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "x"), ("q/a", "x")]);
    let (mut sync, handle) = bench.daemon().await;
    sync.tick().await;
    bench.source.commit(2, &[("p/a", "bad\ny\nbad"), ("q/a", "z")]);
    sync.tick().await;
    assert_eq!(
        services(&handle),
        ["p/Service/x", "q/Service/z"],
        "the other project goes on"
    );
    let state = handle.published.borrow().clone().expect("published").projects[&name("p")].clone();
    assert_eq!(
        (state.observed, state.good, state.errors),
        (revision(2), Some(revision(1)), 2)
    );
    assert_eq!(state.first_error.as_deref(), Some("p/a:1: it is bad"));
    let row = locked(&bench.ledger.rows).projects[&name("p")].clone();
    assert_eq!(row.diagnostics.as_array().map(Vec::len), Some(2), "every error is kept");

    bench.source.commit(3, &[("p/a", "bad\ny\nbad"), ("q/a", "z")]);
    sync.tick().await;
    let told = |reason: &str| bench.ledger.reasons().iter().filter(|told| *told == reason).count();
    assert_eq!(told("PlansInvalid"), 1, "the same errors are told once");
    bench.source.commit(4, &[("p/a", "y"), ("q/a", "z")]);
    sync.tick().await;
    assert_eq!(services(&handle), ["p/Service/y", "q/Service/z"]);
    assert_eq!(told("PlansValid"), 1);
}

/// As `load`, where the settings name only project `p`.
fn load_p(files: &Files, policy: &Policy, cache: &mut Cache) -> Loaded {
    let mut loaded = load(files, policy, cache);
    loaded.projects.remove(&name("q"));
    loaded
}

#[tokio::test(start_paused = true)]
async fn s21_of_a_project_that_the_settings_name_no_more_nothing_is_wanted() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "x"), ("q/a", "y\nz")]);
    let (mut sync, _) = bench.daemon().await;
    sync.tick().await;
    let (mut sync, handle) = bench.daemon().await;
    sync.loader = load_p;
    assert_eq!(sync.tick().await, Tick::Changed);
    assert_eq!(services(&handle), ["p/Service/x"]);
    bench.source.commit(2, &[("p/a", "x"), ("q/a", "y\nz")]);
    sync.tick().await;
    let published = handle.published.borrow().clone().expect("published");
    let q = &published.desired.projects[&name("q")];
    assert_eq!(
        (
            q.revision.clone(),
            q.resources.len(),
            published.projects[&name("q")].high_water
        ),
        (revision(1), 0, 2),
        "the guard of deletions judges it, at the revision that an approval names"
    );
    let events = locked(&bench.ledger.rows).events.clone();
    let told: Vec<_> = events.iter().filter(|event| event.reason == "ProjectRemoved").collect();
    assert!(
        matches!(&told[..], [event] if event.message.contains("2 resources") && event.message.contains("approve-deletion")),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn s5_a_failing_source_keeps_the_last_good_state_and_tells_on_transitions() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "x")]);
    let (mut sync, handle) = bench.daemon().await;
    sync.tick().await;
    for reason in [
        SourceReason::Unreachable,
        SourceReason::Unreachable,
        SourceReason::AuthenticationFailed,
    ] {
        bench.source.fail(Some(reason));
        assert_eq!(sync.tick().await, Tick::Failed);
        assert!(matches!(&*handle.state.borrow(), SourceState::Failing { reason: shown, .. } if *shown == reason));
    }
    assert_eq!(services(&handle), ["p/Service/x"]);
    bench.source.fail(None);
    sync.tick().await;
    assert_eq!(*handle.state.borrow(), SourceState::Ready);
    let reasons = bench.ledger.reasons();
    assert_eq!(
        reasons,
        ["RevisionRead", "Unreachable", "AuthenticationFailed", "SourceReady"]
    );
}

#[tokio::test(start_paused = true)]
async fn s5_a_restarted_daemon_starts_from_the_last_good_state() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "x")]);
    bench.daemon().await.0.tick().await;
    bench.source.fail(Some(SourceReason::Unreachable));
    let (mut sync, handle) = bench.daemon().await;
    assert_eq!(services(&handle), ["p/Service/x"]);
    sync.tick().await;
    assert_eq!(services(&handle), ["p/Service/x"]);
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_not_published_before_it_is_written_down() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "x")]);
    let (mut sync, handle) = bench.daemon().await;
    locked(&bench.ledger.rows).down = true;
    assert_eq!(sync.tick().await, Tick::Failed);
    assert!(handle.published.borrow().is_none());
    locked(&bench.ledger.rows).down = false;
    assert_eq!(sync.tick().await, Tick::Changed);
    assert_eq!(services(&handle), ["p/Service/x"]);
}

#[tokio::test(start_paused = true)]
async fn s11_a_parser_that_panics_is_a_failure_like_any_other() {
    let bench = Bench::new();
    bench.source.commit(1, &[("p/a", "panic")]);
    let (mut sync, _) = bench.daemon().await;
    assert_eq!(sync.tick().await, Tick::Failed);
    bench.source.commit(2, &[("p/a", "x")]);
    assert_eq!(sync.tick().await, Tick::Changed);
}

#[tokio::test(start_paused = true)]
async fn s2_failures_are_asked_again_ever_more_slowly() {
    let bench = Bench::new();
    bench.source.fail(Some(SourceReason::RateLimited));
    let (sync, handle) = bench.daemon().await;
    let cancel = CancellationToken::new();
    let task = tokio::spawn(sync.run(cancel.clone()));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let (resolves, _) = bench.source.counts();
    assert!((8..30).contains(&resolves), "{resolves} instead of 360");
    handle.look_now();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.source.counts().0, resolves + 1, "a person does not wait");
    cancel.cancel();
    task.await.expect("it ends");
}
