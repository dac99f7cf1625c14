//! What runs need to know of the rest of the daemon: the port that whoever puts a daemon together fills.

use async_trait::async_trait;
use muster_core::model::desired::Desired;
use muster_core::model::id::Name;
use muster_core::model::key::Key;
use muster_core::model::policy::Policy;
use muster_core::model::service::SecretRef;
use secrecy::SecretString;
use std::sync::Arc;
use tokio::sync::watch;

/// The daemon as runs see it.
#[async_trait]
pub trait World: Send + Sync {
    /// What git wants, and each change of it (promise 46).
    fn desired(&self) -> watch::Receiver<Arc<Desired>>;

    /// What the settings allow.
    fn policy(&self) -> Arc<Policy>;

    /// Whether the project's newest commit is good.
    ///
    /// # Errors
    /// Why not.
    fn check_project(&self, project: &Name) -> Result<(), String>;

    /// Whether a resource is Ready and in sync.
    ///
    /// # Errors
    /// Why not.
    fn check_ready(&self, key: &Key) -> Result<(), String>;

    /// `host:port` of the ready replicas of a service.
    fn replicas(&self, service: &Key, port: &Name) -> Vec<String>;

    /// The content of a file of the repository by its digest (`sha256:…`).
    async fn content(&self, digest: &str) -> Option<Arc<[u8]>>;

    /// A secret's value.
    ///
    /// # Errors
    /// Why there is none; never a value.
    async fn secret(&self, secret: &SecretRef) -> Result<SecretString, String>;
}
