//! Floods: what one user, or very many, can take of the memory here and of others' room; on the embedded store and on a Redis.
//!
//! Of one user at most 64 ends are remembered, at most 32 streams above the limit are put back, and so at most that many are held, whatever is
//! thrown at the doors. (That a flood of one user's ends leaves others their room in the outbox is shown in `src/outbox/tests.rs`.)
//! The tests with a million take a while and are run by hand: `make bench-memory`.

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use streamgate::config::OutageRule;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, on_both};
use testkit::app::TestApp;
use testkit::gateway_client::{Answer, Check, Gateway, abandoned, periodic};
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::watch::{as_many, eventually, measured_memory};

/// How many a flood has that is run with all other tests.
const FLOOD: usize = 5_000;

/// How many it has by hand.
const MILLION: usize = 1_000_000;

/// How many checks are under way at one time.
const AT_ONE_TIME: usize = 256;

/// What one user may take of the memory here, be it a million ids: rosters, held leases, notices that wait, buffers. Generous.
const MOST_FOR_ONE_USER: u64 = 48 * 1024 * 1024;

/// What one of many users may take here: a session of theirs in the store, and what is held of it. Generous.
const MOST_FOR_EACH_OF_MANY: u64 = 4 * 1024;

/// Releases of so many of a user's, as lists that the hook takes.
fn releases(user: &str, count: usize) -> Vec<Value> {
    let ids = (0..count).map(|n| json!({"user": user, "session": format!("p{n}")}));
    let ids: Vec<Value> = ids.collect();
    ids.chunks(100).map(|list| json!(list)).collect()
}

/// A sign of life of a stream that nobody has let in.
fn forged(
    of: &Answer,
    id: &str,
) -> envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry {
    let mut answer = of.clone();
    answer.metadata.insert("session".to_owned(), id.to_owned());
    periodic(id, &answer)
}

