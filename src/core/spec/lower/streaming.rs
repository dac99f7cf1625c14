//! `KafkaCluster`, `IngestCluster` and `DatabaseCluster`, and the topics that pools and ingests name.

use super::{Lower, at};
use crate::model::environment::{KafkaTopic, ProviderSpec};
use crate::model::key::{Key, Kind};
use crate::model::plan::TestPlan;
use crate::model::service::SecretRef;
use crate::model::streaming::{DatabaseCluster, DatabaseEngine, ExternalKafka, IngestCluster, KafkaCluster, Topic};
use crate::spec::code::Code;
use crate::spec::hint::did_you_mean;
use crate::spec::tree::shown;
use crate::spec::wire::scalar::{ReferenceText, TopicText};
use crate::spec::wire::service::SecretRef as WireSecret;
use crate::spec::wire::streaming::{
    DatabaseClusterSpec, DatabaseEngine as WireEngine, IngestClusterSpec, KafkaClusterSpec, SecretName,
    Topic as WireTopic,
};
use std::collections::BTreeMap;

/// Longest name of a topic setting, and of its value: far above all that Kafka has.
const CONFIG_KEY_BYTES_MAX: usize = 255;
const CONFIG_VALUE_BYTES_MAX: usize = 4_096;

impl Lower<'_, '_> {
    /// A Kafka cluster's secret has keys of its own, so none of them is picked.
    fn kafka_secret(&mut self, wire: &SecretName) -> SecretRef {
        let wire = WireSecret {
            name: wire.name.clone(),
            key: None,
        };
        self.secret("/spec/external/secretRef", &wire)
    }

    /// Lowers a KafkaCluster.
    pub(super) fn kafka_cluster(&mut self, wire: &KafkaClusterSpec) -> KafkaCluster {
        let names = wire.topics.iter().map(|topic| topic.name.0.as_str());
        self.unique("/spec/topics", "topic", names);
        self.colliding(&wire.topics);
        let mut topics = Vec::new();
        for (index, topic) in wire.topics.iter().enumerate() {
            self.topic_config(&at(&at("/spec/topics", index), "config"), &topic.config);
            topics.push(Topic {
                name: topic.name.0.clone(),
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                config: topic.config.clone(),
            });
        }
        let servers = wire.external.bootstrap_servers.iter();
        let secret = wire.external.secret_ref.as_ref();
        KafkaCluster {
            external: ExternalKafka {
                bootstrap_servers: servers.map(|server| server.0.clone()).collect(),
                secret: secret.map(|secret| self.kafka_secret(secret)),
            },
            topics,
        }
    }

    /// Kafka refuses a topic whose name differs from another's in dots and underscores only: its metrics cannot tell them apart.
    fn colliding(&mut self, topics: &[WireTopic]) {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (index, topic) in topics.iter().enumerate() {
            let name = topic.name.0.as_str();
            match seen.get(&name.replace('.', "_")) {
                Some(other) if *other != name => {
                    let text = format!(
                        "Kafka cannot have the topics `{other}` and `{name}`: dots and underscores count as equal"
                    );
                    self.error(&at(&at("/spec/topics", index), "name"), Code::NotUnique, text);
                }
                Some(_) => {}
                None => drop(seen.insert(name.replace('.', "_"), name)),
            }
        }
    }

    fn topic_config(&mut self, pointer: &str, config: &BTreeMap<String, String>) {
        for (key, value) in config {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if key.is_empty() || key.len() > CONFIG_KEY_BYTES_MAX || !key.bytes().all(known) {
                let text = format!("`{}` is not the name of a topic setting", shown(key));
                self.error_hint(
                    &at(pointer, key),
                    Code::BadFormat,
                    text,
                    "write for example `retention.ms`",
                );
            }
            if value.len() > CONFIG_VALUE_BYTES_MAX {
                let text = format!("the value has more than {CONFIG_VALUE_BYTES_MAX} bytes");
                self.error(&at(pointer, key), Code::OutOfRange, text);
            }
        }
    }

    /// Lowers a DatabaseCluster.
    pub(super) fn database_cluster(&mut self, wire: &DatabaseClusterSpec) -> DatabaseCluster {
        DatabaseCluster {
            engine: match wire.engine {
                WireEngine::Mysql => DatabaseEngine::Mysql,
                WireEngine::Mariadb => DatabaseEngine::Mariadb,
            },
            url: self.secret("/spec/external/secretRef", &wire.external.secret_ref),
        }
    }

