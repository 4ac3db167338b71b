//! The ledger with a fault-injecting store and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use super::start::MAX_UNKNOWN_PLANS;
use super::*;
use crate::clock::{ManualClock, Stopwatch};
use crate::identity::{Facts, SessionId};
use crate::policy::Policy;
use crate::session::{
    Admission, AdmissionKind, Admitted, Ending, Provenance, Refusal, Released, Sighting,
};
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::{Cursor, StoreError};

/// A ledger in front of a store in which leases never expire.
struct Bench {
    store: Arc<FaultyStore>,
    metrics: Arc<Metrics>,
    ledger: Ledger,
}

const GRACE: Duration = Duration::from_millis(250);

impl Bench {
    fn new() -> Self {
        Self::with_policy(Policy::new(1))
    }

    fn with_policy(policy: Policy) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = FaultyStore::at(Arc::<ManualClock>::clone(&clock));
        let metrics = Arc::new(Metrics::new());
        let settings = Settings::with_grace(policy, GRACE);
        let ledger = Ledger::new(
            Arc::<FaultyStore>::clone(&store),
            settings,
            clock,
            Arc::clone(&metrics),
        );
        Self {
            store,
            metrics,
            ledger,
        }
    }

    async fn admit(&self, claim: &Claim, caller: &CallerDeadline) -> Decision {
        self.ask(claim, caller).await.unwrap()
    }

    async fn ask(&self, claim: &Claim, caller: &CallerDeadline) -> Result<Decision, Outage> {
        let (lookup, settings) = (self.ledger.lookup(claim), self.ledger.in_force());
        self.ledger.admit(claim, lookup, &settings, caller).await
    }

    async fn release(&self, user: &str, id: &str) {
        let (user, key) = (UserId::parse(user).unwrap(), key(id));
        let released = self
            .ledger
            .release(&user, &key, Ending::Stream, Duration::ZERO);
        released.await.unwrap();
    }

    fn metric(&self, series: &str) -> String {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.expect(series).trim().to_owned()
    }

    fn grace(&self, outcome: &str) -> String {
        self.metric(&format!("streamgate_grace_total{{outcome=\"{outcome}\"}}"))
    }
}

fn key(id: &str) -> SessionKey {
    SessionKey {
        kind: Kind::Request,
        id: SessionId::parse(id).unwrap(),
    }
}

fn claim(user: &str, id: &str) -> Claim {
    Claim {
        user: UserId::parse(user).unwrap(),
        plan: None,
        key: key(id),
        facts: Facts::default(),
        takeover: None,
        message: None,
        derived: false,
        free: false,
    }
}

fn caller(deadline: Duration) -> CallerDeadline {
    CallerDeadline {
        deadline: Some(deadline),
        ..CallerDeadline::endless()
    }
}

fn is_started(decision: &Decision) -> bool {
    matches!(
        decision.admission,
        Admission::Admitted(Admitted {
            entry: AdmissionKind::Started,
            ..
        })
    )
}

fn is_full(decision: &Decision) -> bool {
    matches!(decision.admission, Admission::Refused(Refusal::Full { .. }))
}

