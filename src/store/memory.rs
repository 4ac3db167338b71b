//! The embedded store: rosters in this process's memory, split into shards so that users seldom
//! wait for each other.
//!
//! It counts for this process alone and loses its data with it. The number of users is bounded; a
//! full store refuses new users' operations as an outage and never evicts a live session. Every
//! read checks expiry; the sweep only frees memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Cursor, Listing, Page, Shard, Store, StoreError};
use crate::clock::{Clock, Timestamp};
use crate::identity::{EndMessage, SessionKey, UserId};
use crate::session::{
    Admission, Ending, LimitOverride, Playing, Released, Renewal, Roster, Session, Sighting, Start,
    StartRules, Terms,
};
use crate::util::{Sharded, lock};

/// The number of shards: far more than cores, so that two users rarely contend for one.
const SHARDS: usize = 64;

/// The default number of users: some hundred megabytes at three sessions each.
const DEFAULT_MAX_USERS: usize = 1_000_000;

/// Rosters in this process's memory.
#[derive(Debug)]
pub struct MemoryStore {
    /// The users' rosters. The lock of a shard is held only for a few microseconds and never across
    /// an `.await`. A thread that panicked while it held the lock can't have left lasting damage in a
    /// roster: leases heal it.
    shards: Sharded<HashMap<UserId, Roster>, SHARDS>,
    /// The limits that operators have set for single users. Not part of a roster, which ends with
    /// its last session.
    overrides: Sharded<HashMap<UserId, LimitOverride>, SHARDS>,
    /// How many users fit in a shard, and how many overrides.
    room: usize,
    /// The limits of leases and tombstones.
    terms: Terms,
    /// The clock.
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// An empty store with room for about a million users.
    #[must_use]
    pub fn new(terms: Terms, clock: Arc<dyn Clock>) -> Self {
        Self::with_room(DEFAULT_MAX_USERS, terms, clock)
    }

    /// An empty store with room for about `max_users` users: the number is divided among the shards
    /// and rounded up.
    #[must_use]
    pub fn with_room(max_users: usize, terms: Terms, clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: Sharded::default(),
            overrides: Sharded::default(),
            room: max_users.div_ceil(SHARDS),
            terms,
            clock,
        }
    }

    /// Removes the users whose rosters have expired; returns how many users remain.
    pub fn sweep(&self) -> usize {
        let now = self.clock.now();
        for shard in self.overrides.all() {
            lock(shard).retain(|_, limit| limit.until > now);
        }
        self.shards
            .all()
            .iter()
            .map(|shard| sweep(&mut lock(shard), &self.terms, now))
            .sum()
    }

    /// Forgets these users, like a Redis that is restarted without persistence. Only for tests.
    #[doc(hidden)]
    pub fn forget(&self, are_lost: impl Fn(&UserId) -> bool) {
        for shard in self.shards.all() {
            lock(shard).retain(|user, _| !are_lost(user));
        }
    }

    /// The limit that an operator has set for that user, if one is in force.
    fn override_of(&self, user: &UserId, now: Timestamp) -> Option<LimitOverride> {
        let limit = self.overrides.of(user).get(user).copied();
        limit.filter(|limit| limit.until > now)
    }

    /// The error for a store without room.
    fn is_full(&self) -> StoreError {
        StoreError::Full(format!(
            "it has room for {} users",
            self.room.saturating_mul(SHARDS)
        ))
    }

    /// All rosters as they are now. Only for tests.
    #[doc(hidden)]
    pub fn copy(&self) -> Vec<(UserId, Roster)> {
        let shards = self.shards.all().iter();
        let rosters = shards.map(|shard| lock(shard).clone());
        rosters.flatten().collect()
    }

    /// Goes back to that copy, like a replica that is promoted and lacks the last moments. Only for
    /// tests.
    #[doc(hidden)]
    pub fn go_back_to(&self, copy: Vec<(UserId, Roster)>) {
        self.forget(|_| true);
        for (user, roster) in copy {
            self.shards.of(&user).insert(user, roster);
        }
    }

    /// Applies an operation to a user's roster, which it creates if necessary.
    fn with_roster<T>(
        &self,
        user: &UserId,
        act: impl FnOnce(&mut Roster, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        let now = self.clock.now();
        let mut shard = self.shards.of(user);
        if shard.len() >= self.room
            && !shard.contains_key(user)
            && sweep(&mut shard, &self.terms, now) >= self.room
        {
            return Err(self.is_full());
        }
        let mut slot = match shard.entry(user.clone()) {
            Entry::Occupied(slot) => slot,
            Entry::Vacant(slot) => slot.insert_entry(Roster::default()),
        };
        let outcome = act(slot.get_mut(), now);
        let forgettable_at = slot.get().forgettable_at(&self.terms);
        if forgettable_at.is_none_or(|at| at <= now) {
            slot.remove();
        }
        Ok(outcome)
    }
}

