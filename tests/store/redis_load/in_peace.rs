//! A Redis that is to be left in peace.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playbacks_cost_at_most_one_redis_command_for_ten_checks() {
    // As with the lease of 30 s that is shipped and segments of 2 s, but five times as fast.
    const SEGMENT: Duration = Duration::from_millis(400);
    const SEGMENTS: usize = 40;
    const USERS: usize = 400 / PART;
    let _turn = TURN.lock().await;
    let redis = RedisServer::start();
    let url = redis.url();
    let settings = [("leases.playback", "6s"), ("store.timeout", "2s")];
    let streamgate = Streamgate::start(&on_redis(&url, &settings)).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    let mut playing = JoinSet::new();
    for number in 0..USERS {
        // They begin one after the other, as viewers do, and not all at once.
        tokio::time::sleep(SEGMENT / u32::try_from(USERS).unwrap()).await;
        let user = format!("user-{number}");
        playing.spawn(play(gateway.clone(), user, SEGMENTS, SEGMENT));
    }
    let let_in: usize = playing.join_all().await.into_iter().sum();
    assert_eq!(let_in, USERS * SEGMENTS);
    let report: String = redis.run(&["INFO", "commandstats"]);
    let calls = |command: &str| -> u32 {
        let start = format!("cmdstat_{command}:calls=");
        let found = report.lines().find_map(|line| line.strip_prefix(&start));
        found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    let calls = calls("evalsha") + calls("eval");
    let ratio = f64::from(calls) / f64::from(u32::try_from(let_in).unwrap());
    println!("{calls} Redis commands for {let_in} checks of {USERS} playbacks: {ratio:.3} a check");
    assert!(calls > 0 && ratio <= 0.1, "{ratio}");
}
