//! `Service`, and environment variables, which hooks share.

use super::{Lower, at};
use crate::model::environment::ProviderSpec;
use crate::model::id::Name;
use crate::model::key::Kind;
use crate::model::service::{EnvValue, EnvVar, Health, NamedPort, Probe, Service, UnitFile, Update, UpdateStrategy};
use crate::spec::code::Code;
use crate::spec::hint::did_you_mean;
use crate::spec::wire::scalar::NameText;
use crate::spec::wire::service::{
    EnvVar as WireEnv, Health as WireHealth, ServiceSpec, Strategy, UnitFile as WireFile,
};
use std::collections::BTreeSet;
use std::time::Duration;

impl Lower<'_, '_> {
    /// Lowers a Service.
    pub(super) fn service(&mut self, wire: &ServiceSpec) -> Option<Service> {
        let environment = self.reference(
            "/spec/environment",
            &wire.environment,
            &[Kind::Environment],
            Some(Kind::Environment),
        );
        if let Some(environment) = &environment {
            self.not_joined(environment);
        }
        let provider = environment
            .as_ref()
            .and_then(|key| self.index.environment(key))
            .map(|environment| &environment.provider);
        if matches!(provider, Some(ProviderSpec::Process { .. })) && !self.policy.process_enabled {
            self.process_disabled("/spec/command");
        }
        let replicas = wire.replicas.unwrap_or(1);
        let ports = self.ports(wire, replicas);
        let known = unit_substitutions(&ports);
        for (index, argument) in wire.command.iter().enumerate() {
            self.check_substitutions(&at("/spec/command", index), argument, &known);
        }
        if wire.command.first().is_some_and(|program| program.trim().is_empty()) {
            self.error("/spec/command/0", Code::BadFormat, "the program's name is empty");
        }
        let env = self.env("/spec/env", &wire.env, &known);
        let files = wire
            .files
            .iter()
            .enumerate()
            .filter_map(|(index, file)| self.unit_file(index, file))
            .collect();
        self.unique_paths(&wire.files);
        let health = wire.health.as_ref().and_then(|health| self.health(health, &ports));
        let mut depends_on = Vec::new();
        for (index, reference) in wire.depends_on.iter().enumerate() {
            depends_on.extend(self.reference(&at("/spec/dependsOn", index), reference, &[Kind::Service], None));
        }
        let update = wire.update.as_ref();
        Some(Service {
            environment: environment?,
            command: wire.command.clone(),
            replicas,
            env,
            files,
            ports,
            health,
            depends_on,
            update: Update {
                strategy: match update.and_then(|update| update.strategy) {
                    Some(Strategy::Recreate) => UpdateStrategy::Recreate,
                    Some(Strategy::Rolling) | None => UpdateStrategy::Rolling,
                },
                max_unavailable: update.and_then(|update| update.max_unavailable).unwrap_or(1),
            },
        })
    }

    /// A command of a plan on the daemon's own host (promise 58).
    pub(super) fn process_disabled(&mut self, pointer: &str) {
        let text = "the settings do not let plans run commands on the daemon's host";
        self.error_hint(
            pointer,
            Code::ProcessDisabled,
            text,
            "the settings say `process: {enabled: true}` to allow it",
        );
    }

    fn ports(&mut self, wire: &ServiceSpec, replicas: u32) -> Vec<NamedPort> {
        self.unique(
            "/spec/ports",
            "port",
            wire.ports.iter().map(|port| port.name.0.as_str()),
        );
        let mut seen = BTreeSet::new();
        for (index, number) in wire
            .ports
            .iter()
            .enumerate()
            .filter_map(|(index, port)| Some((index, port.port?)))
        {
            let pointer = at(&at("/spec/ports", index), "port");
            if replicas > 1 {
                let text = format!("port {number} is fixed, and {replicas} replicas cannot share it");
                self.error_hint(
                    &pointer,
                    Code::Conflict,
                    text,
                    "leave `port` out: each replica gets a free one",
                );
            }
            if !seen.insert(number) {
                self.error(&pointer, Code::NotUnique, format!("port {number} is used twice"));
            }
        }
        wire.ports
            .iter()
            .map(|port| NamedPort {
                name: port.name.0.clone(),
                port: port.port,
            })
            .collect()
    }

