//! Grace: a start that finds all slots taken waits for a moment. A viewer who changes channels
//! closes one stream and opens the next within milliseconds, and the end of the first may still be
//! on its way.
//!
//! One start per user waits at a time, so that asking often gains nothing. A slot that is freed
//! through this instance wakes the waiting start immediately. For one that is freed through another
//! instance, the start asks the store again from time to time, and at the end of the wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::CallerDeadline;
use crate::clock::Stopwatch;
use crate::identity::UserId;
use crate::util::lock;

/// A wait shorter than this isn't worth a second call to the store.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// When a waiting start asks the store again, measured from the beginning of its wait: soon at
/// first, since a slot usually comes free soon, and then less often, because each time costs a
/// call.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(25),
    Duration::from_millis(75),
    Duration::from_millis(150),
];

/// The waiting starts.
#[derive(Debug, Default)]
pub(super) struct Grace {
    /// The users with a waiting start, and how to wake it; locked only briefly.
    waiting: Mutex<HashMap<UserId, Arc<Notify>>>,
    /// How many slots came free through this instance, for all users.
    freed: AtomicU64,
}

/// The count of freed slots at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreedCount(u64);

/// A start's turn to wait; released when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct GraceWait<'a> {
    /// Where the turn is released.
    grace: &'a Grace,
    /// The user.
    user: UserId,
    /// When the wait began; calls to the store meanwhile are part of its time.
    pub(super) began: Stopwatch,
    /// How long the whole wait may take.
    pub(super) room: Duration,
    /// Notified when a slot comes free.
    freed: Arc<Notify>,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeReason {
    /// A slot came free.
    SlotFreed,
    /// One may have come free elsewhere.
    LookAgain,
    /// The wait has reached its limit.
    TurnOver,
    /// The caller no longer waits for the answer.
    CallerGone,
}

impl Grace {
    /// Call this before asking the store, and pass the result to [`Self::enter`]: a slot may come
    /// free while the store's refusal is on its way, when no start is waiting yet.
    pub(super) fn freed_count(&self) -> FreedCount {
        FreedCount(self.freed.load(Ordering::SeqCst))
    }

    /// A turn to wait, if there is time for one: at most `longest` and half of what the caller's
    /// deadline leaves, and less if the store is slow, because the last call must fit in after the
    /// wait. `asked` says how long the first call took. If any slot has come free since
    /// `freed_count`, the first wait ends immediately.
    pub(super) fn enter(
        &self,
        user: &UserId,
        (limit, longest): (u32, Duration),
        caller: &CallerDeadline,
        asked: (FreedCount, Duration),
    ) -> Option<GraceWait<'_>> {
        let (freed_before, spent) = asked;
        let room = caller.deadline.map_or(longest, |deadline| {
            let left = deadline.saturating_sub(spent);
            let for_the_last_call = (left / 2).max(spent * 2);
            left.saturating_sub(for_the_last_call).min(longest)
        });
        if limit == 0 || room < SHORTEST_WAIT || caller.gone.is_cancelled() {
            return None;
        }
        let freed = match lock(&self.waiting).entry(user.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => Arc::clone(place.insert(Arc::default())),
        };
        if self.freed_count() != freed_before {
            freed.notify_one();
        }
        Some(GraceWait {
            grace: self,
            user: user.clone(),
            began: Stopwatch::start(),
            room,
            freed,
        })
    }

    /// Wakes the user's waiting start, if there is one.
    pub(super) fn slot_freed(&self, user: &UserId) {
        // Count first, then look for a waiting start: one that arrives in between sees the count.
        self.freed.fetch_add(1, Ordering::SeqCst);
        if let Some(freed) = lock(&self.waiting).get(user) {
            freed.notify_one();
        }
    }
}

impl GraceWait<'_> {
    /// Waits until a slot came free or may have, the caller has gone, or the turn is over.
    pub(super) async fn wait(&self, gone: &CancellationToken) -> WakeReason {
        let waited = self.began.elapsed();
        let look = LOOKS
            .into_iter()
            .find(|look| *look > waited && *look < self.room);
        let (until, then) = look.map_or((self.room, WakeReason::TurnOver), |look| {
            (look, WakeReason::LookAgain)
        });
        let left = until.saturating_sub(waited);
        tokio::select! {
            biased;
            () = gone.cancelled() => WakeReason::CallerGone,
            () = tokio::time::sleep(left) => then,
            () = self.freed.notified() => WakeReason::SlotFreed,
        }
    }
}

impl Drop for GraceWait<'_> {
    fn drop(&mut self) {
        lock(&self.grace.waiting).remove(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slot_freed_during_the_refusal_is_tried_immediately() {
        let (grace, longest) = (Grace::default(), Duration::from_millis(250));
        let (user, caller) = (UserId::parse("alice").unwrap(), CallerDeadline::endless());
        for (freed_meanwhile, expected) in [
            (false, WakeReason::LookAgain),
            (true, WakeReason::SlotFreed),
        ] {
            let freed = grace.freed_count();
            if freed_meanwhile {
                grace.slot_freed(&user);
            }
            let turn = grace.enter(&user, (3, longest), &caller, (freed, Duration::ZERO));
            let waiting = turn.unwrap();
            let woken = waiting.wait(&caller.gone).await;
            assert_eq!(woken, expected);
        }
    }
}
