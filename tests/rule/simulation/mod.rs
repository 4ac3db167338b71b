//! Hours of viewers in seconds: two to five instances share one store that is slow, loses calls and
//! answers, does what it said it could not, and forgets; instances are killed, and settings change.
//!
//! The viewers keep the truth. Against it are held, at each answer and four times a second:
//!
//! - no start gets in above the limit while the store knows the streams that surely count;
//! - no start is refused while fewer than the limit can count;
//! - nobody who watches is cut off by trouble of less than two thirds of a lease, nor without any;
//! - the outage rule decides only in trouble, and as it is configured;
//! - what is over doesn't count: soon after its end was told, and in any case after its lease;
//! - what goes on counts, soon after the last trouble;
//! - in the end nothing is left.
//!
//! `STREAMGATE_SIMULATION_SEED=N` repeats the episode that failed, and
//! `STREAMGATE_SIMULATION_HOURS=N` simulates that many hours.

mod gateway;
mod judge;
mod town;
mod truth;
mod viewer;
mod weather;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use streamgate::clock::Stopwatch;
use streamgate::store::faulty::Fault;
use tokio::task::JoinSet;

use self::gateway::Gateway;
use self::town::{NIGHT, Tally, Town};
use self::viewer::DEVICES;

/// How long an episode is.
const EPISODE: Duration = Duration::from_secs(600);

/// The pause between two looks at the store.
const LOOK: Duration = Duration::from_millis(250);

/// How many episodes are played at least where no number is given, and for how long more follow.
const LEAST: u64 = 3;

/// For how long more are played.
const TIME: Duration = Duration::from_secs(6);

#[test]
fn simulated_viewers_are_limited_and_left_in_peace() {
    let set = |name: &str| {
        let it = std::env::var_os(name)?.into_string().unwrap();
        Some(it.parse().unwrap())
    };
    let only: Option<u64> = set("STREAMGATE_SIMULATION_SEED");
    let hours: Option<u64> = set("STREAMGATE_SIMULATION_HOURS");
    let first = only.unwrap_or_else(|| rand::rng().random_range(0..u64::MAX / 2));
    let time = Stopwatch::start();
    let (mut total, mut episodes) = (Tally::default(), 0);
    loop {
        let is_enough = match (only, hours) {
            (Some(_), _) => episodes >= 1,
            (None, Some(hours)) => EPISODE.as_secs() * episodes >= hours * 3600,
            (None, None) => episodes >= LEAST && time.elapsed() > TIME,
        };
        if is_enough {
            break;
        }
        let seed = first + episodes;
        match play(seed) {
            Ok((tally, print)) => {
                total.add(&tally);
                if only.is_some() {
                    eprintln!("seed {seed}: print {print:016x}");
                }
            }
            Err(wrong) => panic!("{wrong}\nSTREAMGATE_SIMULATION_SEED={seed} repeats this episode"),
        }
        episodes += 1;
    }
    let hours = EPISODE.as_secs() * episodes / 360;
    eprintln!(
        "{}.{} hours in {:?}, seeds from {first}: {total:?}",
        hours / 10,
        hours % 10,
        time.elapsed()
    );
    assert!(
        only.is_some() || total.has_seen_all(),
        "too little happened: {total:?}"
    );
}

/// Plays the episode of that seed: what happened, or what was wrong.
fn play(seed: u64) -> Result<(Tally, u64), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let town = Arc::new(Town::new(&mut Town::generator(seed, 0)));
        live(&town, seed).await;
        if !town.is_wrong() {
            rest(&town).await;
        }
        town.verdict()
    })
}

/// A day of the town: it ends early if anything is wrong.
async fn live(town: &Arc<Town>, seed: u64) {
    let mut acting = JoinSet::new();
    // Two, so that one fault meets another, or a restart.
    for weather in 0..2 {
        let (all, rng) = (Arc::clone(town), Town::generator(seed, 1 + weather));
        acting.spawn(async move { all.weather(rng).await });
    }
    for user in 0..town.names.len() {
        for device in 0..DEVICES {
            let (all, rng) = (
                Arc::clone(town),
                Town::generator(seed, 3 + user * DEVICES + device),
            );
            acting.spawn(async move { all.device(user, device, rng).await });
        }
    }
    let day = Stopwatch::start();
    while day.elapsed() < EPISODE && !town.is_wrong() {
        tokio::time::sleep(LOOK).await;
        town.look().await;
    }
    town.evening.cancel();
    while let Some(done) = acting.join_next().await {
        done.unwrap();
    }
}

/// The night: whatever was left ends, and the instances have nothing to tell.
async fn rest(town: &Town) {
    let now = town.now();
    let gateways: Vec<_> = {
        let mut state = town.state();
        let gateways = state.gateways.iter_mut();
        gateways
            .map(|gateway: &mut Gateway| {
                gateway.fares(&Fault::None, now);
                Arc::clone(&gateway.instance)
            })
            .collect()
    };
    let night = Stopwatch::start();
    while night.elapsed() < NIGHT && !town.is_wrong() {
        tokio::time::sleep(LOOK).await;
        town.look().await;
    }
    let left = town.shared.sweep();
    if left > 0 {
        town.wrong(&format!("{left} users are never forgotten"));
    }
    for (number, instance) in gateways.iter().enumerate() {
        let (held, untold) = instance.held_and_untold();
        if held + untold > 0 {
            town.wrong(&format!("{number} holds {held}, and has {untold} to tell"));
        }
        if !instance.runs() {
            town.wrong(&format!("the background work of {number} has ended"));
        }
    }
}

impl Tally {
    /// Adds what happened in another episode.
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.started += other.started;
        self.full += other.full;
        self.from_memory += other.from_memory;
        self.by_rule += other.by_rule;
        self.outages += other.outages;
        self.faults += other.faults;
        self.forgettings += other.forgettings;
        self.restarts += other.restarts;
        self.looks += other.looks;
    }

    /// Whether everything happened that a simulation is about.
    const fn has_seen_all(&self) -> bool {
        let answers = [self.started, self.full, self.from_memory, self.by_rule];
        let events = [self.faults, self.forgettings, self.restarts];
        let mut place = 0;
        while place < answers.len() {
            if answers[place] == 0 || (place < events.len() && events[place] == 0) {
                return false;
            }
            place += 1;
        }
        true
    }
}
