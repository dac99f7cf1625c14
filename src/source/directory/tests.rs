//! Tests of the directory source on real folders.

use super::DirectorySource;
use crate::source::tree::Limits;
use crate::source::{Refusal, Source, SourceReason};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;
use tokio::time::timeout;

fn source(root: &std::path::Path) -> DirectorySource {
    DirectorySource::new(root, Limits::default())
}

#[tokio::test]
async fn s09_a_directory_has_a_digest_in_place_of_a_sha() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("plans")).expect("made");
    fs::write(folder.path().join("plans/a.yaml"), "a").expect("written");
    let source = source(folder.path());
    let first = source.resolve().await.expect("resolves");
    assert!(first.as_str().starts_with("dir-"), "{first}");
    assert_eq!(source.resolve().await.expect("resolves"), first);
    let tree = source.read(&first).await.expect("reads");
    assert_eq!(&*tree.files["plans/a.yaml"].bytes, b"a");

    fs::write(folder.path().join("plans/a.yaml"), "b").expect("written");
    assert_eq!(
        &*source.read(&first).await.expect("pinned").files["plans/a.yaml"].bytes,
        b"a",
        "what was resolved is what is read"
    );
    let second = source.resolve().await.expect("resolves");
    assert_ne!(second, first);
    assert_eq!(
        source.read(&first).await.expect_err("gone").reason,
        SourceReason::PathNotFound
    );
    assert_eq!(source.author(&second).await, None);
}

#[tokio::test]
async fn s06_links_pipes_and_large_files_are_named_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("fine.yaml"), "x").expect("written");
    symlink("/etc/passwd", at("outside")).expect("linked");
    symlink("/etc", at("folder")).expect("linked");
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    fs::write(at("big"), vec![0; 2000]).expect("written");
    fs::write(
        at("lfs"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    )
    .expect("written");
    for ignored in [".git", ".muster", "node_modules", "target"] {
        fs::create_dir(at(ignored)).expect("made");
        fs::write(at(ignored).join("x.yaml"), "x").expect("written");
    }
    fs::write(at("target/CACHEDIR.TAG"), "").expect("written");
    let limits = Limits {
        file_bytes: 1000,
        ..Limits::default()
    };
    let source = DirectorySource::new(folder.path(), limits);
    let revision = source.resolve().await.expect("resolves");
    let tree = source.read(&revision).await.expect("reads");
    assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["fine.yaml"]);
    let refused: Vec<_> = tree.refused.iter().map(|(path, why)| (path.as_str(), why)).collect();
    assert_eq!(
        refused,
        [
            ("big", &Refusal::TooLarge { size: 2000 }),
            ("folder", &Refusal::Symlink),
            ("lfs", &Refusal::LfsPointer),
            ("outside", &Refusal::Symlink),
            ("pipe", &Refusal::NotAFile),
        ]
    );
}

#[tokio::test]
async fn s09_a_change_wakes_and_reading_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("plans/deep")).expect("made");
    fs::create_dir(folder.path().join(".muster")).expect("made");
    let source = source(folder.path());
    source.resolve().await.expect("resolves");
    fs::write(folder.path().join(".muster/muster.db"), "x").expect("written");
    assert!(
        timeout(Duration::from_millis(300), source.changed()).await.is_err(),
        "neither a walk nor the store is a change"
    );
    fs::write(folder.path().join("plans/deep/a.yaml"), "x").expect("written");
    timeout(Duration::from_secs(10), source.changed()).await.expect("woken");
}

#[tokio::test]
async fn a_missing_directory_is_a_reason() {
    let source = source(std::path::Path::new("/nonexistent/plans"));
    let error = source.resolve().await.expect_err("missing");
    assert_eq!(error.reason, SourceReason::PathNotFound);
}
