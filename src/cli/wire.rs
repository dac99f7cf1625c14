//! The client of the daemon's HTTP API: deadlines, size limits, errors that say how to mend them.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::time::Duration;

/// Where a daemon listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8420";
/// A request that does not wait for anything is answered from memory or one query.
const DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer read: a report of many requests is far below a megabyte.
const ANSWER_MAX: usize = 64 << 20;

/// Why the daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Nobody answered.
    #[error(
        "no daemon answers at {server} ({reason})\n  hint: start one with `muster serve --config muster.yaml`, or name it with --server; \
         what `muster run` did is read in the folder where it ran"
    )]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        reason: String,
    },
    /// It answered with an error.
    #[error("{message}{}", hint.as_deref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// The error's code.
        code: String,
        /// What.
        message: String,
        /// How to mend it.
        hint: Option<String>,
    },
    /// It answered something that is not the API.
    #[error("{server} does not answer like a Muster daemon: {reason}")]
    NotMuster {
        /// Where.
        server: String,
        /// Why.
        reason: String,
    },
}

/// A connection to a daemon.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    token: Option<SecretString>,
    http: reqwest::Client,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// When no TLS can be set up.
    pub fn new(server: &str, token: Option<SecretString>) -> Result<Self, WireError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| WireError::NotMuster {
                server: server.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            server: server.trim_end_matches('/').to_owned(),
            token,
            http,
        })
    }

    /// The daemon's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Reads.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn get(&self, path: &str) -> Result<Value, WireError> {
        self.send(self.http.get(self.url(path)).timeout(DEADLINE)).await
    }

    /// Reads, and lets the daemon hold the answer back for up to `wait`.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn get_waiting(&self, path: &str, wait: Duration) -> Result<Value, WireError> {
        self.send(self.http.get(self.url(path)).timeout(DEADLINE + wait)).await
    }

    /// Acts.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, WireError> {
        self.send(self.http.post(self.url(path)).timeout(DEADLINE).json(body))
            .await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, WireError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let unreachable = |error: reqwest::Error| WireError::Unreachable {
            server: self.server.clone(),
            reason: if error.is_timeout() {
                "no answer in time".to_owned()
            } else {
                muster_core::base::chain::chain(&error)
                    .rsplit(": ")
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            },
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(self.not_muster(format!("answer above {ANSWER_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let value: Value = match serde_json::from_slice(&body) {
            Ok(value) => value,
            Err(error) => return Err(self.not_muster(format!("status {status}, {error}"))),
        };
        if status.is_success() {
            return Ok(value);
        }
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        match (text("code"), text("message")) {
            (Some(code), Some(message)) => Err(WireError::Refused {
                status: status.as_u16(),
                code,
                message,
                hint: text("hint"),
            }),
            _ => Err(self.not_muster(format!("status {status}"))),
        }
    }

    fn not_muster(&self, reason: String) -> WireError {
        WireError::NotMuster {
            server: self.server.clone(),
            reason,
        }
    }
}
