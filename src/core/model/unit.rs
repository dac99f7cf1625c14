//! Units: the processes Muster starts, as wanted and as seen.

use super::id::{Digest, IdError, Name};
use super::key::Key;
use super::service::{EnvVar, Health, NamedPort, SecretRef, UnitFile};
use super::streaming::ExternalKafka;
use crate::base::units;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Exit code of a worker that ended because it had lost its owner: nothing but an owner is to start it again.
pub const EXIT_ORPHANED: u8 = 4;

/// A unit's name: `project.kind.name.ordinal`, lower case, deterministic, so that a repeated create is an adoption.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

impl UnitName {
    /// The name of one replica of a resource.
    pub fn of(owner: &Key, ordinal: u32) -> Self {
        Self(format!(
            "{}.{}.{}.{ordinal}",
            owner.project,
            owner.kind.as_str().to_ascii_lowercase(),
            owner.name
        ))
    }

    /// The name as text; safe as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UnitName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parts: Vec<&str> = text.split('.').collect();
        let fine = matches!(&parts[..], [project, kind, name, ordinal]
            if Name::new(*project).is_ok() && Name::new(*kind).is_ok() && Name::new(*name).is_ok()
                && ordinal.parse::<u32>().is_ok_and(|number| number.to_string() == **ordinal));
        if fine {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::new(text, "a unit's name: project.kind.name.ordinal"))
        }
    }
}

impl TryFrom<String> for UnitName {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One unit as wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitSpec {
    /// Its name.
    pub name: UnitName,
    /// The resource it belongs to.
    pub owner: Key,
    /// Where it runs.
    pub environment: Key,
    /// Its place among its siblings, from 0.
    pub ordinal: u32,
    /// What it is.
    pub work: UnitWork,
    /// Of everything that decides what the unit does: another digest means it must be replaced.
    pub digest: Digest,
    /// Time between TERM and KILL.
    #[serde(with = "units::duration")]
    pub stop_grace: Duration,
}

/// What a unit is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum UnitWork {
    /// A replica of a Service.
    Replica {
        /// Program and arguments, before substitution.
        command: Vec<String>,
        /// Environment, before substitution; secrets only as references.
        env: Vec<EnvVar>,
        /// Files laid out before it starts.
        files: Vec<UnitFile>,
        /// Named ports.
        ports: Vec<NamedPort>,
        /// When it is Ready; `None`: as long as it lives.
        health: Option<Health>,
    },
    /// A load generator of a pool: `muster worker`, started by Muster itself.
    Worker {
        /// How long it may be without its owner.
        #[serde(with = "units::duration")]
        orphan_timeout: Duration,
    },
    /// A replica of an IngestCluster: `muster ingest`, started by Muster itself.
    Ingest {
        /// Where frames come from.
        kafka: ExternalKafka,
        /// The topic there.
        topic: String,
        /// The group that shares the topic: one for each database, or each would get only a part.
        group: String,
        /// The secret with the address of the database they go to.
        database: SecretRef,
    },
}

/// One unit as its provider reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedUnit {
    /// Its name.
    pub name: UnitName,
    /// The resource it says it belongs to.
    pub owner: Key,
    /// Where it runs.
    pub environment: Key,
    /// Digest of the spec it was started from.
    pub digest: Digest,
    /// What it does now.
    pub state: UnitState,
    /// Its ports by name.
    pub ports: Vec<(Name, u16)>,
    /// How often it was started again after it had exited by itself.
    pub restarts: u32,
    /// Since when it is in this state.
    pub since: Timestamp,
}

/// What a unit does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitState {
    /// Started, not Ready yet.
    Starting,
    /// Alive and healthy.
    Ready,
    /// Alive, and its health check failed.
    Unhealthy {
        /// The last failure.
        reason: String,
    },
    /// Gone by itself; the shim waits before it starts it again.
    BackOff {
        /// How it ended, for example `exit code 1`.
        reason: String,
    },
    /// Being stopped.
    Stopping,
    /// Gone, and nothing will start it again.
    Exited {
        /// How it ended.
        reason: String,
    },
    /// Its provider cannot say. Never the same as absent (promise 14).
    Unknown {
        /// Why.
        reason: String,
    },
}

impl UnitState {
    /// One word for tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Ready => "Ready",
            Self::Unhealthy { .. } => "Unhealthy",
            Self::BackOff { .. } => "BackOff",
            Self::Stopping => "Stopping",
            Self::Exited { .. } => "Exited",
            Self::Unknown { .. } => "Unknown",
        }
    }

    /// The reason, where the state has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Unhealthy { reason }
            | Self::BackOff { reason }
            | Self::Exited { reason }
            | Self::Unknown { reason } => Some(reason),
            Self::Starting | Self::Ready | Self::Stopping => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::UnitName;

    #[test]
    fn unit_names_are_deterministic_and_read_back() {
        let owner = "payments/Service/shop".parse().expect("a key");
        let name = UnitName::of(&owner, 2);
        assert_eq!(name.as_str(), "payments.service.shop.2");
        assert_eq!(name.as_str().parse(), Ok(name));
        for text in ["", "a.b.c", "a.b.c.-1", "a.b.c.01", "../x.b.c.1", "a.b.c.1.2"] {
            assert!(text.parse::<UnitName>().is_err(), "{text}");
        }
    }
}
