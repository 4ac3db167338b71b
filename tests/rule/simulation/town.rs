//! All that one episode has: the store, the instances, the viewers' truth, and what was wrong.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use streamgate::clock::{Clock, SystemClock, Timestamp};
use streamgate::config::FullRule;
use streamgate::identity::{SessionKey, UserId};
use streamgate::store::{MemoryStore, Store};
use tokio_util::sync::CancellationToken;

use super::gateway::{Gateway, LONGEST_LEASE, Limits, Place, any_settings, terms};
use super::truth::{HEAL, INTERVAL, SETTLE, Settled, Stream, UNDER_WAY, User, asks_again};
use testkit::streams::user;

/// How many users there are.
const USERS: usize = 4;

/// How many of the last events a failure shows.
const SHOWN: usize = 400;

/// One episode.
pub(super) struct Town {
    pub(super) shared: Arc<MemoryStore>,
    pub(super) clock: SystemClock,
    began: Timestamp,
    pub(super) names: Vec<UserId>,
    state: Mutex<State>,
    /// Cancelled when no stream starts any more.
    pub(super) evening: CancellationToken,
}

/// What changes.
pub(super) struct State {
    pub(super) gateways: Vec<Gateway>,
    pub(super) users: Vec<User>,
    /// Each limit that any instance had, and until when.
    limits: Vec<(u32, Timestamp)>,
    wrong: Vec<String>,
    log: VecDeque<String>,
    print: DefaultHasher,
    pub(super) tally: Tally,
}

/// What happened how often.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) requests: usize,
    pub(super) started: usize,
    pub(super) full: usize,
    pub(super) from_memory: usize,
    pub(super) by_rule: usize,
    pub(super) outages: usize,
    pub(super) faults: usize,
    pub(super) forgettings: usize,
    pub(super) restarts: usize,
    pub(super) looks: usize,
}

