//! Which server is used: who is asked, who is believed, what for, and what is said where there is none.

use streamgate::session::{Admission, Ending, Released};
use streamgate::store::redis::{RedisSettings, RedisStore, RedisTarget, Sentinels};
use streamgate::store::{Shard, Store, StoreError};

use testkit::log::Log;
use testkit::port::ReservedPort;
use testkit::redis::{RedisServer, settings};
use testkit::sentinel::{SERVICE, watching};
use testkit::streams::{playback, refusing, start, user};
use testkit::watch::eventually;

/// A store in the master that the sentinels there name, which is spoken to as that URL says.
fn store_by(sentinels: &[&str], master: &str) -> RedisStore {
    let sentinels = Sentinels {
        sentinels: sentinels.iter().map(|url| url.parse().unwrap()).collect(),
        service: SERVICE.to_owned(),
        master: master.parse().unwrap(),
    };
    let settings = RedisSettings {
        source: RedisTarget::Sentinel(sentinels),
        ..settings("redis://unused")
    };
    RedisStore::open(settings).unwrap()
}

/// The same of a master without a password.
fn store_at(sentinels: &[&str]) -> RedisStore {
    store_by(sentinels, "redis://mymaster")
}

/// A sentinel on its own that watches that server; it can't decide anything, since it can't find a second one.
fn alone(server: &RedisServer) -> RedisServer {
    RedisServer::sentinel(&watching(SERVICE, server, 2))
}

/// How a sentinel watches that server by a configuration of that number.
fn watching_by(server: &RedisServer, epoch: u64) -> String {
    let watching = watching(SERVICE, server, 2);
    format!("{watching}sentinel current-epoch {epoch}\nsentinel config-epoch {SERVICE} {epoch}\n")
}

