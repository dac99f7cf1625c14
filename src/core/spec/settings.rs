//! The daemon's settings file: read, checked, and turned into [`Settings`].

mod join;
mod overrides;

use super::code::Code;
use super::diagnostic::{Diagnostic, Span};
use super::hint::did_you_mean;
use super::lower::{at, zone};
use super::schema::of_settings;
use super::structure;
use super::tree::{Content, Node, read, shown};
use super::wire::settings as wire;
use crate::base::units::format_duration;
use crate::model::id::Name;
use crate::model::key::{Key, Kind};
use crate::model::policy::Caps;
use crate::model::schedule::Zone;
use crate::model::service::SecretRef;
use crate::model::settings::{
    ProjectSettings, Role, SecretSource, Settings, SourceFrom, SourceSettings, TlsFiles, Token,
};
use crate::model::targets::TargetEntry;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use overrides::override_keys;
use overrides::{scalar, set};

/// The store where the settings say nothing.
const STORE_URL: &str = "sqlite:///var/lib/muster/muster.db";
/// The API's address where the settings say nothing.
const LISTEN: &str = "127.0.0.1:8420";
/// Where workers call where the settings say nothing.
const WORKERS_LISTEN: &str = "127.0.0.1:8421";
/// Time between two looks at the source: one small request to its server.
const INTERVAL: Duration = Duration::from_secs(30);
/// A year and a month, so that this month's test can be compared with last year's.
const RETENTION: Duration = Duration::from_secs(400 * 86_400);
/// Promise 21's share.
const DELETION_MAX_PERCENT: u32 = 30;

/// Reads a settings file.
///
/// # Errors
/// Everything that is wrong with it, in the order of lines.
pub fn parse(text: &str, file: &str) -> Result<Settings, Vec<Diagnostic>> {
    parse_with_overrides(text, file, &BTreeMap::new())
}

/// Reads a settings file, some of whose values are replaced: `store.url` → text. See [`override_keys`].
///
/// # Errors
/// Everything that is wrong with it; what an override says is shown at the start of the file.
pub fn parse_with_overrides(
    text: &str,
    file: &str,
    overrides: &BTreeMap<String, String>,
) -> Result<Settings, Vec<Diagnostic>> {
    let (mut documents, mut errors) = read(file, text.as_bytes());
    if documents.len() > 1 {
        errors.push(Diagnostic::error(
            Code::TooManyDocuments,
            file,
            documents[1].span,
            "settings are one document",
        ));
    }
    let mut root = match documents.is_empty() {
        true => Node {
            span: Span::START,
            content: Content::Map(Vec::new()),
        },
        false => documents.swap_remove(0),
    };
    let keys = override_keys();
    for (key, value) in overrides {
        match keys.iter().find(|(known, _)| known == key) {
            Some((_, text)) => set(&mut root, key, scalar(value, *text)),
            None => {
                let guess = did_you_mean(key, keys.iter().map(|(key, _)| key.as_str()));
                let text = format!("there is no setting `{}` to override", shown(key));
                errors.push(Diagnostic::error(Code::UnknownOverride, file, Span::START, text).maybe_hint(guess));
            }
        }
    }
    let json = root.to_json();
    errors.extend(structure::check(of_settings(), file, &root, &json));
    if !errors.is_empty() {
        errors.sort();
        return Err(errors);
    }
    let wire: wire::SettingsFile = serde_json::from_value(json).map_err(|cause| {
        vec![
            Diagnostic::error(Code::BadFormat, file, root.span, "the settings cannot be read")
                .because(cause.to_string()),
        ]
    })?;
    let mut lower = Lower {
        file,
        root: &root,
        errors: Vec::new(),
    };
    let settings = lower.settings(&wire);
    let mut errors = lower.errors;
    errors.sort();
    match settings {
        Some(settings) if errors.is_empty() => Ok(settings),
        _ => Err(errors),
    }
}

struct Lower<'a> {
    file: &'a str,
    root: &'a Node,
    errors: Vec<Diagnostic>,
}

