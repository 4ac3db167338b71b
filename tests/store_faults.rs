//! Each fault that a Redis, or the way to it, can have: what the store says of it, what it does meanwhile, and that it goes on by itself.

use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use streamgate::clock::Stopwatch;
use streamgate::session::{Admission, Ending, Released, Renewal};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::unconstrained;
use tokio_util::task::AbortOnDropHandle;

use crate::support::eventually;
use crate::support::log::{Log, listen_with};
use crate::support::port::ReservedPort;
use crate::support::proxy::Proxy;
use crate::support::redis::{RedisServer, run_as, settings};
use crate::support::streams::{playback, refusing, sighting, start, user};

/// A deadline that is short for a person and long for a busy machine.
const DEADLINE: Duration = Duration::from_millis(300);

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many calls the store lets wait for answers at once.
const MOST_WAITING: usize = 4096;

/// A store there with patience enough for a busy machine.
fn store_at(url: &str) -> RedisStore {
    RedisStore::open(settings(url)).unwrap()
}

/// A store there that gives up after that time.
fn store_within(timeout: Duration, url: &str) -> RedisStore {
    let settings = RedisSettings {
        timeout,
        ..settings(url)
    };
    RedisStore::open(settings).unwrap()
}

async fn admit(store: &RedisStore, id: &str) -> Result<Admission, StoreError> {
    let (alice, start) = (user("alice"), start(&playback(id)));
    store.admit(&alice, &start, &refusing(3)).await
}

async fn renew(store: &RedisStore, id: &str) -> Result<Renewal, StoreError> {
    let seen = sighting(&playback(id));
    store.renew(&user("alice"), &seen, 3).await
}

async fn release(store: &RedisStore, id: &str) -> Result<Released, StoreError> {
    let session = playback(id);
    store
        .release(&user("alice"), &session, Ending::Stream, Duration::ZERO)
        .await
}

/// Waits until the store answers.
async fn recovers(store: &RedisStore) {
    eventually("it recovers", || async { store.ping().await.is_ok() }).await;
    eventually("it lets start", || async {
        let admission = admit(store, "after all").await;
        matches!(admission, Ok(Admission::Admitted(_)))
    })
    .await;
}

/// Every operation is refused, and each text holds all those words.
async fn refuses(store: &RedisStore, words: &[&str]) {
    for failure in [
        store.ping().await.err(),
        admit(store, "refused").await.err(),
    ] {
        let failure = failure.expect("it is refused");
        assert!(matches!(failure, StoreError::Rejected(_)), "{failure:?}");
        says(&failure, words);
    }
}

/// The text holds all those words.
fn says(failure: &StoreError, words: &[&str]) {
    let text = failure.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[tokio::test]
async fn a_closed_port_is_not_asked_and_says_why() {
    let nobody = ReservedPort::new();
    let store = store_at(&format!("redis://{}", nobody.address()));
    // The first attempt is waited for.
    for failure in [
        admit(&store, "a").await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert!(matches!(failure, StoreError::NotAsked(_)), "{failure:?}");
        assert!(!failure.outcome_is_unknown());
        says(&failure, &["refused"]);
    }
}

#[tokio::test]
async fn a_first_attempt_that_outlasts_the_deadline_leaves_nothing_to_undo() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    proxy.stall();
    let store = store_within(DEADLINE / 3, &proxy.url());
    let failure = admit(&store, "a").await.unwrap_err();
    assert!(matches!(failure, StoreError::NotAsked(_)), "{failure:?}");
    says(&failure, &["still connecting"]);
    proxy.restore();
    recovers(&store).await;
    let listing = server.store().list(&user("alice")).await.unwrap();
    assert_eq!(listing.sessions.len(), 1, "what was not asked has happened");
}

