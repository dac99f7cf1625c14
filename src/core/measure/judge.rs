//! Judges thresholds, abort rules and autoStop second by second, and once more over the whole when a run is over.
//!
//! A threshold without `window` is judged on the whole run at its end; before that only to abort, when it has been broken for as long as
//! `for`. One with `window` is judged over each full window in which load was made, and fails once windows have broken it, one second
//! after another, for as long as `for`. A window without samples breaks nothing.

use super::query::Over;
use super::threshold::{Unit, key_name, rule_metric_name};
use super::view::{RunView, whole_seconds};
use crate::model::plan::{AutoStop, TestPlan};
use crate::model::threshold::{AbortRule, Metric, MetricType, Operator, RuleAction, Statistic, Tags, Threshold};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something a judge saw that somebody must act on.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The run second it was seen at.
    pub second: u32,
    /// What.
    pub kind: FindingKind,
    /// For people: what, and by how much.
    pub detail: String,
}

/// What a judge saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// A threshold with `abortOnFail` is broken: Aborted(threshold).
    Threshold,
    /// An abort rule acts. After a restart it may be reported again; acting twice must be harmless.
    Rule {
        /// The rule's name.
        name: String,
        /// What it does.
        action: RuleAction,
    },
    /// The target is down: Aborted(autoStop).
    AutoStop,
}

/// What became of one threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThresholdResult {
    /// With tags, as written in the plan.
    pub metric: String,
    /// As written in the plan.
    pub expression: String,
    /// What it came to, in the base unit; of windows the worst. Null without samples, and where it falls among dropped arrivals.
    pub value: Option<f64>,
    /// The value as people read it: `213.4ms`, `dropped`, `no samples`.
    pub shown: String,
    /// Whether it held.
    pub passed: bool,
    /// The value falls among dropped arrivals, which rank above everything (promise 59).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub above_all: bool,
    /// There was nothing to judge: the run is Invalid(noSamples).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_samples: bool,
    /// Judged over windows of this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<u32>,
    /// The run second it failed at, for one with windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<u32>,
}

impl ThresholdResult {
    /// Whether there was nothing to judge.
    pub fn is_without_samples(&self) -> bool {
        self.no_samples
    }

    /// What it came to, as a sentence goes on.
    pub fn came_to(&self) -> String {
        if self.above_all {
            "falls among the dropped arrivals, slower than everything".to_owned()
        } else if self.no_samples {
            "has no samples".to_owned()
        } else {
            format!("was {}", self.shown)
        }
    }

    /// Whether it was judged and did not hold.
    pub fn is_broken(&self) -> bool {
        !self.passed && !self.no_samples
    }
}

/// What became of one abort rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleResult {
    /// Its name.
    pub name: String,
    /// What it looked at.
    pub metric: String,
    /// When it is true.
    pub expression: String,
    /// What it does.
    pub action: RuleAction,
    /// The worst value seen.
    pub value: Option<f64>,
    /// The worst value as people read it; empty: there was none.
    pub shown: String,
    /// The run second it first acted at.
    pub fired_at: Option<u32>,
}

/// What became of everything a plan wanted judged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// In the plan's order.
    pub thresholds: Vec<ThresholdResult>,
    /// In the plan's order.
    pub rules: Vec<RuleResult>,
}

impl Outcome {
    /// Names of the rules that spoil the run.
    pub fn invalidated_by(&self) -> impl Iterator<Item = String> {
        self.rules
            .iter()
            .filter(|rule| rule.action == RuleAction::Invalidate && rule.fired_at.is_some())
            .map(|rule| rule.name.clone())
    }
}

/// Something that is true without a break since some second.
#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    since: Option<u32>,
    fired: bool,
}

impl Streak {
    /// Takes one second's answer; true once, when it has been true for so long.
    fn fires(&mut self, second: u32, is_true: bool, persists_for: Duration) -> bool {
        if !is_true {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(second);
        let long_enough = Duration::from_secs(u64::from(second - since)) >= persists_for;
        let fires = long_enough && !self.fired;
        self.fired |= fires;
        fires
    }
}

#[derive(Debug, Clone)]
struct ThresholdState {
    threshold: Threshold,
    streak: Streak,
    first_sample: Option<u32>,
    worst: Option<f64>,
    failed_at: Option<u32>,
}

#[derive(Debug, Clone)]
struct RuleState {
    rule: AbortRule,
    streak: Streak,
    worst: Option<f64>,
    fired_at: Option<u32>,
}

/// The judge of one run.
#[derive(Debug, Clone)]
pub struct Judge {
    thresholds: Vec<ThresholdState>,
    rules: Vec<RuleState>,
    auto_stop: Option<(AutoStop, Streak)>,
    first_sample: Option<u32>,
    next: u32,
}

impl Judge {
    /// For a run of this plan.
    pub fn new(plan: &TestPlan) -> Self {
        let thresholds = plan.thresholds.iter().map(|threshold| ThresholdState {
            threshold: threshold.clone(),
            streak: Streak::default(),
            first_sample: None,
            worst: None,
            failed_at: None,
        });
        let rules = plan.abort_rules.iter().map(|rule| RuleState {
            rule: rule.clone(),
            streak: Streak::default(),
            worst: None,
            fired_at: None,
        });
        Self {
            thresholds: thresholds.collect(),
            rules: rules.collect(),
            auto_stop: plan.auto_stop.clone().map(|auto_stop| (auto_stop, Streak::default())),
            first_sample: None,
            next: 0,
        }
    }

