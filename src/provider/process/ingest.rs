//! Replicas of an IngestCluster: `muster ingest` of the daemon's own, with secrets in its environment only (promise 57).

use super::layout::{SecretEnv, secret_name};
use crate::provider::{Materials, ProviderError};
use muster_core::model::id::Name;
use muster_core::model::service::{Health, NamedPort, Probe, SecretRef};
use muster_core::model::streaming::ExternalKafka;
use muster_core::model::unit::UnitName;
use std::path::Path;
use std::time::Duration;

/// The port of its questions and metrics.
const PORT: &str = "metrics";
/// The address of its database.
const DATABASE_VARIABLE: &str = "MUSTER_STORE";
/// How it proves itself, by key of the Kafka cluster's secret.
const KAFKA_VARIABLES: [(&str, &str); 4] = [
    ("username", "MUSTER_KAFKA_USERNAME"),
    ("password", "MUSTER_KAFKA_PASSWORD"),
    ("mechanism", "MUSTER_KAFKA_MECHANISM"),
    ("ca", "MUSTER_KAFKA_CA"),
];

fn port() -> Name {
    Name::new(PORT).expect("`metrics` is a DNS label")
}

/// A free port for each replica.
pub(super) fn ports() -> Vec<NamedPort> {
    vec![NamedPort {
        name: port(),
        port: None,
    }]
}

/// Ready is a member of its group whose database answers.
pub(super) fn health() -> Health {
    Health {
        probe: Probe::Http {
            path: "/readyz".to_owned(),
            port: port(),
        },
        interval: Duration::from_secs(1),
        // It asks its database for two seconds itself.
        timeout: Duration::from_secs(3),
        // Half a minute: brokers that elect a leader, or a group that shares out anew, take less.
        failures: 30,
    }
}

/// Its command line, which everybody on the host may read.
pub(super) fn command(
    program: &Path,
    kafka: &ExternalKafka,
    topic: &str,
    group: &str,
    ports: &[(Name, u16)],
) -> Vec<String> {
    let mut command = vec![
        program.display().to_string(),
        "ingest".to_owned(),
        "--bootstrap".to_owned(),
        kafka.bootstrap_servers.join(","),
        "--topic".to_owned(),
        topic.to_owned(),
        "--group".to_owned(),
        group.to_owned(),
    ];
    if let Some((_, port)) = ports.first() {
        command.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
    }
    command
}

/// Its secrets, by variable.
///
/// # Errors
/// [`ProviderError::Refused`] for a secret that was not given.
pub(super) fn secrets(
    unit: &UnitName,
    kafka: &ExternalKafka,
    database: &SecretRef,
    materials: &Materials,
) -> Result<SecretEnv, ProviderError> {
    let place = secret_name(database);
    let url = materials.secrets.get(&place).ok_or_else(|| ProviderError::Refused {
        unit: unit.clone(),
        reason: format!("secret `{place}` has no value"),
    })?;
    let mut env = SecretEnv::from([(DATABASE_VARIABLE.to_owned(), url.clone())]);
    for (key, variable) in KAFKA_VARIABLES {
        let place = kafka.secret.as_ref().map(|secret| format!("{}/{key}", secret.name));
        if let Some(value) = place.and_then(|place| materials.secrets.get(&place)) {
            env.insert(variable.to_owned(), value.clone());
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::{command, secrets};
    use crate::provider::Materials;
    use muster_core::model::id::Name;
    use muster_core::model::service::SecretRef;
    use muster_core::model::streaming::ExternalKafka;
    use muster_core::model::unit::UnitName;
    use std::path::Path;

    #[test]
    fn s57_secrets_are_in_the_environment_and_not_in_the_command() {
        let secret = |name: &str| SecretRef {
            name: name.to_owned(),
            key: None,
        };
        let kafka = ExternalKafka {
            bootstrap_servers: vec!["a:9092".to_owned(), "b:9092".to_owned()],
            secret: Some(secret("kafka")),
        };
        let unit = UnitName::of(&"p/IngestCluster/i".parse().expect("a key"), 0);
        let mut materials = Materials::default();
        let missing = secrets(&unit, &kafka, &secret("db"), &materials).expect_err("no value");
        assert!(missing.to_string().contains("`db`"), "{missing}");
        for (place, value) in [
            ("db", "canary-1"),
            ("kafka/username", "canary-2"),
            ("kafka/password", "canary-3"),
        ] {
            materials.secrets.insert(place.to_owned(), value.into());
        }
        let env = secrets(&unit, &kafka, &secret("db"), &materials).expect("all given");
        let names: Vec<&str> = env.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["MUSTER_KAFKA_PASSWORD", "MUSTER_KAFKA_USERNAME", "MUSTER_STORE"]
        );
        let ports = [(Name::new("metrics").expect("a name"), 10_001)];
        let line = command(Path::new("/usr/bin/muster"), &kafka, "t", "muster.p.db", &ports).join(" ");
        assert_eq!(
            line,
            "/usr/bin/muster ingest --bootstrap a:9092,b:9092 --topic t --group muster.p.db --listen 127.0.0.1:10001"
        );
    }
}
