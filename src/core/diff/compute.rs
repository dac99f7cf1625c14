//! Computes the changeset: pure and total (promise 15).

use super::changeset::{Action, Change, Changeset, FORMAT_VERSION, FieldChange, Step};
use super::view::View;
use super::{fields, order, prune, units};
use crate::model::desired::Desired;
use crate::model::id::Revision;
use crate::model::key::{Key, Kind};
use crate::model::observed::{AppliedResource, ExternalSight, InventoryRow, Observed, Sight};
use crate::model::policy::Policy;
use crate::model::resource::{Resource, Spec};
use crate::model::service::{Update, UpdateStrategy};
use crate::model::unit::{ObservedUnit, UnitState};
use crate::topology::{PoolDemand, Topology, expand, local_pool};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the settings say about changesets.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffPolicy {
    /// Deletions above this share of a project's high-water mark need leave, 0 to 1 (promise 21).
    pub deletion_max_share: f64,
}

impl From<&Policy> for DiffPolicy {
    fn from(policy: &Policy) -> Self {
        Self {
            deletion_max_share: policy.deletion_max_share,
        }
    }
}

/// Pools have no update strategy of their own: only idle workers are ever replaced, so all at once.
const POOL_UPDATE: Update = Update {
    strategy: UpdateStrategy::Recreate,
    max_unavailable: 1,
};

/// One after the other, each gated by health: the others go on reading meanwhile.
const INGEST_UPDATE: Update = Update {
    strategy: UpdateStrategy::Rolling,
    max_unavailable: 1,
};

/// Compares what git wants with what is there. Applying the result and comparing again ends, after as many passes as rolling
/// updates and dependencies need, with nothing to do.
pub fn changeset(
    desired: &Desired,
    topology: &Topology,
    observed: &Observed,
    policy: &DiffPolicy,
    now: Timestamp,
) -> Changeset {
    let view = View::new(desired, topology, observed);
    let references = desired
        .resources()
        .map(|resource| {
            let references = resource.references().into_iter().cloned().collect();
            (resource.meta.key.clone(), references)
        })
        .collect();
    let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
    let mut sorted = order::dependencies_first(&references);
    for key in &sorted {
        if let Some(resource) = desired.get(key) {
            changes.insert(key.clone(), desired_change(&view, resource));
        }
    }
    wait_for_dependencies(&view, &mut changes);
    if let Some(change) = implicit_change(&view) {
        sorted.push(change.key.clone());
        changes.insert(change.key.clone(), change);
    }
    let (deletions, refused) = prune::deletions(&view, &changes, policy);
    Changeset {
        format_version: FORMAT_VERSION,
        at: now,
        revisions: desired
            .projects
            .iter()
            .map(|(name, project)| (name.clone(), project.revision.clone()))
            .collect(),
        changes: sorted
            .iter()
            .filter_map(|key| changes.remove(key))
            .chain(deletions)
            .collect(),
        refused,
    }
}

/// What merging `head` into `base` would change: the same comparison, against an Observed in which all of `base` is there.
pub fn between(base: &Desired, head: &Desired, policy: &DiffPolicy, now: Timestamp) -> Changeset {
    let mut observed = as_if_applied(base, now);
    // A daemon that reads `head` counts its resources before it looks what goes.
    for (name, project) in &head.projects {
        let count = u32::try_from(project.resources.len()).unwrap_or(u32::MAX);
        let mark = observed.high_water.entry(name.clone()).or_default();
        *mark = count.max(*mark);
    }
    changeset(head, &expand(head, &PoolDemand::default()), &observed, policy, now)
}

