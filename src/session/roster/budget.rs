//! How often a user may displace: a burst, then once for each lease of a playback. Without this
//! budget, fresh ids and takeovers would make the limit meaningless.

use std::time::Duration;

use super::{Roster, Terms};
use crate::clock::Timestamp;

/// A user's displacements that haven't been refilled yet. At least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// The number of displacements.
    pub spent: u32,
    /// When the current refill began.
    pub since: Timestamp,
}

impl Budget {
    /// When the last of them is refilled.
    pub(super) fn full_at(self, terms: &Terms) -> Timestamp {
        self.since.after(terms.refill.saturating_mul(self.spent))
    }

    /// The budget after refills: `None` if all are refilled. After a clock step backwards, the
    /// refill starts now.
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
    /// The number of displacements not refilled yet.
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

    /// Applies the refills that are due.
    pub(super) fn settle_budget(&mut self, terms: &Terms, now: Timestamp) {
        self.budget = self.budget.and_then(|budget| budget.settled(terms, now));
    }
}
