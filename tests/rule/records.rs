//! Rosters in Redis that another version of streamgate wrote: unknown fields are kept, and another
//! version of the format is an error.

use std::time::Duration;

use redis::Cmd;
use serde_json::json;
use streamgate::identity::{ContentId, Facts, SessionKey};
use streamgate::session::{
    Admission, AdmissionKind, Ending, Released, Renewal, Session, StartRules, WhenFull,
};
use streamgate::store::redis::RedisStore;
use streamgate::store::{Seen, Store, StoreError};

use super::{LONG, PATIENT, lasting, lasting_store};
use testkit::api::Api;
use testkit::app::TestApp;
use testkit::gateway_client::Check;
use testkit::redis::RedisServer;
use testkit::streams::{playback, sighting, user};

/// Where anna's roster is.
const KEY: &str = "streamgate:{anna}";

/// The version of the format.
const VERSION: u8 = 131;

/// The flag bits of a session that this version knows nothing of.
const UNKNOWN_BIT: u8 = 128;

/// What it knows: a session that came through Envoy's check, and has played.
const PLAYED: u8 = 16 | 1;

/// A tag of a session that it knows nothing of, with its value.
const UNKNOWN_TAG: [u8; 6] = [9, 3, b'n', b'e', b'w', b's'];

/// A note of the roster that it knows nothing of, with its value.
const UNKNOWN_NOTE: [u8; 5] = [200, 2, b'a', b'b', b'c'];

// === writing, by hand ===

/// A point in time in its stored form.
fn time(millis: u64) -> [u8; 6] {
    let [_, _, time @ ..] = millis.to_be_bytes();
    time
}

/// A record with its length before it.
fn record(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len() + 2).unwrap();
    [&length.to_be_bytes(), &body[..]].concat()
}

/// The key of a playback whose id is short enough to be stored as it is.
fn written_key(id: &str) -> Vec<u8> {
    assert!(id.len() < 4);
    let last = u8::try_from(id.len() - 1).unwrap();
    [&[2, last], id.as_bytes()].concat()
}

/// A session as a later version writes it.
fn newer_session(id: &str, now: u64) -> Vec<u8> {
    record(&[
        &time(now + 3_600_000),
        &time(now - 1000),
        &written_key(id),
        &time(now - 5000),
        &[PLAYED | UNKNOWN_BIT],
        &UNKNOWN_TAG,
    ])
}

/// A roster of that version with these sessions and the note.
fn roster(version: u8, now: u64, sessions: &[Vec<u8>]) -> Vec<u8> {
    let seats = u16::try_from(sessions.len()).unwrap().to_be_bytes();
    let notes = u16::try_from(UNKNOWN_NOTE.len()).unwrap().to_be_bytes();
    let head = [
        &[version][..],
        &seats,
        &[0],
        &time(now - 1000),
        &7_200_000_u32.to_be_bytes(),
        &[u8::MAX; 6],
        &notes,
        &UNKNOWN_NOTE,
    ];
    [head.concat(), sessions.concat()].concat()
}

/// Redis's own time, in milliseconds.
fn now(redis: &RedisServer) -> u64 {
    let (seconds, micros): (u64, u64) = redis.run(&["TIME"]);
    seconds * 1000 + micros / 1000
}

/// Puts a roster there.
fn write(redis: &RedisServer, bytes: &[u8]) {
    redis.query::<()>(
        Cmd::new()
            .arg("SET")
            .arg(KEY)
            .arg(bytes)
            .arg("PX")
            .arg(7_200_000),
    );
}

// === reading, by hand ===

/// The stored roster, as far as the tests need it.
#[derive(Debug)]
struct Written {
    /// The notes' bytes.
    notes: Vec<u8>,
    /// The sessions' records.
    sessions: Vec<Vec<u8>>,
    tombstones: u8,
}

impl Written {
    fn of(redis: &RedisServer) -> Self {
        let bytes: Vec<u8> = redis.run(&["GET", KEY]);
        let number = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        assert_eq!(bytes[0], VERSION);
        let mut at = 22 + number(20);
        let notes = bytes[22..at].to_vec();
        let mut sessions = Vec::new();
        for _ in 0..number(1) {
            let end = at + number(at);
            sessions.push(bytes[at..end].to_vec());
            at = end;
        }
        Self {
            notes,
            sessions,
            tombstones: bytes[3],
        }
    }

    /// The record of a session.
    fn session(&self, id: &str) -> Option<&[u8]> {
        let key = written_key(id);
        let mut sessions = self.sessions.iter();
        let found = sessions.find(|record| record[14..14 + key.len()] == key);
        found.map(Vec::as_slice)
    }

