//! `KafkaCluster`, `IngestCluster` and `DatabaseCluster` as written.

use super::scalar::{ReferenceText, ServerText, TopicText, Unsupported};
use super::service::SecretRef;
use super::union::word_enum;
use super::wire;
use std::collections::BTreeMap;

wire! {
    /// A Kafka cluster that somebody else runs, and the topics that must be there.
    pub struct KafkaClusterSpec {
        /// Where its own brokers run.
        pub environment: Option<Unsupported>,
        /// The brokers' image.
        pub image: Option<Unsupported>,
        /// How many brokers.
        pub brokers: Option<Unsupported>,
        /// The cluster's id.
        pub cluster_id: Option<Unsupported>,
        /// The brokers' heap.
        pub heap: Option<Unsupported>,
        /// The brokers' disks.
        pub storage: Option<Unsupported>,
        /// The brokers' settings.
        pub config: Option<Unsupported>,
        /// Topics that must be there. A missing one is made; none is ever altered or deleted: one with fewer partitions, or another
        /// number of copies, is shown with what to do.
        #[serde(default)]
        #[schemars(length(max = 100))]
        pub topics: Vec<Topic>,
        /// Where the cluster is found. Muster reaches it, and starts or stops nothing of it.
        pub external: ExternalKafka,
    }

    /// Where a Kafka cluster is found and how its clients prove themselves.
    pub struct ExternalKafka {
        /// `host:port` of some of its brokers; the others are found through them.
        #[schemars(length(min = 1, max = 16))]
        pub bootstrap_servers: Vec<ServerText>,
        /// A secret of the settings with the keys `username` and `password` (SASL), `mechanism` (`PLAIN`, `SCRAM-SHA-256` or
        /// `SCRAM-SHA-512`, the default), and `ca` (PEM; turns TLS on). Absent: plain text, and nobody asks.
        pub secret_ref: Option<SecretName>,
    }

    /// A secret of the settings whose values have fixed names.
    pub struct SecretName {
        /// The secret's name in the settings.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
    }

    /// A topic.
    pub struct Topic {
        /// Up to 249 of a-z, A-Z, 0-9, dot, underscore and hyphen.
        pub name: TopicText,
        /// At least so many partitions; as many replicas of an IngestCluster can share the work.
        #[schemars(range(min = 1, max = 10_000))]
        pub partitions: u32,
        /// Copies of each partition; no more than the cluster has brokers.
        #[schemars(range(min = 1, max = 32))]
        pub replication_factor: u32,
        /// Kafka's own settings of the topic, such as `retention.ms: "86400000"`, set when the topic is made.
        #[serde(default)]
        #[schemars(length(max = 100))]
        pub config: BTreeMap<String, String>,
    }

    /// Replicas of `muster ingest`: they read results from a topic and write them to a database.
    pub struct IngestClusterSpec {
        /// The Environment its replicas run in.
        pub environment: ReferenceText,
        /// How many replicas; those beyond the topic's partitions have nothing to do. Default 1.
        #[schemars(range(max = 1_000))]
        pub replicas: Option<u32>,
        /// The KafkaCluster results come from.
        pub kafka_cluster: ReferenceText,
        /// One of its `topics`.
        pub topic: TopicText,
        /// The DatabaseCluster results go to.
        pub database_cluster: ReferenceText,
    }

    /// A database for results that somebody else runs. The daemon's own ledger is the settings' `store`.
    pub struct DatabaseClusterSpec {
        /// Where its own servers run.
        pub environment: Option<Unsupported>,
        /// mysql (8.0 or later) or mariadb (10.11 or later).
        pub engine: DatabaseEngine,
        /// The servers' image.
        pub image: Option<Unsupported>,
        /// Servers beside the primary.
        pub read_replicas: Option<Unsupported>,
        /// The servers' settings.
        pub config: Option<Unsupported>,
        /// The servers' users.
        pub credentials: Option<Unsupported>,
        /// The servers' disks.
        pub storage: Option<Unsupported>,
        /// Where the database is found. Muster makes and migrates its own tables in it, and starts or stops nothing of it.
        pub external: ExternalDatabase,
    }

    /// Where a database is found.
    pub struct ExternalDatabase {
        /// A secret of the settings whose value is `mysql://user:password@host:port/database`.
        pub secret_ref: SecretRef,
    }
}

word_enum! {
    /// The kinds of database servers.
    pub enum DatabaseEngine {
        "mysql" => Mysql,
        "mariadb" => Mariadb,
    }
    refused: [];
}
