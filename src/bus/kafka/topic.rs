//! What is asked of brokers beside records: whether a topic is there and will do, making one, how far a group is behind.

use super::{ASK_DEADLINE, Brokers, BrokersError, RECORD_MAX_BYTES, Told};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// Kafka's name for the largest batch of records that a topic takes.
const MAX_BYTES: &str = "max.message.bytes";

/// Pause between looks at a topic that was made just now.
const LOOK: Duration = Duration::from_millis(100);
/// What the client library says of a failure stands in so few of its messages.
const COMPLAINTS_MAX: usize = 20;

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// At least so many.
    pub partitions: u32,
    /// Copies of each partition, when it is made. A topic that is there may have others.
    pub replication_factor: u32,
    /// Kafka's own settings, when it is made.
    pub config: BTreeMap<String, String>,
}

/// How far a group is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    /// Partition → the offset that the next record gets.
    pub ends: BTreeMap<i32, u64>,
    /// Partition → the offset before which everything is stored. None yet: the oldest record there is.
    pub committed: BTreeMap<i32, u64>,
    /// The group has never stored anything.
    pub is_new: bool,
}

impl Lag {
    /// Records that are not stored yet.
    pub fn records(&self) -> u64 {
        self.before(&self.ends)
    }

    /// Records before these offsets that are not stored yet.
    pub fn before(&self, marks: &BTreeMap<i32, u64>) -> u64 {
        let behind =
            |(partition, mark): (&i32, &u64)| mark.saturating_sub(*self.committed.get(partition).unwrap_or(&0));
        marks.iter().map(behind).sum()
    }
}

impl ConsumerContext for Told {}

/// Looks whether a topic is there with at least so many partitions and takes the largest frame. Returns its partitions.
///
/// # Errors
/// When brokers do not answer, there is no such topic, or it will not do.
pub async fn check_topic(brokers: &Brokers, topic: &str, partitions: u32) -> Result<u32, BrokersError> {
    let found = partition_count(brokers, topic).await?;
    let there = found.ok_or_else(|| no_topic(brokers, topic))?;
    check_partitions(topic, there, partitions)?;
    let (admin, told) = admin(brokers)?;
    let what = [ResourceSpecifier::Topic(topic)];
    let configs = admin
        .describe_configs(&what, &options())
        .await
        .map_err(|error| brokers.unreachable(&error, &told))?;
    // Who may not look at settings can still write; then the brokers say it when a frame is too large.
    let largest = configs.into_iter().flatten().find_map(|config| {
        let entry = config.get(MAX_BYTES)?;
        entry.value.as_ref()?.parse::<usize>().ok()
    });
    match largest {
        Some(largest) if largest < RECORD_MAX_BYTES => Err(BrokersError::Unfit {
            topic: topic.to_owned(),
            problem: format!(
                "takes records of {largest} bytes, a frame may need {RECORD_MAX_BYTES}: set its {MAX_BYTES} to that or more"
            ),
        }),
        _ => Ok(there),
    }
}

/// Makes a topic unless it is there; then looks at it as [`check_topic`] does. Returns whether it was made.
///
/// # Errors
/// As [`check_topic`], and when the brokers do not let it be made.
pub async fn ensure_topic(brokers: &Brokers, spec: &TopicSpec) -> Result<bool, BrokersError> {
    if partition_count(brokers, &spec.name).await?.is_some() || !make_topic(brokers, spec).await? {
        return check_topic(brokers, &spec.name, spec.partitions).await.map(|_| false);
    }
    // The brokers learn of it one after the other: a look may ask one that does not know it yet.
    let given_up = Instant::now() + ASK_DEADLINE;
    loop {
        match check_topic(brokers, &spec.name, spec.partitions).await {
            Err(BrokersError::NoTopic { .. }) if Instant::now() < given_up => sleep(LOOK).await,
            other => return other.map(|_| true),
        }
    }
}

/// False: somebody else made it in the meantime.
async fn make_topic(brokers: &Brokers, spec: &TopicSpec) -> Result<bool, BrokersError> {
    let (admin, told) = admin(brokers)?;
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let replication = TopicReplication::Fixed(number(spec.replication_factor));
    let mut new = NewTopic::new(&spec.name, number(spec.partitions), replication);
    let largest = RECORD_MAX_BYTES.to_string();
    if !spec.config.contains_key(MAX_BYTES) {
        new = new.set(MAX_BYTES, &largest);
    }
    for (name, value) in &spec.config {
        new = new.set(name, value);
    }
    let results = admin
        .create_topics([&new], &options())
        .await
        .map_err(|error| brokers.unreachable(&error, &told))?;
    match results.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(BrokersError::Unfit {
            topic: spec.name.clone(),
            problem: format!("cannot be made: {code}"),
        }),
        _ => Ok(true),
    }
}

