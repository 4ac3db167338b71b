//! How many streams starts found live: what another limit would refuse.
//!
//! A start that finds `n` streams of its user live would be refused at any limit up to `n`. Starts
//! are counted exactly. Users are sampled as in [`super::sample`]: of each, the most that any of
//! their starts found.

use std::collections::{BTreeMap, HashMap};

use super::wire::{Decoder, Encoder};

/// The version of the bytes.
const VERSION: u64 = 1;

/// The most streams that are told apart: more count as that many.
pub(super) const MOST: usize = 32;

/// How many users a tally has at most.
const ROOM: usize = 2048;

/// How many plans a tally tells apart. Starts on any other count as without a plan.
const MOST_PLANS: usize = 64;

/// How the bytes begin: a random number, new with each change, by which a change notices another.
pub(super) const NONCE_BYTES: usize = 8;

/// What starts found, in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Concurrency {
    /// Starts by plan; the empty name is for users without one.
    plans: BTreeMap<String, FoundStreams>,
    /// How many zero bits the digests of users begin with.
    level: u32,
    /// The users: the most that a start of theirs found, and their plan.
    users: HashMap<u64, (usize, String)>,
}

/// What the starts of users on one plan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct FoundStreams {
    /// Starts by the number of streams that they found live.
    starts: BTreeMap<usize, u64>,
    /// The fewest that a start found that could only play instead of another stream, or not at all.
    /// Above it nothing is known for certain, since what was refused never counted.
    capped_at: Option<usize>,
}

/// What a limit would do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitEffect {
    /// The limit.
    pub limit: usize,
    /// The part of all starts that would be refused.
    pub starts_refused: f64,
    /// The part of all users of whom a start would be refused.
    pub users_refused: f64,
    /// The standard error of `users_refused`; 0 if it is exact.
    pub users_error: f64,
    /// Whether it would be more, because a lower limit was in force.
    pub lower_bound: bool,
}

/// What limits would do to the users of one plan, or to all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitEffects {
    /// All starts.
    pub starts: u64,
    /// About how many users they were by.
    pub users: u64,
    /// Each limit, from 1 on.
    pub limits: Vec<LimitEffect>,
}

// === impl Concurrency ===

impl Concurrency {
    /// Counts a start. `is_capped` says that it found its user's limit reached.
    pub(super) fn count(&mut self, user: u64, plan: &str, found: usize, is_capped: bool) {
        let found = found.min(MOST);
        let plan = self.known(plan).to_owned();
        let of_plan = self.plans.entry(plan.clone()).or_default();
        *of_plan.starts.entry(found).or_default() += 1;
        if is_capped {
            of_plan.cap(found);
        }
        self.count_user(user, found, plan);
    }

    /// Whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Adds another tally.
    pub(super) fn merge(&mut self, other: &Self) {
        for (plan, found) in &other.plans {
            let plan = self.known(plan).to_owned();
            let sum = self.plans.entry(plan).or_default();
            for (streams, starts) in &found.starts {
                let all = sum.starts.entry(*streams).or_default();
                *all = all.saturating_add(*starts);
            }
            if let Some(capped_at) = found.capped_at {
                sum.cap(capped_at);
            }
        }
        self.raise(self.level.max(other.level));
        for (user, (found, plan)) in &other.users {
            self.count_user(*user, *found, plan.clone());
        }
    }

