//! The outbox with a fault-injecting store and a paused clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, timeout};

use super::queue::{NoticeKey, Pending, Queue};
use super::*;
use crate::clock::ManualClock;
use crate::identity::{Facts, Kind, SessionId};
use crate::ledger::Settings;
use crate::policy::Policy;
use crate::session::{Start, StartRules, Ticket, WhenFull};
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::{Store, StoreError};

/// An outbox in front of a store in which leases never expire.
struct Bench {
    store: Arc<FaultyStore>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    outbox: Outbox,
    delivery: Delivery,
}

impl Bench {
    fn new() -> Self {
        Self::with_room(CAPACITY)
    }

    fn with_room(capacity: usize) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = FaultyStore::at(Arc::<ManualClock>::clone(&clock));
        let metrics = Arc::new(Metrics::new());
        let ledger = Arc::new(Ledger::new(
            Arc::<FaultyStore>::clone(&store),
            Settings::of(Policy::new(3)),
            clock,
            Arc::clone(&metrics),
        ));
        let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
        let (outbox, delivery) =
            with_capacity(capacity, Arc::clone(&ledger), terms, Arc::clone(&metrics));
        Self {
            store,
            metrics,
            ledger,
            outbox,
            delivery,
        }
    }

    /// Starts a session with that ticket.
    async fn start(&self, id: &str, ticket: u32) {
        let start = Start {
            key: key(id),
            facts: Facts::default(),
            lease: Duration::from_secs(15),
            ticket: Ticket::new(ticket),
            derived: false,
        };
        let store = &self.store.sound;
        let started = store
            .admit(&anna(), &start, &StartRules::new(3, WhenFull::Refuse))
            .await;
        started.unwrap();
    }

    fn submit(&self, notice: Notice) {
        self.outbox.submit(anna(), notice);
    }

    /// Closes the handle and waits for the worker to end.
    async fn finish(&self) {
        self.outbox.close();
        // The worker first: the ledger's background task would notice the failing store before any
        // delivery.
        tokio::select! {
            biased;
            finished = timeout(Duration::from_secs(3600), self.delivery.run()) => finished.expect("all is delivered"),
            () = self.ledger.run_background() => panic!("it ends without being told to"),
        }
    }

    fn dropped(&self, reason: &str) -> String {
        self.metric(&format!(
            "streamgate_releaser_dropped_total{{reason=\"{reason}\"}} "
        ))
    }

    fn metric(&self, series: &str) -> String {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.expect(series).to_owned()
    }
}

fn anna() -> UserId {
    UserId::parse("anna").unwrap()
}

fn key(id: &str) -> SessionKey {
    SessionKey {
        kind: Kind::Request,
        id: SessionId::parse(id).unwrap(),
    }
}

fn renew(id: &str) -> Notice {
    let sighting = Sighting {
        key: key(id),
        facts: Facts::default(),
        lease: Duration::from_secs(15),
        started_at: None,
        derived: false,
        provenance: crate::session::Provenance::Counted,
    };
    Notice::Renew(sighting, None, None)
}

fn release(id: &str) -> Notice {
    Notice::Release(key(id), Ending::Stream)
}

fn undo(id: &str, ticket: u32) -> Notice {
    Notice::Release(key(id), Ending::Undone(Ticket::new(ticket).unwrap()))
}

/// The waiting notices, such as `renew a`.
fn waiting(pending: &HashMap<NoticeKey, Pending>) -> Vec<String> {
    let mut shown: Vec<_> = pending
        .values()
        .map(|pending| match &pending.notice {
            Notice::Renew(sighting, _, _) => format!("renew {}", sighting.key.id),
            Notice::Release(key, Ending::Undone(ticket)) => {
                format!("undo {} {}", key.id, ticket.number())
            }
            Notice::Release(key, _) => format!("release {}", key.id),
            Notice::Played(key) => format!("played {}", key.id),
        })
        .collect();
    shown.sort();
    shown
}

fn pending(notice: Notice) -> Pending {
    Pending {
        notice,
        since: Stopwatch::start(),
    }
}

