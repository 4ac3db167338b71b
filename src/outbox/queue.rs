//! The notices that are not delivered yet: the last of each session. Pure functions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Notice;
use crate::clock::Stopwatch;
use crate::identity::{SessionKey, UserId};
use crate::session::{Ending, Ticket};

/// How many are delivered at a time. The connection pipelines them.
const BATCH: usize = 256;

/// How many notices of one user may wait once half the capacity is used: many times what one user
/// can have running, and so few that a flood from one user leaves all others the other half.
pub(super) const SHARE: usize = 256;

/// A waiting notice.
#[derive(Debug)]
pub(super) struct Pending {
    /// The notice.
    pub(super) notice: Notice,
    /// Since when it has been waiting.
    pub(super) since: Stopwatch,
}

/// The subject of a notice: for each subject, the last notice counts.
pub(super) type NoticeKey = (UserId, SessionKey, Aspect);

/// Notices that are delivered together.
pub(super) type Batch = Vec<(NoticeKey, Pending)>;

/// Which aspect of a session a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Aspect {
    /// Whether it is running.
    State,
    /// Whether it has begun to play.
    Beginning,
    /// The start that a call takes back.
    StartOf(Ticket),
}

/// The undelivered notices, the last one for each place. None is in both maps.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Ready to be delivered.
    pub(super) fresh: HashMap<NoticeKey, Pending>,
    /// Failed, to be retried after a pause.
    pub(super) failed: HashMap<NoticeKey, Pending>,
    /// How many are being delivered.
    under_way: usize,
    /// How many notices of each user are in the two maps.
    of_user: HashMap<UserId, usize>,
}

impl Notice {
    /// The place of this notice: it supersedes an earlier notice at the same place, and a later one
    /// supersedes it. A call's undo concerns no other start, so it has a place of its own; the
    /// store copes with any order.
    fn place(&self, user: UserId) -> NoticeKey {
        let aspect = match self {
            Self::Release(_, Ending::Undone(ticket)) => Aspect::StartOf(*ticket),
            Self::Played(_) | Self::Release(_, Ending::Failed) => Aspect::Beginning,
            Self::Renew(..) | Self::Release(..) => Aspect::State,
        };
        (user, self.key().clone(), aspect)
    }

    /// Whether it replaces an earlier waiting notice. It does, except a sign of life after the end,
    /// and a failure after a success.
    const fn supersedes(&self, earlier: &Self) -> bool {
        !matches!(
            (self, earlier),
            (Self::Renew(..), Self::Release(..)) | (Self::Release(..), Self::Played(_))
        )
    }
}

