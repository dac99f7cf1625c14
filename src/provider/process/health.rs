//! Asks a unit whether it is healthy: one HTTP GET or one TCP connection, within a deadline. No async: the shim has no runtime.

use super::record::Sheet;
use super::wake::Waker;
use muster_core::model::id::Name;
use muster_core::model::service::{Health, Probe};
use muster_core::model::unit::UnitWork;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A status line is shorter; whoever sends more before its first line end is not healthy.
const STATUS_LINE_MAX: usize = 4096;

/// Asks once.
///
/// # Errors
/// Why the unit is not healthy, for people.
fn ask(probe: &Probe, ports: &[(Name, u16)], timeout: Duration) -> Result<(), String> {
    let (name, path) = match probe {
        Probe::Http { path, port } => (port, Some(path)),
        Probe::Tcp { port } => (port, None),
    };
    let port = ports
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, port)| *port)
        .ok_or_else(|| format!("there is no port named {name}"))?;
    let deadline = Instant::now() + timeout;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, timeout)
        .map_err(|error| format!("cannot connect to port {name} ({port}): {}", error.kind()))?;
    match path {
        Some(path) => get(stream, port, path, deadline),
        None => Ok(()),
    }
}

/// HTTP/1.0, so that no answer is chunked and the connection ends with it.
fn get(mut stream: TcpStream, port: u16, path: &str, deadline: Instant) -> Result<(), String> {
    if path.contains(|c: char| c.is_control() || c == ' ') {
        return Err("the path holds characters that no path has".to_owned());
    }
    let said = |what: &str| format!("GET {path} on port {port}: {what}");
    let left = || {
        deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    };
    let broke = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => said("no answer in time"),
        kind => said(&kind.to_string()),
    };
    stream.set_write_timeout(left()).map_err(broke)?;
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: muster-health\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(broke)?;
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    while !head.contains(&b'\n') {
        let left = left().ok_or_else(|| said("no answer in time"))?;
        stream.set_read_timeout(Some(left)).map_err(broke)?;
        let count = stream.read(&mut chunk).map_err(broke)?;
        if count == 0 {
            return Err(said("closed before an answer"));
        }
        head.extend_from_slice(&chunk[..count]);
        if head.len() > STATUS_LINE_MAX {
            return Err(said("no HTTP answer"));
        }
    }
    match status(&head) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(said(&format!("status {status}"))),
        None => Err(said("no HTTP answer")),
    }
}

/// The number in `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let number = rest.split(' ').nth(1)?.trim();
    (number.len() == 3).then(|| number.parse().ok())?
}

/// What the newest answer means.
pub(super) enum Verdict {
    Healthy,
    Unhealthy(String),
}

/// Until a new process is Ready it is asked this often, so that nobody waits a whole interval for it.
const EAGER: Duration = Duration::from_millis(200);

type Answer = (u32, Result<(), String>);

/// Asks in a thread of its own, one question at a time, so that a slow answer delays no signal.
pub(super) struct Prober {
    health: Option<Health>,
    ports: Vec<(Name, u16)>,
    began: Instant,
    next: Instant,
    asked: bool,
    proven: bool,
    failures: u32,
    /// Answers to questions of a process before this one are not listened to.
    generation: u32,
    answers: Receiver<Answer>,
    sender: Sender<Answer>,
    waker: Waker,
}

impl Prober {
    pub(super) fn new(sheet: &Sheet, waker: Waker) -> Self {
        let health = match &sheet.spec.work {
            UnitWork::Replica { health, .. } => health.clone(),
            UnitWork::Ingest { .. } => Some(super::ingest::health()),
            UnitWork::Worker { .. } => None,
        };
        let (sender, answers) = channel();
        let now = Instant::now();
        Self {
            health,
            ports: sheet.ports.clone(),
            began: now,
            next: now,
            asked: false,
            proven: false,
            failures: 0,
            generation: 0,
            answers,
            sender,
            waker,
        }
    }

    /// Whether the unit has a health check at all.
    pub(super) fn has_questions(&self) -> bool {
        self.health.is_some()
    }

    /// The process is another one or gone: nothing known of the old one counts.
    pub(super) fn forget(&mut self) {
        self.generation += 1;
        self.failures = 0;
        self.asked = false;
        self.proven = false;
        self.began = Instant::now();
        self.next = self.began;
    }

