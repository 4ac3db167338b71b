//! Two instances, each a ledger with its lease cache and its outbox, share one store. A pure
//! roster, the model, is asked everything that the store is asked.
//!
//! The rule exists in four places: the roster, the scripts `admit` and `touch`, and the lease
//! cache, which answers in the store's place. Random histories check that they agree:
//!
//! - the store answers every question of a ledger as the roster does;
//! - a decision whose basis is the store is one that the store has made;
//! - an instance lets a stream go on unasked only before the latest expiry that it was granted, and
//!   never once it has begun to end the stream;
//! - the outage rule decides only in an outage, and as it is configured;
//! - soon after each outage nothing is left unsynced, and no ended stream counts;
//! - in a calm history no instance counts a stream that it knows to have ended, and the store counts
//!   none soon after its end;
//! - in the end the store, the roster and the instances count exactly the streams that still ask.
//!   In a calm history, none of those was ever refused.
//!
//! `PROPTEST_RNG_SEED=N` repeats the histories of a run that failed, and `PROPTEST_CASES=N` tries N
//! histories. The instances' own random choices, such as backoff, are not repeated.

mod history;
mod instance;
mod judge;
mod meanwhile;
mod notes;
mod quiet;
mod shared_store;
mod trial;
mod witness;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use streamgate::clock::Stopwatch;

use self::history::{History, any_history};
use self::notes::Tally;
use self::shared_store::Backend;
use self::trial::Trial;
use testkit::redis::RedisServer;

/// How many histories are tried, however long that takes.
const LEAST: u32 = 100;

/// For how long more are tried, up to proptest's usual number; for as long as it takes if that is
/// configured.
const TIME: Duration = Duration::from_secs(8);

/// Answers that so many histories give over and over. Without them the test would show nothing.
const REACHED: [&str; 4] = [
    "goes on unasked",
    "started",
    "full",
    "let in by the outage rule",
];

/// How many smaller histories are tried once one has failed.
const SHRINKS: u32 = 100;

#[test]
fn two_instances_agree_with_the_model_on_the_embedded_store() {
    try_histories(&Backend::Memory);
}

#[test]
fn two_instances_agree_with_the_model_on_redis() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    try_histories(&Backend::Redis(&server, &runtime));
}

/// Tries random histories on that store.
fn try_histories(backend: &Backend<'_>) {
    let time = Stopwatch::start();
    let (tried, has_failed) = (Cell::new(0_u32), Cell::new(false));
    let reached: RefCell<Tally> = RefCell::default();
    let is_counted = std::env::var_os("PROPTEST_CASES").is_some();
    let (config, seed) = configured();
    let outcome = TestRunner::new(config).run(&any_history(), |history| {
        let is_enough = !is_counted && time.elapsed() > TIME && tried.get() >= LEAST;
        if is_enough && !has_failed.get() {
            return Ok(());
        }
        tried.set(tried.get() + 1);
        let (verdict, tally) = play(&history, backend, tried.get());
        for (what, times) in tally {
            *reached.borrow_mut().entry(what).or_default() += times;
        }
        has_failed.set(has_failed.get() || verdict.is_err());
        verdict.map_err(TestCaseError::fail)
    });
    let (tried, reached) = (tried.get(), reached.into_inner());
    eprintln!("{tried} histories in {:?}: {reached:?}", time.elapsed());
    if let Err(TestError::Fail(reason, history)) = outcome {
        panic!("{reason}\n{history:#?}\nPROPTEST_RNG_SEED={seed} repeats these histories");
    }
    for what in REACHED {
        assert!(is_counted || reached.contains_key(what), "nothing {what}");
    }
}

/// How proptest is configured, and the seed of its histories.
fn configured() -> (Config, u64) {
    let config = Config::default();
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    let config = Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: SHRINKS,
        ..config
    };
    (config, seed)
}

/// Plays one history on that store: what was wrong and all that led to it, and what was answered
/// how often.
fn play(history: &History, backend: &Backend<'_>, number: u32) -> (Result<(), String>, Tally) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let trial = Arc::new(Trial::new(history, backend, number));
        trial.play(history).await;
        trial.come_to_rest().await;
        let mut notes = trial.notes();
        (notes.verdict(), std::mem::take(&mut notes.tally))
    })
}
