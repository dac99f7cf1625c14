//! One file to documents: whose they are, what they are, and whether their structure is right. Depends on nothing but the file's
//! path and content, so it is what the cache keeps (promise 4).

use super::code::Code;
use super::diagnostic::{Diagnostic, Span};
use super::hint::did_you_mean;
use super::schema::{API_GROUP, API_VERSION, of_kind};
use super::structure;
use super::tree::{self, Content, Node, shown};
use super::wire::Metadata;
use super::wire::environment::{EnvironmentSpec, WorkerPoolSpec};
use super::wire::plan::TestPlanSpec;
use super::wire::service::ServiceSpec;
use super::wire::streaming::{DatabaseClusterSpec, IngestClusterSpec, KafkaClusterSpec};
use crate::model::id::Name;
use crate::model::key::Kind;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A file of the repository, read.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Documents of ours, as far as they have an identity.
    pub documents: Vec<Document>,
    /// What is wrong with the text and the structure.
    pub diagnostics: Vec<Diagnostic>,
    /// Documents of other groups.
    pub ignored: u32,
    /// Something is wrong before identities are known: other documents may have been here.
    pub unreadable: bool,
}

/// A document with an identity.
#[derive(Debug)]
pub(super) struct Document {
    pub file: String,
    pub root: Node,
    pub kind: Kind,
    pub name: Name,
    /// `None` where the structure is wrong.
    pub body: Option<(Metadata, Wire)>,
}

/// The spec as written, by kind.
#[derive(Debug)]
pub(super) enum Wire {
    Environment(EnvironmentSpec),
    WorkerPool(WorkerPoolSpec),
    KafkaCluster(KafkaClusterSpec),
    IngestCluster(IngestClusterSpec),
    DatabaseCluster(DatabaseClusterSpec),
    Service(ServiceSpec),
    TestPlan(Box<TestPlanSpec>),
}

/// Reads a file.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Parsed {
    let (roots, mut diagnostics) = tree::read(file, bytes);
    for error in diagnostics.iter_mut().filter(|error| error.code == Code::Syntax) {
        error.hint = Some("a YAML file that is no plan can be named in .musterignore".to_owned());
    }
    let unreadable = !diagnostics.is_empty();
    let mut parsed = Parsed {
        documents: Vec::new(),
        diagnostics,
        ignored: 0,
        unreadable,
    };
    for root in roots {
        match document(file, root, &mut parsed.diagnostics) {
            Outcome::Ours(document) => parsed.documents.push(*document),
            Outcome::Other => parsed.ignored += 1,
            Outcome::Nameless => parsed.unreadable = true,
        }
    }
    parsed
}

enum Outcome {
    Ours(Box<Document>),
    Other,
    Nameless,
}

fn document(file: &str, root: Node, errors: &mut Vec<Diagnostic>) -> Outcome {
    let kind_entry = root.get("kind");
    let kind_text = kind_entry.and_then(|entry| entry.value.text());
    let known = kind_text.and_then(Kind::parse);
    let place = kind_entry.map_or(root.span, |entry| entry.value.span);
    let error = |code, span: Span, text: String| Diagnostic::error(code, file, span, text);
    match root.get("apiVersion") {
        None if known.is_some() => {
            let text = format!(
                "the document has kind {} and no `apiVersion`",
                kind_text.unwrap_or_default()
            );
            errors.push(error(Code::MissingApiVersion, place, text).hint(format!("write `apiVersion: {API_VERSION}`")));
        }
        None => return Outcome::Other,
        Some(entry) => {
            let version = entry.value.text().unwrap_or_default();
            if version.split('/').next() != Some(API_GROUP) {
                return Outcome::Other;
            }
            if version != API_VERSION {
                let text = format!("this build does not read version `{}`", shown(version));
                let text = error(Code::WrongVersion, entry.value.span, text).hint(format!("write `{API_VERSION}`"));
                errors.push(text);
                return Outcome::Nameless;
            }
        }
    }
    let Some(kind) = known else {
        let kinds = Kind::ALL.into_iter().map(Kind::as_str);
        errors.push(match kind_text {
            Some(text) => error(Code::UnknownKind, place, format!("there is no kind `{}`", shown(text)))
                .maybe_hint(did_you_mean(text, kinds)),
            None => error(Code::UnknownKind, root.span, "the document has no `kind`".to_owned()),
        });
        return Outcome::Nameless;
    };
    let Some(checked) = of_kind(kind) else {
        errors.push(error(
            Code::Unsupported,
            place,
            format!("kind {kind} is not supported by this build"),
        ));
        return Outcome::Nameless;
    };
    let json = root.to_json();
    let mut found = structure::check(checked, file, &root, &json);
    found.retain(|error| error.code != Code::MissingField || !error.message.contains("`apiVersion`"));
    let name = json["metadata"]["name"].as_str().and_then(|name| Name::new(name).ok());
    let body = if found.is_empty() {
        decode(kind, json, file, &root, &mut found)
    } else {
        None
    };
    errors.extend(found);
    match name {
        Some(name) => Outcome::Ours(Box::new(Document {
            file: file.to_owned(),
            root,
            kind,
            name,
            body,
        })),
        None => Outcome::Nameless,
    }
}

fn decode(
    kind: Kind,
    mut json: Value,
    file: &str,
    root: &Node,
    errors: &mut Vec<Diagnostic>,
) -> Option<(Metadata, Wire)> {
    let spec = json["spec"].take();
    let metadata = json["metadata"].take();
    let wire = match kind {
        Kind::Environment => from::<EnvironmentSpec>(spec).map(Wire::Environment),
        Kind::WorkerPool => from::<WorkerPoolSpec>(spec).map(Wire::WorkerPool),
        Kind::KafkaCluster => from::<KafkaClusterSpec>(spec).map(Wire::KafkaCluster),
        Kind::IngestCluster => from::<IngestClusterSpec>(spec).map(Wire::IngestCluster),
        Kind::DatabaseCluster => from::<DatabaseClusterSpec>(spec).map(Wire::DatabaseCluster),
        Kind::Service => from::<ServiceSpec>(spec).map(Wire::Service),
        Kind::TestPlan => from::<TestPlanSpec>(spec).map(|plan| Wire::TestPlan(Box::new(plan))),
        _ => return None,
    };
    match from::<Metadata>(metadata).and_then(|metadata| wire.map(|wire| (metadata, wire))) {
        Ok(body) => Some(body),
        Err(cause) => {
            let span = root.key_place("", "spec");
            errors.push(Diagnostic::error(Code::BadFormat, file, span, "the spec cannot be read").because(cause));
            None
        }
    }
}

/// Numbers such as `5.0` pass a schema's `integer` and no decoder; the rest of what is wrong was found before.
fn from<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(whole_numbers(value)).map_err(|error| error.to_string())
}

fn whole_numbers(value: Value) -> Value {
    /// Every whole number up to here is exact in a 64-bit float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && (0.0..=EXACT).contains(&float) => {
                Value::from(float as u64)
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, whole_numbers(value)))
            .collect(),
        other => other,
    }
}

impl Document {
    /// Where the document begins.
    pub fn line(&self) -> u32 {
        match &self.root.content {
            Content::Map(entries) => entries.first().map_or(self.root.span.line, |entry| entry.key_span.line),
            _ => self.root.span.line,
        }
    }
}