    /// Looks at every second that settled since the last call, and lets the view forget what no window needs any more. To be called
    /// after each batch of parts, at the latest every [`super::view::CATCH_UP_S`] run seconds.
    pub fn advance(&mut self, view: &mut RunView) -> Vec<Finding> {
        let Some(settled) = view.settled() else {
            return Vec::new();
        };
        let findings = self.look(view, settled);
        view.forget_before_windows_after(settled);
        findings
    }

    fn look(&mut self, view: &RunView, to: u32) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.next > to {
            return findings;
        }
        for second in self.next..=to {
            for state in &mut self.thresholds {
                findings.extend(state.look_at_window(view, second));
            }
            for state in &mut self.rules {
                findings.extend(state.look(view, second));
            }
            findings.extend(self.look_at_auto_stop(view, second));
        }
        // The whole so far is known only as of now: it is looked at once, however many seconds came.
        for state in &mut self.thresholds {
            findings.extend(state.look_at_whole(view, to));
        }
        self.next = to + 1;
        findings
    }

    fn look_at_auto_stop(&mut self, view: &RunView, second: u32) -> Option<Finding> {
        let (auto_stop, streak) = self.auto_stop.as_mut()?;
        let everything = Tags::default();
        if self.first_sample.is_none() && view.has_samples(&everything, second) {
            self.first_sample = Some(second);
        }
        let from = window(self.first_sample?, whole_seconds(auto_stop.window), second)?;
        let over = Over::Range(from, second);
        let share = view.value(Metric::HttpReqFailed, &everything, Statistic::Rate, over);
        let down = share.is_some_and(|share| share >= auto_stop.error_rate);
        streak.fires(second, down, Duration::ZERO).then(|| Finding {
            second,
            kind: FindingKind::AutoStop,
            detail: format!(
                "{} of the requests of the last {} failed",
                Unit::Share.show(share.unwrap_or_default()),
                crate::base::units::format_duration(auto_stop.window)
            ),
        })
    }

    /// Looks at what is left and says what became of everything. The run is over: no second is waited for.
    pub fn finish(&mut self, view: &RunView) -> Outcome {
        if let Some(newest) = view.newest() {
            self.look(view, newest);
        }
        Outcome {
            thresholds: self.thresholds.iter().map(|state| state.result(view)).collect(),
            rules: self.rules.iter().map(RuleState::result).collect(),
        }
    }
}

impl ThresholdState {
    fn is_delayed(&self, second: u32) -> bool {
        Duration::from_secs(u64::from(second) + 1) < self.threshold.delay_abort_eval
    }

    fn value(&self, view: &RunView, over: Over) -> Option<f64> {
        let Threshold {
            metric,
            tags,
            expression,
            ..
        } = &self.threshold;
        view.value(*metric, tags, expression.statistic, over)
    }

    fn is_broken_by(&self, value: f64) -> bool {
        !self
            .threshold
            .expression
            .operator
            .holds(value, self.threshold.expression.value)
    }

    fn unit(&self) -> Unit {
        Unit::of(self.threshold.metric, self.threshold.expression.statistic)
    }

    fn look_at_window(&mut self, view: &RunView, second: u32) -> Option<Finding> {
        let length = whole_seconds(self.threshold.window?);
        let tags = &self.threshold.tags;
        if self.first_sample.is_none() && view.has_samples(tags, second) {
            self.first_sample = Some(second);
        }
        let from = window(self.first_sample?, length, second)?;
        // After a phase, and in a pause, a counter stands still for good reason.
        let counts =
            self.threshold.metric.kind() != MetricType::Counter || view.is_loaded(tags.phase.as_deref(), from, second);
        if self.is_delayed(second) || !counts {
            return None;
        }
        let value = self.value(view, Over::Range(from, second));
        let broken = value.is_some_and(|value| self.is_broken_by(value));
        if let Some(value) = value {
            self.worst = Some(worse(self.threshold.expression.operator, self.worst, value));
        }
        if !self.streak.fires(second, broken, self.threshold.persists_for) {
            return None;
        }
        self.failed_at.get_or_insert(second);
        self.finding(second, value)
    }

