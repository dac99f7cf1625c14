//! Tests of the git source against real repositories made by the `git` command.

use super::local::LocalRepository;
use super::{Credentials, GitConfig, GitSource};
use crate::source::tree::Limits;
use crate::source::{Refusal, Source, SourceReason, Tree};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A repository as a user has it, with a work tree, and a place for mirrors.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        fs::create_dir(lab.origin()).expect("made");
        lab.git(&["init", "-q", "-b", "main"]);
        lab
    }

    fn origin(&self) -> PathBuf {
        self.folder.path().join("origin")
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = Command::new("git")
            .args(arguments)
            .current_dir(self.origin())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "Li Wei")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "li.wei@example.com")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git is installed");
        child.stdin.take().expect("piped").write_all(input).expect("written");
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.origin().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn config(&self) -> GitConfig {
        GitConfig {
            url: self.origin().display().to_string(),
            branch: "main".to_owned(),
            path: ".".to_owned(),
            mirror: self.folder.path().join("mirror"),
            credentials: Credentials::None,
            limits: Limits::default(),
        }
    }

    fn source(&self) -> GitSource {
        GitSource::new(self.config()).expect("configured")
    }
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.files.keys().map(String::as_str).collect()
}

async fn reason(source: &GitSource) -> SourceReason {
    source.resolve().await.expect_err("nothing to resolve").reason
}

#[tokio::test]
async fn s01_a_branch_is_resolved_to_a_commit_that_stays_pinned() {
    let lab = Lab::new();
    lab.write("plans/a.yaml", "one");
    let first = lab.commit();
    let source = lab.source();
    let revision = source.resolve().await.expect("resolves");
    assert_eq!(revision.as_str(), first);
    lab.write("plans/a.yaml", "two");
    lab.commit();
    let tree = source.read(&revision).await.expect("reads");
    assert_eq!(&*tree.files["plans/a.yaml"].bytes, b"one");
    assert_eq!(
        source.author(&revision).await.as_deref(),
        Some("Li Wei <li.wei@example.com>")
    );
}

#[tokio::test]
async fn s23_the_author_of_a_file_is_that_of_the_commit_that_made_it_what_it_is() {
    let lab = Lab::new();
    let commit_by = |author: &str, path: &str, content: &str| {
        lab.write(path, content);
        lab.git(&["add", "-A"]);
        lab.git(&["commit", "-q", "-m", "x", &format!("--author={author}")]);
    };
    commit_by("Ada <ada@example.com>", "plans/a.yaml", "one");
    lab.git(&["checkout", "-q", "-b", "side"]);
    commit_by("Bob <bob@example.com>", "plans/a.yaml", "two");
    lab.git(&["checkout", "-q", "main"]);
    commit_by("Eve <eve@example.com>", "plans/b.yaml", "one");
    lab.git(&["merge", "-q", "--no-ff", "-m", "merge", "side"]);
    for (path, file, author) in [
        (".", "plans/a.yaml", Some("Bob <bob@example.com>")),
        ("plans", "a.yaml", Some("Bob <bob@example.com>")),
        ("plans", "b.yaml", Some("Eve <eve@example.com>")),
        ("plans", "none.yaml", None),
    ] {
        let config = GitConfig {
            path: path.to_owned(),
            ..lab.config()
        };
        let source = GitSource::new(config).expect("configured");
        let revision = source.resolve().await.expect("resolves");
        source.read(&revision).await.expect("reads");
        assert_eq!(
            source.author_of(&revision, file).await.as_deref(),
            author,
            "{path} {file}"
        );
    }
}

#[tokio::test]
async fn a_mirror_of_many_packs_is_packed_anew() {
    let lab = Lab::new();
    let source = lab.source();
    let mut packs = Vec::new();
    for round in 0..4 {
        lab.write("a.yaml", round.to_string());
        lab.commit();
        if round == 2 {
            // What a force-push cuts off is dropped.
            lab.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "y"]);
        }
        let revision = source.resolve().await.expect("resolves");
        source.read(&revision).await.expect("reads");
        let pack = fs::read_dir(lab.config().mirror.join("objects/pack")).expect("there");
        packs.push(
            pack.filter(|entry| {
                entry
                    .as_ref()
                    .is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "pack"))
            })
            .count(),
        );
    }
    assert_eq!(packs, [1, 2, 1, 2]);
    let revision = source.resolve().await.expect("resolves");
    fs::remove_dir_all(lab.origin().join(".git/objects")).expect("removed");
    let tree = source.read(&revision).await.expect("all of it is here");
    assert_eq!(&*tree.files["a.yaml"].bytes, b"3");
    assert!(
        source.author_of(&revision, "a.yaml").await.is_some(),
        "with its history"
    );
    let beside: Vec<_> = fs::read_dir(lab.folder.path())
        .expect("there")
        .map(|entry| entry.expect("read").file_name())
        .collect();
    assert_eq!(beside.len(), 2, "nothing is left beside the mirror: {beside:?}");
}