#[test]
fn the_last_state_of_each_session_waits_and_an_end_stays() {
    for (notices, expected) in [
        (vec![renew("a"), renew("a")], vec!["renew a"]),
        (vec![renew("a"), release("a")], vec!["release a"]),
        (vec![release("a"), renew("a")], vec!["release a"]),
        (vec![release("a"), release("a")], vec!["release a"]),
        (vec![release("a"), renew("b")], vec!["release a", "renew b"]),
        (vec![undo("a", 1), undo("a", 1)], vec!["undo a 1"]),
        (
            vec![undo("a", 1), undo("a", 2)],
            vec!["undo a 1", "undo a 2"],
        ),
        (
            vec![undo("a", 1), release("a")],
            vec!["release a", "undo a 1"],
        ),
    ] {
        let mut queue = Queue::default();
        for notice in &notices {
            assert!(queue.put(anna(), pending(notice.clone()), 10));
        }
        assert_eq!(waiting(&queue.fresh), expected, "{notices:?}");
        // The same if the first has failed meanwhile.
        let mut queue = Queue::default();
        for notice in &notices {
            assert!(queue.put(anna(), pending(notice.clone()), 10));
            let batch = queue.take_batch();
            queue.settle(batch);
        }
        queue.try_again(|_| true);
        assert_eq!(waiting(&queue.fresh), expected, "{notices:?} failing");
        assert_eq!(queue.len(), expected.len());
    }
}

