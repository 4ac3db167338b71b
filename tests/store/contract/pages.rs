//! The listing of everybody, page by page.

use std::collections::BTreeMap;
use std::time::Duration;

use streamgate::clock::Clock;
use streamgate::identity::{Kind, MAX_ID_BYTES, UserId};
use streamgate::session::{Ending, Released, Session, Start};
use streamgate::store::{Cursor, Page, Shard};

use testkit::streams::{LEASE, key, refusing, start, user};

use super::{CROWD, Subject, is_started};

contract!(
    a_page_of_an_empty_store_is_empty,
    pages_of_any_size_list_exactly_the_live_sessions,
    what_comes_and_goes_between_pages_hides_nothing_that_stays,
    any_cursor_leads_to_some_page_and_to_an_end,
);

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

/// One empty page, or in a cluster, whose slots have to be asked for, a few.
async fn a_page_of_an_empty_store_is_empty(on: &Subject<'_>) {
    let is_one_piece = on.store.shards() == [Shard::whole()];
    for size in on.sizes.iter().copied().chain([usize::MAX]) {
        let page = on.page(&Cursor::default(), size).await;
        assert_eq!(page.entries, Vec::new());
        assert!(page.next.is_none() || !is_one_piece, "{page:?}");
        assert_eq!(on.everything(size).await, Crowd::new());
    }
}

async fn pages_of_any_size_list_exactly_the_live_sessions(on: &Subject<'_>) {
    let plain = (0..on.crowd).map(|number| format!("user {number}"));
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
            count * CROWD >= sessions * on.crowd && (count > 0) == (sessions > 0),
            "{count} sessions"
        );
        for size in on.sizes.iter().copied() {
            let seen = on.everything(size).await;
            assert!(seen == expected, "pages of {size}, {passed:?} later");
        }
    }
}

async fn what_comes_and_goes_between_pages_hides_nothing_that_stays(on: &Subject<'_>) {
    let staying: Vec<_> = (0..on.crowd * 2 / 3)
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
