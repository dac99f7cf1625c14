//! Loading a revision: files to documents, documents to projects, projects to resources and what is wrong with them.

use super::code::Code;
use super::cycle::cycles;
use super::diagnostic::{Diagnostic, Severity, Span};
use super::files::Contents;
use super::glob::Ignore;
use super::index::{Good, Index};
use super::lower::Lower;
use super::parse::{Document, Parsed, parse};
use super::topics::{Taken, taken_twice};
use super::tree::shown;
use super::{Cache, Files, Loaded, ProjectLoad};
use crate::model::id::Name;
use crate::model::key::{Key, Kind};
use crate::model::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Reads the files of one revision under a policy.
///
/// Never fails as a whole: each project gets what is valid and what is wrong, and errors of one project leave the others alone
/// (promise 5). Files whose path and blob are in the cache are not parsed again (promise 4); what a policy or another file decides is
/// never cached.
pub fn load(files: &Files, policy: &Policy, cache: &mut Cache) -> Loaded {
    let mut loaded = Loaded::default();
    for name in policy.projects.keys() {
        loaded.projects.insert(name.clone(), ProjectLoad::default());
    }
    let parsed = parse_all(files, cache, &mut loaded);
    let mut index = Index {
        heads: BTreeMap::new(),
        resources: BTreeMap::new(),
        unreadable: BTreeSet::new(),
        good: &cache.good,
    };
    for (path, parsed) in &parsed {
        sort_file(path, parsed, policy, &mut index, &mut loaded);
    }
    refused_plans(files, policy, &mut loaded, &mut index);
    let mut contents = Contents::new(files, &cache.blobs);
    // Later kinds look at what earlier ones turned out to be.
    for kind in LOWERED {
        let of_kind: Vec<(Key, &Document)> = index
            .heads
            .iter()
            .filter(|(key, _)| key.kind == kind)
            .map(|(key, document)| (key.clone(), *document))
            .collect();
        let mut lowered = Vec::new();
        for (key, document) in &of_kind {
            let lower = Lower {
                policy,
                index: &index,
                contents: &mut contents,
                document,
                key,
                errors: Vec::new(),
                files: BTreeMap::new(),
            };
            let (resource, errors) = lower.resource();
            report(&mut loaded, &key.project, errors);
            lowered.extend(resource.map(|resource| (key.clone(), Arc::new(resource))));
        }
        index.resources.extend(lowered);
    }
    report_cycles(&index, &mut loaded);
    report_topics(&index, &mut loaded);
    for (key, resource) in index.resources {
        if let Some(project) = loaded.projects.get_mut(&key.project) {
            project.resources.insert(key, resource);
        }
    }
    loaded.contents = contents.pinned;
    cache.blobs = contents.used;
    finish(&mut loaded, &mut cache.good);
    loaded
}

/// Kinds in the order they are looked at: each refers to those before it only.
const LOWERED: [Kind; 7] = [
    Kind::Environment,
    Kind::KafkaCluster,
    Kind::DatabaseCluster,
    Kind::IngestCluster,
    Kind::WorkerPool,
    Kind::Service,
    Kind::TestPlan,
];

fn parse_all(files: &Files, cache: &mut Cache, loaded: &mut Loaded) -> BTreeMap<String, Arc<Parsed>> {
    let ignore = files
        .files
        .get(Ignore::FILE)
        .map(|file| Ignore::parse(&file.bytes))
        .unwrap_or_default();
    let mut all = BTreeMap::new();
    let mut kept = BTreeMap::new();
    for (path, file) in &files.files {
        if !is_yaml(path) || ignore.ignores(path) {
            continue;
        }
        let key = (path.clone(), file.blob.clone());
        let parsed = cache.parsed.remove(&key).unwrap_or_else(|| {
            loaded.parsed_files += 1;
            Arc::new(parse(path, &file.bytes))
        });
        loaded.ignored_documents += parsed.ignored;
        all.insert(path.clone(), Arc::clone(&parsed));
        kept.insert(key, parsed);
    }
    cache.parsed = kept;
    all
}

fn is_yaml(path: &str) -> bool {
    path.ends_with(".yaml") || path.ends_with(".yml")
}

/// Gives a file's documents and errors to its project.
fn sort_file<'a>(path: &str, parsed: &'a Parsed, policy: &Policy, index: &mut Index<'a>, loaded: &mut Loaded) {
    let Some(project) = policy.project_of(path) else {
        loaded.diagnostics.extend(parsed.diagnostics.iter().cloned());
        if let Some(document) = parsed.documents.first() {
            let text = format!(
                "the file belongs to no project: no `paths` of the settings match `{}`",
                shown(path)
            );
            loaded
                .diagnostics
                .push(Diagnostic::error(Code::NoProject, path, document.root.span, text));
        }
        return;
    };
    report(loaded, project, parsed.diagnostics.clone());
    if parsed.unreadable {
        index.unreadable.insert(project.clone());
    }
    for document in &parsed.documents {
        let key = Key::new(project.clone(), document.kind, document.name.clone());
        let errors = identity_errors(&key, document, policy, index);
        if errors.is_empty() {
            index.heads.insert(key, document);
        } else {
            report(loaded, project, errors);
        }
    }
}

