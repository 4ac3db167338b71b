//! Everybody's sessions by pages, as far as it is Redis's own: whatever else is in the database, what a page costs, and what stops it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use redis::Value;
use streamgate::clock::Stopwatch;
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Cursor, Page, Shard, Store, StoreError};

use testkit::proxy::Proxy;
use testkit::redis::{RedisServer, lasting_store, settings};
use testkit::streams::{lasting, playback, refusing, user};

/// The most steps of a page.
const MOST_STEPS: usize = 10;

/// A store whose keys begin so.
fn store_of(server: &RedisServer, prefix: &str) -> RedisStore {
    let settings = RedisSettings {
        key_prefix: prefix.to_owned(),
        ..server.settings()
    };
    RedisStore::open(settings).unwrap()
}

/// Lets those users have so many sessions each.
async fn let_in(store: &RedisStore, users: impl IntoIterator<Item = String>, sessions: usize) {
    stream::iter(users)
        .for_each_concurrent(50, |name| async move {
            let user = user(&name);
            for number in 0..sessions {
                let start = lasting(&playback(&number.to_string()));
                let rules = refusing(9);
                let admission = store.admit(&user, &start, &rules);
                admission.await.unwrap();
            }
        })
        .await;
}

/// All pages of that size.
async fn pages(store: &RedisStore, size: usize) -> Vec<Page> {
    let (mut pages, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = next {
        let page = store.page(&from, size).await.unwrap();
        next = page.next.clone();
        pages.push(page);
    }
    pages
}

/// The names of all users who are shown.
fn names(pages: &[Page]) -> BTreeSet<String> {
    let entries = pages.iter().flat_map(|page| &page.entries);
    entries.map(|(user, _)| user.to_string()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Puts so many keys of somebody else's into the database.
fn put_others(server: &RedisServer, keys: usize) {
    let script = "for n = 1, ARGV[1] do redis.call('SET', 'other:' .. n, 'x') end";
    server.run::<Value>(&["EVAL", script, "0", &keys.to_string()]);
}

/// How often each command was called since the last look. Looking is not among them.
fn calls(server: &RedisServer) -> HashMap<String, usize> {
    let report: String = server.run(&["INFO", "commandstats"]);
    server.run::<()>(&["CONFIG", "RESETSTAT"]);
    let lines = report.lines().filter_map(|line| {
        let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = figures.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), calls))
    });
    lines.collect()
}

#[tokio::test]
async fn of_what_else_is_in_the_database_nothing_is_shown_and_nothing_is_in_the_way() {
    let server = RedisServer::start();
    let prefixes = ["a", "a:b", "a:b:c", "A", "aa", "a-b"];
    for prefix in prefixes {
        let_in(&store_of(&server, prefix), [format!("{prefix}'s own")], 1).await;
    }
    for write in [
        &["SET", "a:probe", "x"][..],
        &["SET", "a:{text}", "hello"],
        &["SET", "a:{empty}", ""],
        &["SET", "a:{version}", "\u{81}\u{81}"],
        &["RPUSH", "a:{list}", "x"],
        &["HSET", "a:{hash}", "x", "y"],
        &["COPY", "a:{a's own}", "a:{open"],
        &["COPY", "a:{a's own}", "a:{}"],
        &["COPY", "a:{a's own}", "a:{x}y"],
        &["COPY", "a:{a's own}", "a:{%7b}"],
        &["COPY", "a:{a's own}", "a:{x\ny}"],
        &["COPY", "a:{a's own}", "ba:{x}"],
    ] {
        server.run::<Value>(write);
    }
    let truncated = "redis.call('SET', 'a:{cut}', redis.call('GETRANGE', KEYS[1], 0, -2))";
    server.run::<Value>(&["EVAL", truncated, "1", "a:{a's own}"]);
    for prefix in prefixes {
        let store = store_of(&server, prefix);
        for size in [1, 100] {
            let shown = names(&pages(&store, size).await);
            assert_eq!(shown, set(&[&format!("{prefix}'s own")]));
        }
    }
}

#[tokio::test]
async fn a_prefix_is_never_taken_for_a_pattern() {
    let server = RedisServer::start();
    let prefixes = ["a*", "a?", "[ab]*", "a\\*", "^a", "{a}", "ab", "b", "a%7B"];
    for prefix in prefixes {
        let_in(&store_of(&server, prefix), [format!("{prefix}'s own")], 1).await;
    }
    for prefix in prefixes {
        let shown = names(&pages(&store_of(&server, prefix), 100).await);
        assert_eq!(shown, set(&[&format!("{prefix}'s own")]));
    }
}

