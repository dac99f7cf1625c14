//! What happens to the units of one resource. Level-triggered: each pass plans the next batch from what is observed.

use super::changeset::{Step, UnitStep};
use super::view::View;
use crate::model::key::Key;
use crate::model::service::{Update, UpdateStrategy};
use crate::model::unit::{ObservedUnit, UnitSpec, UnitState};

/// The steps for one resource, and what kind of change they make together.
#[derive(Debug, Default)]
pub(super) struct UnitPlan {
    pub(super) steps: Vec<UnitStep>,
    /// A unit is replaced by one of another spec.
    pub(super) rolls: bool,
    /// A unit moves to another environment.
    pub(super) moves: bool,
    /// Something outside git or this ledger did it.
    pub(super) drift: bool,
}

/// A replacement, before it is decided how many may happen at once.
struct Candidate {
    step: UnitStep,
    available: bool,
}

/// Plans the units of a desired resource.
pub(super) fn plan(view: &View<'_>, owner: &Key, update: &Update) -> UnitPlan {
    let mut plan = UnitPlan::default();
    let busy = view.topology.busy.contains(owner);
    let mut candidates = Vec::new();
    let mut away: u32 = 0;
    for wanted in view.wanted(owner) {
        let (here, elsewhere) = find(view, wanted);
        let current = here.or(elsewhere);
        let available = current.is_some_and(|unit| unit.state == UnitState::Ready);
        away += u32::from(!available);
        match current {
            None => plan.steps.push(creation(view, wanted, &mut plan.drift)),
            Some(unit) => {
                if let Some(step) = replacement(view, wanted, unit, busy, &mut plan) {
                    candidates.push(Candidate { step, available });
                }
            }
        }
    }
    let limit = match update.strategy {
        UpdateStrategy::Rolling => update.max_unavailable.max(1),
        UpdateStrategy::Recreate => u32::MAX,
    };
    schedule(&mut candidates, limit.saturating_sub(away));
    plan.steps
        .extend(candidates.into_iter().map(|candidate| candidate.step));
    plan.steps.extend(surplus(view, owner, busy));
    plan
}

/// Where a wanted unit is: in its environment, or in another one that it has to leave.
fn find<'a>(view: &View<'a>, wanted: &UnitSpec) -> (Option<&'a ObservedUnit>, Option<&'a ObservedUnit>) {
    let named = || {
        view.seen(&wanted.owner)
            .iter()
            .copied()
            .filter(|unit| unit.name == wanted.name)
    };
    let here = named().find(|unit| unit.environment == wanted.environment);
    let elsewhere = named().find(|unit| unit.environment != wanted.environment);
    (here, elsewhere)
}

fn creation(view: &View<'_>, wanted: &UnitSpec, drift: &mut bool) -> UnitStep {
    // It was written down with this very spec and is not there: it went away by itself, or never came up.
    let gone = view.row(&wanted.name).is_some_and(|row| row.digest == wanted.digest);
    *drift |= gone;
    UnitStep {
        unit: wanted.name.clone(),
        step: Step::Create,
        environment: wanted.environment.clone(),
        from: None,
        digest: Some(wanted.digest.clone()),
        due: true,
        reason: if gone { "is gone" } else { "is wanted" }.to_owned(),
    }
}

fn replacement(
    view: &View<'_>,
    wanted: &UnitSpec,
    unit: &ObservedUnit,
    busy: bool,
    plan: &mut UnitPlan,
) -> Option<UnitStep> {
    let moved = unit.environment != wanted.environment;
    let outdated = unit.digest != wanted.digest;
    let reason = match &unit.state {
        UnitState::Exited { reason } if !moved && !outdated => {
            plan.drift = true;
            format!("has exited: {reason}")
        }
        UnitState::Stopping if !moved && !outdated => "is being stopped".to_owned(),
        _ if !moved && !outdated => return None,
        state if busy && !matches!(state, UnitState::Exited { .. }) => return None,
        _ if moved => {
            plan.moves = true;
            format!("moves from {}", unit.environment)
        }
        _ => {
            plan.rolls = true;
            plan.drift |= view.row(&wanted.name).is_some_and(|row| row.digest == wanted.digest);
            "runs with another spec".to_owned()
        }
    };
    Some(UnitStep {
        unit: wanted.name.clone(),
        step: Step::Replace,
        environment: wanted.environment.clone(),
        from: moved.then(|| unit.environment.clone()),
        digest: Some(wanted.digest.clone()),
        due: false,
        reason,
    })
}

/// Marks the replacements of this pass: all that are away anyway, and of the others as many as `budget` allows.
fn schedule(candidates: &mut [Candidate], budget: u32) {
    let mut left = budget;
    for candidate in candidates {
        if !candidate.available {
            candidate.step.due = true;
        } else if left > 0 {
            left -= 1;
            candidate.step.due = true;
        }
    }
}

/// Deletions of the units that nobody wants: seen ones, and inventory rows without a unit, which a delete clears.
fn surplus(view: &View<'_>, owner: &Key, busy: bool) -> Vec<UnitStep> {
    let wanted = view.wanted(owner);
    let mut steps = deletions(view, owner, "is not wanted");
    steps.retain(|step| {
        let kept = wanted.iter().find(|unit| unit.name == step.unit);
        match kept {
            // The same name twice, left behind by a move that was cut short.
            Some(unit) => {
                unit.environment != step.environment
                    && view
                        .seen(owner)
                        .iter()
                        .any(|seen| seen.name == unit.name && seen.environment == unit.environment)
            }
            None => !busy,
        }
    });
    steps
}

/// Deletions of every unit of a resource that is seen or noted, highest ordinal first.
pub(super) fn deletions(view: &View<'_>, owner: &Key, reason: &str) -> Vec<UnitStep> {
    let seen = view.seen(owner).iter().map(|unit| (&unit.name, &unit.environment));
    let noted = view
        .inventory(owner)
        .iter()
        .filter(|row| !view.seen(owner).iter().any(|unit| unit.name == row.unit))
        .map(|row| (&row.unit, &row.environment));
    let mut steps: Vec<UnitStep> = seen
        .chain(noted)
        .map(|(unit, environment)| UnitStep {
            unit: unit.clone(),
            step: Step::Delete,
            environment: environment.clone(),
            from: None,
            digest: None,
            due: true,
            reason: reason.to_owned(),
        })
        .collect();
    let ordinal = |step: &UnitStep| {
        step.unit
            .as_str()
            .rsplit('.')
            .next()
            .and_then(|text| text.parse::<u32>().ok())
    };
    steps.sort_by(|left, right| {
        ordinal(right)
            .cmp(&ordinal(left))
            .then_with(|| left.unit.cmp(&right.unit))
    });
    steps
}
