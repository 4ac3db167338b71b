//! Where rosters are kept. Each operation is one atomic step, even under concurrent calls.
//!
//! A store uses its own time: Redis's clock if the count is shared, so that no gateway's clock
//! matters. A refusal is a value; a [`StoreError`] means that the store could not answer, and the
//! ledger decides what follows.

#[cfg(any(test, feature = "faulty-store"))]
pub mod faulty;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod memory;
mod notes;
mod page;
pub mod redis;
mod shard;

pub use memory::MemoryStore;
pub use notes::{Notes, Register};
pub use page::{Cursor, CursorError, Page};
pub use shard::Shard;

use std::any::Any;
use std::fmt;
use std::future;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::mpsc;

use crate::clock::Timestamp;
use crate::identity::{EndMessage, SessionKey, UserId};
use crate::session::{
    Admission, Ending, LimitOverride, Playing, Released, Renewal, Session, Sighting, Start,
    StartRules,
};

/// Keeps one roster for each user.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Asks for a slot: [`crate::session::Roster::admit`].
    async fn admit(
        &self,
        user: &UserId,
        start: &Start,
        rules: &StartRules,
    ) -> Result<Admission, StoreError>;

    /// Reports that a stream was seen running: [`crate::session::Roster::renew`].
    async fn renew(
        &self,
        user: &UserId,
        sighting: &Sighting,
        limit: u32,
    ) -> Result<Renewal, StoreError>;

    /// Reports many streams seen running, as [`Self::renew`] does for one; the answers come in the
    /// same order. Each renewal is atomic, the whole is not. Streams of one shard share calls, so ask
    /// for each shard by itself: a call fails for all that share it.
    async fn renew_all(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let each = seen
            .iter()
            .map(|seen| self.renew(&seen.user, &seen.sighting, seen.limit));
        join_all(each).await
    }

    /// Reports that a request of a session reached its viewer: [`crate::session::Roster::played`].
    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError>;

    /// Reports that a session is over, as somebody said that long ago:
    /// [`crate::session::Roster::release`].
    async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
    ) -> Result<Released, StoreError> {
        let (released, _) = self.release_telling(user, key, (ending, None), age).await?;
        Ok(released)
    }

    /// The same, with the message of an operator's end for the viewer:
    /// [`crate::session::Roster::release_telling`]. Also returns the store's time of the operation,
    /// if the store tells it.
    async fn release_telling(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: (Ending, Option<&EndMessage>),
        age: Duration,
    ) -> Result<(Released, Option<Timestamp>), StoreError>;

    /// The user's live sessions, and the limit that an operator has set for them.
    async fn list(&self, user: &UserId) -> Result<Listing, StoreError>;

    /// Sets the limit of one user, or clears it; returns the one that was in force. It applies to
    /// every start and renewal from then on, above `rules.limit` and `limit` of the other calls,
    /// until it expires. One that has expired already clears it.
    async fn override_limit(
        &self,
        user: &UserId,
        limit: Option<LimitOverride>,
    ) -> Result<Option<LimitOverride>, StoreError>;

    /// One page of all users' live sessions, from the cursor on: the default cursor for the first
    /// page, then each page's own `next`. Not atomic.
    ///
    /// A page has whole users only, each once. `size` is the approximate number of sessions in it:
    /// once it is reached, no further user is read. A page may exceed it by some users' sessions,
    /// or be shorter, or even empty although others follow, because bounding its cost matters more.
    ///
    /// Following `next` to the end shows every session that was live all the while at least once;
    /// sessions that start or end meanwhile may be missing. Redis may show a user again on a later
    /// page, if its table of keys has grown or shrunk meanwhile. A cursor of another store, or from
    /// before a restart, still leads to some page.
    async fn page(&self, from: &Cursor, size: usize) -> Result<Page, StoreError>;

    /// The part of the store that has this user at the moment. Called before each call about the
    /// user, so it neither waits nor asks anybody.
    fn shard_of(&self, _user: &UserId) -> Shard {
        Shard::whole()
    }

    /// The parts that have users at the moment, each once: every shard that [`Self::shard_of`] may
    /// name now, so also [`Shard::unowned`] while a slot has no owner. Neither waits nor asks
    /// anybody.
    fn shards(&self) -> Vec<Shard> {
        vec![Shard::whole()]
    }

    /// Checks whether a shard answers, so that a starting or idle instance notices trouble before a
    /// viewer does. A shard that no longer has users is an error.
    async fn ping(&self, shard: &Shard) -> Result<(), StoreError>;

    /// Resolves with the reason while the store cannot connect to a shard, without a call. Never
    /// resolves for a store that needs no connection.
    async fn outage(&self, _shard: &Shard) -> StoreError {
        future::pending().await
    }

    /// The server that the store uses for a shard at the moment, for display and without secrets;
    /// none if it has no connection or no server.
    fn server(&self, _shard: &Shard) -> Option<String> {
        None
    }

    /// What instances tell each other through the store; `None` for a store that they don't share.
    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    /// Identifies that server and how it is set up; `None` if there is no server.
    async fn server_identity(&self, _shard: &Shard) -> Result<Option<ServerIdentity>, StoreError> {
        Ok(None)
    }
}

