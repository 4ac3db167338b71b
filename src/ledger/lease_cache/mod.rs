//! Held leases: what this instance knows by itself, so that a running playback needs no trip to the store, an outage changes nothing for
//! who is watching, and a store that has forgotten can be told again.
//!
//! Per user it keeps the sessions that the store has said it counts, until when that surely holds, and what the store is yet to be told:
//! what the outage rule let in, what was seen running meanwhile, and ends. Nothing here is ever wrong to lose, but for what is unsynced.
//!
//! An answer of the store may arrive late, when its session has been released or displaced meanwhile. So a question is marked with a
//! [`ReadVersion`], and its answer counts only if no session of the same shard was taken out since: losing one is a loss of speed.

mod shard;
mod sync_queue;
mod user;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::Leases;
use crate::session::{
    Admission, Admitted, EndCause, Ending, Facts, Playing, Provenance, Session, SessionKey,
    Sighting, Start, StartRules, Terms, Ticket, Timestamp, Tombstone, UserId,
};
use crate::store::Seen;
use crate::telemetry::metrics::ReleaseCause;
use crate::util::lock;
use shard::{Shard, seen};
use sync_queue::SyncQueue;
pub(super) use sync_queue::Unsynced;
pub use user::CacheLookup;
use user::{CachedSession, CachedUser, SyncState};
pub(super) use user::{Confirmed, End, GATHERING};

/// How many shards there are: far more than cores, and so many that a release seldom voids another user's answer.
const SHARDS: usize = 256;

/// What part of a full shard makes room at a time.
const EVICTED_PART: usize = 8;

/// What this instance knows.
#[derive(Debug)]
pub(super) struct LeaseCache {
    /// The users, each in the shard that its name hashes to.
    shards: Vec<Mutex<Shard>>,
    /// Says which shard a user is in.
    hasher: RandomState,
    /// How many sessions a shard has room for.
    room: usize,
    /// How long each kind counts.
    leases: Leases,
    /// What leases and tombstones may be.
    terms: Terms,
    /// Tells the time.
    clock: Arc<dyn Clock>,
    /// The sessions that are to be renewed in the background.
    due: Mutex<Vec<(UserId, SessionKey)>>,
    /// Tells that there are some.
    pub(super) due_arrived: Notify,
    /// The users of whom the store is to be told something.
    sync_queue: Mutex<SyncQueue>,
    /// Tells that there are some.
    pub(super) unsynced_arrived: Notify,
    /// Tells that the store may have forgotten.
    pub(super) doubted: Notify,
    /// How often the store was found to have forgotten.
    losses: AtomicU64,
}

/// What it says about the store that it doesn't know a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForgetSignal {
    /// That it has forgotten.
    Proof,
    /// That it may have.
    Doubt,
    /// Nothing: it was to be told, or need not know it any more.
    None,
}

/// When, and before which endings, the store was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadVersion {
    /// As of when its answer surely holds.
    asked_at: Timestamp,
    /// What the shard had seen then.
    endings: u64,
    /// How often the store had been found to have forgotten by then.
    losses: u64,
}

/// What is known of a user before the store is asked for a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct BeforeStart {
    /// To be given back with what the store answers.
    pub(super) version: ReadVersion,
    /// How many other playbacks of the user the store must still count.
    pub(super) sure_beside: usize,
    /// Whether the store is yet to be told something of this user.
    pub(super) is_unsynced: bool,
}

/// How many sessions are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All of them.
    pub(super) sessions: usize,
    /// Those that the store is to be told of.
    pub(super) unsynced: usize,
}

