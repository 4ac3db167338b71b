//! The last hour, day and week, in buckets: what starts found in each.

use std::collections::BTreeMap;

use super::concurrency::Concurrency;
use crate::clock::Timestamp;

/// The length of a bucket, and how many make a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shelf {
    /// The name of the period, and of the buckets in the store.
    pub(super) name: &'static str,
    /// The length of a bucket.
    bucket_millis: u64,
    /// How many whole buckets make the period.
    buckets: u64,
}

/// The shelves, from the shortest period to the longest.
pub(super) const SHELVES: [Shelf; 3] = [
    Shelf {
        name: "hour",
        bucket_millis: 5 * 60_000,
        buckets: 12,
    },
    Shelf {
        name: "day",
        bucket_millis: 3_600_000,
        buckets: 24,
    },
    Shelf {
        name: "week",
        bucket_millis: 24 * 3_600_000,
        buckets: 7,
    },
];

/// Buckets in this process's memory.
#[derive(Debug, Default)]
pub(super) struct Periods([BTreeMap<u64, Concurrency>; 3]);

// === impl Shelf ===

impl Shelf {
    /// The number of the bucket at that time.
    pub(super) const fn bucket(self, now: Timestamp) -> u64 {
        now.as_millis() / self.bucket_millis
    }

    /// The first bucket of the period that ends now. The period is up to a bucket longer.
    pub(super) const fn first(self, now: Timestamp) -> u64 {
        self.bucket(now).saturating_sub(self.buckets)
    }

    /// How long a bucket is needed.
    pub(super) const fn kept_millis(self) -> u64 {
        (self.buckets + 2) * self.bucket_millis
    }
}

// === impl Periods ===

impl Periods {
    /// Adds what starts found just now.
    pub(super) fn add(&mut self, found: &Concurrency, now: Timestamp) {
        for (shelf, buckets) in SHELVES.iter().zip(&mut self.0) {
            buckets.entry(shelf.bucket(now)).or_default().merge(found);
            *buckets = buckets.split_off(&shelf.first(now));
        }
    }

    /// Puts a bucket in the place of the one that is there.
    pub(super) fn put(&mut self, shelf: Shelf, bucket: u64, found: Concurrency, now: Timestamp) {
        let place = SHELVES.iter().position(|known| *known == shelf);
        if let Some(buckets) = place.and_then(|place| self.0.get_mut(place)) {
            buckets.insert(bucket, found);
            *buckets = buckets.split_off(&shelf.first(now));
        }
    }

    /// Whether a bucket is there.
    pub(super) fn has(&self, shelf: Shelf, bucket: u64) -> bool {
        let mut shelves = SHELVES.iter().zip(&self.0);
        shelves.any(|(known, buckets)| *known == shelf && buckets.contains_key(&bucket))
    }

    /// The sum of each period that ends now, with its name.
    pub(super) fn sums(&self, now: Timestamp) -> [(&'static str, Concurrency); 3] {
        let sums = SHELVES.iter().zip(&self.0).map(|(shelf, buckets)| {
            let mut sum = Concurrency::default();
            buckets
                .range(shelf.first(now)..)
                .for_each(|(_, found)| sum.merge(found));
            (shelf.name, sum)
        });
        let mut sums = sums;
        std::array::from_fn(|_| sums.next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_period_forgets_in_its_own_time() {
        let mut periods = Periods::default();
        let at = |hours: u64| Timestamp::from_millis(1_700_000_000_000 + hours * 3_600_000);
        let mut start = Concurrency::default();
        start.count(7, "", 1, false);
        let starts = |periods: &Periods, hours| {
            periods
                .sums(at(hours))
                .map(|(_, sum)| sum.effects(None).starts)
        };
        periods.add(&start, at(0));
        assert_eq!(starts(&periods, 0), [1, 1, 1]);
        periods.add(&start, at(2));
        assert_eq!(starts(&periods, 2), [1, 2, 2]);
        periods.add(&start, at(30));
        assert_eq!(starts(&periods, 30), [1, 1, 3]);
        assert_eq!(starts(&periods, 30 + 9 * 24), [0, 0, 0]);
    }
}