#[tokio::test]
async fn s02_what_is_here_is_not_fetched_again() {
    let lab = Lab::new();
    lab.write("a.yaml", "one");
    lab.commit();
    let source = lab.source();
    let revision = source.resolve().await.expect("resolves");
    let tree = source.read(&revision).await.expect("reads");
    fs::rename(lab.origin(), lab.folder.path().join("away")).expect("moved");
    assert_eq!(reason(&source).await, SourceReason::Unreachable);
    let again = lab.source().read(&revision).await.expect("from the mirror");
    assert_eq!(
        again.files["a.yaml"].blob, tree.files["a.yaml"].blob,
        "the blob id is the cache's key"
    );
    fs::rename(lab.folder.path().join("away"), lab.origin()).expect("back");
    assert_eq!(source.resolve().await.expect("recovers"), revision);
}

#[tokio::test]
async fn a_fetch_that_was_cut_off_does_not_stop_the_next_one() {
    let lab = Lab::new();
    lab.write("a.yaml", "one");
    lab.commit();
    let locks = lab.config().mirror.join("refs/muster");
    fs::create_dir_all(&locks).expect("made");
    fs::write(locks.join("tip.lock"), "").expect("written");
    let source = lab.source();
    let revision = source.resolve().await.expect("resolves");
    assert_eq!(names(&source.read(&revision).await.expect("reads")), ["a.yaml"]);
}

#[tokio::test]
async fn s03_a_force_push_is_an_ordinary_revision() {
    let lab = Lab::new();
    lab.write("a.yaml", "one");
    lab.commit();
    let source = lab.source();
    let old = source.resolve().await.expect("resolves");
    source.read(&old).await.expect("reads");
    lab.git(&["checkout", "-q", "--orphan", "other"]);
    lab.write("a.yaml", "rewritten");
    let rewritten = lab.commit();
    lab.git(&["branch", "-f", "main", "other"]);
    let new = source.resolve().await.expect("resolves");
    assert_eq!(new.as_str(), rewritten);
    assert_eq!(
        &*source.read(&new).await.expect("reads").files["a.yaml"].bytes,
        b"rewritten"
    );
    assert_eq!(
        &*source.read(&old).await.expect("still here").files["a.yaml"].bytes,
        b"one"
    );
}

#[tokio::test]
async fn s05_every_absence_has_its_reason() {
    let lab = Lab::new();
    let source = lab.source();
    assert_eq!(reason(&source).await, SourceReason::EmptyRepository);
    lab.write("plans/a.yaml", "one");
    lab.commit();
    let revision = source.resolve().await.expect("resolves");
    lab.git(&["checkout", "-q", "--detach"]);
    lab.git(&["branch", "-D", "main"]);
    lab.git(&["branch", "other"]);
    assert_eq!(reason(&source).await, SourceReason::BranchNotFound);
    for (path, expected) in [
        ("nowhere", SourceReason::PathNotFound),
        ("plans/a.yaml", SourceReason::PathNotFound),
    ] {
        let config = GitConfig {
            path: path.to_owned(),
            branch: "other".to_owned(),
            ..lab.config()
        };
        let source = GitSource::new(config).expect("configured");
        assert_eq!(source.read(&revision).await.expect_err("no folder").reason, expected);
    }
    let config = GitConfig {
        url: "/nonexistent/plans.git".to_owned(),
        ..lab.config()
    };
    assert_eq!(
        reason(&GitSource::new(config).expect("configured")).await,
        SourceReason::Unreachable
    );
}

#[tokio::test]
async fn s02_a_port_where_nobody_listens_is_unreachable() {
    let lab = Lab::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let config = GitConfig {
        url: format!("http://bot:canary@127.0.0.1:{port}/a.git"),
        ..lab.config()
    };
    let error = GitSource::new(config).expect("configured").resolve().await;
    let error = error.expect_err("nobody listens");
    assert_eq!(error.reason, SourceReason::Unreachable);
    assert!(error.transient && !error.message.contains("canary"), "{error}");
}

