//! The kinds that carry results, as documents.

use super::{Fields, reference, secret_ref};
use crate::model::resource::Meta;
use crate::model::streaming::{DatabaseCluster, DatabaseEngine, IngestCluster, KafkaCluster};
use serde_json::{Value, json};

pub(super) fn kafka_cluster(cluster: &KafkaCluster) -> Value {
    let mut external = Fields::new();
    external.set("bootstrapServers", json!(cluster.external.bootstrap_servers));
    external.optional("secretRef", cluster.external.secret.as_ref().map(secret_ref));
    let topics = cluster.topics.iter().map(|topic| {
        let mut fields = Fields::new();
        fields.set("name", topic.name.as_str());
        fields.set("partitions", topic.partitions);
        fields.set("replicationFactor", topic.replication_factor);
        fields.unless_empty("config", json!(topic.config));
        fields.done()
    });
    let mut fields = Fields::new();
    fields.set("external", external.done());
    fields.unless_empty("topics", topics.collect());
    fields.done()
}

pub(super) fn ingest_cluster(meta: &Meta, ingest: &IngestCluster) -> Value {
    json!({
        "environment": reference(meta, &ingest.environment, false),
        "replicas": ingest.replicas,
        "kafkaCluster": reference(meta, &ingest.from.cluster, false),
        "topic": ingest.from.topic,
        "databaseCluster": reference(meta, &ingest.database, false),
    })
}

pub(super) fn database_cluster(database: &DatabaseCluster) -> Value {
    let engine = match database.engine {
        DatabaseEngine::Mysql => "mysql",
        DatabaseEngine::Mariadb => "mariadb",
    };
    json!({"engine": engine, "external": {"secretRef": secret_ref(&database.url)}})
}
