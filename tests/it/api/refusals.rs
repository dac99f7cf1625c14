//! What the API refuses: always a JSON error with a code, a message and a hint.

use super::{World, ready_units, refused};
use serde_json::json;

const JSON: &str = "content-type: application/json";
const HOST: &str = "host: localhost";

#[test]
fn what_is_not_there_is_said() {
    let world = World::new();
    let daemon = world.serve("");
    ready_units(&daemon, 2);
    let unknown = "0199a000-0000-7000-8000-000000000009";
    for (path, status, code, words) in [
        ("/api/v1/nothing".to_owned(), 404, "NotFound", "/api/v1/nothing"),
        (format!("/api/v1/runs/{unknown}"), 404, "NotFound", "muster get runs"),
        (format!("/api/v1/runs/{unknown}/live"), 404, "NotFound", unknown),
        (format!("/api/v1/runs/{unknown}/report"), 404, "NotFound", unknown),
        ("/api/v1/runs/abc".to_owned(), 400, "BadRequest", "too short"),
        ("/api/v1/runs/abcd".to_owned(), 404, "NotFound", "abcd"),
        (
            "/api/v1/runs/0199a000-0000-7000-8000-00000000000g".to_owned(),
            400,
            "BadRequest",
            "not a run's id",
        ),
        ("/api/v1/runs?limt=3".to_owned(), 400, "BadRequest", "limt"),
        ("/api/v1/runs?limit=-1".to_owned(), 400, "BadRequest", "limit"),
        ("/api/v1/runs?plan=Hello".to_owned(), 400, "BadRequest", "Hello"),
        (
            "/api/v1/events?waitSeconds=soon".to_owned(),
            400,
            "BadRequest",
            "waitSeconds",
        ),
        ("/api/v1/events?since=3".to_owned(), 400, "BadRequest", "since"),
        ("/api/v1/resources?kind=Sevice".to_owned(), 400, "BadRequest", "Service"),
        ("/api/v1/resources?knd=Service".to_owned(), 400, "BadRequest", "knd"),
        (
            "/api/v1/resources/default/Service/none".to_owned(),
            404,
            "NotFound",
            "default/Service/none",
        ),
        (
            "/api/v1/resources/default/Service/No%20Name".to_owned(),
            400,
            "BadRequest",
            "",
        ),
        (
            "/api/v1/resources/default/Service/%ff".to_owned(),
            400,
            "BadRequest",
            "",
        ),
        (
            "/api/v1/units/default.service.none.0/logs".to_owned(),
            404,
            "NotFound",
            "muster get units",
        ),
        (
            "/api/v1/units/none/logs?bytes=many".to_owned(),
            400,
            "BadRequest",
            "bytes",
        ),
        ("/api/v1/units/No!/logs".to_owned(), 400, "BadRequest", "not a unit"),
    ] {
        refused(&daemon.send("GET", &path, &[HOST], ""), status, code, words);
    }
    for (path, body, status, code, words) in [
        (
            "/api/v1/runs",
            json!({"plan": "none"}),
            404,
            "NotFound",
            "muster get plans",
        ),
        ("/api/v1/runs", json!({"plan": "No!"}), 400, "BadRequest", "No!"),
        (
            "/api/v1/runs",
            json!({"plan": "hello", "id": "7"}),
            400,
            "BadRequest",
            "id",
        ),
        (
            "/api/v1/runs",
            json!({"plan": "hello", "scale": 2.0}),
            400,
            "BadRequest",
            "scale",
        ),
        (
            "/api/v1/runs",
            json!({"plan": "hello", "sclae": 1}),
            400,
            "BadRequest",
            "sclae",
        ),
        ("/api/v1/runs", json!({}), 400, "BadRequest", "plan"),
        (
            "/api/v1/runs/0199a000-0000-7000-8000-000000000009/stop",
            json!({}),
            404,
            "NotFound",
            "no run",
        ),
        (
            "/api/v1/runs/0199a000-0000-7000-8000-000000000009/rerun",
            json!({}),
            404,
            "NotFound",
            "no run",
        ),
        (
            "/api/v1/reconcile",
            json!({"resource": "nonsense"}),
            400,
            "BadRequest",
            "resource",
        ),
        (
            "/api/v1/plans/default/none/suspend",
            json!({"reason": "x"}),
            404,
            "NotFound",
            "none",
        ),
        (
            "/api/v1/plans/default/hello/suspend",
            json!({"reason": " "}),
            400,
            "BadRequest",
            "reason",
        ),
        (
            "/api/v1/plans/default/hello/suspend",
            json!({"reason": "x", "until": "soon"}),
            400,
            "BadRequest",
            "until",
        ),
        ("/api/v1/plans/default/none/resume", json!({}), 404, "NotFound", "none"),
        ("/api/v1/deletions/zz/approve", json!({}), 400, "BadRequest", "zz"),
    ] {
        refused(&daemon.post(path, &body), status, code, words);
    }
    let head = world.repo.git(&["rev-parse", "HEAD"]);
    let answer = daemon.post(&format!("/api/v1/deletions/{head}/approve"), &json!({}));
    refused(&answer, 409, "NothingRefused", "muster diff");
}

#[test]
fn what_is_not_json_or_too_large_or_of_another_method_is_said() {
    let world = World::new();
    let daemon = world.serve("");
    let runs = "/api/v1/runs";
    refused(
        &daemon.send("POST", runs, &[HOST, JSON], "{\"plan\": "),
        400,
        "BadRequest",
        "line 1",
    );
    refused(&daemon.send("POST", runs, &[HOST, JSON], "[1]"), 400, "BadRequest", "");
    refused(&daemon.send("POST", runs, &[HOST, JSON], ""), 400, "BadRequest", "");
    let large = format!("{{\"plan\": \"{}\"}}", "x".repeat(70 << 10));
    refused(
        &daemon.send("POST", runs, &[HOST, JSON], &large),
        413,
        "TooLarge",
        "65536 bytes",
    );
    refused(
        &daemon.send("POST", runs, &[HOST], "{}"),
        403,
        "Forbidden",
        "application/json",
    );
    for (method, path) in [
        ("DELETE", runs),
        ("PUT", runs),
        ("POST", "/livez"),
        ("GET", "/api/v1/reconcile"),
    ] {
        refused(
            &daemon.send(method, path, &[HOST, JSON], "{}"),
            405,
            "MethodNotAllowed",
            method,
        );
    }
}

/// A page whose name was made to resolve to 127.0.0.1 reaches the port, but not the API.
#[test]
fn another_hosts_name_is_refused_on_every_path() {
    let world = World::new();
    let daemon = world.serve("");
    for path in ["/api/v1/runs", "/api/v1/version", "/metrics", "/livez", "/readyz"] {
        for host in [&["host: evil.example.com"][..], &["host: 127.0.0.1.evil.com:80"], &[]] {
            refused(&daemon.send("GET", path, host, ""), 403, "Forbidden", "own names");
        }
        for host in ["host: 127.0.0.1", "host: localhost:1", "host: [::1]:8420"] {
            assert_eq!(daemon.send("GET", path, &[host], "").0, 200, "{path} {host}");
        }
    }
}
