//! What goes over the wire: connections, retries, redirects, cookies, variables, captures, checks, TLS, and where requests may not go.

use crate::support::{
    OK, Received, Server, Then, get, http, iterations, job, phase, plan, request, response, run, scenario, template,
};
use muster_core::model::id::Digest;
use muster_core::model::load::{
    Body, Capture, CaptureFrom, Check, DataFile, HttpEngine, LoadPlan, Method, RepoFile, Request, Think,
};
use muster_load::{EngineError, PrepareError, prepare};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

fn once(url: &str, engine: HttpEngine) -> LoadPlan {
    plan(url, engine, vec![phase("p", iterations(1, 1), Duration::ZERO)])
}

fn requests(list: Vec<Request>) -> HttpEngine {
    http(vec![scenario(list)])
}

/// Runs one iteration of these requests; what the server saw.
fn play(server: &Server, list: Vec<Request>) -> (crate::support::Outcome, Vec<Received>) {
    let outcome = run(job(once(&server.url(), requests(list))));
    (outcome, server.seen())
}

#[test]
fn a_request_says_who_it_is_for_and_nothing_twice() {
    let server = Server::ok();
    let mut post = request("post", Method::Post, "/a?b=c d");
    post.headers = vec![
        ("Content-Type".to_owned(), template("application/json")),
        ("X-A".to_owned(), template("1")),
    ];
    post.body = Body::Inline(template("{\"a\": 1}"));
    let (_, seen) = play(&server, vec![post]);
    assert_eq!(seen[0].line, "POST /a?b=c%20d HTTP/1.1");
    assert_eq!(seen[0].header("host"), Some(server.address.to_string().as_str()));
    assert_eq!(seen[0].header("content-length"), Some("8"));
    assert_eq!(seen[0].header("x-a"), Some("1"));
    assert_eq!(seen[0].header("accept-encoding"), None);
    assert_eq!(seen[0].body, b"{\"a\": 1}");
}

#[test]
fn connections_are_kept_or_not_as_the_plan_says() {
    for (keep_alive, connections) in [(true, 2), (false, 10)] {
        let server = Server::ok();
        let mut engine = requests(vec![get("/")]);
        engine.options.keep_alive = keep_alive;
        run(job(plan(
            &server.url(),
            engine,
            vec![phase("p", iterations(2, 5), Duration::ZERO)],
        )));
        assert_eq!(server.connections(), connections);
        let close = server
            .seen()
            .iter()
            .filter(|seen| seen.header("connection") == Some("close"))
            .count();
        assert_eq!(close, if keep_alive { 0 } else { 10 });
    }
}

#[test]
fn a_server_that_closes_after_each_answer_costs_connections_and_no_error() {
    for said in ["Connection: close", "X-Nothing: said"] {
        let server = Server::start(move |_, stream| {
            let _ = stream.write_all(&response(200, &[said], "ok"));
            Then::Close
        });
        let (outcome, seen) = play(&server, vec![get("/"), get("/"), get("/")]);
        assert_eq!((outcome.errors(), seen.len() as u64), (vec![], 3), "{said}");
        assert_eq!(server.connections(), 3);
    }
}

#[test]
fn s59_only_what_may_be_repeated_is_sent_again_and_only_on_a_reused_connection() {
    // The second request on a connection is read and then answered by closing.
    let dies = || {
        Server::start(|received, stream| {
            if received.nth == 1 {
                return Then::Close;
            }
            let _ = stream.write_all(OK);
            Then::KeepOpen
        })
    };
    for (method, sent, failed) in [
        (Method::Get, 3, 0),
        (Method::Delete, 3, 0),
        (Method::Post, 2, 1),
        (Method::Patch, 2, 1),
    ] {
        let server = dies();
        let (outcome, seen) = play(&server, vec![get("/"), request("again", method, "/x")]);
        assert_eq!(seen.len(), sent, "{method:?}");
        let stats = outcome.of("p", "again");
        assert_eq!((stats.requests, stats.failed), (1, failed), "{method:?}");
    }
    let server = Server::start(|_, _| Then::Close);
    let (outcome, seen) = play(&server, vec![get("/")]);
    assert_eq!((outcome.errors(), seen.len()), (vec![("closedEarly".to_owned(), 1)], 1));
    // Once a byte of the answer came, it is not asked for again.
    let server = Server::start(|received, stream| {
        let _ = stream.write_all(if received.nth == 1 { b"H" } else { OK });
        if received.nth == 1 { Then::Close } else { Then::KeepOpen }
    });
    let (outcome, seen) = play(&server, vec![get("/"), get("/")]);
    assert_eq!((outcome.errors(), seen.len()), (vec![("closedEarly".to_owned(), 1)], 2));
}

