//! The one thing that doors talk to: it decides who may watch how much, asks the store, counts and logs.
//!
//! | file | does |
//! |---|---|
//! | `start` | makes a start of a claim, and gives it its grace at a full limit (`grace`) |
//! | `attempt` | asks the store for a slot, or goes on with one that is held |
//! | `outage` | decides by `store.outage` while the store can't answer |
//! | `report` | tells the store how streams go on: renewed, played, ended |
//! | `calls` | makes each call, if the breaker lets it (`breaker`), and counts it |
//! | `lease_cache` | knows what the store has said, and what it is yet to be told |
//! | `background` | renews, announces and probes beside the calls; finds out whether the store has forgotten (`suspicion`) and whether Envoy's access log arrives (`wiring`) |

mod attempt;
mod background;
mod breaker;
mod calls;
mod decision;
mod grace;
mod lease_cache;
mod outage;
#[cfg(test)]
mod outage_tests;
mod report;
mod settings;
mod start;
mod suspicion;
#[cfg(test)]
mod tests;
mod wiring;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{Changeable, InForce, Leases, OutageRule};
use crate::identity::Claim;
use crate::session::{Kind, PlanName, SessionKey, Timestamp, UserId};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::util::Throttle;
use breaker::Breaker;
pub use breaker::StoreHealth;
pub use decision::{Basis, CallerDeadline, Decision, Outage, UndoHint};
use grace::Grace;
pub use lease_cache::CacheLookup;
use lease_cache::LeaseCache;
pub use settings::Settings;
use suspicion::Suspicion;
use wiring::Wiring;
pub use wiring::{AccessLog, UNWIRED};

/// How many sessions are held where the store is shared: some hundred megabytes. More are asked about each time.
pub const ROOM_TO_HOLD: usize = 250_000;

/// Counts streams.
#[derive(Debug)]
pub struct Ledger {
    /// Where rosters are kept.
    store: Arc<dyn Store>,
    /// Says who may watch how much, and what happens at a full limit.
    in_force: Arc<InForce>,
    /// How long sessions count.
    leases: Leases,
    /// Lets starts wait for a slot.
    grace: Grace,
    /// Knows whether the store answers.
    breaker: Breaker,
    /// Decides while it doesn't.
    rule: OutageRule,
    /// What this instance knows by itself.
    cache: LeaseCache,
    /// Bounds how often it is logged that the store has forgotten.
    forgot: Throttle,
    /// Whose sessions the store did not know of late.
    suspicion: Suspicion,
    /// Whether Envoy's access log arrives.
    wiring: Wiring,
    /// Counts it all.
    metrics: Arc<Metrics>,
    /// Plans that nobody knows and that have been logged.
    unknown_plans: Mutex<HashSet<PlanName>>,
}

impl Ledger {
    /// A ledger over that store. What it does beside its calls is done by [`Self::run_background`].
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (leases, room) = (settings.leases, settings.room_to_hold);
        Self {
            store,
            in_force: settings.in_force,
            leases,
            grace: Grace::default(),
            breaker: Breaker::new(settings.outage),
            rule: settings.outage,
            cache: LeaseCache::new(room, leases, settings.terms, clock),
            forgot: Throttle::every(background::TOLD_IN_VAIN_PAUSE),
            suspicion: Suspicion::new(leases.playback / 3),
            wiring: Wiring::new(leases.request),
            metrics,
            unknown_plans: Mutex::default(),
        }
    }

    /// What this instance knows of a claim's session. For nearly every request of a playback that is [`CacheLookup::Good`], and
    /// nobody else has to be asked; else hand it to [`Self::admit`]. It is a sign of life of the session.
    #[must_use]
    pub fn lookup(&self, claim: &Claim) -> CacheLookup {
        self.cache.lookup(&claim.user, &claim.key, &claim.facts)
    }

    /// Whether it is known here that some of this session has reached its viewer, so that there is nothing to report.
    #[must_use]
    pub fn knows_playing(&self, user: &UserId, key: &SessionKey) -> bool {
        self.cache.is_proven(user, key)
    }

    /// Whether that session may be counted because of what this instance has told the store. Where nothing is held, any may be.
    #[must_use]
    pub fn may_count(&self, user: &UserId, key: &SessionKey) -> bool {
        self.cache.holds_nothing() || self.cache.counts(user, key)
    }

    /// How many streams the user may watch who is said to be on that plan.
    #[must_use]
    pub fn limit_of(&self, user: &UserId, plan: Option<&PlanName>) -> u32 {
        let in_force = self.in_force.now();
        in_force.limits.policy.allowance(user, plan).limit
    }

    /// What applies now of what may change.
    #[must_use]
    pub fn in_force(&self) -> Arc<Changeable> {
        self.in_force.now()
    }

    /// How long a session of that kind counts without a sign of life.
    #[must_use]
    pub const fn lease_of(&self, kind: Kind) -> Duration {
        self.leases.of(kind)
    }

    /// The time, by what tells it to what is held.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.cache.now()
    }

    /// How the store is, as its last calls showed it.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.breaker.health()
    }

    /// Whether Envoy's access log arrives, as far as this instance can tell.
    #[must_use]
    pub fn access_log(&self) -> AccessLog {
        self.wiring.state()
    }

    /// An entry of Envoy's access log has come that bears our mark.
    pub fn heard_access_log(&self) {
        self.wiring.heard(&self.metrics);
    }

    /// Tells whether the store answers, from now on.
    #[must_use]
    pub fn watch_store(&self) -> watch::Receiver<bool> {
        self.breaker.watch()
    }

    /// Drops what is held in vain, and tells how much is held. To be called every few seconds, and before anybody reads the metrics.
    pub fn sweep(&self) {
        let tally = self.cache.sweep();
        self.metrics.sessions(tally.sessions, tally.unsynced);
    }
}
