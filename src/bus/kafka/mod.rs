//! The bus through Apache Kafka: who its brokers are, how one proves oneself, and what both ends have in common.
//!
//! The key of a record is run and session (16 bytes each), so that anyone sees whose it is; its header `sequence` (8 bytes, big endian) is
//! the message's number; its value is what `measure::frame` wrote. A session's records stand in one partition, in order.

mod at;
mod consumer;
mod partitions;
mod producer;
mod shape;
mod topic;

pub use at::{AddressError, TopicAt};
pub use consumer::{ConsumerState, KafkaConsumer};
pub use producer::KafkaProducer;
pub use shape::{Shape, topics};
pub use topic::{Lag, TopicSpec, check_topic, ensure_topic, lag};

use super::Message;
use muster_core::model::id::{RunId, SessionId};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;
use uuid::Uuid;

/// Room that a record needs beside its payload: key, header, and what Kafka itself adds.
const RECORD_OVERHEAD_BYTES: usize = 64 << 10;
/// Largest record: what the topic must take.
pub const RECORD_MAX_BYTES: usize = super::PAYLOAD_MAX_BYTES + RECORD_OVERHEAD_BYTES;
/// Brokers that have not answered a question by then are not there. A cluster that elects a new leader answers within it.
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// Longest pause before a lost broker is tried again: one that was killed is back in seconds.
const RECONNECT_MAX_MS: &str = "1000";
/// An unanswered request is sent anew, perhaps to another broker, after so long. Brokers answer in milliseconds.
const REQUEST_TIMEOUT_MS: &str = "10000";
const SEQUENCE_HEADER: &str = "sequence";

/// Where a cluster is and how one proves oneself to it.
#[derive(Debug, Clone)]
pub struct Brokers {
    /// `host:port` of at least one.
    pub bootstrap_servers: Vec<String>,
    /// `None`: nobody asks.
    pub sasl: Option<Sasl>,
    /// Certificate (PEM) that the brokers' are checked against; `None`: plain text.
    pub ca: Option<String>,
}

/// A user of the brokers.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// How the password is shown.
    pub mechanism: Mechanism,
    /// Who.
    pub username: String,
    /// Not shown by `Debug`.
    pub password: SecretString,
}

/// How a password is shown to brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// As it is: only over TLS.
    Plain,
    /// As a proof with SHA-256.
    ScramSha256,
    /// As a proof with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// Kafka's own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    /// Reads Kafka's own word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.as_str() == text)
    }
}

/// What Kafka's brokers or their client library could not do.
#[derive(Debug, thiserror::Error)]
pub enum BrokersError {
    /// The connection's settings are none.
    #[error("cannot be a client of kafka: {0}")]
    Settings(String),
    /// No broker answered in time, or they said no.
    #[error("kafka at {servers} does not answer: {reason}")]
    Unreachable {
        /// Whom was asked.
        servers: String,
        /// What the client library knows.
        reason: String,
    },
    /// The topic is not there.
    #[error("kafka at {servers} has no topic `{topic}`")]
    NoTopic {
        /// Where.
        servers: String,
        /// Which.
        topic: String,
    },
    /// It is there, and will not do.
    #[error("kafka topic `{topic}` {problem}")]
    Unfit {
        /// Which.
        topic: String,
        /// What does not fit, and what to do.
        problem: String,
    },
}

impl Brokers {
    /// Their addresses as one text.
    pub fn servers(&self) -> String {
        self.bootstrap_servers.join(",")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.servers())
            .set("client.id", "muster")
            .set("reconnect.backoff.max.ms", RECONNECT_MAX_MS)
            .set("socket.timeout.ms", REQUEST_TIMEOUT_MS)
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true");
        let protocol = match (&self.sasl, &self.ca) {
            (None, None) => "plaintext",
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(ca) = &self.ca {
            config.set("ssl.ca.pem", ca);
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanism", sasl.mechanism.as_str())
                .set("sasl.username", &sasl.username)
                .set("sasl.password", sasl.password.expose_secret());
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    fn unreachable(&self, error: &KafkaError, told: &Told) -> BrokersError {
        // What the library said last is nearer to the cause than "transport failure".
        let reason = told.last().unwrap_or_else(|| error.to_string());
        BrokersError::Unreachable {
            servers: self.servers(),
            reason,
        }
    }
}

/// Keeps the last thing that the client library complained of, and sends its log lines to ours.
#[derive(Debug, Clone, Default)]
struct Told(std::sync::Arc<std::sync::Mutex<Option<String>>>);

impl Told {
    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn keep(&self, reason: &str) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Error) {
            self.keep(message);
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka's client complains");
        // That all are down says less than why one is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.keep(reason);
        }
    }
}

