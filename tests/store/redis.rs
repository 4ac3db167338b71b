//! What is Redis's own: where things are kept, what happens when it is away, slow, full, or not ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use streamgate::clock::{Clock, ManualClock, Stopwatch, Timestamp};
use streamgate::identity::{ContentId, DeviceId, Facts, Kind, SessionKey, UserId};
use streamgate::session::{
    Admission, AdmissionKind, Admitted, Ending, Refusal, Released, Renewal, Sighting, Start,
    StartRules, Terms, WhenFull,
};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Seen, Store, StoreError};

use testkit::redis::{RedisServer, lasting_store, settings};
use testkit::streams::{LEASE, key, lasting, playback, refusing, sighting, start, user};
use testkit::watch::eventually;

/// A deadline that is short for a person and long for a busy machine.
const DEADLINE: Duration = Duration::from_millis(300);

/// A store that gives up after [`DEADLINE`].
fn hasty(server: &RedisServer) -> RedisStore {
    let settings = RedisSettings {
        timeout: DEADLINE,
        ..server.settings()
    };
    RedisStore::open(settings).unwrap()
}

async fn admit(store: &RedisStore, name: &str, id: &str) -> Result<Admission, StoreError> {
    let start = start(&playback(id));
    store.admit(&user(name), &start, &refusing(3)).await
}

fn is_started(admission: &Result<Admission, StoreError>) -> bool {
    matches!(
        admission,
        Ok(Admission::Admitted(Admitted {
            entry: AdmissionKind::Started,
            ..
        }))
    )
}

async fn active(store: &RedisStore, name: &str) -> usize {
    store.list(&user(name)).await.unwrap().sessions.len()
}

#[tokio::test]
async fn time_is_the_servers_own() {
    let server = RedisServer::start();
    let store = server.store();
    let seconds: (u64, u64) = server.run(&["TIME"]);
    let Ok(Admission::Admitted(admitted)) = admit(&store, "alice", "a").await else {
        panic!("not admitted");
    };
    let apart = admitted.decided_at.as_millis().abs_diff(seconds.0 * 1000);
    assert!(apart < 10_000, "{apart} ms from the server's clock");
    let listing = store.list(&user("alice")).await.unwrap();
    assert_eq!(
        listing.sessions[0].expires_at,
        admitted.decided_at.after(LEASE)
    );
    assert!(listing.taken_at >= admitted.decided_at);
}

#[tokio::test]
async fn a_lease_ends_by_the_servers_clock_and_the_next_gets_in() {
    let server = RedisServer::start();
    let store = server.store();
    let lease = Duration::from_millis(200);
    let short = Start {
        lease,
        ..start(&playback("a"))
    };
    let admission = store.admit(&user("alice"), &short, &refusing(1)).await;
    assert!(is_started(&admission));
    eventually("the lease has ended", || async {
        let next = start(&playback("b"));
        is_started(&store.admit(&user("alice"), &next, &refusing(1)).await)
    })
    .await;
}

#[tokio::test]
async fn every_key_expires_and_an_empty_roster_leaves_none() {
    let server = RedisServer::start();
    let store = server.store();
    for n in 0..20 {
        let name = format!("user {n}");
        assert!(is_started(&admit(&store, &name, "a").await));
        if n % 2 == 0 {
            store
                .renew(&user(&name), &sighting(&playback("a")), 3)
                .await
                .unwrap();
        }
        if n % 3 == 0 {
            store
                .release(&user(&name), &playback("a"), Ending::Stream, Duration::ZERO)
                .await
                .unwrap();
        }
        store
            .renew(&user(&name), &sighting(&playback("b")), 3)
            .await
            .unwrap();
    }
    let keys: Vec<String> = server.run(&["KEYS", "*"]);
    assert_eq!(keys.len(), 20);
    for key in keys {
        let left: i64 = server.run(&["PTTL", &key]);
        assert!(
            (30_000..70_000).contains(&left),
            "{key} is kept for {left} ms"
        );
    }
    let video = key(Kind::Video, "film");
    let visit = start(&video);
    store
        .admit(&user("guest"), &visit, &refusing(3))
        .await
        .unwrap();
    assert_eq!(server.run::<i64>(&["EXISTS", "streamgate:{guest}"]), 1);
    store
        .release(&user("guest"), &video, Ending::Stream, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(server.run::<i64>(&["EXISTS", "streamgate:{guest}"]), 0);
}

#[tokio::test]
async fn a_key_outlives_every_renewal() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let store = server.store().with_clock(clock.clone());
    assert!(is_started(&admit(&store, "alice", "a").await));
    for _ in 0..30 {
        // The roster's clock is set on; so that the key's life runs on with it, as much of that is taken away.
        let passed = Duration::from_secs(7);
        clock.advance(passed);
        let left: u64 = server.run(&["PTTL", "streamgate:{alice}"]);
        let left = Duration::from_millis(left).checked_sub(passed).unwrap();
        let left = left.as_millis().to_string();
        server.run::<i64>(&["PEXPIRE", "streamgate:{alice}", &left]);
        let seen = sighting(&playback("a"));
        let renewal = store.renew(&user("alice"), &seen, 3).await;
        assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
        let left: u64 = server.run(&["PTTL", "streamgate:{alice}"]);
        assert!(left > 20_000, "{left} ms left for a lease of {LEASE:?}");
    }
}

