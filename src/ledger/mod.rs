//! The only module that doors talk to: it decides who may watch how much, asks the store, counts
//! and logs.
//!
//! - `start` turns a claim into a start, and gives it its grace at a full limit (`grace`).
//! - `attempt` asks the store for a slot, or continues a session that is held.
//! - `outage` applies `store.outage` while the store can't answer.
//! - `report` tells the store how streams develop: renewed, played, ended.
//! - `calls` makes each call, if the breaker of the user's shard allows (`shards`, `breaker`), and
//!   counts it.
//! - `lease_cache` remembers the store's answers, and what the store has yet to learn.
//! - `background` renews, syncs and probes in the background. It detects a store that has lost data
//!   (`suspicion`), and an Envoy access log that doesn't arrive (`wiring`).

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
mod recent_ends;
mod report;
mod settings;
#[cfg(test)]
mod shard_tests;
mod shards;
mod start;
mod suspicion;
#[cfg(test)]
mod tests;
mod wiring;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Timestamp};
use crate::config::{Changeable, InForce, Leases, OutageRule};
use crate::events::Events;
use crate::identity::{Claim, Kind, PlanName, SessionKey, UserId};
use crate::policy::LimitSource;
use crate::statistics::{PeriodEffects, Statistics};
use crate::store::{Shard, Store};
use crate::telemetry::Metrics;
pub use calls::StoreServer;
pub use decision::{Basis, CallerDeadline, Decision, Outage, UndoHint};
use grace::Grace;
pub use lease_cache::CacheLookup;
use lease_cache::LeaseCache;
use recent_ends::RecentEnds;
pub use settings::Settings;
use shards::KnownShards;
pub use shards::{ShardTally, ShardsHealth, StoreHealth};
use wiring::Wiring;
pub use wiring::{AccessLog, UNWIRED};

/// How many sessions are held if the store is shared: some hundred megabytes. Any more ask the
/// store each time.
pub const ROOM_TO_HOLD: usize = 250_000;

/// Counts streams.
#[derive(Debug)]
pub struct Ledger {
    /// Where rosters are kept.
    store: Arc<dyn Store>,
    /// The limits, and what happens at a full limit.
    in_force: Arc<InForce>,
    /// How long sessions count.
    leases: Leases,
    /// Lets starts wait for a slot.
    grace: Grace,
    /// Whether the store answers, shard by shard.
    shards: KnownShards,
    /// What decides while it doesn't.
    rule: OutageRule,
    /// This instance's own knowledge.
    cache: LeaseCache,
    /// The ends that a promoted replica may lack.
    recent_ends: RecentEnds,
    /// Whether Envoy's access log arrives.
    wiring: Wiring,
    /// Tells operators about ends.
    events: Arc<Events>,
    /// The installation's numbers.
    statistics: Statistics,
    /// The metrics.
    metrics: Arc<Metrics>,
    /// Unknown plans that have been logged.
    unknown_plans: Mutex<HashSet<PlanName>>,
}

