//! Starts, refusals, displacements and releases of the last hour, minute by minute.

use std::collections::BTreeMap;

use super::wire::{Decoder, Encoder};
use crate::clock::Timestamp;

/// The length of a minute.
const MINUTE_MILLIS: u64 = 60_000;

/// The length of a cell: the last minute is made of cells.
const CELL_MILLIS: u64 = 5000;

/// How many cells make a minute.
const CELLS: u64 = MINUTE_MILLIS / CELL_MILLIS;

/// How many whole minutes are kept.
const MINUTES: u64 = 60;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedFor {
    /// All slots are taken.
    Full,
    /// All slots are taken, as far as this instance knows: the outage rule `local`.
    FullLocal,
    /// The session has ended.
    Ended,
    /// Another session took its slot.
    Displaced,
    /// An operator ended it.
    Operator,
    /// The session to take over can't be stopped from here.
    NotStoppable,
    /// The store could not answer, and the outage rule denies.
    Outage,
}

/// What is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MinuteCounts {
    /// Sessions that started.
    pub(super) starts: u64,
    /// Requests that were refused, or would have been.
    pub(super) refusals: u64,
    /// Sessions that gave way to another.
    pub(super) displacements: u64,
    /// Slots that were freed before their lease expired.
    pub(super) releases: u64,
}

/// The counts of the last hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Minutes {
    /// By minutes since 1970, in the store's time.
    minutes: BTreeMap<u64, MinuteCounts>,
    /// The refusals of each minute, by reason.
    reasons: BTreeMap<(u64, usize), u64>,
    /// The last cells, by their number since 1970.
    cells: BTreeMap<u64, MinuteCounts>,
}

// === impl RefusedFor ===

impl RefusedFor {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Full,
        Self::FullLocal,
        Self::Ended,
        Self::Displaced,
        Self::Operator,
        Self::NotStoppable,
        Self::Outage,
    ];

    /// The reason's name, as in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::FullLocal => "full_local",
            Self::Ended => "ended",
            Self::Displaced => "displaced",
            Self::Operator => "operator",
            Self::NotStoppable => "not_stoppable",
            Self::Outage => "outage",
        }
    }
}

// === impl MinuteCounts ===

impl MinuteCounts {
    /// Adds other counts.
    pub(super) const fn add(&mut self, other: &Self) {
        self.starts = self.starts.saturating_add(other.starts);
        self.refusals = self.refusals.saturating_add(other.refusals);
        self.displacements = self.displacements.saturating_add(other.displacements);
        self.releases = self.releases.saturating_add(other.releases);
    }

    /// The counts in bytes.
    fn encode(&self, encoder: &mut Encoder) {
        for count in [
            self.starts,
            self.refusals,
            self.displacements,
            self.releases,
        ] {
            encoder.number(count);
        }
    }

    /// The counts from bytes.
    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            starts: decoder.number()?,
            refusals: decoder.number()?,
            displacements: decoder.number()?,
            releases: decoder.number()?,
        })
    }
}

// === impl Minutes ===

impl Minutes {
    /// Counts something.
    pub(super) fn count(&mut self, counts: &MinuteCounts, now: Timestamp) {
        let (minute, cell) = (minute_of(now), now.as_millis() / CELL_MILLIS);
        self.minutes.entry(minute).or_default().add(counts);
        self.cells.entry(cell).or_default().add(counts);
        self.forget(now);
    }

    /// Counts a refusal for that reason.
    pub(super) fn refuse(&mut self, reason: RefusedFor, now: Timestamp) {
        let refused = MinuteCounts {
            refusals: 1,
            ..MinuteCounts::default()
        };
        self.count(&refused, now);
        *self
            .reasons
            .entry((minute_of(now), reason as usize))
            .or_default() += 1;
    }

