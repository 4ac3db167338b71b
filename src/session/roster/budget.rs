//! How often a user may displace: a burst, then one for each lease of a playback. Without it, fresh ids and a takeover would be no limit at all.

use std::time::Duration;

use super::{Roster, Terms};
use crate::clock::Timestamp;

/// The displacements of a user that are not refilled yet. At least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// How many they are.
    pub spent: u32,
    /// Since when the next one refills.
    pub since: Timestamp,
}

impl Budget {
    /// When the last of them is refilled.
    pub(super) fn full_at(self, terms: &Terms) -> Timestamp {
        self.since.after(terms.refill.saturating_mul(self.spent))
    }

    /// What is left of it: none if all are refilled. A clock that has stepped back begins to refill now.
    fn settled(self, terms: &Terms, now: Timestamp) -> Option<Self> {
        let since = self.since.min(now);
        let refill = terms.refill.max(Duration::from_millis(1));
        let refilled = now.since(since).as_millis() / refill.as_millis();
        let refilled = u32::try_from(refilled).unwrap_or(u32::MAX).min(self.spent);
        let left = Self {
            spent: self.spent - refilled,
            since: since.after(refill.saturating_mul(refilled)),
        };
        (left.spent > 0).then_some(left)
    }
}

impl Roster {
    /// How many displacements are not refilled yet.
    pub(super) fn spent(&self) -> u32 {
        self.budget.map_or(0, |budget| budget.spent)
    }

    /// Draws one displacement.
    pub(super) fn spend(&mut self, now: Timestamp) {
        let (spent, since) = self
            .budget
            .map_or((0, now), |budget| (budget.spent, budget.since));
        self.budget = Some(Budget {
            spent: spent + 1,
            since,
        });
    }

    /// Gives one displacement back.
    pub(super) fn refund(&mut self) {
        self.budget = self.budget.and_then(|budget| {
            let spent = budget.spent - 1;
            (spent > 0).then_some(Budget { spent, ..budget })
        });
    }

    /// Refills.
    pub(super) fn settle_budget(&mut self, terms: &Terms, now: Timestamp) {
        self.budget = self.budget.and_then(|budget| budget.settled(terms, now));
    }
}
