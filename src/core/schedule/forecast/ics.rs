//! The forecast as a calendar file (RFC 5545).

use super::super::fires::Note;
use super::{Forecast, ForecastFire};
use crate::model::schedule::SlotOutcome;
use jiff::Timestamp;

/// Longest content line, in octets, without its end (RFC 5545, 3.1).
const LINE_MAX: usize = 75;

/// Writes every slot that is expected to run as an event. `stamp` says when the file was made (DTSTAMP).
pub fn to_ics(forecast: &Forecast, stamp: Timestamp) -> String {
    let mut text = String::new();
    for content in [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Muster//forecast//EN",
        "CALSCALE:GREGORIAN",
    ] {
        line(&mut text, content);
    }
    let runs = forecast
        .fires
        .iter()
        .filter(|fire| fire.outcome == SlotOutcome::Started);
    for fire in runs {
        event(&mut text, fire, stamp);
    }
    line(&mut text, "END:VCALENDAR");
    text
}

fn event(text: &mut String, fire: &ForecastFire, stamp: Timestamp) {
    let note = match fire.note {
        Some(Note::Gap) => "; clocks go forward, its local time does not exist that day",
        Some(Note::Repeated) => "; clocks go back, its local time comes twice that day",
        None => "",
    };
    line(text, "BEGIN:VEVENT");
    // The same slot has the same name in each file, so that importing again does not double it.
    line(text, &format!("UID:{}-{}@muster", utc(fire.slot), escaped(&fire.plan)));
    line(text, &format!("DTSTAMP:{}", utc(stamp)));
    line(text, &format!("DTSTART:{}", utc(fire.slot)));
    line(text, &format!("DTEND:{}", utc(fire.until)));
    line(text, &format!("SUMMARY:{}", escaped(&fire.plan)));
    line(
        text,
        &format!("DESCRIPTION:{}", escaped(&format!("Local time {}{note}", fire.local))),
    );
    line(text, "END:VEVENT");
}

fn utc(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | ';' | ',' => escaped.extend(['\\', char]),
            '\n' => escaped.push_str("\\n"),
            char if char.is_control() => (),
            char => escaped.push(char),
        }
    }
    escaped
}

/// Writes a content line, folded between characters.
fn line(text: &mut String, content: &str) {
    let mut octets = 0;
    for char in content.chars() {
        if octets + char.len_utf8() > LINE_MAX {
            text.push_str("\r\n ");
            octets = 1;
        }
        text.push(char);
        octets += char.len_utf8();
    }
    text.push_str("\r\n");
}