#[tokio::test]
async fn among_fifty_thousand_keys_of_others_a_page_takes_ten_steps_at_most() {
    let server = RedisServer::start();
    put_others(&server, 50_000);
    let store = lasting_store(&server);
    let users: Vec<_> = (0..20).map(|number| format!("user {number}")).collect();
    let_in(&store, users.clone(), 2).await;
    for size in [1, 100, 1000] {
        calls(&server);
        let (mut shown, mut next, mut count) = (Vec::new(), Some(Cursor::default()), 0);
        while let Some(from) = next {
            let page = store.page(&from, size).await.unwrap();
            next = page.next.clone();
            shown.push(page);
            count += 1;
            let calls = calls(&server);
            let of = |name: &str| calls.get(name).copied().unwrap_or(0);
            let (scans, reads) = (of("scan"), of("mget"));
            assert!((1..=MOST_STEPS).contains(&scans), "{calls:?}");
            assert!(reads <= scans && of("time") == 1, "{calls:?}");
            let more: Vec<_> = calls.keys().filter(|name| is_unexpected(name)).collect();
            assert!(more.is_empty(), "{more:?}");
        }
        assert_eq!(names(&shown), users.iter().cloned().collect());
        assert!(count <= 50, "{count} pages of {size}");
    }
}

/// Whether a page has no business to call that: the test's own questions and the signs of life are left out.
fn is_unexpected(command: &str) -> bool {
    let known = ["scan", "mget", "time", "ping", "info"];
    !known.contains(&command) && !command.starts_with("config") && !command.starts_with("client")
}

#[tokio::test]
async fn where_all_keys_are_ours_a_page_is_little_longer_than_it_is_meant_to_be_and_takes_few_steps()
 {
    let server = RedisServer::start();
    let store = lasting_store(&server);
    for sessions in 1..=3 {
        let users = (0..500).map(|number| format!("user {sessions} {number}"));
        let_in(&store, users, sessions).await;
    }
    for (size, longest) in [(1, 40), (10, 60), (100, 200), (1000, 1700)] {
        calls(&server);
        let pages = pages(&store, size).await;
        assert_eq!(names(&pages).len(), 1500);
        let longest_page = pages.iter().map(|page| page.entries.len()).max();
        assert!(longest_page <= Some(longest), "{longest_page:?} of {size}");
        let scans = calls(&server)["scan"];
        assert!(scans <= 4 * pages.len(), "{scans} for {}", pages.len());
    }
}

#[tokio::test]
async fn without_the_rights_it_needs_the_listing_is_refused_with_a_hint_and_all_else_works() {
    let server = RedisServer::start();
    let grant = |rights: &[&str]| {
        let who = ["ACL", "SETUSER", "gate", "on", ">secret"];
        server.run::<()>(&[&who, rights].concat());
    };
    let least = "~streamgate:* -@all +evalsha +eval +time +get +set +setrange +pexpire +del";
    grant(&least.split(' ').collect::<Vec<_>>());
    let store = RedisStore::open(settings(&server.url_as("gate", "secret"))).unwrap();
    let_in(&store, ["alice".to_owned()], 1).await;
    for (rights, is_enough) in [
        (["-scan", "-mget"], false),
        (["+scan", "-mget"], false),
        (["-scan", "+mget"], false),
        (["+scan", "+mget"], true),
    ] {
        grant(&rights);
        assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
        match store.page(&Cursor::default(), 100).await {
            Ok(page) => assert!(is_enough && page.entries.len() == 1, "{rights:?}"),
            Err(StoreError::Rejected(text)) => {
                assert!(
                    !is_enough && text.contains("SCAN and MGET for the operator's listing"),
                    "{text}"
                );
            }
            Err(error) => panic!("{rights:?}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_slow_server_gives_short_pages_within_two_deadlines_and_a_silent_one_none() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let server = RedisServer::start();
    put_others(&server, 20_000);
    let proxy = Proxy::before(server.port()).await;
    let settings = RedisSettings {
        timeout: DEADLINE,
        ..settings(&proxy.url())
    };
    let store = RedisStore::open(settings).unwrap();
    assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
    calls(&server);
    proxy.slow(DEADLINE / 3);
    let waited = Stopwatch::start();
    let page = store.page(&Cursor::default(), 1).await.unwrap();
    assert!(waited.elapsed() < DEADLINE * 2);
    assert!(page.entries.is_empty() && page.next.is_some(), "{page:?}");
    let scans = calls(&server)["scan"];
    assert!(scans <= 3, "{scans} steps in {:?}", waited.elapsed());
    proxy.stall();
    let waited = Stopwatch::start();
    let failure = store.page(&Cursor::default(), 1).await;
    assert_eq!(failure, Err(StoreError::Timeout(DEADLINE)));
    assert!(waited.elapsed() < DEADLINE * 2);
}
