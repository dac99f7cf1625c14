//! What a plan's `http` engine compiles to, once per run: URLs parsed, templates split, requests without variables as the bytes they go out as.

use super::broken::Broken;
use super::data::Table;
use super::guard::Guard;
use super::tls;
use super::url::{Url, UrlError};
use muster_core::model::load::{
    Body, Capture, CaptureFrom, Check, HttpEngine, HttpOptions, LoadPlan, Method, RepoFile, Request, Scenario, Segment,
    Template, TemplatePart, Think,
};
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Bodies up to this are sent in one piece with their head; above it a copy would cost more than it saves.
const INLINE_BODY: usize = 16 * 1_024;
/// What requests call their sender.
const USER_AGENT: &str = concat!("muster/", env!("CARGO_PKG_VERSION"));

/// Why a plan's engine cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// No base URL, or one that is none.
    #[error("base URL `{url}`: {why}")]
    BaseUrl {
        /// As given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The rules do not allow the target, or its name does not resolve.
    #[error("target {0}")]
    Target(String),
    /// A request that can never be sent.
    #[error("request `{name}`: {why}")]
    Request {
        /// The request.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A file that the plan names did not come with the job.
    #[error("file `{0}` is missing")]
    File(String),
    /// A data file that cannot be read.
    #[error("data file `{0}` is no CSV with a header and at least one row")]
    Data(String),
    /// A data file that has no row for each worker.
    #[error("data file `{0}` has fewer rows than the run has workers")]
    TooFewRows(String),
    /// A CA file that cannot be used.
    #[error("caFile: {0}")]
    Ca(String),
    /// The TLS library refused its configuration.
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
}

/// A compiled plan.
pub(crate) struct Script {
    pub(crate) scenarios: Vec<ScenarioPlan>,
    pub(crate) bases: Vec<Url>,
    pub(crate) timeout: Duration,
    pub(crate) options: HttpOptions,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) guard: Guard,
    pub(crate) tables: Vec<Table>,
    /// Captured values an iteration may hold.
    pub(crate) slots: usize,
}

/// A compiled scenario.
pub(crate) struct ScenarioPlan {
    name: String,
    pub(crate) weight: u64,
    /// The series of its iterations; those of its requests follow in order.
    pub(crate) series: usize,
    pub(crate) requests: Vec<RequestPlan>,
    /// Data files that its requests name.
    pub(crate) tables: Vec<usize>,
}

/// A compiled request.
pub(crate) struct RequestPlan {
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) url: Text,
    pub(crate) headers: Vec<(String, Text)>,
    pub(crate) body: Content,
    /// As it goes out, for each base URL, where nothing of it depends on the iteration.
    pub(crate) ready: Vec<Ready>,
    pub(crate) captures: Vec<CapturePlan>,
    pub(crate) checks: Vec<(String, Check)>,
    pub(crate) expect_status: Vec<u16>,
    pub(crate) think: Option<Think>,
    pub(crate) needs_body: bool,
    /// Lower-case names of headers that captures read.
    pub(crate) needs_headers: Vec<String>,
}

/// A capture and the slot its value goes to.
pub(crate) struct CapturePlan {
    pub(crate) name: String,
    pub(crate) slot: usize,
    pub(crate) from: CaptureSource,
}

/// Where a capture looks.
pub(crate) enum CaptureSource {
    Json(String),
    /// Index into [`RequestPlan::needs_headers`].
    Header(usize),
    Regex(regex::Regex),
}

/// A text that may hold values of the iteration.
pub(crate) struct Text(pub(crate) Vec<Piece>);

pub(crate) enum Piece {
    Text(String),
    Slot(usize),
    Cell { table: usize, column: usize },
}

/// A request's body.
pub(crate) enum Content {
    Text(Text),
    File(Arc<[u8]>),
}

/// A request that is the same each time.
pub(crate) struct Ready {
    pub(crate) url: Url,
    /// All of it, but for a body too large to copy.
    pub(crate) bytes: Vec<u8>,
    /// Where the head's last empty line begins: cookies go before it.
    pub(crate) head_end: usize,
    pub(crate) body: Arc<[u8]>,
}