#[test]
fn a_failed_notice_yields_to_a_newer_one_unless_it_is_an_end() {
    for (failed, came, expected) in [
        (renew("a"), renew("a"), (vec!["renew a"], vec![])),
        (renew("a"), release("a"), (vec!["release a"], vec![])),
        (release("a"), renew("a"), (vec![], vec!["release a"])),
        (
            release("a"),
            renew("b"),
            (vec!["renew b"], vec!["release a"]),
        ),
    ] {
        let mut queue = Queue::default();
        queue.put(anna(), pending(failed.clone()), 10);
        let batch = queue.take_batch();
        queue.put(anna(), pending(came.clone()), 10);
        queue.settle(batch);
        let left = (waiting(&queue.fresh), waiting(&queue.failed));
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            left,
            (owned(expected.0), owned(expected.1)),
            "{failed:?}, then {came:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_entries_of_one_stream_cost_one_call() {
    let bench = Bench::new();
    for _ in 0..100 {
        bench.submit(renew("a"));
    }
    assert_eq!(bench.metric("streamgate_releaser_pending "), "1");
    bench.finish().await;
    assert_eq!(bench.store.calls("renew"), 1);
    assert_eq!(bench.store.live("anna").await, ["a"]);
    assert_eq!(bench.metric("streamgate_releaser_pending "), "0");
}

#[tokio::test(start_paused = true)]
async fn releases_find_room_where_renewals_no_longer_do() {
    let bench = Bench::with_room(4);
    for id in ["a", "b", "c", "d"] {
        bench.submit(renew(id));
    }
    assert_eq!(bench.dropped("queue_full"), "1", "d had no room");
    bench.submit(release("e"));
    assert_eq!(bench.dropped("queue_full"), "1");
    bench.submit(release("f"));
    assert_eq!(bench.dropped("queue_full"), "2", "f had none either");
    bench.submit(release("a"));
    bench.submit(renew("b"));
    assert_eq!(
        bench.dropped("queue_full"),
        "2",
        "what waits already needs no room"
    );
    bench.finish().await;
    let mut live = bench.store.live("anna").await;
    live.sort();
    assert_eq!(live, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_users_ends_leaves_room_for_others() {
    let bench = Bench::with_room(2000);
    bench.store.fails(&Fault::LosesCalls);
    let ben = UserId::parse("ben").unwrap();
    for n in 0..10_000 {
        bench.submit(release(&format!("r{n}")));
        if n % 40 == 0 {
            let end = release(&format!("b{n}"));
            bench.outbox.submit(ben.clone(), end);
        }
    }
    let queue = lock(&bench.delivery.shared.queue);
    let of_ben = queue.fresh.keys().filter(|(user, ..)| *user == ben);
    assert_eq!(of_ben.count(), 250, "all of them");
    assert!(queue.len() <= 1000 + 250, "{}", queue.len());
}

#[tokio::test(start_paused = true)]
async fn a_failed_notice_is_retried_until_delivered() {
    let bench = Bench::new();
    bench.start("a", 1).await;
    bench.store.fails(&Fault::LosesCalls);
    bench.submit(release("a"));
    let healing = async {
        // Once it has failed to answer, it is only probed.
        bench.store.asked("ping", 5).await;
        assert_eq!(bench.store.calls("release"), 1);
        assert_eq!(bench.store.live("anna").await, ["a"]);
        bench.store.fails(&Fault::None);
    };
    tokio::join!(bench.finish(), healing);
    assert_eq!(bench.store.live("anna").await, [""; 0]);
    assert_eq!(
        bench.metric("streamgate_releases_total{cause=\"access_log\"} "),
        "1"
    );
    for reason in ["queue_full", "expired", "shutdown"] {
        assert_eq!(bench.dropped(reason), "0");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_notice_delays_no_other() {
    let bench = Bench::new();
    bench
        .store
        .fails_at("renew", Fault::Errs(StoreError::Full("no room".to_owned())));
    bench.submit(renew("poison"));
    let others = async {
        bench.store.asked("renew", 4).await;
        for n in 1..=20 {
            let watch = Stopwatch::start();
            bench.submit(release("a"));
            bench.store.asked("release", n).await;
            assert_eq!(watch.elapsed(), Duration::ZERO, "the {n}th waited");
        }
    };
    tokio::select! {
        () = bench.delivery.run() => panic!("it ends without being told to"),
        () = others => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_sighting_gets_the_rest_of_its_lease() {
    let bench = Bench::new();
    bench.submit(renew("a"));
    bench.submit(renew("b"));
    advance(Duration::from_secs(10)).await;
    bench.submit(renew("b"));
    bench.finish().await;
    let sessions = bench.store.sound.list(&anna()).await.unwrap().sessions;
    let mut leases: Vec<_> = sessions
        .iter()
        .map(|session| (session.key.id.to_string(), session.expires_at.as_millis()))
        .collect();
    leases.sort();
    assert_eq!(leases, [("a".to_owned(), 5_000), ("b".to_owned(), 15_000)]);
}

#[tokio::test(start_paused = true)]
async fn expired_notices_are_dropped_and_counted() {
    let bench = Bench::new();
    bench.submit(renew("a"));
    advance(Duration::from_secs(15)).await;
    bench.submit(release("b"));
    bench.submit(undo("c", 1));
    // The longest lease, the store's deadline and one second.
    advance(Duration::from_millis(31_050)).await;
    bench.submit(release("d"));
    bench.finish().await;
    assert_eq!(bench.dropped("expired"), "3");
    assert_eq!(bench.store.calls("renew"), 0);
    assert_eq!(bench.store.calls("release"), 1);
}

#[tokio::test(start_paused = true)]
async fn hopeless_notices_are_dropped_immediately() {
    let bench = Bench::new();
    bench
        .store
        .fails(&Fault::Errs(StoreError::Protocol("what?".to_owned())));
    bench.submit(release("a"));
    bench.finish().await;
    assert_eq!(bench.store.calls("release"), 1);
    assert_eq!(bench.dropped("protocol"), "1");
}

#[tokio::test(start_paused = true)]
async fn an_undo_takes_back_only_its_own_start() {
    let bench = Bench::new();
    for (id, ticket) in [("mine", 1), ("other", 2), ("renewed", 3)] {
        bench.start(id, ticket).await;
    }
    bench.start("renewed", 4).await;
    for id in ["mine", "other", "renewed", "unknown"] {
        bench.submit(undo(id, if id == "renewed" { 3 } else { 1 }));
    }
    bench.finish().await;
    assert_eq!(bench.store.live("anna").await, ["other", "renewed"]);
    assert_eq!(
        bench.metric("streamgate_releases_total{cause=\"undone\"} "),
        "1"
    );
    bench.start("mine", 5).await;
    assert_eq!(bench.store.live("anna").await, ["other", "renewed", "mine"]);
}

#[tokio::test(start_paused = true)]
async fn closing_delivers_what_waits_and_giving_up_counts_it_all() {
    let bench = Bench::new();
    for n in 0..3 * 256 + 1 {
        bench.submit(release(&format!("r{n}")));
    }
    bench.finish().await;
    assert_eq!(bench.store.calls("release"), 769);
    assert_eq!(bench.delivery.give_up(), 0);

    let bench = Bench::new();
    bench.store.hold();
    for n in 0..300 {
        bench.submit(release(&format!("r{n}")));
    }
    tokio::select! {
        () = bench.finish() => panic!("nothing can be delivered"),
        () = bench.store.asked("release", 256) => {}
    }
    assert_eq!(
        bench.delivery.give_up(),
        300,
        "those under way are lost too"
    );
    assert_eq!(bench.dropped("shutdown"), "300");
    assert_eq!(bench.metric("streamgate_releaser_pending "), "0");
}

#[tokio::test(start_paused = true)]
async fn notices_expire_even_if_the_store_is_not_asked() {
    let bench = Bench::with_room(4);
    bench.store.fails(&Fault::LosesCalls);
    for id in ["a", "b", "c", "d"] {
        bench.submit(release(id));
    }
    let outlasting = async {
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(bench.dropped("expired"), "4");
        assert_eq!(bench.metric("streamgate_releaser_pending "), "0");
        bench.submit(release("e"));
        assert_eq!(bench.dropped("queue_full"), "0");
    };
    tokio::select! {
        () = bench.delivery.run() => panic!("it ends without being told to"),
        () = bench.ledger.run_background() => panic!("it ends without being told to"),
        () = outlasting => {}
    }
}
