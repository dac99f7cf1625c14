//! The git source against a real server: ssh, http with and without credentials, https.

use muster::source::git::credentials::Credentials;
use muster::source::git::{GitConfig, GitSource};
use muster::source::tree::Limits;
use muster::source::{Source, SourceReason};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;
use uuid::Uuid;

const HINT: &str = "the git server does not answer: start it with `make parts` or `tests/parts/git.sh up`";

/// The server of `tests/parts/git.sh`, with a repository of its own for one test.
struct Server {
    home: PathBuf,
    ports: BTreeMap<String, String>,
    name: String,
    mirrors: TempDir,
}

impl Server {
    fn new() -> Self {
        let home = std::env::var_os("MUSTER_TEST_GIT_DIR").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/parts/git")),
            PathBuf::from,
        );
        let text = fs::read_to_string(home.join("env")).unwrap_or_else(|error| panic!("{HINT} ({error})"));
        let ports = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let server = Self {
            name: format!("{}.git", Uuid::now_v7()),
            home,
            ports,
            mirrors: TempDir::new().unwrap(),
        };
        server.git(&["init", "-q", "--bare", "-b", "main", "."]);
        server
    }

    fn repository(&self) -> PathBuf {
        self.home.join("repos").join(&self.name)
    }

    fn git(&self, arguments: &[&str]) -> String {
        fs::create_dir_all(self.repository()).unwrap();
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.repository())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "Li Wei")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "li.wei@example.com")))
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits one file, without a work tree.
    fn commit(&self, content: &str) -> String {
        let file = self.mirrors.path().join("file");
        fs::write(&file, content).unwrap();
        let blob = self.git(&["hash-object", "-w", file.to_str().unwrap()]);
        self.git(&[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("100644,{blob},plan.yaml"),
        ]);
        let tree = self.git(&["write-tree"]);
        let commit = self.git(&["commit-tree", &tree, "-m", content]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
        commit
    }

    fn url(&self, scheme: &str, location: &str) -> String {
        let port = &self.ports[scheme];
        match scheme {
            "ssh" => format!(
                "ssh://{}@127.0.0.1:{port}{}",
                self.ports["user"],
                self.repository().display()
            ),
            _ => format!("{scheme}://127.0.0.1:{port}/{location}/{}", self.name),
        }
    }

    fn source(&self, url: String, credentials: Credentials) -> GitSource {
        GitSource::new(GitConfig {
            url,
            branch: "main".to_owned(),
            path: ".".to_owned(),
            mirror: self.mirrors.path().join("mirror"),
            credentials,
            limits: Limits::default(),
        })
        .unwrap()
    }

    fn key(&self, file: &str) -> Credentials {
        let text = fs::read_to_string(self.home.join(file)).unwrap();
        Credentials::from_secret(&text.into())
    }

    /// The server's own line of a known_hosts file.
    fn known_hosts(&self) -> String {
        let key = fs::read_to_string(self.home.join("hostkey.pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.ports["ssh"])
    }

    /// Requests for this test's repository: method and rest of the path.
    fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.home.join("access.log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains(&self.name))
            .filter_map(|line| {
                let request = line.split('"').nth(1)?;
                let (method, rest) = request.split_once(' ')?;
                let path = rest.split(&self.name).nth(1)?.split(' ').next()?;
                Some(format!("{method} {path}"))
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        fs::remove_dir_all(self.repository()).ok();
    }
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
    let source = server.source(server.url("http", "open"), Credentials::None);
    let commit = server.commit("one");
    let ask = "GET /info/refs?service=git-upload-pack";
    for tick in 1..=3 {
        assert_eq!(source.resolve().await.unwrap().as_str(), commit);
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
    let right = server.source(url.clone(), Credentials::from_secret(&"lab:secret".into()));
    follows(&server, &right).await;
    for credentials in [Credentials::None, Credentials::from_secret(&"lab:canary".into())] {
        let (reason, message) = fails(&server.source(url.clone(), credentials)).await;
        assert_eq!(reason, SourceReason::AuthenticationFailed, "{message}");
        assert!(!message.contains("canary"), "{message}");
    }
    let (reason, message) = fails(&server.source(server.url("http", "busy"), Credentials::None)).await;
    assert_eq!(reason, SourceReason::RateLimited, "{message}");
    let missing = format!("{}-not", server.url("http", "open"));
    let (reason, message) = fails(&server.source(missing, Credentials::None)).await;
    assert_eq!(reason, SourceReason::Unreachable, "{message}");
}

#[tokio::test]
async fn s02_ssh_with_a_key_and_known_hosts() {
    let server = Server::new();
    let url = server.url("ssh", "");
    let right = server.source(url.clone(), server.key("id").with_known_hosts(server.known_hosts()));
    follows(&server, &right).await;

    let stranger = server.key("stranger").with_known_hosts(server.known_hosts());
    let (reason, message) = fails(&server.source(url.clone(), stranger)).await;
    assert_eq!(reason, SourceReason::AuthenticationFailed, "{message}");
    assert!(!message.contains("PRIVATE KEY"), "{message}");

    let unknown = server.key("id").with_known_hosts("[127.0.0.1]:1 ssh-ed25519 AAAA");
    let (reason, message) = fails(&server.source(url, unknown)).await;
    assert_eq!(reason, SourceReason::Unreachable, "{message}");
    assert!(message.contains("known hosts"), "{message}");
}

/// OpenSSL reads where its authorities are once per process: the test runs itself again with them named.
#[tokio::test]
async fn s02_https_trusts_only_known_authorities() {
    let server = Server::new();
    let credentials = || Credentials::from_secret(&"lab:secret".into());
    if std::env::var_os("SSL_CERT_FILE").is_some_and(|file| file == server.home.join("crt.pem")) {
        follows(&server, &server.source(server.url("https", "git"), credentials())).await;
        return;
    }
    server.commit("one");
    let (reason, message) = fails(&server.source(server.url("https", "git"), credentials())).await;
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
