//! Grace: a start that finds all slots taken waits a moment, since who changes channel closes one stream and opens the next
//! within milliseconds, and the end of the first may be on its way.
//!
//! One start a user waits at a time, so that nobody gains by asking often. A slot that is freed through this instance wakes the
//! waiting start at once; for one that is freed through another, the start looks again now and then, and at the end of the wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::CallerDeadline;
use crate::clock::Stopwatch;
use crate::session::UserId;
use crate::util::lock;

/// A wait shorter than this isn't worth a second call to the store.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// When a waiting start looks whether a slot has come free elsewhere, from the beginning of its wait: soon, since it usually does, and
/// ever more seldom, since each look is a call to the store.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(25),
    Duration::from_millis(75),
    Duration::from_millis(150),
];

/// The starts that wait.
#[derive(Debug, Default)]
pub(super) struct Grace {
    /// Who waits, and how to wake them; locked for a moment only.
    waiting: Mutex<HashMap<UserId, Arc<Notify>>>,
    /// How many slots came free through this instance, whoever had them.
    freed: AtomicU64,
}

/// How many slots had come free at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreedCount(u64);

/// A start's turn to wait; given back when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct GraceWait<'a> {
    /// Where it is given back to.
    grace: &'a Grace,
    /// Whose it is.
    user: UserId,
    /// Since when it waits; what it asks the store meanwhile is part of its time.
    pub(super) began: Stopwatch,
    /// How long all of it may take.
    pub(super) room: Duration,
    /// Tells that a slot came free.
    freed: Arc<Notify>,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeReason {
    /// A slot came free.
    SlotFreed,
    /// One may have come free elsewhere.
    LookAgain,
    /// It has lasted as long as it may.
    TurnOver,
    /// Nobody waits for the answer any more.
    CallerGone,
}

impl Grace {
    /// To be asked before the store is, and handed to [`Self::enter`]: a slot may come free while the store's refusal is on its way, and
    /// then there is nobody yet to be woken.
    pub(super) fn freed_count(&self) -> FreedCount {
        FreedCount(self.freed.load(Ordering::SeqCst))
    }

    /// A turn to wait, if there is room for one: at most `longest` and half of what the caller's deadline leaves, and less where the store is slow, since
    /// the last call to it has to fit in behind the wait. `asked` says how long the first one took.
    /// If any slot has come free since `asked`, its first wait is over at once.
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
        // First counted, then looked who waits: whoever comes in between sees the count.
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
    async fn a_slot_that_comes_free_while_the_refusal_is_on_its_way_is_tried_at_once() {
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