/// The library's lines are for whoever looks closer: what matters of them comes back as errors.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, facility, "{message}");
}

/// What belongs to a partition's records: whose they are.
fn key(run: RunId, session: SessionId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(run.0.as_bytes());
    key[16..].copy_from_slice(session.0.as_bytes());
    key
}

fn headers(sequence: u64) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header {
        key: SEQUENCE_HEADER,
        value: Some(&sequence.to_be_bytes()),
    })
}

/// The message in a record. One whose labels are missing or none has nil for them: ingest refuses it, and says so.
fn read(record: &impl rdkafka::message::Message) -> Message {
    let labels = record.key().and_then(|key| {
        let (run, session) = key.split_at_checked(16)?;
        Some((Uuid::from_slice(run).ok()?, Uuid::from_slice(session).ok()?))
    });
    let sequence = record.headers().and_then(|headers| {
        let header = headers.iter().find(|header| header.key == SEQUENCE_HEADER)?;
        Some(u64::from_be_bytes(header.value?.try_into().ok()?))
    });
    let ((run, session), sequence) = labels.zip(sequence).unwrap_or_default();
    Message {
        run: RunId(run),
        session: SessionId(session),
        sequence,
        payload: bytes::Bytes::copy_from_slice(record.payload().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Brokers, Mechanism, Sasl, headers, key, read};
    use muster_core::model::id::{RunId, SessionId};
    use rdkafka::message::{OwnedHeaders, OwnedMessage, Timestamp};
    use uuid::Uuid;

    fn record(key: Option<Vec<u8>>, headers: Option<OwnedHeaders>) -> OwnedMessage {
        let (topic, time) = ("t".to_owned(), Timestamp::NotAvailable);
        OwnedMessage::new(Some(vec![7]), key, topic, time, 0, 0, headers)
    }

    #[test]
    fn s48_a_record_says_whose_it_is_and_which() {
        let (run, session) = (RunId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)));
        let good = key(run, session).to_vec();
        let message = read(&record(Some(good.clone()), Some(headers(9))));
        assert_eq!((message.run, message.session, message.sequence), (run, session, 9));
        assert_eq!(message.payload[..], [7]);
        let wrong = OwnedHeaders::new().insert(rdkafka::message::Header {
            key: "sequence",
            value: Some("9"),
        });
        for (key, headers) in [
            (None, Some(headers(9))),
            (Some(good[1..].to_vec()), Some(headers(9))),
            (Some(Vec::new()), Some(headers(9))),
            (Some(good.clone()), None),
            (Some(good), Some(wrong)),
        ] {
            let message = read(&record(key, headers));
            assert!(message.run.0.is_nil() && message.session.0.is_nil() && message.sequence == 0);
        }
    }

    #[test]
    fn s57_a_password_is_not_shown() {
        let brokers = Brokers {
            bootstrap_servers: vec!["a:1".to_owned(), "b:2".to_owned()],
            sasl: Some(Sasl {
                mechanism: Mechanism::ScramSha512,
                username: "me".to_owned(),
                password: "hunter2".into(),
            }),
            ca: None,
        };
        assert!(!format!("{brokers:?}").contains("hunter2"));
        assert_eq!(brokers.config().get("sasl.password"), Some("hunter2"));
        assert_eq!(brokers.servers(), "a:1,b:2");
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(mechanism.as_str()), Some(mechanism));
        }
    }
}
