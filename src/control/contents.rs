//! Contents of the repository's files by digest, for units and runs: those of the newest revision in memory, older ones of
//! services in the ledger.

use crate::store::{Ledger, StoreError};
use muster_core::model::id::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Finds a content by its digest. Clones share it.
#[derive(Clone)]
pub struct Contents {
    ledger: Arc<dyn Ledger>,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    bytes: BTreeMap<Digest, Arc<[u8]>>,
    kept: BTreeSet<Digest>,
}

impl Contents {
    /// Nothing in memory yet.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self {
            ledger,
            memory: Arc::default(),
        }
    }

    /// The content of a digest; `None` where nobody has it any more.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn get(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, StoreError> {
        let known = self.with(|memory| memory.bytes.get(digest).cloned());
        match known {
            Some(bytes) => Ok(Some(bytes)),
            None => Ok(self.ledger.blob(digest.as_str()).await?.map(Arc::from)),
        }
    }

    /// Takes the contents of a revision. `all_good`: nothing older is needed any more.
    pub(super) fn replace(&self, bytes: BTreeMap<Digest, Arc<[u8]>>, all_good: bool) {
        self.with(|memory| {
            if all_good {
                memory.bytes = bytes;
            } else {
                memory.bytes.extend(bytes);
            }
        });
    }

    /// Writes contents to the ledger that units may need again when their source does not answer.
    ///
    /// # Errors
    /// When the ledger does not take them.
    pub(super) async fn keep(&self, digests: BTreeSet<Digest>) -> Result<(), StoreError> {
        for digest in digests {
            let bytes = self.with(|memory| match memory.kept.contains(&digest) {
                true => None,
                false => memory.bytes.get(&digest).cloned(),
            });
            if let Some(bytes) = bytes {
                self.ledger.put_blob(digest.as_str(), &bytes).await?;
                self.with(|memory| memory.kept.insert(digest));
            }
        }
        Ok(())
    }

    /// What was written to the ledger since the start.
    pub(super) fn kept(&self) -> BTreeSet<Digest> {
        self.with(|memory| memory.kept.clone())
    }

    fn with<T>(&self, action: impl FnOnce(&mut Memory) -> T) -> T {
        action(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
