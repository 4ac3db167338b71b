//! A server without memory to spare.

use std::time::Duration;

use streamgate::identity::{ContentId, Facts};
use streamgate::session::{
    Admission, AdmissionKind, Ending, Refusal, Released, Renewal, Start, StartRules, WhenFull,
};
use streamgate::store::redis::RedisStore;
use streamgate::store::{Store, StoreError};

use testkit::redis::{RedisServer, lasting_store};
use testkit::streams::{playback, refusing, sighting, user};

use super::{active, heavy, seen};

/// Lets in as many users with a heavy session `a` as there is room for, and then takes away more room than that.
async fn fill(server: &RedisServer, store: &RedisStore) -> Vec<String> {
    let mut names = Vec::new();
    let refusal = loop {
        let name = format!("user {}", names.len());
        let admission = store.admit(&user(&name), &heavy("a"), &refusing(3)).await;
        match admission {
            Ok(_) => names.push(name),
            Err(error) => break error,
        }
        assert!(names.len() < 100_000, "it does not become full");
    };
    assert!(matches!(refusal, StoreError::Full(_)), "{refusal:?}");
    server.run::<String>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    names
}

/// How many bytes the server says it uses.
fn used_memory(server: &RedisServer) -> i64 {
    let info: String = server.run(&["INFO", "memory"]);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_full_server_refuses_starts_and_still_lets_renew_and_release() {
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    for (number, name) in names.iter().take(90).enumerate() {
        let user = user(name);
        let before = store.list(&user).await.unwrap().sessions;
        let known = sighting(&playback("a"));
        assert!(matches!(
            store.renew(&user, &known, 3).await,
            Ok(Renewal::Renewed { .. })
        ));
        let again = store.admit(&user, &heavy("a"), &refusing(3)).await;
        assert!(matches!(again, Ok(Admission::Admitted(_))), "{again:?}");
        let next = store.admit(&user, &heavy("b"), &refusing(3)).await;
        assert!(matches!(next, Err(StoreError::Full(_))), "{next:?}");
        let taken = store
            .admit(
                &user,
                &heavy("b"),
                &StartRules::new(1, WhenFull::DisplaceOldest),
            )
            .await;
        assert!(matches!(taken, Err(StoreError::Full(_))), "{taken:?}");
        let after = store.list(&user).await.unwrap().sessions;
        assert_eq!(after.len(), 1);
        assert_eq!(
            after[0].facts, before[0].facts,
            "a start that is refused changes nothing"
        );
        let released = match number % 3 {
            0 => {
                store
                    .release(&user, &playback("a"), Ending::Stream, Duration::ZERO)
                    .await
            }
            1 => {
                store
                    .release(&user, &playback("a"), Ending::Operator, Duration::ZERO)
                    .await
            }
            _ => {
                store
                    .release(&user, &playback("a"), Ending::Vouched, Duration::ZERO)
                    .await
            }
        };
        assert!(matches!(released, Ok(Released::Freed)), "{released:?}");
        assert_eq!(active(&store, name).await, 0);
        let ended = store.admit(&user, &heavy("a"), &refusing(3)).await;
        assert!(
            matches!(ended, Ok(Admission::Refused(Refusal::Ended(..)))),
            "{ended:?}"
        );
        let seen = store.renew(&user, &sighting(&playback("seen")), 3).await;
        assert!(matches!(seen, Err(StoreError::Full(_))), "{seen:?}");
        let left: i64 = server.run(&["PTTL", &format!("streamgate:{{{name}}}")]);
        assert!(left > 0, "a key without an end");
    }
}

#[tokio::test]
async fn a_full_server_grows_by_nothing_that_it_is_told() {
    const STRANGERS: usize = 2000;
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    let (keys, used) = (server.run::<usize>(&["DBSIZE"]), used_memory(&server));
    for number in 0..STRANGERS {
        let ending = [Ending::Stream, Ending::Operator, Ending::Vouched][number % 3];
        let strange = playback(&format!("a stranger, number {number}"));
        // Some are strangers to a user who is there, the others' users are strangers too.
        for name in [&names[number % names.len()], &format!("nobody {number}")] {
            let released = store
                .release(&user(name), &strange, ending, Duration::ZERO)
                .await;
            assert_eq!(released, Ok(Released::NotLive));
            let seen = store.renew(&user(name), &sighting(&strange), 3).await;
            assert!(matches!(seen, Err(StoreError::Full(_))), "{seen:?}");
        }
    }
    assert_eq!(server.run::<usize>(&["DBSIZE"]), keys);
    let grown = used_memory(&server) - used;
    assert!(grown < 100_000, "grown by {grown} bytes");

    for name in &names {
        let renewal = store.renew(&user(name), &sighting(&playback("a")), 3).await;
        assert!(matches!(renewal, Ok(Renewal::Renewed { .. })));
        let released = store
            .release(&user(name), &playback("a"), Ending::Stream, Duration::ZERO)
            .await;
        assert!(matches!(released, Ok(Released::Freed)), "{released:?}");
        assert_eq!(active(&store, name).await, 0);
    }
    assert_eq!(server.run::<usize>(&["DBSIZE"]), keys);
    let grown = used_memory(&server) - used;
    assert!(grown < 0, "grown by {grown} bytes");
}

#[tokio::test]
async fn a_full_server_takes_over_what_is_newly_known_as_far_as_it_takes_no_more_room() {
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    let (alice, old) = (user(&names[0]), heavy("a"));
    let known = |content: &str| Start {
        facts: Facts {
            content: ContentId::parse(content).ok(),
            ..old.facts.clone()
        },
        ..old.clone()
    };
    let (longer, shorter) = (known(&"x".repeat(201)), known("x"));
    for (asked, kept) in [(&longer, &old), (&shorter, &shorter), (&old, &shorter)] {
        let before = store.list(&alice).await.unwrap().sessions[0].expires_at;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let again = store.admit(&alice, asked, &refusing(3)).await;
        let Ok(Admission::Admitted(again)) = again else {
            panic!("{again:?}");
        };
        assert_eq!(again.entry, AdmissionKind::Renewed);
        let session = &store.list(&alice).await.unwrap().sessions[0];
        assert_eq!(session.facts, kept.facts);
        assert_eq!(again.session, *session);
        assert!(session.expires_at > before);
    }
}

#[tokio::test]
async fn a_full_server_renews_many_at_once_too() {
    let server = RedisServer::start_with(&["--maxmemory", "4mb"]);
    let store = lasting_store(&server);
    let names = fill(&server, &store).await;
    let all: Vec<_> = names.iter().take(100).map(|name| seen(name, "a")).collect();
    for renewal in store.renew_all(&all).await {
        assert!(
            matches!(renewal, Ok(Renewal::Renewed { .. })),
            "{renewal:?}"
        );
    }
}