#[test]
fn redirects_are_followed_by_gos_rules() {
    for (status, method, lines) in [
        (302, Method::Post, ["POST /from HTTP/1.1", "GET /to HTTP/1.1"]),
        (303, Method::Put, ["PUT /from HTTP/1.1", "GET /to HTTP/1.1"]),
        (301, Method::Head, ["HEAD /from HTTP/1.1", "HEAD /to HTTP/1.1"]),
        (307, Method::Post, ["POST /from HTTP/1.1", "POST /to HTTP/1.1"]),
        (308, Method::Delete, ["DELETE /from HTTP/1.1", "DELETE /to HTTP/1.1"]),
    ] {
        let server = Server::start(move |received, stream| {
            let head = received.line.starts_with("HEAD");
            let answer = match received.path() {
                "/from" => response(status, &["Location: /to"], ""),
                _ if head => b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_vec(),
                _ => OK.to_vec(),
            };
            let _ = stream.write_all(&answer);
            Then::KeepOpen
        });
        let mut from = request("r", method, "/from");
        from.body = if method == Method::Post {
            Body::Inline(template("body"))
        } else {
            Body::Empty
        };
        let (outcome, seen) = play(&server, vec![from]);
        let seen_lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
        assert_eq!(seen_lines, lines);
        let expected_body: &[u8] = if status == 307 { b"body" } else { b"" };
        assert_eq!(seen[1].body, expected_body);
        // Each message counts, as in k6 and in the server's log.
        assert_eq!((outcome.of("p", "r").requests, outcome.of("p", "r").failed), (2, 0));
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn redirects_end() {
    let server = Server::start(|received, stream| {
        let answer = match received.path() {
            "/loop" => response(302, &["Location: /loop"], ""),
            _ => response(302, &["Location: ftp://x"], ""),
        };
        let _ = stream.write_all(&answer);
        Then::KeepOpen
    });
    let (outcome, seen) = play(&server, vec![get("/loop")]);
    assert_eq!(
        (outcome.errors(), seen.len()),
        (vec![("tooManyRedirects".to_owned(), 1)], 6)
    );
    assert_eq!(outcome.of("p", "get").failed, 0);
    let (outcome, _) = play(&server, vec![get("/bad")]);
    assert_eq!(outcome.errors(), [("badRedirect".to_owned(), 1)]);
    assert_eq!(outcome.of("p", "get").failed, 1);
    let mut engine = requests(vec![get("/loop")]);
    engine.options.follow_redirects = 0;
    let outcome = run(job(once(&server.url(), engine)));
    assert_eq!((outcome.errors(), outcome.requests()), (vec![], 1));
}

#[test]
fn s60_no_byte_leaves_for_a_host_that_is_not_allowed() {
    // 127.0.0.2 is this machine too, and not in the list.
    let denied = std::net::TcpListener::bind("127.0.0.2:0").expect("a free port");
    let address = denied.local_addr().expect("a bound socket");
    let elsewhere = format!("http://{address}/");
    let location = format!("Location: {elsewhere}");
    let body = format!("{{\"next\": \"{elsewhere}\"}}");
    let server = Server::start(move |received, stream| {
        let answer = match received.path() {
            "/redirect" => response(302, &[&location], ""),
            _ => response(200, &[], &body),
        };
        let _ = stream.write_all(&answer);
        Then::KeepOpen
    });
    let (outcome, _) = play(&server, vec![get("/redirect")]);
    assert_eq!(outcome.errors(), [("targetDenied".to_owned(), 1)]);
    let mut captured = get("/");
    captured.captures = vec![Capture {
        name: "next".to_owned(),
        from: CaptureFrom::Json("/next".to_owned()),
    }];
    let (outcome, _) = play(&server, vec![captured, request("follow", Method::Get, "{{next}}")]);
    assert_eq!(outcome.errors(), [("targetDenied".to_owned(), 1)]);
    let refused = prepare(job(once(&elsewhere, requests(vec![get("/")]))));
    assert!(matches!(refused, Err(PrepareError::Engine(EngineError::Target(_)))));
    denied.set_nonblocking(true).expect("a socket");
    assert!(denied.accept().is_err(), "nobody connected");
}

#[test]
fn cookies_live_for_an_iteration() {
    let server = Server::start(|received, stream| {
        let answer = match received.path() {
            "/login" => response(
                302,
                &[
                    "Location: /home",
                    "Set-Cookie: s=1; Path=/",
                    "Set-Cookie: deep=2; Path=/deep",
                ],
                "",
            ),
            _ => OK.to_vec(),
        };
        let _ = stream.write_all(&answer);
        Then::KeepOpen
    });
    let engine = requests(vec![get("/login"), get("/deep/x")]);
    run(job(plan(
        &server.url(),
        engine,
        vec![phase("p", iterations(1, 2), Duration::ZERO)],
    )));
    let cookies: Vec<(String, Option<String>)> = server
        .seen()
        .iter()
        .map(|seen| (seen.path().to_owned(), seen.header("cookie").map(str::to_owned)))
        .collect();
    let one = [
        ("/login", None),
        ("/home", Some("s=1")),
        ("/deep/x", Some("deep=2; s=1")),
    ];
    let expected: Vec<(String, Option<String>)> = one
        .iter()
        .chain(&one)
        .map(|(path, cookie)| ((*path).to_owned(), cookie.map(str::to_owned)))
        .collect();
    assert_eq!(cookies, expected);
}

fn capturing(from: CaptureFrom) -> Request {
    let mut first = get("/first");
    first.captures = vec![Capture {
        name: "value".to_owned(),
        from,
    }];
    first
}

#[test]
fn captured_values_go_into_later_requests() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(&response(
            200,
            &["X-Trace: t 1"],
            "{\"data\": {\"token\": \"a/b\"}, \"id\": 42}",
        ));
        Then::KeepOpen
    });
    for (from, expected) in [
        (CaptureFrom::Json("/data/token".to_owned()), "a/b"),
        (CaptureFrom::Header("x-TRACE".to_owned()), "t%201"),
        (CaptureFrom::Regex("\"id\": (\\d+)".to_owned()), "42"),
    ] {
        let mut second = request("second", Method::Post, "/second/{{value}}");
        second.headers = vec![("Authorization".to_owned(), template("Bearer {{value}}"))];
        second.body = Body::Inline(template("<{{value}}>"));
        let (outcome, seen) = play(&server, vec![capturing(from), second]);
        assert_eq!(outcome.errors(), vec![]);
        let last = seen.last().expect("two requests");
        assert_eq!(last.path(), format!("/second/{expected}"));
        let plain = expected.replace("%20", " ");
        assert_eq!(last.header("authorization"), Some(format!("Bearer {plain}").as_str()));
        assert_eq!(last.body, format!("<{plain}>").as_bytes());
    }
}

