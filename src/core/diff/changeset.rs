//! The changeset: what would be done and why, as plain data that people, the API and the executor all read.

use crate::model::id::{Digest, Name, Revision};
use crate::model::key::Key;
use crate::model::unit::UnitName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the JSON form; it grows when a reader of the old form would misunderstand the new one.
pub const FORMAT_VERSION: u32 = 1;

/// Everything that differs between what git wants and what is there, in the order it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changeset {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// When it was computed.
    pub at: Timestamp,
    /// The revision of each project that it leads to.
    pub revisions: BTreeMap<Name, Revision>,
    /// One for each resource, unchanged ones too: dependencies first, then deletions in reverse (promise 16).
    pub changes: Vec<Change>,
    /// Deletions that the guard holds back (promise 21).
    pub refused: Vec<Refusal>,
}

/// What happens to one resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Which.
    pub key: Key,
    /// What is done.
    pub action: Action,
    /// Something outside git changed it (promise 19).
    pub drift: bool,
    /// Why it is blocked, unknown, kept, or not finished by this pass.
    pub reason: Option<String>,
    /// Whether this pass does what it can of it; `false`: it waits for others, see `reason`.
    pub due: bool,
    /// Fields of its document that differ.
    pub fields: Vec<FieldChange>,
    /// What happens to its units, in order.
    pub units: Vec<UnitStep>,
    /// What happens, or does not, to what somebody else runs.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What is done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It is new.
    Create,
    /// Changed without stopping a unit that stays.
    Update,
    /// Its units are replaced, a few at a time.
    Roll,
    /// A field that cannot change in place did: taken down and made anew (`-/+`).
    Replace,
    /// It goes.
    Delete,
    /// Nothing.
    NoOp,
    /// Something should happen and does not, until somebody acts; the reason says who and how.
    Blocked,
    /// Its environment does not answer, so nothing is decided (promise 14).
    Unknown,
}

/// One field of a document that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// `spec.phases[1].rate`; names of listed objects stand in place of their index where they have one.
    pub path: String,
    /// The value that was applied; `None`: there was none.
    pub old: Option<serde_json::Value>,
    /// The value that is wanted; `None`: none.
    pub new: Option<serde_json::Value>,
}

/// What happens to one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitStep {
    /// Which.
    pub unit: UnitName,
    /// What.
    pub step: Step,
    /// Where it is, or will be.
    pub environment: Key,
    /// For a replacement that moves: where it is now.
    pub from: Option<Key>,
    /// Digest of the spec it is started from; `None` for a deletion.
    pub digest: Option<Digest>,
    /// Whether this pass does it; `false`: a later one, once what is observed allows it.
    pub due: bool,
    /// Why.
    pub reason: String,
}

/// What happens to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// It is started.
    Create,
    /// It is stopped and its record removed.
    Delete,
    /// Both, in this order.
    Replace,
}

/// Deletions of one project that wait for leave (promise 21).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The project.
    pub project: Name,
    /// The revision that deletes.
    pub revision: Revision,
    /// Exactly these wait.
    pub keys: Vec<Key>,
    /// Why leave is needed.
    pub reason: String,
    /// The command that gives it.
    pub approve_with: String,
}

/// How many resources each action takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the actions' names")]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub create: usize,
    pub update: usize,
    pub replace: usize,
    pub delete: usize,
    pub blocked: usize,
    pub unknown: usize,
    pub unchanged: usize,
    pub drifted: usize,
}

impl Changeset {
    /// Whether anything differs: the one answer that exit code, text, JSON and Markdown give (promise 54).
    pub fn has_changes(&self) -> bool {
        self.changes.iter().any(|change| change.action != Action::NoOp)
    }

    /// Whether a pass over it would do anything now.
    pub fn is_due(&self) -> bool {
        self.changes.iter().any(Change::has_work)
    }

    /// Finds the change of a resource.
    pub fn get(&self, key: &Key) -> Option<&Change> {
        self.changes.iter().find(|change| change.key == *key)
    }

    /// Counts resources by action; a roll counts as an update.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for change in &self.changes {
            summary.drifted += usize::from(change.drift);
            let count = match change.action {
                Action::Create => &mut summary.create,
                Action::Update | Action::Roll => &mut summary.update,
                Action::Replace => &mut summary.replace,
                Action::Delete => &mut summary.delete,
                Action::Blocked => &mut summary.blocked,
                Action::Unknown => &mut summary.unknown,
                Action::NoOp => &mut summary.unchanged,
            };
            *count += 1;
        }
        summary
    }
}

impl Change {
    /// Whether this pass does anything for it.
    pub fn has_work(&self) -> bool {
        self.action.is_performed() && (self.units.iter().any(|step| step.due) || self.completes())
    }

    /// Whether the resource is as wanted (or gone) once this pass did its part, so that it may be written down as applied.
    pub fn completes(&self) -> bool {
        self.action.is_performed() && self.due && self.units.iter().all(|step| step.due)
    }
}

impl Action {
    /// Whether an executor does something for it.
    pub fn is_performed(self) -> bool {
        !matches!(self, Self::NoOp | Self::Blocked | Self::Unknown)
    }

    /// The sign in front of a resource in the text form.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update | Self::Roll => "~",
            Self::Replace => "-/+",
            Self::Delete => "-",
            Self::NoOp => " ",
            Self::Blocked => "!",
            Self::Unknown => "?",
        }
    }

    /// The action's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update in place",
            Self::Roll => "rolling update",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::NoOp => "unchanged",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        }
    }
}