/// Removes what has expired in a shard; returns how many users remain.
fn sweep(shard: &mut HashMap<UserId, Roster>, terms: &Terms, now: Timestamp) -> usize {
    shard.retain(|_, roster| roster.forgettable_at(terms).is_some_and(|at| at > now));
    shard.len()
}

/// Adds sessions of a shard to a page until the page is full: of the users after the given one, in
/// the order of names. Returns the last user added if the page is full, and `None` if the shard has
/// no more.
///
/// It takes one pass over the shard and copies only what the page holds.
fn fill(
    page: &mut Vec<(UserId, Session)>,
    size: usize,
    shard: &HashMap<UserId, Roster>,
    behind: Option<&UserId>,
    now: Timestamp,
) -> Option<UserId> {
    let is_due = |user: &UserId| behind.is_none_or(|last| user > last);
    let mut users: Vec<_> = shard
        .iter()
        .filter(|(user, roster)| is_due(user) && roster.live(now).next().is_some())
        .collect();
    // Each user has at least one session.
    let most = size.saturating_sub(page.len()).max(1);
    if users.len() > most {
        users.select_nth_unstable_by_key(most, |(user, _)| *user);
        users.truncate(most);
    }
    users.sort_unstable_by_key(|(user, _)| *user);
    users.into_iter().find_map(|(user, roster)| {
        page.extend(roster.live(now).map(|live| (user.clone(), live.clone())));
        (page.len() >= size).then(|| user.clone())
    })
}

#[async_trait]
impl Store for MemoryStore {
    async fn admit(
        &self,
        user: &UserId,
        start: &Start,
        rules: &StartRules,
    ) -> Result<Admission, StoreError> {
        self.with_roster(user, |roster, now| {
            let limit = self.override_of(user, now);
            let mut admission = roster.admit(start, &rules.overridden(limit), &self.terms, now);
            if let Admission::Admitted(admitted) = &mut admission {
                admitted.limit_override = limit.map(|limit| limit.limit);
            }
            admission
        })
    }

    async fn renew(
        &self,
        user: &UserId,
        sighting: &Sighting,
        limit: u32,
    ) -> Result<Renewal, StoreError> {
        self.with_roster(user, |roster, now| {
            let limit = self.override_of(user, now).map_or(limit, |set| set.limit);
            roster.renew(sighting, limit, &self.terms, now)
        })
    }

    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError> {
        self.with_roster(user, |roster, now| roster.played(key, &self.terms, now))
    }

    async fn release_telling(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: (Ending, Option<&EndMessage>),
        age: Duration,
    ) -> Result<(Released, Option<Timestamp>), StoreError> {
        self.with_roster(user, |roster, now| {
            let released = roster.release_telling(key, ending, age, &self.terms, now);
            (released, Some(now))
        })
    }

    async fn list(&self, user: &UserId) -> Result<Listing, StoreError> {
        let taken_at = self.clock.now();
        let shard = self.shards.of(user);
        let sessions = shard
            .get(user)
            .map(|roster| roster.live(taken_at).cloned().collect());
        Ok(Listing {
            sessions: sessions.unwrap_or_default(),
            limit_override: self.override_of(user, taken_at),
            taken_at,
        })
    }

    async fn override_limit(
        &self,
        user: &UserId,
        limit: Option<LimitOverride>,
    ) -> Result<Option<LimitOverride>, StoreError> {
        let now = self.clock.now();
        let mut overrides = self.overrides.of(user);
        let before = overrides.get(user).copied();
        match limit.filter(|limit| limit.until > now) {
            None => drop(overrides.remove(user)),
            Some(limit) => {
                if before.is_none() && overrides.len() >= self.room {
                    overrides.retain(|_, limit| limit.until > now);
                    if overrides.len() >= self.room {
                        return Err(self.is_full());
                    }
                }
                overrides.insert(user.clone(), limit);
            }
        }
        Ok(before.filter(|before| before.until > now))
    }

