//! What identifies a resource: `project/Kind/name`.

use super::id::{IdError, Name};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Every kind of the plan format, also those that this build does not act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Where units run.
    Environment,
    /// Load generators.
    WorkerPool,
    /// Kafka brokers.
    KafkaCluster,
    /// Replicas of `muster ingest`.
    IngestCluster,
    /// Where results go.
    DatabaseCluster,
    /// nginx over a service.
    LoadBalancer,
    /// Any other replicated unit.
    Service,
    /// What is run and what must hold.
    TestPlan,
    /// Several plans in waves.
    Campaign,
    /// A person's leave.
    Approval,
    /// Where news goes.
    NotificationChannel,
}

impl Kind {
    /// All kinds, in the order of the plan format's table.
    pub const ALL: [Self; 11] = [
        Self::Environment,
        Self::WorkerPool,
        Self::KafkaCluster,
        Self::IngestCluster,
        Self::DatabaseCluster,
        Self::LoadBalancer,
        Self::Service,
        Self::TestPlan,
        Self::Campaign,
        Self::Approval,
        Self::NotificationChannel,
    ];

    /// The kind's name as documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "Environment",
            Self::WorkerPool => "WorkerPool",
            Self::KafkaCluster => "KafkaCluster",
            Self::IngestCluster => "IngestCluster",
            Self::DatabaseCluster => "DatabaseCluster",
            Self::LoadBalancer => "LoadBalancer",
            Self::Service => "Service",
            Self::TestPlan => "TestPlan",
            Self::Campaign => "Campaign",
            Self::Approval => "Approval",
            Self::NotificationChannel => "NotificationChannel",
        }
    }

    /// Whether this build acts on resources of the kind.
    pub fn is_supported(self) -> bool {
        !matches!(
            self,
            Self::LoadBalancer | Self::Campaign | Self::Approval | Self::NotificationChannel
        )
    }

    /// Finds a kind as documents write it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A resource's identity, unique over the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key {
    /// The project its file belongs to.
    pub project: Name,
    /// Its kind.
    pub kind: Kind,
    /// Its name, unique per project and kind.
    pub name: Name,
}

impl Key {
    /// Puts a key together.
    pub fn new(project: Name, kind: Kind, name: Name) -> Self {
        Self { project, kind, name }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.project, self.kind, self.name)
    }
}

/// Why a text is not `project/Kind/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not three parts.
    #[error("`{0}` is not project/Kind/name")]
    Shape(String),
    /// An unknown kind.
    #[error("`{0}` is not a kind")]
    Kind(String),
    /// A part that is not a name.
    #[error(transparent)]
    Name(#[from] IdError),
}

impl FromStr for Key {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parts: Vec<&str> = text.split('/').collect();
        let [project, kind, name] = parts[..] else {
            return Err(KeyError::Shape(text.to_owned()));
        };
        let kind = Kind::parse(kind).ok_or_else(|| KeyError::Kind(kind.to_owned()))?;
        Ok(Self::new(Name::new(project)?, kind, Name::new(name)?))
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Kind};

    #[test]
    fn keys_read_back() {
        for kind in Kind::ALL {
            let text = format!("payments/{kind}/checkout");
            assert_eq!(text.parse::<Key>().map(|key| key.to_string()), Ok(text));
        }
        for text in ["", "a/b", "a/Nope/c", "A/Service/c", "a/Service/c/d"] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
