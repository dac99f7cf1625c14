//! The worker endpoint: proves who dials in, and translates the wire to the fleet and the bus.

mod translate;

use crate::bus::Delivery;
use crate::bus::direct::{self, ENVELOPE_MAX_BYTES, May};
use crate::bus::wire::fleet_server::{Fleet as Service, FleetServer};
use crate::bus::wire::{self, from_worker};
use crate::control::fleet::door::{Bringer, Door, Pass};
use crate::control::fleet::{Connection, Fleet, MaySend};
use futures_util::stream::{BoxStream, StreamExt as _};
use muster_core::model::id::SessionId;
use secrecy::ExposeSecret as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// A TLS handshake takes a few round trips.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A worker says how it is doing each second. One that is silent for so long is cut off: over a network that swallows everything, no
/// other sign comes for long. Below the shortest orphan timeout, so that it is known to be away before it ends by itself.
const SILENCE: Duration = Duration::from_secs(4);
/// A worker says Hello at once.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// What streams get to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Streams of one connection: control, data and a few fetches.
const STREAMS_MAX: u32 = 64;

/// A place where workers dial in, and who may.
pub struct Entrance {
    /// Where.
    pub listener: TcpListener,
    /// What they are shown; `None`: no TLS, which is for loopback only.
    pub tls: Option<TlsIdentity>,
    /// Who may.
    pub door: Door,
}

/// A certificate chain and its private key, both PEM.
pub struct TlsIdentity {
    /// The chain, the server's own first.
    pub cert: String,
    /// The key.
    pub key: secrecy::SecretString,
}

/// Serves workers at an entrance until cancelled, and watches the fleet for lost workers meanwhile. `queue` leads to ingest.
///
/// # Errors
/// When the certificate cannot be used, or the server cannot go on.
pub async fn serve(
    entrance: Entrance,
    fleet: Fleet,
    queue: mpsc::Sender<Delivery>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let Entrance { listener, tls, door } = entrance;
    let door = Arc::new(door);
    let endpoint = Endpoint {
        fleet: fleet.clone(),
        queue,
        door: Arc::clone(&door),
        stop: stop.clone(),
    };
    let limit = ENVELOPE_MAX_BYTES.max(wire::CONTROL_MAX_BYTES);
    let service = FleetServer::new(endpoint)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let service = tonic::service::interceptor::InterceptedService::new(service, move |mut request: Request<()>| {
        let token = request.metadata().get(wire::TOKEN_KEY);
        match token.and_then(|token| door.pass(token.as_bytes())) {
            Some(pass) => {
                request.extensions_mut().insert(pass);
                Ok(request)
            }
            None => {
                rejected("token");
                let address = request.remote_addr().map(|address| address.ip());
                tracing::warn!(address = shown(address), "a caller's join token is missing or wrong");
                Err(Status::unauthenticated("the join token is missing or wrong"))
            }
        }
    });
    let mut server = Server::builder();
    if let Some(tls) = tls {
        let identity = Identity::from_pem(tls.cert, tls.key.expose_secret());
        server = server.tls_config(ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE_DEADLINE))?;
    }
    let server = server
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(wire::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(wire::KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
    // The shutdown waits for open streams; they end with `stop`, too, but for what a peer does not read. Whatever is not
    // acknowledged comes again from the workers' spools.
    let over = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        result = server => result,
        () = over => Ok(()),
        () = fleet.watch() => Ok(()),
    }
}

/// Counts one that was turned away.
fn rejected(reason: &'static str) {
    metrics::counter!("muster_worker_rejected_total", "reason" => reason).increment(1);
}

/// An address in the log.
fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

/// What the token of this request allows.
fn pass_of<T>(request: &Request<T>) -> Result<Pass, Status> {
    let pass = request.extensions().get::<Pass>().cloned();
    pass.ok_or_else(|| Status::unauthenticated("no token was looked at"))
}

struct Endpoint {
    fleet: Fleet,
    queue: mpsc::Sender<Delivery>,
    door: Arc<Door>,
    stop: CancellationToken,
}

impl Endpoint {
    /// Lets a worker in, or says why not.
    fn admit(&self, hello: wire::Hello, pass: &Pass, address: Option<IpAddr>) -> Result<Connection, String> {
        let pool = |worker, asked: &str| match self.fleet.pool_of(worker, &pass.bringer) {
            Some(pool) => Ok(pool),
            None => self.door.pool(&pass.bringer, asked),
        };
        self.fleet.connect(translate::hello(hello, address, pool)?, pass)
    }
}

/// Whether a session's frames may come from this one.
fn may_send(fleet: &Fleet, session: SessionId, bringer: &Bringer) -> May {
    match fleet.may_send(session, bringer) {
        MaySend::Yes => May::Yes,
        MaySend::NotYet => May::NotYet,
        MaySend::No => {
            rejected("session");
            tracing::warn!(%session, "frames of a session came from one who may not bring them");
            May::No("these frames are of another one's worker")
        }
    }
}

