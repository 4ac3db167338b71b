//! Remembered ends, so that a late or repeated message can't bring a session back. There are three
//! lists, and none pushes out another's ends.

use std::time::Duration;

use super::{EndCause, Roster, Terms, Tombstone};
use crate::clock::Timestamp;
use crate::identity::{Kind, SessionKey};

/// The list that holds an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndList {
    /// Sessions that an operator ended.
    Operator,
    /// Sessions that were live when they were released or displaced.
    Live,
    /// Ids that were never live, and `request`s, for which a late sign of life costs only one
    /// lease.
    Stranger,
}

impl EndList {
    /// The list's capacity. When it is full, the end that would expire first makes room.
    #[must_use]
    pub const fn room(self) -> usize {
        match self {
            Self::Live => 64,
            Self::Operator | Self::Stranger => 32,
        }
    }
}

/// Records that a roster had to forget a playback's end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forgotten {
    /// When that last happened.
    pub at: Timestamp,
    /// How long one of those ends might have mattered.
    pub until: Timestamp,
}

impl Roster {
    /// The tombstone of that key.
    pub(super) fn tombstone(&self, key: &SessionKey) -> Option<&Tombstone> {
        self.tombstones
            .iter()
            .find(|tombstone| tombstone.key == *key)
    }

    /// The tombstone of that key, mutable.
    pub(super) fn tombstone_mut(&mut self, key: &SessionKey) -> Option<&mut Tombstone> {
        self.tombstones
            .iter_mut()
            .find(|tombstone| tombstone.key == *key)
    }

    /// Adds a tombstone. Callers ensure that the key is neither live nor buried.
    pub fn bury(&mut self, tombstone: Tombstone) {
        let list = tombstone.list();
        let of_list = self.tombstones.iter().enumerate();
        let of_list = of_list.filter(|(_, other)| other.list() == list);
        if of_list.clone().count() >= list.room()
            && let Some((index, _)) = of_list.min_by_key(|(_, other)| other.until)
        {
            let earliest = self.tombstones.remove(index);
            if earliest.key.kind != Kind::Request {
                let known = self.forgotten.map(|forgotten| forgotten.until);
                self.forgotten = Some(Forgotten {
                    at: tombstone.asked_at,
                    until: known.map_or(earliest.until, |known| known.max(earliest.until)),
                });
            }
        }
        self.tombstones.push(tombstone);
    }

    /// Removes the tombstone of a session.
    pub fn forget_end(&mut self, key: &SessionKey) -> Option<Tombstone> {
        let mut ends = self.tombstones.iter();
        let index = ends.position(|tombstone| tombstone.key == *key)?;
        Some(self.tombstones.remove(index))
    }

    /// How long an end that is recorded now is remembered: as long as this instance keeps it, and
    /// until after the longest lease in this roster, even one that another instance granted.
    pub(super) fn term(&self, terms: &Terms, now: Timestamp) -> Duration {
        let leases = self.sessions.iter().map(|session| session.expires_at);
        let longest = leases.max().map_or(Duration::ZERO, |ends| ends.since(now));
        terms.memory.max(longest.saturating_add(terms.margin()))
    }

    /// Drops expired tombstones, and corrects times that a clock wrote before it stepped back.
    pub(super) fn settle_ends(&mut self, now: Timestamp) {
        for tombstone in &mut self.tombstones {
            if tombstone.asked_at > now {
                tombstone.until = now.after(tombstone.until.since(tombstone.asked_at));
                tombstone.asked_at = now;
            }
        }
        self.tombstones.retain(|tombstone| tombstone.until > now);
        if let Some(forgotten) = &mut self.forgotten
            && forgotten.at > now
        {
            forgotten.until = now.after(forgotten.until.since(forgotten.at));
            forgotten.at = now;
        }
        self.forgotten = self.forgotten.filter(|forgotten| forgotten.until > now);
    }
}

impl Tombstone {
    /// The list that the tombstone belongs to.
    #[must_use]
    pub fn list(&self) -> EndList {
        if self.cause == EndCause::Operator {
            EndList::Operator
        } else if self.was_live && self.key.kind != Kind::Request {
            EndList::Live
        } else {
            EndList::Stranger
        }
    }
}
