//! Which keys there are, when they expire, and by whose clock.

use std::sync::Arc;
use std::time::Duration;

use streamgate::clock::{Clock, ManualClock, Timestamp};
use streamgate::identity::Kind;
use streamgate::session::{Admission, Ending, Renewal, Sighting, Start, Terms};
use streamgate::store::Store;
use streamgate::store::redis::{RedisSettings, RedisStore};

use testkit::redis::RedisServer;
use testkit::streams::{LEASE, key, playback, refusing, sighting, start, user};
use testkit::watch::eventually;

use super::{DEADLINE, admit, end, is_started};

#[tokio::test]
async fn time_is_the_servers_own() {
    let server = RedisServer::start();
    let store = server.store();
    let seconds: (u64, u64) = server.run(&["TIME"]);
    let Ok(Admission::Admitted(admitted)) = admit(&store, "alice", "a").await else {
        panic!("not admitted");
    };
    let apart = admitted.decided_at.as_millis().abs_diff(seconds.0 * 1000);
    assert!(apart < 10_000, "{apart} ms from the server's clock");
    let listing = store.list(&user("alice")).await.unwrap();
    assert_eq!(
        listing.sessions[0].expires_at,
        admitted.decided_at.after(LEASE)
    );
    assert!(listing.taken_at >= admitted.decided_at);
}

#[tokio::test]
async fn a_lease_ends_by_the_servers_clock_and_the_next_gets_in() {
    let server = RedisServer::start();
    let store = server.store();
    let lease = Duration::from_millis(200);
    let short = Start {
        lease,
        ..start(&playback("a"))
    };
    let admission = store.admit(&user("alice"), &short, &refusing(1)).await;
    assert!(is_started(&admission));
    eventually("the lease has ended", || async {
        let next = start(&playback("b"));
        is_started(&store.admit(&user("alice"), &next, &refusing(1)).await)
    })
    .await;
}

#[tokio::test]
async fn every_key_expires_and_an_empty_roster_leaves_none() {
    let server = RedisServer::start();
    let store = server.store();
    for n in 0..20 {
        let name = format!("user {n}");
        assert!(is_started(&admit(&store, &name, "a").await));
        if n % 2 == 0 {
            store
                .renew(&user(&name), &sighting(&playback("a")), 3)
                .await
                .unwrap();
        }
        if n % 3 == 0 {
            store
                .release(&user(&name), &playback("a"), Ending::Stream, Duration::ZERO)
                .await
                .unwrap();
        }
        store
            .renew(&user(&name), &sighting(&playback("b")), 3)
            .await
            .unwrap();
    }
    let keys: Vec<String> = server.run(&["KEYS", "*"]);
    assert_eq!(keys.len(), 20);
    for key in keys {
        let left: i64 = server.run(&["PTTL", &key]);
        assert!(
            (30_000..70_000).contains(&left),
            "{key} is kept for {left} ms"
        );
    }
    let video = key(Kind::Video, "film");
    let visit = start(&video);
    store
        .admit(&user("guest"), &visit, &refusing(3))
        .await
        .unwrap();
    assert_eq!(server.run::<i64>(&["EXISTS", "streamgate:{guest}"]), 1);
    store
        .release(&user("guest"), &video, Ending::Stream, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(server.run::<i64>(&["EXISTS", "streamgate:{guest}"]), 0);
}

#[tokio::test]
async fn a_key_outlives_every_renewal() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let store = server.store().with_clock(clock.clone());
    assert!(is_started(&admit(&store, "alice", "a").await));
    for _ in 0..30 {
        // The roster's clock is set on; so that the key's life runs on with it, as much of that is taken away.
        let passed = Duration::from_secs(7);
        clock.advance(passed);
        let left: u64 = server.run(&["PTTL", "streamgate:{alice}"]);
        let left = Duration::from_millis(left).checked_sub(passed).unwrap();
        let left = left.as_millis().to_string();
        server.run::<i64>(&["PEXPIRE", "streamgate:{alice}", &left]);
        let seen = sighting(&playback("a"));
        let renewal = store.renew(&user("alice"), &seen, 3).await;
        assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
        let left: u64 = server.run(&["PTTL", "streamgate:{alice}"]);
        assert!(left > 20_000, "{left} ms left for a lease of {LEASE:?}");
    }
}

#[tokio::test]
async fn what_was_granted_under_longer_terms_is_not_cut_to_the_shorter() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let of = |lease| {
        let terms = Terms::new(lease, DEADLINE);
        let settings = RedisSettings {
            terms,
            ..server.settings()
        };
        RedisStore::open(settings)
            .unwrap()
            .with_clock(clock.clone())
    };
    let (long, short) = (of(LEASE * 2), of(LEASE));
    let (alice, a, b) = (user("alice"), playback("a"), playback("b"));
    let seen = Sighting {
        lease: LEASE * 2,
        ..sighting(&a)
    };
    long.renew(&alice, &seen, 3).await.unwrap();
    for _ in 0..4 {
        // Renewed where it stands, and so with nothing else in the roster to tell.
        clock.advance(LEASE / 2);
        long.renew(&alice, &seen, 3).await.unwrap();
    }
    short
        .release(&alice, &b, Ending::Vouched, Duration::ZERO)
        .await
        .unwrap();
    let sessions = short.list(&alice).await.unwrap().sessions;
    assert_eq!(sessions[0].expires_at, clock.now().after(LEASE * 2));

    // An end that the one with the shorter lease writes down outlasts the longer lease that runs.
    let c = playback("c");
    end(&short, &alice, &c).await.unwrap();
    clock.advance(LEASE * 2);
    let admission = short.admit(&alice, &start(&c), &refusing(3)).await;
    assert!(!is_started(&admission), "its end is remembered");
    clock.advance(LEASE);
    let admission = short.admit(&alice, &start(&c), &refusing(3)).await;
    assert!(is_started(&admission), "its end is remembered for too long");
}

#[tokio::test]
async fn a_user_is_one_key_whose_hash_tag_is_the_user() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let other = RedisServer::start();
    let store = other.store();
    for (name, tag) in [
        ("alice", "alice"),
        ("{a}", "%7Ba%7D"),
        ("a}b{c", "a%7Db%7Bc"),
        ("50%", "50%25"),
        ("zo\u{eb}", "zo\u{eb}"),
    ] {
        assert!(is_started(&admit(&store, name, "a").await));
        let key = format!("streamgate:{{{tag}}}");
        assert_eq!(other.run::<i64>(&["EXISTS", &key]), 1, "{key}");
        let slots: [i64; 2] = [&key, tag].map(|of| server.run(&["CLUSTER", "KEYSLOT", of]));
        assert_eq!(slots[0], slots[1], "{key}");
    }
    assert_eq!(other.run::<i64>(&["DBSIZE"]), 5);
}
