//! Thresholds and abort rules: parsed by the one grammar there is, and about things that exist in the plan.

use super::{Lower, at};
use crate::measure::threshold::{
    GrammarError, key_name, parse_expression, parse_key, parse_rule_expression, parse_rule_metric,
};
use crate::model::load::{Engine, Phase, PhaseWork};
use crate::model::threshold::{AbortRule, Metric, RuleAction, RuleMetric, Tags, Threshold};
use crate::spec::code::Code;
use crate::spec::hint::did_you_mean;
use crate::spec::wire::plan::{AbortRule as WireRule, RuleAction as WireAction, ThresholdLine};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much of the past a rule looks at where it does not say.
const INTERVAL: Duration = Duration::from_secs(15);

/// What tags can name.
pub(super) struct Tagged<'a> {
    phases: Vec<&'a str>,
    /// `None` for engines whose names are their own.
    scenarios: Option<Vec<&'a str>>,
    requests: Option<Vec<&'a str>>,
}

impl<'a> Tagged<'a> {
    /// Everything of a plan that carries a tag.
    pub fn of(phases: &'a [Phase], engine: Option<&'a Engine>) -> Self {
        let loads = |phase: &&Phase| matches!(phase.work, PhaseWork::Load { .. });
        let phases = phases.iter().filter(loads).map(|phase| phase.name.as_str()).collect();
        let Some(Engine::Http(http)) = engine else {
            return Self {
                phases,
                scenarios: None,
                requests: None,
            };
        };
        Self {
            phases,
            scenarios: Some(http.scenarios.iter().map(|scenario| scenario.name.as_str()).collect()),
            requests: Some(
                http.scenarios
                    .iter()
                    .flat_map(|scenario| &scenario.requests)
                    .map(|request| request.name.as_str())
                    .collect(),
            ),
        }
    }
}

impl Lower<'_, '_> {
    /// Lowers all thresholds.
    pub(super) fn thresholds(
        &mut self,
        wire: &BTreeMap<String, Vec<ThresholdLine>>,
        tagged: &Tagged<'_>,
    ) -> Vec<Threshold> {
        let mut thresholds = Vec::new();
        for (key, lines) in wire {
            let pointer = at("/spec/thresholds", key);
            let (metric, tags) = match parse_key(key) {
                Ok(found) => found,
                Err(error) => {
                    self.grammar(&pointer, key, &error);
                    continue;
                }
            };
            self.tags(&pointer, &tags, tagged);
            if lines.is_empty() {
                self.error(&pointer, Code::OutOfRange, "the list of thresholds is empty");
            }
            for (index, line) in lines.iter().enumerate() {
                thresholds.extend(self.threshold(&at(&pointer, index), metric, &tags, line));
            }
        }
        // By key as it is written out, so that a rendered plan loads to the same order.
        thresholds.sort_by_key(|threshold| key_name(threshold.metric, &threshold.tags));
        thresholds
    }

    fn threshold(&mut self, pointer: &str, metric: Metric, tags: &Tags, line: &ThresholdLine) -> Option<Threshold> {
        let (text, object, pointer) = match line {
            ThresholdLine::Text(text) => (text, None, pointer.to_owned()),
            ThresholdLine::Object(object) => (&object.threshold, Some(object), at(pointer, "threshold")),
        };
        let expression = match parse_expression(metric, text) {
            Ok(expression) => expression,
            Err(error) => {
                self.grammar(&pointer, text, &error);
                return None;
            }
        };
        let duration = |span: Option<&crate::spec::wire::scalar::Span>| span.map_or(Duration::ZERO, |span| span.0);
        let window = object.and_then(|object| object.window.as_ref()).map(|span| span.0);
        if window.is_some_and(|window| window < Duration::from_secs(1)) {
            let place = pointer.replace("/threshold", "/window");
            self.error(
                &place,
                Code::OutOfRange,
                "a window is at least 1s: numbers are kept by the second",
            );
        }
        Some(Threshold {
            metric,
            tags: tags.clone(),
            expression,
            window,
            persists_for: duration(object.and_then(|object| object.persists_for.as_ref())),
            abort_on_fail: object.and_then(|object| object.abort_on_fail).unwrap_or(false),
            delay_abort_eval: duration(object.and_then(|object| object.delay_abort_eval.as_ref())),
        })
    }

