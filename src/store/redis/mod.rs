//! Rosters in Redis: one key for each user, one script call for each operation, by Redis's clock.
//!
//! An operation consists of a key, a packed question, a script, and the decoding of its answer. All
//! calls have the same deadline, which includes waiting for the connection; the connection
//! maintains itself. The rule exists twice, in [`crate::session::Roster`] and in Lua, and the tests
//! compare both operation by operation.

mod codec;
mod connection;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod scan;

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::Value;

use self::codec::keys::KeyNames;
use self::codec::layout::RecordVersions;
use self::codec::question::Question;
use self::codec::script::{Script, Scripts};
use self::codec::{layout, record, reply};
use self::connection::probe::Probe;
use self::connection::{RedisConnection, server_info};
pub use self::connection::{RedisTarget, Sentinels};
use self::scan::Unread;
use super::{Cursor, Listing, Page, Seen, ServerIdentity, Shard, Store, StoreError};
use crate::clock::{Clock, Timestamp};
use crate::identity::{SessionKey, UserId};
use crate::session::{
    Admission, Ending, Playing, Provenance, Released, Renewal, Sighting, Start, StartRules, Terms,
    WhenFull,
};

/// How many renewals go into one call: enough that the overhead of a call hardly matters, and few
/// enough that Redis, which is single-threaded, finishes within a tenth of a millisecond.
const BATCH: usize = 32;

/// How to reach and use Redis.
#[derive(Clone)]
pub struct RedisSettings {
    /// Where Redis is.
    pub source: RedisTarget,
    /// The prefix of every key.
    pub key_prefix: String,
    /// The time limit of any call.
    pub timeout: Duration,
    /// The limits of leases and tombstones.
    pub terms: Terms,
}

impl fmt::Debug for RedisSettings {
    /// Shows the addresses, but neither users nor passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("source", &self.source.place())
            .field("key_prefix", &self.key_prefix)
            .field("timeout", &self.timeout)
            .field("terms", &self.terms)
            .finish()
    }
}

/// Rosters in Redis.
#[derive(Debug)]
pub struct RedisStore {
    /// The connection, which maintains itself.
    connection: RedisConnection,
    /// The scripts.
    scripts: Arc<Scripts>,
    /// The key names.
    keys: KeyNames,
    /// Checks whether the operations would succeed.
    probe: Probe,
    /// Reports data at our keys that can't be decoded.
    unread: Unread,
    /// The longest lease that is granted.
    longest_lease: Duration,
    /// Replaces Redis's clock in tests.
    clock: Option<Arc<dyn Clock>>,
}

impl RedisStore {
    /// Opens the store without waiting for Redis, which needn't be running yet: the connection is
    /// made in the background. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// An address can't be used at all.
    pub fn open(settings: RedisSettings) -> Result<Self, StoreError> {
        Self::open_with(settings, RecordVersions::OURS)
    }

    /// Opens the store as a bridge release would: it writes this version of records and also reads
    /// the next. Only for tests.
    ///
    /// # Errors
    /// An address can't be used at all.
    #[doc(hidden)]
    pub fn open_as_bridge(settings: RedisSettings) -> Result<Self, StoreError> {
        Self::open_with(settings, RecordVersions::BRIDGE)
    }

    /// Opens the store as a release with the next version of records would: it also reads this
    /// version. Only for tests.
    ///
    /// # Errors
    /// An address can't be used at all.
    #[doc(hidden)]
    pub fn open_as_next(settings: RedisSettings) -> Result<Self, StoreError> {
        Self::open_with(settings, RecordVersions::NEXT)
    }

    /// Opens the store for those versions of records.
    fn open_with(settings: RedisSettings, versions: RecordVersions) -> Result<Self, StoreError> {
        let source = settings.source;
        source.prepare()?;
        let scripts = Arc::new(Scripts::new(&settings.terms, versions));
        let connection = RedisConnection::open(source, Arc::clone(&scripts), settings.timeout);
        let keys = KeyNames::new(&settings.key_prefix);
        Ok(Self {
            connection,
            scripts,
            probe: Probe::new(keys.probe()),
            keys,
            unread: Unread::default(),
            longest_lease: settings.terms.longest_lease,
            clock: None,
        })
    }

