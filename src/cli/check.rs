//! `muster check`: what is wrong with the settings, and what they name that cannot be reached.

use super::Global;
use super::exit::Exit;
use super::output::{self, Tone, paint};
use super::settings::{self, InvalidSettings};
use super::wire::Client;
use super::wiring;
use crate::control::external::{External as _, Outside, Reach};
use crate::runtime::secrets::{ConfiguredSecrets, Secrets};
use crate::store;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use muster_core::base::chain::chain;
use muster_core::base::units::counted;
use muster_core::model::key::Key;
use muster_core::model::observed::ExternalSight;
use muster_core::model::service::SecretRef;
use muster_core::model::settings::{SecretSource, Settings, SourceFrom};
use muster_core::spec::{self, Cache};
use secrecy::ExposeSecret as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Check settings: whether they are valid, and whether the store, the source, the secrets and the addresses they name are there.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Settings file [default: --settings, else muster.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A store or a source that takes longer is as good as away.
const DEADLINE: Duration = Duration::from_secs(30);
/// A daemon on this host answers at once.
const ANSWER: Duration = Duration::from_secs(2);

/// Runs the command: one line for each thing.
///
/// # Errors
/// When the settings cannot be read.
pub async fn run(args: &CheckArgs, global: &Global) -> Result<Exit> {
    let path = args.config.as_deref().or(global.settings.as_deref());
    let path = path.unwrap_or(Path::new("muster.yaml"));
    let settings = match settings::load(path) {
        Ok(settings) => settings,
        Err(error) if error.is::<InvalidSettings>() => {
            tell("settings", Err(anyhow!("{error}; mend what is shown on stderr")));
            return Ok(Exit::Invalid);
        }
        Err(error) => {
            let cause = chain(error.as_ref());
            bail!("{cause}\n  hint: name a file with --config; `muster init` writes one to begin with");
        }
    };
    let mut all_good = tell("settings", Ok(format!("{} is valid", path.display())));
    let secrets = ConfiguredSecrets::new(settings.secrets.clone());
    for (name, place) in &settings.secrets {
        all_good &= tell(&format!("secret {name}"), secret(name, place, &secrets));
    }
    for token in &settings.tokens {
        all_good &= tell(&format!("token {}", token.name), fresh(token, &secrets));
    }
    for rule in &settings.join {
        let outcome =
            wiring::join(rule, &secrets).map(|()| format!("at most {}", counted(rule.max_workers as usize, "worker")));
        all_good &= tell(&format!("join {}", rule.environment), outcome);
    }
    if let Some(files) = &settings.workers_tls {
        let outcome = wiring::tls(files).map(|_| format!("{} and its key can be read", files.cert_file));
        all_good &= tell("workers.tls", outcome);
    }
    let runs = daemon_answers(settings.listen).await;
    for (key, address) in [("listen", settings.listen), ("workers.listen", settings.workers_listen)] {
        let outcome = match wiring::bind(address, key).await {
            Ok(_) => Ok(format!("{address} is free")),
            Err(_) if runs => Ok(format!(
                "{address} is taken; the daemon of these settings runs, it seems"
            )),
            Err(error) => Err(error),
        };
        all_good &= tell(key, outcome);
    }
    all_good &= tell("store", within(reach_store(&settings)).await);
    let resolved = within(resolve(&settings, &secrets)).await;
    let outside = match &resolved {
        Ok((_, outside)) => outside.clone(),
        Err(_) => Vec::new(),
    };
    all_good &= tell("source", resolved.map(|(text, _)| text));
    let reach = Reach::new(Arc::new(secrets));
    for (key, outside) in outside {
        let looked = within(look(&reach, &outside)).await;
        all_good &= tell(&format!("{} {}/{}", key.kind, key.project, key.name), looked);
    }
    Ok(if all_good { Exit::Done } else { Exit::Failed })
}

/// Whether a daemon of Muster has the API's address.
async fn daemon_answers(address: SocketAddr) -> bool {
    let Ok(client) = Client::new(&format!("http://{address}"), None) else {
        return false;
    };
    let answer = timeout(ANSWER, client.get("/api/v1/version")).await;
    matches!(answer, Ok(Ok(answer)) if answer["version"].is_string())
}

/// Prints a line and says whether it is good.
fn tell(what: &str, outcome: Result<String>) -> bool {
    let color = output::stdout_color();
    let (mark, text) = match &outcome {
        Ok(text) => (paint("✓", Tone::Good, color), text.clone()),
        Err(error) => (paint("✗", Tone::Bad, color), chain(error.as_ref())),
    };
    output::data(&format!("{mark} {what}: {text}"));
    outcome.is_ok()
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| bail!("no answer within {} s", DEADLINE.as_secs()))
}

