//! What settings name, made ready for use: listeners, tokens with their values, the source.

use crate::api::auth::Token;
use crate::api::worker::TlsIdentity;
use crate::control::fleet::door::TOKEN_MIN;
use crate::runtime::secrets::Secrets;
use crate::source::Source;
use crate::source::directory::DirectorySource;
use crate::source::git::credentials::Credentials;
use crate::source::git::{GitConfig, GitSource};
use crate::source::tree::Limits;
use anyhow::{Context as _, Result, bail, ensure};
use muster_core::model::settings::{self, JoinRule, Settings, SourceFrom, SourceSettings, TlsFiles};
use nix::fcntl::{Flock, FlockArg};
use secrecy::ExposeSecret as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Listens on an address of the settings.
///
/// # Errors
/// When it is taken or not this host's; names the setting.
pub async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; change `{key}` in the settings"))
}

/// A token with its value.
///
/// # Errors
/// When it has none.
pub fn token(token: &settings::Token, secrets: &dyn Secrets) -> Result<Token> {
    let value = secrets
        .get(&token.secret)
        .with_context(|| format!("token {} has no value", token.name))?;
    ensure!(
        !value.expose_secret().is_empty(),
        "token {} has an empty value",
        token.name
    );
    Ok(Token {
        name: token.name.clone(),
        role: token.role,
        projects: token.projects.clone(),
        expires: token.expires,
        value,
    })
}

/// All tokens with their values.
///
/// # Errors
/// When one has none.
pub fn tokens(settings: &Settings, secrets: &dyn Secrets) -> Result<Vec<Token>> {
    settings.tokens.iter().map(|each| token(each, secrets)).collect()
}

/// What workers are shown.
///
/// # Errors
/// When a file cannot be read.
pub fn tls(files: &TlsFiles) -> Result<TlsIdentity> {
    let read =
        |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path} of `workers.tls`"));
    Ok(TlsIdentity {
        cert: read(&files.cert_file)?,
        key: read(&files.key_file)?.into(),
    })
}

/// Checks that the token of a `join` rule has a value that nobody guesses.
///
/// # Errors
/// When it has none.
pub fn join(rule: &JoinRule, secrets: &dyn Secrets) -> Result<()> {
    let value = secrets
        .get(&rule.secret)
        .with_context(|| format!("the join token of {} has no value", rule.environment))?;
    ensure!(
        value.expose_secret().len() >= TOKEN_MIN,
        "the join token of {} is shorter than {TOKEN_MIN} characters",
        rule.environment
    );
    Ok(())
}

/// Where plans come from; nothing is contacted yet.
///
/// # Errors
/// When its credentials have no value, or it cannot be one.
pub fn source(settings: &Settings, state_dir: &Path, secrets: &dyn Secrets) -> Result<Arc<dyn Source>> {
    let SourceSettings { from, path, .. } = &settings.source;
    Ok(match from {
        SourceFrom::Git {
            url,
            branch,
            credentials,
        } => {
            let credentials = match credentials {
                Some(secret) => Credentials::from_secret(&secrets.get(secret)?),
                None => Credentials::None,
            };
            let config = GitConfig {
                url: url.clone(),
                branch: branch.clone(),
                path: path.clone(),
                mirror: state_dir.join("mirror"),
                credentials,
                limits: Limits::default(),
            };
            Arc::new(GitSource::new(config)?)
        }
        SourceFrom::Directory { path: directory } => {
            Arc::new(DirectorySource::new(Path::new(directory).join(path), Limits::default()))
        }
    })
}

/// One daemon for each state folder: two would start units of the same names.
///
/// # Errors
/// When another one has it, or it cannot be written.
pub fn lock(state_dir: &Path) -> Result<Flock<File>> {
    let path = state_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
            "another muster uses {}; wait for it, or use another folder",
            state_dir.display()
        ),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
