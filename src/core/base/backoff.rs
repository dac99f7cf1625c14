//! How long to wait before the next try: exponential, bounded, with jitter.

use std::time::Duration;

/// Bounds of an exponential backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub min: Duration,
    /// No delay is longer than this, jitter included.
    pub max: Duration,
}

impl Backoff {
    /// The reconciler's backoff per key: 750 ms to 15 min (promise 12; controller-runtime and Flux use the same bounds).
    pub const RECONCILE: Self = Self {
        min: Duration::from_millis(750),
        max: Duration::from_secs(15 * 60),
    };

    /// The delay after `failures` failures in a row (0 means none yet: no delay).
    ///
    /// `random` in `0.0..1.0` takes up to a quarter off, so that keys that failed together do not retry together.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = self
            .min
            .checked_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX))
            .unwrap_or(self.max);
        let bounded = doubled.min(self.max);
        bounded.mul_f64(1.0 - random.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use std::time::Duration;

    #[test]
    fn s12_backoff_doubles_from_750_ms_to_15_min() {
        let cases = [
            (0, 0),
            (1, 750),
            (2, 1_500),
            (3, 3_000),
            (11, 768_000),
            (12, 900_000),
            (40, 900_000),
            (400, 900_000),
        ];
        for (failures, millis) in cases {
            assert_eq!(
                Backoff::RECONCILE.delay(failures, 0.0),
                Duration::from_millis(millis),
                "{failures}"
            );
        }
        assert_eq!(Backoff::RECONCILE.delay(2, 1.0), Duration::from_millis(1_125));
    }
}
