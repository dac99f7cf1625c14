//! Where requests may go (promise 60): the name is checked, then the addresses it resolves to. Look-ups are cached, bounded and have a deadline.

use super::broken::Broken;
use super::url::Url;
use muster_core::measure::slice::ErrorKind;
use muster_core::model::policy::TargetRules;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a look-up is believed. k6's default.
const TTL: Duration = Duration::from_secs(300);
/// How long a look-up may take; resolvers give up after two tries of 5 s.
const LOOKUP: Duration = Duration::from_secs(10);
/// Names remembered; a target that invents names in redirects must not fill the memory.
const NAMES_MAX: usize = 4_096;

/// The target rules of a run, and what was looked up under them.
pub(crate) struct Guard {
    rules: TargetRules,
    names: Mutex<HashMap<(String, u16), Known>>,
}

#[derive(Clone)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    until: Instant,
}

impl Guard {
    pub(crate) fn new(rules: TargetRules) -> Self {
        Self {
            rules,
            names: Mutex::default(),
        }
    }

    /// The addresses a request to `url` may be sent to.
    ///
    /// # Errors
    /// `TargetDenied` where the rules do not allow the name or any of its addresses, `Dns` where it has none.
    pub(crate) async fn addresses(&self, url: &Url) -> Result<Arc<[SocketAddr]>, Broken> {
        if let Some(addresses) = self.known(url)? {
            return Ok(addresses);
        }
        let target = (url.host.clone(), url.port);
        let lookup = tokio::task::spawn_blocking(move || resolve(&target.0, target.1));
        let found = match tokio::time::timeout(LOOKUP, lookup).await {
            Ok(Ok(found)) => found?,
            Ok(Err(_)) => return Err(Broken::new(ErrorKind::Dns, "the look-up was cut off")),
            Err(_) => return Err(slow()),
        };
        self.learn(url, &found)
    }

    /// The same, for a thread that may wait.
    pub(crate) fn addresses_blocking(&self, url: &Url) -> Result<Arc<[SocketAddr]>, Broken> {
        if let Some(addresses) = self.known(url)? {
            return Ok(addresses);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let target = (url.host.clone(), url.port);
        // A resolver cannot be interrupted: past the deadline its thread is left to end by itself.
        std::thread::spawn(move || sender.send(resolve(&target.0, target.1)));
        let found = receiver.recv_timeout(LOOKUP).map_err(|_| slow())??;
        self.learn(url, &found)
    }

    /// Checks the name, and answers without a look-up where none is needed.
    fn known(&self, url: &Url) -> Result<Option<Arc<[SocketAddr]>>, Broken> {
        if !self.rules.name_allowed(&url.host, url.port) {
            return Err(denied(url));
        }
        if let Ok(address) = url.host.parse::<IpAddr>() {
            return self.learn(url, &[SocketAddr::new(address, url.port)]).map(Some);
        }
        let mut names = self.lock();
        let Some(known) = names.get_mut(&(url.host.clone(), url.port)) else {
            return Ok(None);
        };
        let now = Instant::now();
        if known.until > now {
            return Ok(Some(known.addresses.clone()));
        }
        // Whoever finds it outdated asks again; all others go on with what is known.
        known.until = now + LOOKUP;
        Ok(None)
    }

    fn learn(&self, url: &Url, found: &[SocketAddr]) -> Result<Arc<[SocketAddr]>, Broken> {
        let allowed = |address: &SocketAddr| self.rules.address_allowed(address.ip(), url.port, &url.host);
        let addresses: Arc<[SocketAddr]> = found.iter().copied().filter(allowed).collect();
        if addresses.is_empty() {
            return Err(if found.is_empty() {
                Broken::new(ErrorKind::Dns, format!("{} has no address", url.host))
            } else {
                denied(url)
            });
        }
        let mut names = self.lock();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        let until = Instant::now() + TTL;
        let known = Known {
            addresses: addresses.clone(),
            until,
        };
        names.insert((url.host.clone(), url.port), known);
        Ok(addresses)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, u16), Known>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Broken> {
    let found = (host, port).to_socket_addrs();
    let mut found: Vec<SocketAddr> = found
        .map_err(|error| Broken::new(ErrorKind::Dns, format!("{host}: {error}")))?
        .collect();
    // k6's default policy: IPv4 where there is any.
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    Ok(found)
}

fn denied(url: &Url) -> Broken {
    let text = format!("{}:{} is not an allowed target", url.host, url.port);
    Broken::new(ErrorKind::TargetDenied, text)
}

fn slow() -> Broken {
    Broken::new(ErrorKind::Dns, "the look-up took longer than 10 s")
}

#[cfg(test)]
mod tests {
    use super::Guard;
    use crate::http::url::Url;
    use muster_core::measure::slice::ErrorKind;
    use muster_core::model::policy::TargetRules;

    fn guard(allow: &[&str]) -> Guard {
        Guard::new(TargetRules {
            allow: allow.iter().map(|text| (*text).to_owned()).collect(),
            ..TargetRules::default()
        })
    }

    #[test]
    fn s60_a_name_is_checked_before_and_its_addresses_after_the_look_up() {
        let kind = |allow: &[&str], url: &str| {
            let url = Url::parse(url).unwrap();
            guard(allow).addresses_blocking(&url).map_err(|broken| broken.kind)
        };
        assert_eq!(kind(&[], "http://localhost/"), Err(ErrorKind::TargetDenied));
        assert_eq!(kind(&["localhost"], "http://localhost/"), Err(ErrorKind::TargetDenied));
        let both = kind(&["localhost", "127.0.0.1", "::1"], "http://localhost:81/").unwrap();
        assert!(
            both.iter()
                .all(|address| address.ip().is_loopback() && address.port() == 81)
        );
        assert_eq!(kind(&["127.0.0.1"], "http://127.0.0.2/"), Err(ErrorKind::TargetDenied));
        assert_eq!(kind(&["*"], "http://169.254.169.254/"), Err(ErrorKind::TargetDenied));
        assert!(kind(&["127.0.0.1"], "http://127.0.0.1/").is_ok());
        assert_eq!(kind(&["*.invalid"], "http://nowhere.invalid/"), Err(ErrorKind::Dns));
    }

    #[tokio::test]
    async fn a_second_look_up_is_answered_from_memory() {
        let guard = guard(&["localhost", "127.0.0.1", "::1"]);
        let url = Url::parse("http://localhost/").unwrap();
        let first = guard.addresses(&url).await.unwrap();
        assert_eq!(guard.known(&url).unwrap(), Some(first));
    }
}