/// How far a group is in a topic.
///
/// # Errors
/// When brokers do not answer or there is no such topic.
pub async fn lag(brokers: &Brokers, topic: &str, group: &str) -> Result<Lag, BrokersError> {
    let name = topic.to_owned();
    let work = move |consumer: &BaseConsumer<Told>| {
        let until = Instant::now() + ASK_DEADLINE;
        // Not nothing, which means for ever.
        let left = || until.duration_since(Instant::now()).max(Duration::from_millis(1));
        let metadata = consumer.fetch_metadata(Some(&name), left())?;
        let Some(count) = partitions_of(&metadata, &name) else {
            return Ok(None);
        };
        let mut list = TopicPartitionList::new();
        let mut lag = Lag {
            is_new: true,
            ..Lag::default()
        };
        for partition in 0..i32::try_from(count).unwrap_or(i32::MAX) {
            let (start, end) = consumer.fetch_watermarks(&name, partition, left())?;
            lag.ends.insert(partition, end.unsigned_abs());
            lag.committed.insert(partition, start.unsigned_abs());
            list.add_partition(&name, partition);
        }
        for element in consumer.committed_offsets(list, left())?.elements() {
            if let Offset::Offset(offset) = element.offset() {
                lag.is_new = false;
                lag.committed.insert(element.partition(), offset.unsigned_abs());
            }
        }
        Ok(Some(lag))
    };
    let found = ask(brokers, group, work).await?;
    found.ok_or_else(|| no_topic(brokers, topic))
}

/// Asks brokers something that makes its thread wait. Consumers can be asked why nobody answered; nothing is consumed.
pub(super) async fn ask<T: Send + 'static>(
    brokers: &Brokers,
    group: &str,
    question: impl FnOnce(&BaseConsumer<Told>) -> KafkaResult<T> + Send + 'static,
) -> Result<T, BrokersError> {
    let (brokers, group, told) = (brokers.clone(), group.to_owned(), Told::default());
    let work = move || {
        let mut config = brokers.config();
        if !group.is_empty() {
            config.set("group.id", group);
        }
        let consumer: BaseConsumer<Told> = config
            .create_with_context(told.clone())
            .map_err(|error| BrokersError::Settings(error.to_string()))?;
        question(&consumer).map_err(|error| {
            for _ in 0..COMPLAINTS_MAX {
                consumer.poll(Duration::ZERO);
            }
            brokers.unreachable(&error, &told)
        })
    };
    spawn_blocking(work)
        .await
        .map_err(|error| BrokersError::Settings(error.to_string()))?
}

fn no_topic(brokers: &Brokers, topic: &str) -> BrokersError {
    BrokersError::NoTopic {
        servers: brokers.servers(),
        topic: topic.to_owned(),
    }
}

fn admin(brokers: &Brokers) -> Result<(AdminClient<Told>, Told), BrokersError> {
    let told = Told::default();
    let admin = brokers
        .config()
        .create_with_context(told.clone())
        .map_err(|error| BrokersError::Settings(error.to_string()))?;
    Ok((admin, told))
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ASK_DEADLINE))
        .operation_timeout(Some(ASK_DEADLINE))
}

async fn partition_count(brokers: &Brokers, topic: &str) -> Result<Option<u32>, BrokersError> {
    let name = topic.to_owned();
    let question = move |consumer: &BaseConsumer<Told>| {
        let metadata = consumer.fetch_metadata(Some(&name), ASK_DEADLINE)?;
        Ok(partitions_of(&metadata, &name))
    };
    ask(brokers, "", question).await
}

/// `None`: there is no such topic.
fn partitions_of(metadata: &Metadata, topic: &str) -> Option<u32> {
    let found = metadata.topics().iter().find(|found| found.name() == topic)?;
    u32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)
}

fn check_partitions(topic: &str, there: u32, wanted: u32) -> Result<(), BrokersError> {
    if there >= wanted {
        return Ok(());
    }
    // Never added by us: records of one session would then stand in two partitions.
    Err(BrokersError::Unfit {
        topic: topic.to_owned(),
        problem: format!("has {there} partitions, {wanted} are wanted: add some while no test runs, or ask for fewer"),
    })
}
