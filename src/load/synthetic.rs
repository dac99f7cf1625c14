//! The `synthetic` engine: draws latencies from a log-normal distribution and touches no network.

use crate::engine::Scope;
use crate::random::Rng;
use crate::recorder::{Sample, Timings};
use muster_core::measure::slice::ErrorKind;
use muster_core::model::load::SyntheticEngine;
use std::time::{Duration, Instant};

/// As for `http` where a plan says nothing.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// The series of the only scenario's iterations; its only request follows.
pub(crate) const ITERATIONS: usize = 0;
/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

pub(crate) struct Script {
    mu: f64,
    sigma: f64,
    error_rate: f64,
}

/// One scenario with one request.
pub(crate) fn series() -> Vec<(String, String)> {
    vec![
        ("default".to_owned(), String::new()),
        ("default".to_owned(), "request".to_owned()),
    ]
}

impl Script {
    pub(crate) fn new(engine: &SyntheticEngine) -> Self {
        // The distribution's median is e^mu. A median of zero has no logarithm: everything then takes a nanosecond.
        let mu = (engine.p50.as_nanos().max(1) as f64).ln();
        let p99 = (engine.p99.max(engine.p50).as_nanos().max(1) as f64).ln();
        Self {
            mu,
            sigma: (p99 - mu) / Z99,
            error_rate: engine.error_rate,
        }
    }

    fn draw(&self, rng: &Rng) -> (Duration, bool) {
        let latency_ns = (self.mu + self.sigma * rng.normal())
            .exp()
            .min(TIMEOUT.as_nanos() as f64);
        (Duration::from_nanos(latency_ns as u64), rng.unit() < self.error_rate)
    }

    /// Waits as long as it drew, and records what it drew: the same seed gives the same numbers whatever the machine does.
    pub(crate) async fn iterate(&self, scope: &Scope<'_>) -> Instant {
        let (latency, failed) = self.draw(&scope.lane.rng);
        if let Some(bound) = &scope.lane.bound {
            tokio::time::sleep_until(bound.reserve(scope.begin).into()).await;
        }
        tokio::time::sleep(latency).await;
        let now = Instant::now();
        let waited = scope.intended.map_or(Duration::ZERO, |intended| {
            scope.begin.saturating_duration_since(intended)
        });
        let sample = Sample {
            duration: waited + latency,
            timings: Timings {
                waiting: latency,
                ..Timings::default()
            },
            status: if failed { 500 } else { 200 },
            failed,
            ..Sample::default()
        };
        let mut recorder = scope.lane.recorder.borrow_mut();
        recorder.request(scope.series + ITERATIONS + 1, now, &sample);
        if failed {
            recorder.error(
                scope.series + ITERATIONS + 1,
                now,
                ErrorKind::Synthetic,
                "drawn by errorRate",
            );
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::Script;
    use crate::random::Rng;
    use muster_core::model::load::SyntheticEngine;
    use std::time::Duration;

    #[test]
    fn the_distribution_goes_through_both_points() {
        let script = Script::new(&SyntheticEngine {
            p50: Duration::from_millis(20),
            p99: Duration::from_millis(200),
            error_rate: 0.25,
        });
        let rng = Rng::new(3, 0);
        let mut drawn: Vec<(Duration, bool)> = (0..100_000).map(|_| script.draw(&rng)).collect();
        drawn.sort();
        let ms = |index: usize| drawn[index].0.as_secs_f64() * 1e3;
        assert!((ms(50_000) - 20.0).abs() < 0.5, "{}", ms(50_000));
        assert!((ms(99_000) - 200.0).abs() < 12.0, "{}", ms(99_000));
        let errors = drawn.iter().filter(|(_, failed)| *failed).count();
        assert!((24_000..26_000).contains(&errors), "{errors}");
    }

    #[test]
    fn a_median_of_nothing_is_not_a_panic() {
        let script = Script::new(&SyntheticEngine {
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            error_rate: 0.0,
        });
        assert_eq!(script.draw(&Rng::new(1, 1)).0, Duration::from_nanos(1));
    }
}
