//! Histogram of nanoseconds with exact count, sum, minimum and maximum beside it. Percentiles come from merged histograms, never
//! from means.
//!
//! Log-linear buckets as in HdrHistogram (2,048 and 256 sub-buckets of 64 ns), counted in pages of 64 buckets that are made when
//! first used: a series whose values span three powers of two takes 25 kB, not the 220 kB of a dense table up to an hour, and a worker can
//! hold one per series and timing. [`Histogram::clear`] keeps the pages, so that a recorder in steady state never allocates. One that was
//! read from bytes is a list of its buckets until something is added to it: most are only merged into another, bucket by bucket.

use super::wire::{Reader, WireError, put_u64, put_u128};
use core::cmp::Ordering;

/// Lowest value told apart: 64 ns.
pub const LOWEST_NS: u64 = 64;
/// Highest value kept as it is; above it is counted in [`Histogram::clamped`]. One hour.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;

/// Buckets of a page: 512 bytes, so that a lone outlier costs little.
const PAGE: usize = 64;

/// Buckets up to which what was read stays a list: to go through so many takes less time than to make pages for them.
const LISTED_MAX: usize = 1_024;

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

    /// The middle of a bucket, in nanoseconds. What cannot be told from nothing is nothing: a connection that was there already
    /// took no time to be made.
    fn middle(self, index: usize) -> u64 {
        if index == 0 {
            return 0;
        }
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
    /// Buckets with their counts, ascending, as they were read. Where there are some, there are no pages.
    listed: Vec<(u32, u64)>,
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
            listed: Vec::new(),
        }
    }

    /// How fine it is.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Adds one value; above [`HIGHEST_NS`] it is ranked as that and counted as clamped. Allocates only on the first value of a page.
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        self.record_many(value_ns, 1);
    }

    /// Adds one value `count` times.
    #[inline]
    pub fn record_many(&mut self, value_ns: u64, count: u64) {
        if count == 0 {
            return;
        }
        let mut ranked = value_ns;
        if value_ns > HIGHEST_NS {
            self.clamped += count;
            ranked = HIGHEST_NS;
        }
        self.count += count;
        self.sum_ns += u128::from(value_ns) * u128::from(count);
        self.min_ns = self.min_ns.min(value_ns);
        self.max_ns = self.max_ns.max(value_ns);
        let index = self.precision.index(ranked);
        match self.pages.get_mut(index / PAGE) {
            Some(Some(page)) => page[index % PAGE] += count,
            _ => self.page(index / PAGE)[index % PAGE] += count,
        }
    }

    #[cold]
    fn page(&mut self, number: usize) -> &mut [u64; PAGE] {
        for (index, count) in std::mem::take(&mut self.listed) {
            self.page(index as usize / PAGE)[index as usize % PAGE] = count;
        }
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
        if self.precision != other.precision {
            for (index, count) in other.buckets() {
                let value_ns = match index {
                    _ if index == other.precision.index(other.min_ns.min(HIGHEST_NS)) => other.min_ns,
                    _ if index == other.precision.index(other.max_ns.min(HIGHEST_NS)) => other.max_ns,
                    _ => other.precision.middle(index),
                };
                self.add(self.precision.index(value_ns.min(HIGHEST_NS)), count);
            }
        } else if self.count == 0 && self.pages.is_empty() {
            self.pages.clone_from(&other.pages);
            self.listed.clone_from(&other.listed);
        } else if self.pages.is_empty()
            && other.pages.is_empty()
            && self.listed.len() + other.listed.len() <= LISTED_MAX
        {
            self.listed = union(&self.listed, &other.listed);
        } else {
            for (index, count) in &other.listed {
                self.add(*index as usize, *count);
            }
            for (number, theirs) in other.pages.iter().enumerate() {
                let Some(theirs) = theirs else { continue };
                let ours = self.page(number);
                for (ours, theirs) in ours.iter_mut().zip(theirs.iter()) {
                    *ours = ours.saturating_add(*theirs);
                }
            }
        }
        self.count = self.count.saturating_add(other.count);
        self.clamped = self.clamped.saturating_add(other.clamped);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    fn add(&mut self, index: usize, count: u64) {
        let bucket = match self.pages.get_mut(index / PAGE) {
            Some(Some(page)) => &mut page[index % PAGE],
            _ => &mut self.page(index / PAGE)[index % PAGE],
        };
        *bucket = bucket.saturating_add(count);
    }

    fn buckets(&self) -> impl Iterator<Item = (usize, u64)> {
        let listed = self.listed.iter().map(|(index, count)| (*index as usize, *count));
        let pages = self.pages.iter().enumerate();
        let paged = pages
            .filter_map(|(number, page)| page.as_ref().map(|page| (number, page)))
            .flat_map(|(number, page)| {
                page.iter()
                    .enumerate()
                    .map(move |(at, count)| (number * PAGE + at, *count))
            })
            .filter(|(_, count)| *count > 0);
        listed.chain(paged)
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
            let listed = u32::try_from(index).map_err(|_| WireError::Malformed("bucket is out of bounds"))?;
            self.listed.push((listed, count));
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

/// What two ascending lists of buckets hold together.
fn union(left: &[(u32, u64)], right: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let mut both = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left, right);
    while let ([mine, more_left @ ..], [theirs, more_right @ ..]) = (left, right) {
        both.push(match mine.0.cmp(&theirs.0) {
            Ordering::Less => *mine,
            Ordering::Greater => *theirs,
            Ordering::Equal => (mine.0, mine.1.saturating_add(theirs.1)),
        });
        if mine.0 <= theirs.0 {
            left = more_left;
        }
        if mine.0 >= theirs.0 {
            right = more_right;
        }
    }
    both.extend_from_slice(left);
    both.extend_from_slice(right);
    both
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

#[cfg(test)]
mod tests {
    use super::{HIGHEST_NS, Histogram, LOWEST_NS, Precision, Quantile};
    use crate::measure::testing::{histogram, mangled};
    use proptest::prelude::*;

    fn of(precision: Precision, values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new(precision);
        for value in values {
            histogram.record(*value);
        }
        histogram
    }

    fn read_back(histogram: &Histogram) -> Histogram {
        let mut bytes = Vec::new();
        histogram.encode(&mut bytes);
        Histogram::decode(&bytes).unwrap()
    }

    /// The value of the nearest rank among raw samples.
    fn exact(sorted: &[u64], per_mille: u64) -> u64 {
        let rank = (sorted.len() as u64 * per_mille).div_ceil(1_000).max(1);
        sorted[rank as usize - 1]
    }

    /// Distributions that break histograms: one value, two far apart, borders of buckets, powers of two, the whole range, a heavy tail.
    fn adversarial() -> impl Strategy<Value = Vec<u64>> {
        let any = 1..HIGHEST_NS;
        let power = (6_u32..41, -2_i64..3).prop_map(|(power, off)| (1_u64 << power).saturating_add_signed(off));
        let log_uniform = (0.0_f64..28.9).prop_map(|exponent| exponent.exp() as u64);
        let tail = (1_u32..1_000_000).prop_map(|draw| 200_000_000_000_u64 / u64::from(draw));
        prop_oneof![
            (any.clone(), 1_usize..500).prop_map(|(value, count)| vec![value; count]),
            (any.clone(), any.clone(), 1_usize..500, 1_usize..500).prop_map(|(low, high, many, few)| {
                let mut values = vec![low; many];
                values.extend(vec![high; few]);
                values
            }),
            prop::collection::vec(power, 1..500),
            prop::collection::vec(log_uniform, 1..2_000),
            prop::collection::vec(tail, 1..2_000),
            prop::collection::vec(any, 1..2_000),
        ]
    }

    #[test]
    fn s51_what_took_no_time_is_told_as_none() {
        let mut values = vec![0; 90];
        values.extend([100_000; 10]);
        for precision in [Precision::Fine, Precision::Coarse] {
            let histogram = of(precision, &values);
            assert_eq!(
                (histogram.quantile(0.5), histogram.quantile(1.0)),
                (Some(0), Some(100_000))
            );
        }
        assert_eq!(
            of(Precision::Fine, &[60, 60, 900]).quantile(0.5),
            Some(60),
            "never below the least"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn s51_percentiles_are_those_of_the_raw_samples(mut values in adversarial()) {
            let fine = of(Precision::Fine, &values);
            let coarse = of(Precision::Coarse, &values);
            values.sort_unstable();
            for per_mille in [0, 1, 10, 250, 500, 750, 900, 950, 990, 999, 1_000] {
                let truth = exact(&values, per_mille);
                for (histogram, permitted) in [(&fine, 0.001), (&coarse, 0.008)] {
                    let told = histogram.quantile(per_mille as f64 / 1_000.0).unwrap();
                    let error = told.abs_diff(truth) as f64;
                    prop_assert!(error <= (truth as f64 * permitted).max(LOWEST_NS as f64), "p{per_mille}: {told} for {truth}");
                }
            }
            let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
            prop_assert_eq!(fine.sum_ns(), sum);
            prop_assert_eq!(fine.mean_ns(), Some(sum as f64 / values.len() as f64));
            prop_assert_eq!((fine.min_ns(), fine.max_ns()), (values.first().copied(), values.last().copied()));
        }

        #[test]
        fn s44_merging_is_recording_everything_in_one(left in adversarial(), right in adversarial()) {
            let (one, other) = (of(Precision::Fine, &left), of(Precision::Fine, &right));
            let all: Vec<u64> = left.into_iter().chain(right.clone()).collect();
            let all = of(Precision::Fine, &all);
            // Also where one or both came over the wire.
            for one in [one.clone(), read_back(&one)] {
                for other in [other.clone(), read_back(&other)] {
                    let mut merged = one.clone();
                    merged.merge(&other);
                    prop_assert_eq!(&merged, &all);
                    let mut first = Histogram::new(Precision::Fine);
                    first.merge(&merged);
                    prop_assert_eq!(&first, &all);
                }
                let mut recorded = one;
                right.iter().for_each(|value| recorded.record(*value));
                prop_assert_eq!(&recorded, &all);
                recorded.clear();
                prop_assert_eq!(recorded, Histogram::new(Precision::Fine));
            }
        }

        #[test]
        fn s48_merging_is_associative_and_commutative(a in histogram(), b in histogram(), c in histogram()) {
            let merge = |left: &Histogram, right: &Histogram| {
                let mut sum = left.clone();
                sum.merge(right);
                sum
            };
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
            prop_assert_eq!(merge(&a, &Histogram::new(Precision::Fine)), a);
        }

        #[test]
        fn what_is_encoded_decodes(histogram in histogram()) {
            let mut bytes = Vec::new();
            histogram.encode(&mut bytes);
            prop_assert_eq!(Histogram::decode(&bytes), Ok(histogram));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Histogram::decode(&bytes);
        }

        #[test]
        fn what_decodes_of_mangled_bytes_still_adds_up(histogram in histogram(), mangle in mangled()) {
            let mut bytes = Vec::new();
            histogram.encode(&mut bytes);
            if let Ok(decoded) = Histogram::decode(&mangle.apply(bytes)) {
                prop_assert_eq!(decoded.buckets().map(|(_, count)| u128::from(count)).sum::<u128>(), u128::from(decoded.count()));
                let _ = decoded.quantile(0.5);
            }
        }

        #[test]
        fn merging_a_coarser_one_keeps_every_sum(fine in adversarial(), coarse in adversarial()) {
            let mut merged = of(Precision::Fine, &fine);
            merged.merge(&of(Precision::Coarse, &coarse));
            let mut bytes = Vec::new();
            merged.encode(&mut bytes);
            prop_assert_eq!(merged.count(), (fine.len() + coarse.len()) as u64);
            prop_assert_eq!(Histogram::decode(&bytes), Ok(merged));
        }

        #[test]
        fn buckets_follow_each_other_and_hold_their_middle(value in 0..HIGHEST_NS) {
            for precision in [Precision::Fine, Precision::Coarse] {
                let index = precision.index(value);
                prop_assert_eq!(precision.index(precision.middle(index)), index);
                prop_assert!(precision.index(value + 1) - index <= 1);
            }
        }
    }

    #[test]
    fn s59_what_was_dropped_ranks_above_everything() {
        let histogram = of(Precision::Fine, &[1_000_000; 90]);
        let at = |q| histogram.quantile_with_overflow(q, 10);
        assert_eq!(at(0.9), Some(Quantile::Value(1_000_000)));
        assert_eq!(at(0.901), Some(Quantile::AboveAll));
        assert_eq!(at(1.0), Some(Quantile::AboveAll));
        let none = Histogram::new(Precision::Fine);
        assert_eq!(none.quantile_with_overflow(0.5, 0), None);
        assert_eq!(none.quantile_with_overflow(0.5, 1), Some(Quantile::AboveAll));
        assert!(Quantile::Value(u64::MAX) < Quantile::AboveAll);
    }

    #[test]
    fn a_whole_rank_is_not_rounded_up() {
        let values: Vec<u64> = (1..=100).map(|ms| ms * 1_000_000).collect();
        let histogram = of(Precision::Fine, &values);
        // 0.07 * 100 is 7.000000000000001 in floating point.
        for percent in 1..=100_u64 {
            let told = histogram.quantile(percent as f64 / 100.0).unwrap();
            assert!(
                told.abs_diff(percent * 1_000_000) <= 1_000 * percent,
                "p{percent}: {told}"
            );
        }
    }

    #[test]
    fn above_the_highest_is_counted_as_clamped_and_summed_exactly() {
        let histogram = of(Precision::Fine, &[HIGHEST_NS, HIGHEST_NS + 1, u64::MAX]);
        assert_eq!(histogram.clamped(), 2);
        assert_eq!(
            histogram.sum_ns(),
            u128::from(HIGHEST_NS) * 2 + 1 + u128::from(u64::MAX)
        );
        assert_eq!(histogram.max_ns(), Some(u64::MAX));
        let mut bytes = Vec::new();
        histogram.encode(&mut bytes);
        assert_eq!(Histogram::decode(&bytes), Ok(histogram));
    }

    #[test]
    fn clearing_keeps_the_memory_and_nothing_else() {
        let mut histogram = of(Precision::Coarse, &[1, 1_000, 1_000_000]);
        let pages = histogram.pages.len();
        histogram.clear();
        assert_eq!(histogram, Histogram::new(Precision::Coarse));
        assert_eq!(histogram.pages.len(), pages);
        assert_eq!(histogram.quantile(0.5), None);
    }

    #[test]
    fn a_series_of_usual_spread_is_small() {
        let mut histogram = Histogram::new(Precision::Fine);
        for micros in 500..4_000 {
            histogram.record(micros * 1_000);
        }
        let pages = histogram.pages.iter().flatten().count();
        assert!(pages * 512 < 26_000, "{pages} pages");
    }

    #[test]
    fn lies_are_refused() {
        let mut bytes = Vec::new();
        of(Precision::Fine, &[1_000, 2_000]).encode(&mut bytes);
        assert!(Histogram::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Histogram::decode(&[&bytes[..], &[0]].concat()).is_err());
        // A count of 2^63 with nothing behind it allocates nothing.
        assert!(Histogram::decode(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(Histogram::decode(&[2, 0]).is_err());
    }
}
