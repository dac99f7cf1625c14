//! The grammar of thresholds and abort rules: k6's, with units.
//!
//! `http_req_duration{phase:peak}` is a key, `p(95)<300ms` an expression. Values of trends are milliseconds (a bare number, `ms`, `s`, `m`),
//! of rates a share (`0.01` or `1%`), of everything else plain numbers.

use crate::base::humane;
use crate::model::threshold::{Expression, Metric, MetricType, Operator, RuleMetric, Statistic, Tags};

/// Why a text is no threshold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// No such metric.
    #[error("`{0}` is not a metric")]
    UnknownMetric(String),
    /// The braces do not hold `tag:value` pairs.
    #[error("`{0}` is not a metric with tags; write for example `http_req_duration{{phase:peak}}`")]
    BadTags(String),
    /// No such tag.
    #[error("`{0}` is not a tag; there are phase, scenario and name")]
    UnknownTag(String),
    /// A tag twice.
    #[error("tag `{0}` is given twice")]
    DuplicateTag(String),
    /// The metric is of workers, not of series.
    #[error("{0} is counted over the whole run and has no tags")]
    NoTags(Metric),
    /// Not `statistic operator value`.
    #[error("`{0}` is not a threshold; write for example `p(95)<300ms`, `rate<1%` or `count<100`")]
    NotAnExpression(String),
    /// The statistic does not exist, or not for this type of metric.
    #[error("`{statistic}` is not a statistic of {metric}; it has {allowed}")]
    WrongStatistic {
        /// As written.
        statistic: String,
        /// Of what.
        metric: String,
        /// What there is.
        allowed: &'static str,
    },
    /// A percentile outside 0 to 100.
    #[error("`p({0})` is not a percentile; write p(0) to p(100)")]
    BadPercentile(String),
    /// The right side is not a number, or has a unit that does not fit.
    #[error("`{value}` does not compare with {what}; write {example}")]
    BadValue {
        /// As written.
        value: String,
        /// The left side.
        what: String,
        /// What fits.
        example: &'static str,
    },
}

/// Reads the key of a threshold: a metric, with tags in braces where it is about a part.
///
/// # Errors
/// When it is no known metric, or the tags are not `phase`, `scenario` or `name`, each at most once.
pub fn parse_key(text: &str) -> Result<(Metric, Tags), GrammarError> {
    let text = text.trim();
    let (name, tags) = match text.split_once('{') {
        None => (text, None),
        Some((name, rest)) => {
            let inner = rest
                .strip_suffix('}')
                .ok_or_else(|| GrammarError::BadTags(text.to_owned()))?;
            (name.trim_end(), Some(inner))
        }
    };
    let metric = Metric::parse(name).ok_or_else(|| GrammarError::UnknownMetric(name.to_owned()))?;
    let tags = match tags {
        None => Tags::default(),
        Some(_) if metric.kind() == MetricType::Gauge => return Err(GrammarError::NoTags(metric)),
        Some(inner) => parse_tags(text, inner)?,
    };
    Ok((metric, tags))
}

fn parse_tags(text: &str, inner: &str) -> Result<Tags, GrammarError> {
    let mut tags = Tags::default();
    for pair in inner.split(',') {
        let (tag, value) = pair
            .split_once(':')
            .ok_or_else(|| GrammarError::BadTags(text.to_owned()))?;
        let value = value.trim().trim_matches(['"', '\'']);
        if value.is_empty() {
            return Err(GrammarError::BadTags(text.to_owned()));
        }
        let slot = match tag.trim() {
            "phase" => &mut tags.phase,
            "scenario" => &mut tags.scenario,
            "name" => &mut tags.name,
            other => return Err(GrammarError::UnknownTag(other.to_owned())),
        };
        if slot.replace(value.to_owned()).is_some() {
            return Err(GrammarError::DuplicateTag(tag.trim().to_owned()));
        }
    }
    Ok(tags)
}

/// What the right side of a comparison is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// A share of 0 to 1.
    Share,
    /// Bytes, a count, or per second.
    Plain,
}

