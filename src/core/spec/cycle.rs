//! Cycles of dependencies, with their path (promise 16).

use crate::model::key::Key;
use crate::model::resource::{Resource, Spec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every cycle once: its keys in order, beginning with the smallest.
pub(super) fn cycles(resources: &BTreeMap<Key, Arc<Resource>>) -> Vec<Vec<Key>> {
    let mut done = BTreeSet::new();
    let mut found = BTreeSet::new();
    for start in resources.keys() {
        walk(resources, start, &mut done, &mut found);
    }
    found.into_iter().collect()
}

/// Depth first with a stack of its own: a chain of services may be longer than the thread's stack.
fn walk(
    resources: &BTreeMap<Key, Arc<Resource>>,
    start: &Key,
    done: &mut BTreeSet<Key>,
    found: &mut BTreeSet<Vec<Key>>,
) {
    let mut path: Vec<(Key, Vec<Key>)> = Vec::new();
    let mut on_path = BTreeSet::new();
    let mut enter = Some(start.clone());
    loop {
        if let Some(key) = enter.take() {
            if on_path.contains(&key) {
                let from = path.iter().position(|(other, _)| *other == key).unwrap_or(0);
                found.insert(turned(path[from..].iter().map(|(key, _)| key.clone()).collect()));
            } else if !done.contains(&key) {
                on_path.insert(key.clone());
                path.push((key.clone(), dependencies(resources, &key)));
            }
        }
        match path.last_mut() {
            None => return,
            Some((key, rest)) => match rest.pop() {
                Some(next) => enter = Some(next),
                None => {
                    on_path.remove(key);
                    done.insert(key.clone());
                    path.pop();
                }
            },
        }
    }
}

fn dependencies(resources: &BTreeMap<Key, Arc<Resource>>, key: &Key) -> Vec<Key> {
    match resources.get(key).map(|resource| &resource.spec) {
        Some(Spec::Service(service)) => service.depends_on.iter().rev().cloned().collect(),
        _ => Vec::new(),
    }
}

fn turned(mut cycle: Vec<Key>) -> Vec<Key> {
    let smallest = cycle
        .iter()
        .enumerate()
        .min_by_key(|(_, key)| *key)
        .map_or(0, |(index, _)| index);
    cycle.rotate_left(smallest);
    cycle
}
