//! What the settings allow: projects, kinds, targets, caps. A plan can ask for less, never for more (promise 61).

use super::id::Name;
use super::key::{Key, Kind};
use super::schedule::Zone;
use crate::base::units;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything of the settings that decides whether a plan is valid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// By name; never empty (`default` where the settings name none).
    pub projects: BTreeMap<Name, ProjectPolicy>,
    /// Whether plans may run commands on the daemon's own host (promise 58).
    pub process_enabled: bool,
    /// Whether the lists of targets are known. Where plans are read without the settings that a daemon will hold them to, what they
    /// aim at is not judged; requests are held to the lists all the same (promise 60).
    pub targets_known: bool,
    /// Whose clocks a plan follows that names no time zone.
    #[serde(default)]
    pub time_zone: DefaultZone,
    /// Deletions above this share of a project's high-water mark need leave, 0 to 1 (promise 21).
    pub deletion_max_share: f64,
}

/// The time zone of plans that name none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DefaultZone {
    /// The settings name one.
    Is(Zone),
    /// The settings name none: plans must.
    Required,
    /// The settings are not known. Plans are read as if it were UTC, with a warning.
    #[default]
    Unknown,
}

/// What one project may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectPolicy {
    /// Globs of the folders that belong to it (`teams/payments/**`); the longest match wins. Empty: everything else.
    pub paths: Vec<String>,
    /// Kinds its files may hold.
    pub kinds: BTreeSet<Kind>,
    /// Where its requests may go.
    pub targets: TargetRules,
    /// Names of the secrets it may refer to.
    pub secrets: SecretRules,
    /// Resources others may refer to.
    pub shares: BTreeSet<Key>,
    /// Upper bounds of each of its plans.
    pub caps: Caps,
}

/// Which secrets a project may refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretRules {
    /// Every secret of the settings: no projects are configured.
    All,
    /// These.
    Named(BTreeSet<String>),
}

/// Where requests may go. Both lists must allow a host: the settings' and the project's (promise 60).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRules {
    /// The settings' list: host names, `*.suffix`, addresses, CIDR blocks.
    pub allow: Vec<String>,
    /// The project's own list; `None`: all of `allow`.
    pub project: Option<Vec<String>>,
    /// `host:port` of what Muster itself started; always allowed.
    pub own: BTreeSet<String>,
}

/// Upper bounds of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Iterations per second.
    pub rate: u64,
    /// Requests per second.
    pub requests_per_second: u64,
    /// Virtual users.
    pub vus: u64,
    /// Workers.
    pub workers: u32,
    /// Of load.
    #[serde(with = "units::duration")]
    pub duration: Duration,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            rate: 10_000,
            requests_per_second: 50_000,
            vus: 10_000,
            workers: 20,
            duration: Duration::from_secs(6 * 3_600),
        }
    }
}

impl Policy {
    /// The policy of settings that say nothing: one project, nothing allowed but what Muster runs itself.
    pub fn closed() -> Self {
        let project = ProjectPolicy {
            paths: Vec::new(),
            kinds: Kind::ALL.into_iter().collect(),
            targets: TargetRules::default(),
            secrets: SecretRules::All,
            shares: BTreeSet::new(),
            caps: Caps::default(),
        };
        Self {
            projects: BTreeMap::from([(Name::default_project(), project)]),
            process_enabled: false,
            targets_known: true,
            time_zone: DefaultZone::Required,
            deletion_max_share: 0.3,
        }
    }

    /// The policy of a foreground `muster run`: loopback targets and those its user adds, and commands, as make runs them.
    ///
    /// Nothing of it reaches a daemon: there the settings speak.
    pub fn foreground(extra_targets: &[String]) -> Self {
        let mut policy = Self::closed();
        policy.process_enabled = true;
        policy.time_zone = DefaultZone::Unknown;
        for project in policy.projects.values_mut() {
            project.targets.allow = ["localhost", "127.0.0.0/8", "::1"]
                .into_iter()
                .map(str::to_owned)
                .chain(extra_targets.iter().cloned())
                .collect();
        }
        policy
    }

    /// The policy of plans that are only read, without the settings that will hold them to more.
    pub fn reading() -> Self {
        Self {
            process_enabled: true,
            targets_known: false,
            time_zone: DefaultZone::Unknown,
            ..Self::closed()
        }
    }
}