#[tokio::test]
async fn a_server_that_stands_still_is_asked_once_and_then_not_at_all() {
    let server = RedisServer::start();
    let store = store_within(DEADLINE, &server.url());
    recovers(&store).await;
    server.pause();
    let failure = admit(&store, "a").await.unwrap_err();
    assert_eq!(failure, StoreError::Timeout(DEADLINE));
    assert!(failure.outcome_is_unknown());
    eventually("it is known to stand still", || async {
        matches!(admit(&store, "b").await, Err(StoreError::NotAsked(_)))
    })
    .await;
    let (waited, mut failures) = (Stopwatch::start(), Vec::new());
    for _ in 0..1000 {
        failures.push(admit(&store, "c").await.unwrap_err());
    }
    assert!(
        waited.elapsed() < DEADLINE * 10,
        "waited {:?}",
        waited.elapsed()
    );
    for failure in &failures {
        assert!(matches!(failure, StoreError::NotAsked(_)), "{failure:?}");
        says(failure, &["does not answer"]);
    }
    server.resume();
    recovers(&store).await;
}

#[tokio::test]
async fn a_wire_that_stalls_is_noticed_and_used_again() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let store = store_within(DEADLINE, &proxy.url());
    recovers(&store).await;
    proxy.stall();
    assert_eq!(admit(&store, "a").await, Err(StoreError::Timeout(DEADLINE)));
    eventually("it is known to be silent", || async {
        matches!(store.ping().await, Err(StoreError::NotAsked(_)))
    })
    .await;
    // Nor is the next one any better, which is accepted and as silent.
    proxy.has_accepted(2).await;
    assert!(matches!(store.ping().await, Err(StoreError::NotAsked(_))));
    proxy.restore();
    recovers(&store).await;
}

#[tokio::test]
async fn a_call_that_was_sent_and_broke_is_told_from_one_that_was_not() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let store = store_at(&proxy.url());
    recovers(&store).await;
    proxy.stall();
    let mut sent = pin!(admit(&store, "a"));
    assert!(poll_immediate(&mut sent).await.is_none());
    proxy.cut();
    let failure = sent.await.unwrap_err();
    assert!(
        matches!(failure, StoreError::Disconnected(_)),
        "{failure:?}"
    );
    assert!(failure.outcome_is_unknown());
    eventually("it is known to be cut", || async {
        matches!(admit(&store, "b").await, Err(StoreError::NotAsked(_)))
    })
    .await;
    proxy.restore();
    recovers(&store).await;
}

#[tokio::test]
async fn a_slow_wire_costs_its_delay_as_long_as_the_deadline_allows() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let store = store_at(&proxy.url());
    recovers(&store).await;
    let delay = Duration::from_millis(100);
    proxy.slow(delay);
    let waited = Stopwatch::start();
    assert_eq!(store.ping().await, Ok(()));
    assert!(waited.elapsed() >= delay);
    let hasty = store_within(delay / 2, &proxy.url());
    eventually("it is connected", || async {
        hasty.ping().await == Err(StoreError::Timeout(delay / 2))
    })
    .await;
    proxy.restore();
    recovers(&hasty).await;
}

/// How often a script was called by its digest, as the server counts.
fn calls(server: &RedisServer) -> usize {
    let stats: String = server.run(&["INFO", "commandstats"]);
    let evalsha = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let number = evalsha.and_then(|rest| rest.split(',').next());
    number.map_or(0, |number| number.parse().unwrap())
}

#[tokio::test]
async fn so_many_calls_wait_and_the_next_fails_at_once() {
    let server = RedisServer::start();
    let store = RedisStore::open(RedisSettings {
        timeout: Duration::from_secs(60),
        ..server.settings()
    })
    .unwrap();
    assert_eq!(store.ping().await, Ok(()));
    let before = calls(&server);
    server.pause();
    let (alice, more) = (user("alice"), async || {
        let failure = admit(&store, "one more").await.unwrap_err();
        assert!(matches!(failure, StoreError::NotAsked(_)), "{failure:?}");
        failure
    });
    let lists = (0..MOST_WAITING).map(|_| store.list(&alice));
    let mut waiting = pin!(unconstrained(join_all(lists)));
    assert!(poll_immediate(&mut waiting).await.is_none());
    says(
        &more().await,
        &["4096 calls are already waiting for answers"],
    );
    for _ in 0..10_000 {
        more().await;
    }
    server.resume();
    for answer in waiting.await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    recovers(&store).await;
    // Those, and what showed that all is well.
    let calls = calls(&server) - before;
    assert!(
        (MOST_WAITING + 2..MOST_WAITING + 100).contains(&calls),
        "{calls} calls"
    );
}