impl Unit {
    /// What a statistic of a metric is measured in.
    pub fn of(metric: Metric, statistic: Statistic) -> Self {
        match metric.kind() {
            MetricType::Trend if statistic != Statistic::Count => Self::Milliseconds,
            MetricType::Rate => Self::Share,
            _ => Self::Plain,
        }
    }

    /// What a rule looks at is measured in.
    pub fn of_rule(metric: &RuleMetric) -> Self {
        match metric {
            RuleMetric::WorkerCpu | RuleMetric::WorkerSteal => Self::Share,
            RuleMetric::WorkerLag => Self::Milliseconds,
            RuleMetric::Measured { metric, .. } => Self::of(*metric, Statistic::Value),
        }
    }

    /// A value as people read it; above all (promise 59) is `dropped`.
    pub fn show(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => "dropped".to_owned(),
            Self::Milliseconds => humane::milliseconds(value),
            Self::Share => humane::percent(value),
            Self::Plain => humane::plain(value),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Milliseconds => "for example 300ms, 1.5s or 300 (milliseconds)",
            Self::Share => "for example 1% or 0.01",
            Self::Plain => "a plain number, for example 100",
        }
    }

    fn parse(self, text: &str) -> Option<f64> {
        let (number, unit) = text.split_at(
            text.find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(text.len()),
        );
        let factor = match (self, unit.trim_start()) {
            (_, "") | (Self::Milliseconds, "ms") => 1.0,
            (Self::Milliseconds, "s") => 1_000.0,
            (Self::Milliseconds, "m") => 60_000.0,
            (Self::Share, "%") => 0.01,
            _ => return None,
        };
        if !number.starts_with(|c: char| c.is_ascii_digit()) || number.ends_with('.') {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        // 0.29 * 100 style noise: 1% must be exactly what 0.01 is.
        let value = if factor == 0.01 {
            number / 100.0
        } else {
            number * factor
        };
        let fits = value.is_finite() && (self != Self::Share || value <= 1.0);
        fits.then_some(value)
    }
}

/// Reads the expression of a threshold on a metric.
///
/// # Errors
/// When it is not `statistic operator value`, the statistic does not fit the metric's type, or the value's unit does not fit either.
pub fn parse_expression(metric: Metric, text: &str) -> Result<Expression, GrammarError> {
    let (left, operator, right) = split(text)?;
    let statistic = parse_statistic(metric, left)?;
    let value = parse_value(Unit::of(metric, statistic), &format!("{left} of {metric}"), right)?;
    Ok(Expression {
        text: text.trim().to_owned(),
        statistic,
        operator,
        value,
    })
}

/// Reads what an abort rule looks at: `worker_cpu`, `worker_steal`, `worker_lag`, or a key as [`parse_key`] reads it.
///
/// # Errors
/// As [`parse_key`].
pub fn parse_rule_metric(text: &str) -> Result<RuleMetric, GrammarError> {
    match text.trim() {
        "worker_cpu" => Ok(RuleMetric::WorkerCpu),
        "worker_steal" => Ok(RuleMetric::WorkerSteal),
        "worker_lag" => Ok(RuleMetric::WorkerLag),
        key => parse_key(key).map(|(metric, tags)| RuleMetric::Measured { metric, tags }),
    }
}

/// Reads `abortWhen`: `value`, an operator and a number whose unit fits what the rule looks at.
///
/// # Errors
/// When it is anything else.
pub fn parse_rule_expression(metric: &RuleMetric, text: &str) -> Result<Expression, GrammarError> {
    let (left, operator, right) = split(text)?;
    if left != "value" {
        return Err(GrammarError::WrongStatistic {
            statistic: left.to_owned(),
            metric: "an abort rule".to_owned(),
            allowed: "value",
        });
    }
    let value = parse_value(Unit::of_rule(metric), &rule_metric_name(metric), right)?;
    Ok(Expression {
        text: text.trim().to_owned(),
        statistic: Statistic::Value,
        operator,
        value,
    })
}