fn secret(name: &str, place: &SecretSource, secrets: &dyn Secrets) -> Result<String> {
    match place {
        SecretSource::File(path) if Path::new(path).is_dir() => {
            let keys = std::fs::read_dir(path)
                .with_context(|| format!("cannot read {path}"))?
                .count();
            ensure!(keys > 0, "{path} is an empty folder; write a file for each key into it");
            Ok(format!("{path} has {}", counted(keys, "key")))
        }
        SecretSource::File(path) => has_value(name, secrets).map(|()| format!("{path} has a value")),
        SecretSource::Env(variable) => has_value(name, secrets).map(|()| format!("{variable} is set")),
    }
}

fn has_value(name: &str, secrets: &dyn Secrets) -> Result<()> {
    let whole = SecretRef {
        name: name.to_owned(),
        key: None,
    };
    ensure!(!secrets.get(&whole)?.expose_secret().is_empty(), "its value is empty");
    Ok(())
}

fn fresh(token: &muster_core::model::settings::Token, secrets: &dyn Secrets) -> Result<String> {
    wiring::token(token, secrets)?;
    match token.expires {
        Some(expires) if expires <= Timestamp::now() => {
            bail!("it expired at {expires}; make a new value and set another `expires`")
        }
        Some(expires) => Ok(format!("valid until {expires}")),
        None => Ok("valid".to_owned()),
    }
}

async fn reach_store(settings: &Settings) -> Result<String> {
    let shown = store::redact(&settings.store_url);
    if store::reach(&settings.store_url).await? {
        return Ok(format!("{shown} answers"));
    }
    let path = Path::new(settings.store_url.trim_start_matches("sqlite://"));
    let path = std::path::absolute(path)?;
    // The daemon makes the file and its folder; what must be there is somewhere to make them in.
    let folder = path.ancestors().skip(1).find(|folder| folder.exists());
    let folder = folder.context("no folder above it is there")?;
    let writable = nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK);
    writable.with_context(|| format!("{} cannot be written to, so {shown} cannot be made", folder.display()))?;
    Ok(format!("{shown} will be made"))
}

/// What of Kafka and databases the plans name; a part of it that is missing is made by the daemon.
async fn look(reach: &Reach, outside: &Outside) -> Result<String> {
    match reach.look(outside).await {
        ExternalSight::Fine { summary } => Ok(summary),
        ExternalSight::Missing { what, .. } => Ok(format!("answers; the daemon will make {}", what.join(", "))),
        ExternalSight::Unfit { summary } | ExternalSight::Unreachable { summary } => Err(anyhow!(summary)),
    }
}

/// The source's newest commit in words, and what of it somebody else runs.
async fn resolve(settings: &Settings, secrets: &dyn Secrets) -> Result<(String, Vec<(Key, Outside)>)> {
    let place = match &settings.source.from {
        SourceFrom::Git { url, branch, .. } => format!("{url}, branch {branch}"),
        SourceFrom::Directory { path } => path.clone(),
    };
    let scratch = std::env::temp_dir().join(format!("muster-check-{}", std::process::id()));
    let found = plans(settings, secrets, &scratch, &place).await;
    // Only what it read from git is there.
    let _ = std::fs::remove_dir_all(&scratch);
    found
}

async fn plans(
    settings: &Settings,
    secrets: &dyn Secrets,
    scratch: &Path,
    place: &str,
) -> Result<(String, Vec<(Key, Outside)>)> {
    let source = wiring::source(settings, scratch, secrets).with_context(|| place.to_owned())?;
    let revision = source.resolve().await.with_context(|| place.to_owned())?;
    let tree = source.read(&revision).await.with_context(|| place.to_owned())?;
    let loaded = spec::load(&tree.to_files(), &settings.policy(), &mut Cache::default());
    let resources = loaded.projects.values().flat_map(|project| &project.resources);
    let outside = resources.filter_map(|(key, resource)| Some((key.clone(), Outside::of(&resource.spec)?)));
    Ok((format!("{place} is at {}", revision.short()), outside.collect()))
}
