//! `KafkaCluster`, `IngestCluster` and `DatabaseCluster`: the way of results from workers to a database.

use super::environment::KafkaTopic;
use super::key::Key;
use super::service::{SecretRef, StringMap};
use serde::{Deserialize, Serialize};

/// A Kafka cluster that somebody else runs; only its topics are reconciled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaCluster {
    /// Where it is found.
    pub external: ExternalKafka,
    /// Topics that must be there; a missing one is made, none is ever deleted.
    pub topics: Vec<Topic>,
}

/// What a Kafka cluster's secret may hold, as [`ExternalKafka::secret`] says.
pub const KAFKA_SECRET_KEYS: [&str; 4] = ["username", "password", "mechanism", "ca"];

/// Where a Kafka cluster is found and how its clients prove themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalKafka {
    /// `host:port` of at least one broker.
    pub bootstrap_servers: Vec<String>,
    /// Values `username` and `password` (SASL), `mechanism` (`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`; default the last), `ca` (PEM; turns
    /// TLS on). `None`: plain text, nobody asks.
    pub secret: Option<SecretRef>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// At least so many partitions.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication_factor: u32,
    /// Kafka's own topic settings, set when it is made.
    pub config: StringMap,
}

/// Replicas of `muster ingest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestCluster {
    /// Where its replicas run.
    pub environment: Key,
    /// How many.
    pub replicas: u32,
    /// Where frames come from.
    pub from: KafkaTopic,
    /// The DatabaseCluster results go to.
    pub database: Key,
}

/// A database for results that somebody else runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseCluster {
    /// Which kind of server it is.
    pub engine: DatabaseEngine,
    /// The secret with its URL (`mysql://user:password@host:port/database`).
    pub url: SecretRef,
}

/// The kinds of database servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatabaseEngine {
    /// MySQL 8.
    Mysql,
    /// MariaDB 10.11.
    Mariadb,
}