/// A rule's metric as a plan writes it.
pub fn rule_metric_name(metric: &RuleMetric) -> String {
    match metric {
        RuleMetric::WorkerCpu => "worker_cpu".to_owned(),
        RuleMetric::WorkerSteal => "worker_steal".to_owned(),
        RuleMetric::WorkerLag => "worker_lag".to_owned(),
        RuleMetric::Measured { metric, tags } => key_name(*metric, tags),
    }
}

/// A threshold's key as a plan writes it: `http_req_duration{phase:peak}`.
pub fn key_name(metric: Metric, tags: &Tags) -> String {
    let tags = [
        ("phase", &tags.phase),
        ("scenario", &tags.scenario),
        ("name", &tags.name),
    ];
    let tags: Vec<String> = tags
        .into_iter()
        .filter_map(|(tag, value)| value.as_ref().map(|value| format!("{tag}:{value}")))
        .collect();
    if tags.is_empty() {
        metric.to_string()
    } else {
        format!("{metric}{{{}}}", tags.join(","))
    }
}

fn split(text: &str) -> Result<(&str, Operator, &str), GrammarError> {
    let not = || GrammarError::NotAnExpression(text.to_owned());
    let at = text.find(['<', '>', '=', '!']).ok_or_else(not)?;
    let (left, rest) = text.split_at(at);
    let length = rest.bytes().take_while(|byte| b"<>=!".contains(byte)).count();
    let (operator, right) = rest.split_at(length);
    let operator = match operator {
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        "==" | "===" => Operator::Equal,
        "!=" => Operator::NotEqual,
        _ => return Err(not()),
    };
    let (left, right) = (left.trim(), right.trim());
    if left.is_empty() || right.is_empty() {
        return Err(not());
    }
    Ok((left, operator, right))
}

fn parse_statistic(metric: Metric, text: &str) -> Result<Statistic, GrammarError> {
    let kind = metric.kind();
    let found = match (kind, text) {
        (MetricType::Trend, "avg") => Some(Statistic::Avg),
        (MetricType::Trend | MetricType::Gauge, "min") => Some(Statistic::Min),
        (MetricType::Trend | MetricType::Gauge, "max") => Some(Statistic::Max),
        (MetricType::Trend, "med") => Some(Statistic::Med),
        (MetricType::Trend | MetricType::Counter, "count") => Some(Statistic::Count),
        (MetricType::Counter | MetricType::Rate, "rate") => Some(Statistic::Rate),
        (MetricType::Gauge, "value") => Some(Statistic::Value),
        (MetricType::Trend, _) => match text.strip_prefix("p(").and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) => Some(Statistic::Percentile(parse_percentile(inner.trim())?)),
            None => None,
        },
        _ => None,
    };
    found.ok_or_else(|| GrammarError::WrongStatistic {
        statistic: text.to_owned(),
        metric: metric.to_string(),
        allowed: match kind {
            MetricType::Counter => "count and rate",
            MetricType::Gauge => "value, min and max",
            MetricType::Rate => "rate",
            MetricType::Trend => "avg, min, med, max, p(N) and count",
        },
    })
}

fn parse_percentile(text: &str) -> Result<f64, GrammarError> {
    let bad = || GrammarError::BadPercentile(text.to_owned());
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(bad());
    }
    let value: f64 = text.parse().map_err(|_| bad())?;
    if (0.0..=100.0).contains(&value) {
        Ok(value)
    } else {
        Err(bad())
    }
}

fn parse_value(unit: Unit, what: &str, text: &str) -> Result<f64, GrammarError> {
    unit.parse(text).ok_or_else(|| GrammarError::BadValue {
        value: text.to_owned(),
        what: what.to_owned(),
        example: unit.example(),
    })
}

#[cfg(test)]
mod tests {
    use super::{GrammarError, Unit, key_name, parse_expression, parse_key, parse_rule_expression, parse_rule_metric};
    use crate::model::threshold::{Metric, Operator, Statistic};
    use proptest::prelude::*;

    #[test]
    fn keys_are_metrics_with_tags() {
        for (text, name) in [
            ("http_req_duration", "http_req_duration"),
            (" http_req_failed{ phase : peak } ", "http_req_failed{phase:peak}"),
            (
                "http_reqs{name:\"GET /a:b\",scenario:buy,phase:p1}",
                "http_reqs{phase:p1,scenario:buy,name:GET /a:b}",
            ),
            ("vus_max", "vus_max"),
        ] {
            let (metric, tags) = parse_key(text).unwrap();
            assert_eq!(key_name(metric, &tags), name, "{text}");
            assert_eq!(parse_key(name), Ok((metric, tags)));
        }
    }