/// Where a server is, as it is told.
fn place(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

async fn admit(store: &RedisStore, id: &str) -> Result<Admission, StoreError> {
    let (alice, start) = (user("alice"), start(&playback(id)));
    store.admit(&alice, &start, &refusing(1)).await
}

/// Waits until the store counts there.
async fn counts_in(store: &RedisStore, server: &RedisServer) {
    eventually("it counts there", async || {
        store.ping(&Shard::whole()).await.is_ok()
            && store.server(&Shard::whole()) == Some(place(server))
    })
    .await;
}

/// Waits until the log has a line with that.
async fn tells(log: &Log, text: &str) {
    eventually(text, async || log.counts(text) > 0).await;
}

/// Waits until the store says why it has no connection, which has to hold all those words; on a busy machine somebody may be late at first.
async fn says(store: &RedisStore, words: &[&str]) {
    let text = eventually(&words.join(", "), async || {
        let failure = store.ping(&Shard::whole()).await.unwrap_err();
        assert!(!failure.outcome_is_unknown(), "{failure:?}");
        let text = failure.to_string();
        words.iter().all(|word| text.contains(word)).then_some(text)
    })
    .await;
    for secret in ["hunter2", "swordfish"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(store.server(&Shard::whole()), None);
}

/// Sentinels that name no master of ours, each in a way of its own.
struct Useless {
    /// Nobody listens there.
    closed: ReservedPort,
    /// It stands still.
    hanging: RedisServer,
    /// It watches something else.
    elsewhere: RedisServer,
    /// It wants another password.
    locked: RedisServer,
    /// It is no sentinel.
    server: RedisServer,
}

impl Useless {
    /// Starts them; they would know that server.
    fn start(server: &RedisServer) -> Self {
        let locked = format!("requirepass hunter2\n{}", watching(SERVICE, server, 2));
        let hanging = alone(server);
        hanging.pause();
        Self {
            closed: ReservedPort::reserve(),
            hanging,
            elsewhere: RedisServer::sentinel(&watching("other", server, 2)),
            locked: RedisServer::sentinel(&locked),
            server: RedisServer::start(),
        }
    }

    /// Where they are.
    fn urls(&self) -> [String; 5] {
        [
            format!("redis://{}", self.closed.address()),
            self.hanging.url(),
            self.elsewhere.url(),
            self.locked.url_as("", "swordfish"),
            self.server.url(),
        ]
    }

    /// How each is told.
    fn places(&self) -> [String; 5] {
        [
            self.closed.address().to_string(),
            place(&self.hanging),
            place(&self.elsewhere),
            place(&self.locked),
            place(&self.server),
        ]
    }
}

#[tokio::test]
async fn streams_start_and_end_in_the_master_that_a_sentinel_names() {
    let server = RedisServer::start();
    let sentinel = alone(&server);
    let store = store_at(&[&sentinel.url()]);
    counts_in(&store, &server).await;
    assert!(matches!(
        admit(&store, "a").await,
        Ok(Admission::Admitted(_))
    ));
    assert!(matches!(
        admit(&store, "b").await,
        Ok(Admission::Refused(_))
    ));
    assert_eq!(store.server(&Shard::whole()), Some(place(&server)));
    let listing = server.store().list(&user("alice")).await.unwrap();
    assert_eq!(listing.sessions.len(), 1);
    let (alice, session) = (user("alice"), playback("a"));
    let released = store
        .release(&alice, &session, Ending::Stream, std::time::Duration::ZERO)
        .await;
    assert!(matches!(released, Ok(Released::Freed)), "{released:?}");
}

#[tokio::test]
async fn sentinels_that_name_nobody_are_no_hindrance_and_are_told_of_once() {
    let (log, _guard) = Log::listen();
    let server = RedisServer::start();
    let (useless, good) = (Useless::start(&server), alone(&server));
    let urls = useless.urls();
    let mut urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let url = good.url();
    urls.push(&url);
    let store = store_at(&urls);
    counts_in(&store, &server).await;
    let told = |place| format!("a sentinel names no master sentinel=\"{place}\"");
    for place in useless.places() {
        tells(&log, &told(place)).await;
    }
    // Another connection is no reason to tell it again.
    server.run::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("it is connected again", async || {
        log.counts("connected to Redis") == 2
    })
    .await;
    useless.hanging.resume();
    let place = place(&useless.hanging);
    tells(
        &log,
        &format!("a sentinel names the master in use again sentinel=\"{place}\""),
    )
    .await;
    for place in useless.places() {
        assert_eq!(log.counts(&told(place)), 1, "they were asked several times");
    }
    assert_eq!(log.counts("hunter2") + log.counts("swordfish"), 0);
}

#[tokio::test]
async fn the_newest_configuration_wins_whichever_sentinel_is_asked_first() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let [stale, current] = [watching_by(&old, 4), watching_by(&new, 7)]
        .map(|configuration| RedisServer::sentinel(&configuration));
    let (stale_url, current_url) = (stale.url(), current.url());
    for urls in [[&*stale_url, &*current_url], [&*current_url, &*stale_url]] {
        counts_in(&store_at(&urls), &new).await;
    }
    // Where the one that knows better isn't heard for a while, what is used is not given up for what is older.
    let (log, _guard) = Log::listen();
    let store = store_at(&[&stale_url, &current_url]);
    counts_in(&store, &new).await;
    current.pause();
    tells(&log, "a sentinel names no master").await;
    assert_eq!(store.ping(&Shard::whole()).await, Ok(()));
    assert_eq!(store.server(&Shard::whole()), Some(place(&new)));
    assert_eq!(log.counts("lost the connection"), 0);
    current.resume();
}

#[tokio::test]
async fn an_old_master_that_goes_on_taking_writes_is_left_when_a_sentinel_knows_better() {
    let (log, _guard) = Log::listen();
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let cut_off = RedisServer::sentinel(&watching_by(&old, 4));
    let knows_better = RedisServer::stopped_sentinel(&watching_by(&new, 5));
    let store = store_at(&[&cut_off.url(), &knows_better.url()]);
    counts_in(&store, &old).await;
    knows_better.restart();
    counts_in(&store, &new).await;
    assert_eq!(
        log.counts(&format!(
            "the sentinels name another master of {SERVICE}: {}",
            place(&new)
        )),
        1
    );
}

#[tokio::test]
async fn a_master_that_no_sentinel_names_any_more_is_left_though_their_numbers_begin_anew() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let sentinels = [(); 3].map(|()| RedisServer::sentinel(&watching_by(&old, 2)));
    let urls = sentinels.each_ref().map(RedisServer::url);
    let store = store_at(&urls.each_ref().map(String::as_str));
    counts_in(&store, &old).await;
    // From all of them before it is given to any: they tell each other, and the higher number wins there too.
    for sentinel in &sentinels {
        sentinel.run::<()>(&["SENTINEL", "REMOVE", SERVICE]);
    }
    let port = new.port().to_string();
    for sentinel in &sentinels {
        sentinel.run::<()>(&["SENTINEL", "MONITOR", SERVICE, "127.0.0.1", &port, "2"]);
    }
    counts_in(&store, &new).await;
    counts_in(&store_at(&[&urls[2]]), &new).await;
}

