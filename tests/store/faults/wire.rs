//! The way to the server: closed, stalled, slow, cut.

use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use streamgate::clock::Stopwatch;
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Shard, Store, StoreError};
use tokio::task::unconstrained;

use testkit::log::{Log, listen_with};
use testkit::port::ReservedPort;
use testkit::proxy::Proxy;
use testkit::redis::RedisServer;
use testkit::streams::user;
use testkit::watch::{PATIENCE, eventually};

use super::{DEADLINE, MOST_WAITING, admit, calls, recovers, says, store_at, store_within};

#[tokio::test]
async fn a_closed_port_is_not_asked_and_says_why() {
    let nobody = ReservedPort::reserve();
    let store = store_at(&format!("redis://{}", nobody.address()));
    // The first attempt is waited for.
    for failure in [
        admit(&store, "a").await.unwrap_err(),
        store.ping(&Shard::whole()).await.unwrap_err(),
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
        matches!(
            store.ping(&Shard::whole()).await,
            Err(StoreError::NotAsked(_))
        )
    })
    .await;
    // Nor is the next one any better, which is accepted and as silent.
    proxy.has_accepted(2).await;
    assert!(matches!(
        store.ping(&Shard::whole()).await,
        Err(StoreError::NotAsked(_))
    ));
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
    assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
    assert!(waited.elapsed() >= delay);
    let hasty = store_within(delay / 2, &proxy.url());
    eventually("it is connected", || async {
        hasty.ping(&Shard::whole()).await == Err(StoreError::Timeout(delay / 2))
    })
    .await;
    proxy.restore();
    recovers(&hasty).await;
}

#[tokio::test]
async fn so_many_calls_wait_and_the_next_fails_at_once() {
    let server = RedisServer::start();
    let store = RedisStore::open(RedisSettings {
        timeout: Duration::from_secs(60),
        ..server.settings()
    })
    .unwrap();
    assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
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
    assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
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
            let whole = Shard::whole();
            join_all((0..100).map(|_| store.ping(&whole))).await;
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
        eventually("it is connected", || async {
            store.ping(&Shard::whole()).await.is_ok()
        })
        .await;
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
async fn connections_that_are_lost_at_once_are_an_outage_and_logged_rarely() {
    const LOST: usize = 5;
    let (log, _guard) = Log::listen();
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let store = store_within(DEADLINE, &proxy.url());
    let losses = async {
        for connection in 1..=LOST {
            proxy.has_accepted(connection).await;
            eventually("it is connected", async || {
                store.server(&Shard::whole()).is_some()
            })
            .await;
            proxy.moves_to(Ipv4Addr::LOCALHOST);
        }
    };
    let whole = Shard::whole();
    let outage = tokio::time::timeout(PATIENCE, store.outage(&whole));
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
    let failure = store.ping(&Shard::whole()).await.unwrap_err();
    says(&failure, &["a bug in the connection's task"]);
    recovers(&store).await;
    assert!(broken.0.load(Ordering::Relaxed));
}