impl Text {
    pub(crate) fn as_static(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

impl Script {
    /// # Errors
    /// Where a URL, a file or the target cannot be used.
    pub(crate) fn compile(
        plan: &LoadPlan,
        engine: &HttpEngine,
        segment: Segment,
        files: &BTreeMap<String, Arc<[u8]>>,
    ) -> Result<Self, ScriptError> {
        let base = |url: &String| {
            let why = |error: UrlError| ScriptError::BaseUrl {
                url: url.clone(),
                why: error.to_string(),
            };
            Url::parse(url).map_err(why)
        };
        let bases: Vec<Url> = plan.base_urls.iter().map(base).collect::<Result<_, _>>()?;
        if bases.is_empty() {
            return Err(ScriptError::BaseUrl {
                url: String::new(),
                why: "there is none".to_owned(),
            });
        }
        let mut tables = Vec::with_capacity(plan.data.len());
        for data in &plan.data {
            let table = Table::parse(&data.name, &file(files, &data.file)?);
            let table = table.ok_or_else(|| ScriptError::Data(data.file.path.clone()))?;
            let own = table.for_worker(data.mode, segment);
            tables.push(own.ok_or_else(|| ScriptError::TooFewRows(data.file.path.clone()))?);
        }
        let options = &engine.options;
        let ca = options.tls.ca_file.as_ref().map(|ca| file(files, ca)).transpose()?;
        let mut compiler = Compiler {
            bases: &bases,
            tables: &tables,
            files,
            keep_alive: options.keep_alive,
            slots: Vec::new(),
            series: 0,
        };
        let scenarios: Vec<ScenarioPlan> = engine
            .scenarios
            .iter()
            .map(|scenario| compiler.scenario(scenario))
            .collect::<Result<_, _>>()?;
        let slots = compiler.slots.len();
        let script = Self {
            tls: tls::config(options.tls.insecure_skip_verify, ca.as_deref())?,
            guard: Guard::new(plan.targets.clone()),
            timeout: engine.timeout,
            options: options.clone(),
            scenarios,
            bases,
            tables,
            slots,
        };
        script.resolve_all()?;
        Ok(script)
    }

    /// Looks up every host that is known before the run, so that the first second measures the target and not its name server.
    fn resolve_all(&self) -> Result<(), ScriptError> {
        let requests = self.scenarios.iter().flat_map(|scenario| &scenario.requests);
        let absolute = requests.flat_map(|request| request.ready.iter().map(|ready| &ready.url));
        let mut seen: Vec<&Url> = Vec::new();
        for url in self.bases.iter().chain(absolute) {
            if seen.iter().any(|known| known.same_origin(url)) {
                continue;
            }
            let refused = |broken: Broken| ScriptError::Target(broken.text.into_owned());
            self.guard.addresses_blocking(url).map_err(refused)?;
            seen.push(url);
        }
        Ok(())
    }

    pub(crate) fn series(&self) -> Vec<(String, String)> {
        let names = self.scenarios.iter().flat_map(|scenario| {
            let requests = scenario.requests.iter().map(|request| request.name.clone());
            let names = std::iter::once(String::new()).chain(requests);
            names.map(|name| (scenario.name.clone(), name))
        });
        names.collect()
    }
}

fn file(files: &BTreeMap<String, Arc<[u8]>>, file: &RepoFile) -> Result<Arc<[u8]>, ScriptError> {
    let found = files.get(file.digest.as_str()).cloned();
    found.ok_or_else(|| ScriptError::File(file.path.clone()))
}

struct Compiler<'a> {
    bases: &'a [Url],
    tables: &'a [Table],
    files: &'a BTreeMap<String, Arc<[u8]>>,
    keep_alive: bool,
    /// Names of captures, over all scenarios: an iteration clears them all.
    slots: Vec<String>,
    series: usize,
}

impl Compiler<'_> {
    fn scenario(&mut self, scenario: &Scenario) -> Result<ScenarioPlan, ScriptError> {
        let series = self.series;
        self.series += 1 + scenario.requests.len();
        let requests: Vec<RequestPlan> = scenario
            .requests
            .iter()
            .map(|request| self.request(request))
            .collect::<Result<_, _>>()?;
        let mut tables: Vec<usize> = requests.iter().flat_map(RequestPlan::tables).collect();
        tables.sort_unstable();
        tables.dedup();
        if requests.is_empty() {
            return Err(ScriptError::Request {
                name: scenario.name.clone(),
                why: "a scenario without requests".to_owned(),
            });
        }
        Ok(ScenarioPlan {
            name: scenario.name.clone(),
            weight: u64::from(scenario.weight.max(1)),
            series,
            requests,
            tables,
        })
    }

