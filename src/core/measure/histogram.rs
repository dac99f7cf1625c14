//! Histogram of nanoseconds with exact count, sum, minimum and maximum beside it. Percentiles come from merged histograms, never
//! from means.
//!
//! Log-linear buckets as in HdrHistogram (2,048 and 256 sub-buckets of 64 ns), counted in pages of 64 buckets that are made when
//! first used: a series whose values span three powers of two takes 25 kB, not the 220 kB of a dense table up to an hour, and a worker can
//! hold one per series and timing. [`Histogram::clear`] keeps the pages, so that a recorder in steady state never allocates.

use super::wire::{Reader, WireError, put_u64, put_u128};

/// Lowest value told apart: 64 ns.
pub const LOWEST_NS: u64 = 64;
/// Highest value kept as it is; above it is counted in [`Histogram::clamped`]. One hour.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;

/// Buckets of a page: 512 bytes, so that a lone outlier costs little.
const PAGE: usize = 64;

/// How fine a histogram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 3 significant digits, buckets ≤ 0.1 % of the value wide: what reports and thresholds rank.
    Fine,
    /// 2 significant digits, buckets ≤ 0.8 % wide: the parts of a request.
    Coarse,
}

impl Precision {
    /// log2 of the sub-buckets of each power of two.
    #[inline]
    const fn bits(self) -> u32 {
        match self {
            Self::Fine => 10,
            Self::Coarse => 7,
        }
    }

    /// The bucket of a value.
    #[inline]
    const fn index(self, value_ns: u64) -> usize {
        let units = value_ns / LOWEST_NS;
        let shift = (u64::BITS - units.leading_zeros()).saturating_sub(self.bits() + 1);
        ((shift as usize) << self.bits()) + (units >> shift) as usize
    }

    /// How many buckets there are.
    const fn buckets(self) -> usize {
        self.index(HIGHEST_NS) + 1
    }

    /// The middle of a bucket, in nanoseconds.
    fn middle(self, index: usize) -> u64 {
        let shift = (index >> self.bits()).saturating_sub(1);
        let units = (index - (shift << self.bits())) as u64;
        let width = LOWEST_NS << shift;
        units * width + width / 2
    }
}

/// Where a quantile lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantile {
    /// Among the recorded values, in nanoseconds.
    Value(u64),
    /// Among what was never answered: slower than everything recorded (promise 59).
    AboveAll,
}

impl Quantile {
    /// In milliseconds; infinite above all.
    pub fn as_ms(self) -> f64 {
        match self {
            Self::Value(value_ns) => value_ns as f64 / 1e6,
            Self::AboveAll => f64::INFINITY,
        }
    }
}

/// A mergeable distribution of durations in nanoseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    precision: Precision,
    count: u64,
    clamped: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
    pages: Vec<Option<Box<[u64; PAGE]>>>,
}

impl Histogram {
    /// An empty one; allocates nothing.
    pub const fn new(precision: Precision) -> Self {
        Self {
            precision,
            count: 0,
            clamped: 0,
            sum_ns: 0,
            min_ns: u64::MAX,
            max_ns: 0,
            pages: Vec::new(),
        }
    }