/// A way to say something to all other instances that listen at the moment.
#[async_trait]
pub trait Broadcast: fmt::Debug + Send + Sync + 'static {
    /// How many subscriptions there are, ours included.
    async fn count_subscribers(&self) -> Result<usize, StoreError>;

    /// Says something to all that have a subscription, ourselves included.
    async fn publish(&self, message: &[u8]) -> Result<(), StoreError>;

    /// Receives what is said, from now on.
    async fn subscribe(&self) -> Result<Subscription, StoreError>;
}

/// What is said by [`Broadcast::publish`], as it arrives. Dropping it ends the subscription.
pub struct Subscription {
    /// The messages.
    messages: mpsc::Receiver<Vec<u8>>,
    /// What must live as long: a connection.
    _open: Box<dyn Any + Send>,
}

impl Subscription {
    /// A subscription that lasts as long as `open`.
    pub(crate) fn new(messages: mpsc::Receiver<Vec<u8>>, open: impl Any + Send) -> Self {
        Self {
            messages,
            _open: Box::new(open),
        }
    }

    /// The next message; none if the subscription is lost, also because its reader is too slow.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.messages.recv().await
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// The identity of a server of the store, and how it is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// The id that the server chose when it started; none if the ACL doesn't let us read it.
    pub run_id: Option<String>,
    /// The number of the database.
    pub database: i64,
    /// Its `maxmemory-policy`; none if the ACL doesn't let us read it.
    pub eviction_policy: Option<String>,
    /// Its `cluster-require-full-coverage`: whether one dead master stops all others. None outside
    /// a cluster, or if the ACL doesn't let us read it.
    pub requires_full_coverage: Option<bool>,
}

/// A stream that was seen running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The stream's user.
    pub user: UserId,
    /// The sighting.
    pub sighting: Sighting,
    /// How many streams the user may watch.
    pub limit: u32,
}

/// One user's live sessions at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The sessions, in the order they took their slots.
    pub sessions: Vec<Session>,
    /// The limit that an operator has set for the user, if one is in force.
    pub limit_override: Option<LimitOverride>,
    /// The store's time of this answer.
    pub taken_at: Timestamp,
}

/// Why a store has not answered. The messages complete the sentence "failed to ask the store: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer came within the deadline. Whether the operation took place is unknown.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection could not be made, or broke. Whether the operation took place is unknown.
    #[error("no connection: {0}")]
    Disconnected(String),
    /// The store wasn't asked at all: there is no connection, too many calls are waiting, or the
    /// circuit breaker is open.
    #[error("it was not asked: {0}")]
    NotAsked(String),
    /// There is no room for another user, or Redis has reached its `maxmemory`. Nothing was done.
    #[error("it is full: {0}")]
    Full(String),
    /// The store refused: it is loading, is a replica, or wants another password. Nothing was done.
    #[error("it refused: {0}")]
    Rejected(String),
    /// The answer doesn't follow our protocol: our keys hold other data, or another version's.
    #[error("its answer can't be decoded: {0}")]
    Protocol(String),
}

impl StoreError {
    /// Whether the operation may have taken place despite the error.
    #[must_use]
    pub const fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Disconnected(_) => true,
            Self::NotAsked(_) | Self::Full(_) | Self::Rejected(_) | Self::Protocol(_) => false,
        }
    }

    /// Whether the same call may succeed later without intervention.
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
