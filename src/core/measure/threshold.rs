//! The grammar of thresholds and abort rules: k6's, with units.
//!
//! `http_req_duration{phase:peak}` is a key, `p(95)<300ms` an expression. Values of trends are milliseconds (a bare number, `ms`, `s`, `m`),
//! of rates a share (`0.01` or `1%`), of everything else plain numbers.

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
    #[error("`{statistic}` is not a statistic of {metric}; there are {allowed}")]
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
