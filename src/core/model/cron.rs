//! Cron expressions: five fields as Vixie cron reads them, plus `L`, `W` and `#`.
//!
//! What is accepted, and what Kubernetes and Vixie cron read differently, is in
//! `docs/adr/0013-cron-as-vixie-reads-it.md`.

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Longest expression, in bytes: a list of all sixty minutes has 169.
const TEXT_MAX: usize = 500;

/// Where the search for a first match begins. Any date does: the calendar repeats after 400 years, which the search covers.
const EPOCH: DateTime = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);

/// What Vixie cron and Kubernetes both know by name.
const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression that parses and that fires some day.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: Arc<str>,
    pattern: Arc<croner::Cron>,
    elapsed: bool,
}

impl Cron {
    /// Reads five fields, or one of `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`.
    ///
    /// # Errors
    /// [`CronError`] for anything else and for what never fires; its [`CronError::hint`] says how to mend it.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(CronError::TooLong);
        }
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err(CronError::ZoneInside);
        }
        let expanded = match text.strip_prefix('@') {
            None => text,
            Some(_) => MACROS
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, fields)| *fields)
                .ok_or_else(|| CronError::Macro(text.to_owned()))?,
        };
        let fields: Vec<&str> = expanded.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(CronError::Fields(fields.len()));
        };
        let plain = [
            Field::Minute.normalise(minute)?,
            Field::Hour.normalise(hour)?,
            Field::DayOfMonth.normalise(day)?,
            Field::Month.normalise(month)?,
            Field::DayOfWeek.normalise(weekday)?,
        ]
        .join(" ");
        let pattern = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            // Vixie: a day must match both fields once one of them begins with a star, else either.
            .dom_and_dow(day.starts_with('*') || weekday.starts_with('*'))
            .build()
            .parse(&plain)
            .map_err(|cause| CronError::Refused(cause.to_string()))?;
        let cron = Self {
            text: text.into(),
            pattern: Arc::new(pattern),
            elapsed: [minute, hour].iter().any(|field| field.contains(['*', '/'])),
        };
        match cron.next_civil(EPOCH) {
            Some(_) => Ok(cron),
            None => Err(CronError::NeverFires),
        }
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it follows elapsed time where clocks are changed: there is a wildcard or a step in minute or hour (promise 30).
    pub fn follows_elapsed_time(&self) -> bool {
        self.elapsed
    }

    /// The first matching time of a calendar without clock changes, at `from` or later; whole minutes. `None`: none before the year 5000.
    pub fn next_civil(&self, from: DateTime) -> Option<DateTime> {
        self.pattern.find_next_occurrence(&from, true).ok()
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cron({})", self.text)
    }
}

// The text decides everything else, and is far smaller.
impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl PartialOrd for Cron {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cron {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for Cron {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;
    fn try_from(text: String) -> Result<Self, CronError> {
        Self::parse(&text)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text.as_ref().to_owned()
    }
}

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Longer than any list needs.
    #[error("the schedule is longer than {TEXT_MAX} characters")]
    TooLong,
    /// `TZ=…` before the fields.
    #[error("a schedule does not hold its time zone")]
    ZoneInside,
    /// `@reboot`, `@every 1h`, `@Daily`.
    #[error("`{0}` is not a schedule")]
    Macro(String),
    /// Not five.
    #[error("a schedule has five fields, this one has {0}")]
    Fields(usize),
    /// One entry of one field.
    #[error("`{item}` in field {field}: {problem}")]
    Item {
        /// Which field.
        field: Field,
        /// What stands there.
        item: String,
        /// What is wrong with it.
        problem: ItemProblem,
    },
    /// Something the calendar library does not take.
    #[error("the schedule cannot be read: {0}")]
    Refused(String),
    /// 31 February.
    #[error("the schedule never fires: no year has such a day")]
    NeverFires,
}

/// What is wrong with one entry of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemProblem {
    /// Nothing between two commas.
    #[error("an entry of a list is empty")]
    Empty,
    /// Neither a number nor a name.
    #[error("not a value of this field")]
    NotAValue,
    /// Outside the field's range.
    #[error("must be {0} to {1}")]
    OutOfRange(u8, u8),
    /// `*` beside others.
    #[error("a `*` stands alone")]
    StarInList,
    /// `?`.
    #[error("`?` is not cron's")]
    QuestionMark,
    /// `22-2`.
    #[error("the range runs backwards")]
    Backwards,
    /// `5/10`, which some read as `5` and some as `5-59/10`.
    #[error("a step needs a range or a `*`")]
    StepOfValue,
    /// `*/0`.
    #[error("a step is at least 1")]
    StepOfZero,
    /// `*/60`: only the first value is ever met.
    #[error("the step is longer than the range")]
    StepTooLong,
    /// `L` in day-of-week.
    #[error("`L` needs a day of the week")]
    LoneLast,
    /// `L` and `LW` in one field.
    #[error("`L` and `LW` do not go together")]
    LastTwice,
    /// `6#0`.
    #[error("the number after `#` is 1 to 5")]
    Nth,
}

