//! One of the three shards of a real cluster of six in trouble: the rule decides about its users,
//! and Redis about all others. What is asserted are counts.

use std::sync::Arc;

use futures_util::future::join_all;
use streamgate::config::OutageRule;

use super::{Fault, RULES, TIMEOUT, blocking};
use testkit::app::TestApp;
use testkit::cluster::{MASTERS, RedisCluster};
use testkit::gateway_client::Check;
use testkit::proxy::Proxy;
use testkit::watch::eventually;

/// How many users begin to watch, as their names fall to the shards.
const USERS: usize = 240;

/// How many of them do at once.
const AT_ONCE: usize = 40;

/// What the checks are counted as that this rule decides about.
const fn by_rule(rule: OutageRule) -> (&'static str, &'static str) {
    match rule {
        OutageRule::Allow => ("allow", "outage_allowed"),
        OutageRule::Deny => ("error", "outage"),
        OutageRule::Local => ("allow", "outage_local"),
    }
}

/// Everybody begins to watch, by each rule in turn, while the first shard is in that trouble.
async fn the_rule_decides_about_its_users_alone(fault: Fault) {
    let cluster = Arc::new(blocking(RedisCluster::start).await);
    let proxy = Proxy::before(cluster.masters()[0].server.port()).await;
    cluster.announce(proxy.port()).await;
    for rule in RULES {
        let names = (0..USERS).map(|number| format!("{rule:?} user {number}"));
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            names.partition(|name| cluster.owner(cluster.slot(name)) == 0);
        assert!(here.len() > USERS / 6, "{}", here.len());
        // Longer than a sound shard needs on a busy machine.
        let plan = TestApp::plan().cluster(&cluster.urls(), TIMEOUT * 6);
        let app = plan.outage(rule).start().await;
        let gateway = app.gateway().await;
        let all_up = async || shards(&app).await == (MASTERS as u64, 0);
        eventually("all shards answer", all_up).await;
        let act = |act: fn(Fault, &_)| {
            let its = Arc::clone(&cluster);
            blocking(move || act(fault, &its.masters()[0].server))
        };
        match fault {
            Fault::Stall => proxy.stall(),
            Fault::Cut => proxy.cut(),
            _ => act(Fault::strike).await,
        }
        let everybody: Vec<_> = here.iter().chain(&elsewhere).collect();
        for some in everybody.chunks(AT_ONCE) {
            join_all(some.iter().map(async |name| {
                let answer = gateway.check(Check::of_playback(name, "film")).await;
                let is_let_in = rule != OutageRule::Deny || elsewhere.contains(name);
                assert_eq!(answer.is_allowed(), is_let_in, "{fault:?} {rule:?} {name}");
            }))
            .await;
        }
        let (decision, reason) = by_rule(rule);
        let under_the_rule = app.checks(decision, reason).await;
        let by_redis = app.checks("allow", "started").await;
        let expected = [here.len(), elsewhere.len()].map(|users| users as u64);
        assert_eq!(
            [under_the_rule, by_redis],
            expected,
            "{fault:?} {rule:?}: the share of the checks is that of the users"
        );
        assert_eq!(shards(&app).await, (MASTERS as u64 - 1, 1));
        proxy.restore();
        act(Fault::mend).await;
        eventually("all shards answer again", all_up).await;
        drop(gateway);
        app.stop().await;
    }
}

/// How many shards answer by `/readyz`, and how many are named there as being in trouble.
async fn shards(app: &TestApp) -> (u64, usize) {
    let told: serde_json::Value = app.get("/readyz").await.json().await.unwrap();
    let shards = &told["store"]["shards"];
    let troubles = shards["troubles"].as_array().map_or(0, Vec::len);
    (shards["up"].as_u64().unwrap_or(0), troubles)
}

#[tokio::test]
async fn the_rule_decides_about_the_users_of_a_dead_shard_alone() {
    the_rule_decides_about_its_users_alone(Fault::Killed).await;
}

#[tokio::test]
async fn the_rule_decides_about_the_users_of_a_hung_shard_alone() {
    the_rule_decides_about_its_users_alone(Fault::Paused).await;
}

#[tokio::test]
async fn the_rule_decides_about_the_users_of_a_silent_shard_alone() {
    the_rule_decides_about_its_users_alone(Fault::Stall).await;
}

#[tokio::test]
async fn the_rule_decides_about_the_users_of_a_shard_that_is_cut_off_alone() {
    the_rule_decides_about_its_users_alone(Fault::Cut).await;
}
