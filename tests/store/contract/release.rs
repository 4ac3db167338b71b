//! Ends: what they free, and for how long they are remembered.

use std::time::Duration;

use streamgate::identity::{EndMessage, Kind};
use streamgate::session::{
    Admission, EndCause, EndList, Ending, Refusal, Released, Renewal, StartRules, Ticket, WhenFull,
};

use testkit::streams::{key, playback, start, start_with, terms};

use super::{Subject, alice, displaced, ended, is_started};

contract!(
    an_end_frees_the_slot_and_is_remembered,
    an_end_may_overtake_its_start,
    a_video_can_be_watched_again_at_once,
    a_released_session_is_forgotten_in_time_however_often_it_asks,
    a_displaced_session_stays_displaced_for_as_long_as_it_asks,
    an_operator_ends_what_can_be_stopped,
    a_vouched_end_is_remembered_only_of_what_could_have_been_stopped,
    a_start_is_undone_by_its_own_call_alone_and_only_untouched,
    of_many_ends_the_earliest_to_be_forgotten_goes_first,
    a_message_is_told_as_long_as_the_end_is_remembered,
);

async fn a_message_is_told_as_long_as_the_end_is_remembered(on: &Subject<'_>) {
    let [a, b, c] = ["a", "b", "c"].map(playback);
    on.fill(&[&a, &b]).await;
    let longest = "\u{1f4fa}".repeat(200);
    for (key, ending, text) in [
        (&a, Ending::Operator, "Stopped \"here\"."),
        (&c, Ending::Operator, &longest),
        // Only an operator's end tells something.
        (&b, Ending::Vouched, "Stopped."),
    ] {
        let message = EndMessage::parse(text).ok();
        let telling = (ending, message.as_ref());
        let user = alice();
        let ended = on
            .store
            .release_telling(&user, key, telling, Duration::ZERO);
        assert!(ended.await.is_ok());
        let told = message.filter(|_| ending == Ending::Operator);
        let cause = if told.is_some() {
            EndCause::Operator
        } else {
            EndCause::Released
        };
        // Asking again prolongs the end, and the message stays.
        for _ in 0..3 {
            on.clock.advance(Duration::from_secs(20));
            let refused = Refusal::Ended(cause.clone(), None, told.clone());
            assert_eq!(on.admit(key, 3).await, Admission::Refused(refused));
            if told.is_none() {
                break;
            }
        }
    }
    // A takeover tells it to whom it displaces, and to nobody else.
    let [d, e] = ["d", "e"].map(playback);
    on.fill(&[&d]).await;
    let message = EndMessage::parse("You watch on the tv now.").ok();
    let rules = StartRules {
        message: message.clone(),
        ..StartRules::new(1, WhenFull::TakeOver(d.clone()))
    };
    let taken = on.store.admit(&alice(), &start(&e), &rules).await;
    assert_eq!(displaced(taken.unwrap()), std::slice::from_ref(&d));
    let by = e.clone();
    let refused = Refusal::Ended(EndCause::Displaced { by }, None, message);
    assert_eq!(on.admit(&d, 1).await, Admission::Refused(refused));
    assert_eq!(on.release(&e, Ending::Operator).await, Released::Freed);
    assert_eq!(on.admit(&e, 1).await, ended(EndCause::Operator));
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
