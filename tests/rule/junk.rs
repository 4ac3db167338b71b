//! Junk pushes nothing out: whatever a user reports about ids that never existed, an ended session
//! stays ended, and no user's count changes.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use streamgate::clock::SystemClock;
use streamgate::session::{Admission, Ending, Released, Renewal, StartRules, WhenFull};
use streamgate::store::{MemoryStore, Shard, Store};

use super::{LONG, Pair, TOKENS, answered, lasting, lasting_store, lasting_terms, logged};
use testkit::api::{Api, on_both};
use testkit::app::TokensFile;
use testkit::gateway_client::{Answer, Check, Gateway, periodic};
use testkit::redis::RedisServer;
use testkit::streams::{playback, sighting, user};
use testkit::watch::eventually;

/// As many releases as fit in one request.
const BATCH: usize = 100;

/// More ends than any list of a roster has room for.
const MORE_THAN_A_LIST: usize = 200;

/// Releases of a user's playbacks that never were.
fn junk(user: &str, from: usize, count: usize) -> Value {
    (from..from + count)
        .map(|number| json!({"user": user, "session": format!("never-{number}")}))
        .collect()
}

/// Tells the release hook.
async fn release(api: &Api<'_>, releases: Value) {
    let told = api.call(Method::POST, "/v1/release", Some(releases)).await;
    assert_eq!(told.status, 204, "{told:?}");
}

/// A playback's request, which is let in.
async fn plays(gateway: &Gateway, user: &str, id: &str) -> Answer {
    let answer = gateway.check(Check::of_playback(user, id)).await;
    assert!(answer.is_allowed(), "{answer:?}");
    answer
}

/// Starts three playbacks at an instance and has Envoy report that they play.
async fn three_that_play(pair: &Pair, ids: [&str; 3]) -> Vec<Answer> {
    let [one, _] = &pair.apps;
    let gateway = one.gateway().await;
    let mut answers = Vec::new();
    for id in ids {
        answers.push(plays(&gateway, "mallory", id).await);
    }
    let entries = answers.iter().map(|answer| answered(200, answer)).collect();
    logged(one, entries).await;
    for id in ids {
        plays(&gateway, "mallory", id).await;
    }
    assert_eq!(one.checks("allow", "held").await, 3, "they have played");
    answers
}

/// Envoy's reports that playbacks continue. They name no response, because a running one would be
/// counted separately.
fn seen_running(answers: &[Answer]) -> Vec<HttpAccessLogEntry> {
    let entries = answers.iter().map(|answer| HttpAccessLogEntry {
        request: None,
        ..periodic("any", answer)
    });
    entries.collect()
}

#[tokio::test]
async fn released_playbacks_stay_ended_whatever_junk_follows() {
    // One list's worth and more, and just the 64 that were enough once.
    for ends in [MORE_THAN_A_LIST, 64] {
        let pair = Pair::start(|plan| plan.limit(3).leases(LONG, LONG)).await;
        let [one, other] = &pair.apps;
        let apis = [Api::of(one), Api::of(other)];
        let old = three_that_play(&pair, ["p1", "p2", "p3"]).await;

        let ids = ["p1", "p2", "p3"].map(|id| json!({"user": "mallory", "session": id}));
        release(&apis[1], json!(ids)).await;
        for from in (0..ends).step_by(BATCH) {
            release(&apis[1], junk("mallory", from, BATCH.min(ends - from))).await;
        }
        let gateways = [one.gateway().await, other.gateway().await];
        for id in ["q1", "q2", "q3"] {
            plays(&gateways[1], "mallory", id).await;
        }
        let new = ["q1", "q2", "q3"];
        assert_eq!(apis[1].live("mallory").await, new);

        logged(one, seen_running(&old)).await;
        assert_eq!(apis[1].live("mallory").await, new);
        for id in ["p1", "p2", "p3"] {
            apis[0]
                .put("mallory", id, json!({}))
                .await
                .is_problem(410, "ended");
            let late = gateways[0].check(Check::of_playback("mallory", id)).await;
            assert_eq!(late.reason(), "ended", "{late:?}");
        }
        for at in [0, 1] {
            assert_eq!(apis[at].live("mallory").await, new);
        }
        pair.stop().await;
    }
}

/// An instance's sessions whose ends had to be forgotten are decided like starts: nothing comes
/// back above the limit.
#[tokio::test]
async fn ends_that_a_roster_had_to_forget_bring_nothing_back() {
    let pair = Pair::start(|plan| plan.limit(3).leases(LONG, LONG)).await;
    let [one, other] = &pair.apps;
    let apis = [Api::of(one), Api::of(other)];
    let gateways = [one.gateway().await, other.gateway().await];
    let old = three_that_play(&pair, ["p1", "p2", "p3"]).await;
    let ids = ["p1", "p2", "p3"].map(|id| json!({"user": "mallory", "session": id}));
    release(&apis[1], json!(ids)).await;
    // Each of these was live, so that its end belongs in the same list.
    for number in 0..80 {
        let id = format!("short-{number}");
        plays(&gateways[1], "mallory", &id).await;
        release(&apis[1], json!({"user": "mallory", "session": id})).await;
    }
    let new = ["q1", "q2", "q3"];
    for id in new {
        plays(&gateways[1], "mallory", id).await;
    }
    logged(one, seen_running(&old)).await;
    assert_eq!(apis[1].live("mallory").await, new);
    for id in ["p1", "p2", "p3"] {
        let told = apis[0].put("mallory", id, json!({})).await;
        assert!([410, 429].contains(&told.status.as_u16()), "{told:?}");
    }
    assert_eq!(apis[1].live("mallory").await, new);
    pair.stop().await;
}

