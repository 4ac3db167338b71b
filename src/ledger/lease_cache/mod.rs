//! Held leases: this instance's own knowledge. With it, a running playback needs no call to the
//! store, an outage affects no current viewer, and a store that has lost data can be told again.
//!
//! For each user it keeps the sessions that the store has counted, until when that certainly holds,
//! and what the store has yet to learn: sessions that the outage rule let in, sessions seen running
//! meanwhile, and ends. Losing any of it is safe, except for what is unsynced.
//!
//! An answer of the store may arrive late, when its session has been released or displaced
//! meanwhile. So a question is marked with a [`ReadVersion`], and its answer counts only if no
//! session of the same shard was removed since: losing an answer only costs speed.

mod shard;
mod sync_queue;
mod user;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::config::Leases;
use crate::identity::{Facts, SessionKey, UserId};
use crate::session::{
    Admission, Admitted, EndCause, Ending, Playing, Provenance, Session, Sighting, Start,
    StartRules, Terms, Ticket, Tombstone,
};
use crate::store::Seen;
use crate::util::{Sharded, lock};
use shard::{CacheShard, seen};
use sync_queue::SyncQueue;
pub(super) use sync_queue::Unsynced;
pub use user::CacheLookup;
use user::{CachedSession, CachedUser, SyncState};
pub(super) use user::{Confirmed, End, GATHERING};

/// The number of shards: far more than cores, and enough that a release seldom voids another user's
/// answer.
const SHARDS: usize = 256;

/// A full shard evicts one part in this many at a time.
const EVICTED_PART: usize = 8;

/// This instance's knowledge.
#[derive(Debug)]
pub(super) struct LeaseCache {
    /// The users.
    shards: Sharded<CacheShard, SHARDS>,
    /// How many sessions fit in a shard.
    room: usize,
    /// How long a session of each kind counts.
    leases: Leases,
    /// The limits of leases and tombstones.
    terms: Terms,
    /// The clock.
    clock: Arc<dyn Clock>,
    /// The sessions due for renewal in the background.
    due: Mutex<Vec<(UserId, SessionKey)>>,
    /// Notified when there are some.
    pub(super) due_arrived: Notify,
    /// The users with something unsynced.
    sync_queue: Mutex<SyncQueue>,
    /// Notified when there are some.
    pub(super) unsynced_arrived: Notify,
    /// How often the store was found to have lost data.
    losses: AtomicU64,
}

/// What it means that the store doesn't know a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForgetSignal {
    /// It has lost data.
    Proof,
    /// It may have lost data.
    Doubt,
    /// Nothing: it was not told yet, or need no longer know the session.
    None,
}

/// When the store was asked, and what the shard had seen by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadVersion {
    /// The time from which its answer certainly holds.
    asked_at: Timestamp,
    /// The shard's count of endings then.
    endings: u64,
    /// The count of detected data losses then.
    losses: u64,
}

/// What is known about a user before the store is asked for a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct BeforeStart {
    /// The version to hand in with the store's answer.
    pub(super) version: ReadVersion,
    /// How many other playbacks of the user the store must still count.
    pub(super) sure_beside: usize,
    /// Whether the store must still be told something about this user.
    pub(super) is_unsynced: bool,
}

/// The number of held sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All of them.
    pub(super) sessions: usize,
    /// Those that the store must be told about.
    pub(super) unsynced: usize,
}