    /// Whether the session still has its unknown field.
    fn is_newer(&self, id: &str) -> bool {
        let record = self.session(id).unwrap();
        let flags = record[14 + written_key(id).len() + 6];
        let has_tag = contains(record, &UNKNOWN_TAG);
        assert_eq!(flags & UNKNOWN_BIT != 0, has_tag, "{record:?}");
        has_tag
    }

    /// Whether the roster has its note, once.
    fn has_note(&self) -> bool {
        let notes = self.notes.windows(UNKNOWN_NOTE.len());
        notes.filter(|bytes| *bytes == UNKNOWN_NOTE).count() == 1
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|bytes| bytes == part)
}

// === the tests ===

/// Anna's sessions.
async fn live(store: &RedisStore) -> Vec<String> {
    let listing = store.list(&user("anna")).await.unwrap();
    let ids = listing.sessions.into_iter();
    ids.map(|Session { key, .. }| key.id.to_string()).collect()
}

async fn admit(store: &RedisStore, start: &streamgate::session::Start, limit: u32) -> Admission {
    let rules = StartRules::new(limit, WhenFull::DisplaceOldest);
    store.admit(&user("anna"), start, &rules).await.unwrap()
}

fn entry(admission: &Admission) -> AdmissionKind {
    match admission {
        Admission::Admitted(admitted) => admitted.entry,
        Admission::Refused(refusal) => panic!("{refusal:?}"),
    }
}

async fn ends(store: &RedisStore, key: &SessionKey, ending: Ending) -> Released {
    let (anna, age) = (user("anna"), Duration::ZERO);
    store.release(&anna, key, ending, age).await.unwrap()
}

#[expect(
    clippy::too_many_lines,
    reason = "one story, told from its beginning to its end"
)]
#[tokio::test]
async fn what_another_version_wrote_is_kept_through_each_operation() {
    let redis = RedisServer::start();
    let store = lasting_store(&redis);
    let (anna, p1, p2) = (user("anna"), playback("p1"), playback("p2"));
    let ids = ["p1", "p2"];
    let begun = now(&redis);
    let sessions = ids.map(|id| newer_session(id, begun));
    write(&redis, &roster(VERSION, begun, &sessions));
    let all_is_kept = |what: &str| {
        let written = Written::of(&redis);
        for id in ids {
            assert!(written.is_newer(id), "{what}, {id}: {written:?}");
        }
        assert!(written.has_note(), "{what}: {written:?}");
    };
    assert_eq!(live(&store).await, ids);

    // Signs of life, alone and among many, with news and without.
    let seen = Seen {
        user: anna.clone(),
        sighting: sighting(&p2),
        limit: 3,
    };
    let renewal = store.renew(&anna, &sighting(&p1), 3).await.unwrap();
    assert!(matches!(renewal, Renewal::Renewed { .. }), "{renewal:?}");
    all_is_kept("a renewal");
    let renewals = store.renew_all(&[seen]).await;
    assert!(matches!(renewals[..], [Ok(Renewal::Renewed { .. })]));
    all_is_kept("a renewal among many");
    assert_eq!(
        entry(&admit(&store, &lasting(&p1), 3).await),
        AdmissionKind::Renewed
    );
    all_is_kept("a repeated start");
    let film = streamgate::session::Start {
        facts: Facts {
            content: ContentId::parse("film").ok(),
            ..Facts::default()
        },
        ..lasting(&p1)
    };
    assert_eq!(
        entry(&admit(&store, &film, 3).await),
        AdmissionKind::Renewed
    );
    let listing = store.list(&anna).await.unwrap();
    assert_eq!(listing.sessions[0].facts.content, film.facts.content);
    all_is_kept("news");
    assert!(store.played(&anna, &p1).await.unwrap().is_some());
    all_is_kept("a success");
    assert_eq!(ends(&store, &p1, Ending::Failed).await, Released::Kept);
    all_is_kept("a failure");

    // Others that come and go: started, played, failed, displaced, ended by each.
    let p3 = playback("p3");
    assert_eq!(
        entry(&admit(&store, &lasting(&p3), 3).await),
        AdmissionKind::Started
    );
    all_is_kept("another start");
    assert!(store.played(&anna, &p3).await.unwrap().is_some());
    all_is_kept("another success");
    assert!(matches!(
        ends(&store, &p3, Ending::Stream).await,
        Released::Freed
    ));
    all_is_kept("another end");
    for number in 0..40 {
        ends(&store, &playback(&format!("n{number}")), Ending::Vouched).await;
    }
    all_is_kept("ends of what never was");
    let named = StartRules::new(3, WhenFull::TakeOver(playback("p4")));
    for id in ["p4", "p5", "p6"] {
        let admission = store.admit(&anna, &lasting(&playback(id)), &named).await;
        let admission = admission.unwrap();
        assert_eq!(
            matches!(admission, Admission::Admitted(_)),
            id != "p6",
            "{admission:?}"
        );
        all_is_kept("a takeover");
    }
    assert_eq!(live(&store).await, ["p1", "p2", "p5"]);
    assert!(matches!(
        ends(&store, &playback("p5"), Ending::Failed).await,
        Released::Freed
    ));
    all_is_kept("a failed start");

    // The sessions' own ends remove what belongs to them, and nothing else.
    let p7 = playback("p7");
    let Admission::Admitted(admitted) = admit(&store, &lasting(&p7), 2).await else {
        panic!("there is a budget");
    };
    assert_eq!(admitted.displaced.len(), 1);
    let gone = admitted.displaced[0].key.clone();
    let kept = if gone == p1 { "p2" } else { "p1" };
    let written = Written::of(&redis);
    assert!(written.is_newer(kept) && written.has_note(), "{written:?}");
    assert!(!written.is_newer("p7"));
    assert!(written.tombstones > 0);
    for key in [playback(kept), p7] {
        assert!(matches!(
            ends(&store, &key, Ending::Operator).await,
            Released::Freed
        ));
    }
    let bytes: Vec<u8> = redis.run(&["GET", KEY]);
    assert!(!contains(&bytes, &UNKNOWN_TAG), "{bytes:?}");
    let written = Written::of(&redis);
    assert!(
        written.sessions.is_empty() && written.has_note(),
        "{written:?}"
    );
    // Displaced and ended sessions are recognised, even in a roster with unknown fields.
    for key in [gone, playback(kept)] {
        let renewal = store.renew(&anna, &sighting(&key), 3).await.unwrap();
        assert!(matches!(renewal, Renewal::Ended(_)), "{key}: {renewal:?}");
    }
}

