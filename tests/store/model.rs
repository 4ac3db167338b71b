//! Random operations on every store and on the rule itself, compared step by step. Time is a manual clock that all of them share; it goes
//! on in leaps that matter, and sometimes steps back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestError, TestRunner};
use streamgate::clock::{Clock, ManualClock, Stopwatch, Timestamp};
use streamgate::identity::{
    ContentId, DeviceId, Door, EndMessage, FactName, Facts, JoinedOrigin, Kind, SessionKey, UserId,
};
use streamgate::session::{
    Admission, Ending, LimitOverride, Provenance, Roster, Sighting, Start, StartRules, Ticket,
    WhenFull,
};
use streamgate::store::redis::RedisStore;
use streamgate::store::{Listing, MemoryStore, Seen, Store};

use testkit::cluster::RedisCluster;
use testkit::redis::RedisServer;
use testkit::streams::{key, terms, user};

/// How many sequences are tried, if there is time.
const SEQUENCES: u32 = 3_000;

/// How many are tried in any case.
const LEAST: u32 = 100;

/// After how long no more than those are tried.
const TIME: Duration = Duration::from_secs(20);

/// When every sequence begins.
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// One step of a sequence.
#[derive(Debug, Clone)]
enum Step {
    Admit(Start, StartRules),
    Renew(Sighting, u32),
    /// Tells of many at once.
    RenewAll(Vec<(Sighting, u32)>),
    /// Says that a session is over, which somebody said that long ago, perhaps with a message.
    Release(SessionKey, Ending, Option<EndMessage>, Duration),
    /// Reports that a request of a session got through.
    Played(SessionKey),
    /// Sets the user's limit for so long, or removes it.
    Override(Option<u32>, Duration),
    /// Ends that many playbacks of which nobody has heard, to fill up the tombstones.
    Bury(u32),
    /// Sets the clock on.
    Wait(Duration),
    /// Sets the clock back: it has been stepped.
    GoBack(Duration),
}

/// The names of sessions, some in each of the forms in which names are kept.
const IDS: &[&str] = &[
    "a",
    "b",
    "aa",
    "a.b.c",
    "playback-00000_1",
    "playback-00000_2",
    "playback-00000_",
    "0188f1a2-4b6c-7d8e-9f00-112233445566",
    "0188f1a2-4b6c-7d8e-9f00-112233445567",
];

fn keys() -> impl Strategy<Value = SessionKey> {
    (select(&Kind::ALL[..]), select(IDS)).prop_map(|(kind, id)| key(kind, id))
}

/// Leases around those that are granted: none, the shortest, shorter, the longest, longer.
fn leases() -> impl Strategy<Value = Duration> {
    select(&[1, 5_000, 15_000, 29_999, 30_000, 30_000, 30_000, 60_000][..])
        .prop_map(Duration::from_millis)
}

/// Leaps of time: within a millisecond, around a lease, around what is remembered.
fn spans() -> impl Strategy<Value = Duration> {
    select(
        &[
            0, 1, 1, 999, 5_000, 10_000, 10_000, 29_999, 30_000, 31_050, 40_000, 120_000,
        ][..],
    )
    .prop_map(Duration::from_millis)
}

/// A device that is no origin, since it has to be shortened, and one that just need not be.
const TOO_LONG: &str = match std::str::from_utf8(&[b'x'; 257]) {
    Ok(text) => text,
    Err(_) => "",
};
const LONGEST: &str = TOO_LONG.split_at(256).0;

fn facts() -> impl Strategy<Value = Facts> {
    let devices = select(
        &[
            None,
            None,
            Some("tv"),
            Some("phone"),
            Some("a phone"),
            Some(TOO_LONG),
            Some(LONGEST),
        ][..],
    );
    let contents = select(&[None, Some("film"), Some("a longer film")][..]);
    let joined = select(&[None, None, Some(1), Some(2)][..]);
    let doors = select(
        &[
            None,
            Some(Door::ExtAuthz),
            Some(Door::AccessLog),
            Some(Door::Http),
        ][..],
    );
    let positions = select(&[None, None, Some(0), Some(3600)][..]);
    (devices, contents, doors, positions, joined).prop_map(
        |(device, content, door, position_seconds, joined)| Facts {
            joined: joined.map(JoinedOrigin),
            device: DeviceId::keep(device, &|_, _| {}),
            content: content.and_then(|content| ContentId::parse(content).ok()),
            door,
            position_seconds,
        },
    )
}

