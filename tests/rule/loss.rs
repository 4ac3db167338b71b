//! Proof of loss takes more than one user: making one's own sessions unknown to Redis has no other
//! user's announced again.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::{LONG, PATIENT, answered, logged};
use testkit::api::Api;
use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::redis::RedisServer;
use testkit::watch::eventually;

/// How many users an instance asks the store about because of one user that it did not know.
const SAMPLE: u64 = 16;

/// The number of users that an instance knows, apart from the attacker.
const STRANGERS: usize = 2000;

/// An instance that holds the leases of so many strangers, each with these playbacks, which play.
async fn holding(redis: &RedisServer, strangers: usize, ids: &[&str]) -> TestApp {
    let plan = TestApp::plan().redis(&redis.url(), PATIENT);
    let app = plan.leases(LONG, LONG).start().await;
    let gateway = app.gateway().await;
    let sessions = (0..strangers).flat_map(|number| ids.iter().map(move |id| (number, id)));
    let starts = sessions.map(async |(number, id)| {
        let check = Check::of_playback(&format!("stranger-{number}"), id);
        let answer = gateway.check(check).await;
        assert!(answer.is_allowed(), "{answer:?}");
        answered(200, &answer)
    });
    let entries = stream::iter(starts).buffer_unordered(64).collect().await;
    logged(&app, entries).await;
    app
}

/// How often Redis has run a command, also within scripts.
fn calls(redis: &RedisServer, command: &str) -> u64 {
    let report: String = redis.run(&["INFO", "commandstats"]);
    let start = format!("cmdstat_{command}:calls=");
    let found = report.lines().find_map(|line| line.strip_prefix(&start));
    found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn one_viewer_s_lost_sessions_cost_others_one_small_sample() {
    const ROUNDS: u64 = 30;
    let redis = RedisServer::start();
    let app = holding(&redis, STRANGERS, &["tv"]).await;
    let (api, gateway) = (Api::of(&app), app.gateway().await);
    let answer = gateway.check(Check::of_playback("mallory", "p1")).await;
    assert!(answer.is_allowed(), "{answer:?}");
    logged(&app, vec![answered(200, &answer)]).await;
    redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    for _ in 0..ROUNDS {
        redis.run::<i64>(&["DEL", "streamgate:{mallory}"]);
        let told = api.put("mallory", "p1", json!({})).await;
        assert_eq!(told.status, 201, "it was unknown: {told:?}");
    }
    let renewed = async || {
        app.metric("streamgate_renewals_total{outcome=\"renewed\"}")
            .await
    };
    eventually("others are asked about", async || renewed().await > 0).await;
    // Announcing all held sessions takes a third of a second. That it doesn't happen can only be
    // waited for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Each start of hers reads one roster and whether an operator has set a limit, and each stranger
    // costs another roster.
    let (asked, read) = (renewed().await, calls(&redis, "get"));
    println!("{asked} strangers asked about, {read} keys read");
    assert!(asked <= SAMPLE, "{asked} strangers asked about");
    assert!(read <= 2 * ROUNDS + 2 * SAMPLE, "{read} keys read");
    assert_eq!(app.metric("streamgate_store_forgot_total").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn a_redis_that_lost_everything_is_told_of_everybody_by_itself() {
    let redis = RedisServer::start();
    let app = holding(&redis, STRANGERS, &["tv"]).await;
    // The instance keeps some keys about the installation too.
    let size = || redis.run::<Vec<String>>(&["KEYS", "streamgate:{*}"]).len();
    assert_eq!(size(), STRANGERS);
    redis.run::<()>(&["FLUSHALL"]);
    let api = Api::of(&app);
    let told = api.put("stranger-7", "tv", json!({})).await;
    assert_eq!(told.status, 201, "{told:?}");
    eventually("all count again", async || size() == STRANGERS).await;
    assert!(app.metric("streamgate_store_forgot_total").await >= 1);
    app.stop().await;
}

/// With too few users to tell one user's doing from a loss, each heals separately, and no alarm is
/// raised.
#[tokio::test]
async fn two_users_heal_without_a_proof_of_loss() {
    let redis = RedisServer::start();
    let app = holding(&redis, 2, &["tv", "phone"]).await;
    redis.run::<()>(&["FLUSHALL"]);
    let api = Api::of(&app);
    let told = api.put("stranger-0", "tv", json!({})).await;
    assert_eq!(told.status, 201, "{told:?}");
    for user in ["stranger-0", "stranger-1"] {
        eventually("both playbacks count again", async || {
            api.live(user).await.len() == 2
        })
        .await;
    }
    assert_eq!(app.metric("streamgate_store_forgot_total").await, 0);
    app.stop().await;
}
