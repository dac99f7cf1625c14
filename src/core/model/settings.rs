//! The daemon's own settings: what a plan author must not be able to change.

use super::id::Name;
use super::key::{Key, Kind};
use super::policy::{Caps, DefaultZone, Policy, ProjectPolicy, SecretRules, TargetRules};
use super::schedule::Zone;
use super::service::SecretRef;
use crate::base::units;
use core::net::SocketAddr;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything a settings file says, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Where plans come from.
    pub source: SourceSettings,
    /// `sqlite://…` or `mysql://…`: the ledger and the results.
    pub store_url: String,
    /// API address; anything but loopback has tokens.
    pub listen: SocketAddr,
    /// Where workers call; anything but loopback has TLS.
    pub workers_listen: SocketAddr,
    /// What workers are shown there.
    pub workers_tls: Option<TlsFiles>,
    /// Who may bring workers to environments of type `joined`.
    pub join: Vec<JoinRule>,
    /// Who may call the API. Empty: anyone on loopback may do everything.
    pub tokens: Vec<Token>,
    /// Where requests may go.
    pub targets: Vec<String>,
    /// Upper bounds of every plan.
    pub caps: Caps,
    /// Empty: one project, `default`, that may do all this file allows.
    pub projects: Vec<ProjectSettings>,
    /// Whether plans may run commands on the daemon's own host (promise 58).
    pub process_enabled: bool,
    /// Where the values of secrets stand, by the name plans use.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Deletions above this share of a project's high-water mark need leave, 0 to 1 (promise 21).
    pub deletion_max_share: f64,
    /// How long details of runs are kept where their plan says nothing.
    #[serde(with = "units::duration")]
    pub retention: Duration,
    /// Whose clocks plans follow that name no time zone.
    pub time_zone: Option<Zone>,
}

/// Where plans come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSettings {
    /// Git or a directory.
    pub from: SourceFrom,
    /// The folder inside it that holds plans; `.` for all.
    pub path: String,
    /// Time between two looks.
    #[serde(with = "units::duration")]
    pub interval: Duration,
}

/// Git or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceFrom {
    /// A repository: `file://`, `https://`, `http://`, `ssh://`, or an absolute path of a bare one.
    Git {
        /// Its URL, without credentials.
        url: String,
        /// The branch followed.
        branch: String,
        /// `username` and `password` or one token; for ssh the private key.
        credentials: Option<SecretRef>,
    },
    /// A folder on the daemon's host.
    Directory {
        /// Its path.
        path: String,
    },
}

/// A certificate and its key, in PEM files on the daemon's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert_file: String,
    /// Its private key.
    pub key_file: String,
}

/// Who shows this token may bring workers to one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRule {
    /// The Environment, of type `joined`.
    pub environment: Key,
    /// At most so many at the same time.
    pub max_workers: u32,
    /// The token.
    pub secret: SecretRef,
}

/// One who may call the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Shown as "who" in events and runs.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// In which projects; `None`: in all.
    pub projects: Option<BTreeSet<Name>>,
    /// Refused from then on.
    pub expires: Option<Timestamp>,
    /// Its value.
    pub secret: SecretRef,
}

/// What a token may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Read.
    Viewer,
    /// Start, stop, pause, resume, suspend.
    Operator,
    /// Approve deletions and override.
    Admin,
}

/// One project of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSettings {
    /// Its name.
    pub name: Name,
    /// Globs of the folders that belong to it.
    pub paths: Vec<String>,
    /// Kinds its files may hold.
    pub kinds: BTreeSet<Kind>,
    /// Resources of it that others may refer to.
    pub shares: BTreeSet<Key>,
    /// Its own list of targets; `None`: the settings'.
    pub targets: Option<Vec<String>>,
    /// Secrets its files may refer to.
    pub secrets: BTreeSet<String>,
    /// The smaller of the settings' caps and its own.
    pub caps: Caps,
}

/// Where the value of a secret stands. Values themselves are never part of the settings (promise 57).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretSource {
    /// An environment variable of the daemon.
    Env(String),
    /// A file with one value, or a folder with a file for each key.
    File(String),
}

impl Settings {
    /// What of the settings decides whether a plan is valid.
    pub fn policy(&self) -> Policy {
        let projects = if self.projects.is_empty() {
            let single = ProjectPolicy {
                paths: Vec::new(),
                kinds: Kind::ALL.into_iter().collect(),
                targets: self.target_rules(None),
                secrets: SecretRules::All,
                shares: BTreeSet::new(),
                caps: self.caps.clone(),
            };
            BTreeMap::from([(Name::default_project(), single)])
        } else {
            self.projects
                .iter()
                .map(|project| (project.name.clone(), self.project_policy(project)))
                .collect()
        };
        Policy {
            projects,
            process_enabled: self.process_enabled,
            targets_known: true,
            time_zone: self.time_zone.clone().map_or(DefaultZone::Required, DefaultZone::Is),
            deletion_max_share: self.deletion_max_share,
        }
    }

    fn project_policy(&self, project: &ProjectSettings) -> ProjectPolicy {
        ProjectPolicy {
            paths: project.paths.clone(),
            kinds: project.kinds.clone(),
            targets: self.target_rules(project.targets.clone()),
            secrets: SecretRules::Named(project.secrets.clone()),
            shares: project.shares.clone(),
            caps: project.caps.clone(),
        }
    }

    fn target_rules(&self, project: Option<Vec<String>>) -> TargetRules {
        TargetRules {
            allow: self.targets.clone(),
            project,
            own: BTreeSet::new(),
        }
    }
}
