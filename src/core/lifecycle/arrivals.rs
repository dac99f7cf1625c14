//! When iterations of an open executor are due: the inverse of the integral of a piecewise linear rate.
//!
//! With F(t) the integral of the rate, arrival k (from 0) is due at the instant F passes k, so `ceil(F(t))` arrivals lie in
//! `[0, t)`: 500/s for 10 s are 5,000, the first at 0, the last 2 ms before the end. F is kept as an exact fraction at
//! the borders of stages, so a count is never off by one; inside a ramp instants are right to about a nanosecond.

use super::share::index_of;
use crate::model::load::{Executor, Rate, RateStage, Segment};
use std::time::Duration;

/// Denominator that F falls back to where the exact one does not fit: a billionth of an iteration.
const COARSE: u128 = 1_000_000_000;
const NS_PER_MS: u128 = 1_000_000;

/// The arrivals of one phase, for the whole run. Asking is a binary search over stages and allocates nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrivals {
    pieces: Vec<Piece>,
    duration: Duration,
}

/// A stage that has a length and a rate above zero somewhere.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    /// When it begins, and how long it is, in nanoseconds.
    start_ns: u64,
    length_ns: u64,
    /// Arrivals due before it begins, and before it ends.
    before: u64,
    until: u64,
    /// F at its begin.
    integral: Fraction,
    from: Rate,
    to: Rate,
}

impl Arrivals {
    /// The arrivals of an open executor; `None` for closed ones, whose users decide.
    pub fn new(executor: &Executor) -> Option<Self> {
        match executor {
            Executor::ConstantArrivalRate { rate, duration, .. } => {
                let stage = RateStage {
                    target: *rate,
                    duration: *duration,
                };
                Some(Self::of(*rate, std::slice::from_ref(&stage)))
            }
            Executor::RampingArrivalRate { start, stages, .. } => Some(Self::of(*start, stages)),
            _ => None,
        }
    }

    fn of(start: Rate, stages: &[RateStage]) -> Self {
        let mut pieces = Vec::with_capacity(stages.len());
        let (mut from, mut integral, mut start_ns) = (start, Fraction::ZERO, 0_u64);
        for stage in stages {
            let length_ns = nanos(stage.duration);
            let after = integral.plus(Fraction::area(from, stage.target, length_ns));
            if after.ceil() > integral.ceil() {
                pieces.push(Piece {
                    start_ns,
                    length_ns,
                    before: integral.ceil(),
                    until: after.ceil(),
                    integral,
                    from,
                    to: stage.target,
                });
            }
            (from, integral) = (stage.target, after);
            start_ns = start_ns.saturating_add(length_ns);
        }
        Self {
            pieces,
            duration: Duration::from_nanos(start_ns),
        }
    }

    /// How long the phase lasts.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// All arrivals of the phase.
    pub fn total(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.until)
    }

    /// When arrival `k` (from 0) is due, from the phase's begin; always before its end. `None`: there are not so many.
    pub fn time_of(&self, k: u64) -> Option<Duration> {
        let index = self.pieces.partition_point(|piece| piece.until <= k);
        self.pieces
            .get(index)
            .map(|piece| Duration::from_nanos(piece.time_of(k)))
    }

    /// How many are due in `[0, until)`.
    pub fn count_until(&self, until: Duration) -> u64 {
        let until_ns = nanos(until);
        let index = self
            .pieces
            .partition_point(|piece| piece.start_ns.saturating_add(piece.length_ns) <= until_ns);
        match self.pieces.get(index) {
            None => self.total(),
            Some(piece) if piece.start_ns >= until_ns => piece.before,
            Some(piece) => piece.count_until(until_ns),
        }
    }

    /// This worker's arrivals: index in the whole run and instant, in order.
    pub fn own(&self, segment: Segment) -> impl Iterator<Item = (u64, Duration)> + '_ {
        (0_u64..).map_while(move |nth| {
            let k = index_of(nth, segment);
            self.time_of(k).map(|at| (k, at))
        })
    }
}

