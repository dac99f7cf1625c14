//! Which way a session's frames go: straight to the owner, or through Kafka. Each run says it for itself.

use crate::bus::direct::DirectProducer;
use crate::bus::kafka::{KafkaProducer, TopicAt};
use crate::bus::{BusError, Message, Producer};
use async_trait::async_trait;
use muster_core::model::id::SessionId;
use tokio::sync::watch;

/// The way of the session that is open; `None`: to the owner.
pub(super) type Way = Option<(SessionId, TopicAt)>;

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
                    self.kafka = Some((of, KafkaProducer::new(topic.brokers, topic.topic)));
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