    /// Adds what another instance has counted.
    pub(super) fn add(&mut self, other: &Self) {
        for (minute, counts) in &other.minutes {
            self.minutes.entry(*minute).or_default().add(counts);
        }
        for (cell, counts) in &other.cells {
            self.cells.entry(*cell).or_default().add(counts);
        }
        for (place, count) in &other.reasons {
            let sum = self.reasons.entry(*place).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// Forgets what is too old to be shown. It may be called with any time: an instance's clock and
    /// the store's differ, but not by an hour.
    fn forget(&mut self, now: Timestamp) {
        let oldest = minute_of(now).saturating_sub(MINUTES);
        if self
            .minutes
            .first_key_value()
            .is_some_and(|(minute, _)| *minute < oldest)
        {
            self.minutes = self.minutes.split_off(&oldest);
            self.reasons = self.reasons.split_off(&(oldest, 0));
        }
        let oldest = (now.as_millis() / CELL_MILLIS).saturating_sub(2 * CELLS);
        if self
            .cells
            .first_key_value()
            .is_some_and(|(cell, _)| *cell < oldest)
        {
            self.cells = self.cells.split_off(&oldest);
        }
    }

    /// The counts of the last 55 to 60 seconds.
    pub(super) fn last_minute(&self, now: Timestamp) -> MinuteCounts {
        let oldest = (now.as_millis() / CELL_MILLIS).saturating_sub(CELLS - 1);
        let mut sum = MinuteCounts::default();
        self.cells
            .range(oldest..)
            .for_each(|(_, counts)| sum.add(counts));
        sum
    }

    /// The last 60 whole minutes, the oldest first, each with its beginning.
    pub(super) fn whole_minutes(&self, now: Timestamp) -> Vec<(Timestamp, MinuteCounts)> {
        let this = minute_of(now);
        (this.saturating_sub(MINUTES)..this)
            .map(|minute| {
                let begins = Timestamp::from_millis(minute * MINUTE_MILLIS);
                (
                    begins,
                    self.minutes.get(&minute).cloned().unwrap_or_default(),
                )
            })
            .collect()
    }

    /// The refusals of the last hour by reason, without reasons that have none.
    pub(super) fn refusals(&self, now: Timestamp) -> BTreeMap<&'static str, u64> {
        let oldest = minute_of(now).saturating_sub(MINUTES);
        let mut sums = BTreeMap::new();
        for ((_, reason), count) in self.reasons.range((oldest, 0)..) {
            if let Some(reason) = RefusedFor::ALL.get(*reason) {
                *sums.entry(reason.as_str()).or_default() += count;
            }
        }
        sums
    }

    /// All counts in bytes.
    pub(super) fn encode(&self, encoder: &mut Encoder) {
        for counts in [&self.minutes, &self.cells] {
            encoder.count(counts.len());
            for (at, counts) in counts {
                encoder.number(*at);
                counts.encode(encoder);
            }
        }
        encoder.count(self.reasons.len());
        for ((minute, reason), count) in &self.reasons {
            encoder.number(*minute);
            encoder.count(*reason);
            encoder.number(*count);
        }
    }

    /// All counts from bytes.
    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        let mut minutes = Self::default();
        for counts in [&mut minutes.minutes, &mut minutes.cells] {
            for _ in 0..decoder.count()? {
                counts.insert(decoder.number()?, MinuteCounts::decode(decoder)?);
            }
        }
        for _ in 0..decoder.count()? {
            let place = (decoder.number()?, decoder.small()?);
            minutes.reasons.insert(place, decoder.number()?);
        }
        Some(minutes)
    }
}

/// The number of the minute since 1970.
const fn minute_of(now: Timestamp) -> u64 {
    now.as_millis() / MINUTE_MILLIS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_remembered_and_no_more() {
        let mut minutes = Minutes::default();
        let start = MinuteCounts {
            starts: 1,
            ..MinuteCounts::default()
        };
        let at = |seconds: u64| Timestamp::from_millis(6_000_000_000 + seconds * 1000);
        for seconds in 0..2 * 3600 {
            minutes.count(&start, at(seconds));
            minutes.refuse(RefusedFor::Full, at(seconds));
        }
        let now = at(2 * 3600 - 1);
        let whole = minutes.whole_minutes(now);
        assert_eq!(whole.len(), 60);
        assert!(
            whole
                .iter()
                .all(|(_, counts)| (counts.starts, counts.refusals) == (60, 60))
        );
        assert_eq!(minutes.last_minute(now).starts, 60);
        assert_eq!(minutes.refusals(now), BTreeMap::from([("full", 61 * 60)]));
        assert_eq!(minutes.minutes.len(), 61);
        let mut encoder = Encoder::default();
        minutes.encode(&mut encoder);
        let bytes = encoder.bytes();
        assert_eq!(Minutes::decode(&mut Decoder::new(&bytes)), Some(minutes));
    }
}
