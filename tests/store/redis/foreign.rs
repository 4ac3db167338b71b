//! Data at our keys that is not ours.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use streamgate::clock::{Clock, ManualClock, Timestamp};
use streamgate::identity::{DeviceId, Facts, Kind};
use streamgate::session::{Ending, Released, Renewal, Start, StartRules, WhenFull};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Store, StoreError};

use testkit::redis::RedisServer;
use testkit::streams::{LEASE, key, playback, refusing, sighting, start, user};

use super::{admit, end, heavy, is_started, seen};

#[tokio::test]
async fn what_others_wrote_at_our_key_is_not_understood_and_not_touched() {
    let server = RedisServer::start();
    let store = server.store();
    let no_roster = "\u{81}".repeat(40);
    for write in [
        &["SET", "streamgate:{alice}", "hello"][..],
        &[
            "SET",
            "streamgate:{alice}",
            "a text that is longer than any head of ours",
        ],
        &["SET", "streamgate:{alice}", ""],
        &["SET", "streamgate:{alice}", &no_roster],
        &["HSET", "streamgate:{alice}", "a", "b"],
    ] {
        server.run::<i64>(&["DEL", "streamgate:{alice}"]);
        server.run::<redis::Value>(write);
        let before: Vec<u8> = server.run(&["DUMP", "streamgate:{alice}"]);
        for failure in [
            admit(&store, "alice", "a").await.err(),
            store
                .renew(&user("alice"), &sighting(&playback("a")), 3)
                .await
                .err(),
            store
                .release(
                    &user("alice"),
                    &playback("a"),
                    Ending::Stream,
                    Duration::ZERO,
                )
                .await
                .err(),
            store.list(&user("alice")).await.err().or_else(|| {
                // An empty string is what a reader sees where there is nothing.
                (write[2].is_empty()).then(|| StoreError::Protocol(String::new()))
            }),
        ] {
            assert!(
                matches!(failure, Some(StoreError::Protocol(_))),
                "{write:?}: {failure:?}"
            );
        }
        assert_eq!(
            server.run::<Vec<u8>>(&["DUMP", "streamgate:{alice}"]),
            before,
            "{write:?}"
        );
    }
    assert!(
        is_started(&admit(&store, "bob", "a").await),
        "others are not concerned"
    );
}

#[tokio::test]
async fn whatever_is_at_our_key_no_script_hangs_and_nothing_panics() {
    let server = RedisServer::start();
    let store = server.store();
    let own = RedisSettings {
        key_prefix: "own".to_owned(),
        ..server.settings()
    };
    let own = RedisStore::open(own).unwrap();
    for id in ["a", "b", "c"] {
        assert!(is_started(&admit(&own, "alice", id).await));
    }
    own.release(
        &user("alice"),
        &playback("a"),
        Ending::Operator,
        Duration::ZERO,
    )
    .await
    .unwrap();
    let roster: Vec<u8> = server.run(&["GET", "own:{alice}"]);
    let rules = StartRules::new(2, WhenFull::DisplaceIdlest);
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..1500 {
        let mut bytes = roster.clone();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        bytes.truncate(bytes.len() - random.random_range(0..bytes.len()) * (round % 2));
        server.query::<()>(
            redis::cmd("SET")
                .arg("streamgate:{alice}")
                .arg(&bytes)
                .arg("PX")
                .arg(60_000),
        );
        let (alice, a) = (user("alice"), playback("a"));
        let start = Start {
            facts: heavy("a").facts,
            ..start(&playback("d"))
        };
        let failures = [
            store.list(&alice).await.err(),
            store.renew(&alice, &sighting(&a), 3).await.err(),
            store.admit(&alice, &start, &rules).await.err(),
            end(&store, &alice, &playback("b")).await.err(),
            store.list(&alice).await.err(),
        ];
        for failure in failures.into_iter().flatten() {
            assert!(
                matches!(failure, StoreError::Protocol(_)),
                "{failure:?} at {bytes:?}"
            );
        }
    }
}

/// The name that is kept as these bytes, three to four characters.
fn name_kept_as(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let four = |three: &[u8]| {
        let bits = three
            .iter()
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(alphabet[bits >> shift & 63]))
    };
    bytes.chunks_exact(3).flat_map(four).collect()
}

#[tokio::test]
async fn a_name_that_is_kept_as_a_session_would_be_is_none() {
    let server = RedisServer::start();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let store = server.store().with_clock(clock.clone());
    let alice = user("alice");
    let time = |millis: u64| millis.to_be_bytes()[2..].to_vec();
    let victim = "V".repeat(44);
    let kept_key = [&[2 | 32, 32][..], &[0x55; 33]].concat();
    let kept = async || server.run::<Vec<u8>>(&["GET", "streamgate:{alice}"]);
    for trap in 0..3 {
        for is_watching in [false, true] {
            server.run::<String>(&["FLUSHALL"]);
            assert!(is_started(&admit(&store, "alice", "other").await));
            // As a record begins: its length, an end that is to come, a sign of life that is past, and the key of a playback.
            let now = clock.now().as_millis();
            let forged = [
                &[0, 0, 0, 99][..],
                &time(now + 9_000),
                &time(now),
                &kept_key,
            ]
            .concat();
            let forged = name_kept_as(&forged);
            // It is a live session's device, or the name of one that has ended. Or a tombstone begins as a record does: its end,
            // its own tag and length and four letters, and the rest of its name.
            let (id, device) = match trap {
                0 => (playback("trap"), DeviceId::parse(&forged).ok()),
                1 => (playback(&forged), None),
                _ => {
                    let name = format!("abcd\" {}", "U".repeat(33));
                    (key(Kind::Request, &name), None)
                }
            };
            let facts = Facts {
                device,
                ..Facts::default()
            };
            let start = Start {
                facts,
                ..start(&id)
            };
            let admission = store.admit(&alice, &start, &refusing(3)).await;
            assert!(is_started(&admission));
            if trap > 0 {
                let released = end(&store, &alice, &id).await;
                assert!(matches!(released, Ok(Released::Freed)));
            }
            clock.advance(LEASE / 6);
            let is_set = |roster: &[u8]| roster.windows(35).any(|bytes| bytes == kept_key);
            assert!(is_set(&kept().await), "the trap is set");
            if is_watching {
                assert!(is_started(&admit(&store, "alice", &victim).await));
            }
            let before = store.list(&alice).await.unwrap().sessions;
            let renewal = store.renew_all(&[seen("alice", &victim)]).await.remove(0);
            assert_eq!(matches!(renewal, Ok(Renewal::Renewed { .. })), is_watching);
            assert_eq!(matches!(renewal, Ok(Renewal::PutBack { .. })), !is_watching);
            let after = store.list(&alice).await.unwrap().sessions;
            let others = before.len() - usize::from(is_watching);
            assert_eq!(after[..others], before[..others], "others are as they were");
            assert_eq!(after.len(), others + 1);
        }
    }
}
