//! One shard of the lease cache, so that users rarely wait for each other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::EVICTED_PART;
use super::user::{CachedSession, CachedUser, SyncState};
use crate::clock::Timestamp;
use crate::identity::{Kind, SessionKey, UserId};
use crate::session::{MAX_PUT_BACK, Terms, Tombstone};
use crate::store::Seen;

/// Some of the users.
#[derive(Debug, Default)]
pub(super) struct CacheShard {
    /// What is known about each.
    pub(super) users: HashMap<UserId, CachedUser>,
    /// The number of their sessions.
    pub(super) sessions: usize,
    /// How often a session was removed because it has ended.
    pub(super) endings: u64,
}

impl CacheShard {
    /// The session, mutable.
    pub(super) fn session_mut(
        &mut self,
        user: &UserId,
        key: &SessionKey,
    ) -> Option<&mut CachedSession> {
        self.users.get_mut(user)?.session_mut(key)
    }

    /// Whether there is room to remember another end of that user.
    pub(super) fn has_room_for_ends(&self, user: &UserId, room: usize) -> bool {
        room > 0 && (self.users.len() < room.saturating_mul(2) || self.users.contains_key(user))
    }

    /// Whether the session is known.
    pub(super) fn knows(&self, user: &UserId, key: &SessionKey) -> bool {
        let known = self.users.get(user);
        known.is_some_and(|known| known.session(key).is_some())
    }

    /// Records that the store no longer counts that session, and its tombstone if the store keeps
    /// one.
    pub(super) fn end(
        &mut self,
        user: &UserId,
        key: &SessionKey,
        tombstone: Option<Tombstone>,
        room: usize,
    ) {
        self.endings += 1;
        let mut derived = None;
        self.change_known(user, |known| {
            derived = known.session(key).map(|cached| cached.derived);
            known.forget(key);
            known.end_told(key, tombstone.as_ref().map(|tombstone| &tombstone.cause));
        });
        // If the store is down when the playback asks again, its end must be known here.
        if let (true, Some(mut tombstone)) = (key.kind == Kind::Playback, tombstone)
            && self.has_room_for_ends(user, room)
        {
            tombstone.was_live |= derived.is_some();
            tombstone.derived |= derived.unwrap_or_default();
            self.change(user, |known| known.bury(tombstone));
        }
    }

    /// Changes a user's entry, creating it if necessary.
    pub(super) fn change<T>(
        &mut self,
        user: &UserId,
        change: impl FnOnce(&mut CachedUser) -> T,
    ) -> T {
        let known = self.users.entry(user.clone()).or_default();
        let before = known.sessions.len();
        let outcome = change(known);
        let (after, is_empty) = (known.sessions.len(), known.is_empty());
        self.sessions = (self.sessions + after).saturating_sub(before);
        if is_empty {
            self.users.remove(user);
        }
        outcome
    }

    /// Changes a user's entry, if there is one.
    pub(super) fn change_known(&mut self, user: &UserId, change: impl FnOnce(&mut CachedUser)) {
        if let Entry::Occupied(_) = self.users.entry(user.clone()) {
            self.change(user, change);
        }
    }

    /// Makes room for another session of that user; `false` if there is none. One user holds at
    /// most as many as would be put back, so that nobody takes others' room. Sessions whose leases
    /// end first are evicted, since they must ask soonest. Unsynced sessions are kept.
    pub(super) fn make_room(
        &mut self,
        user: &UserId,
        limit: u32,
        room: usize,
        terms: &Terms,
        now: Timestamp,
    ) -> bool {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let most = limit.saturating_add(MAX_PUT_BACK);
        let held = |known: &CachedUser| known.sessions.len();
        if self.users.get(user).map_or(0, held) >= most {
            self.change_known(user, |known| known.settle(terms, now));
            if self.users.get(user).map_or(0, held) >= most {
                return false;
            }
        }
        if self.sessions < room {
            return true;
        }
        let sessions = self.users.values().flat_map(|known| &known.sessions);
        let mut ends: Vec<Timestamp> = sessions
            .filter(|cached| cached.sync == SyncState::Confirmed)
            .map(|cached| cached.sure_until)
            .collect();
        let leaving = ends.len() / EVICTED_PART;
        if ends.is_empty() {
            return false;
        }
        let (_, last, _) = ends.select_nth_unstable(leaving);
        let last = *last;
        self.users.retain(|_, known| {
            known
                .sessions
                .retain(|cached| cached.sync == SyncState::Unsynced || cached.sure_until > last);
            !known.is_empty()
        });
        self.recount();
        self.sessions < room
    }

    /// Drops expired entries.
    pub(super) fn sweep(&mut self, terms: &Terms, now: Timestamp) {
        self.users.retain(|_, known| {
            known.settle(terms, now);
            !known.is_empty()
        });
        self.recount();
    }

    /// Recounts the sessions.
    pub(super) fn recount(&mut self) {
        self.sessions = self.users.values().map(|known| known.sessions.len()).sum();
    }
}

/// The report about a session for the store.
pub(super) fn seen(
    user: &UserId,
    known: &CachedUser,
    cached: &CachedSession,
    now: Timestamp,
) -> Seen {
    Seen {
        user: user.clone(),
        sighting: cached.sighting(now),
        limit: known.limit,
    }
}
