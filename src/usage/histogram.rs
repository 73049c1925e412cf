//! How long how much was in use: percentiles out of few numbers.
//!
//! Up to 63 each number has a bucket of its own; above, each power of two is cut into 32, so that
//! a bucket is never wider than a thirty-second of what it holds.

use std::collections::BTreeMap;

/// Numbers below this have a bucket each.
const EXACT: u64 = 64;
/// Buckets of each power of two above: 2 to the power of this.
const SUB_BITS: u32 = 5;

/// The bucket of a number.
pub(super) fn bucket(used: u64) -> u64 {
    if used < EXACT {
        return used;
    }
    let power = used.ilog2();
    let shift = power - SUB_BITS;
    // The first power above EXACT is 2^6; each has 2^SUB_BITS buckets.
    EXACT
        + (u64::from(power - EXACT.ilog2()) << SUB_BITS)
        + ((used >> shift) & ((1 << SUB_BITS) - 1))
}

/// The greatest number of a bucket.
fn most(bucket: u64) -> u64 {
    if bucket < EXACT {
        return bucket;
    }
    let above = bucket - EXACT;
    let power = u32::try_from(above >> SUB_BITS).unwrap_or(u32::MAX) + EXACT.ilog2();
    let part = above & ((1 << SUB_BITS) - 1);
    let shift = power.saturating_sub(SUB_BITS);
    (((1 << SUB_BITS) | part) + 1).checked_shl(shift).map_or(u64::MAX, |end| end.saturating_sub(1))
}

/// Time by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    times: BTreeMap<u64, u64>,
    total: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, bucket: u64, time: u64) {
        *self.times.entry(bucket).or_default() += time;
        self.total += time;
    }

    /// Whatever is missing to this time was spent at 0.
    pub(super) fn fill_up_to(&mut self, total: u64) {
        if let Some(rest) = total.checked_sub(self.total).filter(|rest| *rest > 0) {
            self.add(0, rest);
        }
    }

    /// The least number that was not exceeded for so many thousandths of the time: never less than
    /// the truth, and by a thirty-second more at most. `peak` is the greatest that was seen.
    pub fn percentile(&self, thousandths: u64, peak: u64) -> u64 {
        let wanted = u128::from(self.total) * u128::from(thousandths);
        let mut passed: u128 = 0;
        for (bucket, time) in &self.times {
            passed += u128::from(*time) * 1000;
            if passed >= wanted {
                return most(*bucket).min(peak);
            }
        }
        peak
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buckets_are_narrow_and_in_order(used in 0..(1_u64 << 48)) {
            let most = most(bucket(used));
            prop_assert!(most >= used && most - used <= used / 32, "{used}: {most}");
            prop_assert_eq!(bucket(most), bucket(used));
            prop_assert_eq!(bucket(most + 1), bucket(used) + 1);
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_list(
            mut seen in prop::collection::vec(0..5_000_u64, 1..300),
            thousandths in 1..=1000_u64,
        ) {
            let mut histogram = Histogram::default();
            for used in &seen {
                histogram.add(bucket(*used), 1);
            }
            seen.sort_unstable();
            let rank = (seen.len() as u64 * thousandths).div_ceil(1000).max(1);
            let exact = seen[usize::try_from(rank).unwrap() - 1];
            let found = histogram.percentile(thousandths, *seen.last().unwrap());
            prop_assert!(found >= exact && found - exact <= exact / 32, "{found} for {exact}");
        }
    }

    #[test]
    fn nothing_seen_is_nothing() {
        assert_eq!(Histogram::default().percentile(950, 0), 0);
    }
}
