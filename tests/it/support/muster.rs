//! The binary under test, in a clean environment.

use super::{free_port, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// `muster ARGS` in a folder, with nothing of the caller's environment but the PATH.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", dir)
        .stdin(Stdio::null());
    command
}

/// What one command did.
#[derive(Debug)]
pub struct Done {
    /// Exit code.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Progress and errors.
    pub stderr: String,
}

impl Done {
    /// stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a command to its end.
pub fn muster(dir: &Path, args: &[&str]) -> Done {
    command(dir, args).output().unwrap().into()
}

/// Runs a command that must succeed.
#[track_caller]
pub fn muster_ok(dir: &Path, args: &[&str]) -> Done {
    let done = muster(dir, args);
    assert_eq!(done.code, 0, "muster {}: {done:#?}", args.join(" "));
    done
}

/// A daemon as a real process, killed when dropped; what it started is taken down with its folder.
pub struct Daemon {
    /// Where it was started.
    pub dir: PathBuf,
    /// Its API.
    pub server: String,
    child: Child,
}

impl Daemon {
    /// Starts `muster serve` on settings that name the source; ports are chosen here. Waits until it is ready.
    pub fn start(dir: &Path, settings: &str) -> Self {
        let (port, workers) = (free_port(), free_port());
        let text = format!("{settings}\nlisten: 127.0.0.1:{port}\nworkers: {{listen: \"127.0.0.1:{workers}\"}}\n");
        std::fs::write(dir.join("muster.yaml"), text).unwrap();
        Self::again(dir, port)
    }

    /// Starts it on the settings of an earlier one.
    pub fn again(dir: &Path, port: u16) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("daemon.log"))
            .unwrap();
        let child = command(dir, &["serve", "--config", "muster.yaml"])
            .env("MUSTER_STATE_DIR", dir.join("state"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Self {
            dir: dir.to_owned(),
            server: format!("http://127.0.0.1:{port}"),
            child,
        };
        wait_for("the daemon to be ready", || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}: {}", daemon.log());
            }
            (daemon.get("/readyz").0 == 200).then_some(())
        });
        daemon
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    /// Runs a command against it.
    pub fn muster(&self, args: &[&str]) -> Done {
        command(&self.dir, args)
            .env("MUSTER_SERVER", &self.server)
            .output()
            .unwrap()
            .into()
    }

    /// Runs a command against it that must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Done {
        let done = self.muster(args);
        assert_eq!(done.code, 0, "muster {}: {done:#?}\n{}", args.join(" "), self.log());
        done
    }

    /// Reads a path of the API: status and document.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let address = self.server.trim_start_matches("http://");
        http(address, &format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n"))
    }

    /// Sends any request: status and document. `headers` are whole lines; `host` is among them, or there is none.
    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, Value) {
        let address = self.server.trim_start_matches("http://");
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let length = body.len();
        http(
            address,
            &format!("{method} {path} HTTP/1.0\r\n{lines}content-length: {length}\r\n\r\n{body}"),
        )
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let headers = ["host: localhost", "content-type: application/json"];
        self.send("POST", path, &headers, &body.to_string())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> i32 {
        signal(self.child.id(), "TERM");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes below a folder, shims apart, whose command line has these words.
pub fn processes(folder: &Path, words: &str) -> Vec<u32> {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_one = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let inside = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        line.contains(words) && !line.contains(" shim ") && (inside || line.contains(&folder))
    };
    pids.filter(is_one).collect()
}

/// Kills every process that was started below a folder: units and workers outlive their daemon on purpose.
pub fn kill_below(folder: &Path) {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let inside = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        if inside || String::from_utf8_lossy(&line).contains(&folder) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

fn http(address: &str, request: &str) -> (u16, Value) {
    use std::io::{Read as _, Write as _};
    let exchange = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(super::PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let Ok(answer) = exchange() else {
        return (0, Value::Null);
    };
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (
        status,
        serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())),
    )
}