#[tokio::test]
async fn calls_that_were_given_up_count_until_they_are_answered() {
    let server = RedisServer::start();
    let store = server.store();
    assert_eq!(store.ping().await, Ok(()));
    server.pause();
    let (alice, mut unmade) = (user("alice"), 0);
    for _ in 0..2 * MOST_WAITING {
        // Handed over, and given up.
        match poll_immediate(unconstrained(store.list(&alice))).await {
            None => {}
            Some(Err(StoreError::NotAsked(_))) => unmade += 1,
            Some(answer) => panic!("{answer:?}"),
        }
    }
    assert_eq!(unmade, MOST_WAITING);
    server.resume();
    recovers(&store).await;
}

#[tokio::test]
async fn a_cut_wire_is_tried_again_ever_more_rarely_however_many_ask() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let store = store_at(&proxy.url());
    recovers(&store).await;
    let first = proxy.accepted();
    proxy.cut();
    let waited = Stopwatch::start();
    let asking = async {
        loop {
            join_all((0..100).map(|_| store.ping())).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = proxy.has_accepted(first + 8) => {}
    }
    // The first at once, then after at the least 25, 50, 100, 200, 400, 500 and 500 ms.
    assert!(
        waited.elapsed() > Duration::from_millis(1500),
        "eight attempts within {:?}",
        waited.elapsed()
    );
    proxy.restore();
    recovers(&store).await;
    let attempts = proxy.accepted() - first;
    assert!((9..13).contains(&attempts), "{attempts} attempts");
}

#[tokio::test]
async fn a_server_that_answers_and_then_hangs_up_is_tried_ever_more_rarely() {
    let server = RedisServer::start();
    let store = server.store();
    let waited = Stopwatch::start();
    for _ in 0..7 {
        eventually("it is connected", || async { store.ping().await.is_ok() }).await;
        server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    recovers(&store).await;
    // The first at once, then after at the least 25, 50, 100, 200, 400 and 500 ms.
    assert!(
        waited.elapsed() > Duration::from_millis(1200),
        "seven times within {:?}",
        waited.elapsed()
    );
}

#[tokio::test]
async fn a_full_server_refuses_starts_and_passes_the_probe() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
    let store = server.store();
    assert!(admit(&store, "a").await.is_ok());
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let failure = admit(&store, "b").await.unwrap_err();
    assert!(matches!(failure, StoreError::Full(_)), "{failure:?}");
    says(&failure, &["OOM", "raise its maxmemory"]);
    assert_eq!(store.ping().await, Ok(()));
    let renewal = renew(&store, "a").await;
    assert!(
        matches!(renewal, Ok(Renewal::Renewed { .. })),
        "{renewal:?}"
    );
    let released = release(&store, "a").await;
    assert!(matches!(released, Ok(Released::Freed(_))), "{released:?}");
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    recovers(&store).await;
}

#[tokio::test]
async fn a_server_that_evicts_is_warned_of_once_for_each_policy() {
    const WARNING: &str = "set maxmemory-policy to noeviction";
    let (log, _guard) = Log::listen();
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let proxy = Proxy::before(server.port()).await;
    let store = store_at(&proxy.url());
    for (policy, warnings) in [
        ("allkeys-lru", 1),
        ("allkeys-lru", 1),
        ("allkeys-lfu", 2),
        ("noeviction", 2),
        ("allkeys-lfu", 3),
    ] {
        server.run::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]);
        proxy.cut();
        eventually("it is cut", || async { store.ping().await.is_err() }).await;
        proxy.restore();
        // The policy is looked at before a connection is used.
        recovers(&store).await;
        assert_eq!(log.counts(WARNING), warnings, "{policy}");
    }
}