#[test]
fn a_missing_capture_ends_the_iteration_and_a_captured_line_break_sends_nothing() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(&response(200, &[], "{\"evil\": \"x\\r\\nX-Injected: 1\"}"));
        Then::KeepOpen
    });
    let (outcome, seen) = play(
        &server,
        vec![capturing(CaptureFrom::Json("/none".to_owned())), get("/second")],
    );
    assert_eq!(
        (outcome.errors(), seen.len()),
        (vec![("captureMissing".to_owned(), 1)], 1)
    );
    assert_eq!((outcome.of("p", "").iterations, outcome.of("p", "get").failed), (1, 0));
    let mut second = get("/second");
    second.headers = vec![("X-Value".to_owned(), template("{{value}}"))];
    let (outcome, seen) = play(&server, vec![capturing(CaptureFrom::Json("/evil".to_owned())), second]);
    assert_eq!(outcome.errors(), [("badRequest".to_owned(), 1)]);
    assert!(seen.iter().all(|seen| seen.header("x-injected").is_none()));
}

#[test]
fn checks_are_counted_and_fail_nothing() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(&response(404, &[], "{\"ok\": true}"));
        Then::KeepOpen
    });
    let mut checked = get("/");
    checked.expect_status = vec![404];
    checked.checks = vec![
        Check::Status(vec![200]),
        Check::Json {
            pointer: "/ok".to_owned(),
            equals: serde_json::Value::Bool(true),
        },
    ];
    let (outcome, _) = play(&server, vec![checked, get("/other")]);
    let stats = outcome.of("p", "get");
    assert_eq!(stats.checks.get("status is 200"), Some(&(0, 1)));
    assert_eq!(stats.checks.get("/ok is true"), Some(&(1, 0)));
    // The first expected its 404, the second did not.
    assert_eq!((stats.requests, stats.failed), (2, 1));
    assert_eq!(outcome.errors(), [("status".to_owned(), 1)]);
}

