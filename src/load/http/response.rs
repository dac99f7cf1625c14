//! Reads one response from whatever pieces the network brings it in. Bounded against every server: a head has a largest size, a chunk size a
//! largest length, a body is counted and kept only as far as somebody asked for it.

use super::broken::Broken;
use super::chunked::Chunked;
use muster_core::measure::slice::ErrorKind;
use std::mem::MaybeUninit;

/// Largest response head; nginx and Go stop far below.
const HEAD_MAX: usize = 64 * 1_024;
/// Most header lines of a response.
const HEADERS_MAX: usize = 128;
/// Most informational responses (1xx) before the real one.
const INFORMATIONAL_MAX: u32 = 16;
/// Most of a body that is kept for captures and checks.
pub(crate) const KEPT_MAX: usize = 1_024 * 1_024;
/// Longest head that is kept to be recognised.
const KNOWN_MAX: usize = 2 * 1_024;
/// Buffers above this are given back after use, so that one large response does not cost its memory for each user for ever.
const BUFFER_KEPT: usize = 4 * 1_024;

/// What is wanted of a response beside its status.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want<'a> {
    /// The answer to HEAD has no body, whatever its headers say.
    pub(crate) head_only: bool,
    pub(crate) body: bool,
    /// Lower-case names of headers.
    pub(crate) headers: &'a [String],
}

/// What was kept of a response.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) body: Vec<u8>,
    /// The body was longer than what is kept.
    pub(crate) truncated: bool,
    /// In the order of [`Want::headers`].
    pub(crate) headers: Vec<Option<String>>,
    pub(crate) location: Option<String>,
    pub(crate) cookies: Vec<String>,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    /// Complete; `clean`: nothing follows it.
    Done {
        clean: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Head,
    Length(u64),
    Chunks(Chunked),
    UntilClose,
    Done,
}

/// The head that a thread read last, and what it says. Servers answer most requests of a second with the same bytes, and those need not be parsed again.
#[derive(Debug)]
pub(crate) struct KnownHead {
    bytes: Vec<u8>,
    head_only: bool,
    status: u16,
    keep_alive: bool,
    stage: Stage,
}

impl KnownHead {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head_only: false,
            status: 0,
            keep_alive: false,
            stage: Stage::Head,
        }
    }
}