    /// Lowers environment variables.
    pub(super) fn env(&mut self, pointer: &str, wire: &[WireEnv], known: &BTreeSet<String>) -> Vec<EnvVar> {
        self.unique(pointer, "variable", wire.iter().map(|var| var.name.as_str()));
        let mut vars = Vec::new();
        for (index, var) in wire.iter().enumerate() {
            let place = at(pointer, index);
            if !self.exactly_one(
                &place,
                &[("value", var.value.is_some()), ("valueFrom", var.value_from.is_some())],
            ) {
                continue;
            }
            let value = match (&var.value, &var.value_from) {
                (Some(value), _) => {
                    self.check_substitutions(&at(&place, "value"), value, known);
                    EnvValue::Plain(value.clone())
                }
                (None, Some(from)) => {
                    EnvValue::Secret(self.secret(&at(&at(&place, "valueFrom"), "secretKeyRef"), &from.secret_key_ref))
                }
                (None, None) => continue,
            };
            vars.push(EnvVar {
                name: var.name.clone(),
                value,
            });
        }
        vars
    }

    fn unit_file(&mut self, index: usize, wire: &WireFile) -> Option<UnitFile> {
        let pointer = at("/spec/files", index);
        let leaves = wire.path.starts_with('/') || wire.path.split('/').any(|part| matches!(part, ".." | "." | ""));
        if leaves || wire.path.contains('\0') {
            let text = "the path must lie in the unit's own directory: relative, without `.`, `..` and empty parts";
            self.error(&at(&pointer, "path"), Code::FileOutside, text);
        }
        let file = self.file(&at(&pointer, "source"), &wire.source)?;
        Some(UnitFile {
            path: wire.path.clone(),
            source: file.path,
            digest: file.digest,
        })
    }

    fn unique_paths(&mut self, wire: &[WireFile]) {
        let mut seen = BTreeSet::new();
        for (index, file) in wire.iter().enumerate() {
            if !seen.insert(&file.path) {
                let text = "two files have the same path";
                self.error(&at(&at("/spec/files", index), "path"), Code::NotUnique, text);
            }
        }
    }

    fn health(&mut self, wire: &WireHealth, ports: &[NamedPort]) -> Option<Health> {
        let pointer = "/spec/health";
        if !self.exactly_one(pointer, &[("http", wire.http.is_some()), ("tcp", wire.tcp.is_some())]) {
            return None;
        }
        let probe = match (&wire.http, &wire.tcp) {
            (Some(http), _) => {
                let port = self.port(&at(&at(pointer, "http"), "port"), http.port.as_ref(), ports)?;
                Probe::Http {
                    path: http.path.clone(),
                    port,
                }
            }
            (None, Some(tcp)) => Probe::Tcp {
                port: self.port(&at(&at(pointer, "tcp"), "port"), tcp.port.as_ref(), ports)?,
            },
            (None, None) => return None,
        };
        Some(Health {
            probe,
            interval: self.positive(&at(pointer, "interval"), wire.interval.as_ref(), Duration::from_secs(2)),
            timeout: self.positive(&at(pointer, "timeout"), wire.timeout.as_ref(), Duration::from_secs(1)),
            failures: wire.failures.unwrap_or(5),
        })
    }

    /// A named port of a service, or its first.
    pub(super) fn port(&mut self, pointer: &str, wanted: Option<&NameText>, ports: &[NamedPort]) -> Option<Name> {
        let found = match wanted {
            Some(name) => ports.iter().find(|port| port.name == name.0),
            None => ports.first(),
        };
        if found.is_none() {
            let text = match wanted {
                Some(name) => format!("the service has no port `{}`", name.0),
                None => "the service has no ports".to_owned(),
            };
            let guess =
                wanted.and_then(|name| did_you_mean(name.0.as_str(), ports.iter().map(|port| port.name.as_str())));
            self.error(pointer, Code::UndefinedPort, text).hint = guess;
        }
        found.map(|port| port.name.clone())
    }
}

/// `${…}` of a unit: its place among its siblings and its ports.
fn unit_substitutions(ports: &[NamedPort]) -> BTreeSet<String> {
    let mut known = BTreeSet::from(["UNIT_INDEX".to_owned(), "UNIT_NAME".to_owned()]);
    if !ports.is_empty() {
        known.insert("PORT".to_owned());
    }
    known.extend(
        ports
            .iter()
            .map(|port| format!("PORT_{}", port.name.as_str().to_ascii_uppercase().replace('-', "_"))),
    );
    known
}