impl Ledger {
    /// A ledger in front of that store. [`Self::run_background`] does its background work.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (leases, room) = (settings.leases, settings.room_to_hold);
        let shards = KnownShards::new(
            store.shards(),
            settings.outage,
            leases.playback / 3,
            Arc::clone(&metrics),
        );
        let is_shared = store.notes().is_some();
        let statistics = Statistics::new(Arc::clone(&clock), leases.longest(), is_shared);
        Self {
            store,
            in_force: settings.in_force,
            leases,
            grace: Grace::default(),
            shards,
            rule: settings.outage,
            events: Events::unheard(Arc::clone(&clock), Arc::clone(&metrics)),
            cache: LeaseCache::new(room, leases, settings.terms, clock),
            recent_ends: RecentEnds::default(),
            wiring: Wiring::new(leases.request),
            statistics,
            metrics,
            unknown_plans: Mutex::default(),
        }
    }

    /// Tells operators about ends from now on.
    #[must_use]
    pub fn telling(mut self, events: Arc<Events>) -> Self {
        self.events = events;
        self
    }

    /// What this instance knows about a claim's session. For nearly every request of a playback
    /// that is [`CacheLookup::Good`], and the store isn't needed; otherwise pass it to
    /// [`Self::admit`]. The lookup counts as a sign of life of the session.
    #[must_use]
    pub fn lookup(&self, claim: &Claim) -> CacheLookup {
        self.cache.lookup(&claim.user, &claim.key, &claim.facts)
    }

    /// Whether part of this session is known here to have reached its viewer, so that there is
    /// nothing to report.
    #[must_use]
    pub fn knows_playing(&self, user: &UserId, key: &SessionKey) -> bool {
        self.cache.is_proven(user, key)
    }

    /// Whether that session may be counted because of a report by this instance. If nothing is
    /// held, any session may be.
    #[must_use]
    pub fn may_count(&self, user: &UserId, key: &SessionKey) -> bool {
        self.cache.holds_nothing() || self.cache.counts(user, key)
    }

    /// The configured limit of that user on that plan. The store knows whether an operator has set
    /// another one.
    #[must_use]
    pub fn limit_of(&self, user: &UserId, plan: Option<&PlanName>) -> u32 {
        let in_force = self.in_force.now();
        in_force.limits.policy.allowance(user, plan).limit
    }

    /// The configured limit of that user on that plan, and where it comes from.
    #[must_use]
    pub fn configured_limit(&self, user: &UserId, plan: Option<&PlanName>) -> (u32, LimitSource) {
        let policy = &self.in_force.now().limits.policy;
        let limit = policy.allowance(user, plan).limit;
        (limit, policy.source(user, plan))
    }

    /// The current values of the settings that may change.
    #[must_use]
    pub fn in_force(&self) -> Arc<Changeable> {
        self.in_force.now()
    }

    /// How long a session of that kind counts without a sign of life.
    #[must_use]
    pub const fn lease_of(&self, kind: Kind) -> Duration {
        self.leases.of(kind)
    }

    /// The current time, by the lease cache's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.cache.now()
    }

    /// The installation's numbers.
    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// What each limit would do in the last hour, day and week.
    pub async fn limit_effects(&self) -> PeriodEffects {
        self.statistics.limit_effects(self.store.notes()).await
    }

    /// Puts this instance's last report into the store, before the process exits.
    pub async fn close_statistics(&self) {
        self.statistics.close(self.store.notes()).await;
    }

    /// The store's health, according to its last calls.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.shards.health()
    }

    /// The shards of the store that are known to fail or to be full, and why. One that hasn't been
    /// asked yet is none of them: every instance starts like that.
    #[must_use]
    pub fn store_troubles(&self) -> Vec<(Shard, String)> {
        let all = self.shards.all();
        let troubles = all.iter().filter_map(|known| {
            let signs = known.breaker.signs();
            let trouble = known.breaker.trouble()?;
            (signs.out || signs.full).then(|| (known.shard.clone(), trouble))
        });
        troubles.collect()
    }

    /// Whether Envoy's access log arrives, as far as this instance can tell.
    #[must_use]
    pub fn access_log(&self) -> AccessLog {
        self.wiring.state()
    }

    /// Records that an entry of Envoy's access log with our mark has arrived.
    pub fn heard_access_log(&self) {
        self.wiring.heard(&self.metrics);
    }

    /// Reports from now on whether the store answers, shard by shard. Each change is sent, even if
    /// the numbers stay the same.
    #[must_use]
    pub fn watch_store(&self) -> watch::Receiver<ShardTally> {
        self.shards.watch()
    }

    /// Whether the part of the store that has this user answers.
    #[must_use]
    pub fn is_store_up(&self, user: &UserId) -> bool {
        self.shard_of(user).breaker.signs().up
    }

    /// Drops expired entries and updates the gauges of held sessions. Call it every few seconds,
    /// and before metrics are read.
    pub fn sweep(&self) {
        let tally = self.cache.sweep();
        self.metrics.sessions(tally.sessions, tally.unsynced);
    }
}
