//! Where rosters are kept. Each operation is one atomic step, whatever else goes on.
//!
//! A store keeps the time itself: Redis's own clock where the count is shared, so that no gateway's matters. A refusal is a value;
//! a [`StoreError`] means that the store could not answer, and what that leads to is the ledger's to say.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod memory;
mod page;
pub mod redis;

pub use memory::MemoryStore;
pub use page::{Cursor, CursorError, Page};

use std::fmt;
use std::future;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::clock::Timestamp;
use crate::identity::{SessionKey, UserId};
use crate::session::{
    Admission, Ending, Playing, Released, Renewal, Session, Sighting, Start, StartRules,
};

/// Keeps rosters, one for each user.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Asks for a slot: [`crate::session::Roster::admit`].
    async fn admit(
        &self,
        user: &UserId,
        start: &Start,
        rules: &StartRules,
    ) -> Result<Admission, StoreError>;

    /// Tells that a stream was seen running: [`crate::session::Roster::renew`].
    async fn renew(
        &self,
        user: &UserId,
        sighting: &Sighting,
        limit: u32,
    ) -> Result<Renewal, StoreError>;

    /// Tells of many streams that were seen running, as [`Self::renew`] does of one; the answers in the same order. No atomic step: each
    /// is one of its own.
    async fn renew_all(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let each = seen
            .iter()
            .map(|seen| self.renew(&seen.user, &seen.sighting, seen.limit));
        join_all(each).await
    }

    /// Tells that a request of a session got through to its viewer: [`crate::session::Roster::played`].
    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError>;

    /// Tells that a session is over, as somebody said that long ago: [`crate::session::Roster::release`].
    async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
    ) -> Result<Released, StoreError>;

    /// The user's live sessions.
    async fn list(&self, user: &UserId) -> Result<Listing, StoreError>;

    /// Everybody's live sessions, a part at a time, from the cursor on: the default one for the first part, then each page's own `next`. No
    /// atomic step.
    ///
    /// A page has whole users only, each once. `size` is about how many sessions it holds: once it is reached no further user is looked at. A page
    /// may be longer by some users' sessions, or shorter, or even empty though others follow: that its cost is bounded matters more.
    ///
    /// Who follows `next` to the end has seen every session that was live all the while at least once; what came or went meanwhile may be
    /// missing. Redis may show a user on a later page again, if its table of keys has grown or shrunk meanwhile. A cursor of another store, or of this one
    /// before it was restarted, leads to some page all the same.
    async fn page(&self, from: &Cursor, size: usize) -> Result<Page, StoreError>;

    /// Asks for a sign of life, so that whoever starts or stands idle learns of trouble before a viewer does.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Resolves with the reason while the store cannot connect, without a call. Never resolves for a store that needs no connection.
    async fn outage(&self) -> StoreError {
        future::pending().await
    }

    /// The server that it counts in at the moment, for people and without secrets; none where it has no connection, or no server at all.
    fn server(&self) -> Option<String> {
        None
    }

    /// Identifies that server, and says whether it evicts keys; `None` where there is no server.
    async fn server_identity(&self) -> Result<Option<ServerIdentity>, StoreError> {
        Ok(None)
    }
}

/// Identifies the store's server, and says whether it evicts keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// The id that the server gave itself when it started; none where we may not ask for it.
    pub run_id: Option<String>,
    /// The number of the database.
    pub database: i64,
    /// Its `maxmemory-policy`; none where we may not ask for it.
    pub eviction_policy: Option<String>,
}

/// A stream that was seen running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is.
    pub user: UserId,
    /// What was seen.
    pub sighting: Sighting,
    /// How many streams the user may watch.
    pub limit: u32,
}

/// One user's live sessions at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The sessions, in the order in which they came to their slots.
    pub sessions: Vec<Session>,
    /// The store's time at this answer.
    pub taken_at: Timestamp,
}

/// Why a store has not answered. Fragments that fit behind "failed to ask the store: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer came within the deadline. Whether the operation took place is unknown.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection could not be had, or broke. Whether the operation took place is unknown.
    #[error("no connection: {0}")]
    Disconnected(String),
    /// It was not asked at all: there is no connection, too many calls wait already, or it has failed so often that it is given a rest.
    #[error("it was not asked: {0}")]
    NotAsked(String),
    /// There is no room for one more user, or Redis has reached its `maxmemory`. Nothing was done.
    #[error("it is full: {0}")]
    Full(String),
    /// The store answered that it would not do it: it is loading, a replica, wants another password. Nothing was done.
    #[error("it refused: {0}")]
    Rejected(String),
    /// The store answered something that is not in the protocol between us: other data is at our keys, or another version's.
    #[error("it answered what can't be understood: {0}")]
    Protocol(String),
}

impl StoreError {
    /// Whether the operation may have taken place all the same.
    #[must_use]
    pub const fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Disconnected(_) => true,
            Self::NotAsked(_) | Self::Full(_) | Self::Rejected(_) | Self::Protocol(_) => false,
        }
    }

    /// Whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Timeout(_)
            | Self::Disconnected(_)
            | Self::NotAsked(_)
            | Self::Full(_)
            | Self::Rejected(_) => true,
            Self::Protocol(_) => false,
        }
    }
}
