//! Limits of single users: what a start, a renewal and a list make of them, and when they end.

use std::time::Duration;

use streamgate::clock::Clock;
use streamgate::session::{
    Admission, AdmissionKind, LimitOverride, Provenance, Refusal, Renewal, Sighting, Start,
    StartRules, WhenFull,
};
use streamgate::store::StoreError;

use testkit::streams::{playback, sighting, start, user};

use super::{Subject, alice, displaced, is_full, is_started};

contract!(
    a_limit_set_for_a_user_takes_the_place_of_the_configured_one,
    a_limit_of_zero_refuses_starts_and_who_is_watching_continues,
    a_limit_set_again_replaces_the_first_and_one_removed_is_gone,
    a_limit_ends_when_it_was_said_to_and_outlives_all_sessions,
    a_sighting_is_counted_by_the_limit_that_was_set,
    a_displacing_start_makes_room_by_the_limit_that_was_set,
);

/// An hour.
const HOUR: Duration = Duration::from_secs(3600);

impl Subject<'_> {
    /// Sets alice's limit for an hour, or removes it; returns the limit before.
    async fn set(&self, limit: Option<u32>) -> Option<u32> {
        let until = self.at(HOUR);
        let limit = limit.map(|limit| LimitOverride { limit, until });
        let before = self.store.override_limit(&alice(), limit).await;
        before.unwrap().map(|before| before.limit)
    }

    /// The limit that the list tells.
    async fn told(&self) -> Option<LimitOverride> {
        self.store.list(&alice()).await.unwrap().limit_override
    }
}

/// The limit that an answer tells: of one who was let in, the one that was set.
fn limit_of(admission: &Admission) -> Option<u32> {
    match admission {
        Admission::Admitted(admitted) => admitted.limit_override,
        Admission::Refused(Refusal::Full { limit, .. }) => Some(*limit),
        Admission::Refused(_) => None,
    }
}

async fn a_limit_set_for_a_user_takes_the_place_of_the_configured_one(on: &Subject<'_>) {
    let [a, b, c] = ["a", "b", "c"].map(playback);
    assert_eq!(limit_of(&on.admit(&a, 1).await), None);
    assert_eq!(limit_of(&on.admit(&b, 1).await), Some(1));
    assert_eq!(on.set(Some(2)).await, None);
    let until = on.at(HOUR);
    assert_eq!(on.told().await, Some(LimitOverride { limit: 2, until }));
    for configured in [0, 1, 1000] {
        let started = on.admit(&b, configured).await;
        assert_eq!(limit_of(&started), Some(2), "{started:?}");
        let full = on.admit(&c, configured).await;
        assert!(is_full(&full), "{full:?}");
        assert_eq!(limit_of(&full), Some(2));
    }
    // Nobody else's.
    let rules = StartRules::new(1, WhenFull::Refuse);
    let bobs = on.store.admit(&user("bob"), &start(&a), &rules).await;
    assert_eq!(limit_of(&bobs.unwrap()), None);
}

async fn a_limit_of_zero_refuses_starts_and_who_is_watching_continues(on: &Subject<'_>) {
    let [a, b] = ["a", "b"].map(playback);
    on.fill(&[&a]).await;
    on.set(Some(0)).await;
    for when_full in [
        WhenFull::Refuse,
        WhenFull::DisplaceOldest,
        WhenFull::TakeOver(a.clone()),
    ] {
        let refused = on.admit_or(&b, 3, &when_full).await;
        assert_eq!((is_full(&refused), limit_of(&refused)), (true, Some(0)));
    }
    for _ in 0..3 {
        on.clock.advance(Duration::from_secs(20));
        let renewed = on.renew(&a, 3).await;
        assert!(matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");
    }
    let again = on.admit(&a, 3).await;
    let Admission::Admitted(admitted) = again else {
        panic!("it is watching");
    };
    assert_eq!(admitted.entry, AdmissionKind::Renewed);
    assert_eq!(admitted.limit_override, Some(0));
}

async fn a_limit_set_again_replaces_the_first_and_one_removed_is_gone(on: &Subject<'_>) {
    assert_eq!(on.set(Some(5)).await, None);
    assert_eq!(on.set(Some(0)).await, Some(5));
    assert!(is_full(&on.admit(&playback("a"), 3).await));
    assert_eq!(on.set(None).await, Some(0));
    assert_eq!(on.set(None).await, None);
    assert_eq!(on.told().await, None);
    assert!(is_started(&on.admit(&playback("a"), 3).await));
    // One that has expired already is none.
    let expired = LimitOverride {
        limit: 7,
        until: on.clock.now(),
    };
    on.set(Some(5)).await;
    let set = on.store.override_limit(&alice(), Some(expired)).await;
    let before = Ok::<_, StoreError>(Some(5));
    assert_eq!(set.map(|before| before.map(|it| it.limit)), before);
    assert_eq!(on.told().await, None);
}

async fn a_limit_ends_when_it_was_said_to_and_outlives_all_sessions(on: &Subject<'_>) {
    let until = on.at(LimitOverride::LONGEST);
    let limit = Some(LimitOverride { limit: 0, until });
    on.store.override_limit(&alice(), limit).await.unwrap();
    on.clock
        .advance(LimitOverride::LONGEST - Duration::from_millis(1));
    assert_eq!(on.told().await, limit);
    assert!(is_full(&on.admit(&playback("a"), 3).await));
    on.clock.advance(Duration::from_millis(1));
    assert_eq!(on.told().await, None);
    assert!(is_started(&on.admit(&playback("a"), 3).await));
}

async fn a_sighting_is_counted_by_the_limit_that_was_set(on: &Subject<'_>) {
    let unplayed = |id| Sighting {
        provenance: Provenance::Unplayed,
        ..sighting(&playback(id))
    };
    on.set(Some(2)).await;
    for (id, is_counted) in [("a", true), ("b", true), ("c", false)] {
        let seen = on.see(&unplayed(id), 1).await;
        assert_eq!(seen != Renewal::Crowded, is_counted, "{id}: {seen:?}");
    }
    // A caller that only renews starts nothing, whatever the limit.
    on.set(Some(9)).await;
    let only_renews = StartRules {
        renews_only: true,
        ..StartRules::new(0, WhenFull::Refuse)
    };
    for (id, is_live) in [("a", true), ("d", false)] {
        let asked = Start {
            derived: false,
            ..start(&playback(id))
        };
        let told = on.store.admit(&alice(), &asked, &only_renews).await;
        assert_eq!(!is_full(&told.unwrap()), is_live, "{id}");
    }
}

async fn a_displacing_start_makes_room_by_the_limit_that_was_set(on: &Subject<'_>) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(playback);
    on.fill(&[&a, &b, &c]).await;
    on.set(Some(2)).await;
    let started = on.admit_or(&d, 9, &WhenFull::DisplaceOldest).await;
    assert_eq!(displaced(started), [a, b]);
    assert_eq!(on.live().await, [c, d]);
}
