//! What a store has to do, whatever it is made of: each case is written once and runs on every store there is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use streamgate::clock::{Clock, ManualClock, Timestamp};
use streamgate::identity::{
    ContentId, DeviceId, Door, Facts, Kind, MAX_ID_BYTES, SessionKey, UserId,
};
use streamgate::session::{
    Admission, AdmissionKind, EndCause, EndList, Ending, Flags, MAX_PUT_BACK, Refusal, Released,
    Renewal, Session, Sighting, Start, StartRules, Ticket, WhenFull,
};
use streamgate::store::{Cursor, MemoryStore, Page, Seen, Store};

use testkit::redis::RedisServer;
use testkit::streams::{LEASE, key, playback, refusing, sighting, start, start_with, terms, user};

/// Makes a test of each case on each store.
macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                let clock = super::clock();
                let store = super::MemoryStore::new(super::terms(), clock.clone());
                super::$case(&super::Subject { store: &store, clock: &clock }).await;
            })*
        }

        mod redis {
            $(#[tokio::test]
            async fn $case() {
                let clock = super::clock();
                let server = super::RedisServer::start();
                let store = server.store().with_clock(clock.clone());
                super::$case(&super::Subject { store: &store, clock: &clock }).await;
            })*
        }
    };
}

contract!(
    starts_are_let_in_up_to_the_limit_and_the_next_is_told_who_is_there,
    a_limit_of_zero_lets_nobody_in,
    a_repeated_start_is_a_renewal_and_its_lease_never_shrinks,
    a_repeated_start_tells_what_is_newly_known,
    a_session_counts_until_its_lease_ends_and_not_a_millisecond_longer,
    names_of_different_kinds_and_users_are_different,
    every_fact_and_every_name_comes_back_as_it_went_in,
    an_end_frees_the_slot_and_is_remembered,
    an_end_may_overtake_its_start,
    a_video_can_be_watched_again_at_once,
    a_released_session_is_forgotten_in_time_however_often_it_asks,
    a_displaced_session_stays_displaced_for_as_long_as_it_asks,
    the_oldest_gives_way,
    the_idlest_gives_way,
    as_many_give_way_as_are_too_many,
    requests_never_give_way,
    where_too_few_can_give_way_none_does,
    a_takeover_displaces_the_one_it_names_and_no_other,
    a_takeover_of_a_request_is_not_possible,
    an_operator_ends_what_can_be_stopped,
    a_vouched_end_is_remembered_only_of_what_could_have_been_stopped,
    a_start_is_undone_by_its_own_call_alone_and_only_untouched,
    what_is_seen_running_counts_above_the_limit_up_to_a_bound,
    a_sighting_prolongs_and_never_shortens,
    a_sighting_brings_nothing_back_that_has_ended,
    the_start_of_what_is_put_back_is_believed_only_if_it_is_past,
    of_many_ends_the_earliest_to_be_forgotten_goes_first,
    a_clock_that_steps_back_prolongs_nothing,
    a_clock_that_steps_back_leaves_no_sign_of_life_ahead,
    fifty_starts_at_once_fill_the_slots_exactly,
    starts_and_ends_at_once_never_exceed_the_limit,
    a_store_gives_a_sign_of_life,
    sightings_at_once_are_each_a_renewal,
    of_nobody_there_is_one_empty_page,
    who_follows_pages_of_any_size_sees_all_that_is_live_and_nothing_else,
    what_comes_and_goes_between_pages_hides_nothing_that_stays,
    any_cursor_leads_to_some_page_and_to_an_end,
);

/// A store under test, and the clock it goes by.
struct Subject<'a> {
    store: &'a dyn Store,
    clock: &'a ManualClock,
}

/// A clock somewhere in time.
fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)))
}

/// The user of most cases.
fn alice() -> UserId {
    user("alice")
}

impl Subject<'_> {
    async fn admit(&self, key: &SessionKey, limit: u32) -> Admission {
        self.admit_or(key, limit, &WhenFull::Refuse).await
    }

    async fn admit_or(&self, key: &SessionKey, limit: u32, when_full: &WhenFull) -> Admission {
        self.ask(&start(key), limit, when_full).await
    }

    async fn ask(&self, start: &Start, limit: u32, when_full: &WhenFull) -> Admission {
        self.store
            .admit(&alice(), start, &StartRules::new(limit, when_full.clone()))
            .await
            .unwrap()
    }

    async fn renew(&self, key: &SessionKey, limit: u32) -> Renewal {
        self.see(&sighting(key), limit).await
    }

    async fn see(&self, sighting: &Sighting, limit: u32) -> Renewal {
        self.store.renew(&alice(), sighting, limit).await.unwrap()
    }

    async fn release(&self, key: &SessionKey, ending: Ending) -> Released {
        self.store
            .release(&alice(), key, ending, Duration::ZERO)
            .await
            .unwrap()
    }

    async fn sessions(&self) -> Vec<Session> {
        let listing = self.store.list(&alice()).await.unwrap();
        assert_eq!(listing.taken_at, self.clock.now());
        listing.sessions
    }

    async fn live(&self) -> Vec<SessionKey> {
        let sessions = self.sessions().await;
        sessions.into_iter().map(|session| session.key).collect()
    }

    /// Lets these in, a second apart.
    async fn fill(&self, keys: &[&SessionKey]) {
        for key in keys {
            assert!(is_started(&self.admit(key, 1000).await));
            self.clock.advance(Duration::from_secs(1));
        }
    }

    fn at(&self, later: Duration) -> Timestamp {
        self.clock.now().after(later)
    }
}