/// Messages of one part and of several.
fn messages() -> impl Strategy<Value = Option<EndMessage>> {
    let long = "\u{1f4fa}".repeat(200);
    let texts = [None, None, Some("Stopped.".to_owned()), Some(long)];
    select(texts.to_vec()).prop_map(|text| text.and_then(|text| EndMessage::parse(&text).ok()))
}

fn tickets() -> impl Strategy<Value = Option<Ticket>> {
    (0..3_u32).prop_map(Ticket::new)
}

/// What applies to a start.
fn rules() -> impl Strategy<Value = StartRules> {
    let when_full = prop_oneof![
        2 => Just(WhenFull::Refuse),
        2 => Just(WhenFull::DisplaceOldest),
        2 => Just(WhenFull::DisplaceIdlest),
        1 => keys().prop_map(WhenFull::TakeOver),
    ];
    let quiet = select(&[1_000, 5_000, 10_000, 30_000][..]).prop_map(Duration::from_millis);
    (
        0..5_u32,
        when_full,
        any::<bool>(),
        0..3_u32,
        any::<bool>(),
        (quiet, messages()),
    )
        .prop_map(
            |(limit, when_full, takeover, displacements, free, (quiet, message))| StartRules {
                message,
                limit,
                when_full,
                takeover,
                displacements,
                free,
                quiet,
                renews_only: false,
            },
        )
        .prop_flat_map(|rules| {
            // A caller that only renews passes a limit of zero.
            let only_renews = StartRules {
                limit: 0,
                renews_only: true,
                ..rules.clone()
            };
            prop_oneof![9 => Just(rules), 1 => Just(only_renews)]
        })
}

fn admissions() -> impl Strategy<Value = Step> {
    let of = (keys(), facts(), leases(), tickets(), any::<bool>(), rules());
    of.prop_map(|(key, facts, lease, ticket, derived, rules)| {
        let start = Start {
            key,
            facts,
            lease,
            ticket,
            derived,
        };
        Step::Admit(start, rules)
    })
}

/// A stream that was seen running, and its user's limit.
fn sightings() -> impl Strategy<Value = (Sighting, u32)> {
    let started = prop_oneof![
        3 => Just(None),
        1 => (0..240_000_u64).prop_map(|late| Some(START.as_millis() - 120_000 + late)),
    ];
    let provenance = select(
        &[
            Provenance::Counted,
            Provenance::ByRule,
            Provenance::Unplayed,
        ][..],
    );
    (
        keys(),
        facts(),
        leases(),
        started,
        0..5_u32,
        provenance,
        any::<bool>(),
    )
        .prop_map(|(key, facts, lease, started, limit, provenance, derived)| {
            let started_at = started.map(Timestamp::from_millis);
            let sighting = Sighting {
                key,
                facts,
                lease,
                started_at,
                provenance,
                derived,
            };
            (sighting, limit)
        })
}

fn steps() -> impl Strategy<Value = Step> {
    let seen = sightings().boxed();
    let all = proptest::collection::vec(seen.clone(), 0..8).prop_map(Step::RenewAll);
    let renew = seen.prop_map(|(sighting, limit)| Step::Renew(sighting, limit));
    let ending = prop_oneof![
        3 => Just(Ending::Stream),
        1 => Just(Ending::Vouched),
        1 => Just(Ending::Operator),
        2 => Just(Ending::Failed),
        2 => tickets().prop_filter_map("a ticket", |ticket| ticket.map(Ending::Undone)),
    ];
    let age = prop_oneof![3 => Just(Duration::ZERO), 1 => spans()];
    let release = (keys(), ending, messages(), age)
        .prop_map(|(key, ending, message, age)| Step::Release(key, ending, message, age));
    prop_oneof![
        8 => admissions(),
        6 => renew,
        2 => all,
        4 => release,
        2 => keys().prop_map(Step::Played),
        // Redis expires the key by its own clock, which is not to be sooner.
        1 => (proptest::option::of(0..6_u32), select(&[40_u64, 120, 600][..]))
            .prop_map(|(limit, span)| Step::Override(limit, Duration::from_secs(span))),
        1 => (1..70_u32).prop_map(Step::Bury),
        4 => spans().prop_map(Step::Wait),
        1 => spans().prop_map(Step::GoBack),
    ]
}

