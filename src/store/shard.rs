//! The parts of a store that fail on their own.

use std::fmt;
use std::sync::Arc;

/// A part of a store that fails on its own: the whole of a store that is one piece, or what one
/// master of a cluster owns. It ends with its master: a promoted one is another shard. Cheap to
/// clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(Place);

/// Which part it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    /// All of a store that is one piece.
    Whole,
    /// What no master owns.
    Unowned,
    /// What the master at that address owns.
    Master(Arc<str>),
}

impl Shard {
    /// All of a store that is one piece.
    #[must_use]
    pub const fn whole() -> Self {
        Self(Place::Whole)
    }

    /// The users of a cluster whose slots no master owns, as far as this process knows.
    #[must_use]
    pub const fn unowned() -> Self {
        Self(Place::Unowned)
    }

    /// What the master at that address owns (`host:port`).
    #[must_use]
    pub fn master(address: &str) -> Self {
        Self(Place::Master(Arc::from(address)))
    }

    /// Whether it is the whole of a store that is one piece.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.0, Place::Whole)
    }

    /// The address of its master; none if it is whole or unowned.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        match &self.0 {
            Place::Master(address) => Some(address),
            Place::Whole | Place::Unowned => None,
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Place::Whole => "whole",
            Place::Unowned => "unowned",
            Place::Master(address) => address,
        })
    }
}
