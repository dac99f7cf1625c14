//! What the tests of measurement draw from: histograms, slices, bytes gone bad, and plans to judge by.

use super::frame::SECOND_MAX;
use super::histogram::{Histogram, Precision};
use super::slice::{ErrorCount, ErrorKind, GeneratorStat, Second, SeriesKey, Stats};
use super::threshold::{parse_expression, parse_key, parse_rule_expression, parse_rule_metric};
use crate::model::id::Name;
use crate::model::load::{Engine, Executor, Phase, PhaseWork, SyntheticEngine};
use crate::model::plan::{OnChange, PlanLimits, Target, TestPlan, Validity};
use crate::model::threshold::{AbortRule, RuleAction, Threshold};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// A fine histogram of up to 200 values anywhere.
pub(crate) fn histogram() -> impl Strategy<Value = Histogram> {
    let value = prop_oneof![0_u64..10_000, 0_u64..4_000_000_000_000, any::<u64>()];
    prop::collection::vec(value, 0..200).prop_map(|values| {
        let mut histogram = Histogram::new(Precision::Fine);
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    })
}

/// A slice within its bounds.
pub(crate) fn stats() -> impl Strategy<Value = Stats> {
    let counters = prop::array::uniform7(0_u64..1_000_000);
    let histograms = prop::array::uniform9(prop::option::weighted(0.3, histogram()));
    let statuses = prop::collection::btree_map(100_u16..=999, 1_u64..1_000, 0..80);
    let errors = prop::collection::btree_map(
        prop::sample::select(&ErrorKind::ALL[..]),
        (1_u64..1_000, "[a-zü ]{0,20}").prop_map(|(count, sample)| ErrorCount { count, sample }),
        0..5,
    );
    let checks = prop::collection::btree_map("[a-z]{1,3}", (0_u64..1_000, 0_u64..1_000), 0..20);
    (counters, histograms, statuses, errors, checks).prop_map(|(counters, histograms, statuses, errors, checks)| {
        let mut stats = Stats {
            errors,
            checks,
            ..Stats::default()
        };
        for (slot, counter) in stats.counters_mut().into_iter().zip(counters) {
            *slot = counter;
        }
        for (slot, histogram) in stats.histograms_mut().into_iter().zip(histograms) {
            *slot = histogram;
        }
        for (status, count) in statuses {
            stats.add_status(status, count);
        }
        stats
    })
}

/// A second of a worker.
pub(crate) fn second() -> impl Strategy<Value = Second> {
    let key = ("[a-z]{0,3}", "[a-z]{0,3}", "[a-z]{0,3}").prop_map(|(phase, scenario, name)| SeriesKey {
        phase,
        scenario,
        name,
    });
    let generator = (
        any::<[u64; 4]>(),
        0.0_f64..1.0,
        prop::collection::btree_map("[a-z]{1,3}", any::<u64>(), 0..4),
    );
    (
        0..=SECOND_MAX,
        prop::collection::btree_map(key, stats(), 0..4),
        generator,
    )
        .prop_map(|(second, entries, generator)| {
            let ([vus, vus_max, lag_p99_ns, memory_bytes], share, counts) = generator;
            Second {
                second,
                entries,
                generator: GeneratorStat {
                    vus,
                    vus_max,
                    cpu: share,
                    steal: share / 2.0,
                    lag_p99_ns,
                    memory_bytes,
                    arrivals: counts.clone(),
                    own_drops: counts,
                },
            }
        })
}

/// One way for bytes to go bad.
#[derive(Debug, Clone)]
pub(crate) struct Mangle {
    at: prop::sample::Index,
    byte: u8,
    cut: bool,
}

impl Mangle {
    pub(crate) fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if !bytes.is_empty() {
            let at = self.at.index(bytes.len());
            bytes[at] = self.byte;
            if self.cut {
                bytes.truncate(at);
            }
        }
        bytes
    }
}

pub(crate) fn mangled() -> impl Strategy<Value = Mangle> {
    (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(at, byte, cut)| Mangle { at, byte, cut })
}

/// A plan of constant-vus phases of ten seconds each, that judges nothing yet.
pub(crate) fn plan(phases: &[&str]) -> TestPlan {
    let phase = |name: &&str| Phase {
        name: Name::new(*name).unwrap(),
        work: PhaseWork::Load {
            executor: Executor::ConstantVus {
                vus: 5,
                duration: Duration::from_secs(10),
            },
            graceful_stop: Duration::from_secs(30),
        },
        workers: None,
    };
    TestPlan {
        timing: crate::model::schedule::Timing::default(),
        description: None,
        suspend: None,
        target: Target::BaseUrl("http://127.0.0.1:8080".to_owned()),
        limits: PlanLimits::default(),
        engine: Engine::Synthetic(SyntheticEngine {
            p50: Duration::from_millis(20),
            p99: Duration::from_millis(200),
            error_rate: 0.0,
        }),
        data: Vec::new(),
        depends_on: Vec::new(),
        pool: None,
        phases: phases.iter().map(phase).collect(),
        thresholds: Vec::new(),
        abort_rules: Vec::new(),
        auto_stop: None,
        validity: Validity::default(),
        hooks: Vec::new(),
        on_change: OnChange::Finish,
        retention: None,
        results: None,
    }
}

/// A threshold over the whole run.
pub(crate) fn threshold(key: &str, expression: &str) -> Threshold {
    let (metric, tags) = parse_key(key).unwrap();
    Threshold {
        metric,
        tags,
        expression: parse_expression(metric, expression).unwrap(),
        window: None,
        persists_for: Duration::ZERO,
        abort_on_fail: false,
        delay_abort_eval: Duration::ZERO,
    }
}

/// An abort rule that looks at the last second.
pub(crate) fn rule(metric: &str, abort_when: &str, persists_for_s: u64, action: RuleAction) -> AbortRule {
    let metric = parse_rule_metric(metric).unwrap();
    AbortRule {
        name: "rule".to_owned(),
        abort_when: parse_rule_expression(&metric, abort_when).unwrap(),
        metric,
        interval: Duration::from_secs(1),
        persists_for: Duration::from_secs(persists_for_s),
        action,
    }
}

pub(crate) fn key(phase: &str, name: &str) -> SeriesKey {
    SeriesKey {
        phase: phase.to_owned(),
        scenario: "default".to_owned(),
        name: name.to_owned(),
    }
}

/// Requests that took so many milliseconds each, and how many of them failed.
pub(crate) fn requests(durations_ms: &[u64], failed: u64) -> Stats {
    let mut histogram = Histogram::new(Precision::Fine);
    durations_ms.iter().for_each(|ms| histogram.record(ms * 1_000_000));
    Stats {
        requests: durations_ms.len() as u64,
        failed,
        duration: Some(histogram),
        ..Stats::default()
    }
}

/// A worker at ease that had so many arrivals in a phase.
pub(crate) fn at_ease(phase: &str, arrivals: u64) -> GeneratorStat {
    GeneratorStat {
        vus: 5,
        vus_max: 10,
        cpu: 0.25,
        lag_p99_ns: 500_000,
        memory_bytes: 8_000_000,
        arrivals: BTreeMap::from([(phase.to_owned(), arrivals)]),
        ..GeneratorStat::default()
    }
}