#[tokio::test]
async fn an_operator_s_end_survives_the_user_s_own_flood() {
    on_both(async |plan| {
        let file = TokensFile::of(TOKENS);
        let plan = plan.limit(2).leases(LONG, LONG);
        let app = plan.tokens(&file).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let operator = api.with_token("operators-token");
        let mallory = api.with_token("mallorys-token");
        plays(&gateway, "mallory", "kicked").await;
        let ended = operator.delete("/v1/users/mallory/sessions").await;
        assert_eq!(ended.status, 200, "{ended:?}");
        for from in (0..MORE_THAN_A_LIST).step_by(BATCH) {
            release(&mallory, junk("mallory", from, BATCH)).await;
        }
        // Nor do ends of live sessions, each with an end of its own.
        for number in 0..80 {
            let id = format!("short-{number}");
            assert_eq!(mallory.put("mallory", &id, json!({})).await.status, 201);
            release(&mallory, json!({"user": "mallory", "session": id})).await;
        }
        let refused = gateway.check(Check::of_playback("mallory", "kicked")).await;
        assert_eq!((refused.http, refused.reason()), (429, "operator"));
        let told = mallory.put("mallory", "kicked", json!({})).await;
        told.is_problem(410, "operator");
        assert_eq!(operator.live("mallory").await, [""; 0]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_flood_through_the_release_hook_changes_no_count() {
    const ENDS: usize = 20_000;
    const AT_ONCE: usize = 4;
    on_both(async |plan| {
        let app = plan.limit(3).leases(LONG, LONG).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        for user in ["mallory", "anna"] {
            for id in ["p1", "p2", "p3", "gone"] {
                if id == "gone" {
                    release(&api, json!({"user": user, "session": "p2"})).await;
                }
                plays(&gateway, user, id).await;
            }
        }
        let batches = stream::iter((0..ENDS).step_by(BATCH));
        batches
            .for_each_concurrent(AT_ONCE, async |from| {
                release(&api, junk("mallory", from, BATCH)).await;
            })
            .await;
        for user in ["mallory", "anna"] {
            assert_eq!(api.live(user).await, ["p1", "p3", "gone"], "{user}");
            let full = gateway.check(Check::of_playback(user, "p5")).await;
            assert_eq!(full.reason(), "full", "{full:?}");
            let ended = gateway.check(Check::of_playback(user, "p2")).await;
            assert_eq!(ended.reason(), "ended", "{ended:?}");
        }
        app.stop().await;
    })
    .await;
}

/// A hundred thousand ends, most of ids that never existed, every third one an operator's, directly
/// at a store.
async fn flood(store: &dyn Store) {
    const ENDS: usize = 100_000;
    let mallory = user("mallory");
    let rules = StartRules::new(3, WhenFull::Refuse);
    let ids = ["p1", "p2", "p3"].map(playback);
    for key in &ids {
        let admission = store.admit(&mallory, &lasting(key), &rules).await;
        assert!(matches!(admission, Ok(Admission::Admitted(_))));
    }
    let [gone, ..] = &ids;
    let released = store.release(&mallory, gone, Ending::Stream, Duration::ZERO);
    assert!(matches!(released.await, Ok(Released::Freed)));
    let last = lasting(&playback("p4"));
    store.admit(&mallory, &last, &rules).await.unwrap();
    for from in (0..ENDS).step_by(BATCH) {
        let ends = (from..from + BATCH).map(async |number| {
            let ending = [Ending::Stream, Ending::Vouched, Ending::Operator][number % 3];
            let key = playback(&format!("never-{number}"));
            let age = Duration::ZERO;
            store.release(&mallory, &key, ending, age).await.unwrap()
        });
        join_all(ends).await;
    }
    let listing = store.list(&mallory).await.unwrap();
    let live = listing
        .sessions
        .iter()
        .map(|session| session.key.id.as_str());
    assert_eq!(live.collect::<Vec<_>>(), ["p2", "p3", "p4"]);
    // A late report of the ended playback, from an instance that still holds it.
    let renewal = store.renew(&mallory, &sighting(gone), 3).await.unwrap();
    assert!(matches!(renewal, Renewal::Ended(_)), "{renewal:?}");
}

#[tokio::test]
async fn a_hundred_thousand_ends_at_the_embedded_store_change_no_count() {
    let clock = Arc::new(SystemClock::start());
    flood(&MemoryStore::new(lasting_terms(), clock)).await;
}

#[tokio::test]
async fn a_hundred_thousand_ends_in_redis_change_no_count() {
    let redis = RedisServer::start();
    let store = lasting_store(&redis);
    eventually("it is connected", async || {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
    flood(&store).await;
    let length: usize = redis.run(&["STRLEN", "streamgate:{mallory}"]);
    assert!(length < 8000, "three lists are bounded: {length} bytes");
}
