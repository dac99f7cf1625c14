//! Desired: all valid resources, and the revision each project stands at.

use super::id::{Name, Revision};
use super::key::Key;
use super::resource::Resource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What git wants. A project whose newest commit is bad stays at its last good revision (promise 5).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// By project; a project that vanished from the repository stays, with no resources.
    pub projects: BTreeMap<Name, ProjectDesired>,
}

/// One project's part of Desired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectDesired {
    /// The last good revision: what `resources` were read from.
    pub revision: Revision,
    /// Its resources.
    pub resources: BTreeMap<Key, Arc<Resource>>,
}

impl Desired {
    /// Every resource of every project.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.projects.values().flat_map(|project| project.resources.values())
    }

    /// Finds a resource.
    pub fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.projects.get(&key.project)?.resources.get(key)
    }
}