#[tokio::test]
async fn sentinels_that_differ_at_one_number_lead_all_to_one_server_and_are_told_of() {
    let mut servers = [RedisServer::start(), RedisServer::start()];
    servers.sort_by_key(place);
    let [first, second] = &servers;
    let sentinels = [first, second].map(|server| RedisServer::sentinel(&watching_by(server, 3)));
    let [right, wrong] = sentinels.each_ref().map(RedisServer::url);
    let (log, _guard) = Log::listen();
    let stores = [[&*right, &*wrong], [&*wrong, &*right]].map(|urls| store_at(&urls));
    for store in &stores {
        counts_in(store, first).await;
    }
    tells(
        &log,
        &format!(
            "a sentinel names another master than the one in use sentinel=\"{}\"",
            place(&sentinels[1])
        ),
    )
    .await;
    for store in &stores {
        counts_in(store, first).await;
    }
}

/// A master that wants `hunter2`, and a sentinel of its that wants `swordfish`.
fn locked() -> (RedisServer, RedisServer) {
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let sentinel = RedisServer::sentinel(&format!(
        "requirepass swordfish\n{}sentinel auth-pass {SERVICE} hunter2\n",
        watching(SERVICE, &server, 2)
    ));
    (server, sentinel)
}

#[tokio::test]
async fn each_has_its_own_password_and_the_master_its_database() {
    let (server, sentinel) = locked();
    let store = store_by(
        &[&sentinel.url_as("", "swordfish")],
        "redis://:hunter2@mymaster/3",
    );
    counts_in(&store, &server).await;
    let admission = admit(&store, "a").await;
    assert!(matches!(admission, Ok(Admission::Admitted(_))));
    let keys = |database| {
        let url = format!("{}/{database}", server.url_as("", "hunter2"));
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        redis::cmd("DBSIZE").query::<u64>(&mut connection).unwrap()
    };
    assert_eq!((keys(0), keys(3)), (0, 1));
}

#[tokio::test]
async fn a_failed_login_names_the_key_to_check() {
    let (server, sentinel) = locked();
    let (with, without) = (sentinel.url_as("", "swordfish"), sentinel.url());
    let (other, wanted) = (sentinel.url_as("", "hunter2"), "redis://:hunter2@mymaster");
    let place_of_sentinel = place(&sentinel);
    for (url, words) in [
        (&without, ["NOAUTH", "before its host in store.redis.urls"]),
        (&other, ["WRONGPASS", "in store.redis.urls"]),
    ] {
        let store = store_by(&[url], wanted);
        says(&store, &[&place_of_sentinel, words[0], words[1]]).await;
    }
    let named = "which the sentinels name as the master of mymaster";
    let master = format!("{}, {named}", place(&server));
    for (url, words) in [
        (
            "redis://mymaster",
            ["NOAUTH", "into store.redis.master_url"],
        ),
        (
            "redis://:swordfish@mymaster",
            ["WRONGPASS", "in store.redis.master_url"],
        ),
        (
            "redis://:hunter2@mymaster/99",
            ["DB index is out", "the end of store.redis.master_url"],
        ),
    ] {
        says(&store_by(&[&with], url), &[&master, words[0], words[1]]).await;
    }
}

