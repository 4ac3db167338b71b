//! Rosters in Redis: one key for each user, and a second one where an operator has set a limit; one
//! script call for each operation, by Redis's clock.
//!
//! An operation consists of a key, a packed question, a script, and the decoding of its answer. All
//! calls have the same deadline, which includes waiting for the connection; the connection
//! maintains itself. The rule exists twice, in [`crate::session::Roster`] and in Lua, and the tests
//! compare both operation by operation.

mod bus;
mod cluster;
mod codec;
mod connection;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod notes;
mod renewals;
mod route;
mod scan;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use self::bus::Channel;
use self::codec::keys::KeyNames;
use self::codec::layout::RecordVersions;
use self::codec::question::Question;
use self::codec::script::{Script, Scripts};
use self::codec::{layout, record, reply};
pub use self::connection::Sentinels;
use self::connection::{probe, server_info};
use self::notes::NoteScripts;
pub use self::route::RedisTarget;
use self::route::{CallLink, RedisRoute};
use self::scan::Unread;
use super::{Cursor, Listing, Notes, Page, Seen, ServerIdentity, Shard, Store, StoreError};
use crate::clock::{Clock, Timestamp};
use crate::identity::{EndMessage, SessionKey, UserId};
use crate::session::{
    Admission, Ending, LimitOverride, Playing, Provenance, Released, Renewal, Sighting, Start,
    StartRules, Terms, WhenFull,
};

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
    /// Where calls go.
    route: RedisRoute,
    /// The scripts.
    scripts: Arc<Scripts>,
    /// The scripts about notes.
    notes: NoteScripts,
    /// The key names.
    keys: KeyNames,
    /// Where instances tell each other events.
    channel: Channel,
    /// Where Redis is.
    target: RedisTarget,
    /// Checks whether the operations would succeed.
    probe: Script,
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
        let scripts = Arc::new(Scripts::new(&settings.terms, versions));
        let keys = KeyNames::new(&settings.key_prefix);
        let target = settings.source.clone();
        let route = RedisRoute::open(settings.source, Arc::clone(&scripts), settings.timeout)?;
        Ok(Self {
            route,
            scripts,
            probe: probe::script(),
            channel: Channel {
                name: keys.channel(),
                is_plain: AtomicBool::new(false),
            },
            keys,
            target,
            notes: NoteScripts::default(),
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
        self.ask_with(script, &[self.keys.roster(user)], question)
            .await
    }

    /// The same for a script that also reads the limit that an operator has set for the user.
    async fn ask_with_limit(
        &self,
        script: &Script,
        user: &UserId,
        question: Question,
    ) -> Result<Value, StoreError> {
        let keys = [self.keys.roster(user), self.keys.limit(user)];
        let [roster, _] = &keys;
        let act = |link| script.call_with_second(link, &keys, &question);
        self.route.call(roster, act).await
    }

    /// Asks a script about these keys of one user, within the deadline.
    async fn ask_with(
        &self,
        script: &Script,
        keys: &[String],
        question: Question,
    ) -> Result<Value, StoreError> {
        let arguments = [&*question.key, &*question.rest];
        let act = |link| script.call(link, keys, &arguments);
        // They have the same hash tag, so any of them names the server.
        let first = keys.first().map_or("", String::as_str);
        self.route.call(first, act).await
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
            .byte(
                u8::from(rules.free) * layout::FREE
                    + u8::from(rules.takeover) * layout::TAKEOVER
                    + u8::from(rules.renews_only) * layout::RENEWS_ONLY,
            )
            .count(rules.burst())
            .short_span(rules.quiet)
            .bytes(&named.map(record::encode_key).unwrap_or_default())
            .bytes(&record::encode_message(rules.message.as_ref()))
            .bytes(&record::encode_rest(
                &start.facts,
                start.flags(),
                start.ticket,
            ));
        let answer = self
            .ask_with_limit(&self.scripts.admit, user, question)
            .await?;
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
        let answer = self
            .ask_with_limit(&self.scripts.renew, user, question)
            .await?;
        reply::renewal(&answer)
    }

    async fn renew_all(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        self.renew_in_batches(seen).await
    }

    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError> {
        let question = self.question_about(key, Duration::ZERO);
        let answer = self.ask(&self.scripts.played, user, question).await?;
        reply::playing(&answer)
    }

    async fn release_telling(
        &self,
        user: &UserId,
        key: &SessionKey,
        (ending, message): (Ending, Option<&EndMessage>),
        age: Duration,
    ) -> Result<(Released, Option<Timestamp>), StoreError> {
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
        let question = question.lease(age).bytes(&record::encode_message(message));
        let answer = self.ask(&self.scripts.release, user, question).await?;
        reply::released(&answer)
    }

    async fn list(&self, user: &UserId) -> Result<Listing, StoreError> {
        let answer = self
            .ask_with_limit(&self.scripts.list, user, self.question())
            .await?;
        reply::listing(&answer)
    }

    async fn override_limit(
        &self,
        user: &UserId,
        limit: Option<LimitOverride>,
    ) -> Result<Option<LimitOverride>, StoreError> {
        let (count, until) = limit.map_or((layout::NONE, 0), |limit| {
            let most = limit.limit.min(LimitOverride::MOST);
            let count = u16::try_from(most).unwrap_or(u16::MAX);
            (count, limit.until.as_millis())
        });
        let mut question = self.question();
        question.rest.extend(count.to_be_bytes());
        let question = question.millis(until);
        let keys = [self.keys.limit(user)];
        let script = &self.scripts.override_limit;
        let answer = self.ask_with(script, &keys, question).await?;
        reply::overridden(&answer)
    }

    /// On one server, a cursor's place is a `SCAN` cursor. In a cluster it is a slot.
    async fn page(&self, from: &Cursor, size: usize) -> Result<Page, StoreError> {
        match &self.route {
            RedisRoute::One(server) => self.page_from(server, from, size).await,
            RedisRoute::Cluster(cluster) => self.page_by_slots(cluster, from, size).await,
        }
    }

    fn shard_of(&self, user: &UserId) -> Shard {
        self.route.shard_of(|| self.keys.roster(user))
    }

    fn shards(&self) -> Vec<Shard> {
        self.route.shards()
    }

    async fn ping(&self, shard: &Shard) -> Result<(), StoreError> {
        let probe = async |link, tag| {
            let link = CallLink {
                link,
                asking: false,
            };
            self.probe.call(link, &[self.keys.probe(tag)], &[]).await
        };
        self.route.call_at(shard, probe).await.map(drop)
    }

    async fn outage(&self, shard: &Shard) -> StoreError {
        self.route.outage(shard).await
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }

    fn server(&self, shard: &Shard) -> Option<String> {
        self.route.server(shard)
    }

    async fn server_identity(&self, shard: &Shard) -> Result<Option<ServerIdentity>, StoreError> {
        let ask = async |mut link, _| {
            let run_id = server_info::run_id(&mut link).await?;
            let eviction_policy = server_info::eviction_policy(&mut link).await?;
            let coverage = server_info::requires_full_coverage(&mut link).await?;
            Ok(ServerIdentity {
                run_id,
                database: self.route.database(),
                eviction_policy,
                requires_full_coverage: coverage,
            })
        };
        self.route.call_at(shard, ask).await.map(Some)
    }
}