    #[test]
    fn other_keys_are_refused_for_their_reason() {
        type Fits = fn(&GrammarError) -> bool;
        let table: [(&str, Fits); 9] = [
            ("http_req_durations", |error| {
                matches!(error, GrammarError::UnknownMetric(_))
            }),
            ("", |error| matches!(error, GrammarError::UnknownMetric(_))),
            ("http_reqs{phase:peak", |error| {
                matches!(error, GrammarError::BadTags(_))
            }),
            ("http_reqs{}", |error| matches!(error, GrammarError::BadTags(_))),
            ("http_reqs{phase}", |error| matches!(error, GrammarError::BadTags(_))),
            ("http_reqs{phase:}", |error| matches!(error, GrammarError::BadTags(_))),
            (
                "http_reqs{url:/}",
                |error| matches!(error, GrammarError::UnknownTag(tag) if tag == "url"),
            ),
            ("http_reqs{phase:a,phase:b}", |error| {
                matches!(error, GrammarError::DuplicateTag(_))
            }),
            ("vus{phase:a}", |error| matches!(error, GrammarError::NoTags(_))),
        ];
        for (text, fits) in table {
            let error = parse_key(text).unwrap_err();
            assert!(fits(&error), "{text}: {error:?}");
        }
    }

    #[test]
    fn expressions_are_in_base_units() {
        use Metric::{Checks, DroppedIterations, HttpReqDuration, HttpReqFailed, HttpReqs, Vus};
        use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        use Statistic::{Avg, Count, Max, Med, Min, Percentile, Rate, Value};
        for (metric, text, statistic, operator, value) in [
            (HttpReqDuration, "p(95)<300ms", Percentile(95.0), Less, 300.0),
            (
                HttpReqDuration,
                "p(99.9) <= 1.5s",
                Percentile(99.9),
                LessOrEqual,
                1_500.0,
            ),
            (
                HttpReqDuration,
                "p( 0 )>=2m",
                Percentile(0.0),
                GreaterOrEqual,
                120_000.0,
            ),
            (HttpReqDuration, "avg<300", Avg, Less, 300.0),
            (HttpReqDuration, "med!=0", Med, NotEqual, 0.0),
            (HttpReqDuration, "min>1ms", Min, Greater, 1.0),
            (HttpReqDuration, "max<1 s", Max, Less, 1_000.0),
            (HttpReqDuration, "count>1000", Count, Greater, 1_000.0),
            (HttpReqFailed, "rate<1%", Rate, Less, 0.01),
            (HttpReqFailed, "rate<0.01", Rate, Less, 0.01),
            (HttpReqFailed, "rate==0", Rate, Equal, 0.0),
            (Checks, "rate===100%", Rate, Equal, 1.0),
            (DroppedIterations, "count<100", Count, Less, 100.0),
            (HttpReqs, "rate>=1900.5", Rate, GreaterOrEqual, 1_900.5),
            (Vus, "value<10", Value, Less, 10.0),
            (Vus, "max<10", Max, Less, 10.0),
        ] {
            let found = parse_expression(metric, text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (found.statistic, found.operator, found.value),
                (statistic, operator, value),
                "{text}"
            );
            assert_eq!(found.text, text);
        }
    }