    /// Lowers all abort rules.
    pub(super) fn abort_rules(&mut self, wire: &[WireRule], tagged: &Tagged<'_>) -> Vec<AbortRule> {
        self.unique("/spec/abortRules", "rule", wire.iter().map(|rule| rule.name.as_str()));
        let mut rules = Vec::new();
        for (index, rule) in wire.iter().enumerate() {
            rules.extend(self.abort_rule(&at("/spec/abortRules", index), rule, tagged));
        }
        rules
    }

    fn abort_rule(&mut self, pointer: &str, rule: &WireRule, tagged: &Tagged<'_>) -> Option<AbortRule> {
        let Some(text) = &rule.metric else {
            self.error(pointer, Code::MissingField, "the rule has no `metric`");
            return None;
        };
        let metric = match parse_rule_metric(text) {
            Ok(metric) => metric,
            Err(error) => {
                self.grammar(&at(pointer, "metric"), text, &error);
                return None;
            }
        };
        if let RuleMetric::Measured { tags, .. } = &metric {
            self.tags(&at(pointer, "metric"), tags, tagged);
        }
        let abort_when = match parse_rule_expression(&metric, &rule.abort_when) {
            Ok(expression) => expression,
            Err(error) => {
                self.grammar(&at(pointer, "abortWhen"), &rule.abort_when, &error);
                return None;
            }
        };
        let interval = rule.interval.as_ref().map_or(INTERVAL, |span| span.0);
        if interval < Duration::from_secs(1) {
            self.error(
                &at(pointer, "interval"),
                Code::OutOfRange,
                "an interval is at least 1s: numbers are kept by the second",
            );
        }
        Some(AbortRule {
            name: rule.name.clone(),
            metric,
            abort_when,
            interval,
            persists_for: rule.persists_for.as_ref().map_or(Duration::ZERO, |span| span.0),
            action: match rule.action {
                Some(WireAction::Pause) => RuleAction::Pause,
                Some(WireAction::Invalidate) => RuleAction::Invalidate,
                Some(WireAction::Notify) => RuleAction::Notify,
                Some(WireAction::Abort) | None => RuleAction::Abort,
            },
        })
    }

    fn tags(&mut self, pointer: &str, tags: &Tags, tagged: &Tagged<'_>) {
        let checks = [
            ("phase", &tags.phase, Some(&tagged.phases)),
            ("scenario", &tags.scenario, tagged.scenarios.as_ref()),
            ("name", &tags.name, tagged.requests.as_ref()),
        ];
        for (tag, value, known) in checks {
            if let (Some(value), Some(known)) = (value, known)
                && !known.contains(&value.as_str())
            {
                let what = if tag == "name" { "request" } else { tag };
                let guess = did_you_mean(value, known.iter().copied())
                    .unwrap_or_else(|| format!("there are {}", known.join(", ")));
                let text = format!("the plan has no {what} `{value}`, so nothing carries the tag `{tag}:{value}`");
                self.error_hint(pointer, Code::UndefinedTag, text, guess);
            }
        }
    }

    fn grammar(&mut self, pointer: &str, text: &str, error: &GrammarError) {
        let code = match error {
            GrammarError::UnknownMetric(_) => Code::UnknownMetric,
            GrammarError::UnknownTag(_) | GrammarError::NoTags(_) => Code::UndefinedTag,
            GrammarError::WrongStatistic { .. } => Code::WrongStatistic,
            _ => Code::BadThreshold,
        };
        let metrics = Metric::ALL
            .into_iter()
            .map(Metric::as_str)
            .chain(["worker_cpu", "worker_steal", "worker_lag"]);
        let hint = match error {
            GrammarError::UnknownMetric(_) => did_you_mean(text.split('{').next().unwrap_or(text), metrics),
            _ => None,
        };
        self.error(pointer, code, error.to_string()).hint = hint;
    }
}