impl CronError {
    /// How to mend it.
    pub fn hint(&self) -> String {
        match self {
            Self::TooLong => "use ranges and steps, for example `0-30/5`".to_owned(),
            Self::ZoneInside => "write it as `timeZone`".to_owned(),
            Self::Macro(text) if text.starts_with("@every") => {
                "write a step, for example `*/30 * * * *` or `0 */6 * * *`".to_owned()
            }
            Self::Macro(text) => match MACROS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
                Some((name, _)) => format!("write `{name}`"),
                None => "write five fields, for example `30 2 * * 6#1`".to_owned(),
            },
            Self::Fields(6 | 7) => {
                "there are no fields for seconds and years: minute, hour, day of month, month, day of week".to_owned()
            }
            Self::Fields(_) => "minute, hour, day of month, month, day of week; for example `30 2 * * 6#1`".to_owned(),
            Self::Item { field, item, problem } => problem.hint(*field, item),
            Self::Refused(_) => "minute, hour, day of month, month, day of week; for example `30 2 * * 6#1`".to_owned(),
            Self::NeverFires => "look at day of month and month; `L` is the last day of every month".to_owned(),
        }
    }
}

impl ItemProblem {
    fn hint(&self, field: Field, item: &str) -> String {
        let (min, max) = field.range();
        match self {
            Self::Empty => "take the comma away, or write the value".to_owned(),
            Self::NotAValue | Self::OutOfRange(..) => field.example(),
            Self::StarInList => "write `*` alone, or the values without it".to_owned(),
            Self::QuestionMark => "write `*`".to_owned(),
            Self::Backwards => match item.split('/').next().and_then(|range| range.split_once('-')) {
                Some((from, to)) => {
                    format!(
                        "write `{from}-{},{min}-{to}`",
                        if field == Field::DayOfWeek { 6 } else { max }
                    )
                }
                None => field.example(),
            },
            Self::StepOfValue => {
                let (value, step) = item.split_once('/').unwrap_or((item, "1"));
                format!("write `{value}-{max}/{step}`, or `{value}` alone")
            }
            Self::StepOfZero => "write `*`, or a step of 1 or more".to_owned(),
            Self::StepTooLong => {
                let first = item.split(['-', '/']).next().filter(|first| *first != "*");
                format!(
                    "only the first value is ever met: write `{}`",
                    first.unwrap_or(&min.to_string())
                )
            }
            Self::LoneLast => "write for example `5L`: the last Friday of the month".to_owned(),
            Self::LastTwice => "write one of them".to_owned(),
            Self::Nth => "write for example `6#1`: the first Saturday of the month".to_owned(),
        }
    }
}