impl Town {
    /// The episode of that seed. Call it in the test's runtime.
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let clock = SystemClock::start();
        let shared = Arc::new(MemoryStore::new(terms(), Arc::new(clock.clone())));
        let limits = Limits::any(rng);
        let settings = any_settings(rng);
        let gateways = (0..rng.random_range(2..=5))
            .map(|number| Gateway::start((number, 0), (&shared, &clock), limits, settings))
            .collect();
        let began = clock.now();
        let mut state = State {
            gateways,
            users: (0..USERS).map(|_| User::default()).collect(),
            limits: Vec::new(),
            wrong: Vec::new(),
            log: VecDeque::new(),
            print: DefaultHasher::new(),
            tally: Tally::default(),
        };
        state.may_displace(limits, began);
        Self {
            shared,
            began,
            names: (0..USERS).map(|n| user(&format!("user {n}"))).collect(),
            state: Mutex::new(state),
            evening: CancellationToken::new(),
            clock,
        }
    }

    /// What changes.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Records an event.
    pub(super) fn log(&self, what: &str) {
        let at = self.now().since(self.began);
        self.state().note(format!("{at:?} {what}"));
    }

    /// Records a violation.
    pub(super) fn wrong(&self, what: &str) {
        self.log(&format!("WRONG: {what}"));
        self.state().wrong.push(what.to_owned());
    }

    /// Whether anything was wrong.
    pub(super) fn is_wrong(&self) -> bool {
        !self.state().wrong.is_empty()
    }

    /// The first violation and what led to it; otherwise what happened, and its print: two runs
    /// with the same print saw the same.
    pub(super) fn verdict(&self) -> Result<(Tally, u64), String> {
        let state = self.state();
        match state.wrong.first() {
            None => Ok((state.tally, state.print.finish())),
            Some(wrong) => {
                let log: Vec<&str> = state.log.iter().map(String::as_str).collect();
                Err(format!("{wrong}\n{}", log.join("\n")))
            }
        }
    }

    /// A generator of its own for one of those who act, so that nobody's choices depend on the
    /// order in which others choose.
    pub(super) fn generator(seed: u64, who: usize) -> StdRng {
        let mut hasher = DefaultHasher::new();
        (seed, who).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    /// Looks at everything: whether the store counts what it must and nothing else.
    pub(super) async fn look(&self) {
        for (number, name) in self.names.iter().enumerate() {
            let listing = self.shared.list(name).await.unwrap();
            let live: Vec<SessionKey> = listing.sessions.into_iter().map(|it| it.key).collect();
            let now = self.now();
            let flaws = self.state().flaws(number, &live, now);
            for flaw in flaws {
                self.wrong(&format!("{name}: {flaw}"));
            }
        }
        self.state().tally.looks += 1;
    }

    /// All limits are like that from now on, at one instance.
    pub(super) fn change(&self, gateway: usize, limits: Limits) {
        let now = self.now();
        let mut state = self.state();
        state.remember_limits(now);
        let changed = limits.changeable();
        state.gateways[gateway].in_force.change(changed).unwrap();
        state.may_displace(limits, now);
    }

    /// Kills an instance and starts another in its place.
    pub(super) fn restart(&self, gateway: usize, limits: Limits, rng: &mut StdRng) {
        let now = self.now();
        let mut state = self.state();
        state.remember_limits(now);
        let (number, generation) = state.gateways[gateway].place;
        let place = (number, generation + 1);
        let settings = any_settings(rng);
        let started = Gateway::start(place, (&self.shared, &self.clock), limits, settings);
        let mut killed = std::mem::replace(&mut state.gateways[gateway], started);
        killed.killed.cancel();
        // What it had yet to tell is lost, and it may have been in trouble.
        killed.fares(&streamgate::store::faulty::Fault::None, now);
        let acted_late = killed.trouble.acted_late;
        let started = &mut state.gateways[gateway];
        (started.trouble.clear, started.trouble.acted_late) = (now, acted_late);
        state.may_displace(limits, now);
        state.tally.restarts += 1;
    }

    /// The store forgets these users.
    pub(super) fn forget(&self, users: &[usize]) {
        let now = self.now();
        let names: Vec<&UserId> = users.iter().map(|number| &self.names[*number]).collect();
        self.shared.forget(|name| names.contains(&name));
        let mut state = self.state();
        for number in users {
            state.users[*number].forgotten = Some(now);
        }
        state.tally.forgettings += 1;
    }
}

impl State {
    fn note(&mut self, event: String) {
        event.hash(&mut self.print);
        if self.log.len() >= SHOWN {
            self.log.pop_front();
        }
        self.log.push_back(event);
    }

    /// Remembers the limits that are in force until now.
    fn remember_limits(&mut self, now: Timestamp) {
        let limits: Vec<u32> = self.gateways.iter().map(Gateway::limit).collect();
        self.limits
            .extend(limits.into_iter().map(|limit| (limit, now)));
        self.limits
            .retain(|(_, until)| until.after(Duration::from_secs(60)) > now);
    }

    /// The lowest and the highest limit that any instance had since then.
    pub(super) fn limits(&self, since: Timestamp) -> (usize, usize) {
        let before = self.limits.iter().filter(|(_, until)| *until >= since);
        let all: Vec<u32> = before
            .map(|(limit, _)| *limit)
            .chain(self.gateways.iter().map(Gateway::limit))
            .collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        (
            usize::try_from(*least).unwrap(),
            usize::try_from(*most).unwrap(),
        )
    }

    /// Where starts displace others now, each user's streams may be displaced without their
    /// knowing.
    fn may_displace(&mut self, limits: Limits, now: Timestamp) {
        if limits.when_full != FullRule::Refuse {
            self.users
                .iter_mut()
                .for_each(|user| user.displaced = Some(now));
        }
    }

    /// A user's start is sent or answered: whether it may displace another.
    pub(super) fn starts(&mut self, number: usize, now: Timestamp) {
        let displaces = |gateway: &Gateway| {
            let in_force = gateway.in_force.now();
            in_force.limits.when_full != FullRule::Refuse
        };
        if self.gateways.iter().any(displaces) {
            self.users[number].displaced = Some(now);
        }
    }