#[tokio::test]
async fn what_was_granted_under_longer_terms_is_not_cut_to_the_shorter() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let of = |lease| {
        let terms = Terms::new(lease, DEADLINE);
        let settings = RedisSettings {
            terms,
            ..server.settings()
        };
        RedisStore::open(settings)
            .unwrap()
            .with_clock(clock.clone())
    };
    let (long, short) = (of(LEASE * 2), of(LEASE));
    let (alice, a, b) = (user("alice"), playback("a"), playback("b"));
    let seen = Sighting {
        lease: LEASE * 2,
        ..sighting(&a)
    };
    long.renew(&alice, &seen, 3).await.unwrap();
    for _ in 0..4 {
        // Renewed where it stands, and so with nothing else in the roster to tell.
        clock.advance(LEASE / 2);
        long.renew(&alice, &seen, 3).await.unwrap();
    }
    short
        .release(&alice, &b, Ending::Vouched, Duration::ZERO)
        .await
        .unwrap();
    let sessions = short.list(&alice).await.unwrap().sessions;
    assert_eq!(sessions[0].expires_at, clock.now().after(LEASE * 2));

    // An end that the one with the shorter lease writes down outlasts the longer lease that runs.
    let c = playback("c");
    end(&short, &alice, &c).await.unwrap();
    clock.advance(LEASE * 2);
    let admission = short.admit(&alice, &start(&c), &refusing(3)).await;
    assert!(!is_started(&admission), "its end is remembered");
    clock.advance(LEASE);
    let admission = short.admit(&alice, &start(&c), &refusing(3)).await;
    assert!(is_started(&admission), "its end is remembered for too long");
}

#[tokio::test]
async fn a_user_is_one_key_whose_hash_tag_is_the_user() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let other = RedisServer::start();
    let store = other.store();
    for (name, tag) in [
        ("alice", "alice"),
        ("{a}", "%7Ba%7D"),
        ("a}b{c", "a%7Db%7Bc"),
        ("50%", "50%25"),
        ("zo\u{eb}", "zo\u{eb}"),
    ] {
        assert!(is_started(&admit(&store, name, "a").await));
        let key = format!("streamgate:{{{tag}}}");
        assert_eq!(other.run::<i64>(&["EXISTS", &key]), 1, "{key}");
        let slots: [i64; 2] = [&key, tag].map(|of| server.run(&["CLUSTER", "KEYSLOT", of]));
        assert_eq!(slots[0], slots[1], "{key}");
    }
    assert_eq!(other.run::<i64>(&["DBSIZE"]), 5);
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_loaded_again() {
    let server = RedisServer::start();
    let store = server.store();
    for round in 0..3 {
        assert!(is_started(
            &admit(&store, "alice", &round.to_string()).await
        ));
        server.run::<String>(&["SCRIPT", "FLUSH"]);
        assert_eq!(active(&store, "alice").await, round + 1);
        server.run::<String>(&["SCRIPT", "FLUSH"]);
        let renewal = store
            .renew(&user("alice"), &sighting(&playback("0")), 3)
            .await;
        assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
        server.run::<String>(&["SCRIPT", "FLUSH"]);
    }
    let released = store
        .release(
            &user("alice"),
            &playback("0"),
            Ending::Stream,
            Duration::ZERO,
        )
        .await;
    assert!(matches!(released, Ok(Released::Freed)));
}