impl Piece {
    /// The last whole nanosecond at which fewer than `k + 1` are due. Needs `before <= k < until`.
    fn time_of(&self, k: u64) -> u64 {
        let inside =
            if self.from.iterations.checked_mul(self.to.per_ms) == self.to.iterations.checked_mul(self.from.per_ms) {
                self.flat(k)
            } else {
                self.ramp(k)
            };
        self.start_ns + inside.min(self.length_ns - 1)
    }

    fn flat(&self, k: u64) -> u64 {
        let exact = || {
            let ahead = u128::from(k)
                .checked_mul(self.integral.den)?
                .checked_sub(self.integral.num)?;
            let time = ahead.checked_mul(u128::from(self.from.per_ms).checked_mul(NS_PER_MS)?)?;
            let rate = self.integral.den.checked_mul(self.from.iterations.into())?;
            u64::try_from(time.checked_div(rate)?).ok()
        };
        exact().unwrap_or_else(|| self.ramp(k))
    }

    /// Solves `from·x + (to − from)·x² / 2·length = k − F` for x, in the form that does not cancel.
    fn ramp(&self, k: u64) -> u64 {
        let ahead = (k - self.integral.floor()) as f64 - self.integral.fraction();
        let length = self.length_ns as f64;
        let (from, to) = (per_ns(self.from), per_ns(self.to));
        let root = (from * from + 2.0 * (to - from) * ahead / length).max(0.0).sqrt();
        let inside = 2.0 * ahead / (from + root);
        if inside.is_finite() { inside.max(0.0) as u64 } else { 0 }
    }

    /// How many are due before `until_ns`, which lies inside. Guesses by the integral, then goes to where `time_of` agrees.
    fn count_until(&self, until_ns: u64) -> u64 {
        let x = (until_ns - self.start_ns) as f64;
        let (from, to) = (per_ns(self.from), per_ns(self.to));
        let inside = from * x + (to - from) * x * x / (2.0 * self.length_ns as f64);
        let guess = self.integral.floor() + (self.integral.fraction() + inside).max(0.0).ceil() as u64;
        let mut count = guess.clamp(self.before, self.until);
        while count > self.before && self.time_of(count - 1) >= until_ns {
            count -= 1;
        }
        while count < self.until && self.time_of(count) < until_ns {
            count += 1;
        }
        count
    }
}

/// Iterations per nanosecond.
fn per_ns(rate: Rate) -> f64 {
    rate.iterations as f64 / (rate.per_ms.max(1) as f64 * 1e6)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A count of iterations as an exact fraction in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    num: u128,
    den: u128,
}

impl Fraction {
    const ZERO: Self = Self { num: 0, den: 1 };

    fn new(num: u128, den: u128) -> Self {
        let divisor = gcd(num, den);
        Self {
            num: num / divisor,
            den: den / divisor,
        }
    }

    /// The integral of a rate that goes evenly from one to the other: `(from + to) / 2 · length`.
    fn area(from: Rate, to: Rate, length_ns: u64) -> Self {
        let (p, q) = (u128::from(from.per_ms.max(1)), u128::from(to.per_ms.max(1)));
        let sum = Self::new(u128::from(from.iterations) * q + u128::from(to.iterations) * p, p * q);
        let length = Self::new(length_ns.into(), 2 * NS_PER_MS);
        let (left, right) = (Self::new(sum.num, length.den), Self::new(length.num, sum.den));
        match (left.num.checked_mul(right.num), left.den.checked_mul(right.den)) {
            (Some(num), Some(den)) => Self::new(num, den),
            _ => Self::coarse(sum.value() * length.value()),
        }
    }

    fn plus(self, other: Self) -> Self {
        let exact = || {
            let left = self.num.checked_mul(other.den)?;
            let right = other.num.checked_mul(self.den)?;
            Some(Self::new(left.checked_add(right)?, self.den.checked_mul(other.den)?))
        };
        exact().unwrap_or_else(|| Self::coarse(self.value() + other.value()))
    }

    fn coarse(value: f64) -> Self {
        Self::new((value * COARSE as f64) as u128, COARSE)
    }