    /// What is wrong with what the store counts for a user.
    fn flaws(&mut self, number: usize, live: &[SessionKey], now: Timestamp) -> Vec<String> {
        self.users[number].prune(now);
        let state = &*self;
        let (user, mut flaws) = (&state.users[number], Vec::new());
        for key in live {
            match user.streams.get(key) {
                None => flaws.push(format!("nobody knows {key}, and it counts")),
                Some(stream) if !user.may_count(stream, state, now) => {
                    flaws.push(format!("{key} is over, and counts: {stream:?}"));
                }
                Some(_) => {}
            }
        }
        let is_calm = state.is_calm_since(now.before(HEAL));
        let is_remembered = user.forgotten.is_none_or(|at| at.after(HEAL) <= now);
        for (key, stream) in &user.streams {
            let goes_on = stream.watches
                && stream.over.is_none()
                && stream.under_way == 0
                && !stream.by_rule
                && !stream.is_ended_by_operator
                && !stream.has_had_its_lease(now)
                && !user.may_be_guest(stream)
                && !user.may_be_displaced(stream)
                && stream.sent.after(SETTLE) < now;
            if is_calm && is_remembered && goes_on && !live.contains(key) {
                flaws.push(format!("{key} goes on, and doesn't count: {stream:?}"));
            }
            let is_sure = user.surely_counts(stream, now) && stream.under_way == 0;
            if is_sure && !live.contains(key) {
                flaws.push(format!("{key} must count, and doesn't: {stream:?}"));
            }
        }
        flaws
    }

    /// Whether no instance has had trouble since then, or been restarted.
    fn is_calm_since(&self, since: Timestamp) -> bool {
        let mut troubles = self.gateways.iter().map(|gateway| gateway.trouble);
        troubles.all(|trouble| !trouble.is_on && trouble.clear <= since)
    }

    /// Whether a stream that watches must be let go on by an instance that it asked at `sent`.
    pub(super) fn must_go_on(
        &self,
        (number, stream): (usize, &Stream),
        key: &SessionKey,
        gateway: &Gateway,
        sent: Timestamp,
        now: Timestamp,
    ) -> bool {
        let user = &self.users[number];
        let is_free = stream.is_ended_by_operator
            || user.may_be_displaced(stream)
            || user.may_be_guest(stream);
        if is_free || !asks_again(key.kind) {
            return false;
        }
        // What an instance holds runs out while others are asked.
        let held = stream.held_by.filter(|hold| hold.place == gateway.place);
        if gateway.has_trouble(sent) || gateway.has_trouble(now) {
            let trouble = gateway.trouble.since;
            let was_held = held.is_some_and(|hold| {
                hold.since < trouble && trouble < hold.last.after(INTERVAL + INTERVAL)
            });
            return was_held && gateway.is_short(now);
        }
        let is_held = held.is_some_and(|hold| now < hold.last.after(gateway.lease / 3));
        is_held || user.surely_counts(stream, now.after(UNDER_WAY))
    }
}

impl Settled for State {
    fn is_settled(&self, (number, generation): Place, told: Timestamp) -> bool {
        let gateway = &self.gateways[number];
        let now = gateway.store_now();
        let told = told.max(gateway.trouble.clear);
        gateway.place.1 == generation && !gateway.trouble.is_on && told.after(SETTLE) <= now
    }

    fn acted_late(&self, (number, _): Place, since: Timestamp) -> bool {
        self.gateways[number].trouble.acted_late >= Some(since)
    }
}

impl Gateway {
    /// The limit that this instance applies.
    fn limit(&self) -> u32 {
        self.in_force.now().limits.policy.default
    }

    /// The time.
    fn store_now(&self) -> Timestamp {
        self.instance.ledger.now()
    }
}

/// Longer than anything is remembered: what a user has displaced is, for a lease each.
pub(super) const NIGHT: Duration = LONGEST_LEASE.saturating_mul(12);
