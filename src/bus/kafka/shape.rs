//! What the topics of a cluster look like: one question for all of them.

use super::topic::ask;
use super::{ASK_DEADLINE, Brokers, BrokersError};
use rdkafka::consumer::Consumer as _;
use std::collections::BTreeMap;

/// What a topic has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many partitions.
    pub partitions: u32,
    /// Copies of the partition that has the fewest.
    pub copies: u32,
}

/// All topics of a cluster, by name.
///
/// # Errors
/// When brokers do not answer or let nobody in.
pub async fn topics(brokers: &Brokers) -> Result<BTreeMap<String, Shape>, BrokersError> {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    ask(brokers, "", move |consumer| {
        let metadata = consumer.fetch_metadata(None, ASK_DEADLINE)?;
        let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
        Ok(topics
            .map(|topic| {
                let copies = topic.partitions().iter().map(|partition| partition.replicas().len());
                let shape = Shape {
                    partitions: number(topic.partitions().len()),
                    copies: number(copies.min().unwrap_or(0)),
                };
                (topic.name().to_owned(), shape)
            })
            .collect())
    })
    .await
}
