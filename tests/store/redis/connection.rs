//! A server that is away, slow, or does not want us.

use std::time::Duration;

use futures_util::future::join_all;
use streamgate::clock::Stopwatch;
use streamgate::session::{Ending, Released, Renewal};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Shard, Store, StoreError};

use testkit::redis::{RedisServer, settings};
use testkit::streams::{playback, sighting, user};
use testkit::watch::eventually;

use super::{DEADLINE, active, admit, hasty, is_started};

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
    eventually("it is connected", || async {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
    assert!(is_started(&admit(&store, "alice", "a").await));
    server.pause();
    let waited = Stopwatch::start();
    assert_eq!(
        store.ping(&Shard::whole()).await,
        Err(StoreError::Timeout(DEADLINE))
    );
    assert!(
        waited.elapsed() < DEADLINE * 10,
        "waited {:?}",
        waited.elapsed()
    );
    eventually("it is known to stand still", || async {
        matches!(
            store.ping(&Shard::whole()).await,
            Err(StoreError::NotAsked(_))
        )
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
    eventually("it goes on", || async {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
    assert_eq!(active(&store, "alice").await, 1);
}

#[tokio::test]
async fn a_server_that_stood_still_for_long_is_found_again() {
    let server = RedisServer::start();
    let store = hasty(&server);
    eventually("it is connected", || async {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
    server.pause();
    assert!(store.ping(&Shard::whole()).await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(matches!(
        store.ping(&Shard::whole()).await,
        Err(StoreError::NotAsked(_))
    ));
    server.resume();
    eventually("it goes on", || async {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
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
            let failure = store.ping(&Shard::whole()).await;
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
        eventually("it is back", || async {
            store.ping(&Shard::whole()).await.is_ok()
        })
        .await;
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
        matches!(
            store.ping(&Shard::whole()).await,
            Err(StoreError::NotAsked(_))
        )
    })
    .await;
    server.restart();
    eventually("it comes", || async {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
    assert!(is_started(&admit(&store, "alice", "a").await));
}

#[tokio::test]
async fn the_first_call_waits_for_the_connection() {
    let server = RedisServer::start();
    assert_eq!(server.store().ping(&Shard::whole()).await, Ok(()));
}

#[tokio::test]
async fn however_many_wait_one_store_makes_one_connection() {
    let server = RedisServer::start();
    let store = server.store();
    let whole = Shard::whole();
    join_all((0..200).map(|_| store.ping(&whole))).await;
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
        eventually("it is connected", || async {
            store.ping(&Shard::whole()).await.is_ok()
        })
        .await;
        server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    eventually("it is connected again", || async {
        store.ping(&Shard::whole()).await.is_ok()
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
        let failure = store.ping(&Shard::whole()).await.unwrap_err();
        assert!(matches!(failure, StoreError::Rejected(_)), "{failure:?}");
        for text in [failure.to_string(), shown, format!("{store:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    let store = RedisStore::open(settings(&server.url_as("", "open%20sesame"))).unwrap();
    assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
}

#[tokio::test]
async fn a_server_without_tls_where_tls_is_asked_for_is_an_outage() {
    let server = RedisServer::start();
    let url = server.url().replace("redis://", "rediss://");
    let store = RedisStore::open(settings(&url)).unwrap();
    for _ in 0..3 {
        let failure = store.ping(&Shard::whole()).await;
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
    let failure = store.ping(&Shard::whole()).await;
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
