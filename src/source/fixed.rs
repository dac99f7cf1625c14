//! A tree held in memory as a source: what `muster run` has read once, and nothing when the run is over.

use super::{Source, SourceError, Tree};
use async_trait::async_trait;
use muster_core::model::id::{Digest, Revision};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// A source that says what it was told to say.
pub struct FixedSource {
    now: Mutex<(Revision, Tree)>,
    changed: Notify,
}

impl FixedSource {
    /// Holds a tree that was read at a revision.
    pub fn new(revision: Revision, tree: Tree) -> Self {
        Self {
            now: Mutex::new((revision, tree)),
            changed: Notify::new(),
        }
    }

    /// Holds nothing from now on; returns the revision that says so.
    pub fn clear(&self) -> Revision {
        let revision = Revision::new(format!("dir-{}", Digest::of(b"").hex())).expect("a digest has 64 hex digits");
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = (revision.clone(), Tree::default());
        self.changed.notify_one();
        revision
    }

    fn now(&self) -> (Revision, Tree) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Source for FixedSource {
    async fn resolve(&self) -> Result<Revision, SourceError> {
        Ok(self.now().0)
    }

    async fn read(&self, _revision: &Revision) -> Result<Tree, SourceError> {
        Ok(self.now().1)
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn author(&self, _revision: &Revision) -> Option<String> {
        None
    }

    async fn author_of(&self, _revision: &Revision, _file: &str) -> Option<String> {
        None
    }
}
