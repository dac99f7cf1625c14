//! `muster explain`: what a field is, from the same schema that checks it.

use super::schema::plans;
use crate::model::key::Kind;
use serde::Serialize;
use serde_json::Value;

/// What is known about a kind or a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The path as documents write it: `TestPlan.spec.phases`.
    pub path: String,
    /// Its type in the words of [`Field::kind`].
    pub kind: String,
    /// What it is for.
    pub description: String,
    /// Whether this build acts on it.
    pub supported: bool,
    /// What it may hold, in the schema's order of names; fields of a union carry the case they belong to.
    pub fields: Vec<Field>,
}

/// One field of a mapping.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// In a union, the case it belongs to: `executor: constant-vus`; empty for all others.
    pub case: String,
    /// Its name.
    pub name: String,
    /// `text`, `duration`, `whole number`, `list of mappings`, or the words it may be.
    pub kind: String,
    /// Whether it must be there.
    pub required: bool,
    /// Whether this build acts on it.
    pub supported: bool,
    /// What it is for.
    pub description: String,
}

/// Explains `testplan`, `testplan.spec.phases`; the kind in any case. `None` where there is no such field.
pub fn explain(path: &str) -> Option<Explanation> {
    let schema = plans();
    let mut tokens = path.split('.').filter(|token| !token.is_empty());
    let first = tokens.next()?;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str().eq_ignore_ascii_case(first))?;
    let book = Book { schema: &schema };
    let Some(mut node) = schema["definitions"].get(kind.as_str()) else {
        let description = format!("Kind {kind} is part of the plan format and not supported by this build.");
        let whole = tokens.next().is_none();
        let explanation = Explanation {
            path: kind.to_string(),
            kind: "mapping".to_owned(),
            description,
            supported: false,
            fields: Vec::new(),
        };
        return whole.then_some(explanation);
    };
    let mut name = kind.to_string();
    let mut description = String::new();
    for token in tokens {
        let (found, property) = book
            .cases(node)
            .into_iter()
            .flat_map(|(_, case)| case["properties"].as_object().into_iter().flatten())
            .find(|(name, _)| name.eq_ignore_ascii_case(token.trim_end_matches("[]")))?;
        name.push('.');
        name.push_str(found);
        description = book.describe(property);
        node = property;
    }
    if description.is_empty() {
        description = book.describe(&schema["definitions"][format!("{kind}Spec")]);
    }
    Some(Explanation {
        path: name,
        kind: book.type_of(node),
        description,
        supported: node["not"].is_null() || !node["enum"].is_null(),
        fields: book.fields(node),
    })
}

struct Book<'a> {
    schema: &'a Value,
}

