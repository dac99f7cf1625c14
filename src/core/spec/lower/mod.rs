//! From what is written to the model: one document, with what it refers to already known. Every error has its place.

mod engine;
mod environment;
mod hooks;
mod phases;
mod plan;
mod service;
mod streaming;
mod thresholds;
mod timing;
mod urls;

pub(super) use timing::zone;

use super::code::Code;
use super::diagnostic::{Diagnostic, Severity};
use super::files::Contents;
use super::hint::did_you_mean;
use super::index::Index;
use super::parse::{Document, Wire};
use super::render;
use super::tree::shown;
use super::wire::Metadata;
use super::wire::scalar::{ReferenceText, Span, instant};
use super::wire::service::SecretRef as WireSecret;
use crate::model::id::Digest;
use crate::model::key::{Key, Kind};
use crate::model::load::RepoFile;
use crate::model::policy::{Policy, ProjectPolicy, SecretRules};
use crate::model::resource::{Annotations, Meta, Origin, Resource, Spec};
use crate::model::service::SecretRef;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One document on its way, with everything it is lowered against.
pub(super) struct Lower<'a, 'f> {
    pub policy: &'a Policy,
    pub index: &'a Index<'a>,
    pub contents: &'a mut Contents<'f>,
    pub document: &'a Document,
    pub key: &'a Key,
    pub errors: Vec<Diagnostic>,
    /// Every file it names, for its digest.
    pub files: BTreeMap<String, Digest>,
}

impl Lower<'_, '_> {
    /// Lowers the document; `None` where something is wrong with it.
    pub fn resource(mut self) -> (Option<Resource>, Vec<Diagnostic>) {
        let document = self.document;
        let Some((metadata, wire)) = &document.body else {
            return (None, Vec::new());
        };
        let meta = self.meta(metadata);
        let spec = match wire {
            Wire::Environment(spec) => Some(Spec::Environment(self.environment(spec))),
            Wire::WorkerPool(spec) => self.worker_pool(spec).map(Spec::WorkerPool),
            Wire::KafkaCluster(spec) => Some(Spec::KafkaCluster(self.kafka_cluster(spec))),
            Wire::IngestCluster(spec) => self.ingest_cluster(spec).map(Spec::IngestCluster),
            Wire::DatabaseCluster(spec) => Some(Spec::DatabaseCluster(self.database_cluster(spec))),
            Wire::Service(spec) => self.service(spec).map(Spec::Service),
            Wire::TestPlan(spec) => self.plan(spec).map(|plan| Spec::TestPlan(Box::new(plan))),
        };
        let good = spec.filter(|_| !self.errors.iter().any(Diagnostic::is_error));
        (good.map(|spec| finish(meta, spec, &self.files)), self.errors)
    }
}

/// A resource with its rendered document and its digest.
fn finish(meta: Meta, spec: Spec, files: &BTreeMap<String, Digest>) -> Resource {
    let rendered = render::document(&meta, &spec);
    // `serde_json` maps are sorted, so equal specs have equal bytes.
    let pinned = serde_json::json!({"kind": meta.key.kind, "spec": rendered["spec"], "files": files});
    Resource {
        digest: Digest::of(pinned.to_string().as_bytes()),
        meta,
        spec,
        rendered,
    }
}

/// A pointer one step further down.
pub(super) fn at(pointer: &str, token: impl std::fmt::Display) -> String {
    format!("{pointer}/{}", token.to_string().replace('~', "~0").replace('/', "~1"))
}

