//! Servers that misbehave: each ends as an error of its kind, in bounded time and memory, and never as a panic.

use crate::support::{OK, Outcome, Server, Then, get, http, iterations, job, phase, plan, response, run, scenario};
use muster_core::model::load::Check;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// One iteration with one GET against a server that answers so; `timeout` for those that never end.
fn play(timeout: Duration, answer: impl Fn(&mut TcpStream) -> Then + Send + Sync + 'static) -> (Outcome, u64) {
    let server = Server::start(move |_, stream| answer(stream));
    let mut engine = http(vec![scenario(vec![get("/")])]);
    engine.timeout = timeout;
    let grace = Duration::from_secs(20);
    let outcome = run(job(plan(
        &server.url(),
        engine,
        vec![phase("p", iterations(1, 1), grace)],
    )));
    (outcome, server.requests())
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// What is sent before the connection is closed, and the kind it counts as; `""`: it is a response.
fn table() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let many = (0..200).map(|index| format!("x-{index}: y\r\n")).collect::<String>();
    vec![
        ("nothing", bytes(&[]), "closedEarly"),
        ("half a status line", bytes(&[b"HTTP/1.1 20"]), "closedEarly"),
        (
            "no end of the head",
            bytes(&[b"HTTP/1.1 200 OK\r\nA: b\r\n"]),
            "closedEarly",
        ),
        ("garbage", bytes(&[b"SSH-2.0-OpenSSH_9.2\r\n"]), "badResponse"),
        (
            "another protocol's version",
            bytes(&[b"HTTP/2.0 200 OK\r\n\r\n"]),
            "badResponse",
        ),
        (
            "a status that is no number",
            bytes(&[b"HTTP/1.1 abc OK\r\n\r\n"]),
            "badResponse",
        ),
        (
            "a header without a name",
            bytes(&[b"HTTP/1.1 200 OK\r\n: x\r\n\r\n"]),
            "badResponse",
        ),
        (
            "a negative length",
            bytes(&[b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"]),
            "badResponse",
        ),
        (
            "a length beyond numbers",
            bytes(&[b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"]),
            "badResponse",
        ),
        (
            "two lengths",
            bytes(&[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"]),
            "badResponse",
        ),
        (
            "an unknown coding",
            bytes(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab"]),
            "badResponse",
        ),
        (
            "a body cut short",
            bytes(&[b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"]),
            "closedEarly",
        ),
        (
            "chunks cut short",
            bytes(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"]),
            "closedEarly",
        ),
        (
            "a wrong chunk size",
            bytes(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab"]),
            "badChunk",
        ),
        (
            "a chunk longer than its size",
            bytes(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"]),
            "badChunk",
        ),
        (
            "a chunk of an exabyte",
            bytes(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n"]),
            "badChunk",
        ),
        (
            "too many headers",
            bytes(&[b"HTTP/1.1 200 OK\r\n", many.as_bytes(), b"\r\n"]),
            "headersTooLarge",
        ),
        (
            "a head without end",
            bytes(&[b"HTTP/1.1 200 OK\r\na: ", &vec![b'x'; 100_000]]),
            "headersTooLarge",
        ),
        (
            "a protocol switch",
            bytes(&[b"HTTP/1.1 101 Switching Protocols\r\n\r\n"]),
            "badResponse",
        ),
        (
            "hints without end",
            b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100),
            "badResponse",
        ),
        (
            "a continue, then a response",
            bytes(&[b"HTTP/1.1 100 Continue\r\n\r\n", OK]),
            "",
        ),
        ("a body until close", bytes(&[b"HTTP/1.0 200 OK\r\n\r\nall of it"]), ""),
        ("more than the response", bytes(&[OK, b"and more"]), ""),
        (
            "204 with a length",
            bytes(&[b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"]),
            "",
        ),
        (
            "bare line feeds",
            bytes(&[b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"]),
            "",
        ),
    ]
}

#[test]
fn each_broken_answer_is_an_error_of_its_kind() {
    for (name, answer, kind) in table() {
        // At once, and byte by byte: where the pieces are cut must not matter.
        for piece in [usize::MAX, 1] {
            if piece == 1 && answer.len() > 3_000 {
                continue;
            }
            let answer = answer.clone();
            let (outcome, requests) = play(Duration::from_secs(15), move |stream| {
                for part in answer.chunks(piece.min(answer.len().max(1))) {
                    if stream.write_all(part).is_err() {
                        break;
                    }
                }
                Then::Close
            });
            let stats = outcome.of("p", "get");
            let expected = if kind.is_empty() {
                vec![]
            } else {
                vec![(kind.to_owned(), 1)]
            };
            assert_eq!(outcome.errors(), expected, "{name}, pieces of {piece}");
            assert_eq!(
                (stats.requests, stats.failed),
                (1, u64::from(!kind.is_empty())),
                "{name}"
            );
            assert_eq!(requests, 1, "{name}");
        }
    }
}

#[test]
fn what_never_ends_is_cut_at_the_timeout() {
    let timeout = Duration::from_millis(300);
    let endless: [(&str, &[u8], &[u8]); 4] = [
        ("silence", b"", b""),
        ("a head that drips", b"HTTP/1.1 200 OK\r\nA: ", b"x"),
        (
            "a body that drips",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
            b"x",
        ),
        (
            "chunks without end",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
        ),
    ];
    for (name, first, then) in endless {
        let (outcome, _) = play(timeout, move |stream| {
            let _ = stream.write_all(first);
            while stream.write_all(then).is_ok() && !hung_up(stream, Duration::from_millis(5)) {}
            Then::Close
        });
        assert_eq!(outcome.errors(), [("timeout".to_owned(), 1)], "{name}");
        let slowest = outcome.of("p", "get").duration.and_then(|histogram| histogram.max_ns());
        assert!(
            slowest.is_some_and(|slowest| slowest >= 290_000_000),
            "{name} {slowest:?}"
        );
    }
}

/// Waits for the other side to hang up, for at most so long.
fn hung_up(stream: &mut TcpStream, wait: Duration) -> bool {
    use std::io::{ErrorKind, Read};
    stream.set_read_timeout(Some(wait)).expect("a timeout above zero");
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn a_huge_body_is_counted_and_only_its_beginning_is_kept() {
    let size = 20_000_000;
    let server = Server::start(move |_, stream| {
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes());
        let _ = stream.write_all(&vec![b'x'; size]);
        Then::KeepOpen
    });
    let mut asks = get("/");
    asks.checks = vec![Check::BodyContains("xxx".to_owned())];
    let engine = http(vec![scenario(vec![asks, get("/")])]);
    let outcome = run(job(plan(
        &server.url(),
        engine,
        vec![phase("p", iterations(1, 1), Duration::ZERO)],
    )));
    let stats = outcome.of("p", "get");
    assert!(stats.data_received > 2 * size as u64);
    assert_eq!((stats.requests, stats.failed), (2, 0));
    assert_eq!(outcome.errors(), [("bodyTooLarge".to_owned(), 1)]);
    assert_eq!(stats.checks.values().copied().collect::<Vec<_>>(), [(1, 0)]);
}

#[test]
fn nobody_listening_is_an_error_for_each_request() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("a bound socket");
    let engine = http(vec![scenario(vec![get("/")])]);
    let outcome = run(job(plan(
        &format!("http://{closed}"),
        engine,
        vec![phase("p", iterations(2, 3), Duration::ZERO)],
    )));
    assert_eq!(outcome.errors(), [("connect".to_owned(), 6)]);
    assert_eq!(outcome.of("p", "get").failed, 6);
    assert_eq!(outcome.of("p", "").iterations, 6);
}

#[test]
fn an_answer_before_the_request_was_read_counts() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(&response(200, &[], "read"));
        Then::KeepOpen
    });
    let early = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = early.local_addr().expect("a bound socket");
    std::thread::spawn(move || {
        let (mut stream, _) = early.accept().expect("a connection");
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        while !hung_up(&mut stream, Duration::from_millis(50)) {}
    });
    drop(server);
    let mut upload = crate::support::request("upload", muster_core::model::load::Method::Post, "/");
    upload.body = muster_core::model::load::Body::Inline(crate::support::template(&"x".repeat(30_000_000)));
    let engine = http(vec![scenario(vec![upload])]);
    let outcome = run(job(plan(
        &format!("http://{address}"),
        engine,
        vec![phase("p", iterations(1, 1), Duration::ZERO)],
    )));
    assert_eq!(
        outcome.of("p", "upload").statuses.keys().copied().collect::<Vec<_>>(),
        [413]
    );
}