impl<'a> Book<'a> {
    /// Follows `$ref`, also where it stands alone in `allOf` to carry a description beside it.
    fn resolve(&self, node: &'a Value) -> &'a Value {
        let single = node["allOf"]
            .as_array()
            .filter(|all| all.len() == 1)
            .map(|all| &all[0]["$ref"]);
        match node["$ref"].as_str().or(single.and_then(Value::as_str)) {
            Some(target) => self
                .schema
                .pointer(target.trim_start_matches('#'))
                .map_or(node, |found| self.resolve(found)),
            None => node,
        }
    }

    /// The mappings that a node may be, each with its case; lists are looked into.
    fn cases(&self, node: &'a Value) -> Vec<(String, &'a Value)> {
        let node = self.resolve(node);
        if !node["items"].is_null() {
            return self.cases(&node["items"]);
        }
        if node["additionalProperties"].is_object() && node["properties"].is_null() {
            return self.cases(&node["additionalProperties"]);
        }
        let union = if node["else"].is_null() { node } else { &node["else"] };
        let mut cases = Vec::new();
        for branch in union["allOf"].as_array().into_iter().flatten() {
            let then = self.resolve(&branch["then"]);
            for (tag, value) in branch["if"]["properties"].as_object().into_iter().flatten() {
                if let (Some(value), false) = (value["const"].as_str(), then["properties"].is_null()) {
                    cases.push((format!("{tag}: {value}"), then));
                }
            }
            if branch["if"]["type"] == "object" {
                cases.push((String::new(), then));
            }
        }
        if let Some(field) = node["if"]["required"][0].as_str() {
            cases.push((field.to_owned(), self.resolve(&node["then"])));
        }
        if cases.is_empty() {
            cases.push((String::new(), node));
        }
        cases
    }

    fn describe(&self, node: &'a Value) -> String {
        let text = |node: &Value| node["description"].as_str().map(str::to_owned);
        text(node).or_else(|| text(self.resolve(node))).unwrap_or_default()
    }

    fn fields(&self, node: &'a Value) -> Vec<Field> {
        let mut fields = Vec::new();
        for (case, mapping) in self.cases(node) {
            let required: Vec<&str> = mapping["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            for (name, property) in mapping["properties"].as_object().into_iter().flatten() {
                fields.push(Field {
                    case: case.clone(),
                    name: name.clone(),
                    kind: self.type_of(property),
                    required: required.contains(&name.as_str()),
                    supported: property["not"].is_null() || !property["enum"].is_null(),
                    description: self.describe(property),
                });
            }
        }
        fields
    }

    fn type_of(&self, node: &'a Value) -> String {
        let node = self.resolve(node);
        if let Some(words) = node["enum"].as_array() {
            return words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
        }
        if let Some(value) = node["const"].as_str() {
            return value.to_owned();
        }
        if let Some(format) = node["format"]
            .as_str()
            .and_then(|format| format.strip_prefix("muster-"))
        {
            return format.to_owned();
        }
        match node["type"].as_str() {
            Some("array") => format!("list of {}", self.type_of(&node["items"])),
            Some("object") if node["additionalProperties"].is_object() => {
                format!("mapping to {}", self.type_of(&node["additionalProperties"]))
            }
            Some("object") => "mapping".to_owned(),
            Some("integer") => "whole number".to_owned(),
            Some("string") => "text".to_owned(),
            Some("boolean") => "true | false".to_owned(),
            Some(other) => other.to_owned(),
            None if node["type"].is_array() => "text or mapping".to_owned(),
            None if !node["not"].is_null() => "not supported".to_owned(),
            None => "any value".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn kinds_and_fields_are_explained_in_any_case() {
        let phases = explain("testplan.spec.phases").expect("a field");
        assert_eq!(
            (phases.path.as_str(), phases.kind.as_str()),
            ("TestPlan.spec.phases", "list of mapping")
        );
        let rate = phases
            .fields
            .iter()
            .find(|field| field.case == "executor: constant-arrival-rate" && field.name == "rate");
        assert!(
            rate.is_some_and(|field| field.required && field.kind == "whole number"),
            "{phases:?}"
        );
        assert!(
            phases
                .fields
                .iter()
                .any(|field| field.case == "pause" && field.name == "pause")
        );
        for path in [
            "TESTPLAN",
            "environment.spec.provider",
            "testplan.spec.engine.scenarios.requests.think.min",
            "service.spec.health",
            "kafkacluster.spec.topics",
            "kafkacluster.spec.external.bootstrapservers",
            "ingestcluster",
            "databasecluster.spec.engine",
            "workerpool.spec.bus.topic",
            "testplan.spec.phases.workers",
        ] {
            let explanation = explain(path).unwrap_or_else(|| panic!("{path}"));
            assert!(!explanation.description.is_empty(), "{path}");
        }
        for path in [
            "",
            "nope",
            "testplan.nope",
            "testplan.spec.phases.nope",
            "campaign.spec",
        ] {
            assert_eq!(explain(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_not_supported_says_so() {
        assert!(!explain("testplan.spec.approvals").expect("a field").supported);
        assert!(!explain("Campaign").expect("a kind").supported);
        assert!(explain("testplan.spec.target").expect("a field").supported);
    }
}