impl Queue {
    /// The number of notices, including those being delivered.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.failed.len() + self.under_way
    }

    /// Adds a notice, unless a stronger one is already there; returns whether there was room.
    pub(super) fn put(&mut self, user: UserId, pending: Pending, room: usize) -> bool {
        let place = pending.notice.place(user);
        if let Entry::Occupied(earlier) = self.failed.entry(place.clone()) {
            if !pending.notice.supersedes(&earlier.get().notice) {
                return true;
            }
            // It takes over the place even if the rest is full, and still counts as one.
            earlier.remove();
            self.fresh.insert(place, pending);
            return true;
        }
        let full = self.len() >= room
            || (self.len() >= room / 2
                && self.of_user.get(&place.0).is_some_and(|&it| it >= SHARE));
        match self.fresh.entry(place) {
            Entry::Occupied(mut earlier) => {
                if pending.notice.supersedes(&earlier.get().notice) {
                    earlier.insert(pending);
                }
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(place) => {
                *self.of_user.entry(place.key().0.clone()).or_default() += 1;
                place.insert(pending);
            }
        }
        true
    }

    /// Records that one notice of that user has left both maps.
    fn one_less(of_user: &mut HashMap<UserId, usize>, user: &UserId) {
        if let Some(count) = of_user.get_mut(user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                of_user.remove(user);
            }
        }
    }

    /// Takes out a batch.
    pub(super) fn take_batch(&mut self) -> Batch {
        let batch: Batch = self
            .fresh
            .extract_if(|_, _| true)
            .take(BATCH)
            .inspect(|(place, _)| Self::one_less(&mut self.of_user, &place.0))
            .collect();
        self.under_way = batch.len();
        batch
    }

    /// Records the result of a batch: failed notices wait, unless something newer has arrived.
    pub(super) fn settle(&mut self, failed: Batch) {
        self.under_way = 0;
        for (place, pending) in failed {
            match self.fresh.get(&place) {
                Some(newer) if newer.notice.supersedes(&pending.notice) => continue,
                // The failed notice takes its place again, and counts for it.
                Some(_) => drop(self.fresh.remove(&place)),
                None => *self.of_user.entry(place.0.clone()).or_default() += 1,
            }
            self.failed.insert(place, pending);
        }
    }

    /// Drops failed notices that aren't worth another try; returns how many.
    pub(super) fn drop_failed(&mut self, is_worth_it: impl Fn(&Pending) -> bool) -> usize {
        let before = self.failed.len();
        self.failed.retain(|place, pending| {
            let stays = is_worth_it(pending);
            if !stays {
                Self::one_less(&mut self.of_user, &place.0);
            }
            stays
        });
        before - self.failed.len()
    }

    /// Schedules the failed notices of these users for another try; returns whether there are any.
    pub(super) fn try_again(&mut self, is_for: impl Fn(&UserId) -> bool) -> bool {
        let ready = self.failed.extract_if(|(user, ..), _| is_for(user));
        let before = self.fresh.len();
        self.fresh.extend(ready);
        self.fresh.len() > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Facts, Kind, SessionId};
    use crate::session::{Ending, Sighting};

    fn pending(notice: Notice) -> Pending {
        Pending {
            notice,
            since: Stopwatch::start(),
        }
    }

    #[test]
    fn a_users_share_is_counted_correctly() {
        let user = |name: &str| UserId::parse(name).unwrap();
        let release = |id: usize| {
            let id = SessionId::parse(&id.to_string()).unwrap();
            let key = SessionKey {
                kind: Kind::Request,
                id,
            };
            pending(Notice::Release(key, Ending::Stream))
        };
        let mut queue = Queue::default();
        for round in 0..10 {
            for id in 0..600 {
                queue.put(user("anna"), release(id), 1000);
                queue.put(user("ben"), release(id + 100 * round), 1000);
            }
            let batch = queue.take_batch();
            let failed = batch.into_iter().step_by(round + 1).collect();
            queue.put(user("anna"), release(3), 1000);
            queue.settle(failed);
            if round % 3 == 0 {
                queue.try_again(|_| true);
            }
            if round % 4 == 0 {
                queue.drop_failed(|pending| pending.notice.key().id.as_str().len() < 3);
            }
            let mut expected: HashMap<UserId, usize> = HashMap::new();
            for (user, ..) in queue.fresh.keys().chain(queue.failed.keys()) {
                *expected.entry(user.clone()).or_default() += 1;
            }
            assert_eq!(queue.of_user, expected, "round {round}");
        }
    }

    #[test]
    fn a_superseding_notice_fits_in_a_full_queue() {
        let anna = UserId::parse("anna").unwrap();
        let key = |id: &str| SessionKey {
            kind: Kind::Request,
            id: SessionId::parse(id).unwrap(),
        };
        let sighting = Sighting {
            key: key("a"),
            facts: Facts::default(),
            lease: std::time::Duration::from_secs(15),
            started_at: None,
            derived: false,
            provenance: crate::session::Provenance::Counted,
        };
        let release = |id| Notice::Release(key(id), Ending::Stream);
        let mut queue = Queue::default();
        let renewal = pending(Notice::Renew(sighting, None, None));
        assert!(queue.put(anna.clone(), renewal, 2));
        assert!(queue.put(anna.clone(), pending(release("b")), 2));
        let failed = queue.take_batch();
        queue.settle(failed);
        assert!(queue.put(anna.clone(), pending(release("a")), 2));
        assert!(!queue.put(anna, pending(release("c")), 2));
        assert_eq!((queue.fresh.len(), queue.failed.len()), (1, 1));
    }
}
