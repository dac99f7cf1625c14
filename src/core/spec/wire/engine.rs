//! Engines as written: `http` with its scenarios, and `synthetic`.

use super::scalar::{Percent, Span};
use super::union::{tagged_union, text_or_object, word_enum};
use super::wire;
use std::collections::BTreeMap;

tagged_union! {
    /// What makes an iteration.
    pub enum Engine by "type" {
        "http" => Http(HttpEngine),
        "synthetic" => Synthetic(SyntheticEngine),
    }
    refused: ["k6", "locust", "jmeter", "command"];
}

word_enum! {
    /// The HTTP version spoken.
    pub enum HttpVersion {
        "1.1" => Http11,
    }
    refused: ["2"];
}

text_or_object! {
    /// A pause after a request: `1s`, or drawn evenly between `min` and `max`.
    pub enum Think { Text(Span), Object(ThinkRange) }
}

wire! {
    /// The built-in HTTP/1.1 generator: `scenarios`, or `requests` for a single one.
    pub struct HttpEngine {
        /// Per request, from the first byte wanted to the last byte read. Default 60s.
        pub timeout: Option<Span>,
        /// How connections are used.
        pub http: Option<HttpOptions>,
        /// The requests of the only scenario, `default`.
        #[schemars(length(min = 1, max = 1_000))]
        pub requests: Option<Vec<Request>>,
        /// Kinds of iterations, chosen by weight.
        #[schemars(length(min = 1, max = 1_000))]
        pub scenarios: Option<Vec<Scenario>>,
    }

    /// How connections are used.
    pub struct HttpOptions {
        /// "1.1".
        pub version: Option<HttpVersion>,
        /// Whether a user keeps its connection between requests. Default true.
        pub keep_alive: Option<bool>,
        /// Connections a user holds at the same time. Default 1.
        #[serde(rename = "maxConnectionsPerVU")]
        #[schemars(range(min = 1, max = 100))]
        pub max_connections_per_vu: Option<u32>,
        /// Redirects followed before the response counts as it is; 0: none. Default 10.
        #[schemars(range(max = 100))]
        pub follow_redirects: Option<u32>,
        /// How the target's certificate is checked.
        pub tls: Option<TlsOptions>,
    }

    /// How the target's certificate is checked.
    pub struct TlsOptions {
        /// Accept any certificate. Default false.
        pub insecure_skip_verify: Option<bool>,
        /// PEM file in the repository with the only roots trusted.
        pub ca_file: Option<String>,
    }

    /// One kind of iteration: its requests in order.
    pub struct Scenario {
        /// Unique in the plan; the `scenario` tag.
        #[schemars(length(min = 1, max = 200))]
        pub name: String,
        /// How often it is chosen, relative to the others. Default 1.
        #[schemars(range(min = 1, max = 1_000_000))]
        pub weight: Option<u32>,
        /// In this order, one after another.
        #[schemars(length(min = 1, max = 1_000))]
        pub requests: Vec<Request>,
    }

    /// One request: exactly one of get, post, put, patch, delete, head, options. `{{name}}` in URL, headers and body is a data
    /// column (`users.name`) or an earlier capture.
    pub struct Request {
        /// Unique in its scenario; the `name` tag.
        #[schemars(length(min = 1, max = 200))]
        pub name: String,
        /// Path or URL; the host must be allowed.
        pub get: Option<String>,
        /// Path or URL; the host must be allowed.
        pub post: Option<String>,
        /// Path or URL; the host must be allowed.
        pub put: Option<String>,
        /// Path or URL; the host must be allowed.
        pub patch: Option<String>,
        /// Path or URL; the host must be allowed.
        pub delete: Option<String>,
        /// Path or URL; the host must be allowed.
        pub head: Option<String>,
        /// Path or URL; the host must be allowed.
        pub options: Option<String>,
        /// Headers.
        #[serde(default)]
        pub headers: BTreeMap<String, String>,
        /// The body.
        pub body: Option<String>,
        /// A file of the repository, sent as it is.
        pub body_file: Option<String>,
        /// Values taken from the response; a missing one ends the iteration, counted.
        #[serde(default)]
        pub capture: Vec<Capture>,
        /// k6 checks: counted, not failing.
        #[serde(default)]
        pub check: Vec<Check>,
        /// Statuses that count as success. Default: below 400.
        #[schemars(length(min = 1, max = 500), inner(range(min = 100, max = 599)))]
        pub expect_status: Option<Vec<u16>>,
        /// A pause after the request.
        pub think: Option<Think>,
    }

    /// A value taken from the response: exactly one of json, header, regex.
    pub struct Capture {
        /// `{{name}}` of later requests in the same iteration.
        #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$"), length(max = 200))]
        pub name: String,
        /// JSON pointer (RFC 6901) into the body.
        pub json: Option<String>,
        /// A header's value.
        #[schemars(length(min = 1, max = 200))]
        pub header: Option<String>,
        /// First group of a regular expression over the body.
        pub regex: Option<String>,
    }

    /// A k6 check: exactly one of status, json with equals, bodyContains, durationBelow.
    pub struct Check {
        /// The status is one of these.
        #[schemars(length(min = 1, max = 500), inner(range(min = 100, max = 599)))]
        pub status: Option<Vec<u16>>,
        /// A JSON pointer leads to the value of `equals`.
        pub json: Option<String>,
        /// What it must be.
        pub equals: Option<serde_json::Value>,
        /// The body holds this text.
        #[schemars(length(min = 1, max = 10_000))]
        pub body_contains: Option<String>,
        /// The request took less.
        pub duration_below: Option<Span>,
    }

    /// Drawn evenly between the two.
    pub struct ThinkRange {
        /// At least.
        pub min: Span,
        /// At most.
        pub max: Span,
    }

    /// Draws latencies from a log-normal distribution; touches no network.
    pub struct SyntheticEngine {
        /// Two points of the distribution.
        pub latency: Latency,
        /// Share of requests that fail. Default 0%.
        pub error_rate: Option<Percent>,
    }

    /// Two points of a log-normal distribution.
    pub struct Latency {
        /// Median.
        pub p50: Span,
        /// 99th percentile.
        pub p99: Span,
    }
}
