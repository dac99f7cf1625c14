//! From the files of one commit to resources and diagnostics. It never fails as a whole: what is valid stands beside what is wrong.

pub mod code;
pub mod diagnostic;
mod hint;
pub mod schema;
pub mod tree;
#[allow(dead_code, reason = "fields that are refused exist for the schema and its messages")]
mod wire;

use crate::model::id::{Digest, Name};
use crate::model::key::Key;
use crate::model::policy::Policy;
use crate::model::resource::Resource;
use diagnostic::Diagnostic;
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// What was parsed before, by path and blob. Only used files are kept.
#[derive(Debug, Default)]
pub struct Cache {
    parsed: BTreeMap<(String, String), Arc<Parsed>>,
}

#[derive(Debug)]
struct Parsed {
    documents: Vec<tree::Node>,
    diagnostics: Vec<Diagnostic>,
}

/// Reads the files of one revision under a policy.
pub fn load(files: &Files, policy: &Policy, cache: &mut Cache) -> Loaded {
    let mut loaded = Loaded::default();
    let mut kept = BTreeMap::new();
    for name in policy.projects.keys() {
        loaded.projects.insert(name.clone(), ProjectLoad::default());
    }
    for (path, file) in &files.files {
        if !(path.ends_with(".yaml") || path.ends_with(".yml")) {
            continue;
        }
        let key = (path.clone(), file.blob.clone());
        let parsed = cache.parsed.remove(&key).unwrap_or_else(|| {
            loaded.parsed_files += 1;
            let (documents, diagnostics) = tree::read(path, &file.bytes);
            Arc::new(Parsed { documents, diagnostics })
        });
        loaded.diagnostics.extend(parsed.diagnostics.iter().cloned());
        loaded.ignored_documents += u32::try_from(parsed.documents.len()).unwrap_or(u32::MAX);
        kept.insert(key, parsed);
    }
    cache.parsed = kept;
    loaded
}
