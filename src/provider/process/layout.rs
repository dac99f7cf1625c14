//! Turns a unit's spec into what its shim starts: ports, substituted texts, files in its directory.

use crate::provider::{Materials, ProviderError};
use muster_core::model::id::Name;
use muster_core::model::service::{EnvValue, EnvVar, NamedPort, SecretRef, UnitFile};
use muster_core::model::unit::{UnitName, UnitSpec};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Component, Path};

/// Free ports are looked for from here to the first port that the system gives to outgoing connections, so that no
/// client (a load generator has thousands) can sit on a replica's port while the replica restarts.
const PORTS_FROM: u16 = 10_000;
/// Where outgoing connections begin when the system does not say (Linux' default).
const EPHEMERAL_FROM: u16 = 32_768;

/// A unit's values for `${…}`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables(Vec<(String, String)>);

impl Variables {
    pub(crate) fn of(spec: &UnitSpec, ports: &[(Name, u16)]) -> Self {
        let mut values = vec![
            ("${UNIT_INDEX}".to_owned(), spec.ordinal.to_string()),
            ("${UNIT_NAME}".to_owned(), spec.name.to_string()),
        ];
        if let Some((_, first)) = ports.first() {
            values.push(("${PORT}".to_owned(), first.to_string()));
        }
        for (name, port) in ports {
            let name = name.as_str().to_ascii_uppercase().replace('-', "_");
            values.push((format!("${{PORT_{name}}}"), port.to_string()));
        }
        Self(values)
    }

    /// Replaces the known `${…}` and leaves all others alone: a shell script has its own.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, tail) = rest.split_at(at);
            result.push_str(before);
            match self.0.iter().find(|(name, _)| tail.starts_with(name.as_str())) {
                Some((name, value)) => {
                    result.push_str(value);
                    rest = &tail[name.len()..];
                }
                None => {
                    result.push_str("${");
                    rest = &tail[2..];
                }
            }
        }
        result + rest
    }
}

/// What `muster worker` is told about its daemon.
#[derive(Debug, Clone)]
pub struct WorkerLaunch {
    /// File with the daemon's address, read again at each reconnect.
    pub join_file: std::path::PathBuf,
    /// File with the token that lets a worker in.
    pub token_file: std::path::PathBuf,
}

/// The command line of one of Muster's own workers.
///
/// `commands`: whether it may run commands of plans (promise 58).
pub(crate) fn worker_command(program: &Path, launch: &WorkerLaunch, spec: &UnitSpec, commands: bool) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let mut words = vec![
        text(program),
        "worker".to_owned(),
        "--join-file".to_owned(),
        text(&launch.join_file),
        "--token-file".to_owned(),
        text(&launch.token_file),
        "--pool".to_owned(),
        spec.owner.to_string(),
        "--unit".to_owned(),
        spec.name.to_string(),
    ];
    if commands {
        words.push("--allow-commands".to_owned());
    }
    words
}

/// Chooses a port for every named port: the fixed one, or a free one that no other unit was given.
///
/// The search begins at a place that follows from folder and name, so that a replaced replica mostly keeps its port and two
/// daemons on one machine seldom look at the same ones.
///
/// # Errors
/// [`ProviderError::Refused`] when a fixed port is in use.
pub(crate) fn choose_ports(
    root: &Path,
    unit: &UnitName,
    wanted: &[NamedPort],
    taken: &BTreeSet<u16>,
) -> Result<Vec<(Name, u16)>, ProviderError> {
    let refused = |reason: String| ProviderError::Refused {
        unit: unit.clone(),
        reason,
    };
    let end = ephemeral_from().max(PORTS_FROM + 1);
    let span = u32::from(end - PORTS_FROM);
    let place = root.join(unit.as_str());
    let seed = place
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(2_166_136_261_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(16_777_619) // FNV-1a
        });
    let mut candidates = (0..span).map(|step| PORTS_FROM + ((seed % span + step) % span) as u16);
    let mut chosen: Vec<(Name, u16)> = Vec::new();
    for named in wanted {
        let port = match named.port {
            Some(port) if is_free(port) => port,
            Some(port) => return Err(refused(format!("port {port} ({}) is in use", named.name))),
            None => candidates
                .find(|port| !taken.contains(port) && !chosen.iter().any(|(_, other)| other == port) && is_free(*port))
                .ok_or_else(|| ProviderError::Transient(format!("no free port between {PORTS_FROM} and {end}")))?,
        };
        chosen.push((named.name.clone(), port));
    }
    Ok(chosen)
}