#[tokio::test]
async fn of_one_user_32_ends_of_strangers_are_remembered_whoever_tells_them() {
    on_both(async |plan| {
        let app = plan.limit(1000).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let ended = json!({"user": "anna", "session": "a1"});
        let told = api.call(Method::POST, "/v1/release", Some(ended)).await;
        assert_eq!(told.status, 204);
        for list in releases("mallory", 300) {
            let told = api.call(Method::POST, "/v1/release", Some(list)).await;
            assert_eq!(told.status, 204);
        }
        let mut log = gateway.access_log().await;
        let ids = (0..300).map(|n| format!("r{n}"));
        log.send(ids.map(|id| abandoned("mallory", &id)).collect());
        log.finish().await;
        eventually("all is told", async || {
            app.metric("streamgate_releaser_pending").await == 0
        })
        .await;
        let mut remembered = 0;
        for n in 0..300 {
            for check in [
                Check::of("mallory", &format!("r{n}")),
                Check::of_playback("mallory", &format!("p{n}")),
            ] {
                let answer = gateway.check(check).await;
                let has_ended = answer.reason() == "ended";
                assert!(has_ended || answer.is_allowed(), "{answer:?}");
                remembered += usize::from(has_ended);
            }
        }
        assert_eq!(remembered, 32);
        let annas = gateway.check(Check::of_playback("anna", "a1")).await;
        assert_eq!(annas.reason(), "ended", "hers is remembered still");
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn in_an_outage_no_more_of_one_user_is_held_than_could_be_put_back() {
    let store = FaultyStore::new();
    let plan = TestApp::plan()
        .outage(OutageRule::Allow)
        .store(store.clone());
    let app = plan.start().await;
    let gateway = app.gateway().await;
    let first = gateway.check(Check::of("mallory", "r0")).await;
    let annas = gateway.check(Check::of_playback("anna", "a1")).await;
    assert!(first.is_allowed() && annas.is_allowed());
    store.fails(&Fault::LosesCalls);
    let mut log = gateway.access_log().await;
    for n in 0..1000 {
        // Whether each is let in is the outage rule's to say.
        gateway
            .check(Check::of_playback("mallory", &format!("p{n}")))
            .await;
        log.send(vec![forged(&first, &format!("f{n}"))]);
    }
    log.finish().await;
    eventually("they are counted", async || {
        app.metric("streamgate_sessions_held ").await > 30
    })
    .await;
    let held = app.metric("streamgate_sessions_held ").await;
    assert!(held <= 3 + 32 + 1, "{held}, with anna's");
    store.fails(&Fault::None);
    eventually("the store is told", async || {
        app.metric("streamgate_sessions_owed ").await == 0
            && app.metric("streamgate_releaser_pending").await == 0
    })
    .await;
    assert!(store.live("mallory").await.len() <= 3 + 32);
    assert_eq!(store.live("anna").await, ["a1"]);
    app.stop().await;
}

// === Memory, of the real program ===

/// Asks for so many, each made out of its number; how many were let in.
async fn flood(streamgate: &Streamgate, count: usize, check: impl Fn(usize) -> Check) -> usize {
    let mut gateways = Vec::new();
    for _ in 0..4 {
        gateways.push(Gateway::connect(streamgate.grpc).await);
    }
    let asking = stream::iter(0..count).map(|n| gateways[n % gateways.len()].check(check(n)));
    let mut asking = asking.buffer_unordered(AT_ONE_TIME);
    let mut let_in = 0;
    while let Some(answer) = asking.next().await {
        let_in += usize::from(answer.is_allowed());
    }
    let_in
}

/// How much more memory it takes now, in bytes.
fn grown(streamgate: &Streamgate, before: (u64, u64)) -> u64 {
    streamgate.memory().0.saturating_sub(before.0) * 1024
}

/// So many users, each with a session, and what each takes.
async fn many_users(what: &str, count: usize, redis: Option<&RedisServer>) {
    let streamgate = Streamgate::start_for_crowds(redis).await;
    flood(&streamgate, 2 * AT_ONE_TIME, |n| {
        Check::of_playback(&format!("warm-{n}"), "p")
    })
    .await;
    let before = streamgate.memory();
    let let_in = flood(&streamgate, count, |n| {
        Check::of_playback(
            &format!("user-{n:015}"),
            &format!("0188f1a2-4b6c-7d8e-9f00-{n:012x}"),
        )
    });
    assert_eq!(let_in.await, count);
    let each = grown(&streamgate, before) / count as u64;
    measured_memory(&format!("memory of one of {count} users, {what}"), each);
    assert!(each <= MOST_FOR_EACH_OF_MANY, "{each} bytes");
}

/// One user with so many ids at every door, and what that takes.
async fn one_user(what: &str, count: usize, redis: Option<&RedisServer>) {
    let streamgate = Streamgate::start_for_crowds(redis).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    let first = gateway.check(Check::of("mallory", "r0")).await;
    flood(&streamgate, 2 * AT_ONE_TIME, |n| {
        Check::of(&format!("warm-{n}"), "r")
    })
    .await;
    let before = streamgate.memory();
    let check = |n: usize| match n % 2 {
        0 => Check::of_playback("mallory", &format!("p-{n}")),
        _ => Check::of("mallory", &format!("r-{n}")),
    };
    assert_eq!(flood(&streamgate, count, check).await, 2);
    let mut log = gateway.access_log().await;
    for from in (0..count).step_by(100) {
        let entries = (from..from + 100).map(|n| forged(&first, &format!("f-{n}")));
        log.send(entries.collect());
        log.flush().await;
    }
    assert_eq!(log.finish().await, 0);
    let client = reqwest::Client::new();
    let hook = format!("http://{}/v1/release", streamgate.http);
    for list in releases("mallory", count) {
        let told = client.post(&hook).json(&list).send().await.unwrap();
        assert!(told.status().is_success());
    }
    let none = |pending: f64| pending == 0.0;
    streamgate
        .metric_becomes("streamgate_releaser_pending", &[], none)
        .await;
    let grown = grown(&streamgate, before);
    measured_memory(
        &format!("memory of one user with {count} ids, {what}"),
        grown,
    );
    assert!(grown <= MOST_FOR_ONE_USER, "{grown} bytes");
    let url = format!("http://{}/v1/users/mallory/sessions", streamgate.http);
    let told: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    let active = told["active"].as_u64().unwrap();
    assert!(active <= 3 + 32, "{active}");
}

#[tokio::test]
async fn a_user_takes_little_memory_be_there_many_of_them() {
    many_users("embedded store", FLOOD, None).await;
    many_users("Redis", FLOOD, Some(&RedisServer::start())).await;
}

#[tokio::test]
async fn one_user_with_very_many_ids_takes_bounded_memory() {
    one_user("embedded store", FLOOD, None).await;
    one_user("Redis", FLOOD, Some(&RedisServer::start())).await;
}

#[tokio::test]
#[ignore = "takes minutes: make bench-memory"]
async fn a_million_users_take_memory_in_proportion() {
    // A shard is full before the whole store is; so the last few of a million would be an outage to it.
    let million = as_many(MILLION);
    many_users("embedded store", million / 100 * 97, None).await;
    many_users("Redis", million, Some(&RedisServer::start())).await;
}

#[tokio::test]
#[ignore = "takes minutes: make bench-memory"]
async fn one_user_with_a_million_ids_takes_bounded_memory() {
    let million = as_many(MILLION);
    one_user("embedded store", million, None).await;
    one_user("Redis", million, Some(&RedisServer::start())).await;
}