fn as_if_applied(base: &Desired, now: Timestamp) -> Observed {
    let topology = expand(base, &PoolDemand::default());
    let mut observed = Observed::default();
    let mut seen: BTreeMap<Key, Vec<ObservedUnit>> = topology
        .environments
        .keys()
        .map(|key| (key.clone(), Vec::new()))
        .collect();
    for unit in topology.units.values() {
        let Some(revision) = base.projects.get(&unit.owner.project).map(|project| &project.revision) else {
            continue;
        };
        observed
            .inventory
            .insert(unit.name.clone(), inventory_row(unit, revision, now));
        seen.entry(unit.environment.clone()).or_default().push(ObservedUnit {
            name: unit.name.clone(),
            owner: unit.owner.clone(),
            environment: unit.environment.clone(),
            digest: unit.digest.clone(),
            state: UnitState::Ready,
            ports: Vec::new(),
            restarts: 0,
            since: now,
        });
    }
    observed.environments = seen.into_iter().map(|(key, units)| (key, Sight::Seen(units))).collect();
    for (name, project) in &base.projects {
        let count = u32::try_from(project.resources.len()).unwrap_or(u32::MAX);
        observed.high_water.insert(name.clone(), count);
        for resource in project.resources.values() {
            observed
                .applied
                .insert(resource.meta.key.clone(), applied_resource(resource, &project.revision));
        }
    }
    observed
}

/// What is written down before a unit's first side effect (promise 17).
pub fn inventory_row(unit: &crate::model::unit::UnitSpec, revision: &Revision, now: Timestamp) -> InventoryRow {
    InventoryRow {
        unit: unit.name.clone(),
        owner: unit.owner.clone(),
        environment: unit.environment.clone(),
        digest: unit.digest.clone(),
        revision: revision.clone(),
        since: now,
    }
}

/// What is written down once a resource is as wanted.
pub fn applied_resource(resource: &Resource, revision: &Revision) -> AppliedResource {
    AppliedResource {
        digest: resource.digest.clone(),
        revision: revision.clone(),
        rendered: resource.rendered.clone(),
        deletion_approved: resource.meta.annotations.deletion_approved.is_some(),
        prune_disabled: resource.meta.annotations.prune_disabled,
    }
}

fn desired_change(view: &View<'_>, resource: &Resource) -> Change {
    let key = &resource.meta.key;
    let applied = view.observed.applied.get(key);
    let mut change = Change {
        key: key.clone(),
        action: Action::NoOp,
        drift: false,
        reason: None,
        due: true,
        fields: field_changes(applied, resource),
        units: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(reason) = obstacle(view, resource) {
        return stopped(change, Action::Blocked, reason);
    }
    if let Some(reason) = view.blind_spot(key) {
        return stopped(change, Action::Unknown, reason);
    }
    let update = match &resource.spec {
        Spec::Service(service) => &service.update,
        Spec::IngestCluster(_) => &INGEST_UPDATE,
        _ => &POOL_UPDATE,
    };
    let plan = units::plan(view, key, update);
    let modified = !change.fields.is_empty();
    let missing = missing(view, key);
    change.action = match applied {
        None => Action::Create,
        Some(applied) if plan.moves || provider_differs(applied, resource) => Action::Replace,
        Some(_) if plan.rolls => Action::Roll,
        Some(_) if modified || !plan.steps.is_empty() || !missing.is_empty() => Action::Update,
        Some(_) => Action::NoOp,
    };
    change.drift = applied.is_some() && !modified && (plan.drift || !missing.is_empty());
    change.units = plan.steps;
    change.notes = missing.iter().map(|what| format!("makes {what}")).collect();
    if resource.meta.annotations.reconcile_disabled && change.action != Action::NoOp {
        return stopped(change, Action::Blocked, prune::RECONCILE_DISABLED.to_owned());
    }
    change
}

/// What of something that somebody else runs is to be made.
fn missing<'a>(view: &View<'a>, key: &Key) -> &'a [String] {
    match view.observed.externals.get(key) {
        Some(ExternalSight::Missing { what, .. }) => what,
        _ => &[],
    }
}

fn stopped(mut change: Change, action: Action, reason: String) -> Change {
    change.action = action;
    change.reason = Some(reason);
    change.due = false;
    for step in &mut change.units {
        step.due = false;
    }
    change
}

/// Fields that differ from the document last applied. Contents of files count as a field of their own, since only the digest
/// shows them.
fn field_changes(applied: Option<&AppliedResource>, resource: &Resource) -> Vec<FieldChange> {
    let Some(applied) = applied else {
        return fields::compare(None, Some(&resource.rendered));
    };
    let mut changes = fields::compare(Some(&applied.rendered), Some(&resource.rendered));
    if changes.is_empty() && applied.digest != resource.digest {
        changes.push(FieldChange {
            path: "(content of files)".to_owned(),
            old: Some(json!(applied.digest.as_str())),
            new: Some(json!(resource.digest.as_str())),
        });
    }
    let now = applied_resource(resource, &applied.revision);
    let flags = |applied: &AppliedResource| json!([applied.deletion_approved, applied.prune_disabled]);
    if changes.is_empty() && flags(applied) != flags(&now) {
        changes.push(FieldChange {
            path: "metadata.annotations".to_owned(),
            old: Some(flags(applied)),
            new: Some(flags(&now)),
        });
    }
    changes
}

