//! Builds requests that depend on the iteration: variables filled in, cookies added, redirects followed by another request.

use super::broken::Broken;
use super::cookies::Jar;
use super::script::{Content, Piece, Ready, RequestPlan, Script, Text, write_head};
use super::url::Url;
use muster_core::measure::slice::ErrorKind;
use muster_core::model::load::Method;
use std::sync::Arc;
use std::time::Instant;

/// What a user knows in an iteration.
#[derive(Default)]
pub(crate) struct Variables {
    /// Captured values.
    pub(crate) slots: Vec<Option<String>>,
    /// The row of each data file.
    pub(crate) rows: Vec<usize>,
    pub(crate) jar: Jar,
}

/// A request to be sent.
pub(crate) struct Outgoing {
    pub(crate) url: Url,
    pub(crate) method: Method,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Arc<[u8]>,
}

impl Variables {
    fn render(&self, text: &Text, script: &Script) -> Result<String, Broken> {
        let mut out = String::new();
        for piece in &text.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Cell { table, column } => out.push_str(script.tables[*table].value(self.rows[*table], *column)),
                Piece::Slot(slot) => match &self.slots[*slot] {
                    Some(value) => out.push_str(value),
                    None => return Err(Broken::new(ErrorKind::BadRequest, "a variable that was not captured")),
                },
            }
        }
        Ok(out)
    }

    /// A request that is the same each time, with this user's cookies.
    pub(crate) fn with_cookies(&self, ready: &Ready, method: Method) -> Outgoing {
        let mut head = Vec::with_capacity(ready.bytes.len() + 128);
        head.extend_from_slice(&ready.bytes[..ready.head_end]);
        self.write_cookies(&ready.url, &mut head);
        head.extend_from_slice(&ready.bytes[ready.head_end..]);
        Outgoing {
            url: ready.url.clone(),
            method,
            head,
            body: ready.body.clone(),
        }
    }

    fn write_cookies(&self, url: &Url, head: &mut Vec<u8>) {
        if self.jar.is_empty() {
            return;
        }
        let before = head.len();
        head.extend_from_slice(b"Cookie: ");
        if self.jar.write(url, Instant::now(), head) {
            head.extend_from_slice(b"\r\n");
        } else {
            head.truncate(before);
        }
    }

    /// Fills in a request with variables.
    pub(crate) fn build(&self, plan: &RequestPlan, base: &Url, script: &Script) -> Result<Outgoing, Broken> {
        let target = self.render(&plan.url, script)?;
        let url = base
            .below(&target)
            .map_err(|error| Broken::new(ErrorKind::BadRequest, format!("URL: {error}")))?;
        self.assemble(plan, plan.method, url, true, true, script)
    }

    /// The request that follows a redirect. Go's rules, which are k6's: 301, 302 and 303 become GET without a body, 307 and 308 repeat it; what is meant for
    /// one host alone does not go to another.
    pub(crate) fn redirected(
        &self,
        plan: &RequestPlan,
        from: &Outgoing,
        status: u16,
        url: Url,
        script: &Script,
    ) -> Result<Outgoing, Broken> {
        let repeats = matches!(status, 307 | 308);
        let method = match from.method {
            method if repeats => method,
            Method::Head => Method::Head,
            _ => Method::Get,
        };
        let body = repeats && !matches!(method, Method::Get | Method::Head);
        let same_host = from.url.host == url.host;
        self.assemble(plan, method, url, body, same_host, script)
    }

    fn assemble(
        &self,
        plan: &RequestPlan,
        method: Method,
        url: Url,
        with_body: bool,
        same_host: bool,
        script: &Script,
    ) -> Result<Outgoing, Broken> {
        let body: Arc<[u8]> = match &plan.body {
            _ if !with_body => Arc::from([]),
            Content::Text(text) => Arc::from(self.render(text, script)?.into_bytes()),
            Content::File(bytes) => bytes.clone(),
        };
        let mut headers = Vec::with_capacity(plan.headers.len());
        for (name, value) in &plan.headers {
            let is_one_of = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
            let foreign = !same_host && is_one_of(&["authorization", "cookie", "host", "proxy-authorization"]);
            let bodiless = !with_body && is_one_of(&["content-type", "content-encoding"]);
            if !foreign && !bodiless {
                headers.push((name.as_str(), self.render(value, script)?));
            }
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut head = Vec::with_capacity(256);
        write_head(&mut head, method, &url, &headers, body.len(), script.options.keep_alive)
            .map_err(|why| Broken::new(ErrorKind::BadRequest, why))?;
        self.write_cookies(&url, &mut head);
        head.extend_from_slice(b"\r\n");
        Ok(Outgoing {
            url,
            method,
            head,
            body,
        })
    }
}