fn is_started(admission: &Admission) -> bool {
    matches!(admission, Admission::Admitted(admitted) if admitted.entry == AdmissionKind::Started)
}

/// The sessions that gave way to one that was let in.
fn displaced(admission: Admission) -> Vec<SessionKey> {
    match admission {
        Admission::Admitted(admitted) => admitted
            .displaced
            .into_iter()
            .map(|session| session.key)
            .collect(),
        Admission::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn ended(cause: EndCause) -> Admission {
    Admission::Refused(Refusal::Ended(cause, None))
}

fn is_full(admission: &Admission) -> bool {
    matches!(admission, Admission::Refused(Refusal::Full { .. }))
}

async fn starts_are_let_in_up_to_the_limit_and_the_next_is_told_who_is_there(on: &Subject<'_>) {
    let keys = [
        playback("a"),
        key(Kind::Request, "b"),
        key(Kind::Video, "c"),
    ];
    for (before, key) in keys.iter().enumerate() {
        let Admission::Admitted(admitted) = on.admit(key, 3).await else {
            panic!("{key} is refused");
        };
        assert_eq!(admitted.entry, AdmissionKind::Started);
        assert_eq!(admitted.active, before + 1);
        assert_eq!(admitted.session.expires_at, on.at(LEASE));
        assert_eq!(admitted.decided_at, on.clock.now());
        assert_eq!(admitted.displaced, []);
        assert_eq!(on.sessions().await.last(), Some(&admitted.session));
    }
    let Admission::Refused(Refusal::Full {
        limit,
        holders,
        decided_at,
    }) = on.admit(&playback("d"), 3).await
    else {
        panic!("the fourth is let in");
    };
    assert_eq!((limit, decided_at), (3, on.clock.now()));
    assert_eq!(holders, on.sessions().await);
    assert_eq!(on.live().await, keys);
}

async fn a_limit_of_zero_lets_nobody_in(on: &Subject<'_>) {
    for when_full in [
        WhenFull::Refuse,
        WhenFull::DisplaceOldest,
        WhenFull::TakeOver(playback("b")),
    ] {
        assert!(is_full(&on.admit_or(&playback("a"), 0, &when_full).await));
    }
    on.fill(&[&playback("b")]).await;
    for when_full in [WhenFull::DisplaceIdlest, WhenFull::TakeOver(playback("b"))] {
        assert!(is_full(&on.admit_or(&playback("a"), 0, &when_full).await));
    }
    assert_eq!(on.live().await, [playback("b")]);
}

async fn a_repeated_start_is_a_renewal_and_its_lease_never_shrinks(on: &Subject<'_>) {
    let a = playback("a");
    on.fill(&[&a]).await;
    let first = on.sessions().await.remove(0);
    for (lease, expires_at) in [
        (Duration::from_secs(5), first.expires_at),
        (LEASE, on.at(LEASE)),
    ] {
        let again = on
            .ask(&Start { lease, ..start(&a) }, 1, &WhenFull::Refuse)
            .await;
        let Admission::Admitted(admitted) = again else {
            panic!("refused");
        };
        assert_eq!(admitted.entry, AdmissionKind::Renewed);
        assert_eq!(
            (admitted.active, admitted.session.expires_at),
            (1, expires_at)
        );
    }
    let session = on.sessions().await.remove(0);
    assert_eq!(session.started_at, first.started_at);
    assert_eq!(session.renewed_at, on.clock.now());
    let news = Start {
        facts: Facts {
            position_seconds: Some(7),
            ..Facts::default()
        },
        ..start(&a)
    };
    for facts in [news.facts.clone(), Facts::default()] {
        let told = on
            .ask(
                &Start {
                    facts,
                    ..news.clone()
                },
                1,
                &WhenFull::Refuse,
            )
            .await;
        let Admission::Admitted(admitted) = told else {
            panic!("refused");
        };
        assert_eq!(admitted.session.facts.position_seconds, Some(7));
        assert_eq!(on.sessions().await, [admitted.session]);
    }
}

async fn a_repeated_start_tells_what_is_newly_known(on: &Subject<'_>) {
    let device = |name| DeviceId::parse(name).ok();
    let content = |name| ContentId::parse(name).ok();
    let mut known = Facts::default();
    for (number, news) in [
        Facts {
            content: content("film"),
            ..Facts::default()
        },
        Facts {
            device: device("tv"),
            door: Some(Door::ExtAuthz),
            ..Facts::default()
        },
        Facts {
            position_seconds: Some(7),
            door: Some(Door::Http),
            ..Facts::default()
        },
        Facts {
            device: device("a far longer name"),
            position_seconds: Some(0),
            ..Facts::default()
        },
        Facts {
            content: content("x"),
            ..Facts::default()
        },
        Facts::default(),
    ]
    .into_iter()
    .enumerate()
    {
        known.update(&news);
        let ticket = Ticket::new(u32::try_from(number).unwrap());
        let again = Start {
            facts: news,
            ticket,
            ..start(&playback("a"))
        };
        assert!(matches!(
            on.ask(&again, 3, &WhenFull::Refuse).await,
            Admission::Admitted(_)
        ));
        let beside = on.admit(&playback("beside"), 3).await;
        assert!(matches!(beside, Admission::Admitted(_)));
        assert_eq!(on.sessions().await[0].facts, known, "after {number}");
        on.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(known.door, Some(Door::ExtAuthz));
}

async fn a_session_counts_until_its_lease_ends_and_not_a_millisecond_longer(on: &Subject<'_>) {
    let (a, b) = (playback("a"), playback("b"));
    assert!(is_started(&on.admit(&a, 1).await));
    on.clock.advance(LEASE - Duration::from_millis(1));
    assert!(is_full(&on.admit(&b, 1).await));
    assert_eq!(on.live().await, std::slice::from_ref(&a));
    on.clock.advance(Duration::from_millis(1));
    assert_eq!(on.live().await, []);
    assert!(is_started(&on.admit(&b, 1).await));
    assert_eq!(on.live().await, [b]);
    assert!(is_full(&on.admit(&a, 1).await));
}

async fn names_of_different_kinds_and_users_are_different(on: &Subject<'_>) {
    for kind in Kind::ALL {
        assert!(is_started(&on.admit(&key(kind, "one"), 3).await));
    }
    assert_eq!(
        on.release(&key(Kind::Playback, "on"), Ending::Stream).await,
        Released::NotLive
    );
    assert_eq!(on.live().await.len(), 3);
    for other in ["alic", "alice ", "{alice}", "bob"].map(user) {
        assert_eq!(on.store.list(&other).await.unwrap().sessions, []);
        let start = start(&playback("one"));
        let admission = on.store.admit(&other, &start, &refusing(1)).await;
        assert!(is_started(&admission.unwrap()));
    }
    assert_eq!(on.live().await.len(), 3);
}

async fn every_fact_and_every_name_comes_back_as_it_went_in(on: &Subject<'_>) {
    let long = "l".repeat(MAX_ID_BYTES);
    let wide = "é".repeat(MAX_ID_BYTES / 2);
    let names = [
        "1",
        "a:b{c}%7B ",
        "\u{1f600}",
        &long,
        &wide,
        "0188f1a2-4b6c-7d8e-9f00-112233445566",
        "0188F1A2-4B6C-7D8E-9F00-112233445566",
        "0188f1a24b6c7d8e9f00112233445566",
        "+188f1a2-4b6c-7d8e-9f00-112233445566",
        "0188f1a2-4b6c-7d8e-9f00-11223344556",
        "00000000-0000-0000-0000-000000000000",
        "0188f1a2-4b6c-7d8e-9f0-0112233445566",
    ];
    let mut expected = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        for kind in Kind::ALL {
            let number = u32::try_from(number).unwrap();
            let facts = Facts {
                device: DeviceId::parse(name).ok().filter(|_| number % 2 == 0),
                content: ContentId::parse(name).ok().filter(|_| number % 3 == 0),
                door: [
                    None,
                    Some(Door::ExtAuthz),
                    Some(Door::AccessLog),
                    Some(Door::Http),
                ][usize::try_from(number % 4).unwrap()],
                position_seconds: Some(u32::MAX - number).filter(|_| number % 5 == 0),
                joined: None,
            };
            let ticket = Ticket::new(number.wrapping_sub(1));
            let start = Start {
                facts: facts.clone(),
                ticket,
                ..start(&key(kind, name))
            };
            assert!(is_started(&on.ask(&start, 100, &WhenFull::Refuse).await));
            expected.push(Session::starting(&start, on.at(LEASE), on.clock.now()));
            on.clock.advance(Duration::from_millis(1));
        }
    }
    assert_eq!(on.sessions().await, expected);
    for session in expected {
        assert_eq!(
            on.release(&session.key, Ending::Stream).await,
            Released::Freed
        );
    }
}

async fn an_end_frees_the_slot_and_is_remembered(on: &Subject<'_>) {
    let a = playback("a");
    on.fill(&[&a]).await;
    assert_eq!(on.release(&a, Ending::Stream).await, Released::Freed);
    assert_eq!(
        on.release(&a, Ending::Stream).await,
        Released::AlreadyEnded(EndCause::Released)
    );
    assert_eq!(on.admit(&a, 3).await, ended(EndCause::Released));
    assert_eq!(on.renew(&a, 3).await, Renewal::Ended(EndCause::Released));
    assert_eq!(on.live().await, []);
    on.clock.advance(terms().memory - Duration::from_millis(1));
    assert_eq!(on.admit(&a, 3).await, ended(EndCause::Released));
    on.clock.advance(Duration::from_millis(1));
    assert!(is_started(&on.admit(&a, 3).await));
}

async fn an_end_may_overtake_its_start(on: &Subject<'_>) {
    for kind in [Kind::Request, Kind::Playback] {
        let late = key(kind, "late");
        assert_eq!(on.release(&late, Ending::Stream).await, Released::NotLive);
        assert_eq!(on.admit(&late, 3).await, ended(EndCause::Released));
    }
}

async fn a_video_can_be_watched_again_at_once(on: &Subject<'_>) {
    let film = key(Kind::Video, "film");
    assert_eq!(on.release(&film, Ending::Stream).await, Released::NotLive);
    assert!(is_started(&on.admit(&film, 1).await));
    assert!(matches!(
        on.release(&film, Ending::Stream).await,
        Released::Freed
    ));
    assert!(is_started(&on.admit(&film, 1).await));
}

async fn a_released_session_is_forgotten_in_time_however_often_it_asks(on: &Subject<'_>) {
    let a = playback("a");
    on.release(&a, Ending::Stream).await;
    on.clock.advance(terms().memory / 2);
    assert_eq!(on.admit(&a, 3).await, ended(EndCause::Released));
    on.clock.advance(terms().memory / 2);
    assert!(is_started(&on.admit(&a, 3).await));
}

async fn a_displaced_session_stays_displaced_for_as_long_as_it_asks(on: &Subject<'_>) {
    let (a, b, c) = (playback("a"), playback("b"), playback("c"));
    on.fill(&[&a]).await;
    assert_eq!(
        displaced(on.admit_or(&b, 1, &WhenFull::DisplaceOldest).await),
        std::slice::from_ref(&a)
    );
    on.release(&c, Ending::Operator).await;
    for _ in 0..3 {
        on.clock.advance(terms().memory / 2);
        assert_eq!(
            on.admit(&a, 3).await,
            ended(EndCause::Displaced { by: b.clone() })
        );
        assert_eq!(on.admit(&c, 3).await, ended(EndCause::Operator));
    }
    on.clock.advance(terms().memory);
    assert!(is_started(&on.admit(&a, 3).await));
    assert!(is_started(&on.admit(&c, 3).await));
}

async fn the_oldest_gives_way(on: &Subject<'_>) {
    let (a, b, c) = (playback("a"), playback("b"), playback("c"));
    on.fill(&[&a, &b]).await;
    on.renew(&a, 2).await;
    on.clock.advance(Duration::from_secs(1));
    let admission = on.admit_or(&c, 2, &WhenFull::DisplaceOldest).await;
    assert_eq!(displaced(admission), std::slice::from_ref(&a));
    assert_eq!(on.live().await, [b, c.clone()]);
    assert_eq!(
        on.renew(&a, 2).await,
        Renewal::Ended(EndCause::Displaced { by: c })
    );
}

async fn the_idlest_gives_way(on: &Subject<'_>) {
    let (a, b, c, d) = (playback("a"), playback("b"), playback("c"), playback("d"));
    on.fill(&[&a, &b, &c]).await;
    on.renew(&a, 3).await;
    let admission = on.admit_or(&d, 3, &WhenFull::DisplaceIdlest).await;
    assert_eq!(displaced(admission), std::slice::from_ref(&b));
    assert_eq!(on.live().await, [a, c, d]);
}

async fn as_many_give_way_as_are_too_many(on: &Subject<'_>) {
    let keys = ["a", "b", "c", "d", "e"].map(playback);
    for key in &keys {
        assert!(
            is_started(&on.admit(key, 5).await),
            "all at one moment: order decides"
        );
    }
    let last = playback("z");
    let admission = on.admit_or(&last, 3, &WhenFull::DisplaceOldest).await;
    assert_eq!(displaced(admission), keys[..3]);
    assert_eq!(on.live().await, [keys[3].clone(), keys[4].clone(), last]);
}

async fn requests_never_give_way(on: &Subject<'_>) {
    let (a, b, c) = (
        key(Kind::Request, "a"),
        key(Kind::Video, "b"),
        playback("c"),
    );
    on.fill(&[&a, &b, &c]).await;
    for (newcomer, gives_way) in [("d", &b), ("e", &c)] {
        let admission = on
            .admit_or(&key(Kind::Request, newcomer), 3, &WhenFull::DisplaceOldest)
            .await;
        assert_eq!(displaced(admission), std::slice::from_ref(gives_way));
    }
    assert!(is_full(
        &on.admit_or(&playback("f"), 3, &WhenFull::DisplaceIdlest)
            .await
    ));
}

async fn where_too_few_can_give_way_none_does(on: &Subject<'_>) {
    let (a, b, c) = (
        key(Kind::Request, "a"),
        playback("b"),
        key(Kind::Request, "c"),
    );
    on.fill(&[&a, &b, &c]).await;
    let before = on.sessions().await;
    for when_full in [
        WhenFull::DisplaceOldest,
        WhenFull::DisplaceIdlest,
        WhenFull::TakeOver(b.clone()),
    ] {
        assert!(is_full(&on.admit_or(&playback("d"), 2, &when_full).await));
    }
    assert_eq!(on.sessions().await, before);
    assert!(matches!(on.renew(&b, 3).await, Renewal::Renewed { .. }));
}

async fn a_takeover_displaces_the_one_it_names_and_no_other(on: &Subject<'_>) {
    let (a, b, c) = (playback("a"), playback("b"), playback("c"));
    on.fill(&[&a, &b]).await;
    for unknown in [
        playback("x"),
        key(Kind::Request, "x"),
        key(Kind::Video, "b"),
    ] {
        assert!(is_full(
            &on.admit_or(&c, 2, &WhenFull::TakeOver(unknown)).await
        ));
    }
    let admission = on.admit_or(&c, 2, &WhenFull::TakeOver(b.clone())).await;
    assert_eq!(displaced(admission), [b]);
    assert_eq!(on.live().await, [a.clone(), c]);
    let roomy = on.admit_or(&playback("d"), 3, &WhenFull::TakeOver(a)).await;
    assert_eq!(displaced(roomy), []);
}

async fn a_takeover_of_a_request_is_not_possible(on: &Subject<'_>) {
    let request = key(Kind::Request, "a");
    on.fill(&[&request]).await;
    let before = on.sessions().await;
    for limit in [0, 1] {
        let admission = on
            .admit_or(&playback("b"), limit, &WhenFull::TakeOver(request.clone()))
            .await;
        assert_eq!(admission, Admission::Refused(Refusal::NotStoppable));
    }
    assert_eq!(on.sessions().await, before);
}

async fn an_operator_ends_what_can_be_stopped(on: &Subject<'_>) {
    for kind in [Kind::Playback, Kind::Video] {
        let victim = key(kind, "a");
        on.fill(&[&victim]).await;
        assert!(matches!(
            on.release(&victim, Ending::Operator).await,
            Released::Freed
        ));
        assert_eq!(
            on.renew(&victim, 3).await,
            Renewal::Ended(EndCause::Operator)
        );
        assert_eq!(
            on.release(&victim, Ending::Stream).await,
            Released::AlreadyEnded(EndCause::Operator)
        );
    }
    let request = key(Kind::Request, "a");
    assert_eq!(
        on.release(&request, Ending::Operator).await,
        Released::NotLive
    );
    on.fill(&[&request]).await;
    assert_eq!(
        on.release(&request, Ending::Operator).await,
        Released::NotStoppable
    );
    assert_eq!(on.live().await, std::slice::from_ref(&request));
    on.release(&request, Ending::Stream).await;
    assert_eq!(
        on.release(&request, Ending::Operator).await,
        Released::AlreadyEnded(EndCause::Released)
    );
}

async fn a_vouched_end_is_remembered_only_of_what_could_have_been_stopped(on: &Subject<'_>) {
    for (kind, is_remembered) in [
        (Kind::Request, false),
        (Kind::Playback, true),
        (Kind::Video, false),
    ] {
        for is_live in [false, true] {
            let key = key(kind, if is_live { "live" } else { "unknown" });
            if is_live {
                on.fill(&[&key]).await;
            }
            let released = on.release(&key, Ending::Vouched).await;
            assert_eq!(matches!(released, Released::Freed), is_live, "{key}");
            assert_eq!(on.live().await, []);
            match on.renew(&key, 3).await {
                Renewal::Ended(EndCause::Released) => assert!(is_remembered, "{key}"),
                Renewal::PutBack { .. } => assert!(!is_remembered, "{key}"),
                other => panic!("{key}: {other:?}"),
            }
            on.release(&key, Ending::Vouched).await;
        }
    }
}

async fn a_start_is_undone_by_its_own_call_alone_and_only_untouched(on: &Subject<'_>) {
    let ticket = |number| Ticket::new(number).unwrap();
    let undone = |number| Ending::Undone(ticket(number));
    let a = key(Kind::Request, "a");
    let begin = || async {
        on.ask(&start_with(&a, ticket(7)), 1, &WhenFull::Refuse)
            .await
    };
    assert_eq!(on.release(&a, undone(7)).await, Released::NotLive);
    assert!(is_started(&begin().await));
    assert_eq!(on.release(&a, undone(8)).await, Released::Kept);
    assert!(matches!(on.release(&a, undone(7)).await, Released::Freed));
    assert!(is_started(&begin().await), "it may be tried again");
    on.renew(&a, 1).await;
    assert_eq!(on.release(&a, undone(7)).await, Released::Kept);
    on.release(&a, Ending::Vouched).await;
    assert!(is_started(&begin().await));
    assert!(!is_started(&begin().await));
    assert_eq!(
        on.release(&a, undone(7)).await,
        Released::Kept,
        "a start that was repeated"
    );
    let plain = playback("plain");
    assert!(is_started(&on.admit(&plain, 3).await));
    assert_eq!(on.release(&plain, undone(7)).await, Released::Kept);
}

async fn what_is_seen_running_counts_above_the_limit_up_to_a_bound(on: &Subject<'_>) {
    for number in 0..MAX_PUT_BACK + 2 {
        let seen = on.renew(&key(Kind::Request, &number.to_string()), 2).await;
        assert_eq!(
            seen,
            Renewal::PutBack {
                expires_at: on.at(LEASE)
            }
        );
    }
    let before = on.sessions().await;
    assert_eq!(before.len(), MAX_PUT_BACK + 2);
    assert_eq!(
        on.renew(&key(Kind::Request, "more"), 2).await,
        Renewal::Crowded
    );
    assert!(is_full(&on.admit(&playback("a"), 2).await));
    assert_eq!(on.sessions().await, before);
    assert!(matches!(
        on.renew(&key(Kind::Request, "0"), 2).await,
        Renewal::Renewed { .. }
    ));
    assert!(matches!(
        on.renew(&key(Kind::Request, "more"), u32::MAX).await,
        Renewal::PutBack { .. }
    ));
}

async fn a_sighting_prolongs_and_never_shortens(on: &Subject<'_>) {
    let (a, b) = (playback("a"), playback("b"));
    on.fill(&[&a, &b]).await;
    let before = on.sessions().await;
    let short = Sighting {
        lease: Duration::from_secs(1),
        ..sighting(&b)
    };
    assert_eq!(
        on.see(&short, 1).await,
        Renewal::Renewed {
            expires_at: before[1].expires_at
        }
    );
    let told = Facts {
        position_seconds: Some(9),
        ..Facts::default()
    };
    let long = Sighting {
        facts: told,
        ..sighting(&b)
    };
    assert_eq!(
        on.see(&long, 1).await,
        Renewal::Renewed {
            expires_at: on.at(LEASE)
        }
    );
    let renewed = Session {
        renewed_at: on.clock.now(),
        expires_at: on.at(LEASE),
        flags: Flags {
            played: true,
            ..Flags::default()
        },
        ..before[1].clone()
    };
    assert_eq!(on.sessions().await, [before[0].clone(), renewed]);
    for _ in 0..40 {
        on.clock.advance(LEASE / 3);
        assert_eq!(
            on.renew(&b, 1).await,
            Renewal::Renewed {
                expires_at: on.at(LEASE)
            }
        );
    }
    assert_eq!(on.live().await, [b]);
}

async fn a_sighting_brings_nothing_back_that_has_ended(on: &Subject<'_>) {
    let a = playback("a");
    on.release(&a, Ending::Operator).await;
    on.clock.advance(terms().memory - Duration::from_millis(1));
    assert_eq!(on.renew(&a, 3).await, Renewal::Ended(EndCause::Operator));
    on.clock.advance(Duration::from_millis(1));
    assert!(
        matches!(on.renew(&a, 3).await, Renewal::PutBack { .. }),
        "a sighting extends no tombstone"
    );
}

async fn the_start_of_what_is_put_back_is_believed_only_if_it_is_past(on: &Subject<'_>) {
    let now = on.clock.now();
    let past = Timestamp::from_millis(now.as_millis() - 60_000);
    for (id, told, believed) in [
        ("a", None, now),
        ("b", Some(past), past),
        ("c", Some(now.after(LEASE)), now),
        ("d", Some(Timestamp::from_millis(u64::MAX)), now),
        ("e", Some(Timestamp::default()), Timestamp::default()),
    ] {
        let facts = Facts {
            door: Some(Door::AccessLog),
            ..Facts::default()
        };
        let seen = Sighting {
            started_at: told,
            facts: facts.clone(),
            ..sighting(&playback(id))
        };
        assert!(matches!(on.see(&seen, 3).await, Renewal::PutBack { .. }));
        let session = on.sessions().await.pop().unwrap();
        assert_eq!(
            (session.started_at, session.renewed_at),
            (believed, now),
            "{id}"
        );
        assert_eq!((session.facts, session.ticket), (facts, None));
    }
}

async fn of_many_ends_the_earliest_to_be_forgotten_goes_first(on: &Subject<'_>) {
    let room = EndList::Stranger.room();
    let keys: Vec<_> = (0..=room + 1)
        .map(|number| playback(&number.to_string()))
        .collect();
    // An operator's end is in a list of its own.
    on.release(&keys[0], Ending::Operator).await;
    for key in &keys[1..=room + 1] {
        on.clock.advance(Duration::from_millis(10));
        on.release(key, Ending::Stream).await;
    }
    assert!(
        is_started(&on.admit(&keys[1], 3).await),
        "the earliest made room"
    );
    for key in keys.iter().filter(|key| **key != keys[1]) {
        assert!(
            matches!(on.renew(key, 3).await, Renewal::Ended(_)),
            "{key} is forgotten"
        );
    }
}

async fn a_clock_that_steps_back_prolongs_nothing(on: &Subject<'_>) {
    let (a, b, c) = (playback("a"), playback("b"), playback("c"));
    on.fill(&[&a]).await;
    on.release(&b, Ending::Stream).await;
    on.clock.set(Timestamp::from_millis(
        on.clock.now().as_millis() - 3_600_000,
    ));
    assert!(
        is_full(&on.admit(&c, 1).await),
        "which cuts what ends too far ahead"
    );
    assert_eq!(on.sessions().await[0].expires_at, on.at(LEASE));
    on.clock.advance(LEASE);
    assert_eq!(on.admit(&b, 1).await, ended(EndCause::Released));
    assert!(is_started(&on.admit(&c, 1).await));
    on.clock.advance(terms().memory - LEASE);
    assert!(is_started(&on.admit(&b, 2).await));
}

async fn a_clock_that_steps_back_leaves_no_sign_of_life_ahead(on: &Subject<'_>) {
    let (a, b) = (playback("a"), playback("b"));
    on.fill(&[&a]).await;
    let started_at = on.sessions().await[0].started_at;
    on.clock.advance(Duration::from_secs(10));
    let short = Sighting {
        lease: Duration::from_secs(5),
        ..sighting(&a)
    };
    on.see(&short, 3).await;
    let back = on.clock.now().as_millis() - 5_000;
    on.clock.set(Timestamp::from_millis(back));
    on.release(&b, Ending::Stream).await;
    let session = on.sessions().await.remove(0);
    assert_eq!(session.renewed_at, on.clock.now());
    assert_eq!(session.started_at, started_at);
}

async fn fifty_starts_at_once_fill_the_slots_exactly(on: &Subject<'_>) {
    let keys: Vec<_> = (0..50)
        .map(|number| playback(&number.to_string()))
        .collect();
    let admissions = join_all(keys.iter().map(|key| on.admit(key, 3))).await;
    assert_eq!(
        admissions
            .iter()
            .filter(|admission| is_started(admission))
            .count(),
        3
    );
    assert!(
        admissions
            .iter()
            .all(|admission| is_started(admission) || is_full(admission))
    );
    assert_eq!(on.live().await.len(), 3);
}

async fn starts_and_ends_at_once_never_exceed_the_limit(on: &Subject<'_>) {
    let lives = join_all((0..20).map(|number| async move {
        let mut let_in = 0;
        for round in 0..10 {
            let key = playback(&format!("{number}-{round}"));
            if let Admission::Admitted(admitted) = on.admit(&key, 3).await {
                assert!(admitted.active <= 3);
                let_in += 1;
                tokio::task::yield_now().await;
                assert!(matches!(
                    on.release(&key, Ending::Stream).await,
                    Released::Freed
                ));
            }
        }
        let_in
    }))
    .await;
    assert!(lives.iter().sum::<i32>() >= 3);
    assert_eq!(on.live().await, []);
}

async fn a_store_gives_a_sign_of_life(on: &Subject<'_>) {
    assert_eq!(on.store.ping().await, Ok(()));
}

async fn sightings_at_once_are_each_a_renewal(on: &Subject<'_>) {
    assert_eq!(on.store.renew_all(&[]).await, []);
    let users: Vec<_> = (0..80).map(|number| user(&number.to_string())).collect();
    let (a, b) = (playback("a"), playback("b"));
    for (number, user) in users.iter().enumerate() {
        // Of every four, one has a session, one another's, one ended it, and of one nobody has heard.
        let key = [&a, &b, &a, &a][number % 4];
        let seen = sighting(key);
        if number % 4 != 3 {
            on.store.renew(user, &seen, 3).await.unwrap();
        }
        if number % 4 == 2 {
            let ended = on
                .store
                .release(user, &a, Ending::Operator, Duration::ZERO)
                .await;
            assert!(matches!(ended, Ok(Released::Freed)));
        }
    }
    on.clock.advance(LEASE / 3);
    let seen = |user: &UserId| Seen {
        user: user.clone(),
        sighting: sighting(&a),
        limit: 3,
    };
    let mut all: Vec<_> = users.iter().map(seen).collect();
    all.push(seen(&users[3]));
    let renewals = on.store.renew_all(&all).await;
    let expires_at = on.at(LEASE);
    let last = all.len() - 1;
    assert_eq!(renewals.len(), all.len());
    for (number, renewal) in renewals.into_iter().enumerate() {
        let expected = match number % 4 {
            0 if number != last => Renewal::Renewed { expires_at },
            2 => Renewal::Ended(EndCause::Operator),
            _ if number == last => continue,
            _ => Renewal::PutBack { expires_at },
        };
        assert_eq!(renewal, Ok(expected), "{number}");
    }
    for (number, user) in users.iter().enumerate() {
        let sessions = on.store.list(user).await.unwrap().sessions;
        let renewed: Vec<_> = sessions
            .iter()
            .filter(|session| session.expires_at == expires_at)
            .map(|session| &session.key)
            .collect();
        let expected: &[_] = if number % 4 == 2 { &[] } else { &[&a] };
        assert_eq!(renewed, expected, "{number}");
    }
}

/// Sessions by their users and, as text, their keys.
type Crowd = BTreeMap<UserId, BTreeMap<String, Session>>;

/// Names that a store which takes apart what it has put together may stumble over.
fn hostile_names() -> Vec<String> {
    let awkward = "{ } {} }{ % %7B %7b %257B {a} a} {a * ? [a] [^a] \\ \\* ^ : a:{b . / \" ' -- \u{eb} \u{65e5}\u{672c} \u{1f600}";
    let long = ["x".repeat(MAX_ID_BYTES), "\u{e9}".repeat(MAX_ID_BYTES / 2)];
    let awkward = awkward.split(' ').map(ToOwned::to_owned);
    awkward.chain(long).chain([" ".to_owned()]).collect()
}

impl Subject<'_> {
    /// The page that begins there. Each of its users has to be shown as [`Store::list`] does, and once.
    async fn page(&self, from: &Cursor, size: usize) -> Page {
        let page = self.store.page(from, size).await.unwrap();
        assert_eq!(page.taken_at, self.clock.now());
        let mut users = Vec::new();
        for part in page.entries.chunk_by(|(one, _), (other, _)| one == other) {
            let sessions: Vec<_> = part.iter().map(|(_, session)| session.clone()).collect();
            let user = &part[0].0;
            assert_eq!(sessions, self.store.list(user).await.unwrap().sessions);
            assert!(!users.contains(user), "{user} is there twice");
            users.push(user.clone());
        }
        page
    }

    /// All that is shown to who follows the pages of that size from there to the end; before each but the first, something happens.
    async fn follow(&self, from: Cursor, size: usize, meanwhile: impl AsyncFn(usize)) -> Crowd {
        let (mut seen, mut next) = (Crowd::new(), Some(from));
        for number in 0.. {
            let Some(from) = next else { break };
            if number > 0 {
                meanwhile(number).await;
            }
            assert!(number < 5_000, "there is no end of pages of {size}");
            let page = self.page(&from, size).await;
            // It goes out and comes back as text.
            next = page.next.map(|next| next.to_string().parse().unwrap());
            for (user, session) in page.entries {
                let sessions = seen.entry(user).or_default();
                sessions.insert(session.key.to_string(), session);
            }
        }
        seen
    }

    /// Everybody's live sessions, with pages of that size.
    async fn everything(&self, size: usize) -> Crowd {
        self.follow(Cursor::default(), size, async |_| ()).await
    }

    /// Lets that user have so many sessions, of all kinds and two lengths of lease.
    async fn let_in(&self, user: &UserId, sessions: usize) {
        for number in 0..sessions {
            let start = Start {
                lease: LEASE / (1 + u32::try_from(number % 2).unwrap()),
                ..start(&key(Kind::ALL[number % 3], &number.to_string()))
            };
            let admission = self.store.admit(user, &start, &refusing(9)).await;
            assert!(is_started(&admission.unwrap()));
        }
    }

    /// What [`Store::list`] tells of these users.
    async fn listed(&self, users: &[UserId]) -> Crowd {
        let mut crowd = Crowd::new();
        for user in users {
            let sessions = self.store.list(user).await.unwrap().sessions;
            let sessions = sessions
                .into_iter()
                .map(|session| (session.key.to_string(), session));
            let sessions: BTreeMap<_, _> = sessions.collect();
            if !sessions.is_empty() {
                crowd.insert(user.clone(), sessions);
            }
        }
        crowd
    }
}

async fn of_nobody_there_is_one_empty_page(on: &Subject<'_>) {
    for size in [0, 1, 100, usize::MAX] {
        let page = on.page(&Cursor::default(), size).await;
        assert_eq!((page.entries, page.next), (Vec::new(), None));
    }
}

async fn who_follows_pages_of_any_size_sees_all_that_is_live_and_nothing_else(on: &Subject<'_>) {
    let plain = (0..300).map(|number| format!("user {number}"));
    let users: Vec<_> = plain
        .chain(hostile_names())
        .map(|name| user(&name))
        .collect();
    for (number, user) in users.iter().enumerate() {
        on.let_in(user, number % 5).await;
        if number % 7 < 2 {
            // For some that was all they had.
            let gone = key(Kind::Request, "0");
            on.store
                .release(user, &gone, Ending::Stream, Duration::ZERO)
                .await
                .unwrap();
        }
    }
    for (passed, sessions) in [(Duration::ZERO, 500), (LEASE / 2, 300), (LEASE / 2, 0)] {
        on.clock.advance(passed);
        let expected = on.listed(&users).await;
        let count: usize = expected.values().map(BTreeMap::len).sum();
        assert!(
            count >= sessions && (count > 0) == (sessions > 0),
            "{count} sessions"
        );
        for size in [0, 1, 7, 100, 1000] {
            let seen = on.everything(size).await;
            assert!(seen == expected, "pages of {size}, {passed:?} later");
        }
    }
}

async fn what_comes_and_goes_between_pages_hides_nothing_that_stays(on: &Subject<'_>) {
    let staying: Vec<_> = (0..200)
        .map(|number| user(&format!("stays {number}")))
        .collect();
    for user in &staying {
        on.let_in(user, 2).await;
    }
    let expected = on.listed(&staying).await;
    // What ends without a trace leaves no key in Redis, whose table of keys then grows and shrinks.
    let guest = start(&key(Kind::Video, "v"));
    let guests = |page: usize| (0..60).map(move |number| user(&format!("guest {page} {number}")));
    for size in [1, 30] {
        let meanwhile = async |page| {
            for user in guests(page).filter(|_| page <= 20) {
                let admission = on.store.admit(&user, &guest, &refusing(1)).await;
                assert!(is_started(&admission.unwrap()));
            }
            for user in guests(page.saturating_sub(3)).filter(|_| (4..=23).contains(&page)) {
                let released = on
                    .store
                    .release(&user, &guest.key, Ending::Stream, Duration::ZERO)
                    .await;
                assert!(matches!(released, Ok(Released::Freed)));
            }
        };
        let seen = on.follow(Cursor::default(), size, meanwhile).await;
        for (user, sessions) in &expected {
            assert_eq!(seen.get(user), Some(sessions), "{user} in pages of {size}");
        }
    }
}

async fn any_cursor_leads_to_some_page_and_to_an_end(on: &Subject<'_>) {
    let users: Vec<_> = (0..100).map(|number| user(&number.to_string())).collect();
    for user in &users {
        on.let_in(user, 1).await;
    }
    let all = on.listed(&users).await;
    for text in [
        "0.NTA",
        "1",
        "7.YWxpY2U",
        "63",
        "64",
        "65.NTA",
        "1000000",
        "18446744073709551615",
        "18446744073709551615.NTA",
        "9223372036854775808",
        "12345678901234567890",
    ] {
        let cursor = text.parse().unwrap();
        for (user, sessions) in on.follow(cursor, 10, async |_| ()).await {
            assert_eq!(all.get(&user), Some(&sessions), "from {text}");
        }
    }
}