/// Why nothing may be done for a resource although its environments answer: promise 18's Blocked.
fn obstacle(view: &View<'_>, resource: &Resource) -> Option<String> {
    let key = &resource.meta.key;
    if let Spec::Environment(_) = resource.spec {
        return frozen(view, resource);
    }
    let environment = resource.environment()?;
    if !view.topology.environments.contains_key(environment) {
        return Some(format!("{environment} does not exist"));
    }
    if let Spec::IngestCluster(ingest) = &resource.spec {
        // What its units are follows from these.
        let mut needed = [&ingest.from.cluster, &ingest.database].into_iter();
        if let Some(absent) = needed.find(|needed| view.desired.get(needed).is_none()) {
            return Some(format!("{absent} does not exist"));
        }
    }
    let mut used: BTreeSet<&Key> = view.seen(key).iter().map(|unit| &unit.environment).collect();
    used.insert(environment);
    used.into_iter()
        .filter_map(|environment| view.desired.get(environment))
        .find_map(|environment| frozen(view, environment).map(|_| format!("{} is blocked", environment.meta.key)))
}

/// An environment's provider cannot change while units stand in it: the new provider would not know them.
fn frozen(view: &View<'_>, environment: &Resource) -> Option<String> {
    let key = &environment.meta.key;
    let applied = view.observed.applied.get(key)?;
    if !provider_differs(applied, environment) {
        return None;
    }
    match view.units_in(key) {
        0 => None,
        count => Some(format!(
            "its provider cannot change while {count} units are in it; move or delete what runs there first"
        )),
    }
}

/// Whether an environment's units would be in another place than before.
fn provider_differs(applied: &AppliedResource, resource: &Resource) -> bool {
    let place = |document: &Value| {
        ["/spec/provider/type", "/spec/provider/workDir"].map(|path| document.pointer(path).cloned())
    };
    resource.meta.key.kind == Kind::Environment && place(&applied.rendered) != place(&resource.rendered)
}

/// The implicit pool has no document: it is only shown when its workers change.
fn implicit_change(view: &View<'_>) -> Option<Change> {
    let key = local_pool();
    let change = |action, reason, units| Change {
        key: key.clone(),
        action,
        drift: false,
        reason,
        due: action != Action::Unknown,
        fields: Vec::new(),
        units,
        notes: Vec::new(),
    };
    if let Some(reason) = view.blind_spot(&key) {
        return Some(change(Action::Unknown, Some(reason), Vec::new()));
    }
    let plan = units::plan(view, &key, &POOL_UPDATE);
    (!plan.steps.is_empty()).then(|| change(Action::Update, None, plan.steps))
}

/// Holds back what depends on something that is not as wanted yet, or not Ready (promise 16). A unit that went away by itself
/// comes back at once. A plan starts nothing, so it waits for nobody.
fn wait_for_dependencies(view: &View<'_>, changes: &mut BTreeMap<Key, Change>) {
    let settled: BTreeSet<Key> = changes
        .values()
        .filter(|change| matches!(change.action, Action::NoOp | Action::Blocked) && view.is_ready(&change.key))
        .map(|change| change.key.clone())
        .collect();
    for change in changes
        .values_mut()
        .filter(|change| change.action.is_performed() && !change.drift)
    {
        let Some(resource) = view.desired.get(&change.key) else {
            continue;
        };
        if matches!(resource.spec, Spec::TestPlan(_)) {
            continue;
        }
        let references = resource.references();
        let waiting = references
            .into_iter()
            .find(|key| view.desired.get(key).is_some() && !settled.contains(*key));
        if let Some(dependency) = waiting {
            change.due = false;
            change.reason = Some(format!("waits for {dependency}"));
            for step in change.units.iter_mut().filter(|step| step.step != Step::Delete) {
                step.due = false;
            }
        }
    }
}
