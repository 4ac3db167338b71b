//! The users with sessions or ends that the store has yet to learn about.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;

use super::shard::seen;
use super::user::{CachedSession, CachedUser, End, SyncState};
use super::{LeaseCache, SHARDS};
use crate::clock::Timestamp;
use crate::identity::{Kind, SessionKey, UserId};
use crate::session::Ending;
use crate::store::Seen;
use crate::util::lock;

/// The users with something unsynced, each once. Some may have been synced since.
#[derive(Debug, Default)]
pub(super) struct SyncQueue {
    /// The users, in the order in which they were added.
    queue: VecDeque<UserId>,
    /// Those that were passed over, because their shard doesn't answer.
    passed_over: Vec<UserId>,
    /// All of them, for lookups.
    pub(super) known: HashSet<UserId>,
}

impl SyncQueue {
    /// Adds a user, once.
    pub(super) fn put(&mut self, user: &UserId) {
        if self.known.insert(user.clone()) {
            self.queue.push_back(user.clone());
        }
    }

    /// Takes the next user whose turn it is. Users whose turn it isn't are passed over until
    /// [`Self::requeue`].
    fn take(&mut self, is_turn_of: impl Fn(&UserId) -> bool) -> Option<UserId> {
        loop {
            let user = self.queue.pop_front()?;
            if is_turn_of(&user) {
                self.known.remove(&user);
                return Some(user);
            }
            self.passed_over.push(user);
        }
    }

    /// Queues those again that were passed over.
    fn requeue(&mut self) {
        self.queue.extend(self.passed_over.drain(..));
    }

    /// All users.
    pub(super) fn users(&self) -> Vec<UserId> {
        self.queue
            .iter()
            .chain(&self.passed_over)
            .cloned()
            .collect()
    }

    /// Drops users that are no longer known.
    pub(super) fn prune(&mut self) {
        let known = &self.known;
        self.queue.retain(|user| known.contains(user));
        self.passed_over.retain(|user| known.contains(user));
    }
}

/// What the store must learn about one user before anything else: first the ends, then the
/// sessions.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Unsynced {
    /// The ends.
    pub(in crate::ledger) ends: Vec<End>,
    /// The running sessions.
    pub(in crate::ledger) seen: Vec<Seen>,
}

impl LeaseCache {
    /// What the store must learn about a user.
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

    /// The user's playbacks that the store must still count, except that one.
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

    /// The store didn't know one of a user's sessions, and may not know the others either:
    /// schedules all but that one for reporting.
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

    /// Records that the store was told of that end.
    pub(in crate::ledger) fn end_told(&self, user: &UserId, end: &End) {
        self.shards
            .of(user)
            .change_known(user, |known| known.ends.retain(|unsynced| unsynced != end));
    }

    /// Records that the session is over, as somebody reported at `said_at`, and that the store
    /// doesn't know.
    pub(in crate::ledger) fn ended_untold(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        said_at: Timestamp,
    ) {
        let now = self.now();
        let mut shard = self.shards.of(user);
        shard.endings += 1;
        // The outbox remembers it too.
        if shard.has_room_for_ends(user, self.room) {
            shard.change(user, |known| {
                let end = End {
                    key: key.clone(),
                    ending,
                    said_at,
                    ticket: known.ticket(key),
                    until: said_at.after(self.terms.memory),
                };
                known.release(end, &self.terms, now);
            });
        }
        drop(shard);
        self.enqueue(user);
    }

    /// The store has lost the data of these users: schedules all their sessions for reporting,
    /// including those in a question to the store right now.
    pub(in crate::ledger) fn unsync_all(&self, are_lost: impl Fn(&UserId) -> bool) {
        self.losses.fetch_add(1, Ordering::SeqCst);
        for shard in self.shards.all() {
            let mut shard = lock(shard);
            let lost = shard.users.iter_mut().filter(|(user, _)| are_lost(user));
            for (user, known) in lost {
                for cached in &mut known.sessions {
                    cached.sync = SyncState::Unsynced;
                }
                self.queue(user, known);
            }
        }
        self.unsynced_arrived.notify_one();
    }

    /// One session each of that many other users of those that count, chosen arbitrarily, that the
    /// store must still count: playbacks, or `request`s if there are too few playbacks. Nobody can
    /// influence the choice.
    pub(in crate::ledger) fn sample(
        &self,
        count: usize,
        except: &[UserId],
        counts: impl Fn(&UserId) -> bool,
    ) -> Vec<Seen> {
        let now = self.now();
        let from: usize = rand::random_range(0..SHARDS);
        let (mut playbacks, mut requests) = (Vec::new(), Vec::new());
        for shard in self.shards.all().iter().cycle().skip(from).take(SHARDS) {
            let shard = lock(shard);
            for (user, known) in &shard.users {
                if playbacks.len() >= count {
                    break;
                }
                if except.contains(user) || !counts(user) {
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

    /// Takes up to that many users with something unsynced whose turn it is. The others are passed
    /// over until [`Self::requeue`].
    pub(in crate::ledger) fn take_queued(
        &self,
        count: usize,
        is_turn_of: impl Fn(&UserId) -> bool,
    ) -> Vec<UserId> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let next = lock(&self.sync_queue).take(&is_turn_of);
            match next {
                Some(user) if self.is_still_unsynced(&user) => taken.push(user),
                Some(_) => {}
                None => break,
            }
        }
        taken
    }

    /// Queues those users again that were passed over.
    pub(in crate::ledger) fn requeue(&self) {
        lock(&self.sync_queue).requeue();
        self.unsynced_arrived.notify_one();
    }

    /// How many users wait to be synced.
    #[cfg(test)]
    pub(in crate::ledger) fn queued_users(&self) -> usize {
        lock(&self.sync_queue).users().len()
    }

    /// Whether that user still has something unsynced that counts.
    pub(in crate::ledger) fn is_still_unsynced(&self, user: &UserId) -> bool {
        let unsynced = self.unsynced(user);
        unsynced.is_some_and(|unsynced| !unsynced.ends.is_empty() || !unsynced.seen.is_empty())
    }

    /// Adds that user to the queue, if they have something unsynced.
    pub(in crate::ledger) fn enqueue(&self, user: &UserId) {
        if let Some(known) = self.shards.of(user).users.get(user) {
            self.queue(user, known);
        }
        self.unsynced_arrived.notify_one();
    }

    /// Adds a user with something unsynced to the queue, once.
    pub(super) fn queue(&self, user: &UserId, known: &CachedUser) {
        if known.is_unsynced() {
            lock(&self.sync_queue).put(user);
        }
    }
}
