//! Topics of a Kafka cluster that somebody else runs: whether they are as wanted, and making those that are missing.

use crate::bus::kafka::{AddressError, Brokers, BrokersError, Shape, TopicSpec, check_topic, ensure_topic, topics};
use crate::runtime::secrets::Secrets;
use muster_core::base::chain::chain;
use muster_core::base::units::counted;
use muster_core::model::observed::ExternalSight;
use muster_core::model::streaming::{KafkaCluster, Topic};
use std::collections::BTreeMap;

/// Looks at a cluster and its topics.
pub(super) async fn look(cluster: &KafkaCluster, secrets: &dyn Secrets) -> Result<ExternalSight, String> {
    let brokers = match Brokers::of(&cluster.external, secrets) {
        Ok(brokers) => brokers,
        // Not a matter of time: somebody has to mend the secret.
        Err(error @ (AddressError::Half { .. } | AddressError::Mechanism(_))) => {
            return Ok(ExternalSight::Unfit { summary: chain(&error) });
        }
        Err(error) => return Err(chain(&error)),
    };
    let found = topics(&brokers).await.map_err(|error| chain(&error))?;
    judge(cluster, &brokers, &found).await
}

/// Makes the topics that are missing.
pub(super) async fn make(cluster: &KafkaCluster, secrets: &dyn Secrets) -> Result<ExternalSight, String> {
    let brokers = Brokers::of(&cluster.external, secrets).map_err(|error| chain(&error))?;
    let mut found = topics(&brokers).await.map_err(|error| chain(&error))?;
    for topic in &cluster.topics {
        if found.contains_key(&topic.name) {
            continue;
        }
        let spec = TopicSpec {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            config: topic.config.clone(),
        };
        ensure_topic(&brokers, &spec).await.map_err(|error| chain(&error))?;
        tracing::info!(topic = topic.name, servers = brokers.servers(), "made a topic");
        // Brokers learn of it one after the other, so it is not asked for right now.
        let shape = Shape {
            partitions: topic.partitions,
            copies: topic.replication_factor,
        };
        found.insert(topic.name.clone(), shape);
    }
    judge(cluster, &brokers, &found).await
}

async fn judge(
    cluster: &KafkaCluster,
    brokers: &Brokers,
    found: &BTreeMap<String, Shape>,
) -> Result<ExternalSight, String> {
    let mut missing = Vec::new();
    let mut problems = Vec::new();
    for topic in &cluster.topics {
        match found.get(&topic.name) {
            None => missing.push(topic),
            Some(shape) => problems.extend(problem(brokers, topic, *shape).await?),
        }
    }
    Ok(sight(cluster, brokers, &missing, &problems))
}

fn sight(cluster: &KafkaCluster, brokers: &Brokers, missing: &[&Topic], problems: &[String]) -> ExternalSight {
    let servers = brokers.servers();
    let all = cluster.topics.len();
    let good = all - missing.len() - problems.len();
    if missing.is_empty() && problems.is_empty() {
        let summary = match all {
            0 => format!("{servers} answers"),
            all => format!("{} as wanted at {servers}", counted(all, "topic")),
        };
        return ExternalSight::Fine { summary };
    }
    let absent = missing
        .iter()
        .map(|topic| format!("topic `{}` is not there", topic.name));
    let faults: Vec<String> = absent.chain(problems.iter().cloned()).collect();
    let summary = format!("{good} of {all} topics as wanted: {}", faults.join("; "));
    if missing.is_empty() {
        return ExternalSight::Unfit { summary };
    }
    let what = |topic: &&Topic| {
        format!(
            "topic {} ({}, {} each)",
            topic.name,
            counted(topic.partitions as usize, "partition"),
            match topic.replication_factor {
                1 => "1 copy".to_owned(),
                copies => format!("{copies} copies"),
            }
        )
    };
    ExternalSight::Missing {
        what: missing.iter().map(what).collect(),
        summary,
    }
}

/// What somebody has to mend of a topic that is there.
async fn problem(brokers: &Brokers, topic: &Topic, shape: Shape) -> Result<Option<String>, String> {
    if shape.copies != topic.replication_factor && shape.partitions >= topic.partitions {
        return Ok(Some(format!(
            "topic `{}` has {} copies of its partitions, {} are wanted: move it with kafka-reassign-partitions, or write \
             `replicationFactor: {}`",
            topic.name, shape.copies, topic.replication_factor, shape.copies
        )));
    }
    match check_topic(brokers, &topic.name, topic.partitions).await {
        Ok(_) | Err(BrokersError::NoTopic { .. }) => Ok(None),
        Err(error @ BrokersError::Unfit { .. }) => Ok(Some(chain(&error))),
        Err(error) => Err(chain(&error)),
    }
}
