//! Small texts for people out of JSON values: words, ages, short ids.

use jiff::Timestamp;
use serde_json::Value;

/// A scalar as a word; `-` where there is none.
pub fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The digits of a UUID that tell runs apart: the last ones, because the first ones of a UUIDv7 are its time.
pub fn short_id(value: &Value) -> String {
    let text = word(value);
    match text.rsplit_once('-') {
        Some((head, tail)) if !head.is_empty() => tail.to_owned(),
        _ => text,
    }
}

/// An instant to the second: `2026-11-21 17:44:22Z`; `-` where there is none.
pub fn instant(value: &Value) -> String {
    match value.as_str() {
        Some(text) => format!("{}Z", text.chars().take(19).collect::<String>().replace('T', " ")),
        None => "-".to_owned(),
    }
}

/// How long ago an instant was, or how long it was until `end`; `-` where there is none.
pub fn age(value: &Value, end: Option<&Value>) -> String {
    let instant = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let Some(begin) = instant(value) else {
        return "-".to_owned();
    };
    let end = end.and_then(instant).unwrap_or_else(Timestamp::now);
    span(end.duration_since(begin).as_secs().max(0))
}

/// Seconds as `42s`, `5m3s`, `2h10m`, `3d4h`.
pub fn span(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::{age, instant, short_id, span, word};
    use serde_json::{Value, json};

    #[test]
    fn instants_are_to_the_second() {
        assert_eq!(instant(&json!("2026-11-21T17:45:29.578702Z")), "2026-11-21 17:45:29Z");
        assert_eq!(instant(&json!("2026-11-21T17:45:29Z")), "2026-11-21 17:45:29Z");
        assert_eq!(instant(&Value::Null), "-");
    }

    #[test]
    fn spans_name_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m0s"), (3_725, "1h2m"), (90_000, "1d1h")] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn absent_values_are_a_dash() {
        assert_eq!(word(&Value::Null), "-");
        assert_eq!(word(&json!(3)), "3");
        assert_eq!(age(&Value::Null, None), "-");
        assert_eq!(
            age(&json!("2026-01-01T00:00:00Z"), Some(&json!("2026-01-01T00:01:05Z"))),
            "1m5s"
        );
        assert_eq!(short_id(&json!("0198c0de-0000-7000-8000-00000000abcd")), "00000000abcd");
    }
}
