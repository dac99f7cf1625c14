//! The `http` engine: what a user does with a compiled plan, request by request.

mod broken;
mod chunked;
mod connection;
mod cookies;
mod data;
mod extract;
mod guard;
mod lane;
mod request;
mod response;
pub(crate) mod script;
mod tls;
mod url;

use crate::engine::Scope;
use crate::pacing::Deadline;
use crate::recorder::{Sample, Timings};
use broken::Broken;
use connection::{Connection, Exchange, Wire};
use extract::Response;
pub(crate) use lane::HttpLane;
use muster_core::measure::slice::ErrorKind;
use muster_core::model::load::{Method, Think};
use request::{Outgoing, Variables};
use response::{Reader, Want};
use script::{RequestPlan, Script};
use std::time::{Duration, Instant};
use url::Url;

/// A virtual user: its connections, its cookies, what it captured.
pub(crate) struct HttpUser {
    base: usize,
    /// The one used last stands last.
    #[expect(
        clippy::vec_box,
        reason = "a connection moves in and out for each request, and its place in the task would cost each user its size"
    )]
    connections: Vec<Box<Connection>>,
    deadline: Deadline,
    reader: Reader,
    variables: Variables,
}

/// One request of an iteration, with everything that does not change while it is made.
struct Step<'a> {
    scope: &'a Scope<'a>,
    lane: &'a HttpLane,
    script: &'a Script,
    plan: &'a RequestPlan,
    series: usize,
}

/// One message of a request: the request itself, or a redirect followed.
struct Hop<'a> {
    url: &'a Url,
    method: Method,
    wire: Wire<'a>,
    begin: Instant,
    /// What its duration counts from, where that is not its own begin.
    intended: Option<Instant>,
    redirects_left: u32,
}

/// How a hop ended.
struct HopEnd {
    at: Instant,
    /// k6's duration.
    service: Duration,
    /// Where a redirect that is to be followed leads.
    next: Option<Url>,
    answered: bool,
}

impl HttpUser {
    pub(crate) fn new(lane: &HttpLane, script: &Script) -> Self {
        let base = lane.next_base.get();
        lane.next_base.set(base.wrapping_add(1));
        Self {
            base: base % script.bases.len(),
            connections: Vec::new(),
            deadline: Deadline::new(Instant::now()),
            reader: Reader::new(),
            variables: Variables {
                slots: vec![None; script.slots],
                rows: vec![0; script.tables.len()],
                ..Variables::default()
            },
        }
    }

    /// Takes a row of each file that a scenario uses; false: one is used up.
    pub(crate) fn take_rows(&mut self, scenario: usize, script: &Script) -> bool {
        script.scenarios[scenario].tables.iter().all(|table| {
            let row = script.tables[*table].take_row();
            self.variables.rows[*table] = row.unwrap_or_default();
            row.is_some()
        })
    }

    /// Plays the requests of a scenario, and says when the last one ended.
    pub(crate) async fn iterate(&mut self, scope: &Scope<'_>, lane: &HttpLane, script: &Script) -> Instant {
        let scenario = &script.scenarios[scope.scenario];
        self.variables.jar.clear();
        self.variables.slots.fill(None);
        let (mut begin, mut intended) = (scope.begin, scope.intended);
        let mut end = begin;
        for (index, plan) in scenario.requests.iter().enumerate() {
            if index > 0 {
                begin = Instant::now();
            }
            let step = Step {
                scope,
                lane,
                script,
                plan,
                series: scope.series + scenario.series + 1 + index,
            };
            let go_on;
            (end, go_on) = self.request(&step, begin, intended.take()).await;
            if !go_on {
                break;
            }
            if let Some(think) = plan.think {
                end = self.think(think, scope, end).await;
            }
        }
        end
    }

