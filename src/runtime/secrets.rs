//! Reads the values of secrets from where the settings say they stand. Values leave this module only inside [`SecretString`].

use muster_core::model::service::SecretRef;
use muster_core::model::settings::SecretSource;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Largest secret, in bytes: certificates and keys fit, a file named by mistake does not fill the memory.
const VALUE_MAX: u64 = 64 * 1024;

/// Where values of secrets come from.
pub trait Secrets: Send + Sync {
    /// Reads a value anew, so that a rotated secret counts from the next use on.
    ///
    /// # Errors
    /// [`SecretError`], which names the secret and never its value.
    fn get(&self, secret: &SecretRef) -> Result<SecretString, SecretError>;
}

/// Those of some keys of a secret that have a value.
///
/// # Errors
/// [`SecretError`], but not for a key that is not there.
pub fn some_of(
    secrets: &dyn Secrets,
    name: &str,
    keys: &[&'static str],
) -> Result<BTreeMap<&'static str, SecretString>, SecretError> {
    let mut values = BTreeMap::new();
    for key in keys {
        let secret = SecretRef {
            name: name.to_owned(),
            key: Some((*key).to_owned()),
        };
        match secrets.get(&secret) {
            Ok(value) => drop(values.insert(*key, value)),
            Err(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The settings do not name it.
    #[error("settings have no secret `{0}`")]
    Unknown(String),
    /// Its place has no value.
    #[error("environment variable {variable} of secret `{name}` is not set")]
    NotSet {
        /// The secret.
        name: String,
        /// The variable.
        variable: String,
    },
    /// A key where the secret is one value, none where it is a folder of values, or one that is not a file name.
    #[error("secret `{name}` {problem}")]
    Key {
        /// The secret.
        name: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// Its file cannot be read.
    #[error("secret `{name}` cannot be read from {path}")]
    Read {
        /// The secret.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The secrets of a settings file.
#[derive(Debug, Clone, Default)]
pub struct ConfiguredSecrets {
    places: BTreeMap<String, SecretSource>,
}

impl ConfiguredSecrets {
    /// Keeps where each secret stands.
    pub fn new(places: BTreeMap<String, SecretSource>) -> Self {
        Self { places }
    }
}

impl Secrets for ConfiguredSecrets {
    fn get(&self, secret: &SecretRef) -> Result<SecretString, SecretError> {
        let place = self
            .places
            .get(&secret.name)
            .ok_or_else(|| SecretError::Unknown(secret.name.clone()))?;
        match place {
            SecretSource::Env(variable) => from_env(secret, variable),
            SecretSource::File(path) => from_file(secret, Path::new(path)),
        }
    }
}

fn wrong_key(secret: &SecretRef, problem: &'static str) -> SecretError {
    SecretError::Key {
        name: secret.name.clone(),
        problem,
    }
}

fn from_env(secret: &SecretRef, variable: &str) -> Result<SecretString, SecretError> {
    if secret.key.is_some() {
        return Err(wrong_key(secret, "is one value, so it has no keys"));
    }
    std::env::var(variable)
        .map(SecretString::from)
        .map_err(|_| SecretError::NotSet {
            name: secret.name.clone(),
            variable: variable.to_owned(),
        })
}

fn from_file(secret: &SecretRef, path: &Path) -> Result<SecretString, SecretError> {
    let path = match (path.is_dir(), &secret.key) {
        (true, Some(key)) if is_file_name(key) => path.join(key),
        (true, Some(_)) => return Err(wrong_key(secret, "has no such key")),
        (true, None) => return Err(wrong_key(secret, "has several values; name one with `key`")),
        (false, Some(_)) => return Err(wrong_key(secret, "is one value, so it has no keys")),
        (false, None) => path.to_owned(),
    };
    let mut text = String::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(VALUE_MAX + 1).read_to_string(&mut text))
        .and_then(|length| {
            if length as u64 > VALUE_MAX {
                return Err(io::Error::other("it is larger than 64 KiB"));
            }
            Ok(())
        });
    read.map_err(|source| SecretError::Read {
        name: secret.name.clone(),
        path,
        source,
    })?;
    // Editors and `echo` end a file with a line feed that is no part of the value.
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(SecretString::from(text))
}

/// A key must not lead out of the secret's folder.
fn is_file_name(key: &str) -> bool {
    !key.is_empty() && !key.starts_with('.') && !key.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::{ConfiguredSecrets, Secrets};
    use muster_core::base::chain::chain;
    use muster_core::model::service::SecretRef;
    use muster_core::model::settings::SecretSource;
    use secrecy::ExposeSecret as _;
    use std::collections::BTreeMap;

    fn reference(name: &str, key: Option<&str>) -> SecretRef {
        SecretRef {
            name: name.to_owned(),
            key: key.map(str::to_owned),
        }
    }

    #[test]
    fn values_come_from_the_environment_files_and_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").expect("written");
        let place = |path: &std::path::Path| SecretSource::File(path.display().to_string());
        let secrets = ConfiguredSecrets::new(BTreeMap::from([
            ("path".to_owned(), SecretSource::Env("PATH".to_owned())),
            ("one".to_owned(), place(&file)),
            ("many".to_owned(), place(folder.path())),
        ]));
        let get = |name, key| secrets.get(&reference(name, key));
        assert_eq!(get("one", None).expect("a value").expose_secret(), "hunter2");
        assert_eq!(
            get("many", Some("password")).expect("a value").expose_secret(),
            "hunter2"
        );
        assert!(!get("path", None).expect("a value").expose_secret().is_empty());
    }

    #[test]
    fn keys_that_are_not_there_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("username"), "muster\n").expect("written");
        let place = SecretSource::File(folder.path().display().to_string());
        let secrets = ConfiguredSecrets::new(BTreeMap::from([
            ("kafka".to_owned(), place),
            ("path".to_owned(), SecretSource::Env("PATH".to_owned())),
        ]));
        let found = super::some_of(&secrets, "kafka", &["username", "password"]).expect("read");
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["username"]);
        for name in ["path", "nowhere"] {
            assert!(super::some_of(&secrets, name, &["username"]).is_err(), "{name}");
        }
    }

    #[test]
    fn s57_errors_name_the_secret_and_never_its_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("big");
        std::fs::write(&file, "hunter2".repeat(10_000)).expect("written");
        let binary = folder.path().join("binary");
        std::fs::write(&binary, [b'h', b'u', b'n', b't', 0xff]).expect("written");
        let place = |path: &std::path::Path| SecretSource::File(path.display().to_string());
        let secrets = ConfiguredSecrets::new(BTreeMap::from([
            (
                "unset".to_owned(),
                SecretSource::Env("MUSTER_NO_SUCH_VARIABLE".to_owned()),
            ),
            ("env".to_owned(), SecretSource::Env("PATH".to_owned())),
            ("big".to_owned(), place(&file)),
            ("binary".to_owned(), place(&binary)),
            ("many".to_owned(), place(folder.path())),
        ]));
        for (name, key) in [
            ("nowhere", None),
            ("unset", None),
            ("env", Some("key")),
            ("big", None),
            ("big", Some("key")),
            ("binary", None),
            ("many", None),
            ("many", Some("../big")),
            ("many", Some("missing")),
        ] {
            let error = secrets.get(&reference(name, key)).expect_err("no value");
            let text = chain(&error);
            assert!(text.contains(name) && !text.contains("hunt"), "{text}");
        }
    }
}
