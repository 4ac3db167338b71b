//! Who gives way at a full limit.

use std::time::Duration;

use streamgate::identity::Kind;
use streamgate::session::{Admission, EndCause, Refusal, Renewal, WhenFull};

use testkit::streams::{key, playback};

use super::{Subject, displaced, is_full, is_started};

contract!(
    the_oldest_gives_way,
    the_idlest_gives_way,
    as_many_give_way_as_are_too_many,
    requests_never_give_way,
    where_too_few_can_give_way_none_does,
    a_takeover_displaces_the_one_it_names_and_no_other,
    a_takeover_of_a_request_is_not_possible,
);

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