/// Only "in use" counts: who may not bind a low port here may still run a unit that can.
fn is_free(port: u16) -> bool {
    !TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn ephemeral_from() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL_FROM)
}

/// Values of the variables that are secrets, by variable.
pub(crate) type SecretEnv = BTreeMap<String, SecretString>;

/// Splits an environment into what may be on disk and what may not.
///
/// # Errors
/// [`ProviderError::Refused`] for a secret that was not given.
pub(crate) fn split_env(
    unit: &UnitName,
    env: &[EnvVar],
    variables: &Variables,
    materials: &Materials,
) -> Result<(Vec<(String, String)>, SecretEnv), ProviderError> {
    let mut plain = Vec::new();
    let mut secret = SecretEnv::new();
    for variable in env {
        match &variable.value {
            EnvValue::Plain(text) => plain.push((variable.name.clone(), variables.apply(text))),
            EnvValue::Secret(place) => {
                let place = secret_name(place);
                let value = materials.secrets.get(&place).ok_or_else(|| ProviderError::Refused {
                    unit: unit.clone(),
                    reason: format!("secret `{place}` has no value"),
                })?;
                secret.insert(variable.name.clone(), value.clone());
            }
        }
    }
    Ok((plain, secret))
}

/// How [`Materials::secrets`] names a secret.
pub(crate) fn secret_name(place: &SecretRef) -> String {
    match &place.key {
        Some(key) => format!("{}/{key}", place.name),
        None => place.name.clone(),
    }
}

/// Writes a unit's files into its working directory, substituted where they are text.
///
/// # Errors
/// [`ProviderError::Refused`] for a path that would leave the directory or a content that was not given.
pub(crate) fn write_files(
    spec: &UnitSpec,
    files: &[UnitFile],
    variables: &Variables,
    materials: &Materials,
    into: &Path,
) -> Result<(), ProviderError> {
    let refused = |reason: String| ProviderError::Refused {
        unit: spec.name.clone(),
        reason,
    };
    for file in files {
        let plain = Path::new(&file.path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || file.path.is_empty() {
            return Err(refused(format!(
                "`{}` is not a path inside the unit's directory",
                file.path
            )));
        }
        let content = materials
            .files
            .get(file.digest.as_str())
            .ok_or_else(|| refused(format!("the content of `{}` is missing", file.source)))?;
        let path = into.join(&file.path);
        let write = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match std::str::from_utf8(content) {
                Ok(text) => fs::write(&path, variables.apply(text))?,
                Err(_) => fs::write(&path, content)?,
            }
            // A script is recognised as the kernel does; nothing else tells what may be executed.
            if content.starts_with(b"#!") {
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            }
            Ok(())
        };
        write().map_err(|error| ProviderError::Transient(format!("cannot write `{}`: {error}", file.path)))?;
    }
    Ok(())
}

/// The document that carries secrets over the shim's standard input.
pub(crate) fn handover(secrets: &SecretEnv) -> Vec<u8> {
    let plain: BTreeMap<&str, &str> = secrets
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose_secret()))
        .collect();
    serde_json::to_vec(&plain).expect("a map of texts is JSON")
}

#[cfg(test)]
mod tests {
    use super::{Variables, choose_ports, split_env, write_files};
    use crate::provider::{Materials, ProviderError};
    use muster_core::model::id::{Digest, Name};
    use muster_core::model::service::{EnvValue, EnvVar, NamedPort, SecretRef, UnitFile};
    use muster_core::model::unit::{UnitName, UnitSpec, UnitWork};
    use std::collections::BTreeSet;
    use std::net::TcpListener;
    use std::path::Path;
    use std::time::Duration;

