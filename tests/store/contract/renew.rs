//! Sightings: what they prolong and what they put back.

use std::time::Duration;

use streamgate::clock::{Clock, Timestamp};
use streamgate::identity::{Door, Facts, Kind, UserId};
use streamgate::session::{
    EndCause, Ending, Flags, MAX_PUT_BACK, Released, Renewal, Session, Sighting,
};
use streamgate::store::{Seen, Shard};

use testkit::cluster::MASTERS;
use testkit::streams::{LEASE, key, playback, sighting, terms, user};

use super::{Subject, is_full};

contract!(
    running_streams_count_above_the_limit_up_to_a_bound,
    a_sighting_prolongs_and_never_shortens,
    a_sighting_brings_nothing_back_that_has_ended,
    the_start_of_what_is_put_back_is_believed_only_if_it_is_past,
    a_store_gives_a_sign_of_life,
    sightings_at_once_are_each_a_renewal,
);

async fn running_streams_count_above_the_limit_up_to_a_bound(on: &Subject<'_>) {
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

async fn a_store_gives_a_sign_of_life(on: &Subject<'_>) {
    // A cluster's shards are known once it has answered.
    on.live().await;
    let shards = on.store.shards();
    assert!(shards == [Shard::whole()] || shards.len() == MASTERS);
    for shard in shards {
        assert_eq!(on.store.ping(&shard).await, Ok(()), "{shard}");
    }
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
    // Two are about one session. Whichever comes first puts it back.
    let twice = [&renewals[3], &renewals[last]];
    let put_back = Ok(Renewal::PutBack { expires_at });
    let renewed = Ok(Renewal::Renewed { expires_at });
    assert!(
        twice == [&put_back, &renewed] || twice == [&renewed, &put_back],
        "{twice:?}"
    );
    for (number, renewal) in renewals.into_iter().enumerate() {
        let expected = match number % 4 {
            _ if number == 3 || number == last => continue,
            0 => Renewal::Renewed { expires_at },
            2 => Renewal::Ended(EndCause::Operator),
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