    fn look_at_whole(&mut self, view: &RunView, second: u32) -> Option<Finding> {
        if self.threshold.window.is_some() || !self.threshold.abort_on_fail || self.is_delayed(second) {
            return None;
        }
        let value = self.value(view, Over::Whole);
        let broken = value.is_some_and(|value| self.is_broken_by(value));
        if !self.streak.fires(second, broken, self.threshold.persists_for) {
            return None;
        }
        self.finding(second, value)
    }

    fn finding(&self, second: u32, value: Option<f64>) -> Option<Finding> {
        self.threshold.abort_on_fail.then(|| Finding {
            second,
            kind: FindingKind::Threshold,
            detail: format!(
                "{}: {} (was {})",
                key_name(self.threshold.metric, &self.threshold.tags),
                self.threshold.expression.text,
                value.map_or_else(|| "nothing".to_owned(), |value| self.unit().show(value))
            ),
        })
    }

    /// One with windows that never saw a full one is judged on the whole.
    fn result(&self, view: &RunView) -> ThresholdResult {
        let windowed = self.threshold.window.is_some();
        let value = self.worst.or_else(|| self.value(view, Over::Whole));
        let passed = match value {
            None => false,
            Some(_) if self.failed_at.is_some() => false,
            Some(_) if windowed && self.worst.is_some() => true,
            Some(value) => !self.is_broken_by(value),
        };
        ThresholdResult {
            metric: key_name(self.threshold.metric, &self.threshold.tags),
            expression: self.threshold.expression.text.clone(),
            value: value.filter(|value| value.is_finite()),
            shown: value.map_or_else(|| "no samples".to_owned(), |value| self.unit().show(value)),
            passed,
            above_all: value == Some(f64::INFINITY),
            no_samples: value.is_none(),
            window_s: self.threshold.window.map(whole_seconds),
            failed_at: self.failed_at,
        }
    }
}

impl RuleState {
    fn look(&mut self, view: &RunView, second: u32) -> Option<Finding> {
        let from = window(0, whole_seconds(self.rule.interval), second)?;
        let value = view.rule_value(&self.rule.metric, Over::Range(from, second));
        let expression = &self.rule.abort_when;
        let is_true = value.is_some_and(|value| expression.operator.holds(value, expression.value));
        if let Some(value) = value {
            // The rule's condition is what must not happen: its worst value is the one nearest to it.
            self.worst = Some(worse(opposite(expression.operator), self.worst, value));
        }
        if !self.streak.fires(second, is_true, self.rule.persists_for) {
            return None;
        }
        self.fired_at.get_or_insert(second);
        Some(Finding {
            second,
            kind: FindingKind::Rule {
                name: self.rule.name.clone(),
                action: self.rule.action,
            },
            detail: format!(
                "{}: {} {} (was {})",
                self.rule.name,
                rule_metric_name(&self.rule.metric),
                expression.text,
                Unit::of_rule(&self.rule.metric).show(value.unwrap_or_default())
            ),
        })
    }

    fn result(&self) -> RuleResult {
        RuleResult {
            name: self.rule.name.clone(),
            metric: rule_metric_name(&self.rule.metric),
            expression: self.rule.abort_when.text.clone(),
            action: self.rule.action,
            value: self.worst.filter(|value| value.is_finite()),
            shown: self
                .worst
                .map_or_else(String::new, |worst| Unit::of_rule(&self.rule.metric).show(worst)),
            fired_at: self.fired_at,
        }
    }
}

/// The first second of the full window that ends with `second`, if one has passed since `first`.
fn window(first: u32, length: u32, second: u32) -> Option<u32> {
    (second + 1).checked_sub(length).filter(|from| *from >= first)
}

/// The value farther from what must hold.
fn worse(must: Operator, seen: Option<f64>, value: f64) -> f64 {
    let Some(seen) = seen else { return value };
    match must {
        Operator::Less | Operator::LessOrEqual => seen.max(value),
        Operator::Greater | Operator::GreaterOrEqual => seen.min(value),
        Operator::Equal | Operator::NotEqual => value,
    }
}

fn opposite(operator: Operator) -> Operator {
    match operator {
        Operator::Less => Operator::GreaterOrEqual,
        Operator::LessOrEqual => Operator::Greater,
        Operator::Greater => Operator::LessOrEqual,
        Operator::GreaterOrEqual => Operator::Less,
        Operator::Equal => Operator::NotEqual,
        Operator::NotEqual => Operator::Equal,
    }
}
