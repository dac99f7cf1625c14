//! The git server of `tests/parts/git.sh`: ssh, http with and without credentials, https.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;
use uuid::Uuid;

const HINT: &str = "the git server does not answer: start it with `make parts` or `tests/parts/git.sh up`";

/// The server of `tests/parts/git.sh`, with a repository of its own for one test.
pub struct Server {
    /// Where its keys and logs are.
    pub home: PathBuf,
    /// A folder of the test's own.
    pub mirrors: TempDir,
    ports: BTreeMap<String, String>,
    name: String,
}

impl Server {
    /// An empty repository on it.
    pub fn new() -> Self {
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
    pub fn commit(&self, content: &str) -> String {
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

    /// Of the repository.
    pub fn url(&self, scheme: &str, location: &str) -> String {
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

    /// The server's own line of a known_hosts file.
    pub fn known_hosts(&self) -> String {
        let key = fs::read_to_string(self.home.join("hostkey.pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.ports["ssh"])
    }

    /// Requests for this test's repository: method and rest of the path.
    pub fn requests(&self) -> Vec<String> {
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
