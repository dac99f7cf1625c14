//! The deletion guard: deletions that look like a mistake wait for leave (promise 21).
//!
//! No kind of this build has storage of its own, so the rule for storage has nothing to act on yet.

use super::changeset::Refusal;
use super::compute::DiffPolicy;
use super::view::View;
use crate::model::id::{Name, Revision};
use crate::model::key::Key;
use crate::model::observed::DeletionApproval;
use std::collections::BTreeSet;

/// Decides over the resources of one project that git no longer has; returns those that wait for leave.
pub(super) fn judge(
    view: &View<'_>,
    project: &Name,
    revision: &Revision,
    gone: &BTreeSet<&Key>,
    policy: &DiffPolicy,
) -> Option<Refusal> {
    let unapproved: Vec<Key> = gone
        .iter()
        .filter(|key| {
            !view
                .observed
                .applied
                .get(key)
                .is_some_and(|applied| applied.deletion_approved)
        })
        .map(|key| (*key).clone())
        .collect();
    if unapproved.is_empty() {
        return None;
    }
    let reason = reason(view, project, gone.len(), policy)?;
    if view
        .observed
        .approved_deletions
        .iter()
        .any(|approval| covers(view, approval, revision, &unapproved))
    {
        return None;
    }
    Some(Refusal {
        project: project.clone(),
        revision: revision.clone(),
        keys: unapproved,
        reason,
        approve_with: format!("muster approve-deletion {revision}"),
    })
}

/// Why leave is needed, if it is.
fn reason(view: &View<'_>, project: &Name, gone: usize, policy: &DiffPolicy) -> Option<String> {
    let empty = view
        .desired
        .projects
        .get(project)
        .is_some_and(|desired| desired.resources.is_empty());
    if empty {
        return Some(format!("project {project} would be left with nothing"));
    }
    let applied = view
        .observed
        .applied
        .keys()
        .filter(|key| key.project == *project)
        .count();
    let noted = view.observed.high_water.get(project).map_or(0, |count| *count as usize);
    let high_water = noted.max(applied);
    let recent = view
        .observed
        .recent_deletions
        .get(project)
        .map_or(0, |count| *count as usize);
    let total = gone + recent;
    let share = total as f64 / high_water.max(1) as f64;
    (total >= 2 && share > policy.deletion_max_share).then(|| {
        format!(
            "{total} of at most {high_water} resources of project {project} would be deleted within 24 hours, more than {:.0}%",
            policy.deletion_max_share * 100.0
        )
    })
}

/// An approval holds for its revision and its exact set. What of the set is gone by now was deleted under it.
fn covers(view: &View<'_>, approval: &DeletionApproval, revision: &Revision, gone: &[Key]) -> bool {
    approval.revision == *revision
        && gone.iter().all(|key| approval.keys.contains(key))
        && approval.keys.iter().all(|key| {
            gone.contains(key) || (!view.observed.applied.contains_key(key) && view.desired.get(key).is_none())
        })
}
