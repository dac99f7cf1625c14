//! What every bus does: order, an answer only when a message is safe, the same message again after a cut, back-pressure, limits.

use crate::support::entrance;
use crate::support::kafka;
use muster::api::worker::serve;
use muster::bus::dial::{Address, Dial};
use muster::bus::direct::DirectProducer;
use muster::bus::kafka::{KafkaConsumer, KafkaProducer};
use muster::bus::memory;
use muster::bus::{BusError, Consumer, Delivery, Fate, Message, PAYLOAD_MAX_BYTES, Producer};
use muster::control::fleet::{Fleet, join};
use muster::runtime::clock::Clock;
use muster_core::model::id::{RunId, SessionId};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Room of the queue before ingest: smaller than what the tests send.
const ROOM: usize = 4;
const SOON: Duration = Duration::from_secs(20);

fn message(sequence: u64) -> Message {
    Message {
        run: RunId(Uuid::from_u128(1)),
        session: SessionId(Uuid::from_u128(2)),
        sequence,
        payload: sequence.to_string().into(),
    }
}

fn messages(count: u64) -> Vec<Message> {
    (1..=count).map(message).collect()
}

/// The owner's side of the direct bus.
struct Server {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(folder: &TempDir, queue: mpsc::Sender<Delivery>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        join::write_address(folder.path(), listener.local_addr().unwrap()).unwrap();
        let entrance = entrance(listener, folder.path());
        let stop = CancellationToken::new();
        let work = serve(entrance, Fleet::new(1, Clock::system()), queue, stop.clone());
        let task = tokio::spawn(async move { work.await.unwrap() });
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn dial(folder: &TempDir) -> Dial {
    Dial {
        address: Address::File(folder.path().join("join")),
        token_file: folder.path().join("join-token"),
        ca_file: None,
    }
}

/// One adapter under test.
struct Rig {
    producer: Box<dyn Producer>,
    consumer: Box<dyn Consumer>,
    /// It keeps messages by itself: the sender is answered before ingest is.
    keeps: bool,
    _server: Option<(Server, TempDir)>,
}

async fn rigs() -> Vec<Rig> {
    let (producer, consumer) = memory::bus(ROOM);
    let in_memory = Rig {
        producer: Box::new(producer),
        consumer: Box::new(consumer),
        keeps: false,
        _server: None,
    };
    let folder = TempDir::new().unwrap();
    let (queue, consumer) = memory::queue(ROOM);
    let server = Server::start(&folder, queue).await;
    let direct = Rig {
        producer: Box::new(DirectProducer::new(dial(&folder))),
        consumer: Box::new(consumer),
        keeps: false,
        _server: Some((server, folder)),
    };
    let brokers = kafka::brokers(&kafka::servers());
    let topic = kafka::topic(&brokers, 3).await;
    let kafka = Rig {
        producer: Box::new(KafkaProducer::new(brokers.clone(), topic.clone())),
        consumer: Box::new(KafkaConsumer::join(&brokers, &topic, &topic).unwrap()),
        keeps: true,
        _server: None,
    };
    vec![in_memory, direct, kafka]
}

fn sending(
    mut producer: Box<dyn Producer>,
    batch: Vec<Message>,
) -> JoinHandle<(Box<dyn Producer>, Result<u64, BusError>)> {
    tokio::spawn(async move {
        let result = producer.send(&batch).await;
        (producer, result)
    })
}

async fn receive(consumer: &mut Box<dyn Consumer>, max: usize) -> Vec<Delivery> {
    timeout(SOON, consumer.receive(max)).await.unwrap().unwrap()
}

#[tokio::test]
async fn s49_messages_arrive_in_order_and_are_answered_only_once_stored() {
    for mut rig in rigs().await {
        let work = sending(rig.producer, messages(300));
        let mut seen = 0;
        while seen < 300 {
            for delivery in receive(&mut rig.consumer, 7).await {
                seen += 1;
                assert_eq!(delivery.message, message(seen));
                assert!(rig.keeps || !work.is_finished());
                delivery.fate.send(Fate::Stored(seen)).unwrap();
            }
        }
        let (_, result) = timeout(SOON, work).await.unwrap().unwrap();
        assert_eq!(result.unwrap(), 300);
    }
}

#[tokio::test]
async fn s49_what_nobody_stored_is_unavailable_and_can_be_sent_again() {
    for mut rig in rigs().await {
        let work = sending(rig.producer, messages(3));
        let mut deliveries = receive(&mut rig.consumer, 1).await;
        deliveries.remove(0).fate.send(Fate::Stored(1)).unwrap();
        drop(receive(&mut rig.consumer, 1).await);
        let (producer, result) = timeout(SOON, work).await.unwrap().unwrap();
        if rig.keeps {
            assert_eq!(result.unwrap(), 3);
            // Nobody sends it again: it comes by itself, and what followed it too.
            let mut again = Vec::new();
            while again.last() != Some(&3) || !again.contains(&2) {
                for delivery in receive(&mut rig.consumer, 10).await {
                    again.push(delivery.message.sequence);
                    let _ = delivery.fate.send(Fate::Stored(delivery.message.sequence));
                }
            }
            continue;
        }
        assert!(matches!(result, Err(BusError::Unavailable(_))), "{result:?}");
        let work = sending(producer, messages(3));
        let mut stored = 0;
        while stored < 3 {
            for delivery in receive(&mut rig.consumer, 10).await {
                // What is left of the first attempt may still come.
                stored = stored.max(delivery.message.sequence);
                let _ = delivery.fate.send(Fate::Stored(stored));
            }
        }
        let serve_rest = async {
            while let Some(rest) = rig.consumer.receive(10).await {
                for delivery in rest {
                    let _ = delivery.fate.send(Fate::Stored(3));
                }
            }
        };
        tokio::select! {
            result = timeout(SOON, work) => assert_eq!(result.unwrap().unwrap().1.unwrap(), 3),
            () = serve_rest => unreachable!("the bus is open"),
        }
    }
}

#[tokio::test]
async fn a_consumer_that_takes_nothing_holds_the_sender_and_loses_nothing() {
    for mut rig in rigs().await {
        let count = 1_000;
        let work = sending(rig.producer, messages(count));
        let first = receive(&mut rig.consumer, 1).await.remove(0);
        assert_eq!(first.message.sequence, 1);
        first.fate.send(Fate::Stored(1)).unwrap();
        let mut last = 1;
        let mut waiting = Vec::new();
        while last < count {
            let batch = receive(&mut rig.consumer, ROOM).await;
            assert!(batch.len() <= ROOM);
            for delivery in batch {
                last += 1;
                assert_eq!(delivery.message.sequence, last);
                waiting.push(delivery);
            }
            // Told late, all at once: the sender goes on only as far as it is answered.
            if waiting.len() >= 32 || last == count {
                for delivery in waiting.drain(..) {
                    let sequence = delivery.message.sequence;
                    delivery.fate.send(Fate::Stored(sequence)).unwrap();
                }
            }
        }
        assert_eq!(timeout(SOON, work).await.unwrap().unwrap().1.unwrap(), count);
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_or_not_wanted_is_refused() {
    for mut rig in rigs().await {
        let mut large = message(1);
        large.payload = vec![0; PAYLOAD_MAX_BYTES + 1].into();
        let result = rig.producer.send(&[large]).await;
        assert!(
            matches!(result, Err(BusError::Refused { sequence: 1, .. })),
            "{result:?}"
        );
        let mut largest = message(1);
        largest.payload = vec![0; PAYLOAD_MAX_BYTES].into();
        let work = sending(rig.producer, vec![largest, message(2)]);
        let first = receive(&mut rig.consumer, 1).await.remove(0);
        assert_eq!(first.message.payload.len(), PAYLOAD_MAX_BYTES);
        first.fate.send(Fate::Stored(1)).unwrap();
        let second = receive(&mut rig.consumer, 1).await.remove(0);
        second.fate.send(Fate::Refused("sealed".to_owned())).unwrap();
        let (_, result) = timeout(SOON, work).await.unwrap().unwrap();
        match result {
            Ok(2) => assert!(rig.keeps, "its own answer is all the sender hears"),
            Err(BusError::Refused { sequence: 2, reason }) => assert_eq!(reason, "sealed"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn without_a_consumer_nothing_is_taken() {
    for mut rig in rigs().await.into_iter().filter(|rig| !rig.keeps) {
        drop(rig.consumer);
        let result = timeout(SOON, rig.producer.send(&messages(1))).await.unwrap();
        assert!(matches!(result, Err(BusError::Unavailable(_))), "{result:?}");
    }
}

#[tokio::test]
async fn s49_a_producer_finds_the_owner_again_on_another_port() {
    let folder = TempDir::new().unwrap();
    let (queue, mut consumer) = memory::queue(ROOM);
    let server = Server::start(&folder, queue.clone()).await;
    let mut producer = DirectProducer::new(dial(&folder));
    let answering = tokio::spawn(async move {
        while let Some(batch) = consumer.receive(10).await {
            for delivery in batch {
                let sequence = delivery.message.sequence;
                let _ = delivery.fate.send(Fate::Stored(sequence));
            }
        }
    });
    assert_eq!(producer.send(&messages(2)).await.unwrap(), 2);
    server.end().await;
    let result = producer.send(&[message(3)]).await;
    assert!(matches!(result, Err(BusError::Unavailable(_))), "{result:?}");
    let server = Server::start(&folder, queue).await;
    assert_eq!(producer.send(&[message(3)]).await.unwrap(), 3);
    drop(producer);
    server.end().await;
    timeout(SOON, answering).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wrong_token_opens_nothing() {
    let folder = TempDir::new().unwrap();
    let (queue, _consumer) = memory::queue(ROOM);
    let server = Server::start(&folder, queue).await;
    for wrong in ["", "0", "not the token"] {
        std::fs::write(folder.path().join("wrong"), wrong).unwrap();
        let dial = Dial {
            token_file: folder.path().join("wrong"),
            ..dial(&folder)
        };
        match DirectProducer::new(dial).send(&messages(1)).await {
            Err(BusError::Unavailable(reason)) => assert!(reason.contains("join token"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    server.end().await;
}