#[tokio::test(start_paused = true)]
async fn only_started_sessions_are_counted_by_kind() {
    let bench = Bench::with_policy(Policy::new(2));
    let mut playback = claim("anna", "p");
    playback.key.kind = Kind::Playback;
    for claim in [&claim("anna", "a"), &playback, &claim("anna", "b")] {
        bench.admit(claim, &CallerDeadline::endless()).await;
        bench.admit(claim, &CallerDeadline::endless()).await;
    }
    for (kind, starts) in [("request", "1"), ("playback", "1"), ("video", "0")] {
        let series = format!("streamgate_starts_total{{kind=\"{kind}\"}}");
        assert_eq!(bench.metric(&series), starts, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_at_the_limit_retries_during_and_after_its_grace() {
    let bench = Bench::new();
    let first = bench
        .admit(&claim("anna", "a"), &CallerDeadline::endless())
        .await;
    assert!(is_started(&first) && first.waited.is_zero() && first.limit == 1);
    let watch = Stopwatch::start();
    let second = bench
        .admit(&claim("anna", "b"), &CallerDeadline::endless())
        .await;
    assert!(is_full(&second));
    assert_eq!((second.waited, watch.elapsed()), (GRACE, GRACE));
    assert_eq!(bench.store.calls("admit"), 2 + 3 + 1);
    assert_eq!(bench.grace("refused"), "1");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_free_wakes_the_waiting_start_at_once() {
    let bench = Bench::new();
    bench
        .admit(&claim("anna", "a"), &CallerDeadline::endless())
        .await;
    let watch = Stopwatch::start();
    let (start, caller) = (claim("anna", "b"), CallerDeadline::endless());
    let (second, ()) = tokio::join!(bench.admit(&start, &caller), async {
        bench.store.asked("admit", 2).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        bench.release("ben", "a").await;
        bench.release("anna", "unknown").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        bench.release("anna", "a").await;
    });
    assert!(is_started(&second));
    let at = Duration::from_millis(50);
    assert_eq!((second.waited, watch.elapsed()), (at, at));
    assert_eq!(bench.grace("admitted"), "1");
}

#[tokio::test(start_paused = true)]
async fn the_wait_takes_half_of_the_remaining_deadline() {
    for (deadline, waited) in [
        (Some(200), 100),
        (Some(400), 200),
        (Some(5_000), 250),
        (Some(10), 5),
        (Some(9), 0),
        (Some(0), 0),
        (None, 250),
    ] {
        let bench = Bench::new();
        bench
            .admit(&claim("anna", "a"), &CallerDeadline::endless())
            .await;
        let caller = deadline.map_or_else(CallerDeadline::endless, |deadline| {
            caller(Duration::from_millis(deadline))
        });
        let decision = bench.admit(&claim("anna", "b"), &caller).await;
        assert!(is_full(&decision));
        assert_eq!(
            decision.waited,
            Duration::from_millis(waited),
            "{deadline:?}"
        );
        let skipped = if waited == 0 { "1" } else { "0" };
        assert_eq!(bench.grace("skipped"), skipped, "{deadline:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_from_the_wait_and_never_from_the_deadline() {
    let deadline = Duration::from_millis(200);
    // The time of a call, and of the answer with the calls before, during and after the wait.
    for (call, whole) in [
        (0, 100),
        (10, 115),
        (30, 135),
        (40, 155),
        (66, 66),
        (120, 120),
    ] {
        let bench = Bench::new();
        bench
            .admit(&claim("anna", "a"), &CallerDeadline::endless())
            .await;
        let call = Duration::from_millis(call);
        bench.store.fails(&Fault::Takes(call));
        let watch = Stopwatch::start();
        let decision = bench.admit(&claim("anna", "b"), &caller(deadline)).await;
        assert!(is_full(&decision));
        assert_eq!(
            watch.elapsed(),
            Duration::from_millis(whole),
            "where a call takes {call:?}"
        );
        assert!(watch.elapsed() < deadline);
        // All calls but the first belong to the wait, not to the check's own time.
        assert_eq!(watch.elapsed() - decision.waited, call);
    }
}

#[tokio::test(start_paused = true)]
async fn time_spent_in_the_store_shortens_the_wait() {
    let bench = Bench::new();
    bench
        .admit(&claim("anna", "a"), &CallerDeadline::endless())
        .await;
    bench.store.hold();
    let (start, caller) = (claim("anna", "b"), caller(Duration::from_millis(200)));
    let (decision, ()) = tokio::join!(bench.admit(&start, &caller), async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        bench.store.let_go();
    });
    assert_eq!(decision.waited, Duration::from_millis(80));
}

#[tokio::test(start_paused = true)]
async fn one_start_a_user_waits_at_a_time() {
    let bench = Bench::new();
    for user in ["anna", "ben"] {
        bench
            .admit(&claim(user, "a"), &CallerDeadline::endless())
            .await;
    }
    let (b, c, other, endless) = (
        claim("anna", "b"),
        claim("anna", "c"),
        claim("ben", "b"),
        CallerDeadline::endless(),
    );
    let (waiting, refused, elsewhere) = tokio::join!(
        bench.admit(&b, &endless),
        bench.admit(&c, &endless),
        bench.admit(&other, &endless)
    );
    assert_eq!(
        (waiting.waited, refused.waited, elsewhere.waited),
        (GRACE, Duration::ZERO, GRACE)
    );
    assert_eq!(
        (bench.grace("skipped"), bench.grace("refused")),
        ("1".to_owned(), "2".to_owned())
    );
    // The turn was released.
    assert_eq!(bench.admit(&c, &endless).await.waited, GRACE);
}

#[tokio::test(start_paused = true)]
async fn no_start_waits_at_a_limit_of_zero() {
    let bench = Bench::with_policy(Policy::new(0));
    let decision = bench
        .admit(&claim("anna", "a"), &CallerDeadline::endless())
        .await;
    assert!(is_full(&decision) && decision.waited.is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_gone_stops_waiting_and_starts_nothing() {
    let bench = Bench::new();
    bench
        .admit(&claim("anna", "a"), &CallerDeadline::endless())
        .await;
    let (start, caller) = (claim("anna", "b"), CallerDeadline::endless());
    let watch = Stopwatch::start();
    let (decision, ()) = tokio::join!(bench.admit(&start, &caller), async {
        bench.store.asked("admit", 2).await;
        // The slot is free, but not through this instance: no start is woken.
        let anna = UserId::parse("anna").unwrap();
        let sound = &bench.store.sound;
        sound
            .release(&anna, &key("a"), Ending::Stream, Duration::ZERO)
            .await
            .unwrap();
        caller.gone.cancel();
    });
    assert!(is_full(&decision));
    assert!(watch.elapsed().is_zero());
    assert_eq!(bench.store.calls("admit"), 2);
    assert_eq!(bench.store.live("anna").await, [""; 0]);
    // A caller that has already left doesn't wait, and doesn't block others from waiting.
    bench
        .admit(&claim("anna", "c"), &CallerDeadline::endless())
        .await;
    let decision = bench.admit(&start, &caller).await;
    assert!(is_full(&decision) && decision.waited.is_zero());
}

#[tokio::test(start_paused = true)]
async fn an_outage_reports_a_possible_start() {
    let (anna, session) = (UserId::parse("anna").unwrap(), key("a"));
    let timeout = StoreError::Timeout(Duration::from_millis(50));
    for (error, doubtful) in [
        (timeout.clone(), true),
        (StoreError::Disconnected("reset".to_owned()), true),
        (StoreError::Full("no room".to_owned()), false),
        (StoreError::Rejected("loading".to_owned()), false),
        (StoreError::Protocol("what?".to_owned()), false),
    ] {
        let bench = Bench::new();
        bench.store.fails(&Fault::Errs(error.clone()));
        let asked = bench
            .ask(&claim("anna", "a"), &CallerDeadline::endless())
            .await;
        assert_eq!(asked.unwrap_err().doubtful.is_some(), doubtful, "{error}");
        let bench = Bench::new();
        bench.store.fails(&Fault::Errs(error.clone()));
        let released = bench
            .ledger
            .release(&anna, &session, Ending::Stream, Duration::ZERO);
        let outage = released.await.unwrap_err();
        assert_eq!(
            (outage.doubtful, outage.error),
            (None, error),
            "an end is no start"
        );
    }
    // The ticket is that of the start that took place.
    let bench = Bench::new();
    bench.store.fails(&Fault::LosesAnswers);
    let asked = bench
        .ask(&claim("anna", "a"), &CallerDeadline::endless())
        .await;
    let ticket = asked.unwrap_err().doubtful.unwrap();
    bench.store.fails(&Fault::None);
    bench.ledger.probe().await;
    let undone = bench
        .ledger
        .release(&anna, &session, Ending::Undone(ticket), Duration::ZERO);
    assert!(matches!(undone.await.unwrap(), Released::Freed));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_stands_if_the_store_fails_during_the_wait() {
    for (fault, undo) in [
        (Fault::LosesCalls, true),
        (Fault::Errs(StoreError::Full("no room".to_owned())), false),
    ] {
        let bench = Bench::new();
        bench
            .admit(&claim("anna", "a"), &CallerDeadline::endless())
            .await;
        let (start, caller) = (claim("anna", "b"), CallerDeadline::endless());
        let (decision, ()) = tokio::join!(bench.admit(&start, &caller), async {
            bench.store.asked("admit", 2).await;
            bench.store.fails(&fault);
        });
        assert!(is_full(&decision), "{decision:?}");
        assert_eq!(decision.waited, GRACE);
        let doubtful = matches!(decision.undo, UndoHint::Doubtful(_));
        assert_eq!(doubtful, undo, "{:?}", decision.undo);
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_while_it_waited_can_still_be_taken_back() {
    let (bench, anna) = (Bench::new(), UserId::parse("anna").unwrap());
    let first = claim("anna", "a");
    bench.admit(&first, &CallerDeadline::endless()).await;
    let (start, caller) = (claim("anna", "b"), CallerDeadline::endless());
    let (decision, ()) = tokio::join!(bench.admit(&start, &caller), async {
        bench.store.asked("admit", 2).await;
        bench.store.fails_at("admit", Fault::LosesAnswers);
        bench.release("anna", "a").await;
        bench.store.asked("admit", 3).await;
        bench.store.fails(&Fault::None);
    });
    assert!(is_started(&decision), "{decision:?}");
    let UndoHint::Started(ticket) = decision.undo else {
        panic!("{:?}", decision.undo);
    };
    let ending = Ending::Undone(ticket);
    let undone = bench
        .ledger
        .release(&anna, &start.key, ending, Duration::ZERO);
    assert_eq!(undone.await.unwrap(), Released::Freed);
    assert_eq!(bench.store.live("anna").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_plan_gets_the_default_and_is_counted_each_time() {
    let plan = |name: &str| PlanName::parse(name).unwrap();
    let bench = Bench::with_policy(Policy {
        plans: [(plan("gold"), 5)].into(),
        ..Policy::new(2)
    });
    for (n, (name, limit)) in [("gold", 5), ("silver", 2), ("silver", 2), ("tin", 2)]
        .into_iter()
        .enumerate()
    {
        let claim = Claim {
            plan: Some(plan(name)),
            ..claim("anna", &format!("s{n}"))
        };
        assert_eq!(
            bench.admit(&claim, &caller(Duration::ZERO)).await.limit,
            limit,
            "{name}"
        );
    }
    assert_eq!(bench.metric("streamgate_unknown_plan_total"), "3");
    assert_eq!(bench.metric("streamgate_missing_plan_total"), "0");
    assert_eq!(
        bench.ledger.unknown_plans.lock().unwrap().len(),
        2,
        "each is logged once"
    );
    let (policy, anna) = (Policy::new(1), UserId::parse("anna").unwrap());
    for n in 0..2 * MAX_UNKNOWN_PLANS {
        bench
            .ledger
            .limit(&policy, &anna, Some(&plan(&n.to_string())));
    }
    assert_eq!(
        bench.ledger.unknown_plans.lock().unwrap().len(),
        MAX_UNKNOWN_PLANS
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_plan_is_counted_if_the_default_applies() {
    let plans = || [(PlanName::parse("gold").unwrap(), 5)].into();
    let users = || [(UserId::parse("anna").unwrap(), 4)].into();
    for (plans, users, counted) in [
        (plans(), Default::default(), "2"),
        (Default::default(), Default::default(), "0"),
        (plans(), users(), "0"),
    ] {
        let bench = Bench::with_policy(Policy {
            plans,
            users,
            ..Policy::new(3)
        });
        for id in ["a", "b"] {
            let claim = claim("anna", id);
            bench.admit(&claim, &caller(Duration::ZERO)).await;
        }
        assert_eq!(bench.metric("streamgate_missing_plan_total"), counted);
        // A caller that only reads has named no plan, and needn't.
        let anna = UserId::parse("anna").unwrap();
        let _: u32 = bench.ledger.limit_of(&anna, None);
        assert_eq!(bench.metric("streamgate_missing_plan_total"), counted);
    }
}

#[tokio::test(start_paused = true)]
async fn running_streams_are_put_back_above_the_plan_s_limit() {
    let gold = PlanName::parse("gold").unwrap();
    let bench = Bench::with_policy(Policy {
        plans: [(gold.clone(), 100)].into(),
        ..Policy::new(0)
    });
    let anna = UserId::parse("anna").unwrap();
    for (plan, room) in [(None, 32), (Some(&gold), 132)] {
        for n in 0..200 {
            let sighting = Sighting {
                key: key(&n.to_string()),
                facts: Facts::default(),
                lease: Duration::from_secs(15),
                started_at: None,
                derived: false,
                provenance: Provenance::Counted,
            };
            bench
                .ledger
                .renew(&anna, plan, &sighting, None)
                .await
                .unwrap();
        }
        assert_eq!(bench.store.live("anna").await.len(), room, "{plan:?}");
    }
    let unknown = PlanName::parse("tin").unwrap();
    let seen = Sighting {
        key: key("1"),
        facts: Facts::default(),
        lease: Duration::from_secs(15),
        started_at: None,
        derived: false,
        provenance: Provenance::Counted,
    };
    bench
        .ledger
        .renew(&anna, Some(&unknown), &seen, None)
        .await
        .unwrap();
    assert_eq!(bench.metric("streamgate_unknown_plan_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_listing_keeps_the_breaker_closed() {
    let bench = Bench::new();
    bench
        .admit(&claim("anna", "a"), &CallerDeadline::endless())
        .await;
    let page = bench.ledger.page(&Cursor::default(), 100).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    let refused = StoreError::Rejected("NOPERM".to_owned());
    for (error, outcome, is_up) in [
        (refused, "rejected", true),
        (
            StoreError::Timeout(Duration::from_millis(50)),
            "timeout",
            false,
        ),
    ] {
        bench.store.fails_at("page", Fault::Errs(error.clone()));
        for _ in 0..10 {
            assert!(bench.ledger.page(&Cursor::default(), 100).await.is_err());
        }
        assert_eq!(bench.ledger.store_health().up, is_up, "{error}");
        let series =
            format!("streamgate_store_requests_total{{operation=\"page\",outcome=\"{outcome}\"}} ");
        assert_ne!(bench.metric(&series), "0", "{error}");
    }
}
