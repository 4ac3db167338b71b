//! Starts: up to the limit, repeated, and what they say.

use std::time::Duration;

use streamgate::clock::Clock;
use streamgate::identity::{ContentId, DeviceId, Door, Facts, Kind, MAX_ID_BYTES};
use streamgate::session::{
    Admission, AdmissionKind, Ending, Refusal, Released, Session, Start, Ticket, WhenFull,
};

use testkit::streams::{LEASE, key, playback, refusing, start, user};

use super::{Subject, is_full, is_started};

contract!(
    starts_are_let_in_up_to_the_limit_and_the_next_is_told_who_is_there,
    a_limit_of_zero_lets_nobody_in,
    a_repeated_start_is_a_renewal_and_its_lease_never_shrinks,
    a_repeated_start_tells_what_is_newly_known,
    a_session_counts_until_its_lease_ends_and_not_a_millisecond_longer,
    names_of_different_kinds_and_users_are_different,
    every_fact_and_every_name_comes_back_as_it_went_in,
);

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