#[tokio::test]
async fn a_sentinel_and_a_master_tell_which_rights_are_missing() {
    let server = RedisServer::start();
    let sentinel = alone(&server);
    let own = [
        "ACL",
        "SETUSER",
        "gate",
        "on",
        ">hunter2",
        "+sentinel|master",
    ];
    sentinel.run::<()>(&own);
    let named = sentinel.url_as("gate", "hunter2");
    let words = [
        "NOPERM",
        "SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME",
    ];
    says(&store_at(&[&named]), &words).await;
    sentinel.run::<()>(&[
        "ACL",
        "SETUSER",
        "gate",
        "+sentinel|get-master-addr-by-name",
    ]);
    counts_in(&store_at(&[&named]), &server).await;
    let mut own = vec!["ACL", "SETUSER", "gate", "on", ">hunter2", "~streamgate*"];
    own.extend("+evalsha +eval +time +get +set +setrange +pexpire +del".split(' '));
    server.run::<()>(&own);
    let master = "redis://gate:hunter2@mymaster";
    says(&store_by(&[&sentinel.url()], master), &["NOPERM", "ROLE"]).await;
    server.run::<()>(&["ACL", "SETUSER", "gate", "+role"]);
    counts_in(&store_by(&[&sentinel.url()], master), &server).await;
    let in_database = format!("{master}/3");
    says(
        &store_by(&[&sentinel.url()], &in_database),
        &["'select' command", "SELECT if a database is named"],
    )
    .await;
    server.run::<()>(&["ACL", "SETUSER", "gate", "+select"]);
    counts_in(&store_by(&[&sentinel.url()], &in_database), &server).await;
}

#[tokio::test]
async fn who_speaks_tls_to_one_that_does_not_is_told_that_this_may_be_it() {
    let server = RedisServer::start();
    let sentinel = alone(&server);
    let with_tls = |server: &RedisServer| format!("rediss://{}", place(server));
    for (store, server) in [
        (store_at(&[&with_tls(&sentinel)]), &sentinel),
        (store_by(&[&sentinel.url()], "rediss://mymaster"), &server),
    ] {
        says(&store, &[&place(server), "or it doesn't use TLS there"]).await;
    }
    let alone = RedisStore::open(settings(&with_tls(&server))).unwrap();
    says(&alone, &["or it doesn't use TLS there"]).await;
}

#[tokio::test]
async fn where_no_sentinel_names_a_master_each_is_told_with_its_reason() {
    let server = RedisServer::start();
    let useless = Useless::start(&server);
    let urls = useless.urls();
    let reasons = [
        "no connection: Connection refused",
        "no answer within 300ms",
        "it refused: ERR No such master with that name (check store.redis.sentinel_service)",
        "it refused: WRONGPASS invalid username-password pair or user is disabled (check user:password@ in store.redis.urls)",
        "it refused: ERR unknown command",
    ];
    let places = useless.places();
    let told = places.iter().zip(reasons);
    let mut told: Vec<_> = told
        .map(|(place, reason)| format!("{place}: {reason}"))
        .collect();
    told.push("no connection: no sentinel names a master of mymaster: ".to_owned());
    told.push("(this is not a sentinel; check the port in store.redis.urls)".to_owned());
    let told: Vec<_> = told.iter().map(String::as_str).collect();
    says(&store_at(&urls.each_ref().map(String::as_str)), &told).await;
    useless.hanging.resume();
}

#[tokio::test]
async fn a_master_that_is_gone_hangs_or_is_none_is_told_by_its_name_and_used_when_it_is_well() {
    let server = RedisServer::start();
    let sentinel = alone(&server);
    let master = format!(
        "{}, which the sentinels name as the master of mymaster",
        place(&server)
    );
    server.stop();
    let store = store_at(&[&sentinel.url()]);
    says(&store, &[&master, "refused"]).await;
    server.restart();
    counts_in(&store, &server).await;

    server.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    says(
        &store_at(&[&sentinel.url()]),
        &[&master, "it says that it is not a master but a slave"],
    )
    .await;
    // Who is connected learns it from its first call, and leaves at once.
    eventually("it is left", async || {
        let failure = admit(&store, "a").await.unwrap_err();
        failure.to_string().contains("not a master but a slave")
    })
    .await;
    server.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    counts_in(&store, &server).await;

    server.pause();
    let hasty = store_at(&[&sentinel.url()]);
    says(&hasty, &[&master, "no answer within 1s"]).await;
    server.resume();
    counts_in(&hasty, &server).await;
}