    /// A cursor's place is a shard. A cursor from before a restart leads to a shard with other
    /// users; past the last shard there is nothing.
    async fn page(&self, from: &Cursor, size: usize) -> Result<Page, StoreError> {
        let taken_at = self.clock.now();
        let (mut entries, mut last) = (Vec::new(), from.last.as_ref());
        for (place, shard) in (0..).zip(self.shards.all()) {
            if place < from.place {
                continue;
            }
            if let Some(user) = fill(&mut entries, size, &lock(shard), last.take(), taken_at) {
                return Ok(Page {
                    entries,
                    next: Some(Cursor::behind(place, user)),
                    taken_at,
                    may_miss: None,
                });
            }
            // A large store takes a millisecond per shard, and other tasks need this thread too.
            tokio::task::yield_now().await;
        }
        Ok(Page {
            entries,
            next: None,
            taken_at,
            may_miss: None,
        })
    }

    async fn ping(&self, _: &Shard) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::identity::{Facts, Kind, SessionId};
    use crate::session::WhenFull;

    fn store(max_users: usize) -> (MemoryStore, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
        let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
        (
            MemoryStore::with_room(max_users, terms, clock.clone()),
            clock,
        )
    }

    fn start(id: &str) -> Start {
        let key = SessionKey {
            kind: Kind::Playback,
            id: SessionId::parse(id).unwrap(),
        };
        Start {
            key,
            facts: Facts::default(),
            lease: Duration::from_secs(30),
            ticket: None,
            derived: false,
        }
    }

    #[tokio::test]
    async fn a_full_store_is_an_outage_only_for_new_users() {
        let (store, clock) = store(1);
        let users: Vec<UserId> = (0..SHARDS * 4)
            .map(|n| UserId::parse(&format!("user-{n}")).unwrap())
            .collect();
        let mut inside = Vec::new();
        for user in &users {
            match store
                .admit(user, &start("a"), &StartRules::new(3, WhenFull::Refuse))
                .await
            {
                Ok(_) => inside.push(user),
                Err(error) => assert!(matches!(error, StoreError::Full(_)), "{error}"),
            }
        }
        assert!(
            !inside.is_empty() && inside.len() <= SHARDS,
            "{} of {} users got in",
            inside.len(),
            users.len()
        );
        for user in inside {
            assert!(
                store
                    .admit(user, &start("b"), &StartRules::new(3, WhenFull::Refuse))
                    .await
                    .is_ok()
            );
            assert_eq!(store.list(user).await.unwrap().sessions.len(), 2);
        }
        clock.advance(Duration::from_secs(30));
        for user in &users {
            let (released, listed) = (
                store
                    .admit(user, &start("a"), &StartRules::new(0, WhenFull::Refuse))
                    .await,
                store.list(user).await,
            );
            assert!(
                released.is_ok() && listed.unwrap().sessions.is_empty(),
                "what has expired makes room for {user}"
            );
        }
    }

    #[tokio::test]
    async fn pages_show_each_user_once_and_exceed_only_by_the_last() {
        let (store, _) = store(10_000);
        for number in 0..1000 {
            let user = UserId::parse(&format!("user-{number}")).unwrap();
            for id in ["a", "b", "c"].into_iter().take(1 + number % 3) {
                let admission = store
                    .admit(&user, &start(id), &StartRules::new(3, WhenFull::Refuse))
                    .await;
                assert!(admission.is_ok());
            }
        }
        for size in [1, 2, 100, 5000] {
            let (mut shown, mut next) = (HashMap::new(), Some(Cursor::default()));
            while let Some(from) = next {
                let page = store.page(&from, size).await.unwrap();
                let is_last = page.next.is_none();
                assert!(page.entries.len() >= size || is_last, "{size} from {from}");
                assert!(page.entries.len() < size + 3, "{size} from {from}");
                for (user, session) in page.entries {
                    *shown.entry((user, session.key)).or_insert(0) += 1;
                }
                next = page.next;
            }
            assert_eq!(shown.len(), 334 + 2 * 333 + 3 * 333);
            assert!(shown.values().all(|times| *times == 1), "pages of {size}");
        }
    }

    #[tokio::test]
    async fn the_sweep_forgets_what_has_ended_and_nothing_else() {
        let (store, clock) = store(1000);
        for n in 0..10 {
            let user = UserId::parse(&format!("user-{n}")).unwrap();
            store
                .admit(&user, &start("a"), &StartRules::new(3, WhenFull::Refuse))
                .await
                .unwrap();
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(store.sweep(), 10);
        clock.advance(Duration::from_secs(25));
        assert_eq!(store.sweep(), 4);
        clock.advance(Duration::from_secs(5));
        assert_eq!(store.sweep(), 0);
    }
}
