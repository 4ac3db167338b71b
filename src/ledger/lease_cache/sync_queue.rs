//! The users whose sessions or ends the store is yet to be told about.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;

use super::shard::seen;
use super::user::{CachedSession, CachedUser, End, SyncState};
use super::{LeaseCache, SHARDS};
use crate::identity::{Kind, SessionKey, UserId};
use crate::store::Seen;
use crate::util::lock;

/// The users of whom the store is to be told something, each once. Some may have been seen to since.
#[derive(Debug, Default)]
pub(super) struct SyncQueue {
    /// In the order in which that came up.
    pub(super) queue: VecDeque<UserId>,
    /// The same, to be looked up.
    pub(super) known: HashSet<UserId>,
}

impl SyncQueue {
    /// Puts a user in, once.
    pub(super) fn put(&mut self, user: &UserId) {
        if self.known.insert(user.clone()) {
            self.queue.push_back(user.clone());
        }
    }

    /// Takes the next one out.
    pub(super) fn take(&mut self) -> Option<UserId> {
        let user = self.queue.pop_front()?;
        self.known.remove(&user);
        Some(user)
    }

    /// Drops whoever is no longer known.
    pub(super) fn prune(&mut self) {
        let known = &self.known;
        self.queue.retain(|user| known.contains(user));
    }
}

/// What the store is to be told of one user before anything else: first the ends, then the sessions.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Unsynced {
    /// What has ended.
    pub(in crate::ledger) ends: Vec<End>,
    /// What runs.
    pub(in crate::ledger) seen: Vec<Seen>,
}

impl LeaseCache {
    /// What the store is to be told of a user.
    pub(in crate::ledger) fn unsynced(&self, user: &UserId) -> Option<Unsynced> {
        let now = self.now();
        let shard = self.shards.of(user);
        let known = shard.users.get(user).filter(|known| known.is_unsynced())?;
        let unsynced = known
            .sessions
            .iter()
            .filter(|cached| cached.sync == SyncState::Unsynced && cached.until > now);
        Some(Unsynced {
            ends: known.ends.clone(),
            seen: unsynced
                .map(|cached| seen(user, known, cached, now))
                .collect(),
        })
    }

    /// The playbacks of a user that the store must still count, but that one.
    pub(in crate::ledger) fn beside(&self, user: &UserId, key: &SessionKey) -> Vec<Seen> {
        let now = self.now();
        let shard = self.shards.of(user);
        let Some(known) = shard.users.get(user) else {
            return Vec::new();
        };
        let beside = known
            .sessions
            .iter()
            .filter(|cached| cached.key != *key && cached.is_proof(now));
        beside
            .map(|cached| seen(user, known, cached, now))
            .collect()
    }

    /// The store did not know one of a user's sessions, and may not know the others either: it is to be told of all but that one.
    pub(in crate::ledger) fn unsync_others(&self, user: &UserId, key: &SessionKey) {
        let mut shard = self.shards.of(user);
        if let Some(known) = shard.users.get_mut(user) {
            for cached in known
                .sessions
                .iter_mut()
                .filter(|cached| cached.key != *key)
            {
                cached.sync = SyncState::Unsynced;
            }
        }
        drop(shard);
        self.enqueue(user);
    }

    /// The store has forgotten: it is to be told of every session, those included of which it is being asked now.
    pub(in crate::ledger) fn unsync_all(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
        for shard in self.shards.all() {
            let mut shard = lock(shard);
            for (user, known) in &mut shard.users {
                for cached in &mut known.sessions {
                    cached.sync = SyncState::Unsynced;
                }
                self.queue(user, known);
            }
        }
        self.unsynced_arrived.notify_one();
    }

    /// Sessions of so many other users, any of them, one of each, that the store must still count: playbacks, and `request`s where those are
    /// too few. Nobody can choose who is asked about.
    pub(in crate::ledger) fn sample(&self, count: usize, except: &[UserId]) -> Vec<Seen> {
        let now = self.now();
        let from: usize = rand::random_range(0..SHARDS);
        let (mut playbacks, mut requests) = (Vec::new(), Vec::new());
        for shard in self.shards.all().iter().cycle().skip(from).take(SHARDS) {
            let shard = lock(shard);
            for (user, known) in &shard.users {
                if playbacks.len() >= count {
                    break;
                }
                if except.contains(user) {
                    continue;
                }
                let is_sure = |cached: &&CachedSession| {
                    cached.sync == SyncState::Confirmed && cached.sure_until > now
                };
                let mut sessions = known.sessions.iter().filter(is_sure);
                if let Some(cached) = sessions.clone().find(|cached| cached.is_proof(now)) {
                    playbacks.push(seen(user, known, cached, now));
                } else if let Some(cached) =
                    sessions.find(|cached| cached.key.kind == Kind::Request)
                    && requests.len() < count
                {
                    requests.push(seen(user, known, cached, now));
                }
            }
        }
        playbacks.extend(requests);
        playbacks.truncate(count);
        playbacks
    }

    /// Up to so many users of whom the store is to be told something.
    pub(in crate::ledger) fn take_queued(&self, count: usize) -> Vec<UserId> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let next = lock(&self.sync_queue).take();
            match next {
                Some(user) if self.is_still_unsynced(&user) => taken.push(user),
                Some(_) => {}
                None => break,
            }
        }
        taken
    }

    /// How many users wait for the store to be told.
    #[cfg(test)]
    pub(in crate::ledger) fn queued_users(&self) -> usize {
        lock(&self.sync_queue).queue.len()
    }

    /// Whether the store is still to be told something of that user that counts.
    pub(in crate::ledger) fn is_still_unsynced(&self, user: &UserId) -> bool {
        let unsynced = self.unsynced(user);
        unsynced.is_some_and(|unsynced| !unsynced.ends.is_empty() || !unsynced.seen.is_empty())
    }

    /// Notes that the store is to be told of that user, if it is.
    pub(in crate::ledger) fn enqueue(&self, user: &UserId) {
        if let Some(known) = self.shards.of(user).users.get(user) {
            self.queue(user, known);
        }
        self.unsynced_arrived.notify_one();
    }

    /// Puts a user of whom the store is to be told something among the others, once.
    pub(super) fn queue(&self, user: &UserId, known: &CachedUser) {
        if known.is_unsynced() {
            lock(&self.sync_queue).put(user);
        }
    }
}
