//! Dependencies first, deletions in reverse (promise 16).

use crate::model::id::Name;
use crate::model::key::{Key, Kind};
use crate::model::observed::AppliedResource;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Sorts keys so that each comes after what it depends on, by key where that leaves a choice. What stands on a cycle (which
/// validation refuses) comes last, by key: an order must exist for every input.
pub(super) fn dependencies_first(references: &BTreeMap<Key, Vec<Key>>) -> Vec<Key> {
    let mut open: BTreeMap<&Key, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&Key, Vec<&Key>> = BTreeMap::new();
    for (key, wanted) in references {
        let wanted: BTreeSet<&Key> = wanted.iter().filter(|other| references.contains_key(other)).collect();
        open.insert(key, wanted.len());
        for other in wanted {
            dependents.entry(other).or_default().push(key);
        }
    }
    let mut ready: BTreeSet<&Key> = open
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(key, _)| *key)
        .collect();
    let mut sorted = Vec::with_capacity(references.len());
    while let Some(key) = ready.pop_first() {
        open.remove(key);
        sorted.push(key.clone());
        for dependent in dependents.remove(key).unwrap_or_default() {
            if let Some(count) = open.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(dependent);
                }
            }
        }
    }
    sorted.extend(open.into_keys().cloned());
    sorted
}

/// What a resource that is no longer desired depended on, read from the document it was last applied with.
pub(super) fn applied_references(key: &Key, applied: &AppliedResource) -> Vec<Key> {
    let spec = applied.rendered.get("spec");
    let named = SINGLE_REFERENCES.into_iter().filter_map(|(pointer, kind)| {
        let text = spec?.pointer(pointer)?.as_str()?;
        reference(key, Some(kind), text)
    });
    let depends_on = spec
        .and_then(|spec| spec.get("dependsOn"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|item| reference(key, None, item.as_str()?));
    named.chain(depends_on).collect()
}

/// Where documents name one resource, and of which kind.
const SINGLE_REFERENCES: [(&str, Kind); 7] = [
    ("/environment", Kind::Environment),
    ("/pool", Kind::WorkerPool),
    ("/target/service", Kind::Service),
    ("/bus/kafkaCluster", Kind::KafkaCluster),
    ("/kafkaCluster", Kind::KafkaCluster),
    ("/databaseCluster", Kind::DatabaseCluster),
    ("/results/databaseCluster", Kind::DatabaseCluster),
];

/// Reads `name`, `project/name`, `Kind/name` or `project/Kind/name` as a resource of `from`'s project means it.
fn reference(from: &Key, kind: Option<Kind>, text: &str) -> Option<Key> {
    let parts: Vec<&str> = text.split('/').collect();
    let name = Name::new(*parts.last()?).ok()?;
    let named_kind = parts.iter().rev().nth(1).and_then(|part| Kind::parse(part));
    let project = match (&parts[..], named_kind) {
        ([project, _, _], Some(_)) | ([project, _], None) => Name::new(*project).ok()?,
        ([_], _) | ([_, _], Some(_)) => from.project.clone(),
        _ => return None,
    };
    Some(Key::new(project, named_kind.or(kind)?, name))
}

#[cfg(test)]
mod tests {
    use super::{applied_references, dependencies_first, reference};
    use crate::diff::world::revision;
    use crate::model::id::Digest;
    use crate::model::key::{Key, Kind};
    use crate::model::observed::AppliedResource;
    use serde_json::json;

    fn key(text: &str) -> Key {
        text.parse().expect("a key")
    }

    #[test]
    fn s16_dependencies_come_first_and_cycles_do_not_hang() {
        let graph = [
            ("p/Service/a", vec!["p/Service/b", "p/Service/gone"]),
            ("p/Service/b", vec!["p/Service/z"]),
            ("p/Service/c", vec!["p/Service/d"]),
            ("p/Service/d", vec!["p/Service/c"]),
            ("p/Service/z", vec![]),
        ];
        let graph = graph
            .into_iter()
            .map(|(from, to)| (key(from), to.into_iter().map(key).collect()))
            .collect();
        let sorted: Vec<String> = dependencies_first(&graph)
            .iter()
            .map(|key| key.name.to_string())
            .collect();
        assert_eq!(sorted, ["z", "b", "a", "c", "d"]);
    }

    #[test]
    fn references_of_applied_documents_are_read_in_all_forms() {
        let from = key("p/Service/a");
        for (kind, text, expected) in [
            (Some(Kind::Environment), "lab", "p/Environment/lab"),
            (Some(Kind::Environment), "shared/lab", "shared/Environment/lab"),
            (
                Some(Kind::Environment),
                "shared/Environment/lab",
                "shared/Environment/lab",
            ),
            (None, "Service/db", "p/Service/db"),
            (None, "o/Service/db", "o/Service/db"),
        ] {
            assert_eq!(reference(&from, kind, text), Some(key(expected)), "{text}");
        }
        for text in ["", "/", "a/b/c/d", "UPPER", "db"] {
            assert_eq!(reference(&from, None, text), None, "{text}");
        }
    }

    #[test]
    fn s16_what_an_applied_document_depended_on_is_read_from_it() {
        for (spec, expected) in [
            (
                json!({"environment": "lab", "dependsOn": ["Service/db", "o/Service/mq", "nonsense"]}),
                vec!["p/Environment/lab", "p/Service/db", "o/Service/mq"],
            ),
            (
                json!({"pool": "shared/w", "target": {"service": "shop"}}),
                vec!["shared/WorkerPool/w", "p/Service/shop"],
            ),
            (
                json!({"kafkaCluster": "k", "databaseCluster": "shared/d", "environment": "lab"}),
                vec!["p/Environment/lab", "p/KafkaCluster/k", "shared/DatabaseCluster/d"],
            ),
            (
                json!({"bus": {"kafkaCluster": "shared/k"}, "results": {"databaseCluster": "d"}}),
                vec!["shared/KafkaCluster/k", "p/DatabaseCluster/d"],
            ),
            (json!({}), vec![]),
        ] {
            let applied = AppliedResource {
                digest: Digest::of(b""),
                revision: revision(1),
                rendered: json!({"spec": spec}),
                deletion_approved: false,
                prune_disabled: false,
            };
            let expected: Vec<Key> = expected.into_iter().map(key).collect();
            assert_eq!(applied_references(&key("p/Service/a"), &applied), expected);
        }
    }
}