    fn spec() -> UnitSpec {
        let owner = "payments/Service/shop".parse().expect("a key");
        UnitSpec {
            name: UnitName::of(&owner, 2),
            owner,
            environment: "payments/Environment/lab".parse().expect("a key"),
            ordinal: 2,
            work: UnitWork::Worker {
                orphan_timeout: Duration::from_secs(60),
            },
            digest: Digest::of(b""),
            stop_grace: Duration::from_secs(1),
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    #[test]
    fn known_variables_are_replaced_and_others_left() {
        let ports = [(name("http"), 8080), (name("admin-api"), 9090)];
        let variables = Variables::of(&spec(), &ports);
        for (text, result) in [
            ("--port ${PORT}", "--port 8080"),
            ("${PORT_HTTP}:${PORT_ADMIN_API}", "8080:9090"),
            ("${UNIT_NAME}#${UNIT_INDEX}", "payments.service.shop.2#2"),
            ("${HOME}/$PORT/${${PORT}", "${HOME}/$PORT/${8080"),
            ("${PORT", "${PORT"),
            ("ü${PORT}ü", "ü8080ü"),
        ] {
            assert_eq!(variables.apply(text), result);
        }
    }

    #[test]
    fn ports_are_free_distinct_and_stable() {
        let unit = spec().name;
        let wanted: Vec<NamedPort> = ["http", "admin"]
            .map(|text| NamedPort {
                name: name(text),
                port: None,
            })
            .into();
        let first = choose_ports(Path::new("/units"), &unit, &wanted, &BTreeSet::new()).expect("free ports");
        assert_ne!(first[0].1, first[1].1);
        assert_eq!(
            first,
            choose_ports(Path::new("/units"), &unit, &wanted, &BTreeSet::new()).expect("free ports")
        );
        let taken: BTreeSet<u16> = first.iter().map(|(_, port)| *port).collect();
        let others = choose_ports(Path::new("/units"), &unit, &wanted, &taken).expect("free ports");
        assert!(others.iter().all(|(_, port)| !taken.contains(port)), "{others:?}");

        let holder = TcpListener::bind("127.0.0.1:0").expect("bound");
        let fixed = NamedPort {
            name: name("http"),
            port: Some(holder.local_addr().expect("bound").port()),
        };
        let error = choose_ports(Path::new("/units"), &unit, &[fixed], &BTreeSet::new()).expect_err("in use");
        assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
    }

    #[test]
    fn s06_files_stay_in_the_units_directory() {
        let place = tempfile::tempdir().expect("a folder");
        let content = b"port=${PORT}\n";
        let digest = Digest::of(content);
        let mut materials = Materials::default();
        materials.files.insert(digest.as_str().to_owned(), content[..].into());
        let write = |path: &str| {
            let file = UnitFile {
                path: path.to_owned(),
                source: "files/x".to_owned(),
                digest: digest.clone(),
            };
            let variables = Variables::of(&spec(), &[(name("http"), 81)]);
            write_files(&spec(), &[file], &variables, &materials, place.path())
        };
        write("etc/shop/app.conf").expect("inside");
        let written = std::fs::read_to_string(place.path().join("etc/shop/app.conf"));
        assert_eq!(written.expect("there"), "port=81\n");
        for path in ["", "/etc/passwd", "../x", "a/../../x", "./x"] {
            let error = write(path).expect_err("outside");
            assert!(matches!(error, ProviderError::Refused { .. }), "{path}: {error}");
        }
    }

    #[test]
    fn s57_secrets_are_kept_apart_from_what_is_written_down() {
        let env = |name: &str, value| EnvVar {
            name: name.to_owned(),
            value,
        };
        let place = SecretRef {
            name: "shop-db".to_owned(),
            key: Some("password".to_owned()),
        };
        let variables = [
            env("PROFILE", EnvValue::Plain("perf".to_owned())),
            env("DB_PASSWORD", EnvValue::Secret(place)),
        ];
        let mut materials = Materials::default();
        let unit = spec().name;
        let error = split_env(&unit, &variables, &Variables::default(), &materials).expect_err("no value");
        assert!(error.to_string().contains("shop-db/password"), "{error}");
        materials.secrets.insert("shop-db/password".to_owned(), "canary".into());
        let (plain, secret) = split_env(&unit, &variables, &Variables::default(), &materials).expect("split");
        assert_eq!(plain, [("PROFILE".to_owned(), "perf".to_owned())]);
        assert!(!format!("{plain:?}{secret:?}").contains("canary"));
        assert_eq!(super::handover(&secret), br#"{"DB_PASSWORD":"canary"}"#);
    }
}