impl Lower<'_> {
    fn error(&mut self, pointer: &str, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        self.errors
            .push(Diagnostic::error(code, self.file, self.root.place(pointer), message));
        self.errors.last_mut().expect("just pushed")
    }

    fn settings(&mut self, wire: &wire::SettingsFile) -> Option<Settings> {
        let secrets = self.secrets(&wire.secrets);
        let source = self.source(&wire.source, &secrets);
        let listen = self.address("/listen", wire.listen.as_deref().unwrap_or(LISTEN));
        if wire.tokens.is_empty() && listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            let text = "the API listens beyond loopback and no `tokens` are configured: anyone could start load";
            self.error("/listen", Code::UnsafeListen, text).hint =
                Some("add `tokens`, or listen on 127.0.0.1".to_owned());
        }
        let workers = wire
            .workers
            .as_ref()
            .and_then(|workers| workers.listen.as_deref())
            .unwrap_or(WORKERS_LISTEN);
        let workers_listen = self.address("/workers/listen", workers);
        let tls = wire.workers.as_ref().and_then(|workers| workers.tls.as_ref());
        if tls.is_none() && workers_listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            let text =
                "workers call beyond loopback and no `workers.tls` is configured: tokens and results could be read";
            self.error("/workers/listen", Code::UnsafeListen, text).hint =
                Some("add `tls: {certFile: …, keyFile: …}`, or listen on 127.0.0.1".to_owned());
        }
        let targets = wire
            .targets
            .as_ref()
            .map(|targets| targets.allow.clone())
            .unwrap_or_default();
        self.targets("/targets/allow", &targets);
        let caps = self.caps("/caps", wire.caps.as_ref(), &Caps::default(), false);
        let projects = self.projects(wire.projects.as_deref().unwrap_or_default(), &caps, &secrets);
        let tokens = self.tokens(&wire.tokens, &projects, &secrets);
        let join = self.join(&wire.join, &projects, &secrets);
        let time_zone = wire.time_zone.as_deref().and_then(|name| self.zone(name));
        let percent = wire
            .deletion_guard
            .as_ref()
            .map_or(DELETION_MAX_PERCENT, |guard| guard.max_percent);
        Some(Settings {
            source: source?,
            store_url: wire.store.as_ref().map_or(STORE_URL, |store| &store.url).to_owned(),
            listen: listen?,
            workers_listen: workers_listen?,
            workers_tls: tls.map(|tls| TlsFiles {
                cert_file: tls.cert_file.clone(),
                key_file: tls.key_file.clone(),
            }),
            join,
            tokens,
            targets,
            caps,
            projects,
            process_enabled: wire.process.as_ref().is_some_and(|process| process.enabled),
            secrets,
            deletion_max_share: f64::from(percent) / 100.0,
            retention: wire.retention.as_ref().map_or(RETENTION, |retention| retention.runs.0),
            time_zone,
        })
    }

    fn address(&mut self, pointer: &str, text: &str) -> Option<SocketAddr> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let message = format!("`{}` is not an address with a port", shown(text));
            self.error(pointer, Code::BadFormat, message).hint = Some(format!("write for example `{LISTEN}`"));
        }
        parsed
    }

    fn source(&mut self, wire: &wire::Source, secrets: &BTreeMap<String, SecretSource>) -> Option<SourceSettings> {
        let path = wire.path.as_deref().unwrap_or(".");
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            self.error(
                "/source/path",
                Code::FileOutside,
                "the path must lie inside the repository: relative, without `..`",
            );
        }
        let interval = wire.interval.as_ref().map_or(INTERVAL, |span| span.0);
        if interval < Duration::from_secs(1) {
            self.error("/source/interval", Code::OutOfRange, "the interval must be at least 1s");
        }
        let from = match (&wire.url, &wire.directory) {
            (Some(url), None) => {
                self.source_url(url);
                let credentials = wire.credentials.as_ref();
                let credentials =
                    credentials.map(|wire| self.secret("/source/credentials/secretRef", &wire.secret_ref, secrets));
                SourceFrom::Git {
                    url: url.clone(),
                    branch: wire.branch.clone().unwrap_or_else(|| "main".to_owned()),
                    credentials,
                }
            }
            (None, Some(directory)) => {
                for (field, given) in [
                    ("branch", wire.branch.is_some()),
                    ("credentials", wire.credentials.is_some()),
                ] {
                    if given {
                        let text = format!("`{field}` belongs to `url`; a directory has none");
                        self.error(&at("/source", field), Code::Conflict, text);
                    }
                }
                SourceFrom::Directory {
                    path: directory.clone(),
                }
            }
            _ => {
                self.error("/source", Code::Conflict, "exactly one of url, directory must be there");
                return None;
            }
        };
        Some(SourceSettings {
            from,
            path: path.to_owned(),
            interval,
        })
    }

    /// The URL is never shown: it may hold what should not be there.
    fn source_url(&mut self, url: &str) {
        let schemes = ["file://", "http://", "https://", "ssh://"];
        let scheme = schemes.into_iter().find(|scheme| url.starts_with(scheme));
        let rest = scheme.map_or("", |scheme| &url[scheme.len()..]);
        let user = rest
            .split('/')
            .next()
            .and_then(|authority| authority.rsplit_once('@'))
            .map(|(user, _)| user);
        if scheme.is_none() && !url.starts_with('/') {
            let text = "the URL must begin with file://, http://, https:// or ssh://, or be an absolute path";
            self.error("/source/url", Code::BadUrl, text);
        } else if user.is_some_and(|user| user.contains(':') || scheme != Some("ssh://")) {
            let text = "credentials cannot stand in the URL";
            self.error("/source/url", Code::BadUrl, text).hint =
                Some("use `credentials: {secretRef: {name: …}}`".to_owned());
        }
    }

    fn secrets(&mut self, wire: &[wire::Secret]) -> BTreeMap<String, SecretSource> {
        let mut secrets = BTreeMap::new();
        for (index, secret) in wire.iter().enumerate() {
            let pointer = at("/secrets", index);
            let source = match (&secret.env, &secret.file) {
                (Some(env), None) => SecretSource::Env(env.clone()),
                (None, Some(file)) => SecretSource::File(file.clone()),
                _ => {
                    self.error(&pointer, Code::Conflict, "exactly one of env, file must be there");
                    continue;
                }
            };
            if secrets.insert(secret.name.clone(), source).is_some() {
                let text = format!("the name `{}` of a secret is used twice", shown(&secret.name));
                self.error(&at(&pointer, "name"), Code::NotUnique, text);
            }
        }
        secrets
    }

    fn secret(
        &mut self,
        pointer: &str,
        wire: &super::wire::service::SecretRef,
        secrets: &BTreeMap<String, SecretSource>,
    ) -> SecretRef {
        self.known_secret(&at(pointer, "name"), &wire.name, secrets);
        SecretRef {
            name: wire.name.clone(),
            key: wire.key.clone(),
        }
    }

    fn known_secret(&mut self, pointer: &str, name: &str, secrets: &BTreeMap<String, SecretSource>) {
        if !secrets.contains_key(name) {
            let guess = did_you_mean(name, secrets.keys().map(String::as_str));
            let text = format!("`secrets` has no `{}`", shown(name));
            self.error(pointer, Code::UndefinedReference, text).hint = guess;
        }
    }

    fn zone(&mut self, name: &str) -> Option<Zone> {
        match zone(name) {
            Ok(zone) => Some(zone),
            Err(problem) => {
                self.error("/timeZone", Code::UnknownZone, problem.message).hint = Some(problem.hint);
                None
            }
        }
    }

    fn targets(&mut self, pointer: &str, targets: &[String]) {
        for (index, text) in targets.iter().enumerate() {
            if TargetEntry::parse(text).is_none() {
                let message = format!("`{}` is not a target", shown(text));
                let hint = "write a host name, `*.suffix`, an address or a CIDR block, without scheme and port";
                self.error(&at(pointer, index), Code::BadFormat, message).hint = Some(hint.to_owned());
            }
        }
    }

    /// Caps with what is absent taken from `base`; `within`: they may not exceed it.
    fn caps(&mut self, pointer: &str, wire: Option<&wire::Caps>, base: &Caps, within: bool) -> Caps {
        let Some(wire) = wire else { return base.clone() };
        let duration = wire.duration.as_ref().map_or(base.duration, |span| span.0);
        if duration.is_zero() {
            self.error(
                &at(pointer, "duration"),
                Code::OutOfRange,
                "the duration must be more than 0s",
            );
        }
        let caps = Caps {
            rate: wire.rate.unwrap_or(base.rate),
            requests_per_second: wire.requests_per_second.unwrap_or(base.requests_per_second),
            vus: wire.vus.unwrap_or(base.vus),
            workers: wire.workers.unwrap_or(base.workers),
            duration,
        };
        if within {
            let over =
                |field: &'static str, wanted: String, limit: String, more: bool| more.then_some((field, wanted, limit));
            let number =
                |field, wanted: u64, limit: u64| over(field, wanted.to_string(), limit.to_string(), wanted > limit);
            let found = [
                number("rate", caps.rate, base.rate),
                number("requestsPerSecond", caps.requests_per_second, base.requests_per_second),
                number("vus", caps.vus, base.vus),
                number("workers", u64::from(caps.workers), u64::from(base.workers)),
                over(
                    "duration",
                    format_duration(duration),
                    format_duration(base.duration),
                    duration > base.duration,
                ),
            ];
            for (field, wanted, limit) in found.into_iter().flatten() {
                let text = format!("`{field}` of the project is {wanted}; the settings' cap is {limit}");
                self.error(&at(pointer, field), Code::CapExceeded, text);
            }
        }
        caps
    }

    fn projects(
        &mut self,
        wire: &[wire::Project],
        caps: &Caps,
        secrets: &BTreeMap<String, SecretSource>,
    ) -> Vec<ProjectSettings> {
        let mut names = BTreeSet::new();
        let mut globs = BTreeSet::new();
        let mut projects = Vec::new();
        for (index, project) in wire.iter().enumerate() {
            let pointer = at("/projects", index);
            if !names.insert(&project.name.0) {
                let text = format!("the name `{}` of a project is used twice", project.name.0);
                self.error(&at(&pointer, "name"), Code::NotUnique, text);
            }
            for (index, glob) in project.paths.iter().enumerate() {
                let place = at(&at(&pointer, "paths"), index);
                if glob.is_empty() || glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
                    self.error(&place, Code::BadFormat, "a glob of folders is relative and has no `..`");
                } else if !globs.insert(glob) {
                    self.error(&place, Code::NotUnique, "the same glob belongs to two projects");
                }
            }
            for (index, name) in project.secrets.iter().enumerate() {
                self.known_secret(&at(&at(&pointer, "secrets"), index), name, secrets);
            }
            self.targets(&at(&pointer, "targets"), project.targets.as_deref().unwrap_or_default());
            projects.push(ProjectSettings {
                name: project.name.0.clone(),
                paths: project.paths.clone(),
                kinds: kinds(project.kinds.as_deref()),
                shares: self.shares(&at(&pointer, "shares"), &project.name.0, &project.shares),
                targets: project.targets.clone(),
                secrets: project.secrets.iter().cloned().collect(),
                caps: self.caps(&at(&pointer, "caps"), project.caps.as_ref(), caps, true),
            });
        }
        projects
    }

    fn shares(&mut self, pointer: &str, project: &Name, shares: &[String]) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for (index, share) in shares.iter().enumerate() {
            match format!("{project}/{share}").parse::<Key>() {
                Ok(key) => drop(keys.insert(key)),
                Err(_) => {
                    let text = format!("`{}` is not `Kind/name`", shown(share));
                    self.error(&at(pointer, index), Code::BadFormat, text);
                }
            }
        }
        keys
    }

    fn tokens(
        &mut self,
        wire: &[wire::Token],
        projects: &[ProjectSettings],
        secrets: &BTreeMap<String, SecretSource>,
    ) -> Vec<Token> {
        let default = Name::default_project();
        let mut names: BTreeSet<&Name> = projects.iter().map(|project| &project.name).collect();
        if projects.is_empty() {
            names.insert(&default);
        }
        let mut seen = BTreeSet::new();
        let mut tokens = Vec::new();
        for (index, token) in wire.iter().enumerate() {
            let pointer = at("/tokens", index);
            if !seen.insert(&token.name) {
                let text = format!("the name `{}` of a token is used twice", shown(&token.name));
                self.error(&at(&pointer, "name"), Code::NotUnique, text);
            }
            for (index, name) in token.projects.iter().flatten().enumerate() {
                if !names.contains(&name.0) {
                    let guess = did_you_mean(name.0.as_str(), names.iter().map(|name| name.as_str()));
                    let text = format!("there is no project `{}`", name.0);
                    self.error(&at(&at(&pointer, "projects"), index), Code::UndefinedReference, text)
                        .hint = guess;
                }
            }
            tokens.push(Token {
                name: token.name.clone(),
                role: match token.role {
                    wire::Role::Viewer => Role::Viewer,
                    wire::Role::Operator => Role::Operator,
                    wire::Role::Admin => Role::Admin,
                },
                projects: token
                    .projects
                    .as_ref()
                    .map(|names| names.iter().map(|name| name.0.clone()).collect()),
                expires: token.expires.as_ref().map(|instant| instant.0),
                secret: self.secret(&at(&pointer, "secretRef"), &token.secret_ref, secrets),
            });
        }
        tokens
    }
}

fn kinds(wire: Option<&[wire::KindWord]>) -> BTreeSet<Kind> {
    use wire::KindWord as Word;
    let one = |word: &Word| match word {
        Word::Environment => Kind::Environment,
        Word::WorkerPool => Kind::WorkerPool,
        Word::KafkaCluster => Kind::KafkaCluster,
        Word::IngestCluster => Kind::IngestCluster,
        Word::DatabaseCluster => Kind::DatabaseCluster,
        Word::LoadBalancer => Kind::LoadBalancer,
        Word::Service => Kind::Service,
        Word::TestPlan => Kind::TestPlan,
        Word::Campaign => Kind::Campaign,
        Word::Approval => Kind::Approval,
        Word::NotificationChannel => Kind::NotificationChannel,
    };
    wire.map_or_else(
        || BTreeSet::from([Kind::Service, Kind::TestPlan]),
        |words| words.iter().map(one).collect(),
    )
}

#[cfg(test)]
mod tests;