impl LeaseCache {
    /// An empty cache with room for that many sessions.
    pub(super) fn new(room: usize, leases: Leases, terms: Terms, clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: Sharded::default(),
            room: room.div_ceil(SHARDS),
            leases,
            terms,
            clock,
            due: Mutex::default(),
            due_arrived: Notify::new(),
            sync_queue: Mutex::default(),
            unsynced_arrived: Notify::new(),
            losses: AtomicU64::default(),
        }
    }

    /// Whether there is no room for any session.
    pub(super) const fn holds_nothing(&self) -> bool {
        self.room == 0
    }

    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long a renewal may wait for others.
    pub(super) fn gathering(&self) -> Duration {
        self.leases.playback / GATHERING
    }

    /// Get this before asking the store about a user, and pass it back with the answer.
    pub(super) fn version(&self, user: &UserId) -> ReadVersion {
        let endings = self.shards.of(user).endings;
        ReadVersion {
            asked_at: self.now(),
            endings,
            losses: self.losses.load(Ordering::SeqCst),
        }
    }

    /// What is known about a user before the store is asked for a slot for that session.
    pub(super) fn before_start(&self, user: &UserId, key: &SessionKey) -> BeforeStart {
        let asked_at = self.now();
        let shard = self.shards.of(user);
        let known = shard.users.get(user);
        BeforeStart {
            version: ReadVersion {
                asked_at,
                endings: shard.endings,
                losses: self.losses.load(Ordering::SeqCst),
            },
            sure_beside: known.map_or(0, |known| known.sure_beside(key, asked_at)),
            is_unsynced: known.is_some_and(CachedUser::is_unsynced),
        }
    }

    /// Looks up a session whose request asks to continue. The request counts as a sign of life.
    pub(super) fn lookup(&self, user: &UserId, key: &SessionKey, facts: &Facts) -> CacheLookup {
        let (now, lease) = (self.now(), self.leases.of(key.kind));
        let mut shard = self.shards.of(user);
        let Some(known) = shard.users.get_mut(user) else {
            return CacheLookup::Unknown;
        };
        let look = known.lookup(key, facts, lease, now);
        drop(shard);
        if look == (CacheLookup::Good { due: true }) {
            lock(&self.due).push((user.clone(), key.clone()));
            self.due_arrived.notify_one();
        }
        look
    }

    /// The answer for a session that the store certainly counts, as if the store had been asked.
    pub(super) fn admitted(&self, user: &UserId, key: &SessionKey) -> Option<Admitted> {
        let now = self.now();
        let shard = self.shards.of(user);
        shard.users.get(user)?.admitted(key, now)
    }

    /// The report about a session for the store, if it is still held.
    pub(super) fn sighting(&self, user: &UserId, key: &SessionKey) -> Option<Seen> {
        let now = self.now();
        let shard = self.shards.of(user);
        let known = shard.users.get(user)?;
        let cached = known.session(key).filter(|cached| cached.until > now)?;
        Some(seen(user, known, cached, now))
    }

    /// What it means that the store doesn't know that session.
    pub(super) fn signal(&self, user: &UserId, key: &SessionKey) -> ForgetSignal {
        let now = self.now();
        let shard = self.shards.of(user);
        match shard.users.get(user).and_then(|known| known.session(key)) {
            Some(cached) if cached.is_proof(now) => ForgetSignal::Proof,
            Some(cached) if cached.sync == SyncState::Unsynced || cached.sure_until <= now => {
                ForgetSignal::None
            }
            Some(_) | None => ForgetSignal::Doubt,
        }
    }

    /// How many other playbacks of the user the store must still count.
    pub(super) fn sure_beside(&self, user: &UserId, key: &SessionKey) -> usize {
        let now = self.now();
        let shard = self.shards.of(user);
        let known = shard.users.get(user);
        known.map_or(0, |known| known.sure_beside(key, now))
    }

    /// Records that the store counts that session, in its answer to a question of that version, and
    /// no longer counts those that it displaced.
    pub(super) fn confirmed(
        &self,
        user: &UserId,
        version: ReadVersion,
        confirmed: &Confirmed<'_>,
        displaced: &[Session],
    ) {
        let mut shard = self.shards.of(user);
        let is_answer_good = shard.endings == version.endings;
        for session in displaced {
            let cause = EndCause::Displaced {
                by: confirmed.key.clone(),
            };
            let tombstone = Tombstone {
                rival: confirmed.facts.origin(),
                was_live: true,
                derived: session.flags.derived,
                ..self.tombstone(&session.key, cause)
            };
            shard.end(user, &session.key, Some(tombstone), self.room);
        }
        if !is_answer_good {
            if let Some(cached) = shard.session_mut(user, confirmed.key) {
                cached.in_renewal = false;
            }
            return;
        }
        let is_new = !shard.knows(user, confirmed.key);
        if is_new
            && (confirmed.lease.is_zero()
                || !shard.make_room(user, confirmed.limit, self.room, &self.terms, self.now()))
        {
            return;
        }
        let known = shard.users.entry(user.clone()).or_default();
        known.confirmed(confirmed, version.asked_at);
        // The store may have answered before it lost its data.
        let before_a_loss = version.losses != self.losses.load(Ordering::SeqCst);
        if let (true, Some(cached)) = (before_a_loss, known.session_mut(confirmed.key)) {
            cached.sync = SyncState::Unsynced;
            self.queue(user, known);
            self.unsynced_arrived.notify_one();
        }
        shard.sessions += usize::from(is_new);
    }

    /// Records that the store says that part of that session has reached its viewer, in its answer
    /// to a question of that version. `limit` is the user's limit, if nothing better is known.
    pub(super) fn playing(
        &self,
        user: &UserId,
        version: ReadVersion,
        key: &SessionKey,
        playing: Playing,
        limit: u32,
    ) {
        let mut shard = self.shards.of(user);
        let is_new = !shard.knows(user, key);
        if shard.endings != version.endings
            || (is_new && !shard.make_room(user, limit, self.room, &self.terms, self.now()))
        {
            return;
        }
        let is_stranger = !shard.users.contains_key(user);
        let is_unsynced = shard.change(user, |known| {
            if is_stranger {
                known.limit = limit;
            }
            known.playing(key, playing, version.asked_at);
            known.is_unsynced()
        });
        drop(shard);
        if is_unsynced {
            // A session that had run out here, and that nobody had reported, counts again.
            self.enqueue(user);
        }
    }

    /// Records that part of that session has reached its viewer, and that the store doesn't know.
    pub(super) fn played_untold(&self, user: &UserId, key: &SessionKey) {
        if let Some(cached) = self.shards.of(user).session_mut(user, key) {
            cached.played = true;
        }
    }

    /// Whether part of that session is known to have reached its viewer.
    pub(super) fn is_proven(&self, user: &UserId, key: &SessionKey) -> bool {
        let now = self.now();
        let shard = self.shards.of(user);
        let cached = shard.users.get(user).and_then(|known| known.session(key));
        cached.is_some_and(|cached| cached.is_proven() && cached.until > now)
    }

    /// Records that the session was seen running, and that the store doesn't know.
    pub(super) fn sighted(&self, user: &UserId, sighting: &Sighting, limit: u32) {
        let now = self.now();
        let mut shard = self.shards.of(user);
        if !shard.knows(user, &sighting.key)
            && !shard.make_room(user, limit, self.room, &self.terms, now)
        {
            return;
        }
        shard.change(user, |known| known.sighted(sighting, limit, now));
        drop(shard);
        self.enqueue(user);
    }

    /// Records a sign of life that the store doesn't know about: the session counts here for that
    /// much longer.
    pub(super) fn seen(&self, user: &UserId, key: &SessionKey, lease: Duration) {
        let now = self.now();
        let mut shard = self.shards.of(user);
        if let Some(cached) = shard.session_mut(user, key) {
            cached.see(now, lease);
        }
        drop(shard);
        self.not_renewed(user, key);
    }

    /// Whether the session counts here, whether or not the store knows it.
    pub(super) fn counts(&self, user: &UserId, key: &SessionKey) -> bool {
        let now = self.now();
        let shard = self.shards.of(user);
        let known = shard.users.get(user);
        known
            .and_then(|known| known.session(key))
            .is_some_and(|cached| cached.until > now)
    }

    /// Whether anything is known of the session, even if it no longer counts.
    pub(super) fn knows(&self, user: &UserId, key: &SessionKey) -> bool {
        self.shards.of(user).knows(user, key)
    }

    /// Records that the session could not be renewed in the background: its next request must ask
    /// the store. Until then it stays valid.
    pub(super) fn not_renewed(&self, user: &UserId, key: &SessionKey) {
        let mut shard = self.shards.of(user);
        let Some(cached) = shard.session_mut(user, key) else {
            return;
        };
        (cached.sync, cached.in_renewal) = (SyncState::Unsynced, false);
        drop(shard);
        self.enqueue(user);
    }

    /// Decides a start from this instance's knowledge alone; `None` if there is no room to count
    /// it. `allowed` is the user's limit by the policy.
    pub(super) fn admit(
        &self,
        user: &UserId,
        start: &Start,
        allowed: u32,
        rules: &StartRules,
    ) -> Option<Admission> {
        let now = self.now();
        let mut shard = self.shards.of(user);
        if !shard.knows(user, &start.key)
            && !shard.make_room(user, allowed, self.room, &self.terms, now)
        {
            return None;
        }
        let admission = shard.change(user, |known| {
            known.limit = allowed;
            known.admit(start, rules, &self.terms, now)
        });
        drop(shard);
        self.enqueue(user);
        Some(admission)
    }

    /// Records that a session is about to be released: requests from now on ask the store. A
    /// session that was let in without the store's knowledge is kept until the release is certain.
    pub(super) fn ending(&self, user: &UserId, key: &SessionKey) {
        let mut shard = self.shards.of(user);
        shard.endings += 1;
        shard.change_known(user, |known| {
            if known
                .session(key)
                .is_some_and(|cached| cached.sync == SyncState::Confirmed)
            {
                known.forget(key);
            }
        });
    }

    /// Records that a session is over, by the store or by a report to it, with that cause if it is
    /// remembered.
    pub(super) fn ended(&self, user: &UserId, key: &SessionKey, cause: Option<EndCause>) {
        let tombstone = cause.map(|cause| self.tombstone(key, cause));
        self.shards.of(user).end(user, key, tombstone, self.room);
    }

    /// The tombstone of an end that the store knows of, if nothing more is known of the session.
    fn tombstone(&self, key: &SessionKey, cause: EndCause) -> Tombstone {
        let now = self.now();
        Tombstone {
            key: key.clone(),
            cause,
            asked_at: now,
            until: now.after(self.terms.memory),
            was_live: false,
            derived: false,
            rival: Facts::default(),
            message: None,
        }
    }

    /// Records that the store was told that a call takes back its start, and has done so if there
    /// was one. Anything else known of the session belongs to another call.
    pub(super) fn undone(&self, user: &UserId, key: &SessionKey, ticket: Ticket, was_there: bool) {
        let mut shard = self.shards.of(user);
        shard.endings += 1;
        shard.change_known(user, |known| {
            known
                .ends
                .retain(|end| end.key != *key || end.ending != Ending::Undone(ticket));
            if known.session(key).is_some_and(|cached| {
                cached.ticket == Some(ticket) || (was_there && cached.sync == SyncState::Confirmed)
            }) {
                known.forget(key);
            }
        });
    }

    /// Records that the store does not count a session after that report. If the session has begun
    /// to play since, there is more to report.
    pub(super) fn crowded(&self, user: &UserId, told: &Sighting) {
        let has_played =
            |cached: &CachedSession| told.provenance == Provenance::Unplayed && cached.played;
        let mut shard = self.shards.of(user);
        match shard.session_mut(user, &told.key) {
            Some(cached) if has_played(cached) => cached.sync = SyncState::Unsynced,
            _ => return shard.change_known(user, |known| known.forget(&told.key)),
        }
        drop(shard);
        self.enqueue(user);
    }

    /// Drops the session, which may still be running.
    pub(super) fn forget(&self, user: &UserId, key: &SessionKey) {
        self.shards
            .of(user)
            .change_known(user, |known| known.forget(key));
    }

    /// Takes the sessions due for renewal in the background.
    pub(super) fn take_due(&self) -> Vec<(UserId, SessionKey)> {
        std::mem::take(&mut *lock(&self.due))
    }

    /// Drops expired entries and returns how many sessions are left. Call it every few seconds.
    pub(super) fn sweep(&self) -> Tally {
        let now = self.now();
        let mut tally = Tally::default();
        for shard in self.shards.all() {
            let mut shard = lock(shard);
            shard.sweep(&self.terms, now);
            let sessions = shard.users.values().flat_map(|known| &known.sessions);
            tally.unsynced += sessions
                .filter(|cached| cached.sync == SyncState::Unsynced)
                .count();
            tally.sessions += shard.sessions;
        }
        // Users who are gone have nothing to sync; in a long outage that would be nearly all.
        let users = lock(&self.sync_queue).users();
        for user in users.iter().filter(|user| !self.is_still_unsynced(user)) {
            lock(&self.sync_queue).known.remove(user);
        }
        lock(&self.sync_queue).prune();
        // Some may have another shard by now.
        self.requeue();
        tally
    }
}
