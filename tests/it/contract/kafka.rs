//! What only Kafka does: topics that are missing or unfit, passwords, groups that share and hand over, brokers that are killed.

use crate::support::eventually;
use crate::support::kafka::{self, Cluster};
use muster::bus::kafka::{
    Brokers, BrokersError, KafkaConsumer, KafkaProducer, Mechanism, TopicSpec, check_topic, ensure_topic, lag,
};
use muster::bus::{Consumer as _, Fate, Message, Producer as _};
use muster_core::model::id::{RunId, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);

fn shared() -> Brokers {
    kafka::brokers(&kafka::servers())
}

fn message(session: u128, sequence: u64) -> Message {
    Message {
        run: RunId(Uuid::from_u128(1)),
        session: SessionId(Uuid::from_u128(session)),
        sequence,
        payload: format!("{session} {sequence}").into(),
    }
}

fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions,
        replication_factor: 3,
        config: BTreeMap::new(),
    }
}

#[tokio::test]
async fn a_topic_is_made_once_and_one_that_will_not_do_is_said_to() {
    let brokers = shared();
    let name = kafka::unique("muster-test");
    let missing = check_topic(&brokers, &name, 1).await;
    assert!(matches!(missing, Err(BrokersError::NoTopic { .. })), "{missing:?}");
    assert!(ensure_topic(&brokers, &spec(&name, 6)).await.unwrap());
    assert_eq!(check_topic(&brokers, &name, 6).await.unwrap(), 6);
    assert!(!ensure_topic(&brokers, &spec(&name, 6)).await.unwrap());
    match ensure_topic(&brokers, &spec(&name, 7)).await {
        Err(BrokersError::Unfit { problem, .. }) => assert!(problem.contains("6 partitions"), "{problem}"),
        other => panic!("{other:?}"),
    }
    let small = TopicSpec {
        config: BTreeMap::from([("max.message.bytes".to_owned(), "1000000".to_owned())]),
        ..spec(&kafka::unique("muster-test"), 1)
    };
    match ensure_topic(&brokers, &small).await {
        Err(BrokersError::Unfit { problem, .. }) => assert!(problem.contains("max.message.bytes"), "{problem}"),
        other => panic!("{other:?}"),
    }
    let far = TopicSpec {
        replication_factor: 9,
        ..spec(&kafka::unique("muster-test"), 1)
    };
    let result = ensure_topic(&brokers, &far).await;
    assert!(matches!(result, Err(BrokersError::Unfit { .. })), "{result:?}");
}

