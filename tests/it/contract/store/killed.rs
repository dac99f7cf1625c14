//! A database that is killed in the middle of a run.

use super::results::{contents, flush, opened, part, series, session};
use super::{on_server, with_database};
use muster::store::open;
use muster::store::rows::Appended;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

const FLUSHES: u64 = 60;
const PARTS: u32 = 50;
/// Longest wait for anything here; two restarts of a database take some seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A MariaDB of the test's own, stopped at the end.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn new() -> Self {
        // Free a moment ago; nothing else on the machine asks for ports by number in between.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, port }
    }

    fn script(&self, verb: &str) -> std::process::Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/mariadb.sh");
        let mut command = std::process::Command::new(script);
        command
            .arg(verb)
            .arg(self.folder.path())
            .env("MARIADB_PORT", self.port.to_string());
        command
    }

    async fn up(&self) {
        let output = Command::from(self.script("up")).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/parts/mariadb.sh up: {text}");
    }

    async fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.path().join("mariadb/pid")).unwrap();
        let killed = Command::new("kill").args(["-9", pid.trim()]).status().await.unwrap();
        assert!(killed.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.script("down").output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s49_a_database_killed_in_mid_run_loses_and_doubles_nothing() {
    let server = Server::new();
    server.up().await;
    let address = format!("mysql://muster:muster@127.0.0.1:{}", server.port);
    on_server(
        &address,
        "it was just started",
        &["CREATE DATABASE muster_killed CHARACTER SET utf8mb4".to_owned()],
    )
    .await;
    let results = open(&with_database(&address, "muster_killed")).await.unwrap().results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    let (progress, mut progressed) = watch::channel(0);
    let writer = tokio::spawn({
        let results = results.clone();
        async move {
            for from in 0..FLUSHES {
                let parts = (0..PARTS)
                    .map(|name| part(from as u32, series(&name.to_string()), vec![1; 200]))
                    .collect();
                let flush = flush(run, mine, from, from + 1, parts);
                let mut unknown = false;
                loop {
                    match results.append(&flush).await {
                        Ok(Appended::Stored) => break,
                        // Stored by the try whose answer was lost.
                        Ok(Appended::Moved) if unknown => break,
                        Ok(other) => panic!("{other:?}"),
                        Err(error) => assert!(error.is_transient(), "{error}"),
                    }
                    unknown = true;
                }
                progress.send_replace(from + 1);
            }
        }
    });
    for at in [FLUSHES / 4, FLUSHES / 2] {
        timeout(LIMIT, progressed.wait_for(|stored| *stored >= at))
            .await
            .expect("it goes on")
            .unwrap();
        server.kill().await;
        server.up().await;
    }
    timeout(LIMIT, writer).await.expect("the writer ends").unwrap();
    assert_eq!(results.sessions(run).await.unwrap()[0].watermark, FLUSHES);
    let mut stored: Vec<_> = contents(&results, run)
        .await
        .into_iter()
        .map(|part| (part.second, part.what))
        .collect();
    assert_eq!(stored.len() as u64, FLUSHES * u64::from(PARTS));
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len() as u64, FLUSHES * u64::from(PARTS));
}