/// One user, as the rule and each store have it.
struct Trial<'a> {
    clock: &'a ManualClock,
    roster: Roster,
    memory: MemoryStore,
    redis: &'a RedisStore,
    user: UserId,
    /// The limit that was set for the user.
    limit: Option<LimitOverride>,
    /// How many playbacks were buried that nobody had heard of.
    buried: u32,
}

impl Trial<'_> {
    async fn take(&mut self, step: &Step) {
        match step {
            Step::Admit(start, rules) => self.admit(start, rules).await,
            Step::Renew(sighting, limit) => self.renew(sighting, *limit).await,
            Step::RenewAll(seen) => self.renew_all(seen).await,
            Step::Release(key, ending, message, age) => {
                let ending = (*ending, message.as_ref());
                self.release_all(vec![key.clone()], ending, *age).await;
            }
            Step::Played(key) => self.played(key).await,
            Step::Override(limit, span) => self.override_limit(*limit, *span).await,
            Step::Bury(number) => {
                let strangers = (self.buried..self.buried + number).map(stranger).collect();
                self.buried += number;
                self.release_all(strangers, (Ending::Stream, None), Duration::ZERO)
                    .await;
            }
            Step::Wait(span) => self.clock.advance(*span),
            Step::GoBack(span) => {
                self.settle().await;
                let span = u64::try_from(span.as_millis()).unwrap();
                let now = self.clock.now().as_millis() - span;
                self.clock.set(Timestamp::from_millis(now));
                self.settle().await;
            }
        }
        self.list().await;
    }

    /// The limit in force that was set for the user.
    fn in_force(&self) -> Option<LimitOverride> {
        let now = self.clock.now();
        self.limit.filter(|limit| limit.until > now)
    }

    async fn override_limit(&mut self, limit: Option<u32>, span: Duration) {
        let until = self.clock.now().after(span);
        let limit = limit.map(|limit| LimitOverride { limit, until });
        let expected = Ok(self.in_force());
        for store in [&self.memory as &dyn Store, self.redis] {
            assert_eq!(store.override_limit(&self.user, limit).await, expected);
        }
        self.limit = limit;
        self.limit = self.in_force();
    }

    async fn admit(&mut self, start: &Start, rules: &StartRules) {
        let now = self.clock.now();
        let limit = self.in_force();
        let rules_in_force = rules.overridden(limit);
        let mut expected = self.roster.admit(start, &rules_in_force, &terms(), now);
        if let Admission::Admitted(admitted) = &mut expected {
            admitted.limit_override = limit.map(|limit| limit.limit);
        }
        let expected = Ok(expected);
        for store in [&self.memory as &dyn Store, self.redis] {
            let admission = store.admit(&self.user, start, rules).await;
            assert_eq!(admission, expected);
        }
    }

    async fn played(&mut self, key: &SessionKey) {
        let expected = Ok(self.roster.played(key, &terms(), self.clock.now()));
        for store in [&self.memory as &dyn Store, self.redis] {
            assert_eq!(store.played(&self.user, key).await, expected);
        }
    }

    async fn renew(&mut self, sighting: &Sighting, limit: u32) {
        let now = self.clock.now();
        let in_force = self.in_force().map_or(limit, |set| set.limit);
        let expected = Ok(self.roster.renew(sighting, in_force, &terms(), now));
        for store in [&self.memory as &dyn Store, self.redis] {
            let renewal = store.renew(&self.user, sighting, limit).await;
            assert_eq!(renewal, expected);
        }
    }

    async fn renew_all(&mut self, seen: &[(Sighting, u32)]) {
        let now = self.clock.now();
        let set = self.in_force().map(|set| set.limit);
        let renew = |(sighting, limit): &(Sighting, u32)| {
            let limit = set.unwrap_or(*limit);
            Ok(self.roster.renew(sighting, limit, &terms(), now))
        };
        let expected: Vec<_> = seen.iter().map(renew).collect();
        let seen: Vec<_> = seen
            .iter()
            .map(|(sighting, limit)| Seen {
                user: self.user.clone(),
                sighting: sighting.clone(),
                limit: *limit,
            })
            .collect();
        for store in [&self.memory as &dyn Store, self.redis] {
            assert_eq!(store.renew_all(&seen).await, expected);
        }
    }

    /// Releases what is not there. Redis renews a live session without a look at the others, so that what of theirs has expired, or lies
    /// ahead, is only dropped or cut by the next operation of another kind: no matter, unless the clock steps back in between.
    async fn settle(&mut self) {
        self.release(&key(Kind::Video, "nobody"), Ending::Vouched)
            .await;
    }

    async fn release(&mut self, key: &SessionKey, ending: Ending) {
        self.release_all(vec![key.clone()], (ending, None), Duration::ZERO)
            .await;
    }

    /// Releases them in that order, without waiting for one answer before the next question: Redis answers in order.
    async fn release_all(
        &mut self,
        keys: Vec<SessionKey>,
        ending: (Ending, Option<&EndMessage>),
        age: Duration,
    ) {
        let now = self.clock.now();
        let expected: Vec<_> = keys
            .iter()
            .map(|key| {
                let roster = &mut self.roster;
                Ok(roster.release_telling(key, ending, age, &terms(), now))
            })
            .collect();
        for store in [&self.memory as &dyn Store, self.redis] {
            let mut released = Vec::new();
            // As few as thirty are polled in order, and so asked in order.
            for keys in keys.chunks(30) {
                let asked = keys
                    .iter()
                    .map(|key| store.release_telling(&self.user, key, ending, age));
                released.extend(join_all(asked).await);
            }
            for ((key, released), expected) in keys.iter().zip(released).zip(&expected) {
                let released = released.map(|(released, _)| released);
                assert_eq!(&released, expected, "{key} {ending:?}");
            }
        }
    }

    async fn list(&self) {
        let taken_at = self.clock.now();
        let sessions = self.roster.live(taken_at).cloned().collect();
        let expected = Ok(Listing {
            sessions,
            limit_override: self.in_force(),
            taken_at,
        });
        for store in [&self.memory as &dyn Store, self.redis] {
            assert_eq!(store.list(&self.user).await, expected);
        }
    }

    /// Asks after every end that is remembered, and after those that are not any more.
    async fn visit_the_graves(&mut self) {
        let tombstones = self.roster.tombstones(self.clock.now());
        let mut keys: Vec<_> = tombstones.map(|tombstone| tombstone.key.clone()).collect();
        keys.extend((0..self.buried).map(stranger));
        self.release_all(keys, (Ending::Vouched, None), Duration::ZERO)
            .await;
        self.list().await;
    }
}

