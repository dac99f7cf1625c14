//! Where commands read from: a daemon's API, or the same routes over a store where no daemon runs.

use super::Global;
use super::settings;
use super::wire::{Client, DEFAULT_SERVER, WireError};
use crate::api::{self, ApiState};
use crate::runtime::clock::Clock;
use crate::store;
use anyhow::{Context as _, Result};
use secrecy::SecretString;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Where `muster run` without settings keeps its results.
pub const LOCAL_STORE: &str = ".muster/muster.db";
/// Longest token file: tokens are lines, not documents.
const TOKEN_MAX: u64 = 4_096;

/// Something that answers the API's paths.
pub enum Reader {
    /// A daemon.
    Daemon(Client),
    /// A store; only what is recorded can be read.
    Store(Box<ApiState>),
}

impl Reader {
    /// Chooses: `--settings` names a store, `--server` a daemon; else the daemon on this host if one answers, else `./.muster`.
    ///
    /// # Errors
    /// When the settings or the store cannot be read.
    pub async fn open(global: &Global) -> Result<Self> {
        if let Some(path) = &global.settings {
            let settings = settings::load(path)?;
            return Self::store(&settings.store_url).await;
        }
        let client = client(global)?;
        if global.server.is_none() && Path::new(LOCAL_STORE).exists() && client.get("/livez").await.is_err() {
            return Self::store(&format!("sqlite://{LOCAL_STORE}")).await;
        }
        Ok(Self::Daemon(client))
    }

    async fn store(url: &str) -> Result<Self> {
        let stores = store::open(url).await.context("cannot open the store")?;
        Ok(Self::Store(Box::new(ApiState::offline(stores, Clock::system()))))
    }

    /// Reads one path of the API.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn get(&self, path: &str) -> Result<Value, WireError> {
        match self {
            Self::Daemon(client) => client.get(path).await,
            Self::Store(state) => local(state, path).await,
        }
    }

    /// Reads one path whose answer may be held back for up to `wait`.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn get_waiting(&self, path: &str, wait: Duration) -> Result<Value, WireError> {
        match self {
            Self::Daemon(client) => client.get_waiting(path, wait).await,
            Self::Store(state) => local(state, path).await,
        }
    }
}

async fn local(state: &ApiState, path: &str) -> Result<Value, WireError> {
    let (status, value) = api::answer(state, path).await;
    if (200..300).contains(&status) {
        return Ok(value);
    }
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Err(WireError::Refused {
        status,
        code: text("code").unwrap_or_default(),
        message: text("message").unwrap_or_default(),
        hint: text("hint"),
    })
}

/// The client that the global flags describe.
///
/// # Errors
/// When the token file cannot be read.
pub fn client(global: &Global) -> Result<Client> {
    let token = match &global.token_file {
        Some(path) => {
            let size = std::fs::metadata(path)
                .with_context(|| format!("cannot read {}", path.display()))?
                .len();
            anyhow::ensure!(size <= TOKEN_MAX, "{} is longer than a token", path.display());
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some(SecretString::from(text.trim().to_owned()))
        }
        None => None,
    };
    Ok(Client::new(global.server.as_deref().unwrap_or(DEFAULT_SERVER), token)?)
}
