//! Deletions: what git no longer has, once everything it has is applied (promise 20).

use super::changeset::{Action, Change, Refusal};
use super::compute::DiffPolicy;
use super::view::View;
use super::{fields, guard, order, units};
use crate::model::id::Name;
use crate::model::key::{Key, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// The deletions in their order, dependents first, and those that the guard refuses. A project of which nothing is known keeps
/// everything: an unread repository is not an empty one.
pub(super) fn deletions(
    view: &View<'_>,
    changes: &BTreeMap<Key, Change>,
    policy: &DiffPolicy,
) -> (Vec<Change>, Vec<Refusal>) {
    let gone: BTreeSet<&Key> = view
        .known_owners()
        .into_iter()
        .filter(|key| view.desired.projects.contains_key(&key.project))
        .filter(|key| view.desired.get(key).is_none() && !View::is_implicit(key))
        .collect();
    let refused = refusals(view, &gone, policy);
    let references: BTreeMap<Key, Vec<Key>> = gone.iter().map(|key| ((*key).clone(), references(view, key))).collect();
    let mut sorted = order::dependencies_first(&references);
    sorted.reverse();
    let context = Context {
        view,
        refused: &refused,
        references: &references,
        unsettled: unsettled(changes),
    };
    let deletions = sorted.iter().map(|key| context.deletion(key)).collect();
    (deletions, refused)
}

fn references(view: &View<'_>, key: &Key) -> Vec<Key> {
    let applied = view.observed.applied.get(key);
    let mut references = applied.map_or_else(Vec::new, |applied| order::applied_references(key, applied));
    references.extend(view.seen(key).iter().map(|unit| unit.environment.clone()));
    references.extend(view.inventory(key).iter().map(|row| row.environment.clone()));
    references
}

fn refusals(view: &View<'_>, gone: &BTreeSet<&Key>, policy: &DiffPolicy) -> Vec<Refusal> {
    let judged = |project: &Name| {
        let revision = &view.desired.projects.get(project)?.revision;
        let counted: BTreeSet<&Key> = gone
            .iter()
            .copied()
            .filter(|key| key.project == *project)
            .filter(|key| {
                view.observed
                    .applied
                    .get(key)
                    .is_some_and(|applied| !applied.prune_disabled)
            })
            .collect();
        guard::judge(view, project, revision, &counted, policy)
    };
    view.desired.projects.keys().filter_map(judged).collect()
}

/// Projects of which something desired is not applied yet, with the first such resource.
fn unsettled(changes: &BTreeMap<Key, Change>) -> BTreeMap<Name, Key> {
    let mut open = BTreeMap::new();
    for change in changes.values() {
        let held = change.action == Action::Blocked && change.reason.as_deref() == Some(RECONCILE_DISABLED);
        if change.action != Action::NoOp && !held && !View::is_implicit(&change.key) {
            open.entry(change.key.project.clone())
                .or_insert_with(|| change.key.clone());
        }
    }
    open
}

/// What a deletion leaves where it is.
fn stays(key: &Key) -> Option<&'static str> {
    match key.kind {
        Kind::KafkaCluster => Some("the cluster and its topics stay: nothing outside Muster is deleted"),
        Kind::DatabaseCluster => Some("the database and all results in it stay: nothing outside Muster is deleted"),
        _ => None,
    }
}

/// The reason of a change that a person holds back; what follows it goes on.
pub(super) const RECONCILE_DISABLED: &str = "muster.dev/reconcile is Disabled";

struct Context<'a> {
    view: &'a View<'a>,
    refused: &'a [Refusal],
    references: &'a BTreeMap<Key, Vec<Key>>,
    unsettled: BTreeMap<Name, Key>,
}

impl Context<'_> {
    fn deletion(&self, key: &Key) -> Change {
        let applied = self.view.observed.applied.get(key);
        let mut change = Change {
            key: key.clone(),
            action: Action::Delete,
            drift: false,
            reason: None,
            due: true,
            fields: applied.map_or_else(Vec::new, |applied| fields::compare(Some(&applied.rendered), None)),
            units: units::deletions(self.view, key, "belongs to a deleted resource"),
            notes: stays(key).map(str::to_owned).into_iter().collect(),
        };
        if applied.is_some_and(|applied| applied.prune_disabled) {
            change.fields.clear();
            change.units.clear();
            change.notes.clear();
            change.action = Action::NoOp;
            change.reason = Some("kept: muster.dev/prune is Disabled".to_owned());
            return change;
        }
        if let Some(reason) = self.blocked(key) {
            change.action = Action::Blocked;
            change.reason = Some(reason);
        } else if let Some(reason) = self.view.blind_spot(key) {
            change.action = Action::Unknown;
            change.reason = Some(reason);
        } else {
            change.reason = self.waits_for(key);
        }
        if change.reason.is_some() {
            change.due = false;
            change.units.iter_mut().for_each(|step| step.due = false);
        }
        change
    }

    fn blocked(&self, key: &Key) -> Option<String> {
        if let Some(refusal) = self.refused.iter().find(|refusal| refusal.keys.contains(key)) {
            return Some(format!("{}; approve with `{}`", refusal.reason, refusal.approve_with));
        }
        if !self.view.observed.applied.contains_key(key) && self.view.inventory(key).is_empty() {
            return Some("this ledger never started it; another daemon may use the same place".to_owned());
        }
        let user = self
            .view
            .desired
            .resources()
            .find(|resource| resource.references().contains(&key));
        if let Some(resource) = user {
            return Some(format!("{} still refers to it", resource.meta.key));
        }
        let kept = |other: &Key| {
            self.view
                .observed
                .applied
                .get(other)
                .is_some_and(|applied| applied.prune_disabled)
        };
        let keeper = self
            .references
            .iter()
            .find(|(other, references)| kept(other) && references.contains(key));
        keeper.map(|(other, _)| format!("{other}, which is kept, refers to it"))
    }

    fn waits_for(&self, key: &Key) -> Option<String> {
        if self.view.topology.busy.contains(key) {
            return Some("a run uses its workers".to_owned());
        }
        if let Some(open) = self.unsettled.get(&key.project) {
            return Some(format!("waits until {open} is applied"));
        }
        let dependent = self
            .references
            .iter()
            .find(|(other, references)| *other != key && references.contains(key));
        if let Some((dependent, _)) = dependent {
            return Some(format!("waits until {dependent} is gone"));
        }
        match self.view.units_in(key) {
            count if key.kind == Kind::Environment && count > 0 => Some(format!("{count} units are still in it")),
            _ => None,
        }
    }
}