/// One of the five fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31, `L`, `LW`, `15W`.
    DayOfMonth,
    /// 1 to 12, or JAN to DEC.
    Month,
    /// 0 to 7 (0 and 7 are Sunday), or SUN to SAT, `5L`, `6#1`.
    DayOfWeek,
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        })
    }
}

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Field {
    /// The least and the greatest number.
    fn range(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    fn example(self) -> String {
        match self {
            Self::Minute => "write 0 to 59, for example `0`, `0,30`, `*/15`".to_owned(),
            Self::Hour => "write 0 to 23, for example `2`, `9-17`, `*/6`".to_owned(),
            Self::DayOfMonth => "write 1 to 31, `L` for the last day, `15W` for the weekday nearest to the 15th, or `LW`".to_owned(),
            Self::Month => "write 1 to 12 or JAN to DEC".to_owned(),
            Self::DayOfWeek => "write 0 to 7 (0 and 7 are Sunday) or SUN to SAT, `6#1` for the first Saturday, `5L` for the last Friday".to_owned(),
        }
    }

    /// The field in numbers only, as the calendar library reads it without surprises.
    fn normalise(self, text: &str) -> Result<String, CronError> {
        if text == "*" {
            return Ok("*".to_owned());
        }
        let items: Vec<&str> = text.split(',').collect();
        let mut plain = Vec::with_capacity(items.len());
        for item in &items {
            let one = self.item(item).map_err(|problem| CronError::Item {
                field: self,
                item: (*item).to_owned(),
                problem,
            })?;
            plain.push(one);
        }
        if self == Self::DayOfMonth && plain.iter().any(|one| one == "L") && plain.iter().any(|one| one == "LW") {
            return Err(CronError::Item {
                field: self,
                item: text.to_owned(),
                problem: ItemProblem::LastTwice,
            });
        }
        Ok(plain.join(","))
    }

    fn item(self, item: &str) -> Result<String, ItemProblem> {
        match item {
            "" => return Err(ItemProblem::Empty),
            "*" => return Err(ItemProblem::StarInList),
            _ if item.contains('?') => return Err(ItemProblem::QuestionMark),
            _ => (),
        }
        if let Some((range, step)) = item.split_once('/') {
            return self.step(range, step);
        }
        if let Some((from, to)) = item.split_once('-') {
            let (from, to) = self.span(from, to)?;
            return Ok(format!("{from}-{to}"));
        }
        match self {
            Self::DayOfMonth => self.day_of_month(item),
            Self::DayOfWeek => self.day_of_week(item),
            _ => self.value(item).map(|value| value.to_string()),
        }
    }

    fn step(self, range: &str, step: &str) -> Result<String, ItemProblem> {
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => self.span(from, to)?,
            // Seven steps on is Sunday again.
            None if range == "*" => (self.range().0, if self == Self::DayOfWeek { 6 } else { self.range().1 }),
            None => {
                self.value(range)?;
                return Err(ItemProblem::StepOfValue);
            }
        };
        match number(step) {
            None => Err(ItemProblem::NotAValue),
            Some(0) => Err(ItemProblem::StepOfZero),
            Some(step) if step > u16::from(to - from) => Err(ItemProblem::StepTooLong),
            Some(step) => Ok(format!(
                "{range}/{step}",
                range = if range == "*" {
                    "*".to_owned()
                } else {
                    format!("{from}-{to}")
                }
            )),
        }
    }

    fn span(self, from: &str, to: &str) -> Result<(u8, u8), ItemProblem> {
        let from = self.value(from)?;
        let to = match self.value(to)? {
            // FRI-SUN.
            0 if self == Self::DayOfWeek && from > 0 && number(to).is_none() => 7,
            to => to,
        };
        if from > to {
            return Err(ItemProblem::Backwards);
        }
        Ok((from, to))
    }

    fn day_of_month(self, item: &str) -> Result<String, ItemProblem> {
        let upper = item.to_ascii_uppercase();
        match upper.strip_suffix('W') {
            _ if upper == "L" || upper == "LW" => Ok(upper),
            Some(day) => Ok(format!("{}W", self.value(day)?)),
            None => self.value(item).map(|value| value.to_string()),
        }
    }

    fn day_of_week(self, item: &str) -> Result<String, ItemProblem> {
        if item.eq_ignore_ascii_case("L") {
            return Err(ItemProblem::LoneLast);
        }
        if let Some((day, nth)) = item.split_once('#') {
            let day = self.value(day)? % 7;
            return match number(nth) {
                Some(nth @ 1..=5) => Ok(format!("{day}#{nth}")),
                _ => Err(ItemProblem::Nth),
            };
        }
        match item.strip_suffix(['L', 'l']) {
            Some(day) => Ok(format!("{}L", self.value(day)? % 7)),
            None => Ok((self.value(item)? % 7).to_string()),
        }
    }

    fn value(self, text: &str) -> Result<u8, ItemProblem> {
        let (names, first): (&[&str], u8) = match self {
            Self::Month => (&MONTHS, 1),
            Self::DayOfWeek => (&WEEKDAYS, 0),
            _ => (&[], 0),
        };
        if let Some(at) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(first + u8::try_from(at).expect("a name's place is below 12"));
        }
        let (min, max) = self.range();
        let value = number(text).ok_or(ItemProblem::NotAValue)?;
        match u8::try_from(value) {
            Ok(value) if (min..=max).contains(&value) => Ok(value),
            _ => Err(ItemProblem::OutOfRange(min, max)),
        }
    }
}

/// Digits only: no sign, no blank.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u16::MAX))
}
