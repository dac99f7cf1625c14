//! Durations and percentages as plans write them: `1m30s`, `1%`.

use std::time::Duration;

/// Longest duration a plan may name: ten years. Longer is a typing error, and arithmetic on sums stays far from overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Why a text is not a duration or a percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number without a unit.
    #[error("`{0}` has no unit; write for example `{0}s`")]
    BareNumber(String),
    /// Anything else that is not `([0-9]+(ms|s|m|h|d))+`.
    #[error("`{0}` is not a duration; write for example `500ms`, `30s` or `1m30s`")]
    NotADuration(String),
    /// Longer than [`DURATION_MAX`].
    #[error("`{0}` is longer than ten years")]
    TooLong(String),
    /// Not `1%` or `0.5%`.
    #[error("`{0}` is not a percentage between 0% and 100%")]
    NotAPercentage(String),
}

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads `([0-9]+(ms|s|m|h|d))+`, to the millisecond.
///
/// # Errors
/// [`UnitError`] for a bare number, another text, or more than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let not = || UnitError::NotADuration(text.to_owned());
    let mut rest = text;
    let mut millis: u64 = 0;
    if text.is_empty() {
        return Err(not());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        if tail.is_empty() && digits == text.len() {
            return Err(UnitError::BareNumber(text.to_owned()));
        }
        let unit = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(not)?;
        if number.is_empty() {
            return Err(not());
        }
        let value: u64 = number.parse().map_err(|_| UnitError::TooLong(text.to_owned()))?;
        millis = value
            .checked_mul(*factor)
            .and_then(|part| millis.checked_add(part))
            .filter(|sum| u128::from(*sum) <= DURATION_MAX.as_millis())
            .ok_or_else(|| UnitError::TooLong(text.to_owned()))?;
        rest = tail;
    }
    Ok(Duration::from_millis(millis))
}

/// Writes a duration the way [`parse_duration`] reads it, largest units first; below a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in UNITS {
        let count = millis / factor;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            millis %= factor;
        }
    }
    text
}

/// Reads `1%` or `0.5%` as a ratio in `0.0..=1.0`.
///
/// # Errors
/// [`UnitError::NotAPercentage`] for anything else.
pub fn parse_percent(text: &str) -> Result<f64, UnitError> {
    let not = || UnitError::NotAPercentage(text.to_owned());
    let number = text.strip_suffix('%').ok_or_else(not)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(not());
    }
    let value: f64 = number.parse().map_err(|_| not())?;
    if (0.0..=100.0).contains(&value) {
        Ok(value / 100.0)
    } else {
        Err(not())
    }
}

/// Serde for a [`Duration`] as the text plans use.
pub mod duration {
    use super::{Duration, format_duration, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes `1m30s`.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*value))
    }

    /// Reads `1m30s`.
    ///
    /// # Errors
    /// When the text is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Serde for an optional [`Duration`] as the text plans use.
pub mod duration_option {
    use super::{Duration, format_duration, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes `1m30s` or null.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&format_duration(*value)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads `1m30s` or null.
    ///
    /// # Errors
    /// When the text is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_duration(&text).map_err(D::Error::custom))
            .transpose()
    }
}

/// A number of things: `1 error`, `2 errors`.
pub fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::{UnitError, format_duration, parse_duration, parse_percent};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn durations_are_read_with_all_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1d1h", 90_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(parse_duration("30"), Err(UnitError::BareNumber("30".to_owned())));
        for text in ["", "s", "-1s", "1.5s", "1s ", "1w", "1m30", "ms5"] {
            assert!(
                matches!(parse_duration(text), Err(UnitError::NotADuration(_))),
                "{text}"
            );
        }
        for text in ["3661d", "99999999999999999999s", "18446744073709551615d"] {
            assert!(matches!(parse_duration(text), Err(UnitError::TooLong(_))), "{text}");
        }
    }

    #[test]
    fn percentages_are_ratios() {
        assert_eq!(parse_percent("1%"), Ok(0.01));
        assert_eq!(parse_percent("0.5%"), Ok(0.005));
        for text in ["1", "%", "-1%", "101%", "1e1%", "nan%", "inf%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(millis in 0_u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
