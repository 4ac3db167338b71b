//! The limits of a great many users, in hardly more memory than the text that lists them.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use bytes::Bytes;

use crate::identity::UserId;

/// Limits by user name.
///
/// A map with a string for each user would take four times the memory. Here the names stay in the
/// text.
#[derive(Clone, Default)]
pub struct UserLimits {
    /// The text, which must be UTF-8.
    text: Bytes,
    /// The users in the order of the text.
    entries: Vec<Entry>,
    /// A hash table with open addressing: one more than the index of an entry, or 0. Its length is
    /// a power of two.
    slots: Vec<u32>,
    /// Hashes the names with a random key, so that nobody can choose colliding names.
    hashing: RandomState,
}

/// One user.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Where the name begins.
    start: u32,
    /// The length of the name.
    bytes: u16,
    /// The user's limit.
    limit: u16,
}

/// The error for a list that names a user twice, with both line numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedTwice {
    /// The first line.
    pub first: usize,
    /// The second line.
    pub second: usize,
}

// === impl Entry ===

impl Entry {
    /// A user whose name is at that range of the text; `None` if a number is too large to store.
    #[must_use]
    pub fn new(name: &Range<usize>, limit: u32) -> Option<Self> {
        Some(Self {
            start: name.start.try_into().ok()?,
            bytes: name.len().try_into().ok()?,
            limit: limit.try_into().ok()?,
        })
    }
}

// === impl UserLimits ===

impl UserLimits {
    /// The limits of these users, whose names are in that text.
    ///
    /// # Errors
    /// A user is named twice.
    pub fn new(text: Bytes, entries: Vec<Entry>) -> Result<Self, NamedTwice> {
        let slots = match entries.len() {
            0 => 0,
            // At most two thirds full, so that searches are short.
            users => (users + users / 2 + 1).next_power_of_two(),
        };
        let mut limits = Self {
            text,
            entries: Vec::new(),
            slots: vec![0; slots],
            hashing: RandomState::new(),
        };
        for (index, entry) in (1..).zip(&entries) {
            limits.insert(index, *entry, &entries)?;
        }
        Ok(Self { entries, ..limits })
    }

    fn insert(&mut self, number: u32, entry: Entry, all: &[Entry]) -> Result<(), NamedTwice> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = self.hash(name(&self.text, entry)) & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            let Some(other) = entry_at(all, *slot) else {
                *slot = number;
                break;
            };
            if name(&self.text, other) == name(&self.text, entry) {
                return Err(NamedTwice {
                    first: self.line_of(other),
                    second: self.line_of(entry),
                });
            }
            at = (at + 1) & mask;
        }
        Ok(())
    }

    /// The limit of a user, if listed.
    #[must_use]
    pub fn get(&self, user: &str) -> Option<u32> {
        self.find(user.as_bytes())
            .map(|entry| u32::from(entry.limit))
    }

    /// The number of the line that names a user.
    #[must_use]
    pub fn line(&self, user: &str) -> Option<usize> {
        let entry = self.find(user.as_bytes())?;
        Some(self.line_of(entry))
    }

    /// The number of the first line that names one of these users.
    #[must_use]
    pub fn first_of(&self, users: &HashMap<UserId, u32>) -> Option<usize> {
        let named = users.keys();
        let named = named.filter_map(|user| self.find(user.as_str().as_bytes()));
        // Only for the first: finding a line's number scans all of the text before it.
        let entry = named.min_by_key(|entry| entry.start)?;
        Some(self.line_of(entry))
    }

    /// The users' names and limits, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let entries = self.entries.iter();
        entries.map(|entry| (name(&self.text, *entry), u32::from(entry.limit)))
    }

    /// The number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of these users are missing from the other list, and how many have another limit
    /// there.
    #[must_use]
    pub fn unlike(&self, other: &Self) -> (usize, usize) {
        let (mut missing, mut different) = (0, 0);
        for entry in &self.entries {
            match other.find(name(&self.text, *entry)) {
                None => missing += 1,
                Some(there) if there.limit != entry.limit => different += 1,
                Some(_) => {}
            }
        }
        (missing, different)
    }

    fn find(&self, user: &[u8]) -> Option<Entry> {
        // Without users there are no slots.
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = self.hash(user) & mask;
        loop {
            let entry = entry_at(&self.entries, *self.slots.get(at)?)?;
            if name(&self.text, entry) == user {
                return Some(entry);
            }
            at = (at + 1) & mask;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower bits are as good as all of them"
    )]
    fn hash(&self, name: &[u8]) -> usize {
        self.hashing.hash_one(name) as usize
    }

    fn line_of(&self, entry: Entry) -> usize {
        let before = self.text.get(..entry.start as usize).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// The entry in a slot; none if the slot is free.
fn entry_at(entries: &[Entry], slot: u32) -> Option<Entry> {
    let index = (slot as usize).checked_sub(1)?;
    entries.get(index).copied()
}

/// The name of an entry.
fn name(text: &[u8], entry: Entry) -> &[u8] {
    let start = entry.start as usize;
    text.get(start..start + usize::from(entry.bytes))
        .unwrap_or_default()
}

impl PartialEq for UserLimits {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.unlike(other) == (0, 0)
    }
}

impl Eq for UserLimits {}

impl fmt::Debug for UserLimits {
    /// Shows only the number of users.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserLimits({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of these names, one per line, each with its line number as the limit.
    fn list(names: &[String]) -> Result<UserLimits, NamedTwice> {
        let text = names.join("\n");
        let mut at = 0;
        let entries = (1..).zip(names).map(|(limit, name)| {
            let place = at..at + name.len();
            at = place.end + 1;
            Entry::new(&place, limit).unwrap()
        });
        let entries = entries.collect();
        UserLimits::new(text.into(), entries)
    }

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("user {n}")).collect()
    }

    #[test]
    fn exactly_the_listed_users_are_found() {
        for count in [0, 1, 2, 3, 5, 7, 1000] {
            let names = names(count);
            let limits = list(&names).unwrap();
            assert_eq!(limits.len(), count);
            for (number, name) in (1..).zip(&names) {
                assert_eq!(limits.get(name), Some(number), "{name} of {count}");
                assert_eq!(limits.line(name), Some(number as usize), "{name}");
            }
            for nobody in ["", "user", "user 0", "user 1001", "user 1\nuser 2"] {
                assert_eq!(limits.get(nobody), None, "{nobody:?} of {count}");
            }
        }
        assert_eq!(UserLimits::default().get("anna"), None);
    }

    #[test]
    fn a_user_who_is_named_twice_is_refused_with_both_lines() {
        let mut names = names(9);
        names.push("user 4".to_owned());
        let twice = NamedTwice {
            first: 4,
            second: 10,
        };
        assert_eq!(list(&names), Err(twice));
    }

    #[test]
    fn lists_are_compared_by_users_and_limits() {
        let (few, many) = (list(&names(3)).unwrap(), list(&names(5)).unwrap());
        let mut turned = names(3);
        turned.swap(1, 2);
        let turned = list(&turned).unwrap();
        assert_eq!(
            (many.unlike(&few), few.unlike(&many), few.unlike(&turned)),
            ((2, 0), (0, 0), (0, 2))
        );
        assert!(few == few.clone() && few != many && few != turned);
    }
}