/// A server that answers every request with one status, and counts them.
fn refusing_server(status: &'static str) -> (u16, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    use std::io::{BufRead as _, BufReader};
    use std::sync::atomic::{AtomicU32, Ordering};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let count = std::sync::Arc::new(AtomicU32::new(0));
    let counter = std::sync::Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            counter.fetch_add(1, Ordering::SeqCst);
            let head = format!(
                "HTTP/1.1 {status}\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).ok();
        }
    });
    (port, count)
}

#[tokio::test]
async fn s02_a_host_that_refuses_is_left_alone() {
    use std::sync::atomic::Ordering;
    let lab = Lab::new();
    for (status, expected, at_most) in [
        ("401 Unauthorized", SourceReason::AuthenticationFailed, 3),
        ("403 Forbidden", SourceReason::AuthenticationFailed, 1),
        ("429 Too Many Requests", SourceReason::RateLimited, 1),
    ] {
        let (port, count) = refusing_server(status);
        let config = GitConfig {
            url: format!("http://127.0.0.1:{port}/a.git"),
            credentials: Credentials::from_secret(&"bot:canary".into()),
            ..lab.config()
        };
        let source = GitSource::new(config).expect("configured");
        assert_eq!(reason(&source).await, expected, "{status}");
        let asked = count.load(Ordering::SeqCst);
        assert!(asked <= at_most, "{status}: bounded tries, saw {asked}");
        let error = source.resolve().await.expect_err("held off");
        assert_eq!(error.reason, expected);
        assert!(error.message.contains("asked again in 30 s"), "{error}");
        assert!(!error.message.contains("canary"), "{error}");
        assert_eq!(count.load(Ordering::SeqCst), asked, "{status}: not asked again");
    }
}

#[tokio::test]
async fn s06_nothing_in_a_repository_is_followed_or_run() {
    let lab = Lab::new();
    let trap = lab.folder.path().join("ran");
    let touch = format!("touch {}", trap.display());
    lab.write(".gitattributes", "*.yaml filter=trap\n*.txt text eol=crlf\n");
    lab.write("fine.yaml", "x");
    lab.write("lines.txt", "a\nb\n");
    lab.write(
        "pointer.csv",
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    );
    lab.write("big.bin", vec![0; 5000]);
    std::os::unix::fs::symlink("/etc/passwd", lab.origin().join("link")).expect("linked");
    let head = lab.commit();
    lab.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},module")]);
    lab.git(&["commit", "-q", "-m", "module"]);
    lab.git(&["config", "filter.trap.smudge", &touch]);
    lab.git(&["config", "core.fsmonitor", &touch]);
    let hook = lab.origin().join(".git/hooks/post-update");
    fs::write(&hook, format!("#!/bin/sh\n{touch}\n")).expect("written");
    Command::new("chmod").arg("+x").arg(&hook).status().expect("chmod");

    let limits = Limits {
        file_bytes: 4096,
        ..Limits::default()
    };
    let config = GitConfig { limits, ..lab.config() };
    let source = GitSource::new(config).expect("configured");
    let revision = source.resolve().await.expect("resolves");
    let tree = source.read(&revision).await.expect("reads");
    assert_eq!(names(&tree), [".gitattributes", "fine.yaml", "lines.txt"]);
    assert_eq!(&*tree.files["lines.txt"].bytes, b"a\nb\n", "no filter changes content");
    let refused: Vec<_> = tree.refused.iter().map(|(path, why)| (path.as_str(), why)).collect();
    assert_eq!(
        refused,
        [
            ("big.bin", &Refusal::TooLarge { size: 5000 }),
            ("link", &Refusal::Symlink),
            ("module", &Refusal::Submodule),
            ("pointer.csv", &Refusal::LfsPointer),
        ]
    );
    assert!(!trap.exists(), "a hook or filter ran");
}

