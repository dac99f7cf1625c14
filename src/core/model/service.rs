//! `Service`: any replicated unit a plan needs beside load, and what a unit is started with.

use super::id::{Digest, Name};
use super::key::Key;
use crate::base::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A replicated unit: system under test, mock, side service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Where its replicas run.
    pub environment: Key,
    /// Program and arguments; `${…}` is substituted when a unit starts.
    pub command: Vec<String>,
    /// How many replicas.
    pub replicas: u32,
    /// Environment variables.
    pub env: Vec<EnvVar>,
    /// Files laid into the unit's directory before it starts.
    pub files: Vec<UnitFile>,
    /// Named ports; each replica gets a free one where `port` is absent.
    pub ports: Vec<NamedPort>,
    /// When a replica is Ready.
    pub health: Option<Health>,
    /// What must be Ready before.
    pub depends_on: Vec<Key>,
    /// How replicas are replaced.
    pub update: Update,
}

/// One environment variable of a unit or a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Where its value comes from.
    pub value: EnvValue,
}

/// A value, or the place of a secret. Secret values never enter the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// A plain value; `${…}` is substituted.
    Plain(String),
    /// A secret of the settings.
    Secret(SecretRef),
}

/// The place of a secret: a name in the settings, and which of its values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretRef {
    /// The secret's name in the settings.
    pub name: String,
    /// Which value of a secret with several.
    pub key: Option<String>,
}

/// A file of the repository that a unit gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFile {
    /// Relative path in the unit's directory.
    pub path: String,
    /// Path in the repository.
    pub source: String,
    /// What the file holds, so that another content is another unit.
    pub digest: Digest,
}

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// `${PORT_NAME}` in arguments and files, upper case; `${PORT}` is the first.
    pub name: Name,
    /// A fixed port (one replica only); `None`: a free one for each replica.
    pub port: Option<u16>,
}

/// How a unit's health is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Time between two questions.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// How long one answer may take.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Failures in a row until Unhealthy.
    pub failures: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// GET answers 2xx or 3xx.
    Http {
        /// Path with query.
        path: String,
        /// A named port.
        port: Name,
    },
    /// The port accepts a connection.
    Tcp {
        /// A named port.
        port: Name,
    },
}

/// How replicas are replaced when their spec changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Rolling or all at once.
    pub strategy: UpdateStrategy,
    /// Most replicas that may be away at the same time; at least 1.
    pub max_unavailable: u32,
}

/// How replicas are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStrategy {
    /// `max_unavailable` at a time, each gated by health.
    Rolling,
    /// All at once.
    Recreate,
}

/// Plain string maps of documents: labels, headers, annotations.
pub type StringMap = BTreeMap<String, String>;
