//! How a ledger counts.

use std::sync::Arc;
#[cfg(test)]
use std::time::Duration;

#[cfg(test)]
use crate::config::{self, Changeable};
use crate::config::{InForce, Leases, OutageRule};
#[cfg(test)]
use crate::policy::Policy;
use crate::session::Terms;

/// How a ledger counts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may watch how much, and what happens at a full limit; it may change.
    pub in_force: Arc<InForce>,
    /// How long sessions count.
    pub leases: Leases,
    /// What leases and tombstones may be.
    pub terms: Terms,
    /// What decides while the store is out.
    pub outage: OutageRule,
    /// How many sessions are held; none where the store is this process itself.
    pub room_to_hold: usize,
}

#[cfg(test)]
impl Settings {
    /// Deny in an outage, no grace, and as little room as tests need.
    pub(crate) fn of(policy: Policy) -> Self {
        Self::with_grace(policy, Duration::ZERO)
    }

    /// The same with that grace.
    pub(crate) fn with_grace(policy: Policy, grace: Duration) -> Self {
        let limits = config::Limits {
            policy,
            grace,
            ..Default::default()
        };
        let settings = Changeable {
            limits,
            ..Default::default()
        };
        Self {
            in_force: Arc::new(InForce::new(settings)),
            leases: Leases::default(),
            terms: Terms::new(Duration::from_secs(30), Duration::from_millis(50)),
            outage: OutageRule::Deny,
            room_to_hold: 1000,
        }
    }
}
