//! The JSON Schemas (draft-07) of plans and settings, generated from the wire types.

use super::wire::environment::{EnvironmentSpec, WorkerPoolSpec};
use super::wire::plan::TestPlanSpec;
use super::wire::service::ServiceSpec;
use super::wire::settings::SettingsFile;
use super::wire::streaming::{DatabaseClusterSpec, IngestClusterSpec, KafkaClusterSpec};
use super::wire::{Metadata, scalar::FORMS};
use crate::model::key::Kind;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The version of the format that this build reads.
pub const API_VERSION: &str = "muster.dev/v1alpha1";
/// The group whose documents are read; those of others are ignored.
pub const API_GROUP: &str = "muster.dev";

const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// `schemas/muster.schema.json`: any document of the plan format.
pub fn plans() -> Value {
    let mut generator = generator();
    let metadata = generator.subschema_for::<Metadata>().to_value();
    let specs = [
        (Kind::Environment, generator.subschema_for::<EnvironmentSpec>()),
        (Kind::WorkerPool, generator.subschema_for::<WorkerPoolSpec>()),
        (Kind::KafkaCluster, generator.subschema_for::<KafkaClusterSpec>()),
        (Kind::IngestCluster, generator.subschema_for::<IngestClusterSpec>()),
        (Kind::DatabaseCluster, generator.subschema_for::<DatabaseClusterSpec>()),
        (Kind::Service, generator.subschema_for::<ServiceSpec>()),
        (Kind::TestPlan, generator.subschema_for::<TestPlanSpec>()),
    ]
    .map(|(kind, spec)| (kind, spec.to_value()));
    let mut definitions = generator.take_definitions(true);
    let is = |kind: Kind| json!({"properties": {"kind": {"const": kind.as_str()}}, "required": ["kind"]});
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        let then = match specs.iter().find(|(known, _)| *known == kind) {
            Some((_, spec)) => {
                definitions.insert(kind.as_str().to_owned(), document(kind, &metadata, spec));
                json!({"$ref": format!("#/definitions/{kind}")})
            }
            None => json!({"properties": {"kind": {"not": {}}}}),
        };
        cases.push(json!({"if": is(kind), "then": then}));
    }
    let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
    let mut schema = json!({
        "$schema": DRAFT,
        "title": "Muster plans",
        "description": "One document of a Muster repository. What is marked `not: {}` is part of the format and not supported by this build.",
        "type": "object",
        "properties": {"apiVersion": {"const": API_VERSION}, "kind": {"enum": kinds}},
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "allOf": cases,
        "definitions": definitions,
    });
    plain(&mut schema);
    schema
}

/// `schemas/settings.schema.json`: the daemon's settings file.
pub fn settings() -> Value {
    let mut schema = generator().into_root_schema_for::<SettingsFile>().to_value();
    schema["title"] = json!("Muster settings");
    plain(&mut schema);
    schema
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft07().for_deserialize().into_generator()
}

fn document(kind: Kind, metadata: &Value, spec: &Value) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind.as_str()},
            "metadata": metadata,
            "spec": spec,
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
    })
}

/// Takes out what Rust says and the format does not: `null` for an absent field, machine formats of numbers, `default: []`.
fn plain(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(fields) => {
            plain_object(fields);
            fields.values_mut().for_each(plain);
        }
        _ => {}
    }
}

fn plain_object(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            fields.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(words)) = fields.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let null = json!({"type": "null"});
    if let Some(Value::Array(branches)) = fields.get_mut("anyOf") {
        branches.retain(|branch| *branch != null);
        if let [Value::Object(only)] = &branches[..] {
            let only = only.clone();
            fields.remove("anyOf");
            // Draft-07 ignores what stands beside `$ref`.
            if only.contains_key("$ref") && !fields.is_empty() {
                fields.insert("allOf".to_owned(), json!([only]));
            } else {
                fields.extend(only);
            }
        }
    }
    let machine = fields
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| !format.starts_with("muster-"));
    if machine {
        fields.remove("format");
    }
    if fields.contains_key("default") && !fields.get("default").is_some_and(Value::is_object) {
        fields.remove("default");
    }
    if fields.get("default").is_some_and(|value| value == &json!({})) {
        fields.remove("default");
    }
    // `description` of multi-line doc comments: one line, as editors show it.
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

/// A schema with its compiled validator.
pub struct Checked {
    /// The schema, for looking up what a failed keyword stands beside.
    pub schema: Value,
    /// The same, compiled.
    pub validator: jsonschema::Validator,
}

impl Checked {
    fn new(schema: Value) -> Self {
        let mut options = jsonschema::draft7::options().should_validate_formats(true);
        for form in FORMS {
            let check = form.check;
            options = options.with_format(form.format, move |text: &str| check(text).is_ok());
        }
        let validator = options.build(&schema).expect("generated schemas are schemas");
        Self { schema, validator }
    }
}

static KINDS: LazyLock<BTreeMap<Kind, Checked>> = LazyLock::new(|| {
    let all = plans();
    let of = |kind: Kind| {
        let mut schema = all["definitions"][kind.as_str()].clone();
        schema["$schema"] = json!(DRAFT);
        schema["definitions"] = all["definitions"].clone();
        (kind, Checked::new(schema))
    };
    Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_supported())
        .map(of)
        .collect()
});

static SETTINGS: LazyLock<Checked> = LazyLock::new(|| Checked::new(settings()));

/// The schema of a kind's documents; `None` for those that this build does not support.
pub(super) fn of_kind(kind: Kind) -> Option<&'static Checked> {
    KINDS.get(&kind)
}

/// The schema of the settings file.
pub(super) fn of_settings() -> &'static Checked {
    &SETTINGS
}

#[cfg(test)]
mod tests {
    use super::{KINDS, SETTINGS, plans, settings};
    use crate::model::key::Kind;
    use serde_json::Value;

    #[test]
    fn both_schemas_compile() {
        assert_eq!(KINDS.len(), Kind::ALL.iter().filter(|kind| kind.is_supported()).count());
        assert!(SETTINGS.schema.is_object());
    }

    #[test]
    fn the_schemas_of_the_repository_are_the_generated_ones() {
        for (name, schema) in [("muster.schema.json", plans()), ("settings.schema.json", settings())] {
            let path = format!("{}/../../schemas/{name}", env!("CARGO_MANIFEST_DIR"));
            let text = format!("{}\n", serde_json::to_string_pretty(&schema).expect("JSON"));
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            if stored != text {
                std::fs::write(&path, text).expect("the schemas' folder");
                panic!("{path} was out of date and is written anew; commit it");
            }
        }
    }

    #[test]
    fn nothing_may_be_null_and_every_object_is_closed() {
        fn walk(path: &str, value: &Value) {
            if let Value::Object(fields) = value {
                assert_ne!(fields.get("type"), Some(&Value::from("null")), "{path}");
                let object = fields.get("type") == Some(&Value::from("object"));
                let open = fields.contains_key("properties") && fields.get("additionalProperties").is_none();
                let union = fields.contains_key("allOf") || fields.contains_key("if");
                assert!(!object || !open || union, "{path} is open");
                fields
                    .iter()
                    .for_each(|(key, value)| walk(&format!("{path}/{key}"), value));
            } else if let Value::Array(items) = value {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(index, value)| walk(&format!("{path}/{index}"), value));
            }
        }
        walk("", &plans());
        walk("", &settings());
    }
}
