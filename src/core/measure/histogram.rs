//! Histogram of nanoseconds with an exact sum beside it. Percentiles come from merged histograms, never from means.

use hdrhistogram::Histogram as Hdr;

/// Lowest value told apart: 64 ns.
pub const LOWEST_NS: u64 = 64;
/// Highest value kept as it is; above it is counted in [`Histogram::clamped`]. One hour.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;

/// How fine a histogram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 3 significant digits, error ≤ 0.1 % of the value: what reports and thresholds rank.
    Fine,
    /// 2 significant digits: the parts of a request.
    Coarse,
}

impl Precision {
    fn digits(self) -> u8 {
        match self {
            Self::Fine => 3,
            Self::Coarse => 2,
        }
    }
}

/// A mergeable distribution of durations in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    hdr: Hdr<u64>,
    precision: Precision,
    sum_ns: u128,
    clamped: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new(precision: Precision) -> Self {
        let hdr = Hdr::new_with_bounds(LOWEST_NS, HIGHEST_NS, precision.digits())
            .expect("the bounds are constants that hdrhistogram accepts");
        Self {
            hdr,
            precision,
            sum_ns: 0,
            clamped: 0,
        }
    }

    /// Adds one value; above [`HIGHEST_NS`] it is kept as that and counted as clamped. Never allocates.
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        if value_ns > HIGHEST_NS {
            self.clamped += 1;
        }
        self.sum_ns += u128::from(value_ns);
        self.hdr.saturating_record(value_ns.min(HIGHEST_NS));
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.hdr.len()
    }

    /// Exact sum of all values.
    pub fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// How many values were above [`HIGHEST_NS`].
    pub fn clamped(&self) -> u64 {
        self.clamped
    }
}
