//! Many users at once, in a process of their own: descriptor tables and limits are a process's.

#[path = "it/support.rs"]
mod support;

use muster_core::model::load::{Executor, LoadPlan};
use muster_load::{PrepareError, prepare};
use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit};
use socket2::SockRef;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use support::{OK, PATIENCE, get, http, iterations, job, phase, plan, run, scenario};

/// One test after another: they use up what a process may have.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The first runtime of a process opens what all later ones use, by number: it must stand before a thread takes a table of its own.
    drop(support::runtime());
    guard
}

/// What a crowd's server counted.
#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
    /// Connections that stood when the first answer was given.
    at_once: AtomicU64,
}

/// A thread with a descriptor table of its own that answers nobody until `users` connections stand.
fn crowd_server(users: usize, addresses: u8) -> (Vec<String>, Arc<Counts>) {
    let (sender, urls) = std::sync::mpsc::channel();
    let counts = Arc::new(Counts::default());
    let counted = counts.clone();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_FILES).expect("a table of one's own");
        let listen = |net: u8| {
            let listener = TcpListener::bind(format!("127.0.{net}.1:0")).expect("a free port");
            // With the library's own 128 most users would be turned away at first, and ask again a second later.
            SockRef::from(&listener).listen(4_096).expect("it listens already");
            listener
        };
        let listeners: Vec<TcpListener> = (0..addresses).map(listen).collect();
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound socket");
        let urls = listeners.iter().map(|listener| format!("http://{}", address(listener)));
        sender.send(urls.collect()).expect("the test waits");
        Crowd::new(listeners, counted).serve(users);
    });
    (urls.recv_timeout(PATIENCE).expect("a server"), counts)
}

struct Crowd {
    listeners: Vec<TcpListener>,
    streams: HashMap<u64, TcpStream>,
    /// Who has asked and was not answered.
    waiting: Vec<u64>,
    epoll: Epoll,
    counts: Arc<Counts>,
}

impl Crowd {
    fn new(listeners: Vec<TcpListener>, counts: Arc<Counts>) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll descriptor");
        for listener in &listeners {
            listener.set_nonblocking(true).expect("a socket");
            let event = EpollEvent::new(EpollFlags::EPOLLIN, listener.as_raw_fd() as u64);
            epoll.add(listener, event).expect("a socket to watch");
        }
        Self {
            listeners,
            streams: HashMap::new(),
            waiting: Vec::new(),
            epoll,
            counts,
        }
    }

    fn serve(mut self, users: usize) {
        let mut events = vec![EpollEvent::empty(); 512];
        loop {
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
            for event in &events[..ready] {
                let key = event.data();
                match self.streams.contains_key(&key) {
                    true => self.read(key),
                    false => self.accept(key),
                }
            }
            let open = self.counts.at_once.load(Ordering::SeqCst) > 0;
            if open || self.waiting.len() >= users {
                let standing = self.streams.len() as u64;
                self.counts.at_once.fetch_max(standing, Ordering::SeqCst);
                for key in std::mem::take(&mut self.waiting) {
                    let _ = self.streams.get_mut(&key).map(|stream| stream.write_all(OK));
                }
            }
        }
    }

    fn accept(&mut self, key: u64) {
        let listener = self.listeners.iter().find(|known| known.as_raw_fd() as u64 == key);
        while let Some(Ok((stream, _))) = listener.map(TcpListener::accept) {
            stream.set_nonblocking(true).expect("a socket");
            let key = stream.as_raw_fd() as u64;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, key);
            self.epoll.add(&stream, event).expect("a socket to watch");
            self.counts.connections.fetch_add(1, Ordering::SeqCst);
            self.streams.insert(key, stream);
        }
    }

    fn read(&mut self, key: u64) {
        let mut bytes = [0; 1_024];
        match self.streams.get_mut(&key).map(|stream| stream.read(&mut bytes)) {
            Some(Ok(count)) if count > 0 => {
                assert!(bytes[..count].ends_with(b"\r\n\r\n"), "a request in one piece");
                self.counts.requests.fetch_add(1, Ordering::SeqCst);
                self.waiting.push(key);
            }
            _ => drop(self.streams.remove(&key)),
        }
    }
}

fn crowd_plan(urls: Vec<String>, executor: Executor) -> LoadPlan {
    let mut engine = http(vec![scenario(vec![get("/")])]);
    engine.timeout = PATIENCE;
    let mut plan = plan("http://127.0.0.1", engine, vec![phase("p", executor, PATIENCE)]);
    plan.base_urls = urls;
    plan.targets.allow = vec!["127.0.0.0/8".to_owned()];
    plan
}

#[test]
fn ten_thousand_users_are_open_at_once_and_each_request_is_counted_once() {
    const USERS: u64 = 10_000;
    let _alone = alone();
    let (urls, counts) = crowd_server(USERS as usize, 4);
    let mut job = job(crowd_plan(urls, iterations(USERS, 2)));
    job.threads = 2;
    let outcome = run(job);
    assert_eq!(outcome.errors(), []);
    let requests = outcome.of("p", "get");
    assert_eq!((requests.requests, requests.failed), (2 * USERS, 0));
    assert_eq!(outcome.of("p", "").iterations, 2 * USERS);
    assert_eq!(counts.at_once.load(Ordering::SeqCst), USERS);
    assert_eq!(
        counts.connections.load(Ordering::SeqCst),
        USERS,
        "each user keeps its connection"
    );
    assert_eq!(counts.requests.load(Ordering::SeqCst), 2 * USERS);
}

#[test]
fn more_users_than_files_are_refused_before_the_run() {
    let _alone = alone();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let too_many = Executor::ConstantVus {
        vus: hard,
        duration: PATIENCE,
    };
    let refused = prepare(job(crowd_plan(vec!["http://127.0.0.1:1".to_owned()], too_many)));
    let Err(error @ PrepareError::Files { users, limit, .. }) = refused else {
        panic!("it was not refused");
    };
    assert_eq!((users, limit), (hard, hard));
    assert!(error.to_string().contains("LimitNOFILE="), "{error}");
}

#[test]
fn s45_seconds_in_which_the_generator_has_no_files_left_do_not_count() {
    let _alone = alone();
    let (urls, _) = crowd_server(1, 1);
    let outcome = thread::spawn(move || {
        // The load thread that is made here shares this table.
        unshare(CloneFlags::CLONE_FILES).expect("a table of one's own");
        let prepared = prepare(job(crowd_plan(urls, iterations(20, 1)))).expect("20 users are few");
        let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        taken.truncate(taken.len() - 10);
        support::run_prepared(prepared, |_, _| {})
    });
    let outcome = outcome.join().expect("no panic");
    let failed = outcome.of("p", "get").failed;
    let own: u64 = outcome
        .seconds
        .iter()
        .filter_map(|second| second.generator.own_drops.get("p"))
        .sum();
    assert!(failed >= 10, "{failed}");
    assert_eq!(own, failed);
    assert_eq!(outcome.errors(), [("connect".to_owned(), failed)]);
}
