//! The git source against a real server: ssh, http with and without credentials, https.

use crate::support::eventually;
use crate::support::git_server::Server;
use muster::source::git::credentials::Credentials;
use muster::source::git::{GitConfig, GitSource};
use muster::source::tree::Limits;
use muster::source::{Source, SourceReason};
use std::fs;
use std::process::Command;

fn git_source(server: &Server, url: String, credentials: Credentials) -> GitSource {
    GitSource::new(GitConfig {
        url,
        branch: "main".to_owned(),
        path: ".".to_owned(),
        mirror: server.mirrors.path().join("mirror"),
        credentials,
        limits: Limits::default(),
    })
    .unwrap()
}

fn key(server: &Server, file: &str) -> Credentials {
    let text = fs::read_to_string(server.home.join(file)).unwrap();
    Credentials::from_secret(&text.into())
}

/// Resolves and reads twice, with a commit between.
async fn follows(server: &Server, source: &GitSource) {
    for content in ["one", "two"] {
        let commit = server.commit(content);
        let revision = source.resolve().await.unwrap();
        assert_eq!(revision.as_str(), commit);
        let tree = source.read(&revision).await.unwrap();
        assert_eq!(&*tree.files["plan.yaml"].bytes, content.as_bytes());
    }
}

async fn fails(source: &GitSource) -> (SourceReason, String) {
    let error = source.resolve().await.unwrap_err();
    assert!(error.transient, "{error}");
    (error.reason, error.message)
}

#[tokio::test]
async fn s02_one_ls_remote_a_tick_and_a_fetch_only_for_what_is_missing() {
    let server = Server::new();
    let source = git_source(&server, server.url("http", "open"), Credentials::None);
    let commit = server.commit("one");
    let ask = "GET /info/refs?service=git-upload-pack";
    for tick in 1..=3 {
        assert_eq!(source.resolve().await.unwrap().as_str(), commit);
        // The server writes its log after it has answered.
        eventually("the request in the log", async || {
            (server.requests().len() >= tick).then_some(())
        })
        .await;
        assert_eq!(server.requests(), vec![ask; tick]);
    }
    let revision = source.resolve().await.unwrap();
    source.read(&revision).await.unwrap();
    let fetched = server.requests();
    assert_eq!(
        fetched.last().map(String::as_str),
        Some("POST /git-upload-pack"),
        "{fetched:?}"
    );
    source.read(&revision).await.unwrap();
    source.author(&revision).await.unwrap();
    assert_eq!(server.requests(), fetched, "what is here is not asked for");
}

#[tokio::test]
async fn s02_http_with_credentials() {
    let server = Server::new();
    let url = server.url("http", "git");
    let right = git_source(&server, url.clone(), Credentials::from_secret(&"lab:secret".into()));
    follows(&server, &right).await;
    for credentials in [Credentials::None, Credentials::from_secret(&"lab:canary".into())] {
        let (reason, message) = fails(&git_source(&server, url.clone(), credentials)).await;
        assert_eq!(reason, SourceReason::AuthenticationFailed, "{message}");
        assert!(!message.contains("canary"), "{message}");
    }
    let (reason, message) = fails(&git_source(&server, server.url("http", "busy"), Credentials::None)).await;
    assert_eq!(reason, SourceReason::RateLimited, "{message}");
    let missing = format!("{}-not", server.url("http", "open"));
    let (reason, message) = fails(&git_source(&server, missing, Credentials::None)).await;
    assert_eq!(reason, SourceReason::Unreachable, "{message}");
}

#[tokio::test]
async fn s02_ssh_with_a_key_and_known_hosts() {
    let server = Server::new();
    let url = server.url("ssh", "");
    let right = git_source(
        &server,
        url.clone(),
        key(&server, "id").with_known_hosts(server.known_hosts()),
    );
    follows(&server, &right).await;

    let stranger = key(&server, "stranger").with_known_hosts(server.known_hosts());
    let (reason, message) = fails(&git_source(&server, url.clone(), stranger)).await;
    assert_eq!(reason, SourceReason::AuthenticationFailed, "{message}");
    assert!(!message.contains("PRIVATE KEY"), "{message}");

    let unknown = key(&server, "id").with_known_hosts("[127.0.0.1]:1 ssh-ed25519 AAAA");
    let (reason, message) = fails(&git_source(&server, url, unknown)).await;
    assert_eq!(reason, SourceReason::Unreachable, "{message}");
    assert!(message.contains("known hosts"), "{message}");
}

/// OpenSSL reads where its authorities are once per process: the test runs itself again with them named.
#[tokio::test]
async fn s02_https_trusts_only_known_authorities() {
    let server = Server::new();
    let credentials = || Credentials::from_secret(&"lab:secret".into());
    if std::env::var_os("SSL_CERT_FILE").is_some_and(|file| file == server.home.join("crt.pem")) {
        follows(&server, &git_source(&server, server.url("https", "git"), credentials())).await;
        return;
    }
    server.commit("one");
    let (reason, message) = fails(&git_source(&server, server.url("https", "git"), credentials())).await;
    assert_eq!(reason, SourceReason::Unreachable, "{message}");
    assert!(message.contains("certificate"), "{message}");
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "contract::source::s02_https_trusts_only_known_authorities"])
        .env("SSL_CERT_FILE", server.home.join("crt.pem"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && text.contains("1 passed"), "{text}");
}