#[tokio::test]
async fn a_server_that_stands_still_costs_one_deadline_and_then_nothing_until_it_goes_on() {
    let server = RedisServer::start();
    let store = hasty(&server);
    eventually("it is connected", || async { store.ping().await.is_ok() }).await;
    assert!(is_started(&admit(&store, "alice", "a").await));
    server.pause();
    let waited = Stopwatch::start();
    assert_eq!(store.ping().await, Err(StoreError::Timeout(DEADLINE)));
    assert!(
        waited.elapsed() < DEADLINE * 10,
        "waited {:?}",
        waited.elapsed()
    );
    eventually("it is known to stand still", || async {
        matches!(store.ping().await, Err(StoreError::NotAsked(_)))
    })
    .await;
    let waited = Stopwatch::start();
    for _ in 0..100 {
        assert!(admit(&store, "alice", "b").await.is_err());
    }
    assert!(
        waited.elapsed() < DEADLINE * 10,
        "waited {:?}",
        waited.elapsed()
    );
    server.resume();
    eventually("it goes on", || async { store.ping().await.is_ok() }).await;
    assert_eq!(active(&store, "alice").await, 1);
}

#[tokio::test]
async fn a_server_that_stood_still_for_long_is_found_again() {
    let server = RedisServer::start();
    let store = hasty(&server);
    eventually("it is connected", || async { store.ping().await.is_ok() }).await;
    server.pause();
    assert!(store.ping().await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(matches!(store.ping().await, Err(StoreError::NotAsked(_))));
    server.resume();
    eventually("it goes on", || async { store.ping().await.is_ok() }).await;
}

#[tokio::test]
async fn a_server_that_dies_fails_calls_at_once_and_is_found_again_when_it_is_back() {
    let server = RedisServer::start();
    let store = server.store();
    assert!(is_started(&admit(&store, "alice", "a").await));
    for _ in 0..2 {
        server.stop();
        let waited = Stopwatch::start();
        for _ in 0..20 {
            let failure = store.ping().await;
            assert!(
                matches!(
                    failure,
                    Err(StoreError::Disconnected(_) | StoreError::NotAsked(_))
                ),
                "{failure:?}"
            );
        }
        assert!(
            waited.elapsed() < Duration::from_secs(2),
            "waited {:?}",
            waited.elapsed()
        );
        server.restart();
        eventually("it is back", || async { store.ping().await.is_ok() }).await;
        let renewal = store
            .renew(&user("alice"), &sighting(&playback("a")), 3)
            .await;
        assert!(
            matches!(renewal, Ok(Renewal::PutBack { .. })),
            "it has forgotten everything"
        );
    }
}

#[tokio::test]
async fn a_store_opens_without_its_server_and_finds_it_when_it_comes() {
    let server = RedisServer::stopped(&[]);
    let waited = Stopwatch::start();
    let store = hasty(&server);
    assert!(
        waited.elapsed() < DEADLINE * 10,
        "opening took {:?}",
        waited.elapsed()
    );
    eventually("it is known to be away", || async {
        matches!(store.ping().await, Err(StoreError::NotAsked(_)))
    })
    .await;
    server.restart();
    eventually("it comes", || async { store.ping().await.is_ok() }).await;
    assert!(is_started(&admit(&store, "alice", "a").await));
}

#[tokio::test]
async fn the_first_call_waits_for_the_connection() {
    let server = RedisServer::start();
    assert_eq!(server.store().ping().await, Ok(()));
}

#[tokio::test]
async fn however_many_wait_one_store_makes_one_connection() {
    let server = RedisServer::start();
    let store = server.store();
    join_all((0..200).map(|_| store.ping())).await;
    let clients: String = server.run(&["CLIENT", "LIST"]);
    assert_eq!(
        clients.lines().count(),
        2,
        "beside the one that asks:\n{clients}"
    );
    drop(store);
    eventually("it hangs up", || async {
        let clients: String = server.run(&["CLIENT", "LIST"]);
        clients.lines().count() == 1
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_made_again() {
    let server = RedisServer::start();
    let store = server.store();
    for _ in 0..3 {
        eventually("it is connected", || async { store.ping().await.is_ok() }).await;
        server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    eventually("it is connected again", || async {
        store.ping().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_a_refusal_that_tells_no_secret() {
    let server = RedisServer::start_with(&["--requirepass", "open sesame"]);
    for url in [
        server.url_as("", "hunter2"),
        server.url_as("bob", "hunter2"),
        server.url(),
    ] {
        let settings = settings(&url);
        let shown = format!("{settings:?}");
        let store = RedisStore::open(settings).unwrap();
        let failure = store.ping().await.unwrap_err();
        assert!(matches!(failure, StoreError::Rejected(_)), "{failure:?}");
        for text in [failure.to_string(), shown, format!("{store:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    let store = RedisStore::open(settings(&server.url_as("", "open%20sesame"))).unwrap();
    assert_eq!(store.ping().await, Ok(()));
}

#[tokio::test]
async fn a_server_without_tls_where_tls_is_asked_for_is_an_outage() {
    let server = RedisServer::start();
    let url = server.url().replace("redis://", "rediss://");
    let store = RedisStore::open(settings(&url)).unwrap();
    for _ in 0..3 {
        let failure = store.ping().await;
        assert!(
            matches!(
                failure,
                Err(StoreError::NotAsked(_) | StoreError::Rejected(_))
            ),
            "{failure:?}"
        );
        assert!(
            !format!("{failure:?}").contains("closed"),
            "nobody is trying any more"
        );
    }
}

#[tokio::test]
async fn a_wrong_database_is_a_refusal() {
    let server = RedisServer::start();
    let store = RedisStore::open(settings(&format!("{}/99", server.url()))).unwrap();
    let failure = store.ping().await;
    assert!(
        matches!(failure, Err(StoreError::Rejected(_))),
        "{failure:?}"
    );
}

#[tokio::test]
async fn what_may_not_be_asked_at_connecting_is_done_without() {
    let server = RedisServer::start();
    server.run::<String>(&[
        "ACL",
        "SETUSER",
        "gate",
        "on",
        ">secret",
        "~streamgate:*",
        "-@all",
        "+evalsha",
        "+eval",
        "+time",
        "+get",
        "+set",
        "+setrange",
        "+pexpire",
        "+del",
    ]);
    let store = RedisStore::open(settings(&server.url_as("gate", "secret"))).unwrap();
    assert!(is_started(&admit(&store, "alice", "a").await));
    let renewal = store
        .renew(&user("alice"), &sighting(&playback("a")), 3)
        .await;
    assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
    let released = store
        .release(
            &user("alice"),
            &playback("a"),
            Ending::Stream,
            Duration::ZERO,
        )
        .await;
    assert!(matches!(released, Ok(Released::Freed)));
    let elsewhere = RedisSettings {
        key_prefix: "elsewhere".to_owned(),
        ..settings(&server.url_as("gate", "secret"))
    };
    let failure = admit(&RedisStore::open(elsewhere).unwrap(), "alice", "a").await;
    assert!(
        matches!(failure, Err(StoreError::Rejected(_))),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_replica_refuses_and_the_master_it_becomes_does_not() {
    let master = RedisServer::start();
    let server = RedisServer::start();
    let store = server.store();
    assert!(is_started(&admit(&store, "alice", "a").await));
    let port = master.url().rsplit(':').next().unwrap().to_owned();
    server.run::<String>(&["REPLICAOF", "127.0.0.1", &port]);
    let failure = admit(&store, "alice", "b").await;
    assert!(
        matches!(failure, Err(StoreError::Rejected(_))),
        "{failure:?}"
    );
    server.run::<String>(&["REPLICAOF", "NO", "ONE"]);
    eventually("it is a master again", || async {
        admit(&store, "alice", "c").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn what_others_wrote_at_our_key_is_not_understood_and_not_touched() {
    let server = RedisServer::start();
    let store = server.store();
    let no_roster = "\u{81}".repeat(40);
    for write in [
        &["SET", "streamgate:{alice}", "hello"][..],
        &[
            "SET",
            "streamgate:{alice}",
            "a text that is longer than any head of ours",
        ],
        &["SET", "streamgate:{alice}", ""],
        &["SET", "streamgate:{alice}", &no_roster],
        &["HSET", "streamgate:{alice}", "a", "b"],
    ] {
        server.run::<i64>(&["DEL", "streamgate:{alice}"]);
        server.run::<redis::Value>(write);
        let before: Vec<u8> = server.run(&["DUMP", "streamgate:{alice}"]);
        for failure in [
            admit(&store, "alice", "a").await.err(),
            store
                .renew(&user("alice"), &sighting(&playback("a")), 3)
                .await
                .err(),
            store
                .release(
                    &user("alice"),
                    &playback("a"),
                    Ending::Stream,
                    Duration::ZERO,
                )
                .await
                .err(),
            store.list(&user("alice")).await.err().or_else(|| {
                // An empty string is what a reader sees where there is nothing.
                (write[2].is_empty()).then(|| StoreError::Protocol(String::new()))
            }),
        ] {
            assert!(
                matches!(failure, Some(StoreError::Protocol(_))),
                "{write:?}: {failure:?}"
            );
        }
        assert_eq!(
            server.run::<Vec<u8>>(&["DUMP", "streamgate:{alice}"]),
            before,
            "{write:?}"
        );
    }
    assert!(
        is_started(&admit(&store, "bob", "a").await),
        "others are not concerned"
    );
}

#[tokio::test]
async fn whatever_is_at_our_key_no_script_hangs_and_nothing_panics() {
    let server = RedisServer::start();
    let store = server.store();
    let own = RedisSettings {
        key_prefix: "own".to_owned(),
        ..server.settings()
    };
    let own = RedisStore::open(own).unwrap();
    for id in ["a", "b", "c"] {
        assert!(is_started(&admit(&own, "alice", id).await));
    }
    own.release(
        &user("alice"),
        &playback("a"),
        Ending::Operator,
        Duration::ZERO,
    )
    .await
    .unwrap();
    let roster: Vec<u8> = server.run(&["GET", "own:{alice}"]);
    let rules = StartRules::new(2, WhenFull::DisplaceIdlest);
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..1500 {
        let mut bytes = roster.clone();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        bytes.truncate(bytes.len() - random.random_range(0..bytes.len()) * (round % 2));
        server.query::<()>(
            redis::cmd("SET")
                .arg("streamgate:{alice}")
                .arg(&bytes)
                .arg("PX")
                .arg(60_000),
        );
        let (alice, a) = (user("alice"), playback("a"));
        let start = Start {
            facts: heavy("a").facts,
            ..start(&playback("d"))
        };
        let failures = [
            store.list(&alice).await.err(),
            store.renew(&alice, &sighting(&a), 3).await.err(),
            store.admit(&alice, &start, &rules).await.err(),
            end(&store, &alice, &playback("b")).await.err(),
            store.list(&alice).await.err(),
        ];
        for failure in failures.into_iter().flatten() {
            assert!(
                matches!(failure, StoreError::Protocol(_)),
                "{failure:?} at {bytes:?}"
            );
        }
    }
}

/// A stream says that it is over.
async fn end(store: &RedisStore, user: &UserId, key: &SessionKey) -> Result<Released, StoreError> {
    store
        .release(user, key, Ending::Stream, Duration::ZERO)
        .await
}

/// A start about which much is known, so that it takes memory.
fn heavy(id: &str) -> Start {
    let facts = Facts {
        device: DeviceId::parse(&"d".repeat(200)).ok(),
        content: ContentId::parse(&"c".repeat(200)).ok(),
        ..Facts::default()
    };
    Start {
        facts,
        ..lasting(&playback(id))
    }
}

/// Lets in as many users with a heavy session `a` as there is room for, and then takes away more room than that.
async fn fill(server: &RedisServer, store: &RedisStore) -> Vec<String> {
    let mut names = Vec::new();
    let refusal = loop {
        let name = format!("user {}", names.len());
        let admission = store.admit(&user(&name), &heavy("a"), &refusing(3)).await;
        match admission {
            Ok(_) => names.push(name),
            Err(error) => break error,
        }
        assert!(names.len() < 100_000, "it does not become full");
    };
    assert!(matches!(refusal, StoreError::Full(_)), "{refusal:?}");
    server.run::<String>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    names
}

/// How many bytes the server says it uses.
fn used_memory(server: &RedisServer) -> i64 {
    let info: String = server.run(&["INFO", "memory"]);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_full_server_refuses_starts_and_still_lets_renew_and_release() {
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    for (number, name) in names.iter().take(90).enumerate() {
        let user = user(name);
        let before = store.list(&user).await.unwrap().sessions;
        let known = sighting(&playback("a"));
        assert!(matches!(
            store.renew(&user, &known, 3).await,
            Ok(Renewal::Renewed { .. })
        ));
        let again = store.admit(&user, &heavy("a"), &refusing(3)).await;
        assert!(matches!(again, Ok(Admission::Admitted(_))), "{again:?}");
        let next = store.admit(&user, &heavy("b"), &refusing(3)).await;
        assert!(matches!(next, Err(StoreError::Full(_))), "{next:?}");
        let taken = store
            .admit(
                &user,
                &heavy("b"),
                &StartRules::new(1, WhenFull::DisplaceOldest),
            )
            .await;
        assert!(matches!(taken, Err(StoreError::Full(_))), "{taken:?}");
        let after = store.list(&user).await.unwrap().sessions;
        assert_eq!(after.len(), 1);
        assert_eq!(
            after[0].facts, before[0].facts,
            "a start that is refused changes nothing"
        );
        let released = match number % 3 {
            0 => {
                store
                    .release(&user, &playback("a"), Ending::Stream, Duration::ZERO)
                    .await
            }
            1 => {
                store
                    .release(&user, &playback("a"), Ending::Operator, Duration::ZERO)
                    .await
            }
            _ => {
                store
                    .release(&user, &playback("a"), Ending::Vouched, Duration::ZERO)
                    .await
            }
        };
        assert!(matches!(released, Ok(Released::Freed)), "{released:?}");
        assert_eq!(active(&store, name).await, 0);
        let ended = store.admit(&user, &heavy("a"), &refusing(3)).await;
        assert!(
            matches!(ended, Ok(Admission::Refused(Refusal::Ended(..)))),
            "{ended:?}"
        );
        let seen = store.renew(&user, &sighting(&playback("seen")), 3).await;
        assert!(matches!(seen, Err(StoreError::Full(_))), "{seen:?}");
        let left: i64 = server.run(&["PTTL", &format!("streamgate:{{{name}}}")]);
        assert!(left > 0, "a key without an end");
    }
}

#[tokio::test]
async fn a_full_server_grows_by_nothing_that_it_is_told() {
    const STRANGERS: usize = 2000;
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    let (keys, used) = (server.run::<usize>(&["DBSIZE"]), used_memory(&server));
    for number in 0..STRANGERS {
        let ending = [Ending::Stream, Ending::Operator, Ending::Vouched][number % 3];
        let strange = playback(&format!("a stranger, number {number}"));
        // Some are strangers to a user who is there, the others' users are strangers too.
        for name in [&names[number % names.len()], &format!("nobody {number}")] {
            let released = store
                .release(&user(name), &strange, ending, Duration::ZERO)
                .await;
            assert_eq!(released, Ok(Released::NotLive));
            let seen = store.renew(&user(name), &sighting(&strange), 3).await;
            assert!(matches!(seen, Err(StoreError::Full(_))), "{seen:?}");
        }
    }
    assert_eq!(server.run::<usize>(&["DBSIZE"]), keys);
    let grown = used_memory(&server) - used;
    assert!(grown < 100_000, "grown by {grown} bytes");

    for name in &names {
        let renewal = store.renew(&user(name), &sighting(&playback("a")), 3).await;
        assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
        let released = store
            .release(&user(name), &playback("a"), Ending::Stream, Duration::ZERO)
            .await;
        assert!(matches!(released, Ok(Released::Freed)), "{released:?}");
        assert_eq!(active(&store, name).await, 0);
    }
    assert_eq!(server.run::<usize>(&["DBSIZE"]), keys);
    let grown = used_memory(&server) - used;
    assert!(grown < 0, "grown by {grown} bytes");
}

#[tokio::test]
async fn a_full_server_takes_over_what_is_newly_known_as_far_as_it_takes_no_more_room() {
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    let (alice, old) = (user(&names[0]), heavy("a"));
    let known = |content: &str| Start {
        facts: Facts {
            content: ContentId::parse(content).ok(),
            ..old.facts.clone()
        },
        ..old.clone()
    };
    let (longer, shorter) = (known(&"x".repeat(201)), known("x"));
    for (asked, kept) in [(&longer, &old), (&shorter, &shorter), (&old, &shorter)] {
        let before = store.list(&alice).await.unwrap().sessions[0].expires_at;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let again = store.admit(&alice, asked, &refusing(3)).await;
        let Ok(Admission::Admitted(again)) = again else {
            panic!("{again:?}");
        };
        assert_eq!(again.entry, AdmissionKind::Renewed);
        let session = &store.list(&alice).await.unwrap().sessions[0];
        assert_eq!(session.facts, kept.facts);
        assert_eq!(again.session, *session);
        assert!(session.expires_at > before);
    }
}

#[tokio::test]
async fn fifty_starts_at_once_from_two_gateways_fill_the_slots_exactly_a_thousand_times() {
    let server = RedisServer::start();
    let gateways = [server.store(), server.store()];
    let wrong = AtomicUsize::new(0);
    stream::iter(0..1000)
        .for_each_concurrent(4, |round| {
            let (gateways, wrong) = (&gateways, &wrong);
            async move {
                let name = format!("user {round}");
                let starts = (0..50).map(|number| {
                    let (name, gateway) = (&name, &gateways[number % 2]);
                    async move { admit(gateway, name, &number.to_string()).await }
                });
                let admissions = join_all(starts).await;
                let mut counted = HashMap::new();
                for admission in &admissions {
                    let is_full = matches!(admission, Ok(Admission::Refused(Refusal::Full { .. })));
                    *counted.entry((is_started(admission), is_full)).or_insert(0) += 1;
                }
                let expected = HashMap::from([((true, false), 3), ((false, true), 47)]);
                if counted != expected || active(&gateways[round % 2], &name).await != 3 {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .await;
    assert_eq!(
        wrong.into_inner(),
        0,
        "rounds in which not exactly three were let in"
    );
}

/// A sighting of that playback of that user.
fn seen(name: &str, id: &str) -> Seen {
    Seen {
        user: user(name),
        sighting: sighting(&playback(id)),
        limit: 3,
    }
}

/// How many calls of scripts the server has had.
fn script_calls(server: &RedisServer) -> usize {
    let report: String = server.run(&["INFO", "commandstats"]);
    let calls = report.lines().find_map(|line| {
        let fields = line.strip_prefix("cmdstat_evalsha:calls=")?;
        fields.split(',').next()?.parse().ok()
    });
    calls.unwrap_or(0)
}

#[tokio::test]
async fn sixty_four_renewals_are_two_calls() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let store = server.store().with_clock(clock.clone());
    let all: Vec<_> = (0..64)
        .map(|number| seen(&format!("user {}", number % 40), &format!("p{number}")))
        .collect();
    for seen in &all {
        let renewal = store.renew(&seen.user, &seen.sighting, 3).await;
        assert!(matches!(renewal, Ok(Renewal::PutBack { .. })));
    }
    clock.advance(LEASE / 2);
    let before = script_calls(&server);
    let renewals = store.renew_all(&all).await;
    assert_eq!(script_calls(&server) - before, 2);
    let expires_at = clock.now().after(LEASE);
    assert_eq!(renewals, vec![Ok(Renewal::Renewed { expires_at }); 64]);
    for seen in &all {
        for session in store.list(&seen.user).await.unwrap().sessions {
            assert_eq!(session.expires_at, expires_at);
            assert_eq!(session.renewed_at, clock.now());
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_one_of_many_is_no_other_ones_concern() {
    let server = RedisServer::start();
    let store = server.store();
    for name in ["alice", "bob"] {
        assert!(is_started(&admit(&store, name, "a").await));
    }
    let long = "\u{82}".repeat(40);
    server.run::<String>(&["SET", "streamgate:{text}", &long]);
    server.run::<i64>(&["HSET", "streamgate:{hash}", "a", "b"]);
    let names = ["alice", "text", "nobody", "hash", "bob"];
    let renewals = store.renew_all(&names.map(|name| seen(name, "a"))).await;
    assert!(matches!(renewals[0], Ok(Renewal::Renewed { .. })));
    assert!(matches!(renewals[1], Err(StoreError::Protocol(_))));
    assert!(matches!(renewals[2], Ok(Renewal::PutBack { .. })));
    assert!(matches!(renewals[3], Err(StoreError::Protocol(_))));
    assert!(matches!(renewals[4], Ok(Renewal::Renewed { .. })));
}

#[tokio::test]
async fn where_nobody_answers_all_of_many_get_the_same_error_within_one_deadline() {
    let server = RedisServer::start();
    let store = hasty(&server);
    eventually("it is connected", || async { store.ping().await.is_ok() }).await;
    let all: Vec<_> = (0..100).map(|n| seen(&n.to_string(), "a")).collect();
    server.pause();
    let waited = Stopwatch::start();
    let renewals = store.renew_all(&all).await;
    assert!(waited.elapsed() < DEADLINE * 2);
    assert_eq!(renewals, vec![Err(StoreError::Timeout(DEADLINE)); 100]);
    server.resume();
}

#[tokio::test]
async fn a_full_server_renews_many_at_once_too() {
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    let all: Vec<_> = names.iter().take(100).map(|name| seen(name, "a")).collect();
    for renewal in store.renew_all(&all).await {
        assert!(
            matches!(renewal, Ok(Renewal::Renewed { .. })),
            "{renewal:?}"
        );
    }
}

/// The name that is kept as these bytes, three to four characters.
fn name_kept_as(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let four = |three: &[u8]| {
        let bits = three
            .iter()
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(alphabet[bits >> shift & 63]))
    };
    bytes.chunks_exact(3).flat_map(four).collect()
}

#[tokio::test]
async fn a_name_that_is_kept_as_a_session_would_be_is_none() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let store = server.store().with_clock(clock.clone());
    let alice = user("alice");
    let time = |millis: u64| millis.to_be_bytes()[2..].to_vec();
    let victim = "V".repeat(44);
    let kept_key = [&[2 | 32, 32][..], &[0x55; 33]].concat();
    let kept = async || server.run::<Vec<u8>>(&["GET", "streamgate:{alice}"]);
    for trap in 0..3 {
        for is_watching in [false, true] {
            server.run::<String>(&["FLUSHALL"]);
            assert!(is_started(&admit(&store, "alice", "other").await));
            // As a record begins: its length, an end that is to come, a sign of life that is past, and the key of a playback.
            let now = clock.now().as_millis();
            let forged = [
                &[0, 0, 0, 99][..],
                &time(now + 9_000),
                &time(now),
                &kept_key,
            ]
            .concat();
            let forged = name_kept_as(&forged);
            // It is a live session's device, or the name of one that has ended. Or a tombstone begins as a record does: its end,
            // its own tag and length and four letters, and the rest of its name.
            let (id, device) = match trap {
                0 => (playback("trap"), DeviceId::parse(&forged).ok()),
                1 => (playback(&forged), None),
                _ => {
                    let name = format!("abcd\" {}", "U".repeat(33));
                    (key(Kind::Request, &name), None)
                }
            };
            let facts = Facts {
                device,
                ..Facts::default()
            };
            let start = Start {
                facts,
                ..start(&id)
            };
            let admission = store.admit(&alice, &start, &refusing(3)).await;
            assert!(is_started(&admission));
            if trap > 0 {
                let released = end(&store, &alice, &id).await;
                assert!(matches!(released, Ok(Released::Freed)));
            }
            clock.advance(LEASE / 6);
            let is_set = |roster: &[u8]| roster.windows(35).any(|bytes| bytes == kept_key);
            assert!(is_set(&kept().await), "the trap is set");
            if is_watching {
                assert!(is_started(&admit(&store, "alice", &victim).await));
            }
            let before = store.list(&alice).await.unwrap().sessions;
            let renewal = store.renew_all(&[seen("alice", &victim)]).await.remove(0);
            assert_eq!(matches!(renewal, Ok(Renewal::Renewed { .. })), is_watching);
            assert_eq!(matches!(renewal, Ok(Renewal::PutBack { .. })), !is_watching);
            let after = store.list(&alice).await.unwrap().sessions;
            let others = before.len() - usize::from(is_watching);
            assert_eq!(after[..others], before[..others], "others are as they were");
            assert_eq!(after.len(), others + 1);
        }
    }
}