    /// The plan, if it is or can be told apart.
    fn known<'a>(&self, plan: &'a str) -> &'a str {
        let has_room = self.plans.len() < MOST_PLANS || self.plans.contains_key(plan);
        if has_room { plan } else { "" }
    }

    /// Adds a user, if they are in the sample.
    fn count_user(&mut self, user: u64, found: usize, plan: String) {
        if user.leading_zeros() < self.level {
            return;
        }
        let most = self.users.entry(user).or_default();
        if found >= most.0 {
            *most = (found, plan);
        }
        while self.users.len() > ROOM {
            self.raise(self.level + 1);
        }
    }

    /// Raises the level of the sample.
    fn raise(&mut self, level: u32) {
        if level > self.level {
            self.level = level;
            self.users.retain(|user, _| user.leading_zeros() >= level);
        }
    }

    /// The plans.
    pub(super) fn plans(&self) -> impl Iterator<Item = &str> {
        self.plans.keys().map(String::as_str)
    }

    /// What each limit would do to the users of a plan, or to all users.
    #[expect(clippy::cast_precision_loss, reason = "shares need no 53 bits")]
    pub(super) fn effects(&self, plan: Option<&str>) -> LimitEffects {
        let of_plan = |name: &str| plan.is_none_or(|plan| plan == name);
        let (mut starts, mut capped_at) = (BTreeMap::<usize, u64>::new(), None::<usize>);
        for (_, found) in self.plans.iter().filter(|(name, _)| of_plan(name)) {
            for (streams, count) in &found.starts {
                *starts.entry(*streams).or_default() += count;
            }
            capped_at = match (capped_at, found.capped_at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        let users = self.users.values().filter(|(_, name)| of_plan(name));
        let users: Vec<usize> = users.map(|(found, _)| *found).collect();
        let (all, sampled) = (starts.values().sum::<u64>(), users.len());
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let most = starts.keys().next_back().copied().unwrap_or_default();
        let limits = (1..=(most + 1).clamp(4, MOST)).map(|limit| {
            let refused = starts.range(limit..).map(|(_, count)| count).sum::<u64>();
            let users_refused = users.iter().filter(|found| **found >= limit).count();
            let users_refused = share(users_refused as f64, sampled as f64);
            let deviation =
                (users_refused * (1.0 - users_refused) / (sampled.max(1)) as f64).sqrt();
            LimitEffect {
                limit,
                starts_refused: share(refused as f64, all as f64),
                users_refused,
                users_error: if self.level > 0 { deviation } else { 0.0 },
                lower_bound: capped_at.is_some_and(|capped_at| limit > capped_at),
            }
        });
        LimitEffects {
            starts: all,
            users: (sampled as u64) << self.level.min(40),
            limits: limits.collect(),
        }
    }

    /// The tally in bytes, which begin with that number.
    pub(super) fn encode(&self, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.word(u64::from_be_bytes(nonce));
        encoder.number(VERSION);
        encoder.count(self.plans.len());
        for (plan, found) in &self.plans {
            encoder.text(plan);
            encoder.count(found.capped_at.map_or(0, |capped_at| capped_at + 1));
            encoder.count(found.starts.len());
            for (streams, starts) in &found.starts {
                encoder.count(*streams);
                encoder.number(*starts);
            }
        }
        encoder.number(self.level);
        let places: HashMap<_, _> = self.plans.keys().zip(0..).collect();
        encoder.count(self.users.len());
        for (user, (found, plan)) in &self.users {
            encoder.word(*user);
            encoder.count(*found);
            encoder.number(places.get(plan).copied().unwrap_or(0_u64));
        }
        encoder.bytes()
    }

    /// The tally from bytes, if they are one of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        decoder.word()?;
        if decoder.number()? != VERSION {
            return None;
        }
        let (mut tally, mut names) = (Self::default(), Vec::new());
        for _ in 0..decoder.count()? {
            let plan = decoder.text()?.to_owned();
            let mut found = FoundStreams {
                capped_at: decoder.small::<usize>()?.checked_sub(1),
                ..FoundStreams::default()
            };
            for _ in 0..decoder.count()? {
                let streams = decoder.small::<usize>()?.min(MOST);
                found.starts.insert(streams, decoder.number()?);
            }
            names.push(plan.clone());
            tally.plans.insert(plan, found);
        }
        tally.level = decoder.small()?;
        for _ in 0..decoder.count()? {
            let (user, found) = (decoder.word()?, decoder.small::<usize>()?.min(MOST));
            let plan = names.get(decoder.small::<usize>()?)?.clone();
            tally.users.insert(user, (found, plan));
        }
        Some(tally)
    }
}

// === impl FoundStreams ===

impl FoundStreams {
    /// Records that a start found the limit reached.
    fn cap(&mut self, found: usize) {
        self.capped_at = Some(self.capped_at.map_or(found, |before| before.min(found)));
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn user(number: u64) -> u64 {
        let digest = Sha256::digest(number.to_be_bytes());
        u64::from_be_bytes(*digest.first_chunk().unwrap())
    }

    /// Starts of many users, split over two tallies, and the same in one.
    fn tallies(users: u64) -> (Concurrency, Concurrency, Concurrency) {
        let (mut one, mut other, mut both) = (
            Concurrency::default(),
            Concurrency::default(),
            Concurrency::default(),
        );
        for number in 0..users {
            let most = usize::try_from(number % 5).unwrap();
            for found in 0..=most {
                let part = if (number + u64::try_from(found).unwrap()) % 2 == 0 {
                    &mut one
                } else {
                    &mut other
                };
                let plan = if number % 2 == 0 { "basic" } else { "" };
                part.count(user(number), plan, found, found == 4);
                both.count(user(number), plan, found, found == 4);
            }
        }
        (one, other, both)
    }

    #[test]
    fn a_merged_tally_is_the_tally_of_all() {
        for users in [100, 20_000] {
            let (mut one, other, both) = tallies(users);
            one.merge(&other);
            one.raise(both.level);
            let mut both = both;
            both.raise(one.level);
            assert_eq!(one, both);
            let bytes = one.encode([7; NONCE_BYTES]);
            assert_eq!(Concurrency::decode(&bytes), Some(one));
            assert_eq!(Concurrency::decode(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn a_limit_refuses_the_starts_that_found_as_many() {
        let (_, _, both) = tallies(100);
        let effects = both.effects(None);
        assert_eq!((effects.starts, effects.users), (300, 100));
        let refused: Vec<_> = effects
            .limits
            .iter()
            .map(|row| {
                (
                    row.limit,
                    row.starts_refused,
                    row.users_refused,
                    row.lower_bound,
                )
            })
            .collect();
        let expected = [
            (1, 200.0 / 300.0, 0.8, false),
            (2, 120.0 / 300.0, 0.6, false),
            (3, 60.0 / 300.0, 0.4, false),
            (4, 20.0 / 300.0, 0.2, false),
            (5, 0.0, 0.0, true),
        ];
        assert_eq!(refused, expected);
        assert_eq!(both.effects(Some("basic")).users, 50);
        assert_eq!(
            both.effects(Some("gold")),
            LimitEffects {
                limits: both.effects(Some("gold")).limits,
                ..LimitEffects::default()
            }
        );
    }

    #[test]
    fn a_share_of_many_users_is_within_its_error() {
        let (_, _, both) = tallies(50_000);
        for (row, truth) in both.effects(None).limits.iter().zip([0.8, 0.6, 0.4, 0.2]) {
            let off = (row.users_refused - truth).abs();
            assert!(
                row.users_error > 0.0 && off < 4.0 * row.users_error,
                "{row:?}"
            );
        }
        assert!(both.encode([0; NONCE_BYTES]).len() < 32_768);
    }
}
