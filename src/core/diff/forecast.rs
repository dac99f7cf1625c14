//! What a change of plans changes in the forecast.

use crate::base::humane;
use crate::schedule::forecast::{Clash, Forecast, ForecastFire, Peak, Totals};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Lines of each kind that a person is shown.
const LINES_MAX: usize = 20;

/// What differs between two forecasts of the same stretch of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForecastDelta {
    /// The first instant looked at.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
    /// Slots that there were not, or with another outcome.
    pub added: Vec<ForecastFire>,
    /// Slots that there are no more, or with another outcome.
    pub removed: Vec<ForecastFire>,
    /// Targets whose highest load becomes another.
    pub peaks: Vec<PeakDelta>,
    /// Clashes that there were not.
    pub clashes: Vec<Clash>,
    /// Sums before.
    pub before: Totals,
    /// Sums after.
    pub after: Totals,
}

/// The highest load on a target, before and after; 0 for none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeakDelta {
    /// The target.
    pub target: String,
    /// Iterations per second before.
    pub rate_before: f64,
    /// Iterations per second after.
    pub rate_after: f64,
    /// Users before.
    pub vus_before: u64,
    /// Users after.
    pub vus_after: u64,
}

/// Compares two forecasts. `None`: they say the same.
pub fn delta(base: &Forecast, head: &Forecast) -> Option<ForecastDelta> {
    let delta = ForecastDelta {
        from: head.from,
        until: head.until,
        added: fires_beyond(head, base),
        removed: fires_beyond(base, head),
        peaks: peaks(base, head),
        clashes: head
            .clashes
            .iter()
            .filter(|clash| !base.clashes.contains(clash))
            .cloned()
            .collect(),
        before: base.totals.clone(),
        after: head.totals.clone(),
    };
    let differs = delta.before != delta.after
        || !(delta.added.is_empty() && delta.removed.is_empty() && delta.peaks.is_empty() && delta.clashes.is_empty());
    differs.then_some(delta)
}

/// Slots of `one` that `other` does not have.
fn fires_beyond(one: &Forecast, other: &Forecast) -> Vec<ForecastFire> {
    fn identity(fire: &ForecastFire) -> (Timestamp, &str, &'static str) {
        (fire.slot, &fire.plan, fire.outcome.as_str())
    }
    let known: BTreeSet<_> = other.fires.iter().map(identity).collect();
    let beyond = one.fires.iter().filter(|fire| !known.contains(&identity(fire)));
    beyond.cloned().collect()
}

fn peaks(base: &Forecast, head: &Forecast) -> Vec<PeakDelta> {
    fn highest(peaks: &[Peak]) -> BTreeMap<&str, (f64, u64)> {
        let mut highest: BTreeMap<&str, (f64, u64)> = BTreeMap::new();
        for peak in peaks {
            let (rate, vus) = highest.entry(&peak.target).or_default();
            *rate = rate.max(peak.rate);
            *vus = (*vus).max(peak.vus);
        }
        highest
    }
    let (before, after) = (highest(&base.peaks), highest(&head.peaks));
    let targets: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let of = |side: &BTreeMap<&str, (f64, u64)>, target| side.get(target).copied().unwrap_or_default();
    targets
        .into_iter()
        .map(|target| (target, of(&before, target), of(&after, target)))
        .filter(|(_, before, after)| before != after)
        .map(|(target, before, after)| PeakDelta {
            target: target.to_owned(),
            rate_before: before.0,
            rate_after: after.0,
            vus_before: before.1,
            vus_after: after.1,
        })
        .collect()
}

impl ForecastDelta {
    /// As a person reads it: `+` and `-` for slots, `~` for sums, `!` for clashes.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "Forecast {} to {}:\n",
            self.from.strftime("%F %H:%MZ"),
            self.until.strftime("%F %H:%MZ")
        );
        for (mark, fires) in [('-', &self.removed), ('+', &self.added)] {
            let line = |fire: &ForecastFire| {
                let slot = fire.slot.strftime("%F %H:%MZ");
                format!("{mark} {} {slot} ({}) {}", fire.plan, fire.local, fire.outcome)
            };
            lines(&mut text, mark, fires.iter().map(line));
        }
        let peak = |peak: &PeakDelta| {
            format!(
                "~ {}: at most {} -> {} iterations, {} -> {} users",
                peak.target,
                humane::rate(peak.rate_before),
                humane::rate(peak.rate_after),
                humane::count(peak.vus_before),
                humane::count(peak.vus_after)
            )
        };
        lines(&mut text, '~', self.peaks.iter().map(peak));
        let clash = |clash: &Clash| format!("! {:?} {}: {}", clash.kind, clash.plans.join(", "), clash.detail);
        lines(&mut text, '!', self.clashes.iter().map(clash));
        let (before, after) = (&self.before, &self.after);
        let _ = write!(
            text,
            "  ~ {} -> {} runs, {:.2} -> {:.2} worker-hours",
            before.runs, after.runs, before.worker_hours, after.worker_hours
        );
        let currencies: BTreeSet<&String> = before.cost.keys().chain(after.cost.keys()).collect();
        for currency in currencies {
            let of = |totals: &Totals| totals.cost.get(currency).map_or("0", String::as_str).to_owned();
            let _ = write!(text, ", {} -> {} {currency}", of(before), of(after));
        }
        text.push('\n');
        text
    }
}

fn lines(text: &mut String, mark: char, all: impl ExactSizeIterator<Item = String>) {
    let hidden = all.len().saturating_sub(LINES_MAX);
    for line in all.take(LINES_MAX) {
        let _ = writeln!(text, "  {line}");
    }
    if hidden > 0 {
        let _ = writeln!(text, "  {mark} and {hidden} more");
    }
}
