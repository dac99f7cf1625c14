//! The HTTP API of a real daemon: every route, what it refuses and how it says so, and who may do what.

mod access;
mod check;
mod refusals;
mod routes;
mod source;

use crate::support::free_port;
use crate::support::muster::{Daemon, kill_below};
use crate::support::repo::Repo;
use crate::support::wait_for;
use serde_json::Value;
use tempfile::TempDir;

/// A repository with a simulated service and a plan that aims at a port where nobody listens.
pub struct World {
    pub dir: TempDir,
    pub repo: Repo,
}

/// Units that no process stands behind, so that these tests start fast and leave nothing behind.
pub const LAB: &str = "\
apiVersion: muster.dev/v1alpha1
kind: Environment
metadata: {name: lab}
spec: {provider: {type: simulated}}
---
apiVersion: muster.dev/v1alpha1
kind: Service
metadata: {name: shop}
spec: {environment: lab, command: [shop], replicas: 2, ports: [{name: http}]}
";

pub fn plan(name: &str) -> String {
    let url = format!("http://127.0.0.1:{}", free_port());
    include_str!("../../../examples/hello/hello.yaml")
        .replace("name: hello", &format!("name: {name}"))
        .replace("http://127.0.0.1:8080", &url)
        + "  validity: {maxBadShare: 100%}\n"
}

impl World {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let repo = Repo::new(&dir.path().join("repo"));
        repo.write("plans/lab.yaml", LAB);
        repo.write("plans/hello.yaml", &plan("hello"));
        repo.commit("plans");
        Self { dir, repo }
    }

    pub fn settings(&self) -> String {
        format!(
            "source: {{url: \"{}\", branch: main, path: plans, interval: 1s}}\nstore: {{url: \"sqlite://{}/state/muster.db\"}}\n\
             process: {{enabled: true}}\ntargets: {{allow: [\"127.0.0.1\"]}}\n",
            self.repo.url(),
            self.dir.path().display()
        )
    }

    /// A daemon that has applied the first commit.
    pub fn serve(&self, more: &str) -> Daemon {
        Daemon::start(self.dir.path(), &(self.settings() + more))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        kill_below(&self.dir.path().join("state"));
    }
}

/// Waits until the service's units are Ready, and returns them.
pub fn ready_units(daemon: &Daemon, wanted: usize) -> Vec<Value> {
    wait_for("ready units", || {
        let units = daemon.get("/api/v1/units").1["items"].as_array()?.clone();
        let all = units.iter().filter(|unit| unit["owner"] == "default/Service/shop");
        let ready: Vec<Value> = all.filter(|unit| unit["state"] == "Ready").cloned().collect();
        (ready.len() == wanted).then_some(ready)
    })
}

/// An error has a status, a code, words and, where somebody can do something about it, a hint.
#[track_caller]
pub fn refused(answer: &(u16, Value), status: u16, code: &str, words: &str) {
    let (got, body) = answer;
    assert_eq!((*got, body["code"].as_str()), (status, Some(code)), "{body:#}");
    assert!(body.get("hint").is_some(), "{body:#}");
    assert!(body.to_string().contains(words), "no `{words}` in {body:#}");
}
