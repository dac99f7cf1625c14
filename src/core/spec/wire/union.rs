//! Unions: by a tag (`executor`, `type`), by the form of the value (`1s` or `{min, max}`), and words of which some are refused.
//!
//! A union by tag is written as `allOf` of `if`/`then` with closed objects, so that errors come from the branch that was meant and
//! editors complete it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// The schema of a branch of a union: its closed object, which also knows the tag.
pub fn branch<T: JsonSchema>(generator: &mut SchemaGenerator, tag: &str, value: &str) -> Value {
    let mut schema = T::json_schema(generator).to_value();
    // A struct without fields has no `properties`.
    if schema["properties"].is_null() {
        schema["properties"] = json!({});
    }
    schema["properties"][tag] = json!({"const": value});
    schema
}

/// The schema of a union by tag. `otherwise` is a branch that is chosen by a field of its own and has no tag.
pub fn tagged(tag: &str, branches: &[(&str, Value)], refused: &[&str], otherwise: Option<(&str, Value)>) -> Schema {
    let is = |value: Value| json!({"properties": {tag: value}, "required": [tag]});
    let names: Vec<&str> = branches
        .iter()
        .map(|(name, _)| *name)
        .chain(refused.iter().copied())
        .collect();
    let mut cases: Vec<Value> = branches
        .iter()
        .map(|(name, then)| json!({"if": is(json!({"const": name})), "then": then}))
        .collect();
    if !refused.is_empty() {
        cases.push(json!({"if": is(json!({"enum": refused})), "then": {"properties": {tag: {"not": {}}}}}));
    }
    match otherwise {
        None => json_schema!({
            "type": "object", "properties": {tag: {"enum": names}}, "required": [tag], "allOf": cases,
        }),
        Some((field, then)) => json_schema!({
            "type": "object",
            "if": {"required": [field]},
            "then": then,
            "else": {"properties": {tag: {"enum": names}}, "required": [tag], "allOf": cases},
        }),
    }
}

/// The schema of words, some of which are part of the format but refused.
pub fn words(all: &[&str], refused: &[&str]) -> Schema {
    let mut schema = Map::new();
    schema.insert("enum".to_owned(), json!(all));
    if !refused.is_empty() {
        schema.insert("not".to_owned(), json!({"enum": refused}));
    }
    schema.into()
}

/// A union by tag: an enum that decodes by it, and its schema.
macro_rules! tagged_union {
    (
        $(#[$doc:meta])*
        pub enum $name:ident by $tag:literal {
            $($value:literal => $variant:ident($inner:ty),)+
        }
        refused: [$($refused:literal),*];
        $(otherwise: $field:literal => $other:ident($other_inner:ty);)?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub enum $name {
            $(#[allow(missing_docs, reason = "named after its tag")] $variant($inner),)+
            $(#[allow(missing_docs, reason = "named after its field")] $other($other_inner),)?
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let branches = [$(($value, $crate::spec::wire::union::branch::<$inner>(generator, $tag, $value)),)+];
                #[allow(unused_mut, unused_assignments, reason = "only some unions have one")]
                let mut otherwise = None;
                $(otherwise = Some(($field, <$other_inner>::json_schema(generator).to_value()));)?
                $crate::spec::wire::union::tagged($tag, &branches, &[$($refused),*], otherwise)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error;
                let mut fields = serde_json::Map::<String, serde_json::Value>::deserialize(deserializer)?;
                $(if fields.contains_key($field) {
                    return serde_json::from_value(fields.into()).map(Self::$other).map_err(D::Error::custom);
                })?
                let tag = fields.remove($tag).unwrap_or_default();
                match tag.as_str() {
                    $(Some($value) => serde_json::from_value(fields.into()).map(Self::$variant).map_err(D::Error::custom),)+
                    _ => Err(D::Error::custom(concat!("unknown ", $tag))),
                }
            }
        }
    };
}
pub(super) use tagged_union;

/// A value that is either a text or an object.
macro_rules! text_or_object {
    ($(#[$doc:meta])* pub enum $name:ident { Text($text:ty), Object($object:ty) }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub enum $name {
            /// Written as a text.
            Text($text),
            /// Written as an object.
            Object($object),
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let text = <$text>::json_schema(generator).to_value();
                let object = generator.subschema_for::<$object>().to_value();
                schemars::json_schema!({
                    "type": ["string", "object"],
                    "allOf": [
                        {"if": {"type": "string"}, "then": text},
                        {"if": {"type": "object"}, "then": object},
                    ],
                })
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error;
                let value = serde_json::Value::deserialize(deserializer)?;
                if value.is_string() {
                    serde_json::from_value(value).map(Self::Text).map_err(D::Error::custom)
                } else {
                    serde_json::from_value(value).map(Self::Object).map_err(D::Error::custom)
                }
            }
        }
    };
}
pub(super) use text_or_object;

/// An enum of words, some of which are refused.
macro_rules! word_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($word:literal => $variant:ident,)+ } refused: [$($refused:literal),*];) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
        pub enum $name {
            $(#[allow(missing_docs, reason = "its word says it")] #[serde(rename = $word)] $variant,)+
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::spec::wire::union::words(&[$($word,)+ $($refused),*], &[$($refused),*])
            }
        }
    };
}
pub(super) use word_enum;
