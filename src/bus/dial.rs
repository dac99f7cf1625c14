//! How a worker finds its owner and proves itself: address, token and certificates are read anew at each dial, so that it survives a
//! daemon's restart and changed secrets.

use super::wire::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, TOKEN_KEY, fleet_client::FleetClient};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// A connection that is not there by then will not come: the owner is on loopback or in the same network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest token or address file worth reading.
const FILE_MAX_BYTES: u64 = 4_096;
/// And of certificates: every authority of a distribution together is below.
const CA_MAX_BYTES: u64 = 1 << 20;
/// What is wrong with an address.
const NO_ADDRESS: &str = "the owner's address is not HOST:PORT";

/// Where the owner listens.
#[derive(Debug, Clone)]
pub enum Address {
    /// `HOST:PORT`.
    Fixed(String),
    /// A file that holds `HOST:PORT`; the daemon writes it anew at each start.
    File(PathBuf),
}

/// Everything a dial needs.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where.
    pub address: Address,
    /// File with the join token.
    pub token_file: PathBuf,
    /// File with the certificates (PEM) that the owner's is checked against; `None`: the machine's own, and no TLS at all to loopback.
    pub ca_file: Option<PathBuf>,
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or argument does not hold what it should.
    #[error("{0}")]
    Content(&'static str),
    /// The file of certificates holds none, or the host's name cannot stand in one.
    #[error("cannot set up TLS")]
    Tls(#[source] tonic::transport::Error),
    /// Nobody answers.
    #[error("cannot connect to {address}")]
    Connect {
        /// Whom.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// A client that shows the token.
pub type Client = FleetClient<InterceptedService<Channel, ShowToken>>;

impl Dial {
    /// The address, for people.
    pub async fn shown(&self) -> String {
        match &self.address {
            Address::Fixed(address) => address.clone(),
            Address::File(path) => read(path.clone()).await.unwrap_or_default(),
        }
    }

    /// Opens a new connection.
    ///
    /// # Errors
    /// When a file cannot be read or nobody answers.
    pub async fn connect(&self) -> Result<Client, DialError> {
        let address = match &self.address {
            Address::Fixed(address) => address.clone(),
            Address::File(path) => read(path.clone()).await?,
        };
        let tls = self.tls(&address).await?;
        let token = read(self.token_file.clone()).await?;
        let token = token
            .parse::<MetadataValue<Ascii>>()
            .map_err(|_| DialError::Content("the join token holds more than visible ASCII"))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|_| DialError::Content(NO_ADDRESS))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(DialError::Tls)?;
        }
        let channel = endpoint
            .connect()
            .await
            .map_err(|source| DialError::Connect { address, source })?;
        Ok(FleetClient::with_interceptor(channel, ShowToken(token)))
    }

    /// A token never goes over a network in the clear: only an owner on this machine is talked to without TLS.
    async fn tls(&self, address: &str) -> Result<Option<ClientTlsConfig>, DialError> {
        let host = host_of(address).ok_or(DialError::Content(NO_ADDRESS))?;
        let config = ClientTlsConfig::new().timeout(CONNECT_TIMEOUT);
        Ok(match &self.ca_file {
            Some(path) => {
                let pem = read_bytes(path.clone(), CA_MAX_BYTES).await?;
                Some(config.ca_certificate(Certificate::from_pem(pem)))
            }
            None if is_loopback(host) => None,
            None => Some(config.with_native_roots()),
        })
    }
}

/// Takes the address of an owner as a person writes it.
///
/// # Errors
/// When it is none.
pub fn parse_address(text: &str) -> Result<String, &'static str> {
    host_of(text).map(|_| text.to_owned()).ok_or("an address is HOST:PORT")
}

/// The host of `HOST:PORT`, brackets of an IPv6 address apart.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn read(path: PathBuf) -> Result<String, DialError> {
    let bytes = read_bytes(path, FILE_MAX_BYTES).await?;
    let text = String::from_utf8(bytes).map_err(|_| DialError::Content("the address or token file is not text"))?;
    Ok(text.trim().to_owned())
}

async fn read_bytes(path: PathBuf, max: u64) -> Result<Vec<u8>, DialError> {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    let work = async {
        let file = tokio::fs::File::open(&path).await?;
        file.take(max).read_to_end(&mut bytes).await
    };
    match work.await {
        Ok(_) => Ok(bytes),
        Err(source) => Err(DialError::File { path, source }),
    }
}

/// Puts the join token on each request.
#[derive(Clone)]
pub struct ShowToken(MetadataValue<Ascii>);

impl std::fmt::Debug for ShowToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ShowToken")
    }
}

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(TOKEN_KEY, self.0.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::{host_of, is_loopback};

    #[test]
    fn s57_only_an_owner_on_this_machine_is_talked_to_in_the_clear() {
        for (address, host, near) in [
            ("127.0.0.1:8421", Some("127.0.0.1"), true),
            ("127.9.9.9:1", Some("127.9.9.9"), true),
            ("[::1]:8421", Some("::1"), true),
            ("localhost:8421", Some("localhost"), true),
            ("localhost.example.com:8421", Some("localhost.example.com"), false),
            ("10.0.0.1:8421", Some("10.0.0.1"), false),
            ("[fd00::1]:8421", Some("fd00::1"), false),
            ("muster.example.com", None, false),
            (":8421", None, false),
            ("host:port", None, false),
        ] {
            assert_eq!(host_of(address), host, "{address}");
            assert_eq!(host.is_some_and(is_loopback), near, "{address}");
        }
    }
}
