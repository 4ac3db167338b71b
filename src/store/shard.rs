//! The parts of a store that fail on their own.

use std::fmt;
use std::sync::Arc;

/// A part of a store that fails on its own: the whole of a store that is one piece, or what one
/// master of a cluster owns. It ends with its master: a promoted one is another shard. Cheap to
/// clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(Owner);

/// Who owns it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
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
        Self(Owner::Whole)
    }

    /// The users of a cluster whose slots no master owns, as far as this process knows.
    #[must_use]
    pub const fn unowned() -> Self {
        Self(Owner::Unowned)
    }

    /// What the master at that address owns (`host:port`).
    #[must_use]
    pub fn master(address: &str) -> Self {
        Self(Owner::Master(Arc::from(address)))
    }

    /// Its name: the address of its master, or `unowned`. None if it is the whole store.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Owner::Whole => None,
            Owner::Unowned => Some("unowned"),
            Owner::Master(address) => Some(address),
        }
    }

    /// The address of its master; none if it is whole or unowned.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        match &self.0 {
            Owner::Master(address) => Some(address),
            Owner::Whole | Owner::Unowned => None,
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("whole"))
    }
}