    #[test]
    fn other_expressions_are_refused_with_what_there_is() {
        use Metric::{HttpReqDuration, HttpReqFailed, HttpReqs, Vus};
        let form = "is not a threshold; write for example `p(95)<300ms`, `rate<1%` or `count<100`";
        let percentile = "is not a percentile; write p(0) to p(100)";
        let time =
            "does not compare with avg of http_req_duration; write for example 300ms, 1.5s or 300 (milliseconds)";
        let plain = "http_reqs; write a plain number, for example 100";
        let share = "does not compare with rate of http_req_failed; write for example 1% or 0.01";
        let it_has = "is not a statistic of";
        for (metric, text, message) in [
            (HttpReqDuration, "p(95)", format!("`p(95)` {form}")),
            (HttpReqDuration, "<300", format!("`<300` {form}")),
            (HttpReqDuration, "avg<", format!("`avg<` {form}")),
            (HttpReqDuration, "avg=<3", format!("`avg=<3` {form}")),
            (HttpReqDuration, "p(101)<300", format!("`p(101)` {percentile}")),
            (HttpReqDuration, "p(x)<300", format!("`p(x)` {percentile}")),
            (HttpReqDuration, "p()<300", format!("`p()` {percentile}")),
            (HttpReqDuration, "avg<300us", format!("`300us` {time}")),
            (HttpReqDuration, "avg<1%", format!("`1%` {time}")),
            (HttpReqDuration, "avg<-1", format!("`-1` {time}")),
            (HttpReqFailed, "rate<90", format!("`90` {share}")),
            (
                HttpReqs,
                "rate>1.",
                format!("`1.` does not compare with rate of {plain}"),
            ),
            (
                HttpReqs,
                "count>1e3",
                format!("`1e3` does not compare with count of {plain}"),
            ),
            (
                HttpReqs,
                "count>1s",
                format!("`1s` does not compare with count of {plain}"),
            ),
            (
                HttpReqDuration,
                "p95<300",
                format!("`p95` {it_has} http_req_duration; it has avg, min, med, max, p(N) and count"),
            ),
            (
                HttpReqFailed,
                "p(95)<1%",
                format!("`p(95)` {it_has} http_req_failed; it has rate"),
            ),
            (
                HttpReqs,
                "avg>1",
                format!("`avg` {it_has} http_reqs; it has count and rate"),
            ),
            (
                Vus,
                "count>1",
                format!("`count` {it_has} vus; it has value, min and max"),
            ),
        ] {
            let found = parse_expression(metric, text).map_err(|error| error.to_string());
            assert_eq!(found, Err(message), "{text}");
        }
    }

    #[test]
    fn a_statistic_has_its_unit() {
        for (metric, statistic, unit) in [
            (Metric::HttpReqDuration, Statistic::Med, Unit::Milliseconds),
            (Metric::HttpReqDuration, Statistic::Count, Unit::Plain),
            (Metric::HttpReqFailed, Statistic::Rate, Unit::Share),
            (Metric::HttpReqs, Statistic::Rate, Unit::Plain),
            (Metric::Vus, Statistic::Max, Unit::Plain),
        ] {
            assert_eq!(Unit::of(metric, statistic), unit, "{metric:?} {statistic:?}");
        }
    }

    #[test]
    fn rules_compare_a_value_in_the_unit_of_what_they_look_at() {
        for (metric, text, value) in [
            ("worker_cpu", "value>90%", 0.9),
            ("worker_steal", "value>=0.05", 0.05),
            ("worker_lag", "value>10ms", 10.0),
            ("http_req_failed{phase:peak}", "value>5%", 0.05),
            ("http_req_duration", "value>1s", 1_000.0),
            ("http_reqs", "value<100", 100.0),
            ("vus", "value>100", 100.0),
        ] {
            let metric = parse_rule_metric(metric).unwrap();
            assert_eq!(
                parse_rule_expression(&metric, text).map(|found| found.value),
                Ok(value),
                "{text}"
            );
        }
        let cpu = parse_rule_metric("worker_cpu").unwrap();
        for text in ["rate>90%", "value>90", "value>1s", "value", "p(95)>90%"] {
            assert!(parse_rule_expression(&cpu, text).is_err(), "{text}");
        }
        assert!(parse_rule_metric("worker_disk").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}", likely in "[a-z_]{0,8}[({]?[a-z0-9:.]{0,6}[)}]?[<>=! ]{0,3}[0-9.]{0,4}[a-z%]{0,2}") {
            for text in [text, likely] {
                let _ = (parse_key(&text), parse_rule_metric(&text));
                for metric in Metric::ALL {
                    let _ = parse_expression(metric, &text);
                }
            }
        }
    }
}