#[tokio::test]
async fn s06_names_that_would_leave_the_tree_are_refused() {
    let lab = Lab::new();
    lab.write("fine.yaml", "x");
    lab.commit();
    let blob = lab.git(&["rev-parse", "HEAD:fine.yaml"]);
    let id: Vec<u8> = (0..40)
        .step_by(2)
        .map(|at| u8::from_str_radix(&blob[at..at + 2], 16).expect("hex"))
        .collect();
    let mut raw = Vec::new();
    for name in [&b".."[..], b".git", b"a\xff", b"ok", b"x/y"] {
        raw.extend([b"100644 ", name, b"\0", &id[..]].concat());
    }
    let tree = lab.git_with(&["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &raw);
    let commit = lab.git(&["commit-tree", &tree, "-m", "odd"]);
    lab.git(&["update-ref", "refs/heads/main", &commit]);
    let source = lab.source();
    let revision = source.resolve().await.expect("resolves");
    match source.read(&revision).await {
        Ok(tree) => {
            assert_eq!(names(&tree), ["ok"]);
            assert_eq!(tree.refused.len(), 4, "{:?}", tree.refused);
            assert!(tree.refused.values().all(|why| *why == Refusal::BadName));
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn s06_odd_branch_names_are_only_names() {
    let lab = Lab::new();
    lab.write("a.yaml", "x");
    let head = lab.commit();
    for branch in ["feature/ü", "a'b$(touch-x)", "--upload-pack=x", "mäin@2", "x;y&z|w"] {
        lab.git(&["update-ref", &format!("refs/heads/{branch}"), &head]);
        let config = GitConfig {
            branch: branch.to_owned(),
            ..lab.config()
        };
        let source = GitSource::new(config).expect(branch);
        let revision = source.resolve().await.expect(branch);
        assert_eq!(names(&source.read(&revision).await.expect(branch)), ["a.yaml"]);
    }
    for branch in ["", "../x", "a..b", "a b", "a:b", "a^", "refs/*", "a\n"] {
        let config = GitConfig {
            branch: branch.to_owned(),
            ..lab.config()
        };
        let error = GitSource::new(config).err().expect("no branch name");
        assert_eq!(error.reason, SourceReason::BranchNotFound, "{branch:?}");
    }
}

#[tokio::test]
async fn s06_a_tree_over_its_limits_is_not_read() {
    let lab = Lab::new();
    for number in 0..20 {
        lab.write(&format!("plans/{number}.yaml"), [b'x'; 100]);
    }
    lab.write("deep/a/b/c/d.yaml", "x");
    lab.commit();
    let fine = Limits::default();
    for limits in [
        Limits { entries: 10, ..fine },
        Limits {
            total_bytes: 500,
            ..fine
        },
        Limits { depth: 2, ..fine },
    ] {
        let source = GitSource::new(GitConfig { limits, ..lab.config() }).expect("configured");
        let revision = source.resolve().await.expect("resolves");
        let error = source.read(&revision).await.expect_err("too much");
        assert_eq!(error.reason, SourceReason::LimitExceeded);
        assert!(!error.transient, "{error}");
    }
    let config = GitConfig {
        path: "deep/a".to_owned(),
        ..lab.config()
    };
    let source = GitSource::new(config).expect("configured");
    let revision = source.resolve().await.expect("resolves");
    assert_eq!(names(&source.read(&revision).await.expect("reads")), ["b/c/d.yaml"]);
}

#[test]
fn urls_of_other_schemes_are_refused() {
    let lab = Lab::new();
    for url in [
        "",
        "plans",
        "../plans",
        "git://host/a",
        "ext::sh -c x",
        "ftp://h/a",
        "https://",
    ] {
        let config = GitConfig {
            url: url.to_owned(),
            ..lab.config()
        };
        // `ext::…` has scp's form; it is then only an ssh host of that name, and nothing is run.
        if !url.starts_with("ext") {
            assert!(GitSource::new(config).is_err(), "{url}");
        }
    }
    for url in ["/a", "file:///a", "http://h/a", "https://h/a", "ssh://h/a", "git@h:a"] {
        let config = GitConfig {
            url: url.to_owned(),
            ..lab.config()
        };
        assert!(GitSource::new(config).is_ok(), "{url}");
    }
}

#[test]
fn s01_a_repository_on_this_machine_is_read_at_any_revision() {
    let lab = Lab::new();
    lab.write("plans/a.yaml", "one");
    let first = lab.commit();
    lab.git(&["tag", "-a", "v1", "-m", "x"]);
    lab.write("plans/a.yaml", "two");
    let second = lab.commit();
    lab.write("plans/a.yaml", "not committed");
    let repository = LocalRepository::open(&lab.origin().join("plans")).expect("opens");
    for (name, commit) in [
        ("HEAD", &second),
        ("main~1", &first),
        ("v1", &first),
        (&second[..9], &second),
    ] {
        let revision = repository.resolve_rev(name).expect(name);
        assert_eq!(revision.as_str(), commit, "{name}");
    }
    let revision = repository.resolve_rev("main").expect("resolves");
    let tree = repository.read(&revision, "plans", Limits::default()).expect("reads");
    assert_eq!(&*tree.files["a.yaml"].bytes, b"two");
    assert_eq!(
        repository.resolve_rev("nope").expect_err("no such name").reason,
        SourceReason::BranchNotFound
    );
    assert!(LocalRepository::open(Path::new("/")).is_err());
}
