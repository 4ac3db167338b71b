//! What is remembered of ends, so that a late or repeated message can't bring a session back. Three lists, and none pushes another's ends out.

use std::time::Duration;

use super::{EndCause, Roster, Terms, Tombstone};
use crate::clock::Timestamp;
use crate::identity::{Kind, SessionKey};

/// The list that an end is remembered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndList {
    /// What an operator ended.
    Operator,
    /// What was live, and was released or displaced.
    Live,
    /// Ids that were never live, and `request`s, of which a late sign of life costs one lease.
    Stranger,
}

impl EndList {
    /// How many ends it holds; then the earliest to be forgotten makes room.
    #[must_use]
    pub const fn room(self) -> usize {
        match self {
            Self::Live => 64,
            Self::Operator | Self::Stranger => 32,
        }
    }
}

/// A roster that had to forget an end of a playback before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forgotten {
    /// When it last had to.
    pub at: Timestamp,
    /// Until when one of those ends might have mattered.
    pub until: Timestamp,
}

impl Roster {
    /// The remembered end of that key.
    pub(super) fn tombstone(&self, key: &SessionKey) -> Option<&Tombstone> {
        self.tombstones
            .iter()
            .find(|tombstone| tombstone.key == *key)
    }

    /// The remembered end of that key, to be changed.
    pub(super) fn tombstone_mut(&mut self, key: &SessionKey) -> Option<&mut Tombstone> {
        self.tombstones
            .iter_mut()
            .find(|tombstone| tombstone.key == *key)
    }

    /// Remembers an end. Callers have made sure that the key is neither live nor buried.
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

    /// Forgets that a session has ended.
    pub fn forget_end(&mut self, key: &SessionKey) -> Option<Tombstone> {
        let mut ends = self.tombstones.iter();
        let index = ends.position(|tombstone| tombstone.key == *key)?;
        Some(self.tombstones.remove(index))
    }

    /// How long an end is remembered that is written down now: as long as this instance keeps it, and until after the longest lease that
    /// this roster knows, whichever instance granted it.
    pub(super) fn term(&self, terms: &Terms, now: Timestamp) -> Duration {
        let leases = self.sessions.iter().map(|session| session.expires_at);
        let longest = leases.max().map_or(Duration::ZERO, |ends| ends.since(now));
        terms.memory.max(longest.saturating_add(terms.margin()))
    }

    /// Drops what is no longer remembered, and moves back what a clock wrote that has since stepped back.
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
    /// The list that it is remembered in.
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
