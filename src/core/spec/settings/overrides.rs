//! Settings that the environment or a flag replaces.

use crate::spec::diagnostic::Span;
use crate::spec::schema::of_settings;
use crate::spec::tree::{Content, Entry, Node, read};
use serde_json::Value;

/// Dotted keys of all scalars that are not in lists, and whether each is a text: what can be overridden.
pub fn override_keys() -> Vec<(String, bool)> {
    fn walk(root: &Value, schema: &Value, path: &str, keys: &mut Vec<(String, bool)>) {
        let target = schema["allOf"][0]["$ref"].as_str().or(schema["$ref"].as_str());
        let schema = target
            .and_then(|target| root.pointer(target.trim_start_matches('#')))
            .unwrap_or(schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match property["type"].as_str() {
                Some(kind @ ("string" | "integer" | "number" | "boolean")) => keys.push((path, kind == "string")),
                Some("array") => {}
                _ => walk(root, property, &path, keys),
            }
        }
    }
    let schema = &of_settings().schema;
    let mut keys = Vec::new();
    walk(schema, schema, "", &mut keys);
    keys
}

/// An override's value: a text where the setting is one, else what YAML makes of it.
pub(super) fn scalar(value: &str, text: bool) -> Content {
    let (mut documents, errors) = read("", value.as_bytes());
    let plain = documents.pop().map(|node| node.content);
    match plain {
        Some(content @ (Content::Bool(_) | Content::Number(_))) if !text && errors.is_empty() => content,
        _ => Content::Text(value.to_owned()),
    }
}

/// Puts a value at a dotted key; mappings on the way are made.
pub(super) fn set(node: &mut Node, key: &str, value: Content) {
    let (first, rest) = key
        .split_once('.')
        .map_or((key, None), |(first, rest)| (first, Some(rest)));
    if !matches!(node.content, Content::Map(_)) {
        node.content = Content::Map(Vec::new());
    }
    let Content::Map(entries) = &mut node.content else {
        return;
    };
    let index = entries.iter().position(|entry| entry.key == first).unwrap_or_else(|| {
        let value = Node {
            span: Span::START,
            content: Content::Map(Vec::new()),
        };
        entries.push(Entry {
            key: first.to_owned(),
            key_span: Span::START,
            value,
        });
        entries.len() - 1
    });
    match rest {
        Some(rest) => set(&mut entries[index].value, rest, value),
        None => {
            entries[index].value = Node {
                span: Span::START,
                content: value,
            }
        }
    }
}
