//! Compares two documents field by field.

use super::changeset::FieldChange;
use serde_json::{Map, Value};

/// Every leaf that differs, in the documents' order; a null is the same as a field that is not there.
pub(super) fn compare(old: Option<&Value>, new: Option<&Value>) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk(String::new(), old, new, &mut changes);
    changes
}

fn walk(path: String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<FieldChange>) {
    let present = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => walk_objects(&path, old, new, changes),
        (Some(Value::Array(old)), Some(Value::Array(new))) => walk_lists(&path, old, new, changes),
        _ => {
            let (old, new) = (present(old), present(new));
            if old != new {
                changes.push(FieldChange { path, old, new });
            }
        }
    }
}

fn walk_objects(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<FieldChange>) {
    let join = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    for (name, value) in old {
        walk(join(name), Some(value), new.get(name), changes);
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        walk(join(name), None, Some(value), changes);
    }
}

/// Lists of named objects are compared by name, so that one inserted phase is one change; others by place.
fn walk_lists(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<FieldChange>) {
    if let (Some(old_names), Some(new_names)) = (names(old), names(new)) {
        for (name, value) in old_names.iter().zip(old) {
            let other = new_names
                .iter()
                .position(|other| other == name)
                .map(|index| &new[index]);
            walk(format!("{path}[{name}]"), Some(value), other, changes);
        }
        for (name, value) in new_names.iter().zip(new).filter(|(name, _)| !old_names.contains(name)) {
            walk(format!("{path}[{name}]"), None, Some(value), changes);
        }
        let kept: Vec<&&str> = old_names.iter().filter(|name| new_names.contains(name)).collect();
        let order: Vec<&&str> = new_names.iter().filter(|name| old_names.contains(name)).collect();
        if kept != order {
            changes.push(FieldChange {
                path: format!("{path}[order]"),
                old: Some(old_names.into()),
                new: Some(new_names.into()),
            });
        }
        return;
    }
    for index in 0..old.len().max(new.len()) {
        walk(format!("{path}[{index}]"), old.get(index), new.get(index), changes);
    }
}

/// The names of a list's objects, where each has one of its own.
fn names(list: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<&str> = list
        .iter()
        .map(|item| item.get("name").and_then(Value::as_str))
        .collect::<Option<_>>()?;
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1]).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::compare;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn paths(old: &Value, new: &Value) -> Vec<String> {
        compare(Some(old), Some(new))
            .into_iter()
            .map(|change| change.path)
            .collect()
    }

    #[test]
    fn leaves_that_differ_are_named() {
        let old =
            json!({"spec": {"replicas": 2, "env": [{"name": "A", "value": "1"}], "command": ["x", "y"], "gone": true}});
        let new = json!({"spec": {"replicas": 3, "env": [{"name": "B", "value": "1"}, {"name": "A", "value": "2"}], "command": ["x"], "gone": null}});
        assert_eq!(
            paths(&old, &new),
            [
                "spec.command[1]",
                "spec.env[A].value",
                "spec.env[B]",
                "spec.gone",
                "spec.replicas"
            ]
        );
        assert_eq!(paths(&old, &old), Vec::<String>::new());
    }

    #[test]
    fn phases_that_change_places_are_a_change() {
        let old = json!({"phases": [{"name": "a"}, {"name": "b"}]});
        let new = json!({"phases": [{"name": "b"}, {"name": "a"}]});
        assert_eq!(paths(&old, &new), ["phases[order]"]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0_u8..4).prop_map(Value::from),
            "[ab]".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("name|[xy]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_change_means_the_same_document(old in any_json(), new in any_json()) {
            prop_assert_eq!(compare(Some(&old), Some(&new)).is_empty(), old == new);
        }
    }
}