    /// How fine it is.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Adds one value; above [`HIGHEST_NS`] it is ranked as that and counted as clamped. Allocates only on the first value of a page.
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        let mut ranked = value_ns;
        if value_ns > HIGHEST_NS {
            self.clamped += 1;
            ranked = HIGHEST_NS;
        }
        self.count += 1;
        self.sum_ns += u128::from(value_ns);
        self.min_ns = self.min_ns.min(value_ns);
        self.max_ns = self.max_ns.max(value_ns);
        let index = self.precision.index(ranked);
        match self.pages.get_mut(index / PAGE) {
            Some(Some(page)) => page[index % PAGE] += 1,
            _ => self.page(index / PAGE)[index % PAGE] += 1,
        }
    }

    #[cold]
    fn page(&mut self, number: usize) -> &mut [u64; PAGE] {
        if self.pages.len() <= number {
            self.pages.resize_with(number + 1, || None);
        }
        self.pages[number].get_or_insert_with(|| Box::new([0; PAGE]))
    }

    /// Makes it empty and keeps its memory for the next values.
    pub fn clear(&mut self) {
        for page in self.pages.iter_mut().flatten() {
            page.fill(0);
        }
        let pages = std::mem::take(&mut self.pages);
        *self = Self {
            pages,
            ..Self::new(self.precision)
        };
    }

    /// Adds all values of another; associative and commutative among equal precisions. Where precisions differ, values are taken at the
    /// middle of their buckets.
    pub fn merge(&mut self, other: &Self) {
        if self.precision == other.precision {
            for (number, theirs) in other.pages.iter().enumerate() {
                let Some(theirs) = theirs else { continue };
                let ours = self.page(number);
                for (ours, theirs) in ours.iter_mut().zip(theirs.iter()) {
                    *ours = ours.saturating_add(*theirs);
                }
            }
        } else {
            for (index, count) in other.buckets() {
                let value_ns = match index {
                    _ if index == other.precision.index(other.min_ns.min(HIGHEST_NS)) => other.min_ns,
                    _ if index == other.precision.index(other.max_ns.min(HIGHEST_NS)) => other.max_ns,
                    _ => other.precision.middle(index),
                };
                self.add(self.precision.index(value_ns.min(HIGHEST_NS)), count);
            }
        }
        self.count = self.count.saturating_add(other.count);
        self.clamped = self.clamped.saturating_add(other.clamped);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    fn add(&mut self, index: usize, count: u64) {
        let bucket = &mut self.page(index / PAGE)[index % PAGE];
        *bucket = bucket.saturating_add(count);
    }

    fn buckets(&self) -> impl Iterator<Item = (usize, u64)> {
        let pages = self.pages.iter().enumerate();
        pages
            .filter_map(|(number, page)| page.as_ref().map(|page| (number, page)))
            .flat_map(|(number, page)| {
                page.iter()
                    .enumerate()
                    .map(move |(at, count)| (number * PAGE + at, *count))
            })
            .filter(|(_, count)| *count > 0)
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Exact sum of all values.
    pub fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// How many values were above [`HIGHEST_NS`].
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// The exact lowest value.
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min_ns)
    }

    /// The exact highest value.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// The exact mean, in nanoseconds.
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64)
    }

    /// The value of the nearest rank: the smallest recorded value such that at least `q` (0 to 1) of all are not above it. Within half a
    /// bucket of the exact one, and never outside the exact minimum and maximum.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        match self.quantile_with_overflow(q, 0)? {
            Quantile::Value(value_ns) => Some(value_ns),
            Quantile::AboveAll => None,
        }
    }

    /// Like [`Histogram::quantile`], over the recorded values and `overflow` more that rank above all of them (promise 59). `None`: neither.
    pub fn quantile_with_overflow(&self, q: f64, overflow: u64) -> Option<Quantile> {
        let total = self.count.saturating_add(overflow);
        if total == 0 {
            return None;
        }
        // A product that should be whole may come out a hair above it, and would be rounded one rank up.
        let rank = (q.clamp(0.0, 1.0) * total as f64 * (1.0 - 1e-12)).ceil().max(1.0) as u64;
        if rank > self.count {
            return Some(Quantile::AboveAll);
        }
        if rank == self.count {
            return Some(Quantile::Value(self.max_ns));
        }
        let mut seen: u64 = 0;
        for (index, count) in self.buckets() {
            seen = seen.saturating_add(count);
            if seen >= rank {
                let middle = self.precision.middle(index);
                return Some(Quantile::Value(middle.clamp(self.min_ns, self.max_ns)));
            }
        }
        Some(Quantile::Value(self.max_ns))
    }

    /// Appends its bytes: precision, sums, then the buckets in use as (distance, count).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.precision {
            Precision::Fine => 0,
            Precision::Coarse => 1,
        });
        put_u64(out, self.count);
        if self.count == 0 {
            return;
        }
        put_u64(out, self.clamped);
        put_u128(out, self.sum_ns);
        put_u64(out, self.min_ns);
        put_u64(out, self.max_ns - self.min_ns);
        let mut next = 0;
        for (index, count) in self.buckets() {
            put_u64(out, (index - next) as u64);
            put_u64(out, count);
            next = index + 1;
        }
    }

    /// Reads what [`Histogram::encode`] wrote, and checks bounds and totals: what it returns could have been recorded.
    ///
    /// # Errors
    /// When the bytes are no such thing.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let histogram = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(histogram)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let precision = match reader.byte()? {
            0 => Precision::Fine,
            1 => Precision::Coarse,
            _ => return Err(WireError::Malformed("precision is unknown")),
        };
        let mut histogram = Self::new(precision);
        histogram.count = reader.u64()?;
        if histogram.count == 0 {
            return Ok(histogram);
        }
        histogram.clamped = reader.u64()?;
        histogram.sum_ns = reader.u128()?;
        histogram.min_ns = reader.u64()?;
        histogram.max_ns = reader
            .u64()?
            .checked_add(histogram.min_ns)
            .ok_or(WireError::Malformed("maximum overflows"))?;
        histogram.read_buckets(reader)?;
        Ok(histogram)
    }

    fn read_buckets(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        let mut next = 0_usize;
        let mut seen: u64 = 0;
        let mut first = None;
        while seen < self.count {
            let distance = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
            let index = next.saturating_add(distance);
            if index >= self.precision.buckets() {
                return Err(WireError::Malformed("bucket is out of bounds"));
            }
            let count = reader.u64()?;
            seen = seen
                .checked_add(count)
                .filter(|seen| count > 0 && *seen <= self.count)
                .ok_or(WireError::Malformed("counts do not add up"))?;
            self.add(index, count);
            first.get_or_insert(index);
            next = index + 1;
        }
        let bucket = |value_ns: u64| self.precision.index(value_ns.min(HIGHEST_NS));
        let (least, most) = (
            u128::from(self.min_ns) * u128::from(self.count),
            u128::from(self.max_ns) * u128::from(self.count),
        );
        let fits = first == Some(bucket(self.min_ns))
            && next == bucket(self.max_ns) + 1
            && (least..=most).contains(&self.sum_ns)
            && self.clamped <= self.count;
        if fits {
            Ok(())
        } else {
            Err(WireError::Malformed("sums do not fit the counts"))
        }
    }
}

impl PartialEq for Histogram {
    /// Equal values; memory kept for later does not count.
    fn eq(&self, other: &Self) -> bool {
        (self.precision, self.count, self.clamped, self.sum_ns)
            == (other.precision, other.count, other.clamped, other.sum_ns)
            && (self.min_ns, self.max_ns) == (other.min_ns, other.max_ns)
            && self.buckets().eq(other.buckets())
    }
}
