//! Instances whose settings differ on one Redis, each with each: what every such pair still
//! promises.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use streamgate::clock::Timestamp;
use streamgate::store::Store;
use streamgate::store::redis::RedisStore;

use super::{LONG, PATIENT};
use testkit::api::Api;
use testkit::app::{Plan, TestApp};
use testkit::gateway_client::{Answer, Check};
use testkit::redis::RedisServer;
use testkit::streams::user;

/// What one instance has that others have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    AsShipped,
    LeasesOfAMinute,
    LeasesOfAnHour,
    HigherLimit,
    Grace,
    AllDerived,
}

const SETTINGS: [Setting; 6] = [
    Setting::AsShipped,
    Setting::LeasesOfAMinute,
    Setting::LeasesOfAnHour,
    Setting::HigherLimit,
    Setting::Grace,
    Setting::AllDerived,
];

impl Setting {
    fn plan(self, redis: &RedisServer) -> Plan {
        let minute = Duration::from_secs(60);
        let plan = TestApp::plan().limit(2).redis(&redis.url(), PATIENT);
        match self {
            Self::AsShipped => plan,
            Self::LeasesOfAMinute => plan.leases(minute, minute),
            Self::LeasesOfAnHour => plan.leases(LONG, LONG),
            Self::HigherLimit => plan.limit(3),
            Self::Grace => plan.grace(Duration::from_millis(50)),
            Self::AllDerived => plan.all_derived(),
        }
    }
}

/// Until when each of a user's sessions counts in Redis, by its id.
async fn ends(store: &RedisStore, name: &str) -> Vec<(String, Timestamp)> {
    let listing = store.list(&user(name)).await.unwrap();
    let sessions = listing.sessions.iter();
    sessions
        .map(|session| (session.key.id.to_string(), session.expires_at))
        .collect()
}

async fn check(app: &TestApp, name: &str, id: &str) -> Answer {
    app.gateway()
        .await
        .check(Check::of_playback(name, id))
        .await
}

/// Two streams start at one instance, and the other one decides about what follows.
async fn keep_their_promises(
    (first, one): (Setting, &TestApp),
    (second, other): (Setting, &TestApp),
    store: &RedisStore,
) {
    let name = format!("{first:?}-{second:?}");
    for id in ["p1", "p2"] {
        let answer = check(one, &name, id).await;
        assert!(answer.is_allowed(), "{name} {id}: {answer:?}");
    }
    let granted = ends(store, &name).await;
    // Each instance decides by its own limit, and no session loses a slot to that.
    let third = check(other, &name, "p3").await;
    let is_higher = second == Setting::HigherLimit;
    assert_eq!(third.is_allowed(), is_higher, "{name}: {third:?}");
    let after = ends(store, &name).await;
    assert_eq!(after.len(), 2 + usize::from(is_higher), "{name}");
    for (before, after) in granted.iter().zip(&after) {
        assert_eq!(before.0, after.0, "{name}");
        assert!(before.1 <= after.1, "{name}: a lease was shortened");
    }
    // The record of the instance that admitted it says whether an id may start again, whichever
    // instance learns of its end and is asked.
    let path = |id: &str| format!("/v1/users/{name}/sessions/{id}");
    assert_eq!(Api::of(other).delete(&path("p1")).await.status, 204);
    let again = check(other, &name, "p1").await;
    let is_derived = first == Setting::AllDerived;
    assert_eq!(again.is_allowed(), is_derived, "{name}: {again:?}");
    if !is_derived {
        assert_eq!(again.reason(), "ended", "{name}");
        let told = Api::of(one).put(&name, "p1", json!({})).await;
        told.is_problem(410, "ended");
    }
    // What an operator has ended stays so, at both.
    let all = format!("/v1/users/{name}/sessions");
    assert_eq!(Api::of(one).delete(&all).await.status, 200);
    for app in [one, other] {
        let told = Api::of(app).put(&name, "p2", json!({})).await;
        told.is_problem(410, "operator");
    }
    assert!(ends(store, &name).await.is_empty(), "{name}");
}

#[tokio::test]
async fn each_pair_of_settings_on_one_redis_keeps_its_promises() {
    let redis = RedisServer::start();
    let store = redis.store();
    let apps = join_all(SETTINGS.map(|setting| setting.plan(&redis).start())).await;
    let apps: Vec<_> = SETTINGS.into_iter().zip(&apps).collect();
    for one in &apps {
        let pairs = apps
            .iter()
            .map(|other| keep_their_promises(*one, *other, &store));
        join_all(pairs).await;
    }
}

#[tokio::test]
async fn instances_with_different_prefixes_count_apart() {
    let redis = RedisServer::start();
    let plan = || TestApp::plan().limit(1).redis(&redis.url(), PATIENT);
    let (one, other) = (
        plan().start().await,
        plan().key_prefix("other").start().await,
    );
    for app in [&one, &other] {
        assert!(check(app, "anna", "p1").await.is_allowed());
        assert_eq!(check(app, "anna", "p2").await.reason(), "full");
    }
    one.stop().await;
    other.stop().await;
}