    async fn think(&mut self, think: Think, scope: &Scope<'_>, now: Instant) -> Instant {
        let spread = think.max.saturating_sub(think.min).as_nanos() as u64;
        let until = now + think.min + Duration::from_nanos(scope.lane.rng.below(spread.saturating_add(1)));
        self.deadline.set(until);
        std::future::poll_fn(|context| match self.deadline.poll_passed(context) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        })
        .await;
        Instant::now()
    }

    /// Makes one request with all its redirects; when it ended, and whether the iteration goes on.
    async fn request(&mut self, step: &Step<'_>, mut begin: Instant, mut intended: Option<Instant>) -> (Instant, bool) {
        if let Some(bound) = &step.scope.lane.bound {
            let free = bound.reserve(begin);
            if free > begin {
                // Boxed: a timer in the task would cost each user its size, also where there is no bound.
                Box::pin(tokio::time::sleep_until(free.into())).await;
                let now = Instant::now();
                // The bound is neither the target's slowness nor the generator's.
                intended = intended.map(|intended| intended + (now - begin));
                begin = now;
            }
        }
        self.deadline.set(begin + step.script.timeout);
        let redirects = step.script.options.follow_redirects;
        let ready = step.plan.ready.get(self.base);
        let end = match ready {
            Some(ready) if self.variables.jar.is_empty() => {
                let wire = Wire {
                    head: &ready.bytes,
                    body: &ready.body,
                };
                let hop = Hop {
                    url: &ready.url,
                    method: step.plan.method,
                    wire,
                    begin,
                    intended,
                    redirects_left: redirects,
                };
                let end = self.hop(step, &hop).await;
                if end.next.is_some() {
                    let sent = self.variables.with_cookies(ready, step.plan.method);
                    Box::pin(self.follow(step, sent, end, redirects)).await
                } else {
                    end
                }
            }
            _ => Box::pin(self.request_built(step, begin, intended)).await,
        };
        if step.plan.checks.is_empty() && step.plan.captures.is_empty() {
            return (end.at, true);
        }
        (end.at, self.examine(step, &end))
    }

    /// The same for a request that depends on the iteration.
    async fn request_built(&mut self, step: &Step<'_>, begin: Instant, intended: Option<Instant>) -> HopEnd {
        let built = match step.plan.ready.get(self.base) {
            Some(ready) => Ok(self.variables.with_cookies(ready, step.plan.method)),
            None => self
                .variables
                .build(step.plan, &step.script.bases[self.base], step.script),
        };
        let outgoing = match built {
            Ok(outgoing) => outgoing,
            Err(broken) => return self.never_sent(step, begin, intended, &broken),
        };
        let redirects = step.script.options.follow_redirects;
        let hop = outgoing.hop(begin, intended, redirects);
        let end = self.hop(step, &hop).await;
        match end.next {
            Some(_) => self.follow(step, outgoing, end, redirects).await,
            None => end,
        }
    }

    /// Follows redirects until one answer is none, or too many were followed.
    async fn follow(&mut self, step: &Step<'_>, mut sent: Outgoing, mut end: HopEnd, mut left: u32) -> HopEnd {
        while let Some(url) = end.next.take() {
            left -= 1;
            let status = self.reader.status;
            sent = match self.variables.redirected(step.plan, &sent, status, url, step.script) {
                Ok(outgoing) => outgoing,
                Err(broken) => return self.never_sent(step, Instant::now(), None, &broken),
            };
            let mut begin = Instant::now();
            if let Some(bound) = &step.scope.lane.bound {
                tokio::time::sleep_until(bound.reserve(begin).into()).await;
                begin = Instant::now();
            }
            let hop = sent.hop(begin, None, left);
            end = self.hop(step, &hop).await;
        }
        end
    }

    /// Counts a request that could not be built.
    fn never_sent(&mut self, step: &Step<'_>, begin: Instant, intended: Option<Instant>, broken: &Broken) -> HopEnd {
        self.reader.reset();
        let at = Instant::now();
        let duration = at.saturating_duration_since(intended.unwrap_or(begin));
        let sample = Sample {
            duration,
            failed: true,
            ..Sample::default()
        };
        let mut recorder = step.scope.lane.recorder.borrow_mut();
        recorder.request(step.series, at, &sample);
        recorder.error(step.series, at, broken.kind, &broken.text);
        HopEnd {
            at,
            service: Duration::ZERO,
            next: None,
            answered: false,
        }
    }

    /// Sends one message, reads its answer, counts both.
    async fn hop(&mut self, step: &Step<'_>, hop: &Hop<'_>) -> HopEnd {
        let mut sample = Sample::default();
        let mut exchange = Exchange::default();
        let mut sending = hop.begin;
        let result = self.exchange(step, hop, &mut sample, &mut exchange, &mut sending).await;
        let (at, broken) = match result {
            Ok(at) => (at, None),
            Err(broken) => (Instant::now(), Some(broken)),
        };
        let timings = &mut sample.timings;
        if let Some(sent_at) = exchange.sent_at {
            let first_byte_at = exchange.first_byte_at.unwrap_or(at).max(sent_at);
            timings.sending = sent_at - sending;
            timings.waiting = first_byte_at - sent_at;
            timings.receiving = at - first_byte_at;
        } else if exchange.written > 0 {
            timings.sending = at - sending;
        }
        let service = timings.service();
        sample.duration = hop
            .intended
            .map_or(service, |intended| at.saturating_duration_since(intended));
        sample.sent += exchange.written;
        sample.received += exchange.received;
        let next = match broken {
            None => self.judge(step, hop, at, &mut sample),
            Some(broken) => {
                sample.failed = true;
                let mut recorder = step.scope.lane.recorder.borrow_mut();
                recorder.error(step.series, at, broken.kind, &broken.text);
                if broken.own {
                    recorder.own_failure(step.series);
                }
                None
            }
        };
        let mut recorder = step.scope.lane.recorder.borrow_mut();
        recorder.request(step.series, at, &sample);
        HopEnd {
            at,
            service,
            next,
            answered: sample.status != 0,
        }
    }

    /// Decides what an answer means; where it leads, if it is a redirect to be followed.
    fn judge(&mut self, step: &Step<'_>, hop: &Hop<'_>, at: Instant, sample: &mut Sample) -> Option<Url> {
        let status = self.reader.status;
        sample.status = status;
        let mut next = None;
        if self.reader.kept.is_some() {
            match self.take_kept(step, hop, at) {
                Ok(url) => next = url,
                Err((kind, text)) => {
                    let mut recorder = step.scope.lane.recorder.borrow_mut();
                    recorder.error(step.series, at, kind, text);
                    sample.failed = kind == ErrorKind::BadRedirect;
                }
            }
        }
        let expected = &step.plan.expect_status;
        let fine = next.is_some()
            || if expected.is_empty() {
                status < 400
            } else {
                expected.contains(&status)
            };
        if !fine {
            sample.failed = true;
            let mut recorder = step.scope.lane.recorder.borrow_mut();
            recorder.error(step.series, at, ErrorKind::Status, &format!("status {status}"));
        }
        next
    }

    /// Keeps cookies, and reads a redirect's goal.
    #[cold]
    fn take_kept(
        &mut self,
        step: &Step<'_>,
        hop: &Hop<'_>,
        at: Instant,
    ) -> Result<Option<Url>, (ErrorKind, &'static str)> {
        let status = self.reader.status;
        let Some(kept) = &mut self.reader.kept else {
            return Ok(None);
        };
        for line in kept.cookies.drain(..) {
            self.variables.jar.set(&line, hop.url, at);
        }
        if step.script.options.follow_redirects > 0
            && let Some(location) = kept.location.take()
            && matches!(status, 301 | 302 | 303 | 307 | 308)
        {
            let url = hop
                .url
                .join(&location)
                .map_err(|_| (ErrorKind::BadRedirect, "a location that is no URL"))?;
            if hop.redirects_left > 0 {
                return Ok(Some(url));
            }
            return Err((ErrorKind::TooManyRedirects, "more redirects than followRedirects"));
        }
        if kept.truncated {
            return Err((ErrorKind::BodyTooLarge, "only the first MiB of the body was looked at"));
        }
        Ok(None)
    }

    /// Gets a connection and makes the exchange on it, once more where promise 59 allows.
    async fn exchange(
        &mut self,
        step: &Step<'_>,
        hop: &Hop<'_>,
        sample: &mut Sample,
        exchange: &mut Exchange,
        sending: &mut Instant,
    ) -> Result<Instant, Broken> {
        let want = Want {
            head_only: hop.method == Method::Head,
            body: step.plan.needs_body,
            headers: &step.plan.needs_headers,
        };
        let mut kept_open = self.take_connection(hop.url);
        loop {
            let mut connection = match kept_open.take() {
                Some(connection) => connection,
                None => {
                    let opened = Box::pin(self.open(step, hop.url, *sending, &mut sample.timings)).await?;
                    *sending = Instant::now();
                    opened
                }
            };
            self.reader.reset();
            let (reader, deadline) = (&mut self.reader, &mut self.deadline);
            let result = connection
                .exchange(hop.wire, &want, reader, deadline, step.lane, exchange)
                .await;
            match result {
                Ok(at) => {
                    if step.script.options.keep_alive && self.reader.keep_alive && exchange.clean {
                        self.give_back(connection, step.script);
                    }
                    return Ok(at);
                }
                Err(broken) => {
                    let untouched = exchange.first_byte_at.is_none() && broken.died && connection.reused;
                    if !untouched || !(hop.method.is_idempotent() || exchange.written == 0) {
                        return Err(broken);
                    }
                    sample.sent += exchange.written;
                    *exchange = Exchange::default();
                    *sending = Instant::now();
                }
            }
        }
    }

    async fn open(
        &self,
        step: &Step<'_>,
        url: &Url,
        begin: Instant,
        timings: &mut Timings,
    ) -> Result<Box<Connection>, Broken> {
        Connection::open(url, step.script, step.lane, begin, self.deadline.at(), timings).await
    }

    /// A connection to the same place that still stands.
    #[inline]
    fn take_connection(&mut self, url: &Url) -> Option<Box<Connection>> {
        while let Some(at) = self.connections.iter().rposition(|known| known.origin.same_origin(url)) {
            let mut connection = self.connections.remove(at);
            if !connection.is_stale() {
                return Some(connection);
            }
        }
        None
    }

    #[inline]
    fn give_back(&mut self, mut connection: Box<Connection>, script: &Script) {
        connection.reused = true;
        if self.connections.len() >= script.options.max_connections_per_vu.max(1) as usize {
            self.connections.remove(0);
        }
        self.connections.push(connection);
    }

    /// Counts checks and takes captures; false: one is missing, and the iteration ends.
    fn examine(&mut self, step: &Step<'_>, end: &HopEnd) -> bool {
        let status = if end.answered { self.reader.status } else { 0 };
        let kept = self.reader.kept.as_deref().filter(|_| end.answered);
        let response = Response::new(status, end.service, kept);
        let mut recorder = step.scope.lane.recorder.borrow_mut();
        for (name, check) in &step.plan.checks {
            recorder.check(step.series, end.at, name, response.check(check));
        }
        for capture in &step.plan.captures {
            let value = response.capture(capture);
            if value.is_none() {
                if end.answered {
                    recorder.error(step.series, end.at, ErrorKind::CaptureMissing, &capture.name);
                }
                return false;
            }
            self.variables.slots[capture.slot] = value;
        }
        true
    }
}

impl Outgoing {
    fn hop(&self, begin: Instant, intended: Option<Instant>, redirects_left: u32) -> Hop<'_> {
        Hop {
            url: &self.url,
            method: self.method,
            wire: Wire {
                head: &self.head,
                body: &self.body,
            },
            begin,
            intended,
            redirects_left,
        }
    }
}
