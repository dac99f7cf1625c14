//! A MariaDB of a test's own, which may be killed and started again.

use std::path::Path;
use std::process::Command;

/// A running server; stopped and removed when dropped.
pub struct MariaDb {
    folder: tempfile::TempDir,
    port: u16,
}

impl MariaDb {
    /// Makes one and starts it.
    pub fn start() -> Self {
        // Free a moment ago; nothing else on the machine asks for ports by number in between.
        let (folder, port) = (tempfile::tempdir().unwrap(), super::free_port());
        let server = Self { folder, port };
        server.up();
        server
    }

    /// Makes a database and returns its address as user `muster`; its name begins with `muster_`.
    pub fn database(&self, name: &str) -> String {
        self.root(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        format!("mysql://muster:muster@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs statements as root.
    pub fn root(&self, sql: &str) {
        let done = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "-e", sql])
            .arg(format!("--socket={}/mariadb/socket", self.folder.path().display()))
            .status()
            .unwrap();
        assert!(done.success());
    }

    fn script(&self, verb: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/mariadb.sh");
        let mut command = Command::new(script);
        command
            .arg(verb)
            .arg(self.folder.path())
            .env("MARIADB_PORT", self.port.to_string());
        command
    }

    /// Starts it again after [`MariaDb::kill`].
    pub fn up(&self) {
        let output = self.script("up").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/parts/mariadb.sh up: {text}");
    }

    /// kill -9.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.path().join("mariadb/pid")).unwrap();
        super::muster::signal(pid.trim().parse().unwrap(), "KILL");
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.script("down").output();
    }
}
