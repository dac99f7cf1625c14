//! How a worker finds its owner: the address and the token are read anew at each dial, so that it survives a daemon's restart.

use super::wire::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, TOKEN_KEY, fleet_client::FleetClient};
use std::path::PathBuf;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A connection that is not there by then will not come: the owner is on loopback or in the same network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest token or address file worth reading.
const FILE_MAX_BYTES: u64 = 4_096;

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
    /// Opens a new connection.
    ///
    /// # Errors
    /// When a file cannot be read or nobody answers.
    pub async fn connect(&self) -> Result<Client, DialError> {
        let address = match &self.address {
            Address::Fixed(address) => address.clone(),
            Address::File(path) => read(path.clone()).await?,
        };
        let token = read(self.token_file.clone()).await?;
        let token = token
            .parse::<MetadataValue<Ascii>>()
            .map_err(|_| DialError::Content("the join token holds more than visible ASCII"))?;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| DialError::Content("the owner's address is not HOST:PORT"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = endpoint
            .connect()
            .await
            .map_err(|source| DialError::Connect { address, source })?;
        Ok(FleetClient::with_interceptor(channel, ShowToken(token)))
    }
}

async fn read(path: PathBuf) -> Result<String, DialError> {
    use tokio::io::AsyncReadExt as _;
    let mut text = String::new();
    let work = async {
        let file = tokio::fs::File::open(&path).await?;
        file.take(FILE_MAX_BYTES).read_to_string(&mut text).await
    };
    match work.await {
        Ok(_) => Ok(text.trim().to_owned()),
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
