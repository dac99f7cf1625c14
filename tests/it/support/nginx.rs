//! A real nginx of one's own, with an access log to compare counts with.

use super::{free_port, wait_for};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running nginx; stopped when dropped.
pub struct Nginx {
    /// Its port.
    pub port: u16,
    host: &'static str,
    dir: PathBuf,
    child: Child,
}

impl Nginx {
    /// Starts one in a folder; `locations` go into its server block.
    pub fn start(dir: &Path, locations: &str) -> Self {
        Self::start_on("127.0.0.1", dir, locations)
    }

    /// Starts one that answers on another address of this machine.
    pub fn start_on(host: &'static str, dir: &Path, locations: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let port = free_port();
        let user = if nix::unistd::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let conf = format!(
            "daemon off; {user} worker_processes 1; pid nginx.pid; error_log error.log warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  log_format plain '$status $request_method $uri';\n  access_log access.log plain;\n\
             client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
             keepalive_requests 10000000;\n\
             server {{ listen {host}:{port} backlog=4096; {locations} }} }}\n"
        );
        std::fs::write(dir.join("nginx.conf"), conf).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .args([
                "-p",
                &format!("{}/", dir.display()),
                "-e",
                "error.log",
                "-c",
                "nginx.conf",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start nginx ({error}); install it with: tests/parts/nginx.sh install")
            });
        let nginx = Self {
            port,
            host,
            dir: dir.to_owned(),
            child,
        };
        wait_for("nginx to listen", || TcpStream::connect((host, port)).ok());
        nginx
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// How many requests it has logged.
    pub fn requests(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
        log.lines().count()
    }

    /// Stops it, so that its log is whole, and returns the log's lines.
    pub fn stop(mut self) -> Vec<String> {
        // QUIT finishes open requests and writes their lines.
        super::muster::signal(self.child.id(), "QUIT");
        self.child.wait().unwrap();
        std::fs::read_to_string(self.dir.join("access.log"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = Command::new("kill")
                .args(["-TERM", &self.child.id().to_string()])
                .status();
            let _ = self.child.wait();
        }
    }
}
