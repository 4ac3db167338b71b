//! The shards of the store, and what this instance knows about each. A shard that fails puts its own
//! users under the outage rule and nobody else.
//!
//! What is known of a shard ends with it: a promoted master is another shard, and starts afresh. A
//! store that is one piece is the case with one shard.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::background::TOLD_IN_VAIN_PAUSE;
use super::breaker::{Breaker, Signs, StoreCall};
use super::suspicion::Suspicion;
use crate::config::OutageRule;
use crate::store::{Shard, StoreError};
use crate::telemetry::Metrics;
use crate::util::{Throttle, lock};

/// What is known about one shard.
#[derive(Debug)]
pub(super) struct KnownShard {
    /// The shard.
    pub(super) shard: Shard,
    /// Whether it answers.
    pub(super) breaker: Breaker,
    /// The users whose sessions it didn't know recently.
    pub(super) suspicion: Suspicion,
    /// Notified when it may have lost data.
    pub(super) doubted: Notify,
    /// Throttles the log line about data that it has lost.
    pub(super) forgot: Throttle,
    /// Cancelled when it has no users any more.
    pub(super) gone: CancellationToken,
}

/// All shards that have users, and perhaps some that had until a moment ago.
#[derive(Debug)]
pub(super) struct KnownShards {
    /// What decides for the users of a shard that doesn't answer.
    rule: OutageRule,
    /// How long a user stays suspect.
    suspect_for: Duration,
    /// The shards. A watch, because readers don't wait for each other.
    known: watch::Sender<BTreeMap<Shard, Arc<KnownShard>>>,
    /// Those that nobody minds yet.
    unminded: Mutex<Vec<Arc<KnownShard>>>,
    /// Notified when there are some.
    pub(super) unminded_arrived: Notify,
    /// How many there are, sent whenever a shard comes, goes, or changes.
    tally: watch::Sender<ShardTally>,
    /// The metrics.
    metrics: Arc<Metrics>,
}

/// How many shards the store has, and how they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardTally {
    /// All of them.
    pub known: usize,
    /// Those that answer.
    pub up: usize,
    /// Those that are known not to answer.
    pub out: usize,
    /// Those whose users' new streams follow the outage rule: they don't answer, or are full.
    pub by_rule: usize,
}

/// The store's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether any part of it answers.
    pub up: bool,
    /// What is wrong: why it doesn't answer, or that it is full.
    pub trouble: Option<String>,
    /// What decides about new streams while it, or a part of it, doesn't answer or is full.
    pub rule: Option<OutageRule>,
    /// Its parts; none if it is one piece.
    pub shards: Option<ShardsHealth>,
}

/// The health of the parts of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardsHealth {
    /// How many there are.
    pub tally: ShardTally,
    /// What is wrong with those with which something is.
    pub troubles: Vec<(Shard, String)>,
}

impl KnownShards {
    /// These shards, of which nothing is known. `rule` decides for the users of a shard that is
    /// down; a user of whom the shard didn't know a session is suspect for that long.
    pub(super) fn new(
        shards: Vec<Shard>,
        rule: OutageRule,
        suspect_for: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let known = Self {
            rule,
            suspect_for,
            known: watch::Sender::default(),
            unminded: Mutex::default(),
            unminded_arrived: Notify::new(),
            tally: watch::Sender::default(),
            metrics,
        };
        known.follow(shards);
        known
    }

    /// What is known about that shard; none if nothing is.
    pub(super) fn find(&self, shard: &Shard) -> Option<Arc<KnownShard>> {
        self.known.borrow().get(shard).map(Arc::clone)
    }

    /// The only shard, if the store has just one.
    pub(super) fn only(&self) -> Option<Arc<KnownShard>> {
        let known = self.known.borrow();
        let first = known.values().next().filter(|_| known.len() == 1);
        first.map(Arc::clone)
    }

    /// All shards.
    pub(super) fn all(&self) -> Vec<Arc<KnownShard>> {
        self.known.borrow().values().map(Arc::clone).collect()
    }

    /// Adds that shard unless it is known, and returns what is known about it.
    pub(super) fn add(&self, shard: &Shard) -> Arc<KnownShard> {
        let mut known = self.unknown(shard);
        let is_new = self
            .known
            .send_if_modified(|all| match all.entry(shard.clone()) {
                Entry::Occupied(entry) => {
                    known = Arc::clone(entry.get());
                    false
                }
                Entry::Vacant(entry) => {
                    self.mind(entry.insert(Arc::clone(&known)));
                    true
                }
            });
        if is_new {
            self.publish();
        }
        known
    }

