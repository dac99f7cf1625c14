//! Which way a session's frames go: straight to the owner, or through Kafka. Each run says it for itself.

use crate::bus::direct::DirectProducer;
use crate::bus::kafka::{Brokers, KafkaProducer, Mechanism, Sasl, check_topic};
use crate::bus::{BusError, Message, Producer, wire};
use async_trait::async_trait;
use muster_core::base::chain::chain;
use muster_core::model::id::SessionId;
use tokio::sync::watch;

/// A topic and its brokers.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    brokers: Brokers,
    name: String,
}

/// The way of the session that is open; `None`: to the owner.
pub(super) type Way = Option<(SessionId, Topic)>;

impl Topic {
    /// Reads what Prepare says.
    pub fn read(kafka: wire::Kafka) -> Result<Self, String> {
        let sasl = match kafka.mechanism.as_str() {
            "" => None,
            word => Some(Sasl {
                mechanism: Mechanism::parse(word).ok_or_else(|| format!("{word} is no mechanism of SASL"))?,
                username: kafka.username,
                password: kafka.password.into(),
            }),
        };
        Ok(Self {
            brokers: Brokers {
                bootstrap_servers: kafka.bootstrap_servers,
                sasl,
                ca: (!kafka.ca.is_empty()).then_some(kafka.ca),
            },
            name: kafka.topic,
        })
    }

    /// Looks whether frames can go this way: before load starts, not when the first is lost.
    pub async fn check(&self) -> Result<(), String> {
        check_topic(&self.brokers, &self.name, 1)
            .await
            .map(drop)
            .map_err(|error| chain(&error))
    }
}

/// Sends each session's frames its way.
#[derive(Debug)]
pub(super) struct Fork {
    pub direct: DirectProducer,
    pub way: watch::Receiver<Way>,
    /// The producer of the session that it was made for.
    pub kafka: Option<(SessionId, KafkaProducer)>,
}

impl Fork {
    /// To the owner, until a way is told.
    pub fn new(direct: DirectProducer, way: watch::Receiver<Way>) -> Self {
        Self {
            direct,
            way,
            kafka: None,
        }
    }
}

#[async_trait]
impl Producer for Fork {
    async fn send(&mut self, messages: &[Message]) -> Result<u64, BusError> {
        let Some(session) = messages.first().map(|message| message.session) else {
            return Ok(0);
        };
        let way = self.way.borrow().clone();
        match way {
            None => {
                self.kafka = None;
                self.direct.send(messages).await
            }
            Some((of, topic)) => {
                if self.kafka.as_ref().is_none_or(|(known, _)| *known != of) {
                    self.kafka = Some((of, KafkaProducer::new(topic.brokers, topic.name)));
                }
                match &mut self.kafka {
                    Some((known, producer)) if *known == session => producer.send(messages).await,
                    // The spool was opened anew in this moment.
                    _ => Err(BusError::Unavailable("the session is over".to_owned())),
                }
            }
        }
    }
}
