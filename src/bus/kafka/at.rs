//! A topic and its brokers, as resources and settings name them, and as workers are told of them.

use super::{Brokers, BrokersError, Mechanism, Sasl, check_topic};
use crate::bus::wire;
use crate::runtime::secrets::{SecretError, Secrets};
use muster_core::model::service::SecretRef;
use muster_core::model::streaming::ExternalKafka;
use secrecy::{ExposeSecret as _, SecretString};
use std::io;

/// A topic and where its brokers are.
#[derive(Debug, Clone)]
pub struct TopicAt {
    /// The brokers.
    pub brokers: Brokers,
    /// The topic's name.
    pub topic: String,
}

/// Why it cannot be told how brokers are reached.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// A value of the secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no such way to show a password.
    #[error("`{0}` is no mechanism of SASL: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are")]
    Mechanism(String),
    /// Half of what SASL needs: who asks for a user is not to be left without.
    #[error(
        "secret `{secret}` has `{has}` and no `{lacks}`: kafka's clients prove themselves with both, or with neither"
    )]
    Half {
        /// The secret.
        secret: String,
        /// What is there.
        has: &'static str,
        /// What is not.
        lacks: &'static str,
    },
}

impl Brokers {
    /// The brokers of a cluster that somebody else runs. Values of its secret are `username` and `password` (SASL), `mechanism` (default
    /// SCRAM-SHA-512) and `ca` (PEM; turns TLS on); what it does not hold is not used, but a user without a password is an error.
    ///
    /// # Errors
    /// When a value cannot be read or is none.
    pub fn of(external: &ExternalKafka, secrets: &dyn Secrets) -> Result<Self, AddressError> {
        let value = |key: &str| -> Result<Option<SecretString>, AddressError> {
            let Some(secret) = &external.secret else {
                return Ok(None);
            };
            let place = SecretRef {
                name: secret.name.clone(),
                key: Some(key.to_owned()),
            };
            match secrets.get(&place) {
                Ok(value) => Ok(Some(value)),
                Err(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let shown = |value: Option<SecretString>| value.map(|value| value.expose_secret().to_owned());
        let sasl = match (shown(value("username")?), value("password")?) {
            (Some(username), Some(password)) => Some(Sasl {
                mechanism: mechanism(shown(value("mechanism")?))?,
                username,
                password,
            }),
            (None, None) => None,
            (username, _) => return Err(half(external, username.is_some())),
        };
        Ok(Self {
            bootstrap_servers: external.bootstrap_servers.clone(),
            sasl,
            ca: shown(value("ca")?),
        })
    }
}

fn half(external: &ExternalKafka, has_user: bool) -> AddressError {
    let (has, lacks) = match has_user {
        true => ("username", "password"),
        false => ("password", "username"),
    };
    let secret = external.secret.as_ref();
    AddressError::Half {
        secret: secret.map(|secret| secret.name.clone()).unwrap_or_default(),
        has,
        lacks,
    }
}

fn mechanism(word: Option<String>) -> Result<Mechanism, AddressError> {
    match word {
        None => Ok(Mechanism::ScramSha512),
        Some(word) => Mechanism::parse(&word).ok_or(AddressError::Mechanism(word)),
    }
}

impl TopicAt {
    /// Looks whether frames can go this way: before load starts, not when the first is lost.
    ///
    /// # Errors
    /// As [`check_topic`].
    pub async fn check(&self) -> Result<(), BrokersError> {
        check_topic(&self.brokers, &self.topic, 1).await.map(drop)
    }

    /// As a worker is told of it.
    pub fn to_wire(&self) -> wire::Kafka {
        let sasl = self.brokers.sasl.as_ref();
        wire::Kafka {
            bootstrap_servers: self.brokers.bootstrap_servers.clone(),
            topic: self.topic.clone(),
            mechanism: sasl.map(|sasl| sasl.mechanism.as_str().to_owned()).unwrap_or_default(),
            username: sasl.map(|sasl| sasl.username.clone()).unwrap_or_default(),
            password: sasl
                .map(|sasl| sasl.password.expose_secret().to_owned())
                .unwrap_or_default(),
            ca: self.brokers.ca.clone().unwrap_or_default(),
        }
    }

    /// What a worker was told.
    ///
    /// # Errors
    /// When there is no such mechanism.
    pub fn of_wire(kafka: wire::Kafka) -> Result<Self, AddressError> {
        let sasl = match kafka.mechanism.is_empty() {
            true => None,
            false => Some(Sasl {
                mechanism: mechanism(Some(kafka.mechanism))?,
                username: kafka.username,
                password: kafka.password.into(),
            }),
        };
        Ok(Self {
            brokers: Brokers {
                bootstrap_servers: kafka.bootstrap_servers,
                sasl,
                ca: (!kafka.ca.is_empty()).then_some(kafka.ca),
            },
            topic: kafka.topic,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressError, Brokers, Mechanism, TopicAt};
    use crate::runtime::secrets::ConfiguredSecrets;
    use muster_core::model::service::SecretRef;
    use muster_core::model::settings::SecretSource;
    use muster_core::model::streaming::ExternalKafka;
    use std::collections::BTreeMap;

    #[test]
    fn brokers_are_what_their_secret_holds() {
        let folder = tempfile::tempdir().unwrap();
        let place = SecretSource::File(folder.path().display().to_string());
        let secrets = ConfiguredSecrets::new(BTreeMap::from([("kafka".to_owned(), place)]));
        let mut external = ExternalKafka {
            bootstrap_servers: vec!["k:9092".to_owned()],
            secret: None,
        };
        let plain = Brokers::of(&external, &secrets).unwrap();
        assert!(plain.sasl.is_none() && plain.ca.is_none());
        external.secret = Some(SecretRef {
            name: "kafka".to_owned(),
            key: None,
        });
        let write = |key: &str, value: &str| std::fs::write(folder.path().join(key), value).unwrap();
        write("password", "hunter2\n");
        let half = Brokers::of(&external, &secrets).unwrap_err().to_string();
        assert!(half.contains("`kafka` has `password` and no `username`"), "{half}");
        write("username", "me\n");
        std::fs::remove_file(folder.path().join("password")).unwrap();
        let half = Brokers::of(&external, &secrets).unwrap_err().to_string();
        assert!(half.contains("`kafka` has `username` and no `password`"), "{half}");
        write("password", "hunter2\n");
        let brokers = Brokers::of(&external, &secrets).unwrap();
        let sasl = brokers.sasl.unwrap();
        assert_eq!((sasl.mechanism, sasl.username.as_str()), (Mechanism::ScramSha512, "me"));
        write("mechanism", "PLAIN");
        write("ca", "PEM");
        let at = TopicAt {
            brokers: Brokers::of(&external, &secrets).unwrap(),
            topic: "t".to_owned(),
        };
        let told = TopicAt::of_wire(at.to_wire()).unwrap();
        assert_eq!(told.to_wire(), at.to_wire());
        assert_eq!(told.brokers.ca.as_deref(), Some("PEM"));
        write("mechanism", "MAGIC");
        let wrong = Brokers::of(&external, &secrets);
        assert!(matches!(wrong, Err(AddressError::Mechanism(word)) if word == "MAGIC"));
        external.secret = Some(SecretRef {
            name: "other".to_owned(),
            key: None,
        });
        assert!(matches!(Brokers::of(&external, &secrets), Err(AddressError::Secret(_))));
    }
}
