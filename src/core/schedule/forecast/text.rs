//! The forecast as a person reads it on a terminal.

use super::super::fires::Note;
use super::{ClashKind, Forecast, ForecastFire, Peak};
use crate::base::humane;
use crate::model::schedule::SlotOutcome;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Prints a forecast: slots, the highest load per target, clashes, totals. No colours; each line ends with a line feed.
pub fn to_text(forecast: &Forecast) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "FORECAST  {} to {}",
        forecast.from.strftime("%F %H:%MZ"),
        forecast.until.strftime("%F %H:%MZ")
    );
    slots(forecast, &mut text);
    peaks(forecast, &mut text);
    clashes(forecast, &mut text);
    totals(forecast, &mut text);
    text
}

fn slots(forecast: &Forecast, text: &mut String) {
    if forecast.fires.is_empty() {
        text.push_str("\n  no slot\n");
        return;
    }
    let width = forecast.fires.iter().map(|fire| fire.plan.chars().count()).max();
    let width = width.unwrap_or_default().max("PLAN".len());
    let _ = writeln!(
        text,
        "\n  {:<17}  {:<25}  {:<width$}  NOTE",
        "SLOT (UTC)", "LOCAL", "PLAN"
    );
    for fire in &forecast.fires {
        let line = format!(
            "  {:<17}  {:<25}  {:<width$}  {}",
            fire.slot.strftime("%F %H:%MZ").to_string(),
            fire.local,
            fire.plan,
            note(fire)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn note(fire: &ForecastFire) -> String {
    let mut notes = Vec::new();
    if fire.outcome != SlotOutcome::Started {
        notes.push(fire.outcome.as_str());
    }
    match fire.note {
        Some(Note::Gap) => notes.push("clocks go forward: its time does not exist that day"),
        Some(Note::Repeated) => notes.push("clocks go back: its time comes twice that day"),
        None => (),
    }
    notes.join("; ")
}

fn peaks(forecast: &Forecast, text: &mut String) {
    let mut highest: BTreeMap<&str, (&Peak, &Peak)> = BTreeMap::new();
    for peak in &forecast.peaks {
        let (rate, vus) = highest.entry(&peak.target).or_insert((peak, peak));
        if peak.rate > rate.rate {
            *rate = peak;
        }
        if peak.vus > vus.vus {
            *vus = peak;
        }
    }
    if highest.is_empty() {
        return;
    }
    text.push_str("\nPEAKS\n");
    for (target, (rate, vus)) in highest {
        let _ = writeln!(text, "  {target}");
        let when = |peak: &Peak| peak.from.strftime("%F %H:%MZ").to_string();
        if rate.rate > 0.0 {
            let _ = writeln!(text, "    {} iterations from {}", humane::rate(rate.rate), when(rate));
        }
        if vus.vus > 0 {
            let _ = writeln!(text, "    {} users from {}", humane::count(vus.vus), when(vus));
        }
    }
}

fn clashes(forecast: &Forecast, text: &mut String) {
    if forecast.clashes.is_empty() {
        return;
    }
    text.push_str("\nCLASHES\n");
    for clash in &forecast.clashes {
        let kind = match clash.kind {
            ClashKind::Overlap => "Overlap",
            ClashKind::OutsideWindow => "OutsideWindow",
            ClashKind::Limit => "Limit",
        };
        let _ = writeln!(
            text,
            "  {}  {kind}  {}: {}",
            clash.from.strftime("%F %H:%MZ"),
            clash.plans.join(", "),
            clash.detail
        );
    }
    let hidden = forecast.totals.clashes.saturating_sub(forecast.clashes.len() as u64);
    if hidden > 0 {
        let _ = writeln!(text, "  and {} more", humane::count(hidden));
    }
}

fn totals(forecast: &Forecast, text: &mut String) {
    let totals = &forecast.totals;
    let _ = write!(
        text,
        "\nTOTALS  {} runs, {} skipped, {:.2} worker-hours",
        humane::count(totals.runs),
        humane::count(totals.skipped),
        totals.worker_hours
    );
    for (currency, cost) in &totals.cost {
        let _ = write!(text, ", {cost} {currency}");
    }
    text.push('\n');
}