fn identity_errors(key: &Key, document: &Document, policy: &Policy, index: &Index<'_>) -> Vec<Diagnostic> {
    let error = |pointer: &str, code, text: String| {
        let mut error = Diagnostic::error(code, &document.file, document.root.place(pointer), text);
        error.key = Some(key.clone());
        error
    };
    let mut errors = Vec::new();
    if let Some(first) = index.heads.get(key) {
        let place = first.root.place("/metadata/name");
        let text = format!("{} `{}` exists already in project {}", key.kind, key.name, key.project);
        let cause = format!("first at {}:{}:{}", first.file, place.line, place.column);
        errors.push(error("/metadata/name", Code::DuplicateResource, text).because(cause));
    }
    let allowed = policy
        .projects
        .get(&key.project)
        .is_some_and(|project| project.kinds.contains(&key.kind));
    if !allowed {
        let text = format!("project {} may not hold kind {}", key.project, key.kind);
        errors.push(
            error("/kind", Code::KindNotAllowed, text)
                .hint("`kinds` of the project in the settings lists what it may hold"),
        );
    }
    let own = key.project == Name::default_project()
        && key.name.as_str() == "local"
        && matches!(key.kind, Kind::Environment | Kind::WorkerPool);
    if own {
        let text = format!("{key} is Muster's own: the pool of plans that name none");
        errors.push(error("/metadata/name", Code::ReservedName, text).hint("choose another name"));
    }
    errors
}

/// A plan that could not be read is not the same as a plan that is not there (promise 6).
fn refused_plans(files: &Files, policy: &Policy, loaded: &mut Loaded, index: &mut Index<'_>) {
    let ignore = files
        .files
        .get(Ignore::FILE)
        .map(|file| Ignore::parse(&file.bytes))
        .unwrap_or_default();
    for (path, reason) in files
        .refused
        .iter()
        .filter(|(path, _)| is_yaml(path) && !ignore.ignores(path))
    {
        let text = format!("the file is not read: {}", shown(reason));
        let error = Diagnostic::error(Code::RefusedFile, path, Span::START, text)
            .hint("name it in .musterignore if it is no plan");
        match policy.project_of(path) {
            Some(project) => {
                index.unreadable.insert(project.clone());
                report(loaded, project, vec![error]);
            }
            None => loaded.diagnostics.push(error),
        }
    }
}

fn report_cycles(index: &Index<'_>, loaded: &mut Loaded) {
    for cycle in cycles(&index.resources) {
        let path: Vec<String> = cycle
            .iter()
            .chain(cycle.first())
            .map(|key| key.name.to_string())
            .collect();
        let projects: BTreeSet<&Name> = cycle.iter().map(|key| &key.project).collect();
        for project in projects {
            let Some((key, document)) = cycle
                .iter()
                .find(|key| key.project == *project)
                .and_then(|key| Some((key, index.heads.get(key)?)))
            else {
                continue;
            };
            let text = format!("services depend on each other in a circle: {}", path.join(" -> "));
            let place = document.root.place("/spec/dependsOn");
            let mut error = Diagnostic::error(Code::Cycle, &document.file, place, text);
            error.key = Some(key.clone());
            report(loaded, project, vec![error]);
        }
    }
}

/// One topic, one database. What a project does breaks no other one: there it is a warning.
fn report_topics(index: &Index<'_>, loaded: &mut Loaded) {
    for Taken { by, ingest, first, to } in taken_twice(&index.resources) {
        let Some(document) = index.heads.get(by) else { continue };
        let text = format!(
            "{first} takes topic `{}` of {} to {to} already: each of the two would read all results and refuse the other's",
            ingest.from.topic, ingest.from.cluster
        );
        let place = document.root.place("/spec/databaseCluster");
        let mut error = Diagnostic::error(Code::TopicTaken, &document.file, place, text)
            .hint("give each database a topic of its own, and a WorkerPool that sends to it");
        if by.project != first.project {
            error.severity = Severity::Warning;
        }
        error.key = Some(by.clone());
        report(loaded, &by.project, vec![error]);
    }
}

fn report(loaded: &mut Loaded, project: &Name, errors: Vec<Diagnostic>) {
    if let Some(project) = loaded.projects.get_mut(project) {
        project.diagnostics.extend(errors);
    }
}

/// Sorts what is wrong by place, and remembers what is good for references into projects that break later.
fn finish(loaded: &mut Loaded, good: &mut Good) {
    loaded.diagnostics.sort();
    for (name, project) in &mut loaded.projects {
        project.diagnostics.sort();
        project.diagnostics.dedup();
        if project.is_good() {
            good.insert(name.clone(), project.resources.clone());
        }
    }
}
