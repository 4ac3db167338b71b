//! A Redis that is to be left in peace.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use testkit::cluster::{RedisCluster, in_cluster};
use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::redis::RedisServer;
use testkit::streamgate::{Setting, Streamgate};

use super::{PART, TURN, ask, on_redis};

/// Asks for segment after segment of a playback, each at its time unless the one before was late; how many times it was let in.
async fn play(gateway: Gateway, user: String, segments: usize, length: Duration) -> usize {
    let mut next = tokio::time::interval(length);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut let_in = 0;
    for _ in 0..segments {
        next.tick().await;
        let answer = ask(&gateway, Check::of_playback(&user, "tv")).await;
        let Some(answer) = answer.filter(Answer::is_allowed) else {
            continue;
        };
        if let_in == 0 {
            gateway.report_success(&answer).await;
        }
        let_in += 1;
    }
    let_in
}

/// How many commands these masters execute for a check of a playback load, on a streamgate with
/// these settings: in all, and without the two for a playback's start.
async fn commands_a_check(store: &[Setting<'_>], masters: &[&RedisServer]) -> [f64; 2] {
    // As with the lease of 30 s that is shipped and segments of 2 s, but five times as fast.
    const SEGMENT: Duration = Duration::from_millis(400);
    const SEGMENTS: usize = 40;
    const USERS: usize = 400 / PART;
    let settings = [store, &[("leases.playback", "6s")]].concat();
    let streamgate = Streamgate::start(&settings).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    for master in masters {
        master.run::<()>(&["CONFIG", "RESETSTAT"]);
    }
    let mut playing = JoinSet::new();
    for number in 0..USERS {
        // They begin one after the other, as viewers do, and not all at once.
        tokio::time::sleep(SEGMENT / u32::try_from(USERS).unwrap()).await;
        let user = format!("user-{number}");
        playing.spawn(play(gateway.clone(), user, SEGMENTS, SEGMENT));
    }
    let let_in: usize = playing.join_all().await.into_iter().sum();
    assert_eq!(let_in, USERS * SEGMENTS);
    let calls = |master: &&RedisServer| calls(master, "evalsha") + calls(master, "eval");
    let calls: u32 = masters.iter().map(calls).sum();
    assert!(calls > 0);
    let starts = 2 * u32::try_from(USERS).unwrap();
    let ratios = [calls, calls.saturating_sub(starts)]
        .map(|calls| f64::from(calls) / f64::from(u32::try_from(let_in).unwrap()));
    println!(
        "measured: {calls} Redis commands for {let_in} checks of {USERS} playbacks, masters {}: {:.3} a check, {:.3} without starts",
        masters.len(),
        ratios[0],
        ratios[1]
    );
    ratios
}

/// How often that server was called so.
fn calls(server: &RedisServer, command: &str) -> u32 {
    let report: String = server.run(&["INFO", "commandstats"]);
    let start = format!("cmdstat_{command}:calls=");
    let found = report.lines().find_map(|line| line.strip_prefix(&start));
    found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playbacks_cost_at_most_one_redis_command_for_ten_checks() {
    let _turn = TURN.lock().await;
    let redis = RedisServer::start();
    let url = redis.url();
    let store = on_redis(&url, &[("store.timeout", "2s")]);
    let [ratio, _] = commands_a_check(&store, &[&redis]).await;
    assert!(ratio <= 0.1, "{ratio}");
}

/// Renewals share no calls there. A playback's start costs two commands more, which matter the less
/// the longer it plays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_playbacks_that_go_on_cost_at_most_two_redis_commands_for_ten_checks() {
    let _turn = TURN.lock().await;
    let cluster = RedisCluster::start();
    let urls = cluster.urls().join(",");
    let masters: Vec<_> = cluster.masters().iter().map(|node| &node.server).collect();
    let [_, ratio] = commands_a_check(&in_cluster(&urls), &masters).await;
    assert!(ratio <= 0.2, "{ratio}");
}