impl<'a> Lower<'a, '_> {
    /// The policy of the document's project.
    pub fn project(&self) -> &'a ProjectPolicy {
        self.policy
            .projects
            .get(&self.key.project)
            .expect("documents belong to a project of the policy")
    }

    /// Records an error at a pointer.
    pub fn error(&mut self, pointer: &str, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        let span = self.document.root.place(pointer);
        let mut error = Diagnostic::error(code, &self.document.file, span, message);
        error.key = Some(self.key.clone());
        self.errors.push(error);
        self.errors.last_mut().expect("just pushed")
    }

    /// Records something worth a look that stops nobody.
    pub fn warning(&mut self, pointer: &str, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        let warning = self.error(pointer, code, message);
        warning.severity = Severity::Warning;
        warning
    }

    /// Records an error with a hint.
    pub fn error_hint(&mut self, pointer: &str, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.error(pointer, code, message).hint = Some(hint.into());
    }

    /// Names must not repeat in a list of named objects.
    pub fn unique<'n>(&mut self, pointer: &str, what: &str, names: impl IntoIterator<Item = &'n str>) {
        let mut seen = BTreeMap::new();
        for (index, name) in names.into_iter().enumerate() {
            if let Some(first) = seen.get(name) {
                let first = self.document.root.place(&at(&at(pointer, first), "name"));
                let text = format!("the name `{}` of a {what} is used twice", shown(name));
                let cause = format!("first at {}:{}:{}", self.document.file, first.line, first.column);
                self.error(&at(&at(pointer, index), "name"), Code::NotUnique, text)
                    .cause = Some(cause);
            } else {
                seen.insert(name, index);
            }
        }
    }

    /// Exactly one of some fields must be there.
    pub fn exactly_one(&mut self, pointer: &str, fields: &[(&str, bool)]) -> bool {
        let given: Vec<&str> = fields
            .iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| *name)
            .collect();
        if given.len() == 1 {
            return true;
        }
        let all = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let message = if given.is_empty() {
            format!("exactly one of {all} must be there; there is none")
        } else {
            format!("exactly one of {all} must be there; there are {}", given.join(" and "))
        };
        self.error(pointer, Code::Conflict, message);
        false
    }

    /// Resolves a reference to one of some kinds; `default` is the kind of a field that takes a bare name.
    pub fn reference(
        &mut self,
        pointer: &str,
        text: &ReferenceText,
        kinds: &[Kind],
        default: Option<Kind>,
    ) -> Option<Key> {
        let parts = ReferenceText::split(&text.0)?;
        let kind = match (&parts.kind, default) {
            (Some(word), _) => match Kind::parse(word) {
                Some(kind) => kind,
                None => {
                    let guess = did_you_mean(word, Kind::ALL.into_iter().map(Kind::as_str));
                    self.error(pointer, Code::UnknownKind, format!("there is no kind `{word}`"))
                        .hint = guess;
                    return None;
                }
            },
            (None, Some(kind)) => kind,
            (None, None) => {
                let text = format!("`{}` does not say its kind", text.0);
                self.error_hint(
                    pointer,
                    Code::WrongReference,
                    text,
                    format!("write `Kind/{}`", parts.name),
                );
                return None;
            }
        };
        if !kind.is_supported() {
            self.error(
                pointer,
                Code::Unsupported,
                format!("kind {kind} is not supported by this build"),
            );
            return None;
        }
        if !kinds.contains(&kind) {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            let text = format!("kind {kind} cannot stand here, only {}", names.join(" or "));
            self.error(pointer, Code::WrongReference, text);
            return None;
        }
        let key = Key::new(
            parts.project.unwrap_or_else(|| self.key.project.clone()),
            kind,
            parts.name,
        );
        self.reachable(pointer, &key).then_some(key)
    }

    fn reachable(&mut self, pointer: &str, key: &Key) -> bool {
        let foreign = key.project != self.key.project;
        if foreign {
            let Some(other) = self.policy.projects.get(&key.project) else {
                let names = self.policy.projects.keys().map(|name| name.as_str());
                let guess = did_you_mean(key.project.as_str(), names);
                self.error(
                    pointer,
                    Code::UndefinedReference,
                    format!("there is no project `{}`", key.project),
                )
                .hint = guess;
                return false;
            };
            if !other.shares.contains(key) {
                let text = format!("project {} does not share {}/{}", key.project, key.kind, key.name);
                let hint = format!(
                    "`shares` of project {} in the settings must name {}/{}",
                    key.project, key.kind, key.name
                );
                self.error_hint(pointer, Code::NotShared, text, hint);
                return false;
            }
        }
        let index = self.index;
        if index.known(key) {
            return true;
        }
        if foreign && index.unreadable(&key.project) {
            let text = format!("{key} cannot be read: project {} has errors of its own", key.project);
            self.error(pointer, Code::BrokenReference, text);
            return false;
        }
        let guess = did_you_mean(key.name.as_str(), index.names(&key.project, key.kind));
        self.error(
            pointer,
            Code::UndefinedReference,
            format!("there is no {} `{}`", key.kind, key.name),
        )
        .hint = guess;
        false
    }

    /// A secret must be one that the project may use. Values are never looked at (promise 57).
    pub fn secret(&mut self, pointer: &str, wire: &WireSecret) -> SecretRef {
        if let SecretRules::Named(allowed) = &self.project().secrets
            && !allowed.contains(&wire.name)
        {
            let text = format!(
                "project {} may not use the secret `{}`",
                self.key.project,
                shown(&wire.name)
            );
            let guess = did_you_mean(&wire.name, allowed.iter().map(String::as_str));
            self.error(&at(pointer, "name"), Code::SecretNotAllowed, text).hint = guess;
        }
        SecretRef {
            name: wire.name.clone(),
            key: wire.key.clone(),
        }
    }

    /// Pins a file of the repository, named relative to the document's own file.
    pub fn file(&mut self, pointer: &str, path: &str) -> Option<RepoFile> {
        match self.contents.find(&self.document.file, path) {
            Ok(file) => {
                self.files.insert(file.path.clone(), file.digest.clone());
                Some(file)
            }
            Err(problem) => {
                self.error(pointer, problem.code, problem.message).hint = problem.hint;
                None
            }
        }
    }

    /// A duration that must not be zero.
    pub fn positive(&mut self, pointer: &str, span: Option<&Span>, default: Duration) -> Duration {
        match span {
            Some(span) if span.0.is_zero() => {
                self.error(pointer, Code::OutOfRange, "the duration must be more than 0s");
                default
            }
            Some(span) => span.0,
            None => default,
        }
    }

    fn meta(&mut self, metadata: &Metadata) -> Meta {
        if let Some(namespace) = &metadata.namespace
            && namespace.0 != self.key.project
        {
            let text = format!(
                "the file belongs to project {}, not `{}`",
                self.key.project, namespace.0
            );
            self.error_hint(
                "/metadata/namespace",
                Code::NamespaceMismatch,
                text,
                "leave `namespace` out; the folder decides",
            );
        }
        Meta {
            key: self.key.clone(),
            labels: metadata.labels.clone(),
            annotations: self.annotations(metadata),
            origin: Origin {
                file: self.document.file.clone(),
                line: self.document.line(),
            },
        }
    }

    fn annotations(&mut self, metadata: &Metadata) -> Annotations {
        const PREFIX: &str = "muster.dev/";
        const KNOWN: [&str; 5] = ["prune", "reconcile", "deletion-approved", "owner", "runbook"];
        let mut annotations = Annotations::default();
        for (name, value) in &metadata.annotations {
            let pointer = at("/metadata/annotations", name);
            let Some(own) = name.strip_prefix(PREFIX) else {
                annotations.other.insert(name.clone(), value.clone());
                continue;
            };
            match own {
                "prune" | "reconcile" if value != "Disabled" => {
                    let text = format!("`{name}` is `{}`, not `Disabled`", shown(value));
                    self.error_hint(
                        &pointer,
                        Code::UnknownValue,
                        text,
                        "leave the annotation out to enable it",
                    );
                }
                "prune" => annotations.prune_disabled = true,
                "reconcile" => annotations.reconcile_disabled = true,
                "deletion-approved" => {
                    annotations.deletion_approved = instant(value);
                    if annotations.deletion_approved.is_none() {
                        let text = format!("`{}` is not an instant such as 2026-11-13T02:30:00Z", shown(value));
                        self.error(&pointer, Code::BadFormat, text);
                    }
                }
                "owner" => annotations.owner = Some(value.clone()),
                "runbook" => annotations.runbook = Some(value.clone()),
                other => {
                    let text = format!("there is no annotation `{}`", shown(name));
                    self.error(&pointer, Code::UnknownField, text).hint = did_you_mean(other, KNOWN);
                }
            }
        }
        annotations
    }
}

/// The names of `${…}` that a text uses; an error where one is not closed.
pub(super) fn substitutions(text: &str) -> Result<Vec<&str>, ()> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let inner = &rest[start + 2..];
        let end = inner.find('}').ok_or(())?;
        names.push(&inner[..end]);
        rest = &inner[end + 1..];
    }
    Ok(names)
}

impl Lower<'_, '_> {
    /// Every `${NAME}` of a text must be one that is known where it stands.
    pub fn check_substitutions(&mut self, pointer: &str, text: &str, known: &BTreeSet<String>) {
        let Ok(names) = substitutions(text) else {
            self.error(pointer, Code::BadTemplate, "`${` has no closing `}`");
            return;
        };
        for name in names.into_iter().filter(|name| !known.contains(*name)) {
            let list = known
                .iter()
                .map(|name| format!("${{{name}}}"))
                .collect::<Vec<_>>()
                .join(", ");
            let hint = did_you_mean(name, known.iter().map(String::as_str))
                .unwrap_or_else(|| format!("known here: {list}; a shell's own variable is written without braces"));
            let text = format!("`${{{}}}` is not known here", shown(name));
            self.error_hint(pointer, Code::BadTemplate, text, hint);
        }
    }
}