    /// Adds those of these shards that aren't known, and drops all others.
    pub(super) fn follow(&self, shards: Vec<Shard>) {
        let now: BTreeSet<Shard> = shards.into_iter().collect();
        let is_changed = self.known.send_if_modified(|known| {
            let before = known.len();
            known.retain(|shard, known| {
                let stays = now.contains(shard);
                if !stays {
                    if let Some(address) = shard.address() {
                        info!(
                            shard = address,
                            "a shard of the store is gone: others have its users"
                        );
                    }
                    known.gone.cancel();
                }
                stays
            });
            let stayed = known.len();
            for shard in now {
                known.entry(shard).or_insert_with_key(|shard| {
                    let known = self.unknown(shard);
                    self.mind(&known);
                    known
                });
            }
            before != stayed || known.len() != stayed
        });
        if is_changed {
            self.publish();
        }
    }

    /// A shard of which nothing is known.
    fn unknown(&self, shard: &Shard) -> Arc<KnownShard> {
        Arc::new(KnownShard {
            shard: shard.clone(),
            breaker: Breaker::new(shard.clone(), self.rule),
            suspicion: Suspicion::new(self.suspect_for),
            doubted: Notify::new(),
            forgot: Throttle::every(TOLD_IN_VAIN_PAUSE),
            gone: CancellationToken::new(),
        })
    }

    /// Has a shard minded from now on.
    fn mind(&self, known: &Arc<KnownShard>) {
        lock(&self.unminded).push(Arc::clone(known));
        self.unminded_arrived.notify_one();
    }

    /// Takes the shards that nobody minds yet.
    pub(super) fn take_unminded(&self) -> Vec<Arc<KnownShard>> {
        std::mem::take(&mut *lock(&self.unminded))
    }

    /// Records the result of a call to that shard, unless it is gone meanwhile.
    pub(super) fn note(&self, known: &KnownShard, error: Option<&StoreError>, call: StoreCall) {
        if !known.gone.is_cancelled() && known.breaker.note(error, call) {
            self.publish();
        }
    }

    /// Records that the store has reported an outage of that shard, unless it is gone meanwhile.
    pub(super) fn note_loss(&self, known: &KnownShard, error: &StoreError) {
        if !known.gone.is_cancelled() && known.breaker.note_loss(error) {
            self.publish();
        }
    }

    /// Reports from now on whether the shards answer. Each change is sent, even if the numbers stay
    /// the same.
    pub(super) fn watch(&self) -> watch::Receiver<ShardTally> {
        self.tally.subscribe()
    }

    /// Publishes how the shards are, as they are now.
    fn publish(&self) {
        self.tally.send_modify(|tally| {
            let known = self.known.borrow();
            *tally = ShardTally::of(known.values().map(|known| known.breaker.signs()));
            self.metrics.store_shards(tally.known, tally.out);
            self.metrics.store_up(tally.up > 0);
            let rule = (tally.by_rule > 0).then_some(self.rule);
            self.metrics.outage_rule(rule);
        });
    }

    /// The store's health.
    pub(super) fn health(&self) -> StoreHealth {
        let all = self.all();
        let tally = ShardTally::of(all.iter().map(|known| known.breaker.signs()));
        let troubles = all.iter().filter_map(|known| {
            let trouble = known.breaker.trouble()?;
            Some((known.shard.clone(), trouble))
        });
        let troubles: Vec<_> = troubles.collect();
        let is_whole = all.iter().all(|known| known.shard == Shard::whole());
        StoreHealth {
            up: tally.up > 0,
            trouble: troubles.first().map(|(shard, trouble)| match shard.name() {
                None => trouble.clone(),
                Some(name) => format!(
                    "{} of {} shards are in trouble, among them {name}: {trouble}",
                    troubles.len(),
                    tally.known
                ),
            }),
            rule: (tally.by_rule > 0).then_some(self.rule),
            shards: (!is_whole).then_some(ShardsHealth { tally, troubles }),
        }
    }
}

impl ShardTally {
    /// The tally of shards with these signs.
    fn of(shards: impl Iterator<Item = Signs>) -> Self {
        let mut tally = Self::default();
        for Signs { up, out, full } in shards {
            tally.known += 1;
            tally.up += usize::from(up);
            tally.out += usize::from(out);
            tally.by_rule += usize::from(out || full);
        }
        tally
    }

    /// Whether all shards answer.
    #[must_use]
    pub const fn all_up(&self) -> bool {
        self.known > 0 && self.up == self.known
    }
}
