//! A store with several shards, each of which fails on its own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::outage_tests::{ALL_RULES, Bench, key, playback, user};
use super::shards::KnownShard;
use super::*;
use crate::clock::Stopwatch;
use crate::session::{Admission, Ending};
use crate::store::faulty::Fault;
use crate::store::{Shard, StoreError};
use crate::telemetry::metrics::LabelValue;

/// How many users there are: enough that each shard has dozens.
const USERS: usize = 300;

/// Far longer than anything takes here, by the paused clock.
const PATIENCE: Duration = Duration::from_secs(20);

/// The master with that number.
fn master(number: usize) -> Shard {
    Shard::master(&format!("10.0.0.{number}:6379"))
}

fn names() -> impl Iterator<Item = String> {
    (0..USERS).map(|number| format!("user-{number}"))
}

/// A bench in front of three masters that answer.
async fn cluster(limit: u32, rule: OutageRule) -> Bench {
    let bench = Bench::new(limit, rule);
    bench.is_owned_by([1, 2, 3]).await;
    bench
}

impl Bench {
    /// Lets these masters own the slots, and waits until all of them answer.
    async fn is_owned_by(&self, masters: [usize; 3]) {
        self.store.is_owned_by(&masters.map(master));
        let mut shards = self.ledger.watch_store();
        self.ledger.probe().await;
        shards.wait_for(ShardTally::all_up).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// The users of that shard, and all others.
    fn users_of(&self, shard: &Shard) -> (Vec<String>, Vec<String>) {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            names().partition(|name| self.store.shard_of(&user(name)) == *shard);
        assert!(here.len() > USERS / 10 && elsewhere.len() > USERS / 10);
        (here, elsewhere)
    }

    /// How many calls to the other shards have failed.
    fn failed_elsewhere(&self, shard: &Shard) -> usize {
        let others = self.store.shards().into_iter();
        let others = others.filter(|other| other != shard);
        others.map(|other| self.store.calls_to(&other).1).sum()
    }

    /// Lets that shard fail until it counts as out.
    async fn shard_goes_down(&self, shard: &Shard, fault: Fault) {
        self.store.shard_fails(shard, fault);
        let name = names().find(|name| self.store.shard_of(&user(name)) == *shard);
        let user = user(&name.unwrap());
        for _ in 0..5 {
            drop(self.ledger.list(&user).await);
        }
        assert!(!self.ledger.is_store_up(&user));
    }

    /// Waits until that is so.
    async fn eventually(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let watch = Stopwatch::start();
        while !is_so().await {
            assert!(watch.elapsed() < PATIENCE, "{what}: not so");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ends(&self, name: &str, id: &str) -> bool {
        let (user, key) = (user(name), key(Kind::Playback, id));
        let released = self
            .ledger
            .release(&user, &key, Ending::Stream, Duration::ZERO);
        released.await.is_ok()
    }
}

/// The ways in which a shard can be out.
fn faults() -> [Fault; 4] {
    [
        Fault::LosesCalls,
        Fault::LosesAnswers,
        Fault::Errs(StoreError::Disconnected("refused".to_owned())),
        Fault::Errs(StoreError::Rejected("CLUSTERDOWN".to_owned())),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_dead_shard_puts_its_own_users_under_the_rule_and_nobody_else() {
    for (rule, fault) in ALL_RULES
        .into_iter()
        .flat_map(|rule| faults().map(|fault| (rule, fault)))
    {
        let (bench, dead) = (cluster(9, rule).await, master(2));
        let (here, elsewhere) = bench.users_of(&dead);
        bench.store.shard_fails(&dead, fault.clone());
        let (mut by_rule, mut by_store) = (0, 0);
        for round in ["a", "b", "c"] {
            for name in names() {
                match bench.check(&playback(&name, round)).await {
                    Ok(decision) if decision.basis == Basis::Store => by_store += 1,
                    Ok(decision) => {
                        assert_eq!(decision.basis, Basis::Rule(rule), "{name}");
                        by_rule += 1;
                    }
                    Err(_) => {
                        assert_eq!(rule, OutageRule::Deny, "{name}");
                        by_rule += 1;
                    }
                }
            }
        }
        // The share of the checks is the share of the users.
        let expected = (here.len() * 3, elsewhere.len() * 3);
        assert_eq!((by_rule, by_store), expected, "{rule:?}, {fault:?}");
        assert_eq!(bench.failed_elsewhere(&dead), 0, "{rule:?}, {fault:?}");
        let (asked, failed) = bench.store.calls_to(&dead);
        assert!(
            asked == failed && failed < here.len(),
            "it was asked {asked}"
        );
        let health = bench.ledger.store_health();
        assert_eq!((health.up, health.rule), (true, Some(rule)));
        let shards = health.shards.unwrap();
        assert_eq!((shards.tally.known, shards.tally.out), (3, 1));
        let troubled: Vec<_> = shards.troubles.iter().map(|(shard, _)| shard).collect();
        assert_eq!(troubled, [&dead]);
        for (series, value) in [
            ("streamgate_store_up ".to_owned(), "1"),
            ("streamgate_store_shards ".to_owned(), "3"),
            ("streamgate_store_shards_out ".to_owned(), "1"),
            (
                format!("streamgate_outage_rule{{rule=\"{}\"}}", rule.as_str()),
                "1",
            ),
        ] {
            assert_eq!(bench.metric(&series), value, "{series}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_without_room_is_named_and_the_others_start_streams() {
    let (bench, full) = (cluster(1, OutageRule::Deny).await, master(3));
    let (here, elsewhere) = bench.users_of(&full);
    let error = StoreError::Full("OOM".to_owned());
    bench.store.shard_fails(&full, Fault::Errs(error));
    for name in &elsewhere {
        assert_eq!(bench.lets_in(&playback(name, "a")).await, Basis::Store);
    }
    bench.check(&playback(&here[0], "a")).await.unwrap_err();
    let health = bench.ledger.store_health();
    assert_eq!((health.up, health.rule), (true, Some(OutageRule::Deny)));
    let told = "1 of 3 shards are in trouble, among them 10.0.0.3:6379: it is full: OOM";
    assert_eq!(health.trouble.as_deref(), Some(told));
    assert_eq!(health.shards.unwrap().tally.out, 0);
}

#[tokio::test(start_paused = true)]
async fn local_counts_only_the_users_of_the_dead_shard_from_what_is_held() {
    let (bench, dead) = (cluster(2, OutageRule::Local).await, master(1));
    for name in names() {
        bench.lets_in(&playback(&name, "a")).await;
    }
    bench.shard_goes_down(&dead, Fault::LosesCalls).await;
    for name in names() {
        let is_here = bench.store.shard_of(&user(&name)) == dead;
        let basis = if is_here {
            Basis::Rule(OutageRule::Local)
        } else {
            Basis::Store
        };
        assert_eq!(bench.lets_in(&playback(&name, "b")).await, basis, "{name}");
        let decision = bench.check(&playback(&name, "c")).await.unwrap();
        assert!(
            matches!(decision.admission, Admission::Refused(_)),
            "{name}"
        );
        assert_eq!(decision.basis, basis, "{name}");
    }
    assert_eq!(bench.failed_elsewhere(&dead), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_shard_must_learn_waits_and_the_others_learn_it() {
    let bench = cluster(2, OutageRule::Allow).await;
    let (first, second) = (master(1), master(2));
    for name in names() {
        bench.lets_in(&playback(&name, "a")).await;
    }
    for shard in [&first, &second] {
        bench.shard_goes_down(shard, Fault::LosesCalls).await;
    }
    for name in names() {
        let is_out = bench.store.shard_of(&user(&name)) != master(3);
        assert_eq!(bench.ends(&name, "a").await, !is_out, "{name}");
        bench.lets_in(&playback(&name, "b")).await;
    }
    let live = async |name: &str| bench.store.live(name).await;
    let (waiting, _) = bench.users_of(&second);
    bench.store.shard_fails(&first, Fault::None);
    bench
        .eventually("the others have learnt it", async || {
            bench.metric("streamgate_sessions_owed ") == waiting.len().to_string()
        })
        .await;
    // A sweep and a probe change nothing about what waits.
    bench.ledger.probe().await;
    bench.ledger.sweep();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for name in names() {
        let expected = if waiting.contains(&name) { "a" } else { "b" };
        assert_eq!(live(&name).await, [expected], "{name}");
    }
    assert_eq!(bench.ledger.cache.queued_users(), waiting.len());
    bench.store.shard_fails(&second, Fault::None);
    bench
        .eventually("all is learnt", async || {
            bench.metric("streamgate_sessions_owed ") == "0"
        })
        .await;
    for name in names() {
        assert_eq!(live(&name).await, ["b"], "{name}");
    }
    assert_eq!(bench.ledger.cache.queued_users(), 0);
}

#[tokio::test(start_paused = true)]
async fn all_that_answer_are_told_everything_before_the_process_exits() {
    let (bench, dead) = (cluster(2, OutageRule::Allow).await, master(2));
    let (here, elsewhere) = bench.users_of(&dead);
    bench.store.fails(&Fault::LosesCalls);
    for name in names() {
        bench.lets_in(&playback(&name, "a")).await;
    }
    bench.store.shard_fails(&dead, Fault::LosesCalls);
    bench.store.fails(&Fault::None);
    let mut shards = bench.ledger.watch_store();
    shards.wait_for(|shards| shards.up == 2).await.unwrap();
    bench.ledger.settle_all().await;
    for name in &elsewhere {
        assert_eq!(bench.store.live(name).await, ["a"], "{name}");
    }
    for name in &here {
        assert!(bench.store.live(name).await.is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_comes_back_empty_is_told_its_own_users_sessions() {
    let (bench, dead) = (cluster(1, OutageRule::Deny).await, master(2));
    let (here, _) = bench.users_of(&dead);
    for name in names() {
        bench.lets_in(&playback(&name, "a")).await;
    }
    bench.shard_goes_down(&dead, Fault::LosesCalls).await;
    bench
        .store
        .sound
        .forget(|user| bench.store.shard_of(user) == dead);
    let calls = [1, 3].map(|number| bench.store.calls_to(&master(number)));
    bench.store.shard_fails(&dead, Fault::None);
    bench
        .eventually("it is told", async || {
            for name in &here {
                if bench.store.live(name).await != ["a"] {
                    return false;
                }
            }
            true
        })
        .await;
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "1");
    let calls_now = [1, 3].map(|number| bench.store.calls_to(&master(number)));
    assert_eq!(calls_now, calls, "no other shard is told anything");
}

#[tokio::test(start_paused = true)]
async fn suspects_of_one_shard_hide_no_loss_of_another() {
    let bench = cluster(1, OutageRule::Deny).await;
    for name in names() {
        bench.lets_in(&playback(&name, "a")).await;
    }
    // As many suspects as one shard has, of which each is the only one that was lost.
    let (first, _) = bench.users_of(&master(1));
    for name in &first[..4] {
        let lost = user(name);
        bench.store.sound.forget(|user| *user == lost);
        bench.lets_in_again(name).await;
    }
    assert_eq!(bench.metric("streamgate_store_forgot_total "), "0");
    let lost = master(2);
    bench
        .store
        .sound
        .forget(|user| bench.store.shard_of(user) == lost);
    let (second, _) = bench.users_of(&lost);
    bench.lets_in_again(&second[0]).await;
    bench
        .eventually("the loss is found out", async || {
            bench.metric("streamgate_store_forgot_total ") == "1"
        })
        .await;
}

impl Bench {
    /// Reports that a user's playback is running, as the outbox does.
    async fn lets_in_again(&self, name: &str) {
        let user = user(name);
        let seen = self
            .ledger
            .cache
            .sighting(&user, &key(Kind::Playback, "a"))
            .unwrap();
        self.ledger.tell_running(&seen).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_promoted_master_starts_afresh() {
    let (bench, old, new) = (cluster(9, OutageRule::Deny).await, master(2), master(4));
    let (here, _) = bench.users_of(&old);
    // A master that has kept failing must answer many probes.
    for _ in 0..6 {
        bench.shard_goes_down(&old, Fault::LosesCalls).await;
        bench.store.shard_fails(&old, Fault::None);
        let mut shards = bench.ledger.watch_store();
        shards.wait_for(ShardTally::all_up).await.unwrap();
    }
    bench.shard_goes_down(&old, Fault::LosesCalls).await;
    bench.check(&playback(&here[0], "a")).await.unwrap_err();
    bench
        .store
        .is_owned_by(&[master(1), new.clone(), master(3)]);
    // Its first call decides, without a probe.
    let pings = bench.store.calls("ping");
    assert_eq!(bench.lets_in(&playback(&here[0], "a")).await, Basis::Store);
    assert_eq!(bench.store.calls("ping"), pings);
    let health = bench.ledger.store_health();
    assert_eq!((health.rule, health.trouble), (None, None));
    assert_eq!(bench.metric("streamgate_store_shards_out "), "0");
}

#[tokio::test(start_paused = true)]
async fn without_a_call_a_promoted_master_is_found_and_told_what_it_must_learn() {
    let (bench, old) = (cluster(2, OutageRule::Allow).await, master(2));
    let (here, _) = bench.users_of(&old);
    bench.shard_goes_down(&old, Fault::LosesCalls).await;
    for name in &here {
        bench.lets_in(&playback(name, "a")).await;
    }
    bench.store.is_owned_by(&[1, 4, 3].map(master));
    bench
        .eventually("it has learnt all", async || {
            bench.metric("streamgate_sessions_owed ") == "0"
        })
        .await;
    for name in &here {
        assert_eq!(bench.store.live(name).await, ["a"], "{name}");
    }
    assert_eq!(bench.metric("streamgate_store_shards "), "3");
}

#[tokio::test(start_paused = true)]
async fn slots_without_an_owner_follow_the_rule_until_they_have_one() {
    let bench = cluster(1, OutageRule::Deny).await;
    let (here, elsewhere) = bench.users_of(&master(2));
    bench
        .store
        .is_owned_by(&[master(1), Shard::unowned(), master(3)]);
    for name in &here {
        bench.check(&playback(name, "a")).await.unwrap_err();
    }
    for name in &elsewhere {
        assert_eq!(bench.lets_in(&playback(name, "a")).await, Basis::Store);
    }
    let troubles = bench.ledger.store_health().shards.unwrap().troubles;
    let troubled: Vec<_> = troubles
        .iter()
        .map(|(shard, _)| shard.to_string())
        .collect();
    assert_eq!(troubled, ["unowned"]);
    bench.is_owned_by([1, 2, 3]).await;
    for name in &here {
        assert_eq!(bench.lets_in(&playback(name, "a")).await, Basis::Store);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_of_a_removed_shard_is_no_outage() {
    let bench = cluster(1, OutageRule::Deny).await;
    let gone = bench.ledger.shards.find(&master(2)).unwrap();
    bench.is_owned_by([1, 9, 3]).await;
    let late = StoreError::NotAsked("it owns nothing any more".to_owned());
    bench.ledger.shards.note_loss(&gone, &late);
    assert!(gone.breaker.signs().up && !gone.breaker.signs().out);
}

#[tokio::test(start_paused = true)]
async fn shards_that_come_and_go_leave_nothing() {
    let bench = cluster(9, OutageRule::Deny).await;
    let mut past: Vec<Weak<KnownShard>> = Vec::new();
    for number in 10..500 {
        bench.store.is_owned_by(&[1, number, 3].map(master));
        let (here, _) = bench.users_of(&master(number));
        match number % 3 {
            // A call finds it.
            0 => drop(bench.check(&playback(&here[0], "a")).await),
            // A probe finds it.
            1 => bench.ledger.probe().await,
            // It is out when it goes.
            _ => {
                bench
                    .shard_goes_down(&master(number), Fault::LosesCalls)
                    .await;
            }
        }
        let all = bench.ledger.shards.all();
        assert_eq!(all.len(), 3, "{number}");
        past.extend(all.iter().map(Arc::downgrade));
    }
    bench.is_owned_by([1, 2, 3]).await;
    let mut left: Vec<_> = past.iter().filter_map(Weak::upgrade).collect();
    left.sort_by_key(|known| known.shard.clone());
    left.dedup_by_key(|known| known.shard.clone());
    let left: Vec<_> = left.iter().map(|known| known.shard.clone()).collect();
    assert_eq!(left, [master(1), master(3)]);
    assert!(bench.ledger.shards.take_unminded().is_empty());
}
