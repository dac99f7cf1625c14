//! `muster ingest`: takes frames from a Kafka topic and stores them, as one of any number of members of a group.

use super::exit::Exit;
use super::output;
use crate::api::ingest::{Probe, serve};
use crate::bus::kafka::{Brokers, KafkaConsumer, Mechanism, Sasl, check_topic};
use crate::ingest::{DEFAULT_GROUP, ingest};
use crate::runtime::clock::Clock;
use crate::runtime::telemetry;
use crate::store;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Largest password, address or certificate file worth reading.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// Take results from Kafka and store them. Start it as often as you like: the members of a group share the topic.
#[derive(Debug, Args)]
pub struct IngestArgs {
    /// Kafka's brokers, HOST:PORT with commas between.
    #[arg(
        long,
        value_name = "SERVERS",
        value_delimiter = ',',
        required = true,
        env = "MUSTER_KAFKA_BOOTSTRAP"
    )]
    bootstrap: Vec<String>,
    /// The topic that workers send to.
    #[arg(long, value_name = "NAME", env = "MUSTER_KAFKA_TOPIC")]
    topic: String,
    /// The group it is a member of.
    #[arg(long, value_name = "NAME", env = "MUSTER_KAFKA_GROUP", default_value = DEFAULT_GROUP)]
    group: String,
    /// Where results are kept: mysql://USER:PASSWORD@HOST:PORT/DATABASE or sqlite://PATH. As MUSTER_STORE or in a file it is not seen in
    /// lists of processes.
    #[arg(
        long,
        value_name = "URL",
        env = "MUSTER_STORE",
        hide_env_values = true,
        required_unless_present = "store_file"
    )]
    store: Option<String>,
    /// File with that address.
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    store_file: Option<PathBuf>,
    /// How the password is shown to the brokers: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    #[arg(
        long,
        value_name = "NAME",
        env = "MUSTER_KAFKA_MECHANISM",
        default_value = "SCRAM-SHA-512"
    )]
    mechanism: String,
    /// The brokers' user; without it nobody is asked who we are. The password is in MUSTER_KAFKA_PASSWORD or in a file.
    #[arg(long, value_name = "NAME", env = "MUSTER_KAFKA_USERNAME")]
    username: Option<String>,
    /// File with the user's password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File with the certificate (PEM) of who vouches for the brokers; turns TLS on. The certificate itself may stand in MUSTER_KAFKA_CA.
    #[arg(long, value_name = "FILE", env = "MUSTER_KAFKA_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Where /livez, /readyz and /metrics answer.
    #[arg(long, value_name = "HOST:PORT", env = "MUSTER_INGEST_LISTEN")]
    listen: Option<SocketAddr>,
}

impl IngestArgs {
    fn store(&self) -> Result<String> {
        match (&self.store, &self.store_file) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(file)) => read(file),
            (None, None) => unreachable!("clap requires one of the two"),
        }
    }

    fn brokers(&self) -> Result<Brokers> {
        let sasl = match &self.username {
            None if self.password_file.is_some() || std::env::var_os("MUSTER_KAFKA_PASSWORD").is_some() => {
                bail!("a password for kafka needs --username or MUSTER_KAFKA_USERNAME")
            }
            None => None,
            Some(username) => {
                let Some(mechanism) = Mechanism::parse(&self.mechanism) else {
                    let known = Mechanism::ALL.map(Mechanism::as_str).join(", ");
                    bail!("`{}` is no way to show a password; there are {known}", self.mechanism);
                };
                let password = match (&self.password_file, std::env::var("MUSTER_KAFKA_PASSWORD")) {
                    (Some(file), _) => read(file)?,
                    (None, Ok(password)) => password,
                    (None, Err(_)) => bail!("--username needs --password-file or MUSTER_KAFKA_PASSWORD"),
                };
                Some(Sasl {
                    mechanism,
                    username: username.clone(),
                    password: password.into(),
                })
            }
        };
        Ok(Brokers {
            bootstrap_servers: self.bootstrap.clone(),
            sasl,
            ca: match &self.ca_file {
                Some(file) => Some(read(file)?),
                None => std::env::var("MUSTER_KAFKA_CA").ok(),
            },
        })
    }
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(FILE_MAX_BYTES).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Runs the command until SIGTERM or Ctrl-C; then stores what it holds, for a bounded time, and leaves the group. A second signal ends it
/// at once: what was not stored comes again.
///
/// # Errors
/// When the database or the brokers cannot be reached, or the topic will not do.
pub async fn run(args: &IngestArgs) -> Result<Exit> {
    // Before anything else, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (brokers, url) = (args.brokers()?, args.store()?);
    let metrics = telemetry::metrics().map_err(anyhow::Error::msg)?;
    let results = store::open(&url).await?.results;
    let partitions = check_topic(&brokers, &args.topic, 1).await?;
    let listener = match args.listen {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("cannot listen on {address}; change --listen"))?)
        }
        None => None,
    };
    let mut consumer = KafkaConsumer::join(&brokers, &args.topic, &args.group)?;
    let stop = CancellationToken::new();
    if let Some(listener) = listener {
        output::progress(&format!("listening on http://{}", listener.local_addr()?));
        let probe = Probe::new(consumer.state(), results.clone(), metrics);
        tokio::spawn(serve(probe, listener, stop.clone().cancelled_owned()));
    }
    output::progress(&format!(
        "taking {} ({partitions} partitions) from {} as a member of {}, into {}",
        args.topic,
        brokers.servers(),
        args.group,
        store::redact(&url)
    ));
    let (_handle, intake) = ingest(results, Clock::system());
    let work = async {
        intake.run(&mut consumer, stop.clone()).await;
        // Without having been told to: kafka lets it read no more.
        let exit = if stop.is_cancelled() { Exit::Done } else { Exit::Failed };
        consumer.close().await;
        exit
    };
    tokio::pin!(work);
    tokio::select! {
        exit = &mut work => return Ok(exit),
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    output::progress("stopping: what is held is stored, the rest stays in kafka (again: at once)");
    stop.cancel();
    tokio::select! {
        exit = &mut work => Ok(exit),
        _ = terminate.recv() => Ok(Exit::Interrupted),
        _ = interrupt.recv() => Ok(Exit::Interrupted),
    }
}
