//! From the files of one commit to resources and diagnostics. It never fails as a whole: what is valid stands beside what is wrong.

pub mod code;
mod cycle;
pub mod diagnostic;
pub mod explain;
mod files;
mod glob;
pub mod hint;
mod index;
mod load;
mod lower;
mod parse;
mod project;
pub mod render;
pub mod schema;
pub mod settings;
mod structure;
mod template;
pub mod topics;
mod tree;
#[allow(dead_code, reason = "fields that are refused exist for the schema and its messages")]
mod wire;

use crate::model::id::{Digest, Name};
use crate::model::key::Key;
use crate::model::resource::Resource;
use diagnostic::Diagnostic;
pub use explain::explain;
pub use load::load;
use std::collections::BTreeMap;
use std::sync::Arc;
pub use wire::scalar::instant;

/// All files under the configured path at one revision, YAML or not.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// By path relative to the configured path, with `/`.
    pub files: BTreeMap<String, SourceFile>,
    /// Entries that were not read, and why: symbolic links, submodules, LFS pointers.
    pub refused: BTreeMap<String, String>,
}

/// One file.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Equal ids mean equal content (promise 4).
    pub blob: String,
    /// The content.
    pub bytes: Arc<[u8]>,
}

/// What a revision says.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Every project of the policy, also one without files.
    pub projects: BTreeMap<Name, ProjectLoad>,
    /// What is wrong with files that belong to no project.
    pub diagnostics: Vec<Diagnostic>,
    /// Documents of other groups: Helm values, compose files.
    pub ignored_documents: u32,
    /// Files that resources refer to, by digest: where to find the content a run needs.
    pub contents: BTreeMap<Digest, String>,
    /// YAML files that were parsed now and not taken from the cache (promise 4).
    pub parsed_files: u32,
}

/// What a revision says about one project.
#[derive(Debug, Clone, Default)]
pub struct ProjectLoad {
    /// What is valid.
    pub resources: BTreeMap<Key, Arc<Resource>>,
    /// What is wrong, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl ProjectLoad {
    /// Whether nothing is wrong with it, so that it may become Desired (promise 5).
    pub fn is_good(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

impl Loaded {
    /// Everything that is wrong, in all projects and beside them.
    pub fn all_diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics
            .iter()
            .chain(self.projects.values().flat_map(|project| &project.diagnostics))
    }
}

/// What earlier loads found out. It makes loads fast and lets references into a broken project mean its last good state; the
/// results of a load depend on it in no other way.
#[derive(Debug, Default)]
pub struct Cache {
    /// By path and blob: everything that parsing a file reads.
    parsed: BTreeMap<(String, String), Arc<parse::Parsed>>,
    /// Digest and shape of the files that plans name, by blob.
    blobs: files::Blobs,
    /// By project, as of its last good load.
    good: index::Good,
}

impl Cache {
    /// Tells what a project's last good state was, for a daemon that starts while the project is broken.
    pub fn remember(&mut self, project: Name, resources: BTreeMap<Key, Arc<Resource>>) {
        self.good.insert(project, resources);
    }
}

#[cfg(test)]
mod tests;
