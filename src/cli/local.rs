//! Plans read from this machine without a daemon: a folder, a file in it, or a revision of a repository.

use super::output;
use super::reader::LOCAL_STORE;
use super::settings;
use crate::source::Source as _;
use crate::source::Tree;
use crate::source::directory::DirectorySource;
use crate::source::git::local::LocalRepository;
use crate::source::tree::Limits;
use anyhow::{Context as _, Result};
use muster_core::model::desired::{Desired, ProjectDesired};
use muster_core::model::id::{Name, Revision};
use muster_core::model::policy::Policy;
use muster_core::model::settings::{Settings, SourceFrom, SourceSettings};
use muster_core::spec::diagnostic::Diagnostic;
use muster_core::spec::{self, Cache, Loaded};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What stands in a folder or a revision, and what it says.
pub struct Plans {
    /// What was read.
    pub tree: Tree,
    /// The folder's digest or the commit.
    pub revision: Revision,
    /// What it says.
    pub loaded: Loaded,
    /// The file that was named, where one was: results are shown of it alone.
    pub only: Option<String>,
}

/// The folder plans are read from for a path on the command line: a file's own folder, since its references are relative to it.
pub fn root_of(path: &Path) -> Result<(PathBuf, Option<String>)> {
    let found = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if found.is_dir() {
        return Ok((path.to_owned(), None));
    }
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .with_context(|| format!("{} has no file name", path.display()))?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Ok((parent.to_owned(), Some(name.to_owned())))
}

/// Reads a folder, or a file with the folder around it.
///
/// # Errors
/// When the folder cannot be read.
pub async fn read(path: &Path, policy: &Policy) -> Result<Plans> {
    let (root, only) = root_of(path)?;
    let source = DirectorySource::new(root, Limits::default());
    let revision = source.resolve().await?;
    let tree = source.read(&revision).await?;
    let loaded = spec::load(&tree.to_files(), policy, &mut Cache::default());
    Ok(Plans {
        tree,
        revision,
        loaded,
        only,
    })
}

/// Reads a revision of a repository on this machine.
///
/// # Errors
/// When there is no such repository or revision.
pub fn read_revision(repository: &Path, name: &str, folder: &str, policy: &Policy) -> Result<Plans> {
    let repository = LocalRepository::open(repository)?;
    let revision = repository.resolve_rev(name)?;
    let tree = repository.read(&revision, folder, Limits::default())?;
    let loaded = spec::load(&tree.to_files(), policy, &mut Cache::default());
    Ok(Plans {
        tree,
        revision,
        loaded,
        only: None,
    })
}

impl Plans {
    /// What is wrong, of the file that was named alone where one was.
    pub fn diagnostics(&self) -> Vec<&Diagnostic> {
        self.loaded
            .all_diagnostics()
            .filter(|diagnostic| self.only.as_ref().is_none_or(|only| *only == diagnostic.file))
            .collect()
    }

    /// Everything valid, as Desired.
    pub fn desired(&self) -> Desired {
        let project = |(name, load): (&Name, &spec::ProjectLoad)| {
            (
                name.clone(),
                ProjectDesired {
                    revision: self.revision.clone(),
                    resources: load.resources.clone(),
                },
            )
        };
        Desired {
            projects: self.loaded.projects.iter().map(project).collect(),
        }
    }

    /// Shows what is wrong on stderr, with the lines it stands on.
    pub fn show_diagnostics(&self) {
        for diagnostic in self.diagnostics() {
            let text = self
                .tree
                .files
                .get(&diagnostic.file)
                .and_then(|file| std::str::from_utf8(&file.bytes).ok());
            output::diagnostic(&super::diagnostics::render(diagnostic, text, output::stderr_color()));
        }
    }
}

/// The rules plans are checked against: the settings' where they are named, else those of a plan read on its own.
///
/// # Errors
/// When the settings cannot be read.
pub fn policy(settings: Option<&Path>) -> Result<Policy> {
    match settings {
        Some(path) => Ok(settings::load(path)?.policy()),
        None => Ok(Policy::reading()),
    }
}

/// The settings of a foreground run in a folder that has none: its plans, its store, nothing to dial in to from elsewhere.
pub fn settings() -> Settings {
    Settings {
        time_zone: None,
        source: SourceSettings {
            from: SourceFrom::Directory { path: ".".to_owned() },
            path: ".".to_owned(),
            interval: Duration::from_secs(30),
        },
        store_url: format!("sqlite://{LOCAL_STORE}"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        workers_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        workers_tls: None,
        join: Vec::new(),
        tokens: Vec::new(),
        targets: Vec::new(),
        caps: Default::default(),
        projects: Vec::new(),
        process_enabled: true,
        secrets: Default::default(),
        deletion_max_share: 1.0,
        retention: Duration::from_secs(400 * 86_400),
    }
}
