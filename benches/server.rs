//! The stub server: one thread, epoll, one answer to everything, so that the generator and not the server is what is measured.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockRef;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: stub\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok";

/// Connections that wait to be accepted: as many as the kernel allows by default.
const BACKLOG: i32 = 4_096;
/// The events of the listener.
const LISTENER: u64 = u64::MAX;

/// Serves for ever; with `stall`, sleeps so long each so often and says through the callback when.
pub fn serve(listener: &TcpListener, stall: Option<(Duration, Duration)>, stalled: impl Fn(Instant, Instant)) {
    listener.set_nonblocking(true).expect("a socket");
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll descriptor");
    epoll
        .add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
        .expect("a socket to watch");
    let mut connections: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = vec![EpollEvent::empty(); 512];
    let mut buffer = vec![0_u8; 64 * 1_024];
    // In the middle of each period, so that a run of whole periods holds whole stalls.
    let mut next = stall.map(|(every, _)| Instant::now() + every / 2);
    loop {
        let timeout = next.map_or(EpollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()).as_millis() + 1;
            EpollTimeout::try_from(left as i32).unwrap_or(EpollTimeout::NONE)
        });
        let ready = epoll.wait(&mut events, timeout).unwrap_or(0);
        if let (Some(at), Some((every, length))) = (next, stall)
            && Instant::now() >= at
        {
            let begin = Instant::now();
            std::thread::sleep(length);
            stalled(begin, Instant::now());
            next = Some(at + every);
        }
        for event in &events[..ready] {
            if event.data() == LISTENER {
                accept(listener, &epoll, &mut connections);
            } else if let Some(stream) = connections.get_mut(&event.data())
                && !answer(stream, &mut buffer)
            {
                connections.remove(&event.data());
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, connections: &mut HashMap<u64, TcpStream>) {
    while let Ok((stream, _)) = listener.accept() {
        let key = stream.as_raw_fd() as u64;
        let _ = stream.set_nodelay(true);
        if stream.set_nonblocking(true).is_ok() && epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key)).is_ok()
        {
            connections.insert(key, stream);
        }
    }
}

/// Answers each GET that came; false: the connection is over.
fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    match stream.read(buffer) {
        Ok(0) => false,
        Ok(count) => {
            let requests = memchr::memmem::find_iter(&buffer[..count], b"\r\n\r\n").count();
            (0..requests).all(|_| stream.write_all(ANSWER).is_ok())
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// A listener on a free port of loopback.
pub fn listen() -> (TcpListener, SocketAddr) {
    listen_on(Ipv4Addr::LOCALHOST)
}

/// A listener on a free port of an address.
pub fn listen_on(address: Ipv4Addr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    // The library's own 128 are full while the thread is late by half a second, and who is turned away asks again after 1, 3, 7 … s.
    SockRef::from(&listener).listen(BACKLOG).expect("it listens already");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}
