//! The ledger's settings.

use std::sync::Arc;
#[cfg(test)]
use std::time::Duration;

#[cfg(test)]
use crate::config::{self, Changeable};
use crate::config::{InForce, Leases, OutageRule};
#[cfg(test)]
use crate::policy::Policy;
use crate::session::Terms;

/// The ledger's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The limits, and what happens at a full limit; they may change.
    pub in_force: Arc<InForce>,
    /// How long sessions count.
    pub leases: Leases,
    /// The limits of leases and tombstones.
    pub terms: Terms,
    /// What decides while the store is down.
    pub outage: OutageRule,
    /// How many sessions are held; none if the store is in this process.
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
