//! How a run ends, out of everything that speaks for or against it (promise 36).

use super::judge::{Outcome, ThresholdResult};
use super::validity::{Completeness, saturation};
use super::view::RunView;
use crate::model::run::{Ending, EndingKind, FailedReason, InvalidReason};

/// What speaks for or against a run beside its numbers.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// What ended it early or broke: Stopped, Aborted, Error, Invalid(barrier), in the order it happened.
    pub events: Vec<Ending>,
    /// Workers lost on the way.
    pub lost_workers: u32,
    /// Verify hooks that failed and matter, by name.
    pub failed_verifications: Vec<String>,
    /// `--smoke`: thresholds are not judged, and a lack of samples is no objection.
    pub smoke: bool,
}

/// The ending that wins where several hold: Stopped and Aborted first, then Error, Invalid, Failed, Passed; among equals the first.
pub fn verdict(
    view: &RunView,
    outcome: &Outcome,
    completeness: &Completeness,
    circumstances: &Circumstances,
) -> Ending {
    let mut endings = circumstances.events.clone();
    let mut add = |kind, detail: Option<String>| endings.extend(detail.map(|detail| Ending { kind, detail }));
    let allowed = view.validity().max_lost_workers;
    let lost = circumstances.lost_workers;
    add(
        EndingKind::Invalid(InvalidReason::Workers),
        (lost > allowed).then(|| format!("{lost} workers were lost; allowed are {allowed}")),
    );
    add(EndingKind::Invalid(InvalidReason::Saturated), saturation(view));
    add(EndingKind::Invalid(InvalidReason::Incomplete), completeness.objection());
    add(
        EndingKind::Invalid(InvalidReason::Rule),
        names(outcome.invalidated_by()),
    );
    if !circumstances.smoke {
        let silent = outcome.thresholds.iter().filter(|one| one.is_without_samples());
        add(
            EndingKind::Invalid(InvalidReason::NoSamples),
            names(silent.map(describe)),
        );
        let broken = outcome.thresholds.iter().filter(|one| one.is_broken());
        add(
            EndingKind::Failed(FailedReason::Thresholds),
            names(broken.map(describe)),
        );
    }
    add(
        EndingKind::Failed(FailedReason::Verify),
        names(circumstances.failed_verifications.iter().cloned()),
    );
    endings
        .into_iter()
        .min_by_key(|ending| ending.kind.rank())
        .unwrap_or(Ending {
            kind: EndingKind::Passed,
            detail: String::new(),
        })
}

fn describe(result: &ThresholdResult) -> String {
    format!("{}: {} {}", result.metric, result.expression, result.came_to())
}

fn names(list: impl Iterator<Item = String>) -> Option<String> {
    let list: Vec<String> = list.collect();
    (!list.is_empty()).then(|| list.join("; "))
}