    fn value(self) -> f64 {
        self.num as f64 / self.den as f64
    }

    fn ceil(self) -> u64 {
        u64::try_from(self.num.div_ceil(self.den)).unwrap_or(u64::MAX)
    }

    fn floor(self) -> u64 {
        u64::try_from(self.num / self.den).unwrap_or(u64::MAX)
    }

    /// What `floor` leaves, 0 to below 1.
    fn fraction(self) -> f64 {
        (self.num % self.den) as f64 / self.den as f64
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::Arrivals;
    use crate::model::load::{Executor, Rate, RateStage, Segment, Users};
    use proptest::prelude::*;
    use std::time::Duration;

    const USERS: Users = Users {
        pre_allocated: 1,
        max: 1,
    };

    fn per_second(iterations: u64) -> Rate {
        Rate {
            iterations,
            per_ms: 1_000,
        }
    }

    fn constant(rate: Rate, seconds: u64) -> Arrivals {
        Arrivals::new(&Executor::ConstantArrivalRate {
            rate,
            duration: Duration::from_secs(seconds),
            users: USERS,
        })
        .expect("an open executor")
    }

    fn ramping(start: Rate, stages: &[(Rate, Duration)]) -> Arrivals {
        let stages = stages
            .iter()
            .map(|(target, duration)| RateStage {
                target: *target,
                duration: *duration,
            })
            .collect();
        Arrivals::new(&Executor::RampingArrivalRate {
            start,
            stages,
            users: USERS,
        })
        .expect("an open executor")
    }

    #[test]
    fn a_constant_rate_is_exact() {
        let arrivals = constant(per_second(500), 10);
        assert_eq!(arrivals.total(), 5_000);
        assert_eq!(arrivals.time_of(0), Some(Duration::ZERO));
        assert_eq!(arrivals.time_of(1), Some(Duration::from_millis(2)));
        assert_eq!(arrivals.time_of(4_999), Some(Duration::from_millis(9_998)));
        assert_eq!(arrivals.time_of(5_000), None);
        assert_eq!(arrivals.count_until(Duration::from_secs(1)), 500);
    }

    #[test]
    fn slow_rates_and_zero_rates() {
        let third = constant(
            Rate {
                iterations: 1,
                per_ms: 3_000,
            },
            10,
        );
        assert_eq!(third.total(), 4, "at 0, 3, 6 and 9 s, as in k6");
        assert_eq!(constant(per_second(0), 10).total(), 0);
        assert_eq!(ramping(per_second(5), &[]).total(), 0);
    }

    #[test]
    fn stages_ramp_jump_and_rest() {
        let arrivals = ramping(
            per_second(0),
            &[
                (per_second(0), Duration::from_secs(10)),
                (per_second(100), Duration::from_secs(2)),
                (per_second(10), Duration::ZERO),
                (per_second(10), Duration::from_secs(5)),
                (per_second(0), Duration::from_secs(4)),
            ],
        );
        assert_eq!(arrivals.total(), 100 + 50 + 20);
        assert_eq!(
            arrivals.time_of(0),
            Some(Duration::from_secs(10)),
            "nothing is due while the rate is 0"
        );
        assert_eq!(arrivals.count_until(Duration::from_secs(5)), 0);
        assert_eq!(arrivals.count_until(Duration::from_secs(11)), 25);
        assert_eq!(arrivals.time_of(100), Some(Duration::from_secs(12)));
        assert_eq!(arrivals.time_of(101), Some(Duration::from_millis(12_100)));
    }

    #[test]
    fn thirds_add_up_over_stages() {
        let rate = |iterations| Rate {
            iterations,
            per_ms: 3_000,
        };
        let hold = Duration::from_secs(1);
        let arrivals = ramping(rate(1), &[(rate(1), hold), (rate(1), hold), (rate(1), hold)]);
        assert_eq!(arrivals.total(), 1, "three thirds are one");
    }

    #[test]
    fn closed_executors_have_no_arrivals() {
        let executor = Executor::ConstantVus {
            vus: 1,
            duration: Duration::from_secs(1),
        };
        assert_eq!(Arrivals::new(&executor), None);
    }

    #[test]
    fn absurd_numbers_do_not_panic() {
        let huge = Rate {
            iterations: u64::MAX,
            per_ms: 1,
        };
        let odd = Rate {
            iterations: 7,
            per_ms: u64::MAX - 2,
        };
        let day = Duration::from_secs(86_400);
        let arrivals = ramping(huge, &[(odd, day), (huge, day), (per_second(1), Duration::MAX)]);
        assert!(arrivals.time_of(5).is_some());
        arrivals.count_until(day);
    }

    #[test]
    fn fractions_too_long_to_be_exact_are_right_to_an_iteration() {
        let rate = |iterations, per_ms| Rate { iterations, per_ms };
        let (first, second) = (rate((1 << 61) - 1, (1 << 58) + 1), rate((1 << 61) - 3, (1 << 58) + 3));
        let hold = Duration::from_secs(10);
        for (stages, total) in [(1, 80_000_u64), (3, 240_000)] {
            let stages: Vec<_> = [(second, hold), (first, hold), (second, hold)]
                .into_iter()
                .take(stages)
                .collect();
            let arrivals = ramping(first, &stages);
            assert!(arrivals.total().abs_diff(total) <= 1, "{}", arrivals.total());
        }
    }

    /// The integral of the rate over the first `seconds`.
    fn integral_until(start: Rate, stages: &[(Rate, Duration)], seconds: f64) -> f64 {
        let (mut from, mut left, mut sum) = (start.per_second(), seconds, 0.0);
        for (rate, length) in stages {
            let (length, to) = (length.as_secs_f64(), rate.per_second());
            let inside = left.min(length);
            if inside > 0.0 {
                sum += from * inside + (to - from) * inside * inside / (2.0 * length);
            }
            (from, left) = (to, left - inside);
        }
        sum
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        let units = prop_oneof![Just(1_u64), Just(1_000), Just(3_000), Just(7_000), Just(60_000)];
        (0_u64..400, units).prop_map(|(iterations, per_ms)| Rate {
            iterations: iterations.min(per_ms * 2),
            per_ms,
        })
    }

    proptest! {
        #[test]
        fn arrivals_are_ordered_and_as_many_as_the_integral_of_the_rate(
            start in any_rate(),
            stages in prop::collection::vec((any_rate(), 0_u64..5_000), 1..5),
            at in 0_u64..20_000,
        ) {
            let timed: Vec<_> = stages.iter().map(|(rate, ms)| (*rate, Duration::from_millis(*ms))).collect();
            let arrivals = ramping(start, &timed);
            let (mut from, mut integral) = (start.per_second(), 0.0);
            for (rate, ms) in &stages {
                integral += (from + rate.per_second()) / 2.0 * (*ms as f64 / 1e3);
                from = rate.per_second();
            }
            prop_assert!((arrivals.total() as f64 - integral) > -1e-6 && (arrivals.total() as f64) < integral + 1.0 + 1e-6);
            let times: Vec<Duration> = (0..arrivals.total()).map_while(|k| arrivals.time_of(k)).collect();
            for (k, time) in times.iter().enumerate() {
                let due = integral_until(start, &timed, time.as_secs_f64());
                prop_assert!((due - k as f64).abs() < 1e-4, "{k} at {time:?}, when {due} are due");
            }
            prop_assert_eq!(times.len() as u64, arrivals.total());
            prop_assert!(times.is_sorted());
            prop_assert!(times.last().is_none_or(|last| *last < arrivals.duration()));
            let at = Duration::from_millis(at);
            prop_assert_eq!(arrivals.count_until(at), times.iter().filter(|time| **time < at).count() as u64);
        }

        #[test]
        fn s39_all_workers_together_make_every_arrival_once(rate in any_rate(), count in 1_u32..6) {
            let arrivals = constant(rate, 3);
            let mut all: Vec<u64> =
                (0..count).flat_map(|index| arrivals.own(Segment { index, count }).map(|(k, _)| k).collect::<Vec<_>>()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..arrivals.total()).collect::<Vec<_>>());
        }
    }
}
