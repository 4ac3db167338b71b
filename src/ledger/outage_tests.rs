//! Held leases, the outage rule and healing, with a fault-injecting store and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::clock::{Stopwatch, SystemClock};
use crate::identity::{Facts, SessionId};
use crate::policy::Policy;
use crate::session::{
    Admission, EndCause, Ending, Provenance, Refusal, Released, Renewal, Sighting, Start,
    StartRules, Ticket, WhenFull,
};
use crate::store::StoreError;
use crate::store::faulty::{Fault, FaultyStore};

/// The lease of a playback.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How often a playback makes a request.
const INTERVAL: Duration = Duration::from_secs(2);

pub(super) const ALL_RULES: [OutageRule; 3] =
    [OutageRule::Allow, OutageRule::Deny, OutageRule::Local];

/// A ledger with its background work, in front of a store; both use the runtime's clock, which is
/// paused.
pub(super) struct Bench {
    pub(super) store: Arc<FaultyStore>,
    metrics: Arc<Metrics>,
    pub(super) ledger: Arc<Ledger>,
    _tended: AbortOnDropHandle<()>,
}

impl Bench {
    /// A bench with that limit for all users.
    pub(super) fn new(limit: u32, rule: OutageRule) -> Self {
        Self::with_room(limit, rule, 10_000)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the task is owned by the bench, and ends with it"
    )]
    fn with_room(limit: u32, rule: OutageRule, room_to_hold: usize) -> Self {
        let clock = Arc::new(SystemClock::start());
        let store = FaultyStore::at(Arc::<SystemClock>::clone(&clock));
        let metrics = Arc::new(Metrics::new());
        let settings = Settings {
            outage: rule,
            room_to_hold,
            ..Settings::of(Policy::new(limit))
        };
        let below = Arc::<FaultyStore>::clone(&store);
        let ledger = Arc::new(Ledger::new(below, settings, clock, Arc::clone(&metrics)));
        let tended = Arc::clone(&ledger);
        Self {
            store,
            metrics,
            ledger,
            _tended: AbortOnDropHandle::new(tokio::spawn(
                async move { tended.run_background().await },
            )),
        }
    }

    /// Does what a check does: it is answered from memory, or asks. Envoy immediately reports that
    /// a started session plays.
    pub(super) async fn check(&self, claim: &Claim) -> Result<Decision, Outage> {
        let decision = self.check_unplayed(claim).await?;
        if decision.is_start() {
            drop(self.ledger.played(&claim.user, &claim.key).await);
        }
        Ok(decision)
    }

    /// The same, without a report.
    async fn check_unplayed(&self, claim: &Claim) -> Result<Decision, Outage> {
        let (lookup, settings) = (self.ledger.lookup(claim), self.ledger.in_force());
        if !matches!(lookup, CacheLookup::Good { .. }) {
            let caller = CallerDeadline::endless();
            let decided = self.ledger.admit(claim, lookup, &settings, &caller);
            return decided.await;
        }
        let held = self.ledger.cache.admitted(&claim.user, &claim.key);
        Ok(Decision {
            admission: Admission::Admitted(held.expect("it is held")),
            basis: Basis::HeldLease,
            limit: self.ledger.limit_of(&claim.user, None),
            undo: UndoHint::Nothing,
            waited: Duration::ZERO,
        })
    }

    /// Makes an admitted check of anna's; returns its basis.
    async fn plays(&self, id: &str) -> Basis {
        self.lets_in(&playback("anna", id)).await
    }

    pub(super) async fn lets_in(&self, claim: &Claim) -> Basis {
        let decision = self.check(claim).await.unwrap();
        assert!(
            matches!(decision.admission, Admission::Admitted(_)),
            "{claim:?} got {decision:?}"
        );
        decision.basis
    }

    /// Makes a refused check of anna's; returns the refusal.
    async fn refused(&self, id: &str) -> Refusal {
        let decision = self.check(&playback("anna", id)).await.unwrap();
        match decision.admission {
            Admission::Refused(refusal) => refusal,
            Admission::Admitted(admitted) => panic!("{id} got {admitted:?}"),
        }
    }

    async fn is_full(&self, id: &str) -> bool {
        matches!(self.refused(id).await, Refusal::Full { .. })
    }

    /// Lets a playback make a request every two seconds, for that long; returns when it was first
    /// refused.
    async fn play_for(&self, id: &str, time: Duration) -> Option<Duration> {
        let watch = Stopwatch::start();
        while watch.elapsed() < time {
            let decision = self.check(&playback("anna", id)).await;
            if !matches!(
                decision,
                Ok(Decision {
                    admission: Admission::Admitted(_),
                    ..
                })
            ) {
                return Some(watch.elapsed());
            }
            tokio::time::sleep(INTERVAL).await;
        }
        None
    }

    async fn release(&self, id: &str) -> Result<Released, Outage> {
        let (anna, ending) = (user("anna"), Ending::Vouched);
        self.ledger
            .release(&anna, &key(Kind::Playback, id), ending, Duration::ZERO)
            .await
    }

    /// Starts a playback of anna's through another instance.
    async fn begins_elsewhere(&self, id: &str) {
        let start = Start {
            key: key(Kind::Playback, id),
            facts: Facts::default(),
            lease: LEASE,
            ticket: None,
            derived: false,
        };
        let rules = StartRules::new(1, WhenFull::Refuse);
        let started = self.store.sound.admit(&user("anna"), &start, &rules).await;
        assert!(matches!(started, Ok(Admission::Admitted(_))));
    }

    /// Ends a playback of anna's through another instance.
    async fn ends_elsewhere(&self, id: &str, ending: Ending) {
        let (anna, key) = (user("anna"), key(Kind::Playback, id));
        self.store
            .sound
            .release(&anna, &key, ending, Duration::ZERO)
            .await
            .unwrap();
    }

    /// Reports, as Envoy, that a request is running.
    async fn sees_running(&self, name: &str, id: &str) -> Result<Renewal, Outage> {
        let sighting = Sighting {
            key: key(Kind::Request, id),
            facts: Facts::default(),
            lease: Duration::from_secs(15),
            started_at: None,
            derived: false,
            provenance: Provenance::Counted,
        };
        self.ledger.renew(&user(name), None, &sighting, None).await
    }

    /// Takes the store down and waits until that is known.
    async fn goes_down(&self) {
        self.store.fails(&Fault::LosesCalls);
        let up = self.ledger.watch_store();
        for _ in 0..5 {
            drop(self.ledger.list(&user("nobody")).await);
        }
        assert!(!up.borrow().all_up());
    }

    /// Brings the store back and waits until that is known.
    async fn comes_back(&self) {
        let mut up = self.ledger.watch_store();
        self.store.fails(&Fault::None);
        up.wait_for(ShardTally::all_up).await.unwrap();
        // Time to sync.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    async fn live(&self) -> Vec<String> {
        self.store.live("anna").await
    }

    pub(super) fn metric(&self, series: &str) -> String {
        self.ledger.sweep();
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.expect(series).trim().to_owned()
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(super) fn key(kind: Kind, id: &str) -> SessionKey {
    SessionKey {
        kind,
        id: SessionId::parse(id).unwrap(),
    }
}

pub(super) fn playback(name: &str, id: &str) -> Claim {
    Claim {
        user: user(name),
        plan: None,
        key: key(Kind::Playback, id),
        facts: Facts::default(),
        takeover: None,
        message: None,
        derived: false,
        free: false,
    }
}

fn request(name: &str, id: &str) -> Claim {
    Claim {
        key: key(Kind::Request, id),
        ..playback(name, id)
    }
}

// === Held leases ===

#[tokio::test(start_paused = true)]
async fn a_playback_uses_memory_then_background_renewal_then_asks() {
    let bench = Bench::new(1, OutageRule::Deny);
    let asked = |store: &FaultyStore| (store.calls("admit"), store.calls("renew"));
    assert_eq!(bench.plays("a").await, Basis::Store);
    // The first third, minus the time in which renewals gather.
    tokio::time::sleep(Duration::from_millis(8_900)).await;
    assert_eq!(bench.plays("a").await, Basis::HeldLease);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(asked(&bench.store), (1, 0));
    // The second: several requests are answered immediately, and one renewal follows.
    for _ in 0..3 {
        assert_eq!(bench.plays("a").await, Basis::HeldLease);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(asked(&bench.store), (1, 1));
    // The third: it asks. A lease is measured from before the call, and the last was at 11 s.
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert_eq!(bench.plays("a").await, Basis::Store);
    assert_eq!(asked(&bench.store), (1, 2));
    // After its end it is a start.
    tokio::time::sleep(LEASE).await;
    assert_eq!(bench.plays("a").await, Basis::Store);
    assert_eq!(asked(&bench.store), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn new_facts_reach_the_store_immediately() {
    let bench = Bench::new(1, OutageRule::Deny);
    let mut claim = playback("anna", "a");
    bench.lets_in(&claim).await;
    claim.facts.content = crate::identity::ContentId::parse("film").ok();
    assert_eq!(bench.lets_in(&claim).await, Basis::Store);
    assert_eq!(bench.lets_in(&claim).await, Basis::HeldLease);
    let listed = bench.store.sound.list(&user("anna")).await.unwrap();
    assert_eq!(listed.sessions.first().unwrap().facts, claim.facts);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_held_but_never_answered_from_memory() {
    let bench = Bench::new(1, OutageRule::Deny);
    for _ in 0..2 {
        let basis = bench.lets_in(&request("anna", "r")).await;
        assert_eq!(basis, Basis::Store);
    }
    assert_eq!(bench.metric("streamgate_sessions_held "), "1");
}

#[tokio::test(start_paused = true)]
async fn an_end_elsewhere_is_noticed_within_a_third_of_a_lease() {
    for after in [0, 3, 9] {
        let bench = Bench::new(1, OutageRule::Allow);
        let none = bench.play_for("a", Duration::from_secs(after)).await;
        assert_eq!(none, None);
        bench.ends_elsewhere("a", Ending::Operator).await;
        let noticed = bench.play_for("a", LEASE).await.expect("it is noticed");
        assert!(noticed <= LEASE / 3 + INTERVAL, "after {noticed:?}");
        let Refusal::Ended(EndCause::Operator, ..) = bench.refused("a").await else {
            panic!("it is told why");
        };
    }
    // If requests are sparse: two thirds.
    let bench = Bench::new(1, OutageRule::Allow);
    bench.plays("a").await;
    bench.ends_elsewhere("a", Ending::Operator).await;
    tokio::time::sleep(LEASE / 3 * 2).await;
    bench.refused("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_release_through_this_instance_takes_effect_immediately() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.plays("a").await;
    bench.release("a").await.unwrap();
    assert!(matches!(
        bench.refused("a").await,
        Refusal::Ended(EndCause::Released, ..)
    ));
    assert_eq!(bench.plays("b").await, Basis::Store);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_never_brings_back_a_released_session() {
    // The answer to a start, to a report that it plays, to a renewal that a request waits for, and
    // to one in the background.
    for (age, operation) in [(0, "admit"), (0, "played"), (21, "renew"), (11, "renew")] {
        let bench = Bench::new(1, OutageRule::Allow);
        if age > 0 {
            bench.plays("a").await;
            tokio::time::sleep(Duration::from_secs(age)).await;
        }
        let (asked, late) = (bench.store.calls(operation), Duration::from_secs(3));
        bench.store.fails_at(operation, Fault::AnswersLate(late));
        let claim = playback("anna", "a");
        tokio::join!(bench.check(&claim), async {
            bench.store.asked(operation, asked + 1).await;
            // The store has counted it, but nobody knows yet.
            assert!(matches!(bench.release("a").await.unwrap(), Released::Freed));
        })
        .0
        .unwrap();
        bench.store.fails(&Fault::None);
        tokio::time::sleep(late).await;
        assert!(
            matches!(bench.refused("a").await, Refusal::Ended(..)),
            "{operation} at {age} s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_during_a_release_is_not_cached() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.plays("a").await;
    // The start takes place before the release, and is answered before it too.
    let slow = Duration::from_secs(1);
    bench.store.fails_at("release", Fault::Takes(slow));
    let (released, ()) = tokio::join!(bench.release("a"), async {
        bench.store.asked("release", 1).await;
        assert_eq!(bench.plays("a").await, Basis::Store);
        assert_eq!(bench.plays("a").await, Basis::HeldLease);
    });
    assert!(matches!(released.unwrap(), Released::Freed));
    bench.refused("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_full_cache_evicts_the_sessions_that_must_ask_soonest() {
    let bench = Bench::with_room(1, OutageRule::Deny, 512);
    let claims: Vec<Claim> = (0..4_000)
        .map(|number| playback(&format!("user-{number}"), "a"))
        .collect();
    for claim in &claims {
        bench.lets_in(claim).await;
    }
    let held: usize = bench.metric("streamgate_sessions_held ").parse().unwrap();
    assert!((256..=512).contains(&held), "{held} are held");
    for claim in &claims {
        bench.lets_in(claim).await;
    }
}

// === Outage ===

#[tokio::test(start_paused = true)]
async fn viewers_notice_no_outage_below_two_thirds_of_a_lease() {
    for rule in ALL_RULES {
        for since_start in [0, 1, 9, 10, 11, 12] {
            let bench = Bench::new(1, rule);
            let before = Duration::from_secs(since_start);
            assert_eq!(bench.play_for("a", before.max(INTERVAL)).await, None);
            bench.goes_down().await;
            let outage = LEASE / 3 * 2 - INTERVAL;
            assert_eq!(bench.play_for("a", outage).await, None, "{rule:?}");
            bench.comes_back().await;
            assert_eq!(bench.play_for("a", LEASE * 2).await, None, "{rule:?}");
            assert_eq!(bench.live().await, ["a"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sparse_playback_keeps_its_slot_through_an_outage() {
    // More than are checked as soon as the store is back.
    let names: Vec<String> = (0..64).map(|number| format!("user-{number}")).collect();
    for rule in ALL_RULES {
        let bench = Bench::new(1, rule);
        for name in &names {
            bench.lets_in(&playback(name, "a")).await;
        }
        bench.goes_down().await;
        tokio::time::sleep(Duration::from_secs(21)).await;
        for name in &names {
            let basis = bench.lets_in(&playback(name, "a")).await;
            assert_eq!(basis, Basis::HeldLease);
        }
        bench.comes_back().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        // The leases granted by the store are over, and the streams were seen since.
        for name in &names {
            assert_eq!(bench.store.live(name).await, ["a"], "{name}, {rule:?}");
            bench.lets_in(&playback(name, "a")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_longer_outage_is_decided_by_the_rule() {
    for (rule, ends) in [
        (OutageRule::Allow, false),
        (OutageRule::Deny, true),
        (OutageRule::Local, false),
    ] {
        let bench = Bench::new(1, rule);
        bench.plays("a").await;
        bench.goes_down().await;
        let ended = bench.play_for("a", LEASE * 3).await;
        assert_eq!(ended.is_some(), ends, "{rule:?}");
        assert!(ended.is_none_or(|ended| ended >= LEASE), "{ended:?}");
        bench.comes_back().await;
        assert_eq!(bench.play_for("a", LEASE).await, None, "{rule:?}");
        assert_eq!(bench.live().await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn allow_lets_in_and_what_it_let_in_plays_on() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.plays("a").await;
    bench.goes_down().await;
    for id in ["b", "c"] {
        assert_eq!(bench.plays(id).await, Basis::Rule(OutageRule::Allow));
    }
    assert_eq!(bench.metric("streamgate_sessions_owed "), "2");
    bench.comes_back().await;
    assert_eq!(bench.live().await.len(), 3, "all that run are counted");
    assert_eq!(bench.metric("streamgate_sessions_owed "), "0");
    for id in ["a", "b", "c"] {
        bench.plays(id).await;
    }
    assert!(bench.is_full("d").await);
}

#[tokio::test(start_paused = true)]
async fn deny_denies_and_leaves_nothing() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.plays("a").await;
    bench.store.fails(&Fault::LosesAnswers);
    let outage = bench.check(&playback("anna", "b")).await.unwrap_err();
    assert!(outage.doubtful.is_some());
    bench.goes_down().await;
    let outage = bench.check(&playback("anna", "c")).await.unwrap_err();
    assert_eq!(outage.doubtful, None, "it was not even asked");
    assert_eq!(bench.metric("streamgate_sessions_held "), "1");
}

#[tokio::test(start_paused = true)]
async fn local_counts_from_what_is_held_requests_too() {
    let bench = Bench::new(3, OutageRule::Local);
    bench.plays("a").await;
    bench.lets_in(&request("anna", "r")).await;
    bench.goes_down().await;
    assert_eq!(bench.plays("b").await, Basis::Rule(OutageRule::Local));
    assert_eq!(bench.plays("a").await, Basis::HeldLease);
    let Refusal::Full { limit, holders, .. } = bench.refused("c").await else {
        panic!("it is full");
    };
    let names: Vec<_> = holders
        .iter()
        .map(|session| session.key.to_string())
        .collect();
    assert_eq!(
        (limit, names),
        (
            3,
            vec![
                "playback:a".to_owned(),
                "request:r".to_owned(),
                "playback:b".to_owned()
            ]
        )
    );
    // An end freed a slot, and is remembered.
    bench.release("a").await.unwrap_err();
    assert!(matches!(bench.refused("a").await, Refusal::Ended(..)));
    bench.plays("c").await;
    assert!(bench.is_full("d").await);
    // A stream that another instance has let in is counted when it is seen running.
    bench.sees_running("anna", "q").await.unwrap_err();
    let released = bench.release("b").await;
    released.unwrap_err();
    assert!(bench.is_full("d").await, "c, r and q run");
    bench.comes_back().await;
    let mut live = bench.live().await;
    live.sort();
    assert_eq!(live, ["c", "q", "r"]);
    assert!(matches!(bench.refused("b").await, Refusal::Ended(..)));
}

#[tokio::test(start_paused = true)]
async fn one_user_with_many_ids_takes_no_other_users_room() {
    let bench = Bench::new(3, OutageRule::Allow);
    bench.goes_down().await;
    for number in 0..5_000 {
        let basis = bench.plays(&format!("p{number}")).await;
        assert_eq!(basis, Basis::Rule(OutageRule::Allow));
        bench
            .sees_running("anna", &format!("r{number}"))
            .await
            .unwrap_err();
    }
    assert_eq!(bench.metric("streamgate_sessions_held "), "35");
    // Only running sessions are remembered: those that have stopped make room.
    tokio::time::sleep(LEASE).await;
    bench.plays("new").await;
    bench.comes_back().await;
    assert_eq!(bench.live().await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn without_room_to_remember_local_denies_and_allow_lets_in() {
    for rule in [OutageRule::Local, OutageRule::Allow] {
        let bench = Bench::with_room(1, rule, 0);
        bench.store.fails(&Fault::LosesCalls);
        let checked = bench.check(&playback("anna", "a")).await;
        assert_eq!(checked.is_ok(), rule == OutageRule::Allow);
        bench.release("a").await.unwrap_err();
        assert_eq!(bench.metric("streamgate_sessions_held "), "0");
    }
}

#[tokio::test(start_paused = true)]
async fn an_admitted_start_whose_answer_was_lost_counts_once() {
    for rule in [OutageRule::Allow, OutageRule::Local] {
        let bench = Bench::new(1, rule);
        bench.plays("z").await;
        bench.release("z").await.unwrap();
        bench.store.fails(&Fault::LosesAnswers);
        assert_eq!(bench.plays("a").await, Basis::Rule(rule));
        bench.store.fails(&Fault::None);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.live().await, ["a"], "{rule:?}");
        let listed = bench.store.sound.list(&user("anna")).await.unwrap();
        let ticket = listed.sessions.first().unwrap().ticket;
        assert_eq!(ticket, None, "it is nobody's to take back");
        assert!(bench.is_full("b").await);
    }
}

#[tokio::test(start_paused = true)]
async fn ends_then_sessions_are_synced_before_a_new_start() {
    let bench = Bench::new(2, OutageRule::Local);
    bench.plays("a").await;
    bench.plays("b").await;
    bench.goes_down().await;
    bench.release("a").await.unwrap_err();
    bench.plays("c").await;
    // The very first call afterwards is a start, and sees the correct count.
    let mut up = bench.ledger.watch_store();
    bench.store.fails(&Fault::None);
    up.wait_for(ShardTally::all_up).await.unwrap();
    assert!(bench.is_full("d").await);
    let mut live = bench.live().await;
    live.sort();
    assert_eq!(live, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_during_another_release_is_requested_again() {
    let bench = Bench::new(2, OutageRule::Allow);
    bench.plays("a").await;
    bench.goes_down().await;
    bench.plays("b").await;
    let late = Duration::from_millis(40);
    let told = bench.store.calls("renew");
    let mut up = bench.ledger.watch_store();
    bench.store.fails(&Fault::None);
    bench.store.fails_at("renew", Fault::AnswersLate(late));
    up.wait_for(ShardTally::all_up).await.unwrap();
    bench.store.asked("renew", told + 1).await;
    bench.release("a").await.unwrap();
    tokio::time::sleep(late * 10).await;
    assert_eq!(bench.live().await, ["b"]);
    assert_eq!(bench.metric("streamgate_sessions_owed"), "0");
    let calls = bench.store.calls("renew") - told;
    assert!(calls <= 4, "{calls} calls");
    assert_eq!(bench.plays("b").await, Basis::HeldLease);
}

#[tokio::test(start_paused = true)]
async fn a_release_in_an_outage_is_counted_when_it_is_done() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.plays("a").await;
    bench.goes_down().await;
    bench.release("a").await.unwrap_err();
    let series = "streamgate_releases_total{cause=\"hook\"}";
    assert_eq!(bench.metric(series), "0");
    bench.comes_back().await;
    assert_eq!(bench.live().await, [""; 0]);
    assert_eq!(bench.metric(series), "1");
}

#[tokio::test(start_paused = true)]
async fn a_start_runs_into_no_more_than_one_deadline() {
    for rule in ALL_RULES {
        let bench = Bench::new(3, rule);
        bench.plays("a").await;
        let asked = bench.store.calls("admit");
        // The breaker has not noticed yet.
        bench.store.fails(&Fault::LosesCalls);
        bench.release("a").await.unwrap_err();
        let told = bench.store.calls("release");
        drop(bench.check(&playback("anna", "b")).await);
        assert_eq!(bench.store.calls("release"), told + 1, "{rule:?}");
        assert_eq!(bench.store.calls("admit"), asked, "{rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_only_probed_until_it_answers() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.plays("a").await;
    bench.goes_down().await;
    let before = bench.store.calls("admit");
    let watch = Stopwatch::start();
    for _ in 0..1000 {
        bench.check(&playback("anna", "b")).await.unwrap_err();
    }
    assert_eq!(
        (bench.store.calls("admit"), watch.elapsed()),
        (before, Duration::ZERO)
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let probes = bench.store.calls("ping");
    assert!((5..=20).contains(&probes), "{probes} probes in a second");
    bench.comes_back().await;
    assert!(bench.is_full("b").await);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_renews_and_releases_and_starts_follow_the_rule() {
    for rule in ALL_RULES {
        let bench = Bench::new(3, rule);
        bench.plays("a").await;
        let full = Fault::Errs(StoreError::Full("no room".to_owned()));
        bench.store.fails_at("admit", full);
        for _ in 0..20 {
            let started = bench.check(&playback("anna", "b")).await;
            assert_eq!(started.is_err(), rule == OutageRule::Deny, "{rule:?}");
        }
        let health = bench.ledger.store_health();
        assert_eq!((health.up, health.rule), (true, Some(rule)));
        assert!(matches!(bench.release("a").await.unwrap(), Released::Freed));
    }
}

// === Healing ===

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_its_data_is_told_all_running_sessions() {
    let bench = Bench::new(2, OutageRule::Deny);
    let users = 500;
    for number in 0..users {
        let name = format!("user-{number}");
        bench.lets_in(&playback(&name, "a")).await;
        bench.lets_in(&request(&name, "r")).await;
    }
    bench.store.sound.forget(|_| true);
    // One renewal reveals it.
    let renewed = bench.sees_running("user-7", "r").await;
    assert!(matches!(renewed.unwrap(), Renewal::PutBack { .. }));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "1");
    let watch = Stopwatch::start();
    while bench.metric("streamgate_sessions_owed ") != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(watch.elapsed() < Duration::from_secs(1));
    }
    for number in 0..users {
        let name = format!("user-{number}");
        assert_eq!(bench.store.live(&name).await.len(), 2, "{name}");
    }
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "1");
}

#[tokio::test(start_paused = true)]
async fn a_promoted_replica_is_told_the_ends_that_it_lacks() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.plays("a").await;
    let replica = bench.store.sound.copy();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(bench.release("a").await.unwrap(), Released::Freed));
    for name in ["ben", "cem", "dora"] {
        bench.lets_in(&request(name, "r")).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.store.sound.go_back_to(replica);
    assert_eq!(bench.live().await, ["a"]);
    // One renewal reveals that starts are lost, and so ends may be.
    bench.sees_running("ben", "r").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "1");
    assert_eq!(bench.live().await, [""; 0]);
    bench.plays("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_start_admitted_above_the_true_count_is_taken_back() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.plays("a").await;
    bench.plays("b").await;
    bench.store.sound.forget(|_| true);
    assert!(bench.is_full("c").await);
    assert_eq!(bench.live().await, ["a", "b"]);
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
    // If the others have ended elsewhere, it is let in.
    for id in ["a", "b"] {
        bench.ends_elsewhere(id, Ending::Stream).await;
    }
    bench.plays("c").await;
    assert_eq!(bench.live().await, ["c"]);
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_made_again_is_not_taken_back_with_the_first() {
    let bench = Bench::new(2, OutageRule::Deny);
    for name in ["anna", "ben", "cem", "dora"] {
        bench.lets_in(&playback(name, "a")).await;
    }
    bench.store.sound.forget(|_| true);
    // While the second answer is under way, it is found out that the store has lost everything.
    let late = Duration::from_millis(40);
    bench.store.fails_at("admit", Fault::AnswersLate(late));
    bench.plays("b").await;
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "1");
    tokio::time::sleep(late * 10).await;
    let mut live = bench.live().await;
    live.sort();
    assert_eq!(live, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_its_data_decides_no_start_before_syncing() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.lets_in(&request("anna", "a")).await;
    bench.store.sound.forget(|_| true);
    bench.store.fails_at("renew", Fault::LosesCalls);
    bench.sees_running("anna", "a").await.unwrap_err();
    bench.check(&playback("anna", "b")).await.unwrap_err();
    assert_eq!(bench.live().await, [""; 0]);
    bench.store.fails_at("renew", Fault::None);
    assert!(bench.is_full("b").await);
    assert_eq!(bench.live().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fits_also_reveals_lost_data() {
    let bench = Bench::new(3, OutageRule::Deny);
    bench.plays("a").await;
    bench.plays("b").await;
    bench.store.sound.forget(|_| true);
    bench.plays("c").await;
    let mut live = bench.live().await;
    live.sort();
    assert_eq!(live, ["a", "b", "c"]);
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
}

#[tokio::test(start_paused = true)]
async fn sessions_confirmed_just_before_the_loss_are_reported_again() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.lets_in(&request("anna", "r")).await;
    for name in ["ben", "cem", "dora"] {
        bench.lets_in(&playback(name, "a")).await;
    }
    let late = Duration::from_secs(1);
    bench.store.fails_at("admit", Fault::AnswersLate(late));
    let (basis, ()) = tokio::join!(bench.plays("a"), async {
        bench.store.asked("admit", 5).await;
        bench.store.sound.forget(|_| true);
        bench.sees_running("anna", "r").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.metric("streamgate_store_forgot_total "), "1");
    });
    assert_eq!(basis, Basis::Store);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.live().await, ["r", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_could_not_be_undone_is_undone_later() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.plays("a").await;
    bench.plays("b").await;
    bench.store.sound.forget(|_| true);
    bench.store.fails_at("release", Fault::LosesCalls);
    let outage = bench.check(&playback("anna", "c")).await.unwrap_err();
    let ticket = outage.doubtful.expect("it has started");
    bench.store.fails(&Fault::None);
    let (anna, c) = (user("anna"), key(Kind::Playback, "c"));
    let undone = Ending::Undone(ticket);
    let released = bench
        .ledger
        .release(&anna, &c, undone, Duration::ZERO)
        .await;
    assert!(matches!(released.unwrap(), Released::Freed));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_empty_is_found_out_at_once() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.plays("a").await;
    bench.plays("b").await;
    bench.goes_down().await;
    bench.store.sound.forget(|_| true);
    bench.comes_back().await;
    let mut live = bench.live().await;
    live.sort();
    assert_eq!(live, ["a", "b"]);
    assert!(bench.is_full("c").await);
}

#[tokio::test(start_paused = true)]
async fn wrongly_vouched_ends_cause_no_repeated_reporting() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.lets_in(&request("anna", "r")).await;
    for _ in 0..5 {
        let anna = user("anna");
        let request = key(Kind::Request, "r");
        let vouched = bench
            .ledger
            .release(&anna, &request, Ending::Vouched, Duration::ZERO);
        vouched.await.unwrap();
        let renewed = bench.sees_running("anna", "r").await;
        assert!(matches!(renewed.unwrap(), Renewal::PutBack { .. }));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_to_be_taken_back_is_not_announced_meanwhile() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.plays("a").await;
    bench.plays("b").await;
    bench.store.sound.forget(|_| true);
    let slow = Duration::from_millis(2);
    bench.store.fails_at("release", Fault::Takes(slow));
    assert!(bench.is_full("c").await);
    assert_eq!(bench.live().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_is_denied_if_lost_sessions_can_not_be_checked() {
    for rule in [OutageRule::Deny, OutageRule::Local] {
        let bench = Bench::new(2, rule);
        bench.plays("a").await;
        bench.plays("b").await;
        bench.store.sound.forget(|_| true);
        let late = Duration::from_millis(10);
        bench.store.fails_at("admit", Fault::AnswersLate(late));
        let claim = playback("anna", "c");
        let (decided, ()) = tokio::join!(bench.check(&claim), async {
            bench.store.asked("admit", 3).await;
            // This voids the answer to the start.
            bench.release("other").await.unwrap();
            bench.store.fails_at("release", Fault::LosesCalls);
        });
        let undo = match decided {
            Err(outage) => outage
                .doubtful
                .map_or(UndoHint::Nothing, UndoHint::Doubtful),
            Ok(decision) => {
                assert!(decision.is_refused(), "{decision:?}");
                decision.undo
            }
        };
        assert!(matches!(undo, UndoHint::Doubtful(_)), "{rule:?} {undo:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_somebody_vouched_for_elsewhere_is_believed() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.lets_in(&request("anna", "r")).await;
    let (anna, r) = (user("anna"), key(Kind::Request, "r"));
    let elsewhere = &bench.store.sound;
    elsewhere
        .release(&anna, &r, Ending::Vouched, Duration::ZERO)
        .await
        .unwrap();
    bench.plays("b").await;
    assert_eq!(bench.live().await, ["b"]);
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
}

#[tokio::test(start_paused = true)]
async fn a_wrongly_vouched_end_resyncs_no_other_user() {
    let bench = Bench::new(2, OutageRule::Deny);
    for number in 0..1000 {
        let claim = playback(&format!("user-{number}"), "a");
        bench.lets_in(&claim).await;
    }
    bench.lets_in(&request("anna", "r")).await;
    let before = bench.store.calls("renew");
    let (anna, r) = (user("anna"), key(Kind::Request, "r"));
    for _ in 0..20 {
        let vouched = bench
            .ledger
            .release(&anna, &r, Ending::Vouched, Duration::ZERO);
        vouched.await.unwrap();
        let seen = bench.sees_running("anna", "r").await;
        assert!(matches!(seen, Ok(Renewal::PutBack { .. })));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Her own twenty, and one sample of sixteen others.
    assert_eq!(bench.store.calls("renew") - before, 20 + 16);
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
    assert_eq!(bench.live().await, ["r"]);
}

#[tokio::test(start_paused = true)]
async fn unplayed_sessions_are_not_answered_from_memory() {
    let bench = Bench::new(1, OutageRule::Deny);
    let claim = playback("anna", "a");
    for _ in 0..3 {
        let decision = bench.check_unplayed(&claim).await.unwrap();
        assert_eq!(decision.basis, Basis::Store);
    }
    // A request two seconds after the start proves it, and tells the store.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for basis in [Basis::Store, Basis::HeldLease] {
        let decision = bench.check_unplayed(&claim).await.unwrap();
        assert_eq!(decision.basis, basis);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_takes_back_only_a_start_that_has_not_played() {
    let bench = Bench::new(1, OutageRule::Deny);
    let anna = user("anna");
    let fail = async |id: &str| {
        let key = key(Kind::Playback, id);
        let failed = bench
            .ledger
            .release(&anna, &key, Ending::Failed, Duration::ZERO);
        failed.await.unwrap()
    };
    for id in ["a", "b"] {
        bench.check_unplayed(&playback("anna", id)).await.unwrap();
        assert!(matches!(fail(id).await, Released::Freed));
        assert_eq!(fail(id).await, Released::NotLive);
    }
    assert_eq!(
        bench.metric("streamgate_releases_total{cause=\"failed\"}"),
        "2"
    );
    bench.plays("c").await;
    assert_eq!(fail("c").await, Released::Kept);
    assert_eq!(bench.plays("c").await, Basis::HeldLease);
}

#[tokio::test(start_paused = true)]
async fn a_report_to_an_instance_without_sessions_is_remembered() {
    let bench = Bench::new(1, OutageRule::Deny);
    let (anna, a) = (user("anna"), key(Kind::Playback, "a"));
    assert!(!bench.ledger.knows_playing(&anna, &a));
    bench.ledger.played(&anna, &a).await.unwrap();
    assert!(!bench.ledger.knows_playing(&anna, &a), "it is not live");
    bench.begins_elsewhere("a").await;
    bench.ledger.played(&anna, &a).await.unwrap();
    assert!(bench.ledger.knows_playing(&anna, &a));
    assert_eq!(bench.plays("a").await, Basis::HeldLease);
    tokio::time::sleep(LEASE).await;
    assert!(!bench.ledger.knows_playing(&anna, &a));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_outlives_its_playback_counts_as_a_request() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.plays("a").await;
    bench.release("a").await.unwrap();
    let sighting = Sighting {
        key: key(Kind::Playback, "a"),
        facts: Facts::default(),
        lease: LEASE,
        started_at: None,
        provenance: Provenance::Counted,
        derived: false,
    };
    let (anna, response) = (user("anna"), SessionId::parse("r1").unwrap());
    for is_new in [true, false] {
        let seen = bench
            .ledger
            .renew(&anna, None, &sighting, Some(&response))
            .await
            .unwrap();
        assert_eq!(matches!(seen, Renewal::PutBack { .. }), is_new, "{seen:?}");
    }
    assert_eq!(bench.live().await, ["r1"]);
    assert!(matches!(bench.refused("a").await, Refusal::Ended(..)));
    assert!(bench.is_full("b").await);
    let seen = bench.ledger.renew(&anna, None, &sighting, None).await;
    assert!(matches!(seen, Ok(Renewal::Ended(_))));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_may_not_grow_is_held_no_longer_than_it_was_granted() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.plays("a").await;
    bench.goes_down().await;
    assert_eq!(bench.plays("b").await, Basis::Rule(OutageRule::Allow));
    bench.comes_back().await;
    tokio::time::sleep(LEASE * 2 / 3).await;
    let sighting = Sighting {
        key: key(Kind::Playback, "b"),
        facts: Facts::default(),
        lease: LEASE,
        started_at: None,
        provenance: Provenance::Counted,
        derived: false,
    };
    let anna = user("anna");
    let seen = bench.ledger.renew(&anna, None, &sighting, None).await;
    let seen = seen.unwrap();
    assert!(matches!(seen, Renewal::Provisional { .. }), "{seen:?}");
    bench.goes_down().await;
    tokio::time::sleep(LEASE * 2 / 3).await;
    assert_eq!(bench.plays("b").await, Basis::Rule(OutageRule::Allow));
}

#[tokio::test(start_paused = true)]
async fn outage_admissions_above_the_limit_last_one_lease() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.plays("a").await;
    bench.goes_down().await;
    assert_eq!(bench.plays("b").await, Basis::Rule(OutageRule::Allow));
    bench.comes_back().await;
    let mut live = bench.live().await;
    live.sort();
    assert_eq!(live, ["a", "b"]);
    let (a, b) = tokio::join!(
        bench.play_for("a", LEASE * 3),
        bench.play_for("b", LEASE * 3)
    );
    assert_eq!(a, None, "who was within the limit notices nothing");
    let went_on = b.expect("it is asked as a start");
    assert!(
        went_on >= LEASE - INTERVAL && went_on <= LEASE + INTERVAL,
        "{went_on:?}"
    );
    assert_eq!(bench.live().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn users_gone_during_an_outage_delay_nobody_after_it() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.goes_down().await;
    for round in 0..20 {
        for number in 0..500 {
            let claim = playback(&format!("user-{number}"), &format!("p{round}"));
            bench.lets_in(&claim).await;
        }
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        bench.ledger.sweep();
    }
    assert_eq!(bench.metric("streamgate_sessions_held "), "0");
    assert_eq!(bench.ledger.cache.queued_users(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_denied_session_is_not_reported_as_running() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.plays("a").await;
    bench.goes_down().await;
    assert!(bench.play_for("a", LEASE * 2).await.is_some());
    for _ in 0..10 {
        bench.check(&playback("anna", "a")).await.unwrap_err();
        tokio::time::sleep(INTERVAL).await;
    }
    bench.comes_back().await;
    assert_eq!(bench.live().await, [""; 0]);
    bench.plays("b").await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_affects_no_other_call_s_session() {
    let bench = Bench::new(2, OutageRule::Local);
    bench.plays("a").await;
    bench.goes_down().await;
    assert_eq!(bench.plays("c").await, Basis::Rule(OutageRule::Local));
    let mut up = bench.ledger.watch_store();
    // Nothing is reported until the undo of an earlier call has been.
    bench.ledger.cache.take_queued(10, |_| true);
    bench.store.fails(&Fault::None);
    up.wait_for(ShardTally::all_up).await.unwrap();
    let (anna, c) = (user("anna"), key(Kind::Playback, "c"));
    let undone = Ending::Undone(Ticket::new(7).unwrap());
    let told = bench.ledger.release(&anna, &c, undone, Duration::ZERO);
    assert!(matches!(told.await.unwrap(), Released::NotLive));
    bench.plays("c").await;
    let mut live = bench.live().await;
    live.sort();
    assert_eq!(live, ["a", "c"]);
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_caller_leaves_while_it_is_reported_does_not_stay() {
    let bench = Bench::new(2, OutageRule::Allow);
    bench.goes_down().await;
    let decision = bench.check(&request("anna", "r")).await.unwrap();
    let UndoHint::Started(ticket) = decision.undo else {
        panic!("{decision:?}");
    };
    // The report is on its way while the start is taken back, of which the store knows nothing.
    bench.store.fails(&Fault::None);
    let slow = Duration::from_millis(40);
    bench.store.fails_at("renew", Fault::Takes(slow));
    bench.store.asked("renew", 1).await;
    let (anna, r) = (user("anna"), key(Kind::Request, "r"));
    let undone = Ending::Undone(ticket);
    let told = bench.ledger.release(&anna, &r, undone, Duration::ZERO);
    assert!(matches!(told.await.unwrap(), Released::NotLive));
    tokio::time::sleep(slow * 3).await;
    assert_eq!(bench.live().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_store_forgot_is_taken_back_for_good() {
    let bench = Bench::new(2, OutageRule::Allow);
    let decision = bench.check_unplayed(&request("anna", "r")).await.unwrap();
    let UndoHint::Started(ticket) = decision.undo else {
        panic!("{decision:?}");
    };
    bench.store.sound.forget(|_| true);
    bench.ledger.cache.unsync_all(|_| true);
    let (anna, r) = (user("anna"), key(Kind::Request, "r"));
    let undone = Ending::Undone(ticket);
    let told = bench.ledger.release(&anna, &r, undone, Duration::ZERO);
    assert!(matches!(told.await.unwrap(), Released::NotLive));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.live().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_the_store_executes_after_its_end_was_reported_is_over_too() {
    let late = Duration::from_secs(1);
    for claim in [playback("anna", "late"), request("anna", "late")] {
        let bench = Bench::new(2, OutageRule::Allow);
        bench.plays("a").await;
        bench.store.fails_at("admit", Fault::ActsLate(late));
        bench.store.fails_at("release", Fault::LosesCalls);
        let decision = bench.check_unplayed(&claim).await.unwrap();
        assert_eq!(decision.basis, Basis::Rule(OutageRule::Allow));
        let told = bench
            .ledger
            .release(&claim.user, &claim.key, Ending::Stream, Duration::ZERO);
        told.await.unwrap_err();
        tokio::time::sleep(2 * late).await;
        assert_eq!(bench.live().await, ["a", "late"], "{claim:?}");
        bench.store.fails(&Fault::None);
        tokio::time::sleep(LEASE / 3).await;
        assert_eq!(bench.live().await, ["a"], "{claim:?}");
        let again = bench.check(&claim).await.unwrap().admission;
        let is_over = matches!(again, Admission::Refused(Refusal::Ended(..)));
        assert!(is_over, "{again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_real_end_is_reported_in_addition_to_an_undo() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.lets_in(&request("anna", "r")).await;
    bench.goes_down().await;
    let (anna, r) = (user("anna"), key(Kind::Request, "r"));
    let undone = Ending::Undone(Ticket::new(7).unwrap());
    for ending in [undone, Ending::Stream] {
        let told = bench.ledger.release(&anna, &r, ending, Duration::ZERO);
        told.await.unwrap_err();
    }
    bench.comes_back().await;
    assert_eq!(bench.live().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_in_an_outage_hides_no_release() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.plays("a").await;
    bench.goes_down().await;
    let (anna, a) = (user("anna"), key(Kind::Playback, "a"));
    for ending in [Ending::Failed, Ending::Stream] {
        let told = bench.ledger.release(&anna, &a, ending, Duration::ZERO);
        told.await.unwrap_err();
    }
    bench.comes_back().await;
    assert_eq!(bench.live().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_second_end_in_an_outage_ends_what_started_after_the_first() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.plays("b").await;
    bench.release("b").await.unwrap();
    bench.goes_down().await;
    bench.release("a").await.unwrap_err();
    tokio::time::sleep(INTERVAL).await;
    bench.begins_elsewhere("a").await;
    tokio::time::sleep(INTERVAL).await;
    bench.release("a").await.unwrap_err();
    bench.comes_back().await;
    assert_eq!(bench.live().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_other_end_hides_an_unsynced_operator_end() {
    let (anna, session) = (user("anna"), key(Kind::Playback, "a"));
    for other in [Ending::Failed, Ending::Stream] {
        let bench = Bench::new(1, OutageRule::Deny);
        drop(bench.check_unplayed(&playback("anna", "a")).await.unwrap());
        let ends = async |ending| {
            let ended = bench
                .ledger
                .release(&anna, &session, ending, Duration::ZERO);
            ended.await
        };
        bench.store.fails_at("release", Fault::LosesCalls);
        let lost = ends(Ending::Operator).await;
        assert!(lost.is_err(), "{lost:?}");
        bench.store.fails_at("release", Fault::None);
        let freed = ends(other).await;
        assert!(matches!(freed, Ok(Released::Freed)), "{freed:?}");
        let before = bench.store.calls("release");
        bench.store.asked("release", before + 1).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.metric("streamgate_sessions_owed"), "0");
        assert!(
            !bench.ledger.cache.is_still_unsynced(&user("anna")),
            "{other:?}"
        );
        if other == Ending::Failed {
            // A start that failed may be tried again, and an operator's end says that this one may
            // not.
            let refusal = bench.refused("a").await;
            assert!(
                matches!(refusal, Refusal::Ended(EndCause::Operator, ..)),
                "{refusal:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_users_trouble_hides_no_loss() {
    let bench = Bench::new(1, OutageRule::Deny);
    for name in ["anna", "ben", "cem"] {
        bench.lets_in(&playback(name, "a")).await;
    }
    bench.goes_down().await;
    bench.store.sound.forget(|_| true);
    *bench.store.broken.lock().unwrap() = Some(user("cem"));
    bench.comes_back().await;
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "1");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_none_holds_in_an_outage() {
    for rule in [OutageRule::Allow, OutageRule::Local] {
        let bench = Bench::new(0, rule);
        bench.goes_down().await;
        assert!(bench.is_full("a").await, "{rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_ended_before_an_outage_stay_ended() {
    for rule in [OutageRule::Allow, OutageRule::Local] {
        let bench = Bench::new(1, rule);
        bench.plays("a").await;
        bench.release("a").await.unwrap();
        bench.goes_down().await;
        assert!(matches!(bench.refused("a").await, Refusal::Ended(..)));
        bench.plays("b").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_was_void_is_made_again() {
    let bench = Bench::new(2, OutageRule::Deny);
    bench.plays("a").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.plays("a").await;
    let late = Duration::from_millis(40);
    bench.store.fails_at("renew", Fault::AnswersLate(late));
    bench.store.asked("renew", 1).await;
    bench.release("other").await.unwrap();
    tokio::time::sleep(late * 2).await;
    assert_eq!(bench.play_for("a", Duration::from_secs(8)).await, None);
    assert_eq!(bench.store.calls("renew"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_repeated_without_another_request() {
    let bench = Bench::new(1, OutageRule::Deny);
    bench.plays("a").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.store.fails_at("renew", Fault::LosesCalls);
    bench.plays("a").await;
    bench.store.asked("renew", 1).await;
    bench.store.fails(&Fault::None);
    bench.store.asked("renew", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_had_run_out_here_is_reported_when_the_store_says_that_it_plays() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.goes_down().await;
    bench.plays("a").await;
    tokio::time::sleep(LEASE).await;
    let mut up = bench.ledger.watch_store();
    bench.store.fails(&Fault::None);
    up.wait_for(ShardTally::all_up).await.unwrap();
    // Nothing is left to report of it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.store.calls("renew"), 0);
    bench.begins_elsewhere("a").await;
    let (anna, a) = (user("anna"), key(Kind::Playback, "a"));
    bench.ledger.played(&anna, &a).await.unwrap();
    bench.store.asked("renew", 1).await;
}

#[tokio::test(start_paused = true)]
async fn bad_data_at_one_users_key_is_no_outage() {
    let bench = Bench::new(1, OutageRule::Allow);
    bench.plays("a").await;
    let broken = Fault::Errs(StoreError::Protocol("FOREIGN".to_owned()));
    bench.store.fails_at("admit", broken);
    for number in 0..20 {
        let basis = bench.plays(&format!("b{number}")).await;
        assert_eq!(basis, Basis::Rule(OutageRule::Allow));
    }
    assert!(bench.ledger.store_health().up);
}

#[tokio::test(start_paused = true)]
async fn everything_is_synced_before_the_process_exits() {
    let bench = Bench::new(3, OutageRule::Allow);
    bench.goes_down().await;
    bench.plays("a").await;
    let mut up = bench.ledger.watch_store();
    bench.store.fails(&Fault::None);
    up.wait_for(ShardTally::all_up).await.unwrap();
    bench.ledger.settle_all().await;
    assert_eq!(bench.live().await, ["a"]);
}

// === Whether Envoy's access log arrives ===

/// How long a `request` runs before the store is asked about it, plus a little.
const JUDGED: Duration = Duration::from_secs(11);

impl Bench {
    /// A bench that has found out that no access log arrives.
    async fn unwired(room_to_hold: usize) -> Self {
        let bench = Self::with_room(2, OutageRule::Allow, room_to_hold);
        for name in ["x", "y"] {
            bench.lets_in(&request(name, name)).await;
        }
        tokio::time::sleep(JUDGED).await;
        assert_eq!(bench.ledger.access_log(), AccessLog::Missing);
        bench
    }

    /// Starts some `request`s, without any report about them.
    async fn starts_some(&self) {
        for name in ["anna", "ben", "cleo"] {
            self.lets_in(&request(name, name)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn own_renewals_prove_no_access_log() {
    let bench = Bench::unwired(10_000).await;
    bench.starts_some().await;
    let before = bench.store.calls("renew");
    bench
        .ledger
        .suspect_loss(&user("nobody"), &key(Kind::Playback, "a"));
    bench.store.asked("renew", before + 3).await;
    tokio::time::sleep(JUDGED).await;
    assert_eq!(bench.ledger.access_log(), AccessLog::Missing);
}

#[tokio::test(start_paused = true)]
async fn a_second_check_of_a_request_proves_no_access_log() {
    let bench = Bench::unwired(10_000).await;
    bench.starts_some().await;
    bench.starts_some().await;
    tokio::time::sleep(JUDGED).await;
    assert_eq!(bench.ledger.access_log(), AccessLog::Missing);
}

#[tokio::test(start_paused = true)]
async fn sessions_lost_in_an_outage_prove_no_access_log() {
    // Nothing is held, so nothing is reported again.
    let bench = Bench::unwired(0).await;
    bench.starts_some().await;
    bench.goes_down().await;
    bench.store.sound.forget(|_| true);
    bench.comes_back().await;
    tokio::time::sleep(JUDGED).await;
    assert_eq!(bench.ledger.access_log(), AccessLog::Missing);
    // Sessions started from now on are asked about, and show it.
    bench.starts_some().await;
    for name in ["anna", "ben", "cleo"] {
        let claim = request(name, name);
        let sighting = Sighting {
            key: claim.key,
            facts: Facts::default(),
            lease: Duration::from_secs(15),
            started_at: None,
            provenance: Provenance::Counted,
            derived: false,
        };
        let told = bench.store.sound.renew(&claim.user, &sighting, 2).await;
        told.unwrap();
    }
    tokio::time::sleep(JUDGED).await;
    assert_eq!(bench.ledger.access_log(), AccessLog::Arrives);
}