/// A playback of which nobody has heard before.
fn stranger(number: u32) -> SessionKey {
    key(Kind::Playback, &format!("stranger {number}"))
}

#[test]
fn every_store_agrees_with_the_rule_step_by_step() {
    let server = RedisServer::start();
    agrees(&|| server.store(), TIME);
}

#[test]
fn a_cluster_agrees_with_the_rule_step_by_step() {
    let cluster = RedisCluster::start();
    agrees(&|| cluster.store(), TIME / 4);
}

/// The store on Redis, the one in memory and the rule agree step by step, for so long at least.
fn agrees(open: &dyn Fn() -> RedisStore, enough: Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clock = Arc::new(ManualClock::default());
    let redis = runtime.block_on(async { open().with_clock(clock.clone()) });
    let time = Stopwatch::start();
    let tried = std::cell::Cell::new(0_u32);
    let config = Config {
        cases: SEQUENCES,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome =
        TestRunner::new(config).run(&proptest::collection::vec(steps(), 1..40), |sequence| {
            if time.elapsed() > enough && tried.get() >= LEAST {
                return Ok(());
            }
            tried.set(tried.get() + 1);
            clock.set(START);
            let mut trial = Trial {
                clock: &clock,
                roster: Roster::default(),
                limit: None,
                memory: MemoryStore::new(terms(), clock.clone()),
                redis: &redis,
                user: user(&format!("user {}", tried.get())),
                buried: 0,
            };
            runtime.block_on(async {
                for step in &sequence {
                    trial.take(step).await;
                }
                trial.visit_the_graves().await;
            });
            Ok(())
        });
    if let Err(TestError::Fail(reason, sequence)) = outcome {
        panic!("{reason}\n{sequence:#?}");
    }
    eprintln!("{} sequences in {:?}", tried.get(), time.elapsed());
}