#[tokio::test]
async fn connections_that_are_lost_at_once_are_an_outage_and_logged_rarely() {
    const LOST: usize = 5;
    let (log, _guard) = Log::listen();
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let store = store_within(DEADLINE, &proxy.url());
    let losses = async {
        for connection in 1..=LOST {
            proxy.has_accepted(connection).await;
            eventually("it is connected", async || store.server().is_some()).await;
            proxy.moves_to(Ipv4Addr::LOCALHOST);
        }
    };
    let outage = tokio::time::timeout(PATIENCE, store.outage());
    let (outage, ()) = tokio::join!(outage, losses);
    says(&outage.unwrap(), &["no connection"]);
    // Each of them is told where connections last for a second.
    for line in ["connected to Redis", "lost the connection to Redis"] {
        let times = log.counts(line);
        assert!((1..LOST).contains(&times), "{line}: {times} times");
    }
    let before = log.counts("connected to Redis");
    recovers(&store).await;
    eventually("the connection that lasts is logged", async || {
        log.counts("connected to Redis") > before
    })
    .await;
}

/// A log that panics when the first connection is told of.
#[derive(Clone, Default)]
struct Broken(Arc<AtomicBool>);

impl io::Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let connected = String::from_utf8_lossy(bytes).contains("connected to Redis");
        assert!(
            !connected || self.0.swap(true, Ordering::Relaxed),
            "for the test's sake"
        );
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_in_what_looks_after_the_connection_is_no_end() {
    let broken = Broken::default();
    let _guard = listen_with(broken.clone());
    let server = RedisServer::start();
    let store = server.store();
    let failure = store.ping().await.unwrap_err();
    says(&failure, &["a bug in the connection's task"]);
    recovers(&store).await;
    assert!(broken.0.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_replica_refuses_and_says_where_to_go() {
    let server = RedisServer::start_with(&["--replicaof", "127.0.0.1 1"]);
    let store = server.store();
    let words = [
        "READONLY",
        "this is a replica",
        "point store.redis.urls at the master",
    ];
    refuses(&store, &words).await;
    server.run::<()>(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let words = ["MASTERDOWN", "point store.redis.urls at the master"];
    eventually("the replica says that it is lost", || async {
        let failure = store.ping().await.unwrap_err();
        failure.to_string().contains(words[0])
    })
    .await;
    refuses(&store, &words).await;
    server.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    recovers(&store).await;
}

#[tokio::test]
async fn a_loading_server_refuses_until_it_has_loaded() {
    let server = RedisServer::start_with(&["--rdbcompression", "no"]);
    // It looks after others once in two megabytes: so much is each of forty keys that take a quarter of a second.
    for key in 0..40 {
        server.run::<()>(&["SETRANGE", &format!("big {key}"), "2100000", "x"]);
    }
    server.run::<()>(&["SAVE"]);
    server.stop();
    server.restart_with(&["--key-load-delay", "250000"]);
    let store = server.store();
    refuses(&store, &["LOADING", "once it has loaded"]).await;
    server.run::<()>(&["CONFIG", "SET", "key-load-delay", "0"]);
    recovers(&store).await;
    let keys: usize = server.run(&["DBSIZE"]);
    assert_eq!(keys, 41);
}

#[tokio::test]
async fn a_server_that_cannot_save_refuses_until_it_need_not() {
    let server = RedisServer::start_with(&["--dir", "/proc", "--save", "3600 1"]);
    let store = server.store();
    recovers(&store).await;
    let _: redis::Value = server.run(&["BGSAVE"]);
    eventually("it has failed to save", || async {
        store.ping().await.is_err()
    })
    .await;
    refuses(&store, &["MISCONF", "stop-writes-on-bgsave-error"]).await;
    let listing = store.list(&user("alice")).await.unwrap();
    assert_eq!(listing.sessions.len(), 1, "what it has can still be read");
    let other = server.store();
    refuses(&other, &["MISCONF"]).await;
    server.run::<()>(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    recovers(&store).await;
}

#[tokio::test]
async fn a_wrong_password_refuses_until_the_server_has_the_right_one() {
    let server = RedisServer::start_with(&["--requirepass", "open sesame"]);
    let wrong = store_at(&server.url_as("", "hunter2"));
    let none = store_at(&server.url());
    let words = ["WRONGPASS", "check user:password@ in store.redis.urls"];
    refuses(&wrong, &words).await;
    refuses(&none, &["NOAUTH", "user:password@"]).await;
    for store in [&wrong, &none] {
        let text = store.ping().await.unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }
    let set = ["CONFIG", "SET", "requirepass", "hunter2"];
    run_as(&server.url_as("", "open%20sesame"), &set);
    recovers(&wrong).await;
    let set = ["CONFIG", "SET", "requirepass", ""];
    run_as(&server.url_as("", "hunter2"), &set);
    recovers(&none).await;
}

#[tokio::test]
async fn a_right_that_is_missing_fails_the_probe_until_it_is_given() {
    const RIGHTS: [&str; 8] = [
        "+evalsha",
        "+eval",
        "+time",
        "+get",
        "+set",
        "+setrange",
        "+pexpire",
        "+del",
    ];
    let server = RedisServer::start();
    let grant = |rights: &[&str]| {
        let who = ["ACL", "SETUSER", "gate", "on", ">secret"];
        server.run::<()>(&[&who, rights].concat());
    };
    grant(&["~streamgate:*", "-@all"]);
    grant(&RIGHTS);
    let store = store_at(&server.url_as("gate", "secret"));
    recovers(&store).await;
    let takings = RIGHTS.map(|right| right.replace('+', "-"));
    let takings = takings.iter().map(String::as_str);
    // What is known by its digest need not be sent.
    let takings = takings.filter(|taken| *taken != "-eval");
    for taken in takings.chain(["resetkeys"]) {
        grant(&[taken]);
        let failure = store.ping().await.unwrap_err();
        assert!(
            matches!(failure, StoreError::Rejected(_)),
            "{taken}: {failure:?}"
        );
        says(&failure, &["the ACL must allow EVALSHA, EVAL, TIME"]);
        grant(&RIGHTS);
        grant(&["~streamgate:*"]);
        assert_eq!(store.ping().await, Ok(()), "{taken}");
    }
}

#[tokio::test]
async fn the_probe_changes_nothing() {
    let server = RedisServer::start();
    let store = server.store();
    for _ in 0..3 {
        assert_eq!(store.ping().await, Ok(()));
    }
    assert_eq!(server.run::<usize>(&["DBSIZE"]), 0);
    let info: String = server.run(&["INFO", "persistence"]);
    let unsaved = info.contains("rdb_changes_since_last_save:0\r\n");
    assert!(unsaved, "{info}");
    assert!(calls(&server) > 2);
}

#[tokio::test]
async fn a_wrong_database_refuses_and_says_where_to_look() {
    let server = RedisServer::start();
    let store = store_at(&format!("{}/99", server.url()));
    let words = [
        "DB index is out of range",
        "check the end of the URL in store.redis.urls",
    ];
    refuses(&store, &words).await;
}

#[tokio::test]
async fn a_cluster_refuses_and_says_that_it_is_one() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    refuses(&server.store(), &["CLUSTERDOWN", "CLUSTER INFO"]).await;
    let store = store_at(&format!("{}/1", server.url()));
    refuses(&store, &["a cluster has only database 0"]).await;
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the task is aborted with the test"
)]
async fn what_is_no_redis_refuses_and_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    }));
    let words = ["no Redis is listening there", "check store.redis.urls"];
    refuses(&store_at(&url), &words).await;
}