impl LeaseCache {
    /// Nothing yet, with room for so many sessions.
    pub(super) fn new(room: usize, leases: Leases, terms: Terms, clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            hasher: RandomState::new(),
            room: room.div_ceil(SHARDS),
            leases,
            terms,
            clock,
            due: Mutex::default(),
            due_arrived: Notify::new(),
            sync_queue: Mutex::default(),
            unsynced_arrived: Notify::new(),
            doubted: Notify::new(),
            losses: AtomicU64::default(),
        }
    }

    /// Whether there is no room for any session.
    pub(super) const fn holds_nothing(&self) -> bool {
        self.room == 0
    }

    /// The time here.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long a renewal may wait for others.
    pub(super) fn gathering(&self) -> Duration {
        self.leases.playback / GATHERING
    }

    /// To be had before the store is asked about a user, and given back with what it answered.
    pub(super) fn version(&self, user: &UserId) -> ReadVersion {
        let endings = self.shard(user).endings;
        ReadVersion {
            asked_at: self.now(),
            endings,
            losses: self.losses.load(Ordering::SeqCst),
        }
    }

    /// What is known of a user, one of whose sessions asks the store for a slot.
    pub(super) fn before_start(&self, user: &UserId, key: &SessionKey) -> BeforeStart {
        let asked_at = self.now();
        let shard = self.shard(user);
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

    /// What is known of a session that asks to go on. It is a sign of life.
    pub(super) fn lookup(&self, user: &UserId, key: &SessionKey, facts: &Facts) -> CacheLookup {
        let (now, lease) = (self.now(), self.leases.of(key.kind));
        let mut shard = self.shard(user);
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

    /// What a session that the store surely counts is told, as if that had been asked.
    pub(super) fn admitted(&self, user: &UserId, key: &SessionKey) -> Option<Admitted> {
        let now = self.now();
        let shard = self.shard(user);
        shard.users.get(user)?.admitted(key, now)
    }

    /// What the store is to be told of a session, if it is still held.
    pub(super) fn sighting(&self, user: &UserId, key: &SessionKey) -> Option<Seen> {
        let now = self.now();
        let shard = self.shard(user);
        let known = shard.users.get(user)?;
        let cached = known.session(key).filter(|cached| cached.until > now)?;
        Some(seen(user, known, cached, now))
    }

    /// What it says about the store that it doesn't know that session.
    pub(super) fn signal(&self, user: &UserId, key: &SessionKey) -> ForgetSignal {
        let now = self.now();
        let shard = self.shard(user);
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
        let shard = self.shard(user);
        let known = shard.users.get(user);
        known.map_or(0, |known| known.sure_beside(key, now))
    }

    /// The store counts that session, as it answered to a question of that version, and those that gave way to it no longer.
    pub(super) fn confirmed(
        &self,
        user: &UserId,
        version: ReadVersion,
        confirmed: &Confirmed<'_>,
        displaced: &[Session],
    ) {
        let mut shard = self.shard(user);
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
        if is_new && !shard.make_room(user, confirmed.limit, self.room, &self.terms, self.now()) {
            return;
        }
        let known = shard.users.entry(user.clone()).or_default();
        known.confirmed(confirmed, version.asked_at);
        // The store may have said so before it forgot.
        let before_a_loss = version.losses != self.losses.load(Ordering::SeqCst);
        if let (true, Some(cached)) = (before_a_loss, known.session_mut(confirmed.key)) {
            cached.sync = SyncState::Unsynced;
            self.queue(user, known);
            self.unsynced_arrived.notify_one();
        }
        shard.sessions += usize::from(is_new);
    }

    /// The store says that some of that session has reached its viewer, as it answered to a question of that version. `limit` is what its
    /// user may watch, as far as is known where nothing else is.
    pub(super) fn playing(
        &self,
        user: &UserId,
        version: ReadVersion,
        key: &SessionKey,
        playing: Playing,
        limit: u32,
    ) {
        let mut shard = self.shard(user);
        let is_new = !shard.knows(user, key);
        if shard.endings != version.endings
            || (is_new && !shard.make_room(user, limit, self.room, &self.terms, self.now()))
        {
            return;
        }
        let is_stranger = !shard.users.contains_key(user);
        shard.change(user, |known| {
            if is_stranger {
                known.limit = limit;
            }
            known.playing(key, playing, version.asked_at);
        });
    }

    /// Some of that session has reached its viewer, and the store could not be told.
    pub(super) fn played_untold(&self, user: &UserId, key: &SessionKey) {
        if let Some(cached) = self.shard(user).session_mut(user, key) {
            cached.played = true;
        }
    }

    /// Whether it is known that some of that session has reached its viewer.
    pub(super) fn is_proven(&self, user: &UserId, key: &SessionKey) -> bool {
        let now = self.now();
        let shard = self.shard(user);
        let cached = shard.users.get(user).and_then(|known| known.session(key));
        cached.is_some_and(|cached| cached.is_proven() && cached.until > now)
    }

    /// The session was seen running, and the store could not be told.
    pub(super) fn sighted(&self, user: &UserId, sighting: &Sighting, limit: u32) {
        let now = self.now();
        let mut shard = self.shard(user);
        if !shard.knows(user, &sighting.key)
            && !shard.make_room(user, limit, self.room, &self.terms, now)
        {
            return;
        }
        shard.change(user, |known| known.sighted(sighting, limit, now));
        drop(shard);
        self.enqueue(user);
    }

    /// The session showed a sign of life, and the store could not be told: it counts here for that much longer.
    pub(super) fn seen(&self, user: &UserId, key: &SessionKey, lease: Duration) {
        let now = self.now();
        let mut shard = self.shard(user);
        if let Some(cached) = shard.session_mut(user, key) {
            cached.see(now, lease);
        }
        drop(shard);
        self.not_renewed(user, key);
    }

    /// Whether the session counts here, whoever knows of it.
    pub(super) fn counts(&self, user: &UserId, key: &SessionKey) -> bool {
        let now = self.now();
        let shard = self.shard(user);
        let known = shard.users.get(user);
        known
            .and_then(|known| known.session(key))
            .is_some_and(|cached| cached.until > now)
    }

    /// The session could not be renewed in the background: its next request is to ask. It stays good meanwhile.
    pub(super) fn not_renewed(&self, user: &UserId, key: &SessionKey) {
        let mut shard = self.shard(user);
        let Some(cached) = shard.session_mut(user, key) else {
            return;
        };
        (cached.sync, cached.in_renewal) = (SyncState::Unsynced, false);
        drop(shard);
        self.enqueue(user);
    }

    /// Decides a start by what is known here alone; `None` if it can't be counted for want of room. `allowed` is what the user may watch by
    /// the policy.
    pub(super) fn admit(
        &self,
        user: &UserId,
        start: &Start,
        allowed: u32,
        rules: &StartRules,
    ) -> Option<Admission> {
        let now = self.now();
        let mut shard = self.shard(user);
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

    /// A session is about to be released: whoever asks from now on asks the store. What was let in without its knowledge is kept until
    /// that is sure.
    pub(super) fn ending(&self, user: &UserId, key: &SessionKey) {
        let mut shard = self.shard(user);
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

    /// The store says, or was told, that a session is over, for that cause where one is remembered.
    pub(super) fn ended(&self, user: &UserId, key: &SessionKey, cause: Option<EndCause>) {
        let tombstone = cause.map(|cause| self.tombstone(key, cause));
        self.shard(user).end(user, key, tombstone, self.room);
    }

    /// What is remembered here of an end that the store knows of, where no more is known of the session.
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
        }
    }

    /// The store was told that a call takes back its start, and has done so if there was one: whatever else is known of the session is
    /// another call's.
    pub(super) fn undone(&self, user: &UserId, key: &SessionKey, ticket: Ticket, was_there: bool) {
        let mut shard = self.shard(user);
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

    /// The store was told of that end.
    pub(super) fn end_told(&self, user: &UserId, end: &End) {
        self.shard(user)
            .change_known(user, |known| known.ends.retain(|unsynced| unsynced != end));
    }

    /// The session is over, and the store could not be told.
    pub(super) fn ended_untold(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        cause: ReleaseCause,
        age: Duration,
    ) {
        let now = self.now();
        let said_at = now.before(age);
        let end = End {
            key: key.clone(),
            ending,
            cause: Some(cause),
            said_at,
            until: said_at.after(self.terms.memory),
        };
        let mut shard = self.shard(user);
        shard.endings += 1;
        // The outbox remembers it too.
        if shard.has_room_for_ends(user, self.room) {
            shard.change(user, |known| known.release(end, &self.terms, now));
        }
        drop(shard);
        self.enqueue(user);
    }

    /// The store does not count a session that was told of so. If it has begun to play since, there is more to tell.
    pub(super) fn crowded(&self, user: &UserId, told: &Sighting) {
        let has_played =
            |cached: &CachedSession| told.provenance == Provenance::Unplayed && cached.played;
        let mut shard = self.shard(user);
        match shard.session_mut(user, &told.key) {
            Some(cached) if has_played(cached) => cached.sync = SyncState::Unsynced,
            _ => return shard.change_known(user, |known| known.forget(&told.key)),
        }
        drop(shard);
        self.enqueue(user);
    }

    /// Nothing is known of the session any more; it may run on.
    pub(super) fn forget(&self, user: &UserId, key: &SessionKey) {
        self.shard(user)
            .change_known(user, |known| known.forget(key));
    }

    /// The sessions that are to be renewed in the background.
    pub(super) fn take_due(&self) -> Vec<(UserId, SessionKey)> {
        std::mem::take(&mut *lock(&self.due))
    }

    /// Drops what no longer counts, and says how many sessions are left. To be called every few seconds.
    pub(super) fn sweep(&self) -> Tally {
        let now = self.now();
        let mut tally = Tally::default();
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.sweep(&self.terms, now);
            let sessions = shard.users.values().flat_map(|known| &known.sessions);
            tally.unsynced += sessions
                .filter(|cached| cached.sync == SyncState::Unsynced)
                .count();
            tally.sessions += shard.sessions;
        }
        // Whoever is gone owes nothing; in a long outage that would be nearly everybody.
        let users = lock(&self.sync_queue).queue.clone();
        for user in users.iter().filter(|user| !self.is_still_unsynced(user)) {
            lock(&self.sync_queue).known.remove(user);
        }
        lock(&self.sync_queue).prune();
        tally
    }

    /// The shard of a user. Held for a moment, never across an `.await`.
    #[expect(
        clippy::indexing_slicing,
        reason = "the index is taken modulo the length, which is not zero"
    )]
    fn shard(&self, user: &UserId) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64).unwrap_or_default();
        lock(&self.shards[hash])
    }
}