/// The same through an instance: its checks, its lease cache, its doors.
#[tokio::test]
async fn an_instance_counts_in_rosters_that_a_later_version_wrote() {
    let redis = RedisServer::start();
    let begun = now(&redis);
    let sessions = ["p1", "p2"].map(|id| newer_session(id, begun));
    write(&redis, &roster(VERSION, begun, &sessions));
    let plan = TestApp::plan().limit(3).redis(&redis.url(), PATIENT);
    let app = plan.leases(LONG, LONG).start().await;
    let (gateway, api) = (app.gateway().await, Api::of(&app));
    let plays = async |id: &str| gateway.check(Check::of_playback("anna", id)).await;
    for id in ["p1", "p2", "p1", "p3"] {
        let answer = plays(id).await;
        assert!(answer.is_allowed(), "{id}: {answer:?}");
    }
    assert_eq!(plays("p4").await.reason(), "full");
    let told = api
        .put("anna", "p1", json!({"device": "tv", "content": "film"}))
        .await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(api.live("anna").await, ["p1", "p2", "p3"]);
    let written = Written::of(&redis);
    assert!(
        written.is_newer("p1") && written.is_newer("p2"),
        "{written:?}"
    );
    assert_eq!(api.delete("/v1/users/anna/sessions/p1").await.status, 204);
    assert_eq!(plays("p1").await.reason(), "ended");
    let written = Written::of(&redis);
    assert_eq!(written.session("p1"), None);
    assert!(written.is_newer("p2") && written.has_note(), "{written:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_roster_of_another_version_is_an_error_and_stays_as_it_is() {
    let redis = RedisServer::start();
    let store = lasting_store(&redis);
    let (anna, p1) = (user("anna"), playback("p1"));
    for version in [VERSION - 1, VERSION + 1] {
        let begun = now(&redis);
        let bytes = roster(version, begun, &[newer_session("p1", begun)]);
        write(&redis, &bytes);
        let rules = StartRules::new(3, WhenFull::Refuse);
        let seen = Seen {
            user: anna.clone(),
            sighting: sighting(&p1),
            limit: 3,
        };
        let release = store.release(&anna, &p1, Ending::Stream, Duration::ZERO);
        let failures = [
            store.list(&anna).await.err(),
            store.admit(&anna, &lasting(&p1), &rules).await.err(),
            store.renew(&anna, &sighting(&p1), 3).await.err(),
            store.renew_all(&[seen]).await.remove(0).err(),
            store.played(&anna, &p1).await.err(),
            release.await.err(),
        ];
        for (operation, failure) in failures.into_iter().enumerate() {
            assert!(
                matches!(failure, Some(StoreError::Protocol(_))),
                "{version}, {operation}: {failure:?}"
            );
        }
        assert_eq!(redis.run::<Vec<u8>>(&["GET", KEY]), bytes);
    }
    // In the version between them it is readable, so the version was the error.
    let begun = now(&redis);
    write(
        &redis,
        &roster(VERSION, begun, &[newer_session("p1", begun)]),
    );
    assert_eq!(live(&store).await, ["p1"]);
}
