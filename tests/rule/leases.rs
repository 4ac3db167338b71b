//! Instances with different leases on one Redis: none shortens what another has granted.

use std::time::Duration;

use serde_json::json;
use streamgate::clock::{Clock, Timestamp};
use streamgate::session::{Admission, Ending, Renewal, Session, StartRules, Terms, WhenFull};
use streamgate::store::Store;
use streamgate::store::redis::{RedisSettings, RedisStore};

use super::{PATIENT, answered, clock, logged};
use testkit::api::Api;
use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::redis::RedisServer;
use testkit::streams::{playback, sighting, start, user};

/// What the instance grants whose leases are long.
const LONG: Duration = Duration::from_secs(600);

/// What the other one grants.
const SHORT: Duration = Duration::from_secs(3);

/// Until when each of anna's sessions counts in Redis.
async fn ends(store: &RedisStore) -> Vec<Timestamp> {
    let listing = store.list(&user("anna")).await.unwrap();
    let sessions = listing.sessions.iter();
    sessions.map(|session| session.expires_at).collect()
}

#[tokio::test]
async fn a_refusal_by_an_instance_with_short_leases_shortens_no_other() {
    let redis = RedisServer::start();
    let with = async |lease| {
        let plan = TestApp::plan().limit(3).redis(&redis.url(), PATIENT);
        plan.leases(lease, lease).start().await
    };
    let (long, short) = (with(LONG).await, with(SHORT).await);
    let gateways = [long.gateway().await, short.gateway().await];
    let ids = ["p1", "p2", "p3"];
    let mut entries = Vec::new();
    for id in ids {
        let answer = gateways[0].check(Check::of_playback("anna", id)).await;
        assert!(answer.is_allowed(), "{answer:?}");
        entries.push(answered(200, &answer));
    }
    logged(&long, entries).await;
    let store = redis.store();
    let granted = ends(&store).await;
    let kept: i64 = redis.run(&["PTTL", "streamgate:{anna}"]);

    let refused = gateways[1].check(Check::of_playback("anna", "p4")).await;
    assert_eq!(refused.reason(), "full", "{refused:?}");
    // Nor does any other word through it: a release of what never was, a sign of life, a look.
    let gone = Api::of(&short)
        .delete("/v1/users/anna/sessions/never")
        .await;
    assert_eq!(gone.status, 204);
    let seen = gateways[1].check(Check::of_playback("anna", "p1")).await;
    assert!(seen.is_allowed(), "{seen:?}");
    assert_eq!(Api::of(&short).live("anna").await, ids);
    let after = ends(&store).await;
    assert!(
        after
            .iter()
            .zip(&granted)
            .all(|(after, before)| after >= before),
        "{after:?} {granted:?}"
    );
    let still_kept: i64 = redis.run(&["PTTL", "streamgate:{anna}"]);
    let half = i64::try_from(LONG.as_millis() / 2).unwrap();
    assert!(still_kept > half, "{still_kept} of {kept} ms");
    // That they live on after the shorter lease can only be waited for.
    tokio::time::sleep(SHORT + SHORT / 10).await;
    assert_eq!(Api::of(&long).live("anna").await, ids);
    for (at, id) in [(1, "p4"), (0, "p5")] {
        let refused = gateways[at].check(Check::of_playback("anna", id)).await;
        assert_eq!(refused.reason(), "full", "{id}: {refused:?}");
    }
    for id in ids {
        let told = Api::of(&long).put("anna", id, json!({})).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
    long.stop().await;
    short.stop().await;
}

/// The end of a long lease is remembered equally long, whichever instance records it.
#[tokio::test]
async fn an_end_outlasts_the_longest_lease_that_the_roster_knows() {
    let redis = RedisServer::start();
    let time = clock();
    let store = |lease| {
        let terms = Terms::new(lease, Duration::from_secs(5));
        let settings = RedisSettings {
            terms,
            ..redis.settings()
        };
        RedisStore::open(settings).unwrap().with_clock(time.clone())
    };
    let (long, short) = (store(LONG), store(SHORT));
    let (anna, rules) = (user("anna"), StartRules::new(2, WhenFull::Refuse));
    for id in ["p1", "p2"] {
        let start = streamgate::session::Start {
            lease: LONG,
            ..start(&playback(id))
        };
        let admission = long.admit(&anna, &start, &rules).await.unwrap();
        let Admission::Admitted(admitted) = admission else {
            panic!("{admission:?}");
        };
        let Session { expires_at, .. } = admitted.session;
        assert_eq!(expires_at, time.now().after(LONG));
    }
    short
        .release(&anna, &playback("p1"), Ending::Stream, Duration::ZERO)
        .await
        .unwrap();
    // Its other instance may hold the ended one's lease until now.
    time.advance(LONG - Duration::from_secs(1));
    let late = long.renew(&anna, &sighting(&playback("p1")), 2).await;
    assert!(matches!(late, Ok(Renewal::Ended(_))), "{late:?}");
    let listing = short.list(&anna).await.unwrap();
    assert_eq!(listing.sessions.len(), 1);
}
