//! Many calls at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use streamgate::clock::{Clock, ManualClock, Stopwatch, Timestamp};
use streamgate::session::{Admission, Refusal, Renewal};
use streamgate::store::{Shard, Store, StoreError};

use testkit::redis::RedisServer;
use testkit::streams::LEASE;
use testkit::watch::eventually;

use super::{DEADLINE, active, admit, hasty, is_started, seen};

#[tokio::test]
async fn fifty_starts_at_once_from_two_gateways_fill_the_slots_exactly_a_thousand_times() {
    let server = RedisServer::start();
    let gateways = [server.store(), server.store()];
    let wrong = AtomicUsize::new(0);
    stream::iter(0..1000)
        .for_each_concurrent(4, |round| {
            let (gateways, wrong) = (&gateways, &wrong);
            async move {
                let name = format!("user {round}");
                let starts = (0..50).map(|number| {
                    let (name, gateway) = (&name, &gateways[number % 2]);
                    async move { admit(gateway, name, &number.to_string()).await }
                });
                let admissions = join_all(starts).await;
                let mut counted = HashMap::new();
                for admission in &admissions {
                    let is_full = matches!(admission, Ok(Admission::Refused(Refusal::Full { .. })));
                    *counted.entry((is_started(admission), is_full)).or_insert(0) += 1;
                }
                let expected = HashMap::from([((true, false), 3), ((false, true), 47)]);
                if counted != expected || active(&gateways[round % 2], &name).await != 3 {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .await;
    assert_eq!(
        wrong.into_inner(),
        0,
        "rounds in which not exactly three were let in"
    );
}

/// How many calls of scripts the server has had.
fn script_calls(server: &RedisServer) -> usize {
    let report: String = server.run(&["INFO", "commandstats"]);
    let calls = report.lines().find_map(|line| {
        let fields = line.strip_prefix("cmdstat_evalsha:calls=")?;
        fields.split(',').next()?.parse().ok()
    });
    calls.unwrap_or(0)
}

#[tokio::test]
async fn sixty_four_renewals_are_two_calls() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let store = server.store().with_clock(clock.clone());
    let all: Vec<_> = (0..64)
        .map(|number| seen(&format!("user {}", number % 40), &format!("p{number}")))
        .collect();
    for seen in &all {
        let renewal = store.renew(&seen.user, &seen.sighting, 3).await;
        assert!(matches!(renewal, Ok(Renewal::PutBack { .. })));
    }
    clock.advance(LEASE / 2);
    let before = script_calls(&server);
    let renewals = store.renew_all(&all).await;
    assert_eq!(script_calls(&server) - before, 2);
    let expires_at = clock.now().after(LEASE);
    assert_eq!(renewals, vec![Ok(Renewal::Renewed { expires_at }); 64]);
    for seen in &all {
        for session in store.list(&seen.user).await.unwrap().sessions {
            assert_eq!(session.expires_at, expires_at);
            assert_eq!(session.renewed_at, clock.now());
        }
    }
}

#[tokio::test]
async fn an_error_about_one_user_affects_no_other_in_the_batch() {
    let server = RedisServer::start();
    let store = server.store();
    for name in ["alice", "bob"] {
        assert!(is_started(&admit(&store, name, "a").await));
    }
    let long = "\u{82}".repeat(40);
    server.run::<String>(&["SET", "streamgate:{text}", &long]);
    server.run::<i64>(&["HSET", "streamgate:{hash}", "a", "b"]);
    let names = ["alice", "text", "nobody", "hash", "bob"];
    let renewals = store.renew_all(&names.map(|name| seen(name, "a"))).await;
    assert!(matches!(renewals[0], Ok(Renewal::Renewed { .. })));
    assert!(matches!(renewals[1], Err(StoreError::Protocol(_))));
    assert!(matches!(renewals[2], Ok(Renewal::PutBack { .. })));
    assert!(matches!(renewals[3], Err(StoreError::Protocol(_))));
    assert!(matches!(renewals[4], Ok(Renewal::Renewed { .. })));
}

#[tokio::test]
async fn many_callers_of_a_dead_server_get_one_error_within_one_deadline() {
    let server = RedisServer::start();
    let store = hasty(&server);
    eventually("it is connected", || async {
        store.ping(&Shard::whole()).await.is_ok()
    })
    .await;
    let all: Vec<_> = (0..100).map(|n| seen(&n.to_string(), "a")).collect();
    server.pause();
    let waited = Stopwatch::start();
    let renewals = store.renew_all(&all).await;
    assert!(waited.elapsed() < DEADLINE * 2);
    assert_eq!(renewals, vec![Err(StoreError::Timeout(DEADLINE)); 100]);
    server.resume();
}