/// One response being read. Used again for the next one.
#[derive(Debug)]
pub(crate) struct Reader {
    stage: Stage,
    head: Vec<u8>,
    /// How far the head was searched for its end, and at which size it is parsed next to find garbage early.
    searched: usize,
    parse_at: usize,
    informational: u32,
    pub(crate) status: u16,
    pub(crate) keep_alive: bool,
    pub(crate) kept: Option<Box<Kept>>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Head,
            head: Vec::new(),
            searched: 0,
            parse_at: 0,
            informational: 0,
            status: 0,
            keep_alive: false,
            kept: None,
        }
    }

    /// Makes it ready for the next response.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.stage = Stage::Head;
        self.informational = 0;
        self.status = 0;
        self.keep_alive = false;
        self.next_head();
        if self.kept.is_some() {
            self.clear_kept();
        }
    }

    #[inline]
    fn next_head(&mut self) {
        self.head.clear();
        if self.head.capacity() > BUFFER_KEPT {
            self.head = Vec::new();
        }
        self.searched = 0;
        self.parse_at = 0;
    }

    #[cold]
    fn clear_kept(&mut self) {
        if let Some(kept) = &mut self.kept {
            let mut body = std::mem::take(&mut kept.body);
            body.clear();
            body.shrink_to(BUFFER_KEPT);
            **kept = Kept {
                body,
                ..Kept::default()
            };
        }
    }

    /// Takes what came next; a head that begins it is looked up before it is parsed.
    ///
    /// # Errors
    /// As [`Reader::feed`].
    #[inline]
    pub(crate) fn feed_known(
        &mut self,
        bytes: &[u8],
        want: &Want<'_>,
        known: &mut KnownHead,
    ) -> Result<Progress, Broken> {
        if !matches!(self.stage, Stage::Head) || !self.head.is_empty() || !want.headers.is_empty() {
            return self.feed(bytes, want);
        }
        let length = known.bytes.len();
        if length == 0 || known.head_only != want.head_only || !bytes.starts_with(&known.bytes) {
            return self.feed_unknown(bytes, want, known);
        }
        self.status = known.status;
        self.keep_alive = known.keep_alive;
        self.stage = known.stage;
        self.feed(&bytes[length..], want)
    }

    /// A head's meaning depends on nothing but its bytes and whether a body may follow, unless something of it was kept.
    fn feed_unknown(&mut self, bytes: &[u8], want: &Want<'_>, known: &mut KnownHead) -> Result<Progress, Broken> {
        let Some(length) = self.feed_head(bytes, want)? else {
            return Ok(Progress::More);
        };
        if !matches!(self.stage, Stage::Head) && self.kept.is_none() && length <= KNOWN_MAX {
            known.bytes.clear();
            known.bytes.extend_from_slice(&bytes[..length]);
            known.head_only = want.head_only;
            (known.status, known.keep_alive, known.stage) = (self.status, self.keep_alive, self.stage);
        }
        self.feed(&bytes[length..], want)
    }

    /// Takes what came next.
    ///
    /// # Errors
    /// Where it is no HTTP/1.x response, or larger than any should be.
    #[inline]
    pub(crate) fn feed(&mut self, bytes: &[u8], want: &Want<'_>) -> Result<Progress, Broken> {
        let mut rest = bytes;
        loop {
            match self.stage {
                Stage::Head => match self.feed_head(rest, want)? {
                    Some(used) => rest = &rest[used..],
                    None => return Ok(Progress::More),
                },
                Stage::Done => return Ok(Progress::Done { clean: rest.is_empty() }),
                _ if rest.is_empty() => return Ok(Progress::More),
                Stage::Length(left) => {
                    let used = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.keep(&rest[..used], want);
                    rest = &rest[used..];
                    let left = left - used as u64;
                    self.stage = if left == 0 { Stage::Done } else { Stage::Length(left) };
                }
                Stage::Chunks(mut chunks) => {
                    let step = chunks.feed(rest)?;
                    self.keep(&rest[step.data], want);
                    rest = &rest[step.used..];
                    self.stage = if step.done { Stage::Done } else { Stage::Chunks(chunks) };
                }
                Stage::UntilClose => {
                    self.keep(rest, want);
                    rest = &[];
                }
            }
        }
    }

    /// The connection was closed.
    ///
    /// # Errors
    /// Where the response is not complete by that.
    pub(crate) fn end(&mut self) -> Result<(), Broken> {
        match self.stage {
            Stage::UntilClose => {
                self.stage = Stage::Done;
                Ok(())
            }
            Stage::Head if self.head.is_empty() => Err(Broken::new(ErrorKind::ClosedEarly, "closed before a response")),
            Stage::Head => Err(Broken::new(ErrorKind::ClosedEarly, "closed within the response's head")),
            _ => Err(Broken::new(ErrorKind::ClosedEarly, "closed within the response's body")),
        }
    }

    /// How many of `bytes` belong to the head, once it is complete.
    fn feed_head(&mut self, bytes: &[u8], want: &Want<'_>) -> Result<Option<usize>, Broken> {
        if self.head.is_empty() {
            // Nearly always the whole head comes at once, and is read where it lies.
            if let Some(length) = self.parse(bytes, want)? {
                return Ok(Some(length));
            }
        }
        if self.head.len() + bytes.len() > HEAD_MAX && self.head.len() >= HEAD_MAX {
            return Err(too_large());
        }
        let before = self.head.len();
        let room = HEAD_MAX - before;
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let ends = find_end(&self.head[self.searched.saturating_sub(3)..]);
        self.searched = self.head.len();
        if !ends && self.head.len() < self.parse_at {
            return Ok(None);
        }
        // Each try at twice the size of the last: a head that drips in costs no more than twice its length.
        self.parse_at = self.head.len() * 2;
        let head = std::mem::take(&mut self.head);
        let parsed = self.parse(&head, want);
        self.head = head;
        match parsed? {
            Some(length) => {
                self.next_head();
                Ok(Some(length.saturating_sub(before)))
            }
            None if self.head.len() >= HEAD_MAX => Err(too_large()),
            None => Ok(None),
        }
    }

    /// Parses a head; its length once it is complete.
    fn parse(&mut self, bytes: &[u8], want: &Want<'_>) -> Result<Option<usize>, Broken> {
        let mut headers = [MaybeUninit::<httparse::Header<'_>>::uninit(); HEADERS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) if length > HEAD_MAX => return Err(too_large()),
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
            Err(error) => return Err(Broken::new(ErrorKind::BadResponse, error.to_string())),
        };
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) {
            self.informational += 1;
            if status == 101 || self.informational > INFORMATIONAL_MAX {
                return Err(Broken::new(
                    ErrorKind::BadResponse,
                    "unexpected informational responses",
                ));
            }
            self.next_head();
            return Ok(Some(length));
        }
        self.status = status;
        self.keep_alive = response.version == Some(1);
        self.take_headers(response.headers, want)?;
        Ok(Some(length))
    }

    fn take_headers(&mut self, headers: &[httparse::Header<'_>], want: &Want<'_>) -> Result<(), Broken> {
        let mut length: Option<u64> = None;
        let mut chunked = None;
        for header in headers {
            let name = header.name;
            match name.len() {
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let value = content_length(header.value)
                        .ok_or_else(|| Broken::new(ErrorKind::BadResponse, "bad content-length"))?;
                    if length.is_some_and(|length| length != value) {
                        return Err(Broken::new(ErrorKind::BadResponse, "two different content-lengths"));
                    }
                    length = Some(value);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    let last = header.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
                    chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
                }
                10 if name.eq_ignore_ascii_case("connection") => self.take_connection(header.value),
                8 if name.eq_ignore_ascii_case("location") && (300..400).contains(&self.status) => {
                    self.kept().location = Some(text(header.value));
                }
                10 if name.eq_ignore_ascii_case("set-cookie") => self.kept().cookies.push(text(header.value)),
                _ => {}
            }
        }
        if !want.headers.is_empty() {
            self.kept().headers = want
                .headers
                .iter()
                .map(|wanted| headers.iter().find(|header| header.name.eq_ignore_ascii_case(wanted)))
                .map(|found| found.map(|header| text(header.value)))
                .collect();
        }
        self.stage = match (chunked, length) {
            _ if want.head_only || matches!(self.status, 204 | 304) => Stage::Done,
            (Some(true), length) => {
                // Both together is how responses are smuggled: read it, and never use the connection again (RFC 9112, 6.3).
                self.keep_alive &= length.is_none();
                Stage::Chunks(Chunked::new())
            }
            (Some(false), _) => {
                return Err(Broken::new(
                    ErrorKind::BadResponse,
                    "a transfer-encoding other than chunked",
                ));
            }
            (None, Some(0)) => Stage::Done,
            (None, Some(length)) => Stage::Length(length),
            (None, None) => {
                self.keep_alive = false;
                Stage::UntilClose
            }
        };
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"close") {
                self.keep_alive = false;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            }
        }
    }

    fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    #[inline]
    fn keep(&mut self, data: &[u8], want: &Want<'_>) {
        if want.body && !data.is_empty() {
            let kept = self.kept();
            let room = KEPT_MAX - kept.body.len();
            kept.truncated |= data.len() > room;
            kept.body.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
}

fn too_large() -> Broken {
    Broken::new(
        ErrorKind::HeadersTooLarge,
        "more than 64 KiB or 128 lines of response headers",
    )
}

/// A header's value as text; headers are bytes, and a capture or a cookie must be put into text again.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn content_length(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// Whether an empty line lies in it.
fn find_end(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(&bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}