#[test]
fn rows_are_shared_by_the_users_in_order_and_go_around() {
    let server = Server::ok();
    let csv: &[u8] = b"name,query\nann,a b\nbob,c\n";
    let file = RepoFile {
        path: "users.csv".to_owned(),
        digest: Digest::of(csv),
    };
    let engine = requests(vec![get("/{{users.name}}?q={{users.query}}")]);
    let mut plan = plan(
        &server.url(),
        engine,
        vec![phase("p", iterations(1, 3), Duration::ZERO)],
    );
    plan.data = vec![DataFile {
        name: "users".to_owned(),
        columns: vec!["name".to_owned(), "query".to_owned()],
        rows: 2,
        mode: muster_core::model::load::DataMode::Copy,
        file: file.clone(),
    }];
    let mut with_file = job(plan.clone());
    with_file.files.insert(file.digest.as_str().to_owned(), Arc::from(csv));
    run(with_file);
    let paths: Vec<String> = server.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/ann?q=a%20b", "/bob?q=c", "/ann?q=a%20b"]);
    assert!(matches!(
        prepare(job(plan)),
        Err(PrepareError::Engine(EngineError::File(_)))
    ));
}

#[test]
fn users_are_spread_over_base_urls_and_weights_over_scenarios() {
    let servers = [Server::ok(), Server::ok()];
    let mut often = scenario(vec![get("/often")]);
    (often.name, often.weight) = ("often".to_owned(), 9);
    let mut plan = plan(
        "",
        http(vec![often, scenario(vec![get("/rarely")])]),
        vec![phase("p", iterations(4, 100), Duration::ZERO)],
    );
    plan.base_urls = servers.iter().map(Server::url).collect();
    let outcome = run(job(plan));
    assert_eq!(servers.each_ref().map(Server::requests), [200, 200]);
    let rarely = outcome
        .all
        .iter()
        .find(|(key, _)| key.scenario == "default" && key.name == "get");
    let rarely = rarely.map_or(0, |(_, stats)| stats.requests);
    assert_eq!(rarely, 40, "the exact mix");
}

#[test]
fn think_time_is_part_of_the_iteration_and_not_of_the_request() {
    let server = Server::ok();
    let mut thinking = get("/");
    thinking.think = Some(Think {
        min: Duration::from_millis(50),
        max: Duration::from_millis(60),
    });
    let (outcome, _) = play(&server, vec![thinking.clone(), thinking]);
    let iteration = outcome
        .of("p", "")
        .iteration_duration
        .and_then(|histogram| histogram.min_ns());
    assert!(iteration.is_some_and(|took| took >= 100_000_000), "{iteration:?}");
    let request = outcome.of("p", "get").duration.and_then(|histogram| histogram.min_ns());
    assert!(request.is_some_and(|took| took < 50_000_000), "{request:?}");
}