#[tokio::test]
async fn brokers_that_are_not_there_are_named_with_the_reason() {
    let brokers = kafka::brokers("127.0.0.1:1");
    match check_topic(&brokers, "any", 1).await {
        Err(BrokersError::Unreachable { servers, reason }) => {
            assert_eq!(servers, "127.0.0.1:1");
            assert!(reason.contains("refused"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// Takes what comes until all of `wanted` did; tells each that it is stored.
async fn drain(consumer: &mut KafkaConsumer, wanted: usize) -> BTreeMap<u128, Vec<u64>> {
    let mut seen: BTreeMap<u128, Vec<u64>> = BTreeMap::new();
    let mut distinct = BTreeSet::new();
    while distinct.len() < wanted {
        let batch = timeout(SOON, consumer.receive(64)).await.unwrap().unwrap();
        for delivery in batch {
            let (session, sequence) = (delivery.message.session.0.as_u128(), delivery.message.sequence);
            distinct.insert((session, sequence));
            seen.entry(session).or_default().push(sequence);
            let _ = delivery.fate.send(Fate::Stored(sequence));
        }
    }
    seen
}

#[tokio::test]
async fn s49_a_group_shares_a_topic_and_hands_over_what_has_no_fate() {
    let brokers = shared();
    let topic = kafka::topic(&brokers, 8).await;
    let mut producer = KafkaProducer::new(brokers.clone(), topic.clone());
    for session in 0..8 {
        let batch: Vec<Message> = (1..=50).map(|sequence| message(session, sequence)).collect();
        assert_eq!(producer.send(&batch).await.unwrap(), 50);
    }
    let mut first = KafkaConsumer::join(&brokers, &topic, "group").unwrap();
    // Alone it gets all, and says nothing of any.
    let silent = timeout(SOON, first.receive(64)).await.unwrap().unwrap();
    assert!(first.state()().partitions == 8 && !silent.is_empty());
    let mut second = KafkaConsumer::join(&brokers, &topic, "group").unwrap();
    let (one, two) = (first.state(), second.state());
    eventually("both to have their share", async || {
        (one().partitions == 4 && two().partitions == 4).then_some(())
    })
    .await;
    // Nobody told what became of them: they come again, to whoever has their partition when the first is gone.
    drop(silent);
    first.close().await;
    let seen = drain(&mut second, 400).await;
    for (session, sequences) in seen {
        let mut sorted: Vec<u64> = sequences.clone();
        sorted.dedup();
        assert!(
            (1..=50).all(|sequence| sorted.contains(&sequence)),
            "{session}: {sequences:?}"
        );
    }
    second.close().await;
    let left = lag(&brokers, &topic, "group").await.unwrap();
    assert_eq!((left.records(), left.ends.values().sum::<u64>()), (0, 400), "{left:?}");
    assert!(!left.is_new);
    let stranger = lag(&brokers, &topic, "stranger").await.unwrap();
    assert!(stranger.is_new && stranger.records() == 400, "{stranger:?}");
}

/// Kafka's client keeps a partition paused that was taken away while nobody took what was read: nothing of it would come ever again.
#[tokio::test(flavor = "multi_thread")]
async fn s49_partitions_that_went_away_while_paused_are_read_when_they_come_back() {
    let brokers = shared();
    let topic = kafka::topic(&brokers, 2).await;
    let mut producer = KafkaProducer::new(brokers.clone(), topic.clone());
    // Two sessions that fall on different partitions, with more than what fits between Kafka and ingest.
    for session in [0, 1] {
        let batch: Vec<Message> = (1..=100).map(|sequence| message(session, sequence)).collect();
        producer.send(&batch).await.unwrap();
    }
    let mut first = KafkaConsumer::join(&brokers, &topic, "group").unwrap();
    let state = first.state();
    eventually("reading to be paused", async || state().paused.then_some(())).await;
    let second = KafkaConsumer::join(&brokers, &topic, "group").unwrap();
    let other = second.state();
    eventually("both to have their share", async || {
        (state().partitions == 1 && other().partitions == 1).then_some(())
    })
    .await;
    let mut seen = BTreeSet::new();
    while state().paused {
        note(&mut first, &mut seen).await;
    }
    second.close().await;
    while seen.len() < 200 {
        note(&mut first, &mut seen).await;
    }
    first.close().await;
}

/// Stores what comes next.
async fn note(consumer: &mut KafkaConsumer, seen: &mut BTreeSet<(u128, u64)>) {
    for delivery in timeout(SOON, consumer.receive(64)).await.unwrap().unwrap() {
        let sequence = delivery.message.sequence;
        seen.insert((delivery.message.session.0.as_u128(), sequence));
        let _ = delivery.fate.send(Fate::Stored(sequence));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s49_passwords_are_asked_for_and_killed_brokers_cost_nothing() {
    let cluster = Cluster::start();
    let brokers = kafka::brokers(&cluster.servers());
    let topic = kafka::topic(&brokers, 3).await;
    for mechanism in Mechanism::ALL {
        let secure = cluster.secure(mechanism, "muster");
        eventually("all brokers to know the topic", async || {
            match check_topic(&secure, &topic, 3).await {
                Err(BrokersError::NoTopic { .. }) => None,
                other => Some(other.unwrap()),
            }
        })
        .await;
    }
    let wrong = check_topic(&cluster.secure(Mechanism::ScramSha512, "wrong"), &topic, 3).await;
    match wrong {
        Err(BrokersError::Unreachable { reason, .. }) => assert!(reason.contains("uthentication"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let (brokers, name) = (cluster.secure(Mechanism::Plain, "muster"), topic.clone());
    let mut producer = KafkaProducer::new(brokers.clone(), name.clone());
    let sending = tokio::spawn(async move {
        for from in (1..=2_000).step_by(20) {
            let batch: Vec<Message> = (from..from + 20).map(|sequence| message(5, sequence)).collect();
            // As the spool does: again until it is there.
            while let Err(error) = producer.send(&batch).await {
                println!("{error}");
            }
        }
    });
    let mut consumer = KafkaConsumer::join(&brokers, &topic, "group").unwrap();
    let mut seen: Vec<u64> = Vec::new();
    let killed_at = [(400, 1), (900, 2), (1_400, 3)];
    for (until, broker) in killed_at {
        while seen.last().is_none_or(|last| *last < until) {
            for delivery in timeout(SOON, consumer.receive(64)).await.unwrap().unwrap() {
                seen.push(delivery.message.sequence);
                let _ = delivery.fate.send(Fate::Stored(delivery.message.sequence));
            }
        }
        // Each broker in turn, so the leading one is among them.
        cluster.kill(Some(broker));
        cluster.again(Some(broker));
    }
    while seen.last() != Some(&2_000) {
        for delivery in timeout(SOON, consumer.receive(64)).await.unwrap().unwrap() {
            seen.push(delivery.message.sequence);
            let _ = delivery.fate.send(Fate::Stored(delivery.message.sequence));
        }
    }
    timeout(SOON, sending).await.unwrap().unwrap();
    // In order and without a hole; a repeat may come, but never before what it follows.
    let mut newest = 0;
    for sequence in seen {
        assert!(sequence <= newest + 1, "{sequence} after {newest}");
        newest = newest.max(sequence);
    }
    assert_eq!(newest, 2_000);
    consumer.close().await;
}
