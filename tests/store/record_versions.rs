//! Instances whose versions of records differ, on one Redis: an upgrade in two releases is no outage, and an instance that is too old
//! harms nothing.

use std::time::Duration;

use redis::Cmd;
use streamgate::session::{Admission, AdmissionKind, Admitted, Ending, Renewal};
use streamgate::store::redis::RedisStore;
use streamgate::store::{Seen, Store, StoreError};

use testkit::redis::RedisServer;
use testkit::streams::{playback, refusing, sighting, start, user};

/// Where anna's roster is.
const KEY: &str = "streamgate:{anna}";

/// The version that this release writes.
const VERSION: u8 = 131;

/// The roster as it is kept.
fn roster(server: &RedisServer) -> Vec<u8> {
    server.query(&Cmd::get(KEY))
}

/// The version that the roster is in.
fn version(server: &RedisServer) -> u8 {
    roster(server)[0]
}

/// What becomes of a start of anna's, who may watch two streams.
async fn starts(store: &RedisStore, id: &str) -> Option<AdmissionKind> {
    let (anna, start) = (user("anna"), start(&playback(id)));
    match store.admit(&anna, &start, &refusing(2)).await.unwrap() {
        Admission::Admitted(Admitted { entry, .. }) => Some(entry),
        Admission::Refused(_) => None,
    }
}

/// A renewal of a session of anna's, alone or as one of many.
async fn is_renewed(store: &RedisStore, id: &str, among_many: bool) -> bool {
    let (anna, sighting) = (user("anna"), sighting(&playback(id)));
    let renewal = if among_many {
        let seen = Seen {
            user: anna,
            sighting,
            limit: 2,
        };
        store.renew_all(&[seen]).await.remove(0)
    } else {
        store.renew(&anna, &sighting, 2).await
    };
    matches!(renewal.unwrap(), Renewal::Renewed { .. })
}

#[tokio::test]
async fn each_release_counts_on_what_its_neighbours_have_written() {
    let server = RedisServer::start();
    let ours = server.store();
    let bridge = RedisStore::open_as_bridge(server.settings()).unwrap();
    let next = RedisStore::open_as_next(server.settings()).unwrap();
    for (older, newer, written) in [(&ours, &bridge, VERSION), (&bridge, &next, VERSION + 1)] {
        server.run::<()>(&["FLUSHALL"]);
        assert_eq!(starts(older, "a").await, Some(AdmissionKind::Started));
        assert_eq!(version(&server), VERSION);
        assert_eq!(starts(newer, "b").await, Some(AdmissionKind::Started));
        assert_eq!(version(&server), written);
        for store in [older, newer] {
            assert_eq!(starts(store, "c").await, None, "both slots are taken");
        }
        for among_many in [false, true] {
            assert!(is_renewed(older, "b", among_many).await);
            assert_eq!(version(&server), VERSION);
            assert!(is_renewed(newer, "a", among_many).await);
            assert_eq!(version(&server), written);
        }
        let (anna, a) = (user("anna"), playback("a"));
        let released = older.release(&anna, &a, Ending::Stream, Duration::ZERO);
        released.await.unwrap();
        assert_eq!(starts(newer, "a").await, None, "its end is known");
        assert_eq!(starts(newer, "c").await, Some(AdmissionKind::Started));
    }
}

#[tokio::test]
async fn an_instance_that_is_too_old_says_so_and_changes_nothing() {
    let server = RedisServer::start();
    let ours = server.store();
    let next = RedisStore::open_as_next(server.settings()).unwrap();
    assert_eq!(starts(&next, "a").await, Some(AdmissionKind::Started));
    assert_eq!(version(&server), VERSION + 1);
    let (anna, a, before) = (user("anna"), playback("a"), roster(&server));
    let age = Duration::ZERO;
    let failures = [
        ours.admit(&anna, &start(&a), &refusing(2)).await.err(),
        ours.renew(&anna, &sighting(&a), 2).await.err(),
        ours.played(&anna, &a).await.err(),
        ours.release(&anna, &a, Ending::Operator, age).await.err(),
        ours.list(&anna).await.err(),
    ];
    for failure in failures {
        assert!(
            matches!(failure, Some(StoreError::Protocol(_))),
            "{failure:?}"
        );
    }
    assert_eq!(roster(&server), before);
    assert_eq!(starts(&next, "a").await, Some(AdmissionKind::Renewed));
}
