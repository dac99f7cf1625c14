//! The `http` and `synthetic` engines: requests whose variables exist, hosts that are allowed, expressions that compile.

use super::urls::authority;
use super::{Lower, at};
use crate::model::load::{
    Body, Capture, CaptureFrom, Check, DataFile, Engine, HttpEngine, HttpOptions, Method, Request, Scenario,
    SyntheticEngine, Template, TemplatePart, Think, TlsOptions,
};
use crate::spec::code::Code;
use crate::spec::hint::did_you_mean;
use crate::spec::template;
use crate::spec::tree::shown;
use crate::spec::wire::engine::{
    Capture as WireCapture, Check as WireCheck, Engine as WireEngine, HttpEngine as WireHttp,
    HttpOptions as WireOptions, Request as WireRequest, SyntheticEngine as WireSynthetic, Think as WireThink,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// k6's default per request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// k6's default of `maxRedirects`.
const REDIRECTS: u32 = 10;
/// The scenario of a plan with `requests` only.
const DEFAULT_SCENARIO: &str = "default";
/// A regular expression compiles to at most so many bytes; each worker thread holds one.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Lower<'_, '_> {
    /// Lowers an engine.
    pub(super) fn engine(&mut self, wire: &WireEngine, data: &[DataFile]) -> Option<Engine> {
        match wire {
            WireEngine::Http(http) => self.http_engine(http, data).map(Engine::Http),
            WireEngine::Synthetic(synthetic) => self.synthetic(synthetic).map(Engine::Synthetic),
        }
    }

    fn synthetic(&mut self, wire: &WireSynthetic) -> Option<SyntheticEngine> {
        let pointer = "/spec/engine/latency";
        let p50 = self.positive(&at(pointer, "p50"), Some(&wire.latency.p50), TIMEOUT);
        let p99 = self.positive(&at(pointer, "p99"), Some(&wire.latency.p99), TIMEOUT);
        if p99 < p50 {
            self.error(&at(pointer, "p99"), Code::OutOfRange, "`p99` is less than `p50`");
            return None;
        }
        Some(SyntheticEngine {
            p50,
            p99,
            error_rate: wire.error_rate.as_ref().map_or(0.0, |percent| percent.0),
        })
    }

    fn http_engine(&mut self, wire: &WireHttp, data: &[DataFile]) -> Option<HttpEngine> {
        let pointer = "/spec/engine";
        let timeout = self.positive(&at(pointer, "timeout"), wire.timeout.as_ref(), TIMEOUT);
        let options = self.http_options(wire.http.as_ref());
        let given = [
            ("requests", wire.requests.is_some()),
            ("scenarios", wire.scenarios.is_some()),
        ];
        if !self.exactly_one(pointer, &given) {
            return None;
        }
        let mut scenarios = Vec::new();
        if let Some(requests) = &wire.requests {
            let requests = self.requests(&at(pointer, "requests"), requests, data);
            scenarios.push(Scenario {
                name: DEFAULT_SCENARIO.to_owned(),
                weight: 1,
                requests,
            });
        }
        let list = at(pointer, "scenarios");
        let written = wire.scenarios.as_deref().unwrap_or_default();
        self.unique(&list, "scenario", written.iter().map(|scenario| scenario.name.as_str()));
        for (index, scenario) in written.iter().enumerate() {
            let requests = self.requests(&at(&at(&list, index), "requests"), &scenario.requests, data);
            scenarios.push(Scenario {
                name: scenario.name.clone(),
                weight: scenario.weight.unwrap_or(1),
                requests,
            });
        }
        Some(HttpEngine {
            timeout,
            options,
            scenarios,
        })
    }

    fn http_options(&mut self, wire: Option<&WireOptions>) -> HttpOptions {
        let tls = wire.and_then(|options| options.tls.as_ref());
        let ca_file = tls.and_then(|tls| tls.ca_file.as_ref());
        HttpOptions {
            keep_alive: wire.and_then(|options| options.keep_alive).unwrap_or(true),
            max_connections_per_vu: wire.and_then(|options| options.max_connections_per_vu).unwrap_or(1),
            follow_redirects: wire.and_then(|options| options.follow_redirects).unwrap_or(REDIRECTS),
            tls: TlsOptions {
                insecure_skip_verify: tls.and_then(|tls| tls.insecure_skip_verify).unwrap_or(false),
                ca_file: ca_file.and_then(|path| self.file("/spec/engine/http/tls/caFile", path)),
            },
        }
    }

    fn requests(&mut self, pointer: &str, wire: &[WireRequest], data: &[DataFile]) -> Vec<Request> {
        self.unique(pointer, "request", wire.iter().map(|request| request.name.as_str()));
        let columns = data
            .iter()
            .flat_map(|file| file.columns.iter().map(|column| format!("{}.{column}", file.name)));
        let mut known: BTreeSet<String> = columns.collect();
        let mut requests = Vec::new();
        for (index, request) in wire.iter().enumerate() {
            requests.extend(self.request(&at(pointer, index), request, &known));
            // A request's own captures are there for those behind it.
            known.extend(request.capture.iter().map(|capture| capture.name.clone()));
        }
        requests
    }

    fn request(&mut self, pointer: &str, wire: &WireRequest, known: &BTreeSet<String>) -> Option<Request> {
        let methods = [
            ("get", Method::Get, &wire.get),
            ("post", Method::Post, &wire.post),
            ("put", Method::Put, &wire.put),
            ("patch", Method::Patch, &wire.patch),
            ("delete", Method::Delete, &wire.delete),
            ("head", Method::Head, &wire.head),
            ("options", Method::Options, &wire.options),
        ];
        let one = self.exactly_one(pointer, &methods.map(|(name, _, url)| (name, url.is_some())));
        let headers = at(pointer, "headers");
        let headers = wire
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), self.header(&headers, name, value, known)))
            .collect();
        let body = self.body(pointer, wire, known);
        let captures = wire
            .capture
            .iter()
            .enumerate()
            .filter_map(|(index, capture)| self.capture(&at(&at(pointer, "capture"), index), capture));
        let captures = captures.collect();
        let checks = wire
            .check
            .iter()
            .enumerate()
            .filter_map(|(index, check)| self.check(&at(&at(pointer, "check"), index), check));
        let checks = checks.collect();
        let think = wire
            .think
            .as_ref()
            .map(|think| self.think(&at(pointer, "think"), think));
        let (name, method, url) = methods.into_iter().find(|(_, _, url)| url.is_some()).filter(|_| one)?;
        let url = self.request_url(&at(pointer, name), url.as_deref()?, known);
        Some(Request {
            name: wire.name.clone(),
            method,
            url,
            headers,
            body,
            captures,
            checks,
            expect_status: wire.expect_status.clone().unwrap_or_default(),
            think,
        })
    }

    fn template(&mut self, pointer: &str, text: &str, known: &BTreeSet<String>) -> Template {
        let template = template::parse(text).unwrap_or_else(|cause| {
            self.error(pointer, Code::BadTemplate, cause);
            Template::default()
        });
        for part in &template.parts {
            if let TemplatePart::Variable(name) = part
                && !known.contains(name)
            {
                let text = format!("nothing before this request sets `{{{{{}}}}}`", shown(name));
                let hint =
                    did_you_mean(name, known.iter().map(String::as_str)).unwrap_or_else(|| match known.is_empty() {
                        true => {
                            "a variable is a data column (`users.name`) or captured by an earlier request".to_owned()
                        }
                        false => format!(
                            "known here: {}",
                            known.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
                        ),
                    });
                self.error_hint(pointer, Code::UndefinedVariable, text, hint);
            }
        }
        template
    }

    fn request_url(&mut self, pointer: &str, text: &str, known: &BTreeSet<String>) -> Template {
        let template = self.template(pointer, text, known);
        match template.parts.first() {
            // Checked when it is known: each request's host is checked again before it leaves.
            Some(TemplatePart::Variable(_)) => {}
            Some(TemplatePart::Text(start)) if start.starts_with('/') && !start.starts_with("//") => {
                let blank = |char: char| char.is_control() || char == ' ';
                let path = template.as_static().filter(|path| path.contains(blank));
                if let Some(path) = path {
                    let text = format!("`{}` is not a path: it holds blanks", shown(path));
                    self.error(pointer, Code::BadUrl, text);
                }
            }
            Some(TemplatePart::Text(start)) if template.parts.len() == 1 => self.url(pointer, start),
            Some(TemplatePart::Text(start)) => {
                let rest = start.split_once("://").map(|(_, rest)| rest);
                match rest {
                    Some(rest) if rest.contains('/') => self.url(pointer, start),
                    // The host itself holds a variable.
                    Some(_) if start.starts_with("http") => {}
                    _ => self.url(pointer, start),
                }
            }
            None if text.is_empty() => {
                self.error(pointer, Code::BadUrl, "the URL is empty");
            }
            // Its braces were wrong, which is reported.
            None => {}
        }
        template
    }

    fn header(&mut self, pointer: &str, name: &str, value: &str, known: &BTreeSet<String>) -> Template {
        let pointer = at(pointer, name);
        self.header_name(&pointer, name, value);
        self.template(&pointer, value, known)
    }

    /// A header's name is a token, and its value one line (RFC 9110, 5.5 and 5.6.2).
    pub(super) fn header_name(&mut self, pointer: &str, name: &str, value: &str) {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            self.error(
                pointer,
                Code::BadFormat,
                format!("`{}` is not the name of a header", shown(name)),
            );
        }
        let framing = ["content-length", "transfer-encoding", "connection"];
        if framing.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            let text = format!("`{name}` is written by Muster itself");
            self.error_hint(
                pointer,
                Code::Conflict,
                text,
                "leave it out; `keepAlive` decides about connections",
            );
        }
        if value.chars().any(|char| char.is_control() && char != '\t') {
            self.error(
                pointer,
                Code::BadFormat,
                format!("the value of header `{}` has a line break", shown(name)),
            );
        }
    }

    fn body(&mut self, pointer: &str, wire: &WireRequest, known: &BTreeSet<String>) -> Body {
        match (&wire.body, &wire.body_file) {
            (Some(_), Some(_)) => {
                self.error(
                    &at(pointer, "bodyFile"),
                    Code::Conflict,
                    "`body` and `bodyFile` exclude each other",
                );
                Body::Empty
            }
            (Some(text), None) => Body::Inline(self.template(&at(pointer, "body"), text, known)),
            (None, Some(path)) => self
                .file(&at(pointer, "bodyFile"), path)
                .map_or(Body::Empty, Body::File),
            (None, None) => Body::Empty,
        }
    }

    fn capture(&mut self, pointer: &str, wire: &WireCapture) -> Option<Capture> {
        let given = [
            ("json", wire.json.is_some()),
            ("header", wire.header.is_some()),
            ("regex", wire.regex.is_some()),
        ];
        if !self.exactly_one(pointer, &given) {
            return None;
        }
        let from = match (&wire.json, &wire.header, &wire.regex) {
            (Some(json), ..) => {
                self.json_pointer(&at(pointer, "json"), json);
                CaptureFrom::Json(json.clone())
            }
            (_, Some(header), _) => CaptureFrom::Header(header.clone()),
            (_, _, Some(regex)) => {
                self.regex(&at(pointer, "regex"), regex);
                CaptureFrom::Regex(regex.clone())
            }
            _ => return None,
        };
        Some(Capture {
            name: wire.name.clone(),
            from,
        })
    }

    fn check(&mut self, pointer: &str, wire: &WireCheck) -> Option<Check> {
        let given = [
            ("status", wire.status.is_some()),
            ("json", wire.json.is_some()),
            ("bodyContains", wire.body_contains.is_some()),
            ("durationBelow", wire.duration_below.is_some()),
        ];
        if !self.exactly_one(pointer, &given) {
            return None;
        }
        if wire.json.is_some() != wire.equals.is_some() {
            self.error(pointer, Code::Conflict, "`json` and `equals` stand together");
            return None;
        }
        Some(match wire {
            WireCheck {
                status: Some(status), ..
            } => Check::Status(status.clone()),
            WireCheck {
                json: Some(json),
                equals: Some(equals),
                ..
            } => {
                self.json_pointer(&at(pointer, "json"), json);
                Check::Json {
                    pointer: json.clone(),
                    equals: equals.clone(),
                }
            }
            WireCheck {
                body_contains: Some(text),
                ..
            } => Check::BodyContains(text.clone()),
            WireCheck {
                duration_below: Some(span),
                ..
            } => Check::DurationBelow(self.positive(&at(pointer, "durationBelow"), Some(span), TIMEOUT)),
            _ => return None,
        })
    }

    fn think(&mut self, pointer: &str, wire: &WireThink) -> Think {
        match wire {
            WireThink::Text(span) => Think {
                min: span.0,
                max: span.0,
            },
            WireThink::Object(range) => {
                if range.max.0 < range.min.0 {
                    self.error(&at(pointer, "max"), Code::OutOfRange, "`max` is less than `min`");
                }
                Think {
                    min: range.min.0,
                    max: range.max.0,
                }
            }
        }
    }

    fn json_pointer(&mut self, place: &str, text: &str) {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !(text.is_empty() || text.starts_with('/')) || !escapes {
            let message = format!("`{}` is not a JSON pointer (RFC 6901)", shown(text));
            self.error_hint(place, Code::BadPointer, message, "write for example `/data/token`");
        }
    }

    fn regex(&mut self, place: &str, text: &str) {
        match regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build() {
            Ok(regex) if regex.captures_len() < 2 => {
                let message = "the regular expression has no group to capture";
                self.error_hint(
                    place,
                    Code::BadRegex,
                    message,
                    "put what is to be captured in parentheses",
                );
            }
            Ok(_) => {}
            Err(error) => {
                // The last line of its text says what is wrong; those before it draw the place.
                let cause = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                self.error(place, Code::BadRegex, "the regular expression does not compile")
                    .cause = Some(cause);
            }
        }
    }

    /// The plan's base URL: absolute, without query, allowed.
    pub(super) fn base_url(&mut self, pointer: &str, url: &str) {
        self.url(pointer, url);
        if authority(url).is_ok() && url.contains(['?', '#']) {
            let text = format!("`{}` has a query or fragment; a base URL has none", shown(url));
            self.error(pointer, Code::BadUrl, text);
        }
    }
}
