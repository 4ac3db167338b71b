//! A server that answers and refuses.

use streamgate::session::{Released, Renewal};
use streamgate::store::{Shard, Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use testkit::log::Log;
use testkit::proxy::Proxy;
use testkit::redis::{RedisServer, run_as};
use testkit::streams::user;
use testkit::watch::eventually;

use super::{admit, calls, recovers, refuses, release, renew, says, store_at};

#[tokio::test]
async fn a_full_server_refuses_starts_and_passes_the_probe() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
    let store = server.store();
    assert!(admit(&store, "a").await.is_ok());
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let failure = admit(&store, "b").await.unwrap_err();
    assert!(matches!(failure, StoreError::Full(_)), "{failure:?}");
    says(&failure, &["OOM", "raise its maxmemory"]);
    assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
    let renewal = renew(&store, "a").await;
    assert!(
        matches!(renewal, Ok(Renewal::Renewed { .. })),
        "{renewal:?}"
    );
    let released = release(&store, "a").await;
    assert!(matches!(released, Ok(Released::Freed)), "{released:?}");
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
        eventually("it is cut", || async {
            store.ping(&Shard::whole()).await.is_err()
        })
        .await;
        proxy.restore();
        // The policy is looked at before a connection is used.
        recovers(&store).await;
        assert_eq!(log.counts(WARNING), warnings, "{policy}");
    }
}

#[tokio::test]
async fn a_replica_refuses_and_says_where_to_go() {
    let server = RedisServer::start_with(&["--replicaof", "127.0.0.1", "1"]);
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
        let failure = store.ping(&Shard::whole()).await.unwrap_err();
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
    // Redis 6.2 refuses that while it loads, and takes its ten seconds.
    drop(server.try_run::<()>(&["CONFIG", "SET", "key-load-delay", "0"]));
    recovers(&store).await;
    let keys: usize = server.run(&["DBSIZE"]);
    assert_eq!(keys, 41);
}

#[tokio::test]
async fn a_server_that_cannot_save_refuses_until_it_need_not() {
    let server = RedisServer::start_with(&["--dir", "/proc", "--save", "3600", "1"]);
    let store = server.store();
    recovers(&store).await;
    let _: redis::Value = server.run(&["BGSAVE"]);
    eventually("it has failed to save", || async {
        store.ping(&Shard::whole()).await.is_err()
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
        let text = store.ping(&Shard::whole()).await.unwrap_err().to_string();
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
        let failure = store.ping(&Shard::whole()).await.unwrap_err();
        assert!(
            matches!(failure, StoreError::Rejected(_)),
            "{taken}: {failure:?}"
        );
        says(&failure, &["the ACL must allow EVALSHA, EVAL, TIME"]);
        grant(&RIGHTS);
        grant(&["~streamgate:*"]);
        assert_eq!(store.ping(&Shard::whole()).await, Ok(()), "{taken}");
    }
}

#[tokio::test]
async fn the_probe_changes_nothing() {
    let server = RedisServer::start();
    let store = server.store();
    for _ in 0..3 {
        assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
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
async fn a_server_other_than_redis_is_refused_by_name() {
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
