//! Rosters in Redis: one key for each user, one script call for each operation, by Redis's own clock.
//!
//! An operation is a key, a packed question, a script, and the reading of its answer. Every call has the same deadline, within which it
//! also has to get its connection; the connection looks after itself. The rule itself is written twice, in [`crate::session::Roster`] and
//! in Lua, and both are compared operation by operation in the tests.

mod connection;
mod failure;
mod keys;
mod policy;
mod probe;
mod queue;
mod record;
mod reply;
mod script;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use self::connection::{Connection, Source};
use self::keys::Keys;
use self::probe::Probe;
use self::script::{Script, Scripts};
use super::{Listing, Store, StoreError};
use crate::clock::Clock;
use crate::session::{
    Admission, Ending, MAX_PUT_BACK, Released, Renewal, SessionKey, Sighting, Start, Terms,
    Timestamp, UserId, WhenFull,
};

/// The most streams one user can have: what a roster's head has room to count. A higher limit is as good as this one.
const MOST_SESSIONS: u16 = 65_000;

/// Where Redis is, and how it is to be used.
#[derive(Clone)]
pub struct RedisSettings {
    /// The server, as a `redis://` or `rediss://` URL says it.
    pub server: redis::ConnectionInfo,
    /// What every key begins with.
    pub key_prefix: String,
    /// How long any call may take.
    pub timeout: Duration,
    /// What leases and tombstones may be.
    pub terms: Terms,
}

impl fmt::Debug for RedisSettings {
    /// Shows the address, and neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("server", &self.server.addr().to_string())
            .field("key_prefix", &self.key_prefix)
            .field("timeout", &self.timeout)
            .field("terms", &self.terms)
            .finish()
    }
}

/// Rosters in Redis.
#[derive(Debug)]
pub struct RedisStore {
    /// The connection, which keeps itself.
    connection: Connection,
    /// The operations.
    scripts: Arc<Scripts>,
    /// The names of keys.
    keys: Keys,
    /// Whether the operations could be done.
    probe: Probe,
    /// The longest lease that is granted.
    longest_lease: Duration,
    /// A clock instead of Redis's own, in tests.
    clock: Option<Arc<dyn Clock>>,
}

impl RedisStore {
    /// Opens the store without waiting for Redis, which need not be there yet: the connection is made in the background. Has to be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// The server's address can't be used at all.
    pub fn open(settings: RedisSettings) -> Result<Self, StoreError> {
        let source = Source::standalone(settings.server)?;
        let scripts = Arc::new(Scripts::new(&settings.terms));
        let connection = Connection::open(source, Arc::clone(&scripts), settings.timeout);
        let keys = Keys::new(&settings.key_prefix);
        Ok(Self {
            connection,
            scripts,
            probe: Probe::new(keys.probe()),
            keys,
            longest_lease: settings.terms.longest_lease,
            clock: None,
        })
    }

    /// Has that clock tell the time instead of Redis's own. For tests alone: gateways that bring their own time do not agree.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Asks a script about a user, within the deadline.
    async fn ask(
        &self,
        script: &Script,
        user: &UserId,
        question: Vec<u8>,
    ) -> Result<Value, StoreError> {
        let key = self.keys.roster(user);
        self.connection
            .call(async |mut link| script.call(&mut link, &key, &question).await)
            .await
    }

    /// The beginning of every question: the time, zero for Redis's own.
    fn question(&self) -> Question {
        let clock = self.clock.as_ref();
        let now = clock.map_or(0, |clock| clock.now().as_millis());
        Question(Vec::with_capacity(128)).millis(now)
    }

    /// The beginning of a question about a session: for how long it is to count, and which it is.
    fn question_about(&self, key: &SessionKey, lease: Duration) -> Question {
        self.question()
            .millis(script::millis(lease.min(self.longest_lease)))
            .bytes(&record::encode_key(key))
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn admit(
        &self,
        user: &UserId,
        start: &Start,
        limit: u32,
        when_full: &WhenFull,
    ) -> Result<Admission, StoreError> {
        let (policy, named) = match when_full {
            WhenFull::Refuse => (0, None),
            WhenFull::DisplaceOldest => (1, None),
            WhenFull::DisplaceIdlest => (2, None),
            WhenFull::TakeOver(key) => (3, Some(key)),
        };
        let question = self
            .question_about(&start.key, start.lease)
            .count(limit)
            .byte(policy)
            .bytes(&named.map(record::encode_key).unwrap_or_default())
            .bytes(&record::encode_rest(&start.facts, start.ticket));
        let answer = self.ask(&self.scripts.admit, user, question.0).await?;
        reply::admission(&answer, limit)
    }

    async fn renew(
        &self,
        user: &UserId,
        sighting: &Sighting,
        limit: u32,
    ) -> Result<Renewal, StoreError> {
        let room = limit.saturating_add(u32::try_from(MAX_PUT_BACK).unwrap_or(u32::MAX));
        let started = sighting.started_at.map_or(u64::MAX, Timestamp::as_millis);
        let question = self
            .question_about(&sighting.key, sighting.lease)
            .count(room)
            .millis(started)
            .bytes(&record::encode_rest(&sighting.facts, None));
        let answer = self.ask(&self.scripts.renew, user, question.0).await?;
        reply::renewal(&answer)
    }

    async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
    ) -> Result<Released, StoreError> {
        let (who, ticket) = match ending {
            Ending::Stream => (1, 0),
            Ending::Vouched => (2, 0),
            Ending::Operator => (3, 0),
            Ending::Undone(ticket) => (4, ticket.number()),
        };
        let mut question = self.question_about(key, Duration::ZERO).byte(who);
        question.0.extend(ticket.to_be_bytes());
        let answer = self.ask(&self.scripts.release, user, question.0).await?;
        reply::released(&answer)
    }

    async fn list(&self, user: &UserId) -> Result<Listing, StoreError> {
        let answer = self
            .ask(&self.scripts.list, user, self.question().0)
            .await?;
        reply::listing(&answer)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.connection
            .call(async |mut link| self.probe.call(&mut link).await)
            .await
    }
}

/// The argument of a script: everything it has to be told, packed into one string, since arguments are what a call costs.
struct Question(Vec<u8>);

impl Question {
    /// Adds a time or a span in milliseconds, in six bytes; what does not fit becomes the most that does.
    fn millis(mut self, millis: u64) -> Self {
        let [_, _, bytes @ ..] = millis.min((1 << 48) - 1).to_be_bytes();
        self.0.extend(bytes);
        self
    }

    /// Adds a number of sessions.
    fn count(mut self, count: u32) -> Self {
        let count = u16::try_from(count).unwrap_or(u16::MAX).min(MOST_SESSIONS);
        self.0.extend(count.to_be_bytes());
        self
    }

    /// Adds one byte.
    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Adds bytes, behind their number.
    fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_be_bytes());
        self.0.extend(bytes);
        self
    }
}