    /// Uses that clock instead of Redis's. Only for tests: gateways that bring their own time don't
    /// agree.
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
        question: Question,
    ) -> Result<Value, StoreError> {
        let arguments = [&*question.key, &*question.rest];
        self.run(script, &[self.keys.roster(user)], &arguments)
            .await
    }

    /// Runs a script within the deadline.
    async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<Value, StoreError> {
        self.connection
            .call(async |mut link| script.call(&mut link, keys, arguments).await)
            .await
    }

    /// Renews those sessions of a batch that can be renewed in place; `None` marks one that needs a
    /// call of its own.
    async fn renew_batch(&self, seen: &[Seen]) -> Result<Vec<Option<Renewal>>, StoreError> {
        let question = seen.iter().fold(self.question(), |question, seen| {
            question.lease(seen.sighting.lease.min(self.longest_lease))
        });
        let users = seen.iter().map(|seen| self.keys.roster(&seen.user));
        let keys = seen
            .iter()
            .map(|seen| record::encode_key(&seen.sighting.key));
        let (users, keys): (Vec<_>, Vec<_>) = (users.collect(), keys.collect());
        let keys = keys.iter().map(Vec::as_slice);
        let arguments: Vec<&[u8]> = iter::once(&*question.rest).chain(keys).collect();
        let answer = self
            .run(&self.scripts.renew_all, &users, &arguments)
            .await?;
        reply::renewals(&answer, seen.len())
    }

    /// Renews a batch: as many as possible in one call, the others in calls of their own.
    async fn renew_in_batch(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let renewals = match self.renew_batch(seen).await {
            Ok(renewals) => renewals,
            Err(error) => return vec![Err(error); seen.len()],
        };
        join_all(
            renewals
                .into_iter()
                .zip(seen)
                .map(async |(renewal, seen)| match renewal {
                    Some(renewal) => Ok(renewal),
                    None => self.renew(&seen.user, &seen.sighting, seen.limit).await,
                }),
        )
        .await
    }

    /// The beginning of every question: the time, or zero for Redis's clock.
    fn question(&self) -> Question {
        let clock = self.clock.as_ref();
        let now = clock.map_or(0, |clock| clock.now().as_millis());
        let question = Question {
            key: Vec::new(),
            rest: Vec::with_capacity(96),
        };
        question.millis(now)
    }

    /// The beginning of a question about a session: its lease and its key.
    fn question_about(&self, key: &SessionKey, lease: Duration) -> Question {
        let question = Question {
            key: record::encode_key(key),
            ..self.question()
        };
        question.lease(lease.min(self.longest_lease))
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn admit(
        &self,
        user: &UserId,
        start: &Start,
        rules: &StartRules,
    ) -> Result<Admission, StoreError> {
        let (policy, named) = match &rules.when_full {
            WhenFull::Refuse => (layout::REFUSE, None),
            WhenFull::DisplaceOldest => (layout::OLDEST, None),
            WhenFull::DisplaceIdlest => (layout::IDLEST, None),
            WhenFull::TakeOver(key) => (layout::NAMED, Some(key)),
        };
        let question = self
            .question_about(&start.key, start.lease)
            .count(rules.limit)
            .byte(policy)
            .byte(u8::from(rules.free) * layout::FREE + u8::from(rules.takeover) * layout::TAKEOVER)
            .count(rules.burst())
            .short_span(rules.quiet)
            .bytes(&named.map(record::encode_key).unwrap_or_default())
            .bytes(&record::encode_rest(
                &start.facts,
                start.flags(),
                start.ticket,
            ));
        let answer = self.ask(&self.scripts.admit, user, question).await?;
        reply::admission(&answer, start, rules.limit)
    }

    async fn renew(
        &self,
        user: &UserId,
        sighting: &Sighting,
        limit: u32,
    ) -> Result<Renewal, StoreError> {
        let started = sighting.started_at.map_or(u64::MAX, Timestamp::as_millis);
        let provenance = match sighting.provenance {
            Provenance::Counted => layout::COUNTED,
            Provenance::ByRule => layout::BY_RULE,
            Provenance::Unplayed => layout::UNPLAYED,
        };
        let question = self
            .question_about(&sighting.key, sighting.lease)
            .count(limit)
            .byte(provenance)
            .millis(started)
            .bytes(&record::encode_rest(
                &sighting.facts,
                sighting.flags(),
                None,
            ));
        let answer = self.ask(&self.scripts.renew, user, question).await?;
        reply::renewal(&answer)
    }

    /// Makes one call for every [`BATCH`] of them, concurrently. A call has keys of many users, so
    /// this requires a single server: a cluster spreads them over nodes.
    async fn renew_all(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let batches = seen.chunks(BATCH).map(|batch| self.renew_in_batch(batch));
        join_all(batches).await.into_iter().flatten().collect()
    }

    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError> {
        let question = self.question_about(key, Duration::ZERO);
        let answer = self.ask(&self.scripts.played, user, question).await?;
        reply::playing(&answer)
    }

    async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
    ) -> Result<Released, StoreError> {
        let (who, ticket) = match ending {
            Ending::Stream | Ending::Abandoned | Ending::Outlived | Ending::GaveWay => {
                (layout::STREAM, 0)
            }
            Ending::Vouched => (layout::VOUCHED, 0),
            Ending::Operator => (layout::BY_OPERATOR, 0),
            Ending::Undone(ticket) => (layout::UNDONE, ticket.number()),
            Ending::Failed => (layout::FAILED, 0),
        };
        let mut question = self.question_about(key, Duration::ZERO).byte(who);
        question.rest.extend(ticket.to_be_bytes());
        let question = question.lease(age);
        let answer = self.ask(&self.scripts.release, user, question).await?;
        reply::released(&answer)
    }

    async fn list(&self, user: &UserId) -> Result<Listing, StoreError> {
        let answer = self.ask(&self.scripts.list, user, self.question()).await?;
        reply::listing(&answer)
    }

    /// A cursor's place is a `SCAN` cursor. This requires a single server: each node of a cluster
    /// has cursors of its own.
    async fn page(&self, from: &Cursor, size: usize) -> Result<Page, StoreError> {
        self.page_from(from, size).await
    }

    async fn ping(&self, _: &Shard) -> Result<(), StoreError> {
        self.connection
            .call(async |mut link| self.probe.call(&mut link).await)
            .await
    }

    async fn outage(&self, _: &Shard) -> StoreError {
        self.connection.outage().await
    }

    fn server(&self, _: &Shard) -> Option<String> {
        self.connection.server()
    }

    async fn server_identity(&self, _: &Shard) -> Result<Option<ServerIdentity>, StoreError> {
        let asked = self.connection.call(async |mut link| {
            Ok(ServerIdentity {
                run_id: server_info::run_id(&mut link).await?,
                database: self.connection.database(),
                eviction_policy: server_info::eviction_policy(&mut link).await?,
                requires_full_coverage: server_info::requires_full_coverage(&mut link).await?,
            })
        });
        Ok(Some(asked.await?))
    }
}
