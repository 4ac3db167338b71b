//! Floods the real program, and measures the memory that they take: of very many users, and of one
//! user with very many ids.

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::gateway_client::{Answer, Check, Gateway, periodic};
use crate::redis::RedisServer;
use crate::streamgate::Streamgate;
use crate::watch::measured_memory;

/// How many checks are under way at one time.
const AT_ONE_TIME: usize = 256;

/// The most memory that one user may take here, even with a million ids: rosters, held leases,
/// waiting notices, buffers. Generous.
const MOST_FOR_ONE_USER: u64 = 48 * 1024 * 1024;

/// The most memory that each of many users may take here: one session in the store, and its held
/// lease. Generous.
const MOST_FOR_EACH_OF_MANY: u64 = 4 * 1024;

/// Releases of so many of a user's, as lists that the hook takes.
pub fn releases(user: &str, count: usize) -> Vec<Value> {
    let ids = (0..count).map(|n| json!({"user": user, "session": format!("p{n}")}));
    let ids: Vec<Value> = ids.collect();
    ids.chunks(100).map(|list| json!(list)).collect()
}

/// A report that a stream is running, although no check let it in.
pub fn forged(of: &Answer, id: &str) -> HttpAccessLogEntry {
    let mut answer = of.clone();
    answer.metadata.insert("session".to_owned(), id.to_owned());
    periodic(id, &answer)
}

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

/// Lets in `count` users with a session each, and measures the memory that each takes. A user's name
/// has 20 bytes, an id is a UUID, and device and content have 16 bytes.
pub async fn many_users(what: &str, count: usize, redis: Option<&RedisServer>) {
    let streamgate = Streamgate::start_for_crowds(redis).await;
    flood(&streamgate, 2 * AT_ONE_TIME, |n| {
        Check::of_playback(&format!("warm-{n}"), "p")
    })
    .await;
    let before = streamgate.memory();
    let let_in = flood(&streamgate, count, |n| {
        let id = format!("0188f1a2-4b6c-7d8e-9f00-{n:012x}");
        let check = Check::of_playback(&format!("user-{n:015}"), &id);
        let check = check.header("x-device-id", &format!("device-{n:09}"));
        check.header("cmcd-session", &format!("cid=\"content-{n:08}\""))
    });
    assert_eq!(let_in.await, count);
    let each = grown(&streamgate, before) / count as u64;
    measured_memory(&format!("memory of one of {count} users, {what}"), each);
    assert!(each <= MOST_FOR_EACH_OF_MANY, "{each} bytes");
}

/// Has one user use `count` ids at every door, and measures the memory that this takes.
pub async fn one_user(what: &str, count: usize, redis: Option<&RedisServer>) {
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