    fn request(&mut self, request: &Request) -> Result<RequestPlan, ScriptError> {
        let fail = |why: String| ScriptError::Request {
            name: request.name.clone(),
            why,
        };
        let text = |template: &Template| {
            self.text(template)
                .map_err(|name| fail(format!("`{{{{{name}}}}}` is unknown")))
        };
        let url = text(&request.url)?;
        let headers = request
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), text(value)?)))
            .collect::<Result<_, ScriptError>>()?;
        let body = match &request.body {
            Body::Empty => Content::Text(Text(Vec::new())),
            Body::Inline(template) => Content::Text(text(template)?),
            Body::File(source) => Content::File(file(self.files, source)?),
        };
        let mut needs_headers = Vec::new();
        let captures = request
            .captures
            .iter()
            .map(|capture| self.capture(capture, &mut needs_headers));
        let captures: Vec<CapturePlan> = captures.collect::<Result<_, String>>().map_err(fail)?;
        let from_body = |check: &Check| matches!(check, Check::Json { .. } | Check::BodyContains(_));
        let mut plan = RequestPlan {
            name: request.name.clone(),
            method: request.method,
            needs_body: request.checks.iter().any(from_body)
                || captures
                    .iter()
                    .any(|capture| !matches!(capture.from, CaptureSource::Header(_))),
            url,
            headers,
            body,
            ready: Vec::new(),
            captures,
            checks: request
                .checks
                .iter()
                .map(|check| (check.name(), check.clone()))
                .collect(),
            expect_status: request.expect_status.clone(),
            think: request.think,
            needs_headers,
        };
        plan.ready = self.ready(&plan).map_err(fail)?;
        Ok(plan)
    }

    fn text(&self, template: &Template) -> Result<Text, String> {
        let piece = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => Ok(Piece::Text(text.clone())),
            TemplatePart::Variable(name) => self.variable(name).ok_or_else(|| name.clone()),
        };
        Ok(Text(template.parts.iter().map(piece).collect::<Result<_, _>>()?))
    }

    fn variable(&self, name: &str) -> Option<Piece> {
        let cell = name.split_once('.').and_then(|(file, column)| {
            let table = self.tables.iter().position(|table| table.name == file)?;
            let column = self.tables[table].columns.iter().position(|known| known == column)?;
            Some(Piece::Cell { table, column })
        });
        cell.or_else(|| self.slots.iter().position(|slot| slot == name).map(Piece::Slot))
    }

    fn capture(&mut self, capture: &Capture, headers: &mut Vec<String>) -> Result<CapturePlan, String> {
        let from = match &capture.from {
            CaptureFrom::Json(pointer) => CaptureSource::Json(pointer.clone()),
            CaptureFrom::Header(name) => {
                headers.push(name.to_ascii_lowercase());
                CaptureSource::Header(headers.len() - 1)
            }
            CaptureFrom::Regex(pattern) => {
                CaptureSource::Regex(regex::Regex::new(pattern).map_err(|error| error.to_string())?)
            }
        };
        let known = self.slots.iter().position(|slot| *slot == capture.name);
        let slot = known.unwrap_or_else(|| {
            self.slots.push(capture.name.clone());
            self.slots.len() - 1
        });
        Ok(CapturePlan {
            name: capture.name.clone(),
            slot,
            from,
        })
    }

    /// The bytes of a request for each base URL; none where it has variables.
    fn ready(&self, plan: &RequestPlan) -> Result<Vec<Ready>, String> {
        let fixed = |(name, value): &(String, Text)| Some((name.clone(), value.as_static()?.to_owned()));
        let headers: Option<Vec<(String, String)>> = plan.headers.iter().map(fixed).collect();
        let body: Option<Arc<[u8]>> = match &plan.body {
            Content::Text(text) => text.as_static().map(|text| Arc::from(text.as_bytes())),
            Content::File(bytes) => Some(bytes.clone()),
        };
        let (Some(target), Some(headers), Some(body)) = (plan.url.as_static(), headers, body) else {
            return Ok(Vec::new());
        };
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let each = self.bases.iter().map(|base| {
            let url = base.below(target).map_err(|error| error.to_string())?;
            let mut bytes = Vec::new();
            write_head(&mut bytes, plan.method, &url, &headers, body.len(), self.keep_alive)?;
            let head_end = bytes.len();
            bytes.extend_from_slice(b"\r\n");
            let inline = body.len() <= INLINE_BODY;
            if inline {
                bytes.extend_from_slice(&body);
            }
            Ok(Ready {
                url,
                bytes,
                head_end,
                body: if inline { Arc::from([]) } else { body.clone() },
            })
        });
        each.collect()
    }
}

impl RequestPlan {
    fn tables(&self) -> impl Iterator<Item = usize> {
        let body = match &self.body {
            Content::Text(text) => Some(text),
            Content::File(_) => None,
        };
        let headers = self.headers.iter().map(|(_, value)| value);
        let texts = std::iter::once(&self.url).chain(headers).chain(body);
        texts.flat_map(|text| &text.0).filter_map(|piece| match piece {
            Piece::Cell { table, .. } => Some(*table),
            Piece::Text(_) | Piece::Slot(_) => None,
        })
    }
}

/// Writes a request's head but for the empty line that ends it.
///
/// # Errors
/// Where a header would break out of its line: such a value came from data or from the target.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    method: Method,
    url: &Url,
    headers: &[(&str, &str)],
    body: usize,
    keep_alive: bool,
) -> Result<(), String> {
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let mut line = |name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    let request = format!("{} {} HTTP/1.1\r\nHost", method.as_str(), url.target);
    match headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")) {
        Some((_, host)) => line(&request, host),
        None => line(&request, &url.host_header()),
    }
    if !has("user-agent") {
        line("User-Agent", USER_AGENT);
    }
    for (name, value) in headers {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) || value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(format!("header `{}` cannot be sent", name.escape_debug()));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("transfer-encoding cannot be set: bodies are sent with their length".to_owned());
        }
        // The length is counted, not believed; the connection is the options' matter.
        if !["host", "content-length", "connection"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
        {
            line(name, value);
        }
    }
    if body > 0 || matches!(method, Method::Post | Method::Put | Method::Patch) {
        line("Content-Length", &body.to_string());
    }
    if !keep_alive {
        line("Connection", "close");
    }
    Ok(())
}
