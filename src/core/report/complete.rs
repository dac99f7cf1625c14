//! What a report says about completeness: how much arrived, which worker's seconds are missing, and since when it was lost.

use super::json::{Report, SecondRange, WorkerReport};
use crate::base::humane::{count, percent};
use crate::measure::validity::CompletenessKind;

/// Ranges of seconds named of one worker; more are counted.
const RANGES_MAX: usize = 5;

/// `Complete`, or `Partial 93.2 %`.
pub(super) fn word(report: &Report) -> String {
    match report.completeness.kind {
        CompletenessKind::Complete => "Complete".to_owned(),
        CompletenessKind::Partial => format!("Partial {}", percent(report.completeness.percent / 100.0)),
    }
}

/// One line for each worker that was lost or of which seconds are missing.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let workers = report.workers.iter();
    workers
        .filter(|worker| worker.lost || !worker.missing.is_empty())
        .map(line)
        .collect()
}

/// All of it in one line.
pub(super) fn sentence(report: &Report) -> String {
    let lines = lines(report);
    if lines.is_empty() {
        return word(report);
    }
    format!("{}: {}", word(report), lines.join("; "))
}

fn line(worker: &WorkerReport) -> String {
    let mut text = format!("worker {}", worker.index);
    if !worker.name.is_empty() {
        text.push_str(&format!(" ({})", worker.name));
    }
    if worker.lost {
        text.push_str(" lost");
    }
    if let Some(at) = worker.lost_at {
        text.push_str(&format!(" at {}", at.strftime("%T UTC")));
    }
    if let Some(reason) = &worker.lost_reason {
        text.push_str(&format!(" because {reason}"));
    }
    if !worker.missing.is_empty() {
        let comma = if worker.lost { "," } else { ":" };
        text.push_str(&format!("{comma} {}", seconds(&worker.missing)));
    }
    text
}

fn seconds(ranges: &[SecondRange]) -> String {
    let range = |range: &SecondRange| {
        if range.from == range.to {
            range.from.to_string()
        } else {
            format!("{}-{}", range.from, range.to)
        }
    };
    let named: Vec<String> = ranges.iter().take(RANGES_MAX).map(range).collect();
    let missing: u64 = ranges.iter().map(|range| range.to - range.from + 1).sum();
    let (noun, verb) = if missing == 1 {
        ("second", "is")
    } else {
        ("seconds", "are")
    };
    let more = if ranges.len() > RANGES_MAX { " and others" } else { "" };
    format!("{noun} {}{more} {verb} missing ({})", named.join(", "), count(missing))
}