#[tonic::async_trait]
impl Service for Endpoint {
    type ControlStream = BoxStream<'static, Result<wire::FromOwner, Status>>;
    type DataStream = BoxStream<'static, Result<wire::Receipt, Status>>;
    type FetchStream = BoxStream<'static, Result<wire::FetchPiece, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<wire::FromWorker>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let pass = pass_of(&request)?;
        let address = request.remote_addr().map(|address| address.ip());
        let mut reports = request.into_inner();
        let first = timeout(HELLO_DEADLINE, reports.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello"))??;
        let Some(from_worker::What::Hello(hello)) = first.and_then(|message| message.what) else {
            return Err(Status::invalid_argument("the first message is not Hello"));
        };
        // A daemon that has just started: worth another try at once, unlike a refusal.
        if pass.bringer != Bringer::Own && !self.door.knows_pools() {
            return Err(Status::unavailable("the daemon has not read its plans yet"));
        }
        let connection = match self.admit(hello, &pass, address) {
            Ok(connection) => connection,
            Err(reason) => {
                rejected("hello");
                tracing::warn!(address = shown(address), reason, "a worker is turned away");
                let refused = translate::refused(reason);
                return Ok(Response::new(futures_util::stream::iter([Ok(refused)]).boxed()));
            }
        };
        tracing::info!(worker = %connection.worker(), "worker is connected");
        let mut beat = interval(wire::HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let talk = Talk {
            welcome: Some(translate::welcome(self.fleet.epoch(), connection.pool())),
            heard: Instant::now(),
            epoch: self.fleet.epoch(),
            connection,
            reports,
            beat,
            stop: self.stop.clone(),
        };
        let stream = futures_util::stream::unfold(talk, |mut talk| async move {
            let message = talk.next().await?;
            Some((Ok(message), talk))
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn data(&self, request: Request<Streaming<wire::Envelope>>) -> Result<Response<Self::DataStream>, Status> {
        let (fleet, pass) = (self.fleet.clone(), pass_of(&request)?);
        let may = move |session| may_send(&fleet, session, &pass.bringer);
        let stream = direct::receive(request.into_inner(), self.queue.clone(), may);
        let stream = stream.take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(stream.boxed()))
    }

    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let pass = pass_of(&request)?;
        let digest = request.into_inner().digest;
        let content = self
            .fleet
            .file(&digest, &pass.bringer)
            .ok_or_else(|| Status::not_found("no run needs a file of this digest"))?;
        let content = bytes::Bytes::from_owner(content);
        let pieces = (0..content.len()).step_by(wire::FETCH_PIECE_BYTES).map(move |start| {
            let end = content.len().min(start + wire::FETCH_PIECE_BYTES);
            Ok(wire::FetchPiece {
                content: content.slice(start..end),
            })
        });
        Ok(Response::new(futures_util::stream::iter(pieces).boxed()))
    }
}

/// One control connection. The answer stream drives it, so it ends with the connection.
struct Talk {
    welcome: Option<wire::FromOwner>,
    /// When it said something last.
    heard: Instant,
    epoch: u64,
    connection: Connection,
    reports: Streaming<wire::FromWorker>,
    beat: Interval,
    stop: CancellationToken,
}

impl Talk {
    /// The next message to the worker; `None` ends the connection.
    async fn next(&mut self) -> Option<wire::FromOwner> {
        if let Some(welcome) = self.welcome.take() {
            return Some(welcome);
        }
        loop {
            let report = tokio::select! {
                () = self.stop.cancelled() => return None,
                order = self.connection.order() => return Some(translate::order(order?, self.epoch)),
                _ = self.beat.tick() => {
                    if self.heard.elapsed() >= SILENCE {
                        tracing::info!(worker = %self.connection.worker(), "worker is silent; connection closed");
                        return None;
                    }
                    return Some(self.clock());
                }
                report = self.reports.message() => report,
            };
            self.heard = Instant::now();
            let what = match report {
                Ok(Some(message)) => message.what,
                Ok(None) => return None,
                Err(status) => {
                    tracing::info!(worker = %self.connection.worker(), %status, "worker's connection is cut");
                    return None;
                }
            };
            match self.take(what) {
                Some(true) => return Some(self.clock()),
                Some(false) => {}
                None => {
                    tracing::warn!(worker = %self.connection.worker(), "impossible report; connection closed");
                    rejected("report");
                    return None;
                }
            }
        }
    }

    fn clock(&self) -> wire::FromOwner {
        translate::clock(self.epoch, self.connection.owner_us())
    }

    /// Takes in a report. True: the clocks are to be compared once more at once. `None`: it cannot be.
    fn take(&mut self, what: Option<from_worker::What>) -> Option<bool> {
        match what? {
            from_worker::What::Hello(_) => return None,
            from_worker::What::Clock(reply) => {
                return Some(
                    self.connection
                        .exchanged(reply.owner_us, reply.worker_us, reply.wall_us),
                );
            }
            from_worker::What::Status(status) => self.connection.status(translate::status(&status)),
            from_worker::What::Goodbye(goodbye) => self.connection.goodbye(&goodbye.reason),
            from_worker::What::Progress(progress) => match translate::progress(progress)? {
                translate::News::Progress { run, number, progress } => {
                    if !self.connection.report(run, number, progress) {
                        return None;
                    }
                }
                translate::News::Released { run } => self.connection.released(run),
            },
        }
        Some(false)
    }
}