    /// When the next question is due: `None` without a health check, `Some(None)` while one is asked.
    pub(super) fn due(&self) -> Option<Option<Instant>> {
        self.health.as_ref()?;
        Some((!self.asked).then_some(self.next))
    }

    pub(super) fn ask_when_due(&mut self) {
        let Some(health) = &self.health else { return };
        if self.asked || Instant::now() < self.next {
            return;
        }
        let (probe, timeout, ports) = (health.probe.clone(), health.timeout, self.ports.clone());
        let (sender, generation) = (self.sender.clone(), self.generation);
        let mut waker = self.waker.clone();
        let asked = thread::Builder::new().name("probe".to_owned()).spawn(move || {
            sender.send((generation, ask(&probe, &ports, timeout))).ok();
            waker.wake();
        });
        self.asked = asked.is_ok();
        let pause = if self.proven {
            health.interval
        } else {
            health.interval.min(EAGER)
        };
        self.next = Instant::now() + pause;
    }

    /// What the newest answer means, if it means anything yet.
    pub(super) fn answer(&mut self) -> Option<Verdict> {
        let mut verdict = None;
        while let Ok((generation, result)) = self.answers.try_recv() {
            if generation == self.generation {
                self.asked = false;
                verdict = self.weigh(result).or(verdict);
            }
        }
        verdict
    }

    /// One success is enough; failures count in a row, and at first only after the time that so many would have taken.
    fn weigh(&mut self, result: Result<(), String>) -> Option<Verdict> {
        let health = self.health.as_ref()?;
        match result {
            Ok(()) => {
                self.failures = 0;
                self.proven = true;
                Some(Verdict::Healthy)
            }
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                let patient = !self.proven && self.began.elapsed() < health.interval * health.failures;
                (self.failures >= health.failures && !patient).then_some(Verdict::Unhealthy(reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ask, status};
    use muster_core::model::id::Name;
    use muster_core::model::service::Probe;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    /// Answers one request with these bytes, or never.
    fn server(answer: Option<&'static [u8]>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap_or(0);
            assert!(request[..count].starts_with(b"GET /healthz?x=1 HTTP/1.0\r\n"));
            match answer {
                Some(answer) => stream.write_all(answer).unwrap_or(()),
                None => std::thread::sleep(Duration::from_secs(30)),
            }
        });
        port
    }

    #[test]
    fn only_2xx_and_3xx_are_healthy() {
        let name = Name::new("http").expect("a name");
        let probe = Probe::Http {
            path: "/healthz?x=1".to_owned(),
            port: name.clone(),
        };
        let cases: [(Option<&'static [u8]>, &str); 8] = [
            (Some(b"HTTP/1.1 200 OK\r\n\r\n"), ""),
            (Some(b"HTTP/1.0 302 Found\r\n"), ""),
            (Some(b"HTTP/1.1 204\r\n\r\n"), ""),
            (Some(b"HTTP/1.1 503 Busy\r\n\r\n"), "status 503"),
            (Some(b"SSH-2.0-OpenSSH\r\n"), "no HTTP answer"),
            (Some(&[b'x'; 9000]), "no HTTP answer"),
            (Some(b""), "closed before an answer"),
            (None, "no answer in time"),
        ];
        for (answer, expected) in cases {
            let ports = [(name.clone(), server(answer))];
            let began = Instant::now();
            let result = ask(&probe, &ports, Duration::from_millis(300));
            match expected {
                "" => assert_eq!(result, Ok(())),
                _ => assert!(
                    result.as_ref().is_err_and(|error| error.contains(expected)),
                    "{result:?}"
                ),
            }
            assert!(began.elapsed() < Duration::from_secs(10), "bounded");
        }
    }

    #[test]
    fn tcp_only_connects() {
        let name = Name::new("db").expect("a name");
        let probe = Probe::Tcp { port: name.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let ports = [(name, listener.local_addr().expect("bound").port())];
        assert_eq!(ask(&probe, &ports, Duration::from_secs(5)), Ok(()));
        drop(listener);
        assert!(ask(&probe, &ports, Duration::from_secs(5)).is_err());
    }

    #[test]
    fn a_status_is_three_digits_of_http_1() {
        for (line, expected) in [
            (&b"HTTP/1.1 200 OK\n"[..], Some(200)),
            (b"HTTP/1.1 20 OK\n", None),
            (b"HTTP/2 200\n", None),
            (b"\xff\n", None),
        ] {
            assert_eq!(status(line), expected);
        }
    }
}
