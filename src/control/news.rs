//! Writes events: to the ledger for people, to the log for operators. An event that cannot be written stops nothing.

use crate::runtime::clock::Clock;
use crate::store::Ledger;
use muster_core::base::chain::chain;
use muster_core::model::id::Name;
use muster_core::model::key::Key;
use muster_core::model::run::{Event, Severity};
use std::sync::Arc;

/// Longest message, in bytes: a screen of text, and no table row that a database refuses.
const MESSAGE_MAX: usize = 2_000;

/// Where events go.
#[derive(Clone)]
pub struct News {
    ledger: Arc<dyn Ledger>,
    clock: Clock,
}

impl News {
    /// Events with this clock's time in this ledger.
    pub fn new(ledger: Arc<dyn Ledger>, clock: Clock) -> Self {
        Self { ledger, clock }
    }

    /// About the source as a whole.
    pub async fn about_source(&self, severity: Severity, reason: &str, message: &str) {
        self.tell(None, "source".to_owned(), severity, reason, message).await;
    }

    /// About what the source says of a project.
    pub async fn about_project(&self, project: &Name, severity: Severity, reason: &str, message: &str) {
        self.tell(Some(project.clone()), "source".to_owned(), severity, reason, message)
            .await;
    }

    /// About a resource.
    pub async fn about_resource(&self, key: &Key, severity: Severity, reason: &str, message: &str) {
        self.tell(Some(key.project.clone()), key.to_string(), severity, reason, message)
            .await;
    }

    async fn tell(&self, project: Option<Name>, about: String, severity: Severity, reason: &str, message: &str) {
        let end = message.floor_char_boundary(MESSAGE_MAX);
        let event = Event {
            at: self.clock.now(),
            project,
            about,
            severity,
            reason: reason.to_owned(),
            message: message[..end].to_owned(),
        };
        match severity {
            Severity::Normal => tracing::info!(about = event.about, reason, "{}", event.message),
            _ => tracing::warn!(about = event.about, reason, "{}", event.message),
        }
        if let Err(error) = self.ledger.append_event(&event).await {
            tracing::warn!(
                about = event.about,
                reason,
                error = chain(&error),
                "an event could not be kept"
            );
        }
    }
}