    /// Lowers an IngestCluster.
    pub(super) fn ingest_cluster(&mut self, wire: &IngestClusterSpec) -> Option<IngestCluster> {
        let kind = Kind::Environment;
        let environment = self.reference("/spec/environment", &wire.environment, &[kind], Some(kind));
        if let Some(environment) = &environment {
            self.not_joined(environment);
        }
        let from = self.topic("/spec", &wire.kafka_cluster, &wire.topic);
        let kind = Kind::DatabaseCluster;
        let database = self.reference("/spec/databaseCluster", &wire.database_cluster, &[kind], Some(kind));
        let (environment, from) = (environment?, from?);
        let replicas = wire.replicas.unwrap_or(1);
        let cluster = self.index.kafka(&from.cluster);
        let topic = cluster.and_then(|cluster| cluster.topics.iter().find(|topic| topic.name == from.topic));
        if let Some(partitions) = topic
            .map(|topic| topic.partitions)
            .filter(|partitions| replicas > *partitions)
        {
            let text = format!(
                "only {partitions} of {replicas} replicas have something to do: topic `{}` has {partitions} partitions",
                from.topic
            );
            self.warning("/spec/replicas", Code::OutOfRange, text);
        }
        Some(IngestCluster {
            environment,
            replicas,
            from,
            database: database?,
        })
    }

    /// A KafkaCluster and one of its topics, in the fields `kafkaCluster` and `topic`.
    pub(super) fn topic(&mut self, pointer: &str, cluster: &ReferenceText, topic: &TopicText) -> Option<KafkaTopic> {
        let kind = Kind::KafkaCluster;
        let key = self.reference(&at(pointer, "kafkaCluster"), cluster, &[kind], Some(kind))?;
        if let Some(found) = self.index.kafka(&key) {
            let names = || found.topics.iter().map(|topic| topic.name.as_str());
            if !names().any(|name| name == topic.0) {
                let text = format!("{key} has no topic `{}`", topic.0);
                let hint = did_you_mean(&topic.0, names())
                    .unwrap_or_else(|| format!("`topics` of the {kind} lists what must be there"));
                self.error_hint(&at(pointer, "topic"), Code::UndefinedTopic, text, hint);
                return None;
            }
        }
        Some(KafkaTopic {
            cluster: key,
            topic: topic.0.clone(),
        })
    }

    /// A plan whose workers send over Kafka says which database its results go to, and somebody takes them there.
    pub(super) fn way_of_results(&mut self, plan: &TestPlan) {
        let Some(bus) = plan
            .pool
            .as_ref()
            .and_then(|key| self.index.pool(key))
            .and_then(|pool| pool.bus.clone())
        else {
            return;
        };
        let Some(database) = &plan.results else {
            let text = format!(
                "the pool sends results to topic `{}` of {}, and `results.databaseCluster` does not say where they go",
                bus.topic, bus.cluster
            );
            let hint = "write `results: {databaseCluster: NAME}`; the daemon's own store is not fed from Kafka";
            self.error_hint("/spec/pool", Code::NoDatabase, text, hint);
            return;
        };
        let readers = || self.index.ingests().filter(|ingest| ingest.from == bus);
        if readers().any(|ingest| ingest.database == *database) {
            return;
        }
        if let Some(other) = readers().next() {
            let text = format!(
                "topic `{}` of {}, which the pool sends to, is taken to {} and not to {database}",
                bus.topic, bus.cluster, other.database
            );
            let hint = "write that database, or a pool that sends to a topic of its own";
            self.error_hint("/spec/results/databaseCluster", Code::TopicTaken, text, hint);
        } else {
            let text = format!(
                "no IngestCluster reads topic `{}` of {} into {database}: `muster ingest` must be started by hand",
                bus.topic, bus.cluster
            );
            self.warning("/spec/results/databaseCluster", Code::NoIngest, text);
        }
    }

    /// Nothing is started in a joined environment, so only workers can live there.
    pub(super) fn not_joined(&mut self, environment: &Key) {
        let provider = self
            .index
            .environment(environment)
            .map(|environment| &environment.provider);
        if matches!(provider, Some(ProviderSpec::Joined)) {
            let text = format!("{environment} is of type joined: only WorkerPools live there, nothing is started");
            self.error("/spec/environment", Code::WrongEnvironment, text);
        }
    }
}
