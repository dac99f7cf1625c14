//! One connection: opened under the guard, carries one request and its response at a time.

use super::HttpLane;
use super::broken::Broken;
use super::response::{Progress, Reader, Want};
use super::script::Script;
use super::url::Url;
use crate::pacing::Deadline;
use crate::recorder::Timings;
use muster_core::measure::slice::ErrorKind;
use rustls::pki_types::ServerName;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection of one user.
pub(crate) struct Connection {
    stream: Stream,
    /// Scheme, host and port it was opened for.
    pub(crate) origin: Url,
    /// Whether it carried a response already.
    pub(crate) reused: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What goes over the wire: head and body, or all in the first.
#[derive(Clone, Copy)]
pub(crate) struct Wire<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// A request that was sent and answered, or how far it came.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) sent_at: Option<Instant>,
    pub(crate) first_byte_at: Option<Instant>,
    pub(crate) written: u64,
    pub(crate) received: u64,
    /// Nothing followed the response, so the connection may be used again.
    pub(crate) clean: bool,
}

impl Connection {
    /// Opens a connection to where `url` may go; what it took goes to `timings`.
    pub(crate) async fn open(
        url: &Url,
        script: &Script,
        lane: &HttpLane,
        begin: Instant,
        deadline: Instant,
        timings: &mut Timings,
    ) -> Result<Box<Self>, Broken> {
        let opening = async {
            let addresses = script.guard.addresses(url).await?;
            let resolved = Instant::now();
            timings.blocked += resolved - begin;
            // Pinned: what was checked is what is connected to.
            let address = addresses[lane.next_address() % addresses.len()];
            let tcp = TcpStream::connect(address)
                .await
                .map_err(|error| Broken::connect(&error))?;
            let _ = tcp.set_nodelay(true);
            let connected = Instant::now();
            timings.connecting += connected - resolved;
            if !url.tls {
                return Ok(Stream::Plain(tcp));
            }
            let name = ServerName::try_from(url.host.clone())
                .map_err(|_| Broken::new(ErrorKind::Tls, "the host is no name for a certificate"))?;
            let tls = TlsConnector::from(script.tls.clone()).connect(name, tcp).await;
            let tls = tls.map_err(|error| Broken::new(ErrorKind::Tls, error.to_string()))?;
            timings.tls += connected.elapsed();
            Ok(Stream::Tls(Box::new(tls)))
        };
        let stream = match tokio::time::timeout_at(deadline.into(), opening).await {
            Ok(stream) => stream?,
            Err(_) => {
                return Err(Broken::new(
                    ErrorKind::ConnectTimeout,
                    "no connection within the timeout",
                ));
            }
        };
        Ok(Box::new(Self {
            stream,
            origin: url.origin(),
            reused: false,
        }))
    }

    /// Whether the server closed it, or sent what nobody asked for, since its last response. Costs no system call where nothing came.
    pub(crate) fn is_stale(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        match &mut self.stream {
            Stream::Plain(tcp) => {
                !matches!(tcp.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            }
            Stream::Tls(tls) => {
                let mut context = Context::from_waker(Waker::noop());
                Pin::new(tls)
                    .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
                    .is_ready()
            }
        }
    }

    /// Sends a request and reads its response. How far it came stands in `exchange`, also when it breaks.
    pub(crate) async fn exchange(
        &mut self,
        wire: Wire<'_>,
        want: &Want<'_>,
        reader: &mut Reader,
        deadline: &mut Deadline,
        lane: &HttpLane,
        exchange: &mut Exchange,
    ) -> Result<Instant, Broken> {
        std::future::poll_fn(|context| {
            let sent = match exchange.sent_at {
                None => self.poll_send(wire, exchange, context),
                Some(_) => Poll::Ready(Ok(())),
            };
            let received = self.poll_receive(want, reader, lane, exchange, context);
            let polled = match (sent, received) {
                (Poll::Ready(Ok(())), received) => received,
                // A server may answer before it has read everything, and then reads no more.
                (_, Poll::Ready(Ok(at))) => {
                    exchange.clean = false;
                    Poll::Ready(Ok(at))
                }
                (Poll::Ready(Err(broken)), _) => Poll::Ready(Err(broken)),
                (Poll::Pending, received) => received,
            };
            if polled.is_pending() && deadline.poll_passed(context) {
                return Poll::Ready(Err(Broken::new(
                    ErrorKind::Timeout,
                    "no complete response within the timeout",
                )));
            }
            polled
        })
        .await
    }

    fn poll_send(
        &mut self,
        wire: Wire<'_>,
        exchange: &mut Exchange,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let all = wire.head.len() + wire.body.len();
        while (exchange.written as usize) < all {
            let done = exchange.written as usize;
            let polled = if done >= wire.head.len() {
                self.stream.poll_write(context, &wire.body[done - wire.head.len()..])
            } else if wire.body.is_empty() {
                self.stream.poll_write(context, &wire.head[done..])
            } else {
                let parts = [IoSlice::new(&wire.head[done..]), IoSlice::new(wire.body)];
                self.stream.poll_write_vectored(context, &parts)
            };
            match ready!(polled) {
                Ok(0) => return Poll::Ready(Err(Broken::new(ErrorKind::Write, "the connection takes no more bytes"))),
                Ok(written) => exchange.written += written as u64,
                Err(error) => return Poll::Ready(Err(Broken::io(ErrorKind::Write, &error))),
            }
        }
        if let Stream::Tls(tls) = &mut self.stream {
            ready!(Pin::new(tls).poll_flush(context)).map_err(|error| Broken::io(ErrorKind::Write, &error))?;
        }
        exchange.sent_at = Some(Instant::now());
        Poll::Ready(Ok(()))
    }

    fn poll_receive(
        &mut self,
        want: &Want<'_>,
        reader: &mut Reader,
        lane: &HttpLane,
        exchange: &mut Exchange,
        context: &mut Context<'_>,
    ) -> Poll<Result<Instant, Broken>> {
        // All users of a thread read through one buffer: what is read is parsed before anyone else may read.
        let mut buffer = lane.buffer.borrow_mut();
        loop {
            let mut space = ReadBuf::new(&mut buffer);
            match ready!(self.stream.poll_read(context, &mut space)) {
                Ok(()) => {}
                Err(error) => return Poll::Ready(Err(Broken::io(ErrorKind::Read, &error))),
            }
            let bytes = space.filled();
            if bytes.is_empty() {
                return Poll::Ready(reader.end().map(|()| Instant::now()));
            }
            let now = Instant::now();
            exchange.received += bytes.len() as u64;
            exchange.first_byte_at.get_or_insert(now);
            match reader.feed_known(bytes, want, &mut lane.known.borrow_mut()) {
                Ok(Progress::More) => {}
                Ok(Progress::Done { clean }) => {
                    exchange.clean = clean;
                    return Poll::Ready(Ok(now));
                }
                Err(broken) => return Poll::Ready(Err(broken)),
            }
        }
    }
}

impl Stream {
    #[inline]
    fn poll_read(&mut self, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, space),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, space),
        }
    }

    #[inline]
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, parts),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, parts),
        }
    }
}
