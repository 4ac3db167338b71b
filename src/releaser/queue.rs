//! The notices that are not delivered yet: the last of each session. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Notice;
use crate::clock::Stopwatch;
use crate::session::{SessionKey, Ticket, UserId};

/// How many are delivered at a time. The connection pipelines them.
const BATCH: usize = 256;

/// A notice that waits.
#[derive(Debug)]
pub(super) struct Pending {
    /// What it says.
    pub(super) notice: Notice,
    /// Since when it waits.
    pub(super) since: Stopwatch,
}

/// Whom a notice is about: of each, the last one counts.
pub(super) type Place = (UserId, SessionKey, Option<Ticket>);

/// The notices that are not delivered yet, the last of each place. None is in both maps.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// To be told at once.
    pub(super) fresh: HashMap<Place, Pending>,
    /// Told in vain, to be told again after a pause.
    pub(super) failed: HashMap<Place, Pending>,
    /// How many are being told.
    under_way: usize,
}

impl Notice {
    /// What it supersedes and is superseded by. A call's undo concerns nobody else's start: it stands beside all other notices, and the
    /// store sorts out what comes of them in whatever order.
    fn place(&self, user: UserId) -> Place {
        let ticket = match self {
            Self::Undo(_, ticket) => Some(*ticket),
            Self::Renew(..) | Self::Release(..) => None,
        };
        (user, self.key().clone(), ticket)
    }

    /// Whether it stands where an earlier one waits: all but a sign of life after the end.
    const fn supersedes(&self, earlier: &Self) -> bool {
        !matches!((self, earlier), (Self::Renew(..), Self::Release(..)))
    }
}

impl Queue {
    /// How many notices there are, those under way included.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.failed.len() + self.under_way
    }

    /// Puts a notice in, unless a stronger one is there already; whether there was room.
    pub(super) fn put(&mut self, user: UserId, pending: Pending, room: usize) -> bool {
        let place = pending.notice.place(user);
        if let Entry::Occupied(earlier) = self.failed.entry(place.clone()) {
            if !pending.notice.supersedes(&earlier.get().notice) {
                return true;
            }
            // It takes over the place, however full the rest is.
            earlier.remove();
            self.fresh.insert(place, pending);
            return true;
        }
        let full = self.len() >= room;
        match self.fresh.entry(place) {
            Entry::Occupied(mut earlier) => {
                if pending.notice.supersedes(&earlier.get().notice) {
                    earlier.insert(pending);
                }
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(place) => {
                place.insert(pending);
            }
        }
        true
    }

    /// Takes out as many as are delivered at a time.
    pub(super) fn take_batch(&mut self) -> Vec<(UserId, Pending)> {
        let places: Vec<Place> = self.fresh.keys().take(BATCH).cloned().collect();
        let batch: Vec<_> = places
            .into_iter()
            .filter_map(|place| {
                let pending = self.fresh.remove(&place)?;
                Some((place.0, pending))
            })
            .collect();
        self.under_way = batch.len();
        batch
    }

    /// Notes what has become of the batch: what could not be delivered waits, unless something newer has come.
    pub(super) fn settle(&mut self, failed: Vec<(UserId, Pending)>) {
        self.under_way = 0;
        for (user, pending) in failed {
            let place = pending.notice.place(user);
            match self.fresh.get(&place) {
                Some(newer) if newer.notice.supersedes(&pending.notice) => continue,
                Some(_) => drop(self.fresh.remove(&place)),
                None => {}
            }
            self.failed.insert(place, pending);
        }
    }

    /// Has what failed told again.
    pub(super) fn try_again(&mut self) {
        if self.fresh.is_empty() {
            std::mem::swap(&mut self.fresh, &mut self.failed);
        } else {
            self.fresh.extend(self.failed.drain());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Ending, Facts, Kind, SessionId, Sighting};
    use crate::telemetry::metrics::ReleaseCause;

    fn pending(notice: Notice) -> Pending {
        Pending {
            notice,
            since: Stopwatch::start(),
        }
    }

    #[test]
    fn what_supersedes_a_failed_notice_finds_room_in_a_full_queue() {
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
        };
        let release = |id| Notice::Release(key(id), Ending::Stream, ReleaseCause::AccessLog);
        let mut queue = Queue::default();
        let renewal = pending(Notice::Renew(sighting, None));
        assert!(queue.put(anna.clone(), renewal, 2));
        assert!(queue.put(anna.clone(), pending(release("b")), 2));
        let failed = queue.take_batch();
        queue.settle(failed);
        assert!(queue.put(anna.clone(), pending(release("a")), 2));
        assert!(!queue.put(anna, pending(release("c")), 2));
        assert_eq!((queue.fresh.len(), queue.failed.len()), (1, 1));
    }
}
