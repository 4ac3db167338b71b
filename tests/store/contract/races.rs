//! Clocks that step back, and calls at the same time.

use std::time::Duration;

use futures_util::future::join_all;
use streamgate::clock::{Clock, Timestamp};
use streamgate::session::{Admission, EndCause, Ending, Released, Sighting};

use testkit::streams::{LEASE, playback, sighting, terms};

use super::{Subject, alice, ended, is_full, is_started};

contract!(
    a_clock_that_steps_back_prolongs_nothing,
    a_clock_that_steps_back_leaves_no_sign_of_life_ahead,
    a_clock_that_steps_back_voids_no_report_of_an_end,
    fifty_starts_at_once_fill_the_slots_exactly,
    starts_and_ends_at_once_never_exceed_the_limit,
);

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

async fn a_clock_that_steps_back_voids_no_report_of_an_end(on: &Subject<'_>) {
    let a = playback("a");
    on.fill(&[&a]).await;
    let back = on.clock.now().as_millis() - 60_000;
    on.clock.set(Timestamp::from_millis(back));
    let moment = Duration::from_millis(3);
    let released = on.store.release(&alice(), &a, Ending::Stream, moment).await;
    assert_eq!(released, Ok(Released::Freed));
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
