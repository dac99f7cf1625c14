//! A MariaDB or MySQL 8 of a test's own, which may be changed, killed and started again.

use std::path::Path;
use std::process::Command;

/// A running server; stopped and removed when dropped.
pub struct MariaDb {
    folder: tempfile::TempDir,
    port: u16,
    /// The script of `tests/parts`, and what names the port to it.
    part: (&'static str, &'static str),
}

impl MariaDb {
    /// Makes a MariaDB and starts it.
    pub fn start() -> Self {
        Self::of(("mariadb", "MARIADB_PORT"), tempfile::tempdir().unwrap())
    }

    /// Makes a MySQL 8 of programs that are there already, and starts it.
    pub fn start_mysql8(programs: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(programs, folder.path().join("mysql8-server")).unwrap();
        Self::of(("mysql8", "MYSQL8_PORT"), folder)
    }

    fn of(part: (&'static str, &'static str), folder: tempfile::TempDir) -> Self {
        // Free a moment ago; nothing else on the machine asks for ports by number in between.
        let port = super::free_port();
        let server = Self { folder, port, part };
        server.up();
        server
    }

    /// Makes a database and returns its address as user `muster`; its name begins with `muster_`.
    pub fn database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        // MySQL 8.0.12 offers TLS that nobody takes any more.
        let options = if self.part.0 == "mysql8" {
            "?ssl-mode=DISABLED"
        } else {
            ""
        };
        format!("mysql://muster:muster@127.0.0.1:{}/{name}{options}", self.port)
    }

    /// Runs statements as root and returns the rows they give, one a line.
    pub fn sql(&self, statements: &str) -> String {
        let socket = self.folder.path().join(self.part.0).join("socket");
        let done = Command::new("mariadb")
            .args([
                "--no-defaults",
                "--user=root",
                "--batch",
                "--skip-column-names",
                "-e",
                statements,
            ])
            .arg(format!("--socket={}", socket.display()))
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{statements}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn script(&self, verb: &str) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts");
        let mut command = Command::new(scripts.join(format!("{}.sh", self.part.0)));
        command
            .arg(verb)
            .arg(self.folder.path())
            .env(self.part.1, self.port.to_string());
        command
    }

    /// Starts it again after [`MariaDb::kill`].
    pub fn up(&self) {
        let output = self.script("up").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/parts/{}.sh up: {text}", self.part.0);
    }

    /// kill -9.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.path().join(self.part.0).join("pid")).unwrap();
        super::muster::signal(pid.trim().parse().unwrap(), "KILL");
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.script("down").output();
    }
}
